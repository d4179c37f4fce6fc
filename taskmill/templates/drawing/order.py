"""Draws by hash: which (example, template) pairs are rendered first, which template an example gets.

A pair's rank mixes one hash per example with one per template, so n examples and t templates cost n + t hashes,
and adding an example or a template leaves the ranks of all other pairs as they were. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_LAST = 2**64 - 1
_SMALL = 1 << 16
"""So many pairs are ranked at once; of more, a stretch of ranks at a time."""


def combine(left: U64, right: U64 | np.uint64) -> U64:
    """Mix two arrays of hashes, broadcast against each other, into one: MurmurHash3's 64-bit finaliser."""
    with np.errstate(over="ignore"):
        mixed: U64 = left ^ (right * np.uint64(0x9E3779B97F4A7C15))
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(multiplier)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def uniform(hashes: U64) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each hash: float64[n]."""
    return (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53


def smallest(hashes: U64, k: int) -> I64:
    """Return the indices, ascending, of the k smallest hashes (all when k >= n); the earlier of equal ones."""
    if k >= len(hashes):
        return np.arange(len(hashes))
    return np.sort(np.argsort(hashes, kind="stable")[:k])


class PairOrder:
    """All pairs of examples and templates in ascending order of their ranks, as many at a time as are asked for.

    Memory: 8 bytes a pair that was asked for, whatever the number of templates.
    """

    def __init__(self, examples: U64, templates: U64) -> None:
        """Take one hash per example and one per template."""
        self._examples, self._templates = examples, templates
        self._num = len(examples) * len(templates)
        self._ready: I64 = np.empty(0, np.int64)
        self._below = -1
        """Every pair with a rank up to this has been given out or is ready."""

    def take(self, number: int) -> tuple[I64, I64]:
        """Return the next `number` pairs, or as many as there are left: example and template indices."""
        while len(self._ready) < number and self._below < _LAST:
            self._ready = np.concatenate([self._ready, self._more(number - len(self._ready))])
        taken, self._ready = self._ready[:number], self._ready[number:]
        if not len(self._templates):
            return taken, taken
        examples, templates = np.divmod(taken, len(self._templates))
        return examples, templates

    def _more(self, number: int) -> I64:
        """Return the pairs of the next stretch of ranks, about `number` and a few, in ascending order."""
        width = _LAST - self._below
        left = max(1.0, self._num * (width / 2.0**64))
        share = 1.0 if self._num <= _SMALL else min(1.0, (number * 1.02 + 1000) / left)
        above, self._below = self._below, _LAST if share == 1.0 else self._below + int(width * share)
        ranks, places = [], []
        for template, hashed in enumerate(self._templates):
            found = combine(self._examples, hashed)
            inside = np.flatnonzero(found <= np.uint64(self._below))
            if above >= 0:
                inside = inside[found[inside] > np.uint64(above)]
            ranks.append(found[inside])
            places.append(inside * len(self._templates) + template)
        if not ranks:
            return np.empty(0, np.int64)
        place = np.concatenate(places)
        return place[np.lexsort((place, np.concatenate(ranks)))]


def weighted_choice(examples: U64, templates: U64, weights: Sequence[NDArray[np.float64]]) -> I64:
    """Return for each example the template that it draws, with chances as the weights are: int64[n], -1 for none.

    Exponential ranks, -log(u) / weight: the smallest wins, and a template that comes or goes moves no example
    between the others (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).

    Args:
        examples: one hash per example.
        templates: one hash per template.
        weights: for each template, its weight for each example, or for all as one number; 0 is never drawn.
    """
    best = np.full(len(examples), np.inf)
    chosen = np.full(len(examples), -1, np.int64)
    for template, (hashed, weight) in enumerate(zip(templates, weights, strict=True)):
        with np.errstate(divide="ignore"):
            rank = -np.log1p(-uniform(combine(examples, hashed))) / weight
        rank = np.where(np.broadcast_to(weight, rank.shape) > 0, rank, np.inf)
        better = rank < best
        best[better], chosen[better] = rank[better], template
    return chosen
