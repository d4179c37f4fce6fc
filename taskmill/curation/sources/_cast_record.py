"""One upstream record through a cast: the examples that it makes, and the columns of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from taskmill.curation.cast_keys import FILE_SPLITS, SHAPES
from taskmill.curation.casting import Cast
from taskmill.curation.sources._values import Unusable, Value, evaluate, find_path


def scopes_of(
    record: Mapping[str, Any], explode: Sequence[tuple[str, str | tuple[str, ...]]]
) -> Iterator[Mapping[str, Any]]:
    """Yield a record once per element of the lists it explodes along, elements bound to their names."""
    if not explode:
        yield record
        return
    (name, paths), *rest = explode
    single = isinstance(paths, str)
    lists: list[list[Any]] = []
    for path in (paths,) if isinstance(paths, str) else paths:
        items = find_path(record, path)
        if not isinstance(items, list) or (lists and len(items) != len(lists[0])):
            expected = "a list to make examples of" + ("" if single else f", as long as that of {paths[0]!r}")
            raise Unusable("wrong_type", "not such a list", path, items, expected)
        lists.append(items)
    names = [path.split(".")[-1] for path in paths]
    for elements in zip(*lists, strict=True):
        item = elements[0] if single else dict(zip(names, elements, strict=True))
        yield from scopes_of({**record, name: item}, rest)


def cast_record(cast: Cast, scope: Mapping[str, Any], *, keywords: bool) -> dict[str, Any]:
    """Return the columns of one example: fields, references, options, group and upstream_id.

    Raises:
        Unusable: the record lacks a path, or holds something else there.
    """
    fields = {name: evaluate(value, scope, name) for name, value in cast.fields.items()}
    options = None
    if cast.options is not None:
        options = _option_list(evaluate(cast.options, scope, "options"))
    references: list[str] = []
    if cast.references is not None:
        references = _text_list(evaluate(cast.references, scope, "references", options), "references")
    if keywords and cast.keywords:
        fields = {
            name: fields[old] if isinstance(old, str) else evaluate(old, scope, name)
            for name, old in cast.keywords.items()
        }
    if keywords and cast.shape:
        fields |= _shape_texts(fields, cast.shape)
    quality = None if cast.quality is None else evaluate(cast.quality, scope, "quality")
    return {
        "fields": fields,
        "references": references,
        "options": options or None,
        "quality": next(iter(_text_list(quality, "quality")), None),
        "group": _joined(cast.group, scope, "group"),
        "upstream_id": _joined(cast.id, scope, "id"),
    }


def _shape_texts(fields: Mapping[str, Any], shape: str) -> dict[str, str]:
    """Return the fields of a shape as the texts that prompts are made of; a number becomes its text.

    Raises:
        Unusable: one is null, or a list, an object or a truth value.
    """
    needed, allowed = SHAPES[shape]
    texts = {}
    for name in sorted(allowed & fields.keys()):
        found = fields[name]
        if type(found) is str:
            continue
        if found is None and name in needed:
            raise Unusable("missing_field", "null, which no prompt can be made of", name, None, "a text")
        if isinstance(found, (bool, list, dict)):
            expected = 'a text (`join: " "` makes one of a list of texts)'
            raise Unusable("wrong_type", "not text", name, found, expected)
        if isinstance(found, (int, float)) and math.isfinite(found):
            texts[name] = str(found)
    return texts


def _option_list(found: Any) -> list[str]:
    """Return options, whose places are the numbers of labels: what is null or blank may only stand at their end.

    Raises:
        Unusable: an option before the last is null, so that the numbers of those behind it would change.
    """
    listed = list(found) if isinstance(found, list) else [found]
    while listed and (listed[-1] is None or (isinstance(listed[-1], str) and not listed[-1].strip())):
        listed.pop()
    if None in listed:
        raise Unusable("missing_field", "null among the options", "options", found, "a text in each place")
    return _text_list(listed, "options")


def _text_list(found: Any, key: str) -> list[str]:
    """Return texts; null is left out, a number becomes its text. Lists in a list become one of distinct, not blank texts."""
    listed = found if isinstance(found, list) else [found]
    if set(map(type, listed)) <= {str}:
        return list(listed)
    if nested := any(isinstance(item, list) for item in listed):
        listed = [text for item in listed for text in (item if isinstance(item, list) else [item])]
    texts = []
    for item in listed:
        if isinstance(item, (bool, dict, list)):
            expected = "text, a number or null (a cast gives `labels` or `map` for other values)"
            raise Unusable("wrong_type", "not text", key, item, expected)
        if isinstance(item, float) and not math.isfinite(item):
            raise Unusable(
                "not_finite", "NaN or infinite", key, item, "a number (`none: [.nan]` makes NaN null)"
            )
        if item is not None:
            texts.append(str(item))
    return list(dict.fromkeys(text.strip() for text in texts if text.strip())) if nested else texts


def _joined(values: Sequence[Value], scope: Mapping[str, Any], key: str) -> str | None:
    """Return values as one text joined by hyphens, or None where one is missing or null."""
    texts: list[str] = []
    for value in values:
        try:
            found = evaluate(value, scope, key)
        except Unusable:
            return None
        if (
            found is None
            or isinstance(found, (dict, list))
            or (isinstance(found, float) and math.isnan(found))
        ):
            return None
        texts.append(str(found))
    return "-".join(texts) if texts else None


def split_of(value: Value, scope: Mapping[str, Any]) -> str:
    """Return the split that a record states.

    Raises:
        Unusable: it states none that is known.
    """
    found = evaluate(value, scope, "split")
    if found is None:
        return "unlabeled"
    if not isinstance(found, str) or found not in FILE_SPLITS:
        known = ", ".join(FILE_SPLITS)
        expected = f"one of {known} (`split: {{path: .., map: {{..}}}}` names others)"
        raise Unusable("bad_label", "not a split", "split", found, expected)
    return FILE_SPLITS[found]
