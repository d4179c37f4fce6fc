"""Opening upstream files and turning bytes into records; every failure is a DataError or a kept-aside Aside.

A text file may end in `.gz`. An empty line of a line-based format is no record; records are numbered by line from 0.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.curation.contents import encode_flat, encode_record
from taskmill.curation.reader import Aside, Encoded, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources._bytes import MAX_RECORD_BYTES as MAX_RECORD_BYTES
from taskmill.curation.sources._bytes import RAW_LIMIT as RAW_LIMIT
from taskmill.curation.sources._bytes import TOO_LARGE as TOO_LARGE
from taskmill.curation.sources._bytes import Broken as Broken
from taskmill.curation.sources._bytes import FileError as FileError
from taskmill.curation.sources._bytes import LongLine as LongLine
from taskmill.curation.sources._bytes import ShortLines as ShortLines
from taskmill.curation.sources._bytes import TooLong as TooLong
from taskmill.curation.sources._bytes import open_file as open_file
from taskmill.curation.sources._bytes import read_all as read_all
from taskmill.curation.sources._bytes import read_lines as read_lines
from taskmill.curation.sources._bytes import storable as storable
from taskmill.errors import DataError, did_you_mean, shorten

orjson: Any
try:
    import orjson
except ImportError:
    orjson = None

SPLIT_NAMES = {
    "train": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""How upstream files call their splits -> records.UPSTREAM_SPLITS."""

_SHARD = re.compile(r"-\d{1,9}-of-\d{1,9}(-[0-9a-f]{1,64})?$")
MAX_DEPTH = 64
"""Levels of lists and objects that a field may have."""
_shown = json.JSONEncoder(ensure_ascii=False, default=repr).encode
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
"""What a number of 19 digits is behind `_DIGITS`."""
_BARE_LONG_NUMBER = re.compile(rb'(?:[^"\d]++|"(?:[^"\\]++|\\.)*+"|\d{1,18}+(?!\d))*+\d{19}', re.DOTALL)
"""Finds a long number outside the strings of JSON: orjson reads integers beyond 64 bits as floats, so such texts go to json."""


class Record(NamedTuple):
    """One record of a file: its number, its parsed value (or Broken) and what upstream wrote."""

    number: int
    value: Any
    raw: bytes | str | None


# ------------------------------------------------------------------------------------------ folders


def need_folder(source: SourceFolder, folder: Path, what: str) -> Path:
    """Return `folder` if it is one.

    Raises:
        DataError: it does not exist or is no folder.
    """
    if folder.is_dir():
        return folder
    beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    raise DataError(
        f"no such folder{did_you_mean(folder.name, beside)}",
        file=source.relative(folder),
        expected=what,
        hint="Paths of sources begin at the recipe's data_root",
    )


def list_files(
    source: SourceFolder, suffixes: tuple[str, ...], what: str, *, deep: bool = False
) -> list[Path]:
    """Return the source's files of these suffixes (each also with `.gz`), sorted; a single file is itself.

    Raises:
        DataError: the path does not exist, or no file has such a suffix.
    """
    endings = tuple(s + gz for s in suffixes for gz in ("", ".gz"))
    if source.path.is_file():
        return [source.path]
    folder = need_folder(source, source.path, what)
    found = folder.rglob("*") if deep else folder.glob("*")
    files = sorted(p for p in found if p.name.endswith(endings) and p.is_file())
    if not files:
        raise DataError(
            "the folder holds no file of this reader", file=source.relative(folder), expected=what
        )
    return files


def stem(path: Path) -> str:
    """Return a file's name without `.gz` and without its last suffix."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name else name


def split_of(name: str) -> tuple[str, str | None]:
    """Cut `_train`, `_dev` .. off a name: (rest, upstream split or None)."""
    rest, _, last = name.rpartition("_")
    return (rest, SPLIT_NAMES[last]) if rest and last in SPLIT_NAMES else (name, None)


def own_name(path: Path) -> str:
    """Return a file's name without suffixes and shard; of a numbered file in a folder `train`, `test` .. that name."""
    name = _SHARD.sub("", stem(path))
    return path.parent.name if name.isdecimal() and path.parent.name in SPLIT_NAMES else name


@functools.lru_cache(maxsize=4096)
def split_of_file(path: Path) -> str | None:
    """Return the upstream split of `x_train.jsonl`, `train-00000-of-00003.parquet` or `train/0000.parquet`."""
    name = own_name(path)
    return SPLIT_NAMES.get(name) or split_of(name)[1]


def task_of_file(path: Path, source: SourceFolder) -> str:
    """Return the task that a file is called after: its name without its split, or its folder's where nothing else is left.

    The folders `data` and `default` name no task, nor does the top folder of a repository or archive: its own name does.
    """
    name = own_name(path)
    if name not in SPLIT_NAMES:
        return split_of(name)[0]
    folder = path.parent.parent if path.parent.name == name else path.parent
    while folder.name in ("data", "default") and folder not in (source.root, folder.parent):
        folder = folder.parent
    return (source.name if folder == source.root else "") or folder.name or name


def make_entry(name: str, files: list[Path], **detail: Any) -> TaskEntry:
    """Return a task entry with the size of its files."""
    return TaskEntry(name, tuple(files), sum(p.stat().st_size for p in files), detail)


# ------------------------------------------------------------------------------------------- reading


def parse_json(raw: bytes) -> Any:
    """Parse UTF-8 JSON alike with and without orjson: bare NaN is a float, of equal keys the last wins.

    Raises:
        ValueError: not JSON, not UTF-8, or nested too deeply.
    """
    if orjson is not None and not (_LONG_NUMBER in raw.translate(_DIGITS) and _BARE_LONG_NUMBER.match(raw)):
        try:
            return orjson.loads(raw)
        except ValueError:
            pass
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_document(path: Path, source: SourceFolder, expected: str | None = None) -> Any:
    """Return the value of a JSON file that is held whole.

    Raises:
        FileError: the file cannot be read, is empty, or is not JSON.
    """
    raw = read_all(path, source)
    try:
        return parse_json(raw)
    except ValueError as error:
        problem = f"not valid JSON: {error}"
        raise FileError("bad_json", problem, file=source.relative(path), expected=expected) from error


def decode(raw: bytes) -> str | Broken:
    """Return the text of UTF-8 bytes, or what is wrong with them."""
    if type(raw) is LongLine:
        return TOO_LARGE
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Broken("bad_encoding", f"not UTF-8: {error}")


def read_jsonl(path: Path, source: SourceFolder) -> Iterator[Record]:
    """Yield one record per line that is not blank.

    Raises:
        FileError: the file cannot be read, or is empty.
    """
    for number, line in read_lines(path, source):
        if line.strip():
            yield Record(number, parse_record(line), line)


def parse_record(line: bytes) -> Any:
    """Parse one line of JSON, or say what is wrong with it."""
    if type(line) is LongLine:
        return TOO_LARGE
    try:
        return parse_json(line)
    except UnicodeDecodeError as error:
        return Broken("bad_encoding", f"not UTF-8: {error}")
    except ValueError as error:
        return Broken("bad_json", f"not valid JSON: {error}")


def read_cells(path: Path, source: SourceFolder) -> Iterator[Record]:
    """Yield the cells of each line that is not empty, cut at tabs without quoting: a list of str, or Broken.

    Raises:
        FileError: the file cannot be read, or is empty.
    """
    for number, line in read_lines(path, source):
        if line:
            text = decode(line)
            yield Record(number, text if isinstance(text, Broken) else text.split("\t"), line)


# -------------------------------------------------------------------------------------- examples


def accept(
    data: TaskData,
    source: SourceFolder,
    path: Path,
    record: Record,
    fields: dict[str, Any],
    references: list[str],
    *,
    options: list[str] | None = None,
    upstream_id: str | None = None,
    upstream_split: str | None = None,
    group: str | None = None,
    quality: str | None = None,
) -> bool:
    """Add an example, unless it holds what no table can (NaN, lone surrogates): then it is damaged.

    Raises:
        DataError: it is damaged and the recipe says stop.
    """
    encoded = encode_flat(fields, options, references)
    if (
        encoded is None
        or not (upstream_id is None or upstream_id.isascii())
        or not (group is None or group.isascii())
        or not (quality is None or quality.isascii())
    ):
        texts = (upstream_id, upstream_split, group, quality)
        encoded = _encoded(encoded, fields, options, references, texts)
        problem = None if encoded else _unstorable([fields, references, options, *texts])
        if problem is not None:
            damage(data, source, path, record, *problem)
            return False
    data.columns.append(
        fields,
        references,
        file=_name(source, path),
        record=record.number,
        upstream_id=upstream_id,
        upstream_split=upstream_split,
        group=group,
        options=options,
        quality=quality,
        encoded=encoded,
    )
    return True


def _encoded(
    flat: Encoded | None,
    fields: dict[str, Any],
    options: list[str] | None,
    references: list[str],
    texts: Sequence[str | None],
) -> Encoded | None:
    """Return what merging writes of an example that is plainly sound, `flat` if known; None asks for a closer look."""
    try:
        encoded = flat or encode_record(fields, options, references)
        for text in texts:
            if text is not None and not text.isascii():
                text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    begun = encoded.fields.count(b"{") + encoded.fields.count(b"[")  # levels are as many at most
    return None if begun >= MAX_DEPTH and _is_deep(fields, MAX_DEPTH - 1) else encoded


_last: list[Any] = [None, None, ""]


def _name(source: SourceFolder, path: Path) -> str:
    """Return what `source.relative` does, at once for the file that the record before came from."""
    if _last[0] is not source or _last[1] is not path:
        _last[:] = source, path, source.relative(path)
    return str(_last[2])


def _unstorable(value: Any) -> tuple[str, str] | None:
    """Return (reason, problem) of a value that canonical JSON in UTF-8 cannot hold."""
    if _is_deep(value, MAX_DEPTH):
        return "too_deep", f"lists or objects nested more than {MAX_DEPTH} levels deep"
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        return "bad_text", f"text with a lone surrogate, which UTF-8 cannot hold: {error.reason}"
    except ValueError:
        return "not_finite", "NaN or an infinite number in a field"
    except TypeError as error:
        return "wrong_type", f"a value that JSON cannot hold: {error}"
    return None


def _is_deep(value: Any, limit: int) -> bool:
    if isinstance(value, (dict, list)):
        return limit == 0 or any(
            _is_deep(item, limit - 1)
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        )
    return False


def damage(
    data: TaskData,
    source: SourceFolder,
    path: Path,
    record: Record,
    reason: str,
    problem: str,
    **where: Any,
) -> None:
    """Stop because of a record, or keep it aside; `where` is DataError's field, value, expected, hint.

    Raises:
        DataError: the recipe says stop.
    """
    name, raw, problem = _name(source, path), raw_text(record), storable(problem)
    where.setdefault("value", raw)
    error = DataError(problem, file=name, record=record.number, **where)
    detail = (
        problem if "field" not in where else f"{where['field']}: {problem} (found {shorten(where['value'])})"
    )
    data.fail(source, error, Aside(name, record.number, reason, storable(detail), raw))


def leave(data: TaskData, source: SourceFolder, path: Path, record: Record, reason: str, detail: str) -> None:
    """Keep aside a sound record that a rule of its format leaves out; never stops. `reason` is short and countable."""
    name = _name(source, path)
    data.aside.append(Aside(name, record.number, reason, storable(detail), raw_text(record)))


def raw_text(record: Record) -> str:
    """Return what upstream wrote, as text that a table can hold, cut to RAW_LIMIT characters."""
    raw = record.raw
    if raw is None:
        try:
            raw = _shown(record.value)
        except RecursionError:
            raw = f"{type(record.value).__name__}, nested too deeply to be shown"
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return storable(text[:RAW_LIMIT])


def is_record(
    data: TaskData,
    source: SourceFolder,
    path: Path,
    record: Record,
    kind: type = dict,
    expected: str = "an object",
) -> bool:
    """Say whether a record was parsed and has the type expected; one that is not is damaged.

    Raises:
        DataError: it is damaged and the recipe says stop.
    """
    if type(record.value) is kind:
        return True
    if isinstance(record.value, Broken):
        damage(data, source, path, record, record.value.reason, record.value.detail)
        return False
    if not isinstance(record.value, kind):
        damage(data, source, path, record, "wrong_type", "not what a record is", expected=expected)
        return False
    return True


def text_field(
    data: TaskData, source: SourceFolder, path: Path, record: Record, name: str, value: dict[str, Any]
) -> str | None:
    """Return the text under `name`; a missing one or one of another type is damage and gives None.

    Raises:
        DataError: it is damaged and the recipe says stop.
    """
    found = value.get(name)
    if type(found) is str:
        return found
    if name not in value:
        keys = ", ".join(sorted(value)) or "nothing"
        problem = f"there is no field {name!r}; the record has {keys}{did_you_mean(name, value)}"
        damage(data, source, path, record, "missing_field", problem, field=name)
        return None
    if not isinstance(found, str):
        damage(
            data, source, path, record, "wrong_type", "not text", field=name, value=found, expected="a string"
        )
        return None
    return found


@contextlib.contextmanager
def reading(data: TaskData, source: SourceFolder, path: Path) -> Iterator[None]:
    """Let a file that cannot be read stop the stage or be kept aside as one damaged record, as the recipe says.

    Raises:
        FileError: the file cannot be read and the recipe says stop.
    """
    name = source.relative(path)
    try:
        try:
            yield
        except RecursionError as error:
            raise FileError("too_deep", "lists or objects nested too deeply", file=name) from error
    except FileError as error:
        number = error.record if isinstance(error.record, int) else 0
        data.fail(source, error, Aside(name, number, error.reason, storable(str(error)), _start_of(path)))


def _start_of(path: Path) -> str:
    """Return the first RAW_LIMIT bytes of a text file that could not be read to its end; none of a compressed one."""
    try:
        with path.open("rb") as file:
            raw = b"" if path.name.endswith(".gz") else file.read(RAW_LIMIT)
    except OSError:
        return ""
    return storable(raw.decode("utf-8", "replace"))


def usable_id(value: object) -> str | None:
    """Return upstream's id as text, or None where it is no text or whole number, or not printable.

    Merging refuses one that stands for two records of different content.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = value if type(value) is str else str(value)
    return text if text and text.isprintable() else None
