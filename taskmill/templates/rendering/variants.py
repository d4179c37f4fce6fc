"""The variants of a task's prompts: every template that may render it, and what each makes of an example.

Reads the library; writes nothing. Which variants a task has follows from its style: its own PromptSource
templates (`instance` with rows in tasks/templates), else the library's templates of the style (and shape).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskmill.errors import DataError, did_you_mean
from taskmill.templates.chat.layout import Turn, answered_turns, turns_of
from taskmill.templates.composing.schemas import Drop, Rendered, dialogue_text, reasoned
from taskmill.templates.drawing.examples import Example
from taskmill.templates.rendering.decoding import decode
from taskmill.templates.rendering.library import OPTIONAL, SHAPES, LibraryTemplate, library_for
from taskmill.templates.rendering.renderer import Renderer

RENDERED_STYLES = ("task", "instance", "keywords", "reasoning", "chat", "dialogue", "document")
TURNS = "chat/turns"
"""Template id of conversations that come with their turns."""
DIALOGUE = "dialogue/turns"
"""Template id of dialogues, whose turns become one text."""
_NAME_ONLY = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
"""A template that shows one field and nothing else."""
_EMPTY = Drop("empty", "the input is empty")


Show = Callable[[Example, Mapping[str, Any], Sequence[str]], str | Drop]
"""Renders the input side of an example from its decoded fields and its options."""
_new_rendered = functools.partial(tuple.__new__, Rendered)
_NO_EXPLANATION = Rendered("", "", "", ())[6:]
"""Of examples that are none of upstream's own: example_kind, explanation and whole."""


class Conversation(NamedTuple):
    """What becomes of an example that comes with its turns."""

    turns: tuple[Turn, ...]
    references: tuple[str, ...] = ()
    """The last turn that the model writes."""
    options: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


Made = Rendered | Conversation | Drop
Render = Callable[[Example], Made]


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to render a task's examples."""

    template: str
    render: Render
    leads: tuple[str, ...] = ("",)
    """Texts before the instruction; the first is used in evaluation, train prompts draw one."""
    prefixes: tuple[str, ...] = ("",)
    """Texts before the input, likewise."""
    weight: float = 1.0
    """Its chance against the task's other variants, where each example draws one."""


class Refused(NamedTuple):
    """A template that takes no part, counted once."""

    template: str
    drop: Drop


@dataclass
class TaskVariants:
    """The variants of a task and the templates that were refused."""

    variants: list[Variant] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    answered: Callable[[Sequence[Sequence[str]], Callable[[], Sequence[str]]], list[bool]] = field(
        default=lambda references, _: _answered(references)
    )
    """Of which examples references and fields (JSON) hold an answer; others are dropped once, as `unlabelled`."""
    draws_one: bool = False
    """Whether each example gets one variant, drawn by weight, and no other."""

    fitting: Callable[[str], tuple[bool, ...]] | None = None
    """Which variants an example's fields (JSON) may draw, where that differs between examples."""

    def has_answer(self, example: Example) -> bool:
        """Whether an example can be rendered with an answer."""
        return self.answered([example.references], lambda: [example.fields])[0]


def task_variants(
    task: Mapping[str, Any],
    templates: Sequence[Mapping[str, Any]],
    renderer: Renderer,
    own: Sequence[LibraryTemplate] = (),
    encoding: str = "opt-iml",
) -> TaskVariants:
    """Return the variants of a task (a row of tasks/tasks).

    Args:
        task: row of tasks/tasks.
        templates: its rows of tasks/templates.
        renderer: what renders them.
        own: the user's templates; those that name the task take the place of all others.
        encoding: of tasks with a definition (`render.encoding`).

    Raises:
        DataError: a style that has no templates, or a task without a known shape.
    """
    style = task["style"]
    if style not in RENDERED_STYLES:
        raise DataError(
            f"the task {task['task']!r} cannot be rendered",
            field="style",
            value=style,
            expected=f"one of {', '.join(RENDERED_STYLES)}",
        )
    named = [template for template in own if template.style == style and template.serves(task["task"])]
    if named:
        return _library_variants(task, named, renderer)
    if style == "instance" and templates:
        return _upstream_variants(task, templates, renderer)
    if style == "task" and encoding == "tulu":
        return _worded_variants(task, renderer)
    if style == "dialogue":
        return _whole([Variant(DIALOGUE, _render_dialogue)])
    if style == "chat" and _metadata(task).get("shape") == "turns":
        return _whole([Variant(TURNS, _render_turns)])
    shape = _shape(task) if style in ("keywords", "chat") else None
    return _library_variants(task, library_for(style, shape, own), renderer)


def _library_variants(
    task: Mapping[str, Any], library: Sequence[LibraryTemplate], renderer: Renderer
) -> TaskVariants:
    kept = [template for template in library if template.keeps_task]
    variants = [_library_variant(task, template, renderer) for template in kept]
    found = _whole(variants) if task["style"] == "document" else TaskVariants(variants)
    reason = Drop("changes_task", "its entry says keeps_task: false")
    found.refused = [Refused(template.id, reason) for template in library if not template.keeps_task]
    if kept and all(template.draw == "one" for template in kept):
        found.draws_one = True
        if any(template.needs for template in kept):
            found.fitting = _Fitting(kept)
    return found


class _Fitting:
    """Says which templates an example may draw: a matter of which optional fields it has."""

    def __init__(self, library: Sequence[LibraryTemplate]) -> None:
        self._library = library
        shapes = {template.shape for template in library}
        self._names = sorted({name for shape, name in OPTIONAL if shape in shapes})
        self._known: dict[tuple[bool, ...], tuple[bool, ...]] = {}

    def __call__(self, fields: str) -> tuple[bool, ...]:
        values = decode(fields)
        present = tuple([_is_there(values.get(name)) for name in self._names])
        if present not in self._known:
            known = {name: values.get(name) for name in self._names}
            self._known[present] = tuple(template.fits(known) for template in self._library)
        return self._known[present]


def _is_there(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _whole(variants: list[Variant]) -> TaskVariants:
    """Return variants for examples that are texts, not questions with an answer."""
    return TaskVariants(variants, answered=lambda references, _: [True] * len(references))


def _metadata(task: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(task["metadata"])
    return found


def _shape(task: Mapping[str, Any]) -> str:
    shape = _metadata(task).get("shape")
    shapes = sorted({template.shape for template in library_for(task["style"]) if template.shape})
    if shape not in shapes:
        raise DataError(
            f"the task {task['task']!r} has no known shape{did_you_mean(str(shape), shapes)}",
            field="metadata.shape",
            value=shape,
            expected=f"one of {', '.join(shapes)}",
        )
    return str(shape)


def _answered(references: Sequence[Sequence[str]]) -> list[bool]:
    return [bool(known) and (bool(known[0].strip()) or any(map(str.strip, known))) for known in references]


def _labelled(
    output_fields: Sequence[str], references: Sequence[Sequence[str]], fields: Callable[[], Sequence[str]]
) -> list[bool]:
    if not output_fields:
        return [True] * len(references)
    return [
        is_labelled(known, values, output_fields) for known, values in zip(references, fields(), strict=True)
    ]


def is_labelled(references: Sequence[str], fields: str, output_fields: Sequence[str]) -> bool:
    """Say whether there is a reference, or something in the output fields (of JSON) that is not -1 or blank."""
    if not output_fields or any(map(str.strip, references)):
        return True
    values = decode(fields)
    return not all(_blank(_value_at(values, path)) for path in output_fields)


def _blank(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float)):
        return value == -1
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, (list, dict)):
        return all(map(_blank, value.values() if isinstance(value, dict) else value))
    return value is None


def _value_at(value: Any, path: str) -> Any:
    """Return what lies at a dotted path, or None; below a list, what lies there in each of its items."""
    if "." not in path and isinstance(value, dict):
        return value.get(path)
    for place, key in enumerate(keys := path.split(".")):
        if isinstance(value, list) and not key.isdigit():
            return [_value_at(item, ".".join(keys[place:])) for item in value]
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


# ---------------------------------------------------------------------------------------- PromptSource


def _upstream_variants(
    task: Mapping[str, Any], templates: Sequence[Mapping[str, Any]], renderer: Renderer
) -> TaskVariants:
    output_fields = tuple(task["output_fields"])
    found = TaskVariants(answered=functools.partial(_labelled, output_fields))
    for template in sorted(templates, key=lambda t: str(t["template"])):
        problem = (
            None if not template["keeps_task"] else renderer.check(template["body"], template["choices"])
        )
        if not template["keeps_task"]:
            drop = Drop("changes_task", template["why"] or "upstream does not mark it as the original task")
            found.refused.append(Refused(template["template"], drop))
        elif problem is not None:
            found.refused.append(Refused(template["template"], Drop("template_error", problem)))
        else:
            render = functools.partial(_render_upstream, template, renderer)
            found.variants.append(Variant(template["template"], render))
    return found


def _render_upstream(template: Mapping[str, Any], renderer: Renderer, example: Example) -> Rendered | Drop:
    return renderer.promptsource(template, example.fields, example.id)


# -------------------------------------------------------------------------------------------- library


def _library_variant(task: Mapping[str, Any], template: LibraryTemplate, renderer: Renderer) -> Variant:
    kinds = {"document": _render_document, "reasoning": _render_reasoning}
    show = _shown_field(template, renderer) or functools.partial(_source, template, renderer)
    render = functools.partial(kinds.get(template.style, _render_plain), task, template, show)
    leads, prefixes = template.metadata.get("leads", [""]), template.metadata.get("prefixes", [""])
    return Variant(template.id, render, tuple(leads), tuple(prefixes), template.weight)


def _shown_field(template: LibraryTemplate, renderer: Renderer) -> Show | None:
    """Return what renders a template that shows one field and nothing else, without Jinja; None for any other."""
    shown = _NAME_ONLY.fullmatch(template.body)
    if shown is None:
        return None
    name, limit, strips = shown[1], renderer.limit(template), template.shape != "document"

    def show(example: Example, fields: Mapping[str, Any], options: Sequence[str]) -> str | Drop:
        text = fields.get(name)
        if not isinstance(text, str) or (limit is not None and len(text) > limit):
            return _source(template, renderer, example, fields, options)
        stripped = text.strip()
        if not stripped:
            return _EMPTY
        return stripped if strips else text

    return show


def _source(
    template: LibraryTemplate,
    renderer: Renderer,
    example: Example,
    fields: Mapping[str, Any],
    options: Sequence[str],
) -> str | Drop:
    """Render the input side; a missing field that may be missing is null to the template."""
    values: dict[str, Any] = {}
    for name in fields if template.shape is None else SHAPES[template.shape]:
        if name in fields or (template.shape, name) in OPTIONAL:
            value = fields.get(name)
            if isinstance(value, str):
                values[name] = value if template.shape in (None, "document") else value.rstrip()
            else:
                values[name] = value if template.shape is None else _as_text(value)
    listed = bool(options) and any(f"(A) {options[0]}" in v for v in values.values() if isinstance(v, str))
    values["options"], values["listed"] = list(options), listed
    source = renderer.shipped(template, values, example.id)
    if isinstance(source, Drop):
        return source
    stripped = source.strip()
    if not stripped:
        return _EMPTY
    return source if template.shape == "document" else stripped


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _references(example: Example) -> tuple[str, ...]:
    references = example.references
    if len(references) == 1 and references[0].strip():
        return references
    return tuple(r for r in references if r.strip())


def _render_plain(
    task: Mapping[str, Any], template: LibraryTemplate, show: Show, example: Example
) -> Rendered | Drop:
    references = _references(example)
    given = example.options or template.options or None
    source = show(example, decode(example.fields), given or ())
    if isinstance(source, Drop):
        return source
    options, notes = _usable_options(given, references)
    definition = task["definition"] if template.style in ("task", "keywords") else None
    return _new_rendered(
        (definition or "", source, references[0], references, options, notes, *_NO_EXPLANATION)
    )


def _usable_options(
    options: tuple[str, ...] | None, references: Sequence[str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return options that can be ranked (two or more, a reference among them), and notes when they cannot."""
    if not options:
        return None, ()
    distinct = tuple(dict.fromkeys(option.strip() for option in options))
    if len(distinct) < 2 or not any(reference.strip() in distinct for reference in references):
        return None, ("options_without_the_answer",)
    return distinct, ()


def _render_reasoning(
    task: Mapping[str, Any], template: LibraryTemplate, show: Show, example: Example
) -> Rendered | Drop:
    """Render a question whose target is the rationale and the sentence that states the answer: "The answer is .."."""
    references = _references(example)
    fields = decode(example.fields)
    source = show(example, fields, example.options or template.options)
    if isinstance(source, Drop):
        return source
    rationale = _as_text(fields.get("rationale")) or ""
    return Rendered(template.metadata["instruction"], source, reasoned(rationale, references[0]), references)


def _render_document(
    task: Mapping[str, Any], template: LibraryTemplate, show: Show, example: Example
) -> Rendered | Drop:
    text = show(example, decode(example.fields), ())
    return text if isinstance(text, Drop) else Rendered("", "", text, ())


def _worded_variants(task: Mapping[str, Any], renderer: Renderer) -> TaskVariants:
    """Return the wordings that instruction sets have for instruction and input; an example draws one (TÜLU)."""
    plain = _library_variant(task, library_for("task")[0], renderer).render
    wordings = [t for t in library_for("chat", "instruction") if t.fits({"instruction": "x", "input": "x"})]

    def render(template: LibraryTemplate, example: Example) -> Rendered | Conversation | Drop:
        found = plain(example)
        if not isinstance(found, Rendered):
            return found
        values = {"instruction": found.instruction, "input": found.source, "options": [], "listed": True}
        text = renderer.shipped(template, values, example.id)
        return text if isinstance(text, Drop) else found._replace(whole=text)

    variants = [Variant(t.id, functools.partial(render, t), weight=t.weight) for t in wordings]
    return TaskVariants(variants, draws_one=True)


# -------------------------------------------------------------------------------------- conversations


def _render_turns(example: Example) -> Conversation | Drop:
    turns = turns_of(decode(example.fields))
    if isinstance(turns, Drop):
        return turns
    answered = answered_turns(turns)
    return Conversation(tuple(turns), (answered[-1].text,) if answered else ())


def _render_dialogue(example: Example) -> Rendered | Drop:
    fields = decode(example.fields)
    turns = turns_of(fields)
    if isinstance(turns, Drop):
        return turns
    text = dialogue_text(fields)
    return Rendered("", "", text, ()) if text else Drop("empty", "the dialogue is empty")
