"""Text of other people in Markdown, as the text that it is: names, reasons and ids may hold anything.

    >>> plain("a|b <script>"), code("bench/task_1"), code("a`|b")
    ('a&#124;b &#60;script&#62;', '`bench/task_1`', '<code>a&#96;&#124;b</code>')

What could mean something to Markdown, HTML or a table is written as a character reference, which never does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 300
"""Characters of a text that are shown."""

_HARMLESS = re.compile(r"[A-Za-z0-9_./+=, -]+")
"""What a span of code may hold as it is."""
_MEANING = re.compile(
    r"[&<>|`*\[\]{}#~$\\@]"  # references, HTML, cells, code, emphasis, links, headings, formulas, addresses
    r"|(?<![^\W_])_|_(?![^\W_])|!(?=\[)|:(?=//)|(?<=www)\."
    r"|^[-+=:]|(?<=^\d)[.)](?=\s|$)",
    re.IGNORECASE,
)


def plain(value: object) -> str:
    """Return any value as one line of plain text."""
    return _MEANING.sub(lambda found: "".join(f"&#{ord(char)};" for char in found[0]), line(value))


def code(value: object) -> str:
    """Return an id, a path or a digest as code."""
    text = line(value)
    if not text:
        return ""
    if _HARMLESS.fullmatch(text):
        return f"`{text}`"
    return f"<code>{plain(text)}</code>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells went through `plain` or `code`, or are numbers."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def line(value: object) -> str:
    """Return a value on one line, without characters that nobody sees, cut to LONGEST."""
    seen = (" " if unicodedata.category(char)[0] in "CZ" else char for char in str(value))
    text = " ".join("".join(seen).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "\u2026"
