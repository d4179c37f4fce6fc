"""Learning curves: the scores of the checkpoints of one training over its steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from taskmill.evaluation.aggregation.nodes import ALL
from taskmill.records import FINAL, INITIAL, LEVELS

_STEP = re.compile(r"step-(\d+)")
_FIGURES = ("value", "low", "high", "clean_value", "clean_low", "clean_high", "num")


def step_of(model: str, last_step: int) -> int | None:
    """Return the updates behind a model of a run: 0 for `initial`, N for `step-N`; None for one that is not trained there."""
    if model == FINAL:
        return last_step
    found = _STEP.fullmatch(model)
    return 0 if model == INITIAL else int(found[1]) if found else None


def curves(rows: Iterable[Mapping[str, Any]], last_step: int) -> list[dict[str, Any]]:
    """Return the points of the learning curves of levels, and of the selection score as level `all`.

    Args:
        rows: of scores.parquet.
        last_step: updates behind the model `final`, in whose place a checkpoint of the same step is left out.

    Returns:
        {step, model, level, shots, value, low, high, clean_value, clean_low, clean_high, num} by level, shots and step.
    """
    order = (*LEVELS, ALL)
    points = []
    for row in rows:
        step = step_of(row["model"], last_step)
        if row["scope"] != "level" or row["name"] not in order or step is None:
            continue
        if step == last_step and row["model"] not in (FINAL, INITIAL):
            continue
        head = {"step": step, "model": row["model"], "level": row["name"], "shots": row["shots"]}
        points.append({**head, **{name: row[name] for name in _FIGURES}})
    return sorted(points, key=lambda p: (order.index(p["level"]), p["shots"], p["step"]))
