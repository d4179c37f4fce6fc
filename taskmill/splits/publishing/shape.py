"""The shape of a published benchmark's manifest: what is where in it, and that no file it names lies outside of its folder.

Whoever writes a manifest can write its digest too, so that a digest says nothing about who wrote it: everything that is read from
elsewhere is looked at before it is used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from taskmill.errors import shorten

_MOST = 2**63
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TEXT, _NUMBER, _SHARE, _ANY = str, int, float, object
_MAYBE = (str, None)
_COUNTS = {str: _NUMBER}
_UPSTREAM_FILE = {"name": _TEXT, "bytes": _NUMBER, "sha256": _TEXT, "records": _NUMBER}
_FILE = {"path": _TEXT, "num_rows": _NUMBER, "bytes": _NUMBER, "sha256": _TEXT, "rows": _TEXT}
SHAPE: dict[str, Any] = {
    "name": _TEXT,
    "root": _TEXT,
    "prompts_root": _MAYBE,
    "mode": _TEXT,
    "taskmill": {"version": _TEXT, "revisions": _COUNTS},
    "built": _TEXT,
    "built_with": {"python": _TEXT, "libraries": {str: _TEXT}},
    "seed": _NUMBER,
    "recipe": {"sources": [{str: _ANY}]},
    "recipe_digest": _TEXT,
    "extends": ({"name": _TEXT, "root": _TEXT}, None),
    "sources": [
        {
            **dict.fromkeys(("source", "reader", "benchmark", "path"), _TEXT),
            **dict.fromkeys(("hub", "repository", "revision", "license"), _MAYBE),
            "missing": bool,
            "files": [_UPSTREAM_FILE],
        }
    ],
    "levels": {str: _COUNTS},
    "tasks": _COUNTS,
    "languages": [_TEXT],
    "categories": [_TEXT],
    "leakage": {
        "threshold": _SHARE,
        **dict.fromkeys(("num_pairs", "num_unclean", "num_unclean_rare", "num_kept"), _NUMBER),
        "states": _COUNTS,
        "kept": [
            {
                **dict.fromkeys(("train_task", "eval_task", "level", "by", "why"), _TEXT),
                **dict.fromkeys(("hit_fraction", "hit_fraction_rare"), _SHARE),
            }
        ],
    },
    "licenses": [{"license": _TEXT, "num_tasks": _NUMBER, "num_examples": _NUMBER, "with_data": bool}],
    "citations": [{"key": _TEXT, "title": _TEXT, "bibtex": _TEXT, "benchmarks": [_TEXT]}],
    "overlap": {
        "n": _NUMBER,
        "normalisation": _TEXT,
        "frequent_groups": _NUMBER,
        "near_duplicates": {str: _SHARE},
    },
    "stages": {str: {"fingerprint": _TEXT, "root": _TEXT}},
    "files": [_FILE],
}
"""What a manifest must have: a type, alternatives, a list or map of one shape, or an object with at least these keys."""


def misfit(body: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a manifest's shape, in one line; None where nothing is."""
    try:
        problem = _misfit(body, SHAPE, "")
    except RecursionError:
        return "it is nested too deeply"
    if problem is not None:
        return problem
    for number, entry in enumerate(body["files"]):
        problem = _bad_entry(entry)
        if problem is not None:
            return f"files.{number}: {problem}"
    paths = [entry["path"] for entry in body["files"]]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        return f"files: {shorten(twice[0])} is there twice"
    return None if paths == sorted(paths) else "files: not sorted by path"


def _misfit(value: Any, shape: Any, where: str) -> str | None:
    if isinstance(shape, tuple):
        problems = [_misfit(value, one, where) for one in shape]
        return None if None in problems else problems[0]
    if isinstance(shape, list):
        items = enumerate(value) if isinstance(value, list) else None
        return _first_misfit(items, {None: shape[0]}, where, value, "a list")
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _wrong(where, value, "an object")
        if str in shape:
            return _first_misfit(value.items(), {None: shape[str]}, where, value, "an object")
        missing = [key for key in shape if key not in value]
        if missing:
            return f"{f'{where}.' if where else ''}{missing[0]}: missing"
        return _first_misfit(((key, value[key]) for key in shape), shape, where, value, "an object")
    return None if _is(value, shape) else _wrong(where, value, _noun(shape))


def _first_misfit(items: Any, shapes: Mapping[Any, Any], where: str, value: Any, noun: str) -> str | None:
    """Return the first problem of the items of a list or object."""
    if items is None:
        return _wrong(where, value, noun)
    for key, item in items:
        shape = shapes[None] if None in shapes else shapes[key]
        problem = _misfit(item, shape, f"{where}.{shorten(key, 40).strip(chr(39))}" if where else str(key))
        if problem is not None:
            return problem
    return None


def _is(value: Any, kind: Any) -> bool:
    """Say whether a value is of a kind; truth values are no numbers, and no number has more than 64 bits."""
    if kind is object:
        return True
    if kind is None or kind is bool or kind is str:
        return value is None if kind is None else type(value) is kind
    if type(value) is int:
        return -_MOST <= value < _MOST
    return kind is float and type(value) is float


def _noun(kind: Any) -> str:
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false", None: "null"}[
        kind
    ]


def _wrong(where: str, value: Any, expected: str) -> str:
    return f"{where}: found {shorten(value, 60)}; expected {expected}"


def _bad_entry(entry: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an entry of a file."""
    path = entry["path"]
    if set(entry) != set(_FILE):
        return f"{shorten(path)}: unknown key {shorten(sorted(set(entry) - set(_FILE))[0])}"
    if not path.isprintable() or "\\" in path or len(path.encode()) > 1_000:
        return f"{shorten(path)} is no name of a file"
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")) or ":" in path:
        return f"the path {shorten(path)} leads out of the folder, or is not written plainly"
    if path == "manifest.json":
        return f"{path} cannot be listed in itself"
    if entry["num_rows"] < 0 or entry["bytes"] < 0:
        return f"{path}: a negative number"
    digests = [entry["sha256"], entry["rows"]]
    return None if all(map(_DIGEST.fullmatch, digests)) else f"{path}: a digest is not 64 hex digits"
