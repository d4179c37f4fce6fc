"""Draws of a plan: which categories, families and tasks the seed chooses. Reads and writes nothing.

Everything is "those of smallest hash", where the hash is of the seed and the name alone: a larger number adds to what a
smaller one chose, and a task or category that comes or goes moves no other, unless the number makes room for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from taskmill.seeding import ranks, smallest


def draw_names(num: int, seed: int, purpose: str, names: Iterable[str]) -> list[str]:
    """Return the `num` names of smallest hash, sorted; all where there are fewer."""
    ordered = sorted(set(names))
    return [ordered[i] for i in smallest(num, seed, purpose, ordered)]


def draw_tasks(num: int, seed: int, families: Mapping[str, str]) -> set[str]:
    """Return `num` tasks, those of one family together: the smallest by (hash of the family, hash of the task).

    Args:
        num: tasks wanted; all where there are fewer.
        seed: of the run.
        families: task -> family.
    """
    tasks = sorted(families)
    by_family = ranks(seed, "train families", [families[task] for task in tasks]).tolist()
    by_task = ranks(seed, "train tasks", tasks).tolist()
    return {task for _, _, task in sorted(zip(by_family, by_task, tasks))[:num]}


def largest_categories(num: int, categories: Iterable[str], forced: Collection[str]) -> list[str]:
    """Return `num` categories: the forced ones, then those with most tasks, ties by name.

    Args:
        num: categories wanted, forced ones among them.
        categories: the category of each task.
        forced: categories that are always in, even if they are more than `num`.
    """
    counts = Counter(categories)
    rest = sorted(counts.keys() - set(forced), key=lambda name: (-counts[name], name))
    return [*forced, *rest[: max(num - len(forced), 0)]]
