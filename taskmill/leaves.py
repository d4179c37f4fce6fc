"""The texts inside a JSON value, and which of an example's are its input and which its output.

>>> text_leaves({"b": ["x", 2], "a": None})
[('b.0', 'x'), ('b.1', '2')]
>>> leaves_by_side({"turns": [{"user": "Hello?"}, {"assistant": "Hi."}]}, ("turns.assistant",))
(['Hello?'], ['Hi.'])
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

_ONLY_TEXT = {str}


def text_leaves(value: object, path: str = "") -> list[tuple[str, str]]:
    """Return (path, text) of every string and number in a JSON value: keys sorted, lists in order.

    A path joins keys and places in lists with dots ("passage.text", "choices.0"); that of a bare value is `path`.
    A number becomes its JSON text; booleans and null are skipped. Raises TypeError for what is not JSON.
    """
    if isinstance(value, str):
        return [(path, value)]
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, int | float):
        return [(path, json.dumps(value))]
    if not isinstance(value, dict | list):
        raise TypeError(f"{path or 'value'}: expected a JSON value, got {type(value).__name__}")
    items = sorted(value.items()) if isinstance(value, dict) else enumerate(value)
    return [leaf for key, item in items for leaf in text_leaves(item, f"{path}.{key}" if path else str(key))]


def is_output(path: str, output_fields: Sequence[str]) -> bool:
    """Say whether a leaf's path lies under one of `output_fields`; places in lists may be left out of these."""
    plain = ".".join(part for part in path.split(".") if not part.isdigit())
    return any(f"{p}.".startswith(f"{field}.") for p in (path, plain) for field in output_fields)


def leaves_by_side(fields: Any, output_fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts outside and those under `output_fields`, each in the order of `text_leaves`."""
    inputs, outputs = list[str](), list[str]()
    if type(fields) is not dict:
        for path, text in text_leaves(fields):
            (outputs if is_output(path, output_fields) else inputs).append(text)
        return inputs, outputs
    for name in sorted(fields):
        value = fields[name]
        if type(value) is str and "." not in name:  # what `is_output` says of such a path, in less time
            (outputs if name in output_fields else inputs).append(value)
        elif value is not None:
            for path, text in text_leaves(value, name):
                (outputs if output_fields and is_output(path, output_fields) else inputs).append(text)
    return inputs, outputs


def sides_reader(output_fields: Sequence[str]) -> Callable[[Any], tuple[list[str], list[str]]]:
    """Return a function that does what `leaves_by_side` does, in less time for many examples with the same fields."""
    known: dict[tuple[str, ...], tuple[list[str], list[str]] | None] = {}

    def read(fields: Any) -> tuple[list[str], list[str]]:
        if type(fields) is dict and set(map(type, fields.values())) == _ONLY_TEXT:
            names = tuple(fields)
            if names not in known:
                known[names] = _names_by_side(names, output_fields)
            sides = known[names]
            if sides is not None:
                return [fields[name] for name in sides[0]], [fields[name] for name in sides[1]]
        return leaves_by_side(fields, output_fields)

    return read


def _names_by_side(
    names: tuple[str, ...], output_fields: Sequence[str]
) -> tuple[list[str], list[str]] | None:
    """Return the names of the input and of the output, sorted; None where one looks like a path."""
    if any("." in name for name in names):
        return None
    inputs = [name for name in sorted(names) if name not in output_fields]
    return inputs, [name for name in sorted(names) if name in output_fields]
