"""The published table `drops`: every example of upstream that is not in the benchmark, why, and what it was too much like.

Rows of curate are those of its `dropped` without the texts; the others are the examples that the plan (stage `overlap`) or
the decisions (stage `split`) exclude. The `twin` of an example that a decision took out is the example of the other side
with which it shares most grams, of a copy the copy that stays, of a near-duplicate the survivor of its cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.records import PUBLISHED
from taskmill.splits.deciding.decisions import RULE
from taskmill.splits.sharing.examples import EVALUATION_TEXT, text_sides

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_NONE = -1


@dataclass(frozen=True)
class _Twins:
    """The twin of each example, by number, and the grams that they share; -1 for neither."""

    twin: I64
    num_grams: I64

    def take(self, examples: I64, twins: I64, num_grams: I64) -> None:
        """Give examples that have none yet the twin with most grams; of equal ones the first in order."""
        fits = (examples >= 0) & (twins >= 0)
        fits[fits] &= self.twin[examples[fits]] == _NONE
        examples, twins, num_grams = examples[fits], twins[fits], num_grams[fits]
        order = np.lexsort((twins, -num_grams, examples))
        first = np.unique(examples[order], return_index=True)[1]
        best = order[first]
        self.twin[examples[best]], self.num_grams[examples[best]] = twins[best], num_grams[best]


def drops_table(inputs: Inputs, ids: pa.Table, tasks: pa.Table) -> pa.Table:
    """Return the published `drops`, sorted by stage, task, example and record.

    Args:
        inputs: the stages curate, overlap and split.
        ids: the published `ids` of all examples, sorted by task and example.
        tasks: the published `tasks`.
    """
    schema = PUBLISHED["drops"]
    dropped = inputs.table(
        "curate", "dropped", ("stage", "task", "example", "reason", "twin", "file", "record")
    )
    nulls = {"rule": pa.nulls(len(dropped), pa.string()), "num_grams": pa.nulls(len(dropped), pa.int64())}
    columns = {name: dropped[name] for name in dropped.column_names} | nulls
    of_curate = pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
    found = pa.concat_tables([of_curate, _excluded(inputs, ids, tasks)])
    keys = ("stage", "task", "example", "file", "record", "reason", "twin")
    order = pc.sort_indices(found, sort_keys=[(key, "ascending") for key in keys])
    return found.take(order)


def _excluded(inputs: Inputs, ids: pa.Table, tasks: pa.Table) -> pa.Table:
    """Return the rows of examples that were read and kept by curate, and that stand nowhere."""
    excluded = np.flatnonzero(pc.equal(ids["split"], "excluded").to_numpy())
    twins = _twins(inputs, ids, tasks)
    rows = ids.take(pa.array(excluded))
    twin, num_grams = twins.twin[excluded], twins.num_grams[excluded]
    names = ids["example"].take(pa.array(twin, mask=twin == _NONE))
    by_plan = pc.equal(rows["assigned"], "excluded")
    columns = {name: rows[name] for name in ("task", "example", "reason", "rule", "file", "record")}
    columns["stage"] = pc.if_else(by_plan, "overlap", "split")
    columns |= {"twin": names, "num_grams": pa.array(num_grams, mask=num_grams == _NONE)}
    schema = PUBLISHED["drops"]
    return pa.table({field.name: columns[field.name] for field in schema}).cast(schema)


# ---------------------------------------------------------------------------------------------- twins


def _twins(inputs: Inputs, ids: pa.Table, tasks: pa.Table) -> _Twins:
    """Return the twins of the examples that decisions, copies and near-duplicates took out."""
    size = len(ids)
    found = _Twins(np.full(size, _NONE, np.int64), np.full(size, _NONE, np.int64))
    reason = ids["reason"]
    by_reason = {
        name: pc.fill_null(pc.equal(reason, name), False).to_numpy()
        for name in ("decision", "duplicate", "near_duplicate")
    }
    if by_reason["decision"].any():
        _of_decisions(found, inputs, ids, by_reason["decision"])
    if by_reason["duplicate"].any() or by_reason["near_duplicate"].any():
        side = _sides(ids, tasks)
        _of_copies(found, ids, by_reason["duplicate"], side)
        _of_near_duplicates(found, inputs, ids, by_reason["near_duplicate"], side)
    return found


def _of_decisions(found: _Twins, inputs: Inputs, ids: pa.Table, wanted: Bools) -> None:
    """Look for the twins of what a decision took out among the examples of the pairs that it was about."""
    decisions = inputs.table("split", "decisions", ("train_task", "eval_task", "action", "rule", "by"))
    rules = np.array(ids["rule"].to_pylist(), dtype=object)
    for name in ("hits", "evidence"):
        columns = ("train_task", "eval_task", "train_example", "eval_example")
        grams = ("num_grams",) if name == "hits" else ()
        shared = inputs.table("overlap", name, (*columns, *grams))
        row = _decision_of(decisions, shared)
        shared, row = shared.filter(pa.array(row >= 0)), row[row >= 0]
        made = decisions.take(pa.array(row))
        by_rule = pc.equal(made["by"], RULE)
        decider = np.array(pc.if_else(by_rule, made["rule"], "person").to_pylist(), dtype=object)
        action = made["action"]
        train, evaluation = (_numbers(ids, shared[f"{side}_example"]) for side in ("train", "eval"))
        counts = shared["num_grams"].to_numpy() if grams else np.full(len(shared), _NONE, np.int64)
        for side, mine, other in (("drop_train", train, evaluation), ("drop_eval", evaluation, train)):
            fits = pc.starts_with(action, side).to_numpy() & (mine >= 0)
            fits[fits] &= wanted[mine[fits]] & (rules[mine[fits]] == decider[fits])
            found.take(mine[fits], other[fits], counts[fits])


def _decision_of(decisions: pa.Table, shared: pa.Table) -> I64:
    """Return the row of the decision about the pair of each row; -1 where there is none."""
    names = pc.unique(
        pa.chunked_array([*decisions["train_task"].chunks, *decisions["eval_task"].chunks], pa.string())
    )

    def codes(table: pa.Table) -> I64:
        train, evaluation = (
            pc.fill_null(pc.index_in(table[column], value_set=names), _NONE).to_numpy().astype(np.int64)
            for column in ("train_task", "eval_task")
        )
        both: I64 = np.where((train < 0) | (evaluation < 0), _NONE, train * len(names) + evaluation)
        return both

    rows = pc.index_in(pa.array(codes(shared)), value_set=pa.array(codes(decisions)))
    found: I64 = pc.fill_null(rows, _NONE).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _of_copies(found: _Twins, ids: pa.Table, wanted: Bools, side: npt.NDArray[np.uint8]) -> None:
    """The twin of a copy is the first example of the same content that stands, evaluation text before train text."""
    standing = np.flatnonzero(side)
    standing = standing[np.argsort(side[standing] != EVALUATION_TEXT, kind="stable")]
    copies = np.flatnonzero(wanted)
    contents = ids["content"].take(pa.array(standing))
    place = pc.index_in(ids["content"].take(pa.array(copies)), value_set=contents)
    known = pc.is_valid(place).to_numpy()
    twins = standing[place.drop_null().to_numpy().astype(np.int64)]
    found.take(copies[known], twins, np.full(len(twins), _NONE, np.int64))


def _of_near_duplicates(
    found: _Twins, inputs: Inputs, ids: pa.Table, wanted: Bools, side: npt.NDArray[np.uint8]
) -> None:
    """The twin of a near-duplicate is what still stands of its cluster, evaluation text before train text."""
    near = inputs.table("overlap", "near_duplicates", ("example", "survivor"))
    example, survivor = _numbers(ids, near["example"]), _numbers(ids, near["survivor"])
    named = np.unique(survivor)
    number, cluster = np.concatenate([named, example]), np.concatenate([named, survivor])
    standing = side[number] != 0
    here, heads = number[standing], cluster[standing]
    order = np.lexsort((here, here != heads, side[here] != EVALUATION_TEXT, heads))
    here, heads = here[order], heads[order]
    first = np.diff(heads, prepend=-1) != 0
    heads, left = heads[first], here[first]
    fits = np.flatnonzero(wanted[number])
    place = np.searchsorted(heads, cluster[fits])
    known = place < len(heads)
    known[known] &= heads[place[known]] == cluster[fits][known]
    found.take(number[fits[known]], left[place[known]], np.full(int(known.sum()), _NONE, np.int64))


def _sides(ids: pa.Table, tasks: pa.Table) -> npt.NDArray[np.uint8]:
    """Return the side of each example as it stands: see `text_sides`."""
    roles = tasks["planned_role"].take(pc.index_in(ids["task"], value_set=tasks["task"]))
    return text_sides(ids["split"].to_numpy(), roles.to_numpy())


def _numbers(ids: pa.Table, examples: pa.ChunkedArray) -> I64:
    """Return the place of each example; -1 for one that is not there."""
    found: I64 = (
        pc.fill_null(pc.index_in(examples, value_set=ids["example"]), _NONE).to_numpy().astype(np.int64)
    )
    return found
