"""Selectors: how a plan names tasks. Reads the task table; writes nothing.

A selector is a shell pattern over task ids (`flan/anli_*`), or `column=PATTERN` over a column of the task table:

| column | of a task |
|---|---|
| benchmark, category, dataset, family, kind | as the task table says |
| upstream_role | `train`, `test` or `excluded`, where the source's own lists say so |
| language | any of its languages |

>>> parse("dataset=anli"), parse("flan/anli_*")
(('dataset', 'anli'), (None, 'flan/anli_*'))
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import pyarrow as pa

from taskmill.errors import did_you_mean

_SOURCES = {
    "benchmark": "benchmark",
    "category": "category",
    "dataset": "dataset",
    "family": "family",
    "upstream_role": "upstream_role",
    "language": "languages",
    "kind": "kind",
}
COLUMNS = tuple(_SOURCES)
TASK_COLUMNS = ("task", *_SOURCES.values())
"""Columns of the task table that a plan looks at."""
_COLUMN = re.compile(r"[A-Za-z_]+(?==)")
_WILD = re.compile(r"[*?[]")

Facts = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Task id -> column -> its values: none, one, or several languages. Sorted by task."""


def read_facts(tasks: pa.Table) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what selectors can ask of each task.

    Args:
        tasks: with the columns TASK_COLUMNS.
    """
    rows = sorted(tasks.select(list(TASK_COLUMNS)).to_pylist(), key=lambda row: row["task"])
    return {
        row["task"]: {column: _values(row[source]) for column, source in _SOURCES.items()} for row in rows
    }


def _values(cell: object) -> tuple[str, ...]:
    values = cell if isinstance(cell, list) else [cell]
    return tuple(str(value) for value in values if value is not None and value != "")


def parse(selector: str) -> tuple[str | None, str]:
    """Return (column, pattern) of a selector; without a column it is over task ids."""
    column, equals, pattern = selector.partition("=")
    return (column, pattern) if equals and column in _SOURCES else (None, selector)


def fitting(facts: Facts, selector: str) -> list[str]:
    """Return the tasks that a selector fits, sorted."""
    column, pattern = parse(selector)
    if column is None:
        if not _WILD.search(pattern):
            return [pattern] if pattern in facts else []
        return [task for task in facts if fnmatchcase(task, pattern)]
    return [task for task, row in facts.items() if any(fnmatchcase(value, pattern) for value in row[column])]


def select(facts: Facts, selectors: Sequence[str]) -> dict[str, str]:
    """Return task -> the first selector that fits it, for every task that one fits."""
    found: dict[str, str] = {}
    for selector in selectors:
        for task in fitting(facts, selector):
            found.setdefault(task, selector)
    return found


def first_match(name: str, patterns: Sequence[str]) -> str | None:
    """Return the first shell pattern that a name fits, or None."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def unmatched(
    key: str, selectors: Iterable[str], facts: Facts, noun: str, optional: Collection[str] = ()
) -> list[str]:
    """Return a line for each selector that fits no task, with the nearest name.

    Args:
        key: of the setting that holds the selectors.
        selectors: what to look at.
        facts: of the tasks that may be meant.
        noun: what these tasks are, in the plural.
        optional: selectors that may fit nothing.
    """
    return [
        f"{key}: the selector {selector!r} fits none of the {len(facts)} {noun}{_hint(selector, facts)}; a selector "
        f"is a shell pattern over benchmark/name, or column=PATTERN with a column of {', '.join(COLUMNS)} "
        f"(`taskmill tasks RUN` lists tasks)"
        for selector in selectors
        if selector not in optional and not fitting(facts, selector)
    ]


def _hint(selector: str, facts: Facts) -> str:
    column, pattern = parse(selector)
    if column is not None:
        return did_you_mean(pattern, {value for row in facts.values() for value in row[column]})
    unknown = _COLUMN.match(selector)
    if unknown:
        return f" and {unknown[0]!r} is no column{did_you_mean(unknown[0], COLUMNS)}"
    return did_you_mean(selector, facts)
