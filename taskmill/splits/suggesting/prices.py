"""What a decision costs, in examples: the examples that stand after the decisions made so far, and who touches whom.

Reads the members of a run and overlap's `hits` and `touched`; writes nothing. A price counts train examples lost,
evaluation examples lost, and *given away*: evaluation examples that stay although a train example shares their text and
their output. An evaluation example weighs as much as `weight` train examples, lost or given away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from taskmill.records import SPLITS
from taskmill.splits.deciding.decisions import Decision, Pair
from taskmill.splits.deciding.membership import Links, Members, apply_decisions
from taskmill.splits.sharing.examples import EVALUATION_TEXT, I64, TRAIN_TEXT, Bools

WEIGHT = 100
"""Train examples that one evaluation example is worth, unless said otherwise."""


@dataclass(frozen=True)
class Price:
    """What an action on some pairs costs."""

    action: str
    train: int = 0
    """Train examples lost."""
    evaluation: int = 0
    """Evaluation examples lost."""
    given_away: int = 0
    """Evaluation examples that stay with their text and output in training."""

    def total(self, weight: int) -> int:
        """Return the price in train examples."""
        return self.train + weight * (self.evaluation + self.given_away)


class Stock:
    """The examples that stand after some decisions."""

    def __init__(self, members: Members, hits: Links, touched: Links) -> None:
        """Take the examples as they stand; `after` returns others and changes none."""
        self.members, self.hits, self.touched = members, hits, touched
        self.number = {task: place for place, task in enumerate(members.tasks)}
        side = members.side
        self.trains, self.evaluates = side == TRAIN_TEXT, side == EVALUATION_TEXT
        self._counts = {
            name: np.bincount(members.task[where], minlength=len(members.tasks))
            for name, where in (("train", self.trains), ("evaluation", self.evaluates))
        }

    def after(self, decisions: Sequence[Decision], rare: frozenset[str]) -> Stock:
        """Return the examples that stand after decisions are applied to the members as assigned.

        Args:
            decisions: all that are made.
            rare: names of the rules that look at figures without frequent grams.
        """
        copied = {name: getattr(self.members, name).copy() for name in ("split", "reason", "rule")}
        members = dataclasses.replace(self.members, **copied)
        apply_decisions(members, decisions, self.hits, self.touched, rare)
        return Stock(members, self.hits, self.touched)

    @property
    def num_train(self) -> int:
        """Train examples of all tasks."""
        return int(self.trains.sum())

    @property
    def num_evaluation(self) -> int:
        """Evaluation examples of all tasks."""
        return int(self.evaluates.sum())

    def train_of(self, task: str) -> int:
        """Return how many examples a task trains on."""
        return int(self._counts["train"][self.number[task]])

    def evaluation_of(self, task: str) -> int:
        """Return how many examples of a task are evaluated."""
        return int(self._counts["evaluation"][self.number[task]])

    def split_of(self, task: str, split: str) -> int:
        """Return how many examples of a task are in a split."""
        rows = self.members.rows(self.number[task])
        return int((self.members.split[rows] == SPLITS.index(split)).sum())

    def touched_by(self, pairs: Iterable[Pair]) -> I64:
        """Return the train examples that these pairs' evaluation tasks touch: distinct numbers."""
        return self._rows(self.touched, pairs, self.trains)

    def hit_by(self, pairs: Iterable[Pair]) -> I64:
        """Return the evaluation examples that these pairs' train tasks hit: distinct numbers."""
        return self._rows(self.hits, pairs, self.evaluates)

    def _rows(self, links: Links, pairs: Iterable[Pair], standing: Bools) -> I64:
        found = [links.of(self.number[p.train_task], self.number[p.eval_task], False) for p in pairs]
        rows: I64 = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
        return rows[standing[rows]]

    # ------------------------------------------------------------------------------------------ prices

    def price(self, action: str, pairs: Sequence[Pair]) -> Price:
        """Return what an action on all of these pairs costs, taken together."""
        if action == "drop_train_task":
            return Price(action, train=sum(self.train_of(task) for task in {p.train_task for p in pairs}))
        if action == "drop_eval_task":
            return Price(
                action, evaluation=sum(self.evaluation_of(task) for task in {p.eval_task for p in pairs})
            )
        if action == "drop_train_examples":
            return Price(action, train=len(self.touched_by(pairs)))
        if action == "drop_eval_examples":
            return Price(action, evaluation=len(self.hit_by(pairs)))
        return Price(action, given_away=sum(given_away(pair) for pair in pairs))


def given_away(pair: Pair) -> int:
    """Return the hit evaluation examples of a pair with an equal output; text that is only frequent gives nothing away."""
    return pair.num_same_output if pair.hit_fraction_rare + pair.short_fraction > 0 else 0
