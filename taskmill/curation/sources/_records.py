"""The file formats that casts name: each turns a file into numbered records that are JSON objects."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Broken, FileError, Record
from taskmill.curation.sources._values import Unusable, find_path

FORMATS = ("jsonl", "json", "csv", "tsv", "lines", "parallel", "parquet")
BATCH_ROWS = 1024
BATCH_BYTES = 16 << 20
"""How much of a Parquet file is turned into Python values at a time."""
csv.field_size_limit(_files.MAX_RECORD_BYTES)


@dataclass(frozen=True)
class Format:
    """How a file of a cast is read."""

    name: str
    records: str | None = None
    """json: path of the list of records; by default the document is the list. `*`, or a path that ends in `.*`: the
    values of an object are the records, each with its key under the name `*`."""
    columns: tuple[str, ...] = ()
    """csv, tsv: names of the columns of a file without a header."""
    separator: str = ","
    """csv: what stands between cells."""
    pattern: re.Pattern[str] | None = None
    """lines: its named groups are the fields of a line."""
    suffixes: Mapping[str, str] = field(default_factory=dict)
    """parallel: column -> suffix of the file that holds it, line by line; patterns name the first. jsonl: further columns
    -> suffix of the file beside it that holds them, where there is one (`train.jsonl` and `train-labels.lst`)."""
    wanted: frozenset[str] | None = None
    """parquet: columns of lists and objects that are read, others cost much; by default all. Plain ones always are."""


def guess_format(path: Path) -> str | None:
    """Return the format that a file's name suggests, if any."""
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    return {"jsonl": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv", "parquet": "parquet"}.get(suffix)


def form_of(path: Path, source: SourceFolder) -> str:
    """Return the format of a file of JSON or Parquet: what its name says; `.json` may hold JSON lines, as many sets do.

    Raises:
        FileError: the name says neither, or the file cannot be read.
    """
    form = guess_format(path) or "jsonl"
    if form not in ("json", "jsonl", "parquet"):
        expected = ".jsonl, .json or .parquet"
        raise FileError(
            "wrong_format", "not a file of this reader", file=source.relative(path), expected=expected
        )
    if form == "json":
        _, line = next(_files.read_lines(path, source))
        with contextlib.suppress(ValueError):
            if line.lstrip().startswith(b"{") and isinstance(_files.parse_json(line), dict):
                return "jsonl"
    return form


def read_records(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    """Yield the records of a file; a value is an object or Broken, or anything a JSON line may hold.

    Raises:
        FileError: the file cannot be read as its format says.
    """
    readers = {
        "json": _read_json,
        "csv": _read_csv,
        "tsv": _read_tsv,
        "lines": _read_pattern,
        "parallel": _read_parallel,
        "parquet": _read_parquet,
    }
    if form.name == "jsonl":
        return _read_jsonl(form, path, source)
    return readers[form.name](form, path, source)


def companions(form: Format, path: Path) -> list[Path]:
    """Return every file that belongs to a matched one: itself, all sides of a parallel text, further columns of JSONL."""
    if form.name == "jsonl":
        beside = [path.with_name(_files.stem(path) + suffix) for suffix in form.suffixes.values()]
        return [path, *(side for side in beside if side.is_file())]
    if form.name != "parallel":
        return [path]
    first = next(iter(form.suffixes.values()))
    base = path.name.removesuffix(".gz").removesuffix(first)
    gz = ".gz" if path.name.endswith(".gz") else ""
    return [path.with_name(f"{base}{suffix}{gz}") for suffix in form.suffixes.values()]


def _read_jsonl(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    present = {side.name: side for side in companions(form, path)[1:]}
    sides = {
        column: _files.read_lines(present[_files.stem(path) + suffix], source)
        for column, suffix in form.suffixes.items()
        if _files.stem(path) + suffix in present
    }
    if not sides:
        yield from _files.read_jsonl(path, source)
        return
    for record in _files.read_jsonl(path, source):
        beside = {column: next(lines, None) for column, lines in sides.items()}
        absent = [column for column, line in beside.items() if line is None]
        texts = {column: _files.decode(line[1]) for column, line in beside.items() if line is not None}
        broken = next((text for text in texts.values() if isinstance(text, Broken)), None)
        if absent:
            broken = Broken("missing_line", f"the file of {absent[0]!r} has no such line")
        if isinstance(record.value, dict):
            record = record._replace(value=broken or {**record.value, **texts})
        yield record


def _read_json(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    name = source.relative(path)
    document = _files.read_document(path, source)
    keyed = form.records is not None and form.records.split(".")[-1] == "*"
    records = form.records.removesuffix("*").removesuffix(".") if form.records and keyed else form.records
    if records:
        try:
            document = find_path(document if isinstance(document, dict) else {}, records)
        except Unusable as error:
            raise FileError("missing_field", error.problem, file=name, field=records) from error
    if keyed and isinstance(document, dict):
        document = [
            {"*": key, **value} if isinstance(value, dict) else value for key, value in document.items()
        ]
    if not isinstance(document, list):
        problem = "the document does not hold a list of records here"
        where = form.records or "the document"
        expected = "an object of records" if keyed else "a list"
        inside = (
            [key for key, value in document.items() if isinstance(value, list)]
            if isinstance(document, dict)
            else []
        )
        if inside and not keyed:
            expected += f" (`records: {inside[0]}` in the cast takes the one there)"
        raise FileError("wrong_type", problem, file=name, field=where, value=document, expected=expected)
    if not document:
        raise FileError("empty_file", "the file holds no record", file=name)
    for number, value in enumerate(document):
        document[number] = None  # so that what was read is not held twice
        yield Record(number, value, None)


def _read_tsv(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    columns: tuple[str, ...] = form.columns
    first, some = 0, False
    for record in _files.read_cells(path, source):
        if not columns:
            columns, first = _header(form, record, path, source), record.number + 1
            continue
        some = True
        yield Record(record.number - first, _row(columns, record.value), record.raw)
    if not some:
        raise FileError("empty_file", "the file holds no record", file=source.relative(path))


def _read_csv(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    columns: tuple[str, ...] = form.columns
    number = -1
    with _files.open_file(path, source) as file:
        text = io.TextIOWrapper(
            cast(IO[bytes], _files.ShortLines(file)),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        try:
            for cells, raw in _rows(text, form.separator):
                if not columns:
                    columns = _header(form, Record(0, cells, raw), path, source)
                elif cells:
                    number += 1
                    yield Record(number, _row(columns, cells), raw)
        except _files.TooLong as error:
            where = {"file": source.relative(path), "record": number + 1}
            raise FileError("too_large", str(error), **where) from error
    if number < 0:
        raise FileError("empty_file", "the file holds no record", file=source.relative(path))


def _rows(lines: Iterable[str], separator: str) -> Iterator[tuple[list[str] | Broken, str]]:
    """Yield (cells, what upstream wrote) of each row; behind one that is broken reading goes on with the next line."""
    taken: list[str] = []
    rows = csv.reader(_noted(lines, taken), strict=True, delimiter=separator)
    while True:
        cells: list[str] | Broken
        try:
            cells = _utf8(next(rows))
        except StopIteration:
            return
        except csv.Error as error:
            reason = "too_large" if "field limit" in str(error) else "bad_csv"
            cells = Broken(reason, f"not valid CSV: {error}")
        yield cells, "".join(taken)
        taken.clear()


def _noted(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _utf8(cells: list[str]) -> list[str] | Broken:
    """Return cells that were UTF-8, or say that they were not."""
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError as error:
        return Broken(
            "bad_encoding", f"not UTF-8, from character {error.start} on; other encodings are not read"
        )
    return cells


def _header(form: Format, record: Record, path: Path, source: SourceFolder) -> tuple[str, ...]:
    cells, name = record.value, source.relative(path)
    if isinstance(cells, Broken):
        raise FileError(cells.reason, cells.detail, file=name)
    if len(set(cells)) < len(cells):
        problem = "the header names a column twice or leaves two without a name"
        expected = "each column once (`columns` in a cast names those of a file without a header)"
        raise FileError("bad_header", problem, file=name, value=cells, expected=expected)
    other = next((mark for mark in ";\t|," if len(cells) == 1 and mark in cells[0]), None)
    if other is not None:
        stated = "`format: tsv`" if other == "\t" else "`format: csv`"
        stated += f" and `separator: {other!r}`" if other in ";|" else ""
        problem = f"the header is a single cell, as of a file whose cells are divided by {other!r}"
        raise FileError("bad_header", problem, file=name, value=cells, expected=f"{stated} in the cast")
    return tuple(cells)


def _row(columns: tuple[str, ...], cells: list[str] | Broken) -> Any:
    if isinstance(cells, Broken):
        return cells
    if len(cells) != len(columns):
        return Broken("wrong_columns", f"{len(cells)} columns; expected {len(columns)}: {', '.join(columns)}")
    return dict(zip(columns, cells, strict=True))


def _read_pattern(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    assert form.pattern is not None
    for number, line in _files.read_lines(path, source):
        if not line:
            continue
        text = _files.decode(line)
        value: Any = text
        if isinstance(text, str):
            match = form.pattern.fullmatch(text)
            problem = f"the line does not match {form.pattern.pattern!r}"
            value = Broken("no_match", problem) if match is None else match.groupdict()
        yield Record(number, value, line)


def _read_parallel(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    sides = [_files.read_lines(side, source) for side in companions(form, path)]
    names = list(form.suffixes)
    while True:
        lines = [next(side, None) for side in sides]
        present = [line for line in lines if line is not None]
        if not present:
            return
        number = present[0][0]
        raw = b"\t".join(line for _, line in present)
        texts = [_files.decode(line[1]) for line in lines if line is not None]
        broken = next((text for text in texts if isinstance(text, Broken)), None)
        if len(present) < len(lines):
            absent = names[lines.index(None)]
            broken = Broken("missing_line", f"the file of {absent!r} has no such line")
        yield Record(number, broken or dict(zip(names, texts, strict=False)), raw)


def _read_parquet(form: Format, path: Path, source: SourceFolder) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = source.relative(path)
    number = -1
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if len(set(schema.names)) < len(schema.names):
                twice = sorted(name for name in set(schema.names) if schema.names.count(name) > 1)
                problem = "the file has two columns of one name"
                raise FileError("bad_header", problem, file=name, value=twice, expected="each column once")
            columns = _wanted(schema, form.wanted)
            changes = {name: change for name, change in _changes(schema).items() if name in columns}
            for batch in file.iter_batches(batch_size=_rows_at_once(file.metadata), columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    for column, change in changes.items():
                        row[column] = change(row[column])
                    yield Record(number, row, None)
    except OSError as error:
        raise FileError("unreadable_file", f"cannot be read: {error}", file=name) from error
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise FileError("bad_parquet", f"not a sound Parquet file: {error}", file=name) from error
    if number < 0:
        raise FileError("empty_file", "the file holds no record", file=name)


def _wanted(schema: Any, wanted: frozenset[str] | None) -> list[str]:
    """Return the columns to read: those of plain values, and of the others those that are wanted."""
    import pyarrow.types as types

    return [
        field.name
        for field in schema
        if wanted is None or field.name in wanted or not types.is_nested(field.type)
    ]


def _rows_at_once(metadata: Any) -> int:
    """Return how many rows of a file make about BATCH_BYTES: rows of CodeContests have megabytes each."""
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    row = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, row)))


def _changes(schema: Any) -> dict[str, Callable[[Any], Any]]:
    """Return what is to be done to the values of columns whose Arrow type JSON does not have."""
    found = {field.name: _change(field.type) for field in schema}
    return {name: change for name, change in found.items() if change is not None}


def _change(kind: Any) -> Callable[[Any], Any] | None:
    """Return how values of an Arrow type become JSON's, or None where they are.

    A single precision number becomes its shortest decimal (3.8, not 3.799999952316284), a date or decimal number its
    text, a map an object.
    """
    import pyarrow.types as types

    if types.is_float32(kind) or types.is_float16(kind):
        return _shortest
    if types.is_temporal(kind) or types.is_decimal(kind):
        return lambda value: None if value is None else str(value)
    if types.is_map(kind):
        return lambda value: dict(value) if isinstance(value, list) else value
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _change(kind.value_type)
        return None if inner is None else lambda value: value if value is None else [inner(v) for v in value]
    if types.is_struct(kind):
        members = {kind.field(i).name: _change(kind.field(i).type) for i in range(kind.num_fields)}
        changed = {name: change for name, change in members.items() if change is not None}
        if changed:
            return lambda value: (
                value and value | {name: change(value[name]) for name, change in changed.items()}
            )
    return None


def _shortest(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.{_digits(value)}g}")


def _digits(value: float) -> int:
    """Return the fewest digits, 6 to 9, that name a single precision number."""
    return next((n for n in range(6, 9) if _single(float(f"{value:.{n}g}")) == _single(value)), 9)


def _single(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return b""
