"""Scores for reading: what the shown model scored beside the untrained one, by level, category, benchmark and task.

Reads scores.parquet and predictions.parquet of the evaluate stage. The shown model is the trained one, else the server
that answered, else the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands import figures
from taskmill.commands.finished import FinishedRun, Row
from taskmill.evaluation.aggregation.curves import step_of
from taskmill.evaluation.aggregation.nodes import ALL
from taskmill.records import ENDPOINT, FINAL, INITIAL, LEVELS

# --------------------------------------------------------------------------------------------- models


def updates_done(model: str) -> int | None:
    """Return the updates before a checkpoint was kept; None for every other model."""
    return None if model in (FINAL, INITIAL) else step_of(model, 0)


def model_order(name: str) -> tuple[int, int, str]:
    """Return what sorts models: the trained one, a server, checkpoints from the last back, others, the untrained one."""
    updates = updates_done(name)
    kind = {FINAL: 0, ENDPOINT: 1, INITIAL: 4}.get(name, 3 if updates is None else 2)
    return kind, -(updates or 0), name


def models(run: FinishedRun) -> list[str]:
    """Return the models that were scored, the shown one first; see `model_order`."""
    scored = run.table("evaluate", "scores")
    names = scored.column("model").unique().to_pylist() if scored is not None else []
    return sorted(names, key=model_order)


def shown_model(run: FinishedRun) -> str:
    """Return the model whose scores are shown first: the trained one where it was scored."""
    return next(iter(models(run)), FINAL)


def evaluate_settings(run: FinishedRun) -> Row:
    """Return the section `evaluate` as it was when the scores were made, else as the recipe has it."""
    settings: Row | None = None
    if run.has("evaluate"):
        settings = run.manifests["evaluate"].body["settings"].get("evaluate")
    return settings or run.recipe.get("values", {}).get("evaluate", {})


def model_title(run: FinishedRun, model: str) -> str:
    """Return a model's name for reading."""
    updates = updates_done(model)
    if updates is not None:
        return f"after {figures.count(updates)} updates"
    if model == ENDPOINT:
        endpoint = evaluate_settings(run).get("endpoint") or {}
        return f"{endpoint['model']} (server)" if endpoint.get("model") else "server"
    return {FINAL: "trained", INITIAL: "untrained"}.get(model, model)


# ----------------------------------------------------------------------------------------------- rows


def score_rows(run: FinishedRun, scopes: Collection[str], chosen: Collection[str] = ()) -> list[Row]:
    """Return the rows of scores of some scopes; of the `chosen` models, or of all."""
    scored = run.table("evaluate", "scores")
    if scored is None:
        return []
    wanted = pc.is_in(scored.column("scope"), value_set=pa.array(sorted(scopes), pa.string()))
    if chosen:
        of_model = pc.is_in(scored.column("model"), value_set=pa.array(sorted(chosen), pa.string()))
        wanted = pc.and_(wanted, of_model)
    rows: list[Row] = scored.filter(wanted).to_pylist()
    return rows


def level_scores(run: FinishedRun, model: str) -> list[Row]:
    """Return the level rows of a model, held_out first."""
    rows = [
        {**row, "level": row["name"]} for row in score_rows(run, ["level"], [model]) if row["name"] in LEVELS
    ]
    return sorted(rows, key=lambda row: (LEVELS.index(row["level"]), row["shots"]))


def scores(run: FinishedRun) -> Row:
    """Return scores by level and category, by benchmark and by number of demonstrations, beside the untrained model's."""
    shown = shown_model(run)
    scopes = ("level", "category", "benchmark")
    before = {_place(row): row for row in score_rows(run, scopes, [INITIAL]) if shown != INITIAL}
    rows = [compared(row, before.get(_place(row))) for row in score_rows(run, scopes, [shown])]
    of_level = [row for row in rows if row["scope"] == "level" and row["name"] in LEVELS]
    fewest = min((row["shots"] for row in of_level), default=0)
    parts = [row for row in rows if row["scope"] == "category"]
    selection = {row["scope"]: row for row in rows if row["name"] == ALL}
    return {
        "levels": sorted(of_level, key=_by_level),
        "blocks": _blocks(of_level, parts, fewest),
        "more_blocks": [
            (shots, _blocks(of_level, parts, shots))
            for shots in sorted({row["shots"] for row in of_level} - {fewest})
        ],
        "selection": selection.get("level"),
        "selection_by_benchmarks": selection.get("benchmark"),
        "benchmarks": sorted(
            (r for r in rows if r["scope"] == "benchmark" and r["name"] != ALL), key=_by_level
        ),
        "shots": fewest,
        "split": evaluate_settings(run).get("split"),
        "short_of_shots": short_of_shots(run, shown),
        "shown": model_title(run, shown),
        "has_baseline": bool(before),
    }


def _blocks(levels: Sequence[Row], categories: Sequence[Row], shots: int) -> list[Row]:
    """Return each level's score at a number of shots with those of its categories, the best first."""
    blocks = list[Row]()
    for level in sorted((row for row in levels if row["shots"] == shots), key=_by_level):
        mine = [row for row in categories if (row["level"], row["shots"]) == (level["name"], shots)]
        blocks.append({"level": level, "categories": sorted(mine, key=lambda r: (-r["value"], r["short"]))})
    return blocks


def compared(row: Row, before: Row | None) -> Row:
    """Return a score beside the untrained model's, with both bars; `short` is its name without the level."""
    level, _, name = row["name"].partition("/")
    old = {**before, "bar": figures.interval(before)} if before else None
    return {**row, "level": level, "short": name or level, "bar": figures.interval(row), "before": old}


def _place(row: Row) -> tuple[str, str, int]:
    return row["scope"], row["name"], row["shots"]


def _by_level(row: Row) -> tuple[int, str, int]:
    return (LEVELS.index(row["level"]), row["short"], row["shots"])


def short_of_shots(run: FinishedRun, model: str) -> list[tuple[int, int]]:
    """Return (shots, predictions of a model that saw fewer demonstrations), where there are any."""
    asked = run.table("evaluate", "predictions", ["model", "shots", "num_demonstrations"])
    if asked is None:
        return []
    fewer = pc.less(asked.column("num_demonstrations"), asked.column("shots"))
    short = asked.filter(pc.and_(fewer, pc.equal(asked.column("model"), model)))
    return sorted((row["values"], row["counts"]) for row in short.column("shots").value_counts().to_pylist())
