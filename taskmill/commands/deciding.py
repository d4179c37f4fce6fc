"""The commands `decisions set`, `apply` and `merge`: decide overlapping pairs, one's own way or as files of others say.

Each reads the tables of `overlaps` and writes `decisions.csv` at the root of the run, under the run's lock, at once or not at
all. The stage split reads the file when it runs next.

    set_action(Path("runs/demo"), "flan/cb", "*", "drop_train_examples", why="the same premises", by="ann", as_json=False)
"""

from __future__ import annotations

import getpass
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from taskmill.artifact import read_manifest
from taskmill.commands.decisions import Desk, described, fitting, open_desk
from taskmill.commands.figures import counted, visible
from taskmill.commands.finished import FinishedRun
from taskmill.commands.terminal import Terminal
from taskmill.errors import DecisionNeededError, UsageError, did_you_mean
from taskmill.records import ACTIONS, DIRECTORIES
from taskmill.runs import RunLock
from taskmill.splits.deciding.agreement import NEWEST, Conflict, Refused, holding, unite
from taskmill.splits.deciding.decision_files import FILE, read_rows
from taskmill.splits.deciding.decisions import STATES, Decision, Pair, Verdict

# ------------------------------------------------------------------------------------------------ set


def check_action(action: str) -> None:
    """Check that an action is one.

    Raises:
        UsageError: it is not; the message names the nearest.
    """
    if action not in ACTIONS:
        hint = did_you_mean(action, ACTIONS)
        raise UsageError(
            f"ACTION: no action is called {action!r}{hint}; expected one of {', '.join(ACTIONS)}"
        )


def set_action(
    run: Path, train_task: str, eval_task: str, action: str, why: str, by: str | None, as_json: bool
) -> None:
    """Decide one pair, or every pair of two patterns that waits for a decision.

    Args:
        run: the run directory.
        train_task: id or shell pattern of train tasks.
        eval_task: id or shell pattern of evaluation tasks.
        action: one of `records.ACTIONS`.
        why: the reason, written beside it.
        by: who decides; None for the login name.
        as_json: print one JSON object with what was set.

    Raises:
        UsageError: an unknown action or task, tasks that share nothing, or nothing that waits for a decision.
        BusyError: another process writes the run.
    """
    check_action(action)
    FinishedRun(run).require("overlap")
    with RunLock(run):
        desk = open_desk(run)
        before = desk.verdict(desk.people.values())
        pairs = _chosen(desk, train_task, eval_task, before)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = _login() if by is None else by.strip()
        made = [Decision(*pair.tasks, action, pair.evidence, "", who, at, why.strip()) for pair in pairs]
        after = desk.write(made)
    _say_written(desk, before, after, made, [], as_json)


def _login() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def _chosen(desk: Desk, train_pattern: str, eval_pattern: str, verdict: Verdict) -> list[Pair]:
    """Return the pair of two names, whatever its state, or the pairs of two patterns that wait for a decision.

    Raises:
        UsageError: there are none.
    """
    named = desk.by_tasks.get((train_pattern, eval_pattern))
    if named is not None:
        return [named]
    train = fitting(train_pattern, "TRAIN_TASK", desk.tasks, desk.run)
    evaluated = fitting(eval_pattern, "EVAL_TASK", desk.tasks, desk.run)
    fit = [pair for pair in desk.pairs if pair.train_task in train and pair.eval_task in evaluated]
    if not fit:
        raise UsageError(_nothing_shared(desk, train_pattern, eval_pattern, train, evaluated))
    waiting = {pair.tasks for pair in verdict.undecided}
    found = [pair for pair in fit if pair.tasks in waiting]
    if not found:
        states = desk.states(verdict)
        counts = Counter(states[pair.tasks] for pair in fit)
        told = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
        raise UsageError(
            f"{counted(len(fit), 'pairs')} of {train_pattern!r} and {eval_pattern!r}: none waits for a decision "
            f"({told}); name both tasks in full to decide one all the same. "
            f"`taskmill decisions list {desk.run}` shows them"
        )
    return found


def _nothing_shared(
    desk: Desk, train_pattern: str, eval_pattern: str, train: set[str], evaluated: set[str]
) -> str:
    """Return why no pair fits two patterns that fit tasks."""
    if any(pair.train_task in evaluated and pair.eval_task in train for pair in desk.pairs):
        return (
            f"the tasks are the other way round: {eval_pattern!r} is trained on and {train_pattern!r} evaluated; "
            f"expected TRAIN_TASK EVAL_TASK"
        )
    partners = sorted({pair.eval_task for pair in desk.pairs if pair.train_task in train})
    more = f"{train_pattern!r} shares text with {', '.join(partners[:5])}" if partners else ""
    more += f" and {len(partners) - 5} more" if len(partners) > 5 else ""
    return (
        f"{train_pattern!r} and {eval_pattern!r} share nothing as train and evaluation task, so there is nothing to "
        f"decide; {more or f'`taskmill decisions list {desk.run}` shows the pairs that do'}"
    )


# --------------------------------------------------------------------------------------- apply, merge


def apply(run: Path, file: Path, as_json: bool) -> bool:
    """Take the decisions of a file into the run's, over what was decided about the same pairs.

    Args:
        run: the run directory.
        file: a filled undecided.csv, a suggested.csv, or the decisions.csv of another run.
        as_json: print one JSON object with what was taken and what was refused.

    Returns:
        Whether every row was taken; those on other evidence than the present one are refused.

    Raises:
        UsageError: the file cannot be read or has malformed rows, each with `file:line`; nothing is written.
        BusyError: another process writes the run.
    """
    FinishedRun(run).require("overlap")
    with RunLock(run):
        desk = open_desk(run)
        before = desk.verdict(desk.people.values())
        held, refused = holding(read_rows(file), desk.present(), desk.tasks, desk.limited)
        made = [row.decision for row in held]
        after = desk.write(made) if made else before
    _say_written(desk, before, after, made, refused, as_json)
    return not refused


def merge(run: Path, files: Sequence[Path], prefer: str | None, as_json: bool) -> bool:
    """Unite the decisions of several files with the run's.

    Args:
        run: the run directory.
        files: decisions of several people.
        prefer: one of `files` or the run's own decisions.csv, whose row wins where rows contradict each other;
            `newest` for the latest; None to stop there.
        as_json: print one JSON object with what was written and what was refused.

    Returns:
        Whether every row holds; those on other evidence than the present one are refused.

    Raises:
        DecisionNeededError: rows contradict each other; nothing is written.
        UsageError: a file cannot be read or has malformed rows, or `prefer` names none of them.
        BusyError: another process writes the run.
    """
    FinishedRun(run).require("overlap")
    chosen = _prefer(run, files, prefer)
    with RunLock(run):
        desk = open_desk(run)
        before = desk.verdict(desk.people.values())
        own, _ = holding(desk.rows, desk.present(), desk.tasks, desk.limited)
        held, refused = [(_name(run / FILE), own)], list[Refused]()
        for file in files:
            rows, gone = holding(read_rows(file), desk.present(), desk.tasks, desk.limited)
            held.append((_name(file), rows))
            refused += gone
        united, conflicts = unite(held, chosen)
        if conflicts:
            raise DecisionNeededError(_conflict_message(run, conflicts))
        made = [decision for decision in united if desk.people.get(decision.pair) != decision]
        after = desk.write(made) if made else before
    _say_written(desk, before, after, made, refused, as_json)
    return not refused


def _name(path: Path) -> str:
    return str(path.resolve())


def _prefer(run: Path, files: Sequence[Path], prefer: str | None) -> str | None:
    if prefer is None or prefer == NEWEST:
        return prefer
    known = {_name(path): str(path) for path in (*files, run / FILE)}
    if _name(Path(prefer)) not in known:
        names = [*known.values()]
        hint = did_you_mean(prefer, [*names, NEWEST])
        raise UsageError(
            f"--prefer: {prefer!r} is none of the files{hint}; expected {NEWEST} or one of {', '.join(names)}"
        )
    return _name(Path(prefer))


def _conflict_message(run: Path, conflicts: Sequence[Conflict]) -> str:
    lines = [f"{counted(len(conflicts), 'pairs')} decided in different ways; nothing was written:"]
    for conflict in conflicts[:20]:
        lines.append(f"  {' -> '.join(conflict.pair)}")
        lines += [f"    {row.place}: {visible(described(asdict(row.decision)))}" for _, row in conflict.rows]
    if len(conflicts) > 20:
        lines.append(f"  and {len(conflicts) - 20} more")
    lines.append(
        "Agree on one action and correct a file, or run the command again with --prefer newest, or --prefer FILE; "
        f"`taskmill decisions set {run} TRAIN_TASK EVAL_TASK ACTION` and --prefer {run / FILE} settles single pairs"
    )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------ what was written


def _say_written(
    desk: Desk,
    before: Verdict,
    after: Verdict,
    made: Sequence[Decision],
    refused: Sequence[Refused],
    as_json: bool,
) -> None:
    """Print what was set, what it replaces, what was refused, what is left and how to continue."""
    left = len(after.undecided)
    if as_json:
        body: dict[str, Any] = {
            "run": str(desk.run),
            "set": [asdict(decision) for decision in made],
            "refused": [{**asdict(r.row.decision), "place": r.row.place, "reason": r.why} for r in refused],
            "num_undecided": left,
        }
        click.echo(json.dumps(body, sort_keys=True))
        return
    terminal, was = Terminal(), {decision.pair: decision for decision in before.decisions}
    for decision in made:
        old = was.get(decision.pair)
        note = f"  (was {described(asdict(old))})" if old and old.action != decision.action else ""
        terminal.line(f"{' -> '.join(decision.pair)}: ", (decision.action, "bold"), (note, "dim"))
    for item in refused:
        pair = " -> ".join(item.row.decision.pair)
        terminal.line(("refused  ", "red"), f"{item.row.place}: {pair}: {item.why}")
    if refused:
        terminal.line(f"look at refused pairs again: taskmill inspect {desk.run} overlap --task TRAIN_TASK")
    said = f"{counted(len(made), 'decisions')} written to {desk.run / FILE}" if made else "nothing to write"
    terminal.line(f"{said}; {counted(left, 'pairs')} still undecided")
    if left:
        terminal.line(f"see them: taskmill decisions list {desk.run} --state undecided")
    else:
        again = " --force" if made and read_manifest(desk.run / DIRECTORIES["split"]) is not None else ""
        terminal.line(f"continue with: taskmill run {desk.run}{again}")
