"""Another reviewer's decisions beside one's own: what is new, equal, contradicting or refused.

Works on the bytes of a decisions.csv through `splits.deciding.agreement`, as `taskmill decisions merge` does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskmill.commands.review.deciding.filters import Key
from taskmill.errors import UsageError, did_you_mean
from taskmill.splits.deciding.agreement import NEWEST, Conflict, Refused, holding, unite
from taskmill.splits.deciding.decision_files import Placed, last_rows, read_rows
from taskmill.splits.deciding.decisions import Decision

MINE, THEIRS = "mine", "theirs"
PREFERENCES = (MINE, THEIRS, NEWEST)
_MOST_HINTS = 20
"""Distinct unknown tasks for which the nearest one is looked for: that takes long among thousands."""


@dataclass(frozen=True)
class Contradiction:
    """A pair about which two people say different things."""

    mine: Decision
    theirs: Decision

    @property
    def pair(self) -> tuple[str, str]:
        """(train task, evaluation task)."""
        return self.mine.pair


@dataclass(frozen=True)
class RefusedRow:
    """A row of the other file that does not hold here."""

    decision: Decision
    line: int
    why: str


@dataclass(frozen=True)
class MergePreview:
    """What taking in another file would do."""

    name: str
    new: tuple[Decision, ...]
    """Theirs, on pairs that nobody here has decided on the present evidence."""
    equal: tuple[Decision, ...]
    """Theirs, with the action that is decided here; their name joins."""
    contradicting: tuple[Contradiction, ...]
    refused: tuple[RefusedRow, ...]
    token: str
    """Give it to `merge`: it refuses with StaleError when one's own decisions changed since."""
    num_overruled: int = 0
    """Of the new ones: about pairs that a rule decides now."""


@dataclass(frozen=True)
class Sides:
    """The rows of both files that hold."""

    mine: dict[Key, Placed]
    theirs: dict[Key, Placed]
    refused: list[Refused]


def parse(data: bytes, name: str) -> list[Placed]:
    """Read the rows of another person's file.

    Raises:
        UsageError: it is not a CSV of decisions; every malformed row with `name:line`.
    """
    with tempfile.TemporaryDirectory(prefix="taskmill-merge-") as folder:
        path = Path(folder) / "theirs.csv"
        path.write_bytes(data)
        try:
            return read_rows(path)
        except UsageError as error:
            raise UsageError(str(error).replace(str(path), name)) from None


def sides(
    people: Mapping[Key, Decision],
    theirs: Iterable[Placed],
    present: Mapping[Key, str],
    tasks: Iterable[str],
    limited: bool,
) -> Sides:
    """Divide both files' rows into those that hold and those that do not; see `agreement.holding`."""
    known = set(tasks)
    mine, _ = holding([Placed(decision, MINE) for decision in people.values()], present, known, limited)
    rows = last_rows(theirs)
    strange = dict.fromkeys(task for row in rows for task in row.decision.pair if task not in known)
    hints = {task: did_you_mean(task, known) for task in list(strange)[:_MOST_HINTS]}
    refused, judged = list[Refused](), list[Placed]()
    for row in rows:
        unknown = next((task for task in row.decision.pair if task in strange), None)
        if unknown is None:
            judged.append(row)
        else:
            refused.append(Refused(row, f"no task is called {unknown!r}{hints.get(unknown, '')}"))
    held, more = holding(judged, present, known, limited)
    return Sides(
        {row.decision.pair: row for row in mine}, {row.decision.pair: row for row in held}, [*refused, *more]
    )


def compare(found: Sides, name: str, token: str) -> MergePreview:
    """Return what is new, equal, contradicting and refused."""
    new, equal, contradicting = list[Decision](), list[Decision](), list[Contradiction]()
    for key, row in sorted(found.theirs.items()):
        mine = found.mine.get(key)
        if mine is None:
            new.append(row.decision)
        elif mine.decision.action == row.decision.action:
            equal.append(row.decision)
        else:
            contradicting.append(Contradiction(mine.decision, row.decision))
    refused = [RefusedRow(r.row.decision, _line(r.row), r.why) for r in found.refused]
    return MergePreview(name, tuple(new), tuple(equal), tuple(contradicting), tuple(refused), token)


def _line(row: Placed) -> int:
    return int(row.place.rpartition(":")[2])


def united(found: Sides, prefer: str, choices: Mapping[Key, str]) -> list[Decision]:
    """Return what holds of the pairs in the other file when both are taken together.

    Args:
        found: rows of both.
        prefer: one of PREFERENCES, where they contradict each other.
        choices: pair -> `mine` or `theirs`, before `prefer`.

    Raises:
        UsageError: an unknown preference, or `newest` cannot tell which of two is later; the message names pairs.
    """
    for value, known in ((prefer, PREFERENCES), *((choice, PREFERENCES[:2]) for choice in choices.values())):
        if value not in known:
            raise UsageError(
                f"unknown choice {value!r}{did_you_mean(value, known)}; expected one of {', '.join(known)}"
            )
    mine = [found.mine[key] for key in found.theirs if key in found.mine and choices.get(key) != THEIRS]
    theirs = [row for key, row in found.theirs.items() if choices.get(key) != MINE or key not in found.mine]
    rows, conflicts = unite([(MINE, mine), (THEIRS, theirs)], prefer)
    if conflicts:
        raise UsageError(_undated(conflicts))
    return rows


def _undated(conflicts: Sequence[Conflict]) -> str:
    shown = "; ".join(" -> ".join(conflict.pair) for conflict in conflicts[:5])
    more = f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
    return f"neither decision is later than the other, so choose mine or theirs: {shown}{more}"
