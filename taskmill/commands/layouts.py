"""Layouts for people: `taskmill recipes layouts`. Reads the shipped layouts, or a file.

show(None, as_json=False)
show("opt-iml", as_json=False)
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import Any

import click
import yaml

from taskmill.errors import RecipeError, UsageError
from taskmill.plain import to_json
from taskmill.recipe import Plan
from taskmill.splits.planning.layout_files import Layout, find_layout, shipped

_WIDTH = 110


def show(name: str | None, as_json: bool) -> None:
    """Print the names and titles of all shipped layouts, or title, source, notes and plan of one.

    Args:
        name: of a shipped layout, or a file of the same form.
        as_json: print JSON.

    Raises:
        UsageError: there is no such layout.
        RecipeError: the file has problems.
    """
    layouts = [_find(name) for name in ([name] if name else shipped())]
    if as_json:
        found = [_content(layout) for layout in layouts]
        click.echo(json.dumps(found[0] if name else found, sort_keys=True))
    elif name:
        click.echo(_page(layouts[0]))
    else:
        width = max(len(layout.name) for layout in layouts)
        for layout in layouts:
            click.echo(f"{layout.name:<{width}}  {layout.title}")


def _find(name: str) -> Layout:
    try:
        layout = find_layout(name)
    except RecipeError as error:
        if error.problems[0].startswith("plan.layout"):
            raise UsageError(error.problems[0].replace("plan.layout", "layout", 1)) from error
        raise
    assert layout is not None
    return layout


def _content(layout: Layout) -> dict[str, Any]:
    return {
        "name": layout.name,
        "title": layout.title,
        "source": layout.source,
        "notes": list(layout.notes),
        "plan": _given(layout.plan, Plan()),
    }


def _given(part: Any, default: Any) -> dict[str, Any]:
    """Return what a layout says, without the values that are the defaults."""
    found = {}
    for item in dataclasses.fields(part):
        value, usual = getattr(part, item.name), getattr(default, item.name)
        if value != usual:
            found[item.name] = _given(value, usual) if dataclasses.is_dataclass(value) else to_json(value)
    return found


def _page(layout: Layout) -> str:
    lines = [layout.title, "", *textwrap.wrap(f"Source: {layout.source}", _WIDTH), ""]
    for note in layout.notes:
        lines += textwrap.wrap(note, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    plan = yaml.safe_dump({"plan": _given(layout.plan, Plan())}, sort_keys=False, width=_WIDTH)
    return "\n".join([*lines, "", plan.rstrip()])
