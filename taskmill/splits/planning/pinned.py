"""The plan and the assignment of a benchmark that a recipe extends: they hold, and only tasks that were added are planned.

`PinnedPlan` comes from the published folder that `extends` names (see `splits.publishing.pins`). What was drawn for it is drawn:
its held-out categories stay held out, the partial families of its categories and the tasks that `train` drew stay as they are.
An added task is planned by the recipe, within three limits:

- it is not held out in a category that the extended benchmark trains (an error of the plan: only an addition can ask for it);
- it is not trained in a category that is held out there, nor as a variant of a task that is held out or partial there: the first
  four steps of `levels` see to that, since they know the pinned tasks;
- with `variants: exclude` it is not held out or partial as a variant of a task that is trained there; it takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from taskmill.recipe import Plan
from taskmill.splits.planning.roles import TRAINING_ROLES, TaskPlan

Texts = npt.NDArray[Any]


@dataclass(frozen=True)
class PinnedPlan:
    """What the plan and the assignment of the extended benchmark say; empty where nothing is extended."""

    entries: Mapping[str, TaskPlan] = field(default_factory=dict)
    """Task -> its plan."""
    places: Mapping[str, tuple[Texts, Texts]] = field(default_factory=dict)
    """Task -> (split, reason) of its examples by id, as `assignment.assign` returns them."""


NOTHING_PINNED = PinnedPlan()


def without_draws(plan: Plan, category: Mapping[str, str], pinned: Mapping[str, TaskPlan]) -> Plan:
    """Return the plan for what was added: what was drawn for the pinned tasks is named, and nothing is drawn again.

    Args:
        plan: the recipe's, its layout joined.
        category: task -> category as the plan counts it.
        pinned: the entries that hold; without any the plan stays as it is.
    """
    if not pinned:
        return plan
    known = {category[task] for task in pinned}
    held_out = sorted({category[task] for task, entry in pinned.items() if entry.level == "held_out"})
    divided = [name for name in plan.partial_categories.categories if name not in known]
    return replace(
        plan,
        held_out=replace(
            plan.held_out,
            categories=tuple(dict.fromkeys([*plan.held_out.categories, *held_out])),
            num_categories=0,
        ),
        partial_categories=replace(plan.partial_categories, categories=tuple(divided)),
        train=replace(plan.train, num_tasks=None, num_categories=None),
    )


def trained_before(
    entries: Mapping[str, TaskPlan], category: Mapping[str, str], pinned: Mapping[str, TaskPlan]
) -> list[str]:
    """Return a line for each category that is held out for an added task and trained by a pinned one."""
    trained = {category[task]: task for task, entry in pinned.items() if entry.role in TRAINING_ROLES}
    asked = {category[task] for task, entry in entries.items() if entry.level == "held_out"}
    return [
        f"plan.held_out.categories: the benchmark that this one extends trains the category {name!r} "
        f"({trained[name]!r}), so no task of it can be held out; name the tasks under plan.partial or plan.supervised"
        for name in sorted(asked & trained.keys())
    ]


def variants_out(
    entries: Mapping[str, TaskPlan], family: Callable[[str], str], plan: Plan, pinned: Mapping[str, TaskPlan]
) -> dict[str, TaskPlan]:
    """Return the entries; of added ones that are held out or partial, variants of a task trained before take no part."""
    found = dict(entries)
    if not pinned or plan.variants != "exclude":
        return found
    trained = {family(task): task for task, entry in pinned.items() if entry.role == "train"}
    for task, entry in entries.items():
        variant = trained.get(family(task))
        if variant and task not in pinned and entry.level in ("held_out", "partial"):
            why = f"a variant of {variant!r} (family {family(task)!r}), which the benchmark that this one extends trains"
            found[task] = replace(entry, level=None, role="excluded", why=why)
    return found
