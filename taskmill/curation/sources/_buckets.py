"""Cutting files that mix tasks: one pass over the files writes one bucket a task, which reading the task then opens.

Reads JSON lines, JSON and Parquet. Writes `buckets/<key>/` below the cache folder: a line of a bucket is the number of its file,
the number of its record and the record as JSON, tabs between; `index.json` says which task has which bucket. The key hangs
on name, size, time and the ends of every file, so files that change are cut again. Where the cache is gone it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskmill.cache import cache_folder
from taskmill.curation.reader import SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import FileError, LongLine, Record
from taskmill.curation.sources._records import Format, form_of, read_records
from taskmill.errors import DamagedError, DataError, StorageError
from taskmill.storage import read_json, write_json

_LAYOUT = 2
"""Part of the key: raised when what a bucket holds changes."""
_BUFFER = 32 << 20
"""Bytes of records that are held before they are written."""
_END = 16 << 10
"""Bytes at either end of a file that the key sees."""
_KEEP_SECONDS = 30 * 24 * 3600
"""How long buckets stay that nobody asks for."""


@dataclass(frozen=True)
class Naming:
    """How a record says which task it belongs to."""

    fields: tuple[str, ...]
    """The first of these that a record has holds the name."""
    task_of: Callable[[str], str | None]
    """The task of a name, None where it is no name of a task."""

    @property
    def pattern(self) -> re.Pattern[bytes]:
        """Finds the names of a line without parsing it: keys in JSON are never within a string unescaped."""
        keys = "|".join(map(re.escape, self.fields))
        return re.compile(rf'"(?:{keys})"\s*:(?:\s*"([^"\\]*)")?'.encode())


@dataclass
class Bucket:
    """What is known of one task without reading it."""

    files: list[int] = field(default_factory=list)
    """Places in the list of files; ascending."""
    names: list[str] = field(default_factory=list)
    """Names that the records give the task; sorted."""
    num_bytes: int = 0
    place: int = 0
    """Number of its file in the cache."""


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, or not to its end."""

    file: int
    reason: str
    problem: str
    record: int


@dataclass(frozen=True)
class Buckets:
    """Files that are cut."""

    folder: Path
    files: tuple[Path, ...]
    tasks: dict[str, Bucket]
    strays: Bucket
    """Records that name no task, or are no records."""
    failures: tuple[Failure, ...]

    def home_of(self, file: int) -> str | None:
        """Return the task that answers for the strays and failures of a file: its first, else the first of all."""
        within = [name for name, bucket in self.tasks.items() if file in bucket.files]
        return min(within or self.tasks, default=None)

    def care_of(self, name: str) -> list[int]:
        """Return the files with strays or failures for which a task answers."""
        troubled = {*self.strays.files, *(failure.file for failure in self.failures)}
        return sorted(file for file in troubled if self.home_of(file) == name)


def cut(source: SourceFolder, files: Sequence[Path], naming: Naming) -> Buckets:
    """Return the buckets of files, from the cache where it has them.

    Raises:
        StorageError: the cache cannot be written.
    """
    key = _key(files, naming)
    folder = cache_folder() / "buckets" / key
    found = _load(folder, files)
    if found is None:
        _make(folder, source, files, naming)
        found = _load(folder, files)
    if found is None:
        raise StorageError(f"cannot keep what was cut in {folder}; is another program deleting the cache?")
    with contextlib.suppress(OSError):
        os.utime(folder)
    return found


def make_entries(
    source: SourceFolder, files: Sequence[Path], buckets: Buckets, **detail: Any
) -> list[TaskEntry]:
    """Return the tasks; their detail says which names they have and for the strays of which files they answer."""
    entries = []
    for name, bucket in sorted(buckets.tasks.items()):
        care = buckets.care_of(name)
        strays = [source.relative(files[place]) for place in care]
        mine = tuple(files[place] for place in sorted({*bucket.files, *care}))
        stated = {**detail, "task_names": bucket.names, "strays": strays}
        entries.append(TaskEntry(name, mine, bucket.num_bytes, stated))
    return entries


def no_names(source: SourceFolder, files: Sequence[Path], buckets: Buckets, **where: Any) -> DataError:
    """Return what to raise where no record names a task; `where` is DataError's field and expected."""
    failed = "; ".join(f"{source.relative(files[f.file])}: {f.problem}" for f in buckets.failures[:3])
    problem = "no record names its task" + (f" ({failed})" if failed else "")
    return DataError(problem, file=source.relative(files[0] if len(files) == 1 else source.path), **where)


def records_of_entry(
    entry: TaskEntry, source: SourceFolder, files: Sequence[Path], naming: Naming, data: TaskData
) -> Iterator[tuple[Path, Record]]:
    """Yield (file, record) of a task, then the strays for which it answers; report files that cannot be read.

    Raises:
        DataError: such a file, while the recipe says stop.
        StorageError: the cache cannot be read or written.
    """
    yield from records_of(source, files, naming, entry.name)
    mine = set(entry.detail["strays"])
    if not mine:
        return
    for path, record in records_of(source, files, naming, None):
        if source.relative(path) in mine:
            yield path, record
    for failure in cut(source, files, naming).failures:
        path = files[failure.file]
        if source.relative(path) in mine:
            with _files.reading(data, source, path):
                where: dict[str, Any] = {"file": source.relative(path), "record": failure.record}
                raise FileError(failure.reason, failure.problem, **where)


def records_of(
    source: SourceFolder, files: Sequence[Path], naming: Naming, name: str | None
) -> Iterator[tuple[Path, Record]]:
    """Yield (file, record) of a task, or of the records without one; in the order of the files.

    A bucket that vanished from the cache is made again.

    Raises:
        StorageError: the cache cannot be read or written.
    """
    for _ in range(3):
        buckets = cut(source, files, naming)
        bucket = buckets.strays if name is None else buckets.tasks.get(name, Bucket(place=-1))
        if bucket.place < 0 or not bucket.files:
            return
        path = buckets.folder / _file_name(bucket.place)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            shutil.rmtree(buckets.folder, ignore_errors=True)
            continue
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        with opened:
            for line in opened:
                place, number, raw = line[:-1].split(b"\t", 2)
                yield buckets.files[int(place)], _record(int(number), raw)
        return
    raise StorageError(f"cannot read {path}: it vanished three times; is another program deleting the cache?")


def _record(number: int, raw: bytes) -> Record:
    """Return a record of a bucket; the number of a line that was too long is written as its complement."""
    return (
        Record(~number, _files.TOO_LARGE, raw)
        if number < 0
        else Record(number, _files.parse_record(raw), raw)
    )


# -------------------------------------------------------------------------------------------- the cache


def _key(files: Sequence[Path], naming: Naming) -> str:
    """Return the digest that stands for files as they are now; a file that cannot be looked at counts as missing."""
    found = hashlib.blake2b(digest_size=16)
    found.update(json.dumps([_LAYOUT, list(naming.fields), len(files)]).encode())
    for path in files:
        state: list[Any] = [os.fspath(path)]
        with contextlib.suppress(OSError):
            stat = path.stat()
            state += [stat.st_size, stat.st_mtime_ns]
            with path.open("rb") as file:
                found.update(file.read(_END))
                file.seek(max(0, stat.st_size - _END))
                found.update(file.read(_END))
        found.update(json.dumps(state).encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def _file_name(place: int) -> str:
    return f"{place:05d}.jsonl"


def _load(folder: Path, files: Sequence[Path]) -> Buckets | None:
    """Return what the cache has, None where it has nothing sound."""
    try:
        raw = read_json(folder / "index.json")
        buckets = Buckets(
            folder,
            tuple(files),
            {name: Bucket(**bucket) for name, bucket in raw["tasks"].items()},
            Bucket(**raw["strays"]),
            tuple(Failure(**failure) for failure in raw["failures"]),
        )
        every = [bucket for bucket in (*buckets.tasks.values(), buckets.strays) if bucket.files]
        sizes = [(folder / _file_name(bucket.place)).stat().st_size for bucket in every]
    except (DamagedError, OSError, KeyError, TypeError, AttributeError):
        return None
    return buckets if sizes == [bucket.num_bytes for bucket in every] else None


def _make(folder: Path, source: SourceFolder, files: Sequence[Path], naming: Naming) -> None:
    """Cut files into a folder that appears whole or not at all; of two that race the first one wins.

    Raises:
        StorageError: the cache cannot be written.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _Cutter(temporary, source, files, naming).run()
        if folder.exists() and _load(folder, files) is None:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            _move(temporary, folder)
        _forget_old(folder.parent)
    except OSError as error:
        raise StorageError(f"cannot write the cache {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path) -> None:
    """Rename a folder; one that is there already stays.

    Raises:
        FileExistsError: there is one.
        OSError: the disk refuses.
    """
    try:
        temporary.rename(folder)
    except OSError as error:
        if folder.is_dir():
            raise FileExistsError from error
        raise


def _forget_old(folder: Path) -> None:
    """Delete buckets that were not asked for of late, and what a killed process left half made."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


# -------------------------------------------------------------------------------------------- cutting


class _Cutter:
    """One pass over files; records gather in memory and are appended to their buckets in turns."""

    def __init__(self, folder: Path, source: SourceFolder, files: Sequence[Path], naming: Naming) -> None:
        self.folder, self.source, self.files, self.naming = folder, source, files, naming
        self.pattern = naming.pattern
        self.strays = Bucket(place=0)
        self.tasks: dict[str, Bucket] = {}
        self.names: dict[str, set[str]] = {}
        self.known: dict[str, str | None] = {}
        self.held: dict[int, list[bytes]] = {}
        self.num_held = 0
        self.failures: list[Failure] = []

    def run(self) -> None:
        """Write the buckets, then the index.

        Raises:
            OSError: the disk refuses.
            StorageError: the same, while the index is written.
        """
        for place, path in enumerate(self.files):
            try:
                for number, raw in _raw_records(path, self.source):
                    self._add(place, number, raw)
            except FileError as error:
                record = error.record if isinstance(error.record, int) else 0
                self.failures.append(Failure(place, error.reason, error.problem, record))
        self._write()
        for name, bucket in self.tasks.items():
            bucket.names = sorted(self.names[name])
        index = {
            "tasks": {name: vars(self.tasks[name]) for name in sorted(self.tasks)},
            "strays": vars(self.strays),
            "failures": [vars(failure) for failure in self.failures],
        }
        write_json(self.folder / "index.json", index)

    def _add(self, place: int, number: int, raw: bytes) -> None:
        name = self._name_of(raw)
        task = self._task_of(name)
        if task is None or name is None:
            bucket = self.strays
        else:
            bucket = self.tasks.setdefault(task, Bucket(place=len(self.tasks) + 1))
            self.names.setdefault(task, set()).add(name)
        if not bucket.files or bucket.files[-1] != place:
            bucket.files.append(place)
        written = ~number if type(raw) is LongLine else number  # what is kept of a long line may look whole
        line = b"%d\t%d\t%s\n" % (place, written, raw)
        bucket.num_bytes += len(line)
        self.held.setdefault(bucket.place, []).append(line)
        self.num_held += len(line)
        if self.num_held > _BUFFER:
            self._write()

    def _write(self) -> None:
        for place, lines in self.held.items():
            with (self.folder / _file_name(place)).open("ab") as file:
                file.writelines(lines)
        self.held, self.num_held = {}, 0

    def _task_of(self, name: str | None) -> str | None:
        if name is None:
            return None
        if name not in self.known:
            self.known[name] = self.naming.task_of(name)
        return self.known[name]

    def _name_of(self, raw: bytes) -> str | None:
        """Return the name in a record; only one that does not show it plainly is parsed.

        A line with one plain name goes to that task even where it is damaged: reading the task finds out.
        """
        found = self.pattern.findall(raw)
        if len(found) == 1 and found[0]:
            with contextlib.suppress(UnicodeDecodeError):
                return str(found[0].decode("utf-8"))
        value = _files.parse_record(raw)
        if not isinstance(value, dict):
            return None
        name = next((value[key] for key in self.naming.fields if key in value), None)
        return name if isinstance(name, str) else None


def _raw_records(path: Path, source: SourceFolder) -> Iterator[tuple[int, bytes]]:
    """Yield (number, JSON text) of each record of a file.

    Raises:
        FileError: the file cannot be read, or not to its end.
    """
    form = form_of(path, source)
    if form != "jsonl":
        for record in read_records(Format(form), path, source):
            text = json.dumps(record.value, ensure_ascii=False, default=_unreadable)
            yield record.number, text.encode("utf-8", "surrogatepass")
        return
    for number, line in _files.read_lines(path, source):
        if line.strip():
            yield number, line


def _unreadable(value: Any) -> dict[str, str]:
    """Stand in for what JSON cannot hold, so that no reader takes it for text."""
    return {"unreadable": repr(value)[:200]}
