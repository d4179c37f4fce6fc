"""Unnatural Instructions (Honovich et al. 2022): `core_data.jsonl` and `full_data.jsonl`, published as zip files.

A record has an `instruction`, `instances` of `input`, `constraints` and `output`, and in the full data `reformulations` of
`instruction`, `input` and `output`. Each instance and each reformulation is an example; those of one instruction form a
group. An instance's constraints become a line behind its instruction, unless they are blank, `None` or `None.` (the rule of
TULU's conversion). A reformulation that says with {INPUT} where its input goes is taken from `instruction_with_input`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat
from taskmill.curation.sources._values import Unusable

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
OPTIONS = dict(_chat.OPTIONS)
_EXPECTED = "records with instruction and instances as *.jsonl, *.json or *.parquet"
_PLACE = "{INPUT}"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    return _chat.list_entries(source, "unnatural_instructions", _EXPECTED)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the instructions of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    counts = {"instances": 0, "reformulations": 0, "constraints_appended": 0}

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        text = _chat.need_text(value, "instruction")
        columns = {"group": text or None, "quality": _chat.quality_of(entry.detail["quality"], value)}
        rows = _chat.need_rows(value, "instances", "a list of objects with input, constraints and output")
        others = []
        if value.get("reformulations") is not None:
            others = _chat.need_rows(value, "reformulations", "a list of objects with instruction and output")
        if not rows and not others:
            yield _chat.Left("no_instances", "the instruction has no instances")
        for number, row in enumerate(rows):
            yield _instance(text, row, f"instances.{number}", columns, counts)
        for number, row in enumerate(others):
            yield _reformulation(row, f"reformulations.{number}", columns, counts)

    _chat.read_each(entry, source, data, convert)
    data.facts = {
        "dataset": entry.name,
        "category": "Instruction Following",
        "languages": ["English"],
        "metadata": {"shape": "instruction", **counts},
    }
    return data


def _instance(
    text: str, row: dict[str, Any], where: str, columns: dict[str, Any], counts: dict[str, int]
) -> _chat.Item:
    """Return the example of an instance."""
    try:
        given = _chat.maybe_text(row, "input", f"{where}.input")
        constraints = _chat.maybe_text(row, "constraints", f"{where}.constraints")
        output = _chat.need_text(row, "output", f"{where}.output")
    except Unusable as error:
        return error
    counts["instances"] += 1
    if constraints.strip().lower() not in ("", "none", "none."):
        text = f"{text}\n{constraints}"
        counts["constraints_appended"] += 1
    return _chat.instruction(text, given, output, **columns)


def _reformulation(
    row: dict[str, Any], where: str, columns: dict[str, Any], counts: dict[str, int]
) -> _chat.Item:
    """Return the example of an instruction in other words."""
    try:
        text = _chat.need_text(row, "instruction", f"{where}.instruction")
        given = _chat.maybe_text(row, "input", f"{where}.input")
        if _PLACE in text:
            text = _chat.need_text(row, "instruction_with_input", f"{where}.instruction_with_input")
            given = ""
        output = _chat.need_text(row, "output", f"{where}.output")
    except Unusable as error:
        return error
    counts["reformulations"] += 1
    return _chat.instruction(text, given, output, **columns)
