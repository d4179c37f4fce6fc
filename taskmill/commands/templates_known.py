"""Templates that a command is asked about: the library's, the user's, a run's, and those in YAML files of either form.

Reads the library, finished stages and YAML files; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from taskmill import recipe_files, seeding
from taskmill.commands.finished import FinishedRun, Row
from taskmill.curation.sources._yaml import load_yaml
from taskmill.curation.sources.promptsource import changed_templates, template_row
from taskmill.errors import DataError, UsageError, did_you_mean, shorten
from taskmill.recipe import Render
from taskmill.safe_yaml import YamlError, compose_yaml
from taskmill.stages import run_directory
from taskmill.storage import digest, read_table
from taskmill.templates.drawing.examples import EXAMPLE_COLUMNS, Example, RowReader
from taskmill.templates.linting.subjects import (
    Subject,
    library_subject,
    read_library_file,
    upstream_subject,
)
from taskmill.templates.rendering.library import LibraryTemplate, load_library, load_templates
from taskmill.templates.rendering.variants import is_labelled

LIBRARY_ALONE = "the library"
"""Where templates are looked for without a run."""
MIN_PREFIX = 4
"""Fewest characters that stand for an id which begins with them."""
_FIRST_READ, _MOST_READ = 2, 50
"""Examples that are read for each one with an answer that is wanted: at first, and at most."""
_TREE_FILE = "templates.yaml"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Target:
    """What a command is asked about: nothing, a recipe, or a run."""

    run: FinishedRun | None = None
    settings: Render = field(default_factory=Render)
    seed: int = 0
    base: Path = Path(".")
    """Folder that the recipe's paths begin at."""
    note: str = ""
    """What is not there, and the command that makes it."""
    user: tuple[LibraryTemplate, ...] = field(default=())

    @cached_property
    def upstream(self) -> list[Row]:
        """The rows of tasks/templates, by task and name."""
        rows = self.run.rows("curate", "templates") if self.run is not None else []
        return sorted(rows, key=lambda row: (row["task"], row["name"], row["template"]))

    @cached_property
    def subjects(self) -> list[Subject]:
        """Every template: the library's, the user's, the run's."""
        own = [*load_library().values(), *self.user]
        return [*map(library_subject, own), *map(upstream_subject, self.upstream)]


def open_target(given: str | None) -> Target:
    """Find a run, or a recipe with or without its run.

    Raises:
        UsageError: there is no such run or recipe, or its stage curate is not finished.
        RecipeError: the recipe has problems.
        DataError: the user's templates are wrong.
        DamagedError: a manifest was changed.
    """
    if given is None:
        return Target()
    path = Path(given)
    if path.is_dir() and not (path / "recipe.json").is_file():
        run = FinishedRun(path)
        run.require("curate")
        return Target(run)
    resolved = recipe_files.find(given)
    folder = run_directory(given, resolved.recipe.name)
    render = resolved.recipe.render
    user = load_templates(render.templates, resolved.base)
    note, found = "", None
    if (folder / "tasks/manifest.json").is_file():
        found = FinishedRun(folder)
        found.require("curate")
    elif path.is_dir():
        raise UsageError(
            f"the stage 'curate' of {folder} is not finished: run `taskmill curate {given}` first"
        )
    else:
        note = f"`taskmill curate {given}` reads its tasks, which bring templates of their own"
    return Target(found, render, resolved.recipe.seed, resolved.base, note, user)


def find_templates(name: str, subjects: Sequence[Subject], where: str) -> list[Subject]:
    """Return the templates that an id, the beginning of one, a name or a shell pattern of them means.

    Raises:
        UsageError: none fits, or a beginning fits several ids; the message names the nearest.
    """
    if any(sign in name for sign in "*?["):
        found = [s for s in subjects if fnmatchcase(s.id, name) or fnmatchcase(s.name, name)]
    else:
        found = [s for s in subjects if s.id == name] or [s for s in subjects if s.name == name]
    if not found and len(name) >= MIN_PREFIX:
        found = [s for s in subjects if s.id.startswith(name)]
        ids = sorted({s.id for s in found})
        if len(ids) > 1:
            raise UsageError(f"several templates begin with {name!r}: {', '.join(ids[:5])}")
    if not found:
        hint = did_you_mean(name, [part for s in subjects for part in (s.id, s.name)])
        rest = "; templates of tasks need their RUN" if where == LIBRARY_ALONE else ""
        raise UsageError(f"no template {name!r} in {where}{hint}; `taskmill templates list` shows them{rest}")
    return found


def library_row(template: LibraryTemplate) -> Row:
    """Return a template of the library's form as JSON values, with a digest of all that it says."""
    row = {
        "id": template.id,
        "name": template.id,
        "form": "library",
        "style": template.style,
        "shape": template.shape,
        "reads": list(template.reads),
        "options": list(template.options),
        "weight": template.weight,
        "draw": template.draw,
        "needs": list(template.needs),
        "tasks": list(template.tasks),
        "keeps_task": template.keeps_task,
        "metadata": dict(template.metadata),
        "body": template.body,
    }
    return {**row, "digest": digest(row)}


def may_serve(template: LibraryTemplate, task: Row) -> bool:
    """Say whether a template renders a task (row of tasks/tasks) that brings none of its own."""
    if template.style != task["style"]:
        return False
    if template.tasks:
        return template.serves(task["task"])
    shaped = task["style"] in ("keywords", "chat")
    return not shaped or template.shape == json.loads(task["metadata"]).get("shape")


# ----------------------------------------------------------------------------------------- YAML files


@dataclass
class Read:
    """The templates of files, and what is wrong with entries that are none."""

    subjects: list[Subject] = field(default_factory=list)
    wrong: list[tuple[Subject, str]] = field(default_factory=list)
    files: int = 0


def is_tree(path: Path) -> bool:
    """Say whether a path is a PromptSource file, or a folder that holds some."""
    if path.is_dir():
        return next(path.rglob(_TREE_FILE), None) is not None
    return path.name == _TREE_FILE


def read_files(path: Path) -> Read:
    """Read a YAML file of templates of either form, or every such file below a folder.

    Raises:
        UsageError: there is no such file, or no YAML below the folder.
        DataError: a file cannot be read, is no YAML, or holds no templates.
    """
    if path.is_dir():
        files = sorted(path.rglob(_TREE_FILE)) or sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES)
    else:
        files = [path] if path.is_file() else []
    if not files:
        what = "holds no YAML file of templates" if path.is_dir() else "is no file, run or folder"
        raise UsageError(f"{path} {what}; expected a YAML file, a folder of them, or a run")
    read = Read(files=len(files))
    for file in files:
        text = _text(file)
        if _is_promptsource(file, text):
            _read_promptsource(file, text, read)
        else:
            found, wrong = read_library_file(file)
            read.subjects += found
            read.wrong += wrong
    return read


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", file=file) from error


def _is_promptsource(file: Path, text: str) -> bool:
    """Say whether a text is a mapping, as PromptSource's files are; ours are lists."""
    try:
        return isinstance(compose_yaml(text)[0], yaml.MappingNode)
    except YamlError as error:
        raise DataError(f"not valid YAML: {error}", file=file) from error


def _read_promptsource(file: Path, text: str, read: Read) -> None:
    """Add the templates of a PromptSource file."""
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise DataError(f"not valid YAML: {error}", file=file) from error
    templates = content.get("templates")
    if not isinstance(templates, dict):
        expected = "a mapping of ids to templates"
        raise DataError(
            "not a file of templates", file=file, field="templates", value=templates, expected=expected
        )
    name = "/".join(str(content[key]) for key in ("dataset", "subset") if content.get(key))
    changed = changed_templates().get(name, {})
    lines = _template_lines(text)
    for identity, template in templates.items():
        line = lines.get(str(identity))
        problem = _entry_problem(template)
        if problem is not None:
            bare = Subject(
                str(identity), str(identity), "promptsource", "", task=name, file=str(file), file_line=line
            )
            read.wrong.append((bare, problem))
            continue
        row = {**template_row(str(identity), template, changed), "task": name}
        read.subjects.append(upstream_subject(row, str(file), line))


def _entry_problem(template: Any) -> str | None:
    """Return what keeps an entry of a PromptSource file from being a template, or None."""
    if not isinstance(template, dict):
        return f"found {shorten(template)}; expected a mapping with name, jinja and answer_choices"
    for key, kinds in (("jinja", (str,)), ("name", (str, int, float)), ("answer_choices", (str, type(None)))):
        if not isinstance(template.get(key), kinds):
            return f"{key}: found {shorten(template.get(key))}; expected text"
    return None


def _template_lines(text: str) -> dict[str, int]:
    """Return the line, from 1, in which each template of a PromptSource file begins."""
    node, _ = compose_yaml(text)
    assert isinstance(node, yaml.MappingNode), "it was read as a mapping"
    found = dict[str, int]()
    for key, value in node.value:
        if key.value == "templates" and isinstance(value, yaml.MappingNode):
            found = {str(k.value): k.start_mark.line + 1 for k, _ in value.value}
    return found


# -------------------------------------------------------------------------------------------- records


def sampled(
    run: FinishedRun, tasks: Sequence[str], count: int, seed: int
) -> Iterator[tuple[Row, list[Example]]]:
    """Yield each task with the `count` examples of smallest hash, of those with an answer where there are any.

    Raises:
        DamagedError: a file of the run is missing or changed.
    """
    wanted: dict[str, list[Row]] = {}
    for name in tasks:
        wanted.setdefault(run.tasks[name]["shard"], []).append(run.tasks[name])
    for path in run.inputs.files("curate", "examples"):
        if path.stem not in wanted:
            continue
        names = read_table(path, ["example"]).column("example")
        with RowReader(path, EXAMPLE_COLUMNS) as reader:
            for task in sorted(wanted[path.stem], key=lambda row: int(row["first_row"])):
                start, stop = task["first_row"], task["first_row"] + task["num_kept"]
                ranks = seeding.ranks(seed, "templates/sample", names[start:stop].to_pylist())
                order = [start + int(place) for place in ranks.argsort(kind="stable")[: _MOST_READ * count]]
                yield task, _answered(reader, order, count, task)


def _answered(reader: RowReader, order: Sequence[int], count: int, task: Row) -> list[Example]:
    """Return the first `count` examples with an answer, in the order of the table, of a few read or of many."""
    for most in (_FIRST_READ * count, len(order)):
        rank = {place: number for number, place in enumerate(order[:most])}
        found = dict(zip(sorted(rank), _rows_at(reader, sorted(rank)), strict=True))
        known = [p for p, e in found.items() if is_labelled(e.references, e.fields, task["output_fields"])]
        if len(known) >= count or most >= len(order):
            break
    chosen = sorted(known or found, key=rank.__getitem__)[:count]
    return [found[place] for place in sorted(chosen)]


def _rows_at(reader: RowReader, places: Sequence[int]) -> Iterator[Example]:
    """Yield the examples in some rows of a file, given in order."""
    if not places:
        return
    for stretch in reader.stretches(places[0], places[-1] + 1):
        first, last = stretch.first, stretch.first + stretch.high - stretch.low
        inside = [place - first for place in places if first <= place < last]
        yield from stretch.examples(inside)


def as_example(row: Mapping[str, Any]) -> Example:
    """Return a row of tasks/examples as rendering takes it."""
    options = row["options"]
    return Example(
        row["example"],
        row["upstream_split"],
        row["group"],
        row["fields"],
        tuple(row["references"]),
        None if options is None else tuple(options),
        row["normalised"],
        row["quality"],
    )
