"""The user's own rows as JSON lines, JSON, CSV, TSV or Parquet, or a Hub data set: one task, described in the recipe.

    - reader: table
      path: mine
      options:
        task: reviews
        files: {train: [train.csv], test: [test.csv]}
        cast: {fields: {text: review}, references: {path: stars, labels: [bad, good]}, options: {const: [bad, good]}}
        category: Sentiment Analysis
        definition: Say whether the review is bad or good.

`cast` may also name a cast; `casting.py` describes them. Without `format` the files' suffix tells. Without `files` a folder is
searched for `train`, `dev`, `test` .. files and for the Parquet files of a Hub repository, else all its files are read.
`split: {path: fold, map: {a: train, b: test}}` takes the split from a column. Records are read one by one, except JSON's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.curation.casting import Cast, load_cast, parse_cast, parse_facts, parse_files
from taskmill.curation.reader import SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _casted, _files
from taskmill.curation.sources._chat import parse_quality
from taskmill.curation.sources._files import FileError
from taskmill.curation.sources._records import FORMATS, guess_format
from taskmill.errors import RecipeError, shorten
from taskmill.records import METRICS, STYLES
from taskmill.shapes import SHAPES

log = logging.getLogger("taskmill")
BENCHMARK = "custom"
STYLE, KIND = "keywords", "benchmark"
_DEFAULT_SHAPE = "text"
_CAST_OPTIONS = ("dataset", "group", "split")
_FACT_OPTIONS = (
    "category",
    "definition",
    "license",
    "license_evidence",
    "homepage",
    "metric",
    "multiple_choice",
    "languages",
)
OPTIONS = {
    "task": "name of the task; by default that of the folder or file",
    "cast": "name of a cast, or a cast written here",
    "files": "patterns of the files of each split: {train: .., validation: .., test: .., null: ..}",
    "split": "column that holds the split, or {path: column, map: {upstream's name: train, ..}}",
    "group": "column of what must stay on one side: a passage, a document, an author",
    "quality": "quality class of the answers: a text, or {field: model, map: {GPT-4: GPT4, ..}, default: GPT3}",
    "category": "category of the task",
    "dataset": "canonical name of the data set; by default the cast's or the task's",
    "definition": "the instruction that every prompt of the task begins with",
    "license": "licence of the data",
    "license_evidence": "where its licence is stated",
    "homepage": "address of the data set's page",
    "metric": ", ".join(METRICS),
    "multiple_choice": "whether answers are ranked among the options",
    "languages": "languages of the text",
    "style": "keywords (default), task, instance, reasoning or document",
    "shape": f"fields of a keywords task: {', '.join(SHAPES)}; by default the cast's, or {_DEFAULT_SHAPE}",
}


def discover(source: SourceFolder) -> list[TaskEntry]:
    """Return the one task.

    Raises:
        DataError: the path or its files do not exist.
        RecipeError: the options make no sense.
    """
    single = source.path.is_file()
    folder = source.path.parent if single else source.path
    _files.need_folder(source, folder, "a folder of data files, or one file")
    name = source.options.get("task", _files.stem(source.path))
    problems: list[str] = []
    if not isinstance(name, str) or not name or not name.isprintable():
        problems.append(f"option task: found {shorten(name)}; expected a name")
    style = source.options.get("style", STYLE)
    if style not in STYLES:
        problems.append(f"option style: found {style!r}; expected one of {', '.join(STYLES)}")
    facts = parse_facts({k: source.options[k] for k in _FACT_OPTIONS if k in source.options}, problems)
    files = parse_files(source.options.get("files", {}), "files", problems)
    quality = parse_quality(source.options.get("quality"), problems)
    _stop(problems)
    if single and not files:
        split = _files.split_of(_files.stem(source.path))[1] or "unlabeled"
        files = {split: (source.path.name,)}
    cast = _cast(source, str(name), files, folder, quality, keywords=style == "keywords")
    if not files and not _casted.find_data(cast, [folder]):
        files = _all_files(cast, folder)
    found = _casted.need_data(cast, [folder], source, files or None)
    if not single:
        _tell_unread([file.path for file in found], folder, source)
    return [_casted.make_entry(str(name), cast, found, source, style=style, facts=facts)]


def _tell_unread(read: Sequence[Path], folder: Path, source: SourceFolder) -> None:
    """Warn of files of data in the folder that are not read."""
    inside = {path for path in folder.rglob("*") if guess_format(path) and path.is_file()}
    if unread := sorted(map(source.relative, inside - set(read))):
        shown = ", ".join(unread[:3]) + (", .." if len(unread) > 3 else "")
        log.warning(
            "table: %d files of %s are not read: %s (the option `files` names them)",
            len(unread),
            folder.name,
            shown,
        )


def _all_files(cast: Cast, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return a pattern of all files of the cast's format, if the folder has any."""
    suffixes = {
        guess_format(path): path.name.removesuffix(".gz").rpartition(".")[2] for path in folder.iterdir()
    }
    suffix = suffixes.get(cast.form.name)
    return {"unlabeled": (f"*.{suffix}",)} if suffix else {}


def _stop(problems: list[str]) -> None:
    if problems:
        raise RecipeError([f"sources: reader 'table': {problem}" for problem in problems])


def _cast(
    source: SourceFolder,
    name: str,
    files: Mapping[str, tuple[str, ...]],
    folder: Path,
    quality: Mapping[str, Any] | None,
    *,
    keywords: bool,
) -> Cast:
    """Return the cast of the options, with what it leaves open filled in.

    Raises:
        RecipeError: it does not exist or has problems.
    """
    wanted = source.options.get("cast")
    if isinstance(wanted, str):
        raw: dict[str, Any] = dict(load_cast(wanted, source.casts).raw)
    elif isinstance(wanted, Mapping):
        raw = dict(wanted)
        if "format" not in raw:
            raw["format"] = _guess(files or _patterns(raw.get("files")), folder, source, raw.get("records"))
    else:
        raise RecipeError(
            [
                f"sources: reader 'table': option cast: found {wanted!r}; expected the name of a cast or a mapping, such as "
                "{fields: {text: COLUMN}, references: COLUMN}; docs/casts.md has all of it"
            ]
        )
    where = (
        f"sources: reader 'table': cast {wanted!r}"
        if isinstance(wanted, str)
        else "sources: cast of reader 'table'"
    )
    stated = {key: source.options[key] for key in _CAST_OPTIONS if key in source.options}
    raw |= stated
    if isinstance(raw.get("layouts"), Mapping):
        raw["layouts"] = {key: _without(layout, stated) for key, layout in raw["layouts"].items()}
    raw.setdefault("dataset", name)
    if quality is not None:
        raw["quality"] = _quality_value(quality)
    if keywords:
        raw["shape"] = source.options.get("shape", raw.get("shape") or _DEFAULT_SHAPE)
    elif "shape" in source.options:
        raise RecipeError(["sources: reader 'table': option shape: only tasks of style keywords have one"])
    else:
        raw = {key: value for key, value in raw.items() if key not in ("shape", "keywords")}
    return parse_cast(raw, wanted if isinstance(wanted, str) else name, where)


def _without(layout: Any, stated: Mapping[str, Any]) -> Any:
    """Return a layout that does not change what the options state."""
    if not isinstance(layout, Mapping):
        return layout
    return {key: value for key, value in layout.items() if key not in stated}


def _quality_value(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of a cast that says what the option `quality` says."""
    if "const" in rule:
        return {"const": rule["const"]}
    default = {} if rule.get("default") is None else {"default": rule["default"], "other": rule["default"]}
    return {"path": rule["field"], "map": dict(rule["map"]), **default}


def _patterns(found: Any) -> dict[str, tuple[str, ...]]:
    """Return the patterns of a cast that is not parsed yet; what is wrong with them is found later."""
    return parse_files(found, "files", [])


def _guess(files: Mapping[str, tuple[str, ...]], folder: Path, source: SourceFolder, records: Any) -> str:
    """Return the format that the first file's suffix suggests: of those named, else of those in the folder.

    Raises:
        RecipeError: no name tells.
    """
    named = [pattern for patterns in files.values() for pattern in patterns]
    paths = [path for pattern in named for path in [*sorted(folder.glob(pattern)), Path(pattern)]]
    if not files:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    first = next((path for path in paths if guess_format(path)), None)
    if first is None:
        shown = ", ".join(dict.fromkeys(path.name for path in paths[:6])) or "no file"
        known = ", ".join(FORMATS)
        problem = (
            f"the cast states no `format`, and no name tells it (found {shown}); expected one of {known}"
        )
        raise RecipeError([f"sources: reader 'table': {problem}"])
    found = str(guess_format(first))
    return "jsonl" if found == "json" and not records and _holds_lines(first, source) else found


def _holds_lines(path: Path, source: SourceFolder) -> bool:
    """Say whether the first two lines of a file are objects: many files of JSON lines are called .json."""
    with contextlib.suppress(FileError, ValueError):
        lines = [line for _, line in itertools.islice(_files.read_lines(path, source), 2)]
        return len(lines) == 2 and all(isinstance(_files.parse_json(line), dict) for line in lines)
    return False


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the rows of the task through its cast.

    Raises:
        DataError: a file or row is damaged and the recipe says stop.
    """
    style = entry.detail["style"]
    data = _casted.read_entry(entry, source, keywords=style == "keywords")
    data.facts |= {**entry.detail["facts"], "style": style}
    return data
