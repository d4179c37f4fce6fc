"""Fill in the tables of figures on the pages of this folder from what `taskmill facts` computes. `--check` compares instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskmill.commands.facts.facts import Fact, facts, shown

HERE = Path(__file__).resolve().parent
TABLE = re.compile(r"(<!-- facts: (?P<paper>[^>]+) -->\n).*?(?=<!-- end of facts -->)", re.DOTALL)
WIDTH = 72


def filled(page: str, found: Sequence[Fact]) -> str:
    """Return a page with each of its marked tables as the facts say."""
    return TABLE.sub(lambda match: match[1] + table(match["paper"], found), page)


def table(paper: str, found: Sequence[Fact]) -> str:
    """Return the figures of a paper as a table, and behind it why some are off."""
    mine = [fact for fact in found if fact.source.startswith(f"{paper}, ")]
    lines = ["| figure | where | published | ours |", "| --- | --- | --- | --- |"]
    for fact in mine:
        where = fact.source.removeprefix(f"{paper}, ")
        ours = f"needs {cell(fact.needs)}" if fact.computed is None else quoted(fact.computed)
        if fact.holds is False:
            ours += " (off)"
        lines.append(f"| {cell(fact.name)} | {cell(where)} | {quoted(fact.published)} | {ours} |")
    off = [fact for fact in mine if fact.holds is False]
    if off:
        lines += ["", "What is off, and why:", ""]
        lines += [f"- **{cell(fact.name)}**: {fact.explained}" for fact in off]
    return "\n".join(lines) + "\n\n"


def quoted(value: Any) -> str:
    """Return a value as it stands in a cell: numbers plain, texts as code."""
    text = cell(shown(value, WIDTH))
    return f"`{text}`" if isinstance(value, str) else text


def cell(value: Any) -> str:
    """Return a text that ends no cell and marks nothing up."""
    return str(value).replace("|", "\\|").replace("*", "\\*")


def main() -> int:
    """Write or check the pages; returns the exit code."""
    found, stale = facts(), []
    for path in sorted(HERE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if "--check" in sys.argv[1:]:
            stale += [path.name] if filled(text, found) != text else []
        else:
            path.write_text(filled(text, found), encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `python docs/recipes/tables.py`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
