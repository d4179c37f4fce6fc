"""PromptSource: `templates.yaml` files, over rows of their data sets that lie on this machine or on the Hub.

Reads `<templates>/<dataset>[/<subset>]/templates.yaml` (Bach et al. 2022) and, through a cast, the rows of each data set
that is present. A task is named like its folder. `super_glue/cb` is read with the cast whose `datasets` name it, or with
`casts/super_glue-cb.yaml`. The templates state the answer options, so a task's examples have none.

A template keeps the task where upstream's `original_task` is true and `changed_templates.yaml` of the package, a list made by
reading, does not say what else it asks for.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.curation.casting import Cast, casts_by_folder, parse_files
from taskmill.curation.reader import Aside, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _casted, _files
from taskmill.curation.sources._files import FileError
from taskmill.curation.sources._yaml import load_yaml
from taskmill.errors import DataError, RecipeError, did_you_mean, shorten

log = logging.getLogger("taskmill")

CHANGED = Path(__file__).parent.parent / "changed_templates.yaml"
BENCHMARK = "promptsource"
STYLE, KIND = "instance", "benchmark"
OPTIONS = {
    "templates": "sub-folder of the templates; by default `templates`",
    "data": "sub-folder of the rows, laid out like the templates (by default `data`), or a mapping of data sets to their "
    "folder, folders, or {folder: .., files: {split: patterns}, hub: owner/name@COMMIT}, where `hub` says which "
    "repository the folder is in",
}
_METADATA = ("choices_in_prompt", "languages", "metrics")
_COLUMNS = ("jinja", "name", "answer_choices", "id", "metadata", "reference")
"""Keys of a template that have a place of their own; all others are kept with the metadata."""
_JINJA_WORDS = """
and or not in is if else elif endif for endfor recursive set endset with endwith without as true false none True
False None raw endraw block endblock macro endmacro filter endfilter call endcall import from include extends do break
continue ignore missing loop range dict lipsum cycler joiner namespace self super caller varargs kwargs zip enumerate
answer_choices
"""
_NOT_FIELDS = frozenset(_JINJA_WORDS.split())
_BLOCK = re.compile(r"\{\{(.*?)\}\}|\{%[-+]?(.*?)%\}", re.DOTALL)
_WORD = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\W\d]\w*|\d[\w.]*|[^\s\w]""", re.DOTALL)


@dataclass(frozen=True)
class _Place:
    """Where the rows of a data set lie, as the recipe says."""

    folders: tuple[Path, ...]
    files: Mapping[str, tuple[str, ...]] | None = None
    """Patterns instead of the cast's own."""


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the data sets that have templates, a cast and rows here.

    Raises:
        DataError: a folder is missing, or a data set of the recipe has no templates or no file.
        RecipeError: a data set with rows has no cast, or the option `data` makes no sense.
    """
    root = source.path / str(source.options.get("templates", "templates"))
    root = _files.need_folder(source, root, "a folder of <dataset>/<subset>/templates.yaml")
    templates = {
        path.parent.relative_to(root).as_posix(): path for path in sorted(root.rglob("templates.yaml"))
    }
    places = _places(source, list(templates))
    casts = casts_by_folder(source.casts)
    log.info(
        "promptsource: rows of %d of the %d data sets with templates",
        len(set(templates) & set(places)),
        len(templates),
    )
    entries = []
    for name, place in sorted(places.items()):
        if name not in templates:
            problem = f"there are no templates for {name!r}{did_you_mean(name, templates)}"
            raise DataError(problem, file=source.relative(root), expected=f"{name}/templates.yaml")
        cast = _cast(name, casts)
        found = _casted.need_data(cast, place.folders, source, place.files, name)
        rows = _casted.make_entry(name, cast, found, source)
        size = rows.num_bytes + templates[name].stat().st_size
        entries.append(TaskEntry(name, (*rows.files, templates[name]), size, rows.detail))
    return entries


def _cast(name: str, casts: Mapping[str, Cast]) -> Cast:
    """Return the cast of a data set.

    Raises:
        RecipeError: there is none.
    """
    cast = casts.get(name) or casts.get(name.replace("/", "-"))
    if cast is None:
        file = f"{name.replace('/', '-')}.yaml"
        problem = (
            f"no cast for {name!r}{did_you_mean(name, casts)}; write {file} in a folder of `curate.casts`"
        )
        raise RecipeError([f"sources: reader 'promptsource': {problem}"])
    return cast


def _places(source: SourceFolder, names: list[str]) -> dict[str, _Place]:
    """Return where the rows of each data set lie.

    Raises:
        DataError: a folder does not exist, or the data folder has no data set with templates.
        RecipeError: the option `data` makes no sense.
    """
    wanted = source.options.get("data", "data")
    if isinstance(wanted, Mapping):
        return {str(name): _place(str(name), found, source) for name, found in wanted.items()}
    if not isinstance(wanted, str):
        problem = (
            f"option data: found {shorten(wanted)}; expected a folder or a mapping of data sets to folders"
        )
        raise RecipeError([f"sources: reader 'promptsource': {problem}"])
    root = _files.need_folder(source, source.path / wanted, "a folder of <dataset>/<subset>/ with rows")
    places = {name: _Place((root / name,)) for name in names if _has_files(root / name)}
    if not places:
        expected = "a folder named like one of the templates' folders"
        raise DataError("no data set that has templates", file=source.relative(root), expected=expected)
    return places


def _has_files(folder: Path) -> bool:
    """Say whether a folder holds files, or somewhere below it the Parquet files of a Hub repository."""
    inside = folder.is_dir() and any(path.is_file() for path in folder.iterdir())
    return inside or next(folder.rglob("*.parquet"), None) is not None


def _place(name: str, found: Any, source: SourceFolder) -> _Place:
    """Parse one item of the option `data`."""
    problems: list[str] = []
    files = None
    folders = found
    top = source.path
    if isinstance(found, Mapping):
        unknown = [key for key in found if key not in ("folder", "files", "hub")]
        if unknown or not {"folder", "hub"} & set(found):
            expected = "`folder`, and perhaps `files` and `hub`"
            problems.append(f"found {sorted(map(str, found))}; expected {expected}")
        top = source.repositories.get(str(found.get("hub")), source.path)
        folders = found.get("folder", "." if "hub" in found else [])
        files = parse_files(dict(found["files"]), "files", problems) if "files" in found else None
    listed = [folders] if isinstance(folders, str) else folders
    if not isinstance(listed, (list, tuple)) or not all(isinstance(folder, str) for folder in listed):
        problems.append(f"found {shorten(found)}; expected a folder or a list of folders")
    if problems:
        raise RecipeError(
            [f"sources: reader 'promptsource': option data: {name}: {problem}" for problem in problems]
        )
    return _Place(tuple(_casted.below(source, str(top / folder)) for folder in listed), files)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the rows and the templates of one data set.

    Raises:
        DataError: a file, row or template is damaged and the recipe says stop.
    """
    data = _casted.read_entry(entry, source, keywords=False, options=False)
    path = entry.files[-1]
    with _files.reading(data, source, path):
        found = _load(path, source)
        changed = changed_templates().get(entry.name, {})
        for number, (identity, template) in enumerate(found["templates"].items()):
            _read_template(number, str(identity), template, path, source, data, changed)
        dataset, subset = found.get("dataset"), found.get("subset")
        data.facts["metadata"] |= {
            "promptsource": [str(part) for part in (dataset, subset) if part is not None]
        }
    languages = [row["metadata"]["languages"] for row in data.templates]
    codes = {
        code for listed in languages if isinstance(listed, list) for code in listed if isinstance(code, str)
    }
    names = {"English" if code == "en" else _files.storable(str(code)) for code in codes}
    data.facts.setdefault("languages", sorted(names))
    return data


def _load(path: Path, source: SourceFolder) -> dict[str, Any]:
    """Parse a `templates.yaml`.

    Raises:
        FileError: not YAML, or not a file of templates.
    """
    name = source.relative(path)
    try:
        found = load_yaml(_files.read_all(path, source).decode("utf-8"))
    except ValueError as error:
        raise FileError("bad_yaml", f"cannot be read as templates: {error}", file=name) from error
    if not isinstance(found, dict) or not isinstance(found.get("templates"), dict):
        raise FileError(
            "wrong_type",
            "not a file of templates",
            file=name,
            field="templates",
            expected="a mapping of templates",
        )
    return found


@functools.cache
def changed_templates() -> dict[str, dict[str, str]]:
    """Return data set -> name of a template that upstream marks as the original task -> what it asks for instead."""
    found: dict[str, dict[str, str]] = load_yaml(CHANGED.read_text(encoding="utf-8"))
    return found


def _read_template(
    number: int,
    identity: str,
    template: Any,
    path: Path,
    source: SourceFolder,
    data: TaskData,
    changed: Mapping[str, str],
) -> None:
    """Add one template, unless it lacks what a template needs."""
    wanted = {"jinja": (str,), "name": (str, int, float, bool), "answer_choices": (str, type(None))}
    problem = None
    for key, kinds in wanted.items():
        value = template.get(key) if isinstance(template, dict) else template
        if not isinstance(template, dict) or not isinstance(value, kinds):
            expected = "text or null" if type(None) in kinds else "text"
            problem = (key, value, expected)
            break
    if problem is not None:
        key, value, expected = problem
        name, where = source.relative(path), f"templates.{_files.storable(identity)}.{key}"
        error = DataError(
            "not a template", file=name, record=number, field=where, value=value, expected=expected
        )
        raw = _files.storable(shorten(template, _files.RAW_LIMIT))
        data.fail(source, error, Aside(name, number, "bad_template", _files.storable(str(error)), raw))
        return
    data.templates.append(template_row(identity, template, changed))


def template_row(
    identity: str, template: Mapping[str, Any], changed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the row of tasks/templates of a template; its id is its key in the file.

    `changed`: names of templates of its data set that are no original task whatever upstream says -> why.
    """
    stated = template.get("metadata")
    stated = stated if isinstance(stated, Mapping) else {}
    original = stated.get("original_task")
    body, choices = template["jinja"], template.get("answer_choices")
    why = None
    if original is not True:
        why = (
            "upstream says: not the original task"
            if original is False
            else "upstream does not say original task"
        )
    elif str(template["name"]) in (changed or {}):
        why = f"reviewed: {(changed or {})[str(template['name'])]}"
    beside = {key: value for key, value in template.items() if key not in _COLUMNS}
    if template.get("id", identity) != identity:
        beside["id"] = template["id"]
    metadata = {**beside, **dict.fromkeys(_METADATA), **stated, "original_task": original}
    metadata["reference"] = template.get("reference") or ""
    return {
        "template": _files.storable(identity),
        "name": _files.storable(str(template["name"])),
        "body": _files.storable(body),
        "choices": None if choices is None else _files.storable(choices),
        "reads": fields_read(f"{body} {choices or ''}"),
        "keeps_task": why is None,
        "why": why,
        "metadata": _plain(metadata),
    }


def _plain(value: Any) -> Any:
    """Return JSON values; YAML's dates become text."""
    if isinstance(value, Mapping):
        return {_files.storable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else _files.storable(str(value))


def fields_read(body: str) -> list[str]:
    """Return the names that a template takes from its row, sorted: a reading of its words, not of its grammar."""
    names: set[str] = set()
    own: set[str] = set()
    for match in _BLOCK.finditer(body):
        _read_block(_WORD.findall(match[1] if match[1] is not None else match[2]), names, own)
    return sorted(names - own)


def _read_block(words: list[str], names: set[str], own: set[str]) -> None:
    """Add the names of one block to `names`, and those that it binds to `own`."""
    first = words[0] if words else ""
    bound = words[1 : words.index("in")] if first == "for" and "in" in words else []
    if first in ("set", "with", "macro"):
        bound = [
            word for word, after in zip(words, [*words[1:], ""], strict=True) if after in ("=", "(", ",")
        ]
    own.update(word for word in bound if word.isidentifier())
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        keyword = after == "=" and words[place + 2 : place + 3] != ["="] and first != "set"
        wording = word == "context" and before in ("with", "without")
        test = before == "is" or (before == "not" and place > 1 and words[place - 2] == "is")
        if (
            word.isidentifier()
            and word not in _NOT_FIELDS
            and before not in (".", "|")
            and not keyword
            and not wording
            and not test
        ):
            names.add(word)
