"""Segments: the stretches of text that a prompt is made of, and the columns in which they are stored.

Reads and writes nothing. A segment has a text, a kind (`records.SEGMENT_KINDS`) and whether its tokens carry loss; every
objective is a choice of trained segments. A token belongs to the segment in which it starts, so that a segment that
carries loss carries its leading space.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from taskmill.records import SEGMENT_KINDS

_KIND_CODES = {kind: code for code, kind in enumerate(SEGMENT_KINDS)}


class Segment(NamedTuple):
    """A stretch of a prompt."""

    text: str
    kind: str
    """One of records.SEGMENT_KINDS."""
    trained: bool = False
    """Whether its tokens carry loss."""


END = Segment("{eos}", "control", True)
"""What every prompt ends in; tokenize resolves the symbol."""


def encode(segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the columns `text`, `ends` (UTF-8 byte ends), `kinds` and `trained` of a prompt."""
    texts = [segment.text for segment in segments]
    text = "".join(texts)
    lengths = map(len, texts) if text.isascii() else (len(part.encode()) for part in texts)
    return {
        "text": text,
        "ends": list(itertools.accumulate(lengths)),
        "kinds": [_KIND_CODES[segment.kind] for segment in segments],
        "trained": [segment.trained for segment in segments],
    }


def describe_segments(row: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Return (kind, trained, text) of each segment of a row of prompts/prompts."""
    data, start = row["text"].encode(), 0
    described = []
    for end, kind, trained in zip(row["ends"], row["kinds"], row["trained"], strict=True):
        described.append((SEGMENT_KINDS[kind], bool(trained), data[start:end].decode()))
        start = end
    return described
