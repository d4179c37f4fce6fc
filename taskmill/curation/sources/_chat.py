"""What the readers of chat and instruction sets share: files and tasks, the options below, turns, and adding examples.

A file holds a JSON list (`.json`), JSON lines (`.jsonl`, or `.json` whose first line is an object) or Parquet; text also
as `.gz`. A task is a file, together with those that differ in `_train`, `_test` .. or a shard number only.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.curation.reader import SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._options import refuse
from taskmill.curation.sources._records import Format, form_of, read_records
from taskmill.curation.sources._values import Unusable, find_path, map_key
from taskmill.errors import DataError, did_you_mean

SUFFIXES = (".json", ".jsonl", ".parquet")
OPTIONS = {
    "task": "name of the one task that all files are; by default a task a file",
    "files": "pattern, or list of patterns, of the files below the folder; by default all that lie in it",
    "quality": "quality class of the answers: a text, or {field: model, map: {GPT-4: GPT4, ..}, default: GPT3}",
}
OUTPUT_FIELDS = ["turns.assistant", "turns.call"]
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("call", "function_call", "tool_call"), "call"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
}
"""How upstream files call who speaks -> the roles of a turn."""


class Example(NamedTuple):
    """An example of a record, before it is checked and added."""

    fields: dict[str, Any]
    references: list[str]
    columns: dict[str, Any]
    """Arguments of Columns.append; `upstream_id` may be any value."""


class Left(NamedTuple):
    """A rule of the format that leaves an example out."""

    reason: str
    detail: str


Item = Example | Left | Unusable
"""What becomes of one example of a record; Unusable: it is damaged."""
Convert = Callable[[dict[str, Any]], Iterable[Item]]

# ----------------------------------------------------------------------------------------- discovering


def list_entries(source: SourceFolder, reader: str, what: str, **settings: Any) -> list[TaskEntry]:
    """Return the tasks of a source; their detail holds what `read` needs: `quality`, `settings`, and `joined`: files of
    several names are one task, so that ids may repeat.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    problems: list[str] = []
    name = source.options.get("task")
    if name is not None and not (isinstance(name, str) and name.strip() and name.isprintable()):
        problems.append(f"option task: found {name!r}; expected a name")
    detail = {"quality": parse_quality(source.options.get("quality"), problems), **settings}
    patterns = _parse_patterns(source.options.get("files"), problems)
    refuse(reader, *problems)
    tasks: dict[str, list[Path]] = {}
    for path in _list_files(source, patterns, what):
        tasks.setdefault(name or _files.task_of_file(path, source), []).append(path)
    return [
        _files.make_entry(task, files, **detail, joined=len(set(map(_files.own_name, files))) > 1)
        for task, files in sorted(tasks.items())
    ]


def _parse_patterns(found: Any, problems: list[str]) -> list[str]:
    patterns = [found] if isinstance(found, str) else [] if found is None else found
    good = isinstance(patterns, list) and all(
        isinstance(p, str) and p and not p.startswith("/") and ".." not in p.split("/") for p in patterns
    )
    if not good:
        problems.append(f"option files: found {found!r}; expected patterns of files below the folder")
    return patterns if good else []


def _list_files(source: SourceFolder, patterns: list[str], what: str) -> list[Path]:
    if not patterns or source.path.is_file():
        return _files.list_files(source, SUFFIXES, what)
    folder = _files.need_folder(source, source.path, what)
    found: set[Path] = set()
    for pattern in patterns:
        matched: list[Path] = []
        with contextlib.suppress(ValueError, NotImplementedError, RecursionError):
            matched = [path for path in folder.glob(pattern) if path.is_file()]
        if not matched:
            name = source.relative(folder)
            raise DataError(f"no file matches the pattern {pattern!r}", file=name, expected=what)
        found.update(matched)
    return sorted(found)


# --------------------------------------------------------------------------------------------- quality


def parse_quality(found: Any, problems: list[str]) -> dict[str, Any] | None:
    """Return the rule of option `quality`: {const} or {field, map, default}; what is wrong goes to `problems`."""
    if found is None:
        return None
    if isinstance(found, str) and found:
        return {"const": found}
    if not isinstance(found, Mapping):
        problems.append(f"option quality: found {found!r}; expected a text or a mapping")
        return None
    for key in found:
        if key not in ("field", "map", "default"):
            hint = did_you_mean(str(key), ("field", "map", "default"))
            problems.append(f"option quality: unknown key {key!r}{hint}")
    field, values, default = found.get("field"), found.get("map"), found.get("default")
    if not isinstance(field, str) or not field:
        problems.append(f"option quality.field: found {field!r}; expected the name of a field")
    if not isinstance(values, Mapping) or not all(isinstance(v, str) and v for v in values.values()):
        problems.append(f"option quality.map: found {values!r}; expected upstream values and their classes")
        return None
    if default is not None and not isinstance(default, str):
        problems.append(f"option quality.default: found {default!r}; expected a text")
    return {"field": field, "map": {map_key(key): v for key, v in values.items()}, "default": default}


def quality_of(rule: Mapping[str, Any] | None, value: Mapping[str, Any]) -> str | None:
    """Return the quality class of a record.

    Raises:
        Unusable: its field is missing or holds a value that the rule does not map, and there is no default.
    """
    if rule is None:
        return None
    if "const" in rule:
        return str(rule["const"])
    default: str | None = rule["default"]
    try:
        found = find_path(value, rule["field"])
    except Unusable:
        if default is None:
            raise
        return default
    quality = rule["map"].get(map_key(found), default)
    if quality is None:
        expected = f"one of {', '.join(rule['map'])}, or a default in the recipe"
        raise Unusable("bad_label", "not a value that `quality` maps", rule["field"], found, expected)
    return str(quality)


# --------------------------------------------------------------------------------------------- reading


def records(path: Path, source: SourceFolder, wanted: frozenset[str] | None = None) -> Iterator[Record]:
    """Yield the records of a file as its name says; `wanted` as in Format.

    Raises:
        FileError: the file cannot be read, or is not what its name says.
    """
    return read_records(Format(form_of(path, source), wanted=wanted), path, source)


def read_each(entry: TaskEntry, source: SourceFolder, data: TaskData, convert: Convert) -> None:
    """Add what `convert` makes of every record.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    for path in entry.files:
        with _files.reading(data, source, path):
            for record in records(path, source):
                add_record(data, source, entry, path, record, convert)


def add_record(
    data: TaskData, source: SourceFolder, entry: TaskEntry, path: Path, record: Record, convert: Convert
) -> None:
    """Add what `convert` makes of a record.

    Raises:
        DataError: it is damaged and the recipe says stop.
    """
    if _files.is_record(data, source, path, record):
        for item in made_of(record, convert):
            add(data, source, entry, path, record, item)


def made_of(record: Record, convert: Convert) -> list[Item]:
    """Return what a record becomes; one that cannot be converted is one Unusable."""
    try:
        return list(convert(record.value))
    except Unusable as error:
        return [error]
    except RecursionError:
        return [Unusable("too_deep", "lists or objects nested too deeply", "record", "..")]


def add(
    data: TaskData, source: SourceFolder, entry: TaskEntry, path: Path, record: Record, item: Item
) -> bool:
    """Add an example, keep aside what a rule leaves out, or report damage; says whether there is an example.

    Raises:
        DataError: it is damaged and the recipe says stop.
    """
    if isinstance(item, Left):
        _files.leave(data, source, path, record, *item)
        return False
    if isinstance(item, Unusable):
        where = {"field": item.field, "expected": item.expected}
        if item.reason != "missing_field":
            where["value"] = _shown(item.value)
        _files.damage(data, source, path, record, item.reason, item.problem, **where)
        return False
    columns = {"upstream_split": _files.split_of_file(path), **item.columns}
    name = _files.usable_id(columns.get("upstream_id"))
    columns["upstream_id"] = f"{_files.own_name(path)}-{name}" if name and entry.detail["joined"] else name
    return _files.accept(data, source, path, record, item.fields, item.references, **columns)


def _shown(value: Any) -> Any:
    """Return a value that has a repr."""
    try:
        repr(value)
    except RecursionError:
        return f"{type(value).__name__}, nested too deeply to be shown"
    return value


# ---------------------------------------------------------------------------------------- parts of records


def need_text(value: Mapping[str, Any], name: str, where: str | None = None) -> str:
    """Return the text under `name`; `where` names the field in messages.

    Raises:
        Unusable: it is missing or not text.
    """
    if name not in value:
        keys = ", ".join(sorted(map(str, value))) or "nothing"
        hint = did_you_mean(name, map(str, value))
        problem = f"there is no field {name!r}; the record has {keys}{hint}"
        raise Unusable("missing_field", problem, where or name, expected="a string")
    found = value[name]
    if not isinstance(found, str):
        raise Unusable("wrong_type", "not text", where or name, found, "a string")
    return found


def maybe_text(value: Mapping[str, Any], name: str, where: str | None = None) -> str:
    """Return the text under `name`, the empty one where it is missing or null.

    Raises:
        Unusable: it is not text.
    """
    return "" if value.get(name) is None else need_text(value, name, where)


def need_rows(value: Mapping[str, Any], name: str, expected: str) -> list[dict[str, Any]]:
    """Return the list of objects under `name`; an object of lists of one length, as Parquet has it, is one too.

    Raises:
        Unusable: it is missing or something else.
    """
    if name not in value:
        need_text(value, name)
    found = value[name]
    if isinstance(found, dict) and found and all(isinstance(part, list) for part in found.values()):
        lengths = {len(part) for part in found.values()}
        if len(lengths) == 1:
            return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    if not isinstance(found, list):
        raise Unusable("wrong_type", "not a list", name, found, expected)
    for number, row in enumerate(found):
        if not isinstance(row, dict):
            raise Unusable("wrong_type", "not an object", f"{name}.{number}", row, expected)
    return found


def role_of(found: Any, field: str) -> str:
    """Return the role that upstream's word means.

    Raises:
        Unusable: it is none that is known.
    """
    role = ROLES.get(found.strip().lower()) if isinstance(found, str) else None
    if role is None:
        hint = did_you_mean(str(found), ROLES) if isinstance(found, str) else ""
        problem = f"nobody knows who speaks{hint}"
        raise Unusable("unknown_role", problem, field, found, f"one of {', '.join(ROLES)}")
    return role


def as_text(found: Any, field: str) -> str:
    """Return a text as it is, nothing as the empty one, and any other value as JSON.

    Raises:
        Unusable: JSON cannot hold it.
    """
    if isinstance(found, str) or found is None or found == [] or found == {}:
        return found or ""
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise Unusable("wrong_type", f"JSON cannot hold it: {error}", field, found, "text or JSON") from error


def instruction(text: str, given: str, output: str, **columns: Any) -> Example:
    """Return an example of shape `instruction`; a blank input is no field."""
    fields = {"instruction": text, "input": given} if given.strip() else {"instruction": text}
    return Example(fields, [output], columns)
