"""MMLU (Hendrycks et al. 2021): one task a subject, as the original CSV or the Hub's Parquet.

Reads `{dev,val,test}/<subject>_<split>.csv` (no header: question, four choices, letter of the answer), or Parquet (question,
choices, number of the answer) in `<subject>/{dev,validation,test}-*.parquet` or `<subject>/<split>/0000.parquet`. The five
dev questions of a subject are its demonstrations. `cot_prompts` names a JSON object of subject -> worked exemplars in text,
as the evaluation harnesses keep them (`Q: ..`, choices `(A) ..` to `(D) ..`, `A: Let's think step by step. .. The answer is
(C).`): each is one more demonstration with its rationale. Folders `all` and `auxiliary_train` are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import FileError, Record
from taskmill.curation.sources._options import path_of
from taskmill.curation.sources._records import Format, read_records
from taskmill.errors import DataError

BENCHMARK = "evaluation"
STYLE, KIND = "keywords", "benchmark"
OPTIONS = {
    "cot_prompts": "file of worked exemplars by subject, below or beside the source's folder; by default none"
}
LETTERS = ("A", "B", "C", "D")
SPLITS = {"dev": "demonstration", "val": "validation", "validation": "validation", "test": "test"}
_COLUMNS = ("question", *LETTERS, "answer")
_EXPECTED = "{dev,val,test}/<subject>_<split>.csv, or <subject>/<split>-*.parquet"
_LEFT_FOLDERS = ("all", "auxiliary_train")
_EXEMPLAR = re.compile(
    r"Q:\s(?P<question>.*)\n\(A\)\s(?P<A>.*?)\s\(B\)\s(?P<B>.*?)\s\(C\)\s(?P<C>.*?)\s\(D\)\s(?P<D>.*?)"
    r"\nA: Let's think step by step\.\s(?P<rationale>.*?)\s*The answer is \((?P<answer>[A-D])\)\.",
    re.DOTALL,
)


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the subjects that have a file.

    Raises:
        DataError: the folder is missing or holds no such file, or the file of `cot_prompts` does not exist.
        RecipeError: the option `cot_prompts` is no path.
    """
    _files.need_folder(source, source.path, _EXPECTED)
    subjects: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(source.path.rglob("*")):
        subject, split = _place(path)
        if subject and split and path.is_file():
            subjects.setdefault(subject, []).append((split, path))
    if not subjects:
        raise DataError(
            "the folder holds no file of MMLU", file=source.relative(source.path), expected=_EXPECTED
        )
    prompts = _prompts(source)
    entries = []
    for subject, found in subjects.items():
        found.sort(key=lambda pair: (list(SPLITS.values()).index(pair[0]), pair[1]))
        files = [path for _, path in found] + ([prompts] if prompts else [])
        detail = {"subject": subject, "splits": [split for split, _ in found]}
        entries.append(_files.make_entry(f"mmlu_{subject}", files, **detail))
    return sorted(entries, key=lambda entry: entry.name)


def _place(path: Path) -> tuple[str | None, str | None]:
    """Return (subject, upstream split) of a file, or nothing where it is none of MMLU's."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".csv"):
        subject, _, split = name.removesuffix(".csv").rpartition("_")
        return subject, SPLITS.get(split) if path.parent.name == split else None
    own = _files.own_name(path)
    folder = path.parent.parent if path.parent.name == own else path.parent
    if name.endswith(".parquet") and folder.name not in _LEFT_FOLDERS:
        return folder.name, SPLITS.get(own)
    return None, None


def _prompts(source: SourceFolder) -> Path | None:
    path = path_of(source, "mmlu", "cot_prompts")
    if path is not None and not path.is_file():
        raise DataError("no such file, which the option cot_prompts names", file=source.relative(path))
    return path


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every split of one subject, and its worked exemplars where the recipe names them.

    Raises:
        DataError: a file or question is damaged and the recipe says stop.
    """
    subject = entry.detail["subject"]
    facts = {
        "category": "Question Answering",
        "dataset": "mmlu",
        "family": "mmlu",
        "subtask": subject,
        "definition": f"Answer the multiple-choice question about {subject.replace('_', ' ')}.",
        "license": "MIT",
        "license_evidence": "LICENSE of the MMLU repository",
        "languages": ["English"],
        "metric": "accuracy",
        "output_fields": ["rationale"],
        "homepage": "https://github.com/hendrycks/test",
        "metadata": {"shape": "choice"},
    }
    data = TaskData(facts, Columns())
    splits = entry.detail["splits"]
    for split, path in zip(splits, entry.files, strict=False):
        with _files.reading(data, source, path):
            _read_questions(data, source, path, split)
    for path in entry.files[len(splits) :]:
        with _files.reading(data, source, path):
            _read_exemplars(data, source, path, subject)
    return data


def _read_questions(data: TaskData, source: SourceFolder, path: Path, split: str) -> None:
    table = path.name.endswith(".parquet")
    form = Format("parquet") if table else Format("csv", columns=_COLUMNS)
    for record in read_records(form, path, source):
        if not _files.is_record(data, source, path, record):
            continue
        row = record.value
        choices, answer = (
            (row.get("choices"), row.get("answer")) if table else ([row[c] for c in LETTERS], row["answer"])
        )
        question = _files.text_field(data, source, path, record, "question", row)
        place = _answer(answer)
        if question is None:
            continue
        if not (isinstance(choices, list) and len(choices) == 4 and all(isinstance(c, str) for c in choices)):
            where = {"field": "choices", "value": choices, "expected": "a list of four texts"}
            _files.damage(data, source, path, record, "wrong_type", "not the choices of a question", **where)
        elif place is None:
            where = {"field": "answer", "value": answer, "expected": "A, B, C, D or a number from 0 to 3"}
            _files.damage(data, source, path, record, "bad_label", "not an answer", **where)
        else:
            fields = {"question": question}
            _files.accept(
                data, source, path, record, fields, [choices[place]], options=choices, upstream_split=split
            )


def _answer(found: Any) -> int | None:
    """Return the place of the right choice."""
    if isinstance(found, str):
        return LETTERS.index(found.strip()) if found.strip() in LETTERS else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 4 else None


def _read_exemplars(data: TaskData, source: SourceFolder, path: Path, subject: str) -> None:
    """Add the worked exemplars of a subject; one that cannot be cut, such as one of five choices, is left aside."""
    for record in _exemplars(source, path, subject):
        found = _EXEMPLAR.fullmatch(record.value)
        if found is None or "(E)" in found["D"]:
            detail = "not a question, four choices, a rationale and an answer"
            _files.leave(data, source, path, record, "uncut_exemplar", detail)
            continue
        fields = {
            "question": found["question"],
            "rationale": found["rationale"],
            "example_kind": "chain_of_thought",
        }
        options = [found[letter] for letter in LETTERS]
        _files.accept(
            data,
            source,
            path,
            record,
            fields,
            [found[found["answer"]]],
            options=options,
            upstream_split="demonstration",
        )


def _exemplars(source: SourceFolder, path: Path, subject: str) -> Iterator[Record]:
    name = source.relative(path)
    document = _files.read_document(path, source)
    if not isinstance(document, Mapping):
        raise FileError("wrong_type", "not worked exemplars", file=name, expected="an object of subjects")
    text = document.get(subject, "")
    if not isinstance(text, str):
        raise FileError("wrong_type", "not text", file=name, field=subject, value=text, expected="a string")
    for number, piece in enumerate(re.split(r"\n\n(?=Q:)", text.rstrip())[1:]):
        yield Record(number, piece, piece)
