"""CrossFit: few-shot TSV files `<task>/<task>_<k>_<seed>_{train,dev,test}.tsv`, an input and its outputs a line.

Further columns are further accepted outputs (Ye et al. 2021). Rows repeated over seeds stay rows here; merging removes
them. Choices of the form `(A) .. (B) ..` become options where the output is one of them. Upstream's task partitions, JSON files
with the lists train, dev and test, give each task its `upstream_role` where the option `partition` names one.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.errors import DataError, RecipeError, did_you_mean

BENCHMARK = "crossfit"
STYLE, KIND = "keywords", "benchmark"
OPTIONS = {
    "partition": "name of a task partition, such as random, or the path of its JSON file, relative to the source",
}
_PARTITIONS = (
    "custom_tasks_splits",
    "dataloader/custom_tasks_splits",
    "../custom_tasks_splits",
    "../dataloader/custom_tasks_splits",
)
"""Where upstream's partitions lie, seen from the folder of the tasks."""
_log = logging.getLogger("taskmill")
_NAME = re.compile(r"(?P<task>.+)_(?P<shots>\d+)_(?P<seed>\d+)_(?P<split>train|dev|test)\.tsv(\.gz)?")
_LETTER = re.compile(r"(?:^|\s)\(([A-Z])\)\s")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: folders with files named as upstream names them.

    Raises:
        DataError: the folder is missing or holds no such file, or the partition is missing or damaged.
        RecipeError: the option is no text.
    """
    expected = "<task>/<task>_<k>_<seed>_train.tsv"
    folder = _files.need_folder(source, source.path, f"a folder of {expected}")
    tasks: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*/*.tsv"), *folder.glob("*/*.tsv.gz")]):
        match = _NAME.fullmatch(path.name)
        if match and match["task"] == path.parent.name:
            tasks.setdefault(match["task"], []).append(path)
    if not tasks:
        raise DataError("no CrossFit file", file=source.relative(folder), expected=expected)
    partition, roles = _roles(source)
    absent = sorted(roles.keys() - tasks.keys())
    if absent:
        _log.info(
            "crossfit: %d tasks of the partition %s have no files: %s",
            len(absent),
            partition,
            ", ".join(absent),
        )
    return [
        _files.make_entry(
            name, files, **({"partition": partition, "role": roles.get(name)} if partition else {})
        )
        for name, files in sorted(tasks.items())
    ]


def _roles(source: SourceFolder) -> tuple[str | None, dict[str, str]]:
    """Return the name of the partition that the recipe names, and the role that it gives each of its tasks.

    A task in several lists has the role of the last of train, dev and test (upstream's NLI partition has such a task).

    Raises:
        DataError: it is missing or damaged.
        RecipeError: the option is no text.
    """
    option = source.options.get("partition")
    if option is None:
        return None, {}
    if not isinstance(option, str) or not option:
        raise RecipeError([f"sources: option partition: found {option!r}; expected the name of a partition"])
    path = _partition_file(option, source)
    name = source.relative(path)
    lists = _files.read_document(path, source)
    roles: dict[str, str] = {}
    for key in ("train", "dev", "test"):
        listed = lists.get(key, []) if isinstance(lists, dict) else None
        if not isinstance(listed, list) or not all(isinstance(task, str) for task in listed):
            expected = "an object with lists of task names under train, dev and test"
            raise DataError("not a task partition", file=name, field=key, value=listed, expected=expected)
        for task in listed:
            if task in roles and roles[task] != _files.SPLIT_NAMES[key]:
                _log.warning("%s: the task %r is also under %s, which counts", name, task, key)
            roles[task] = _files.SPLIT_NAMES[key]
    return path.stem, roles


def _partition_file(option: str, source: SourceFolder) -> Path:
    folders = [Path(os.path.normpath(source.path / folder)) for folder in _PARTITIONS]
    named = [folder / f"{option}.json" for folder in folders]
    for path in (*named, Path(os.path.normpath(source.path / option))):
        if "\0" not in option and path.is_file():
            return path
    known = sorted(path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.json"))
    raise DataError(
        f"no task partition {option!r}{did_you_mean(option, known)}",
        file=source.relative(source.path),
        field="partition",
        expected=f"one of {', '.join(known)}" if known else f"{_PARTITIONS[0]}/{option}.json",
    )


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the files of every seed of one task.

    Raises:
        DataError: a file or line is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    seeds: set[int] = set()
    for path in entry.files:
        match = _NAME.fullmatch(path.name)
        assert match is not None
        seeds.add(int(match["seed"]))
        split = _files.SPLIT_NAMES[match["split"]]
        with _files.reading(data, source, path):
            for record in _files.read_cells(path, source):
                if not _files.is_record(data, source, path, record, list):
                    continue
                text, *outputs = record.value
                if not outputs:
                    problem = "a line of one column"
                    expected = "an input, a tab and at least one output"
                    _files.damage(data, source, path, record, "wrong_columns", problem, expected=expected)
                    continue
                fields, options = {"text": text}, find_choices(text, outputs)
                _files.accept(
                    data, source, path, record, fields, outputs, upstream_split=split, options=options
                )
    metadata: dict[str, Any] = {"shape": "text", "seeds": sorted(seeds)}
    data.facts = {"dataset": entry.name, "metadata": metadata}
    if "partition" in entry.detail:
        metadata["partition"] = entry.detail["partition"]
        data.facts["upstream_role"] = entry.detail["role"]
    return data


def find_choices(text: str, outputs: list[str]) -> list[str] | None:
    """Return the choices written behind (A), (B) .. in a text, if every output is one of them."""
    parts = _LETTER.split(text)
    letters, choices = parts[1::2], [part.strip() for part in parts[2::2]]
    in_order = letters == [chr(ord("A") + place) for place in range(len(letters))]
    if len(choices) < 2 or not in_order or len(set(choices)) < len(choices):
        return None
    return choices if all(output.strip() in choices for output in outputs) else None
