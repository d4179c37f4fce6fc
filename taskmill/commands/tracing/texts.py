"""The texts that the command `trace` looks for: an argument, a file, standard input, or every text of JSON lines.

Reads one file or standard input, writes nothing. A file whose name ends in .jsonl gives each text of each record by itself;
any other file is one text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.commands.contamination_files import DataFile, Layout, pieces
from taskmill.curation.sources._files import Broken
from taskmill.errors import DataError, StorageError, UsageError, did_you_mean

MAX_BYTES = 16 << 20
"""Of a file of texts, and of standard input."""
MAX_TEXTS = 10_000
"""Texts of one call; for more, `contamination` compares whole data sets."""
_LIKE_A_FILE = re.compile(r"\S*(/\S*|\.(txt|md|jsonl?|csv|tsv|html?|gz|parquet|py|ya?ml))")
_MORE = "`taskmill contamination` compares whole data sets"


@dataclass(frozen=True)
class Text:
    """One text to look for, and where it was given."""

    text: str
    file: str | None = None
    """As it was given; - for standard input, None for an argument."""
    record: int | None = None
    """Of JSON lines, from 0."""
    field: str | None = None
    """Dotted path in the record."""


def read_texts(given: str) -> list[Text]:
    """Return the texts of an argument: a file where there is one of that name, standard input for -, else the argument itself.

    Raises:
        UsageError: a folder, a missing file, a binary one, one too large, or a text without UTF-8.
        DataError: a record of JSON lines is damaged.
        StorageError: the file cannot be read.
    """
    if given == "-":
        return [Text(_decoded(_limited(sys.stdin.buffer, given), "standard input"), given)]
    path = Path(given)
    if given and _exists(path):
        if path.is_dir():
            raise UsageError(f"{given} is a folder; name a file of text or of JSON lines. {_MORE}")
        if path.suffix.lower() == ".jsonl":
            return _of_records(path, given)
        try:
            with path.open("rb") as file:
                return [Text(_decoded(_limited(file, given), given), given)]
        except OSError as error:
            raise StorageError(f"cannot read {given}: {error.strerror or error}") from error
    if _LIKE_A_FILE.fullmatch(given):
        beside = [p.name for p in path.parent.iterdir()] if _exists(path.parent) else []
        raise UsageError(
            f"there is no file {given}{did_you_mean(path.name, beside)}; a text that looks like the name of a file can "
            f"be given on standard input: `taskmill trace -`"
        )
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise UsageError("TEXT is not UTF-8") from error
    return [Text(given)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text that is too long for a name
        return False


def _limited(file: Any, name: str) -> bytes:
    data: bytes = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name} has more than {MAX_BYTES >> 20} MiB; give a part of it. {_MORE}")
    return data


def _decoded(data: bytes, name: str) -> str:
    """Return the text of some bytes.

    Raises:
        UsageError: they are none; the message says what they look like.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{name} is UTF-16; expected UTF-8: `iconv -f UTF-16 -t UTF-8 {name}` converts it")
    if b"\0" in data:
        raise UsageError(
            f"{name} is a binary file; expected UTF-8 text or .jsonl. {_MORE}, also .parquet and .gz"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8: byte {error.start} is {data[error.start]:#04x}; `iconv -t UTF-8` converts what it is in"
        ) from error


def _of_records(path: Path, given: str) -> list[Text]:
    """Return every text of every record of JSON lines."""
    found = list[Text]()
    for piece in pieces(DataFile(path, given, path.name, "jsonl", Layout())):
        if piece.number is None:
            continue
        if isinstance(piece.value, Broken):
            start = piece.raw[:200].decode("utf-8", "replace")
            raise DataError(piece.value.detail, file=given, record=piece.number, value=start or None)
        found += [Text(text, given, piece.number, field) for field, text in _strings(piece.value, "")]
        if len(found) > MAX_TEXTS:
            raise UsageError(f"{given} holds more than {MAX_TEXTS:,} texts; give a part of it. {_MORE}")
    if not found:
        raise UsageError(f"{given}: no record has a text")
    return found


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of the strings in a record, keys sorted; lone surrogates become signs."""
    if isinstance(value, str):
        yield path, value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    elif isinstance(value, dict | list):
        items = sorted(value.items()) if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _strings(item, f"{path}.{key}" if path else str(key))
