"""The two sides of an example: what a model reads and what it must answer, before any template.

Reads the columns `fields`, `references` and `options` of examples and the `output_fields` of their task; writes nothing.

    >>> sides({"question": "Is it?", "label": 1}, ["yes"], ["no", "yes"], ("label",))
    (['Is it?', 'no', 'yes'], ['yes', '1'])
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.leaves import is_output as is_output
from taskmill.leaves import leaves_by_side
from taskmill.text import short_key

orjson: Any
try:
    import orjson
except ImportError:
    orjson = None

INPUT, OUTPUT = 1, 2
"""Bits of a mask of sides."""
SIDE_NAMES = {INPUT: "input", OUTPUT: "output", INPUT | OUTPUT: "both"}


def sides(
    fields: Any, references: Sequence[str], options: Sequence[str] | None, output_fields: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the texts of the input and of the output, in the order of `text_leaves`.

    Input: fields outside `output_fields`, then options. Output: references, then fields under `output_fields`. They stay
    apart, because a window of words that runs from one into the next is nobody's sentence: a list of options behind
    every question would make questions with the same last word look alike.
    """
    inputs, outputs = leaves_by_side(fields, output_fields)
    return [*inputs, *(options or ())], [*references, *outputs]


def outputs(references: Sequence[str], output_text: str) -> set[int]:
    """Return a 64-bit key of the whole output and of each reference; examples agree when these sets meet."""
    return {key for text in (*references, output_text) if (key := _output_key(text)) is not None}


@functools.lru_cache(maxsize=1 << 14)
def _output_key(text: str) -> int | None:
    key = short_key([text])[:8]
    return None if key == _NO_WORD else int.from_bytes(key, "little", signed=True)


_NO_WORD = short_key([])[:8]
_LONG_NUMBER = "[0-9]{19}"
"""What may be an integer beyond 64 bits, which orjson reads as a float."""


def parse_fields(column: pa.Array) -> list[Any]:
    """Parse a column of JSON as this package writes it, alike with and without orjson."""
    texts = column.to_pylist()
    if orjson is None:
        return list(map(json.loads, texts))
    long = pc.match_substring_regex(column, _LONG_NUMBER).to_pylist()
    return [json.loads(text) if rare else _parse(text) for text, rare in zip(texts, long)]


def _parse(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:  # half a surrogate pair
        return json.loads(text)


def is_labelled(fields: Any, references: Sequence[str], output_fields: Sequence[str]) -> bool:
    """Say whether an example carries an answer: a reference, or an output field that is there and not -1."""
    if any(reference.strip() for reference in references):
        return True
    return any(_is_present(_at(fields, field.split("."))) for field in output_fields)


def _at(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    if isinstance(value, list):
        if path[0].isdigit() and int(path[0]) < len(value):
            return _at(value[int(path[0])], path[1:])
        return [_at(item, path) for item in value]
    return _at(value.get(path[0]), path[1:]) if isinstance(value, dict) else None


def _is_present(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_present(item) for item in value.values())
    if isinstance(value, list):
        return any(_is_present(item) for item in value)
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and (isinstance(value, bool) or value != -1)
