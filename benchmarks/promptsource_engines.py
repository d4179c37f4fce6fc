"""The engines that `promptsource_fidelity.py` compares: PromptSource's own, loaded from a clone, and plain Jinja.

Both answer `apply(template, row)` with the parts of the rendered text and the answer choices, or raise what the template
raises. PromptSource's code is loaded by path, never copied: `promptsource/templates.py` of the clone. It asks setuptools for
the folder of its templates and pandas for its tables; a stand-in answers the first, and the second where it is missing.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jinja2

from taskmill import seeding
from taskmill.templates.rendering.upstream import HIDDEN

Row = dict[str, Any]
Outcome = tuple[list[str], list[str] | None]
PURPOSE = "templates/choice"


class Template(NamedTuple):
    """One template of a collection, as its file states it."""

    dataset: str
    identity: str
    row: Row
    """As a row of tasks/templates."""


def load_promptsource(clone: Path) -> ModuleType:
    """Load `promptsource/templates.py` of a clone.

    Raises SystemExit where there is none.
    """
    path = clone / "promptsource" / "templates.py"
    if not path.is_file():
        raise SystemExit(
            f"{path} is not there; --promptsource is a clone of bigscience-workshop/promptsource"
        )
    resources = ModuleType("pkg_resources")
    resources.resource_filename = lambda package, name: str(path.parent / name)  # type: ignore[attr-defined]
    stand_ins = {"pkg_resources": resources}
    if importlib.util.find_spec("pandas") is None:
        stand_ins["pandas"] = ModuleType("pandas")
        stand_ins["pandas"].DataFrame = object  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    spec = importlib.util.spec_from_file_location("promptsource_templates", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, held in before.items():
            sys.modules.pop(name)
            if held is not None:
                sys.modules[name] = held
    return module


class PromptSource:
    """PromptSource's engine: `apply`, which compiles a template for every row."""

    name = "promptsource"

    def __init__(self, clone: Path) -> None:
        self.module = load_promptsource(clone)
        # Jinja computes a filter over constants while it compiles. A filter that asks for the context is not, so that
        # draws happen in the order of the render, as ours do.
        self.module.env.filters["choice"] = jinja2.pass_context(lambda _, items: random.choice(items))
        self._made: dict[str, Any] = {}

    def template(self, template: Template) -> Any:
        """Return upstream's own object for a template."""
        made = self._made.get(template.identity)
        if made is None:
            body, choices = template.row["body"], template.row["choices"]
            made = self.module.Template(template.row["name"], body, "", answer_choices=choices)
            self._made[template.identity] = made
        return made

    def apply(self, template: Template, row: Row, truncate: bool = False) -> Outcome:
        """Render a row, which the template may change."""
        made = self.template(template)
        seen: list[list[str] | None] = []
        render = type(made).get_answer_choices_list

        def listed(example: Row) -> list[str] | None:
            found = render(made, example)
            seen.append(None if found is None else list(found))
            return found

        made.get_answer_choices_list = listed
        return made.apply(row, truncate=truncate), seen[0]


class Plain:
    """The rules that PromptSource documents, on a bare Jinja environment: where no clone is at hand."""

    name = "plain Jinja"

    def __init__(self) -> None:
        self.environment = jinja2.Environment()
        self.environment.globals.update(zip=zip)
        self.environment.filters["choice"] = jinja2.pass_context(lambda _, items: random.choice(items))
        self.environment.filters["most_frequent"] = statistics.multimode

    def apply(self, template: Template, row: Row, truncate: bool = False) -> Outcome:
        """Render a row, which the template may change."""
        body, choices, listed = template.row["body"], template.row["choices"], None
        seen = {
            key: value.replace("|||", HIDDEN) if isinstance(value, str) else value
            for key, value in row.items()
        }
        if choices is not None:
            listed = self._parts(choices, seen)
        return self._parts(truncated(body) if truncate else body, {**seen, "answer_choices": listed}), listed

    def compiled(self, source: str | None) -> Any:
        """Return a function from a row to the parts of a template, compiled now; None for no template."""
        if source is None:
            return None
        template = self.environment.from_string(source)
        return lambda values: [part.strip() for part in template.render(values).split("|||")]

    def _parts(self, source: str, values: Row) -> list[str]:
        text = self.environment.from_string(source).render(**values)
        return [part.replace(HIDDEN, "|||").strip() for part in text.split("|||")]


def truncated(body: str) -> str:
    """Return a body whose expressions are cut to 2,048 characters, as PromptSource's `apply` does unless told otherwise."""
    return body.replace("}}", " | string | truncate(2048) }}")


@contextmanager
def recorded_draws() -> Iterator[list[float]]:
    """Collect what our engine draws."""
    drawn: list[float] = []
    uniform = seeding.uniform

    def record(seed: int, purpose: str, *ids: object) -> float:
        value = uniform(seed, purpose, *ids)
        if purpose == PURPOSE:
            drawn.append(value)
        return value

    seeding.uniform = record
    try:
        yield drawn
    finally:
        seeding.uniform = uniform


@contextmanager
def repeated_draws(drawn: Sequence[float]) -> Iterator[None]:
    """Let `random.choice` take the indices that were drawn before, in order; the first item once they are used up."""
    waiting = iter(drawn)
    choice: Callable[[Sequence[Any]], Any] = random.choice

    def repeat(items: Sequence[Any]) -> Any:
        if not len(items):
            raise IndexError("Cannot choose from an empty sequence")
        return items[int(next(waiting, 0.0) * len(items))]

    random.choice = repeat  # type: ignore[assignment]
    try:
        yield
    finally:
        random.choice = choice  # type: ignore[assignment]
