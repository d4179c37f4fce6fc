"""Levels: what each task of a catalogue is used for. Reads the task table alone; `assignment` takes it from there.

Parts of the plan speak in this order; what an earlier one has said of a task stands, and two levels for one task are an error.

1. `exclude`: the task takes no part.
2. `held_out`: of the categories named, and `num_categories` more that the seed draws among those of benchmark tasks that
   nothing else names, no task is trained; those that `held_out.tasks` chooses are evaluated, the others take no part.
   `categories` puts tasks into a category of the plan's own first.
3. `partial` and `supervised`: the tasks that they name.
4. `partial_categories`: of each, the families of smallest hash, all tasks of a family together. Families with a task at a
   level already are not drawn.
5. Variants: a task of the same family as a held-out or partial one is not trained (OPT-IML section 2.3; ANLI's rounds,
   MNLI's two halves, one data set in several benchmarks), unless it is at a level itself, or `variants: decide`.
6. `train`: those of the rest that `train.tasks` chooses; of their categories the `num_categories` with most tasks, `forced`
   ones first and counted; of these tasks the `num_tasks` of smallest hash, variants side by side. Supervised tasks are always
   in, beside the number. Reasoning, pre-training, dialogue and chat tasks are neither drawn nor counted: the mixture gives
   them shares of their own.
7. `validation`: marks evaluated tasks that give examples to choose models by.

A partial task needs a trained task in its category. That is looked at before the draws of step 6, which are for studies of scale.

Tasks of a benchmark that the recipe extends keep their entries; see `pinned`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from taskmill.errors import RecipeError, did_you_mean
from taskmill.recipe import Plan
from taskmill.selectors import Facts, read_facts, select, unmatched
from taskmill.splits.planning.draws import draw_names, draw_tasks, largest_categories
from taskmill.splits.planning.pinned import trained_before, variants_out, without_draws
from taskmill.splits.planning.roles import EVALUATION_ROLES, TRAINING_ROLES, TaskPlan

_UNSEEN = ("held_out", "partial")
_AUXILIARY = frozenset({"reasoning", "pretraining", "dialogue", "chat"})


@dataclass(frozen=True)
class _Tasks:
    """The tasks of a catalogue with the facts that a plan asks for."""

    facts: Facts
    category: Mapping[str, str]
    """As the plan counts it."""

    def family(self, task: str) -> str:
        return self.facts[task]["family"][0] if self.facts[task]["family"] else task

    def is_benchmark(self, task: str) -> bool:
        return _AUXILIARY.isdisjoint(self.facts[task]["kind"])

    def only(self, tasks: Iterable[str]) -> Facts:
        return {task: self.facts[task] for task in tasks}

    def of(self, categories: Collection[str]) -> list[str]:
        return [task for task, category in self.category.items() if category in categories]


def plan_tasks(
    table: pa.Table,
    plan: Plan,
    seed: int = 0,
    optional: Collection[str] = frozenset(),
    pinned: Mapping[str, TaskPlan] | None = None,
) -> list[TaskPlan]:
    """Give every task its level and role.

    Args:
        table: the task table, with `selectors.TASK_COLUMNS`.
        plan: the recipe's section, its layout joined.
        seed: of the run; only draws look at it.
        optional: selectors and categories that may fit no task, such as those of a layout.
        pinned: task -> the entry that holds whatever the plan says.

    Returns:
        One entry a task, sorted by task id.

    Raises:
        RecipeError: selectors or categories that fit nothing, tasks named at two levels, draws of more than there is, a
            partial task whose category trains nothing.
    """
    pinned = pinned or {}
    facts = read_facts(table)
    category, problems = _categories(facts, plan)
    tasks, plan = _Tasks(facts, category), without_draws(plan, category, pinned)
    problems += _unknown(tasks, plan, optional)
    drawn, more = _drawn_categories(tasks, plan, seed)
    entries, conflicts = _claimed(tasks, plan, drawn, pinned)
    _raise([*problems, *more, *trained_before(entries, category, pinned), *_shortened(conflicts)])
    entries, problems = _divided(tasks, entries, plan, seed)
    _raise(problems)
    entries = variants_out(entries, tasks.family, plan, pinned)
    candidates, out = _candidates(tasks, entries, plan)
    entries |= out
    _raise(_shortened(_untrained(tasks, entries, candidates, pinned)))
    chosen, problems = _trained(tasks, entries, candidates, plan, seed, optional)
    _raise(problems)
    entries, problems = _marked(tasks, entries | chosen, plan, optional)
    _raise(problems)
    entries |= pinned
    return [entries[task] for task in facts]


def _raise(problems: list[str]) -> None:
    if problems:
        raise RecipeError(problems)


def _shortened(problems: list[str], most: int = 20) -> list[str]:
    """Return the first problems and how many more there are: one selector can name thousands of tasks."""
    more = len(problems) - most
    return problems if more <= 0 else [*problems[:most], f"plan: and {more} more tasks with such a problem"]


# --------------------------------------------------------------------------------------- categories


def _categories(facts: Facts, plan: Plan) -> tuple[dict[str, str], list[str]]:
    """Return task -> its category in this plan, and a line for each task that two of the plan's own claim."""
    category = {task: row["category"][0] if row["category"] else "" for task, row in facts.items()}
    own, problems = dict[str, str](), []
    for name, selectors in plan.categories.items():
        for task in select(facts, selectors):
            if task in own:
                problems.append(
                    f"plan.categories: {task!r} is in both {own[task]!r} and {name!r}; expected one"
                )
            own[task] = name
    return category | own, _shortened(problems)


def _unknown(tasks: _Tasks, plan: Plan, optional: Collection[str]) -> list[str]:
    """Return a line for each category and selector of the plan that fits nothing."""
    names = set(tasks.category.values())
    lists = {
        "held_out.categories": plan.held_out.categories,
        "partial_categories.categories": plan.partial_categories.categories,
        "train.forced": plan.train.forced,
    }
    problems = [
        f"plan.{key}: no task has the category {name!r}{did_you_mean(name, names)}; the {len(tasks.facts)} tasks "
        f"have {len(names)} categories (`taskmill inspect RUN curate` lists them)"
        for key, wanted in lists.items()
        for name in wanted
        if name not in names and name not in optional
    ]
    both = sorted({*plan.held_out.categories} & {*plan.partial_categories.categories, *plan.train.forced})
    problems += [
        f"plan: the category {name!r} is held out and also under partial_categories or train.forced; expected one"
        for name in both
    ]
    held_out = tasks.only(tasks.of(plan.held_out.categories))
    if held_out:
        chosen = plan.held_out.tasks
        problems += unmatched(
            "plan.held_out.tasks", chosen, held_out, "tasks of held-out categories", optional
        )
    for key in ("partial", "supervised", "exclude"):
        problems += unmatched(f"plan.{key}", getattr(plan, key), tasks.facts, "tasks", optional)
    for name, selectors in plan.categories.items():
        problems += unmatched(f"plan.categories.{name}", selectors, tasks.facts, "tasks", optional)
    return problems


def _drawn_categories(tasks: _Tasks, plan: Plan, seed: int) -> tuple[list[str], list[str]]:
    """Return the categories that the seed holds out, and the problem where there are too few to draw from."""
    num = plan.held_out.num_categories
    if not num:
        return [], []
    named = {*plan.held_out.categories, *plan.partial_categories.categories, *plan.train.forced}
    at_level = select(tasks.facts, [*plan.partial, *plan.supervised])
    named |= {tasks.category[task] for task in at_level}
    free = {tasks.category[task] for task in tasks.facts if tasks.is_benchmark(task)} - named
    if num > len(free):
        problem = (
            f"plan.held_out.num_categories: found {num}; only {len(free)} categories of benchmark tasks are named "
            f"nowhere else in plan"
        )
        return [], [problem]
    return draw_names(num, seed, "held-out categories", free), []


# ------------------------------------------------------------------------------------------- levels


def _claimed(
    tasks: _Tasks, plan: Plan, drawn: Sequence[str], pinned: Mapping[str, TaskPlan]
) -> tuple[dict[str, TaskPlan], list[str]]:
    """Return the pinned entries and those that steps 1 to 3 name, and a line for each task named at two levels."""
    held_out = {*plan.held_out.categories, *drawn}
    excluded = select(tasks.facts, plan.exclude)
    chosen = select(tasks.only(tasks.of(held_out)), plan.held_out.tasks)
    partial, supervised = select(tasks.facts, plan.partial), select(tasks.facts, plan.supervised)
    entries, conflicts = dict(pinned), []
    for task, category in tasks.category.items():
        if task in pinned:
            continue
        found = []
        if category in held_out:
            found.append(_held_out_entry(task, category, chosen.get(task), category in drawn))
        if task in partial:
            why = (
                f"plan.partial names it ({partial[task]}): category {category!r} is trained, this task is not"
            )
            found.append(TaskPlan(task, "partial", "eval", why))
        if task in supervised:
            why = f"plan.supervised names it ({supervised[task]}): trained, and evaluated on other examples"
            found.append(TaskPlan(task, "supervised", "both", why))
        if task in excluded:
            found = [TaskPlan(task, None, "excluded", f"plan.exclude names it ({excluded[task]})")]
        if len(found) > 1:
            where = [entry.level or f"held-out category {category!r}" for entry in found]
            conflicts.append(
                f"plan: the task {task!r} is asked for as {' and as '.join(where)}; name it once"
            )
        if found:
            entries[task] = found[0]
    return entries, conflicts


def _held_out_entry(task: str, category: str, selector: str | None, drawn: bool) -> TaskPlan:
    held = f"its category {category!r} is held out{' (drawn by the seed)' if drawn else ''}"
    if selector is None:
        return TaskPlan(task, None, "excluded", f"{held} and plan.held_out.tasks does not choose it")
    return TaskPlan(task, "held_out", "eval", f"{held}; chosen by {selector}")


def _divided(
    tasks: _Tasks, entries: Mapping[str, TaskPlan], plan: Plan, seed: int
) -> tuple[dict[str, TaskPlan], list[str]]:
    """Add the tasks that partial categories give to evaluation."""
    found, problems = dict(entries), []
    num = plan.partial_categories.num_tasks
    at_level = {tasks.family(task) for task, entry in entries.items() if entry.level}
    for name in plan.partial_categories.categories:
        free = [task for task in tasks.of([name]) if task not in entries]
        families = {tasks.family(task) for task in free} - at_level
        if free and num >= len(families):
            problems.append(
                f"plan.partial_categories: {num} of {name!r} are to be evaluated, but only {len(families)} families are "
                f"at no other level, and one must be left to training"
            )
        drawn = set(draw_names(num, seed, "partial families", families))
        why = f"drawn by the seed: category {name!r} is trained, the family {{!r}} is not"
        found |= {
            task: TaskPlan(task, "partial", "eval", why.format(tasks.family(task)))
            for task in free
            if tasks.family(task) in drawn
        }
    return found, problems


# --------------------------------------------------------------------------------------------- train


def _candidates(
    tasks: _Tasks, entries: Mapping[str, TaskPlan], plan: Plan
) -> tuple[dict[str, str], dict[str, TaskPlan]]:
    """Return task -> why for those that may be trained, and the entries of those that step 5 or `train.tasks` leaves out."""
    unseen = dict[str, TaskPlan]()
    for entry in entries.values():
        if entry.level in _UNSEEN:
            unseen.setdefault(tasks.family(entry.task), entry)
    rest = [task for task in tasks.facts if task not in entries]
    chosen = select(tasks.only(rest), plan.train.tasks)
    may, out = dict[str, str](), dict[str, TaskPlan]()
    for task in rest:
        variant = unseen.get(tasks.family(task))
        if variant and plan.variants == "exclude":
            why = f"a variant of {variant.task!r} (family {tasks.family(task)!r}), which is {variant.level}"
            out[task] = TaskPlan(task, None, "excluded", why)
        elif task not in chosen:
            out[task] = TaskPlan(task, None, "excluded", "plan.train.tasks does not choose it")
        elif chosen[task] == "*":
            may[task] = "named nowhere in plan: trained on"
        else:
            may[task] = f"plan.train.tasks names it ({chosen[task]}): trained on"
    return may, out


def _untrained(
    tasks: _Tasks,
    entries: Mapping[str, TaskPlan],
    candidates: Mapping[str, str],
    pinned: Mapping[str, TaskPlan],
) -> list[str]:
    """Return a line for each partial task that is not pinned and whose category trains no task."""
    trained = {tasks.category[task] for task in candidates}
    trained |= {tasks.category[task] for task, entry in entries.items() if entry.role in TRAINING_ROLES}
    return [
        f"plan.partial: {entry.task!r} is the level of seen categories, but no task of its category "
        f"{tasks.category[entry.task]!r} is trained; hold the category out, or leave one of its tasks to training"
        for _, entry in sorted(entries.items())
        if entry.level == "partial" and tasks.category[entry.task] not in trained and entry.task not in pinned
    ]


def _trained(
    tasks: _Tasks,
    entries: Mapping[str, TaskPlan],
    candidates: Mapping[str, str],
    plan: Plan,
    seed: int,
    optional: Collection[str],
) -> tuple[dict[str, TaskPlan], list[str]]:
    """Return the entries of all candidates: trained, or not drawn by `train.num_categories` or `train.num_tasks`."""
    train, problems, out = plan.train, list[str](), dict[str, str]()
    drawable = [task for task in candidates if tasks.is_benchmark(task)]
    if train.num_categories is not None:
        supervised = [task for task, entry in entries.items() if entry.role == "both"]
        counted = [tasks.category[task] for task in (*drawable, *supervised)]
        forced = [name for name in train.forced if name in counted or name not in optional]
        problems += _too_many_categories(train.num_categories, set(counted), forced)
        kept = largest_categories(train.num_categories, counted, forced)
        why = f"its category is not among the {train.num_categories} that plan.train.num_categories leaves"
        out |= {task: why for task in drawable if tasks.category[task] not in kept}
        drawable = [task for task in drawable if task not in out]
    if train.num_tasks is not None:
        if train.num_tasks > len(drawable):
            problems.append(
                f"plan.train.num_tasks: found {train.num_tasks}; only {len(drawable)} benchmark tasks can be trained, "
                f"beside the supervised ones"
            )
        drawn = draw_tasks(train.num_tasks, seed, {task: tasks.family(task) for task in drawable})
        why = f"not among the {train.num_tasks} tasks that the seed draws for plan.train.num_tasks"
        out |= {task: why for task in drawable if task not in drawn}
    found = {
        task: TaskPlan(task, None, "excluded", out[task])
        if task in out
        else TaskPlan(task, None, "train", why)
        for task, why in candidates.items()
    }
    return found, problems


def _too_many_categories(num: int, categories: set[str], forced: Sequence[str]) -> list[str]:
    problems = [
        f"plan.train.forced: the category {name!r} has no task that can be trained"
        for name in forced
        if name not in categories
    ]
    if not len(forced) <= num <= len(categories):
        limits = f"from {len(forced)} (the forced ones) to {len(categories)} (all that can be trained)"
        problems.append(f"plan.train.num_categories: found {num}; expected a number {limits}")
    return problems


def _marked(
    tasks: _Tasks, entries: dict[str, TaskPlan], plan: Plan, optional: Collection[str]
) -> tuple[dict[str, TaskPlan], list[str]]:
    """Mark the evaluated tasks that `validation` chooses."""
    evaluated = tasks.only(task for task in tasks.facts if entries[task].role in EVALUATION_ROLES)
    wanted = plan.validation.tasks
    problems = unmatched("plan.validation.tasks", wanted, evaluated, "evaluated tasks", optional)
    note = f"at most {plan.validation.max_examples} examples choose models"
    marked = {
        task: replace(entries[task], why=f"{entries[task].why}; {note} ({selector})", is_validation=True)
        for task, selector in select(evaluated, wanted).items()
    }
    return entries | marked, problems
