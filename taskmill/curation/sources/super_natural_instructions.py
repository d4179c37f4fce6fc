"""Super-NaturalInstructions: one JSON file a task, and lists of train, test and excluded tasks.

Reads `tasks/task*.json` (Wang et al. 2022, the layout of the release) and `splits/<list>/*_tasks.txt`. Instances keep
the place they have in the file as record number; positive and then negative examples are numbered behind them.
A bare NaN in metadata becomes null and its key is listed in `metadata.nan_keys`.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import FileError, Record
from taskmill.errors import DataError, RecipeError, did_you_mean

BENCHMARK = "super_natural_instructions"
STYLE, KIND = "task", "benchmark"
OPTIONS = {
    "tasks": "sub-folders that hold task files; by default [tasks]",
    "split_list": "folder below splits/ whose lists give each task's upstream role; by default `default` if it is there",
}
ROLES = ("train", "test", "excluded")
EXAMPLE_KEYS = (("positive", "Positive Examples"), ("negative", "Negative Examples"))
_METADATA = {
    "source": "Source",
    "categories": "Categories",
    "definitions": "Definition",
    "domains": "Domains",
    "reasoning": "Reasoning",
    "contributors": "Contributors",
    "url": "URL",
    "input_language": "Input_language",
    "output_language": "Output_language",
    "instruction_language": "Instruction_language",
}
NO_DATA_SET = frozenset({"synthetic", "missing", "miscellaneous"})
"""What upstream writes under Source where a task is made from no data set that it could name."""
_TEXT = frozenset({str})
_log = logging.getLogger("taskmill")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the task files, with each task's role from the split lists.

    Raises:
        DataError: a folder or list is missing, or two folders hold a file of the same task.
        RecipeError: the option `tasks` is no list of names.
    """
    wanted = source.options.get("tasks", ["tasks"])
    folders = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(folders, (list, tuple)) or not all(isinstance(name, str) for name in folders):
        problem = f"option tasks: found {wanted!r}; expected names of sub-folders"
        raise RecipeError([f"sources: reader {BENCHMARK!r}: {problem}"])
    files: dict[str, Path] = {}
    for name in folders:
        folder = _files.need_folder(source, source.path / name, "a folder of task files, *.json")
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]):
            other = files.setdefault(_files.stem(path), path)
            if other != path:
                problem = f"the task is also in {source.relative(other)}"
                raise DataError(problem, file=source.relative(path), expected="one file a task")
    if not files:
        raise DataError("no task file", file=source.relative(source.path), expected="task*.json")
    roles = _roles(source)
    absent = len(roles.keys() - files.keys())
    if absent:
        _log.info("super_natural_instructions: %d tasks of the split lists have no file here", absent)
    return [_files.make_entry(name, [files[name]], role=roles.get(name)) for name in sorted(files)]


def _roles(source: SourceFolder) -> dict[str, str]:
    """Return the upstream role of each task that a list names.

    Raises:
        DataError: the list asked for does not exist, or names a task in two roles.
    """
    wanted = source.options.get("split_list")
    splits = source.path / "splits"
    folder = splits / str(wanted or "default")
    if not folder.is_dir():
        if wanted is None:
            return {}
        known = [p.name for p in splits.iterdir() if p.is_dir()] if splits.is_dir() else []
        problem = f"no split list of this name{did_you_mean(str(wanted), known)}"
        raise DataError(problem, file=source.relative(folder), expected=f"one of {sorted(known)}")
    roles: dict[str, str] = {}
    for role in ROLES:
        path = folder / f"{role}_tasks.txt"
        if not path.is_file():
            continue
        for line in _files.read_all(path, source).decode("utf-8", "replace").splitlines():
            name = line.strip()
            if name and roles.setdefault(name, role) != role:
                problem = f"task {name!r} is also in the list {roles[name]!r}"
                raise DataError(problem, file=source.relative(path), expected="a task in one list only")
    return roles


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read one task file: its facts, instances, positive and negative examples.

    Raises:
        DataError: the file or a record of it is damaged and the recipe says stop.
    """
    path = entry.files[0]
    data = TaskData({}, Columns())
    with _files.reading(data, source, path):
        task = _load(path, source)
        data.facts = _facts(task, entry, source)
        instances = _list(task, "Instances", path, source)
        for number, instance in enumerate(instances):
            _read_instance(Record(number, instance, None), path, source, data)
        number = len(instances)
        for kind, key in EXAMPLE_KEYS:
            for place, example in enumerate(_list(task, key, path, source), 1):
                _read_example(Record(number, example, None), f"{kind}-{place}", kind, path, source, data)
                number += 1
    return data


def _load(path: Path, source: SourceFolder) -> dict[str, Any]:
    """Parse a task file.

    Raises:
        FileError: not JSON, or not an object.
    """
    task = _files.read_document(path, source, "a task file")
    if not isinstance(task, dict):
        where = {"file": source.relative(path), "value": task, "expected": "a JSON object"}
        raise FileError("wrong_type", "not a task", **where)
    return task


def _list(task: dict[str, Any], key: str, path: Path, source: SourceFolder) -> list[Any]:
    """Return a list of the task file.

    Raises:
        FileError: the key is missing or holds no list.
    """
    found = task.get(key)
    if not isinstance(found, list):
        name = source.relative(path)
        if key not in task:
            problem = f"the key is missing{did_you_mean(key, task)}"
            raise FileError("missing_field", problem, file=name, field=key, expected="a list")
        raise FileError("wrong_type", "not a list", file=name, field=key, value=found, expected="a list")
    return found


def _facts(task: dict[str, Any], entry: TaskEntry, source: SourceFolder) -> dict[str, Any]:
    """Return what the file states about its task.

    Raises:
        FileError: there is no definition.
    """
    path = entry.files[0]
    lists = {name: _texts(task.get(key)) for name, key in _METADATA.items()}
    if not lists["definitions"]:
        problem = "the task has no definition"
        raise FileError(
            "missing_field",
            problem,
            file=source.relative(path),
            field="Definition",
            value=task.get("Definition"),
            expected="a list of at least one string",
        )
    licenses = [text for text in _texts(task.get("Instance License")) if text]
    metadata: dict[str, Any] = {name: _without_nan(task.get(key)) for name, key in _METADATA.items()}
    nan_keys = sorted(key for key, value in task.items() if key not in _RECORDS and _has_nan(value))
    if nan_keys:
        metadata["nan_keys"] = nan_keys
    evidence = f"Instance License: {'; '.join(licenses)}" if licenses else "no Instance License"
    facts: dict[str, Any] = {
        "definition": lists["definitions"][0],
        "languages": sorted({*lists["input_language"], *lists["output_language"]}),
        "license": "; ".join(licenses),
        "license_evidence": evidence,
        "homepage": next((url for url in lists["url"] if url.startswith("http")), None),
        "upstream_role": entry.detail.get("role"),
        "metadata": metadata,
    }
    named = [source for source in lists["source"] if source.strip().casefold() not in NO_DATA_SET]
    firsts = {"category": lists["categories"], "dataset": named}
    return facts | {fact: texts[0] for fact, texts in firsts.items() if texts}


_RECORDS = ("Instances", "Positive Examples", "Negative Examples")


def _texts(value: Any) -> list[str]:
    """Return the strings that UTF-8 can hold in a list, or in a bare string."""
    found = value if isinstance(value, list) else [value]
    return [_files.storable(item) for item in found if isinstance(item, str)]


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    return isinstance(value, list) and any(map(_has_nan, value))


def _without_nan(value: Any) -> Any:
    """Return a JSON value with null for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _files.storable(value)
    if isinstance(value, dict):
        return {_files.storable(key): _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value


def _read_instance(record: Record, path: Path, source: SourceFolder, data: TaskData) -> None:
    """Add one instance."""
    value = record.value
    if type(value) is dict:
        text, outputs = value.get("input"), value.get("output")
        if type(text) is str and type(outputs) is list and _TEXT.issuperset(map(type, outputs)):
            upstream_id = _files.usable_id(value.get("id"))
            _files.accept(data, source, path, record, {"input": text}, outputs, upstream_id=upstream_id)
            return
    if not _files.is_record(data, source, path, record):
        return
    text = _files.text_field(data, source, path, record, "input", record.value)
    if text is None:
        return
    if "output" not in record.value:
        problem = f"there is no field 'output'{did_you_mean('output', record.value)}"
        _files.damage(data, source, path, record, "missing_field", problem, field="output")
        return
    outputs = record.value["output"]
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not all(isinstance(item, str) for item in outputs):
        where = {"field": "output", "value": outputs, "expected": "a list of strings"}
        _files.damage(data, source, path, record, "wrong_type", "not a list of strings", **where)
        return
    upstream_id = _files.usable_id(record.value.get("id"))
    _files.accept(data, source, path, record, {"input": text}, outputs, upstream_id=upstream_id)


def _read_example(
    record: Record, upstream_id: str, kind: str, path: Path, source: SourceFolder, data: TaskData
) -> None:
    """Add one positive or negative example."""
    if not _files.is_record(data, source, path, record):
        return
    text = _files.text_field(data, source, path, record, "input", record.value)
    if text is None:
        return
    output = _files.text_field(data, source, path, record, "output", record.value)
    if output is None:
        return
    explanation = record.value.get("explanation", "")
    if not isinstance(explanation, str):
        where = {"field": "explanation", "value": explanation, "expected": "a string"}
        _files.damage(data, source, path, record, "wrong_type", "not text", **where)
        return
    fields = {"input": text, "explanation": explanation, "example_kind": kind}
    _files.accept(
        data,
        source,
        path,
        record,
        fields,
        [output],
        upstream_id=upstream_id,
        upstream_split="demonstration",
    )
