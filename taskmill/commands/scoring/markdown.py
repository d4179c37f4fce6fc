"""A run's scores as one page of Markdown: the selection score, levels, categories, benchmarks, tasks, learning curves.

Reads rows of scores; returns text. Scores are in points of 100, with 95 % intervals; beside each stands the score over clean
examples and, where the untrained model was scored, the score before training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskmill.commands.figures import count, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.scores import model_order
from taskmill.commands.scoring.tables import DASH, bounds, by_level, code, escaped, markdown_table, points
from taskmill.evaluation.aggregation.nodes import ALL, ALL_SHOTS
from taskmill.records import INITIAL, LEVELS

_FIGURES = ("value", "low", "high", "clean_value", "clean_low", "clean_high", "num", "num_clean")
_HEAD = (">shots", ">score", "95 % interval", ">clean", "clean interval", ">answers", ">clean answers")
_NOTES = (
    "Scores are in points of 100. A score is a mean of means: prompt variants, tasks, sub-tasks, the same task across "
    "benchmarks, categories, levels (OPT-IML, section 4.1). The selection score is the mean over levels of the mean over "
    "numbers of demonstrations (shots); by benchmarks, it has benchmarks in the place of categories. Tasks that are asked "
    "without demonstrations only are absent from the means of other numbers of shots. Intervals resample groups of "
    "examples. Clean leaves out the examples that share a 13-gram with the train side; a task that has no others is missing "
    "from the clean scores above it; `matched_value` in scores.csv is the full score of the tasks that are in them."
)


def selection(row: Row) -> Row:
    """Return the figures of a score."""
    return {name: row[name] for name in _FIGURES}


def markdown(found: FinishedRun, rows: Sequence[Row], curves: Sequence[Row]) -> str:
    """Return the page.

    Args:
        found: the run.
        rows: of its scores.
        curves: points of its learning curves; empty for none.
    """
    models = sorted({row["model"] for row in rows}, key=model_order)
    before = {_key(row): row for row in rows if row["model"] == INITIAL and models[0] != INITIAL}
    mine = [row for row in rows if row["model"] == models[0]]
    name = str(found.recipe.get("values", {}).get("name", found.run.name))
    parts = [f"# Scores of {escaped(name)}", _selection(rows, models), _NOTES]
    said = f"Of the model {code(models[0])}"
    parts += [said + (f", and of {code(INITIAL)} before training." if before else ".")]
    for scope, title in (("level", "Levels"), ("category", "Categories"), ("benchmark", "Benchmarks")):
        chosen = [row for row in mine if row["scope"] == scope and row["shots"] != ALL_SHOTS]
        parts += [f"## {title}", _table(scope, sorted(chosen, key=by_level), before)]
    tasks = sorted((row for row in mine if row["scope"] == "task"), key=lambda r: (r["name"], r["shots"]))
    parts += ["## Tasks", _table("task", tasks, before), *_unclean(tasks)]
    if curves:
        parts += ["## Learning curves", _curves(curves)]
    return "\n\n".join(parts) + "\n"


def _key(row: Row) -> tuple[str, str, int]:
    return row["scope"], row["name"], row["shots"]


def _selection(rows: Sequence[Row], models: Sequence[str]) -> str:
    found = {(row["model"], row["scope"]): row for row in rows if row["name"] == ALL}
    lines = []
    for model in models:
        row, other = found.get((model, "level")), found.get((model, "benchmark"))
        if row is not None:
            by_benchmarks = points(other["value"]) if other else DASH
            bold = f"**{points(row['value'])}**"
            clean = [points(row["clean_value"]), bounds(row["clean_low"], row["clean_high"])]
            lines.append([code(model), bold, bounds(row["low"], row["high"]), *clean, by_benchmarks])
    head = ("model", ">selection score", "95 % interval", ">clean", "clean interval", ">by benchmarks")
    return markdown_table(head, lines)


def _table(scope: str, rows: Iterable[Row], before: dict[tuple[str, str, int], Row]) -> str:
    head = (scope, *_HEAD, *(("metric",) if scope == "task" else ()), *((">before",) if before else ()))
    return markdown_table(head, (_cells(row, before) for row in rows))


def _cells(row: Row, before: dict[tuple[str, str, int], Row]) -> list[str]:
    cells = [
        _name(row),
        count(row["shots"]),
        points(row["value"]),
        bounds(row["low"], row["high"]),
        points(row["clean_value"]),
        bounds(row["clean_low"], row["clean_high"]),
        count(row["num"]),
        count(row["num_clean"]),
    ]
    if row["scope"] == "task":
        cells.append(escaped(words(row["metric"])))
    if before:
        old = before.get(_key(row))
        cells.append(points(old["value"]) if old else DASH)
    return cells


def _name(row: Row) -> str:
    if row["scope"] == "task":
        return code(row["name"])
    level, _, rest = row["name"].partition("/")
    shown = code(rest) if row["scope"] == "benchmark" else escaped(rest)
    return escaped(words(level)) + (f": {shown}" if rest else "")


def _unclean(tasks: Sequence[Row]) -> list[str]:
    """Return what to say of the tasks without a clean example."""
    names = sorted({row["name"] for row in tasks if not row["num_clean"]})
    if not names:
        return []
    return [
        f"No clean example: {', '.join(map(code, names))}. They are missing from the clean scores above them."
    ]


def _curves(curves: Sequence[Row]) -> str:
    keys = sorted({(p["level"], p["shots"]) for p in curves if p["level"] != ALL}, key=_place)
    values = {(p["step"], p["level"], p["shots"]): p["value"] for p in curves}
    head = [
        ">step",
        *(f">{words(level)}, {shots}-shot" for level, shots in keys),
        ">selection score",
    ]
    rows = [
        [
            count(step),
            *(points(values.get((step, *key))) for key in keys),
            points(values.get((step, ALL, ALL_SHOTS))),
        ]
        for step in sorted({point["step"] for point in curves})
    ]
    return markdown_table(head, rows)


def _place(key: tuple[str, int]) -> tuple[int, int]:
    return LEVELS.index(key[0]), key[1]
