"""Where the records of a JSON document stand in its text, so that a copy can leave some out.

Reads a text, returns spans.

    >>> record_spans('{"rows": [{"a": 1},  {"a": 2}]}', None, "x.json")
    [(10, 18, {'a': 1}), (21, 29, {'a': 2})]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from taskmill.curation.sources._files import FileError
from taskmill.errors import did_you_mean

_SPACE = " \t\r\n"
_decoder = json.JSONDecoder()


def _list_at(text: str, records: str | None, name: str) -> int:
    """Return where in a JSON document the list of records begins.

    Raises:
        ValueError: the document is not JSON.
        FileError: there is no such list.
    """
    start = _skip(text, 0)
    for key in records.split(".") if records else ():
        items = (
            {key: (at, value) for key, at, value in _items(text, start)}
            if text[start : start + 1] == "{"
            else {}
        )
        if key not in items:
            problem = f"there is no list {records!r}{did_you_mean(key, items)}"
            raise FileError("missing_field", problem, file=name, expected=f"one of {sorted(items)}")
        start = items[key][0]
    if text[start : start + 1] == "{" and not records:
        lists = {key: (len(value), at) for key, at, value in _items(text, start) if _is_records(value)}
        if len(lists) != 1:
            problem, expected = "the document is not a list", "a list of records, or one in an object"
            longest = max(lists, key=lambda name: lists[name], default=None)
            hint = None if longest is None else f"`--records {longest!r}` takes one of {sorted(lists)}"
            raise FileError("wrong_type", problem, file=name, expected=expected, hint=hint)
        _, start = next(iter(lists.values()))
    if text[start : start + 1] != "[":
        _decoder.raw_decode(text, start)
        raise FileError("wrong_type", "the document is not a list", file=name, expected="a list of records")
    return start


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


def _items(text: str, start: int) -> Iterator[tuple[str, int, Any]]:
    """Yield (key, where its value begins, value) of the object that begins at `start`."""
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError(f"expected a key and a colon at character {at}")
        begin = _skip(text, at + 1)
        value, at = _decoder.raw_decode(text, begin)
        yield key, begin, value
        at = _next(text, at, "}")


def record_spans(text: str, records: str | None, name: str) -> list[tuple[int, int, Any]]:
    """Return (start, end, value) of each record of a JSON document.

    Args:
        text: the document.
        records: dotted path of the list of records; by default the document itself, or the only list of objects in it.
        name: what messages call the file.

    Raises:
        ValueError: the document is not JSON.
        FileError: there is no such list.
    """
    start = _list_at(text, records, name)
    spans = []
    at = _skip(text, start + 1)
    while text[at : at + 1] != "]":
        value, end = _decoder.raw_decode(text, at)
        spans.append((at, end, value))
        at = _next(text, end, "]")
    json.loads(text[:start] + "[]" + text[at + 1 :])
    return spans


def _next(text: str, at: int, closing: str) -> int:
    """Return where the next item begins, or the closing bracket stands."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    if text[at : at + 1] != ",":
        raise ValueError(f"expected ',' or {closing!r} at character {at}")
    at = _skip(text, at + 1)
    if text[at : at + 1] == closing:
        raise ValueError(f"a comma before {closing!r} at character {at}")
    return at
