"""Schema-guided dialogues (Rastogi et al. 2020): one task, one example a dialogue.

Reads `{train,dev,test}/dialogues_*.json`: lists of {dialogue_id, services, turns}; a turn has `speaker` USER or SYSTEM and
`utterance`. The annotation of turns (`frames`) and the `schema.json` beside them are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import SPLIT_NAMES, Record
from taskmill.curation.sources._records import Format, read_records
from taskmill.errors import DataError

BENCHMARK = "dialogue"
STYLE, KIND = "dialogue", "dialogue"
OPTIONS: dict[str, str] = {}
ROLES = {"USER": "user", "SYSTEM": "assistant"}
_FORM = Format("json")
_EXPECTED = "{train,dev,test}/dialogues_*.json"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """Return the one task.

    Raises:
        DataError: the folder is missing or holds no dialogues.
    """
    _files.need_folder(source, source.path, _EXPECTED)
    files = [
        path
        for split in SPLIT_NAMES
        for pattern in ("dialogues_*.json", "dialogues_*.json.gz")
        for path in sorted((source.path / split).glob(pattern))
        if path.is_file()
    ]
    if not files:
        raise DataError(
            "the folder holds no dialogues", file=source.relative(source.path), expected=_EXPECTED
        )
    return [_files.make_entry("sgd", files)]


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every dialogue of every split.

    Raises:
        DataError: a file or dialogue is damaged and the recipe says stop.
    """
    facts = {
        "category": "Dialogue Generation",
        "dataset": "schema_guided_dstc8",
        "license": "CC-BY-SA-4.0",
        "license_evidence": "LICENSE.txt of the release",
        "languages": ["English"],
        "homepage": "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue",
        "metadata": {"shape": "turns"},
    }
    data = TaskData(facts, Columns())
    for path in entry.files:
        with _files.reading(data, source, path):
            for record in read_records(_FORM, path, source):
                if _files.is_record(data, source, path, record):
                    _read_dialogue(data, source, path, record)
    return data


def _read_dialogue(data: TaskData, source: SourceFolder, path: Path, record: Record) -> None:
    number = _files.text_field(data, source, path, record, "dialogue_id", record.value)
    if number is None:
        return
    turns = record.value.get("turns")
    if not isinstance(turns, list) or not turns:
        where = {"field": "turns", "value": turns, "expected": "a list of turns"}
        _files.damage(data, source, path, record, "wrong_type", "not the turns of a dialogue", **where)
        return
    said: list[dict[str, str]] = []
    for place, turn in enumerate(turns):
        role, text = _turn(turn)
        if role is None or text is None:
            where = {
                "field": f"turns.{place}",
                "value": turn,
                "expected": "speaker USER or SYSTEM, and utterance",
            }
            _files.damage(data, source, path, record, "bad_turn", "not a turn", **where)
            return
        said.append({role: text})
    split = SPLIT_NAMES[path.parent.name]
    name = f"{split}-{number}"
    _files.accept(
        data,
        source,
        path,
        record,
        {"turns": said},
        [],
        upstream_id=_files.usable_id(name),
        upstream_split=split,
        group=name,
    )


def _turn(turn: Any) -> tuple[str | None, str | None]:
    if not isinstance(turn, dict):
        return None, None
    speaker, text = turn.get("speaker"), turn.get("utterance")
    return ROLES.get(speaker) if isinstance(speaker, str) else None, text if isinstance(text, str) else None
