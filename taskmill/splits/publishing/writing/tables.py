"""The tables of a published benchmark, made from the finished stages curate, overlap and split of a run.

Reads curate's tasks, templates, examples (ids and digests only) and dropped, overlap's plan, assignment, pairs, hits, evidence,
near_duplicates and frequent, and split's tasks, members and decisions. No text of the data is read or passed on.

    tables = published_tables(inputs, resolved)      # {"ids/held_out/test.parquet": ..., "tables/tasks.parquet": ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.errors import DamagedError
from taskmill.recipe import Resolved
from taskmill.records import CONFIGURATIONS, PUBLISHED, SPLITS
from taskmill.splits.deciding.decisions import Decision, Pair, Verdict, read_made, read_pairs
from taskmill.splits.publishing.published import IDS, TABLES, ids_path, rows_root, table_path
from taskmill.splits.publishing.writing.drops import drops_table
from taskmill.storage import FileEntry, RowsDigest

UNLEVELLED = CONFIGURATIONS[0]
"""Configuration of the tasks without a level."""
READS = (
    ("curate", "tasks"),
    ("curate", "templates"),
    ("curate", "examples"),
    ("curate", "dropped"),
    ("overlap", "plan"),
    ("overlap", "assignment"),
    ("overlap", "pairs"),
    ("overlap", "hits"),
    ("overlap", "evidence"),
    ("overlap", "near_duplicates"),
    ("overlap", "frequent"),
    ("split", "tasks"),
    ("split", "members"),
    ("split", "decisions"),
)
"""(stage, table) of everything that `published_tables` reads."""

_STATED = (
    *(
        "benchmark",
        "name",
        "category",
        "dataset",
        "family",
        "subtask",
        "kind",
        "style",
        "metric",
        "languages",
    ),
    *("license", "license_evidence", "homepage", "repository", "revision", "num_read", "num_kept"),
)
"""Columns of curate's tasks that are published as they are."""
_PLACES = ("example", "task", "upstream_split", "file", "record", "content", "normalised")
_HEX = np.frombuffer("".join(f"{number:02x}" for number in range(256)).encode(), np.uint16)
"""Byte -> its two hex digits."""
_HEX_ROWS = 1_000_000


def published_tables(inputs: Inputs, resolved: Resolved) -> dict[str, pa.Table]:
    """Return the tables below ids/ and tables/ by path, sorted; each as records.PUBLISHED describes it.

    Args:
        inputs: the stages curate, overlap and split of a run.
        resolved: the recipe that they were built from.

    Raises:
        UsageError: a stage is not finished.
        DamagedError: tables are damaged or do not belong together.
    """
    tasks = tasks_table(inputs)
    ids = ids_table(inputs, tasks)
    found = {
        "tasks": tasks,
        "templates": _sorted(
            inputs.table("curate", "templates", PUBLISHED["templates"].names), "task", "template"
        ),
        "pairs": pairs_table(inputs, resolved.recipe.split.threshold),
        "decisions": _sorted(inputs.table("split", "decisions"), "train_task", "eval_task"),
        "drops": drops_table(inputs, ids, tasks),
        "near_duplicates": _sorted(inputs.table("overlap", "near_duplicates"), "task", "example"),
        "frequent": _sorted(inputs.table("overlap", "frequent", PUBLISHED["frequent"].names), "gram"),
    }
    for files in (ids["file"], found["drops"]["file"]):
        assert not pc.any(pc.starts_with(files, "/")).as_py(), "a place of this machine"
    tables = {table_path(name): table.cast(PUBLISHED[name]) for name, table in found.items()}
    return {**tables, **_by_place(ids)}


def tables_root(tables: Mapping[str, pa.Table]) -> str:
    """Return the root digest that tables, by path, would have when they were published."""
    files = []
    for path, table in tables.items():
        rows = RowsDigest(table.schema)
        for batch in table.to_batches():
            rows.update(batch)
        files.append(FileEntry(path, table.num_rows, 0, "", rows.hexdigest()))
    return rows_root(files, IDS, TABLES)


def joined_ids(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Return the published `ids` of all examples, sorted by task and example, from tables by path."""
    parts = [table for path, table in tables.items() if path.startswith(f"{IDS}/")]
    return _sorted(pa.concat_tables([PUBLISHED["ids"].empty_table(), *parts]), "task", "example")


def tasks_table(inputs: Inputs) -> pa.Table:
    """Return the published `tasks`: what curate, the plan and split say of each task."""
    tasks = _sorted(inputs.table("curate", "tasks", ("task", *_STATED)), "task")
    plan = _sorted(inputs.table("overlap", "plan"), "task")
    split = _sorted(inputs.table("split", "tasks"), "task")
    if not (tasks["task"].equals(plan["task"]) and tasks["task"].equals(split["task"])):
        raise _apart("tasks")
    columns = {name: tasks[name] for name in ("task", *_STATED)}
    columns |= {f"planned_{name}": plan[name] for name in ("level", "role", "why")}
    columns |= {name: split[name] for name in split.column_names}
    return _table("tasks", columns)


def ids_table(inputs: Inputs, tasks: pa.Table) -> pa.Table:
    """Return the published `ids` of all examples, sorted by task and example.

    Raises:
        DamagedError: the tables of the stages do not hold the same examples.
    """
    members, assignment = inputs.table("split", "members"), inputs.table("overlap", "assignment")
    if not members["example"].equals(assignment["example"]):
        raise _apart("examples")
    examples = inputs.table("curate", "examples", _PLACES)
    rows = pc.index_in(members["example"], value_set=examples["example"])
    if rows.null_count or len(examples) != len(members):
        raise _apart("examples")
    examples = examples.take(rows)
    task = pc.index_in(members["task"], value_set=tasks["task"])
    if task.null_count or not examples["content"].equals(members["content"]):
        raise _apart("examples")
    columns = {name: members[name] for name in ("example", "task", "split", "reason", "rule", "group")}
    columns |= {name: members[name] for name in ("clean", "clean_rare")}
    columns |= {name: tasks[name].take(task) for name in ("benchmark", "category", "level", "license")}
    columns |= {"assigned": assignment["split"], "assigned_reason": assignment["reason"]}
    columns |= {name: examples[name] for name in ("upstream_split", "file", "record")}
    columns |= {name: hex_column(examples[name]) for name in ("content", "normalised")}
    return _table("ids", columns)


def pairs_table(inputs: Inputs, threshold: float) -> pa.Table:
    """Return the published `pairs`, each with its level and the state that split's decisions leave it in."""
    pairs = _sorted(inputs.table("overlap", "pairs"), "train_task", "eval_task")
    read = pairs_without_sizes(inputs, pairs)
    states = Verdict(decisions_of(inputs), [], frozenset()).states(read, threshold)
    columns = {name: pairs[name] for name in pairs.column_names}
    columns["level"] = pa.array([pair.level for pair in read], pa.string())
    columns["state"] = pa.array([states[pair.tasks] for pair in read], pa.string())
    columns["evidence"] = pa.array([pair.evidence for pair in read], pa.string())
    return _table("pairs", columns)


def pairs_without_sizes(inputs: Inputs, pairs: pa.Table | None = None) -> list[Pair]:
    """Return the overlapping pairs of a run in the order of the table `pairs`, without the sizes of train tasks."""
    plan = inputs.table("overlap", "plan", ["task", "level"])
    levels = dict(zip(plan["task"].to_pylist(), plan["level"].to_pylist()))
    table = inputs.table("overlap", "pairs") if pairs is None else pairs
    return read_pairs(table.to_pylist(), levels, {})


def decisions_of(inputs: Inputs) -> list[Decision]:
    """Return the decisions that the split of a run is made with."""
    return read_made(inputs.table("split", "decisions").to_pylist())


# ---------------------------------------------------------------------------------------------- parts


def hex_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of fixed-size bytes as lower-case hex text."""
    parts = [
        _hex(chunk.slice(start, _HEX_ROWS))
        for chunk in column.chunks
        for start in range(0, len(chunk), _HEX_ROWS)
    ]
    return pa.chunked_array(parts, pa.string())


def _hex(array: pa.FixedSizeBinaryArray) -> pa.StringArray:
    width, number = array.type.byte_width, len(array)
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + number) * width]
    offsets = np.arange(number + 1, dtype=np.int32) * np.int32(2 * width)
    return pa.StringArray.from_buffers(number, pa.py_buffer(offsets), pa.py_buffer(_HEX[raw].tobytes()))


def _by_place(ids: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each configuration and split that has any, by path."""
    level = pc.fill_null(ids["level"], UNLEVELLED)
    found = {}
    for configuration in CONFIGURATIONS:
        for split in SPLITS:
            here = pc.and_(pc.equal(level, configuration), pc.equal(ids["split"], split))
            part = ids.filter(here)
            if part.num_rows:
                found[ids_path(configuration, split)] = part
    return found


def _table(name: str, columns: dict[str, pa.ChunkedArray | pa.Array]) -> pa.Table:
    schema = PUBLISHED[name]
    return pa.table({field.name: columns[field.name] for field in schema}).cast(schema)


def _sorted(table: pa.Table, *columns: str) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in columns])


def _apart(what: str) -> DamagedError:
    return DamagedError(
        f"the tables of curate, overlap and split hold other {what}: they do not belong together; "
        f"`taskmill verify RUN` says which stage to make again"
    )


def count_places(tables: Iterable[tuple[str, int]]) -> dict[str, dict[str, int]]:
    """Return {configuration: {split: number of examples}} of (path, number of rows) below ids/."""
    found: dict[str, dict[str, int]] = {}
    for path, number in tables:
        _, configuration, name = path.split("/")
        found.setdefault(configuration, {})[name.removesuffix(".parquet")] = number
    return found
