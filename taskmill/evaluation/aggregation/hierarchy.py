"""Scores from predictions: the rows of scores.parquet (OPT-IML section 4.1; see `nodes` for the hierarchy).

Intervals are the 2.5 and 97.5 percentiles of the same means of means over resampled data. A resample draws, in each task,
as many groups as the task has, with replacement; the draw belongs to the task alone, so variants, shots and models of a task
share it and their differences are paired.

The clean value is the same mean of means over clean predictions only, with its own interval from resamples of the groups
that hold them. Where a task has no clean prediction, it is missing from the clean means above it, so `matched_value` is the full
value of the parts that are in them: the difference to it is one of examples, never one of tasks. `num_clean` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import pyarrow as pa

from taskmill.evaluation.aggregation.nodes import ALL_SHOTS, SCOPES, Key, Node, Place, climb, mean, select
from taskmill.evaluation.aggregation.resampling import interval
from taskmill.evaluation.aggregation.variants import place_of, variant_nodes

MIXED = "mixed"
"""`metric` of a score whose parts have different metrics."""
DECIMALS = 6
"""Scores are rounded, so that last bits that differ between machines never reach a file."""
COLUMNS = (
    "model",
    "task",
    "shots",
    "template",
    "group",
    "family",
    "subtask",
    "benchmark",
    "level",
    "category",
    "metric",
    "value",
    "statistics",
    "clean",
)
"""The columns of predictions that scores are computed from; `subtask` and `statistics` may be absent."""


def aggregate(parts: Iterable[pa.Table], *, seed: int, num_resamples: int) -> list[dict[str, Any]]:
    """Return the rows of scores.parquet.

    Args:
        parts: tables with COLUMNS, every value given; each holds one task under one model and number of shots, and those
            of one model follow one another, so that the resamples of one model are held at a time.
        seed: of the recipe; with the task it determines each resample.
        num_resamples: bootstrap resamples, at least 1.

    Returns:
        rows sorted by model, scope (variant first, level last), name and shots.

    Raises:
        ValueError: a prediction has no value, or the parts of a model are apart.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for model, mine in groupby((part for part in parts if part.num_rows), key=_model):
        if model in rows:
            raise ValueError(f"the parts of {model} are apart")
        rows[model] = _model_rows(model, mine, seed, num_resamples)
    return sorted(
        (row for mine in rows.values() for row in mine),
        key=lambda r: (r["model"], SCOPES.index(r["scope"]), r["name"], r["shots"]),
    )


def _model(part: pa.Table) -> str:
    return str(part.column("model")[0].as_py())


def _model_rows(model: str, parts: Iterable[pa.Table], seed: int, num_resamples: int) -> list[dict[str, Any]]:
    """Return the rows of one model, in no order."""
    rows: list[dict[str, Any]] = []
    by_shots: dict[int, dict[Place, Node]] = {}
    for part in parts:
        shots, place = part.column("shots")[0].as_py(), place_of(part)
        variants = variant_nodes(part, seed, num_resamples)
        rows += _rows(model, shots, {("variant", f"{place.task}::{name}"): n for name, n in variants.items()})
        by_shots.setdefault(shots, {})[place] = mean(list(variants.values()))
    scores = {shots: climb(by_shots[shots], mean) for shots in sorted(by_shots)}
    for shots, named in scores.items():
        rows += _rows(model, shots, named)
    return rows + _rows(model, ALL_SHOTS, select(scores, mean))


def metric_name(metrics: frozenset[str]) -> str:
    """Return the metric of a score: that of all of its parts, or MIXED."""
    return next(iter(metrics)) if len(metrics) == 1 else MIXED


def _rows(model: str, shots: int, named: Mapping[Key, Node]) -> list[dict[str, Any]]:
    return [_row(model, shots, scope, name, node) for (scope, name), node in named.items()]


def _row(model: str, shots: int, scope: str, name: str, node: Node) -> dict[str, Any]:
    full, clean = node.full, node.clean
    low, high = interval(full.samples_R, full.value)
    clean_low, clean_high = (
        (None, None)
        if clean is None
        else (low, high)
        if clean is full
        else interval(clean.samples_R, clean.value)
    )
    return {
        "model": model,
        "scope": scope,
        "name": name,
        "shots": shots,
        "metric": metric_name(node.metrics),
        "value": rounded(full.value),
        "low": rounded(low),
        "high": rounded(high),
        "num": full.num,
        "clean_value": rounded(clean.value if clean is not None else None),
        "matched_value": rounded(node.matched),
        "clean_low": rounded(clean_low),
        "clean_high": rounded(clean_high),
        "num_clean": node.num_clean,
    }


def rounded(value: float | None) -> float | None:
    """Return a score as tables hold it; None for None, and never -0."""
    return None if value is None else round(value, DECIMALS) + 0.0
