"""The command `decisions list`: the overlapping pairs of a run, and what is decided about each.

Reads the tables of `overlaps`, the run's recipe and its `decisions.csv`; needs nothing of the stage split.

    list_pairs(Path("runs/demo"), "flan/*", "undecided", count=40, as_json=False)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import click

from taskmill import recipe_files
from taskmill.commands.figures import count as number
from taskmill.commands.figures import counted, percent, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.errors import UsageError, did_you_mean
from taskmill.settings import Settings
from taskmill.splits.deciding.decision_files import FILE, Placed, last_rows, read_rows, write_decisions
from taskmill.splits.deciding.decisions import RULE, STATES, Decision, Pair, Verdict
from taskmill.splits.publishing.pins import read_pins
from taskmill.splits.split import judge, pairs_of, source_of

WAITING = ("undecided", "outdated")
_COLOURS = {"undecided": "bold red", "outdated": "bold yellow", "person": "green", "rule": "cyan"}


@dataclass
class Desk:
    """A run on which decisions are made: its pairs, and what people have decided so far."""

    run: Path
    settings: Settings
    tasks: list[str]
    pairs: list[Pair]
    """The worst first."""
    rows: list[Placed]
    """What people have decided: one row a pair, sorted."""

    @cached_property
    def by_tasks(self) -> dict[tuple[str, str], Pair]:
        """(train task, evaluation task) -> pair."""
        return {pair.tasks: pair for pair in self.pairs}

    @property
    def limited(self) -> bool:
        """Whether the run sees a part of the examples."""
        return self.settings.limit is not None

    @property
    def people(self) -> dict[tuple[str, str], Decision]:
        """Pair -> what people have decided."""
        return {row.decision.pair: row.decision for row in self.rows}

    def verdict(self, people: Iterable[Decision]) -> Verdict:
        """Return what comes of the pairs with these decisions."""
        return judge(self.settings, self.pairs, list(people))

    def states(self, verdict: Verdict) -> dict[tuple[str, str], str]:
        """Return the state of each pair."""
        return verdict.states(self.pairs, self.settings.split.threshold)

    def present(self) -> dict[tuple[str, str], str]:
        """Return pair -> its evidence."""
        return {pair.tasks: pair.evidence for pair in self.pairs}

    def write(self, decisions: Iterable[Decision]) -> Verdict:
        """Write decisions over what people decided about the same pairs; return what comes of it all.

        Raises:
            UsageError: one would move an example of a benchmark that this one extends; nothing is written.
        """
        decisions = list(decisions)
        read_pins(self.settings).decided.refuse(decisions, self.present(), self.run)
        people = {**self.people, **{decision.pair: decision for decision in decisions}}
        write_decisions(self.run / FILE, [people[pair] for pair in sorted(people)])
        return self.verdict(people.values())


def open_desk(run: Path) -> Desk:
    """Read a run's pairs and decisions.

    Raises:
        UsageError: overlap is not finished, or the decisions are malformed.
        DamagedError: a table is damaged.
    """
    found = FinishedRun(run)
    found.require("overlap")
    settings = Settings(recipe_files.from_json(run), ("split",))
    tasks = found.inputs.table("overlap", "plan", ["task"])["task"].to_pylist()
    path = source_of(settings, run)
    rows = last_rows(read_rows(path, tasks)) if path is not None else []
    pairs = sorted(pairs_of(found.inputs), key=lambda pair: pair.badness)
    return Desk(run, settings, tasks, pairs, rows)


def fits(task: str, pattern: str) -> bool:
    """Say whether a task is meant by a name or shell pattern."""
    return task == pattern or fnmatchcase(task, pattern)


def fitting(pattern: str, argument: str, tasks: Collection[str], run: Path) -> set[str]:
    """Return the tasks that a name or pattern fits.

    Raises:
        UsageError: none; the message names the argument and the nearest task.
    """
    found = {task for task in tasks if fits(task, pattern)}
    if not found:
        hint = did_you_mean(pattern, tasks)
        raise UsageError(f"{argument}: no task fits {pattern!r}{hint}; `taskmill tasks {run}` lists them")
    return found


# ----------------------------------------------------------------------------------------------- list


def list_pairs(run: Path, pattern: str | None, state: str, count: int, as_json: bool) -> None:
    """Print the overlapping pairs of a run with their figures, the worst first, and what is decided about each.

    Args:
        run: the run directory.
        pattern: shell pattern of task ids, of which a pair must have one; None for all.
        state: one of `decisions.STATES`, or `all`.
        count: pairs shown; the others are counted.
        as_json: print one JSON object with all of them.

    Raises:
        UsageError: overlap is not finished, or no task fits the pattern.
    """
    desk = open_desk(run)
    body = listed(desk, pattern, state)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal = Terminal()
    for row in body["pairs"][:count]:
        _write_pair(terminal, row)
    terminal.more(len(body["pairs"]) - count, "pairs; -n COUNT shows more, a PATTERN fewer, --json lists all")
    if body["pairs"]:
        terminal.line("")
    found = [f"{number(body['counts'][name])} {name}" for name in STATES if body["counts"].get(name)]
    terminal.line(f"{counted(len(desk.pairs), 'pairs')}: {', '.join(found) or 'nothing is shared'}")
    if body["idle"]:
        first = " -> ".join(body["idle"][0])
        terminal.line(
            f"{counted(len(body['idle']), 'decisions')} about tasks that share nothing, such as {first}"
        )
    waiting = sum(body["counts"].get(name, 0) for name in WAITING)
    if waiting:
        terminal.line(f"decide: taskmill decisions set {run} TRAIN_TASK EVAL_TASK ACTION --why TEXT")
        terminal.line(f"    or: taskmill review {run}, or taskmill split {run} --suggest")
    terminal.line(
        f"then continue with: taskmill run {run}" if waiting else f"continue with: taskmill run {run}"
    )


def listed(desk: Desk, pattern: str | None, state: str) -> Row:
    """Return the pairs that fit, worst first, how many pairs there are in each state, and decisions without a pair.

    Raises:
        UsageError: no task of the run fits the pattern.
    """
    verdict = desk.verdict(desk.people.values())
    states, made = desk.states(verdict), {decision.pair: decision for decision in verdict.decisions}
    if pattern is not None:
        fitting(pattern, "PATTERN", desk.tasks, desk.run)
    chosen = [
        pair
        for pair in desk.pairs
        if state in ("all", states[pair.tasks])
        and (pattern is None or any(fits(task, pattern) for task in pair.tasks))
    ]
    return {
        "run": str(desk.run),
        "threshold": desk.settings.split.threshold,
        "counts": dict(Counter(states.values())),
        "idle": [list(pair) for pair in sorted(desk.people.keys() - desk.by_tasks.keys())],
        "pairs": [_row(pair, states[pair.tasks], made.get(pair.tasks), desk.people) for pair in chosen],
    }


def _row(pair: Pair, state: str, made: Decision | None, people: Mapping[tuple[str, str], Decision]) -> Row:
    """Return a pair as it is listed; `decision` is what holds, `before` what was decided on other evidence."""
    before = people.get(pair.tasks) if state in ("outdated", "dropped") else None
    return {
        **asdict(pair),
        "state": state,
        "same_output_fraction": pair.same_output_fraction,
        "short_fraction": pair.short_fraction,
        "touched_fraction": pair.touched_fraction,
        "decision": asdict(made) if made else None,
        "before": asdict(before) if before else None,
    }


def _write_pair(terminal: Terminal, row: Row) -> None:
    state = row["state"]
    terminal.line(
        (f"{state:<10}", _COLOURS.get(state, "dim")),
        (f"{row['train_task']} -> {row['eval_task']}", "bold"),
        (f"  {words(row['level'])}, evidence {row['evidence'][:8]}", "dim"),
    )
    notes = [
        f"{number(row['num_hit'])} of {number(row['num_eval'])} evaluation examples hit: "
        f"{percent(row['hit_fraction'])}, {percent(row['hit_fraction_rare'])} without frequent text",
        f"{percent(row['hit_input'])} in the input, {percent(row['hit_output'])} in the output",
        f"{number(row['num_same_output'])} with an equal output",
        f"{number(row['num_train_touched'])} of {number(row['num_train'])} train examples touched",
    ]
    notes += [f"{number(row['num_short_equal'])} short ones equal"] if row["num_short_equal"] else []
    notes += ["same data set"] if row["same_dataset"] else []
    terminal.line(f"          {'; '.join(notes)}")
    for name, decision in (("", row["decision"]), ("before: ", row["before"])):
        if decision:
            terminal.line(f"          {name}{described(decision)}")


def described(decision: Mapping[str, str]) -> str:
    """Return a decision in words: action, who and why."""
    who = f"rule {decision['rule']}" if decision["by"] == RULE else _who(decision["by"], decision["at"])
    return f"{decision['action']}, {who}" + (f": {decision['why']}" if decision["why"] else "")


def _who(by: str, at: str) -> str:
    return f"by {by or 'a person'}" + (f" at {at}" if at else "")
