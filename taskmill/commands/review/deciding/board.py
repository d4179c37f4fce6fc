"""All pairs of a run with what holds for each, kept up to date as people decide: `decisions.decide`, step by step.

What a rule says of a pair is worked out once. A step touches the pairs that it names and, where a task goes as a whole or comes
back, the other pairs of that task; `Board.verdict` is at every moment what `decide` would return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.commands.review.deciding.filters import WAITING, Key, PairRow, Suggestion
from taskmill.records import ACTIONS, LEVELS
from taskmill.settings import Settings
from taskmill.splits.deciding.decisions import PERSON, RULE, STATES, Decision, Pair, Verdict
from taskmill.splits.publishing.pins import read_pins
from taskmill.splits.split import judge

Changes = Mapping[Key, Decision | None]
"""Pair -> a person's decision, or None for none."""

SUGGESTIONS = {
    "same data set": Suggestion(
        "drop_train_task", "the train task is made from the evaluation task's own data set"
    ),
    "frequent": Suggestion("keep", "everything shared is text that very many groups share"),
    "examples": Suggestion("drop_train_examples", "supervised leakage is judged example by example"),
    "mostly": Suggestion("drop_train_task", "over half of the train task is in the test, with equal answers"),
    "answers": Suggestion(
        "drop_train_examples", "over half of the hit examples have an equal answer in training"
    ),
    "few": Suggestion("drop_eval_examples", "no more than two of over a hundred evaluation examples are hit"),
}
"""Obvious actions, in the order in which they are tried."""
_NO_TASK: Mapping[str, Any] = {"dataset": "", "category": ""}


class Columns:
    """Figures of pairs as arrays, all of them float64, int64 or bool of [num_pairs]; nothing here ever changes."""

    def __init__(self, pairs: Sequence[Pair], tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Take pairs and the tasks' rows with `dataset` and `category`."""
        facts = {
            name: tasks.get(name, _NO_TASK) for pair in pairs for name in (pair.train_task, pair.eval_task)
        }
        short = np.array([pair.short_fraction for pair in pairs], np.float64)
        self.badness = np.array([pair.hit_fraction for pair in pairs], np.float64) + short
        self.rare = np.array([pair.hit_fraction_rare for pair in pairs], np.float64) + short
        self.touched = np.array([pair.touched_fraction for pair in pairs], np.float64)
        self.num_hit = np.array([pair.num_hit + pair.num_short_equal for pair in pairs], np.int64)
        self.num_same_output = np.array([pair.num_same_output for pair in pairs], np.int64)
        self.num_eval = np.array([pair.num_eval for pair in pairs], np.int64)
        self.same_dataset = np.array([pair.same_dataset for pair in pairs], bool)
        self.only_frequent = (self.num_hit > 0) & (self.rare == 0)
        self.level = np.array([LEVELS.index(pair.level) for pair in pairs], np.int64)
        kinds = ["", *SUGGESTIONS]
        self.suggested = [suggest(pair) for pair in pairs]
        self.kind = np.array([kinds.index(kind) for kind in self.suggested], np.int64)
        """Place in SUGGESTIONS from 1; 0 for none."""
        datasets = [(facts[p.train_task]["dataset"], facts[p.eval_task]["dataset"]) for p in pairs]
        self.group_keys: list[Key] = sorted(set(datasets))
        """(train data set, evaluation data set) of each group."""
        places = {key: number for number, key in enumerate(self.group_keys)}
        self.group = np.array([places[key] for key in datasets], np.int64)
        words = {
            name: f"{name}\n{row['dataset']}\n{row['category']}".casefold() for name, row in facts.items()
        }
        self.search = [f"{words[pair.train_task]}\n{words[pair.eval_task]}" for pair in pairs]
        """Task ids, data sets and categories, in lower case."""


class Board:
    """The pairs of a run, the worst first, and what people, rules and lost tasks make of each."""

    def __init__(
        self, settings: Settings, pairs: Sequence[Pair], tasks: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Take the run's pairs and its tasks' rows with `dataset` and `category`."""
        self._settings, self._pinned = settings, read_pins(settings).decided
        self.threshold: float = settings.split.threshold
        self.limited = settings.limit is not None
        self.pairs = sorted(pairs, key=lambda pair: pair.badness)
        self.keys: list[Key] = [pair.tasks for pair in self.pairs]
        self.number = {key: place for place, key in enumerate(self.keys)}
        self.tasks = tasks
        self.columns = Columns(self.pairs, tasks)
        ruled = {decision.pair: decision for decision in judge(settings, self.pairs, []).decisions}
        self._ruled = [ruled.get(key) for key in self.keys]
        self._must = [pair.must_be_decided(self.threshold) for pair in self.pairs]
        self._by_train = _places(train for train, _ in self.keys)
        self._by_eval = _places(evaluation for _, evaluation in self.keys)
        self.people: dict[Key, Decision] = {}
        self.made: list[Decision | None] = [None] * len(self.pairs)
        """What holds for each pair."""
        self.state: list[str] = ["below"] * len(self.pairs)
        self.codes = np.full(len(self.pairs), STATES.index("below"), np.int64)
        """int64[num_pairs]: the states by their place in decisions.STATES."""
        self._gone_train, self._gone_eval = Counter[str](), Counter[str]()
        self.version = 0
        """Another one after every change."""
        self.propose({})
        self._settle(range(len(self.pairs)))

    def put(self, changes: Changes) -> list[tuple[int, str, str]]:
        """Take in what people decided, or decide no more; return (pair, state before, state after) where that changed.

        Pairs that are not on the board are remembered and decide nothing.
        """
        self.people = with_changes(self.people, changes)
        self.version += 1
        return self._settle([self.number[key] for key in changes if key in self.number])

    def propose(self, proposed: Mapping[int, Suggestion]) -> None:
        """Take in what is proposed for pairs, by their numbers; it stands before what is obvious."""
        self.proposed = dict(proposed)
        self.suggestions = [*SUGGESTIONS.values(), *dict.fromkeys(proposed.values())]
        """What is obvious for some pair, in the order of SUGGESTIONS, and each proposal."""
        numbers = {suggestion: number for number, suggestion in enumerate(self.suggestions, 1)}
        self.kind = self.columns.kind.copy()
        """int64[num_pairs]: place in `suggestions` from 1; 0 for none."""
        for place, suggestion in proposed.items():
            self.kind[place] = numbers[suggestion]
        self.version += 1

    @contextmanager
    def trial(self, changes: Changes) -> Iterator[list[tuple[int, str, str]]]:
        """Take in changes as `put` does and give what it returns; at the end everything is as before."""
        kept, gone = (self.people, self.made, self.state, self.codes), (self._gone_train, self._gone_eval)
        version = self.version
        self.made, self.state, self.codes = list(self.made), list(self.state), self.codes.copy()
        self._gone_train, self._gone_eval = self._gone_train.copy(), self._gone_eval.copy()
        try:
            yield self.put(changes)
        finally:
            self.people, self.made, self.state, self.codes = kept
            self._gone_train, self._gone_eval = gone
            self.version = version

    def check(self, changes: Changes, run: Path) -> None:
        """Check that people may decide so.

        Raises:
            UsageError: in a benchmark that extends another, a decision would move what that one holds.
        """
        if self._settings.extends is not None:
            made = [decision for decision in changes.values() if decision is not None]
            present = {key: pair.evidence for key, pair in zip(self.keys, self.pairs, strict=True)}
            self._pinned.refuse(made, present, run)

    def _settle(self, places: Iterable[int]) -> list[tuple[int, str, str]]:
        """Work out what holds for some pairs, and the state of these and of all pairs whose task went or came back."""
        touched = set(places)
        train, evaluated = self._count(touched)
        for task in train:
            touched.update(self._by_train[task])
        for task in evaluated:
            touched.update(self._by_eval[task])
        changed = list[tuple[int, str, str]]()
        for place in touched:
            before, after = self.state[place], self._state_of(place)
            if before != after:
                self.state[place] = after
                self.codes[place] = STATES.index(after)
                changed.append((place, before, after))
        return changed

    def _count(self, places: Iterable[int]) -> tuple[set[str], set[str]]:
        """Work out the decisions that hold for pairs; return the train and the evaluation tasks that went or came back."""
        moved = Counter[str](), Counter[str]()
        for place in places:
            before, after = self.made[place], self._holds(place)
            self.made[place] = after
            was, now = before.action if before else "", after.action if after else ""
            if was != now:
                train, evaluated = self.keys[place]
                moved[0][train] += (now == "drop_train_task") - (was == "drop_train_task")
                moved[1][evaluated] += (now == "drop_eval_task") - (was == "drop_eval_task")
        flipped = set[str](), set[str]()
        for gone, change, out in zip((self._gone_train, self._gone_eval), moved, flipped):
            for task, number in change.items():
                if bool(gone[task]) != bool(gone[task] + number):
                    out.add(task)
                gone[task] += number
        return flipped

    def _person(self, key: Key) -> Decision | None:
        """Return what a person decided about a pair; nothing about one that an extended benchmark has settled."""
        return None if self._pinned.has(key) else self.people.get(key)

    def _holds(self, place: int) -> Decision | None:
        """Return what a person, the extended benchmark or else a rule decides about a pair."""
        person = self._person(self.keys[place])
        if person is None:
            return self._ruled[place]
        if not self.limited and person.evidence != self.pairs[place].evidence:
            return None
        return replace(person, by=PERSON) if person.by in ("", RULE) else person

    def _state_of(self, place: int) -> str:
        made = self.made[place]
        if made is not None:
            return RULE if made.by == RULE else PERSON
        train, evaluated = self.keys[place]
        outdated = self._person((train, evaluated)) is not None
        if not outdated and not self._must[place]:
            return "below"
        if self._gone_train[train] or self._gone_eval[evaluated]:
            return "dropped"
        return "outdated" if outdated else "undecided"

    def gone(self) -> set[tuple[str, str]]:
        """Return what decisions drop as a whole: (`train` or `eval`, task)."""
        sides = (("train", self._gone_train), ("eval", self._gone_eval))
        return {(side, task) for side, counts in sides for task, number in counts.items() if number}

    @property
    def num_waiting(self) -> int:
        """How many pairs wait for a person."""
        counts = self.num_by_state()
        return sum(counts[state] for state in WAITING)

    def verdict(self) -> Verdict:
        """Return what `decisions.decide` returns for the same pairs and people."""
        decisions = sorted((made for made in self.made if made is not None), key=lambda made: made.pair)
        undecided = [pair for pair, state in zip(self.pairs, self.state) if state in WAITING]
        outdated = frozenset(
            pair.tasks
            for pair, made in zip(self.pairs, self.made)
            if made is None and self._person(pair.tasks) is not None
        )
        return Verdict(decisions, undecided, outdated)

    def num_by_state(self) -> dict[str, int]:
        """Return decisions.STATES -> pairs, with zeros."""
        counts = np.bincount(self.codes, minlength=len(STATES)).tolist()
        return dict(zip(STATES, counts, strict=True))

    def row(self, place: int, notes: Mapping[Key, str]) -> PairRow:
        """Return a pair as it is listed; `notes` are those of pairs that no person has decided."""
        pair, made = self.pairs[place], self.made[place]
        person = self._person(pair.tasks)
        train, evaluation = (self.tasks.get(task, {}) for task in pair.tasks)
        kind = int(self.kind[place])
        group = self.columns.group_keys[self.columns.group[place]]
        return PairRow(
            number=place,
            pair=pair,
            state=self.state[place],
            decision=made,
            before=person if made is None else None,
            note=self.note(pair.tasks, notes),
            train_dataset=group[0],
            eval_dataset=group[1],
            train_category=train.get("category", ""),
            eval_category=evaluation.get("category", ""),
            suggestion=self.suggestions[kind - 1] if kind else None,
            actions=self.open_actions(place),
        )

    def open_actions(self, place: int) -> tuple[str, ...]:
        """Return which of records.ACTIONS are open for a pair."""
        return ACTIONS if self._settings.extends is None else self._pinned.open_actions(self.keys[place])

    def note(self, key: Key, notes: Mapping[Key, str]) -> str:
        """Return the note of a pair: why a person decided it, else the one written down for it."""
        person = self.people.get(key)
        return person.why if person is not None and person.why else notes.get(key, "")


def with_changes(people: Mapping[Key, Decision], changes: Changes) -> dict[Key, Decision]:
    """Return what people have decided after some changes."""
    found = dict(people)
    for key, decision in changes.items():
        if decision is None:
            found.pop(key, None)
        else:
            found[key] = decision
    return found


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found


def suggest(pair: Pair) -> str:
    """Return the key in SUGGESTIONS of what is obvious for a pair; empty where nothing is."""
    hit = pair.num_hit + pair.num_short_equal
    if pair.same_dataset and pair.level != "supervised" and pair.train_task != pair.eval_task:
        return "same data set"
    if not hit:
        return ""
    if not pair.num_short_equal and pair.hit_fraction_rare == 0:
        return "frequent"
    if pair.level == "supervised":
        return "examples"
    if pair.same_output_fraction > 0.5:
        return "mostly" if pair.touched_fraction > 0.5 else "answers"
    return "few" if hit <= 2 and pair.num_eval > 100 else ""
