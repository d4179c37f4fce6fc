"""Mode concatenation: how many prompts of each task are kept. Reads and writes nothing.

Every prompt is kept (TULU), a fixed number of a part's (FLAN-MINI), or a share of them (OpenChat's sub-sampling of a
class). Of a task the first rows are kept, those of smallest hash: a smaller number is a subset of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import UsageError
from taskmill.recipe import Mix
from taskmill.training.mixing.rows import TrainRows
from taskmill.training.mixing.shares import no_such_part

I64 = NDArray[np.int64]


def spread(size: int, rates: Sequence[int], limits: Sequence[int]) -> I64:
    """Spread `size` prompts over tasks in proportion to their rates, none over its limit: int64[n].

    What is over a task's limit goes to the others; where all limits together are less than `size`, each task gets its limit.
    The numbers are min(limit, rate x, rounded) for one x (Webster's method), so that none falls when `size` grows.

    Args:
        size: prompts.
        rates: of each task, above 0.
        limits: prompts that each task has.
    """
    rate, limit = np.array(rates, dtype=np.float64), np.array(limits, dtype=np.int64)
    if size >= limit.sum():
        return limit
    low, high = 0.0, float(((limit + 1) / rate).max())
    for _ in range(100):
        middle = (low + high) / 2
        if _rounded(middle, rate, limit).sum() <= size:
            low = middle
        else:
            high = middle
    kept = _rounded(low, rate, limit)
    for _ in range(size - int(kept.sum())):  # tasks whose next prompt falls on one x
        kept[np.argmin(np.where(kept < limit, (kept + 0.5) / rate, np.inf))] += 1
    return kept


def _rounded(scale: float, rate: NDArray[np.float64], limit: I64) -> I64:
    rounded: I64 = np.minimum(limit, np.floor(rate * scale + 0.5).astype(np.int64))
    return rounded


def kept_prompts(mix: Mix, rows: Sequence[TrainRows], parts: Sequence[str]) -> I64:
    """Return how many prompts of each task and condition are kept: int64[len(rows)].

    Args:
        mix: the recipe's section.
        rows: train rows.
        parts: the part of each.

    Raises:
        UsageError: a part that is named has no train prompts, or nothing is kept.
    """
    size_N = np.array([r.num for r in rows], dtype=np.int64)
    kept = size_N.copy()
    known = dict.fromkeys(parts, 0.0)
    problems = [
        no_such_part(f"mix.{key}.{name}", name, known, mix.by)
        for key, names in (("sizes", mix.sizes), ("keep", mix.keep))
        for name in names
        if name not in known
    ]
    if problems:
        raise UsageError("\n".join(problems))
    for part in known:
        at = np.flatnonzero([p == part for p in parts])
        sizes = size_N[at].tolist()
        if part in mix.sizes:
            kept[at] = spread(mix.sizes[part], [min(n, mix.cap) for n in sizes], sizes)
        elif part in mix.keep:
            kept[at] = spread(round(mix.keep[part] * sum(sizes)), sizes, sizes)
    if len(rows) and not kept.any():
        raise UsageError("mix.keep: it leaves no prompt to train on; raise the share of a part")
    return kept
