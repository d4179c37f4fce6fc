"""What one template may be and what one render of it may do: numbers, and the budget that counts them.

Every limit counts something that depends on template and row alone, so that a template which goes too far does so
on every machine. Reads nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateRuntimeError
from jinja2.exceptions import SecurityError

MAX_SOURCE = 100_000
"""Longest template, in characters."""
MAX_BRACKETS = 24
"""Brackets within one another."""
MAX_SIGNS = 8
"""Signs (`-`, `+`, `not`) in a row."""
MAX_BRANCHES = 40
"""`else` within one expression."""
MAX_ELIFS = 200
"""`elif` of one block."""
MAX_BLOCKS = 24
"""Blocks (`{% if %}`, `{% for %}` ...) within one another."""
MAX_LOOPS = 8
"""Loops within one another."""
MAX_LEVELS = 80
"""Levels of a template's syntax tree."""
MAX_STEPS = 100_000
"""Loop iterations, macro calls, method calls and filter calls of one render; items of a range."""
MAX_BUILT = 20_000_000
"""Characters built on the way in one render."""
ITEM_SIZE = 20
"""Characters that an item of a list counts for."""
MAX_REPEATED = 100_000
"""Characters or items of a constant that is repeated by a constant."""
MAX_WIDTH = 10_000
"""Widest padding, indentation, batch or number format."""
MAX_INDENT = 16
"""Widest indentation of JSON."""
MAX_EXPONENT = 1_000
MAX_BITS = 20_000
"""Size of a whole number that a template computes; about 6,000 digits."""
MAX_CALLS = 20
"""Macros and recursive loops within one another."""


class OverBudgetError(TemplateRuntimeError):
    """A template that runs too long or builds too much."""


class TooLongError(OverBudgetError):
    """A template whose text is longer than render.max_characters."""


class UnsafeTemplateError(SecurityError):
    """A template that reaches for what lies outside of it."""


class Budget:
    """What one render may still do, and where its draws stand."""

    __slots__ = ("built", "chance", "deep", "draws", "steps")

    def __init__(self) -> None:
        """Start with the full allowance."""
        self.start(0, "", "")

    def start(self, seed: int, example: str, template: str) -> None:
        """Renew the allowance for a render of `template` on `example`."""
        self.steps, self.built, self.deep = MAX_STEPS, MAX_BUILT, 0
        self.draws, self.chance = 0, (seed, example, template)

    def step(self) -> None:
        """Count one step."""
        self.steps -= 1
        if self.steps < 0:
            raise OverBudgetError(f"more than {MAX_STEPS} steps")

    def build(self, size: int) -> None:
        """Count `size` characters or items."""
        if size > 0:
            self.built -= size
            if self.built < 0:
                raise OverBudgetError(f"more than {MAX_BUILT} characters built")

    def shallow(self, value: Any) -> None:
        """Count a text or list without what its items hold."""
        if isinstance(value, (str, bytes)):
            self.build(len(value))
        elif isinstance(value, (list, tuple, dict, range)):
            self.build(ITEM_SIZE * len(value))

    def measure(self, value: Any) -> None:
        """Count all that `value` would be as text."""
        if value.__class__ is str:
            self.build(len(value))
            return
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, (str, bytes)):
                self.build(len(item))
            elif isinstance(item, dict):
                self.build(2 * ITEM_SIZE * len(item))
                pending += item.keys()
                pending += item.values()
            elif isinstance(item, (list, tuple, set, frozenset)):
                self.build(ITEM_SIZE * len(item))
                pending += item
            elif isinstance(item, int):
                self.build(item.bit_length() // 3)

    def measure_all(self, values: Iterable[Any]) -> None:
        """Count what all of `values` would be as text."""
        for value in values:
            self.measure(value)
