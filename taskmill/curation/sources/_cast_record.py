"""One upstream record through a cast: the examples that it makes, and the columns of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from taskmill.curation.cast_keys import FILE_SPLITS
from taskmill.curation.casting import Cast
from taskmill.curation.sources._values import Unusable, Value, evaluate, find_path, locate
from taskmill.shapes import SHAPES

Getter = Callable[[Mapping[str, Any], list[str] | None], Any]
"""Of a record and its example's options."""
_TEXT = frozenset({str})
_SCALARS = frozenset({str, int, bool})
_LONGEST_LABEL, _MOST_LABELS = 64, 4096
"""Characters of a value, and values, that are remembered."""


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


def caster(cast: Cast, *, keywords: bool) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the function that makes of a record the columns of one example, or raises Unusable.

    The columns are fields, references, options, quality, group and upstream_id. With `keywords`, fields are called as the
    cast's shape says.
    """
    own = [(name, getter(value, name)) for name, value in cast.fields.items()]
    called = [
        (name, old if isinstance(old, str) else getter(old, name)) for name, old in cast.keywords.items()
    ]
    options_of = getter(cast.options, "options") if cast.options is not None else None
    references_of = getter(cast.references, "references") if cast.references is not None else None
    quality_of = getter(cast.quality, "quality") if cast.quality is not None else None
    groups = [getter(value, "group") for value in cast.group]
    ids = [getter(value, "id") for value in cast.id]
    shape = cast.shape if keywords else None

    def example_of(scope: Mapping[str, Any]) -> dict[str, Any]:
        fields = {name: get(scope, None) for name, get in own}
        options = _option_list(options_of(scope, None)) if options_of else None
        references = _text_list(references_of(scope, options), "references") if references_of else []
        if keywords and called:
            fields = {name: fields[old] if isinstance(old, str) else old(scope, None) for name, old in called}
        if shape and not _TEXT.issuperset(map(type, fields.values())):
            fields |= _shape_texts(fields, shape)
        quality = None
        if quality_of:
            quality = next(iter(_text_list(quality_of(scope, None), "quality")), None)
        return {
            "fields": fields,
            "references": references,
            "options": options or None,
            "quality": quality,
            "group": _joined(groups, scope),
            "upstream_id": _joined(ids, scope),
        }

    return example_of


# ------------------------------------------------------------------- values of one cast, made ready once


def getter(value: Value, key: str) -> Getter:
    """Return the function of a record and its options that `evaluate` is for one value, with the common ways cut short."""
    locate_value = _locator(value)
    if value.is_bare:
        return lambda scope, options: locate_value(scope)
    if value.items is not None and value.join is not None and not value.flat:
        return _joiner(value, key, value.join, value.items)
    if _maps_single(value):
        return _memo(value, key, locate_value)
    return lambda scope, options: evaluate(value, scope, key, options)


def _locator(value: Value) -> Callable[[Mapping[str, Any]], Any]:
    """Return `locate` of one value."""
    path = value.paths[0] if len(value.paths) == 1 else ""
    steps = path.split(".")
    if not path or "*" in steps or value.none:
        return lambda scope: locate(value, scope)

    def locate_path(scope: Mapping[str, Any]) -> Any:
        found: Any = scope
        if path in scope:
            found = scope[path]
        else:
            for step in steps:
                if type(found) is not dict or step not in found:
                    return locate(value, scope)
                found = found[step]
        return locate(value, scope) if found is None else found

    return locate_path


def _joiner(value: Value, key: str, join: str, items: tuple[Value, ...]) -> Getter:
    parts = [getter(item, f"{key}[{i}]") for i, item in enumerate(items)]

    def join_parts(scope: Mapping[str, Any], options: list[str] | None) -> Any:
        texts = [get(scope, options) for get in parts]
        if _TEXT.issuperset(map(type, texts)):
            return join.join(texts)
        return evaluate(value, scope, key, options)

    return join_parts


def _maps_single(value: Value) -> bool:
    """Say whether a value is made of the single one at its paths and of nothing else."""
    looks = (value.where, value.spans, value.split, value.members, value.items, value.remove, value.extract)
    beside = isinstance(value.classes, str) or isinstance(value.labels, str)
    return value.converts and looks == (None,) * len(looks) and not (beside or value.json or value.columns)


def _memo(value: Value, key: str, locate_value: Callable[[Mapping[str, Any]], Any]) -> Getter:
    """Return a getter that remembers what labels, classes and other short values become."""
    known: dict[tuple[type, Any], Any] = {}

    def recall(scope: Mapping[str, Any], options: list[str] | None) -> Any:
        found = locate_value(scope)
        kind = type(found)
        if kind not in _SCALARS or (kind is str and len(found) > _LONGEST_LABEL):
            return evaluate(value, scope, key, options)
        name = kind, found
        if name in known:
            return known[name]
        made = evaluate(value, scope, key, options)
        if len(known) < _MOST_LABELS:
            known[name] = made
        return made

    return recall


def _shape_texts(fields: Mapping[str, Any], shape: str) -> dict[str, str]:
    """Return the fields of a shape as the texts that prompts are made of; a number becomes its text.

    Raises:
        Unusable: one is null, or a list, an object or a truth value.
    """
    needed = SHAPES[shape].needs
    texts = {}
    for name in sorted(SHAPES[shape].fields):
        if name not in fields:
            continue
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
    if _TEXT.issuperset(map(type, listed)):
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


def _joined(getters: Sequence[Getter], scope: Mapping[str, Any]) -> str | None:
    """Return values as one text joined by hyphens, or None where one is missing or null."""
    texts: list[str] = []
    for get in getters:
        try:
            found = get(scope, None)
        except Unusable:
            return None
        if (
            found is None
            or isinstance(found, (dict, list))
            or (isinstance(found, float) and math.isnan(found))
        ):
            return None
        texts.append(found if type(found) is str else str(found))
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
