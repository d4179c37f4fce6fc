"""Which record is named first of two tables that differ."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from taskmill.commands.publishing.explaining import first_difference
from taskmill.records import PUBLISHED

SCHEMA = pa.schema([PUBLISHED["ids"].field(name) for name in ("task", "example", "content", "group")])


def ids(*rows: tuple[str, str, str, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)


ROWS = [("a", f"a#{i}", f"{i:02x}", i) for i in range(12)]


def changed(*places: tuple[int, int, Any]) -> pa.Table:
    rows = [list(row) for row in ROWS]
    for row, column, value in places:
        rows[row][column] = value
    return ids(*(tuple(row) for row in rows))  # type: ignore[arg-type]


def test_equal_tables() -> None:
    assert first_difference("ids", ids(*ROWS), ids(*ROWS)) is None
    assert first_difference("ids", ids(), ids()) is None


def test_the_first_in_the_order_of_the_table_with_its_cause_first() -> None:
    found = first_difference("ids", ids(*ROWS), changed((10, 2, "ff"), (9, 3, 77), (9, 2, "ee")))
    assert found is not None and (found.change, found.key) == ("changed", {"task": "a", "example": "a#9"})
    assert found.columns == [
        {"column": "content", "published": "09", "rebuilt": "ee"},
        {"column": "group", "published": 9, "rebuilt": 77},
    ]
    assert found.counts == {"changed": 2, "missing": 0, "additional": 0}


def test_rows_that_only_one_has() -> None:
    found = first_difference("ids", ids(*ROWS), ids(*ROWS[:3], *ROWS[4:], ("b", "b#0", "aa", 1)))
    assert found is not None and (found.change, found.key["example"]) == ("missing", "a#3")
    assert found.counts == {"changed": 0, "missing": 1, "additional": 1}
    found = first_difference("ids", ids(*ROWS), ids(*ROWS, ("b", "b#0", "aa", 1)))
    assert found is not None and (found.change, found.lines()) == (
        "additional",
        ["ids: task b, example b#0: rebuilt, not published"],
    )


def test_rows_with_the_same_keys_and_null_in_them() -> None:
    schema = PUBLISHED["drops"]
    row = {"stage": "curate", "task": None, "example": None, "reason": "unread", "file": None, "record": None}
    twins = [{**row, "twin": twin} for twin in ("x", "y", None)]
    before = pa.Table.from_pylist(twins, schema)
    assert first_difference("drops", before, before) is None
    other = pa.Table.from_pylist([*twins[:2], {**twins[2], "twin": "z"}], schema)
    found = first_difference("drops", before, other)
    assert found is not None and found.columns == [{"column": "twin", "published": None, "rebuilt": "z"}]
