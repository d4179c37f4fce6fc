"""Predictions of two models side by side: the prompts that both answered, row for row.

A prompt is the same where task, example, template and number of shots are; the model may have seen other demonstrations, and
the run may have been built over other splits. Both values must be of one metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill.evaluation.aggregation import hierarchy

KEYS = ("task", "shots", "template", "example")
"""What makes two prompts the same, and the order of joined rows."""
COLUMNS = (*hierarchy.COLUMNS, "example")
"""Columns of predictions that a comparison reads."""


@dataclass(frozen=True)
class Joined:
    """Predictions of two models for the same prompts."""

    first: pa.Table
    other: pa.Table
    """Row i answers the prompt that row i of `first` answers."""
    num_other_metric: int
    """Prompts that both answered and that are left out, as they were valued by different metrics."""

    @property
    def num(self) -> int:
        """Prompts in common."""
        return int(self.first.num_rows)

    def tasks(self) -> Iterator[tuple[int, pa.Table, pa.Table]]:
        """Yield (shots, first, other) of one task and number of shots after the other."""
        if not self.num:
            return
        codes = [
            pc.dictionary_encode(self.first.column(name)).combine_chunks().indices.to_numpy()
            for name in ("task", "shots")
        ]
        changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
        bounds = [0, *changes.tolist(), self.num]
        for start, stop in pairwise(bounds):
            first = self.first.slice(start, stop - start)
            yield first.column("shots")[0].as_py(), first, self.other.slice(start, stop - start)

    def moved(self) -> list[str]:
        """Return the tasks that stand at another level or in another category in the other run."""
        names = ("level", "category")
        differ = [pc.not_equal(self.first.column(n), self.other.column(n)) for n in names]
        return sorted(pc.unique(self.first.column("task").filter(pc.or_(*differ))).to_pylist())


def join(first: pa.Table, other: pa.Table) -> Joined:
    """Return what two models answered both, sorted by task and number of shots.

    Args:
        first: predictions of one model, with COLUMNS.
        other: predictions of another.
    """
    codes = _codes(first, other)
    _, mine, theirs = np.intersect1d(*codes, return_indices=True)
    left, right = first.take(pa.array(mine)), other.take(pa.array(theirs))
    same = pc.equal(left.column("metric"), right.column("metric"))
    num_other = len(mine) - int(pc.sum(same).as_py() or 0)
    return Joined(
        left.filter(same).combine_chunks(), right.filter(same).combine_chunks(), num_other_metric=num_other
    )


def why_apart(first: pa.Table, other: pa.Table) -> str:
    """Return why two models answered no prompt both: the first of the keys of which they share no value."""
    for name in ("task", "example", "shots", "template", "metric"):
        mine, theirs = (set(pc.unique(table.column(name)).to_pylist()) for table in (first, other))
        if not mine & theirs:
            shown = ("; ".join(f"{_some(values)}" for values in (mine, theirs))) if name != "example" else ""
            reason = f"no {name} of one is in the other" + (f" ({shown})" if shown else "")
            if name == "example":
                reason += ": their data, split or evaluate.split differ"
            return reason
    return "tasks, examples, templates and shots are in both, but no prompt has all of them alike"


def _some(values: set[object]) -> str:
    names = sorted("default" if value is None else str(value) for value in values)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _codes(first: pa.Table, other: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each row of both tables: equal for equal keys, ascending by KEYS."""
    total = np.zeros(first.num_rows + other.num_rows, dtype=np.int64)
    for name in KEYS:
        column = pa.chunked_array(
            [*first.column(name).chunks, *other.column(name).chunks], first.schema.field(name).type
        )
        if name == "template":
            column = pc.fill_null(column, "")
        known = pc.unique(column)
        known = known.take(pc.sort_indices(known))
        total *= len(known)
        total += pc.index_in(column, value_set=known).to_numpy().astype(np.int64)
    return total[: first.num_rows], total[first.num_rows :]
