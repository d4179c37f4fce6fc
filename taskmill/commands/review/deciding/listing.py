"""Find the pairs that a view shows, put them in order, and join them into groups by data set.

Works on pairs in memory (`taskmill.commands.review.deciding.board`); reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.filters import WAITING, Group, Key, Suggestion, View
from taskmill.records import LEVELS
from taskmill.splits.deciding.decisions import RULE, STATES, Decision
from taskmill.splits.sharing.examples import I64, Bools

Figures = npt.NDArray[np.float64]
_WAITING = [STATES.index(state) for state in WAITING]


def fitting(board: Board, view: View, notes: Mapping[Key, str], group: Key | None = None) -> list[int]:
    """Return the numbers of the pairs that a view shows, of one group or all, the worst first."""
    columns = board.columns
    fits = np.ones(len(board.pairs), bool)
    if group is not None:
        fits &= columns.group == (columns.group_keys.index(group) if group in columns.group_keys else -1)
    if view.states:
        fits &= np.isin(board.codes, [STATES.index(state) for state in view.states])
    if view.levels:
        fits &= np.isin(columns.level, [LEVELS.index(level) for level in view.levels])
    if view.same_dataset is not None:
        fits &= columns.same_dataset == view.same_dataset
    if view.hit_over is not None:
        fits &= columns.badness > view.hit_over
    if view.only_frequent is not None:
        fits &= columns.only_frequent == view.only_frequent
    places: list[int] = np.flatnonzero(fits).tolist()
    for word in view.text.casefold().split():
        places = [i for i in places if word in columns.search[i]]
    if view.by or view.action:
        places = [i for i in places if _decided(board.made[i], view.by, view.action)]
    if view.noted is not None:
        places = [i for i in places if bool(board.note(board.keys[i], notes)) == view.noted]
    return places


def _decided(made: Decision | None, by: str, action: str) -> bool:
    """Say whether a decision that holds is somebody's and of some action; empty means any."""
    if made is None or action not in ("", made.action):
        return False
    return not by or by in deciders(made)


def deciders(decision: Decision) -> list[str]:
    """Return whose a decision is: the rule's name, or each name of people who agreed."""
    return [decision.rule] if decision.by == RULE else people_in(decision.by)


def people_in(by: str) -> list[str]:
    """Return each name of people who agreed, and all of them as they are written."""
    return list(dict.fromkeys([*by.split(", "), by]))


def ordered(board: Board, places: list[int], sort: str) -> list[int]:
    """Return pairs, given the worst first, in one of the orders of SORTS."""
    if sort in ("rare", "touched"):
        figures = (board.columns.rare if sort == "rare" else board.columns.touched)[places]
        found: list[int] = np.asarray(places, np.int64)[np.argsort(-figures, kind="stable")].tolist()
        return found
    if sort == "train":
        return sorted(places, key=board.keys.__getitem__)
    if sort == "eval":
        return sorted(places, key=lambda i: board.keys[i][::-1])
    if sort == "newest":
        return sorted(places, key=lambda i: _at(board.made[i]), reverse=True)
    return places


def _at(made: Decision | None) -> str:
    return made.at if made is not None else ""


# ------------------------------------------------------------------------------------------- groups


class Grouping:
    """The groups of one view, made again where their figures changed."""

    def __init__(self) -> None:
        """Begin with no group."""
        self._figures: Figures = np.zeros((0, 0))
        self._made: dict[int, Group] = {}

    def groups(self, board: Board, places: list[int], keys: Collection[Key] | None = None) -> list[Group]:
        """Return pairs by data sets, most waiting first, then the worst; only some groups where `keys` names them."""
        columns = board.columns
        figures = _figures(board, np.asarray(places, np.int64))
        if figures.shape == self._figures.shape:
            for number in np.flatnonzero((figures != self._figures).any(1)).tolist():
                self._made.pop(number, None)
        else:
            self._made.clear()
        self._figures = figures
        shown = np.flatnonzero(figures[:, 0])
        order = np.lexsort((shown, -figures[shown, _WORST], -figures[shown, 1]))
        found = list[Group]()
        for number in shown[order].tolist():
            if keys is not None and columns.group_keys[number] not in keys:
                continue
            if number not in self._made:
                self._made[number] = _group(board, number, figures[number].tolist())
            found.append(self._made[number])
        return found


_WORST = 2 + len(STATES)
"""Column of `_figures` with the worst share; before it stand pairs, waiting pairs, and pairs by state."""


def _figures(board: Board, places: I64) -> Figures:
    """Return what is said of each group over some pairs: float64[num_groups, 15]."""
    columns, size = board.columns, len(board.columns.group_keys)
    group, state = columns.group[places], board.codes[places]
    waits: Bools = np.isin(state, _WAITING)
    num, num_waiting = np.bincount(group, minlength=size), np.bincount(group[waits], minlength=size)
    states = np.bincount(group * len(STATES) + state, minlength=size * len(STATES)).reshape(size, len(STATES))
    counted = waits | (num_waiting[group] == 0)
    worst, rare = np.zeros(size), np.zeros(size)
    np.maximum.at(worst, group[counted], columns.badness[places][counted])
    np.maximum.at(rare, group[counted], columns.rare[places][counted])
    levels = np.zeros(size, np.int64)
    np.bitwise_or.at(levels, group, 1 << columns.level[places])
    kind = board.kind[places]
    least, most = np.full(size, len(board.suggestions) + 1), np.zeros(size, np.int64)
    np.minimum.at(least, group[waits], kind[waits])
    np.maximum.at(most, group[waits], kind[waits])
    sums = [
        np.bincount(group[rows], column[places][rows], minlength=size)
        for column, rows in (
            (columns.num_hit, np.ones(len(places), bool)),
            (columns.num_hit, waits),
            (columns.num_same_output, waits),
            (columns.num_eval, waits),
        )
    ]
    rest = [worst, rare, levels, np.where(least == most, most, 0), *sums]
    return np.column_stack([num, num_waiting, states, *rest]).astype(np.float64)


def _group(board: Board, number: int, figures: list[float]) -> Group:
    num, num_waiting, *states = (int(figure) for figure in figures[:_WORST])
    worst, rare, *counts = figures[_WORST:]
    levels, kind, num_hit, *waiting = (int(count) for count in counts)
    return Group(
        *board.columns.group_keys[number],
        num_pairs=num,
        num_waiting=num_waiting,
        counts={state: count for state, count in zip(STATES, states, strict=True) if count},
        levels=tuple(level for place, level in enumerate(LEVELS) if levels >> place & 1),
        worst=worst,
        worst_rare=rare,
        num_hit=num_hit,
        suggestion=_suggestion(board.suggestions[kind - 1], *waiting) if kind else None,
    )


def _suggestion(base: Suggestion, num_hit: int, num_same_output: int, num_eval: int) -> Suggestion:
    """Return what is said of each waiting pair of a group; what is obvious comes with their figures together."""
    if base.proposed:
        return base
    figures = f"{num_hit:,} of {num_eval:,} evaluation examples hit, {num_same_output:,} with an equal answer"
    return Suggestion(base.action, f"{base.why}: {figures}")
