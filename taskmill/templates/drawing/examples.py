"""Read the examples of a task as often as needed, without holding more than a stretch of them.

Reads tasks/examples and splits/members by ranges of rows; writes nothing. A task of a few megabytes is decoded once
and kept until the next is asked for; a larger one is decoded anew, batch by batch, on every pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import DamagedError

HELD_BYTES = 8_000_000
"""A range of rows of about this size is decoded once for all passes."""
BATCH_BYTES = 1_000_000
"""About what is decoded at a time."""
MAX_BATCH = 4096
_FEW = 8
"""Where fewer than one row in so many is asked for, the others are not made into examples."""
EXAMPLE_COLUMNS = (
    "example",
    "upstream_split",
    "group",
    "fields",
    "references",
    "options",
    "normalised",
    "quality",
)


class Example(NamedTuple):
    """What rendering needs of a row of tasks/examples, and where it stands."""

    id: str
    upstream_split: str | None
    group: int
    fields: str
    """Canonical JSON."""
    references: tuple[str, ...]
    options: tuple[str, ...] | None
    normalised: bytes
    quality: str | None = None


_new_example = functools.partial(tuple.__new__, Example)


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows [start, stop) of a Parquet file."""

    path: Path
    start: int
    stop: int


class Rows:
    """Rows of a table, whose columns become Python values when they are first asked for, and stay."""

    def __init__(self, batch: pa.RecordBatch, whole: bool) -> None:
        """Take the rows as Arrow has them; `whole`: most of them will be asked for, if not together."""
        self._batch, self._whole = batch, whole
        self._lists: dict[str, list[Any]] = {}
        self._examples: list[Example] | None = None

    def column(self, name: str) -> list[Any]:
        """Return the values of a column; of a column of lists as tuples."""
        if name not in self._lists:
            array = self._batch.column(name)
            if pa.types.is_list(array.type):
                self._lists[name] = text_lists(array)
            elif pa.types.is_fixed_size_binary(array.type):
                self._lists[name] = array.to_numpy(zero_copy_only=False).tolist()  # 20 times as fast
            else:
                self._lists[name] = array.to_pylist()
        return self._lists[name]

    def examples(self, places: Sequence[int]) -> list[Example]:
        """Return some rows with EXAMPLE_COLUMNS as examples."""
        if not places:
            return []
        if self._examples is None and not self._whole and len(places) * _FEW < self._batch.num_rows:
            return list(_examples_of(Rows(self._batch.take(pa.array(places)), True)))
        if self._examples is None:
            self._examples = list(_examples_of(self))
        return [self._examples[place] for place in places]


def _examples_of(rows: Rows) -> Iterator[Example]:
    return map(_new_example, zip(*(rows.column(name) for name in EXAMPLE_COLUMNS), strict=True))


class Stretch(NamedTuple):
    """Consecutive rows of a file, as a part of rows that were decoded together."""

    first: int
    """Number of the first row in the file."""
    rows: Rows
    low: int
    high: int
    """They are rows [low, high) of `rows`."""

    def column(self, name: str) -> list[Any]:
        """Return the values of a column."""
        return self.rows.column(name)[self.low : self.high]

    def examples(self, places: Sequence[int]) -> list[Example]:
        """Return some of the rows, which count from `first`, as examples."""
        return self.rows.examples([place + self.low for place in places] if self.low else places)


class RowReader:
    """Reads ranges of rows of one Parquet file, best in ascending order; use as `with`.

    Raises:
        DamagedError: the file is missing or its bytes have changed.
    """

    def __init__(self, path: Path, columns: Sequence[str], max_batch: int = MAX_BATCH) -> None:
        """Open `path`; batches have at most `max_batch` rows."""
        self._path, self._columns, self._max_batch = path, list(columns), max_batch
        self._held: list[tuple[int, int, Rows]] = []
        self._held_start = self._held_stop = -1
        self._coming: Iterator[pa.RecordBatch] = iter(())
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error) from error
        meta = self._file.metadata
        self._groups = [meta.row_group(g) for g in range(meta.num_row_groups)]
        self._firsts = [0]
        for group in self._groups:
            self._firsts.append(self._firsts[-1] + group.num_rows)
        lost = [name for name in columns if name not in self._file.schema_arrow.names]
        if lost:
            raise DamagedError(f"{path} has no column {lost[0]!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._coming = iter(())
        self._file.close()

    def stretches(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Iterator[Stretch]:
        """Yield all of the rows [start, stop) in order; `columns` are those that will be asked for."""
        if start >= stop:
            return
        try:
            if self._size(start, stop) <= HELD_BYTES:
                source = self._hold(start, stop)
            else:
                source = self._stream(start, stop, self._columns if columns is None else columns)
            for first, num_rows, rows in source:
                low, high = max(start - first, 0), min(stop - first, num_rows)
                if low < high:
                    yield Stretch(first + low, rows, low, high)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self._path, error) from error

    def _overlapping(self, start: int, stop: int) -> list[int]:
        firsts = self._firsts
        return [g for g in range(len(self._groups)) if firsts[g] < stop and firsts[g + 1] > start]

    def _size(self, start: int, stop: int) -> float:
        """Return about how many bytes the rows have."""
        size = 0.0
        for number in self._overlapping(start, stop):
            group, first = self._groups[number], self._firsts[number]
            rows = min(stop, first + group.num_rows) - max(start, first)
            size += group.total_byte_size * rows / group.num_rows
        return size

    def _hold(self, start: int, stop: int) -> Iterator[tuple[int, int, Rows]]:
        """Yield (first row, number, rows), which stay held until rows behind them are asked for."""
        if self._held_start < 0 or not self._held_start <= start <= self._reach(self._held_stop):
            self._held, groups = [], [g for g in range(len(self._groups)) if self._firsts[g + 1] > start]
            self._held_start = self._held_stop = self._firsts[groups[0]]
            self._coming = self._decoded(groups, self._columns)
        while self._held_stop < stop:
            batch = next(self._coming)
            self._held.append((self._held_stop, batch.num_rows, Rows(batch, True)))
            self._held_stop += batch.num_rows
            while self._held[0][0] + self._held[0][1] <= start and len(self._held) > 1:
                self._held.pop(0)
            self._held_start = self._held[0][0]
        yield from list(self._held)

    def _decoded(self, groups: Sequence[int], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of row groups, one group at a time: over several, Arrow keeps what it has read."""
        for number in groups:
            group = self._groups[number]
            mean = group.total_byte_size / max(1, group.num_rows)
            size = max(1, min(self._max_batch, int(BATCH_BYTES / max(mean, 1.0))))
            names = list(columns)
            yield from self._file.iter_batches(size, row_groups=[number], columns=names, use_threads=False)

    def _reach(self, row: int) -> int:
        """Return the end of the row group that a row lies in."""
        return next((first for first in self._firsts if first > row), row)

    def _stream(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[int, int, Rows]]:
        self._held, self._coming, self._held_start = [], iter(()), -1
        groups = self._overlapping(start, stop)
        first = self._firsts[groups[0]]
        for batch in self._decoded(groups, columns):
            if first >= stop:
                break
            yield first, batch.num_rows, Rows(batch, False)
            first += batch.num_rows


def _damaged(path: Path, error: BaseException) -> DamagedError:
    return DamagedError(f"{path} is missing or damaged: {error}")


def text_lists(column: pa.Array) -> list[tuple[str, ...] | None]:
    """Return a column of lists of texts as tuples; null stays None."""
    if column.null_count == len(column):
        return [None] * len(column)
    texts: list[str] = column.flatten().to_pylist()
    lengths: list[int | None] = column.value_lengths().to_pylist()
    if len(texts) == len(column) and set(lengths) == {1}:
        return [(text,) for text in texts]
    found: list[tuple[str, ...] | None] = []
    place = 0
    for length in lengths:
        if length is None:
            found.append(None)
        else:
            found.append(tuple(texts[place : place + length]))
            place += length
    return found
