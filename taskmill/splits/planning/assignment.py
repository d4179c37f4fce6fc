"""Assignment: the split of every example before any decision, from the plan and the examples' small columns.

Reads the task table, and of each example its task, `upstream_split`, `group` and whether it is labelled; never its text, so no
template and no other task can move an example. Returns `overlaps/plan` (see levels) and `overlaps/assignment`.

| role | level | trained on | evaluated on |
|---|---|---|---|
| train | - | upstream train and unsplit rows | - (upstream validation is kept out of training) |
| eval | held_out, partial | - | labelled test, else labelled validation, else all rows but the demonstrations |
| both | supervised | train and unsplit rows | labelled test, else labelled validation, else `carve_share` of the groups |
| excluded | - | - | - |

**Carving.** Groups are carved whole, those of smallest hash. A group of more than half of the examples is never carved. Groups
without demonstrations go first; where every group has some, those with fewest go, and their demonstrations are excluded.

**Validation.** Of a task under `plan.validation` at most `max_examples` examples become `validation`, in whole groups: in order
of their hashes each group that still fits. They are taken from the upstream validation where the task keeps one, else from its
test rows, of which at least half stay test unless `rest: exclude`.

| reason | of an excluded example |
|---|---|
| task | its task takes no part |
| unused_test | upstream test of a task that only trains, or what `validation` leaves of a task with `rest: exclude` |
| unused_validation | a held-out or partial task has test and demonstrations already, or `validation` takes no more |
| unlabelled | test or validation without an answer |
| group | its group is on the other side |
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import RecipeError
from taskmill.recipe import Plan
from taskmill.records import SCHEMAS
from taskmill.seeding import ranks
from taskmill.splits.planning.layout_files import Layout, join_plans, without_tasks
from taskmill.splits.planning.levels import plan_tasks
from taskmill.splits.planning.pinned import NOTHING_PINNED, PinnedPlan
from taskmill.splits.planning.roles import EVALUATION_ROLES, TaskPlan
from taskmill.splits.sharing.sides import is_labelled

log = logging.getLogger("taskmill")

Bools = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]
Texts = npt.NDArray[Any]
"""An object array of text or None."""


def plan_and_assign(
    tasks: pa.Table,
    batches: Iterable[pa.RecordBatch],
    plan: Plan,
    seed: int,
    layout: Layout | None = None,
    pinned: PinnedPlan = NOTHING_PINNED,
) -> tuple[pa.Table, pa.Table]:
    """Return the tables plan and assignment.

    Args:
        tasks: `selectors.TASK_COLUMNS` and `output_fields` of every task.
        batches: of the examples, with the columns example, task, upstream_split, group, fields, references.
        plan: the recipe's section.
        seed: of the run.
        layout: the one that the plan names; what of it fits no task here is told in a line of the log.
        pinned: plan and assignment of the benchmark that the recipe extends, which hold.

    Raises:
        RecipeError: every problem of the plan, or of the tasks that it names; see `levels`.
    """
    plan, optional = join_plans(plan, layout), layout.selectors if layout else frozenset[str]()
    entries = plan_tasks(tasks, plan, seed, optional, pinned.entries)
    if layout:
        _tell_of(layout, tasks, entries)
    output_fields = dict(zip(tasks["task"].to_pylist(), tasks["output_fields"].to_pylist()))
    evaluated = {entry.task: output_fields[entry.task] for entry in entries if entry.role in EVALUATION_ROLES}
    examples = _small_columns(batches, evaluated).sort_by([("task", "ascending"), ("example", "ascending")])
    assignment = _assigned(entries, examples, plan, seed, pinned)
    plan_rows = pa.Table.from_pylist([asdict(entry) for entry in entries], schema=SCHEMAS["overlaps/plan"])
    return plan_rows, assignment.cast(SCHEMAS["overlaps/assignment"])


def _tell_of(layout: Layout, tasks: pa.Table, entries: Sequence[TaskPlan]) -> None:
    """Log what of a layout fits no task, and whether the plan evaluates nothing."""
    if missing := without_tasks(layout, tasks):
        log.info("overlap: the layout %s also names what is not here: %s", layout.name, ", ".join(missing))
    if not any(entry.level for entry in entries):
        log.warning("overlap: with the layout %s no task of this catalogue is evaluated", layout.name)


def _assigned(
    entries: Sequence[TaskPlan], examples: pa.Table, plan: Plan, seed: int, pinned: PinnedPlan
) -> pa.Table:
    """Return the examples, sorted by task, with their split and reason."""
    names = examples["task"].to_numpy()
    columns = [examples[name].to_numpy() for name in ("upstream_split", "group", "labelled")]
    parts, problems = [], list[str]()
    for entry in entries:
        low, high = (int(np.searchsorted(names, entry.task, side=side)) for side in ("left", "right"))
        rows = Rows(*(column[low:high] for column in columns))
        try:
            parts.append(pinned.places.get(entry.task) or assign(entry, rows, plan, seed))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    empty = np.empty(0, object)
    assignment = examples.select(["example", "task", "group"])
    for place, name in enumerate(("split", "reason")):
        values = np.concatenate([empty, *(part[place] for part in parts)])
        assignment = assignment.append_column(name, pa.array(values, pa.string(), from_pandas=False))
    return assignment


def _small_columns(batches: Iterable[pa.RecordBatch], output_fields: Mapping[str, Sequence[str]]) -> pa.Table:
    """Return id, task, upstream split, group and `labelled` of all examples.

    `output_fields` has the tasks that are evaluated; only of these is it looked up whether they are labelled.
    """
    kept = ["example", "task", "upstream_split", "group"]
    evaluated, parts = pa.array(list(output_fields), pa.string()), []
    for batch in batches:
        labelled = np.zeros(batch.num_rows, bool)
        rows = np.flatnonzero(
            pc.is_in(batch.column("task"), value_set=evaluated).to_numpy(zero_copy_only=False)
        )
        part = batch.select(["task", "fields", "references"]).take(pa.array(rows))
        values = zip(*(part.column(name).to_pylist() for name in part.schema.names))
        labelled[rows] = [
            any(map(str.strip, r)) or is_labelled(json.loads(f), r, output_fields[task])
            for task, f, r in values
        ]
        table = pa.Table.from_batches([batch.select(kept)])
        parts.append(table.append_column("labelled", pa.array(labelled)))
    schema = pa.schema([*(SCHEMAS["tasks/examples"].field(name) for name in kept), ("labelled", pa.bool_())])
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)]).combine_chunks()


# ----------------------------------------------------------------------------------------- one task


@dataclass(frozen=True)
class Rows:
    """The examples of one task as the assignment sees them, all arrays of one length n."""

    upstream: Texts
    """One of records.UPSTREAM_SPLITS or None, per example."""
    group: U64
    labelled: Bools
    """Meaningful only on tasks that are evaluated."""

    def of(self, *upstream_splits: str | None) -> Bools:
        """Return which rows have one of these upstream splits."""
        return np.isin(self.upstream.astype("U16"), [str(split) for split in upstream_splits])

    def beside(self, rows: Bools) -> Bools:
        """Return which rows have a group with one of `rows`."""
        return np.isin(self.group, self.group[rows])


def assign(entry: TaskPlan, rows: Rows, plan: Plan, seed: int) -> tuple[Texts, Texts]:
    """Return (split, reason) of each example of a task: object[n] of text; a reason where it is excluded.

    Raises:
        RecipeError: an evaluation task without an example to evaluate, a supervised one without any to train, a task under
            `plan.validation` that cannot be divided.
    """
    split = np.full(len(rows.group), "train", dtype=object)
    reason = np.full(len(rows.group), None, dtype=object)
    if entry.role == "excluded":
        split[:], reason[:] = "excluded", "task"
    elif entry.role == "train":
        _assign_train(rows, split, reason)
    elif entry.role == "both":
        _assign_supervised(entry, rows, plan, seed, split, reason)
    else:
        _assign_evaluation(entry, rows, plan, seed, split, reason)
    if entry.is_validation:
        _set_aside(entry, rows, plan, seed, split, reason)
    return split, reason


def _exclude(where: Bools, why: str, split: Texts, reason: Texts) -> None:
    split[where], reason[where] = "excluded", why


def _assign_train(rows: Rows, split: Texts, reason: Texts) -> None:
    split[rows.of("demonstration")] = "demonstration"
    validation = rows.of("validation")
    split[validation] = "validation"
    _exclude(rows.of("test"), "unused_test", split, reason)
    _exclude(
        validation & rows.beside((split == "train") | (split == "demonstration")), "group", split, reason
    )


def _assign_supervised(
    entry: TaskPlan, rows: Rows, plan: Plan, seed: int, split: Texts, reason: Texts
) -> None:
    test, validation = _upstream_evaluation(rows, split, reason)
    if not test.any():
        test = _carve(entry.task, rows, plan, seed)
    split[rows.of("demonstration")] = "demonstration"
    split[validation], split[test] = "validation", "test"
    trained = (split == "train") | (split == "demonstration")
    _exclude(trained & rows.beside(test | validation), "group", split, reason)
    if not (split == "test").any() or not (split == "train").any():
        lacking = "train" if (split == "test").any() else "test"
        raise RecipeError(
            [
                f"plan.supervised: {entry.task!r} has no example left to {lacking} on ({_describe(rows, reason)}); "
                f"name it under plan.partial, hold its category out, or add it to plan.exclude"
            ]
        )


def _assign_evaluation(
    entry: TaskPlan, rows: Rows, plan: Plan, seed: int, split: Texts, reason: Texts
) -> None:
    split[rows.of("train", None, "demonstration")] = "demonstration"
    test, validation = _upstream_evaluation(rows, split, reason)
    if test.any():
        if rows.of("train", None, "demonstration").any():
            _exclude(validation, "unused_validation", split, reason)
        else:
            split[validation] = "demonstration"
        shown = (split == "demonstration") & ~rows.of("demonstration")
        _exclude(shown & rows.beside(test), "group", split, reason)
    else:
        test = _all_but_demonstrations(entry.task, rows, plan, seed, split, reason)
    split[test] = "test"
    if not test.any():
        raise RecipeError(
            [
                f"plan: {entry.task!r} is to be evaluated but has no labelled example ({_describe(rows, reason)}); "
                f"add it to plan.exclude"
            ]
        )


def _upstream_evaluation(rows: Rows, split: Texts, reason: Texts) -> tuple[Bools, Bools]:
    """Return (test, validation) as upstream's labels allow; excludes the unlabelled rows of both splits."""
    upstream_test, upstream_validation = rows.of("test"), rows.of("validation")
    test, validation = upstream_test & rows.labelled, upstream_validation & rows.labelled
    _exclude((upstream_test & ~test) | (upstream_validation & ~validation), "unlabelled", split, reason)
    if not test.any():
        return validation, np.zeros_like(validation)
    return test, validation


def _carve(task: str, rows: Rows, plan: Plan, seed: int) -> Bools:
    """Return the rows of `carve_share` of the groups that can be carved: at least one group, never all; none where none can."""
    pool = rows.of("train", None)
    groups, sizes = np.unique(rows.group[pool], return_counts=True)
    shown = rows.group[rows.of("demonstration", "validation")]
    num_shown = np.array([np.count_nonzero(shown == group) for group in groups], np.int64)
    small = 2 * sizes <= pool.sum()
    free = small & (num_shown == 0)
    usable = free if free.any() else small
    others_train = free.any() and not usable.all()
    most = np.count_nonzero(usable) - (0 if others_train else 1)
    num = min(max(1, math.ceil(plan.carve_share * np.count_nonzero(usable))), most)
    order = np.lexsort((_ranks(task, groups[usable], seed, "carve"), num_shown[usable]))
    return pool & np.isin(rows.group, groups[usable][order[: max(num, 0)]])


def _all_but_demonstrations(
    task: str, rows: Rows, plan: Plan, seed: int, split: Texts, reason: Texts
) -> Bools:
    """Return the rows of a task without labelled test or validation that are evaluated.

    Groups are set aside as demonstrations where upstream has none: `num_demonstration_groups`, but at most half.
    Where some rows are labelled, the others are excluded.
    """
    pool = rows.of("train", None)
    if (pool & rows.labelled).any():
        _exclude(pool & ~rows.labelled, "unlabelled", split, reason)
        pool &= rows.labelled
    if rows.of("demonstration").any() or not pool.any():
        return pool
    groups = np.unique(rows.group[pool])
    num = min(plan.num_demonstration_groups, len(groups) // 2)
    order = np.argsort(_ranks(task, groups, seed, "demonstrations"), kind="stable")
    return pool & ~np.isin(rows.group, groups[order[:num]])


def _set_aside(entry: TaskPlan, rows: Rows, plan: Plan, seed: int, split: Texts, reason: Texts) -> None:
    """Turn whole groups of an evaluated task into `validation`, and see to what is left of it."""
    settings, test, validation = plan.validation, split == "test", split == "validation"
    _exclude(validation & rows.beside(test), "group", split, reason)
    validation &= split == "validation"
    pool, limit = (validation if validation.any() else test), settings.max_examples
    if not validation.any() and settings.rest == "test":
        limit = min(limit, int(test.sum()) // 2)
    groups, sizes = np.unique(rows.group[pool], return_counts=True)
    chosen, room = [], limit
    for place in np.argsort(_ranks(entry.task, groups, seed, "validation"), kind="stable").tolist():
        if sizes[place] <= room:
            chosen.append(groups[place])
            room -= int(sizes[place])
    if not chosen:
        raise RecipeError([_undivided(entry.task, sizes, plan)])
    taken = pool & np.isin(rows.group, np.array(chosen, np.uint64))
    _exclude(validation & ~taken, "unused_validation", split, reason)
    if settings.rest == "exclude":
        _exclude(test, "unused_test", split, reason)
    split[taken], reason[taken] = "validation", None


def _undivided(task: str, sizes: npt.NDArray[np.int64], plan: Plan) -> str:
    fewest = f"its smallest group of examples that share text has {sizes.min()}"
    if len(sizes) == 1 and plan.validation.rest == "test" and sizes.min() <= plan.validation.max_examples:
        fewest = f"its {sizes.min()} test examples are one group, which cannot choose models and test too"
    return (
        f"plan.validation: {task!r} cannot give at most {plan.validation.max_examples} examples to validation: {fewest}; "
        f"leave it out of plan.validation.tasks, raise max_examples, say rest: exclude, or add it to plan.exclude"
    )


def _ranks(task: str, groups: U64, seed: int, purpose: str) -> U64:
    """Return the hash of each group: uint64[n]; ids are of the task, so that no other task matters."""
    return ranks(seed, purpose, [f"{task}#{group}" for group in groups.tolist()])


def _describe(rows: Rows, reason: Texts) -> str:
    """Return the counts behind a task that cannot be assigned."""
    splits = {
        name: int(rows.of(name).sum()) for name in ("train", "validation", "test", "demonstration", None)
    }
    parts = [f"{num} upstream {name or 'unsplit'}" for name, num in splits.items() if num]
    num_unlabelled = int((reason == "unlabelled").sum())
    if num_unlabelled:
        parts.append(f"{num_unlabelled} without a label")
    _, sizes = np.unique(rows.group[rows.of("train", None)], return_counts=True)
    if len(sizes) and 2 * sizes.max() > sizes.sum():
        parts.append(f"{sizes.max()} of {sizes.sum()} in one group of examples that share text")
    return ", ".join(parts) or "no example"
