"""Tables of scores as CSV and Markdown that nobody's names can break out of. Reads and writes nothing.

Names of tasks, templates and categories come from upstream: a spreadsheet must not run them as formulas, nor a reader of
Markdown take them for marks, links or HTML.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taskmill.commands.figures import decimal, visible
from taskmill.records import LEVELS

DASH = "\u2013"
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the beginning of a formula, full-width forms included."""
_MARKS = re.compile(r"[\\`*_{}\[\]<>#!|~&$@:]|(?<=www)\.")


def by_level(row: Mapping[str, Any]) -> tuple[int, str, int]:
    """Return what sorts scores of levels and their parts: held_out first and `all` last, then by name and shots."""
    level, _, rest = row["name"].partition("/")
    return (LEVELS.index(level) if level in LEVELS else len(LEVELS), rest, row["shots"])


def csv_bytes(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return rows as CSV (RFC 4180) with a header; null is empty, a text that looks like a formula begins with '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(row[name]) for name in columns])
    return out.getvalue().encode("utf-8", "replace")


def guarded(cell: Any) -> Any:
    """Return a cell; a text that a spreadsheet would run begins with ', numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts that are Markdown already; columns named `>x` end on the right."""
    lines = ["| " + " | ".join(name.lstrip(">") for name in head) + " |"]
    lines.append("|" + "".join("---:|" if name.startswith(">") else "---|" for name in head))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Return a text as Markdown that shows it as it is, in one line."""
    return _MARKS.sub(r"\\\g<0>", visible(" ".join(text.split()))) or DASH


def code(text: str) -> str:
    """Return a name as a span of Markdown code, in one line and safe in a table."""
    plain = visible(" ".join(text.split())) or " "
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    if longest or plain[0] == "`" or "|" in plain or plain.endswith("\\"):
        return escaped(plain)
    return f"`{plain}`"


def points(value: float | None) -> str:
    """Return a score of [0, 1] in points of 100: 45.3, a dash for none."""
    return DASH if value is None else decimal(100 * value, 1)


def bounds(low: float | None, high: float | None) -> str:
    """Return an interval of scores: 41.0 to 49.7."""
    return DASH if low is None or high is None else f"{points(low)} to {points(high)}"
