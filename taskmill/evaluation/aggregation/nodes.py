"""Scores as nodes of OPT-IML's hierarchy, and how means of means climb it (section 4.1, "model selection").

    variant -> task -> sub-task -> (benchmark, family) -> family -> category -> level -> all
                                                       \\-> benchmark -> (level by benchmarks) -> all

Every arrow is an unweighted mean, separately for each number of shots:

- *variant*: the predictions of one template of one task. Named `task::template`.
- *task*: a task of the catalogue; its variants.
- *sub-task*: the tasks of one benchmark and family that name the same sub-task; mostly there is one. No row of its own.
- *(benchmark, family)*: what the paper calls a task: all that one benchmark has of a family in a category, so MMLU's 57
  subjects, or the four kinds of Winobias, count once. No row of its own.
- *family*: the same across benchmarks (COPA in three of them). Named `level/category/family`.
- *category*: its families. Named `level/category`, since one category may stand at two levels.
- *benchmark*: the families that one benchmark has at a level. Named `level/benchmark`; beside categories, not above them.
- *level*: its categories.
- *selection*: the mean over levels of the mean over numbers of shots, one figure to choose a model by. What is asked
  0-shot only (summarization in the paper) is absent from the means of other numbers of shots, and counts in this one
  through the 0-shot mean alone. By categories it is the level `all`; by benchmarks, as the paper chose its mixture in
  section 4.3, the benchmark `all`; both with shots ALL_SHOTS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from taskmill.evaluation.aggregation.resampling import F64

SCOPES = ("variant", "task", "family", "category", "benchmark", "level")
ALL = "all"
"""Name of the selection score, among levels and among benchmarks."""
ALL_SHOTS = -1
"""`shots` of a score that is the mean over all numbers of shots."""

Key = tuple[str, str]
"""(scope, name)."""
T = TypeVar("T")
Mean = Callable[[Sequence[T]], T]


@dataclass(frozen=True)
class Estimate:
    """A mean and what resampling makes of it."""

    value: float
    samples_R: F64
    """float64[R]: the same mean in each resample; NaN where a resample drew none of its predictions."""
    num: int
    """Predictions below it."""


@dataclass(frozen=True)
class Node:
    """A score somewhere in the hierarchy: over all of its predictions, and over the clean ones."""

    full: Estimate
    clean: Estimate | None
    """Over the parts that have clean predictions; None where none has."""
    matched: float | None
    """The full value of these same parts: what the clean one is compared with."""
    num_clean: int
    """Clean predictions below it, also where `clean` is None."""
    metrics: frozenset[str]


@dataclass(frozen=True)
class Place:
    """Where a task stands in the hierarchy."""

    task: str
    family: str
    benchmark: str
    category: str
    level: str
    subtask: str | None = None


def mean_of_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean; parts that a resample lacks are left out of that resample.

    Raises:
        ValueError: no estimates.
    """
    if not estimates:
        raise ValueError("the mean of no scores")
    if len(estimates) == 1:
        return estimates[0]
    samples_NR = np.stack([estimate.samples_R for estimate in estimates])
    absent_NR = np.isnan(samples_NR)
    count_R = len(estimates) - absent_NR.sum(axis=0)
    samples_NR[absent_NR] = 0.0
    total_R = samples_NR.sum(axis=0)
    return Estimate(
        value=sum(estimate.value for estimate in estimates) / len(estimates),
        samples_R=np.divide(total_R, count_R, out=np.full(len(total_R), np.nan), where=count_R > 0),
        num=sum(estimate.num for estimate in estimates),
    )


def mean(nodes: Sequence[Node]) -> Node:
    """Return the unweighted mean of scores; its clean value is over the parts that have one.

    Raises:
        ValueError: no nodes.
    """
    full = mean_of_estimates([node.full for node in nodes])
    same = all(node.clean is node.full for node in nodes)
    clean = [node.clean for node in nodes if node.clean is not None]
    matched = [node.matched for node in nodes if node.matched is not None]
    return Node(
        full=full,
        clean=full if same else mean_of_estimates(clean) if clean else None,
        matched=sum(matched) / len(matched) if matched else None,
        num_clean=sum(node.num_clean for node in nodes),
        metrics=frozenset[str]().union(*(node.metrics for node in nodes)),
    )


def climb(tasks: Mapping[Place, T], average: Mean[T]) -> dict[Key, T]:
    """Return the scores of every scope from task to level, of tasks under one number of shots."""
    subtasks = _means(
        tasks.items(), lambda p: (p.level, p.category, p.family, p.benchmark, p.subtask or p.task), average
    )
    parts = _means(subtasks.items(), lambda key: key[:4], average)
    families = _means(parts.items(), lambda key: key[:3], average)
    categories = _means(families.items(), lambda key: key[:2], average)
    benchmarks = _means(parts.items(), lambda key: (key[0], key[3]), average)
    levels = _means(categories.items(), lambda key: key[:1], average)
    named: dict[Key, T] = {("task", place.task): node for place, node in tasks.items()}
    for scope, nodes in (
        ("family", families),
        ("category", categories),
        ("benchmark", benchmarks),
        ("level", levels),
    ):
        named.update({(scope, "/".join(key)): node for key, node in nodes.items()})
    return named


def select(by_shots: Mapping[int, Mapping[Key, T]], average: Mean[T]) -> dict[Key, T]:
    """Return the selection scores, by categories and by benchmarks, of what `climb` gave for each number of shots."""
    levels: dict[str, list[T]] = {}
    benchmarks: dict[str, list[T]] = {}
    for shots in sorted(by_shots):
        mine: dict[str, list[T]] = {}
        for (scope, name), node in sorted(by_shots[shots].items(), key=lambda item: item[0]):
            if scope == "level":
                levels.setdefault(name, []).append(node)
            elif scope == "benchmark":
                mine.setdefault(name.split("/", 1)[0], []).append(node)
        for level, nodes in mine.items():
            benchmarks.setdefault(level, []).append(average(nodes))
    return {
        (scope, ALL): average([average(parts[level]) for level in sorted(parts)])
        for scope, parts in (("level", levels), ("benchmark", benchmarks))
        if parts
    }


def _means(
    nodes: Iterable[tuple[Any, T]], above: Callable[[Any], tuple[str, ...]], average: Mean[T]
) -> dict[tuple[str, ...], T]:
    groups: dict[tuple[str, ...], list[tuple[Any, T]]] = {}
    for key, node in nodes:
        groups.setdefault(above(key), []).append((key, node))
    return {key: average([node for _, node in sorted(groups[key], key=_name)]) for key in sorted(groups)}


def _name(item: tuple[Any, Any]) -> tuple[str, ...]:
    key = item[0]
    return (key.task,) if isinstance(key, Place) else key
