"""What the decisions left: checked, counted, and written as `splits/tasks`, `splits/members` and `splits/decisions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from taskmill.errors import UsageError
from taskmill.records import SCHEMAS, SPLITS
from taskmill.splits.deciding.decisions import RULE, Decision, Pair, dropped_tasks, figures_of
from taskmill.splits.deciding.membership import Links, Members, NearDuplicates, is_rare
from taskmill.splits.planning.roles import TRAINING_ROLES
from taskmill.splits.sharing.examples import EVALUATION_TEXT, I64, TRAIN_TEXT, Bools

_PLANNED = frozenset({None, "unused_test", "unused_validation", "unlabelled", "group"})
"""Reasons of examples that the plan leaves out of an evaluated task."""


@dataclass(frozen=True)
class Findings:
    """What overlap found about the members, and how decisions look at it."""

    hits: Links
    touched: Links
    near: NearDuplicates
    mode: str
    """The setting `split.near_duplicates`."""
    rare: frozenset[str]
    """Rules that look at the figures without frequent grams."""


def check(
    members: Members,
    levels: Sequence[str | None],
    categories: Mapping[str, str],
    decisions: Sequence[Decision],
    found: Findings,
) -> None:
    """Verify what the decisions left.

    Raises:
        UsageError: an evaluation task without a test example, a supervised task without a train example, a partial
            task whose category trains nothing; each with the decisions that did it.
    """
    _assert_dropped(members, decisions, found)
    counts = split_counts(members)
    _, gone_eval = dropped_tasks(decisions)
    trained = {
        categories[task]
        for task, count in zip(members.tasks, counts.tolist())
        if count[SPLITS.index("train")]
    }
    planned = {categories[task] for task, role in zip(members.tasks, members.roles) if role in TRAINING_ROLES}
    problems = list[str]()
    for number, (task, level, count) in enumerate(zip(members.tasks, levels, counts.tolist())):
        if level is None or task in gone_eval:
            continue
        for split in ("test", "train") if level == "supervised" else ("test",):
            if not count[SPLITS.index(split)] and not (split == "test" and _chooses_models(members, number)):
                noun = "evaluation" if split == "test" else "supervised"
                lost, why = _lost(members, number), _because(decisions, task)
                problems.append(f"the {noun} task {task!r} has no {split} example left{lost}{why}")
        if level == "partial" and categories[task] in planned - trained:
            others = [name for name, category in categories.items() if category == categories[task]]
            lost = _lost(members, *(place for place, name in enumerate(members.tasks) if name in others))
            problems.append(
                f"the partial task {task!r} needs a trained task in its category {categories[task]!r}, and none has "
                f"a train example left{lost}{_because(decisions, *others)}"
            )
    if problems:
        raise UsageError("\n".join(problems))


def _chooses_models(members: Members, task: int) -> bool:
    """Return whether the plan, and no decision, left an evaluated task with validation alone (`rest: exclude`)."""
    rows = members.rows(task)
    has_validation = bool((members.split[rows] == SPLITS.index("validation")).any())
    return has_validation and set(members.reason[rows].tolist()) <= _PLANNED


def _assert_dropped(members: Members, decisions: Sequence[Decision], found: Findings) -> None:
    """Assert that nothing which a decision or the near-duplicates drop is left on the side it was dropped from.

    What is pinned stays on its side.
    """
    number = {task: place for place, task in enumerate(members.tasks)}
    side = np.where(members.pinned, 0, members.side)
    gone_train, gone_eval = dropped_tasks(decisions)
    for decision in decisions:
        train, evaluation = number[decision.train_task], number[decision.eval_task]
        rare = is_rare(decision, found.rare)
        if decision.train_task in gone_train:
            assert not (side[members.rows(train)] == TRAIN_TEXT).any(), decision
        elif decision.eval_task in gone_eval:
            assert not (side[members.rows(evaluation)] == EVALUATION_TEXT).any(), decision
        elif decision.action == "drop_train_examples":
            gone = found.touched.of(train, evaluation, rare)
            assert not (side[gone] == TRAIN_TEXT).any(), decision
        elif decision.action == "drop_eval_examples":
            gone = found.hits.of(train, evaluation, rare)
            assert not (side[gone] == EVALUATION_TEXT).any(), decision
    if found.mode != "keep":
        near, survivor = found.near.clusters(members.side, members.pinned)
        left = (side[near] == TRAIN_TEXT) & (near != survivor)
        if found.mode == "drop_across":
            left &= members.side[survivor] == EVALUATION_TEXT
        assert not left.any(), members.ids.take(pa.array(near[left][:5])).to_pylist()


def _lost(members: Members, *tasks: int) -> str:
    """Return why examples of these tasks are out, for a message."""
    rows = np.concatenate([members.rows(task) for task in tasks])
    counts = Counter(reason for reason in members.reason[rows].tolist() if reason is not None)
    reasons = ", ".join(f"{number:,} for {reason}" for reason, number in sorted(counts.items()))
    return f" (excluded: {reasons})" if reasons else ""


def _because(decisions: Sequence[Decision], *tasks: str) -> str:
    """Return the decisions that dropped something of these tasks and what to change, for a message."""
    by = _droppers(decisions, *tasks)
    return f", after: {by}. Change these decisions, the rules or the plan" if by else "; change the plan"


def _droppers(decisions: Sequence[Decision], *tasks: str) -> str:
    """Return the first decisions that dropped something of these tasks."""
    found = [
        f"{d.action} on {d.train_task} -> {d.eval_task} ({f'rule {d.rule}' if d.by == RULE else f'by {d.by}'})"
        for d in decisions
        if (d.action.startswith("drop_train") and d.train_task in tasks)
        or (d.action.startswith("drop_eval") and d.eval_task in tasks)
    ]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more


def split_counts(members: Members) -> I64:
    """Return the examples of each task by split, in the order of records.SPLITS: int64[num_tasks, 5]."""
    cell = members.task * len(SPLITS) + members.split
    cells = np.bincount(cell, minlength=len(members.tasks) * len(SPLITS))
    return cells.reshape(-1, len(SPLITS)).astype(np.int64)


def members_table(members: Members, group: pa.ChunkedArray, clean: Bools, clean_rare: Bools) -> pa.Table:
    """Return the table `splits/members`."""
    content = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(members.content), [None, pa.py_buffer(np.ascontiguousarray(members.content))]
    )
    columns = {
        "example": members.ids,
        "task": pa.array(members.tasks, pa.string()).take(pa.array(members.task)),
        "split": pa.array(SPLITS, pa.string()).take(pa.array(members.split)),
        "reason": pa.array(members.reason, pa.string()),
        "rule": pa.array(members.rule, pa.string()),
        "group": group,
        "content": content,
        "clean": pa.array(clean),
        "clean_rare": pa.array(clean_rare),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["splits/members"])


def tasks_table(members: Members, plan: pa.Table, decisions: Sequence[Decision]) -> pa.Table:
    """Return the table `splits/tasks`: the plan's rows after the decisions, with counts."""
    gone_train, gone_eval = dropped_tasks(decisions)
    rows = []
    for row, count in zip(plan.to_pylist(), split_counts(members).tolist()):
        task, role, level, why = row["task"], row["role"], row["level"], row["why"]
        if role == "eval" and task in gone_eval:
            role, level, why = "excluded", None, f"{why}; dropped by {_droppers(decisions, task)}"
        elif role == "both" and task in gone_eval:
            role, level, why = "train", None, f"{why}; evaluation dropped by {_droppers(decisions, task)}"
        elif role == "train" and task in gone_train:
            role, why = "excluded", f"{why}; dropped by {_droppers(decisions, task)}"
        counts = {f"num_{split}": number for split, number in zip(SPLITS, count)}
        rows.append({"task": task, "level": level, "role": role, **counts, "why": why})
    return pa.Table.from_pylist(rows, schema=SCHEMAS["splits/tasks"])


def decisions_table(
    decisions: Sequence[Decision], pairs: Sequence[Pair], taken: Mapping[tuple[str, str], int]
) -> pa.Table:
    """Return the table `splits/decisions`: each decision with the figures it judged and how many examples it took out."""
    about = {pair.tasks: figures_of(pair) for pair in pairs}
    rows = [{**vars(d), **about[d.pair], "num_dropped": taken[d.pair]} for d in decisions]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["splits/decisions"])
