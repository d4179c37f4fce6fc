"""What is valued, by which measure, and what comes of it: `Measure`, `Item`, `Valued`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskmill.recipe_evaluate import Code


@dataclass(frozen=True)
class Item:
    """The answers to one prompt, and what they are valued against."""

    samples: Sequence[str]
    """The chosen option, or the generated texts; at least one."""
    references: Sequence[str]
    options: Sequence[str] | None
    fields: dict[str, Any] | None
    """The example's fields: what `pass_at_k` and functions of one's own read."""
    example: str
    task: str
    prompt: str


OwnFunction = Callable[[str, Item], float]
"""A function of one's own as `own.open_function` wraps it: of an answer and its item, the value in [0, 1]."""


@dataclass(frozen=True)
class Measure:
    """How the answers to some prompts are valued."""

    metric: str
    """One of records.METRICS, or FILE.py:FUNCTION."""
    normaliser: str | None = None
    """What exact match and token F1 make of both sides first; by default plain, and squad for token F1."""
    extract: str = "whole"
    """Which part of a generated text is the answer."""
    pass_k: int = 1
    """The k of pass_at_k."""
    code: Code = field(default_factory=Code)
    """How programs are run, for pass_at_k."""
    function: OwnFunction | None = None
    """What FILE.py:FUNCTION names, opened."""


@dataclass(frozen=True)
class Valued:
    """What the answers to one prompt are worth."""

    answer: str
    """What was valued of the first sample."""
    value: float
    """In [0, 1]; over several samples the mean, but for pass_at_k."""
    statistics: list[float] | None = None
    """What `registry.combine` adds up over rows, for metrics of a whole corpus."""
