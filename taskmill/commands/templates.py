"""Templates for people: `taskmill templates list` and `show`. Reads the library and finished stages.

list_templates("runs/demo", Filters(style="keywords"), as_json=False)
show("keywords/pair-1", None, as_json=False)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

from taskmill.commands.figures import count, counted, visible, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.templates_known import (
    LIBRARY_ALONE,
    Target,
    find_templates,
    library_row,
    may_serve,
    open_target,
)
from taskmill.commands.terminal import Terminal
from taskmill.errors import UsageError, did_you_mean
from taskmill.storage import read_table
from taskmill.templates.linting.subjects import Subject
from taskmill.templates.rendering.library import SHAPES, STYLES, LibraryTemplate, load_library

if TYPE_CHECKING:
    from rich.syntax import Syntax

NUM_LISTED = 60
"""Templates of tasks that are listed unless a pattern names fewer; the rest is counted."""
NUM_TASKS = 12
_SHORT_ID = 8


@dataclass(frozen=True)
class Filters:
    """Which templates to list."""

    style: str | None = None
    shape: str | None = None
    task: str | None = None
    """Shell pattern of tasks."""


# ------------------------------------------------------------------------------------------------ list


def list_templates(given: str | None, filters: Filters, as_json: bool) -> None:
    """Print the library's templates, the user's, and those that a run's tasks bring.

    Args:
        given: a run or a recipe; None for the library alone.
        filters: which to list.
        as_json: print one JSON object.

    Raises:
        UsageError: there is no such run, recipe, style, shape or task.
        RecipeError: the recipe has problems.
    """
    _check_filters(given, filters)
    target = open_target(given)
    body = listed(target, filters)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    for title, rows in (("library", body["library"]), ("render.templates", body["user"])):
        if rows:
            _print_library(terminal, title, rows, body["render"])
    if not any(body[part] for part in ("library", "user", "upstream")):
        terminal.line("no template is left by these options")
    if body["upstream"]:
        _print_upstream(terminal, body["upstream"], body["render"])
    if target.note:
        terminal.line("")
        terminal.line(target.note)


def _check_filters(given: str | None, filters: Filters) -> None:
    if filters.style is not None and filters.style not in STYLES:
        hint = did_you_mean(filters.style, STYLES)
        raise UsageError(
            f"no templates have the style {filters.style!r}{hint}; expected one of {', '.join(STYLES)}"
        )
    if filters.shape is not None and filters.shape not in SHAPES:
        hint = did_you_mean(filters.shape, SHAPES)
        raise UsageError(
            f"there is no shape {filters.shape!r}{hint}; expected one of {', '.join(sorted(SHAPES))}"
        )
    if filters.task is not None and given is None:
        raise UsageError("--task needs a run: `taskmill templates list RUN --task PATTERN`")


def listed(target: Target, filters: Filters) -> Row:
    """Return the templates that the filters leave, with prompts and drops where render is finished."""
    run = target.run
    tasks, without = None, None
    if filters.task is not None:
        if run is None:
            raise UsageError(f"--task needs tasks: {target.note}")
        tasks = set(run.matching(filters.task))
        without = [run.tasks[name] for name in sorted(tasks - _bringing(target))]
    use = _Use(run, tasks)
    serving = [t for t in (*load_library().values(), *target.user) if _fits(t, filters, without)]
    own = {template.id for template in target.user}
    rows = [{**library_row(template), **use.of(template.id)} for template in serving]
    wants_upstream = filters.style in (None, "instance") and filters.shape is None
    upstream = [row for row in target.upstream if wants_upstream and (tasks is None or row["task"] in tasks)]
    return {
        "library": [row for row in rows if row["id"] not in own],
        "user": [row for row in rows if row["id"] in own],
        "upstream": [{**_upstream_row(row), **use.of(row["template"], row["task"])} for row in upstream],
        "render": run is not None and run.has("render"),
    }


def _bringing(target: Target) -> set[str]:
    """Return the tasks that bring templates of their own."""
    return {row["task"] for row in target.upstream}


def _fits(template: LibraryTemplate, filters: Filters, tasks: Sequence[Row] | None) -> bool:
    if filters.style not in (None, template.style) or filters.shape not in (None, template.shape):
        return False
    return tasks is None or any(may_serve(template, task) for task in tasks)


def _upstream_row(row: Row) -> Row:
    kept = {key: value for key, value in row.items() if key not in ("template", "metadata")}
    return {"id": row["template"], "form": "promptsource", **kept, "metadata": json.loads(row["metadata"])}


class _Use:
    """How many prompts each template gave, and what was dropped, once render is finished."""

    def __init__(self, run: FinishedRun | None, tasks: set[str] | None) -> None:
        self.has = run is not None and run.has("render")
        self.prompts: Counter[tuple[str, str]] = Counter()
        self.dropped: dict[tuple[str, str], Counter[str]] = {}
        if run is None or not self.has:
            return
        for path in run.inputs.files("render", "prompts"):
            _add(self.prompts, path, tasks)
        table = run.table("render", "dropped", ["task", "template", "reason"])
        if table is None:
            return
        grouped = table.group_by(["task", "template", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            if row["template"] is not None and (tasks is None or row["task"] in tasks):
                counter = self.dropped.setdefault((row["task"], row["template"]), Counter())
                counter[row["reason"]] += row["count_all"]

    def of(self, template: str, task: str | None = None) -> Row:
        """Return the figures of a template, of one task or of all; nothing before render."""
        if not self.has:
            return {}
        dropped: Counter[str] = Counter()
        for (other, name), reasons in self.dropped.items():
            if name == template and task in (None, other):
                dropped.update(reasons)
        keys = [key for key in self.prompts if key[1] == template and task in (None, key[0])]
        return {"prompts": sum(self.prompts[key] for key in keys), "dropped": dict(sorted(dropped.items()))}


def _add(prompts: Counter[tuple[str, str]], path: Any, tasks: set[str] | None) -> None:
    grouped = (
        read_table(path, ["task", "template"]).group_by(["task", "template"]).aggregate([([], "count_all")])
    )
    for row in grouped.to_pylist():
        if tasks is None or row["task"] in tasks:
            prompts[row["task"], row["template"]] += row["count_all"]


def _print_library(terminal: Terminal, title: str, rows: Sequence[Row], has_prompts: bool) -> None:
    terminal.title(title, counted(len(rows), "templates"))
    columns: dict[str, list[str]] = {
        "template": [r["id"] if r["keeps_task"] else f"{r['id']} (changes the task)" for r in rows],
        "style": [r["style"] for r in rows],
        "shape": [r["shape"] or ", ".join(r["tasks"]) for r in rows],
        "reads": [", ".join(r["reads"]) for r in rows],
    }
    if any(r["options"] for r in rows):
        columns["options"] = [" | ".join(r["options"]) for r in rows]
    if any(r["draw"] != "pool" for r in rows):
        columns["draw"] = [f"one, {r['weight']:g}" if r["draw"] == "one" else "pool" for r in rows]
    figures = [_figures(row, has_prompts) for row in rows]
    names = (*columns, *_FIGURES[: 2 * has_prompts])
    terminal.table(names, ((*own, *more) for *own, more in zip(*columns.values(), figures, strict=True)))


_FIGURES = (">prompts", "dropped")


def _figures(row: Row, has_prompts: bool) -> tuple[str, ...]:
    if not has_prompts:
        return ()
    return count(row["prompts"]), ", ".join(f"{count(v)} {words(k)}" for k, v in row["dropped"].items())


def _print_upstream(terminal: Terminal, rows: Sequence[Row], has_prompts: bool) -> None:
    kept = sum(row["keeps_task"] for row in rows)
    tasks = len({row["task"] for row in rows})
    note = f"{counted(len(rows), 'templates')} of {counted(tasks, 'tasks')}, {count(kept)} keep the task"
    terminal.title("templates of tasks", note)
    names = ("id", "name", "choices", "takes part", *_FIGURES[: 2 * has_prompts])
    for task, own in groupby(rows[:NUM_LISTED], key=itemgetter("task")):
        terminal.title(task)
        cells = (
            (
                *(row["id"][:_SHORT_ID], row["name"], "yes" if row["choices"] else "no"),
                *("yes" if row["keeps_task"] else f"no: {row['why']}", *_figures(row, has_prompts)),
            )
            for row in own
        )
        terminal.table(names, cells)
    terminal.more(len(rows) - NUM_LISTED, "templates; --task PATTERN names fewer, --json lists all")


# ------------------------------------------------------------------------------------------------ show


def show(name: str, given: str | None, as_json: bool) -> None:
    """Print one template: its text, what it reads, its options and metadata, and whether it takes part.

    Args:
        name: its id, the beginning of one, or its name.
        given: a run or a recipe; None for the library alone.
        as_json: print one JSON object, or a list where tasks share the template.

    Raises:
        UsageError: there is no such template, run or recipe.
        RecipeError: the recipe has problems.
    """
    target = open_target(given)
    found = find_templates(name, target.subjects, given or LIBRARY_ALONE)
    bodies = [_shown(subject, target) for subject in found]
    if as_json:
        click.echo(json.dumps(bodies[0] if len(bodies) == 1 else bodies, sort_keys=True))
        return
    terminal = Terminal()
    for body in bodies:
        _print_template(terminal, body)


def _shown(subject: Subject, target: Target) -> Row:
    if subject.template is None:
        assert subject.row is not None
        return _upstream_row(dict(subject.row))
    row = library_row(subject.template)
    run = target.run
    if run is not None:
        brings = {upstream["task"] for upstream in target.upstream}
        serves = [t for t, task in run.tasks.items() if may_serve(subject.template, task) and t not in brings]
        row["serves"] = serves
    return row


def _print_template(terminal: Terminal, body: Row) -> None:
    terminal.title(body["name"], body["id"] if body["id"] != body["name"] else "")
    facts = [("task", body.get("task")), ("style", body.get("style")), ("shape", body.get("shape"))]
    facts.append(("reads", ", ".join(body["reads"])))
    if body["form"] == "promptsource":
        facts.append(("answer choices", body["choices"] or "none"))
        facts.append(("takes part", "yes" if body["keeps_task"] else f"no: {body['why']}"))
    else:
        facts += [("options", " | ".join(body["options"])), ("needs", ", ".join(body["needs"]))]
        facts += [("weight", f"{body['weight']:g}, draw {body['draw']}"), ("tasks", ", ".join(body["tasks"]))]
        facts.append(("takes part", "yes" if body["keeps_task"] else "no: its entry says keeps_task: false"))
        if "serves" in body:
            facts.append(("serves", _some(body["serves"])))
    for key, value in body["metadata"].items():
        if value not in (None, "", []):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            facts.append((words(key), text))
    facts.append(("digest", body["digest"][:16]))
    for key, value in facts:
        if value:
            terminal.line("  ", (key, "cyan"), "  ", str(value))
    terminal.line("")
    _print_source(terminal, body["body"])
    if body["form"] == "promptsource" and body["choices"]:
        terminal.line("")
        terminal.line("  ", ("answer choices", "cyan"))
        _print_source(terminal, body["choices"])


def _some(tasks: Sequence[str]) -> str:
    more = len(tasks) - NUM_TASKS
    named = ", ".join(tasks[:NUM_TASKS])
    return f"{named} and {count(more)} more" if more > 0 else named or "no task of the run"


def _print_source(terminal: Terminal, text: str) -> None:
    """Write a template's text, with colours on a terminal."""
    text = text.rstrip("\n")
    if terminal.colour:
        terminal.console.print(_highlighted(text))
        return
    terminal.line("    ", text.replace("\n", "\n    "))


def _highlighted(text: str) -> Syntax:
    from rich.syntax import Syntax

    return Syntax(
        visible(text),
        "jinja",
        theme="ansi_dark",
        background_color="default",
        word_wrap=True,
        padding=(0, 4),
    )
