"""What the plan itself costs, before any pair is judged: the price of every category held out and of every evaluation task.

Reads the leak graph and the overlapping pairs; writes nothing. Two tasks are *tied* when both are made from one data set,
or SAME_SOURCE of one's examples share text with the other (frequent text apart) or are near-duplicates of the other's:
they cannot stand on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from taskmill.splits.suggesting.cover import minimum_cover
from taskmill.splits.suggesting.graph import LeakGraph
from taskmill.splits.suggesting.suggest import FEWEST, SAME_SOURCE

Tie = tuple[str, str]


def ties(graph: LeakGraph, aliases: Iterable[Tie] = ()) -> dict[Tie, str]:
    """Return (task, task), in both orders, -> why they count as one source: `same_dataset`, `alias` or `contained`."""
    sizes = np.column_stack([graph.num_examples[graph.first], graph.num_examples[graph.second]])
    contained = (graph.touched_rare >= SAME_SOURCE * sizes).any(axis=1)
    contained &= (graph.touched_rare >= FEWEST).all(axis=1)
    contained |= graph.num_near_duplicates >= np.maximum(SAME_SOURCE * sizes.min(axis=1), FEWEST)
    found: dict[Tie, str] = {}
    for row in np.flatnonzero(contained | graph.same_dataset).tolist():
        a, b = graph.tasks[graph.first[row]], graph.tasks[graph.second[row]]
        found[a, b] = found[b, a] = "same_dataset" if graph.same_dataset[row] else "contained"
    for a, b in aliases:
        for tie in ((a, b), (b, a)):
            if found.get(tie) != "same_dataset":
                found[tie] = "alias"
    return found


@dataclass
class CategoryPrice:
    """What it costs to hold a category out."""

    category: str
    planned: str
    """What the plan makes of its tasks: `held_out`, `partial`, `supervised`, several of these, or nothing."""
    num_tasks: int = 0
    num_examples: int = 0
    """Of its own tasks: evaluated or left out, never trained on."""
    tied: dict[str, str] = field(default_factory=dict)
    """Task of another category -> why it would have to be held out with it, or be excluded."""
    num_tied: int = 0
    """Examples of the tied tasks."""
    num_touched: int = 0
    """Examples of all other tasks that share text with it, frequent text apart; at most so many."""

    @property
    def total(self) -> int:
        """Examples that training loses."""
        return self.num_examples + self.num_tied + self.num_touched


def category_prices(
    graph: LeakGraph, found: Mapping[Tie, str], categories: Mapping[str, str], planned: Mapping[str, str]
) -> list[CategoryPrice]:
    """Return the price of every category, the cheapest first.

    Args:
        graph: the leak graph of the catalogue.
        found: as `ties` returns them.
        categories: task -> category.
        planned: task -> level, of the tasks that the plan evaluates.
    """
    prices: dict[str, CategoryPrice] = {}
    for number, task in enumerate(graph.tasks):
        price = prices.setdefault(categories[task], CategoryPrice(categories[task], ""))
        price.num_tasks += 1
        price.num_examples += int(graph.num_examples[number])
    for name, price in prices.items():
        levels = {
            planned[task] for task, category in categories.items() if category == name and task in planned
        }
        price.planned = ", ".join(sorted(levels))
    touched: dict[tuple[str, str], int] = {}
    for row in range(len(graph.first)):
        ends = graph.tasks[graph.first[row]], graph.tasks[graph.second[row]]
        for side, (task, other) in enumerate((ends, ends[::-1])):
            if categories[task] != categories[other]:
                key = categories[other], task
                if (task, other) in found:
                    prices[categories[other]].tied[task] = found[task, other]
                touched[key] = touched.get(key, 0) + int(graph.touched_rare[row, side])
    sizes = dict(zip(graph.tasks, graph.num_examples.tolist()))
    for (name, task), num in touched.items():
        if task in prices[name].tied:
            prices[name].num_tied += sizes[task]
        else:
            prices[name].num_touched += min(num, sizes[task])
    return sorted(prices.values(), key=lambda price: (price.total, price.category))


@dataclass(frozen=True)
class EvaluationPrice:
    """What one evaluation task, or one held-out category, costs in train tasks."""

    name: str
    num_evaluation: int
    alone: tuple[str, ...]
    """Train tasks that go for its sake alone."""
    num_train: int
    """Their train examples."""


def evaluation_prices(
    edges: Iterable[Tie],
    names: Mapping[str, str],
    num_train: Mapping[str, int],
    num_evaluation: Mapping[str, int],
) -> list[EvaluationPrice]:
    """Return what each evaluation task makes go alone, the dearest first; those that cost nothing are left out.

    Args:
        edges: (train task that goes, evaluation task for whose sake).
        names: evaluation task -> what it is counted as: itself, or its category.
        num_train: train examples of each train task, before any decision.
        num_evaluation: evaluation examples of each evaluation task.
    """
    causes: dict[str, set[str]] = {}
    for train, evaluation in edges:
        causes.setdefault(train, set()).add(names[evaluation])
    alone: dict[str, list[str]] = {}
    for train, found in sorted(causes.items()):
        if len(found) == 1:
            alone.setdefault(min(found), []).append(train)
    sizes = dict.fromkeys(names.values(), 0)
    for task, name in names.items():
        sizes[name] += num_evaluation[task]
    prices = [
        EvaluationPrice(name, sizes[name], tuple(tasks), sum(num_train[task] for task in tasks))
        for name, tasks in alone.items()
    ]
    return sorted(prices, key=lambda price: (-price.num_train, price.name))


def moves(edges: Iterable[Tie], categories: Mapping[str, str]) -> dict[str, list[str]]:
    """Return train task -> the evaluation tasks of other categories for whose sake it goes, both sorted."""
    found: dict[str, list[str]] = {}
    for train, evaluation in sorted(set(edges)):
        if categories[train] != categories[evaluation]:
            found.setdefault(train, []).append(evaluation)
    return found


@dataclass(frozen=True)
class Exchange:
    """An evaluation task that weighs less than the train tasks which go for its sake."""

    evaluation_task: str
    num_evaluation: int
    train_tasks: tuple[str, ...]
    """Those that could stay."""
    num_train: int


def exchanges(
    edges: Sequence[Tie],
    num_train: Mapping[str, int],
    num_evaluation: Mapping[str, int],
    weight: int,
    protected: Collection[str] = (),
) -> list[Exchange]:
    """Return what the cheapest vertex cover would drop on the evaluation side, the largest saving first.

    Args:
        edges: (train task that goes, evaluation task for whose sake).
        num_train: train examples of each train task.
        num_evaluation: evaluation examples of each evaluation task.
        weight: train examples that an evaluation example is worth.
        protected: tasks that stay.
    """
    left = {train: num_train[train] for train, _ in edges}
    right = {evaluation: weight * num_evaluation[evaluation] for _, evaluation in edges}
    never = 1 + sum(left.values()) + sum(right.values())
    left |= {task: never for task in left if task in protected}
    right |= {task: never for task in right if task in protected}
    gone_train, gone_eval = minimum_cover(edges, left, right)
    spared = dict[str, list[str]]()
    for train, evaluation in sorted(set(edges)):
        if train not in gone_train and evaluation in gone_eval:
            spared.setdefault(evaluation, []).append(train)
    found = [
        Exchange(task, num_evaluation[task], tuple(tasks), sum(num_train[t] for t in tasks))
        for task, tasks in spared.items()
    ]
    return sorted(found, key=lambda e: (weight * e.num_evaluation - e.num_train, e.evaluation_task))
