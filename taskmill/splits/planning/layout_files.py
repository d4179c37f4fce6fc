"""Layouts: published divisions of tasks, as data. Reads `layouts/*.yaml`, or a file that the recipe names.

A layout has a title, its source, notes on what the source leaves open or contradicts, and a plan in the form of a recipe's:

    title: Everything but ANLI
    source: the paper and section that says so
    notes: [MNLI is not mentioned.]
    plan:
      held_out: {categories: [Textual Entailment], tasks: [dataset=anli]}

The recipe's own plan adds to it: lists are joined, any other value overrides; a value that is the default counts as not given.
A catalogue rarely has every task of a published division, so what of a layout fits no task is no error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from taskmill.digests import digest
from taskmill.errors import RecipeError, did_you_mean, shorten
from taskmill.plain import build, to_json
from taskmill.recipe import Plan
from taskmill.recipe_values import find_problems
from taskmill.safe_yaml import YamlError, load_yaml
from taskmill.selectors import fitting, read_facts

FOLDER = Path(__file__).parent / "layouts"
_KEYS = ("title", "source", "notes", "plan")
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Layout:
    """A published division of tasks."""

    name: str
    title: str
    source: str
    notes: tuple[str, ...]
    """What the source contradicts itself in, leaves open, or means differently."""
    plan: Plan

    @property
    def selectors(self) -> frozenset[str]:
        """Every selector and category that the layout names."""
        return frozenset(_texts(self.plan))

    @property
    def digest(self) -> str:
        """Of what it says about tasks; a better title changes no run."""
        return digest(to_json(self.plan))


def shipped() -> dict[str, Path]:
    """Return the layouts that come with the package, by name."""
    return {
        path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))
    }


def find_layout(name: str | None, path_of: Callable[[str], Path] = Path) -> Layout | None:
    """Load the layout that a plan names, shipped or a file; None for None.

    Args:
        name: of a shipped layout, or the path of a file.
        path_of: makes a path of the recipe absolute.

    Raises:
        RecipeError: there is none of this name, or the file has problems, all of them listed.
    """
    if name is None:
        return None
    known = shipped()
    path = known.get(name, path_of(name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        hint = did_you_mean(name, known)
        raise RecipeError(
            [
                f"plan.layout: found {shorten(name)}{hint}; expected a shipped layout (`taskmill recipes layouts` lists "
                f"them) or a YAML file in UTF-8, relative to the recipe: {error}"
            ]
        ) from error
    return parse_layout(text, name if name in known else path.name, str(path))


def parse_layout(text: str, name: str, label: str) -> Layout:
    """Return the layout that a YAML text describes; `label` begins every problem.

    Raises:
        RecipeError: all problems of the text.
    """
    try:
        raw = load_yaml(text)
    except YamlError as error:
        raise RecipeError([f"{label}: not valid YAML: {error}"]) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("plan"), dict):
        keys = ", ".join(_KEYS)
        raise RecipeError(
            [f"{label}: found {shorten(raw)}; expected a mapping with {keys}, `plan` a mapping"]
        )
    problems = [*_unknown_keys(raw), *_unknown_settings(Plan, raw["plan"], "plan")]
    problems += [
        f"{'.'.join(map(str, where))}: {what}" for where, what in find_problems({"plan": raw["plan"]})
    ]
    if "layout" in raw["plan"]:
        problems.append("plan.layout: a layout has no layout of its own; expected its keys here")
    if not problems:
        try:
            notes = build(tuple[str, ...], raw.get("notes", []), "notes")
            title, source = (build(str, raw.get(key, ""), key) for key in ("title", "source"))
            return Layout(name, title, source, notes, build(Plan, raw["plan"], "plan"))
        except (TypeError, AttributeError) as error:
            problems.append(str(error))
    raise RecipeError([f"{label}: {problem}" for problem in problems])


def _unknown_keys(raw: Mapping[Any, Any]) -> list[str]:
    return [
        f"unknown key {shorten(key)}{did_you_mean(str(key), _KEYS)}; expected {', '.join(_KEYS)}"
        for key in raw
        if key not in _KEYS
    ]


def _unknown_settings(kind: type, raw: Mapping[Any, Any], where: str) -> Iterator[str]:
    """Yield a line for each key below `where` that a recipe's plan does not have."""
    default: Any = kind()
    names = [item.name for item in dataclasses.fields(default)]
    for key, value in raw.items():
        if key not in names:
            yield f"{where}: unknown key {shorten(key)}{did_you_mean(str(key), names)}; expected {', '.join(names)}"
        elif dataclasses.is_dataclass(part := getattr(default, key)) and isinstance(value, Mapping):
            yield from _unknown_settings(type(part), value, f"{where}.{key}")


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in the lists of a plan, and the names of its own categories."""
    if dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from _texts(getattr(value, item.name))
    elif isinstance(value, tuple):
        yield from value
    elif isinstance(value, dict):
        for name, selectors in value.items():
            yield from (name, *selectors)


# --------------------------------------------------------------------------------------------- joining


def join_plans(plan: Plan, layout: Layout | None) -> Plan:
    """Return a recipe's plan added to its layout: lists joined, other values overriding where they are not the default."""
    return plan if layout is None else _joined(layout.plan, plan, Plan())


def _joined(below: _Part, above: _Part, default: Any) -> _Part:
    values = {
        item.name: _joined_value(*(getattr(part, item.name) for part in (below, above, default)))
        for item in dataclasses.fields(default)
    }
    joined: _Part = dataclasses.replace(default, **values)
    return joined


def _joined_value(below: Any, above: Any, default: Any) -> Any:
    if dataclasses.is_dataclass(default):
        return _joined(below, above, default)
    if isinstance(default, dict):
        return {key: _joined_value(below.get(key, ()), above.get(key, ()), ()) for key in {**below, **above}}
    if above == default:
        return below
    if isinstance(default, tuple) and below != default:
        return tuple(dict.fromkeys([*below, *above]))
    return above


def without_tasks(layout: Layout, tasks: pa.Table) -> list[str]:
    """Return the selectors and categories of a layout that fit no task of a catalogue, sorted.

    Args:
        layout: what is looked for.
        tasks: the task table, with `selectors.TASK_COLUMNS`.
    """
    facts = read_facts(tasks)
    there = {*layout.plan.categories, *(name for row in facts.values() for name in row["category"])}
    return sorted(name for name in layout.selectors - there if not fitting(facts, name))
