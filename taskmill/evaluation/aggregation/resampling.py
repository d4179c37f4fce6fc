"""Chance of intervals and of p-values: which groups a resample draws, and which groups a permutation swaps.

Both are pure functions of a key and the position: raw 64-bit outputs of the counter-based generator Philox, which are the
same under every version of numpy (its distributions are not). The key belongs to a task, so everything that is computed of
one task, variants, numbers of shots, models, shares its draws, and differences between them are paired.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 15.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

INTERVAL = (0.025, 0.975)
"""Quantiles of the resamples that a 95 % interval lies between."""
CHUNK = 1 << 18
"""Most cells of a matrix of draws; longer ones are made in parts that caches hold."""

_PRODUCT = 1 << 18
"""Multiplications of a product that OpenBLAS does in one thread."""


def draws(key: int, num_resamples: int, num_groups: int) -> Iterator[tuple[slice, F64]]:
    """Yield how often each resample drew each group, in parts: (rows, float64[r, G]), each row summing to G."""
    bits = np.random.Philox(key=key)
    for rows in _parts(num_resamples, num_groups):
        size = rows.stop - rows.start
        raw = bits.random_raw(size * num_groups)
        raw >>= np.uint64(32)
        raw *= np.uint64(num_groups)
        raw >>= np.uint64(32)
        cell = raw.view(np.int64).reshape(size, num_groups)
        cell += np.arange(size)[:, None] * num_groups
        flat = np.bincount(cell.ravel(), minlength=size * num_groups)
        yield rows, flat.reshape(size, num_groups).astype(np.float64)


def signs(key: int, num_permutations: int, num_groups: int) -> Iterator[tuple[slice, F64]]:
    """Yield the sign of each group in each permutation, in parts: (rows, float64[p, G]) of 1 and -1, equally likely."""
    bits = np.random.Philox(key=key)
    words = -(-num_groups // 64)
    for rows in _parts(num_permutations, num_groups):
        size = rows.stop - rows.start
        raw = bits.random_raw(size * words).astype("<u8").view(np.uint8).reshape(size, words * 8)
        ones = np.unpackbits(raw, axis=1, count=num_groups, bitorder="little")
        yield rows, ones.astype(np.float64) * 2.0 - 1.0


def _parts(num_rows: int, num_groups: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, num_groups))
    for start in range(0, num_rows, step):
        yield slice(start, min(num_rows, start + step))


def resample(sums_GX: F64, key: int, num_resamples: int) -> F64:
    """Return sums over the groups that each resample drew: float64[R, X].

    Args:
        sums_GX: float64[G, X], sums over the rows of each group.
        key: 64-bit key.
        num_resamples: R.
    """
    out_RX = np.empty((num_resamples, sums_GX.shape[1]))
    for rows, weight_RG in draws(key, num_resamples, len(sums_GX)):
        _multiply(weight_RG, sums_GX, out_RX[rows])
    return out_RX


def flip(halves_GX: F64, key: int, num_permutations: int) -> F64:
    """Return sums over groups whose signs each permutation drew: float64[P, X].

    Args:
        halves_GX: float64[G, X], what a group adds where its sides stay, and takes away where they are swapped.
        key: 64-bit key.
        num_permutations: P.
    """
    out_PX = np.empty((num_permutations, halves_GX.shape[1]))
    for rows, sign_PG in signs(key, num_permutations, len(halves_GX)):
        _multiply(sign_PG, halves_GX, out_PX[rows])
    return out_PX


def _multiply(left_RG: F64, right_GX: F64, out_RX: F64) -> None:
    """Multiply in products so small that BLAS takes one thread for each: waiting for a second one costs more."""
    step = max(1, _PRODUCT // max(1, right_GX.size))
    for start in range(0, len(left_RG), step):
        np.matmul(left_RG[start : start + step], right_GX, out=out_RX[start : start + step])


def interval(samples_R: F64, value: float) -> tuple[float, float]:
    """Return the 95 % interval of resampled values, from which those that are NaN are left out; `value` twice for none."""
    known_R = samples_R[~np.isnan(samples_R)]
    if not known_R.size:
        return value, value
    low, high = np.quantile(known_R, INTERVAL)
    return float(low), float(high)
