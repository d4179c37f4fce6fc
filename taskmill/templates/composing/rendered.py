"""What composing starts from: the text that a template made of an example, or why it made none."""

from __future__ import annotations

from typing import NamedTuple


class Rendered(NamedTuple):
    """What a template made of one example."""

    instruction: str
    source: str
    target: str
    references: tuple[str, ...]
    options: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    """Names of counters to raise when this becomes a prompt."""
    example_kind: str = ""
    """`positive` or `negative` where upstream names it as such an example of its task; negative shows a wrong output."""
    explanation: str = ""
    """Why the output is right or wrong, where upstream says so."""
    whole: str = ""
    """Instruction and input in the wording of an instruction set: what a prompt without demonstrations is (TÜLU)."""


class Drop(NamedTuple):
    """Why an example gave no prompt."""

    reason: str
    detail: str = ""


class Wording(NamedTuple):
    """What is drawn anew for each prompt."""

    delimiter: str
    lead: str = ""
    """Stands before the instruction."""
    prefix: str = ""
    """Stands before the input."""
