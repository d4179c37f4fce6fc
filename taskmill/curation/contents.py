"""Contents: the canonical JSON, content hash and id of each record of a task.

Reads the columns of a reader. A record that no table can hold (NaN, half a surrogate pair, no JSON), or whose upstream id
already stands for another record, stops the stage or is kept aside, as the recipe says.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from taskmill.curation.reader import Columns, Encoded
from taskmill.digests import canonical_json, flat_json, is_flat
from taskmill.errors import DataError

_BEFORE_FIELDS, _BEHIND_FIELDS = b'{"fields":', b',"options":'
_START_OF_FIELDS = len(_BEFORE_FIELDS)
_TEXT = frozenset({str})


@dataclass(frozen=True)
class Drop:
    """Why a record is not kept."""

    reason: str
    detail: str
    twin: str | None = None
    raw: str | None = None


@dataclass
class Records:
    """The records of one task, in upstream order."""

    task: str
    columns: Columns
    stops: bool
    """Whether a record that cannot be used stops the stage."""
    fields: list[bytes] = field(default_factory=list)
    """Canonical JSON; empty where the record has a flaw."""
    contents: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """Empty where a record has neither upstream id nor content."""
    dropped: dict[int, Drop] = field(default_factory=dict)

    def kept(self) -> list[int]:
        """Return the places of the records that are still kept, in upstream order."""
        places = range(len(self.columns))
        return [i for i in places if i not in self.dropped] if self.dropped else list(places)


def encode(task: str, columns: Columns, *, stops: bool) -> Records:
    """Give each record its canonical JSON, content hash and id; those that cannot have them are dropped.

    Raises:
        DataError: a record cannot have them, or an upstream id stands for two records, and `stops` is on.
    """
    records = Records(task, columns, stops)
    names_hold = _holds(columns.upstream_id, columns.group, columns.quality)
    made = [encoded for encoded in columns.encoded if encoded is not None]
    if names_hold and len(made) == len(columns) and all(map(is_, (e.options for e in made), columns.options)):
        records.fields = [encoded.fields for encoded in made]
        records.contents = [encoded.content for encoded in made]
        _name(records)
        return records
    whole = zip(columns.fields, columns.options, columns.references, columns.encoded)
    for i, (fields, options, references, encoded) in enumerate(whole):
        try:
            if encoded is None or encoded.options is not options:
                encoded = encode_record(fields, options, references)
            if not names_hold:
                for value in (columns.upstream_id[i], columns.group[i], columns.quality[i]):
                    (value or "").encode()
            records.fields.append(encoded.fields)
            records.contents.append(encoded.content)
        except (TypeError, ValueError, RecursionError):
            records.fields.append(b"")
            records.contents.append(b"")
            _refuse(records, i, *_flaw(_stored(columns, i)))
    _name(records)
    return records


def encode_flat(fields: dict[str, Any], options: list[str] | None, references: list[str]) -> Encoded | None:
    """Return what `encode_record` does of an example without lists and objects in its fields; None asks for that."""
    if not (
        is_flat(fields.values())
        and _TEXT.issuperset(map(type, references))
        and (options is None or _TEXT.issuperset(map(type, options)))
    ):
        return None
    content = flat_json({"fields": fields, "options": options, "references": references})
    if content is None:
        return None
    end = content.rfind(_BEHIND_FIELDS)  # no text can hold it, for JSON escapes quotation marks
    return Encoded(content[_START_OF_FIELDS:end], hashlib.sha256(content).digest(), options)


def encode_record(fields: dict[str, Any], options: list[str] | None, references: list[str]) -> Encoded:
    """Return the canonical JSON of an example's fields, and its content hash.

    Raises:
        TypeError, ValueError, RecursionError: it holds what canonical JSON in UTF-8 cannot.
    """
    flat = encode_flat(fields, options, references)
    if flat is not None:
        return flat
    whole = {"fields": fields, "options": options, "references": references}
    content = canonical_json(whole)
    if not content.isascii():
        content.decode()
    end = content.find(_BEHIND_FIELDS)
    if content.find(_BEHIND_FIELDS, end + 1) < 0:
        encoded = content[_START_OF_FIELDS:end]
    else:  # fields that have such a key themselves
        encoded = canonical_json(fields)
    return Encoded(encoded, hashlib.sha256(content).digest(), options)


def _holds(*columns: list[str | None]) -> bool:
    """Say whether UTF-8 holds every text of these columns."""
    try:
        for column in columns:
            "".join({text for text in column if text and not text.isascii()}).encode()
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _name(records: Records) -> None:
    """Give each record the id `task#upstream id`, else `task#content hash`; equal ones are numbered from 2."""
    columns, prefix = records.columns, f"{records.task}#"
    if not records.dropped:
        named = zip(columns.upstream_id, records.contents)
        bases = [upstream_id or content[:8].hex() for upstream_id, content in named]
        if len(set(bases)) == len(bases):
            records.ids = [prefix + base for base in bases]
            return
    places: dict[str, list[int]] = {}
    for i, upstream_id in enumerate(columns.upstream_id):
        base = upstream_id or records.contents[i].hex()[:16]
        earlier = places.setdefault(base, [])
        if i in records.dropped:
            records.ids.append("")
            continue
        records.ids.append(f"{prefix}{base}-{len(earlier) + 1}" if earlier else prefix + base)
        if upstream_id and earlier:
            _check_repeated_id(records, i, earlier[0])
        if i not in records.dropped:
            earlier.append(i)
    _check_unique(records)


def _check_repeated_id(records: Records, i: int, first: int) -> None:
    """Refuse an upstream id that stands for two different records; equal ones are plain duplicates."""
    if records.contents[i] != records.contents[first]:
        base = records.columns.upstream_id[i]
        where = f"{records.columns.file[first]}, record {records.columns.record[first]}"
        _refuse(records, i, "repeated_id", "", f"the id {base!r} already stands for another record, {where}")


def _check_unique(records: Records) -> None:
    if not records.dropped and len(set(records.ids)) == len(records.ids):
        return
    seen: dict[str, int] = {}
    for i in records.kept():
        if seen.setdefault(records.ids[i], i) != i:
            _refuse(records, i, "repeated_id", "", f"two records would be called {records.ids[i]!r}")


def _refuse(records: Records, i: int, reason: str, path: str, problem: str) -> None:
    """Stop at a record that cannot be used, or keep it aside, as the recipe says.

    Raises:
        DataError: the recipe says stop.
    """
    columns = records.columns
    if records.stops:
        raise DataError(
            problem,
            file=columns.file[i],
            record=columns.record[i],
            field=path or None,
            hint=f"It is in task {records.task}; `--set curate.on_error=skip` keeps such records aside",
        )
    raw = json.dumps(_stored(columns, i), sort_keys=True, default=repr)
    records.dropped[i] = Drop(reason, f"{path}: {problem}" if path else problem, raw=raw)


def _stored(columns: Columns, i: int) -> dict[str, Any]:
    return {
        "fields": columns.fields[i],
        "references": columns.references[i],
        "options": columns.options[i],
        "upstream_id": columns.upstream_id[i],
        "group": columns.group[i],
        "quality": columns.quality[i],
    }


def _flaw(value: Any, path: str = "") -> tuple[str, str, str]:
    """Return (reason, path, problem) of the first part of a record that no table can hold."""
    return next(_flaws(value, path), ("not_json", "", "it is no JSON value, or is nested too deeply"))


def _flaws(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield "not_finite", path, f"the number {value} is no JSON value"
    elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        yield "lone_surrogate", path, "half of a surrogate pair is no Unicode text"
    elif isinstance(value, dict | list) and depth < 100:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str):
                yield from _flaws(key, f"{path} (a key)", depth + 1)
            yield from _flaws(item, f"{path}.{key}" if path else str(key), depth + 1)
    elif value is not None and not isinstance(value, str | int | float | dict | list):
        yield "not_json", path, f"{type(value).__name__} is no JSON value"
