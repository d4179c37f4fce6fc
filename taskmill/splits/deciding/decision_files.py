"""Decisions as files: the CSV that people write, the list of pairs that wait for them, and the message that stops a run.

Reads and writes `decisions.csv` and `undecided.csv` at the root of a run. A row holds for the evidence that it names:

    train_task,eval_task,action,evidence,rule,by,at,why
    flan/cb,super_natural_instructions/task1388_cb,drop_train_task,1f0c...(32 hex),,ann,2026-01-31,same data

`rule`, `by`, `at` and `why` are notes: nothing that a run makes depends on them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from taskmill.errors import UsageError, did_you_mean, shorten
from taskmill.records import ACTIONS, DECISION_COLUMNS
from taskmill.splits.deciding.decisions import Decision, Pair, Verdict, describe
from taskmill.storage import digest, write_bytes

FILE = "decisions.csv"
UNDECIDED_FILE = "undecided.csv"
REQUIRED = DECISION_COLUMNS[:4]
_EVIDENCE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Placed:
    """A decision and where it stands: `file:line`."""

    decision: Decision
    place: str


def read_rows(path: Path, tasks: Iterable[str] | None = None) -> list[Placed]:
    """Read the rows of a CSV that have an action, in their order.

    Args:
        path: the file.
        tasks: every task of the run; None lets rows name any task.

    Raises:
        UsageError: the file cannot be read, or rows are malformed; every one with `file:line`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the decisions {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the decisions {path}, expected CSV in UTF-8: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    known, problems, found = None if tasks is None else set(tasks), list[str](), list[Placed]()
    try:
        columns = [name.strip() for name in next(reader, [])]
        problems += [f"{path}:1: {problem}" for problem in _header_problems(columns)]
        for values in reader if not problems else ():
            if not "".join(values).strip():
                continue
            row, place = dict(zip(columns, (value.strip() for value in values))), f"{path}:{reader.line_num}"
            wrong = _row_problems(row, len(values), len(columns), known)
            problems += [f"{place}: {problem}" for problem in wrong]
            if not wrong and row["action"]:
                found.append(Placed(Decision(**{**row, "evidence": row["evidence"].lower()}), place))
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: not CSV: {error}")
    if problems:
        raise UsageError("\n".join(problems))
    return found


def last_rows(rows: Iterable[Placed]) -> list[Placed]:
    """Return the rows that count, sorted by pair: of several about one pair the last."""
    found = {row.decision.pair: row for row in rows}
    return [found[pair] for pair in sorted(found)]


def read_decisions(path: Path, tasks: Iterable[str]) -> list[Decision]:
    """Read people's decisions; of rows about one pair the last wins, rows without an action decide nothing.

    Raises:
        UsageError: the file cannot be read, or rows are malformed; every one with `file:line`.
    """
    return [row.decision for row in last_rows(read_rows(path, tasks))]


def _header_problems(columns: Sequence[str]) -> list[str]:
    expected = f"expected the header {','.join(DECISION_COLUMNS)}, with commas"
    missing = [name for name in REQUIRED if name not in columns]
    what = f"the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}"
    problems = [f"{what} {'are' if len(missing) > 1 else 'is'} missing; {expected}"] if missing else []
    problems += [
        f"unknown column {shorten(name)}{did_you_mean(name, DECISION_COLUMNS)}; {expected}"
        for name in columns
        if name not in DECISION_COLUMNS
    ]
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    return problems + [f"the column {shorten(name)} is there twice; {expected}" for name in doubled]


def _row_problems(
    row: Mapping[str, str], num_values: int, num_columns: int, tasks: set[str] | None
) -> list[str]:
    if num_values != num_columns:
        return [f"{num_values} values; expected {num_columns}, one per column (quote values with commas)"]
    problems = [
        f"{column}: no task is called {row[column]!r}{did_you_mean(row[column], tasks)}; "
        f"`taskmill tasks RUN` lists all {len(tasks)}, and the row of a task that has left the recipe can go"
        for column in ("train_task", "eval_task")
        if tasks is not None and row[column] not in tasks
    ]
    if not row["action"]:
        return problems
    if row["action"] not in ACTIONS:
        hint = did_you_mean(row["action"], ACTIONS)
        problems.append(f"action: unknown {row['action']!r}{hint}; expected one of {', '.join(ACTIONS)}")
    if not _EVIDENCE.fullmatch(row["evidence"].lower()):
        problems.append(
            f"evidence: {shorten(row['evidence'])} is not a digest; expected the 32 hex digits that "
            f"{UNDECIDED_FILE} in the run gives for the pair"
        )
    return problems


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Write a CSV of decisions atomically, in the order given; a link to a file stays one.

    Raises:
        StorageError: the disk refuses.
    """
    write_bytes(
        path.resolve(),
        csv_lines([list(DECISION_COLUMNS), *(list(asdict(d).values()) for d in decisions)]).encode(),
    )


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV text with one line feed per row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def decisions_digest(decisions: Iterable[Decision]) -> str:
    """Return the digest of what counts: pair, action and evidence, not names, notes or times."""
    return digest(sorted([d.train_task, d.eval_task, d.action, d.evidence] for d in decisions))


# ------------------------------------------------------------------------------------ pairs that wait


def write_undecided(path: Path, undecided: Iterable[Pair]) -> int:
    """Write the pairs that wait for a decision, and return how many of them have an action in the file already.

    What a person has filled in there, for a pair whose evidence is the same, stays.

    Raises:
        UsageError: the file that is there has malformed rows; it is left as it is.
        StorageError: the disk refuses.
    """
    filled = {}
    if path.is_file():
        try:
            filled = {(*row.decision.pair, row.decision.evidence): row.decision for row in read_rows(path)}
        except UsageError as error:
            raise UsageError(f"{error}\nmend the file, or delete it to have it written again") from error
    rows = [Decision(*pair.tasks, "", pair.evidence) for pair in undecided]
    rows = [filled.get((*row.pair, row.evidence), row) for row in rows]
    write_decisions(path, rows)
    return sum(bool(row.action) for row in rows)


def undecided_message(
    verdict: Verdict, num_pairs: int, threshold: float, run: Path, num_filled: int = 0
) -> str:
    """Return what to tell a person who must decide: the worst 20 pairs, the file, a row, the commands.

    `num_filled` rows of the file have an action that no one has applied.
    """
    pairs = verdict.undecided
    lines = [
        f"{len(pairs)} of {num_pairs} overlapping pairs are above the threshold of {threshold:.2%} or share a data "
        f"set, and no rule and no person has decided them; the worst {min(20, len(pairs))}:"
    ]
    lines += [f"  {_line(pair, verdict)}" for pair in pairs[:20]]
    if num_filled:
        lines.append(
            f"{num_filled} of them have an action in {run / UNDECIDED_FILE} already: "
            f"`taskmill decisions apply {run} {run / UNDECIDED_FILE}` takes them over."
        )
    row = replace(Decision(*pairs[0].tasks, "drop_train_examples", pairs[0].evidence), by="you")
    lines += [
        f"All are listed in {run / UNDECIDED_FILE}: fill in `action` there and add the rows to {run / FILE}, "
        f"or copy the file where there is none (header {','.join(DECISION_COLUMNS)}). "
        f"Actions: {', '.join(ACTIONS)}. For example:",
        f"  {csv_lines([list(asdict(row).values())]).strip()}",
        "These commands do the same, and help to decide:",
        f"  taskmill decisions list {run} --state undecided",
        f"  taskmill decisions set {run} {pairs[0].train_task} {pairs[0].eval_task} drop_train_examples",
        f"  taskmill decisions apply {run} {run / UNDECIDED_FILE}   (what is filled in there)",
        f"  taskmill split {run} --suggest   (proposes the decisions of least loss)",
        f"  taskmill review {run}   (a page that shows the shared text side by side)",
        f"Then continue with: taskmill run {run}",
    ]
    return "\n".join(lines)


def _line(pair: Pair, verdict: Verdict) -> str:
    again = ", decided before, on evidence that has changed" if pair.tasks in verdict.outdated else ""
    return f"{pair.train_task} -> {pair.eval_task} ({pair.level}): {describe(pair)}{again}"
