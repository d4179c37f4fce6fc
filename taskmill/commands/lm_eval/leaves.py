"""The tasks of the export, and where each stands in the hierarchy of scores.

A *leaf* is one task of the harness: a task's prompts of one variant under one number of shots that are answered in one way,
by ranking options or freely, and valued by one metric; mostly these are all of the variant's. A group of the harness averages
the leaves below it, whatever the groups between; so a leaf carries what it counts for in each group that it stands in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from taskmill.evaluation.aggregation.nodes import ALL, ALL_SHOTS, Place, climb, select

CATEGORY, LEVEL, BENCHMARK, EVERYTHING = "in_category", "in_level", "in_benchmark", "in_all"
"""Metrics of a leaf, each its score times its share of a group: what the groups' scores are means of."""


@dataclass(frozen=True, order=True)
class Leaf:
    """A task of the harness."""

    task: str
    variant: str
    shots: int
    ranked: bool
    metric: str


@dataclass
class Group:
    """A group of the harness."""

    scope: str
    """What the score of scores.parquet is called that it equals: scope, name and shots."""
    name: str
    shots: int
    metric: str
    leaves: list[Leaf] = field(default_factory=list)
    shares: dict[Leaf, float] = field(default_factory=dict)
    """What each leaf counts for; they sum to 1."""


Weights = dict[Leaf, float]


def groups_of(places: Mapping[str, Place], num_rows: Mapping[Leaf, int]) -> list[Group]:
    """Return every group with the share that each leaf has of its score: categories, benchmarks and levels, then all.

    Args:
        places: of each task.
        num_rows: prompts of each leaf.
    """
    by_shots = {}
    for shots in sorted({leaf.shots for leaf in num_rows}):
        tasks = sorted({leaf.task for leaf in num_rows if leaf.shots == shots})
        by_shots[shots] = climb({places[t]: _task(t, shots, num_rows) for t in tasks}, _mean)
    groups = [
        Group(scope, name, shots, metric, sorted(weights), weights)
        for shots, named in by_shots.items()
        for (scope, name), weights in sorted(named.items())
        for metric in [{"category": CATEGORY, "benchmark": BENCHMARK, "level": LEVEL}.get(scope)]
        if metric is not None
    ]
    everything = select(by_shots, _mean)[("level", ALL)]
    return [*groups, Group("level", ALL, ALL_SHOTS, EVERYTHING, sorted(everything), everything)]


def factors(groups: Iterable[Group]) -> dict[Leaf, dict[str, float]]:
    """Return what a leaf's score is multiplied by for each metric of groups.

    The harness takes the unweighted mean over the leaves of a group, so a share is multiplied by their number.
    """
    found: dict[Leaf, dict[str, float]] = {}
    for group in groups:
        for leaf, share in group.shares.items():
            found.setdefault(leaf, {})[group.metric] = share * len(group.leaves)
    return found


def corpora(leaves: Collection[Leaf]) -> set[Leaf]:
    """Return the leaves whose score is BLEU of a whole corpus: those of tasks that have no other metric beside it."""
    others = {(leaf.task, leaf.shots) for leaf in leaves if leaf.metric != "bleu"}
    return {leaf for leaf in leaves if (leaf.task, leaf.shots) not in others}


def _task(task: str, shots: int, num_rows: Mapping[Leaf, int]) -> Weights:
    """Return the shares of a task's leaves: equal ones for its variants, by prompts within a variant."""
    mine = {leaf: number for leaf, number in num_rows.items() if (leaf.task, leaf.shots) == (task, shots)}
    variants = {leaf.variant for leaf in mine}
    totals = {v: sum(number for leaf, number in mine.items() if leaf.variant == v) for v in variants}
    return {leaf: number / totals[leaf.variant] / len(variants) for leaf, number in mine.items()}


def _mean(parts: Sequence[Weights]) -> Weights:
    """Return the shares of the unweighted mean of scores that leaves have these shares of."""
    found: Weights = {}
    for part in parts:
        for leaf, share in part.items():
            found[leaf] = found.get(leaf, 0.0) + share / len(parts)
    return found
