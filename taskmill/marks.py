"""Combining marks: what a character becomes in a prepared text, and when that depends on the ones beside it.

NFKC of texts end to end is their NFKC forms end to end, except where a mark composes with the character before it or
changes places with another mark (UAX #15). `Joint` says, cautiously, between which characters neither can happen.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

OUTSIDE, INSIDE, ALONE = 0, 1, 2  # no word, a word, or one of an unspaced script, which a space follows
BASE = 4  # may compose with a mark after it
JOINS = 8  # may compose with a character before it
BOUND = 16  # begins with a mark, or may compose


@dataclass(frozen=True, slots=True)
class Change:
    """What a character becomes in a prepared text."""

    text: str
    """With the spaces that end words."""
    marks: str = ""
    """What joins the word before `text`, and vanishes where there is none."""
    flags: int = OUTSIDE
    """OUTSIDE, INSIDE or ALONE: what a mark after it joins; and BASE, JOINS, BOUND."""
    first: int = 0
    """Canonical combining class of the first character."""
    last: int = 0
    """Of the last."""


@dataclass(frozen=True, slots=True)
class Joint:
    """How a text may change together with its neighbours under NFC."""

    first: int
    last: int
    flags: int


@functools.cache
def _composing() -> tuple[frozenset[str], frozenset[str]]:
    """Return the characters that come first and second in a canonical composition, Hangul's aside."""
    pairs = list[str]()
    decompositions = map(unicodedata.decomposition, map(chr, range(0xC0, 0x20000)))
    for code, decomposition in enumerate(decompositions, 0xC0):
        parts = decomposition.split() if decomposition else []
        if len(parts) == 2 and parts[0][0] != "<":
            pair = chr(int(parts[0], 16)) + chr(int(parts[1], 16))
            if unicodedata.normalize("NFC", pair) == chr(code):
                pairs.append(pair)
    return frozenset(pair[0] for pair in pairs), frozenset(pair[1] for pair in pairs)


def joint_of(text: str) -> Joint | None:
    """Return how a text in NFC may change with its neighbours; None where it begins with several marks."""
    firsts, seconds = _composing()
    parts = unicodedata.normalize("NFD", text)
    first, last = unicodedata.combining(parts[0]), unicodedata.combining(parts[-1])
    if first and len(parts) > 1:
        return None
    base = 0 if firsts.isdisjoint(parts + text) else BASE
    joins = 0 if seconds.isdisjoint(parts[0] + text[0]) else JOINS
    return Joint(first, last, base | joins)


@functools.cache
def ascii_flags() -> bytes:
    """Return the flags of the characters of ASCII, as they stand in prepared texts."""
    firsts, _ = _composing()
    return bytes(
        (INSIDE if chr(code).isalnum() else OUTSIDE) | (BASE if chr(code) in firsts else 0)
        for code in range(128)
    )
