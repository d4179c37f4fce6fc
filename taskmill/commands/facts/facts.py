"""`taskmill facts`: the figures that the papers publish, beside ours, which the package's own code computes.

Reads `published.yaml` (name, source, published value, tolerance, explanation) and, with `--data`, upstream files. A
computed value is never written down anywhere: each comes out of the functions that the stages use.

>>> show(None, as_json=False)                                # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from taskmill.commands.facts import adapters, catalogue, mixtures, prompts, schedules, upstream
from taskmill.commands.figures import counted
from taskmill.commands.terminal import Terminal
from taskmill.errors import MissingPackageError, UsageError
from taskmill.safe_yaml import load_yaml

PUBLISHED = Path(__file__).with_name("published.yaml")
Row = dict[str, Any]
Values = Mapping[str, Any]
_NO_DATA = "upstream's files below the folder that --data names"


@dataclass(frozen=True)
class Fact:
    """A published figure and ours."""

    key: str
    name: str
    source: str
    published: Any
    computed: Any
    tolerance: float
    explained: str | None
    needs: str | None
    """What has to be there to compute it and is not."""

    @property
    def holds(self) -> bool | None:
        """Whether ours is the published value, within what its digits leave open; None where ours is not computed."""
        return None if self.computed is None else agrees(self.published, self.computed, self.tolerance)

    @property
    def is_wrong(self) -> bool:
        """Whether it is off without an explanation."""
        return self.holds is False and not self.explained

    def to_json(self) -> Row:
        """Return the row of `--json`."""
        names = ("key", "name", "source", "published", "computed", "holds", "explained", "needs")
        return {name: getattr(self, name) for name in names}


def agrees(published: Any, computed: Any, tolerance: float = 0.0) -> bool:
    """Return whether two values are equal, numbers in them to within `tolerance`."""
    if _is_number(published) and _is_number(computed):
        return bool(abs(published - computed) <= tolerance * (1 + 1e-9))
    if isinstance(published, list) and isinstance(computed, list):
        pairs = zip(published, computed)
        return len(published) == len(computed) and all(agrees(a, b, tolerance) for a, b in pairs)
    if isinstance(published, dict) and isinstance(computed, dict):
        return published.keys() == computed.keys() and all(
            agrees(value, computed[name], tolerance) for name, value in published.items()
        )
    return bool(published == computed)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# -------------------------------------------------------------------------------------------- computing


def facts(data: Path | None = None) -> list[Fact]:
    """Return every figure of the papers that this package can compute, in the order of `published.yaml`.

    Args:
        data: folder of upstream files, laid out as the recipes say; None leaves out what needs them.

    Raises:
        UsageError: `data` is no folder.
        DataError: an upstream file that cannot be read.
    """
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; expected one of upstream files")
    rows = load_yaml(PUBLISHED.read_text(encoding="utf-8"))
    computed, needs = _computed(data)
    assert {row["key"] for row in rows} == computed.keys(), {row["key"] for row in rows} ^ computed.keys()
    return [
        Fact(
            row["key"],
            row["name"],
            row["source"],
            row["published"],
            computed[row["key"]],
            row.get("tolerance", 0.0),
            row.get("explained"),
            needs.get(row["key"]),
        )
        for row in rows
    ]


def _computed(data: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return key -> value, None where something is absent, and key -> what that is."""
    needs: dict[str, str] = {}
    computed: dict[str, Any] = {
        **catalogue.compute(),
        **prompts.compute(),
        **mixtures.compute(),
        **schedules.compute(),
    }
    try:
        computed |= adapters.compute()
    except MissingPackageError as error:
        computed |= dict.fromkeys(adapters.KEYS)
        needs |= dict.fromkeys(adapters.KEYS, str(error))
    found: Values = dict.fromkeys(upstream.NEEDS) if data is None else upstream.compute(data)
    needs |= {key: upstream.NEEDS[key] for key, value in found.items() if value is None}
    return computed | dict(found), needs


# ---------------------------------------------------------------------------------------------- showing


def show(data: Path | None, as_json: bool) -> bool:
    """Print the figures, grouped by paper; return whether one is off without an explanation.

    Args:
        data: folder of upstream files; None without.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError, DataError: see `facts`.
    """
    found = facts(data)
    if as_json:
        click.echo(json.dumps({"facts": [fact.to_json() for fact in found]}, sort_keys=True))
    else:
        _show(found)
    return any(fact.is_wrong for fact in found)


def _show(found: list[Fact]) -> None:
    terminal = Terminal()
    for paper in dict.fromkeys(_paper(fact) for fact in found):
        terminal.title(paper)
        mine = [fact for fact in found if _paper(fact) == paper]
        names = ("figure", "where", ">published", ">computed", "")
        terminal.table(names, (_cells(fact) for fact in mine))
    _list("off, and explained", terminal, (f for f in found if f.holds is False and f.explained))
    _list("OFF, AND NOT EXPLAINED", terminal, (f for f in found if f.is_wrong))
    absent = [fact for fact in found if fact.computed is None]
    if absent:
        terminal.title("not computed", "--data PATH names a folder of upstream files")
        for needed in dict.fromkeys(fact.needs or _NO_DATA for fact in absent):
            names_of = ", ".join(f.name for f in absent if (f.needs or _NO_DATA) == needed)
            terminal.line(f"{needed}: {names_of}")
    terminal.line("")
    off = [fact for fact in found if fact.holds is False]
    num_computed = len(found) - len(absent)
    terminal.line(
        f"{counted(num_computed, 'figures')} computed, {num_computed - len(off)} as published, {len(off)} off"
        f" ({sum(not fact.is_wrong for fact in off)} of them explained), {len(absent)} not computed"
    )


def _list(title: str, terminal: Terminal, found: Iterable[Fact]) -> None:
    listed = list(found)
    if listed:
        terminal.title(title)
        for fact in listed:
            terminal.line(f"{fact.name}: {fact.explained or shown(fact.computed)}")


def _cells(fact: Fact) -> tuple[str, ...]:
    mark = {True: "", False: "off", None: "not computed"}[fact.holds]
    where = fact.source.partition(", ")[2]
    return (fact.name, where, shown(fact.published), shown(fact.computed), mark)


def _paper(fact: Fact) -> str:
    return fact.source.partition(", ")[0]


def shown(value: Any, most: int = 48) -> str:
    """Return a value as a table cell shows it: numbers in full, long texts and lists cut."""
    if value is None:
        return "\u2013"
    if isinstance(value, dict):
        text = ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    elif isinstance(value, list):
        text = " / ".join(shown(item) for item in value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    else:
        text = str(value).replace("\n", "\u23ce")
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"
