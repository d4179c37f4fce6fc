"""The library: our own templates, `../library/*.yaml`, and the user's, one list of entries a file.

Reads the files of the library and those that a recipe names; writes nothing. An entry:

    id: keywords/choice-1
    style: keywords          # of the tasks that it serves
    shape: choice            # how their fields are called; with `tasks` it may be left out
    reads: [question, context]
    body: "{{ question }}"   # Jinja: the input of a prompt; the instruction and the answer are the task's and the example's
    options: [no, yes]       # answer options of examples that have none
    metadata: {}
    keeps_task: true         # false: it asks for something else, and takes no part
    draw: pool               # or one: each example gets one template, drawn by weight
    weight: 1
    needs: [context]         # with draw one: optional fields that an example must have for it
    tasks: [custom/mine*]    # patterns of the only tasks that it serves, in place of the library's templates
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from taskmill import shapes
from taskmill.errors import DataError, UsageError, did_you_mean
from taskmill.safe_yaml import YamlError, load_yaml
from taskmill.templates.rendering.bodies import body_problem

LIBRARY = Path(__file__).parent.parent / "library"

_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "task": (("input",), ()),
    "rendered": (("inputs",), ()),
    "reasoning": (("question",), ()),
    "document": (("text",), ()),
    "instruction": (("instruction",), ("input",)),
}
"""Shape of a task of another style -> fields needed, fields that may be there."""
SHAPES: dict[str, tuple[str, ...]] = {
    **{name: needs + may for name, (needs, may) in _OTHERS.items()},
    **{name: shape.fields for name, shape in shapes.SHAPES.items()},
}
"""Shape -> the fields that its library templates read."""
OPTIONAL = frozenset(
    [(name, field) for name, (_, may) in _OTHERS.items() for field in may]
    + [(name, field) for name, shape in shapes.SHAPES.items() for field in shape.may]
)
"""(shape, field) that an example need not have; a template sees null."""
STYLES: dict[str, tuple[str, ...]] = {
    "task": ("task",),
    "instance": ("rendered",),
    "keywords": tuple(shapes.SHAPES),
    "reasoning": ("reasoning",),
    "chat": ("instruction",),
    "document": ("document",),
}
"""Style of a template -> the shapes that it may have."""
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LibraryTemplate:
    """One of our own templates, or of the user's."""

    id: str
    style: str
    shape: str | None
    """None: it reads the fields that its tasks have, as they are."""
    body: str
    reads: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    """Its chance against the other templates of its kind, where `draw` is one."""
    draw: Literal["pool", "one"] = "pool"
    """`one`: each example gets one template, drawn by weight; `pool`: pairs are pooled and drawn by hash."""
    options: tuple[str, ...] = ()
    """Answer options of examples that have none."""
    keeps_task: bool = True
    """Whether a prompt still asks for what the task asks for; others take no part."""
    needs: tuple[str, ...] = ()
    """Optional fields of the shape without which an example does not draw it."""
    tasks: tuple[str, ...] = ()
    """Patterns of the only tasks that it serves; empty: all of its style and shape."""

    def serves(self, task: str) -> bool:
        """Whether the template names a task."""
        return any(fnmatch.fnmatchcase(task, pattern) for pattern in self.tasks)

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether an example's fields have what the template needs, and no optional one that it does not show."""
        present = {name for shape, name in OPTIONAL if shape == self.shape and _is_there(fields.get(name))}
        return present.issuperset(self.needs) and present.issubset(self.reads)


def _is_there(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


# ------------------------------------------------------------------------------------------- the files


@functools.cache
def load_library(folder: Path = LIBRARY) -> dict[str, LibraryTemplate]:
    """Read the library, by template id in id order.

    Raises:
        DataError: an entry with unknown or missing keys, an unknown shape, or an id that occurs twice.
    """
    found = [one for path in sorted(folder.glob("*.yaml")) for one in _read_file(path, path.name)]
    return dict(sorted(_by_id(found).items()))


def load_templates(paths: Sequence[str], base: Path) -> tuple[LibraryTemplate, ...]:
    """Read the user's templates, in id order; an id without `/` gets its file's name before it.

    Args:
        paths: YAML files, or folders of them, relative to `base`.
        base: folder of the recipe.

    Raises:
        UsageError: a path that is not there, or a folder without YAML.
        DataError: an entry is wrong, its body is no template that may run, or an id occurs twice or in the library.
    """
    found: list[LibraryTemplate] = []
    for path in template_files(paths, base):
        found += _read_file(path, _named(path, base), prefix=path.stem)
    known = load_library()
    for one in found:
        problem = body_problem(one.body, one.reads)
        if one.id in known:
            problem = "the library has a template of this id"
        if problem is not None:
            raise DataError(f"the template {one.id!r} in render.templates: {problem}")
    return tuple(one for _, one in sorted(_by_id(found).items()))


def template_files(paths: Sequence[str], base: Path) -> list[Path]:
    """Return the files of the user's templates.

    Raises:
        UsageError: a path that is not there, or a folder without YAML.
    """
    files: list[Path] = []
    for name in paths:
        path = base / name
        inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside or not all(p.is_file() for p in inside):
            raise UsageError(
                f"render.templates: {path} is no YAML file of templates and no folder with one; "
                "`docs/templates-library.md` shows what such a file holds"
            )
        files += [p for p in inside if p not in files]
    return files


def _named(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def library_digest() -> str:
    """Return the sha256 (hex) over the library's files."""
    return _digest(sorted(LIBRARY.glob("*.yaml")))


def templates_digest(paths: Sequence[str], base: Path) -> str:
    """Return the sha256 (hex) over the files of the user's templates.

    Raises:
        UsageError: see `template_files`.
    """
    return _digest(template_files(paths, base))


def _digest(files: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def library_for(
    style: str, shape: str | None = None, own: Sequence[LibraryTemplate] = ()
) -> list[LibraryTemplate]:
    """Return the templates of a style (and shape) for any task: the library's, then `own` ones, in id order."""
    free = (one for one in own if not one.tasks)
    return [t for t in (*load_library().values(), *free) if t.style == style and shape in (None, t.shape)]


def unused(templates: Sequence[LibraryTemplate], styles: Mapping[str, str]) -> list[str]:
    """Return the templates that name tasks and serve none of these (task -> its style)."""
    return [
        one.id
        for one in templates
        if one.tasks and not any(one.style == style and one.serves(task) for task, style in styles.items())
    ]


def _by_id(templates: Iterable[LibraryTemplate]) -> dict[str, LibraryTemplate]:
    found: dict[str, LibraryTemplate] = {}
    for one in templates:
        if one.id in found:
            raise DataError("two templates of one id", field="id", value=one.id)
        found[one.id] = one
    return found


# ----------------------------------------------------------------------------------------- the entries

_REQUIRED = ("id", "style", "shape", "reads", "body")


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and bool(found.strip())


def _is_texts(found: Any) -> bool:
    return isinstance(found, list) and all(map(_is_text, found)) and len(set(found)) == len(found)


def _are_texts(found: list[Any]) -> bool:
    return all(isinstance(text, str) for text in found)


def _is_weight(found: Any) -> bool:
    return type(found) in (int, float) and math.isfinite(found) and found > 0


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_text, "a text"),
    "style": (lambda found: found in STYLES, f"one of {', '.join(STYLES)}"),
    "shape": (lambda found: found in SHAPES, f"one of {', '.join(sorted(SHAPES))}"),
    "reads": (lambda found: _is_texts(found) and bool(found), "a list of one field or more"),
    "body": (_is_text, "a Jinja template"),
    "metadata": (lambda found: isinstance(found, dict), "a mapping"),
    "options": (_is_texts, "a list of texts"),
    "keeps_task": (lambda found: isinstance(found, bool), "true or false"),
    "weight": (_is_weight, "a number above 0"),
    "draw": (lambda found: found in ("pool", "one"), "pool or one"),
    "needs": (_is_texts, "a list of optional fields of the shape"),
    "tasks": (_is_texts, "a list of patterns of task ids"),
}
"""Key of an entry -> its check, and what is expected."""
_CHOICES: dict[str, Iterable[str]] = {"style": STYLES, "shape": SHAPES, "draw": ("pool", "one")}


def _read_file(path: Path, name: str, prefix: str = "") -> list[LibraryTemplate]:
    try:
        entries = load_yaml(path.read_text(encoding="utf-8"))
    except YamlError as error:
        raise DataError(f"not valid YAML: {error}", file=name) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", file=name) from error
    if not isinstance(entries, list) or not entries:
        raise DataError("not a list of templates", file=name, value=entries, expected="a list of entries")
    return [read_entry(entry, name, number, prefix) for number, entry in enumerate(entries)]


def read_entry(entry: Any, file: str, number: int, prefix: str) -> LibraryTemplate:
    """Return the template of an entry; an id without `/` gets `prefix` before it.

    Raises:
        DataError: the entry is wrong.
    """
    if not isinstance(entry, dict):
        expected = f"a mapping with {', '.join(_REQUIRED)}"
        raise DataError("not a template", file=file, record=number, value=entry, expected=expected)
    wrong = _wrong(entry)
    if wrong is not None:
        key, problem, expected = wrong
        raise DataError(
            f"not a template: {problem}",
            file=file,
            record=number,
            field=str(key),
            value=entry.get(key),
            expected=expected,
        )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    values.setdefault("shape", None)
    if prefix and "/" not in entry["id"]:
        values["id"] = f"{prefix}/{entry['id']}"
    return LibraryTemplate(**values)


def _wrong(entry: Mapping[Any, Any]) -> tuple[Any, str, str] | None:
    """Return the key that is wrong, what is wrong with it and what is expected; None where nothing is."""
    for key, value in entry.items():
        if key not in _KEYS:
            return key, f"unknown key {key!r}{did_you_mean(str(key), _KEYS)}", f"one of {', '.join(_KEYS)}"
        check, expected = _KEYS[key]
        if not check(value):
            known = _CHOICES.get(key, ())
            hint = did_you_mean(value, known) if known and isinstance(value, str) else ""
            return key, f"unknown {key}{hint}" if known else f"unusable {key}", expected
    for key in _REQUIRED:
        if key not in entry and not (key == "shape" and entry.get("tasks")):
            return key, f"the key {key!r} is missing", _KEYS[key][1]
    return _unfit(entry)


def _unfit(entry: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return what does not go together in an entry whose keys are sound each for itself."""
    shape, style = entry.get("shape"), entry["style"]
    if shape is not None and shape not in STYLES[style]:
        return "shape", f"no shape of style {style}", f"one of {', '.join(STYLES[style])}"
    if shape is not None and (extra := [name for name in entry["reads"] if name not in SHAPES[shape]]):
        hint = did_you_mean(extra[0], SHAPES[shape])
        return "reads", f"the shape {shape} has no field {extra[0]!r}{hint}", ", ".join(SHAPES[shape])
    metadata = entry.get("metadata", {})
    if style == "reasoning" and not _is_text(metadata.get("instruction")):
        return "metadata", "a reasoning template without an instruction", "`instruction`: a text"
    for key in ("leads", "prefixes"):
        if key in metadata and not (
            isinstance(metadata[key], list) and metadata[key] and _are_texts(metadata[key])
        ):
            return "metadata", f"unusable {key}", f"`{key}`: a list of texts"
    optional = [name for other, name in sorted(OPTIONAL) if other == shape]
    needs = entry.get("needs", [])
    if needs and (entry.get("draw") != "one" or not set(needs) <= {*optional} & {*entry["reads"]}):
        expected = f"with `draw: one`, optional fields that it reads: {', '.join(optional) or 'none'}"
        return "needs", "not fields that decide a draw", expected
    return None
