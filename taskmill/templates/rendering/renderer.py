"""Compile templates once and render them: PromptSource's with its own semantics, ours strictly.

Reads and writes nothing. A PromptSource template sees the columns of a row and `answer_choices`; its
text is cut at `|||`: the first part is the input, the second the output, further parts are counted and left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.rendering import upstream
from taskmill.templates.rendering.library import LibraryTemplate
from taskmill.templates.rendering.upstream import Parts, Plan
from taskmill.templates.sandboxing.sandbox import OverBudgetError, TooLongError, strict_environment

_SHARED_ROWS = 64
"""Decoded rows that are kept for the next template."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_RENDER_ERRORS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Renderer:
    """Compiles templates on first use and renders them, within limits that are counted, never timed."""

    def __init__(self, seed: int, max_characters: int) -> None:
        """Take the run's seed and the longest text that a template may produce, in characters."""
        self._seed, self._max_characters = seed, max_characters
        self._strict, self._promptsource = strict_environment(), upstream.environment()
        self._plans: dict[tuple[str, str | None], Plan] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def check(self, body: str, choices: str | None) -> str | None:
        """Compile an upstream template; return what is wrong with it, or None."""
        try:
            self._plan(body, choices)
        except TemplateSyntaxError as error:
            return f"line {error.lineno}: {error.message}"
        except (*_RENDER_ERRORS, SyntaxError, MemoryError) as error:
            return explain(error)
        return None

    def shipped(self, template: LibraryTemplate, values: Mapping[str, Any], example: str) -> str | Drop:
        """Render a template of the library.

        Returns:
            The text, or why there is none.
        """
        environment = self._strict
        limit = self.limit(template)
        try:
            compiled = environment.prepare(template.body)
            environment.start(self._seed, example, template.id)
            return _text(compiled, environment.context({**environment.globals, **values}), limit)
        except _RENDER_ERRORS as error:
            return _reason(error)

    def limit(self, template: LibraryTemplate) -> int | None:
        """Return the most characters that a template of the library may produce; documents have no limit."""
        return None if template.shape == "document" else self._max_characters

    def promptsource(self, template: Mapping[str, Any], fields: str, example: str) -> Rendered | Drop:
        """Render a PromptSource template (a row of tasks/templates) over an example's fields (JSON).

        What a template changes in the row is seen by that render alone.
        """
        try:
            plan = self._plan(template["body"], template["choices"])
            parts, choices = self._parts(plan, template["template"], fields, example)
        except _RENDER_ERRORS as error:
            return _reason(error)
        return _rendered(parts, plan.distinct or (tuple(dict.fromkeys(choices)) if choices else None))

    def parts(self, template: Mapping[str, Any], fields: str, example: str) -> Parts:
        """Render a PromptSource template: every part of its text as upstream's engine gives them, and the choices.

        Raises:
            TooLongError: a text is longer than the renderer allows.
            OverBudgetError: the template does more than one render may.
            SecurityError: it reaches for what it may not touch.
            Exception: whatever else the template itself raises, such as TypeError for a sum of text and number.
        """
        plan = self._plan(template["body"], template["choices"])
        return self._parts(plan, template["template"], fields, example)

    def _parts(self, plan: Plan, template: str, fields: str, example: str) -> Parts:
        row = self._row(fields, plan.pure)
        if "answer_choices" in row:
            raise ValueError("the row has a field 'answer_choices', which templates reserve")
        environment = self._promptsource
        environment.start(self._seed, example, template)
        choices = None if plan.fixed is None else list(plan.fixed)
        if plan.choices is not None:
            context = environment.context({**environment.globals, **row})
            choices = upstream.cut(_text(plan.choices, context, self._max_characters))
        seen = choices if plan.pure or choices is None else list(choices)
        context = environment.context({**environment.globals, **row, "answer_choices": seen})
        return Parts(upstream.cut(_text(plan.body, context, self._max_characters, plan.loops)), choices)

    def fixed_choices(self, template: Mapping[str, Any]) -> list[str] | None:
        """Return the answer choices of a template that reads no column for them; None of any other."""
        fixed = self._plan(template["body"], template["choices"]).fixed
        return None if fixed is None else list(fixed)

    def _row(self, fields: str, pure: bool) -> dict[str, Any]:
        """Decode a row; templates that leave rows alone share one, the others get their own."""
        if not pure:
            return upstream.read_row(fields)
        row = self._rows.get(fields)
        if row is None:
            if len(self._rows) >= _SHARED_ROWS:
                self._rows.clear()
            row = self._rows[fields] = upstream.read_row(fields)
        return row

    def _plan(self, body: str, choices: str | None) -> Plan:
        plan = self._plans.get((body, choices))
        if plan is None:
            plan = self._plans[body, choices] = upstream.plan(self._promptsource, body, choices)
        return plan


def _text(template: Template, context: Context, limit: int | None, loops: bool = True) -> str:
    """Render a compiled template over the values of a context.

    Raises:
        TooLongError: the text has more than `limit` characters.
    """
    if limit is None or not loops:  # as many pieces as the template has, and each is in memory
        pieces = list(template.root_render_func(context))
        if limit is not None and sum(map(len, pieces)) > limit:
            raise TooLongError(f"more than {limit} characters")
        return "".join(pieces)
    pieces, size = [], 0
    for piece in template.root_render_func(context):
        size += len(piece)
        if size > limit:
            raise TooLongError(f"more than {limit} characters")
        if piece:
            pieces.append(piece)
    return "".join(pieces)


def explain(error: BaseException) -> str:
    """Return an error as one line that is equal on every machine."""
    text = _ADDRESS.sub("", f"{type(error).__name__}: {error}").replace("\n", " ")
    return text if len(text) <= 300 else text[:297] + "..."


def _reason(error: Exception) -> Drop:
    reasons = ((TooLongError, "too_long"), (OverBudgetError, "limit"), (SecurityError, "unsafe"))
    reason = next((name for kind, name in reasons if isinstance(error, kind)), "render_error")
    return Drop(reason, explain(error))


def _rendered(parts: list[str], options: tuple[str, ...] | None) -> Rendered | Drop:
    """Take input and output from the parts of a rendered text; `options`: the distinct answer choices."""
    if len(parts) == 1:
        return Drop("no_output" if parts[0] else "empty", "the template rendered no |||")
    source, target = parts[:2]
    if not source or not target:
        return Drop("empty", "the template rendered an empty " + ("output" if source else "input"))
    notes: tuple[str, ...] = () if len(parts) == 2 else ("renders_with_more_parts",)
    if options is not None and (len(options) < 2 or target not in options):
        options = None
        notes = (*notes, "options_without_the_answer")
    return Rendered("", source, target, (target,), options, notes)
