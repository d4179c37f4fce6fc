r"""Reasoning sets: questions with their answers and the steps that lead there.

Reads three forms of a set, `<name>_{train,dev,test}.*` or, for the third, a folder:

- FLAN's chain-of-thought TSV, without header and quoting: question TAB answer TAB rationale. A backslash and an n in a cell are
  a line break, unless they begin a TeX command that is more than a break and a word: `\neq`, `\nabla`, `\notin` .. everywhere;
  `\nu`, `\ne`, `\neg` and `\ni` between dollar signs or within `\(..\)` and `\[..\]` only;
- JSON lines with `question`, `answer` and `rationale` (or `explanation`, `chain_of_thought`, `facts`): a truth value is yes or
  no, a number its text, a list of steps one line each;
- original files in `<folder>/<name>` through a cast `reasoning-<name>` with these three fields.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from taskmill.curation.casting import casts_by_folder
from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _casted, _files
from taskmill.curation.sources._files import Record
from taskmill.errors import DataError

BENCHMARK = "reasoning"
STYLE, KIND = "reasoning", "reasoning"
OPTIONS: dict[str, str] = {}
COLUMNS = ("question", "answer", "rationale")
ALIASES = {
    "question": ("question",),
    "answer": ("answer",),
    "rationale": ("rationale", "explanation", "chain_of_thought", "facts"),
}
_CAST_PREFIX = "reasoning-"
_EXPECTED = "<name>_train.tsv with question, answer, rationale, or <name>_train.jsonl with these keys"
_TEX = re.compile(
    r"\\n(?:(?P<short>u|e|eg|i)|eq|abla|ot|otin|mid|parallel|leq|geq|subseteq|supseteq|exists|earrow|warrow"
    r"|ewline|ewcommand|onumber|oindent|olimits|obreak|ormalsize|egthinspace|cong|sim|gtr|prec|succ"
    r"|leqslant|geqslant|rightarrow|leftarrow|Rightarrow|Leftarrow|Leftrightarrow|leftrightarrow|vdash|vDash"
    r"|atural)(?![A-Za-z])"
)
_MATH = re.compile(r"\\[()\[\]]|(?<!\\)\$")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the sets: files that share what stands before `_train`, `_validation` or `_test`, and folders with a cast.

    Raises:
        DataError: the folder is missing or holds no such file, or a set is there in two forms.
        RecipeError: a cast has problems.
    """
    found = {} if source.path.is_file() else {entry.name: entry for entry in _cast_entries(source)}
    if source.path.is_file() or not found or _has_files(source.path):
        listed: dict[str, list[Path]] = {}
        for path in _files.list_files(source, (".tsv", ".jsonl"), _EXPECTED):
            listed.setdefault(_files.split_of(_files.stem(path))[0], []).append(path)
        for name, files in listed.items():
            if name in found:
                problem = f"the set {name!r} is here twice, also as {source.relative(found[name].files[0])}"
                raise DataError(problem, file=source.relative(files[0]), expected="one form of it")
            found[name] = _files.make_entry(name, files)
    return [found[name] for name in sorted(found)]


def _has_files(folder: Path) -> bool:
    endings = (".tsv", ".jsonl", ".tsv.gz", ".jsonl.gz")
    return any(path.name.endswith(endings) and path.is_file() for path in folder.iterdir())


def _cast_entries(source: SourceFolder) -> list[TaskEntry]:
    """Return the sets whose folder is there and holds files of a cast with the three fields."""
    _files.need_folder(source, source.path, f"a folder of {_EXPECTED}")
    entries = []
    for key, cast in casts_by_folder(source.casts).items():
        name = cast.name.removeprefix(_CAST_PREFIX)
        folder = source.path / name
        if key != cast.name or name == cast.name or set(COLUMNS) - cast.fields.keys() or not folder.is_dir():
            continue
        files = _casted.find_data(cast, [folder])
        if files:
            entries.append(_casted.make_entry(name, cast, files, source))
    return entries


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every split of one set.

    Raises:
        DataError: a file or line is damaged and the recipe says stop.
    """
    if "cast" in entry.detail:
        return _casted.read_entry(entry, source, keywords=False)
    facts = {"dataset": entry.name, "output_fields": ["answer", "rationale"], "metadata": {}}
    data = TaskData(facts, Columns())
    for path in entry.files:
        split = _files.split_of(_files.stem(path))[1]
        is_json = path.name.removesuffix(".gz").endswith(".jsonl")
        with _files.reading(data, source, path):
            for record in (_files.read_jsonl if is_json else _files.read_cells)(path, source):
                texts = (_from_object if is_json else _from_cells)(record, path, source, data)
                if texts is not None:
                    fields = dict(zip(COLUMNS, texts, strict=True))
                    _files.accept(data, source, path, record, fields, [texts[1]], upstream_split=split)
    return data


def _from_cells(record: Record, path: Path, source: SourceFolder, data: TaskData) -> list[str] | None:
    if not _files.is_record(data, source, path, record, list):
        return None
    if len(record.value) != len(COLUMNS):
        problem, expected = f"{len(record.value)} columns", ", ".join(COLUMNS)
        _files.damage(data, source, path, record, "wrong_columns", problem, expected=expected)
        return None
    return [unescape(cell) if "\\n" in cell else cell for cell in record.value]


def unescape(cell: str) -> str:
    """Return a cell with its line breaks; TeX commands that begin with an n stay as they are."""
    if "\\n" not in cell:
        return cell
    kept: list[str] = []
    start = 0
    for match in _TEX.finditer(cell):
        if match["short"] is None or _in_math(cell, match.start()):
            kept += [cell[start : match.start()].replace("\\n", "\n"), match[0]]
            start = match.end()
    return "".join([*kept, cell[start:].replace("\\n", "\n")])


def _in_math(cell: str, place: int) -> bool:
    """Say whether a place in a text is between dollar signs, or within TeX's round or square brackets."""
    inside = False
    for match in _MATH.finditer(cell, 0, place):
        inside = not inside if match[0] == "$" else match[0] in ("\\(", "\\[")
    return inside


def _from_object(record: Record, path: Path, source: SourceFolder, data: TaskData) -> list[str] | None:
    if not _files.is_record(data, source, path, record):
        return None
    texts = []
    for name, keys in ALIASES.items():
        key = next((key for key in keys if key in record.value), name)
        value = _plain_text(record.value.get(key), name)
        known = record.value if value is None else {**record.value, key: value}
        text = _files.text_field(data, source, path, record, key, known)
        if text is None:
            return None
        texts.append(text)
    return texts


def _plain_text(value: Any, name: str) -> str | None:
    """Return the text of an answer that is a truth value or number, and of a list of steps; None where it is neither."""
    if name == "answer" and isinstance(value, bool):
        return "yes" if value else "no"
    if name == "answer" and isinstance(value, int):
        return str(value)
    if name == "rationale" and isinstance(value, list) and all(isinstance(step, str) for step in value):
        return "\n".join(value)
    return None
