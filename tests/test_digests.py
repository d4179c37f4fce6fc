"""Canonical JSON is one text, whoever writes it."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import digests
from taskmill.digests import canonical_json

TEXTS = st.text(max_size=12) | st.text(
    st.sampled_from('\x00\x1f\x7f"\\/\u2028\u2029é\ud800\udfff\ue000\ufffe𐀀\t\n'), max_size=6
)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.integers(2**63 - 2, 2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def plain(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=600)
@given(VALUES)
def test_it_is_what_json_writes_with_and_without_orjson(value: Any) -> None:
    assert canonical_json(value) == plain(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digests, "orjson", None)
        assert canonical_json(value) == plain(value)


@pytest.mark.parametrize("with_orjson", [True, False])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({1: "x"}, TypeError),
        ({"a": [{None: 1}]}, TypeError),
        ({"a": float("nan")}, ValueError),
        ([float("inf")], ValueError),
        (b"x", TypeError),
        ({"a": {1, 2}}, TypeError),
        (datetime.date(2020, 1, 1), TypeError),
        ([uuid.UUID(int=1)], TypeError),
        ({"a": enum.Enum("E", "x")["x"]}, TypeError),
    ],
)
def test_what_json_cannot_hold_is_refused(
    value: Any, error: type[Exception], with_orjson: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_orjson:
        monkeypatch.setattr(digests, "orjson", None)
    with pytest.raises(error):
        canonical_json(value)


def test_deep_values_are_the_same_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    assert canonical_json(nested) == b"[" * 301 + b"]" * 301
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RecursionError):
        canonical_json(nested)


def test_tuples_are_lists_and_keys_are_sorted_by_code_point() -> None:
    assert canonical_json({"b": (1, "x"), "a": None}) == b'{"a":null,"b":[1,"x"]}'
    assert list(json.loads(canonical_json({"𐀀": 1, "\ue000": 2, "Z": 3, "a": 4}))) == [
        "Z",
        "a",
        "\ue000",
        "𐀀",
    ]
