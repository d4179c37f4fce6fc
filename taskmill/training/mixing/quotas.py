"""Which item each draw goes to: whole quotas that hold after every draw, found for any draw by itself.

Items are the leaves of a binary tree. Of the first m draws of a node, round(m p) go to its left child, where p is that
child's share of the node; the others go right. So the m-th draw's item, and how many draws that item had before, take
one walk down the tree, and nothing has to be remembered of the draws before it:

>>> Quotas([[3], [2, 1]]).counts(6).tolist()
[3, 2, 1]

After m draws a group has its share of them to within 2, and an item to within 2.5, whatever the weights: a node adds a
rounding of at most 1/2 to the error that it inherits times its share of its parent, and an inner node of a tree has at most
2/3 of its parent. Weights of N draws in all are met exactly after N draws. Reads and writes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

MAX_DRAWS = 2**32
"""Draws that can be told apart in 64 bits."""
MAX_EXACT = 2**29
"""Largest sum of weights that is met exactly."""
_BITS = 30
"""Shares of a node are counted in 2 ** -30."""
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1


class Quotas:
    """The items of draws 0, 1, 2 ...: first among groups by their weights, then among a group's items by theirs."""

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Take the weights of items, whole numbers of at least 1, group by group; items are numbered through groups."""
        self.num_items = sum(len(group) for group in groups)
        self._left_share = [0] * self.num_items
        self._children = [(i, i) for i in range(self.num_items)]
        self.depth, first, tops = 0, 0, list[int]()
        for group in groups:
            tops.append(self._grow(list(range(first, first + len(group))), group))
            first += len(group)
        inner, self.depth = self.depth, 0
        self._root = self._grow(tops, [sum(group) for group in groups])
        self.depth += inner
        self._share_N = np.array(self._left_share, dtype=np.int64)
        self._child_N = np.array([child for pair in self._children for child in pair], dtype=np.int64)

    def _grow(self, nodes: Sequence[int], weights: Sequence[int]) -> int:
        """Join nodes to a tree and return its root; each cut of the nodes, heaviest first, is where the halves are nearest."""
        order = sorted(range(len(nodes)), key=lambda i: (-weights[i], i))
        sums = [0, *accumulate(weights[i] for i in order)]
        made: dict[tuple[int, int], int] = {(i, i + 1): nodes[place] for i, place in enumerate(order)}
        stack, spans = [(0, len(nodes), 1)], list[tuple[int, int, int]]()
        while stack:
            start, stop, level = stack.pop()
            if stop - start < 2:
                continue
            self.depth = max(self.depth, level)
            middle = (sums[start] + sums[stop]) / 2
            cut = min(max(bisect_left(sums, middle, start, stop), start + 1), stop - 1)
            if cut - 1 > start and middle - sums[cut - 1] <= sums[cut] - middle:
                cut -= 1
            spans.append((start, cut, stop))
            stack += [(start, cut, level + 1), (cut, stop, level + 1)]
        for start, cut, stop in reversed(spans):
            part, whole = sums[cut] - sums[start], sums[stop] - sums[start]
            made[start, stop] = len(self._left_share)
            self._left_share.append(min(max(((part << _BITS) + whole // 2) // whole, 1), _MASK))
            self._children.append((made[cut, stop], made[start, cut]))
        return made[0, len(nodes)]

    def find(self, draws: I64) -> tuple[I64, I64]:
        """Return, for each draw in [0, MAX_DRAWS), its item int64[n] and how many earlier draws had the same: int64[n]."""
        node, turn = np.full(len(draws), self._root, dtype=np.int64), draws.copy()
        for _ in range(self.depth):
            share = self._share_N[node]
            scaled = turn * share + _HALF
            left = scaled >> _BITS
            goes_left = ((scaled & _MASK) + share) >> _BITS
            turn = np.where(goes_left, left, turn - left)
            node = self._child_N[2 * node + goes_left]
        return node, turn

    def counts(self, num_draws: int) -> I64:
        """Return how many of draws 0 .. num_draws - 1 each item has: int64[num_items]."""
        counts = np.zeros(self.num_items, dtype=np.int64)
        stack = [(self._root, num_draws)]
        while stack:
            node, here = stack.pop()
            if node < self.num_items:
                counts[node] = here
                continue
            left = (here * self._left_share[node] + _HALF) >> _BITS
            right_child, left_child = self._children[node]
            stack += [(left_child, left), (right_child, here - left)]
        return counts
