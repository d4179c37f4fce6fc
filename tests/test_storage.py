"""Canonical JSON, atomic files, tables with page checksums and two digests."""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill import storage
from taskmill.errors import DamagedError, StorageError
from taskmill.storage import (
    AtomicFile,
    RowsDigest,
    TableWriter,
    canonical_json,
    digest,
    iter_batches,
    read_json,
    read_rows,
    read_table,
    rows_digest,
    write_bytes,
)

SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("clean", pa.bool_()),
        pa.field("content", pa.binary(4)),
        pa.field("words", pa.list_(pa.string())),
        pa.field("ends", pa.list_(pa.int32())),
        pa.field("flags", pa.list_(pa.bool_())),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "task": f"task{i // 3}",
        "answer": [None, "", "yes", "naïve ✓"][i % 4],
        "row": i,
        "value": None if i % 5 == 0 else i / 7,
        "clean": [True, False, None][i % 3],
        "content": None if i % 6 == 1 else bytes([i, 0, 1, 2]),
        "words": [None, [], ["a"], ["b", "", None]][i % 4],
        "ends": [[], None, [1, 2, i]][i % 3],
        "flags": [[True], [True, False], []][i % 3],
    }
    for i in range(24)
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# ------------------------------------------------------------------------------------- canonical JSON


@given(json_values)
def test_canonical_json_is_one_text_that_reads_back(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


def test_canonical_json_ignores_key_order_and_spaces() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é", (2,)]}) == '{"a":[1.5,"é",[2]],"b":1}'.encode()
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 2.0})


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_canonical_json_refuses_what_json_lacks(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": [{None: 1}]}, {"a": {2.5: 1}}])
def test_canonical_json_refuses_keys_that_are_no_text(value: Any) -> None:
    with pytest.raises(TypeError, match="text keys"):
        canonical_json(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_read_json_names_a_damaged_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"a\.json"):
        read_json(path)
    with pytest.raises(DamagedError, match="No such file"):
        read_json(tmp_path / "none.json")


# --------------------------------------------------------------------------------------- atomic files


def test_atomic_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with AtomicFile(path) as file:
        file.write(b"one")
        file.write(memoryview(b"two"))
        assert not path.exists()
    assert path.read_bytes() == b"onetwo"
    assert (file.num_bytes, file.sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    assert os.listdir(path.parent) == ["a.bin"]


def test_atomic_file_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(KeyError), AtomicFile(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["_write", "_fsync", "_rename"])
def test_full_disk_is_a_plain_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_bytes(tmp_path / "a.bin", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, name, full)
    with pytest.raises(
        StorageError, match=r"cannot write .*a\.bin: No space left on device; nothing half-written"
    ):
        write_bytes(tmp_path / "a.bin", b"new")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "a" / "b", b"")


def test_no_file_takes_the_place_of_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "stdout", "null"):
        with pytest.raises(StorageError, match="a device or a pipe is there"):
            write_bytes(tmp_path / name, b"x")
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe", "stdout"]
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "stdout").is_symlink()


# --------------------------------------------------------------------------------------------- tables


def write(path: Path, rows: list[dict[str, Any]] = ROWS, schema: pa.Schema = SCHEMA) -> storage.FileEntry:
    with TableWriter(path, schema) as writer:
        writer.write(rows)
    assert writer.entry is not None
    return writer.entry


def rows_of(batches: list[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> str:
    rows = RowsDigest(schema)
    for batch in batches:
        rows.update(batch)
    return rows.hexdigest()


def test_table_has_page_checksums_and_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    entry = write(path)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.bytes == path.stat().st_size
    assert rows_digest(path) == (entry.rows, len(ROWS)) == (entry.rows, entry.num_rows)
    assert read_table(path).to_pylist() == ROWS
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"a\.parquet.*damaged"):
        read_table(path)
    with pytest.raises(DamagedError, match=r"a\.parquet.*damaged"):
        list(iter_batches(path))


def test_failed_table_leaves_nothing_and_writes_nowhere_else(tmp_path: Path) -> None:
    """A Parquet writer that is collected later must not write into a file that got its handle's number."""
    with pytest.raises(KeyError), TableWriter(tmp_path / "a.parquet", SCHEMA) as writer:
        writer.write(pa.Table.from_pylist(ROWS, schema=SCHEMA))
        raise KeyError
    assert os.listdir(tmp_path) == []
    other = (tmp_path / "other.bin").open("wb", buffering=0)
    del writer
    gc.collect()
    other.write(b"mine")
    other.close()
    assert (tmp_path / "other.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("read", [read_table, lambda p, c=None: list(iter_batches(p, c))])
def test_missing_file_or_column_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(DamagedError, match=r"none\.parquet"):
        read(tmp_path / "none.parquet")
    write(tmp_path / "a.parquet")
    with pytest.raises(DamagedError, match="no column 'tsak'; it has task, answer"):
        read(tmp_path / "a.parquet", ["tsak"])


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", ["row", "task"]).column_names == ["row", "task"]
    assert next(iter_batches(tmp_path / "a.parquet", ["row", "task"])).schema.names == ["row", "task"]


@given(st.lists(st.integers(0, len(ROWS)), max_size=5), st.booleans())
def test_rows_digest_ignores_how_rows_are_cut(cuts: list[int], rebuilt: bool) -> None:
    whole = pa.Table.from_pylist(ROWS, schema=SCHEMA).to_batches()[0]
    edges = [0, *sorted(cuts), len(ROWS)]
    parts = [whole.slice(start, stop - start) for start, stop in itertools.pairwise(edges)]
    if rebuilt:
        parts = [pa.RecordBatch.from_pylist(part.to_pylist(), schema=SCHEMA) for part in parts]
    assert rows_of(parts) == rows_of([whole])


def test_rows_digest_ignores_encoding_and_offset_width(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    wide = pa.schema(
        [
            pa.field("task", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("answer", pa.large_string()),
            *list(SCHEMA)[2:6],
            pa.field("words", pa.large_list(pa.large_string())),
            pa.field("ends", pa.list_(pa.field("element", pa.int32()))),
            SCHEMA.field("flags"),
        ]
    )
    columns = [
        table["task"].dictionary_encode(),
        *(table[n].cast(wide.field(n).type) for n in SCHEMA.names[1:]),
    ]
    other = pa.table(columns, schema=wide)
    assert rows_of(other.to_batches(), wide) == rows_of(table.to_batches())
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=5, use_dictionary=False, compression="none")
    assert rows_digest(tmp_path / "b.parquet")[0] == rows_of(table.to_batches())


def test_rows_digest_of_no_rows(tmp_path: Path) -> None:
    empty = pa.Table.from_pylist([], schema=SCHEMA)
    assert rows_of([]) == rows_of(pa.RecordBatch.from_pylist([], schema=SCHEMA) for _ in range(2))
    with TableWriter(tmp_path / "a.parquet", SCHEMA) as writer:
        writer.write(empty)
    assert writer.entry is not None
    assert rows_digest(tmp_path / "a.parquet") == (writer.entry.rows, 0) == (rows_of([]), 0)


CHANGES = {
    "text": (2, "answer", "yes!"),
    "null to empty": (0, "answer", ""),
    "empty to null": (1, "answer", None),
    "integer": (3, "row", 4),
    "float": (3, "value", 0.0),
    "null float to 0": (0, "value", 0.0),
    "boolean": (0, "clean", False),
    "null boolean to false": (2, "clean", False),
    "bytes": (0, "content", b"\0\0\1\3"),
    "null bytes to zeros": (1, "content", b"\0\0\0\0"),
    "null list to empty": (0, "words", []),
    "empty list to null": (1, "words", None),
    "list item": (2, "words", ["b"]),
    "null item to empty": (3, "words", ["b", "", ""]),
    "list of lists cut elsewhere": (2, "ends", [1, 2, 2, 0]),
    "flag": (0, "flags", [False]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_digest_sees_every_change(change: str) -> None:
    row, column, value = CHANGES[change]
    assert ROWS[row][column] != value
    changed = [dict(r) for r in ROWS]
    changed[row][column] = value
    before, after = (pa.Table.from_pylist(rows, schema=SCHEMA).to_batches() for rows in (ROWS, changed))
    assert rows_of(before) != rows_of(after)


def test_rows_digest_sees_row_order_boundaries_and_schema() -> None:
    def of(values: list[Any], field: pa.Field) -> str:
        schema = pa.schema([field])
        return rows_of(
            pa.table({field.name: pa.array(values, field.type)}, schema=schema).to_batches(), schema
        )

    text = pa.field("a", pa.string())
    digests = [
        of(["x", "yz"], text),
        of(["yz", "x"], text),
        of(["xy", "z"], text),
        of(["xyz"], text),
        of(["x", "yz", ""], text),
        of(["x", "yz"], pa.field("b", pa.string())),
        of(["x", "yz"], pa.field("a", pa.string(), nullable=False)),
        of([b"x", b"yz"], pa.field("a", pa.binary())),
        of([1, 2], pa.field("a", pa.int64())),
        of([1, 2], pa.field("a", pa.int32())),
    ]
    assert len(set(digests)) == len(digests)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    """Reading fails with a DamagedError, or the rows are still right; `sha256` sees every flip."""
    path, flipped = tmp_path / "a.parquet", tmp_path / "b.parquet"
    entry = write(path, ROWS * 40)
    data = path.read_bytes()
    expected = read_table(path)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    missed_in_pages = 0
    places = {(i * 7919 * 8 + i) % (len(data) * 8) for i in range(300)}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        flipped.write_bytes(changed)
        assert storage.file_digest(flipped) != entry.sha256
        try:
            table = read_table(flipped)
        except DamagedError:
            continue
        if place // 8 < footer and not table.equals(expected):
            missed_in_pages += 1
    assert len(places) > 250
    assert missed_in_pages == 0, "a changed page was read as if it were whole"


def test_rows_are_read_from_the_row_groups_that_hold_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"n": list(range(25))})
    pq.write_table(table, path, row_group_size=10, write_page_checksum=True)
    for places in ([], [0], [9, 10], [3, 24], list(range(25))):
        assert read_rows(path, places).column("n").to_pylist() == places
