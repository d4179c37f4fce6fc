"""Write a published benchmark into a folder: Parquet files, the recipe, the words about it, and the manifest, last.

Reads the stages of a finished run; what is written follows from it alone, so that the same run gives the same bytes under
the same libraries. See `published` for the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.artifact import Inputs
from taskmill.recipe import Resolved
from taskmill.splits.publishing.describing.redistribution import redistributable
from taskmill.splits.publishing.published import MANIFEST, Published, open_published, table_path
from taskmill.splits.publishing.writing.manifest import PublishPlan, allowed_tasks, manifest_body
from taskmill.splits.publishing.writing.prompts_table import write_prompts
from taskmill.splits.publishing.writing.tables import published_tables
from taskmill.storage import (
    AtomicFile,
    FileEntry,
    TableWriter,
    canonical_json,
    digest,
    remove,
)

Texts = Callable[[dict[str, Any]], Mapping[str, bytes]]


def write_published(
    inputs: Inputs,
    resolved: Resolved,
    folder: Path,
    plan: PublishPlan,
    recipe: tuple[Mapping[str, Any], Mapping[str, bytes]],
    texts: Texts,
    extra: Mapping[str, bytes],
) -> Published:
    """Write a benchmark into a folder; what an earlier one left there is replaced, and nothing else touched.

    Args:
        inputs: the stages of a run, finished up to split, with render and mix where these are published.
        resolved: the recipe that they were built from.
        folder: to be written to; made when it is missing.
        plan: what is published.
        recipe: the recipe's values without places on this machine, and the files below recipe/ by path.
        texts: returns README.md and croissant.json from the manifest of all other files.
        extra: further files by path: those below mixture/.

    Raises:
        UsageError: a stage is not finished.
        DamagedError: a table of the run is damaged.
        StorageError: the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove(folder / MANIFEST)  # while files are being replaced, nothing vouches for them
    tables = published_tables(inputs, resolved)
    files = [write_table(folder, path, table) for path, table in sorted(tables.items())]
    if plan.with_data:
        tasks = tables[table_path("tasks")]
        files += write_prompts(inputs, tasks, allowed_tasks(tasks, redistributable), folder)
    values, recipe_files = recipe
    files += [write_file(folder, path, data) for path, data in sorted({**recipe_files, **extra}.items())]
    body = manifest_body(inputs, resolved, plan, values, tables, files)
    files += [write_file(folder, path, data) for path, data in sorted(texts(body).items())]
    write_manifest(folder, {**body, "files": [vars(f) for f in sorted(files, key=lambda f: f.path)]})
    return open_published(folder)


def write_manifest(folder: Path, body: Mapping[str, Any]) -> None:
    """Write manifest.json, which makes the folder a published benchmark; `digest` is filled in.

    Raises:
        StorageError: the disk refuses.
    """
    plain = {key: value for key, value in body.items() if key != "digest"}
    write_file(folder, MANIFEST, canonical_json({**plain, "digest": digest(plain)}) + b"\n")


def write_table(folder: Path, path: str, table: pa.Table) -> FileEntry:
    """Write a Parquet file of a published benchmark and return its entry.

    Raises:
        StorageError: the disk refuses.
    """
    with TableWriter(folder / path, table.schema, path) as writer:
        writer.write(table)
    assert writer.entry is not None
    return writer.entry


def write_file(folder: Path, path: str, data: bytes) -> FileEntry:
    """Write another file of a published benchmark and return its entry.

    Raises:
        StorageError: the disk refuses.
    """
    with AtomicFile(folder / path) as file:
        file.write(data)
    return FileEntry(path, 0, file.num_bytes, file.sha256, file.sha256)
