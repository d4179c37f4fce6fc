"""The stage `render`: examples, where they stand, and templates become prompts.

Reads tasks/{tasks,templates,examples}, splits/{tasks,members}, overlaps/near_duplicates and the template library;
writes prompts/<shard>.parquet (by task, split, condition, prompt), one file for each shard of the examples, and
dropped.parquet, joined from a piece that each shard writes. Considered pairs = prompts + dropped.
"""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill import seeding
from taskmill.artifact import Inputs, Manifest, ShardRecord, ShardWriter, StageWriter
from taskmill.engine import run_jobs
from taskmill.errors import DataError
from taskmill.recipe import Render
from taskmill.records import SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import ROW_GROUP, RowsDigest, TableWriter, digest, iter_batches, read_table
from taskmill.templates.chat.formats import load_format
from taskmill.templates.composing.schemas import Drop
from taskmill.templates.drawing.examples import EXAMPLE_COLUMNS, MAX_BATCH, RowRange, RowReader
from taskmill.templates.drawing.index import splits_of
from taskmill.templates.drawing.order import U64
from taskmill.templates.drawing.prompts import TaskCounts, TaskRenderer, TaskSource
from taskmill.templates.drawing.sorting import Place, Row, to_batch
from taskmill.templates.drawing.writing import Setup
from taskmill.templates.rendering.library import library_digest, load_templates, templates_digest, unused
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import task_variants
from taskmill.watching import Watch, activity

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("render",)
READS = (
    ("curate", "tasks"),
    ("curate", "templates"),
    ("curate", "examples"),
    ("overlap", "near_duplicates"),
    ("split", "tasks"),
    ("split", "members"),
)
_JOINED = "_dropped"
"""Name of the last shard, which joins the pieces."""
_TASK_COLUMNS = (
    "task",
    "name",
    "style",
    "definition",
    "output_fields",
    "metadata",
    "shard",
    "first_row",
    "num_kept",
)
_TEMPLATE_COLUMNS = ("template", "task", "body", "choices", "keeps_task", "why")
_MEMBER_SCHEMA = pa.schema([("example", pa.string()), ("task", pa.string()), ("split", pa.string())])


_DROP_COLUMNS = ("task", "example", "template", "reason", "detail")
_PIECE = 2000
"""Rows that become columns together."""
_HELD_BYTES = 8_000_000
"""Rows of about this many bytes are written together, if they are not `ROW_GROUP` rows before."""


class Clusters:
    """Near-duplicate clusters by example, 16 bytes each."""

    def __init__(self, names: Sequence[str], clusters: Sequence[int]) -> None:
        """Take the examples that have one, and theirs."""
        keys, first = np.unique(seeding.ranks(0, "render/clusters", names), return_index=True)
        self._keys: U64 = keys
        self._clusters: U64 = np.array(clusters, np.uint64)[first]

    def __call__(self, name: str) -> int | None:
        """Return the cluster of an example, or None."""
        if not len(self._keys):
            return None
        key = seeding.ranks(0, "render/clusters", [name])[0]
        place = int(np.searchsorted(self._keys, key))
        found = place < len(self._keys) and self._keys[place] == key
        return int(self._clusters[place]) if found else None

    def digest(self) -> str:
        """Return a digest (hex) of all of them."""
        return digest([self._keys.tobytes().hex(), self._clusters.tobytes().hex()])


@dataclass
class ShardPlan:
    """What one shard reads."""

    name: str
    examples: Path
    rows: str
    """Digest of the rows of `examples`."""
    tasks: list[dict[str, Any]]
    templates: list[dict[str, Any]]
    levels: dict[str, str | None]
    members: dict[str, list[RowRange]]
    """Task -> its rows of splits/members."""
    members_rows: str
    clusters: Clusters

    def parts(self, external: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the shard's fingerprint covers beside the settings."""
        return {
            "examples": self.rows,
            "tasks": self.tasks,
            "templates": self.templates,
            "levels": self.levels,
            "members": self.members_rows,
            "clusters": self.clusters.digest(),
            **external,
        }


@dataclass(frozen=True)
class RenderJob:
    """One shard for a worker."""

    plan: ShardPlan
    directory: Path
    fingerprint: str
    settings: Render
    seed: int
    base: Path
    """Folder of the recipe."""
    max_batch: int


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the digests of the template library, of the recipe's own templates and of the chat format's files."""
    base = settings.path(".")
    return {
        "library": library_digest(),
        "templates": templates_digest(settings.render.templates, base),
        "format": load_format(settings.render.format, base).digest,
    }


def build(settings: Settings, inputs: Inputs, out: StageWriter, max_batch: int = MAX_BATCH) -> Manifest:
    """Render the prompts of every task; `max_batch` examples at a time, which changes no row.

    Raises:
        DataError: a task that cannot be rendered, or one with test examples and no test prompt.
    """
    beside, base = external(settings, inputs), settings.path(".")
    plans = plan_shards(inputs)
    styles = {task["task"]: task["style"] for plan in plans for task in plan.tasks}
    for name in unused(load_templates(settings.render.templates, base), styles):
        log.warning("render: the template %s serves no task: none has its style and fits its `tasks`", name)
    records: list[ShardRecord] = []
    jobs = []
    for plan in plans:
        parts = plan.parts(beside)
        record = out.finished(plan.name, parts)
        if record is not None:
            records.append(record)
        else:
            fingerprint = out.shard_fingerprint(parts)
            jobs.append(
                RenderJob(plan, out.directory, fingerprint, settings.render, settings.seed, base, max_batch)
            )
    if len(jobs) < len(plans):
        log.info("render: %d of %d shards are up to date", len(plans) - len(jobs), len(plans))
    for number, record in enumerate(run_jobs(render_shard, jobs, settings.workers, _watch(jobs)), start=1):
        out.add(record)
        records.append(record)
        log.info("render: shard %d of %d, %d prompts", number, len(jobs), record.counts.get("prompts", 0))
        for task in record.info["without_train_prompts"]:
            log.warning("render: the task %s is left with no train prompt", task)
    _join_dropped(records, out)
    manifest = out.finish()
    log.info(
        "render: %d prompts, %d dropped", manifest.counts.get("prompts", 0), sum(manifest.dropped.values())
    )
    return manifest


def _piece(shard: str) -> str:
    return f"shards/{shard}.dropped.parquet"


def _join_dropped(records: Sequence[ShardRecord], out: StageWriter) -> None:
    """Write dropped.parquet from the pieces of all shards, in name order."""
    names = sorted(record.shard for record in records)
    parts = [[f.rows for f in record.files] for record in sorted(records, key=lambda r: r.shard)]
    if out.finished(_JOINED, parts):
        return
    with (
        out.shard(_JOINED, parts) as shard,
        shard.table("dropped.parquet", SCHEMAS["prompts/dropped"]) as whole,
    ):
        for name in names:
            whole.write(read_table(out.directory / _piece(name)))
    out.add(shard.record)


# ------------------------------------------------------------------------------------------ planning


def plan_shards(inputs: Inputs) -> list[ShardPlan]:
    """Return what each shard of the examples needs, in name order."""
    tasks = inputs.table("curate", "tasks", _TASK_COLUMNS).sort_by("task").to_pylist()
    shard_of = {task["task"]: task["shard"] for task in tasks}
    levels = _levels(inputs)
    ranges, digests = _members(inputs, shard_of)
    clusters = _clusters(inputs, shard_of)
    templates: dict[str, list[dict[str, Any]]] = {}
    for row in inputs.table("curate", "templates", _TEMPLATE_COLUMNS).to_pylist():
        if row["task"] in shard_of:
            templates.setdefault(shard_of[row["task"]], []).append(row)
    by_shard: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        by_shard.setdefault(task["shard"], []).append(task)
    plans = []
    entries = inputs.manifest("curate").table_files("examples")
    for path, entry in zip(inputs.files("curate", "examples"), entries, strict=True):
        own = by_shard.get(path.stem, [])
        plans.append(
            ShardPlan(
                path.stem,
                path,
                entry.rows,
                [{k: v for k, v in task.items() if k != "shard"} for task in own],
                templates.get(path.stem, []),
                {task["task"]: levels.get(task["task"]) for task in own},
                {task["task"]: ranges.get(task["task"], []) for task in own},
                digests.get(path.stem, ""),
                clusters.get(path.stem, Clusters((), ())),
            )
        )
    return plans


def _levels(inputs: Inputs) -> dict[str, str | None]:
    table = inputs.table("split", "tasks", ("task", "level"))
    return dict(zip(table["task"].to_pylist(), table["level"].to_pylist(), strict=True))


def _members(inputs: Inputs, shard_of: Mapping[str, str]) -> tuple[dict[str, list[RowRange]], dict[str, str]]:
    """Return for each task where its rows of splits/members lie, and for each shard the digest of its rows."""
    ranges: dict[str, list[RowRange]] = {}
    digests: dict[str, RowsDigest] = {}
    for path in inputs.files("split", "members"):
        row = 0
        for batch in iter_batches(path, _MEMBER_SCHEMA.names):
            tasks = list(_runs(batch.column("task")))
            for task, start, stop in tasks:
                own = ranges.setdefault(task, [])
                if own and own[-1].path == path and own[-1].stop == row + start:
                    own[-1] = RowRange(path, own[-1].start, row + stop)
                else:
                    own.append(RowRange(path, row + start, row + stop))
            for shard, run in itertools.groupby(tasks, key=lambda found: shard_of[found[0]]):
                spans = list(run)
                start, stop = spans[0][1], spans[-1][2]
                rows = digests.setdefault(shard, RowsDigest(_MEMBER_SCHEMA))
                rows.update(batch.slice(start, stop - start))
            row += batch.num_rows
    return ranges, {shard: rows.hexdigest() for shard, rows in digests.items()}


def _runs(column: pa.Array) -> Iterator[tuple[str, int, int]]:
    """Yield (value, start, stop) of each run of equal values."""
    encoded = column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield encoded.dictionary[int(codes[start])].as_py(), start, stop


def _clusters(inputs: Inputs, shard_of: Mapping[str, str]) -> dict[str, Clusters]:
    """Return for each shard the near-duplicate cluster of its examples (an example's id begins with its task)."""
    found: dict[str, tuple[list[str], list[int]]] = {}
    columns = ("example", "task", "survivor", "survivor_task", "cluster")
    for batch in inputs.batches("overlap", "near_duplicates", columns):
        clusters = batch.column("cluster").to_numpy()
        for column, task in (("example", "task"), ("survivor", "survivor_task")):
            encoded = batch.column(column).dictionary_encode()
            _, rows = np.unique(
                encoded.indices.to_numpy(), return_index=True
            )  # a survivor stands in many rows
            tasks = batch.column(task).take(pa.array(rows)).dictionary_encode()
            shards = np.array([shard_of.get(name, "") for name in tasks.dictionary.to_pylist()], dtype=object)
            of_row = shards[tasks.indices.to_numpy()]
            for shard in dict.fromkeys(shards.tolist()):
                if not shard:
                    continue
                own = rows[of_row == shard]
                names, known = found.setdefault(shard, ([], []))
                names += batch.column(column).take(pa.array(own)).to_pylist()
                known += clusters[own].tolist()
    return {shard: Clusters(names, own) for shard, (names, own) in found.items()}


# ------------------------------------------------------------------------------------------- a shard


def _watch(jobs: Sequence[RenderJob]) -> Watch | None:
    """Return the limits of workers, where a job renders templates that are not our own."""
    for job in jobs:
        if job.plan.templates or job.settings.templates or job.settings.format.endswith(".jinja"):
            advice = (
                "Take the template out of its source or the task out of the plan (plan.exclude), "
                "or raise render.time_limit_seconds or render.memory_limit_mb"
            )
            return Watch(job.settings.time_limit_seconds, job.settings.memory_limit_mb, advice)
    return None


def render_shard(job: RenderJob) -> ShardRecord:
    """Render the tasks of one shard, in a worker process.

    Raises:
        DataError: see build.
        DamagedError: a file of an earlier stage.
    """
    plan = job.plan
    renderer = Renderer(job.seed, job.settings.max_characters)
    setup = Setup(job.settings, job.seed, load_format(job.settings.format, job.base))
    own = load_templates(job.settings.templates, job.base)
    templates: dict[str, list[dict[str, Any]]] = {}
    for template in plan.templates:
        templates.setdefault(template["task"], []).append(template)
    with ShardWriter(job.directory, plan.name, job.fingerprint) as shard, ExitStack() as stack:
        stack.enter_context(_rare_collections())
        shard.info["without_train_prompts"] = []
        out = _ShardOutput(
            stack.enter_context(shard.table(f"prompts/{plan.name}.parquet", SCHEMAS["prompts/prompts"])),
            stack.enter_context(shard.table(_piece(plan.name), SCHEMAS["prompts/dropped"])),
        )
        reader = stack.enter_context(RowReader(plan.examples, EXAMPLE_COLUMNS, job.max_batch))
        paths = dict.fromkeys(found.path for ranges in plan.members.values() for found in ranges)
        members = {path: stack.enter_context(RowReader(path, ("example", "split"))) for path in paths}
        folder = job.directory / f".{plan.name}.sorting.tmp"
        for task in plan.tasks:
            source = _task_source(plan, task, members)
            found = task_variants(task, templates.get(task["task"], []), renderer, own, job.settings.encoding)
            made = TaskRenderer(source, reader, found, setup, folder, out).run()
            activity.rest()
            _check(task["task"], made, setup)
            if made.members.get("train") and not made.counts["prompts_train"]:
                shard.info["without_train_prompts"].append(task["task"])
            _count(shard, made)
        out.flush()
    assert shard.record is not None
    return shard.record


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for cycles rarely: a shard makes millions of tuples, and next to no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _task_source(plan: ShardPlan, task: Mapping[str, Any], members: Mapping[Path, RowReader]) -> TaskSource:
    name: str = task["task"]
    rows = (task["first_row"], task["first_row"] + task["num_kept"])
    return TaskSource(task, plan.levels[name], rows, splits_of(plan.members[name], members), plan.clusters)


class _ShardOutput:
    """Gathers the rows of many tasks into large pieces."""

    def __init__(self, prompts: TableWriter, dropped: TableWriter) -> None:
        self._prompts, self._dropped = prompts, dropped
        self._rows: list[tuple[Place, Sequence[Row]]] = []
        self._num_rows = 0
        self._drops: list[tuple[str | None, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0

    def prompts(self, place: Place, rows: Sequence[Row] | pa.RecordBatch) -> None:
        """Take rows of a task and split, in order."""
        if isinstance(rows, pa.RecordBatch):
            self._convert()
            self._add(rows)
            return
        for start in range(0, len(rows), _PIECE):
            piece = rows[start : start + _PIECE] if len(rows) > _PIECE else rows
            self._rows.append((place, piece))
            self._num_rows += len(piece)
            if self._num_rows >= _PIECE:
                self._convert()

    def drop(self, task: str, example: str | None, template: str | None, drop: Drop) -> None:
        """Take what did not become a prompt."""
        self._drops.append((task, example, template, *drop))
        if len(self._drops) >= ROW_GROUP:
            self._write_drops()

    def _convert(self) -> None:
        if self._rows:
            rows, self._rows, self._num_rows = self._rows, [], 0
            self._add(to_batch(rows))

    def _add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= ROW_GROUP or self._held_bytes > _HELD_BYTES:
            self._write()

    def _write(self) -> None:
        if self._batches:
            batches, self._batches = self._batches, []
            self._held_rows = self._held_bytes = 0
            self._prompts.write(pa.Table.from_batches(batches).combine_chunks())

    def _write_drops(self) -> None:
        if not self._drops:
            return
        schema, size = SCHEMAS["prompts/dropped"], len(self._drops)
        named = dict(zip(_DROP_COLUMNS, map(list, zip(*self._drops, strict=True)), strict=True))
        named["stage"] = ["render"] * size
        blank = [None] * size
        self._dropped.write(
            pa.table([pa.array(named.get(f.name, blank), f.type) for f in schema], schema=schema)
        )
        self._drops = []

    def flush(self) -> None:
        """Write what waits."""
        self._convert()
        self._write()
        self._write_drops()


def _count(shard: ShardWriter, made: TaskCounts) -> None:
    assert made.counts["considered"] == made.counts["prompts"] + made.dropped.total()
    for name, number in sorted(made.counts.items()):
        shard.count(name, number)
    for reason, number in sorted(made.dropped.items()):
        shard.drop(reason, number)


def _check(task: str, made: TaskCounts, setup: Setup) -> None:
    """Refuse a task that is to be evaluated and has nothing to evaluate, or lacks the classes that a format needs."""
    stated = ", ".join(f"{reason} {number}" for reason, number in sorted(made.dropped.items())) or "none"
    if made.dropped["no_quality"] and not made.counts["prompts"]:
        raise DataError(
            f"no example of the task {task!r} has a quality class that the format {setup.chat.name!r} knows "
            f"(dropped: {stated})",
            hint=f"Set render.default_quality to one of {', '.join(sorted(setup.conditions))}, "
            "name the task's own classes in render.conditions, or leave the task out",
        )
    num_test = made.members.get("test", 0)
    if num_test and not made.counts["prompts_test"]:
        raise DataError(
            f"the task {task!r} has {num_test} test examples and not one test prompt (dropped: {stated})",
            hint="Take it out of the plan (plan.exclude), or mend its templates",
        )
