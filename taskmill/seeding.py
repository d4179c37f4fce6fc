"""Chance as a pure function: every draw is a hash of (seed, purpose, id), never of a generator's state.

A subset is "the k smallest hashes", so it is nested in k and stable when other items come or go:

>>> set(smallest(2, 7, "cap", ["a", "b", "c"])) <= set(smallest(3, 7, "cap", ["a", "b", "c"]))
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
_ROUNDS = 6


def derive(seed: int, purpose: str, *ids: object) -> int:
    """Return a 64-bit integer that depends on the seed, the purpose and the ids alone."""
    key = "\x1f".join([str(seed), purpose, *map(str, ids)])
    return int.from_bytes(hashlib.blake2b(_bytes(key), digest_size=8).digest(), "little")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def uniform(seed: int, purpose: str, *ids: object) -> float:
    """Return a number in [0, 1) that depends on the seed, the purpose and the ids alone."""
    return (derive(seed, purpose, *ids) >> 11) / 2.0**53


def choose(seed: int, purpose: str, choices: Sequence[str], *ids: object) -> str:
    """Return one of `choices`, each with equal probability.

    Raises:
        IndexError: `choices` is empty.
    """
    return choices[int(uniform(seed, purpose, *ids) * len(choices))]


def ranks(seed: int, purpose: str, ids: Iterable[str]) -> U64:
    """Return one 64-bit hash per id: uint64[n]."""
    prefix = _bytes(f"{seed}\x1f{purpose}\x1f")
    blake2b = hashlib.blake2b
    names = list(ids)
    try:
        digests = [blake2b(prefix + name.encode(), digest_size=8).digest() for name in names]
    except UnicodeEncodeError:  # half a surrogate pair
        digests = [blake2b(prefix + _bytes(name), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def smallest(k: int, seed: int, purpose: str, ids: Sequence[str]) -> list[int]:
    """Return the indices, ascending, of the k ids with the smallest hashes (all when k >= n)."""
    if k >= len(ids):
        return list(range(len(ids)))
    order = np.argsort(ranks(seed, purpose, ids), kind="stable")
    return sorted(int(i) for i in order[:k])


def shuffled(seed: int, purpose: str, ids: Sequence[str]) -> list[int]:
    """Return all indices ordered by hash."""
    return [int(i) for i in np.argsort(ranks(seed, purpose, ids), kind="stable")]


def _mix(values: U64, key: int) -> U64:
    mixed = (values + np.uint64(key & 0xFFFFFFFFFFFFFFFF)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(29)
    return mixed


def permute(key: int, index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Map each index in [0, size) to its place under a keyed permutation of [0, size).

    A balanced Feistel network over the next even power of two, walked until the value falls inside
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002): constant memory, random access.

    Args:
        key: 64-bit key; equal keys give equal permutations.
        index: int64[n], each in [0, size).
        size: the number of items.

    Returns:
        int64[n], each in [0, size).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [derive(key, "permute", r) for r in range(_ROUNDS)]
    with np.errstate(over="ignore"):
        out = _feistel(index.astype(np.uint64), keys, mask, shift)
        outside = np.flatnonzero(out >= np.uint64(size))
        while outside.size:
            out[outside] = _feistel(out[outside], keys, mask, shift)
            outside = outside[out[outside] >= np.uint64(size)]
    return out.astype(np.int64)


def _feistel(values: U64, keys: list[int], mask: np.uint64, shift: np.uint64) -> U64:
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & mask)
    return (left << shift) | right


def derive_each(keys: U64, numbers: NDArray[np.int64]) -> U64:
    """Return a key for each number under its key: uint64[n]; `keys` come from `derive`, uint64[n] or of one item.

    SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    """
    with np.errstate(over="ignore"):
        state = keys + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64 = state ^ (state >> np.uint64(31))
    return mixed


_LEAST_HALF = 3
"""Bits of half a block: in smaller networks not all orders of three to five items are about as frequent."""
_FOURS = 4 ** np.arange(_LEAST_HALF, 31, dtype=np.int64)
_ROUND_KEYS = tuple(derive(0, "permute each", r) for r in range(_ROUNDS))


def permute_each(keys: U64, index: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Map each index in [0, its size) to its place under the permutation of its key: `permute`, many at once.

    Args:
        keys: uint64[n], as from `derive_each`; equal keys and sizes give one permutation.
        index: int64[n], each in [0, its size).
        sizes: int64[n], up to 2 ** 60.

    Returns:
        int64[n], each in [0, its size).
    """
    half = (np.searchsorted(_FOURS, sizes) + _LEAST_HALF).astype(np.uint64)
    state, limit = (keys, half, (np.uint64(1) << half) - np.uint64(1)), sizes.astype(np.uint64)
    out = _feistel_each(index.astype(np.uint64), *state)
    outside = np.flatnonzero(out >= limit)
    while outside.size:
        out[outside] = _feistel_each(out[outside], *(part[outside] for part in state))
        outside = outside[out[outside] >= limit[outside]]
    return out.astype(np.int64)


def _feistel_each(values: U64, keys: U64, half: U64, mask: U64) -> U64:
    left, right = values >> half, values & mask
    with np.errstate(over="ignore"):
        for key in _ROUND_KEYS:
            mixed = (right + (keys ^ np.uint64(key))) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
            mixed *= np.uint64(0xD6E8FEB86659FD93)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) & mask)
    whole: U64 = (left << half) | right
    return whole
