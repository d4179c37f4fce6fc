"""A published benchmark on disk, for reading: its manifest, its tables, and the recipe that rebuilds it.

A published benchmark is a folder whose `manifest.json` is canonical JSON and names every other file with its digests:

    README.md croissant.json            the card of the Hub, and the description that Croissant readers understand
    ids/<configuration>/<split>.parquet tables/<name>.parquet      see records.PUBLISHED
    data/<configuration>/<split>-00000-of-00001.parquet            prompts, where it is published with data
    recipe/                             what `rebuild` runs: recipe.json, recipe.yaml, decisions.csv, files that it reads
    mixture/ report/                    where it is published with them

`root` is the digest over the rows of every file below ids/ and tables/: the same for whoever rebuilds the benchmark, whatever
wrote the Parquet, and whether the prompts come with it or not. `prompts_root` is the same over data/, null without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.errors import DamagedError, UsageError
from taskmill.records import CONFIGURATIONS, PUBLISHED, SPLITS
from taskmill.storage import FileEntry, canonical_json, digest, read_json, read_table

FORMAT = "taskmill-benchmark"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
IDS, TABLES, DATA, RECIPE = "ids", "tables", "data", "recipe"
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

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read `tables/<name>.parquet`.

        Raises:
            DamagedError: it is missing or damaged.
        """
        return read_table(self.folder / table_path(name), columns)

    def ids(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the places of all examples, sorted by task and example.

        Raises:
            DamagedError: a file is missing or damaged.
        """
        wanted = None if columns is None else list(dict.fromkeys([*columns, "task", "example"]))
        parts = [
            read_table(self.folder / entry.path, wanted)
            for entry in self.files
            if entry.path.startswith(f"{IDS}/")
        ]
        schema = PUBLISHED["ids"]
        if wanted is not None:
            schema = pa.schema([schema.field(name) for name in wanted])
        found = pa.concat_tables(
            [schema.empty_table(), *(part.select(schema.names).cast(schema) for part in parts)]
        )
        found = found.sort_by([("task", "ascending"), ("example", "ascending")])
        return found if columns is None else found.select(list(columns))


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
    if body.get("version") != FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {body.get('version')!r}, and this version of Taskmill reads {FORMAT_VERSION}"
        )
    stated = body.get("digest")
    plain = {key: value for key, value in body.items() if key != "digest"}
    if digest(plain) != stated or path.read_bytes() != canonical_json(body) + b"\n":
        raise DamagedError(
            f"{path} was changed after it was written: its digest is not the one that it states"
        )
    return Published(path.parent, body)
