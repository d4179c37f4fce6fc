"""A preview of templates on the terminal: side by side where there is room, one below the other elsewhere.

Segments are coloured by kind; what carries loss is green on a terminal and stands in [[ ]] elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from taskmill.commands.figures import words
from taskmill.commands.finished import Row
from taskmill.commands.terminal import Terminal

if TYPE_CHECKING:
    from rich.padding import Padding

COLUMN = 44
"""Characters that a column needs."""
MAX_CHARACTERS = 1_500
"""Longest text shown of a field or segment."""
_STYLES = {
    "instruction": "magenta",
    "demonstration": "dim",
    "input": "",
    "output": "bold",
    "system": "magenta",
    "user": "",
    "assistant": "bold",
    "control": "yellow",
    "document": "",
}
_TRAINED = "green underline"
Part = str | tuple[str, str]


class Line(NamedTuple):
    """One line, perhaps to be folded."""

    parts: Sequence[Part]
    indent: int = 0


def print_preview(body: Row) -> None:
    """Print the records of a preview, and below each what the templates make of it."""
    terminal = Terminal()
    for example in body["examples"]:
        terminal.title(example["example"], body["format"] if body["format"] != "plain" else "")
        _print_record(terminal, example)
        renders = example["renders"]
        wide = terminal.console.width // COLUMN if terminal.colour else 1
        for start in range(0, len(renders), max(1, wide)):
            _print_row(terminal, renders[start : start + max(1, wide)])
    if not body["examples"]:
        terminal.line(f"{body['task']} has no examples")


def _print_record(terminal: Terminal, example: Row) -> None:
    for name, value in example["fields"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        first, *rest = _cut(text).split("\n")
        _print_line(terminal, Line([(name, "cyan"), "  ", first], 2))
        for line in rest:
            _print_line(terminal, Line([line], 4))
    if example["references"]:
        _print_line(
            terminal, Line([("references", "cyan"), "  ", " | ".join(map(_cut, example["references"]))], 2)
        )
    if example["options"]:
        _print_line(terminal, Line([("options", "cyan"), "  ", " | ".join(example["options"])], 2))


def _print_row(terminal: Terminal, renders: Sequence[Row]) -> None:
    """Print renders side by side, or a single one over the whole width."""
    terminal.line("")
    if len(renders) == 1:
        for line in _lines(renders[0], terminal.colour):
            _print_line(terminal, line._replace(indent=line.indent + 2))
        return
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in renders:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(Group(*(_padded(terminal, line) for line in _lines(r, True))) for r in renders))
    terminal.console.print(table)


def _print_line(terminal: Terminal, line: Line) -> None:
    """Print a line, folded between words on a terminal."""
    if terminal.colour:
        terminal.console.print(_padded(terminal, line))
    else:
        terminal.line(" " * line.indent, *line.parts)


def _padded(terminal: Terminal, line: Line) -> Padding:
    from rich.padding import Padding

    text = terminal.text(line.parts)
    text.overflow = "fold"
    return Padding(text, (0, 0, 0, line.indent), expand=False)


def _lines(render: Row, colour: bool) -> list[Line]:
    """Return the lines of one render."""
    name: list[Part] = [(render["name"], "bold")]
    if render["template"] != render["name"]:
        name.append((f"  {render['template']}", "dim"))
    lines = [Line(name)]
    if not render["keeps_task"]:
        lines.append(Line([("takes no part", "yellow"), f": {render['why'] or 'keeps_task: false'}"]))
    if render["dropped"] is not None:
        dropped = render["dropped"]
        lines.append(Line([("dropped", "red"), f"  {words(dropped['reason'])}: {dropped['detail']}"]))
    for segment in render["segments"]:
        lines += _segment(segment, colour)
    for kind in ("input", "output") if not render["segments"] and render["input"] is not None else ():
        lines += _segment({"kind": kind, "trained": False, "text": render[kind]}, colour)
    if render["options"]:
        lines.append(Line([("options", "cyan"), "  ", " | ".join(render["options"])]))
    if render["references"] and render["references"] != [render["output"]]:
        lines.append(Line([("references", "cyan"), "  ", " | ".join(map(_cut, render["references"]))]))
    lines += [Line([("note", "yellow"), f"  {words(note)}"]) for note in render["notes"]]
    return lines


def _segment(segment: Row, colour: bool) -> list[Line]:
    """Return a segment: its kind, then its text, indented."""
    trained, text = segment["trained"], _cut(segment["text"])
    shown = text.strip("\n") or text.replace("\n", "\\n")
    if trained and not colour:
        shown = f"[[{shown}]]"
    style = _STYLES.get(segment["kind"], "")
    if trained:
        style = f"{style} {_TRAINED}".strip()
    head = Line([(segment["kind"] + (", trained" if trained else ""), "cyan")])
    return [head, *(Line([(line, style if colour else "")], 2) for line in shown.split("\n"))]


def _cut(text: str) -> str:
    left = len(text) - MAX_CHARACTERS
    return text if left <= 0 else f"{text[:MAX_CHARACTERS]} ... ({left:,} more characters)"
