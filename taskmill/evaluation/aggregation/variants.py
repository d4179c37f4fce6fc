"""The scores of one task's variants, with resamples: where predictions become means.

A metric of single predictions is their mean. A metric of a whole corpus (bleu) adds up what its predictions counted,
`statistics`, over the rows, or over those of the groups that a resample drew, and is computed of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill import seeding
from taskmill.evaluation.aggregation.nodes import Estimate, Node, Place
from taskmill.evaluation.aggregation.resampling import F64, resample
from taskmill.evaluation.metrics.registry import combine

I64 = NDArray[np.int64]
BOOL = NDArray[np.bool_]

DEFAULT = "default"
"""Name of the variant of a task whose prompts have no template."""


@dataclass(frozen=True)
class Values:
    """What predictions of one task are worth, as arrays over N predictions."""

    value_N: F64
    statistics_NS: F64 | None
    """float64[N, S], None where the metric is one of single predictions."""


@dataclass(frozen=True)
class Rows:
    """Predictions of one task, model and number of shots."""

    task: str
    values: Values
    clean_N: BOOL
    group_N: NDArray[np.uint64]
    variant_N: I64
    """Position in `variants`."""
    variants: list[str]
    metrics: list[frozenset[str]]
    """Of each variant."""


def place_of(part: pa.Table) -> Place:
    """Return where the task of a table of predictions stands; all of its rows stand there."""
    names = ("task", "family", "benchmark", "category", "level", "subtask")
    return Place(**{name: part.column(name)[0].as_py() for name in names if name in part.column_names})


def open_rows(part: pa.Table) -> Rows:
    """Return the rows of a table of predictions of one task, model and number of shots.

    Raises:
        ValueError: a prediction has no value.
    """
    names = pc.fill_null(part.column("template"), DEFAULT)
    variants = sorted(pc.unique(names).to_pylist())
    variant_N = pc.index_in(names, value_set=pa.array(variants, names.type)).to_numpy().astype(np.int64)
    pairs = part.select(["metric"]).append_column("variant", pa.array(variant_N))
    found = pairs.group_by(["variant", "metric"]).aggregate([]).to_pydict()
    metrics = [
        frozenset(m for v, m in zip(found["variant"], found["metric"]) if v == i)
        for i in range(len(variants))
    ]
    return Rows(
        task=part.column("task")[0].as_py(),
        values=open_values(part),
        clean_N=np.asarray(part.column("clean").to_numpy(), dtype=np.bool_),
        group_N=part.column("group").to_numpy().astype(np.uint64),
        variant_N=variant_N,
        variants=variants,
        metrics=metrics,
    )


def open_values(part: pa.Table) -> Values:
    """Return what the predictions of a table are worth.

    Raises:
        ValueError: a prediction has no value.
    """
    if part.column("value").null_count:
        raise ValueError("a prediction has no value")
    return Values(part.column("value").to_numpy().astype(np.float64), _statistics(part))


def _statistics(part: pa.Table) -> F64 | None:
    """Return float64[N, S] where every row has statistics under one metric, else None."""
    if "statistics" not in part.column_names or part.column("statistics").null_count:
        return None
    if len(pc.unique(part.column("metric"))) != 1:
        return None
    flat = part.column("statistics").combine_chunks().flatten().to_numpy()
    statistics_NS: F64 = flat.astype(np.float64).reshape(part.num_rows, -1)
    return statistics_NS


def bootstrap_key(seed: int, task: str) -> int:
    """Return the key of a task's draws."""
    return seeding.derive(seed, "bootstrap", task)


def variant_nodes(part: pa.Table, seed: int, num_resamples: int) -> dict[str, Node]:
    """Return the score of each variant of one task, model and number of shots, by template (`default` for none)."""
    rows = open_rows(part)
    key = bootstrap_key(seed, rows.task)
    full_V = estimates(rows, np.ones(len(rows.clean_N), dtype=np.bool_), key, num_resamples)
    clean_V = full_V if rows.clean_N.all() else estimates(rows, rows.clean_N, key, num_resamples)
    nodes = {}
    for name, full, clean, metrics in zip(rows.variants, full_V, clean_V, rows.metrics):
        assert full is not None, "a variant is there because a prediction has it"
        nodes[name] = Node(full, clean, full.value if clean else None, clean.num if clean else 0, metrics)
    return nodes


def estimates(rows: Rows, chosen_N: BOOL, key: int, num_resamples: int) -> list[Estimate | None]:
    """Return the score of each variant over the chosen predictions, None where it has none of them.

    A resample draws, with replacement, as many groups as hold chosen predictions.
    """
    num_variants = len(rows.variants)
    groups, group_N = np.unique(rows.group_N[chosen_N], return_inverse=True)
    if not groups.size:
        return [None] * num_variants
    cell_N = group_N.astype(np.int64).ravel() * num_variants + rows.variant_N[chosen_N]
    shape = (len(groups), num_variants)
    counts_GV = cell_sums(None, cell_N, shape)
    sums_GVX = value_sums(rows.values, chosen_N, cell_N, shape)
    width = sums_GVX.shape[2]
    flat_GX = np.concatenate([counts_GV, sums_GVX.reshape(len(groups), -1)], axis=1)
    drawn_RX = resample(flat_GX, key, num_resamples)
    drawn_RVX = drawn_RX[:, num_variants:].reshape(num_resamples, num_variants, width)
    found: list[Estimate | None] = []
    for v, metrics in enumerate(rows.metrics):
        num = counts_GV[:, v].sum()
        if not num:
            found.append(None)
            continue
        value = finished(rows.values, metrics, sums_GVX[:, v].sum(axis=0)[None], np.array([num]))[0]
        samples_R = finished(rows.values, metrics, drawn_RVX[:, v], drawn_RX[:, v])
        found.append(Estimate(float(value), samples_R, int(num)))
    return found


def cell_sums(weight_N: F64 | None, cell_N: I64, shape: tuple[int, int]) -> F64:
    """Return float64[G, V]: the sum of the weights, or the number, of the rows in each cell of (group, variant)."""
    sums = np.bincount(cell_N, weights=weight_N, minlength=shape[0] * shape[1])
    return sums.astype(np.float64).reshape(shape)


def value_sums(values: Values, chosen_N: BOOL, cell_N: I64, shape: tuple[int, int]) -> F64:
    """Return float64[G, V, X], what a score is made of: the sum of values (X = 1) or of statistics (X = S)."""
    if values.statistics_NS is None:
        return cell_sums(values.value_N[chosen_N], cell_N, shape)[:, :, None]
    chosen_NS = values.statistics_NS[chosen_N]
    return np.stack([cell_sums(column_N, cell_N, shape) for column_N in chosen_NS.T], axis=2)


def finished(values: Values, metrics: frozenset[str], sums_RX: F64, counts_R: F64) -> F64:
    """Return the scores that sums over rows come to: float64[R], NaN where there are no rows."""
    if values.statistics_NS is None:
        out_R = np.full(len(counts_R), np.nan)
        np.divide(sums_RX[:, 0], counts_R, out=out_R, where=counts_R > 0)
        return out_R
    (metric,) = metrics
    return np.where(counts_R > 0, combine(metric, sums_RX), np.nan)
