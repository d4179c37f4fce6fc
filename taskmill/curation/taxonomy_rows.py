"""Taxonomy files: rows of tasks, other names of data sets and look-alikes, read from YAML or CSV.

A CSV file has a header with `task` and any of `ROW_COLUMNS`, and one line a task. Items of a list are separated by `;`,
an empty cell says nothing. A YAML file has up to three parts:

    tasks:                                   # by task id, or by a shell pattern of task ids
      promptsource/super_glue/boolq: {category: Question Answering, dataset: boolq}
      "flan_cot/*": {license: Apache-2.0}
    aliases:                                 # canonical data set -> other names it goes by
      boolq: [super_glue/boolq, BoolQ]
    distinct:                                # data sets that only look like misspellings of one another
      - [semeval_2018_task1, semeval_2018_task3]
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from taskmill.errors import did_you_mean, shorten
from taskmill.records import KINDS, METRICS, STYLES
from taskmill.safe_yaml import YamlError, compose_yaml
from taskmill.shapes import SHAPES

TEXTS = (
    "category",
    "dataset",
    "family",
    "subtask",
    "license",
    "license_evidence",
    "definition",
    "homepage",
    "repository",
)
LISTS = ("corpora", "languages", "output_fields")
CHOICES = {"kind": KINDS, "style": STYLES, "metric": METRICS, "shape": tuple(SHAPES)}
ROW_COLUMNS = (*TEXTS, *LISTS, *CHOICES, "multiple_choice")
"""What a row may say; `shape` goes to the task's metadata."""
PARTS = ("tasks", "aliases", "distinct")
SUFFIXES = (".csv", ".yaml", ".yml")

MAX_DEPTH = 16
"""Levels of a YAML file."""

_BOOLEANS = {"true": True, "false": False}
_SEPARATORS = re.compile(r"[\W_]+")

Row = Mapping[str, Any]


def fold(name: str) -> str:
    """Return a data set's name in lower case with single underscores between its parts.

    >>> fold("Super_Glue/BoolQ ")
    'super_glue_boolq'
    """
    return _SEPARATORS.sub("_", name.casefold()).strip("_")


@dataclass
class TaxonomyFile:
    """What one taxonomy file says, and what is wrong with it."""

    path: Path
    rows: dict[str, Row] = field(default_factory=dict)
    """Task id or pattern -> columns."""
    lines: dict[str, int] = field(default_factory=dict)
    """Line of each row, from 1."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Folded name -> canonical name."""
    distinct: set[frozenset[str]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    """Each with `file:line`."""


def read_file(path: Path) -> TaxonomyFile:
    """Read a taxonomy file by its suffix; whatever is wrong with it is listed in `problems`."""
    found = TaxonomyFile(path)
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        found.problems.append(f"curate.taxonomy: {path}: expected a file that ends in one of {kinds}")
        return found
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        found.problems.append(f"curate.taxonomy: cannot read {path}: {error.strerror or error}")
        return found
    except UnicodeDecodeError as error:
        found.problems.append(f"curate.taxonomy: cannot read {path}: not UTF-8 (byte {error.start})")
        return found
    if path.suffix.lower() == ".csv":
        _read_csv(found, text)
    else:
        _read_yaml(found, text)
    return found


# ------------------------------------------------------------------------------------------------ CSV


def _read_csv(found: TaxonomyFile, text: str) -> None:
    lines = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(lines, None)
        if header is None:
            return
        header = [name.strip() for name in header]
        problems = _header_problems(header)
        if problems:
            found.problems += [f"{found.path}:1: {problem}" for problem in problems]
            return
        for cells in lines:
            if any(cells):
                _read_line(found, header, cells, lines.line_num)
    except csv.Error as error:
        found.problems.append(f"{found.path}:{lines.line_num}: not valid CSV: {error}")


def _header_problems(header: list[str]) -> list[str]:
    problems = []
    if "task" not in header:
        problems.append(
            f"there is no column `task`; expected a header like task,category,dataset; found {header}"
        )
    for place, name in enumerate(header):
        if name in header[:place]:
            problems.append(f"{name}: the column is there twice; expected once")
        elif name != "task" and name not in ROW_COLUMNS:
            problems.append(f"{name}: unknown column{_column_hint(name)}")
    return problems


def _read_line(found: TaxonomyFile, header: list[str], cells: list[str], line: int) -> None:
    """Add the row of one line."""
    place = f"{found.path}:{line}"
    if len(cells) > len(header):
        found.problems.append(
            f"{place}: {len(cells)} cells; expected {len(header)}, as the header has columns"
        )
        return
    said = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
    task = said.pop("task", "")
    if not task:
        found.problems.append(f"{place}: the cell `task` is empty; expected a task id")
        return
    _add_row(
        found, task, {name: _cell(name, value) for name, value in said.items()}, line, f"{place}: {task}"
    )


def _cell(column: str, value: str) -> Any:
    """Return what a cell says, of the type that its column has where it can be read so."""
    if column in LISTS:
        return [item.strip() for item in value.split(";") if item.strip()]
    return _BOOLEANS.get(value.lower(), value) if column == "multiple_choice" else value


# ----------------------------------------------------------------------------------------------- YAML


def _read_yaml(found: TaxonomyFile, text: str) -> None:
    for part, line, value in _parts(found, text):
        place = f"{found.path}:{line}"
        if part not in PARTS:
            expected = "expected `tasks`, `aliases` or `distinct`"
            found.problems.append(f"{place}: unknown part {part!r}{did_you_mean(part, PARTS)}; {expected}")
        elif part == "distinct":
            _add_distinct(found, value, place)
        elif not isinstance(value, dict):
            found.problems.append(f"{place}: {part}: expected a mapping, found {shorten(value)}")
        else:
            for key, (key_line, item) in value.items():
                key_place = f"{found.path}:{key_line}: {part}.{key}"
                if part == "tasks":
                    _add_row(found, key, item, key_line, key_place)
                else:
                    found.problems += _add_aliases(key_place, key, item, found.aliases)


def _parts(found: TaxonomyFile, text: str) -> Iterator[tuple[str, int, Any]]:
    """Yield (part, line, {key: (line, value)}) of a file."""
    try:
        root, loader = compose_yaml(text, MAX_DEPTH)
        loader.keys_may_repeat = True  # each is a problem of its own, with its line
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            expected = "expected a mapping with `tasks` or `aliases`"
            found.problems.append(f"{found.path}:1: {expected}")
            return
        for key, node in root.value:
            yield str(key.value), key.start_mark.line + 1, _section(found, loader, node)
    except YamlError as error:
        found.problems.append(f"{found.path}:{error.line or 1}: not valid YAML: {error.problem}")
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        reason = getattr(error, "problem", None) or error
        found.problems.append(f"{found.path}:{line}: not valid YAML: {reason}")


def _section(found: TaxonomyFile, loader: Any, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    items: dict[str, tuple[int, Any]] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in items:
            found.problems.append(
                f"{found.path}:{line}: {key}: given twice, first in line {items[key][0]}; expected once"
            )
        items[key] = (line, loader.construct_object(value_node, deep=True))
        if isinstance(value_node, yaml.MappingNode):
            columns = [str(name.value) for name, _ in value_node.value]
            twice = dict.fromkeys(name for name in columns if columns.count(name) > 1)
            found.problems += [
                f"{found.path}:{line}: {key}.{name}: given twice; expected once" for name in twice
            ]
    return items


def _add_aliases(place: str, name: str, others: Any, aliases: dict[str, str]) -> list[str]:
    if not isinstance(others, list) or not all(isinstance(o, str) for o in others):
        return [f"{place}: found {shorten(others)}; expected a list of other names"]
    problems = []
    for other in [name, *others]:
        known = aliases.setdefault(fold(other), name)
        if known != name:
            problems.append(f"{place}: {other!r} is already another name of {known!r}")
    if fold(name) != name:
        problems.append(f"{place}: a canonical name is written {fold(name)!r}")
    return problems


def _add_distinct(found: TaxonomyFile, value: Any, place: str) -> None:
    groups = value if isinstance(value, list) else [value]
    for group in groups:
        if not isinstance(group, list) or len(group) < 2 or not all(isinstance(name, str) for name in group):
            expected = "expected lists of two or more data sets each"
            found.problems.append(f"{place}: distinct: found {shorten(group)}; {expected}")
            continue
        names = [fold(name) for name in group]
        found.distinct |= {frozenset((a, b)) for a in names for b in names if a != b}


# ----------------------------------------------------------------------------------------------- rows


def _add_row(found: TaxonomyFile, task: str, row: Any, line: int, place: str) -> None:
    if task in found.rows and found.path.suffix.lower() == ".csv":
        first = found.lines[task]
        found.problems.append(f"{place}: given twice, first in line {first}; expected once")
    found.problems += _row_problems(place, row)
    found.rows[task] = row if isinstance(row, dict) else {}
    found.lines[task] = line


def _row_problems(place: str, row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [f"{place}: expected a mapping of columns, found {shorten(row)}"]
    problems = []
    for column, value in row.items():
        if column not in ROW_COLUMNS:
            problems.append(f"{place}.{column}: unknown column{_column_hint(str(column))}")
        elif expected := _expected(column, value):
            hint = did_you_mean(str(value), CHOICES.get(column, ()))
            problems.append(f"{place}.{column}: found {shorten(value)}; expected {expected}{hint}")
    return problems


def _column_hint(name: str) -> str:
    return did_you_mean(name, ROW_COLUMNS) or f"; expected one of {', '.join(ROW_COLUMNS)}"


def _expected(column: str, value: Any) -> str | None:
    """Return what a column should hold, or None when it does."""
    if column in CHOICES:
        return None if value in CHOICES[column] else "one of " + ", ".join(CHOICES[column])
    if column in LISTS:
        fine = isinstance(value, list) and all(isinstance(v, str) and v for v in value)
        return None if fine else "a list of texts"
    if column == "multiple_choice":
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) and value.strip() else "a text"
