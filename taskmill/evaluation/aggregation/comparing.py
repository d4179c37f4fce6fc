"""Whether one model is better than another: paired differences along the hierarchy, with intervals and p-values.

Both models answered the same prompts (see `joining`). The difference is the other's score minus the first's, of each node of
the hierarchy.

- *Interval*: 2.5 and 97.5 percentiles of the difference over resamples of groups, which both models share.
- *p-value*, two-sided: were the models exchangeable, swapping their answers in any set of groups would change nothing but
  chance. It is the share of such swaps whose difference is at least as large: of all of them where at most MOST_EXACT
  groups differ, else of seeded draws, the swap of no group counted with them. (Fisher's sign-flip test; Good,
  "Permutation, Parametric, and Bootstrap Tests of Hypotheses", 2005; for models Dror et al., ACL 2018, section 3.)
- *Holm*: p-values of one scope, adjusted so that the chance of any false alarm among them stays below the level (1979).

Groups, not predictions, are swapped and drawn: variants of an example and examples of one passage belong together. A draw
belongs to its task alone: it is the same for every number of shots, and whoever is first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill import seeding
from taskmill.evaluation.aggregation.hierarchy import metric_name, rounded
from taskmill.evaluation.aggregation.joining import Joined
from taskmill.evaluation.aggregation.nodes import (
    ALL_SHOTS,
    Estimate,
    Key,
    Place,
    climb,
    mean_of_estimates,
    select,
)
from taskmill.evaluation.aggregation.resampling import F64, flip, interval, resample
from taskmill.evaluation.aggregation.variants import (
    BOOL,
    Rows,
    Values,
    bootstrap_key,
    cell_sums,
    finished,
    open_rows,
    open_values,
    place_of,
    value_sums,
)

SEED = 0
"""Of every draw: a comparison belongs to no recipe."""
NUM_RESAMPLES = 1000
NUM_PERMUTATIONS = 9999
MOST_EXACT = 12
"""Most groups that differ for all 2 ** n swaps to be counted."""
COMPARED = ("level", "category", "benchmark", "task")
"""Scopes of a comparison's rows."""
_TOLERANCE = 1e-9

Terms = dict[tuple[str, int], float]
"""What each group adds to a difference, by (task, group); groups that add nothing are left out."""


@dataclass(frozen=True)
class Paired:
    """The scores of two models over the same predictions, and their difference."""

    first: float
    other: float
    difference: Estimate
    flips_P: F64
    """float64[P]: the difference in each permutation."""
    terms: Terms | None
    """None where more than MOST_EXACT groups differ, or the metric is no mean over them."""


@dataclass(frozen=True)
class Compared:
    """A node of the hierarchy for two models: over all predictions, and over those that are clean for both."""

    full: Paired
    clean: Paired | None
    metrics: frozenset[str]


def compare(
    joined: Joined, *, num_resamples: int = NUM_RESAMPLES, num_permutations: int = NUM_PERMUTATIONS
) -> list[dict[str, Any]]:
    """Return the difference between two models for every node of COMPARED, levels first, then by name and shots.

    Tasks stand where they stand in the first run.

    Raises:
        ValueError: a prediction has no value.
    """
    by_shots: dict[int, dict[Place, Compared]] = {}
    for shots, first, other in joined.tasks():
        node = compare_task(first, other, num_resamples, num_permutations)
        by_shots.setdefault(shots, {})[place_of(first)] = node
    named = {shots: climb(tasks, average) for shots, tasks in sorted(by_shots.items())}
    rows = [_row(key, shots, node) for shots, nodes in named.items() for key, node in nodes.items()]
    rows += [_row(key, ALL_SHOTS, node) for key, node in select(named, average).items()]
    kept = [row for row in rows if row["scope"] in COMPARED]
    return sorted(kept, key=lambda row: (COMPARED.index(row["scope"]), row["name"], row["shots"]))


def compare_task(first: pa.Table, other: pa.Table, num_resamples: int, num_permutations: int) -> Compared:
    """Return the difference between two models on one task and number of shots, row for row the same prompts."""
    rows = open_rows(first)
    values, others = rows.values, open_values(other)
    if values.statistics_NS is None or others.statistics_NS is None:
        values, others = Values(values.value_N, None), Values(others.value_N, None)
    clean_N = rows.clean_N & np.asarray(other.column("clean").to_numpy(), dtype=np.bool_)
    both = (values, others)
    full = _paired(rows, both, np.ones(len(clean_N), dtype=np.bool_), num_resamples, num_permutations)
    assert full is not None, "every variant has predictions"
    clean = full if clean_N.all() else _paired(rows, both, clean_N, num_resamples, num_permutations)
    return Compared(full, clean, frozenset[str]().union(*rows.metrics))


def average(nodes: Sequence[Compared]) -> Compared:
    """Return the unweighted mean; clean over the parts that have clean prompts."""
    full = _average([node.full for node in nodes])
    same = all(node.clean is node.full for node in nodes)
    clean = [node.clean for node in nodes if node.clean is not None]
    return Compared(
        full,
        full if same else _average(clean) if clean else None,
        frozenset[str]().union(*(node.metrics for node in nodes)),
    )


def _average(parts: Sequence[Paired]) -> Paired:
    if len(parts) == 1:
        return parts[0]
    num = len(parts)
    terms: Terms | None = {}
    for part in parts:
        if terms is None or part.terms is None:
            terms = None
            break
        for key, term in part.terms.items():
            terms[key] = terms.get(key, 0.0) + term / num
    return Paired(
        first=sum(part.first for part in parts) / num,
        other=sum(part.other for part in parts) / num,
        difference=mean_of_estimates([part.difference for part in parts]),
        flips_P=sum((part.flips_P for part in parts[1:]), parts[0].flips_P) / num,
        terms=_few(terms),
    )


def _few(terms: Terms | None) -> Terms | None:
    return terms if terms is not None and len(terms) <= MOST_EXACT else None


def _paired(
    rows: Rows, values: tuple[Values, Values], chosen_N: BOOL, num_resamples: int, num_permutations: int
) -> Paired | None:
    """Return the difference on a task over the chosen predictions, None where a variant has none of them."""
    num_variants = len(rows.variants)
    groups, group_N = np.unique(rows.group_N[chosen_N], return_inverse=True)
    cell_N = group_N.astype(np.int64).ravel() * num_variants + rows.variant_N[chosen_N]
    shape = (len(groups), num_variants)
    counts_GV = cell_sums(None, cell_N, shape)
    counts_V = counts_GV.sum(axis=0)
    if not groups.size or not counts_V.all():
        return None
    first_GVX, other_GVX = (value_sums(side, chosen_N, cell_N, shape) for side in values)
    width = first_GVX.shape[2]
    flat = [array.reshape(len(groups), -1) for array in (counts_GV, first_GVX, other_GVX)]
    drawn_RX = resample(np.concatenate(flat, axis=1), bootstrap_key(SEED, rows.task), num_resamples)
    counts_RV, first_RX, other_RX = np.split(drawn_RX, [num_variants, num_variants * (1 + width)], axis=1)
    parts, sides = [], []
    for v, metrics in enumerate(rows.metrics):
        mine = slice(v * width, (v + 1) * width)
        ends = [
            float(finished(values[0], metrics, sums_GVX[:, v].sum(axis=0)[None], counts_V[v : v + 1])[0])
            for sums_GVX in (first_GVX, other_GVX)
        ]
        samples_R = finished(values[0], metrics, other_RX[:, mine], counts_RV[:, v])
        samples_R -= finished(values[0], metrics, first_RX[:, mine], counts_RV[:, v])
        parts.append(Estimate(ends[1] - ends[0], samples_R, int(counts_V[v])))
        sides.append(ends)
    halves_GVX = (other_GVX - first_GVX) / 2
    key = seeding.derive(SEED, "signs", rows.task)
    if values[0].statistics_NS is None:
        terms_G = (2 * halves_GVX[:, :, 0] / counts_V).mean(axis=1)
        flips_P = flip(terms_G[:, None], key, num_permutations)[:, 0]
        added = {(rows.task, int(group)): float(t) for group, t in zip(groups, terms_G) if t}
    else:
        middle_VX = (first_GVX + other_GVX).sum(axis=0) / 2
        flips_P = _corpus_flips(rows, values[0], halves_GVX, middle_VX, counts_V, key, num_permutations)
        added = None
    first, other = (sum(side) / num_variants for side in zip(*sides))
    return Paired(first, other, mean_of_estimates(parts), flips_P, _few(added))


def _corpus_flips(
    rows: Rows,
    values: Values,
    halves_GVX: F64,
    middle_VX: F64,
    counts_V: F64,
    key: int,
    num_permutations: int,
) -> F64:
    """Return the difference of scores of a whole corpus in each permutation: float64[P]."""
    num_groups, num_variants, width = halves_GVX.shape
    flipped_PX = flip(halves_GVX.reshape(num_groups, -1), key, num_permutations)
    flipped_PVX = flipped_PX.reshape(num_permutations, num_variants, width)
    total_P = np.zeros(num_permutations)
    for v, metrics in enumerate(rows.metrics):
        counts_P = np.full(num_permutations, counts_V[v])
        total_P += finished(values, metrics, middle_VX[v] + flipped_PVX[:, v], counts_P)
        total_P -= finished(values, metrics, middle_VX[v] - flipped_PVX[:, v], counts_P)
    difference_P: F64 = total_P / num_variants
    return difference_P


def p_value(paired: Paired) -> float:
    """Return the two-sided p-value of a difference: 1 where nothing differs."""
    observed = abs(paired.difference.value) - _TOLERANCE
    if paired.terms is None:
        return float((1 + np.count_nonzero(np.abs(paired.flips_P) >= observed)) / (1 + len(paired.flips_P)))
    terms_K = np.array(list(paired.terms.values()))
    codes = np.arange(2 ** len(terms_K))
    signs_SK = ((codes[:, None] >> np.arange(len(terms_K))) & 1) * 2.0 - 1.0
    return float(np.mean(np.abs(signs_SK @ terms_K) >= observed))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = most
    return adjusted


def adjust(rows: Iterable[dict[str, Any]]) -> None:
    """Add `p_holm` and `clean_p_holm` to rows of comparisons; those of one scope are adjusted together."""
    ordered = sorted(rows, key=lambda row: str(row["scope"]))
    for _, scope in groupby(ordered, key=lambda row: row["scope"]):
        mine = list(scope)
        for name in ("p", "clean_p"):
            known = [row for row in mine if row[name] is not None]
            for row, p in zip(known, holm([row[name] for row in known])):
                row[f"{name}_holm"] = rounded(p)


def _row(key: Key, shots: int, node: Compared) -> dict[str, Any]:
    full, clean = _figures(node.full), _figures(node.clean)
    return {
        "scope": key[0],
        "name": key[1],
        "shots": shots,
        "metric": metric_name(node.metrics),
        **full,
        "p_holm": None,
        **{f"clean_{name}": value for name, value in clean.items() if name != "num"},
        "clean_p_holm": None,
        "num_clean": clean["num"],
    }


def _figures(paired: Paired | None) -> dict[str, Any]:
    names = ("num", "first", "other", "difference", "low", "high", "p")
    if paired is None:
        return dict.fromkeys(names)
    difference = paired.difference
    low, high = interval(difference.samples_R, difference.value)
    figures = (paired.first, paired.other, difference.value, low, high, p_value(paired))
    return {"num": difference.num, **dict(zip(names[1:], map(rounded, figures)))}
