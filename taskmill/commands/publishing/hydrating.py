"""The option `--hydrate` of `rebuild`: the rows of a published benchmark with their texts, a data set for one's own machine.

Reads the published ids and, of the run that has the same rows, curate's tasks and examples and split's tasks and members, all in
one pass. Writes `examples/<configuration>/<split>.parquet`, README.md, and export.json, last.

    hydrate(open_published(Path("v1")), Path("runs/again"), Path("v1-texts"))
    datasets.load_dataset("v1-texts", "held_out")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from taskmill.artifact import Inputs
from taskmill.commands.export_folder import claim, finish
from taskmill.commands.figures import count
from taskmill.commands.finished import FinishedRun
from taskmill.errors import DamagedError
from taskmill.records import PUBLISHED, SCHEMAS
from taskmill.splits.publishing.describing.card_front import configurations
from taskmill.splits.publishing.describing.markdown import plain, table
from taskmill.splits.publishing.published import IDS, Published
from taskmill.splits.publishing.writing.prompts_table import GROUP_BYTES
from taskmill.splits.publishing.writing.tables import UNLEVELLED, hex_column
from taskmill.storage import ROW_GROUP, FileEntry, TableWriter, iter_batches, remove, write_bytes

KIND = b"hydrated\n"
EXAMPLES = "examples"
TEXTS = ("fields", "references", "options")
"""Columns that the rows have beside those of `ids`."""
SCHEMA = pa.schema([*PUBLISHED[IDS], *(SCHEMAS["tasks/examples"].field(name) for name in TEXTS)])
_BATCH = 1_000
_CARD = "README.md"


def hydrate(published: Published, run: Path, folder: Path) -> dict[str, Any]:
    """Write the published rows with their texts into a folder and return the content of its export.json.

    Args:
        published: the benchmark.
        run: with the same rows, as `rebuild` makes it.
        folder: new, empty or written by this function.

    Raises:
        UsageError: the folder holds files that are none of ours.
        DamagedError: a table is damaged, or the run holds other rows than were published.
        StorageError: the disk refuses.
    """
    found = FinishedRun(run)
    earlier = claim(folder, run, KIND, _written)
    for path in (path for path in earlier if path.endswith(".tmp")):  # of a process that was killed
        remove(folder / path)
    entries = _write_examples(published, found.inputs, folder)
    offered = configurations({"files": [vars(entry) for entry in entries]}, EXAMPLES)
    entries.append(write_bytes(folder / _CARD, _card(published, offered).encode()))
    for path in sorted(earlier - {entry.path for entry in entries}):
        remove(folder / path)
    number = sum(entry.num_rows for entry in entries)
    body: dict[str, Any] = {"of": {"name": published.body["name"], "root": published.root}}
    body["counts"] = {"examples": number}
    body["configurations"] = list(offered)
    return finish(folder, found, ("curate", "overlap", "split"), entries, body)


def _written(folder: Path) -> list[str]:
    """Return what an earlier call may have written into a folder."""
    below = (folder / EXAMPLES).rglob("*")
    return [_CARD, *(path.relative_to(folder).as_posix() for path in below)]


# ----------------------------------------------------------------------------------------------- rows


class _Stream:
    """Rows of a table, read as they are asked for."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: pa.RecordBatch | None = None

    def take(self, number: int) -> pa.Table:
        """Return the next rows, `number` >= 1 of them.

        Raises:
            DamagedError: there are not so many.
        """
        parts = []
        while number:
            if not self._left:
                self._left = next(self._batches, None)
                if self._left is None:
                    raise _other_rows()
            parts.append(self._left.slice(0, number))
            self._left = self._left.slice(len(parts[-1]))
            number -= len(parts[-1])
        return pa.Table.from_batches(parts)

    def ended(self) -> bool:
        """Return whether every row was taken."""
        return not self._left and not any(map(len, self._batches))


@dataclass
class _File:
    """The rows of a configuration and split: ids that are read, and rows with texts that are written, a row group at a time."""

    ids: _Stream
    writer: TableWriter
    pending: list[pa.Table] = field(default_factory=list)

    def add(self, texts: pa.Table) -> None:
        """Add the next rows, of which `texts` has example, content and the texts."""
        ids = self.ids.take(len(texts))
        if not (
            ids["example"].equals(texts["example"]) and ids["content"].equals(hex_column(texts["content"]))
        ):
            raise _other_rows()
        for name in TEXTS:
            ids = ids.append_column(SCHEMA.field(name), texts[name])
        self.pending.append(ids.select(SCHEMA.names).cast(SCHEMA))
        if (
            sum(part.nbytes for part in self.pending) >= GROUP_BYTES
            or sum(map(len, self.pending)) >= ROW_GROUP
        ):
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self.pending:
            self.writer.write(pa.concat_tables(self.pending).combine_chunks())
            self.pending.clear()


def _write_examples(published: Published, inputs: Inputs, folder: Path) -> list[FileEntry]:
    """Write a file for each file of ids and return their entries."""
    places = [entry.path for entry in published.files if entry.path.startswith(f"{IDS}/")]
    with ExitStack() as stack:
        files = {}
        for path in places:
            name = EXAMPLES + path.removeprefix(IDS)
            writer = stack.enter_context(TableWriter(folder / name, SCHEMA, name))
            files[path] = _File(_Stream(iter_batches(published.place(path))), writer)
        for path, rows in _rows_by_path(inputs):
            if path not in files:
                raise _other_rows()
            files[path].add(rows)
        if not all(file.ids.ended() for file in files.values()):
            raise _other_rows()
        for file in files.values():
            file.flush()
    return [file.writer.entry for file in files.values() if file.writer.entry is not None]


def _rows_by_path(inputs: Inputs) -> Iterator[tuple[str, pa.Table]]:
    """Yield (path of the ids, rows) in the order of the rows, sorted by task and example."""
    tasks = inputs.table("split", "tasks", ("task", "level"))
    members = _Stream(inputs.batches("split", "members", ("example", "task", "split")))
    for rows in _examples(inputs):
        stand = members.take(len(rows))
        if not stand["example"].equals(rows["example"]):
            raise _other_rows()
        level = tasks["level"].take(pc.index_in(stand["task"], value_set=tasks["task"]))
        place = pc.binary_join_element_wise(pc.fill_null(level, UNLEVELLED), stand["split"], "/")
        for name in place.unique().to_pylist():
            yield f"{IDS}/{name}.parquet", rows.filter(pc.equal(place, name))


def _examples(inputs: Inputs) -> Iterator[pa.Table]:
    """Yield the examples of all tasks, sorted by task and example, a few at a time."""
    columns = ("example", "content", *TEXTS)
    files = {path.stem: path for path in inputs.files("curate", "examples")}
    for shard, start, stop in _spans(inputs):
        first = 0
        for batch in iter_batches(files[shard], columns, _BATCH):
            low, high = (min(max(row - first, 0), len(batch)) for row in (start, stop))
            first += len(batch)
            if low < high:
                yield pa.Table.from_batches([batch.slice(low, high - low)])


def _spans(inputs: Inputs) -> list[tuple[str, int, int]]:
    """Return (shard, first row, row behind the last) of tasks in their order; neighbours of a shard are one."""
    tasks = inputs.table("curate", "tasks", ("task", "shard", "first_row", "num_kept")).sort_by("task")
    found: list[tuple[str, int, int]] = []
    for row in tasks.to_pylist():
        shard, start, stop = row["shard"], row["first_row"], row["first_row"] + row["num_kept"]
        if found and found[-1][0] == shard and found[-1][2] == start:
            found[-1] = (shard, found[-1][1], stop)
        else:
            found.append((shard, start, stop))
    return found


def _other_rows() -> DamagedError:
    return DamagedError(
        "the run does not hold the rows that were published; `taskmill verify` of both says which is damaged"
    )


# ----------------------------------------------------------------------------------------------- card

_WORDS = """\
---
{front}---

# {name}, with its texts

**Not for publishing.** This folder holds the text of every example, whatever its licence. Keep it where you may use all of them;
`taskmill publish RUN OWNER/NAME --with-data` publishes what may be passed on.

These are the rows of the published benchmark with root digest `{root}`, at the same
places and in the same order. Each has three columns more:

| column | what it is |
| --- | --- |
| `fields` | what the example consists of: a JSON object as text, `json.loads` reads it |
| `references` | right answers; may be empty where a field holds the answer |
| `options` | the answers to choose from; null where there are none |

```python
from datasets import load_dataset

rows = load_dataset("DIR", "{configuration}")
```

The configurations leave out what is excluded; it lies in `examples/*/excluded.parquet`.

{licenses}

Made by `taskmill rebuild --hydrate`.
"""


def _card(published: Published, offered: Mapping[str, Mapping[str, list[str]]]) -> str:
    """Return README.md: where the rows are, whose they are, and what they are not for."""
    body = published.body
    configs = [
        {"config_name": name, "data_files": [{"split": s, "path": paths} for s, paths in splits.items()]}
        for name, splits in offered.items()
    ]
    rows = [
        (plain(row["license"]), count(row["num_tasks"]), count(row["num_examples"]))
        for row in body["licenses"]
    ]
    return _WORDS.format(
        front=yaml.safe_dump({"configs": configs}, sort_keys=False, width=1_000_000),
        name=plain(body["name"]),
        root=published.root,
        configuration=next(iter(offered), UNLEVELLED),
        licenses=table(("licence", "tasks", "examples"), rows),
    )
