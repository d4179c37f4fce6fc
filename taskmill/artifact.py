"""Artefacts: manifests, shards, fingerprints: nothing half-written is visible and nothing stale is served.

A stage is a folder whose `manifest.json` is written last: no manifest, not finished. A stage's work is cut into
shards; each finished shard has a record `shards/<shard>.json` with a fingerprint, and is kept on the next attempt
when that fingerprint is the same.

    out = open_stage(directory, identity, force)      # the finished Manifest when it is up to date
    for name in ...:
        if not out.finished(name, parts):
            with out.shard(name, parts) as shard:
                shard.write_table("pairs.parquet", schema, rows)
            out.add(shard.record)
    manifest = out.finish()
"""

from __future__ import annotations

import functools
import json
import logging
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from taskmill import __version__
from taskmill.changes import changed_fields as changed_fields
from taskmill.errors import DamagedError, StaleError, StorageError, UsageError
from taskmill.records import DIRECTORIES, SCHEMA_VERSION
from taskmill.storage import (
    ROW_GROUP,
    AtomicFile,
    FileEntry,
    TableWriter,
    canonical_json,
    digest,
    file_digest,
    has_size,
    iter_batches,
    read_json,
    read_table,
    remove,
    write_json,
)

log = logging.getLogger("taskmill")

MANIFEST = "manifest.json"
_LIBRARIES = ("numpy", "pyarrow", "torch", "transformers", "tokenizers", "peft", "jinja2")


# ---------------------------------------------------------------------------------------- manifests


@dataclass(frozen=True)
class ShardRecord:
    """What one finished shard wrote."""

    shard: str
    fingerprint: str
    files: tuple[FileEntry, ...]
    counts: dict[str, int]
    dropped: dict[str, int]
    info: dict[str, Any]
    """Small facts for the stage's last step."""

    @classmethod
    def open(cls, directory: Path, shard: str) -> ShardRecord | None:
        """Read `shards/<shard>.json` of a stage; None where it is missing or not what was written."""
        path = directory / "shards" / f"{shard}.json"
        if not path.is_file():
            return None
        try:
            value = read_json(path)
            if value.pop("digest") != digest(value):
                return None
            return cls(**{**value, "files": tuple(FileEntry(**f) for f in value["files"])})
        except (DamagedError, AttributeError, KeyError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Write `shards/<shard>.json`, which makes the shard a finished one."""
        value = asdict(self)
        write_json(directory / "shards" / f"{self.shard}.json", {**value, "digest": digest(value)})


@dataclass(frozen=True)
class Identity:
    """Everything that a stage's result depends on; its digest is the stage's fingerprint."""

    stage: str
    revision: int
    settings: dict[str, Any]
    seed: int
    limit: int | None
    inputs: tuple[dict[str, str], ...]
    """One {stage, table, rows} per table read."""
    external: dict[str, Any]
    """Digests of what is read beside earlier stages: upstream files, decisions, a tokenizer."""
    schema: int = SCHEMA_VERSION

    @property
    def fingerprint(self) -> str:
        """The digest (hex) of the identity."""
        return digest(asdict(self))


@dataclass(frozen=True)
class Manifest:
    """The record of one finished stage."""

    directory: Path
    body: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The digest of the identity that the stage was built from."""
        return str(self.body["fingerprint"])

    @property
    def counts(self) -> dict[str, int]:
        """Totals over shards."""
        return dict(self.body["counts"])

    @property
    def dropped(self) -> dict[str, int]:
        """Records dropped, by reason."""
        return dict(self.body["dropped"])

    @property
    def root(self) -> str:
        """The digest over the rows of every file: equal exactly when the stage's content is equal."""
        return str(self.body["root"])

    @property
    def files(self) -> list[FileEntry]:
        """Every file of the stage, sorted by path."""
        entries = [FileEntry(**f) for shard in self.body["shards"] for f in shard["files"]]
        return sorted(entries, key=lambda entry: entry.path)

    def table_files(self, table: str) -> list[FileEntry]:
        """Return the files of a table: `<table>.parquet`, else the sharded `<table>/*.parquet`."""
        exact = [f for f in self.files if f.path == f"{table}.parquet"]
        if exact:
            return exact
        sharded = [f for f in self.files if f.path.startswith(f"{table}/") and f.path.endswith(".parquet")]
        return sharded or [f for f in self.files if f.path == table]

    def rows(self, table: str) -> str:
        """Return the digest over a table's rows (over all files of a sharded one)."""
        return digest([[f.path, f.rows] for f in self.table_files(table)])


def read_manifest(directory: Path) -> Manifest | None:
    """Return a stage's manifest, or None when the stage is not finished.

    Raises:
        DamagedError: the manifest is not the JSON that was written.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        body = read_json(path)
    except DamagedError as error:
        raise DamagedError(f"{error}; run the stage again with --force") from error
    if not isinstance(body, dict) or "digest" not in body:
        raise DamagedError(f"{path} is not a manifest of taskmill; run the stage again with --force")
    stated = body["digest"]
    if digest({k: v for k, v in body.items() if k != "digest"}) != stated:
        raise DamagedError(f"{path} was changed after it was written; run the stage again with --force")
    return Manifest(directory, body)


class Inputs:
    """The finished stages that a stage reads, and which of their tables it declared."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        """Take the folder of each earlier stage by name."""
        self._directories = dict(directories)
        self._manifests: dict[str, Manifest] = {}

    def manifest(self, stage: str) -> Manifest:
        """Return an earlier stage's manifest.

        Raises:
            UsageError: the stage has not been run.
        """
        if stage not in self._manifests:
            directory = self._directories.get(stage)
            found = read_manifest(directory) if directory else None
            if found is None:
                raise UsageError(f"the stage {stage!r} is not finished: run `taskmill {stage} RECIPE` first")
            self._manifests[stage] = found
        return self._manifests[stage]

    def directory(self, stage: str) -> Path:
        """Return an earlier stage's folder."""
        return self.manifest(stage).directory

    def files(self, stage: str, table: str) -> list[Path]:
        """Return a table's files in name order."""
        manifest = self.manifest(stage)
        return [manifest.directory / f.path for f in manifest.table_files(table)]

    def table(self, stage: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a whole table.

        Raises:
            DamagedError: see read_table.
            UsageError: the stage has not been run.
        """
        files = self.files(stage, table)
        if not files:
            raise UsageError(f"the stage {stage!r} has no table {table!r}")
        return pa.concat_tables([read_table(f, columns) for f in files])

    def batches(
        self, stage: str, table: str, columns: Sequence[str] | None = None, batch_size: int = ROW_GROUP
    ) -> Iterator[pa.RecordBatch]:
        """Read a table in batches, in row order over its files."""
        for path in self.files(stage, table):
            yield from iter_batches(path, columns, batch_size)

    def identity(self, tables: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
        """Return {stage, table, rows} of each (stage, table).

        Raises:
            UsageError: a stage has not been run.
        """
        return tuple(
            {"stage": stage, "table": table, "rows": self.manifest(stage).rows(table)}
            for stage, table in tables
        )


# -------------------------------------------------------------------------------------- stage writer


@dataclass
class ShardWriter:
    """Collects what one shard writes; use as `with`, which records the shard when the block ends well.

    An earlier record of the shard goes first: while its files are being replaced, nothing vouches for them.
    """

    directory: Path
    shard: str
    fingerprint: str
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    record: ShardRecord | None = None
    _tables: list[TableWriter] = field(default_factory=list)
    _files: list[FileEntry] = field(default_factory=list)

    def table(self, path: str, schema: pa.Schema) -> TableWriter:
        """Open a table of this shard; `path` is relative to the stage's folder."""
        writer = TableWriter(self.directory / path, schema, path)
        self._tables.append(writer)
        return writer

    def write_table(self, path: str, schema: pa.Schema, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Write a whole table of this shard."""
        with self.table(path, schema) as writer:
            writer.write(rows)

    def write_bytes(self, path: str, data: bytes | memoryview) -> None:
        """Write another file of this shard."""
        with AtomicFile(self.directory / path) as file:
            file.write(data)
        self._files.append(FileEntry(path, 0, file.num_bytes, file.sha256, file.sha256))

    def add_file(self, path: str) -> None:
        """Register a file that was already written durably (a checkpoint's)."""
        sha256 = file_digest(self.directory / path)
        size = (self.directory / path).stat().st_size
        self._files.append(FileEntry(path, 0, size, sha256, sha256))

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] = self.counts.get(name, 0) + number

    def drop(self, reason: str, number: int = 1) -> None:
        """Count dropped records by reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + number

    def __enter__(self) -> Self:
        remove(self.directory / "shards" / f"{self.shard}.json")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for table in self._tables:
                table.abandon()
            return
        files = self._files.copy()
        for table in self._tables:
            assert table.entry is not None, f"a table of shard {self.shard} was opened and never closed"
            files.append(table.entry)
        self.record = ShardRecord(
            self.shard,
            self.fingerprint,
            tuple(sorted(files, key=lambda f: f.path)),
            dict(sorted(self.counts.items())),
            dict(sorted(self.dropped.items())),
            self.info,
        )
        self.record.write(self.directory)


class StageWriter:
    """The folder of a stage while it is being built."""

    def __init__(self, directory: Path, identity: Identity, force: bool = False) -> None:
        """Use `open_stage`, which first looks whether anything is to do; `force` reads kept files in full."""
        self.directory, self.identity, self._force = directory, identity, force
        self._records: dict[str, ShardRecord] = {}
        self.apart: tuple[tuple[str, ...], ...] = ()  # settings that `parts` state as far as shards read them
        self._started = time.time()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for stray in list(directory.rglob(".*.tmp")):
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {directory}: {error.strerror or error}") from error

    def shard_fingerprint(self, parts: Any) -> str:
        """Return a shard's fingerprint: stage, revision, settings but those `apart`, seed and `parts`, what it reads."""
        i = self.identity
        settings = _without(i.settings, self.apart)
        return digest([i.stage, i.schema, i.revision, settings, i.seed, i.limit, parts])

    def finished(self, shard: str, parts: Any) -> ShardRecord | None:
        """Return the record of a shard that is on disk with the same fingerprint, else None."""
        record = ShardRecord.open(self.directory, shard)
        if record is None or record.fingerprint != self.shard_fingerprint(parts):
            return None
        if not all(_intact(self.directory, f, self._force) for f in record.files):
            return None
        self._records[shard] = record
        return record

    def shard(self, shard: str, parts: Any) -> ShardWriter:
        """Start a shard in this process; `add` its record after the `with` block."""
        return ShardWriter(self.directory, shard, self.shard_fingerprint(parts))

    def add(self, record: ShardRecord | None) -> None:
        """Take in a shard finished by this or another process."""
        assert record is not None, "a shard must be finished before it is added"
        self._records[record.shard] = record

    def finish(
        self,
        *,
        upstream: Sequence[Mapping[str, Any]] = (),
        counts: Mapping[str, int] | None = None,
        recorded: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Remove files of earlier attempts, then write the manifest, the last thing a stage does.

        `counts` adds to, or replaces, the totals over shards; `recorded` is kept in no digest of content.
        """
        records = [self._records[name] for name in sorted(self._records)]
        totals, dropped = _totals(records)
        totals.update(counts or {})
        files = sorted((f for r in records for f in r.files), key=lambda f: f.path)
        self._sweep({f.path for f in files} | {f"shards/{r.shard}.json" for r in records})
        identity = asdict(self.identity)
        body: dict[str, Any] = {
            **identity,
            "inputs": list(identity["inputs"]),
            "fingerprint": self.identity.fingerprint,
            "upstream": list(upstream),
            "shards": [{k: v for k, v in asdict(r).items() if k != "info"} for r in records],
            "counts": totals,
            "dropped": dropped,
            "root": digest([[f.path, f.rows] for f in files]),
            "recorded": {**_recorded(self._started), **(recorded or {})},
        }
        body = json.loads(canonical_json(body))
        body["digest"] = digest(body)
        write_json(self.directory / MANIFEST, body)
        return Manifest(self.directory, body)

    def _sweep(self, keep: set[str]) -> None:
        try:
            for path in sorted(self.directory.rglob("*"), reverse=True):
                relative = path.relative_to(self.directory).as_posix()
                if path.is_symlink() or not path.is_dir():
                    if relative not in keep:
                        path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
        except OSError as error:
            raise StorageError(f"cannot clean {self.directory}: {error.strerror or error}") from error


def _without(settings: dict[str, Any], apart: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """Return settings without the keys at some paths."""
    left = dict(settings)
    for first, *rest in apart:
        value = left.pop(first)
        if rest:
            left[first] = _without(value, [tuple(rest)])
    return left


def _intact(directory: Path, entry: FileEntry, thorough: bool) -> bool:
    """Return whether a file has the size, and if `thorough` the bytes, that were written."""
    path = directory / entry.path
    return has_size(path, entry.bytes) and (not thorough or file_digest(path) == entry.sha256)


def _totals(records: Iterable[ShardRecord]) -> tuple[dict[str, int], dict[str, int]]:
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for record in records:
        for target, source in ((counts, record.counts), (dropped, record.dropped)):
            for name, number in source.items():
                target[name] = target.get(name, 0) + number
    return counts, dropped


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _recorded(started: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "version": __version__,
        "python": platform.python_version(),
        "libraries": _versions(),
        "host": platform.system().lower() + "-" + platform.machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "peak_bytes": peak if sys.platform == "darwin" else peak * 1024,
    }


def open_stage(directory: Path, identity: Identity, force: bool = False) -> Manifest | StageWriter:
    """Return the finished manifest when it matches, else a writer. `force` reads every file and redoes damaged ones.

    Raises:
        StaleError: the stage is finished, from other settings or inputs, and `force` is off.
        DamagedError: the stage is finished but a file of it is missing, and `force` is off.
    """
    manifest = _finished(directory, force)
    if manifest is not None and manifest.fingerprint == identity.fingerprint:
        lost = [f.path for f in manifest.files if not _intact(directory, f, force)]
        if not lost:
            return manifest
        if not force:
            raise DamagedError(
                f"{directory / lost[0]} is missing or has another size; --force makes it again"
            )
    elif manifest is not None and not force:
        changes = "\n".join(f"  {line}" for line in changed_fields(manifest.body, asdict(identity)))
        raise StaleError(
            f"{directory} was built from other settings or data:\n{changes}\n"
            f"Run again with --force to redo what changed, or with --run DIR to keep both."
        )
    if manifest is not None:
        remove(directory / MANIFEST)
    return StageWriter(directory, identity, force)


def _finished(directory: Path, force: bool) -> Manifest | None:
    try:
        return read_manifest(directory)
    except DamagedError:
        if not force:
            raise
        remove(directory / MANIFEST)
        return None


def stage_directory(run: Path, stage: str, fingerprint: str | None = None) -> Path:
    """Return a stage's folder; `tokenize` has one per fingerprint."""
    directory = run / DIRECTORIES[stage]
    return directory / fingerprint[:16] if stage == "tokenize" and fingerprint else directory
