"""Decode an example's fields, alike with and without orjson. Reads and writes nothing."""

from __future__ import annotations

import json
from typing import Any

orjson: Any
try:
    import orjson
except ImportError:
    orjson = None

_MAY_HOLD_FLOATS = frozenset([float, list, dict])
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
"""What a number of 19 digits is behind `_DIGITS`: orjson reads integers beyond 64 bits as floats."""


def decode(fields: str) -> Any:
    """Return the value of a JSON text."""
    if orjson is None:
        return json.loads(fields)
    try:
        value = orjson.loads(fields)
    except ValueError:  # half a surrogate pair, or NaN
        return json.loads(fields)
    if type(value) is dict and _MAY_HOLD_FLOATS.isdisjoint(map(type, value.values())):
        return value
    is_exact = _LONG_NUMBER not in fields.encode().translate(_DIGITS)
    return value if is_exact else json.loads(fields)
