"""What the command `compare` prints for people: which models, what they have in common, and tables that fit 80 columns."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from taskmill.commands.figures import count, counted, percent, signed, words
from taskmill.commands.finished import Row
from taskmill.commands.scoring.tables import DASH, by_level, points
from taskmill.commands.terminal import Terminal
from taskmill.evaluation.aggregation.nodes import ALL, ALL_SHOTS
from taskmill.records import LEVELS

_TITLES = {"level": "Levels", "category": "Categories", "benchmark": "Benchmarks", "task": "Tasks"}
_CLEAN = "clean_"


def show(body: Row, num_tasks: int) -> None:
    """Print the content of `compare.compared`; `num_tasks` is the most tasks shown of a comparison."""
    terminal = Terminal()
    letters = _letters(len(body["models"]))
    for letter, model in zip(letters, body["models"]):
        terminal.line((letter, "bold"), f"  {model['name']}: {model['model']} of {model['run']}")
    for letter, comparison in zip(letters[1:], body["comparisons"]):
        _show_comparison(terminal, letter, comparison, num_tasks)
    for run, curve in body["curves"].items():
        _show_curve(terminal, run, curve)
    terminal.line("")
    terminal.line(("Points of 100; 95 % intervals; Holm: p adjusted over the rows of a scope.", "dim"))


def _letters(number: int) -> list[str]:
    letters = string.ascii_uppercase
    return [letters[i] if i < 26 else f"{letters[i // 26 - 1]}{letters[i % 26]}" for i in range(number)]


def _show_comparison(terminal: Terminal, letter: str, comparison: Row, num_tasks: int) -> None:
    terminal.title(f"{letter} against A")
    terminal.line(
        f"{counted(comparison['num_common'], 'prompts')} in common: "
        f"{percent(comparison['share_of_first'])} of A's, {percent(comparison['share_of_other'])} of {letter}'s"
    )
    for line in _remarks(letter, comparison):
        terminal.line(line)
    rows = comparison["rows"]
    selection = next(row for row in rows if (row["scope"], row["name"]) == ("level", ALL))
    terminal.line("selection score: ", (_sentence(selection, letter), "bold"))
    for scope, title in _TITLES.items():
        mine = [row for row in rows if row["scope"] == scope and row["shots"] != ALL_SHOTS]
        if scope == "task":
            mine.sort(key=lambda row: (row["p"], -abs(row["difference"]), row["name"], row["shots"]))
            title += ", the surest differences first"
        else:
            mine.sort(key=by_level)
        most = num_tasks if scope == "task" else len(mine)
        _table(terminal, title, letter, mine[:most], "")
        if scope == "level":
            _table(terminal, "Levels, clean examples only", letter, mine, _CLEAN)
        if len(mine) > most:
            terminal.more(len(mine) - most, "tasks; --tasks N shows more, --csv and --json have all")


def _remarks(letter: str, comparison: Row) -> list[str]:
    """Return lines on what two models do not share."""
    lines = []
    for name, whose in (("tasks_only_in_first", "A"), ("tasks_only_in_other", letter)):
        if comparison[name]:
            lines.append(f"{counted(len(comparison[name]), 'tasks')} only in {whose}")
    if comparison["num_other_metric"]:
        lines.append(
            f"{counted(comparison['num_other_metric'], 'prompts')} left out: valued by other metrics"
        )
    if comparison["asked_otherwise"]:
        lines.append(f"not asked alike: {', '.join(comparison['asked_otherwise'])} differ, beside the models")
    moved = comparison["tasks_placed_otherwise"]
    if moved:
        named = ", ".join(moved[:3]) + (", ..." if len(moved) > 3 else "")
        lines.append(
            f"{counted(len(moved), 'tasks')} at another level or category in {letter}, here as in A: {named}"
        )
    return lines


def _sentence(row: Row, letter: str) -> str:
    text = (
        f"{points(row['first'])} -> {points(row['other'])}, {letter}-A {_change(row, '')} {_bounds(row, '')}"
    )
    return f"{text}, p {_p(row['p'])}"


def _table(terminal: Terminal, title: str, letter: str, rows: Sequence[Row], part: str) -> None:
    terminal.title(title)
    heads = ("name", ">shots", ">A", f">{letter}", f">{letter}-A", ">interval", ">p", ">Holm")
    terminal.table(heads, ([*_name(row), *_cells(row, part)] for row in rows))


def _name(row: Row) -> tuple[str, str]:
    if row["scope"] == "task":
        return str(row["name"]), count(row["shots"])
    level, _, rest = row["name"].partition("/")
    return (f"{words(level)}: {rest}" if rest else words(level)), count(row["shots"])


def _cells(row: Row, part: str) -> list[str]:
    scores = [
        points(row[f"{part}first"]),
        points(row[f"{part}other"]),
        _change(row, part),
        _bounds(row, part),
    ]
    return [*scores, _p(row[f"{part}p"]), _p(row[f"{part}p_holm"])]


def _change(row: Row, part: str) -> str:
    value = row[f"{part}difference"]
    return DASH if value is None else signed(100 * value)


def _bounds(row: Row, part: str) -> str:
    low, high = row[f"{part}low"], row[f"{part}high"]
    return DASH if low is None else f"[{signed(100 * low)}, {signed(100 * high)}]"


def _p(value: float | None) -> str:
    return DASH if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _show_curve(terminal: Terminal, run: str, curve: Sequence[dict[str, Any]]) -> None:
    shown = [point for point in curve if point["level"] != ALL]
    keys = sorted({(p["level"], p["shots"]) for p in shown}, key=lambda k: (LEVELS.index(k[0]), k[1]))
    values = {(p["step"], p["level"], p["shots"]): p["value"] for p in shown}
    selection = {p["step"]: p["value"] for p in curve if p["level"] == ALL}
    terminal.title(f"Learning curve of {run}")
    heads = [">step", *(f">{words(level)} {shots}-shot" for level, shots in keys), ">selection"]
    rows = [
        [count(step), *(points(values.get((step, *key))) for key in keys), points(selection.get(step))]
        for step in sorted({p["step"] for p in curve})
    ]
    terminal.table(heads, rows)
