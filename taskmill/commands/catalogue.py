"""What curate made: `taskmill tasks RUN` and `taskmill licenses RUN`. Reads the tables of the directory `tasks`.

list_tasks(Path("runs/demo"), pattern="*boolq*", as_json=True)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from taskmill.commands.figures import count, counted, percent
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.errors import UsageError, did_you_mean

_SHOWN = (
    "task",
    "benchmark",
    "name",
    "category",
    "dataset",
    "corpora",
    "family",
    "subtask",
    "kind",
    "style",
    "metric",
    "multiple_choice",
    "languages",
    "license",
    "license_evidence",
    "homepage",
    "repository",
    "revision",
    "upstream_role",
    "num_read",
    "num_kept",
    "num_groups",
    "largest_group",
)
NUM_EVIDENCE = 3
"""Grounds listed of each licence; the rest is counted."""


# ---------------------------------------------------------------------------------------------- tasks


def list_tasks(run: Path, pattern: str | None, category: str | None, as_json: bool) -> None:
    """Print the tasks of a run, those that cannot be carved and suspected aliases.

    Args:
        run: the run directory.
        pattern: shell pattern of task ids; None for all.
        category: only tasks of this category, whatever its case; None for all.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: curate is not finished, or nothing matches; the message names the nearest.
    """
    found = FinishedRun(run)
    body = tasks_of(found, pattern, category)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    names = ("task", "category", "data set", ">read", ">kept", ">groups", ">largest", "licence")
    terminal.table(names, (_task_cells(row) for row in body["tasks"]))
    terminal.line("")
    categories = {row["category"] for row in body["tasks"]}
    uncarved = [row["task"] for row in body["tasks"] if not row["can_be_carved"]]
    terminal.line(f"{counted(len(body['tasks']), 'tasks')} in {counted(len(categories), 'categories')}")
    if uncarved:
        problem = "cannot be carved (*): one group holds over half of the examples"
        terminal.line(f"{counted(len(uncarved), 'tasks')} {problem}")
    if body["suspected_aliases"]:
        terminal.title("suspected aliases", "most of one's text is in the other, under another data set")
        rows = (
            (a["task_a"], a["task_b"], a["dataset_a"], a["dataset_b"], percent(a["containment"]))
            for a in body["suspected_aliases"]
        )
        terminal.table(("task", "other task", "data set", "other data set", ">contained"), rows)
        terminal.line("`aliases:` in a file named under curate.taxonomy makes two names one data set")


def tasks_of(run: FinishedRun, pattern: str | None, category: str | None) -> Row:
    """Return the rows of tasks/tasks that match, each with `can_be_carved`, and suspected aliases among them.

    Raises:
        UsageError: curate is not finished, or nothing matches.
    """
    run.require("curate")
    rows = [run.tasks[name] for name in run.matching(pattern)]
    if category is not None:
        known = {row["category"] for row in rows}
        rows = [row for row in rows if row["category"].casefold() == category.casefold()]
        if not rows:
            raise UsageError(f"no task here has the category {category!r}{did_you_mean(category, known)}")
    shown = [{**{name: row[name] for name in _SHOWN}, "can_be_carved": can_be_carved(row)} for row in rows]
    names = {row["task"] for row in rows}
    aliases = run.rows("curate", "suspected_aliases")
    aliases = [alias for alias in aliases if alias["task_a"] in names or alias["task_b"] in names]
    return {"tasks": shown, "suspected_aliases": aliases}


def can_be_carved(task: Row) -> bool:
    """Say whether a part of a task can be set aside by group: no group holds over half of its examples."""
    return bool(2 * task["largest_group"] <= task["num_kept"])


def _task_cells(row: Row) -> Sequence[str]:
    largest = percent(row["largest_group"] / row["num_kept"]) if row["num_kept"] else count(None)
    return (
        *(row["task"], row["category"], row["dataset"], count(row["num_read"]), count(row["num_kept"])),
        *(count(row["num_groups"]), largest + ("" if row["can_be_carved"] else " *"), row["license"]),
    )


# ------------------------------------------------------------------------------------------- licences


def list_licenses(run: Path, as_json: bool) -> None:
    """Print the licences of a run's tasks, with the ground of each, and what a licence dropped.

    Args:
        run: the run directory.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: curate is not finished.
    """
    body = licenses_of(FinishedRun(run))
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    names = ("licence", ">tasks", ">examples", "benchmarks", "on the ground of")
    terminal.table(names, (_license_cells(row) for row in body["licenses"]))
    if body["dropped"]:
        terminal.title("dropped", "the recipe's curate.licenses refuses them")
        rows = ((d["task"], count(d["examples"]), d["detail"]) for d in body["dropped"])
        terminal.table(("task", ">examples", "why"), rows)


def licenses_of(run: FinishedRun) -> Row:
    """Return licences with their tasks, examples and grounds, most examples first; and the tasks that were refused.

    Raises:
        UsageError: curate is not finished.
    """
    run.require("curate")
    found: dict[str, Row] = {}
    for task in run.tasks.values():
        row = found.setdefault(
            task["license"],
            {"license": task["license"], "examples": 0, "tasks": [], "benchmarks": [], "evidence": Counter()},
        )
        row["examples"] += task["num_kept"]
        row["tasks"].append(task["task"])
        row["benchmarks"].append(task["benchmark"])
        row["evidence"][task["license_evidence"]] += 1
    licenses = sorted(found.values(), key=lambda row: (-row["examples"], row["license"]))
    for row in licenses:
        row["benchmarks"] = sorted(set(row["benchmarks"]))
        row["evidence"] = [{"text": text, "tasks": n} for text, n in row["evidence"].most_common()]
    refused = Counter[tuple[str, str]]()
    for drop in run.rows("curate", "dropped", ["task", "reason", "detail"]):
        if drop["reason"] == "license":
            refused[drop["task"], drop["detail"]] += 1
    dropped = [{"task": t, "detail": d, "examples": n} for (t, d), n in sorted(refused.items())]
    return {"licenses": licenses, "dropped": dropped}


def _license_cells(row: Row) -> Sequence[str]:
    grounds = [ground["text"] for ground in row["evidence"]]
    more = len(grounds) - NUM_EVIDENCE
    shown = grounds[:NUM_EVIDENCE] + ([f"and {count(more)} more"] if more > 0 else [])
    return (
        *(row["license"], count(len(row["tasks"])), count(row["examples"])),
        *(", ".join(row["benchmarks"]), "; ".join(shown)),
    )
