"""Scores for reading: the trained model beside the untrained one, the best and the worst tasks with a prediction each.

Reads scores.parquet and predictions.parquet of the evaluate stage.
"""

from __future__ import annotations

from collections import Counter

from taskmill.commands import figures
from taskmill.commands.finished import FinishedRun, Row
from taskmill.records import LEVELS

TRAINED, UNTRAINED = "final", "initial"
"""Values of the column `model` of scores: after and before training."""


def level_scores(run: FinishedRun, model: str) -> list[Row]:
    """Return the level rows of a model, held_out first."""
    rows = [
        {**row, "level": row["name"]}
        for row in run.rows("evaluate", "scores")
        if row["scope"] == "level" and row["name"] in LEVELS and row["model"] == model
    ]
    return sorted(rows, key=lambda row: (LEVELS.index(row["level"]), row["shots"]))


def scores(run: FinishedRun) -> Row:
    """Return scores by level, category and benchmark, and the best and worst tasks."""
    before = {(r["scope"], r["name"], r["shots"]): r for r in _of_model(run, UNTRAINED)}
    trained = _of_model(run, TRAINED)

    def compared(scope: str) -> list[Row]:
        rows = [row for row in trained if row["scope"] == scope and row["shots"] >= 0]
        return [_compared(row, before.get((scope, row["name"], row["shots"]))) for row in rows]

    by_level = [row for row in compared("level") if row["name"] in LEVELS]
    fewest = min((row["shots"] for row in trained if row["shots"] >= 0), default=0)
    tasks = sorted(
        (r for r in compared("task") if r["shots"] == fewest), key=lambda r: (-r["value"], r["name"])
    )
    categories = sorted(compared("category"), key=_by_level)
    half = min(5, (len(tasks) + 1) // 2)
    best, worst = tasks[:half], tasks[half:][-5:]
    shown = {row["name"] for row in best + worst}
    predictions = _predictions(run, shown, fewest)
    for row in best + worst:
        row["prediction"] = predictions.get(row["name"])
    return {
        "levels": sorted(by_level, key=lambda r: (LEVELS.index(r["name"]), r["shots"])),
        "categories": [row for row in categories if row["shots"] == fewest],
        "more_categories": [row for row in categories if row["shots"] != fewest],
        "benchmarks": sorted(compared("benchmark"), key=_by_level),
        "best": best,
        "worst": worst,
        "shots": fewest,
        "num_tasks": len(tasks),
        "short_of_shots": _short_of_shots(run),
        "has_baseline": bool(before),
    }


def _short_of_shots(run: FinishedRun) -> list[tuple[int, int]]:
    """Return (shots, predictions of the trained model that saw fewer demonstrations), where there are any."""
    columns = ["model", "shots", "num_demonstrations"]
    fewer = Counter(
        row["shots"]
        for row in run.rows("evaluate", "predictions", columns)
        if row["model"] == TRAINED and row["num_demonstrations"] < row["shots"]
    )
    return sorted(fewer.items())


def _of_model(run: FinishedRun, model: str) -> list[Row]:
    return [row for row in run.rows("evaluate", "scores") if row["model"] == model]


def _compared(row: Row, before: Row | None) -> Row:
    """Return a trained score beside the untrained one, with both bars."""
    level, _, name = row["name"].partition("/")
    old = {**before, "bar": figures.interval(before)} if before else None
    return {**row, "level": level, "short": name or level, "bar": figures.interval(row), "before": old}


def _by_level(row: Row) -> tuple[int, str, int]:
    return (LEVELS.index(row["level"]), row["short"], row["shots"])


def _predictions(run: FinishedRun, tasks: set[str], shots: int) -> dict[str, Row]:
    """Return one prediction of the trained model for each task, with the end of its prompt's input."""
    count = max(1, len(tasks))
    rows = run.spread("evaluate", "predictions", tasks, count, model=TRAINED, shots=shots)
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["task"], {**row, "prediction": _cut(row["prediction"])})
    return first


def _cut(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " \u2026"
