"""Names of the harness's tasks and groups: legal, readable, unique.

A name is made of lower-case letters, digits and `_`: the harness reads others as patterns, lists or paths, and files are
named like their tasks. Things whose names come out alike, or too long, get a few digits of a digest each.

>>> unique_names({("a",): ["demo", "0shot", "Word Analogy"]})
{('a',): 'taskmill_demo_0shot_word_analogy'}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from taskmill.storage import digest

PREFIX = "taskmill"
_LONGEST = 120
_UUID = re.compile(r"([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Key = tuple[str | int | bool, ...]


def unique_names(things: Mapping[Key, Sequence[str]]) -> dict[Key, str]:
    """Return a name for every thing; the same one whatever their order.

    Args:
        things: what identifies each, and the parts of its name, of which empty ones are left out.
    """
    plain = {key: _plain(parts) for key, parts in things.items()}
    times = Counter(plain.values())
    return {
        key: name if times[name] == 1 and len(name) <= _LONGEST else file_name(key, things[key])
        for key, name in plain.items()
    }


def file_name(key: Key, parts: Sequence[str]) -> str:
    """Return a name that no other key has, without knowing the others."""
    return f"{_plain(parts)[:_LONGEST]}_{digest(list(key))[:8]}"


def _plain(parts: Sequence[str]) -> str:
    short = [_UUID.sub(r"\1", part.lower()) for part in parts if part]
    return "_".join([PREFIX, *(re.sub(r"[^a-z0-9]+", "_", part).strip("_") for part in short)])
