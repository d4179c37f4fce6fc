"""BIG-Bench Hard (Suzgun et al. 2022): one task a JSON file, with its worked exemplars.

Reads `<task>.json` (`examples`: input, target) and, where it lies beside, `cot-prompts/<task>.txt`: a description, which becomes
the task's definition, and exemplars of question, rationale and answer, which become its demonstrations. Choices are ranked
where an input lists them, by letter or as dashed lines, or where every target is yes or no, true or false, valid or invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Broken, FileError, Record
from taskmill.curation.sources._records import Format, read_records

BENCHMARK = "evaluation"
STYLE, KIND = "task", "benchmark"
OPTIONS: dict[str, str] = {}
PROMPTS = "cot-prompts"
_FORM = Format("json", records="examples")
_LISTED = re.compile(r"\nOptions:\s*\n(.*)\Z", re.DOTALL)
_LETTER = re.compile(r"^(\([A-Z]\)) ", re.MULTILINE)
_DASHED = re.compile(r"^- (.+?)\s*$", re.MULTILINE)
_CLOSED = (("Yes", "No"), ("yes", "no"), ("True", "False"), ("true", "false"), ("valid", "invalid"))
_EXEMPLAR = re.compile(
    r"Q: (?P<question>.*?)\nA: Let's think step by step\.\s+(?P<rationale>.*)\bSo the answer is (?P<answer>.*?)\.?",
    re.DOTALL,
)


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks.

    Raises:
        DataError: the folder is missing or holds no JSON file.
    """
    entries = []
    for path in _files.list_files(source, (".json",), "<task>.json with examples of input and target"):
        stem = _files.stem(path)
        prompts = [p for p in (path.parent / PROMPTS / f"{stem}.txt",) if p.is_file()]
        entries.append(_files.make_entry(f"bbh_{stem}", [path, *prompts], subtask=stem))
    return sorted(entries, key=lambda entry: entry.name)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read one task and its worked exemplars.

    Raises:
        DataError: a file or example is damaged and the recipe says stop.
    """
    subtask = entry.detail["subtask"]
    facts: dict[str, Any] = {
        "category": "Reasoning",
        "dataset": f"bbh/{subtask}",
        "family": "bbh",
        "subtask": subtask,
        "definition": f"Solve the problem ({subtask.replace('_', ' ')}) and give the answer only.",
        "license": "MIT",
        "license_evidence": "LICENSE of the BIG-Bench Hard repository",
        "languages": ["English"],
        "metric": "exact_match",
        "output_fields": ["rationale"],
        "homepage": "https://github.com/suzgunmirac/BIG-Bench-Hard",
        "metadata": {},
    }
    data = TaskData(facts, Columns())
    path = entry.files[0]
    with _files.reading(data, source, path):
        for record in read_records(_FORM, path, source):
            if not _files.is_record(data, source, path, record):
                continue
            text = _files.text_field(data, source, path, record, "input", record.value)
            if text is None:
                continue
            target = _files.text_field(data, source, path, record, "target", record.value)
            if target is not None:
                _files.accept(data, source, path, record, {"input": text}, [target], upstream_split="test")
    for prompts in entry.files[1:]:
        with _files.reading(data, source, prompts):
            _read_prompts(data, source, prompts)
    data.columns.options = _options(data.columns)
    return data


def _options(columns: Columns) -> list[list[str] | None]:
    """Return the choices of each example, where its reference is one of them."""
    targets = {answers[0] for answers in columns.references}
    closed = next((pair for pair in _CLOSED if targets and targets <= set(pair)), ())
    options: list[list[str] | None] = []
    for fields, answers in zip(columns.fields, columns.references, strict=True):
        offered = _listed(fields["input"]) or closed
        options.append(list(offered) if answers[0] in offered else None)
    return options


def _listed(text: str) -> Sequence[str]:
    """Return the choices below the line `Options:` of an input: letters in brackets, or what dashes stand before."""
    found = _LISTED.search(text)
    if found is None:
        return ()
    return list(dict.fromkeys(_LETTER.findall(found[1]) or _DASHED.findall(found[1])))


def _read_prompts(data: TaskData, source: SourceFolder, path: Path) -> None:
    for record in _pieces(path, source):
        if isinstance(record.value, str) and record.number < 0:
            if record.value:
                data.facts["definition"] = record.value
            continue
        if not _files.is_record(data, source, path, record, str, "text"):
            continue
        found = _EXEMPLAR.fullmatch(record.value)
        if found is None:
            problem, expected = (
                "not a worked exemplar",
                "Q: .., A: Let's think step by step. .., So the answer is ..",
            )
            _files.damage(data, source, path, record, "no_match", problem, expected=expected)
            continue
        fields = {"input": found["question"], "rationale": found["rationale"].strip()}
        _files.accept(data, source, path, record, fields, [found["answer"]], upstream_split="demonstration")


def _pieces(path: Path, source: SourceFolder) -> Iterator[Record]:
    """Yield the description behind the line of dashes as record -1, then the exemplars, which begin with `Q:`."""
    text = _files.decode(_files.read_all(path, source))
    if isinstance(text, Broken):
        raise FileError(text.reason, text.detail, file=source.relative(path))
    head, *exemplars = re.split(r"\n\n(?=Q: )", text.replace("\r\n", "\n").rstrip())
    description = re.split(r"^-{3,}$", head, maxsplit=1, flags=re.MULTILINE)[-1].strip()
    yield Record(-1, description.removeprefix("Task description:").strip(), description)
    for number, piece in enumerate(exemplars):
        yield Record(number, piece, piece)
