"""Storage: files that appear whole or not at all, and Parquet tables with two digests.

A file is written under a temporary name, fsynced, renamed, and its folder fsynced. Each table carries page
checksums, the `sha256` of its bytes (damage) and the digest of its `rows` (identity).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.digests import RowsDigest as RowsDigest
from taskmill.digests import canonical_json as canonical_json
from taskmill.digests import digest as digest
from taskmill.digests import file_digest as file_digest
from taskmill.errors import DamagedError, StorageError

ROW_GROUP = 10_000


# -------------------------------------------------------------------------------------- atomic files

# Every write, fsync and rename of the package goes through these three names, so that a test can stop each in turn.
_write: Callable[[int, bytes | memoryview], int] = os.write
_fsync: Callable[[int], None] = os.fsync
_rename: Callable[[Path, Path], None] = os.replace


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable.

    Raises:
        StorageError: the disk fails.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            _fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise _storage(folder, error) from error


def remove(path: Path) -> None:
    """Delete a file durably; one that is not there is fine.

    Raises:
        StorageError: it cannot be deleted.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot delete {path}: {error.strerror or error}") from error
    sync_folder(path.parent)


def _is_device(path: Path) -> bool:
    """Return whether something stands at a path that a file must not take the place of: a device, a pipe, /dev/stdout."""
    if path.is_symlink() and os.readlink(path).startswith("/proc/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


_STRAY = re.compile(r"\..+\.\d+\.tmp", re.ASCII)


def is_stray(path: Path) -> bool:
    """Return whether a file is called as those that an interrupted `AtomicFile` leaves."""
    return _STRAY.fullmatch(path.name) is not None


class AtomicFile:
    """A file that appears under its name whole or not at all: a binary sink for `with`.

    Raises:
        StorageError: the disk is full, read-only or failing; nothing is visible then.
    """

    def __init__(self, path: Path) -> None:
        """Prepare to write `path`; its folder is made when it is missing. See `is_stray` for the temporary name."""
        self.path, self.num_bytes, self.closed = path, 0, False
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._hash = hashlib.sha256()
        try:
            if _is_device(path):
                raise StorageError(
                    f"cannot write {path}: a device or a pipe is there; expected the name of a file"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise _storage(path, error) from error

    @property
    def sha256(self) -> str:
        """The digest (hex) of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview | Any) -> int:
        """Append bytes; returns how many. After `abandon` they go nowhere."""
        view = memoryview(data).cast("B")
        if self.closed:  # a Parquet writer that is garbage-collected still writes its footer
            return len(view)
        self._hash.update(view)
        left = view
        try:
            while len(left):
                left = left[_write(self._handle, left) :]
        except OSError as error:
            raise _storage(self.path, error) from error
        self.num_bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.num_bytes

    def flush(self) -> None:
        """Do nothing: bytes are written as they come."""

    def close(self) -> None:
        """Do nothing: `commit` ends the file."""

    def readable(self) -> bool:
        """Return False: a sink."""
        return False

    def writable(self) -> bool:
        """Return True: a sink."""
        return True

    def seekable(self) -> bool:
        """Return False: a sink."""
        return False

    def commit(self) -> None:
        """Make the file visible, durably."""
        try:
            _fsync(self._handle)
            self.closed = True
            os.close(self._handle)
            _rename(self._temporary, self.path)
        except OSError as error:
            raise _storage(self.path, error) from error
        sync_folder(self.path.parent)

    def abandon(self) -> None:
        """Leave nothing behind."""
        try:
            if not self.closed:
                self.closed = True
                os.close(self._handle)
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self.commit()
            except StorageError:
                self.abandon()
                raise
        else:
            self.abandon()


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; nothing half-written was left")


def write_bytes(path: Path, data: bytes) -> FileEntry:
    """Write a whole file atomically and return its entry.

    Raises:
        StorageError: see AtomicFile.
    """
    with AtomicFile(path) as file:
        file.write(data)
    return FileEntry(path.name, 0, file.num_bytes, file.sha256, file.sha256)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON and a newline atomically."""
    write_bytes(path, canonical_json(value) + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        DamagedError: missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes(), parse_constant=_no_constant)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged, it is not the JSON that was written: {error}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# ------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class FileEntry:
    """One file of a stage: `sha256` says whether its bytes are intact, `rows` what it holds."""

    path: str
    """Relative to the stage's folder."""
    num_rows: int
    bytes: int
    sha256: str
    rows: str
    """Digest over schema and values in row order, for tables; the sha256 for other files."""


class TableWriter:
    """Write a Parquet file atomically, batch by batch, with page checksums and both digests.

    Raises:
        StorageError: see AtomicFile.
    """

    def __init__(self, path: Path, schema: pa.Schema, name: str | None = None) -> None:
        """Open `path`; `name` is what the entry calls it."""
        self._file = AtomicFile(path)
        self._schema, self._name = schema, name or path.name
        self._rows, self.num_rows = RowsDigest(schema), 0
        self._pending: list[dict[str, Any]] = []
        self.entry: FileEntry | None = None
        try:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"),
                schema,
                compression="zstd",
                write_page_checksum=True,
                use_dictionary=True,
            )
        except BaseException:
            self._file.abandon()
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        self._pending.append(dict(row))
        if len(self._pending) >= ROW_GROUP:
            self._flush()

    def write(self, table: pa.Table | pa.RecordBatch | Sequence[Mapping[str, Any]]) -> None:
        """Add rows: a table, a batch, or a list of mappings."""
        if not isinstance(table, (pa.Table, pa.RecordBatch)):
            for row in table:
                self.append(row)
            return
        self._flush()
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        whole = whole.select(self._schema.names).cast(self._schema)
        for batch in whole.to_batches(max_chunksize=ROW_GROUP):
            self._rows.update(batch)
        self.num_rows += whole.num_rows
        if whole.num_rows:
            self._writer.write_table(whole, row_group_size=ROW_GROUP)

    def _flush(self) -> None:
        if self._pending:
            rows, self._pending = self._pending, []
            self.write(pa.Table.from_pylist(rows, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
            return
        try:
            self._flush()
            self._writer.close()
            self._file.commit()
        except BaseException:
            self.abandon()
            raise
        self.entry = FileEntry(
            self._name, self.num_rows, self._file.num_bytes, self._file.sha256, self._rows.hexdigest()
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._pending.clear()
        self._file.abandon()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file of a run, checking its page checksums.

    Raises:
        DamagedError: missing, truncated or with changed bytes; the message names the file.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names if columns is None else list(columns)
            _require_columns(path, file.schema_arrow.names, names)
            if not file.num_row_groups:  # pyarrow 18 cannot read that there is nothing
                return file.schema_arrow.empty_table().select(names)
            return file.read(columns=None if columns is None else names).select(names)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def read_rows(path: Path, places: Sequence[int]) -> pa.Table:
    """Read the rows at ascending `places` of a Parquet file, and no row group without one of them.

    Raises:
        DamagedError: see read_table.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            groups, kept, first, read = [], [], 0, 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                here = places[bisect_left(places, first) : bisect_left(places, first + size)]
                if here:
                    groups.append(group)
                    kept += [read + place - first for place in here]
                    read += size
                first += size
            if not groups:
                return file.schema_arrow.empty_table()
            return file.read_row_groups(groups).take(pa.array(kept, pa.int64()))
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def iter_batches(
    path: Path, columns: Sequence[str] | None = None, batch_size: int = ROW_GROUP
) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file of a run in batches of at most `batch_size` rows.

    Raises:
        DamagedError: see read_table.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names if columns is None else list(columns)
            _require_columns(path, file.schema_arrow.names, names)
            if not file.num_row_groups:
                return
            for batch in file.iter_batches(batch_size, columns=None if columns is None else names):
                yield batch.select(names)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


# A flipped bit of the footer can surface as any of these.
_UNREADABLE = (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError, RecursionError)


def _require_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    lost = [name for name in wanted if name not in present]
    if lost:
        raise DamagedError(f"{path} has no column {lost[0]!r}; it has {', '.join(present)}")


def _damaged(path: Path, error: Exception) -> DamagedError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DamagedError(
        f"{path} is missing or damaged ({reason}); `taskmill verify` lists what is, --force redoes it"
    )


def rows_digest(path: Path) -> tuple[str, int]:
    """Return the digest over a Parquet file's rows, and their number.

    Raises:
        DamagedError: see read_table.
    """
    try:
        schema = pq.read_schema(path)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    rows, count = RowsDigest(schema.remove_metadata()), 0
    for batch in iter_batches(path):
        rows.update(batch)
        count += batch.num_rows
    return rows.hexdigest(), count


def has_size(path: Path, size: int) -> bool:
    """Return whether a file exists with exactly `size` bytes."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False
