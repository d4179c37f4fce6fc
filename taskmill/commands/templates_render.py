"""Preview of templates on records: `taskmill templates render`. Reads the stage curate of a run, or fields given as JSON.

What is shown is what the stage render makes: the same variants, wording and chat layout, under the id that a train prompt of the
run has; demonstrations alone are left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from taskmill.commands.content import nearest_example
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.templates_known import (
    LIBRARY_ALONE,
    Target,
    as_example,
    find_templates,
    may_serve,
    open_target,
    read_files,
    sampled,
)
from taskmill.commands.templates_preview import print_preview
from taskmill.errors import UsageError, shorten
from taskmill.templates.chat.formats import load_format
from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.drawing.examples import Example
from taskmill.templates.drawing.index import example_hashes
from taskmill.templates.drawing.order import combine
from taskmill.templates.drawing.pairs import template_hash
from taskmill.templates.drawing.writing import Setup, Writer
from taskmill.templates.linting.subjects import Subject
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import Conversation, TaskVariants, task_variants

SPLIT = "train"
"""The split whose prompts are previewed: leads and prefixes are drawn, as for training."""
_ENVELOPE = ("fields", "references", "options", "definition", "quality")
GIVEN = "given#0"
"""Id of the record in --fields."""
_HINT = '; give it as {"fields": {...}, "references": ["..."]}'
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Request:
    """What to preview."""

    templates: tuple[str, ...]
    run: str | None = None
    fields: str | None = None
    """The record as JSON, or a file of it, in place of those of the run."""
    task: str | None = None
    example: str | None = None
    count: int = 2
    format: str | None = None


def render(request: Request, as_json: bool) -> None:
    """Print what templates make of records.

    Args:
        request: which templates, records and format.
        as_json: print one JSON object.

    Raises:
        UsageError: no such template, run, task, example or format, or JSON that is no record.
        RecipeError: the recipe or format has problems.
        DataError: a file of templates is wrong, or the task cannot be rendered.
        DamagedError: a file of the run is missing or changed.
    """
    body = preview(request)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
    else:
        print_preview(body)


def preview(request: Request) -> Row:
    """Return the records, and what each template makes of them; see `render`."""
    if request.run is None and request.fields is None:
        raise UsageError("a preview needs records: give --run RUN or --fields JSON")
    target = open_target(request.run)
    if request.fields is None and target.run is None:
        raise UsageError(f"{request.run} has no records yet: {target.note}")
    chosen = _chosen(request, target)
    if request.fields is not None:
        task, examples = _given(request)
    else:
        assert target.run is not None, "it was looked for"
        task, examples = _records(request, target.run, chosen, target.seed)
    settings, base = target.settings, target.base
    if request.format is not None:
        settings, base = dataclasses.replace(settings, format=request.format), Path(".")
    setup = Setup(settings, target.seed, load_format(settings.format, base))
    renderer = Renderer(target.seed, settings.max_characters)
    previews = [_Preview(subject, task, setup, renderer) for subject in chosen]
    return {
        "task": task["task"],
        "format": settings.format,
        "examples": [
            {
                "example": example.id,
                "fields": json.loads(example.fields),
                "references": list(example.references),
                "options": None if example.options is None else list(example.options),
                "renders": [one.of(example) for one in previews],
            }
            for example in examples
        ],
    }


# ------------------------------------------------------------------------------------------- templates


def _chosen(request: Request, target: Target) -> list[Subject]:
    """Return the templates that are asked for, each once, of one task."""
    found: list[Subject] = []
    for name in request.templates:
        path = Path(name)
        if path.suffix in _SUFFIXES and (path.is_file() or "/" not in name):
            read = read_files(path)
            if read.wrong:
                subject, problem = read.wrong[0]
                raise UsageError(
                    f"{subject.file}:{subject.file_line}: {subject.id} is no template: {problem}"
                )
            found += [dataclasses.replace(subject, task=None) for subject in read.subjects]
        else:
            found += _of_task(find_templates(name, target.subjects, _where(request)), request, target)
    return list({(subject.file, subject.task, subject.id): subject for subject in found}.values())


def _where(request: Request) -> str:
    return LIBRARY_ALONE if request.run is None else f"the library or {request.run}"


def _of_task(found: Sequence[Subject], request: Request, target: Target) -> list[Subject]:
    """Return those templates of `found` that the wanted task has; where none has been named, of one task alone."""
    tasks = sorted({subject.task for subject in found if subject.task is not None})
    if request.task is not None and target.run is not None:
        wanted = target.run.matching(request.task)
        own = [subject for subject in found if subject.task in (None, *wanted)]
        return own or list(found)
    if request.example is not None:
        own = [subject for subject in found if subject.task in (None, _task_of(request.example))]
        return own or list(found)
    if len(tasks) > 1:
        named = ", ".join(tasks[:5]) + (" ..." if len(tasks) > 5 else "")
        raise UsageError(f"templates of several tasks: {named}; choose one with --task TASK")
    return list(found)


def _task_of(example: str) -> str:
    return example.partition("#")[0]


# --------------------------------------------------------------------------------------------- records


def _records(
    request: Request, run: FinishedRun, chosen: Sequence[Subject], seed: int
) -> tuple[Row, list[Example]]:
    """Return a task of the run and some of its examples."""
    if request.example is not None:
        rows = run.examples([request.example])
        if request.example not in rows:
            raise UsageError(
                f"no example {request.example!r} in {run.run}{nearest_example(run, request.example)}"
            )
        return run.tasks[_task_of(request.example)], [as_example(rows[request.example])]
    name = _task_for(request, run, chosen)
    ((task, examples),) = sampled(run, [name], request.count, seed)
    return task, examples


def _task_for(request: Request, run: FinishedRun, chosen: Sequence[Subject]) -> str:
    """Return the task that is asked for, else the first that the templates are made for."""
    own = sorted({subject.task for subject in chosen if subject.task is not None})
    if request.task is not None:
        matching = run.matching(request.task)
        return next((name for name in matching if name in own), matching[0])
    if len(own) > 1:
        raise UsageError(f"templates of several tasks: {', '.join(own)}; choose one with --task TASK")
    if own:
        return own[0]
    shared = [subject.template for subject in chosen if subject.template is not None]
    for name, task in run.tasks.items():
        if any(may_serve(template, task) for template in shared):
            return name
    raise UsageError(f"no task of {run.run} fits these templates; name one with --task TASK")


def _given(request: Request) -> tuple[Row, list[Example]]:
    """Return a task made up for the record in --fields, and the record."""
    for option, value in (("--task", request.task), ("--example", request.example)):
        if value is not None:
            raise UsageError(f"{option} names records of a run: leave out --fields, which gives the record")
    assert request.fields is not None
    found = _parse(request.fields)
    is_envelope = isinstance(found.get("fields"), dict) and set(found) <= set(_ENVELOPE)
    record: Row = found if is_envelope else {"fields": found}
    for key in ("references", "options"):
        values = record.get(key)
        if values is not None and not (isinstance(values, list) and all(isinstance(v, str) for v in values)):
            raise UsageError(f"--fields: {key}: found {shorten(values)}; expected a list of texts")
    for key in ("definition", "quality"):
        if not isinstance(record.get(key), (str, type(None))):
            raise UsageError(f"--fields: {key}: found {shorten(record[key])}; expected text")
    options = record.get("options")
    example = Example(
        GIVEN,
        None,
        0,
        json.dumps(record["fields"], ensure_ascii=False, sort_keys=True),
        tuple(record.get("references") or ()),
        None if options is None else tuple(options),
        b"",
        record.get("quality"),
    )
    task = {"task": "given", "name": "given", "style": "instance", "output_fields": [], "metadata": "{}"}
    return {**task, "definition": record.get("definition")}, [example]


def _parse(text: str) -> dict[str, Any]:
    """Return the object in JSON text, or in a file of it."""
    label = "--fields"
    if not text.lstrip().startswith("{"):
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                f"--fields: {shorten(text)} is no file; expected one, or a JSON object: '{{\"text\": ..}}'"
            )
        label, text = f"--fields {path}", path.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{label}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{label}: found {shorten(found)}; expected an object of fields")
    return found


# -------------------------------------------------------------------------------------------- rendering


class _Preview:
    """One template on the records of a task."""

    def __init__(self, subject: Subject, task: Row, setup: Setup, renderer: Renderer) -> None:
        """Find the variant of the task that the stage would have of this template alone."""
        self._subject, self._setup = subject, setup
        self._task, self._found = _variants(subject, task, renderer)
        self._writer = Writer(self._task, setup)

    def of(self, example: Example) -> Row:
        """Return what the template makes of an example."""
        subject = self._subject
        source = subject.row if subject.row is not None else {}
        keeps = source.get("keeps_task", subject.template is None or subject.template.keeps_task)
        body: Row = {
            "template": subject.id,
            "name": subject.name,
            "keeps_task": keeps,
            "why": source.get("why"),
            **dict.fromkeys(("input", "output", "options", "references", "dropped", "prompt")),
            "segments": [],
            "notes": [],
        }
        made = self._made(example)
        if isinstance(made, Drop):
            return {**body, "dropped": _dropped(made)}
        if isinstance(made, Rendered):
            body |= {"input": made.source, "output": made.target}
        body |= {
            "options": None if made.options is None else list(made.options),
            "references": list(made.references),
            "notes": list(made.notes),
        }
        return body | self._written(example, made)

    def _made(self, example: Example) -> Rendered | Conversation | Drop:
        if not self._found.variants:
            return self._found.refused[0].drop
        if not self._found.has_answer(example):
            return Drop("unlabelled", "the record has no answer" + _HINT * (example.id == GIVEN))
        return self._found.variants[0].render(example)

    def _written(self, example: Example, made: Rendered | Conversation) -> Row:
        """Return the id and the segments of the prompt that the stage makes without demonstrations."""
        writer, variant = self._writer, self._found.variants[0]
        quality = writer.quality(SPLIT, example.quality)
        if isinstance(quality, Drop):
            return {"dropped": _dropped(quality)}
        most = writer.most_demonstrations(SPLIT)
        ids = combine(example_hashes([example.id]), template_hash(variant.template, SPLIT, most))
        (wording,) = writer.wordings(SPLIT, ids.astype(np.uint64), [variant])
        written = writer.write(SPLIT, int(ids[0]), made, (), wording, quality)
        if isinstance(written, Drop):
            return {"dropped": _dropped(written)}
        segments = zip(written.kinds, written.trained, written.texts, strict=True)
        return {
            "prompt": f"{int(ids[0]):016x}",
            "segments": [{"kind": kind, "trained": flag, "text": text} for kind, flag, text in segments],
        }


def _dropped(drop: Drop) -> Row:
    return {"reason": drop.reason, "detail": drop.detail}


def _variants(subject: Subject, task: Row, renderer: Renderer) -> tuple[Row, TaskVariants]:
    """Return the task as the template takes it, and its one variant, whether or not the template keeps the task."""
    if subject.template is None:
        assert subject.row is not None
        own = {**task, "style": "instance"}
        return own, task_variants(own, [{**subject.row, "keeps_task": True}], renderer)
    template = dataclasses.replace(subject.template, tasks=("*",), keeps_task=True)
    own = {**task, "style": template.style}
    return own, task_variants(own, [], renderer, [template])
