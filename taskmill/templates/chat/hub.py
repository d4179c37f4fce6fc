"""A tokenizer's own chat template, rendered in the sandbox.

Reads and writes nothing. As in transformers there are `raise_exception`, `tojson`, loop controls, `{% generation %}` and
the special tokens' texts; `strftime_now` is not there: a prompt does not change with the day.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from taskmill.templates.sandboxing.sandbox import CountedEnvironment, StrictEnvironment

BEGIN, END = "\ue0f0", "\ue0f1"
"""Stand around what `{% generation %}` encloses."""
_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Message = dict[str, str]


class TemplateRefusedError(Exception):
    """A conversation that a template raises an error on."""


@dataclass(frozen=True)
class HubTemplate:
    """A chat template and the special tokens of its tokenizer."""

    label: str
    """The file, for messages."""
    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    """bos_token, eos_token .. -> its text."""
    special: tuple[str, ...] | None = None
    """All special tokens; None where no file names them: then all that looks like `<|one|>` is one."""
    digest: str = ""
    """sha256 (hex) of the files read."""

    def __hash__(self) -> int:
        """Hash by the files' content."""
        return hash((self.source, self.digest))

    def render(self, messages: Sequence[Message], generate: bool = False) -> str:
        """Render messages.

        Raises:
            TemplateRefusedError: the template raises an error or goes too far.
        """
        environment = _environment()
        try:
            template = environment.prepare(self.source)
            environment.start(0, "a conversation", self.label)
            return template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=generate,
                **self.tokens,
            )
        except _ERRORS as error:
            raise TemplateRefusedError(_explained(error)) from error

    def symbol(self, text: str) -> str:
        """Return the control segment of a special token: `{bos}`, `{eos}` or its own text."""
        found = {self.tokens.get("bos_token"): "{bos}", self.tokens.get("eos_token"): "{eos}"}
        return found.get(text, text)

    def written(self, control: str) -> str:
        """Return the text of a control segment."""
        names = {"{bos}": "bos_token", "{eos}": "eos_token"}
        return self.tokens[names[control]] if control in names else control


class _Generation(Extension):
    """Reads `{% generation %} .. {% endgeneration %}` and marks its text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's body between the two marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.TemplateData(mark)]).set_lineno(line) for mark in (BEGIN, END))
        return [begin, *body, end]


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@functools.cache
def _environment() -> CountedEnvironment:
    """Make the environment of chat templates: undefined names render empty, values are immutable."""
    environment = StrictEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.add_filter("tojson", _to_json)
    return environment


def _explained(error: BaseException) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}").replace("\n", " ")[:300]
    if "strftime_now" in text:
        text += " (a template may not read the date: write a fixed one into a copy of it)"
    return text
