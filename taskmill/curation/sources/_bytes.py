"""The bytes of upstream files, plain or gzip: cut into lines, or whole, never more of them in memory than a limit."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from taskmill.curation.reader import SourceFolder
from taskmill.errors import DataError

RAW_LIMIT = 20_000
"""Characters of a damaged record that are kept."""
MAX_RECORD_BYTES = 64 << 20
"""A longer line is damage: it is skipped, never held whole."""
MAX_DOCUMENT_BYTES = 4 << 30
"""Most bytes of a file that has to be held whole."""
MAX_RATIO = 200
"""Most times its own size that such a file may decompress to, once that is over SMALL_BYTES."""
SMALL_BYTES = 100 << 20
_BLOCK = 1 << 18
_MARK = b"\xef\xbb\xbf"


class FileError(DataError):
    """An upstream file that cannot be read at all, or not to its end."""

    def __init__(self, reason: str, problem: str, **where: Any) -> None:
        """`reason` is short and countable; the rest is DataError's."""
        super().__init__(storable(problem), **where)
        self.reason = reason


class Broken(NamedTuple):
    """What stands in the place of a record that could not be parsed."""

    reason: str
    detail: str


class LongLine(bytes):
    """The first bytes of a line of more than MAX_RECORD_BYTES; the rest was skipped."""


TOO_LARGE = Broken("too_large", f"the line is longer than {MAX_RECORD_BYTES >> 20} MiB; its end was skipped")


class TooLong(Exception):
    """A line of more than MAX_RECORD_BYTES in a file whose records may span lines; always turned into a FileError."""


class ShortLines(io.BufferedIOBase):
    """A binary file that stops at a line of more than MAX_RECORD_BYTES, before it is in memory."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        """Read from `file`, which stays the caller's."""
        self._file, self._size = file, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read1(self, size: int = -1) -> bytes:
        """Return some bytes.

        Raises:
            TooLong: they belong to a line that is too long.
        """
        data = self._file.read(size if size > 0 else _BLOCK)
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._size = self._size + len(data) if end < 0 else len(data) - end - 1
        if self._size > MAX_RECORD_BYTES:
            raise TooLong(TOO_LARGE.detail)
        return data


@contextlib.contextmanager
def open_file(path: Path, source: SourceFolder) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file for reading bytes, through gzip where its name ends in `.gz`.

    Raises:
        FileError: it is missing, may not be read, or its compression is damaged (also while being read).
    """
    name = source.relative(path)
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(
            "bad_gzip", f"damaged gzip file: {error}", file=name, expected="a gzip file"
        ) from error
    except OSError as error:
        raise FileError("unreadable_file", f"cannot be read: {error.strerror or error}", file=name) from error


def read_lines(path: Path, source: SourceFolder) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 0, line without its end) of every line, cut at line feeds only.

    Raises:
        FileError: the file cannot be read, or is empty.
    """
    number = -1
    with open_file(path, source) as file:
        block = file.read(_BLOCK)
        if block.startswith(_MARK):
            block = block.removeprefix(_MARK) or file.read(_BLOCK)
        begun: list[bytes] = []  # of a line that goes on in the next block
        size = 0
        while block:
            first, *lines = block.split(b"\n")
            size += len(first)
            if size <= MAX_RECORD_BYTES or not begun:
                begun.append(first)
            if lines:
                number += 1
                yield number, _line(begun, size)
                last = lines.pop()
                for line in lines:
                    number += 1
                    yield number, line.removesuffix(b"\r")
                begun, size = ([last], len(last)) if last else ([], 0)
            block = file.read(_BLOCK)
        if begun:
            number += 1
            yield number, _line(begun, size)
    if number < 0:
        raise FileError(
            "empty_file", "the file is empty", file=source.relative(path), expected="at least one record"
        )


def _line(pieces: list[bytes], size: int) -> bytes:
    """Return a line read in pieces, or the start of one that is too long."""
    if size > MAX_RECORD_BYTES:
        return LongLine(pieces[0][:RAW_LIMIT])
    return (pieces[0] if len(pieces) == 1 else b"".join(pieces)).removesuffix(b"\r")


def read_all(path: Path, source: SourceFolder) -> bytes:
    """Return a file's bytes, without a byte order mark.

    Raises:
        FileError: the file cannot be read, or is empty.
    """
    limit = _most_bytes(path)
    held = io.BytesIO()  # asking for `limit` bytes at once would set aside as much memory
    with open_file(path, source) as file:
        while held.tell() <= limit and (block := file.read(_BLOCK)):
            held.write(block)
    raw = held.getvalue()
    if len(raw) > limit:
        problem = f"more than {limit:,} bytes, which is too much for a file that has to be held whole"
        hint = "Cut it into files of one record a line (JSONL)"
        raise FileError("too_large", problem, file=source.relative(path), hint=hint)
    raw = raw.removeprefix(_MARK)
    if not raw.strip():
        raise FileError(
            "empty_file", "the file is empty", file=source.relative(path), expected="at least one record"
        )
    return raw


def _most_bytes(path: Path) -> int:
    """Return how many bytes a whole document may have: fewer where a small file decompresses to very many."""
    if not path.name.endswith(".gz"):
        return MAX_DOCUMENT_BYTES
    try:
        return min(MAX_DOCUMENT_BYTES, max(SMALL_BYTES, MAX_RATIO * path.stat().st_size))
    except OSError:
        return SMALL_BYTES


def storable(text: str) -> str:
    """Return text with whatever UTF-8 cannot hold replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
