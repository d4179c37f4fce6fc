"""What changed in the sources and settings of two versions of a benchmark. Reads manifests, writes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

ORIGIN = ("path", "hub", "repository", "revision", "license")
"""What a manifest says of a source, beside its files and who reads it."""
READING = ("include", "exclude", "options")
"""What a recipe says of how a source is read."""

Entry = Mapping[str, Any]


def changed_sources(
    before: Sequence[Entry], after: Sequence[Entry], recipe_before: Entry, recipe_after: Entry
) -> list[dict[str, Any]]:
    """Return the sources that differ: {source, change: gone | added | changed, fields, files}.

    A source is known by its benchmark, reader and place; where that fails, by benchmark and reader alone. `fields` are
    {field, before, after}; `files` have the names of those added, gone and changed.
    """
    ours, theirs = _with_reading(before, recipe_before), _with_reading(after, recipe_after)
    found: list[dict[str, Any]] = []
    for old, new in _paired(ours, theirs):
        label = source_label(new or old or {})
        if old is None or new is None:
            side, change = (old, "gone") if new is None else (new, "added")
            names = [file["name"] for file in (side or {}).get("files", [])]
            found.append({"source": label, "change": change, "fields": [], "files": {change: names}})
            continue
        fields = [
            {"field": name, "before": old.get(name), "after": new.get(name)}
            for name in (*ORIGIN, *READING)
            if old.get(name) != new.get(name)
        ]
        files = _changed_files(old.get("files", []), new.get("files", []))
        if fields or files:
            found.append({"source": label, "change": "changed", "fields": fields, "files": files})
    return found


def source_label(entry: Entry) -> str:
    """Return what to call a source: its benchmark and where it lies."""
    return f"{entry.get('benchmark') or entry.get('reader')} ({_place(entry)})"


def _place(entry: Entry) -> str:
    """Return where a source lies, without the commit of a repository."""
    repository = str(entry.get("hub") or "").partition("@")[0]
    path = str(entry.get("path") or ".")
    return path if not repository else repository if path == "." else f"{repository}/{path}"


def _with_reading(entries: Sequence[Entry], recipe: Entry) -> list[Entry]:
    """Add to the manifest's sources what the recipe says of reading them: both have one order."""
    written = recipe.get("sources", [])
    if len(written) != len(entries):
        return list(entries)
    return [
        {**entry, **{name: source.get(name) for name in READING}}
        for entry, source in zip(entries, written, strict=True)
    ]


def _paired(before: Sequence[Entry], after: Sequence[Entry]) -> list[tuple[Entry | None, Entry | None]]:
    """Return the sources of two versions that are the same one, and those that have no counterpart."""
    left = dict(enumerate(after))
    partner: dict[int, Entry] = {}
    for key in (_exact, _loose):
        waiting = defaultdict[Any, list[int]](list)
        for number, entry in left.items():
            waiting[key(entry)].append(number)
        for number, entry in enumerate(before):
            if number not in partner and waiting[key(entry)]:
                partner[number] = left.pop(waiting[key(entry)].pop(0))
    ours: list[tuple[Entry | None, Entry | None]] = [(e, partner.get(i)) for i, e in enumerate(before)]
    return ours + [(None, entry) for entry in left.values()]


def _exact(entry: Entry) -> tuple[Any, ...]:
    return (entry.get("benchmark"), entry.get("reader"), _place(entry))


def _loose(entry: Entry) -> tuple[Any, ...]:
    return (entry.get("benchmark"), entry.get("reader"))


def _changed_files(before: Sequence[Entry], after: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the names of files that were added, are gone, or have other bytes; nothing when all are the same."""
    old = {file["name"]: file["sha256"] for file in before}
    new = {file["name"]: file["sha256"] for file in after}
    kinds = {
        "gone": sorted(old.keys() - new.keys()),
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }
    return {kind: names for kind, names in kinds.items() if names}


def changed_settings(before: Entry, after: Entry) -> list[dict[str, Any]]:
    """Return {setting, before, after} for each value of two recipes that differs, sources apart; null where it is absent."""
    ours, theirs = (leaves({k: v for k, v in recipe.items() if k != "sources"}) for recipe in (before, after))
    return [
        {"setting": name, "before": ours.get(name), "after": theirs.get(name)}
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) or (name in ours) != (name in theirs)
    ]


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted name: value} of what a recipe holds; a list of plain values is one value.

    An entry of a list of objects is known by its `name` where each has another one, else by its number.
    """
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        value = _by_name(value)
    if isinstance(value, Mapping) and value:
        dot = f"{prefix}." if prefix else ""
        return {k: v for key, item in value.items() for k, v in leaves(item, f"{dot}{key}").items()}
    return {prefix: value}


def _by_name(items: Sequence[Any]) -> dict[str, Any]:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if all(isinstance(name, str) for name in names) and max(Counter(names).values()) == 1:
        order = {"order": names} if len(names) > 1 else {}
        return {**{str(name): item for name, item in zip(names, items)}, **order}
    return {str(number): item for number, item in enumerate(items)}
