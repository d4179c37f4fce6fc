"""Rows of predictions for the tests of comparisons and exports, and finished runs that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from finished_run import write_stage

from taskmill.evaluation.aggregation.hierarchy import aggregate
from taskmill.evaluation.aggregation.joining import COLUMNS

TYPES = {
    **dict.fromkeys(COLUMNS, pa.string()),
    "shots": pa.int64(),
    "group": pa.uint64(),
    "value": pa.float64(),
    "statistics": pa.list_(pa.float64()),
    "clean": pa.bool_(),
}
"""Columns that a comparison reads."""


def prediction(task: str, example: int, value: float, **more: Any) -> dict[str, Any]:
    """Return what a comparison reads of a prediction; `more` gives columns another value."""
    benchmark, _, name = task.partition("/")
    row = {
        "model": "final",
        "task": task,
        "example": f"{task}#{example}",
        "template": "a",
        "shots": 0,
        "group": example,
        "family": name,
        "subtask": None,
        "benchmark": benchmark,
        "level": "held_out",
        "category": "QA",
        "metric": "accuracy",
        "value": value,
        "statistics": None,
        "clean": True,
    }
    return {**row, **more}


def write_scored(run: Path, rows: Sequence[dict[str, Any]], only_predictions: bool = False) -> Path:
    """Write a run with nothing but a finished evaluate stage; returns the run."""
    run.mkdir(parents=True, exist_ok=True)
    keys = dict.fromkeys((row["model"], row["task"], row["shots"]) for row in rows)
    parts = [[r for r in rows if (r["model"], r["task"], r["shots"]) == key] for key in keys]
    files: dict[str, Any] = {
        "predictions.parquet": (
            "scores/predictions",
            [{**row, "prompt": bytes(8)} for part in parts for row in part],
        )
    }
    if not only_predictions:
        schema = pa.schema(list(TYPES.items()))
        tables = [pa.Table.from_pylist(part, schema=schema) for part in parts]
        files["scores.parquet"] = ("scores/scores", aggregate(tables, seed=1, num_resamples=50))
    write_stage(run, "evaluate", files, num_predictions=len(rows))
    return run
