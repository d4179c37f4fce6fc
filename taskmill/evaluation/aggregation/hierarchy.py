"""Scores from predictions: means of means along OPT-IML's hierarchy, with bootstrap intervals (section 4.1).

    predictions -> variant -> task -> (benchmark, family) -> family -> category -> level -> all
                                                         \\-> benchmark

Every arrow is an unweighted mean, separately for each model and number of shots:

- *variant*: the predictions of one template of one task. Named `task::template`.
- *task*: a task of the catalogue; its variants. Where a family has sub-tasks (MMLU's subjects), each is a task.
- *(benchmark, family)*: the sub-tasks that one benchmark has of a family; an inner node without a row of its own.
- *family*: the same task across benchmarks. Named `level/category/family`.
- *category*: its families. Named `level/category`, since one category may stand at two levels.
- *benchmark*: the families that one benchmark has at a level. Named `level/benchmark`; beside categories, not above them.
- *level*: its categories.
- level `all`, shots ALL_SHOTS: the selection score, the mean over numbers of shots of the mean over levels.

Intervals: 2.5 and 97.5 percentiles of the same means over resampled data. A resample draws, in each task, as many
groups as the task has, with replacement; the draw belongs to the task alone, so variants, shots and models of a task
share it and their differences are paired. The clean value is the same mean over clean examples only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskmill import seeding

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

ALL_SHOTS = -1
"""`shots` of a score that is the mean over all numbers of shots."""
MIXED = "mixed"
"""`metric` of a score whose parts have different metrics."""
DECIMALS = 6
"""Scores are rounded, so that last bits that differ between machines never reach a file."""
COLUMNS = (
    "model",
    "task",
    "shots",
    "template",
    "group",
    "family",
    "benchmark",
    "level",
    "category",
    "metric",
    "value",
    "clean",
)
"""The columns of predictions that scores are computed from."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Node:
    """A score somewhere in the hierarchy."""

    value: float
    samples_R: F64
    """float64[R]: the same mean in each resample; NaN where a resample drew none of its examples."""
    num: int
    """Predictions below it."""
    metrics: frozenset[str]
    clean: float | None
    """The mean over clean examples, None when there are none."""


@dataclass(frozen=True)
class Place:
    """Where a task stands in the hierarchy."""

    task: str
    family: str
    benchmark: str
    category: str
    level: str


def mean(nodes: Sequence[Node]) -> Node:
    """Return the unweighted mean of scores; parts that a resample or the clean subset lacks are left out of it.

    Raises:
        ValueError: no nodes.
    """
    if not nodes:
        raise ValueError("the mean of no scores")
    samples_NR = np.stack([node.samples_R for node in nodes])
    present_NR = ~np.isnan(samples_NR)
    total_R = np.where(present_NR, samples_NR, 0.0).sum(axis=0)
    count_R = present_NR.sum(axis=0)
    clean = [node.clean for node in nodes if node.clean is not None]
    return Node(
        value=sum(node.value for node in nodes) / len(nodes),
        samples_R=np.divide(total_R, count_R, out=np.full(len(total_R), np.nan), where=count_R > 0),
        num=sum(node.num for node in nodes),
        metrics=frozenset().union(*(node.metrics for node in nodes)),
        clean=sum(clean) / len(clean) if clean else None,
    )


def aggregate(parts: Iterable[pa.Table], *, seed: int, num_resamples: int) -> list[dict[str, Any]]:
    """Return the rows of scores.parquet.

    Args:
        parts: tables with COLUMNS, every value given; each holds one task under one model and number of shots.
        seed: of the recipe; with the task it determines each resample.
        num_resamples: bootstrap resamples, at least 1.

    Returns:
        rows sorted by model, scope (variant first, level last), name and shots.
    """
    runs: dict[tuple[str, int], _Scored] = {}
    for part in parts:
        if part.num_rows:
            columns = {name: part.column(name).to_pylist() for name in COLUMNS}
            key = (columns["model"][0], columns["shots"][0])
            _add_task(runs.setdefault(key, _Scored({}, {})), columns, seed, num_resamples)
    rows: list[dict[str, Any]] = []
    finals: dict[str, list[Node]] = {}
    for (model, shots), scored in sorted(runs.items()):
        nodes = {**scored.variants, **_hierarchy(scored.tasks)}
        rows += [_row(model, shots, scope, name, node) for (scope, name), node in nodes.items()]
        finals.setdefault(model, []).append(mean([n for (scope, _), n in nodes.items() if scope == "level"]))
    for model, nodes_S in finals.items():
        rows.append(_row(model, ALL_SHOTS, "level", "all", mean(nodes_S)))
    return sorted(rows, key=lambda r: (r["model"], _SCOPES.index(r["scope"]), r["name"], r["shots"]))


# ------------------------------------------------------------------------------------------ hierarchy

_SCOPES = ("variant", "task", "family", "category", "benchmark", "level")
Named = dict[tuple[str, str], Node]


@dataclass(frozen=True)
class _Scored:
    variants: Named
    tasks: dict[Place, Node]


def _hierarchy(tasks: dict[Place, Node]) -> Named:
    """Return the scores of every scope from task to level, by (scope, name)."""
    parts = _means(tasks.items(), lambda p: (p.level, p.category, p.family, p.benchmark))
    families = _means(parts.items(), lambda key: key[:3])
    categories = _means(families.items(), lambda key: key[:2])
    benchmarks = _means(parts.items(), lambda key: (key[0], key[3]))
    levels = _means(categories.items(), lambda key: key[:1])
    named: Named = {("task", place.task): node for place, node in tasks.items()}
    for scope, nodes in (
        ("family", families),
        ("category", categories),
        ("benchmark", benchmarks),
        ("level", levels),
    ):
        named.update({(scope, "/".join(key)): node for key, node in nodes.items()})
    return named


def _means(nodes: Iterable[tuple[Any, Node]], above: Callable[[Any], Any]) -> dict[tuple[str, ...], Node]:
    groups: dict[tuple[str, ...], list[Node]] = {}
    for key, node in nodes:
        groups.setdefault(above(key), []).append(node)
    return {key: mean(groups[key]) for key in sorted(groups)}


def _row(model: str, shots: int, scope: str, name: str, node: Node) -> dict[str, Any]:
    known_R = node.samples_R[~np.isnan(node.samples_R)]
    low, high = np.quantile(known_R, [0.025, 0.975]) if known_R.size else (node.value, node.value)
    return {
        "model": model,
        "scope": scope,
        "name": name,
        "shots": shots,
        "metric": next(iter(node.metrics)) if len(node.metrics) == 1 else MIXED,
        "value": round(node.value, DECIMALS),
        "low": round(float(low), DECIMALS),
        "high": round(float(high), DECIMALS),
        "num": node.num,
        "clean_value": None if node.clean is None else round(node.clean, DECIMALS),
    }


# ----------------------------------------------------------------------------------------- resampling


def _add_task(scored: _Scored, columns: dict[str, list[Any]], seed: int, num_resamples: int) -> None:
    task = columns["task"][0]
    variants = variant_nodes(columns, seed, num_resamples)
    scored.variants.update({("variant", f"{task}::{name}"): node for name, node in variants.items()})
    first = {name: columns[name][0] for name in ("family", "benchmark", "category", "level")}
    scored.tasks[Place(task, **first)] = mean(list(variants.values()))


def variant_nodes(columns: dict[str, list[Any]], seed: int, num_resamples: int) -> dict[str, Node]:
    """Return the score of each variant of one task, model and number of shots, by template (`default` for none)."""
    value_N = np.asarray(columns["value"], dtype=np.float64)
    clean_N = np.asarray(columns["clean"], dtype=np.bool_)
    names = [template or "default" for template in columns["template"]]
    metrics = columns["metric"]
    groups, group_N = np.unique(np.asarray(columns["group"], dtype=np.uint64), return_inverse=True)
    variants = sorted(set(names))
    code_N = np.searchsorted(variants, names)
    sums_GV, counts_GV = _by_group(value_N, group_N, code_N, len(groups), len(variants))
    key = seeding.derive(seed, "bootstrap", columns["task"][0])
    samples_RV = resample(sums_GV, counts_GV, key, num_resamples)
    nodes = {}
    for code, name in enumerate(variants):
        mine_N = code_N == code
        clean = value_N[mine_N & clean_N]
        nodes[name] = Node(
            value=float(value_N[mine_N].mean()),
            samples_R=samples_RV[:, code],
            num=int(mine_N.sum()),
            metrics=frozenset(m for m, mine in zip(metrics, mine_N) if mine),
            clean=float(clean.mean()) if clean.size else None,
        )
    return nodes


def _by_group(
    value_N: F64, group_N: NDArray[Any], code_N: NDArray[Any], num_groups: int, num_variants: int
) -> tuple[F64, F64]:
    cell_N = group_N.astype(np.int64).ravel() * num_variants + code_N
    size, shape = num_groups * num_variants, (num_groups, num_variants)
    sums = np.bincount(cell_N, weights=value_N, minlength=size).astype(np.float64)
    counts = np.bincount(cell_N, minlength=size).astype(np.float64)
    return sums.reshape(shape), counts.reshape(shape)


def resample(sums_GV: F64, counts_GV: F64, key: int, num_resamples: int) -> F64:
    """Return the means under resampled groups: float64[R, V], NaN where a resample has no row of a variant.

    The draws are raw 64-bit outputs of the counter-based generator Philox under `key`: a pure function of the key and
    the position, stable across versions of numpy (unlike its distributions).

    Args:
        sums_GV: float64[G, V], sum of values per group and variant.
        counts_GV: float64[G, V], rows per group and variant.
        key: 64-bit key.
        num_resamples: R.
    """
    num_groups = len(sums_GV)
    bits = np.random.Philox(key=key)
    out_RV = np.full((num_resamples, sums_GV.shape[1]), np.nan)
    step = max(1, _CHUNK // num_groups)
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        weight_RG = _draws(bits, size, num_groups)
        rows_RV = weight_RG @ counts_GV
        np.divide(weight_RG @ sums_GV, rows_RV, out=out_RV[start : start + size], where=rows_RV > 0)
    return out_RV


def _draws(bits: np.random.Philox, num_resamples: int, num_groups: int) -> F64:
    """Return how often each resample drew each group: float64[R, G], each row summing to G."""
    raw = bits.random_raw(num_resamples * num_groups)
    drawn = (((raw >> np.uint64(32)) * np.uint64(num_groups)) >> np.uint64(32)).astype(np.int64)
    cell = drawn + np.repeat(np.arange(num_resamples) * num_groups, num_groups)
    flat = np.bincount(cell, minlength=num_resamples * num_groups)
    return flat.reshape(num_resamples, num_groups).astype(np.float64)
