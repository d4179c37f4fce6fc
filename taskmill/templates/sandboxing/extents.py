"""How large a constant expression is, without computing it. Reads nothing and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import nodes

_SAME_WORDS = """
    abs capitalize int list lower reverse round sort string trim upper
"""
_SAME = frozenset(_SAME_WORDS.split())
_WIDENING = frozenset(["center", "ljust", "rjust", "zfill"])


class Extent(NamedTuple):
    """A number's absolute value, or the length of a text or list."""

    is_number: bool
    size: float


def extent(node: nodes.Node) -> Extent | None:
    """Return the extent of a constant expression, an upper bound; None where it depends on the row."""
    if isinstance(node, nodes.Const):
        return _constant(node.value)
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return Extent(False, len(node.items))
    if isinstance(node, (nodes.Neg, nodes.Pos)):
        return extent(node.node)
    if isinstance(node, nodes.CondExpr):
        return _widest([extent(node.expr1), extent(node.expr2) if node.expr2 is not None else None])
    if isinstance(node, nodes.Concat):
        return _joined([extent(part) for part in node.nodes])
    if isinstance(node, nodes.BinExpr):
        return _binary(node, extent(node.left), extent(node.right))
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _widened(node.name, extent(node.node), node.args)
    if isinstance(node, nodes.Call):
        length = range_length(node)
        if length is not None:
            return Extent(False, length)
        if isinstance(node.node, nodes.Getattr):
            return _widened(node.node.attr, extent(node.node.node), node.args)
    return None


def range_length(node: nodes.Call) -> float | None:
    """Return the number of items of a `range(..)` of constants."""
    if not (isinstance(node.node, nodes.Name) and node.node.name == "range") or node.kwargs:
        return None
    found = [_signed(argument) for argument in node.args]
    numbers = [number for number in found if number is not None]
    if not numbers or len(numbers) != len(found):
        return None
    start, stop = (0.0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = numbers[2] if len(numbers) > 2 else 1.0
    return max(0.0, math.ceil((stop - start) / step)) if step and math.isfinite(stop - start) else math.inf


def _signed(node: nodes.Node) -> float | None:
    """Return a constant number with its sign, where that is easily said; else its absolute value."""
    if isinstance(node, (nodes.Neg, nodes.Pos)):
        inner = _signed(node.node)
        return inner if inner is None or isinstance(node, nodes.Pos) else -inner
    found = extent(node)
    if found is None or not found.is_number:
        return None
    if isinstance(node, (nodes.Add, nodes.Sub)):
        left, right = _signed(node.left), _signed(node.right)
        assert left is not None and right is not None, "the sum of both is known"
        return left + right if isinstance(node, nodes.Add) else left - right
    if isinstance(node, (nodes.Mul, nodes.Pow)):
        left = _signed(node.left)
        return math.copysign(found.size, left if left is not None else 1.0)
    return math.copysign(found.size, node.value) if isinstance(node, nodes.Const) else found.size


def _constant(value: object) -> Extent | None:
    if isinstance(value, (str, bytes)):
        return Extent(False, len(value))
    if isinstance(value, (int, float)):
        return Extent(
            True, math.inf if isinstance(value, int) and value.bit_length() > 1000 else abs(float(value))
        )
    return None


def _widest(found: Sequence[Extent | None]) -> Extent | None:
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one.size) if known else None


def _joined(found: Sequence[Extent | None]) -> Extent | None:
    known = [20.0 if one.is_number else one.size for one in found if one is not None]
    return Extent(False, sum(known)) if known else None


def _binary(node: nodes.BinExpr, left: Extent | None, right: Extent | None) -> Extent | None:
    if left is None or right is None:
        return None
    if isinstance(node, (nodes.Add, nodes.Sub)):
        return Extent(left.is_number and right.is_number, left.size + right.size)
    if isinstance(node, nodes.Mul):
        return Extent(left.is_number and right.is_number, left.size * right.size)
    if isinstance(node, nodes.Pow):
        digits = right.size * math.log10(left.size) if left.size > 1 else 0.0
        return Extent(True, math.inf if digits > 300 else max(left.size, 1.0) ** right.size)
    if isinstance(node, nodes.Div):
        return Extent(True, left.size / right.size if right.size else math.inf)
    return left if isinstance(node, (nodes.FloorDiv, nodes.Mod)) and left.is_number else None


def _widened(name: str, value: Extent | None, arguments: Sequence[nodes.Expr]) -> Extent | None:
    if name in _SAME:
        return value
    if name in _WIDENING and arguments:
        width = extent(arguments[0])
        if width is not None:
            return Extent(False, max(width.size, value.size if value is not None else 0))
    return None
