"""How far a review is: what waits, what was decided by whom. Works on pairs in memory; reads and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.filters import WAITING, View
from taskmill.commands.review.deciding.listing import fitting, people_in
from taskmill.commands.review.deciding.undoing import Change
from taskmill.splits.deciding.decisions import PERSON, RULE

_WAITS = View(states=WAITING)


@dataclass(frozen=True)
class Progress:
    """How far a review is."""

    run: str
    threshold: float
    num_pairs: int
    counts: Mapping[str, int]
    """decisions.STATES -> pairs, with zeros."""
    num_waiting: int
    num_mine: int
    """Pairs whose holding decision has the reviewer's name."""
    by: Mapping[str, int] = field(default_factory=dict)
    """Name of a person -> pairs whose holding decision is theirs, most first."""
    num_groups: int = 0
    num_groups_waiting: int = 0
    split: str = "to do"
    """`up to date`, `stale` (decisions or inputs changed since), `to do` (never finished) or `damaged`."""
    can_write: bool = False
    """Whether nothing waits, so that `write_split` can succeed."""
    undo: Change | None = None
    """The step that `undo` would take back."""
    redo: Change | None = None
    """The step that `redo` would do again."""
    hint: str = ""
    """Why nothing is proposed for what waits, and how to have it proposed."""


def progress_of(board: Board, run: Path, by: str) -> Progress:
    """Return how far a review is; the split and what can be undone are left to the caller."""
    people = Counter(made.by for made in board.made if made is not None and made.by != RULE)
    names = Counter[str]()
    for who, num in people.items():
        names.update(dict.fromkeys(who.split(", "), num))
    mine = by if by not in ("", RULE) else PERSON
    waiting = fitting(board, _WAITS, {})
    return Progress(
        run=str(run),
        threshold=board.threshold,
        num_pairs=len(board.pairs),
        counts=board.num_by_state(),
        num_waiting=len(waiting),
        num_mine=sum(num for who, num in people.items() if mine in people_in(who)),
        by=dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))),
        num_groups=len(board.columns.group_keys),
        num_groups_waiting=len(set(board.columns.group[waiting].tolist())),
        can_write=not waiting,
    )
