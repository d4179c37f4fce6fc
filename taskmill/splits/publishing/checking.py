"""Check a published benchmark against its manifest: bytes, digests, rows, and that nothing is missing or too much.

Reads every file that the manifest names and no other. A link is never followed, so that nothing outside of the folder is read,
whatever a manifest says.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.errors import DamagedError, StorageError, UsageError
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.published import (
    DATA,
    FOLDERS,
    IDS,
    MANIFEST,
    TABLE_NAMES,
    TABLES,
    Published,
    no_plain_file,
    open_published,
    rows_root,
    table_path,
)
from taskmill.splits.publishing.writing.tables import count_places
from taskmill.storage import FileEntry, RowsDigest, digest, file_digest, rows_digest

_UNREADABLE = (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError, RecursionError)

_KEYS = ("example", "prompt", "task", "train_task", "gram")


def verify_published(folder: Path) -> tuple[list[str], int]:
    """Check every file of a published benchmark.

    Args:
        folder: of the benchmark, or its manifest.json.

    Returns:
        one line per problem, which names the file, and the number of files checked.

    Raises:
        UsageError: there is no manifest.
    """
    path = folder / MANIFEST if folder.is_dir() else folder
    if not path.is_file():
        open_published(folder)
    try:
        published = open_published(path)
    except (DamagedError, StorageError, UsageError) as error:
        return [str(error)], 1
    problems = [line for entry in published.files for line in _file_problems(published.folder, entry)]
    problems += _unlisted(published)
    problems += [f"{path}: {line}" for line in _contradictions(published)]
    return problems, len(published.files) + 1


def require_sound(published: Published, *folders: str) -> None:
    """Check the files below some top folders, and that the manifest fits them.

    Raises:
        DamagedError: a file is not the one that the manifest names, or the manifest contradicts itself.
    """
    entries = [entry for entry in published.files if entry.path.split("/")[0] in folders]
    problems = itertools.chain(
        (line for entry in entries for line in _file_problems(published.folder, entry)),
        (f"{published.folder / MANIFEST}: {line}" for line in _contradictions(published)),
    )
    first = next(problems, None)
    if first is not None:
        raise DamagedError(f"{first}; `taskmill verify {published.folder}` lists all")


# ------------------------------------------------------------------------------------------- one file


def _file_problems(folder: Path, entry: FileEntry) -> Iterator[str]:
    """Yield what is wrong with a file."""
    path = folder / entry.path
    problem = no_plain_file(folder, entry.path)
    if problem is None:
        try:
            problem = _problem(path, entry)
        except (StorageError, DamagedError) as error:
            problem = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
    if problem is not None:
        yield f"{path}: {problem}"


def _problem(path: Path, entry: FileEntry) -> str | None:
    """Return in what a file differs from its entry.

    Raises:
        StorageError: it cannot be read.
        DamagedError: it is no Parquet file.
    """
    size = path.stat().st_size
    is_same = size == entry.bytes and file_digest(path) == entry.sha256
    if not _is_table(entry.path):
        if is_same:
            return None if entry.rows == entry.sha256 else "the manifest has two digests of it"
        return _bytes_differ(size, entry)
    if is_same:
        return _rows_problem(path, entry)
    return f"{_bytes_differ(size, entry)}; {_where(path, entry)}"


def _bytes_differ(size: int, entry: FileEntry) -> str:
    if size != entry.bytes:
        return f"{size:,} bytes, the manifest says {entry.bytes:,}"
    return "bytes differ from what the manifest says (sha256)"


def _rows_problem(path: Path, entry: FileEntry) -> str | None:
    """Return in what the rows of a Parquet file differ from its entry.

    Raises:
        DamagedError: it cannot be read.
    """
    wanted = _schema_of(entry.path)
    try:
        found = pq.read_schema(path).remove_metadata()
    except _UNREADABLE as error:
        return f"not Parquet: {_line(error)}"
    if wanted is None or RowsDigest(found).hexdigest() != RowsDigest(wanted).hexdigest():
        return f"other columns than a published benchmark has there: {', '.join(found.names)[:200]}"
    rows, num_rows = rows_digest(path)
    if num_rows != entry.num_rows:
        return f"{num_rows:,} rows, the manifest says {entry.num_rows:,}"
    return None if rows == entry.rows else "rows differ from what the manifest says"


def _is_table(path: str) -> bool:
    """Say whether a file holds rows of the benchmark; a Parquet file that the recipe reads is a file like others."""
    return path.endswith(".parquet") and path.split("/")[0] in (IDS, TABLES, DATA)


def _schema_of(path: str) -> pa.Schema | None:
    """Return the schema that a Parquet file of a published benchmark has."""
    top, _, rest = path.partition("/")
    if not path.endswith(".parquet"):
        return None
    name = {IDS: "ids", DATA: "prompts", TABLES: rest.removesuffix(".parquet")}.get(top)
    return PUBLISHED.get(name or "")


def _where(path: Path, entry: FileEntry) -> str:
    """Return which rows of a Parquet file whose bytes differ cannot be read, or what is known of its rows."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            first = 0
            for group in range(file.num_row_groups):
                number = file.metadata.row_group(group).num_rows
                for column in file.schema_arrow.names:
                    problem = _unreadable(file, group, column)
                    if problem is not None:
                        key = _first_key(file, group)
                        return f"rows {first:,} to {first + number - 1:,}{key} cannot be read, column {column!r} ({problem})"
                first += number
        problem = _rows_problem(path, entry)
    except (*_UNREADABLE, DamagedError) as error:
        return f"it cannot be read as Parquet ({_line(error)})"
    return problem or "its rows are the same"


def _unreadable(file: pq.ParquetFile, group: int, column: str) -> str | None:
    try:
        file.read_row_group(group, columns=[column])
    except _UNREADABLE as error:
        return _line(error)
    return None


def _first_key(file: pq.ParquetFile, group: int) -> str:
    """Return the first of the columns that name a row, of the first row of a group, where it can be read."""
    for column in file.schema_arrow.names:
        if column in _KEYS and _unreadable(file, group, column) is None:
            values = file.read_row_group(group, columns=[column])[column]
            return f", from {column} {str(values[0].as_py())[:120]}" if len(values) else ""
    return ""


def _line(error: Exception) -> str:
    """Return the first line of an error's message."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


# ------------------------------------------------------------------------------------------ the whole


def _unlisted(published: Published) -> list[str]:
    """Return a line for each file, link or device in the benchmark's own folders that the manifest does not name."""
    known = {entry.path for entry in published.files}
    found = []
    for top in FOLDERS:
        place = published.folder / top
        if place.is_symlink():
            found.append(f"{place}: a link; expected a folder")
            continue
        for folder, folders, names in os.walk(place):
            linked = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in (*names, *linked):
                path = Path(folder) / name
                if path.relative_to(published.folder).as_posix() not in known:
                    found.append(f"{path}: not in the manifest")
    return sorted(found)


def _contradictions(published: Published) -> Iterator[str]:
    """Yield where a manifest contradicts itself."""
    body, files = published.body, published.files
    if body["root"] != rows_root(files, IDS, TABLES):
        yield "root is not that of the files below ids/ and tables/"
    prompts = rows_root(files, DATA) if body["mode"] == "with-data" else None
    if body["prompts_root"] != prompts:
        yield "prompts_root is not that of the files below data/"
    if digest(body["recipe"]) != body["recipe_digest"]:
        yield "recipe_digest is not that of recipe"
    paths = {entry.path for entry in files}
    lost = [table_path(name) for name in TABLE_NAMES if table_path(name) not in paths]
    if lost:
        yield f"files: {lost[0]} is missing"
    odd = [path for path in paths if _schema_of(path) is None and path.split("/")[0] in (IDS, TABLES, DATA)]
    ids = [entry for entry in files if entry.path.startswith(f"{IDS}/")]
    odd += [entry.path for entry in ids if entry.path.count("/") != 2]
    if odd:
        yield f"files: {min(odd)} is no table of a published benchmark"
    elif body["levels"] != count_places((entry.path, entry.num_rows) for entry in ids):
        yield "levels are not the rows of the files below ids/"
