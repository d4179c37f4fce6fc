"""Damaged variants of records: bytes cut, swapped and spliced, and JSON values replaced, left out and doubled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from native_files import folder, read_all, write

from taskmill.curation.reader import SourceFolder
from taskmill.errors import TaskmillError
from taskmill.seeding import derive

PIECES = (
    b"",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b'"',
    b'"\\ud800"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"NaN",
    b"1e999",
    b"null",
    b"-1",
    b",",
    b"\t",
    b"(A)",
    b"123456789012345678901234567890",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    2.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    " ",
    "\ud800",
    "\x00",
    "(Z)",
    "[]",
    "[1",
    [],
    [None],
    [[]],
    [{}],
    {},
    {"text": None},
    ["a", 1],
)


def mutated(lines: list[bytes], number: int, seed: int) -> Iterator[bytes]:
    """Yield `number` damaged variants of the lines, without a line feed: by turns of bytes and of JSON values."""
    for i in range(number):
        draw = _Draw(derive(seed, "mutation", i))
        line = lines[draw.below(len(lines))]
        changed = _values(line, draw) if i % 2 else None
        if changed is None:
            changed = line
            for _ in range(1 + draw.below(3)):
                changed = _bytes(changed, draw)
        yield changed.replace(b"\n", b" ").replace(b"\r", b" ")


class _Draw:
    """Small numbers out of one big one."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def below(self, limit: int) -> int:
        if self.bits < 1 << 20:
            self.bits = derive(self.bits, "more bits")
        self.bits, drawn = divmod(self.bits, max(1, limit))
        return drawn


def _bytes(line: bytes, draw: _Draw) -> bytes:
    start = draw.below(len(line) + 1)
    end = min(len(line), start + draw.below(12))
    if draw.below(16) == 0:
        return line[:start]
    pieces = (*PIECES, line[end : end + 20])
    return line[:start] + pieces[draw.below(len(pieces))] + line[end:]


def _values(line: bytes, draw: _Draw) -> bytes | None:
    """Return a JSON line with one value changed, or None where the line is no JSON."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    places = list(_places(document))
    if not places:
        return None
    parent, key = places[draw.below(len(places))]
    action = draw.below(8)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif action == 2 and isinstance(parent, dict):
        parent[str(key)[:-1]] = parent.pop(key)
    else:
        parent[key] = VALUES[draw.below(len(VALUES))]
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (list or object, index or key) of every value below."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from _places(item)


def as_values(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield each line as a JSON value: itself where it is one, else a string of its text."""
    for line in lines:
        try:
            json.loads(line)
            yield line.decode("utf-8")
        except (ValueError, RecursionError):
            yield json.dumps(line.decode("utf-8", "replace"))


def outcome(reader: str, source: SourceFolder) -> tuple[int, int]:
    """Read everything and return (examples kept, records aside); an error must be one of the project's own."""
    found = read_all(reader, source).values()
    return sum(len(data.columns) for data in found), sum(len(data.aside) for data in found)


def refuses_only_with_its_own_errors(
    reader: str, root: Path, name: str, content: bytes, number: int, **options: Any
) -> None:
    """Read `number` mutations of a whole file, stopping and skipping: nothing but the project's errors may come out."""
    lines = content.split(b"\n")
    for i in range(number):
        draw = _Draw(derive(i, "whole file"))
        place = draw.below(len(lines))
        changed = [*lines[:place], *mutated([lines[place]], 1, i), *lines[place + 1 :]]
        write(root, {name: b"\n".join(changed[: place + 1] if draw.below(8) == 0 else changed)})
        for on_error in ("stop", "skip"):
            try:
                read_all(reader, folder(root, name.split("/")[0], on_error=on_error, **options))
            except TaskmillError as error:
                str(error).encode("utf-8")
