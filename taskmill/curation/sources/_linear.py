"""Tables, triples, schemas and dialogue states as text, and the table files of WikiTableQuestions and TabFact.

The text of a structure follows Xie et al. 2022, but keeps upstream's case and every row: UnifiedSKG lower-cases most of
its text and cuts tables to the length of its model.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import FileError

_ESCAPES = {"n": "\n", "p": "|", "\\": "\\"}

# ------------------------------------------------------------------------------------ structures as text


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return `col : a | b row 1 : x | y row 2 : ..`; line breaks within cells become spaces."""
    parts = [f"col : {' | '.join(map(_one_line, header))}"]
    parts += [f"row {n} : {' | '.join(map(_one_line, row))}" for n, row in enumerate(rows, start=1)]
    return " ".join(parts)


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines()) if "\n" in cell or "\r" in cell else cell


def triples_text(triples: Sequence[Sequence[str]]) -> str:
    """Return `subject : relation : object | ..`, relations in lower case."""
    return " | ".join(f"{subject} : {relation.lower()} : {thing}" for subject, relation, thing in triples)


def schema_text(schema: Mapping[str, Any]) -> str:
    """Return `| database | table : column , column | table : ..` of an entry of Spider's tables.json, in SQL's own names.

    Raises:
        KeyError, TypeError, ValueError, IndexError: the entry lacks a key or holds something else.
    """
    tables: list[list[str]] = [[] for _ in schema["table_names_original"]]
    for place, column in schema["column_names_original"]:
        if place >= 0:
            tables[place].append(_text(column))
    named = zip(map(_text, schema["table_names_original"]), tables, strict=True)
    return " | ".join(
        [f"| {_text(schema['db_id'])}", *(f"{name} : {' , '.join(columns)}" for name, columns in named)]
    )


def dialogue_text(turns: Sequence[tuple[str, str]]) -> str:
    """Return `speaker : what is said` lines; line breaks within a turn become spaces."""
    return "\n".join(f"{speaker} : {_one_line(text.strip())}" for speaker, text in turns)


def state_text(slots: Sequence[tuple[str, str]]) -> str:
    """Return `domain-slot value, domain-slot value ..`, `none` where nothing has been asked for."""
    return ", ".join(f"{slot} {_one_line(value.strip())}" for slot, value in slots) or "none"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


# ------------------------------------------------------------------------------------------- table files


def unescape(text: str) -> str:
    r"""Undo WikiTableQuestions' escapes: `\n` is a line break, `\p` a pipe, `\\` a backslash."""
    return re.sub(r"\\([np\\])", lambda match: _ESCAPES[match[1]], text) if "\\" in text else text


def table_path(root: Path, name: str) -> Path | None:
    """Return the table of a name below a folder, plain or compressed, or None; never one outside it."""
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        return None
    for path in (f"{root}/{name}", f"{root}/{name}.gz"):
        if os.path.isfile(path):
            return Path(path)
    return None


def read_table(
    path: Path,
    rows_of: Callable[[bytes], list[list[str]]],
    kept: dict[Path, str | FileError],
    source: SourceFolder,
) -> str | FileError:
    """Return a table's text, or what is wrong with its file; each file is read once a task."""
    if path not in kept:
        kept[path] = _parse_table(path, rows_of, source)
    return kept[path]


def _parse_table(
    path: Path, rows_of: Callable[[bytes], list[list[str]]], source: SourceFolder
) -> str | FileError:
    try:
        rows = rows_of(_files.read_all(path, source))
    except FileError as error:
        return error
    except (ValueError, csv.Error) as error:
        return FileError("bad_table", f"not a table: {error}", file=source.relative(path))
    return table_text(rows[0], rows[1:])


def wikitq_rows(raw: bytes) -> list[list[str]]:
    text = io.StringIO(raw.decode("utf-8"), newline="")
    return [row for row in csv.reader(text, escapechar="\\", doublequote=False, strict=True) if row]


def tabfact_rows(raw: bytes) -> list[list[str]]:
    return [line.split("#") for line in raw.decode("utf-8").splitlines() if line]
