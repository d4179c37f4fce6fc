"""A published benchmark on disk, for reading: its manifest, its tables, and the recipe that rebuilds it.

A published benchmark is a folder whose `manifest.json` is canonical JSON and names every other file with its digests:

    README.md croissant.json            the card of the Hub, and the description that Croissant readers understand
    ids/<configuration>/<split>.parquet tables/<name>.parquet      see records.PUBLISHED
    data/<configuration>/<split>-00000-of-00001.parquet            prompts, where it is published with data
    recipe/                             what `rebuild` runs: recipe.json, recipe.yaml, decisions.csv, files that it reads
    mixture/                            where it is published with it

`root` is the digest over the rows of every file below ids/ and tables/: the same for whoever rebuilds the benchmark, whatever
wrote the Parquet, and whether the prompts come with it or not. `prompts_root` is the same over data/, null without.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import DamagedError, UsageError, shorten
from taskmill.records import CONFIGURATIONS, PUBLISHED, SPLITS
from taskmill.splits.publishing.shape import misfit
from taskmill.storage import FileEntry, canonical_json, digest, read_json, read_table

FORMAT = "taskmill-benchmark"
FORMAT_VERSION = 1
MANIFEST, CARD, CROISSANT = "manifest.json", "README.md", "croissant.json"
IDS, TABLES, DATA, RECIPE = "ids", "tables", "data", "recipe"
FOLDERS = (IDS, TABLES, DATA, RECIPE, "mixture")
"""Folders of a published benchmark; what lies in them and is not in the manifest does not belong there."""
TABLE_NAMES = tuple(name for name in PUBLISHED if name not in ("ids", "prompts"))


@dataclass(frozen=True)
class Published:
    """A published benchmark: the folder and what its manifest says."""

    folder: Path
    body: dict[str, Any]

    @property
    def root(self) -> str:
        """The digest over the rows below ids/ and tables/."""
        return str(self.body["root"])

    @property
    def files(self) -> list[FileEntry]:
        """Every file but the manifest, sorted by path."""
        return [FileEntry(**entry) for entry in self.body["files"]]

    def place(self, path: str) -> Path:
        """Return where a file lies, which nothing behind a link is.

        Raises:
            DamagedError: nothing is there, or no plain file of this folder.
        """
        problem = no_plain_file(self.folder, path)
        if problem is not None:
            raise DamagedError(f"{self.folder / path}: {problem}; `taskmill verify {self.folder}` lists all")
        return self.folder / path

    def content(self, entry: FileEntry) -> bytes:
        """Return the bytes of a file.

        Raises:
            DamagedError: it is missing, a link, or not what was published.
        """
        path = self.place(entry.path)
        try:
            data = path.read_bytes() if path.stat().st_size == entry.bytes else None
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
        if data is None or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise DamagedError(
                f"{path}: bytes differ from what was published (sha256); `taskmill verify {self.folder}` lists all"
            )
        return data

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read `tables/<name>.parquet`.

        Raises:
            DamagedError: it is missing or damaged.
        """
        schema = _of_columns(PUBLISHED[name], columns)
        return _as_published(self.place(table_path(name)), schema)

    def ids(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the places of all examples, sorted by task and example.

        Raises:
            DamagedError: a file is missing or damaged.
        """
        wanted = None if columns is None else list(dict.fromkeys([*columns, "task", "example"]))
        schema = _of_columns(PUBLISHED["ids"], wanted)
        parts = [
            _as_published(self.place(entry.path), schema)
            for entry in self.files
            if entry.path.startswith(f"{IDS}/")
        ]
        found = pa.concat_tables([schema.empty_table(), *parts])
        found = found.sort_by([("task", "ascending"), ("example", "ascending")])
        return found if columns is None else found.select(list(columns))


def _of_columns(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _as_published(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a Parquet file.

    Raises:
        DamagedError: it is missing or damaged, or has other columns than a published benchmark has there.
    """
    try:
        missing = sorted(set(schema.names) - set(pq.read_schema(path).names))
        if not missing:
            return read_table(path, schema.names).cast(schema)
        problem = f"it has no column {missing[0]!r}"
    except (OSError, ValueError, pa.ArrowException) as error:
        problem = str(error)[:200]
    raise DamagedError(f"{path} is no table of a published benchmark: {problem}; `taskmill verify` lists all")


def no_plain_file(folder: Path, path: str) -> str | None:
    """Return why a path is not to be read: nothing is there, or something that is no file of the folder."""
    here = folder
    for part in path.split("/"):
        here = here / part
        try:
            mode = here.lstat().st_mode
        except OSError as error:
            return (
                "missing"
                if isinstance(error, (FileNotFoundError, NotADirectoryError))
                else str(error.strerror)
            )
        if stat.S_ISLNK(mode):
            what = "" if here == folder / path else f" ({here.relative_to(folder).as_posix()})"
            return f"a link{what}, which is not followed; expected the file itself (`hf download --local-dir` writes it)"
    return None if stat.S_ISREG(mode) else "not a file"


def table_path(name: str) -> str:
    """Return where a table other than ids and prompts lies."""
    return f"{TABLES}/{name}.parquet"


def ids_path(configuration: str, split: str) -> str:
    """Return where the ids of a configuration and split lie."""
    assert configuration in CONFIGURATIONS and split in SPLITS, (configuration, split)
    return f"{IDS}/{configuration}/{split}.parquet"


def data_path(configuration: str, split: str, number: int, count: int) -> str:
    """Return where the `number`-th of `count` files with the prompts of a configuration and split lies."""
    assert configuration in CONFIGURATIONS and split in SPLITS, (configuration, split)
    return f"{DATA}/{configuration}/{split}-{number:05d}-of-{count:05d}.parquet"


def rows_root(files: Iterable[FileEntry], *folders: str) -> str:
    """Return the digest over the rows of the Parquet files in some top folders, by path."""
    chosen = [
        [f.path, f.rows] for f in sorted(files, key=lambda f: f.path) if f.path.split("/")[0] in folders
    ]
    return digest(chosen)


def open_published(place: Path) -> Published:
    """Read the manifest of a published benchmark, by its folder or by the manifest itself.

    Raises:
        UsageError: there is none, or it is of a format that this version does not read.
        DamagedError: the manifest is not the one that was written.
    """
    path = place / MANIFEST if place.is_dir() else place
    if not path.is_file():
        raise UsageError(
            f"{place} is no published benchmark: there is no {MANIFEST}; `taskmill export benchmark` makes one"
        )
    body = read_json(path)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise UsageError(f"{path} is not the manifest of a published benchmark (`format: {FORMAT}`)")
    version = body.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        found = shorten(version) if type(version) is int else "none"
        raise UsageError(
            f"{path}: the version of its format is {found}, and this version of Taskmill reads {FORMAT_VERSION}"
        )
    if not _is_as_written(path, body):
        raise DamagedError(
            f"{path} was changed after it was written: its digest is not the one that it states"
        )
    problem = misfit(body)
    if problem is not None:
        raise DamagedError(f"{path} is not a manifest that Taskmill writes: {problem}")
    return Published(path.parent, body)


def _is_as_written(path: Path, body: dict[str, Any]) -> bool:
    """Return whether the file is the canonical JSON of a body with its own digest."""
    plain = {key: value for key, value in body.items() if key != "digest"}
    try:
        return digest(plain) == body.get("digest") and path.read_bytes() == canonical_json(body) + b"\n"
    except (OSError, ValueError, RecursionError):  # a number that no JSON has, or nested too deeply
        return False
