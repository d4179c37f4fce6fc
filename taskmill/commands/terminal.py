"""Lines, tables and marked texts on stdout: coloured on a terminal, plain text elsewhere.

No text of a run can move the cursor, colour or overwrite anything: control characters are shown as signs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from taskmill.commands.figures import count, named, visible

if TYPE_CHECKING:
    from rich.text import Text

PLAIN_WIDTH = 160
"""Characters a line off the terminal; tables fold, texts do not."""


class Terminal:
    """Writes lines, tables and marked texts to stdout."""

    def __init__(self) -> None:
        """Look whether stdout is a terminal."""
        from rich.console import Console

        self.colour = sys.stdout.isatty()
        self.console = Console(
            file=sys.stdout,
            width=None if self.colour else PLAIN_WIDTH,
            markup=False,
            highlight=False,
            emoji=False,
        )

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write one line of parts, each text or (text, style)."""
        self.console.print(self.text(parts), soft_wrap=True)

    def text(self, parts: Iterable[str | tuple[str, str]]) -> Text:
        from rich.text import Text

        text = Text()
        for part in parts:
            plain, style = (part, "") if isinstance(part, str) else part
            text.append(visible(plain), style=style)
        return text

    def title(self, text: str, note: str = "") -> None:
        self.line("")
        self.line((text, "bold"), (f"  {note}" if note else "", "dim"))

    def table(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a table without lines; numbers are already text, and those columns named `>x` end on the right."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for name in names:
            table.add_column(
                self.text([name.lstrip(">")]),
                justify="right" if name.startswith(">") else "left",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(self.text([cell if isinstance(cell, str) else str(cell)]) for cell in row))
        self.console.print(table)

    def marked(self, parts: Iterable[tuple[str, bool]], indent: str = "  ", boundary: str = "") -> None:
        """Write a text in parts, those that are marked green, or in [[ ]] off the terminal."""
        shown, before = list[str | tuple[str, str]](), False
        for place, (text, mark) in enumerate(parts):
            text = text.replace("\n", "\n" + indent)
            if self.colour:
                shade = " dim" if boundary and place % 2 else ""
                shown.append((text, ("underline green" + shade) if mark else shade.strip()))
                continue
            edge = "[[" if mark and not before else "]]" if before and not mark else ""
            shown += [edge or (boundary if place else ""), text]
            before = mark
        self.line(indent, *shown, "]]" if before else "")

    def more(self, left: int, what: str) -> None:
        """Say how many are not shown: `what` is their name in the plural, and behind a semicolon how to see them."""
        if left > 0:
            name, *rest = what.split("; ")
            self.line(("; ".join([f"and {count(left)} more {named(name, left)}", *rest]), "dim"))
