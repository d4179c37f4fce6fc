"""Which rows of two tables have the same key, and in which columns those differ. Works in columns; reads and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

_APART = "\x00"
"""Stands between the columns of a key; no id of a task holds it."""


@dataclass(frozen=True)
class Matched:
    """Two tables, row by row: `before` and `after` have one row each for every key that is in both, in the order of `before`."""

    before: pa.Table
    after: pa.Table
    gone: pa.Table
    """Rows whose key only the first table has."""
    added: pa.Table
    """Rows whose key only the second table has, in its order."""

    @cached_property
    def changed_columns(self) -> dict[str, int]:
        """Number of rows that differ, by column, of the columns that do."""
        counts = {name: pc.sum(self.differ(name)).as_py() or 0 for name in self.before.column_names}
        return {name: number for name, number in counts.items() if number}

    def differ(self, *columns: str) -> pa.Array:
        """Return a truth value for each common row: whether one of the columns differs; null equals null."""
        masks = [unequal(self.before.column(name), self.after.column(name)) for name in columns]
        found = masks[0]
        for mask in masks[1:]:
            found = pc.or_(found, mask)
        return found

    def side_by_side(self, mask: pa.Array, keys: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return the chosen common rows: the keys, then each column as `<column>_before` and `<column>_after`."""
        before, after = self.before.filter(mask), self.after.filter(mask)
        shown = {name: before.column(name) for name in keys}
        for name in columns:
            shown |= {f"{name}_before": before.column(name), f"{name}_after": after.column(name)}
        return pa.table(shown)


def match(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> Matched:
    """Match the rows of two tables of one schema by the text columns `keys`, which name each row once."""
    ours, theirs = _key(before, keys), _key(after, keys)
    places = pc.index_in(ours, value_set=theirs)
    both = places.is_valid()
    added = pc.invert(pc.is_in(theirs, value_set=ours))
    return Matched(
        before.filter(both),
        after.take(places.drop_null()),
        before.filter(pc.invert(both)),
        after.filter(added),
    )


def _key(table: pa.Table, keys: Sequence[str]) -> pa.Array:
    """Return one text for each row."""
    parts = [table.column(name).combine_chunks() for name in keys]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _APART)


def unequal(before: pa.ChunkedArray, after: pa.ChunkedArray) -> pa.Array:
    """Return where two columns of one length differ; null equals null."""
    if pa.types.is_nested(before.type):
        pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
        return pa.array([a != b for a, b in pairs], pa.bool_())
    ours, theirs = before.combine_chunks(), after.combine_chunks()
    return pc.fill_null(pc.not_equal(ours, theirs), pc.xor(ours.is_null(), theirs.is_null()))
