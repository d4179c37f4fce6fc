"""Which part of a generated text is the answer: `EXTRACTIONS`, from name to function; none of them raises.

>>> last_number("So she pays 3 x $350 = $1,050.00 in all.")
'1050.00'
>>> letter("The answer is (c).")
'C'
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PHRASE = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s+(?:option|choice))\s+is\b|\banswer\s*:|####", re.IGNORECASE
)
_AROUND = " \t*_:,"
_NUMBER = re.compile(
    r"(?:(?:(?<![\w)\]}.,%])[-+\u2212])?\s?[$\u00a3\u20ac\u00a5\u20b9]\s?[-\u2212]?|(?<![\w)\]}.,%])[-+\u2212])?"
    r"(?:(?<![\d/])\d+/[1-9]\d*(?![\d/])|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
)
_NOT_OF_A_NUMBER = re.compile(r"[^-\d./]")
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_LETTER = re.compile(
    r"(?:(?:option|choice)\s+)?([A-Z])(?=\s*(?:$|[\n).:,;\]])|\s+(?:because|since|as)\b)", re.IGNORECASE
)
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_DEFINES = re.compile(r"^[ \t]*(?:async\s+)?(?:def|class)\s", re.MULTILINE)
_TOP = re.compile(
    r"(?:(?:async\s+)?def|class|import|from|if|for|while|try|except|else|elif|finally|with)\b|[@#)\]}]"
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\s*(?::[^=]+)?=(?!=)")


def whole(text: str) -> str:
    """Return all of the text, outer spaces aside."""
    return text.strip()


def first_line(text: str) -> str:
    """Return the first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def after_answer(text: str) -> str:
    """Return the rest of the line after the last `The answer is`, or all of the text where nothing announces an answer.

    `Answer:`, `The correct option is` and the `####` of GSM8K announce one too, in either case of letters. Where the line
    ends there, the next one that is not blank counts; a colon, a comma and asterisks around the answer are dropped, and one
    final full stop.
    """
    *_, last = [None, *_PHRASE.finditer(text)]
    return _bare(text if last is None else first_line(text[last.end() :].lstrip(_AROUND)))


def last_number(text: str) -> str:
    """Return the last number without its thousands commas, currency sign and percent sign, or the empty string.

    Signs, decimals and fractions such as 3/4 are kept; a hyphen between numbers or words is not a sign.
    """
    found = [match.group() for match in _NUMBER.finditer(text)]
    return _NOT_OF_A_NUMBER.sub("", found[-1].replace("\u2212", "-")) if found else ""


def letter(text: str) -> str:
    """Return the letter, in upper case, that begins the answer as (A), A., A) or A alone; all of it where none does.

    The answer is what `after_answer` finds. A letter that begins a sentence, as in `A dog`, is none.
    """
    for part in (after_answer(text), whole(text)):
        start = part.lstrip(_AROUND)
        match = _BRACKETED.match(start) or _LETTER.match(start)
        if match:
            return match.group(1).upper()
    return after_answer(text)


def code(text: str) -> str:
    """Return the program in the text: the last fenced block, or what stands before the first line that leaves it.

    Blocks that define a function or class come before those that do not. Without a fence, a text that begins a program
    (def, class, import, from, @) ends at the first line at the margin that is no such thing; any other continues a
    function, and ends at the first line at the margin but the first.
    """
    blocks = [match.group(1) for match in _FENCE.finditer(text)]
    if blocks:
        return ([block for block in blocks if _DEFINES.search(block)] or blocks)[-1].strip("\n").rstrip()
    lines = text.strip("\n").rstrip().splitlines()
    if not lines:
        return ""
    begins = begins_program(lines[0])
    end = next((i for i, line in enumerate(lines) if i and _leaves(line, begins)), len(lines))
    return "\n".join(lines[:end]).rstrip()


def begins_program(line: str) -> bool:
    """Return whether a line at the margin begins a program rather than the body of a function."""
    return re.match(r"(?:(?:async\s+)?def|class|import|from)\s|@", line) is not None


def _leaves(line: str, begins: bool) -> bool:
    if not line.strip() or line[0] in " \t":
        return False
    return not (begins and (_TOP.match(line) or _ASSIGNMENT.match(line)))


def _bare(text: str) -> str:
    """Return the text without outer spaces, emphasis around it and one final full stop."""
    bare = text.strip().strip("*").strip()
    return bare.removesuffix(".").rstrip().strip("*").strip()


EXTRACTIONS: dict[str, Callable[[str], str]] = {
    "whole": whole,
    "first_line": first_line,
    "after_answer": after_answer,
    "last_number": last_number,
    "letter": letter,
    "code": code,
}
