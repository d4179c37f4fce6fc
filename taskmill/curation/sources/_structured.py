"""The raw data sets behind UnifiedSKG, each in its own published format.

| task | upstream | files | a group is |
|---|---|---|---|
| wikitq | WikiTableQuestions | `data/*.tsv` beside `csv/*-csv/*.csv` | a table |
| dart | DART | `dart-v*-full-{train,dev,test}.json` | a set of triples |
| fetaqa | FeTaQA | `fetaQA-v*_{train,dev,test}.jsonl` | a table |
| spider | Spider | `{train_spider,train_others,train,dev,test}.json` beside `tables.json` | a database |
| tabfact | TabFact | `{train,val,test}_examples.json`, tables in `all_csv` | a table |

`_linear.py` says how structures become text. An example over a table or schema that is not there is left out with the
reason `missing_table` or `missing_schema`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder, TaskData
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import FileError, Record
from taskmill.curation.sources._linear import (
    read_table,
    schema_text,
    tabfact_rows,
    table_path,
    table_text,
    triples_text,
    unescape,
    wikitq_rows,
)
from taskmill.curation.sources._records import Format, read_records

# ---------------------------------------------------------------------------------------- the data sets


@dataclass
class Kept:
    """What is kept while the files of one task are read."""

    read_before: set[str] = field(default_factory=set)
    """WikiTableQuestions: ids of the questions in earlier files."""
    tables: dict[Path, str | FileError] = field(default_factory=dict)
    schemas: dict[Path, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RawSet:
    """One of the data sets: how its files are told and read."""

    find: Callable[[Path], dict[Path, str | None]]
    """Folder -> its data files and their splits, in the order in which they are read; empty where it is none of this set."""
    tables: Callable[[Path], list[Path]]
    """A data file -> further files that reading opens."""
    read: Callable[[Path, str | None, Kept, SourceFolder, TaskData], None]
    """Adds the examples of a data file."""
    facts: Mapping[str, Any]


def _named(folder: Path, patterns: Mapping[str, str | None]) -> dict[Path, str | None]:
    found: dict[Path, str | None] = {}
    for pattern, split in patterns.items():
        for path in sorted([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]):
            if path.is_file():
                found.setdefault(path, split)
    return found


def _none(path: Path) -> list[Path]:
    return []


def _records(path: Path, source: SourceFolder, form: str = "json") -> Iterator[Record]:
    return read_records(Format(form), path, source)


def _need(
    record: Record, names: Sequence[str], path: Path, source: SourceFolder, data: TaskData
) -> list[str] | None:
    """Return the texts under these names; one that is missing or no text is damage and gives None."""
    texts = []
    for name in names:
        text = _files.text_field(data, source, path, record, name, record.value)
        if text is None:
            return None
        texts.append(text)
    return texts


def _is_rows(value: Any) -> bool:
    """Say whether a value is a list of lists of texts."""
    return isinstance(value, list) and all(
        isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in value
    )


# ---------------------------------------------------------------------------------- WikiTableQuestions

_WIKITQ = {
    "pristine-unseen-tables.tsv": "test",
    "random-split-seed-1-dev.tsv": "validation",
    "random-split-seed-1-test.tsv": "validation",
    "training.tsv": "train",
    "pristine-seen-tables.tsv": None,
    "training-before300.tsv": "train",
    "random-split-seed-*.tsv": "train",
}
"""A question that stands in several files is taken from the first of these."""


def _find_wikitq(folder: Path) -> dict[Path, str | None]:
    return _named(folder, _WIKITQ) if folder.name == "data" else {}


def _wikitq_tables(path: Path) -> list[Path]:
    root = path.parent.parent / "csv"
    return sorted([*root.glob("*-csv/*.csv"), *root.glob("*-csv/*.csv.gz")])


def _read_wikitq(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    own: set[str] = set()
    root = path.parent.parent
    structs: dict[str, str | FileError | None] = {}
    for record in _records(path, source, "tsv"):
        if not _files.is_record(data, source, path, record):
            continue
        texts = _need(record, ("id", "utterance", "context", "targetValue"), path, source, data)
        if texts is None:
            continue
        number, question, context, target = texts
        if number in kept.read_before:
            _files.leave(data, source, path, record, "read_before", f"{number} stands in a file read before")
            continue
        if context not in structs:
            table = table_path(root, context)
            structs[context] = read_table(table, wikitq_rows, kept.tables, source) if table else None
        struct = structs[context]
        if struct is None:
            _files.leave(data, source, path, record, "missing_table", f"there is no table {context}")
            continue
        if isinstance(struct, FileError):
            _files.damage(data, source, path, record, "bad_table", str(struct), field="context")
            continue
        answer = ", ".join(unescape(value) for value in target.split("|"))
        fields = {"text": unescape(question), "struct": struct}
        if _files.accept(
            data,
            source,
            path,
            record,
            fields,
            [answer],
            upstream_split=split,
            group=context,
            upstream_id=_files.usable_id(number),
        ):
            own.add(number)
    kept.read_before |= own


# ------------------------------------------------------------------------------------- DART and FeTaQA


def _by_split(pattern: str, names: Mapping[str, str]) -> Callable[[Path], dict[Path, str | None]]:
    patterns: dict[str, str | None] = {pattern.format(name): split for name, split in names.items()}
    return lambda folder: _named(folder, patterns)


_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def _read_dart(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    """Add one example a set of triples, every annotation a reference (UnifiedSKG repeats its train sets for each)."""
    for record in _records(path, source):
        if not _files.is_record(data, source, path, record):
            continue
        triples, notes = (record.value.get(name) for name in ("tripleset", "annotations"))
        if not (_is_rows(triples) and triples and all(len(triple) == 3 for triple in triples)):
            where = {"field": "tripleset", "value": triples, "expected": "lists of three texts"}
            _files.damage(data, source, path, record, "wrong_type", "not triples", **where)
            continue
        found = [note.get("text") if isinstance(note, dict) else None for note in _listed(notes)]
        texts = [text for text in found if isinstance(text, str)]
        if not texts or len(texts) < len(found):
            where = {"field": "annotations", "value": notes, "expected": "objects with a `text`"}
            _files.damage(data, source, path, record, "wrong_type", "not annotations", **where)
            continue
        struct = triples_text(triples)
        fields = {"struct": struct}
        _files.accept(data, source, path, record, fields, texts, upstream_split=split, group=struct)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_fetaqa(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    names = ("table_page_title", "table_section_title", "question", "answer")
    for record in _records(path, source, "jsonl"):
        if not _files.is_record(data, source, path, record):
            continue
        texts = _need(record, names, path, source, data)
        if texts is None:
            continue
        rows = record.value.get("table_array")
        if not _is_rows(rows) or not rows:
            where = {"field": "table_array", "value": rows, "expected": "lists of texts, the header first"}
            _files.damage(data, source, path, record, "wrong_type", "not a table", **where)
            continue
        page, section, question, answer = texts
        table = table_text(rows[0], rows[1:])
        fields = {"text": question, "struct": f"{page} | {section} {table}"}
        upstream_id = _files.usable_id(record.value.get("feta_id"))
        _files.accept(
            data,
            source,
            path,
            record,
            fields,
            [answer],
            upstream_split=split,
            group=table,
            upstream_id=upstream_id,
        )


# ------------------------------------------------------------------------------------------------ Spider

_SPIDER = {"train_spider.json": "train", "train_others.json": "train", "train.json": "train"}


def _find_spider(folder: Path) -> dict[Path, str | None]:
    if not any((folder / name).is_file() for name in ("tables.json", "tables.json.gz")):
        return {}
    return _named(folder, {**_SPIDER, "dev.json": "validation", "test.json": "test"})


def _spider_tables(path: Path) -> list[Path]:
    found = (path.with_name(name) for name in ("tables.json", "tables.json.gz", "test_tables.json"))
    return [table for table in found if table.is_file()]


def _schemas(path: Path, kept: Kept, source: SourceFolder) -> dict[str, Any]:
    """Return database -> schema of the files beside a data file.

    Raises:
        FileError: one of them cannot be read.
    """
    if path.parent not in kept.schemas:
        found: dict[str, Any] = {}
        for tables in _spider_tables(path):
            for record in _records(tables, source):
                if isinstance(record.value, dict) and isinstance(record.value.get("db_id"), str):
                    found.setdefault(record.value["db_id"], record.value)
        kept.schemas[path.parent] = found
    return kept.schemas[path.parent]


def _read_spider(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    schemas = _schemas(path, kept, source)
    for record in _records(path, source):
        if not _files.is_record(data, source, path, record):
            continue
        texts = _need(record, ("question", "query", "db_id"), path, source, data)
        if texts is None:
            continue
        question, query, database = texts
        if database not in schemas:
            detail = f"tables.json has no schema of {database}"
            _files.leave(data, source, path, record, "missing_schema", detail)
            continue
        try:
            struct = schema_text(schemas[database])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problem = f"the schema of {database} in tables.json is damaged: {error!r}"
            _files.damage(data, source, path, record, "bad_schema", problem, field="db_id")
            continue
        fields = {"text": question, "struct": struct}
        _files.accept(data, source, path, record, fields, [query], upstream_split=split, group=database)


# ----------------------------------------------------------------------------------------------- TabFact

TABFACT_LABELS = ("refuted", "entailed")


def _tabfact_folders(path: Path) -> list[Path]:
    """Return where the tables of a data file may lie, as upstream's checkout and its data folder have them."""
    return [
        path.parent / "all_csv",
        path.parent / "data" / "all_csv",
        path.parent.parent / "data" / "all_csv",
    ]


def _tabfact_tables(path: Path) -> list[Path]:
    return [table for folder in _tabfact_folders(path) for table in sorted(folder.glob("*.csv*"))]


def _read_tabfact(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    """Add one example a statement; records count statements."""
    name = source.relative(path)
    document = _files.read_document(path, source)
    if not isinstance(document, dict):
        expected = "an object of table names and their statements"
        raise FileError("wrong_type", "not what the file is", file=name, value=document, expected=expected)
    number = 0
    for table, entry in document.items():
        statements = _statements(entry)
        if statements is None:
            problem, expected = "not the statements of a table", "[statements, their labels 0 or 1, caption]"
            record = Record(number, {table: entry}, None)
            where = {"field": _files.storable(table), "value": entry, "expected": expected}
            _files.damage(data, source, path, record, "wrong_type", problem, **where)
            number += 1
            continue
        struct = _tabfact_struct(table, path, kept, source)
        for statement, label in statements:
            record = Record(number, {"table": table, "statement": statement, "label": label}, None)
            number += 1
            if struct is None:
                detail = f"there is no table {_files.storable(table)}"
                _files.leave(data, source, path, record, "missing_table", detail)
            elif isinstance(struct, FileError):
                _files.damage(data, source, path, record, "bad_table", str(struct))
            else:
                fields = {"text": statement, "struct": struct}
                _files.accept(
                    data,
                    source,
                    path,
                    record,
                    fields,
                    [TABFACT_LABELS[label]],
                    upstream_split=split,
                    group=table,
                    options=list(TABFACT_LABELS),
                )


def _statements(entry: Any) -> list[tuple[str, int]] | None:
    """Return (statement, label) of a table's entry, None where it is none."""
    if not isinstance(entry, list) or len(entry) < 2 or not all(isinstance(part, list) for part in entry[:2]):
        return None
    texts, labels = entry[:2]
    sound = len(texts) == len(labels) and all(isinstance(text, str) for text in texts)
    if not texts or not sound or not all(type(label) is int and label in (0, 1) for label in labels):
        return None
    return list(zip(texts, labels, strict=True))


def _tabfact_struct(table: str, path: Path, kept: Kept, source: SourceFolder) -> str | FileError | None:
    for folder in _tabfact_folders(path):
        found = table_path(folder, table)
        if found is not None:
            return read_table(found, tabfact_rows, kept.tables, source)
    return None


# ---------------------------------------------------------------------------------------------- the table

RAW_SETS: dict[str, RawSet] = {
    "dart": RawSet(
        _by_split("dart-v*-full-{}.json", _SPLITS),
        _none,
        _read_dart,
        {
            "category": "Data to Text",
            "definition": "Write sentences that state all of the given triples.",
            "metric": "rouge_l",
            "license": "MIT",
            "license_evidence": "LICENSE of the DART release",
            "homepage": "https://github.com/Yale-LILY/dart",
        },
    ),
    "fetaqa": RawSet(
        _by_split("fetaQA-v*_{}.jsonl", _SPLITS),
        _none,
        _read_fetaqa,
        {
            "category": "Question Answering",
            "definition": "Answer the question about the table in one or more whole sentences.",
            "metric": "rouge_l",
            "homepage": "https://github.com/Yale-LILY/FeTaQA",
        },
    ),
    "spider": RawSet(
        _find_spider,
        _spider_tables,
        _read_spider,
        {
            "category": "Text to Code",
            "definition": "Write the SQL query that answers the question over the database with this schema.",
            "metric": "exact_match",
            "homepage": "https://github.com/taoyds/spider",
        },
    ),
    "tabfact": RawSet(
        _by_split("{}_examples.json", {"train": "train", "val": "validation", "test": "test"}),
        _tabfact_tables,
        _read_tabfact,
        {
            "dataset": "tab_fact",
            "category": "Fact Verification",
            "definition": "Say whether the table entails or refutes the statement.",
            "metric": "accuracy",
            "multiple_choice": True,
            "homepage": "https://github.com/wenhuchen/Table-Fact-Checking",
        },
    ),
    "wikitq": RawSet(
        _find_wikitq,
        _wikitq_tables,
        _read_wikitq,
        {
            "category": "Question Answering",
            "definition": "Answer the question from the table; give several answers with commas between them.",
            "metric": "exact_match",
            "license": "CC BY-SA 4.0",
            "license_evidence": "LICENSE of the WikiTableQuestions release",
            "homepage": "https://github.com/ppasupat/WikiTableQuestions",
        },
    ),
}
"""Task, as UnifiedSKG calls it -> its raw data set."""
