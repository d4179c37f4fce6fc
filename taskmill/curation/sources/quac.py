"""QuAC (Choi et al. 2018): one task, one example a dialogue about a passage.

Reads every `*.json` of the folder, or one file: `data[].paragraphs[]` with `context`, `id` and `qas`, whose questions and given
answers (`orig_answer`, else the first of `answers`) are the turns. A group is a passage: the train set has several dialogues
about one. `train`, `val` or `test` in a file's name tells its split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import SPLIT_NAMES, Broken, Record
from taskmill.curation.sources._records import Format, read_records

BENCHMARK = "dialogue"
STYLE, KIND = "dialogue", "dialogue"
OPTIONS: dict[str, str] = {}
_FORM = Format("json", records="data")
_EXPECTED = "train_*.json, val_*.json with data, paragraphs, qas"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """Return the one task.

    Raises:
        DataError: the folder is missing or holds no JSON file.
    """
    return [_files.make_entry("quac", _files.list_files(source, (".json",), _EXPECTED))]


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every dialogue of every file.

    Raises:
        DataError: a file or dialogue is damaged and the recipe says stop.
    """
    facts = {
        "category": "Dialogue Generation",
        "dataset": "quac",
        "license": "CC-BY-SA-4.0",
        "license_evidence": "terms of the QuAC release",
        "languages": ["English"],
        "homepage": "https://quac.ai",
        "metadata": {"shape": "turns"},
    }
    data = TaskData(facts, Columns())
    for path in entry.files:
        split = next((SPLIT_NAMES[w] for w in re.split(r"[_.-]", path.name) if w in SPLIT_NAMES), None)
        with _files.reading(data, source, path):
            for record in _paragraphs(path, source):
                if _files.is_record(data, source, path, record):
                    _read_dialogue(data, source, path, record, split)
    return data


def _paragraphs(path: Path, source: SourceFolder) -> Iterator[Record]:
    """Yield each paragraph, numbered over all articles; an article without a list of them is one broken record."""
    number = 0
    for article in read_records(_FORM, path, source):
        value = article.value
        paragraphs = value.get("paragraphs") if isinstance(value, Mapping) else None
        if isinstance(paragraphs, list) and paragraphs:
            for paragraph in paragraphs:
                yield Record(number, paragraph, None)
                number += 1
        else:
            raw = _files.raw_text(Record(number, value, None))
            yield Record(number, Broken("missing_field", "an article without a list of paragraphs"), raw)
            number += 1


def _read_dialogue(
    data: TaskData, source: SourceFolder, path: Path, record: Record, split: str | None
) -> None:
    context = _files.text_field(data, source, path, record, "context", record.value)
    if context is None:
        return
    pairs = record.value.get("qas")
    if not isinstance(pairs, list) or not pairs:
        where = {"field": "qas", "value": pairs, "expected": "a list of questions"}
        _files.damage(data, source, path, record, "wrong_type", "not the questions of a dialogue", **where)
        return
    turns: list[dict[str, str]] = []
    for place, pair in enumerate(pairs):
        question, answer = _pair(pair)
        if question is None or answer is None:
            where = {
                "field": f"qas.{place}",
                "value": pair,
                "expected": "question, and orig_answer or answers",
            }
            _files.damage(data, source, path, record, "bad_turn", "not a question and its answer", **where)
            return
        turns += [{"user": question}, {"assistant": answer}]
    _files.accept(
        data,
        source,
        path,
        record,
        {"context": context, "turns": turns},
        [],
        upstream_id=_files.usable_id(record.value.get("id")),
        upstream_split=split,
        group=context,
    )


def _pair(pair: Any) -> tuple[str | None, str | None]:
    """Return the texts of a question and of the answer that the dialogue goes on with."""
    if not isinstance(pair, dict):
        return None, None
    given = pair.get("orig_answer")
    answers = pair.get("answers")
    if not isinstance(given, dict) and isinstance(answers, list) and answers:
        given = answers[0]
    text = given.get("text") if isinstance(given, dict) else None
    question = pair.get("question")
    return question if isinstance(question, str) else None, text if isinstance(text, str) else None
