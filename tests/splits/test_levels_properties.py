"""What must hold for the levels of any catalogue: disjoint, complete, stable when tasks come and go, nested draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import RecipeError
from taskmill.recipe import HeldOut, PartialCategories, Plan, Trained, Validation
from taskmill.records import SCHEMAS, SPLITS
from taskmill.selectors import TASK_COLUMNS
from taskmill.splits.planning.assignment import Rows, assign
from taskmill.splits.planning.levels import plan_tasks
from taskmill.splits.planning.roles import TaskPlan

THOUSAND = settings(max_examples=1000, deadline=None)
PARTS = ("train", "held_out", "unchosen", "partial", "supervised", "excluded")
CATEGORIES = ("SEEN", "ALSO", "HELD")
SCHEMA = pa.schema([SCHEMAS["tasks/tasks"].field(name) for name in TASK_COLUMNS])


@dataclass(frozen=True)
class Task:
    """A task of a small catalogue: what the plan makes of it, and its examples."""

    name: str
    part: str
    category: str
    family: str
    upstream: tuple[str | None, ...]
    group: tuple[int, ...]
    labelled: tuple[bool, ...]


def decode(numbers: list[int]) -> dict[str, tuple[Any, ...]]:
    """Return the columns of the examples that numbers below 70 stand for, and six that any part of a plan can use."""
    own = ("test" if sum(numbers) % 2 else None, "train")
    rows = [(UPSTREAM[n % 5], n // 5 % 7, n < 35) for n in numbers]
    rows += [(own[i % 2], 100 + i, True) for i in range(6)]
    return dict(zip(("upstream", "group", "labelled"), zip(*rows)))


def catalogue(drawn: list[tuple[int, list[int]]]) -> list[Task]:
    """Return tasks of every part, in few families; each seen category has one more that is trained."""
    tasks = []
    for number, (facts, numbers) in enumerate(drawn):
        part, family = PARTS[facts % 6], f"f{facts // 12}"
        held = part in ("held_out", "unchosen")
        category = "HELD" if held else CATEGORIES[facts // 6 % 2]
        tasks.append(Task(f"b/t{number}", part, category, family, **decode(numbers)))
    always = {"upstream": (None,), "group": (0,), "labelled": (True,)}
    return [*tasks, *(Task(f"b/z{name}", "train", name, f"own {name}", **always) for name in CATEGORIES[:2])]


UPSTREAM = (None, "train", "validation", "test", "demonstration")
NUMBERS = st.lists(st.integers(0, 69), max_size=7)
EXAMPLES = NUMBERS.map(decode)
CATALOGUES = st.lists(st.tuples(st.integers(0, 59), NUMBERS), min_size=1, max_size=5).map(catalogue)


def table_of(tasks: list[Task]) -> pa.Table:
    return small_table([(task.name, task.category, task.family) for task in tasks])


def small_table(tasks: list[tuple[str, str, str]]) -> pa.Table:
    """Return the columns of the task table that a plan looks at, of (task, category, family)."""
    names, found, families = (list(column) for column in zip(*tasks))
    same = {"benchmark": "b", "kind": "benchmark", "upstream_role": None, "languages": []}
    columns = {"task": names, "category": found, "dataset": families, "family": families}
    columns |= {name: [value] * len(names) for name, value in same.items()}
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def plan_of(tasks: list[Task], **more: Any) -> Plan:
    named = {part: tuple(task.name for task in tasks if task.part == part) for part in PARTS}
    held = any(task.category == "HELD" for task in tasks)
    chosen = named["held_out"] or ("none",)
    parts = {"partial": named["partial"], "supervised": named["supervised"], "exclude": named["excluded"]}
    return Plan(HeldOut(("HELD",) if held else (), chosen), **parts, **more)


def run(tasks: list[Task], plan: Plan, seed: int = 3) -> dict[str, tuple[TaskPlan, np.ndarray, np.ndarray]]:
    """Return task -> its entry, the split and the reason of each of its examples."""
    entries = {entry.task: entry for entry in plan_tasks(table_of(tasks), plan, seed, {"none"})}
    found = {}
    for task in tasks:
        rows = Rows(
            np.array(task.upstream, object), np.array(task.group, np.uint64), np.array(task.labelled, bool)
        )
        found[task.name] = (entries[task.name], *assign(entries[task.name], rows, plan, seed))
    return found


def placed(tasks: list[Task], plan: Plan) -> dict[str, list[list[Any]]]:
    return {name: [list(split), list(reason)] for name, (_, split, reason) in run(tasks, plan).items()}


@THOUSAND
@given(CATALOGUES, st.sampled_from(["test", "exclude"]), st.booleans())
def test_levels_are_disjoint_and_complete_and_variants_together(
    tasks: list[Task], rest: Any, has_validation: bool
) -> None:
    evaluated = [task.name for task in tasks if task.part in ("held_out", "partial", "supervised")]
    validation = Validation(tuple(evaluated) if has_validation else (), 5, rest)
    try:
        found = run(tasks, plan_of(tasks, validation=validation))
    except RecipeError as error:  # told only of tasks with too few groups to divide
        assert all("one group" in line or "smallest group" in line for line in error.problems)
        found = run(tasks, plan_of(tasks))
    sides: dict[str, set[tuple[str, int]]] = {"train": set(), "validation": set(), "test": set()}
    contents: dict[str, set[tuple[str, int]]] = {"train": set(), "validation": set(), "test": set()}
    for task in tasks:
        entry, split, reason = found[task.name]
        assert len(split) == len(task.group), "every example is placed, once"
        assert set(split) <= set(SPLITS)
        assert all((s == "excluded") == (r is not None) for s, r in zip(split, reason))
        for name, group in zip(split, task.group):
            if name in sides:
                sides[name].add((task.name, group))
                contents[name].add((task.name, group // 2 if group < 100 else group))
        if entry.is_validation:
            assert not {g for s, g in zip(split, task.group) if s == "validation"} & {
                g for s, g in zip(split, task.group) if s == "test"
            }
            assert 0 < sum(split == "validation") <= 5
            assert (split == "test").any() == (rest == "test")
    assert not sides["train"] & (sides["test"] | sides["validation"])
    trained, tested = ({task for task, _ in sides[name]} for name in ("train", "test"))
    levels = {name: entry.level for name, (entry, _, _) in found.items()}
    assert all(levels[task] == "supervised" for task in trained & tested)
    assert tested <= {task for task, level in levels.items() if level} == set(evaluated)
    held = {task.name for task in tasks if task.category == "HELD" and task.part != "supervised"}
    assert not trained & held, "nothing of a held-out category is trained"
    variants_are_together(tasks, found)


def variants_are_together(
    tasks: list[Task], found: dict[str, tuple[TaskPlan, np.ndarray, np.ndarray]]
) -> None:
    """Check that no family is both trained and evaluated as held out or partial, and that no other task is excluded."""
    unseen = {task.family for task in tasks if found[task.name][0].level in ("held_out", "partial")}
    for task in tasks:
        entry, split, _ = found[task.name]
        if entry.role == "train":
            assert task.family not in unseen
        elif entry.role == "excluded" and task.part == "train":
            assert task.family in unseen and "variant" in entry.why
            assert set(split) <= {"excluded"}


@THOUSAND
@given(CATALOGUES, EXAMPLES, st.sampled_from(PARTS), st.sampled_from(["b/a", "b/t3x", "c/z"]))
def test_a_task_that_comes_or_goes_moves_no_other_example(
    tasks: list[Task], more: dict[str, Any], part: str, name: str
) -> None:
    category = "HELD" if part in ("held_out", "unchosen") else "SEEN"
    before = placed(tasks, plan_of(tasks))
    added = [*tasks, Task(name, part, category, "its own", **more)]
    after = placed(added, plan_of(added))
    del after[name]
    assert after == before
    train = [task for task in tasks if task.part == "train" and not task.name.startswith("b/z")]
    fewer = [task for task in tasks if task not in train]
    assert placed(fewer, plan_of(fewer)) == {task.name: before[task.name] for task in fewer}


@st.composite
def many_tasks(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Return (task, category, family) of up to 16 tasks."""
    numbers, width = draw(st.sets(st.integers(0, 60), min_size=6, max_size=16)), draw(st.integers(4, 12))
    return [(f"b/t{i}", f"C{i % 4}", f"f{i % 4}-{i // width}") for i in numbers]


def drawn(tasks: list[tuple[str, str, str]], plan: Plan, seed: int) -> dict[str, TaskPlan]:
    return {entry.task: entry for entry in plan_tasks(small_table(tasks), plan, seed)}


@THOUSAND
@given(many_tasks(), st.integers(0, 5), st.data())
def test_draws_of_train_tasks_are_nested_and_stable(
    tasks: list[tuple[str, str, str]], seed: int, data: st.DataObject
) -> None:
    small, large = sorted(data.draw(st.tuples(*[st.integers(1, len(tasks))] * 2)))

    def trained(rows: list[tuple[str, str, str]], num: int) -> set[str]:
        found = drawn(rows, Plan(train=Trained(num_tasks=num)), seed)
        return {task for task, entry in found.items() if entry.role == "train"}

    assert trained(tasks, small) <= trained(tasks, large) and len(trained(tasks, small)) == small
    before = trained(tasks, small)
    after = trained([*tasks, ("b/new", "C0", "of its own")], small)
    assert len(before - after) <= 1 and after - before <= {"b/new"}
    families = {task: family for task, _, family in tasks}
    cut = [
        f
        for f in set(families.values())
        if 0 < sum(families[t] == f for t in before) < list(families.values()).count(f)
    ]
    assert len(cut) <= 1, "at most the last family is drawn in part"


@THOUSAND
@given(many_tasks(), st.integers(0, 5), st.integers(1, 3))
def test_draws_of_categories_and_families_are_nested(
    tasks: list[tuple[str, str, str]], seed: int, num: int
) -> None:
    names = sorted({category for _, category, _ in tasks})
    most = min(num, len(names) - 1)
    held, kept = (
        [
            {c for task, c, _ in tasks if (entry := found[task]).level == "held_out" or entry.role == role}
            for found in (drawn(tasks, plan(n), seed) for n in (most, most + 1) if n)
        ]
        for plan, role in (
            (lambda n: Plan(HeldOut(num_categories=n)), "eval"),
            (lambda n: Plan(train=Trained(num_categories=n)), "train"),
        )
    )
    for chosen in (held, kept):
        assert len(chosen[-1]) == most + 1 and all(part < chosen[-1] for part in chosen[:-1])
    families = {f for _, c, f in tasks if c == names[0]}
    previous = set[str]()
    for wanted in range(max(num - 1, 1), min(num, len(families) - 1) + 1):
        found = drawn(tasks, Plan(partial_categories=PartialCategories((names[0],), wanted)), seed)
        partial = {f for task, _, f in tasks if found[task].level == "partial"}
        assert previous < partial and len(partial) == wanted
        for task, category, family in tasks:
            role = found[task].level or found[task].role
            assert role == ("partial" if family in partial and category == names[0] else "train")
        previous = partial
