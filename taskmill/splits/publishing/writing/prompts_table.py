"""The prompts of a published benchmark: those of render, by level and split, cut into files of about 100 MB at most.

Reads prompts/prompts batch by batch, writes data/<configuration>/<split>-00000-of-0000N.parquet; rows keep the run's order, and
where a file ends follows from the rows alone. At most one row group of each configuration and split is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.errors import DamagedError
from taskmill.records import CONFIGURATIONS, PUBLISHED, SEGMENT_KINDS, SPLITS
from taskmill.splits.publishing.published import data_path
from taskmill.splits.publishing.writing.tables import UNLEVELLED, hex_column
from taskmill.storage import ROW_GROUP, FileEntry, TableWriter

SHARD_BYTES = 128 << 20
"""Bytes of text after which a file is closed; a row has its text twice, and zstd makes less than half of it."""
GROUP_BYTES = 8 << 20
"""Bytes of text after which a row group is closed."""
_BATCH = 2_000
_SCHEMA = PUBLISHED["prompts"]
_CONTROL = SEGMENT_KINDS.index("control")
_SYMBOLS = (b"{bos}", b"{eos}")
_PASSED = (
    "example",
    "task",
    "level",
    "split",
    "template",
    "text",
    "ends",
    "trained",
    "options",
    "references",
)
_ALSO_PASSED = ("demonstrations", "condition", "loss_weight")

Place = tuple[str, str]
I64 = npt.NDArray[np.int64]


@dataclass
class _Files:
    """The files of one configuration and split while they are written."""

    folder: Path
    place: Place
    count: int
    number: int = 0
    num_bytes: int = 0
    pending: list[pa.Table] = field(default_factory=list)
    pending_bytes: int = 0
    writer: TableWriter | None = None
    entries: list[FileEntry] = field(default_factory=list)

    def add(self, rows: pa.Table, sizes: I64) -> None:
        """Add rows, `sizes` bytes of text each; closes files where they are full."""
        start = 0
        while start < len(sizes):
            ends = np.cumsum(sizes[start:])
            file_rows = int(np.searchsorted(ends, SHARD_BYTES - self.num_bytes)) + 1
            group_rows = int(np.searchsorted(ends, GROUP_BYTES - self.pending_bytes)) + 1
            waiting = sum(part.num_rows for part in self.pending)
            taken = min(file_rows, group_rows, ROW_GROUP - waiting, len(ends))
            part_bytes = int(ends[taken - 1])
            self.pending.append(rows.slice(start, taken))
            self.num_bytes, self.pending_bytes = self.num_bytes + part_bytes, self.pending_bytes + part_bytes
            if self.num_bytes >= SHARD_BYTES:
                self.close()
            elif self.pending_bytes >= GROUP_BYTES or waiting + taken == ROW_GROUP:
                self._flush()
            start += taken

    def _flush(self) -> None:
        if self.writer is None:
            path = data_path(*self.place, self.number, self.count)
            self.writer = TableWriter(self.folder / path, _SCHEMA, path)
        self.writer.write(pa.concat_tables(self.pending).combine_chunks())
        self.pending, self.pending_bytes = [], 0

    def close(self) -> None:
        """End the file that is being written."""
        if self.pending:
            self._flush()
        if self.writer is not None:
            with self.writer:
                pass
            assert self.writer.entry is not None
            self.entries.append(self.writer.entry)
            self.number, self.num_bytes, self.writer = self.number + 1, 0, None

    def abandon(self) -> None:
        """Leave no unfinished file behind."""
        if self.writer is not None:
            self.writer.abandon()


def write_prompts(inputs: Inputs, tasks: pa.Table, allowed: pa.Array, folder: Path) -> list[FileEntry]:
    """Write the prompts of some tasks below data/ and return the files.

    Args:
        inputs: the stage render.
        tasks: the published `tasks`.
        allowed: the tasks whose prompts are written.
        folder: of the published benchmark.

    Raises:
        UsageError: render is not finished.
        DamagedError: a prompt is of no task, or its table is damaged.
        StorageError: the disk refuses.
    """
    files = {
        place: _Files(folder, place, count) for place, count in sorted(_num_files(inputs, allowed).items())
    }
    try:
        for batch in inputs.batches("render", "prompts", batch_size=_BATCH):
            rows = pa.Table.from_batches([batch])
            for place, part in _by_place(rows.filter(pc.is_in(rows["task"], value_set=allowed))):
                files[place].add(_published(part, tasks), _sizes(part))
        for mine in files.values():
            mine.close()
    except BaseException:
        for mine in files.values():
            mine.abandon()
        raise
    return [entry for mine in files.values() for entry in mine.entries]


def _num_files(inputs: Inputs, allowed: pa.Array) -> dict[Place, int]:
    """Return how many files each configuration and split takes, as `_Files.add` cuts them."""
    filled: dict[Place, tuple[int, int]] = {}
    for batch in inputs.batches("render", "prompts", ("task", "level", "split", "ends")):
        rows = pa.Table.from_batches([batch])
        for place, part in _by_place(rows.filter(pc.is_in(rows["task"], value_set=allowed))):
            number, size = filled.get(place, (0, 0))
            for bytes_of_row in _sizes(part).tolist():
                number, size = (number + 1, 0) if size == 0 else (number, size)
                size += bytes_of_row
                size = 0 if size >= SHARD_BYTES else size
            filled[place] = number, size
    return {place: number for place, (number, _) in filled.items()}


def _by_place(rows: pa.Table) -> Iterator[tuple[Place, pa.Table]]:
    """Yield the rows of each configuration and split that has any."""
    level = pc.fill_null(rows["level"], UNLEVELLED)
    for configuration in CONFIGURATIONS:
        here = pc.equal(level, configuration)
        if not pc.any(here).as_py():
            continue
        for split in SPLITS:
            part = rows.filter(pc.and_(here, pc.equal(rows["split"], split)))
            if part.num_rows:
                yield (configuration, split), part


def _sizes(rows: pa.Table) -> I64:
    """Return the bytes of each text, at least 1: int64[n]."""
    ends = rows["ends"].combine_chunks()
    offsets, values = ends.offsets.to_numpy(), ends.values.to_numpy()
    last = np.zeros(len(rows), np.int64)
    some = offsets[1:] > offsets[:-1]
    last[some] = values[offsets[1:][some] - 1]
    return np.maximum(last, 1)


# ----------------------------------------------------------------------------------------------- rows


def _published(rows: pa.Table, tasks: pa.Table) -> pa.Table:
    """Return rows of prompts/prompts as they are published.

    Raises:
        DamagedError: a prompt is of no task.
    """
    task = pc.index_in(rows["task"], value_set=tasks["task"])
    if task.null_count:
        raise DamagedError("prompts/prompts has prompts of tasks that curate has not: make render again")
    inputs, outputs = _sides(rows)
    columns: dict[str, Any] = {name: rows[name] for name in (*_PASSED, *_ALSO_PASSED)}
    columns |= {name: tasks[name].take(task) for name in ("benchmark", "category", "license")}
    columns |= {"prompt": hex_column(rows["prompt"]), "kinds": _kinds(rows["kinds"].combine_chunks())}
    columns["format"] = pa.array([_plain_name(name) for name in rows["format"].to_pylist()], pa.string())
    columns |= {"input": pa.array(inputs, pa.string()), "output": pa.array(outputs, pa.string())}
    return pa.table({item.name: columns[item.name] for item in _SCHEMA}).cast(_SCHEMA)


def _plain_name(name: str) -> str:
    """Return the name of a chat format without the place of its file on this machine."""
    path = PurePath(name)
    return path.name if path.is_absolute() or ".." in path.parts else name


def _kinds(kinds: pa.ListArray) -> pa.ListArray:
    names = pa.array(SEGMENT_KINDS, pa.string()).take(kinds.values.cast(pa.int64()))
    return pa.ListArray.from_arrays(kinds.offsets, names)


def _sides(rows: pa.Table) -> tuple[list[str], list[str]]:
    """Return the input and the output of each row."""
    columns = rows.select(["text", "ends", "kinds", "trained"]).to_pydict()
    both = [input_and_output(dict(zip(columns, row))) for row in zip(*columns.values())]
    return [item[0] for item in both], [item[1] for item in both]


def input_and_output(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what stands before the first text that carries loss, and all text that does.

    The symbols {bos} and {eos}, which stand for tokens, are left out. Text without loss that follows the first with loss,
    such as a later turn of a user, is in neither.
    """
    data, start = row["text"].encode(), 0
    before, trained = [], []
    for end, kind, is_trained in zip(row["ends"], row["kinds"], row["trained"]):
        text = data[start:end]
        start = end
        if kind == _CONTROL and text in _SYMBOLS:
            continue
        if is_trained:
            trained.append(text)
        elif not trained:
            before.append(text)
    return b"".join(before).decode(), b"".join(trained).decode()
