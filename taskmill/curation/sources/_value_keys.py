"""Parsing the values of a cast (`_values.py` says what they may be): what is wrong with one, and its parsed form."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from taskmill.curation.sources._values import MISSING, Value, map_key
from taskmill.errors import did_you_mean

_T = TypeVar("_T")
TYPES = ("int", "float", "str", "bool")
KEYS = (
    "path",
    "first_of",
    "const",
    "join_of",
    "texts_of",
    "object",
    "none",
    "default",
    "json",
    "where",
    "at_most",
    "spans",
    "columns",
    "split",
    "map",
    "other",
    "classes",
    "labels",
    "remove",
    "extract",
    "type",
    "sort_unique",
    "join",
)
_SOURCES = ("path", "first_of", "const", "join_of", "texts_of", "object")


def parse_value(raw: Any, key: str, problems: list[str]) -> Value:
    """Parse a value of a cast; what is wrong with it is added to `problems` as `key: problem`."""
    if isinstance(raw, str) and raw:
        return Value(paths=(raw,))
    if isinstance(raw, list):
        return Value(items=tuple(parse_value(item, f"{key}[{i}]", problems) for i, item in enumerate(raw)))
    if not isinstance(raw, dict):
        problems.append(f"{key}: found {raw!r}; expected a path, a list of paths or a mapping")
        return Value()
    for name in raw:
        if name not in KEYS:
            hint = did_you_mean(str(name), KEYS) or f"; it may be one of {', '.join(KEYS)}"
            problems.append(f"{key}: unknown key {name!r}{hint}")
    if sum(name in raw for name in _SOURCES) != 1:
        problems.append(
            f"{key}: found {sorted(map(str, raw))}; expected exactly one of path, first_of and const (or join_of, "
            "texts_of or object)"
        )
    joined = "join_of" in raw
    listed = next((name for name in ("join_of", "texts_of") if name in raw), None)
    items = _items(raw, listed, key, problems) if listed else None
    return Value(
        paths=_paths(raw, key, problems),
        items=items,
        flat="texts_of" in raw,
        members=_members(raw["object"], key, problems) if "object" in raw else None,
        const=raw.get("const"),
        none=frozenset(map(map_key, _typed(raw, "none", list, [], key, problems))),
        default=raw.get("default", MISSING),
        json=_typed(raw, "json", bool, False, key, problems),
        where=_where(raw.get("where"), key, problems),
        at_most=_typed(raw, "at_most", int, None, key, problems),
        spans=_typed(raw, "spans", str, None, key, problems),
        columns=_listed(raw, "columns", key, problems) if "columns" in raw else (),
        split=_typed(raw, "split", str, None, key, problems) or None,
        map=_map(raw, key, problems),
        other=raw.get("other", MISSING),
        classes=_classes(raw.get("classes"), key, problems),
        labels=_labels(raw.get("labels"), key, problems),
        remove=_pattern(raw, "remove", 0, key, problems),
        extract=_pattern(raw, "extract", 1, key, problems),
        type=_choice(raw, key, problems),
        sort_unique=_typed(raw, "sort_unique", bool, False, key, problems),
        join=_typed(raw, "join", str, "\n" if joined else None, key, problems),
    )


def _items(raw: dict[str, Any], name: str, key: str, problems: list[str]) -> tuple[Value, ...]:
    found = raw[name]
    if isinstance(found, list) and found:
        return tuple(parse_value(item, f"{key}.{name}[{i}]", problems) for i, item in enumerate(found))
    problems.append(f"{key}.{name}: found {found!r}; expected a list of paths")
    return ()


def _members(found: Any, key: str, problems: list[str]) -> dict[str, Value]:
    if isinstance(found, dict) and found and all(isinstance(name, str) for name in found):
        return {name: parse_value(item, f"{key}.{name}", problems) for name, item in found.items()}
    problems.append(f"{key}.object: found {found!r}; expected a mapping of names to values")
    return {}


def _listed(raw: dict[str, Any], name: str, key: str, problems: list[str]) -> tuple[str, ...]:
    found = raw[name]
    if isinstance(found, list) and found and all(isinstance(path, str) and path for path in found):
        return tuple(found)
    problems.append(f"{key}.{name}: found {found!r}; expected a list of texts")
    return ()


def _typed(
    raw: dict[str, Any], name: str, kind: type, default: _T, key: str, problems: list[str]
) -> Any | _T:
    found = raw.get(name, default)
    if found is not default and not isinstance(found, kind):
        problems.append(f"{key}.{name}: found {found!r}; expected {kind.__name__}")
        return default
    return found


def _paths(raw: dict[str, Any], key: str, problems: list[str]) -> tuple[str, ...]:
    if "first_of" not in raw:
        path = _typed(raw, "path", str, None, key, problems)
        return (path,) if path else ()
    return _listed(raw, "first_of", key, problems)


def _where(found: Any, key: str, problems: list[str]) -> tuple[str, Any] | None:
    if found is None:
        return None
    if isinstance(found, dict) and set(found) == {"path", "equals"} and isinstance(found["path"], str):
        return found["path"], found["equals"]
    problems.append(f"{key}.where: found {found!r}; expected {{path: .., equals: ..}}")
    return None


def _map(raw: dict[str, Any], key: str, problems: list[str]) -> dict[str, Any] | None:
    found = _typed(raw, "map", dict, None, key, problems)
    return None if found is None else {map_key(name): value for name, value in found.items()}


def _classes(found: Any, key: str, problems: list[str]) -> tuple[str, ...] | str | None:
    if found is None or (isinstance(found, str) and found):
        return found
    if isinstance(found, list) and found and all(isinstance(text, str) for text in found):
        return tuple(found)
    problems.append(
        f"{key}.classes: found {found!r}; expected a list of texts (quote yes and no), or the path of one"
    )
    return None


def _labels(found: Any, key: str, problems: list[str]) -> tuple[str, ...] | str | None:
    if found is None or found == "options":
        return "options" if found else None
    if isinstance(found, list) and found and all(isinstance(label, str) for label in found):
        return tuple(found)
    problems.append(
        f"{key}.labels: found {found!r}; expected a list of texts (quote yes and no), or `options`"
    )
    return None


def _pattern(
    raw: dict[str, Any], name: str, num_groups: int, key: str, problems: list[str]
) -> re.Pattern[str] | None:
    text = _typed(raw, name, str, None, key, problems)
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        problems.append(f"{key}.{name}: {text!r} is not a regular expression: {error}")
        return None
    if num_groups and pattern.groups != num_groups:
        problems.append(f"{key}.{name}: {text!r} has {pattern.groups} groups; expected {num_groups}")
        return None
    return pattern


def _choice(raw: dict[str, Any], key: str, problems: list[str]) -> str | None:
    found = raw.get("type")
    if found is None or found in TYPES:
        return found
    hint = did_you_mean(str(found), TYPES)
    problems.append(f"{key}.type: found {found!r}; expected one of {', '.join(TYPES)}{hint}")
    return None
