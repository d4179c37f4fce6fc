"""Dolly (databricks-dolly-15k): records with `instruction`, `context` (often blank), `response` and `category`.

`context` becomes the field `input`. How many records each `category` has is kept in the metadata of the task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat, _files

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
OPTIONS = dict(_chat.OPTIONS)
_EXPECTED = "records with instruction, context, response and category as *.jsonl, *.json or *.parquet"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    return _chat.list_entries(source, "dolly", _EXPECTED)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the records of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    kinds: Counter[str] = Counter()

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        text = _chat.need_text(value, "instruction")
        given = _chat.maybe_text(value, "context")
        output = _chat.need_text(value, "response")
        kind = _chat.maybe_text(value, "category")
        yield _chat.instruction(text, given, output, quality=_chat.quality_of(entry.detail["quality"], value))
        kinds[_files.storable(kind)] += 1

    _chat.read_each(entry, source, data, convert)
    data.facts = {
        "dataset": entry.name,
        "category": "Instruction Following",
        "languages": ["English"],
        "metadata": {"shape": "instruction", "categories": {kind: kinds[kind] for kind in sorted(kinds)}},
    }
    return data
