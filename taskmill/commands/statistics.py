"""Statistics of a catalogue: `taskmill stats RUN`. Reads tasks, examples, templates and, for levels, splits/tasks.

Lengths are in words, cut at white space. The input of an example is its task's definition, its fields outside the
output fields, and its options; the output is its first reference, else the output fields, and of reasoning sets always
these: answer and rationale. Of a conversation the input is
what users write and the output what the assistant does, both per round; a round is a turn of the user. These are the
figures that OPT-IML prints of benchmarks (Table 1: tasks, clusters, examples, prompts per task, prompt length) and TÜLU of
chat sets (Table 1: rounds, prompt and completion length).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from taskmill.commands.figures import count, counted, decimal, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.splits.sharing.sides import sides
from taskmill.storage import iter_batches

BY = ("benchmark", "category", "level")
_COLUMNS = ("task", "fields", "references", "options")
_ASKING = ("user",)
_ANSWERING = ("assistant", "call")


@dataclass
class Moments:
    """Number, sum and sum of squares of lengths: enough for mean and standard deviation."""

    num: int = 0
    total: int = 0
    squares: int = 0

    def add(self, length: int) -> None:
        """Count one length, in words."""
        self.num += 1
        self.total += length
        self.squares += length * length

    @property
    def mean(self) -> float | None:
        """Mean length in words, None without any."""
        return self.total / self.num if self.num else None

    @property
    def std(self) -> float | None:
        """Standard deviation in words over all of them (not a sample's estimate), None without any."""
        if self.mean is None:
            return None
        return math.sqrt(max(self.squares / self.num - self.mean**2, 0.0))


@dataclass
class Figures:
    """What is counted of one benchmark, category or level."""

    tasks: int = 0
    categories: set[str] = field(default_factory=set)
    examples: int = 0
    templates: int = 0
    """Those that keep the task's meaning, over its tasks that have upstream templates."""
    templated: int = 0
    inputs: Moments = field(default_factory=Moments)
    outputs: Moments = field(default_factory=Moments)
    conversations: int = 0
    rounds: int = 0

    def row(self) -> Row:
        """Return the figures; what does not apply is None."""
        return {
            "tasks": self.tasks,
            "categories": len(self.categories),
            "examples": self.examples,
            "templates_per_task": self.templates / self.templated if self.templated else None,
            "input_mean": self.inputs.mean,
            "input_std": self.inputs.std,
            "output_mean": self.outputs.mean,
            "output_std": self.outputs.std,
            "rounds_mean": self.rounds / self.conversations if self.conversations else None,
        }


def show_statistics(run: Path, by: str, as_json: bool) -> None:
    """Print tasks, categories, examples, templates a task and lengths in words.

    Args:
        run: the run directory.
        by: one of BY: what the lines are.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: curate is not finished, or split is not where lines are levels.
    """
    body = statistics(FinishedRun(run), by)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    names = (by, ">tasks", ">categories", ">examples", ">templates/task")
    lengths = (">input words", ">std", ">output words", ">std", ">rounds")
    rows = [(words(row["name"]) if by == "level" else row["name"], row) for row in body["rows"]]
    terminal.table((*names, *lengths), (_cells(name, row) for name, row in [*rows, ("total", body["total"])]))
    terminal.line("")
    terminal.line(
        f"lengths in words a prompt or answer; of conversations, a round ({counted(len(rows), 'lines')})"
    )


def _cells(name: str, row: Row) -> Sequence[str]:
    whole = [count(row[key]) for key in ("tasks", "categories", "examples")]
    lengths = [decimal(row[key], 1) for key in ("input_mean", "input_std", "output_mean", "output_std")]
    return [name, *whole, decimal(row["templates_per_task"], 1), *lengths, decimal(row["rounds_mean"], 1)]


def statistics(run: FinishedRun, by: str) -> Row:
    """Return {"by": by, "rows": [{"name": .., figures}], "total": figures}, rows by name, levels in their order.

    Raises:
        UsageError: curate is not finished, or split is not where lines are levels.
    """
    run.require("curate")
    name_of = _names(run, by)
    figures: dict[str, Figures] = defaultdict(Figures)
    total = Figures()
    for task in run.tasks.values():
        for place in (figures[name_of(task)], total):
            place.tasks += 1
            place.categories.add(task["category"])
            place.examples += task["num_kept"]
    _add_templates(run, name_of, figures, total)
    for path in run.inputs.files("curate", "examples"):
        for batch in iter_batches(path, _COLUMNS):
            for example in batch.to_pylist():
                task = run.tasks[example["task"]]
                _add_lengths(example, task, (figures[name_of(task)], total))
    rows = [{"name": name, **figures[name].row()} for name in sorted(figures)]
    return {"by": by, "rows": rows, "total": total.row()}


def _names(run: FinishedRun, by: str) -> Callable[[Mapping[str, Any]], str]:
    """Return the function that names the line of a task."""
    if by != "level":
        return lambda task: str(task[by])
    run.require("split")
    levels = {row["task"]: row["level"] or row["role"] for row in run.rows("split", "tasks")}
    return lambda task: str(levels[task["task"]])


def _add_templates(
    run: FinishedRun,
    name_of: Callable[[Mapping[str, Any]], str],
    figures: Mapping[str, Figures],
    total: Figures,
) -> None:
    """Count templates that keep the task, a task at a time."""
    kept: dict[str, int] = {}
    for template in run.rows("curate", "templates", ["task", "keeps_task"]):
        kept[template["task"]] = kept.get(template["task"], 0) + template["keeps_task"]
    for task, number in kept.items():
        for place in (figures[name_of(run.tasks[task])], total):
            place.templated += 1
            place.templates += number


def _add_lengths(example: Row, task: Row, places: Sequence[Figures]) -> None:
    fields = json.loads(example["fields"])
    turns = fields.get("turns")
    if task["style"] in ("chat", "dialogue") and isinstance(turns, list):
        asked = _of_roles(turns, _ASKING)
        answered = _of_roles(turns, _ANSWERING)
        for place in places:
            place.conversations += 1
            place.rounds += len(asked)
            for length in asked:
                place.inputs.add(length)
            for length in answered:
                place.outputs.add(length)
        return
    inputs, outputs = sides(fields, example["references"], example["options"], task["output_fields"])
    if task["style"] == "reasoning":
        outputs = outputs[len(example["references"]) :]
    elif example["references"]:
        outputs = outputs[:1]
    definition = [task["definition"]] if task["definition"] else []
    asked_words, answered_words = _num_words([*definition, *inputs]), _num_words(outputs)
    for place in places:
        place.inputs.add(asked_words)
        place.outputs.add(answered_words)


def _of_roles(turns: Sequence[Mapping[str, str]], roles: Sequence[str]) -> list[int]:
    """Return the number of words of each turn of these roles."""
    return [len(text.split()) for turn in turns for role, text in turn.items() if role in roles]


def _num_words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)
