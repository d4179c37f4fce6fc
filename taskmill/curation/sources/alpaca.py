"""Alpaca-style sets: records with `instruction`, `input` (may be blank, null or missing) and `output`.

Stanford Alpaca, its cleaned and GPT-4 versions, Code Alpaca and files that LLaMA-Factory reads. A blank input is no field.
Other keys (`text`, `topic`, `response` ..) are not read; metadata counts them. A record with a `system` text or earlier
turns in `history` is more than an instruction and is left out as `not_single_turn`. Where a folder also holds the seed
tasks that such sets were grown from (records with `instances`), that file is no task here: `self_instruct` reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat, _files

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
OPTIONS = dict(_chat.OPTIONS)
_EXPECTED = "records with instruction, input and output as *.json, *.jsonl or *.parquet"
_READ = ("instruction", "input", "output")
_MORE = ("system", "history")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files, but those of seed tasks.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    entries = _chat.list_entries(source, "alpaca", _EXPECTED)
    found = []
    for entry in entries:
        files = [path for path in entry.files if source.path.is_file() or not _holds_seeds(path, source)]
        if files:
            found.append(_files.make_entry(entry.name, files, **entry.detail))
    return found or entries


def _holds_seeds(path: Path, source: SourceFolder) -> bool:
    """Say whether the first record has `instances` in place of an output; only JSON lines are looked at."""
    if not path.name.removesuffix(".gz").endswith(".jsonl"):
        return False
    try:
        first = next(_files.read_jsonl(path, source), None)
    except _files.FileError:
        return False
    value = first.value if first else None
    return isinstance(value, dict) and "instances" in value and "output" not in value


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the records of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    other: Counter[str] = Counter()

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        other.update(_files.storable(str(key)) for key in value if key not in (*_READ, "id"))
        yield _convert(value, entry.detail["quality"])

    _chat.read_each(entry, source, data, convert)
    metadata: dict[str, Any] = {"shape": "instruction"}
    if other:
        metadata["keys_not_read"] = {key: other[key] for key in sorted(other)}
    data.facts = {"dataset": entry.name, "category": "Instruction Following", "metadata": metadata}
    return data


def _convert(value: dict[str, Any], quality: Mapping[str, Any] | None) -> _chat.Item:
    text = _chat.need_text(value, "instruction")
    given = _chat.maybe_text(value, "input")
    output = _chat.need_text(value, "output")
    for key in _MORE:
        if value.get(key):
            return _chat.Left(
                "not_single_turn", f"the record has {key!r}; the reader sharegpt keeps such turns"
            )
    return _chat.instruction(
        text, given, output, upstream_id=value.get("id"), quality=_chat.quality_of(quality, value)
    )
