"""FLAN: rendered prompts with `inputs`, `targets`, `task_name` (or `task`), `task_source` and `template_type`.

Reads JSON lines and Parquet, such as the five sub-mixtures on the Hub; the cached form of the FLAN code, whose keys are
`inputs_pretokenized`, `_task_name` .., is read alike. A task is all rows of one name over every file below the folder;
`:1.0.0` behind a name is left off. Rows are already rendered, so there is no template. Options are read from the last
list of the form `OPTIONS:\n- a\n- b`, but for rows of the types zs_noopt and fs_noopt.

Inverted templates ask for the input given the output; OPT-IML leaves them out (Iyer et al. 2022, App. A.1). A row is known
as inverted by its task's name alone: where that ends in `_ii` or `_input_inversion` (the reasoning and dialogue
sub-mixtures), and, with the collection's CSV in the option `info`, where that lists the name under Question Generation or
Context Generation beside other prompts of the same data set (the T0 sub-mixture), or under a category that begins with
`Inverted`. The Flan 2021 sub-mixture mixes its inverted templates under the data set's name and marks none: these rows
cannot be told and are kept; `metadata.inverted_templates` says `unmarked` where the CSV lists such templates.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _buckets, _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._flan_info import InfoLine, facts_of, is_inverted, read_info
from taskmill.curation.sources._options import one_of, path_of, refuse

BENCHMARK = "flan"
STYLE, KIND = "instance", "benchmark"
OPTIONS = {
    "info": "the collection's flan_collection_info.csv, relative to the source; by default none",
    "inverted": "keep or drop (the default) the rows of inverted templates, so far as their names tell",
    "template_types": "list of the template types to keep, such as [zs_opt, zs_noopt]; by default all",
}
NUM_TEMPLATES = (
    10  # that FLAN wrote for a data set (Wei et al. 2022, section 2.1); rows do not say which was theirs
)
_OPTION_LIST = re.compile(r"OPTIONS:\n((?:- [^\n]*(?:\n|\Z))+)")
_VERSION = re.compile(r":\d+(\.\d+)*$")
_SPLIT = re.compile(r"(?:^|[_.-])(train|validation|valid|val|dev|test)(?:-\d+-of-\d+.*)?$")
_NO_DATA = {"dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json"}
TEMPLATE_TYPES = ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt")
_KEYS = {
    "inputs": ("inputs", "inputs_pretokenized"),
    "targets": ("targets", "targets_pretokenized"),
    "task_name": ("task_name", "_task_name", "task"),
    "task_source": ("task_source", "_task_source"),
    "template_type": ("template_type", "_template_type"),
}


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the task names that the files hold; rows without one go with the first task of their file.

    Raises:
        DataError: there is no file, no record that names a task, or a bad CSV.
        RecipeError: an option is not one of its values.
        StorageError: the cache cannot be written.
    """
    kinds, mode = _template_types(source), one_of(source, "flan", "inverted", ("drop", "keep"))
    table = path_of(source, "flan", "info")
    info = None if table is None else read_info(table, source)
    files = _list(source)
    buckets = _buckets.cut(source, files, NAMING)
    if not buckets.tasks:
        expected = "records with inputs, targets, task_name, task_source and template_type"
        raise _buckets.no_names(source, files, buckets, field="task_name", expected=expected)
    return [
        replace(entry, detail={**entry.detail, **_detail(entry, mode, info), "template_types": kinds})
        for entry in _buckets.make_entries(source, files, buckets)
    ]


def _detail(entry: TaskEntry, mode: str, info: Sequence[InfoLine] | None) -> dict[str, Any]:
    names = entry.detail["task_names"]
    inverted = [name for name in names if mode == "drop" and is_inverted(plain(name), info)]
    return {"inverted": inverted, "info": facts_of(entry.name, info)}


def _list(source: SourceFolder) -> list[Path]:
    expected = "FLAN records as *.jsonl or *.parquet"
    listed = _files.list_files(source, (".jsonl", ".json", ".parquet"), expected, deep=True)
    return [path for path in listed if path.name not in _NO_DATA] or listed


def plain(name: str) -> str:
    """Return a task name without the version of its data set."""
    return _VERSION.sub("", name)


def _task_of(name: str) -> str | None:
    return plain(name) if plain(name) and name.isprintable() else None


NAMING = _buckets.Naming(_KEYS["task_name"], _task_of)


def _template_types(source: SourceFolder) -> list[str] | None:
    found = source.options.get("template_types")
    good = isinstance(found, list | tuple) and found and all(kind in TEMPLATE_TYPES for kind in found)
    if found is not None and not good:
        expected = f"a list of {', '.join(TEMPLATE_TYPES)}"
        refuse("flan", f"option template_types: found {found!r}; expected {expected}")
    return None if found is None else sorted(map(str, found))


# ------------------------------------------------------------------------------------------- reading


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the rows of one task from its bucket.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
        StorageError: the cache cannot be read or made again.
    """
    data = TaskData({}, Columns())
    files = _list(source)
    seen, sources = Counter[str](), set[str]()
    for path, record in _buckets.records_of_entry(entry, source, files, NAMING, data):
        if _read_row(entry, record, path, source, data):
            seen[str(_get(record.value, "template_type") or "unknown")] += 1
            sources.add(str(_get(record.value, "task_source") or "unknown"))
    info = dict(entry.detail["info"])
    languages = info.pop("languages", None)
    metadata = {
        "task_names": sorted(entry.detail["task_names"]),
        "task_sources": sorted(map(_files.storable, sources)),
        "template_types": {_files.storable(kind): seen[kind] for kind in sorted(seen)},
        **info,
    }
    data.facts = {"dataset": entry.name, "metadata": metadata}
    data.num_rendered_templates = NUM_TEMPLATES
    if languages:
        data.facts["languages"] = languages
    return data


def _get(value: Any, name: str) -> Any:
    """Return what a record has under a name or one of its other spellings, else None."""
    return next((value[key] for key in _KEYS[name] if key in value), None)


def _read_row(entry: TaskEntry, record: Record, path: Path, source: SourceFolder, data: TaskData) -> bool:
    """Add one rendered prompt; say whether it was a record of this task."""
    if not _files.is_record(data, source, path, record):
        return False
    name = _get(record.value, "task_name")
    if name not in entry.detail["task_names"]:
        _no_name(record, path, source, data)
        return False
    inputs = _text(record, "inputs", path, source, data)
    targets = None if inputs is None else _text(record, "targets", path, source, data)
    if inputs is None or targets is None:
        return True
    kind, kinds = _get(record.value, "template_type"), entry.detail["template_types"]
    if name in entry.detail["inverted"]:
        detail = f"the template of {name} asks for the input given the output"
        _files.leave(data, source, path, record, "inverted_template", detail)
    elif kinds is not None and kind not in kinds:
        _files.leave(data, source, path, record, "template_type", f"{kind} is not one of {', '.join(kinds)}")
    else:
        offered = None if str(kind).endswith("noopt") else find_options(inputs, targets)
        fields, split = {"inputs": inputs}, split_of(path)
        _files.accept(data, source, path, record, fields, [targets], upstream_split=split, options=offered)
    return True


def _text(record: Record, name: str, path: Path, source: SourceFolder, data: TaskData) -> str | None:
    key = next((key for key in _KEYS[name] if key in record.value), name)
    return _files.text_field(data, source, path, record, key, record.value)


@functools.lru_cache(maxsize=4096)
def split_of(path: Path) -> str | None:
    """Return the split that a file's name says: `zs_opt_train.jsonl`, `train-00000-of-00003.parquet`."""
    match = _SPLIT.search(_files.stem(path))
    return _files.SPLIT_NAMES[match[1]] if match else None


def _no_name(record: Record, path: Path, source: SourceFolder, data: TaskData) -> None:
    """Keep aside a record that no task can be told of."""
    found = [key for key in _KEYS["task_name"] if key in record.value]
    where = {"field": found[0] if found else "task_name", "value": _get(record.value, "task_name")}
    where["expected"] = "a printable string"
    reason = "wrong_type" if found else "missing_field"
    _files.damage(data, source, path, record, reason, "no usable task name", **where)


def find_options(inputs: str, targets: str) -> list[str] | None:
    """Return the choices of the last option list in a prompt, if the target is one of them."""
    found = _OPTION_LIST.findall(inputs)
    if not found:
        return None
    options = [line[2:].strip() for line in found[-1].splitlines()]
    return options if targets.strip() in options and len(set(options)) == len(options) > 1 else None
