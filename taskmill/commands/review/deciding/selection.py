"""Which pairs a step is about, and what it would do before it is done.

Works on pairs in memory; counts examples from the tables hits and touched of overlap.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.evidence_texts import Shared
from taskmill.commands.review.deciding.filters import WAITING, Key, View, check_view
from taskmill.commands.review.deciding.listing import fitting
from taskmill.errors import UsageError, did_you_mean, shorten
from taskmill.records import ACTIONS
from taskmill.splits.deciding.decisions import PERSON, RULE, Decision

CLEAR = "clear"
"""The step that takes people's decisions back, beside records.ACTIONS."""
SUGGESTED = "as_suggested"
"""The step that decides each pair that waits as it is proposed for it, beside records.ACTIONS."""


@dataclass(frozen=True)
class Selection:
    """Pairs to decide: named ones, else those of a group and a view; at least one of the three is given."""

    pairs: tuple[tuple[str, str], ...] = ()
    """(train task, evaluation task) of each."""
    group: tuple[str, str] | None = None
    """(train data set, evaluation data set)."""
    view: View | None = None
    """With `group`: what the view shows of it."""
    waiting_only: bool = False
    """Leave out what a person, a rule or the loss of a task has settled."""
    revision: str = ""
    """`Review.revision` as the page showed it; where overlap was built again since, StaleError."""


@dataclass(frozen=True)
class Preview:
    """What a step would do."""

    action: str
    """Of records.ACTIONS, or CLEAR or SUGGESTED."""
    pairs: tuple[tuple[str, str], ...]
    """Every pair it is about, the worst first."""
    num_train_examples: int
    """Distinct examples of train text that the decisions name, whatever other decisions take out already."""
    num_eval_examples: int
    """Distinct examples of evaluation text, likewise."""
    exact: bool
    """Whether these two were counted; otherwise they are upper bounds."""
    dropped_tasks: tuple[str, ...]
    """Tasks that would go as a whole and do not yet."""
    moot: tuple[tuple[str, str], ...]
    """Other pairs that wait now and would need no decision any more, because a task of theirs goes."""
    reopened: tuple[tuple[str, str], ...]
    """Other pairs that would wait again, because a task of theirs is not dropped any more."""
    replaced: tuple[Decision, ...]
    """Earlier decisions of people that would go."""
    num_overruled: int
    """Pairs of the selection that a rule decides now."""
    num_equal: int
    """Pairs of the selection whose decision by a person has the same action and evidence already; they stay as they are."""
    num_waiting_before: int
    """Pairs of the selection that wait now."""
    num_waiting_after: int
    """Pairs of the whole run that would wait then."""
    token: str
    """Give it to `decide` or `clear`: they refuse with StaleError when something else would be done by then."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of SUGGESTED: action -> pairs that it is proposed for."""


# ------------------------------------------------------------------------------------------- choose


def chosen(
    board: Board, selection: Selection, notes: Mapping[Key, str], proposed_only: bool = False
) -> list[int]:
    """Return the numbers of the pairs of a selection, the worst first; or of those that wait and have a proposal.

    Raises:
        UsageError: a pair that is not there, a view that asks for what there is not, or no pair at all.
    """
    if selection.pairs:
        places = sorted({place_of(board, *pair) for pair in selection.pairs})
    elif selection.group is None and selection.view is None:
        raise UsageError("nothing is selected; choose pairs, a group or what a filter shows")
    else:
        view = selection.view or View()
        check_view(view)
        places = fitting(board, view, notes, selection.group)
    if selection.waiting_only or proposed_only:
        places = [place for place in places if board.state[place] in WAITING]
    if proposed_only and places:
        places = [place for place in places if place in board.proposed]
        if not places:
            raise UsageError(
                "nothing is suggested for what is selected; `taskmill split RUN --suggest` writes suggestions"
            )
    if not places:
        waiting = selection.waiting_only or proposed_only
        what = "no pair of it waits for a decision" if waiting else "no pair is in it"
        raise UsageError(f"nothing is selected: {what}")
    return places


def place_of(board: Board, train_task: str, eval_task: str) -> int:
    """Return the number of a pair.

    Raises:
        UsageError: the two tasks share nothing.
    """
    place = board.number.get((train_task, eval_task))
    if place is None:
        raise UsageError(
            f"{shorten(train_task)} and {shorten(eval_task)} share nothing as train and evaluation task, so there is "
            f"nothing to decide"
        )
    return place


def actions_of(board: Board, action: str, places: Sequence[int]) -> dict[int, str]:
    """Return pair -> which of records.ACTIONS, or CLEAR, a step takes about it."""
    if action == SUGGESTED:
        return {place: board.proposed[place].action for place in places}
    return dict.fromkeys(places, action)


def steps(
    board: Board, action: str, places: Sequence[int], decide: Callable[[int, str], Decision]
) -> dict[Key, Decision | None]:
    """Return what an action changes: pair -> its new decision, or None for none.

    Pairs that a person has decided just so already are left out. `decide` makes a decision of a pair's number and an action.

    Raises:
        UsageError: no such action, or a CLEAR of nothing.
    """
    if action not in (*ACTIONS, CLEAR, SUGGESTED):
        hint = did_you_mean(action, ACTIONS)
        raise UsageError(f"no action is called {shorten(action)}{hint}; expected one of {', '.join(ACTIONS)}")
    if action == CLEAR:
        found: dict[Key, Decision | None] = {
            board.keys[place]: None for place in places if board.keys[place] in board.people
        }
        if not found:
            raise UsageError("nothing to take back: no person has decided any of these pairs")
        return found
    made: dict[Key, Decision | None] = {}
    for place, its_action in actions_of(board, action, places).items():
        key, evidence = board.keys[place], board.pairs[place].evidence
        person = board.people.get(key)
        if person is None or person.action != its_action or person.evidence != evidence:
            made[key] = decide(place, its_action)
    return made


def look_ahead(board: Board, shared: Shared, run: Path, action: str, places: Sequence[int]) -> Preview:
    """Return what an action on pairs would do; the board is as before.

    Raises:
        UsageError: see steps and Board.check.
    """

    def decision(place: int, its_action: str) -> Decision:
        return Decision(*board.keys[place], its_action, board.pairs[place].evidence, by=PERSON)

    changes = steps(board, action, places, decision)
    board.check(changes, run)
    before = {key: board.people.get(key) for key in changes}
    chosen_pairs, gone, made = set(places), board.gone(), [board.made[place] for place in places]
    num_waiting = sum(board.state[place] in WAITING for place in places)
    with board.trial(changes) as moved:
        waiting, gone_after = board.num_waiting, board.gone()
    others = [(place, was, now) for place, was, now in sorted(moved) if place not in chosen_pairs]
    num_train, num_eval = _num_examples(board, shared, action, places)
    return Preview(
        action=action,
        pairs=tuple(board.keys[place] for place in places),
        num_train_examples=num_train,
        num_eval_examples=num_eval,
        exact=True,
        dropped_tasks=tuple(sorted({task for _, task in gone_after - gone})),
        moot=tuple(
            board.pairs[place].tasks for place, was, now in others if was in WAITING and now not in WAITING
        ),
        reopened=tuple(
            board.pairs[place].tasks for place, was, now in others if was not in WAITING and now in WAITING
        ),
        replaced=tuple(decision for decision in before.values() if decision is not None),
        num_overruled=sum(decision is not None and decision.by == RULE for decision in made)
        if action != CLEAR
        else 0,
        num_equal=len(places) - len(changes) if action != CLEAR else 0,
        num_waiting_before=num_waiting,
        num_waiting_after=waiting,
        token=token_of(action, changes, before, board),
        counts=Counter(actions_of(board, action, places).values()) if action == SUGGESTED else {},
    )


def token_of(
    action: str, changes: Mapping[Key, Decision | None], before: Mapping[Key, Decision | None], board: Board
) -> str:
    """Return the digest of a step: its pairs with their evidence, and what is decided about each before it."""
    parts = [action]
    for key in sorted(changes):
        old, place = before[key], board.number[key]
        parts += [*key, board.pairs[place].evidence]
        if action == SUGGESTED:
            parts += [board.proposed[place].action, board.proposed[place].why]
        parts += ["", ""] if old is None else [old.action, old.evidence, old.by, old.at, old.why]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _num_examples(board: Board, shared: Shared, action: str, places: Sequence[int]) -> tuple[int, int]:
    """Return how many distinct train and evaluation examples decisions name."""
    by_action: dict[str, list[int]] = {}
    for place, its_action in actions_of(board, action, places).items():
        by_action.setdefault(its_action, []).append(place)
    pairs = {name: [board.pairs[place] for place in found] for name, found in by_action.items()}
    train = {pair.train_task: pair.num_train for pair in pairs.get("drop_train_task", [])}
    evaluated = {pair.eval_task: pair.num_eval for pair in pairs.get("drop_eval_task", [])}
    touched = [p for p in by_action.get("drop_train_examples", []) if board.keys[p][0] not in train]
    hit = [p for p in by_action.get("drop_eval_examples", []) if board.keys[p][1] not in evaluated]
    return sum(train.values()) + shared.num_touched(touched), sum(evaluated.values()) + shared.num_hit(hit)
