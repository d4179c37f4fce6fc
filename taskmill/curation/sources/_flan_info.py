"""The FLAN collection's own table of its tasks, `flan_collection_info.csv`: categories, languages, inverted prompts.

Columns Source, Dataset, Specific Task Category, Generic Task Category, Languages, a line for each kind of prompt. T0 and
NIv2 give the name of the prompt or task as the specific category; the others name a kind of task there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources._files import Broken, FileError
from taskmill.curation.sources._records import Format, read_records
from taskmill.errors import DataError

COLUMNS = ("Source", "Dataset", "Specific Task Category", "Generic Task Category", "Languages")
_INVERTED_NAME = re.compile(r"(_ii|_input_inversion)$")
_ASKS_FOR_INPUT = {"Question Generation", "Context Generation"}
_NAMES_PROMPTS = {"T0"}
"""Sources whose lines name a prompt of a data set; NIv2's name tasks of their own, which are no inversions."""


@dataclass(frozen=True)
class InfoLine:
    """One line of the table."""

    source: str
    dataset: str
    specific: str
    generic: str
    languages: tuple[str, ...]


def read_info(path: Path, source: SourceFolder) -> list[InfoLine]:
    """Read the table.

    Raises:
        DataError: the file is missing, is no CSV, or has other columns.
    """
    name = source.relative(path)
    lines = []
    for record in read_records(Format("csv"), path, source):
        value = record.value
        if isinstance(value, Broken):
            raise FileError(value.reason, value.detail, file=name, record=record.number)
        absent = [column for column in COLUMNS if column not in value]
        if absent:
            problem = f"the table of the FLAN collection has no column {absent[0]!r}"
            raise DataError(problem, file=name, expected=", ".join(COLUMNS))
        first, dataset, specific, generic, languages = (value[column].strip() for column in COLUMNS)
        lines.append(InfoLine(first, dataset, specific, generic, tuple(_languages(languages))))
    return lines


def _languages(text: str) -> list[str]:
    """Return the languages of `English` or `['English', 'French']`."""
    found = [part.strip(" '\"") for part in text.strip("[]").split(",")]
    return sorted({part for part in found if part})


def lines_of(task: str, info: Sequence[InfoLine]) -> list[InfoLine]:
    """Return the lines of a task: those that name it, else those of its data set, however either spells it."""
    base = _INVERTED_NAME.sub("", task)
    named = [line for line in info if line.specific in (task, base)]
    if named:
        return named
    spellings = [_spelling(base), _spelling(base.rpartition("/")[2])]
    spellings += [f"stream_{spelling[4:]}" for spelling in spellings if spelling.startswith("cot_")]
    for spelling in spellings:
        found = [line for line in info if _spelling(line.dataset) == spelling and line.source != "NIv2"]
        if found:
            return found
    return []


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def is_inverted(task: str, info: Sequence[InfoLine] | None) -> bool:
    """Say whether every row of a task comes from an inverted template, so far as its name tells."""
    if _INVERTED_NAME.search(task):
        return True
    own = [line for line in info or () if line.specific == task]
    return bool(own) and all(_asks_for_input(line, info or ()) for line in own)


def _asks_for_input(line: InfoLine, info: Sequence[InfoLine]) -> bool:
    if line.generic.startswith("Inverted"):
        return True
    if line.source not in _NAMES_PROMPTS or line.generic not in _ASKS_FOR_INPUT:
        return False
    return any(
        o.dataset == line.dataset and o.source == line.source and o.generic not in _ASKS_FOR_INPUT
        for o in info
    )


def facts_of(task: str, info: Sequence[InfoLine] | None) -> dict[str, Any]:
    """Return what the table says of a task: sources, categories, languages, and whether inverted prompts are marked."""
    marked = "marked" if is_inverted(task, info) else None
    if info is None:
        return {"inverted_templates": marked} if marked else {}
    lines = lines_of(task, info)
    if not lines:
        return {"inverted_templates": marked} if marked else {}
    categories = sorted({line.generic for line in lines})
    if marked is None:
        marked = "unmarked" if any(c.startswith("Inverted") for c in categories) else "none"
    return {
        "collections": sorted({line.source for line in lines}),
        "upstream_categories": categories,
        "languages": sorted({language for line in lines for language in line.languages}),
        "inverted_templates": marked,
    }
