"""UnifiedSKG: tasks over tables, triples and database schemas (Xie et al. 2022), instantiated or raw.

Reads the instantiated records with `text_in`, `struct_in` and `seq_out`: JSON lines or Parquet, `<task>_{train,dev,test}.*` or
`<task>/{train,dev,test}-*.parquet`. `struct_in` is the linearised structure; examples over the same one form a group: by
`table_id` where the records have it, else by the text itself. Beside them reads the raw files of WikiTableQuestions, DART,
FeTaQA, Spider and TabFact wherever below the folder they lie as `_structured.py` says, and of MultiWOZ (`_multiwoz.py`), and
linearises their structures.
"""

from __future__ import annotations

from pathlib import Path

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._multiwoz import MULTIWOZ
from taskmill.curation.sources._records import Format, guess_format, read_records
from taskmill.curation.sources._structured import RAW_SETS, Kept, RawSet
from taskmill.errors import DataError

BENCHMARK = "unifiedskg"
STYLE, KIND = "keywords", "benchmark"
OPTIONS: dict[str, str] = {}
_SETS: dict[str, RawSet] = {**RAW_SETS, "multiwoz": MULTIWOZ}
_EXPECTED = "<task>_train.jsonl, <task>_dev.jsonl .., or the raw files of a data set"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: instantiated files by their names, raw data sets by their layout.

    Raises:
        DataError: the folder is missing or holds neither, or a task is there in both forms.
    """
    entries = {entry.name: entry for entry in _raw_entries(source)}
    claimed = {path for entry in entries.values() for path in entry.files}
    for name, files in _instantiated(source, claimed).items():
        if name in entries:
            problem = f"the task {name!r} is here twice, as raw files and as instantiated ones"
            first = source.relative(entries[name].files[0])
            raise DataError(problem, file=source.relative(files[0]), expected=f"one of it and {first}")
        entries[name] = _files.make_entry(name, files)
    if not entries:
        what = source.relative(source.path)
        raise DataError("the folder holds no file of this reader", file=what, expected=_EXPECTED)
    return [entries[name] for name in sorted(entries)]


def _raw_entries(source: SourceFolder) -> list[TaskEntry]:
    """Return the raw data sets below the folder; a set that lies there more than once is read from the first place."""
    if source.path.is_file():
        return []
    root = _files.need_folder(source, source.path, f"a folder of {_EXPECTED}")
    found: dict[str, TaskEntry] = {}
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        for name, raw in _SETS.items():
            files = raw.find(folder) if name not in found else {}
            if files:
                tables = {table for path in files for table in raw.tables(path)}
                every = [*files, *sorted(tables - files.keys())]
                found[name] = _files.make_entry(name, every, raw_set=name, splits=list(files.values()))
    return list(found.values())


def _instantiated(source: SourceFolder, claimed: set[Path]) -> dict[str, list[Path]]:
    found = source.path.rglob("*") if source.path.is_dir() else [source.path]
    endings = (".jsonl", ".jsonl.gz", ".parquet")
    tasks: dict[str, list[Path]] = {}
    for path in sorted(p for p in found if p.name.endswith(endings) and p.is_file() and p not in claimed):
        tasks.setdefault(_files.task_of_file(path, source), []).append(path)
    return tasks


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read every split of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({"dataset": entry.name, "metadata": {"shape": "structured"}}, Columns())
    if "raw_set" in entry.detail:
        _read_raw(entry, source, data)
        return data
    for path in entry.files:
        split, form = _files.split_of_file(path), Format(guess_format(path) or "jsonl", wanted=frozenset())
        with _files.reading(data, source, path):
            for record in read_records(form, path, source):
                _read_record(record, split, path, source, data)
    return data


def _read_raw(entry: TaskEntry, source: SourceFolder, data: TaskData) -> None:
    raw, kept = _SETS[entry.detail["raw_set"]], Kept()
    data.facts |= {"languages": ["English"], **raw.facts}
    for path, split in zip(entry.files, entry.detail["splits"], strict=False):
        with _files.reading(data, source, path):
            raw.read(path, split, kept, source, data)


def _read_record(
    record: _files.Record, split: str | None, path: Path, source: SourceFolder, data: TaskData
) -> None:
    """Add one record; an empty `text_in` is no field."""
    if not _files.is_record(data, source, path, record):
        return
    texts: dict[str, str] = {}
    for name in ("text_in", "struct_in", "seq_out"):
        text = _files.text_field(data, source, path, record, name, record.value)
        if text is None:
            return
        texts[name] = text
    fields = {"struct": texts["struct_in"]}
    if texts["text_in"].strip():
        fields = {"text": texts["text_in"], **fields}
    table = record.value.get("table_id")
    group = str(table) if isinstance(table, (str, int)) and table != "" else texts["struct_in"]
    references = [texts["seq_out"]]
    _files.accept(data, source, path, record, fields, references, upstream_split=split, group=group)
