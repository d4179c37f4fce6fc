"""What a review page may ask for and what it gets: filters and orders, rows and groups of pairs. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from taskmill.errors import UsageError, did_you_mean
from taskmill.records import ACTIONS, LEVELS
from taskmill.splits.deciding.decisions import STATES, Decision, Pair

Key = tuple[str, str]

WAITING = ("undecided", "outdated")
"""States of pairs that wait for a person."""
SORTS = ("worst", "rare", "touched", "train", "eval", "newest")
"""Orders of pairs: most hit first, the same without frequent grams, most of the train task touched, by train task, by
evaluation task, decided last first."""


@dataclass(frozen=True)
class View:
    """A filter and an order. The empty one shows every pair, the worst first."""

    states: tuple[str, ...] = ()
    """Of decisions.STATES; none means all."""
    levels: tuple[str, ...] = ()
    """Of records.LEVELS; none means all."""
    same_dataset: bool | None = None
    text: str = ""
    """Words that must all stand, whatever their case, in the task ids, data sets or categories of a pair."""
    hit_over: float | None = None
    """Hit and short equal evaluation examples over all of them must be above this (0..1)."""
    only_frequent: bool | None = None
    """Whether nothing but frequent text is shared."""
    by: str = ""
    """Name of the person or rule whose decision holds."""
    action: str = ""
    """Of records.ACTIONS, of the decision that holds."""
    noted: bool | None = None
    """Whether there is a note."""
    sort: str = "worst"
    """One of SORTS."""


@dataclass(frozen=True)
class Suggestion:
    """An action that is obvious for a pair or a group, or was proposed, and the evidence in words."""

    action: str
    why: str
    proposed: bool = False
    """Whether `suggested.csv` says so. What is only obvious decides nothing."""


@dataclass(frozen=True)
class PairRow:
    """A pair as a list shows it."""

    number: int
    """Place of the pair among all, the worst is 0; stable while the stage overlap is not built again."""
    pair: Pair
    """All figures; see decisions.Pair, with its properties short_fraction, touched_fraction, same_output_fraction."""
    state: str
    """One of decisions.STATES."""
    decision: Decision | None
    """What holds: a person's (`by` a name, or `person`) or a rule's (`by` is `rule`, `rule` its name)."""
    before: Decision | None
    """What a person decided on other evidence, or while the pair needs none."""
    note: str
    train_dataset: str
    eval_dataset: str
    train_category: str
    eval_category: str
    suggestion: Suggestion | None
    actions: tuple[str, ...] = ACTIONS
    """Of records.ACTIONS, those that are open: fewer in a benchmark that extends another, none about two tasks of that one."""


@dataclass(frozen=True)
class Group:
    """The pairs of one train data set and one evaluation data set that a view shows."""

    train_dataset: str
    eval_dataset: str
    num_pairs: int
    num_waiting: int
    counts: Mapping[str, int] = field(default_factory=dict)
    """State -> pairs, without zeros."""
    levels: tuple[str, ...] = ()
    worst: float = 0.0
    """The highest share of hit and short equal evaluation examples (0..1) of the waiting pairs, else of all."""
    worst_rare: float = 0.0
    """The same without frequent grams, of the same pairs."""
    num_hit: int = 0
    """Hit and short equal evaluation examples, summed over pairs."""
    suggestion: Suggestion | None = None
    """For the pairs that wait, where it is the same for all."""

    @property
    def key(self) -> tuple[str, str]:
        """(train data set, evaluation data set)."""
        return self.train_dataset, self.eval_dataset


def check_view(view: View) -> None:
    """Check that a view asks for what there is.

    Raises:
        UsageError: an unknown state, level, action or order; the message names the nearest.
    """
    for name, values, known in (
        ("state", view.states, STATES),
        ("level", view.levels, LEVELS),
        ("action", (view.action,) if view.action else (), ACTIONS),
        ("sort", (view.sort,), SORTS),
    ):
        for value in values:
            if value not in known:
                hint = did_you_mean(value, known)
                raise UsageError(f"{name}: unknown {value!r}{hint}; expected one of {', '.join(known)}")
