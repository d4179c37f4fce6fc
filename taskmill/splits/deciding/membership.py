"""Membership: where every example stands after the decisions.

Reads the assignment, the decisions and which examples they are about, and near-duplicates; changes `Members`.

Reasons, beside those of the assignment:

- `decision` (with the rule's name, or `person`);
- `duplicate`: a train example of the same content as an evaluation example, which survives whatever was decided;
- `near_duplicate`: a train example that is not the survivor of its cluster, where `split.near_duplicates` says so.

A decision about examples drops every example that is touched. A rule that looks at `hit_fraction_rare` judged without
frequent grams, so it leaves the examples that share nothing else: a sentence that a task puts around each of its
examples would cost all of them.

A cluster of near-duplicates survives in the first of its examples that still stands: evaluation text before train text,
then the survivor that overlap named, then the first in order. Where decisions took the named one, another takes over, so
that no text is lost that is nowhere else. Only train text is dropped: never a test because of a similar test.

Examples of a benchmark that the recipe extends stand where they stood there: they are `pinned`, and nothing takes them out or
back in. See `pinned`.

`clean` is false of an evaluation example while any train example that shares text with its task's pair is still in
training: it is never true of an example that shares a gram with train text, but may be false of one that no longer
does, where only part of a pair's train examples was dropped. `clean_rare` is the same without frequent grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.recipe import Rule
from taskmill.records import ROLES, SPLITS
from taskmill.splits.deciding.decisions import RULE, Decision, dropped_tasks
from taskmill.splits.planning.roles import TRAINING_ROLES
from taskmill.splits.sharing.examples import EVALUATION_TEXT, I64, TRAIN_TEXT, U8, Bools, text_sides

Texts = npt.NDArray[Any]
EXCLUDED = SPLITS.index("excluded")
_SIDES: U8 = np.stack([text_sides(SPLITS, [role] * len(SPLITS)) for role in ROLES])
"""The side of each (role, split)."""


@dataclass
class Members:
    """All examples in the order of the assignment, all arrays of one length; changed in place by the decisions."""

    ids: pa.Array
    task: I64
    """Number of the task in `tasks`, ascending."""
    tasks: Sequence[str]
    roles: Sequence[str]
    split: U8
    """Place in records.SPLITS."""
    reason: Texts
    rule: Texts
    content: U8
    """uint8[n, 32]"""
    pinned: Bools
    """Which examples stay where they are, whatever is decided."""

    @property
    def side(self) -> U8:
        """The side of each example as it stands: see `index.text_sides`."""
        role = np.array([ROLES.index(role) for role in self.roles], np.int64)
        found: U8 = _SIDES[role[self.task], self.split]
        return found

    def rows(self, task: int) -> I64:
        """Return the places of a task's examples."""
        first, last = np.searchsorted(self.task, [task, task + 1])
        return np.arange(first, last)

    def exclude(self, where: Bools | I64, reason: str, rule: str | None = None) -> int:
        """Take examples out, unless they are out already or pinned; return how many that were."""
        rows = np.flatnonzero(where) if where.dtype == np.bool_ else np.unique(where)
        rows = rows[(self.split[rows] != EXCLUDED) & ~self.pinned[rows]]
        self.split[rows], self.reason[rows], self.rule[rows] = EXCLUDED, reason, rule
        return len(rows)

    def numbers(self, ids: pa.ChunkedArray) -> I64:
        """Return the place of each example id."""
        places: I64 = pc.index_in(ids, value_set=self.ids).to_numpy().astype(np.int64)
        return places


@dataclass(frozen=True)
class Links:
    """Rows of `hits` or `touched` by number: which example of which pair."""

    train_task: I64
    eval_task: I64
    example: I64
    frequent: Bools
    """Whether all that the example shares is frequent."""

    def of(self, train_task: int, eval_task: int, rare: bool) -> I64:
        """Return the examples of one pair; with `rare`, only those that share more than frequent grams."""
        rows = self._rows(train_task, eval_task)
        return self.example[rows][~self.frequent[rows]] if rare else self.example[rows]

    def _rows(self, train_task: int, eval_task: int) -> slice:
        """Return the rows of one pair; they are sorted by pair."""
        low, high = np.searchsorted(self.train_task, [train_task, train_task + 1])
        part = self.eval_task[low:high]
        first, last = np.searchsorted(part, [eval_task, eval_task + 1])
        return slice(low + first, low + last)


def links(members: Members, table: pa.Table, example: str) -> Links:
    """Return a table's rows by number; `example` names its column of example ids."""
    names = pa.array(members.tasks, pa.string())
    train, evaluation = (
        pc.index_in(table[column], value_set=names).to_numpy().astype(np.int64)
        for column in ("train_task", "eval_task")
    )
    frequent = table["frequent"].to_numpy()
    return Links(train, evaluation, members.numbers(table[example]), frequent)


@dataclass(frozen=True)
class NearDuplicates:
    """Rows of `overlaps/near_duplicates` by number: an example and the survivor that overlap named."""

    example: I64
    survivor: I64

    def named(self) -> tuple[I64, I64]:
        """Return (example, the survivor that overlap named), the survivors among the examples, as their own."""
        named = np.unique(self.survivor)
        return np.concatenate([named, self.example]), np.concatenate([named, self.survivor])

    def clusters(self, side: U8, pinned: Bools) -> tuple[I64, I64]:
        """Return (example, its survivor) for the examples that stand on a side, cluster after cluster.

        A survivor is among the examples, as its own.
        """
        number, cluster = self.named()
        standing = side[number] != 0
        number, cluster = number[standing], cluster[standing]
        is_first = (number != cluster, ~pinned[number], side[number] != EVALUATION_TEXT)
        order = np.lexsort((number, *is_first, cluster))
        number, cluster = number[order], cluster[order]
        first = np.diff(cluster, prepend=-1) != 0
        return number, number[first][np.cumsum(first) - 1]


def near_duplicates(members: Members, table: pa.Table) -> NearDuplicates:
    """Return the table's rows by number."""
    return NearDuplicates(members.numbers(table["example"]), members.numbers(table["survivor"]))


def train_sizes(plan: pa.Table, assignment: pa.Table) -> dict[str, int]:
    """Return task -> its examples of train text as assigned: `train`, and `demonstration` where the task trains."""
    counts = assignment.group_by(["task", "split"], use_threads=False).aggregate([("example", "count")])
    roles = dict(zip(plan["task"].to_pylist(), plan["role"].to_pylist()))
    sizes = dict.fromkeys(roles, 0)
    for row in counts.to_pylist():
        if row["split"] in ("train", "demonstration") and roles[row["task"]] in TRAINING_ROLES:
            sizes[row["task"]] += row["example_count"]
    return sizes


def rules_on_rare(rules: Sequence[Rule]) -> frozenset[str]:
    """Return the names of the rules that look at the figures without frequent grams."""
    return frozenset(rule.name for rule in rules if rule.when.hit_fraction_rare_over is not None)


def is_rare(decision: Decision, rare: frozenset[str]) -> bool:
    """Say whether a decision leaves the examples that share nothing but frequent grams."""
    return decision.by == RULE and decision.rule in rare


def apply_decisions(
    members: Members, decisions: Sequence[Decision], hits: Links, touched: Links, rare: frozenset[str]
) -> dict[tuple[str, str], int]:
    """Exclude what the decisions drop, then train copies of evaluation examples.

    Whole tasks go first; a decision about examples does nothing where one of its tasks is gone. An example that several
    decisions drop counts for the first of them. `rare` names the rules that leave examples which share only frequent
    grams.

    Returns:
        Pair -> the examples that its decision took out.
    """
    side, number = members.side, {task: place for place, task in enumerate(members.tasks)}
    taken = {decision.pair: 0 for decision in decisions}
    for decision in decisions:
        rows = None
        if decision.action == "drop_train_task":
            rows = _train_rows(members, side, number[decision.train_task])
        elif decision.action == "drop_eval_task":
            rows = _eval_rows(members, side, number[decision.eval_task])
        if rows is not None:
            taken[decision.pair] = members.exclude(rows, "decision", decision.decider)
    gone_train, gone_eval = dropped_tasks(decisions)
    for decision in decisions:
        if decision.train_task in gone_train or decision.eval_task in gone_eval:
            continue
        about = {"drop_train_examples": touched, "drop_eval_examples": hits}.get(decision.action)
        if about is not None:
            rows = about.of(number[decision.train_task], number[decision.eval_task], is_rare(decision, rare))
            taken[decision.pair] = members.exclude(rows, "decision", decision.decider)
    side = members.side
    content = members.content.view("V32")[:, 0]
    copies = np.isin(content, content[side == EVALUATION_TEXT]) & (side == TRAIN_TEXT)
    members.exclude(copies, "duplicate")
    return taken


def _train_rows(members: Members, side: U8, task: int) -> I64:
    """Return what a dropped train task loses: its train text, and all of it when it is only trained on."""
    rows = members.rows(task)
    return rows if members.roles[task] == "train" else rows[side[rows] == TRAIN_TEXT]


def _eval_rows(members: Members, side: U8, task: int) -> I64:
    rows = members.rows(task)
    return rows if members.roles[task] == "eval" else rows[side[rows] == EVALUATION_TEXT]


def drop_near_duplicates(members: Members, near: NearDuplicates, mode: str) -> int:
    """Exclude train examples that are not the survivor of their cluster; return how many.

    `mode` is the setting `split.near_duplicates`: `keep` drops none, `drop_across` those whose survivor is evaluation
    text, `drop` all.
    """
    if mode == "keep":
        return 0
    side = members.side
    number, survivor = near.clusters(side, members.pinned)
    dropped = (side[number] == TRAIN_TEXT) & (number != survivor)
    if mode == "drop_across":
        dropped &= side[survivor] == EVALUATION_TEXT
    return members.exclude(number[dropped], "near_duplicate")


def clean_rows(members: Members, hits: Links, touched: Links, rare: bool = False) -> Bools:
    """Return which examples are clean, as the module's docstring says; examples not evaluated are.

    With `rare`, frequent grams count for nothing.
    """
    side, size = members.side, len(members.tasks)
    counts = side[touched.example] == TRAIN_TEXT
    hit = np.ones(len(hits.example), bool)
    if rare:
        counts &= ~touched.frequent
        hit &= ~hits.frequent
    leaking = np.unique(touched.train_task[counts] * size + touched.eval_task[counts])
    hit &= np.isin(hits.train_task * size + hits.eval_task, leaking)
    clean = np.ones(len(members.task), bool)
    clean[hits.example[hit]] = False
    clean |= side != EVALUATION_TEXT
    return clean
