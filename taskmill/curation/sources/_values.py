"""The values of a cast: where a value stands in an upstream record and how it is turned into JSON or text.

A value is a path (`passage.text`, `answers.0.text`, `answers.*.text` for all), a list of values, or a mapping:

    path: label            where it stands; or `first_of: [paths]`, or `const: any JSON value`, or `join_of: [paths]`
    none: ["-", -1.0]      upstream values that stand for null
    default: -1            instead of a missing or null value
    json: true             a text -> the JSON value that it holds; a blank text is null
    where: {path: kinds, equals: 3}   of a list, the elements at whose places the list at `path` has this value
    at_most: 3             of a list, the first elements
    spans: passage.text    `path` lists {start, end}, end included; gives these pieces of the text
    columns: [text, start] a list of objects, or of lists of that many, -> one object of lists; such an object stays as it is
    split: ", "            a text -> the texts between these separators
    map: {no: 0, yes: 1}   upstream value -> value; `other: value` for all that it does not name
    classes: [no, yes]     text of a label -> its number, a number stays; none is -1; or the path of the list of texts
    labels: [no, yes]      number of a label -> its text; -1 and null give null; `options`: the example's own options
    remove: REGEX          cut out of the text; `extract: REGEX` keeps its only group
    type: int              int, float, str or bool
    sort_unique: true      of a list of texts
    join: "\n"             a list of texts -> one text; `join_of` is joined by line feeds unless this says otherwise;
                           an object -> its texts and numbers that are not blank as one text; a list of these: each

`{texts_of: [values]}` is the list of all texts there that are not blank. `{object: {name: value}}` makes an object. A list is
mapped, classed, labelled, cut and typed element by element.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from taskmill.errors import did_you_mean, shorten

MISSING = object()


class Unusable(Exception):
    """A record that a value cannot be taken from; always turned into a DataError or Aside by the caller."""

    def __init__(self, reason: str, problem: str, field: str, value: Any = None, expected: str | None = None):
        """As in Aside and DataError."""
        super().__init__(problem)
        self.reason, self.problem, self.field = reason, problem, field
        self.value, self.expected = value, expected


@dataclass(frozen=True)
class Value:
    """A parsed value of a cast."""

    paths: tuple[str, ...] = ()
    """The first that exists is taken; none: see `items` and `const`."""
    items: tuple[Value, ...] | None = None
    flat: bool = False
    """Of `texts_of`: lists among the items become one list of distinct texts that are not blank."""
    members: Mapping[str, Value] | None = None
    """Of `object`."""
    const: Any = None
    none: frozenset[str] = frozenset()
    default: Any = MISSING
    json: bool = False
    where: tuple[str, Any] | None = None
    at_most: int | None = None
    spans: str | None = None
    columns: tuple[str, ...] = ()
    split: str | None = None
    map: Mapping[str, Any] | None = None
    other: Any = MISSING
    classes: tuple[str, ...] | str | None = None
    """Texts, or the path of the list of texts."""
    labels: tuple[str, ...] | str | None = None
    remove: re.Pattern[str] | None = None
    extract: re.Pattern[str] | None = None
    type: str | None = None
    sort_unique: bool = False
    join: str | None = None

    @property
    def has_default(self) -> bool:
        """Whether a missing value is replaced."""
        return self.default is not MISSING

    @functools.cached_property
    def is_bare(self) -> bool:
        """Whether it is what stands at its paths, or its default or constant, as it is."""
        looks = (self.json, self.where, self.at_most, self.spans, self.split, self.join)
        apart = self.members is not None or self.items is not None
        return looks == (False, None, None, None, None, None) and not (
            apart or self.columns or self.sort_unique or self.converts
        )

    @functools.cached_property
    def converts(self) -> bool:
        """Whether `_convert` changes anything."""
        changes = (self.map, self.classes, self.labels, self.remove, self.extract, self.type)
        return any(change is not None for change in changes)


def map_key(value: Any) -> str:
    """Return the form in which upstream values and the keys of a map meet: JSON text, strings bare."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def find_path(scope: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path.

    Raises:
        Unusable: a key or place on the way does not exist.
    """
    found = _look_up(scope, path)
    if found is MISSING:
        raise Unusable("missing_field", f"there is no {path!r}; {_what_is_there(scope, path)}", path)
    return found


def _what_is_there(scope: Mapping[str, Any], path: str) -> str:
    """Say how far a path leads, and what the record has there."""
    steps = _steps(path)
    place, inside = 0, cast(Any, scope)
    while (deeper := _step(inside, steps[place:])) is not MISSING:
        place, inside = place + 1, deeper
    where = repr(".".join(steps[:place])) if place else "the record"
    if isinstance(inside, Mapping):
        names = sorted(map(str, inside))
        return f"{where} has {', '.join(names)}{did_you_mean(steps[place], names)}"
    if isinstance(inside, list):
        return f"{where} is a list of {len(inside)} (`*` takes all of its elements, a number one)"
    return f"{where} is {shorten(inside, 40)}"


def _look_up(scope: Mapping[str, Any], path: str) -> Any:
    return scope[path] if path in scope else _find(scope, _steps(path))


@functools.lru_cache(maxsize=4096)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _step(value: Any, steps: tuple[str, ...]) -> Any:
    """Return where the first step leads: of a list, to the first element where the others do not lead on."""
    if steps[0] != "*" or not isinstance(value, list):
        return _find(value, steps[:1])
    return next((item for item in value if _find(item, steps[1:]) is MISSING), MISSING)


def _find(value: Any, steps: tuple[str, ...]) -> Any:
    for place, step in enumerate(steps):
        if step == "*":
            if not isinstance(value, list):
                return MISSING
            found = [_find(item, steps[place + 1 :]) for item in value]
            return MISSING if any(item is MISSING for item in found) else found
        if (type(value) is dict or isinstance(value, Mapping)) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def evaluate(value: Value, scope: Mapping[str, Any], key: str, options: list[str] | None = None) -> Any:
    """Return a value of a record; `key` names it in messages, `options` are the example's.

    Raises:
        Unusable: the record lacks it or holds something else.
    """
    if value.is_bare:
        return locate(value, scope)
    if value.members is not None:
        return {name: evaluate(item, scope, f"{key}.{name}", options) for name, item in value.members.items()}
    if value.items is not None:
        found: Any = [evaluate(item, scope, f"{key}[{i}]", options) for i, item in enumerate(value.items)]
        found = _flat(found, key) if value.flat else found
        return found if value.join is None else _joined(found, value.join, key)
    found = _wanted(value, locate(value, scope), scope, key)
    if value.spans is not None:
        found = _cut(found, find_path(scope, value.spans), key)
    if value.columns and found is not None:
        return _to_columns(found, value.columns, key)
    if value.split is not None and isinstance(found, str):
        found = found.split(value.split)
    if value.converts:
        classes = _class_names(value, scope, key)
        if isinstance(found, list):
            found = [_convert(value, item, key, options, classes) for item in found]
        else:
            found = _convert(value, found, key, options, classes)
    if value.sort_unique:
        found = _sorted(found, key)
    return found if value.join is None or found is None else _joined(found, value.join, key)


def _class_names(value: Value, scope: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """Return the texts whose places are the numbers of labels, as the cast or the record lists them."""
    if not isinstance(value.classes, str):
        return value.classes
    found = find_path(scope, value.classes)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unusable("wrong_type", "not a list of texts", value.classes, found, "the texts of labels")
    return tuple(found)


def _wanted(value: Value, found: Any, scope: Mapping[str, Any], key: str) -> Any:
    """Parse a text that is JSON, and keep the elements of a list that are wanted."""
    if value.json and isinstance(found, str):
        try:
            found = json.loads(found) if found.strip() else None
        except (ValueError, RecursionError) as error:
            raise Unusable("bad_json", f"not valid JSON: {error}", key, found, "JSON in a text") from error
    if value.where is not None and found is not None:
        beside = find_path(scope, value.where[0])
        if not isinstance(found, list) or not isinstance(beside, list) or len(found) != len(beside):
            expected = f"a list as long as that at {value.where[0]!r}"
            raise Unusable("wrong_type", "not lists of one length", key, found, expected)
        found = [item for item, kind in zip(found, beside, strict=True) if kind == value.where[1]]
    return found[: value.at_most] if value.at_most is not None and isinstance(found, list) else found


def _flat(found: list[Any], key: str) -> list[str]:
    """Return the distinct texts that are not blank of a list of texts, nulls and lists of them."""
    listed = [text for item in found for text in (item if isinstance(item, list) else [item])]
    if not all(isinstance(text, str | None) for text in listed):
        raise Unusable("wrong_type", "not texts", key, found, "texts, or lists of texts")
    return list(dict.fromkeys(text for text in listed if text and text.strip()))


def _joined(found: Any, separator: str, key: str) -> Any:
    """Return texts as one; null is left out, and so is what is blank in an object."""
    if isinstance(found, list) and any(isinstance(item, (dict, list)) for item in found):
        return [_joined(item, separator, f"{key}[{i}]") for i, item in enumerate(found)]
    if isinstance(found, dict):
        scalars = [v for v in found.values() if v is not None and not isinstance(v, (bool, dict, list))]
        found = [text for text in map(str, scalars) if text.strip()]
    if not isinstance(found, list) or not all(isinstance(item, str | None) for item in found):
        raise Unusable("wrong_type", "not a list of texts", key, found, "a list of strings")
    return separator.join(item for item in found if item is not None)


def _to_columns(found: Any, names: tuple[str, ...], key: str) -> dict[str, list[Any]]:
    """Return one object of lists of one length, made of a list of objects where it is not one already."""
    columns: dict[str, Any] = {}
    if isinstance(found, Mapping):
        columns = {name: found.get(name) for name in names}
    elif isinstance(found, list) and all(
        isinstance(item, Mapping) and all(name in item for name in names) for item in found
    ):
        columns = {name: [item[name] for item in found] for name in names}
    elif isinstance(found, list) and all(
        isinstance(item, list) and len(item) == len(names) for item in found
    ):
        columns = {name: [item[place] for item in found] for place, name in enumerate(names)}
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        expected = f"a list of objects with {', '.join(names)}, or an object of such lists of one length"
        raise Unusable("wrong_type", "not columns", key, found, expected)
    return columns


def locate(value: Value, scope: Mapping[str, Any]) -> Any:
    """Return what stands at the first of a value's paths that exists, or its default or constant.

    Raises:
        Unusable: none exists and there is no default.
    """
    found = value.const
    for path in value.paths:
        found = _look_up(scope, path)
        if found is not MISSING:
            break
    if value.none and not isinstance(found, (dict, list)) and found is not MISSING:
        found = None if map_key(found) in value.none else found
    if value.default is not MISSING and (found is MISSING or found is None):
        return value.default
    return find_path(scope, value.paths[0]) if found is MISSING else found


def _cut(spans: Any, text: Any, key: str) -> list[str]:
    """Return the pieces of a text that {start, end} spans name, ends included."""
    expected = "a list of {start, end} places within the text"
    if not isinstance(spans, list) or not isinstance(text, str):
        raise Unusable("wrong_type", "not spans of a text", key, spans, expected)
    pieces = []
    for span in spans:
        start, end = (span.get(name) if isinstance(span, dict) else None for name in ("start", "end"))
        if not (_is_int(start) and _is_int(end) and 0 <= start <= end < len(text)):  # type: ignore[operator]
            raise Unusable("wrong_type", "not a span of the text", key, span, expected)
        pieces.append(text[start : end + 1])  # type: ignore[operator]
    return pieces


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sorted(found: Any, key: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unusable("wrong_type", "not a list of texts", key, found, "a list of strings")
    return sorted(set(found))


def _convert(
    value: Value, found: Any, key: str, options: list[str] | None, classes: tuple[str, ...] | None
) -> Any:
    """Map, class, label, cut and type a single value; null stays null."""
    if found is None:
        return None
    if value.map is not None:
        name = map_key(found)
        if name not in value.map and value.other is MISSING:
            expected = f"one of {', '.join(value.map)}"
            raise Unusable("bad_label", "not a value that the cast maps", key, found, expected)
        found = value.map.get(name, value.other)
    if classes is not None and found is not None:
        found = _class(classes, found, key)
    if value.labels is not None and found is not None:
        own = value.labels == "options"
        found = _label(tuple(options or ()) if own else value.labels, found, key, own=own)
    if value.remove is not None or value.extract is not None:
        found = _match(value, found, key)
    return found if value.type is None or found is None else _typed_as(value.type, found, key)


def _class(classes: tuple[str, ...], found: Any, key: str) -> int:
    """Return the number of a label given as text, number or truth value; an empty text and -1 are no label."""
    if isinstance(found, str) and found in classes:
        return classes.index(found)
    number = -1 if found == "" else _number(found)
    if number is None or not -1 <= number < len(classes):
        expected = f"one of {', '.join(classes)}, or a number below {len(classes)}"
        raise Unusable("bad_label", "not a label", key, found, expected)
    return number


def _number(found: Any) -> int | None:
    """Return a small whole number given as number, truth value or text; 1.0 is what a column with gaps makes of 1."""
    if type(found) is int and -1_000_000 < found < 1_000_000:
        return found
    whole = isinstance(found, bool) or re.fullmatch(r"-?[0-9]{1,6}(\.0)?", str(found))
    return int(float(found)) if whole else None


def _label(labels: tuple[str, ...] | str, found: Any, key: str, *, own: bool = False) -> str | None:
    """Return the text of a label given as number, truth value or text; an empty text and -1 are no label.

    A text that is both a label and a number is the label; among an example's `own` options, which may be numbers, it is
    the number of one.
    """
    is_label = isinstance(found, str) and found in labels
    number = -1 if found == "" else _number(found)
    is_place = number is not None and 0 <= number < len(labels)
    if is_label and not (own and is_place):
        return str(found)
    if number == -1:
        return None
    if number is None or not is_place:
        expected = f"a number below {len(labels)}, -1, or one of {', '.join(labels)}"
        raise Unusable("bad_label", "not a label", key, found, expected)
    return labels[number]


def _match(value: Value, found: Any, key: str) -> str:
    if not isinstance(found, str):
        raise Unusable("wrong_type", "not text", key, found, "a string")
    if value.remove is not None:
        found = value.remove.sub("", found)
    if value.extract is None:
        return str(found)
    match = value.extract.search(found)
    if match is None or match[1] is None:
        raise Unusable(
            "no_match", "the text does not match", key, found, f"a text with {value.extract.pattern!r}"
        )
    return match[1].strip()


def _typed_as(kind: str, found: Any, key: str) -> Any:
    """Convert between numbers, truth values and their texts, where nothing is lost."""
    if type(found) is int and kind in ("int", "str") and abs(found) < 10**18:
        return found if kind == "int" else str(found)
    text = found if isinstance(found, str) else json.dumps(found, default=str)
    if kind == "str" and not isinstance(found, (dict, list)):
        return text
    if kind == "int" and isinstance(found, bool):
        return int(found)
    if kind == "int" and re.fullmatch(r"[+-]?\d{1,18}(\.0+)?", text):
        return int(text.split(".")[0])
    if (
        kind == "float"
        and not isinstance(found, bool)
        and re.fullmatch(r"[+-]?(\d{1,300}\.?\d*|\.\d+)", text)
    ):
        return float(text)
    if kind == "bool" and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    raise Unusable("wrong_type", f"cannot be read as {kind}", key, found, f"a value of type {kind}")
