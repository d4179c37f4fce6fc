"""The files of the command `contamination`: places become files, files become pieces, some of which are records.

Reads local files and folders, archives and Hub repositories (JSON lines, JSON, CSV, TSV, Parquet, text; each but Parquet
also gzip). A file is read as pieces that make up all of its bytes, so that a copy without some records keeps the others
byte for byte. Only Parquet has no such pieces: its copy has the same columns, types and metadata, and the rows that are kept.

Records are numbered from 0: of JSON lines and text by line, of CSV and TSV by row behind the header.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from taskmill.commands.contamination_json import record_spans
from taskmill.curation.places import archives, hub
from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import MAX_RECORD_BYTES, Broken, FileError
from taskmill.curation.sources._records import Format, read_records
from taskmill.errors import DataError, UsageError, did_you_mean
from taskmill.storage import AtomicFile

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "txt")
_HUB = "hub:"
_MARK = b"\xef\xbb\xbf"
MAX_COLUMN_NAME = 120
"""Characters of the longest name that a column is believed to have."""
csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True)
class Layout:
    """What the names of files do not tell."""

    records: str | None = None
    """Dotted path of the list of records in a JSON document; by default the document itself, or the only list of objects
    among its values."""
    header: bool = True
    """Whether the first row of CSV and TSV names the columns; without, they are called 0, 1, 2 .."""


@dataclass(frozen=True)
class DataFile:
    """A file of one side."""

    path: Path
    name: str
    """As messages and the report call it."""
    relative: str
    """Below the place it was found in: where a cleaned copy goes."""
    form: str
    """One of FORMATS."""
    layout: Layout

    @property
    def has_header(self) -> bool:
        """Whether the first row is read as the names of the columns."""
        return self.layout.header and self.form in ("csv", "tsv")

    @property
    def source(self) -> SourceFolder:
        """What the readers of curation know a file by: its name in messages is `name`."""
        return SourceFolder(self.path, self.path, {}, "stop", prefix=self.name)


@dataclass(frozen=True)
class Piece:
    """A stretch of a file."""

    number: int | None
    """Of the record; None for what is none: a header, an empty line, brackets."""
    value: Any = None
    """The record, or Broken."""
    raw: bytes = b""
    """Its bytes, as far as they are needed: see `pieces`."""
    separator: bytes = b""
    """What stands before a record unless it is the first."""


# ------------------------------------------------------------------------------------------- places


def find_files(place: str, layout: Layout) -> list[DataFile]:
    """Return the data files of a place, by name.

    Args:
        place: a file, a folder, an archive or what lies inside one, or `hub:owner/name@COMMIT[/path]`.
        layout: how the files are laid out.

    Raises:
        UsageError: there is no such place, or no file of a known format in it.
        DataError: a repository or archive that cannot be used.
        StorageError: the Hub cannot be reached, or the cache cannot be written.
        MissingPackageError: a package for the Hub is missing.
    """
    root, path = _hub_folder(place) if place.startswith(_HUB) else (None, Path(place))
    path = _entered(path.absolute() if root is None else path, place)
    if path.is_file():
        form = _form(path)
        if form is None:
            raise UsageError(
                f"{place} is of no known format; expected one of {', '.join(FORMATS)}, also as .gz"
            )
        return [DataFile(path, place, path.name, form, layout)]
    if not path.is_dir():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"there is no file or folder {place}{did_you_mean(path.name, beside)}")
    found = [p for p in sorted(path.rglob("*")) if not _is_hidden(p.relative_to(path)) and p.is_file()]
    files = [
        DataFile(p, f"{place.rstrip('/')}/{name}", name, form, layout)
        for p in found
        if (form := _form(p)) and (name := p.relative_to(path).as_posix())
    ]
    if not files:
        raise UsageError(f"{place} holds no data file; expected one of {', '.join(FORMATS)}, also as .gz")
    return files


def _hub_folder(place: str) -> tuple[Path, Path]:
    """Return (top folder, path) of a place on the Hub, fetched."""
    pinned, _, rest = place.removeprefix(_HUB).partition("@")
    commit, _, path = rest.partition("/")
    repository, commit = hub.parse_pinned(f"{pinned}@{commit}")
    root = hub.fetch(repository, commit, path or ".")
    return root, root / path


def _entered(path: Path, place: str) -> Path:
    """Return a path with the archive on its way, if any, unpacked."""
    for outer in (path, *path.parents):
        if archives.is_archive(outer) and outer.is_file():
            return archives.unpack(outer, place) / path.relative_to(outer)
    return path


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _form(path: Path) -> str | None:
    """Return the format that a name tells."""
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if suffix == "parquet" and path.name.endswith(".gz"):
        return None
    return suffix if suffix in FORMATS else None


# ------------------------------------------------------------------------------------------- pieces


def pieces(file: DataFile) -> Iterator[Piece]:
    """Yield the pieces of a file in order; end to end, each behind its `separator`, they are its bytes.

    Raises:
        FileError: the file cannot be read as its format says.
    """
    form = file.form
    if form == "json" and file.layout.records is None and _holds_lines(file):
        form = "jsonl"
    if form == "json":
        return _json_pieces(file)
    readers = {
        "jsonl": _line_pieces,
        "txt": _line_pieces,
        "tsv": _tsv_pieces,
        "csv": _csv_pieces,
        "parquet": _rows,
    }
    return readers[form](file)


def _lines(file: DataFile) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; of one that is too long, stretches of MAX_RECORD_BYTES + 1."""
    with _files.open_file(file.path, file.source) as opened:
        buffered = io.BufferedReader(cast(io.RawIOBase, opened), 1 << 18)
        while line := buffered.readline(MAX_RECORD_BYTES + 1):
            yield line


def _holds_lines(file: DataFile) -> bool:
    """Say whether a .json file holds JSON lines: its first line is an object, and it has a second."""
    lines = (line for line in _lines(file) if line.strip())
    first, second = next(lines, b""), next(lines, b"")
    try:
        return bool(second) and isinstance(_files.parse_json(first.removeprefix(_MARK)), dict)
    except ValueError:
        return False


def _line_pieces(file: DataFile) -> Iterator[Piece]:
    """Yield one piece a line; an empty line is no record."""
    parse = _files.decode if file.form == "txt" else _files.parse_record
    for number, text, raw in _numbered(file):
        if isinstance(text, Broken):
            yield Piece(number, text, raw)
        elif text.strip():
            yield Piece(number, parse(text), raw)
        else:
            yield Piece(None, None, raw)


def _numbered(file: DataFile) -> Iterator[tuple[int, bytes | Broken, bytes]]:
    """Yield (number, line without its end and without a byte order mark, line as it is)."""
    number, long = -1, b""
    for line in _lines(file):
        if not long:
            number += 1
        if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
            long = line[: _files.RAW_LIMIT]
            continue
        if long:
            yield number, _files.TOO_LARGE, long
            long = b""
            continue
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        yield number, text.removeprefix(_MARK) if number == 0 else text, line
    if long:
        yield number, _files.TOO_LARGE, long
    if number < 0:
        raise _empty(file)


def _empty(file: DataFile) -> FileError:
    return FileError("empty_file", "the file is empty", file=file.name, expected="at least one record")


def _tsv_pieces(file: DataFile) -> Iterator[Piece]:
    """Yield one piece a line; the first that is not empty is the header."""
    columns: list[str] | None = None
    number = -1
    for _, text, raw in _numbered(file):
        if not text:
            yield Piece(None, None, raw)
            continue
        line = text if isinstance(text, Broken) else _files.decode(text)
        cells = line if isinstance(line, Broken) else line.split("\t")
        if columns is None:
            columns = _header(file, cells)
            if file.layout.header:
                yield Piece(None, None, raw)
                continue
        number += 1
        yield Piece(number, _row(columns, cells), raw)


def _csv_pieces(file: DataFile) -> Iterator[Piece]:
    """Yield one piece a row, which may have many lines; the first is the header."""
    columns: list[str] | None = None
    number = -1
    for cells, raw in _csv_rows(file):
        data = raw.encode("utf-8", "surrogateescape")
        if columns is None and cells:
            columns = _header(file, cells)
            cells = [] if file.layout.header else cells
        if cells and columns is not None:
            number += 1
            yield Piece(number, _row(columns, cells), data)
        else:
            yield Piece(None, None, data)
    if columns is None:
        raise _empty(file)


def _csv_rows(file: DataFile) -> Iterator[tuple[list[str] | Broken, str]]:
    """Yield (cells, the text of the row); behind a broken row reading goes on with the next line."""
    taken: list[str] = []
    rows = csv.reader(_noted(file, taken), strict=True)
    while True:
        cells: list[str] | Broken
        try:
            cells = next(rows)
            "".join(cells).encode()
        except StopIteration:
            return
        except UnicodeEncodeError:
            cells = Broken("bad_encoding", "not UTF-8; other encodings are not read")
        except csv.Error as error:
            cells = Broken("bad_csv", f"not valid CSV: {error}")
        yield cells, "".join(taken)
        taken.clear()


def _noted(file: DataFile, taken: list[str]) -> Iterator[str]:
    """Yield lines for the CSV reader, and keep them as they are until the row is whole."""
    for place, line in enumerate(_lines(file)):
        text = line.decode("utf-8", "surrogateescape")
        taken.append(text)
        yield text.removeprefix("\ufeff") if place == 0 else text


def _header(file: DataFile, cells: list[str] | Broken) -> list[str]:
    if isinstance(cells, Broken):
        raise FileError(cells.reason, cells.detail, file=file.name)
    if not file.layout.header:
        return [str(place) for place in range(len(cells))]
    long = next((cell for cell in cells if len(cell) > MAX_COLUMN_NAME), None)
    if long is not None:
        problem = "the first row looks like a record, not like the names of the columns"
        raise FileError(
            "bad_header", problem, file=file.name, value=long, hint="`--no-header` reads it as a record"
        )
    if len(set(cells)) < len(cells):
        raise FileError(
            "bad_header",
            "the header names a column twice",
            file=file.name,
            value=cells,
            expected="each column once",
            hint="`--no-header` reads it as a record",
        )
    return cells


def _row(columns: list[str], cells: list[str] | Broken) -> Any:
    if isinstance(cells, Broken):
        return cells
    if len(cells) != len(columns):
        return Broken("wrong_columns", f"{len(cells)} columns; expected {len(columns)}: {', '.join(columns)}")
    return dict(zip(columns, cells))


def _rows(file: DataFile) -> Iterator[Piece]:
    """Yield the rows of a Parquet file; they have no bytes of their own."""
    for record in read_records(Format("parquet"), file.path, file.source):
        yield Piece(record.number, record.value)


# --------------------------------------------------------------------------------------------- JSON


def _json_pieces(file: DataFile) -> Iterator[Piece]:
    """Yield what stands before the list of records, each of these, and what stands behind."""
    raw = _files.read_all(file.path, file.source)
    try:
        text = raw.decode("utf-8")
        spans = record_spans(text, file.layout.records, file.name)
    except UnicodeDecodeError as error:
        raise FileError("bad_encoding", f"not UTF-8: {error}", file=file.name) from error
    except (ValueError, RecursionError) as error:
        raise FileError("bad_json", f"not valid JSON: {error}", file=file.name) from error
    if not spans:
        raise FileError("empty_file", "the list holds no record", file=file.name)
    with _files.open_file(file.path, file.source) as opened:
        mark = _MARK if opened.read(len(_MARK)) == _MARK else b""
    yield Piece(None, None, mark + text[: spans[0][0]].encode())
    before = spans[0][0]
    for number, (start, end, value) in enumerate(spans):
        yield Piece(number, value, text[start:end].encode(), text[before:start].encode())
        before = end
    yield Piece(None, None, text[before:].encode())


# ------------------------------------------------------------------------------------ cleaned copies


def write_without(file: DataFile, dropped: frozenset[int], target: AtomicFile) -> int:
    """Copy a file without some records; returns how many are left.

    Raises:
        FileError: the file cannot be read.
        StorageError: the target cannot be written.
    """
    if file.form == "parquet":
        return _write_rows(file, dropped, target)
    sink: AtomicFile | gzip.GzipFile = target
    if file.path.name.endswith(".gz"):
        sink = gzip.GzipFile("", "wb", 6, cast(IO[bytes], target), mtime=0)
    num_kept = 0
    for place, piece in enumerate(pieces(file)):
        if piece.number is None:
            sink.write(piece.raw)
        elif piece.number not in dropped:
            sink.write(piece.separator + piece.raw if num_kept else piece.raw)
            num_kept += 1
        elif place == 0 and piece.raw.startswith(_MARK):
            sink.write(_MARK)
    if sink is not target:
        sink.close()
    return num_kept


def _write_rows(file: DataFile, dropped: frozenset[int], target: AtomicFile) -> int:
    """Copy a Parquet file without some rows, row group by row group, compressed as it is."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = num_kept = 0
    try:
        with pq.ParquetFile(file.path) as whole:
            meta = whole.metadata
            codec = (
                meta.row_group(0).column(0).compression
                if meta.num_row_groups and meta.num_columns
                else "SNAPPY"
            )
            codec = "NONE" if codec == "UNCOMPRESSED" else codec
            with pq.ParquetWriter(
                pa.PythonFile(target, mode="w"), whole.schema_arrow, compression=codec
            ) as writer:
                for group in range(meta.num_row_groups):
                    rows = whole.read_row_group(group)
                    numbers = np.arange(number, number + rows.num_rows)
                    kept = rows.filter(pa.array([n not in dropped for n in numbers.tolist()], pa.bool_()))
                    if kept.num_rows:
                        writer.write_table(kept)
                    number, num_kept = number + rows.num_rows, num_kept + kept.num_rows
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"not a sound Parquet file: {error}", file=file.name) from error
    return num_kept
