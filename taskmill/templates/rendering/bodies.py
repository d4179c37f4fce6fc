"""What is wrong with the body of a template of ours, or of the user's, before it renders anything.

Reads and writes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from jinja2 import TemplateError, TemplateSyntaxError, meta

from taskmill.errors import did_you_mean
from taskmill.templates.sandboxing.sandbox import CountedEnvironment, strict_environment

GIVEN = ("options", "listed")
"""What every body may read beside fields: the example's answer options, and whether the text lists them already."""


@functools.cache
def _environment() -> CountedEnvironment:
    return strict_environment()


def body_problem(body: str, reads: Sequence[str]) -> str | None:
    """Return what is wrong with a body that is said to read these fields, or None.

    A body is wrong when it is no Jinja, when the sandbox refuses it, when it has an output part, or when it reads other
    fields than it says.
    """
    environment = _environment()
    if "|||" in body:
        return (
            "the body has a part behind |||; it is the input alone, and the answer is the example's reference"
        )
    try:
        environment.prepare(body)
    except TemplateSyntaxError as error:
        return f"line {error.lineno} of the body: {error.message}"
    except TemplateError as error:
        return f"the body is refused: {error}"
    found = meta.find_undeclared_variables(environment.parse(body)) - set(environment.globals) - set(GIVEN)
    unsaid = sorted(found - set(reads))
    if unsaid:
        hint = did_you_mean(unsaid[0], [*reads, *GIVEN])
        return f"the body reads {', '.join(unsaid)}, which `reads` does not list{hint}"
    unused = sorted(set(reads) - found)
    return f"`reads` lists {', '.join(unused)}, which the body does not use" if unused else None
