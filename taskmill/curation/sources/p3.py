"""P3, prompts rendered from PromptSource's templates: a file or folder a template, named `<data set>[_<subset>]_<template>`.

Reads JSON lines with `prompt` and `completion`, whose end mark `<|endoftext|>` is cut off and counted in the metadata, and the
Hub's Parquet with `inputs_pretokenized`, `targets_pretokenized` and, in some, `answer_choices`, in a folder a template. A task
is a data set, named like its folder in PromptSource (`adversarial_qa/dbert`): the longest known folder that a name begins
with; where none fits, the name itself. Rows are already rendered, so there is no template; the metadata counts them by template.
Of the configurations made for scoring, with a row for each choice and `is_correct`, only the right choices are kept.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._options import one_of, path_of
from taskmill.curation.sources._records import Format, guess_format, read_records
from taskmill.records import UPSTREAM_SPLITS

BENCHMARK = "promptsource"
STYLE, KIND = "instance", "benchmark"
OPTIONS = {
    "templates": "PromptSource's folder of templates, relative to the source, whose data sets name the tasks; beside the known",
    "split": "upstream split of files whose names say none, such as train; by default none",
}
END_MARK = "<|endoftext|>"
_TAXONOMY = Path(__file__).resolve().parents[1] / "taxonomy" / "promptsource.csv"
_PAIRS = (("inputs_pretokenized", "targets_pretokenized"), ("prompt", "completion"), ("inputs", "targets"))
_SHARD = re.compile(r"(train|validation|valid|dev|test)(?:-\d+-of-\d+.*)?|\d+")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the data sets that the files are rendered from.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option is not one of its values.
    """
    split = None if source.options.get("split") is None else one_of(source, "p3", "split", UPSTREAM_SPLITS)
    known = known_folders(source)
    files: dict[str, list[Path]] = {}
    templates: dict[str, list[str]] = {}
    expected = "<data set>_<template>.jsonl, or <data set>_<template>/*.parquet"
    for path in _files.list_files(source, (".jsonl", ".parquet"), expected, deep=True):
        name, template = split_name(rendered_name(path, source), known)
        files.setdefault(name, []).append(path)
        templates.setdefault(name, []).append(template)
    return [
        _files.make_entry(name, files[name], templates=templates[name], split=split) for name in sorted(files)
    ]


# --------------------------------------------------------------------------------------------- names


def rendered_name(path: Path, source: SourceFolder) -> str:
    """Return `<data set>_<template>`: the stem of a file, or of its folder where the file is named for a split or number."""
    name = _files.stem(path)
    for folder in path.parents:
        if not _SHARD.fullmatch(name) or folder == source.path or folder == source.path.parent:
            return name
        name = folder.name
    return name


def known_folders(source: SourceFolder) -> dict[str, str]:
    """Return spelling -> PromptSource folder of the data sets in the taxonomy and below the option `templates`.

    Raises:
        DataError: the folder of the option does not exist.
        RecipeError: the option is no path.
    """
    folders = _from_taxonomy(_TAXONOMY)
    templates = path_of(source, "p3", "templates")
    if templates is not None:
        root = _files.need_folder(source, templates, "PromptSource's templates")
        folders += [
            path.parent.relative_to(root).as_posix() for path in sorted(root.glob("**/templates.yaml"))
        ]
    return {spelling(folder): folder for folder in folders}


def _from_taxonomy(path: Path) -> list[str]:
    """Return the folders that the package's taxonomy of PromptSource lists; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    names = [row.get("task") or row.get("name") or "" for row in rows]
    return [name.removeprefix(f"{BENCHMARK}/") for name in names if name]


def spelling(name: str) -> str:
    """Return a name as rendered files spell it: one underscore for everything else."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()


def split_name(name: str, known: dict[str, str]) -> tuple[str, str]:
    """Cut a rendered name into (task, template): by the longest data set known, else all of it is the task."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    ends = [match.end() for match in re.finditer(r"[A-Za-z0-9]+", name)]
    for count in range(min(len(parts), len(ends)), 0, -1):
        folder = known.get(spelling(name[: ends[count - 1]]))
        if folder is not None:
            return folder, name[ends[count - 1] :].lstrip("_-. ") or name
    return name, name


# ------------------------------------------------------------------------------------------- reading


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every file of one data set.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    counts: dict[str, int] = {}
    num_marked = 0
    for path, template in zip(entry.files, entry.detail["templates"], strict=True):
        split = _split_of(path) or entry.detail["split"]
        before = len(data.columns)
        with _files.reading(data, source, path):
            for record in read_records(_form(path), path, source):
                num_marked += _read_row(record, split, path, source, data)
        counts[template] = counts.get(template, 0) + len(data.columns) - before
    metadata: dict[str, Any] = {"templates": {name: counts[name] for name in sorted(counts)}}
    if num_marked:
        metadata |= {"end_mark": END_MARK, "num_end_marks": num_marked}
    data.facts = {"dataset": entry.name, "metadata": metadata}
    data.num_rendered_templates = len(counts)
    return data


def _form(path: Path) -> Format:
    """Return how a file is read; the tokens beside the texts of P3's Parquet are not."""
    return Format(guess_format(path) or "jsonl", wanted=frozenset({"answer_choices"}))


def _split_of(path: Path) -> str | None:
    """Return the split of `train-00000-of-00001.parquet` or `train/0000.parquet`; stems of templates say none."""
    for name in (_files.stem(path), path.parent.name):
        match = _SHARD.fullmatch(name)
        if match and match[1]:
            return _files.SPLIT_NAMES[match[1]]
    return None


def _read_row(record: Record, split: str | None, path: Path, source: SourceFolder, data: TaskData) -> int:
    """Add one rendered prompt; return 1 where its end mark was cut off, else 0."""
    if not _files.is_record(data, source, path, record):
        return 0
    keys = next((pair for pair in _PAIRS if pair[0] in record.value), _PAIRS[1])
    prompt = _files.text_field(data, source, path, record, keys[0], record.value)
    if prompt is None:
        return 0
    answer = _files.text_field(data, source, path, record, keys[1], record.value)
    if answer is None:
        return 0
    if record.value.get("is_correct") is False:
        _files.leave(
            data, source, path, record, "wrong_choice", "a choice that upstream marks as not correct"
        )
        return 0
    text = answer.removesuffix(END_MARK)
    fields, options = {"inputs": prompt}, _options(record.value.get("answer_choices"), text)
    kept = _files.accept(data, source, path, record, fields, [text], upstream_split=split, options=options)
    return int(kept and text != answer)


def _options(choices: Any, answer: str) -> list[str] | None:
    """Return the choices of a row if the answer is one of them."""
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return None
    options = [choice.strip() for choice in choices if isinstance(choice, str)]
    fits = answer.strip() in options and len(set(options)) == len(options) == len(choices) > 1
    return options if fits else None
