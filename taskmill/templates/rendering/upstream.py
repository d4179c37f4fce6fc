"""PromptSource's own semantics: what a template of its collection makes of a row.

Reads nothing and writes nothing. The order is upstream's: the row's separators are hidden, the answer choices are rendered
over the row and cut at `|||`, the body is rendered over the row and `answer_choices`, cut at `|||`, stripped part by part,
and hidden separators come back. What a template cannot reach or may not build is `sandboxing`'s business. The differences
from upstream's engine are listed in `docs/promptsource.md`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jinja2 import Template, Undefined, meta, nodes, pass_context
from jinja2.runtime import Context

from taskmill.templates.rendering.decoding import decode
from taskmill.templates.sandboxing.counting import METHODS, MUTATING
from taskmill.templates.sandboxing.limits import MAX_SOURCE
from taskmill.templates.sandboxing.sandbox import CountedEnvironment, promptsource_environment

SEPARATOR = "|||"
HIDDEN = "3ed2dface8203c4c9dfb1a5dc58e41e0"
"""Stands for a separator in a row's own text. It is upstream's own mark, because templates name it: multi_news splits at it."""
_ESCAPED_BAR = "\\u007"
_MARKUP = frozenset("{\r")
"""What a text has where Jinja would not give it back as it is: its own tags, and ends of lines that it rewrites."""

_PURE_METHODS = frozenset().union(*METHODS.values()) - MUTATING
"""Methods that leave the value as it is that they are called on."""
_PURE_FUNCTIONS = frozenset(["range", "zip", "dict", "namespace", "joiner", "cycler"])


class Plan(NamedTuple):
    """A template compiled, with what its text says beforehand."""

    body: Template
    choices: Template | None
    fixed: tuple[str, ...] | None
    """The answer choices, where they are the same for every row."""
    distinct: tuple[str, ...] | None
    """These, each once."""
    pure: bool
    """Whether a render leaves the row as it was."""
    loops: bool
    """Whether a part of the body may be printed more than once."""


class Parts(NamedTuple):
    """What a template made of a row."""

    parts: list[str]
    choices: list[str] | None


def environment() -> CountedEnvironment:
    """Make the counted environment with every name that upstream adds to Jinja's, and no other."""
    made = promptsource_environment()
    made.globals.pop("enumerate", None)
    made.add_filter("random", _random)
    made.add_filter("highlight", _highlight)
    return made


@pass_context
def _random(context: Context, items: Any) -> Any:
    """Return one of `items`; of none, an undefined value, as Jinja does."""
    if not isinstance(items, Undefined) and len(items) == 0:
        return context.environment.undefined("No random item, sequence was empty.")
    return context.environment.filters["choice"](context, items)


def _highlight(text: str) -> str:
    return "<span style='color: #F08080'>" + text + "</span>"


# -------------------------------------------------------------------------------------------- rows


def hide_separators(value: Any) -> Any:
    """Return a JSON value whose texts hold no separator, at any depth."""
    if isinstance(value, str):
        return value.replace(SEPARATOR, HIDDEN)
    if isinstance(value, list):
        return [hide_separators(item) for item in value]
    if isinstance(value, dict):
        return {key: hide_separators(item) for key, item in value.items()}
    return value


def read_row(fields: str) -> dict[str, Any]:
    """Return a row as templates see it: decoded, its own separators hidden."""
    row: dict[str, Any] = decode(fields)
    if SEPARATOR in fields or _ESCAPED_BAR in fields:
        row = hide_separators(row)
    return row


# --------------------------------------------------------------------------------------- templates


def cut(text: str) -> list[str]:
    """Cut a rendered text at its separators: the parts, stripped, hidden separators restored."""
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return [part.replace(HIDDEN, SEPARATOR) for part in parts] if HIDDEN in text else parts


def plan(environment: CountedEnvironment, body: str, choices: str | None) -> Plan:
    """Compile a template and its answer choices.

    Raises:
        TemplateError: not Jinja, or refused by the sandbox; whatever choices that read no column raise.
    """
    tree = environment.inspected(body)
    pure, loops = is_pure(tree), _loops(tree)
    compiled = environment.compiled(tree)
    if choices is None:
        return Plan(compiled, None, None, None, pure, loops)
    if len(choices) <= MAX_SOURCE and _MARKUP.isdisjoint(choices):
        fixed = tuple(cut(choices))
        return Plan(compiled, None, fixed, tuple(dict.fromkeys(fixed)), pure, loops)
    listed, parsed = environment.from_string(choices), environment.parse(choices)
    pure = pure and is_pure(parsed)
    if meta.find_undeclared_variables(parsed) or _draws(parsed):
        return Plan(compiled, listed, None, None, pure, loops)
    environment.start(0, "", "")
    fixed = tuple(cut(listed.render()))
    return Plan(compiled, None, fixed, tuple(dict.fromkeys(fixed)), pure, loops)


def _loops(tree: nodes.Template) -> bool:
    return next(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)), None) is not None


def _draws(tree: nodes.Template) -> bool:
    return any(node.name in ("choice", "random") for node in tree.find_all(nodes.Filter))


def is_pure(tree: nodes.Template) -> bool:
    """Say whether a template calls nothing but methods and functions that leave their values as they are."""
    found = list(tree.find_all((nodes.Call, nodes.Macro, nodes.Name)))
    known = _PURE_FUNCTIONS.union(node.name for node in found if isinstance(node, nodes.Macro))
    for node in found:
        if isinstance(node, nodes.Call):
            called = node.node
            if isinstance(called, nodes.Getattr) and called.attr in _PURE_METHODS:
                continue
            if not isinstance(called, nodes.Name) or called.name not in known:
                return False
        elif isinstance(node, nodes.Name) and node.ctx != "load" and node.name in known:
            return False
    return True
