"""The stage curate: every source's tasks, read, merged and categorised into one catalogue.

Reads the upstream files of `sources`, casts and taxonomy files; writes tasks.parquet, templates.parquet, dropped.parquet,
suspected_aliases.parquet and examples/<shard>.parquet in the directory `tasks`. Work is cut into shards of consecutive
tasks of one benchmark. Benchmarks in `curate.only_new` come second: they keep only tasks whose data set nobody else has, and
those of the benchmark that the recipe extends.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.artifact import Inputs, Manifest, ShardRecord, ShardWriter, StageWriter
from taskmill.curation import sketches
from taskmill.curation.batches import EXAMPLES, finish_tasks
from taskmill.curation.catalogue import Catalogue, read_catalogue
from taskmill.curation.licenses import refused
from taskmill.curation.merging import (
    Limits,
    MergedTask,
    TaskPlan,
    dataset_of,
    leave_task,
    license_of,
    merge_task,
    num_read,
)
from taskmill.curation.pinned import known_elsewhere, pinned_datasets, staying
from taskmill.curation.places.locating import absent
from taskmill.curation.reader import TaskData, load_reader
from taskmill.curation.taxonomy import missing_categories
from taskmill.engine import run_jobs
from taskmill.recipe import Licenses
from taskmill.records import SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import digest, read_table

log = logging.getLogger("taskmill")

REVISION = 4
SECTIONS = ("sources", "curate")
READS: tuple[tuple[str, str], ...] = ()

APART = (
    ("sources",),
    *(
        ("curate", key)
        for key in ("taxonomy", "casts", "only_new", "max_examples", "max_examples_by_benchmark")
    ),
)
"""Settings that reach a shard through its tasks, files, casts, rows and limits alone: see `_parts`."""
SHARD_BYTES = 16 << 20  # upstream bytes after which a shard is closed
WORKER_BYTES = 6 << 20  # upstream bytes that are read while another process starts
REPEATS = {"promptsource": 5}
"""Readers whose examples take several times the work of their upstream bytes: each holds the passage that it asks about."""
BATCH_TEXTS = 40_000  # texts whose words are hashed at once
PIECES = {
    **{name: SCHEMAS[f"tasks/{name}"] for name in ("tasks", "templates", "dropped")},
    "sketches": sketches.SCHEMA,
}
"""Small tables that each shard writes a piece of; the last step joins the pieces."""


@dataclass(frozen=True)
class Shard:
    """Consecutive tasks of one benchmark: what one process does at a time."""

    name: str
    plans: tuple[TaskPlan, ...]
    aliases: Mapping[str, str]
    known: Mapping[str, str]
    """Data set -> task, of the benchmarks before this one, where only new data sets are wanted."""
    limits: Limits
    licenses: Licenses
    directory: Path
    fingerprint: str = ""


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return digests of what is read beside earlier stages: files and casts by source, the taxonomy's rows.

    Raises:
        RecipeError, DataError, StorageError: see `read_catalogue`.
        UsageError: see `pinned_datasets`.
    """
    catalogue, pinned = read_catalogue(settings), pinned_datasets(settings)
    return {
        "sources": catalogue.by_source(),
        "taxonomy": digest([{plan.task: plan.row for plan in catalogue.plans}, catalogue.aliases]),
        **({"extends": digest(pinned)} if pinned else {}),
    }


def pending(settings: Settings) -> list[str]:
    """Return what a dry run would have to fetch before it can say anything: the repositories not in the cache.

    Raises:
        RecipeError, DataError: see `read_catalogue`.
    """
    return absent(settings)


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Read, merge and categorise every task of the recipe's sources.

    Raises:
        RecipeError: a source that is not there or has no task, a task named twice, a task without category.
        DataError: an upstream record that cannot be used while `curate.on_error` is `stop`.
    """
    catalogue = read_catalogue(settings)
    out.apart = APART
    log.info("curate: %d tasks in %d sources", len(catalogue.plans), len(catalogue.sources))
    records, pinned = list[ShardRecord](), pinned_datasets(settings)
    for wave, only_new in _waves(catalogue, settings.curate.only_new):
        known = known_elsewhere(wave, pinned) | _known(records) if only_new else {}
        wave = staying(wave, pinned) if only_new else wave
        records += _run(_shards(wave, catalogue, known, settings, out), settings.workers, out, catalogue)
    uncategorised = [task for record in records for task in record.info["uncategorised"]]
    if uncategorised:
        raise missing_categories(uncategorised, catalogue.taxonomy_keys)
    _assemble(records, out)
    return out.finish(upstream=_upstream(records, catalogue))


def _upstream(records: Sequence[ShardRecord], catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return what the manifest says of the upstream files: also how many records of each were read, for any task."""
    counts = {task: files for record in records for task, files in record.info["files"].items()}
    entries = catalogue.upstream()
    for source, entry in zip(catalogue.sources, entries, strict=True):
        read: Counter[str] = Counter()
        for task in source.entries:
            read.update(counts[f"{source.benchmark}/{task.name}"])
        for file in entry["files"]:
            file["records"] = read[file["name"]]
    return entries


def _waves(catalogue: Catalogue, only_new: Sequence[str]) -> list[tuple[list[TaskPlan], bool]]:
    """Return the tasks of all other benchmarks, then those of each benchmark that keeps only what is new."""
    waves = [([plan for plan in catalogue.plans if plan.benchmark not in only_new], False)]
    waves += [([plan for plan in catalogue.plans if plan.benchmark == name], True) for name in only_new]
    return [(plans, new) for plans, new in waves if plans]


def _known(records: Sequence[ShardRecord]) -> dict[str, str]:
    """Return the first task by id of each data set that is kept so far."""
    known: dict[str, str] = {}
    for record in records:
        for task, dataset in record.info["datasets"].items():
            known[dataset] = min(task, known.get(dataset, task))
    return dict(sorted(known.items()))


def _shards(
    plans: Sequence[TaskPlan],
    catalogue: Catalogue,
    known: Mapping[str, str],
    settings: Settings,
    out: StageWriter,
) -> list[Shard]:
    """Cut tasks into shards, by benchmark and size alone."""
    curate = settings.curate
    shards = []
    for benchmark in sorted({plan.benchmark for plan in plans}):
        most = curate.max_examples_by_benchmark.get(benchmark, curate.max_examples)
        limits = Limits(settings.seed, most, settings.limit)
        mine = [plan for plan in plans if plan.benchmark == benchmark]
        for number, part in enumerate(_cut(mine)):
            name = f"{benchmark}-{number:03d}"
            shards.append(
                Shard(name, tuple(part), catalogue.aliases, known, limits, curate.licenses, out.directory)
            )
    return shards


def _cut(plans: Sequence[TaskPlan]) -> list[list[TaskPlan]]:
    parts: list[list[TaskPlan]] = []
    size = SHARD_BYTES
    for plan in plans:
        if size >= SHARD_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(plan)
        size += plan.entry.num_bytes
    return parts


def _parts(shard: Shard, catalogue: Catalogue) -> dict[str, Any]:
    """Return exactly what a shard reads."""
    tasks = [catalogue.parts_of(plan) for plan in shard.plans]
    parts = {"tasks": tasks, "aliases": digest(shard.aliases), "known": digest(shard.known)}
    return {**parts, "max_examples": shard.limits.max_examples}


def _run(shards: Sequence[Shard], workers: int, out: StageWriter, catalogue: Catalogue) -> list[ShardRecord]:
    """Do the shards that are not finished; return all records, in order."""
    done: dict[str, ShardRecord] = {}
    waiting = []
    for shard in shards:
        parts = _parts(shard, catalogue)
        record = out.finished(shard.name, parts)
        if record is not None:
            done[shard.name] = record
        else:
            waiting.append(replace(shard, fingerprint=out.shard_fingerprint(parts)))
    waiting.sort(key=_work, reverse=True)  # so that the workers end at about the same time
    useful = 1 + sum(map(_num_bytes, waiting)) // WORKER_BYTES
    for record in run_jobs(write_shard, waiting, min(workers, useful)):
        out.add(record)
        done[record.shard] = record
        counts = record.counts
        log.info(
            "curate: %s: %d tasks, %d of %d examples kept",
            record.shard,
            counts.get("tasks", 0),
            counts.get("examples_kept", 0),
            counts.get("examples_read", 0),
        )
        _warn(record)
    return [done[shard.name] for shard in shards]


def _warn(record: ShardRecord) -> None:
    """Say which tasks of a shard are left out whole."""
    reasons = {
        "tasks_unread": "all of their records are damaged, or left out by a rule of their format",
        "tasks_refused": "curate.licenses does not accept their licences (`taskmill licenses` lists them)",
    }
    for name, reason in reasons.items():
        if record.counts.get(name):
            log.warning(
                "curate: %s: %d tasks left out, %s; dropped.parquet has them",
                record.shard,
                record.counts[name],
                reason,
            )


def _num_bytes(shard: Shard) -> int:
    return sum(plan.entry.num_bytes for plan in shard.plans)


def _work(shard: Shard) -> int:
    """Return about how long a shard takes, in the time that a byte of most of them does."""
    return sum(plan.entry.num_bytes * REPEATS.get(plan.reader, 1) for plan in shard.plans)


# ------------------------------------------------------------------------------------------- one shard


def write_shard(shard: Shard) -> ShardRecord:
    """Read and merge the tasks of a shard and write its tables.

    Raises:
        DataError: see `merge_task`, and what the reader raises.
    """
    collects = gc.isenabled()
    gc.disable()  # records are lists and objects by the million and hold no cycles to look for
    try:
        return _write_shard(shard)
    finally:
        if collects:
            gc.enable()


def _write_shard(shard: Shard) -> ShardRecord:
    info: dict[str, Any] = {"datasets": {}, "uncategorised": [], "files": {}}
    pieces: dict[str, list[dict[str, Any]]] = {piece: [] for piece in PIECES}
    with ShardWriter(shard.directory, shard.name, shard.fingerprint, info=info) as writer:
        with writer.table(f"examples/{shard.name}.parquet", EXAMPLES) as examples:
            batch: list[MergedTask] = []
            num_texts = num_rows = 0
            for plan in shard.plans:
                merged = _add_task(plan, shard, pieces, writer, num_rows)
                if merged is not None:
                    batch.append(merged)
                    num_rows += len(merged.keys)
                    num_texts += len(merged.texts.leaves)
                if batch and (num_texts >= BATCH_TEXTS or plan is shard.plans[-1]):
                    finished = finish_tasks(batch)
                    examples.write(finished.examples)
                    pieces["sketches"] += finished.sketches
                    batch, num_texts = [], 0
        for piece, rows in pieces.items():
            writer.write_table(_piece(shard.name, piece), PIECES[piece], rows)
    assert writer.record is not None
    return writer.record


def _piece(shard: str, table: str) -> str:
    return f"shards/{shard}.{table}.parquet"


def _add_task(
    plan: TaskPlan,
    shard: Shard,
    pieces: Mapping[str, list[dict[str, Any]]],
    writer: ShardWriter,
    first_row: int,
) -> MergedTask | None:
    """Add a task's rows to the pieces; return it, unless nothing of it is kept."""
    reader = load_reader(plan.reader)
    data = reader.read(plan.entry, plan.source)
    dataset = dataset_of(plan, data, shard.aliases)
    read = num_read(data)
    dropped, merged = _left(plan, data, dataset, shard, writer), None
    if dropped is None:
        defaults = {"style": reader.STYLE, "kind": reader.KIND}
        merged = merge_task(plan, data, defaults, shard.aliases, shard.limits)
        dropped = merged.dropped
        merged.row.update(shard=shard.name, first_row=first_row)
        pieces["tasks"].append(merged.row)
        pieces["templates"].extend(merged.templates)
        writer.info["datasets"][plan.task] = dataset
        if not merged.row["category"]:
            writer.info["uncategorised"].append(plan.task)
        writer.count("tasks")
        writer.count("templates", len(merged.templates))
    kept = len(merged.keys) if merged is not None else 0
    assert kept + len(dropped) == read, f"{plan.task}: kept + dropped is not read"
    pieces["dropped"].extend(dropped)
    for row in dropped:
        writer.drop(row["reason"])
    writer.count("examples_read", read)
    writer.count("examples_kept", kept)
    writer.info["files"][plan.task] = dict(
        Counter([*data.columns.file, *(aside.file for aside in data.aside)])
    )
    return merged


def _left(
    plan: TaskPlan, data: TaskData, dataset: str, shard: Shard, writer: ShardWriter
) -> list[dict[str, Any]] | None:
    """Return the dropped rows of a task of which nothing is kept, or None.

    That is one whose data set another benchmark has, of which nothing could be read, or whose licence is refused.
    """
    twin = None if plan.stays else shard.known.get(dataset)
    if twin is not None:
        detail = f"the data set {dataset!r} is already in another benchmark"
        writer.count("tasks_left")
        return leave_task(plan, data, "dataset_elsewhere", detail, twin)
    if data.aside and not len(data.columns):
        writer.count("tasks_unread")
        return leave_task(plan, data, "unread", "nothing could be read")
    license, _ = license_of(plan, data)
    reason = refused(license, shard.licenses.allow, shard.licenses.deny)
    if reason is not None:
        writer.count("tasks_refused")
        return leave_task(plan, data, "license", f"curate.licenses: {reason}")
    return None


# ----------------------------------------------------------------------------------------- the last step


def _assemble(records: Sequence[ShardRecord], out: StageWriter) -> None:
    """Join the pieces of all shards into tasks.parquet, templates.parquet and dropped.parquet."""
    read = sum(record.counts.get("examples_read", 0) for record in records)
    kept = sum(record.counts.get("examples_kept", 0) for record in records)
    lost = sum(sum(record.dropped.values()) for record in records)
    assert kept + lost == read, f"{kept} examples kept + {lost} dropped is not {read} read"
    in_order = sorted(records, key=lambda record: record.shard)
    rows = [
        [file.path, file.rows]
        for record in in_order
        for file in record.files
        if file.path.startswith("shards/")
    ]
    if out.finished("assembled", rows) is not None:
        return
    with out.shard("assembled", rows) as shard:
        for piece, schema in PIECES.items():
            tables = [read_table(out.directory / _piece(record.shard, piece)) for record in in_order]
            table = pa.concat_tables(tables)
            if piece != "dropped":
                key = [("task", "ascending"), ("template", "ascending")]
                table = table.sort_by(key if piece == "templates" else key[:1])
            if piece == "sketches":
                _write_aliases(table, shard)
            else:
                shard.write_table(f"{piece}.parquet", schema, table)
    out.add(shard.record)
    log.info("curate: %d examples read, %d kept, %d dropped", read, kept, lost)


def _write_aliases(table: pa.Table, shard: ShardWriter) -> None:
    """Compare the sketches of all tasks; write and report those that may be the same data set under two names."""
    values = table["hashes"].combine_chunks()
    bounds, hashes = values.offsets.to_numpy(), values.values.to_numpy()
    rows = sketches.suspected_aliases(
        table["task"].to_pylist(),
        table["dataset"].to_pylist(),
        [hashes[start:end] for start, end in pairwise(bounds)],
    )
    shard.write_table("suspected_aliases.parquet", SCHEMAS["tasks/suspected_aliases"], rows)
    if rows:
        log.warning(
            "curate: %d pairs of tasks look like one data set under two names, such as %s and %s; "
            "suspected_aliases.parquet lists them, `aliases: {name: [other names]}` in a taxonomy file joins them",
            len(rows),
            rows[0]["task_a"],
            rows[0]["task_b"],
        )
