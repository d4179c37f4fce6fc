"""Prompts of one task and split in the order of their table: condition, then prompt, without holding all of them.

Rows are kept in memory up to `HELD_BYTES`; beyond, they go to runs on disk, each cut by the first bits of the prompt's
id, so that one piece of every run, read together and sorted, is the next stretch of the table. Writes files below a
folder of its own, which goes when it is closed; reads them back.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import StorageError
from taskmill.records import SCHEMAS

SCHEMA = SCHEMAS["prompts/prompts"]
HELD_BYTES = 10_000_000
"""Rows of about this many bytes are held before they go to disk."""
_ROW_BYTES = 1000
"""What a row takes in memory beside its texts."""
_PIECES = 64
_SPILLED = pa.schema([field.with_nullable(True) for field in SCHEMA])


class Row(NamedTuple):
    """A row of prompts/prompts, without what all rows of its task and split share."""

    condition: str
    """Empty for null."""
    prompt: int
    """The id as a number."""
    example: str
    template: str
    text: str
    ends: Sequence[int]
    kinds: Sequence[int]
    trained: Sequence[bool]
    options: tuple[str, ...] | None
    references: tuple[str, ...]
    demonstrations: tuple[str, ...]
    loss_weight: float
    format: str
    joint: bool


class Place(NamedTuple):
    """What all prompts of a task and split share."""

    task: str
    split: str
    level: str | None


class PromptSorter:
    """Collects the rows of one task and split and gives them back in order; use as `with`."""

    def __init__(self, place: Place, folder: Path, held_bytes: int | None = None) -> None:
        """`folder` is made when rows have to leave memory."""
        self._place, self._folder, self._limit = place, folder, held_bytes or HELD_BYTES
        self._rows: list[Row] = []
        self._bytes = self.num_rows = 0
        self._runs: dict[str, list[Path]] = {}

    def __enter__(self) -> PromptSorter:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows = []
        if self._runs:
            shutil.rmtree(self._folder, ignore_errors=True)

    def extend(self, rows: Sequence[Row]) -> None:
        """Take rows.

        Raises:
            StorageError: the disk is full or failing.
        """
        self._rows.extend(rows)
        self.num_rows += len(rows)
        self._bytes += sum([len(row.text) for row in rows]) + _ROW_BYTES * len(rows)
        if self._bytes > self._limit:
            self._spill()

    def sorted(self, without: Collection[str] = ()) -> Iterator[Sequence[Row] | pa.RecordBatch]:
        """Yield all rows in order, but for those of some templates: as they came, or as batches of prompts/prompts.

        Raises:
            StorageError: the disk is failing.
        """
        if not self._runs:
            self._rows.sort()
            yield [row for row in self._rows if row.template not in without] if without else self._rows
            return
        self._spill()
        left = pa.array(sorted(without), pa.string())
        for condition in sorted(self._runs):
            for table in self._merge(self._runs[condition]):
                kept = table
                if len(left):
                    kept = table.filter(pc.invert(pc.is_in(table["template"], left)))
                yield from kept.combine_chunks().to_batches()

    def named(self, templates: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield (template, example) of the rows of some templates, in order.

        Raises:
            StorageError: the disk is failing.
        """
        for found in self.sorted():
            if isinstance(found, pa.RecordBatch):
                names = (found.column(name).to_pylist() for name in ("template", "example"))
                pairs: Iterable[tuple[str, str]] = zip(*names, strict=True)
            else:
                pairs = ((row.template, row.example) for row in found)
            yield from ((template, example) for template, example in pairs if template in templates)

    def _spill(self) -> None:
        rows, self._rows, self._bytes = sorted(self._rows), [], 0
        by_condition: dict[str, list[Row]] = {}
        for row in rows:
            by_condition.setdefault(row.condition, []).append(row)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for condition, own in sorted(by_condition.items()):
                runs = self._runs.setdefault(condition, [])
                path = self._folder / f"{sum(map(len, self._runs.values()))}.arrow"
                _write_run(path, own, self._place)
                runs.append(path)
        except OSError as error:
            raise _failed(self._folder, error) from error

    def _merge(self, runs: Sequence[Path]) -> Iterator[pa.Table]:
        try:
            files = [pa.ipc.open_file(pa.OSFile(str(path), "rb")) for path in runs]
            for piece in range(_PIECES):
                table = pa.Table.from_batches([file.get_batch(piece) for file in files])
                if table.num_rows:
                    order = np.argsort(_ids(table["prompt"].combine_chunks()), kind="stable")
                    yield table.take(pa.array(order)).cast(SCHEMA)
        except OSError as error:
            raise _failed(self._folder, error) from error


def _failed(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot keep prompts below {folder} while sorting: {error.strerror or error}")


def _ids(column: pa.Array) -> Any:
    """Return 8-byte ids as numbers of the same order: uint64[n]."""
    data = np.frombuffer(column.buffers()[1], dtype=">u8")
    return data[column.offset : column.offset + len(column)]


def _write_run(path: Path, rows: Sequence[Row], place: Place) -> None:
    """Write sorted rows, one batch for each of the first six bits of the prompt's id."""
    firsts = np.searchsorted([row.prompt >> 58 for row in rows], np.arange(_PIECES + 1))
    whole = to_batch([(place, rows)]).cast(_SPILLED)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SPILLED) as writer:
        for start, stop in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
            writer.write_batch(whole.slice(start, stop - start))


def to_batch(runs: Sequence[tuple[Place, Sequence[Row]]]) -> pa.RecordBatch:
    """Return rows of tasks and splits as a batch of prompts/prompts, column by column."""
    rows = [row for _, own in runs for row in own]
    columns: Any = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    named: dict[str, Sequence[Any]] = dict(zip(Row._fields, columns, strict=True))
    lengths = list(map(len, named["ends"]))
    ids = np.array(named["prompt"], np.uint64).astype(">u8").tobytes()
    made = {"ends": _lists(lengths, named["ends"], SCHEMA.field("ends").type.value_type)}
    for name in ("kinds", "trained"):
        made[name] = _few_lists(named[name], SCHEMA.field(name).type)
    for name in ("references", "demonstrations"):
        made[name] = _lists(list(map(len, named[name])), named[name], pa.string())
    made["prompt"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(rows), [None, pa.py_buffer(ids)])
    made["condition"] = pa.array([condition or None for condition in named["condition"]], pa.string())
    for number, name in enumerate(Place._fields):
        values = [place[number] for place, _ in runs]
        sizes = [len(own) for _, own in runs]
        made[name] = pa.array(values, pa.string()).take(pa.array(np.repeat(np.arange(len(runs)), sizes)))
    arrays = [
        made[field.name] if field.name in made else pa.array(named[field.name], field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _lists(lengths: Sequence[int], rows: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    values = pa.array(list(itertools.chain.from_iterable(rows)), kind)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=pa.list_(kind))


def _few_lists(rows: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    """Return lists of which few are distinct, as the kinds of a task's segments are."""
    places: dict[Sequence[Any], int] = {}
    found = [places.setdefault(row, len(places)) for row in rows]
    return pa.array(list(places), kind).take(pa.array(found, pa.int32()))
