"""Plan and assignment: every rule of the three levels, its errors, and what must never happen."""

from __future__ import annotations

import pytest
from catalogues import example_row, examples_table, task_row, tasks_table

from taskmill.errors import RecipeError
from taskmill.recipe import HeldOut, PartialCategories, Plan, Trained, Validation
from taskmill.splits.planning.assignment import plan_and_assign
from taskmill.splits.planning.levels import plan_tasks
from taskmill.splits.sharing.sides import is_labelled, is_output, outputs, sides

CATEGORIES = tasks_table(
    task_row(task, category)
    for task, category in {"a/qa1": "QA", "a/qa2": "QA", "a/te1": "TE", "b/te2": "TE", "b/sum": "SUM"}.items()
)


def row(
    task: str, name: str, upstream: str | None = None, group: int | None = None, label: object = 1
) -> dict:
    more = {"upstream_split": upstream} | ({} if group is None else {"group": group})
    return example_row(task, name, {"text": f"{task} {name}", "label": label}, [], **more)


def assigned(
    rows: list[dict], plan: Plan, category: str = "QA", seed: int = 0, more: list[dict] | None = None
):
    """The {name: split or (split, reason)} of the task a/qa1, beside a trained task of its category."""
    tasks = [task_row("a/qa1", category, output_fields=["label"]), task_row("a/qa2", "QA"), *(more or [])]
    examples = examples_table([*rows, row("a/qa2", "x", "train")])
    _, assignment = plan_and_assign(tasks_table(tasks), examples.to_batches(max_chunksize=3), plan, seed)
    found = {}
    for entry in assignment.to_pylist():
        if entry["task"] == "a/qa1":
            name = entry["example"].split("#")[1]
            found[name] = (entry["split"], entry["reason"]) if entry["reason"] else entry["split"]
    return found


def test_levels_and_roles_follow_the_plan():
    plan = Plan(HeldOut(("TE",), ("a/*",)), partial=("a/qa1",), supervised=("b/sum",))
    found = {entry.task: (entry.role, entry.level) for entry in plan_tasks(CATEGORIES, plan)}
    assert found == {
        "a/qa1": ("eval", "partial"),
        "a/qa2": ("train", None),
        "a/te1": ("eval", "held_out"),
        "b/te2": ("excluded", None),
        "b/sum": ("both", "supervised"),
    }
    assert all(entry.why for entry in plan_tasks(CATEGORIES, plan))
    excluded = plan_tasks(CATEGORIES, Plan(supervised=("a/qa*",), exclude=("a/qa2", "b/*")))[1]
    assert excluded.role == "excluded" and "plan.exclude" in excluded.why


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        (Plan(HeldOut(("TEE",))), ["no task has the category 'TEE' - did you mean 'TE'?", "5 tasks"]),
        (Plan(partial=("a/qa9",)), ["plan.partial", "'a/qa9'", "did you mean 'a/qa"]),
        (Plan(supervised=("x*",), exclude=("y*",)), ["plan.supervised", "plan.exclude"]),
        (Plan(HeldOut(("TE",), ("c/*",))), ["plan.held_out.tasks", "2 tasks of held-out categories"]),
        (Plan(HeldOut(("TE",)), partial=("a/te1",)), ["'a/te1'", "held_out and as partial"]),
        (
            Plan(HeldOut(("TE",), ("b/*",)), supervised=("a/te1",)),
            ["held-out category 'TE' and as supervised"],
        ),
        (Plan(partial=("b/sum",), supervised=("b/sum",)), ["partial and as supervised"]),
        (Plan(partial=("b/sum",)), ["no task of its category 'SUM' is trained"]),
        (Plan(partial=("a/qa*",)), ["'a/qa1'", "'a/qa2'", "no task of its category 'QA'"]),
    ],
)
def test_wrong_plans_are_explained(plan, wanted):
    with pytest.raises(RecipeError) as caught:
        plan_tasks(CATEGORIES, plan)
    assert all(text in str(caught.value) for text in wanted), str(caught.value)


# ---------------------------------------------------------------------------------------- selectors


def facts_of(task: str, category: str = "QA", **more: object) -> dict:
    return task_row(task, category) | more


SMALL = tasks_table(
    [
        facts_of("flan/anli_r1", "TE", dataset="anli", family="anli", languages=["English"]),
        facts_of("flan/anli_r2", "TE", dataset="anli", family="anli", languages=["English"]),
        facts_of("ni/task1", "TE", dataset="anli", family="anli", upstream_role="test"),
        facts_of("ni/task2", "QA", dataset="boolq", family="boolq", languages=["French", "English"]),
        facts_of("ni/task3", "QA", dataset="race", family="race", upstream_role="train"),
        facts_of("chat/one", "Chat", dataset="one", family="one", kind="chat", languages=["German"]),
    ]
)


def roles(plan: Plan, table=SMALL, seed: int = 0, **more) -> dict[str, str]:
    """Task -> its level or role."""
    return {entry.task: entry.level or entry.role for entry in plan_tasks(table, plan, seed, **more)}


@pytest.mark.parametrize(
    ("selector", "tasks"),
    [
        ("flan/*", "flan/anli_r1 flan/anli_r2"),
        ("benchmark=ni", "ni/task1 ni/task2 ni/task3"),
        ("category=T?", "flan/anli_r1 flan/anli_r2 ni/task1"),
        ("dataset=anli", "flan/anli_r1 flan/anli_r2 ni/task1"),
        ("family=boolq", "ni/task2"),
        ("upstream_role=test", "ni/task1"),
        ("upstream_role=*", "ni/task1 ni/task3"),
        ("language=Fr*", "ni/task2"),
        ("language=English", "flan/anli_r1 flan/anli_r2 ni/task2"),
        ("kind=chat", "chat/one"),
    ],
)
def test_selectors_of_ids_and_columns(selector, tasks):
    found = roles(Plan(exclude=(selector,)))
    assert {task for task, role in found.items() if role == "excluded"} == set(tasks.split())


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("dataset=boolk", "did you mean 'boolq'?"),
        ("datset=boolq", "'datset' is no column - did you mean 'dataset'?"),
        ("language=english", "did you mean 'English'?"),
        ("family=", "fits none of the 6 tasks"),
        ("fan/anli_r1", "did you mean 'flan/anli_r1'?"),
    ],
)
def test_selectors_that_fit_nothing_are_named_with_the_nearest(selector, wanted):
    for plan in (Plan(exclude=(selector,)), Plan(partial=(selector,)), Plan(supervised=(selector,))):
        with pytest.raises(RecipeError) as caught:
            plan_tasks(SMALL, plan)
        assert wanted in str(caught.value)
    held = Plan(HeldOut(("TE",), (selector,)))
    with pytest.raises(RecipeError, match=r"plan\.held_out\.tasks"):
        plan_tasks(SMALL, held)
    with pytest.raises(RecipeError, match=r"plan\.validation\.tasks"):
        plan_tasks(SMALL, Plan(supervised=("ni/task3",), validation=Validation((selector,))))
    assert roles(Plan(exclude=(selector,)), optional={selector}) == roles(Plan())


def test_a_category_of_the_plans_own_takes_its_tasks_from_theirs():
    plan = Plan(HeldOut(("Ours",), ("flan/*",)), categories={"Ours": ("dataset=anli", "ni/task3")})
    found = roles(plan)
    assert found == {
        "chat/one": "train",
        "flan/anli_r1": "held_out",
        "flan/anli_r2": "held_out",
        "ni/task1": "excluded",
        "ni/task2": "train",
        "ni/task3": "excluded",
    }
    both = Plan(categories={"A": ("ni/*",), "B": ("dataset=race",)})
    with pytest.raises(RecipeError, match="'ni/task3' is in both 'A' and 'B'"):
        plan_tasks(SMALL, both)
    with pytest.raises(RecipeError, match=r"plan\.categories\.A: the selector 'x' fits none"):
        plan_tasks(SMALL, Plan(categories={"A": ("x",)}))


# ------------------------------------------------------------------------------------------ variants


def test_variants_of_what_is_evaluated_are_not_trained():
    more = tasks_table([*SMALL.to_pylist(), facts_of("ni/task4", "TE")])
    plan = Plan(partial=("flan/anli_r1",))
    found = {entry.task: entry for entry in plan_tasks(more, plan)}
    assert [found[task].role for task in ("flan/anli_r2", "ni/task1")] == ["excluded", "excluded"]
    assert "'flan/anli_r1' (family 'anli')" in found["ni/task1"].why and "partial" in found["ni/task1"].why
    assert roles(Plan(partial=("flan/anli_r1",), variants="decide"), more)["ni/task1"] == "train"
    kept = roles(Plan(partial=("flan/anli_r1",), supervised=("ni/task1",)), more)
    assert (kept["ni/task1"], kept["flan/anli_r2"]) == ("supervised", "excluded")
    assert roles(Plan(supervised=("flan/anli_r1",)), more)["flan/anli_r2"] == "train"
    with pytest.raises(RecipeError, match="no task of its category 'TE' is trained"):
        plan_tasks(SMALL, plan)


# --------------------------------------------------------------------------------------------- draws


def wide(num: int = 60, sizes: int = 3) -> list[dict]:
    """Tasks of 12 categories of unlike sizes, in families of up to three."""
    return [
        facts_of(f"b/t{i:03d}", f"C{int(i**0.5):02d}", family=f"f{i // sizes}", kind="benchmark")
        for i in range(num)
    ]


def test_numbers_of_held_out_categories_are_drawn_and_nested():
    table = tasks_table([*wide(), facts_of("chat/one", "Chat", kind="chat")])
    previous: set[str] = set()
    for num in (1, 2, 4, 6):
        entries = plan_tasks(table, Plan(HeldOut(num_categories=num), partial=("b/t037",)), seed=5)
        held = {entry.why.split("'")[1] for entry in entries if entry.level == "held_out"}
        assert len(held) == num and previous < held
        assert not held & {"Chat", "C06"}, "auxiliary text and named categories are not drawn"
        previous = held
    with pytest.raises(RecipeError, match="only 7 categories of benchmark tasks are named nowhere else"):
        plan_tasks(table, Plan(HeldOut(num_categories=8), partial=("b/t037",)))


def test_partial_categories_give_whole_families_to_evaluation():
    table = tasks_table(wide())
    names = {row["task"]: row["family"] for row in table.to_pylist()}
    previous: set[str] = set()
    for num in (1, 2, 3):
        parts = PartialCategories(("C07",), num)
        found = roles(Plan(partial_categories=parts), table)
        partial = {task for task, level in found.items() if level == "partial"}
        families = {names[task] for task in partial}
        assert len(families) == num and previous < partial
        assert all(found[task] != "train" for task, family in names.items() if family in families)
        assert all(task in partial for task in names if names[task] in families and task[-3:] >= "049")
        previous = partial
    with pytest.raises(RecipeError, match="only 4 families are at no other level"):
        roles(Plan(partial_categories=PartialCategories(("C07",), 5)), table)


def test_train_tasks_are_drawn_nested_with_supervised_ones_beside():
    table = tasks_table([*wide(), facts_of("chat/one", "Chat", kind="chat")])
    families = {row["task"]: row["family"] for row in table.to_pylist()}
    previous: set[str] = set()
    for num in (4, 16, 50):
        found = roles(Plan(supervised=("b/t000",), train=Trained(num_tasks=num)), table)
        trained = {task for task, role in found.items() if role == "train"}
        assert found["b/t000"] == "supervised" and found["chat/one"] == "train"
        assert len(trained) == num + 1 and previous < trained
        counts = [
            sum(families[task] == family for task in trained) for family in {*families.values()} - {"f0", ""}
        ]
        assert sorted(counts).count(3) >= num // 3 - 1, "variants come together"
        previous = trained
    with pytest.raises(RecipeError, match="found 61; only 59 benchmark tasks can be trained"):
        roles(Plan(supervised=("b/t000",), train=Trained(num_tasks=61)), table)


def test_largest_categories_come_first_and_forced_ones_count():
    table = tasks_table([*wide(), facts_of("chat/one", "Chat", kind="chat")])

    def trained(num: int, forced: tuple[str, ...] = ()) -> set[str]:
        entries = roles(Plan(train=Trained(num_categories=num, forced=forced)), table)
        categories = {row["task"]: row["category"] for row in table.to_pylist()}
        return {categories[task] for task, role in entries.items() if role == "train"}

    assert trained(1) == {"C06", "Chat"} and trained(2) == {
        "C06",
        "C05",
        "Chat",
    }  # C07 is cut short at 60 tasks
    assert trained(2, ("C00",)) == {"C06", "C00", "Chat"}
    assert trained(8) == {*(f"C{i:02d}" for i in range(8)), "Chat"}
    for num, forced, wanted in [
        (9, (), "from 0 (the forced ones) to 8"),
        (1, ("C00", "C01"), "from 2 (the forced ones) to 8"),
        (2, ("C0",), "no task has the category 'C0' - did you mean"),
        (2, ("Chat",), "'Chat' has no task that can be trained"),
    ]:
        with pytest.raises(RecipeError) as caught:
            trained(num, forced)
        assert wanted in str(caught.value)


def test_train_selectors_leave_the_others_out():
    found = {entry.task: entry for entry in plan_tasks(SMALL, Plan(train=Trained(("ni/*", "kind=chat"))))}
    assert {task for task, entry in found.items() if entry.role == "train"} == {
        "ni/task1",
        "ni/task2",
        "ni/task3",
        "chat/one",
    }
    assert "plan.train.tasks does not choose it" in found["flan/anli_r1"].why


# ---------------------------------------------------------------------------------------- validation


def subset(rows: list[dict], **settings: object) -> dict:
    return assigned(rows, Plan(partial=("a/qa1",), validation=Validation(("a/*",), **settings)))


def test_validation_takes_whole_groups_up_to_the_maximum():
    rows = [row("a/qa1", f"{i:03d}", "test", i // 7) for i in range(70)]
    found = subset(rows, max_examples=30)
    chosen = {int(name) // 7 for name, split in found.items() if split == "validation"}
    assert len(chosen) == 4 and sorted(found.values()).count("validation") == 28
    assert sorted(found.values()).count("test") == 42
    rest = subset(rows, max_examples=30, rest="exclude")
    assert {name for name, split in rest.items() if split == "validation"} == {
        name for name, split in found.items() if split == "validation"
    }
    assert list(rest.values()).count(("excluded", "unused_test")) == 42
    half = subset(rows, max_examples=1000)
    assert sorted(half.values()).count("validation") == 35, "half stays test"
    assert set(subset(rows, max_examples=1000, rest="exclude").values()) == {"validation"}


def test_validation_skips_groups_that_are_too_large():
    rows = [row("a/qa1", f"{i:02d}", "test", min(i, 3)) for i in range(20)]
    found = subset(rows, max_examples=2)
    assert sorted(found.values()).count("validation") == 2
    assert all(found[f"{i:02d}"] == "test" for i in range(3, 20))


def test_validation_of_a_supervised_task_is_upstreams_where_it_has_one():
    rows = [row("a/qa1", f"v{i}", "validation", i) for i in range(10)]
    rows += [row("a/qa1", f"t{i}", "test", 100 + i) for i in range(9)] + [
        row("a/qa1", "s", "validation", 100)
    ]
    rows += [row("a/qa1", "train", "train", 200)]
    plan = Plan(supervised=("a/qa1",), validation=Validation(("a/qa1",), 4))
    found = assigned(rows, plan)
    assert sorted(map(str, found.values())).count("validation") == 4
    assert list(found.values()).count(("excluded", "unused_validation")) == 6
    assert found["s"] == ("excluded", "group") and all(found[f"t{i}"] == "test" for i in range(9))


@pytest.mark.parametrize(
    ("groups", "more", "wanted"),
    [
        ([1] * 5, {}, "its 5 test examples are one group"),
        ([1] * 5 + [2] * 5, {"max_examples": 4}, "its smallest group of examples that share text has 5"),
        ([1] * 5, {"max_examples": 4, "rest": "exclude"}, "has 5"),
    ],
)
def test_tasks_that_cannot_give_validation_are_named(groups, more, wanted):
    rows = [row("a/qa1", f"{i}", "test", group) for i, group in enumerate(groups)]
    with pytest.raises(RecipeError) as caught:
        subset(rows, **more)
    assert wanted in str(caught.value) and "a/qa1" in str(caught.value)


# -------------------------------------------------------------------------------------------- errors


def test_all_problems_of_a_plan_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        plan_tasks(
            CATEGORIES, Plan(HeldOut(("nope",)), partial=("nope",), supervised=("nope",), exclude=("nope",))
        )
    assert len(caught.value.problems) == 4


def test_train_task():
    rows = [
        row("a/qa1", s or "none", s, g)
        for g, s in enumerate(["train", None, "validation", "test", "demonstration"])
    ]
    rows.append(row("a/qa1", "straddling", "validation", 0))
    assert assigned(rows, Plan()) == {
        "train": "train",
        "none": "train",
        "validation": "validation",
        "test": ("excluded", "unused_test"),
        "demonstration": "demonstration",
        "straddling": ("excluded", "group"),
    }


@pytest.mark.parametrize("plan", [Plan(partial=("a/qa1",)), Plan(HeldOut(("TE",)))])
def test_evaluation_task_with_labelled_test(plan):
    rows = [
        row("a/qa1", "test", "test", 1),
        row("a/qa1", "hidden", "test", 2, label=-1),
        row("a/qa1", "valid", "validation", 3),
        row("a/qa1", "train", "train", 4),
        row("a/qa1", "same", "train", 1),
        row("a/qa1", "shown", "demonstration", 5),
    ]
    category = "QA" if plan.partial else "TE"
    assert assigned(rows, plan, category) == {
        "test": "test",
        "hidden": ("excluded", "unlabelled"),
        "valid": ("excluded", "unused_validation"),
        "train": "demonstration",
        "same": ("excluded", "group"),
        "shown": "demonstration",
    }
    assert assigned([rows[0], rows[2]], plan, category) == {"test": "test", "valid": "demonstration"}


def test_validation_shown_beside_a_test_shares_no_group_with_it():
    rows = [
        row("a/qa1", "test", "test", 1),
        row("a/qa1", "same", "validation", 1),
        row("a/qa1", "valid", "validation", 2),
    ]
    expected = {"test": "test", "same": ("excluded", "group"), "valid": "demonstration"}
    assert assigned(rows, Plan(partial=("a/qa1",))) == expected


def test_validation_serves_as_test_where_test_has_no_labels():
    rows = [
        row("a/qa1", "test", "test", 1, label=None),
        row("a/qa1", "valid", "validation", 2, label=0),
        row("a/qa1", "train", "train", 3),
    ]
    expected = {"test": ("excluded", "unlabelled"), "valid": "test"}
    assert assigned(rows, Plan(partial=("a/qa1",))) == {**expected, "train": "demonstration"}
    assert assigned(rows, Plan(supervised=("a/qa1",))) == {**expected, "train": "train"}


def test_supervised_task_keeps_validation_beside_test():
    rows = [row("a/qa1", s, s, g) for g, s in enumerate(["train", "validation", "test"])]
    rows.append(row("a/qa1", "same", "train", 1))
    found = assigned(rows, Plan(supervised=("a/qa1",)))
    assert found == {
        "train": "train",
        "validation": "validation",
        "test": "test",
        "same": ("excluded", "group"),
    }


def test_carve_is_by_group_and_leaves_groups_with_demonstrations_to_training():
    rows = [row("a/qa1", f"{i:03d}", None, i // 4) for i in range(200)]
    rows += [row("a/qa1", f"d{i}", "demonstration", i) for i in range(10)]
    found = assigned(rows, Plan(supervised=("a/qa1",), carve_share=0.2))
    test = {name for name, split in found.items() if split == "test"}
    assert len(test) == 8 * 4  # a fifth of the 40 groups without demonstrations
    assert not {int(name) // 4 for name in test} & {
        int(name) // 4 for name, s in found.items() if s == "train"
    }
    assert all(found[f"d{i}"] == "demonstration" for i in range(10))
    assert found != assigned(rows, Plan(supervised=("a/qa1",), carve_share=0.2), seed=1)


def test_the_one_group_without_demonstrations_is_carved():
    rows = [row("a/qa1", f"{i}", None, i // 4) for i in range(12)]
    rows += [row("a/qa1", f"d{g}", "demonstration", g) for g in (0, 1)]
    found = assigned(rows, Plan(supervised=("a/qa1",)))
    assert {name for name, split in found.items() if split == "test"} == {"8", "9", "10", "11"}
    assert found["d0"] == found["d1"] == "demonstration"


def test_where_all_groups_hold_demonstrations_those_with_fewest_are_carved():
    rows = [row("a/qa1", f"{i}", None, i // 3) for i in range(12)]
    rows += [
        row("a/qa1", f"d{g}-{i}", "demonstration", g) for g in range(4) for i in range(1 if g == 2 else 2)
    ]
    found = assigned(rows, Plan(supervised=("a/qa1",)))
    assert {name for name, split in found.items() if split == "test"} == {"6", "7", "8"}
    assert found["d2-0"] == ("excluded", "group")
    assert all(found[f"d{g}-{i}"] == "demonstration" for g in (0, 1, 3) for i in range(2))


def test_a_giant_group_is_never_carved():
    rows = [
        row("a/qa1", f"{i}", None, max(i - 17, 0)) for i in range(20)
    ]  # 18 in group 0, one in each of two more
    for seed in range(6):
        found = assigned(rows, Plan(supervised=("a/qa1",), carve_share=0.9), seed=seed)
        assert {name for name, split in found.items() if split == "test"} == {"18", "19"}
    with pytest.raises(
        RecipeError, match=r"18 of 18 in one group of examples that share text.*plan\.partial"
    ):
        assigned(rows[:18], Plan(supervised=("a/qa1",)))


def test_all_but_demonstration_groups_are_evaluated_where_upstream_has_no_split():
    rows = [row("a/qa1", f"{i:03d}", None, i // 2) for i in range(200)]
    found = assigned(rows, Plan(partial=("a/qa1",)))
    demonstrations = {int(name) // 2 for name, split in found.items() if split == "demonstration"}
    assert len(demonstrations) == 32
    assert not demonstrations & {int(name) // 2 for name, split in found.items() if split == "test"}
    few = assigned(rows[:20], Plan(partial=("a/qa1",)))
    assert sorted(few.values()).count("test") == 10  # at most half of the groups
    shown = assigned([*rows, row("a/qa1", "d", "demonstration", 999)], Plan(partial=("a/qa1",)))
    assert {split for name, split in shown.items() if name != "d"} == {"test"}


@pytest.mark.parametrize(
    ("rows", "plan", "wanted"),
    [
        ([row("a/qa1", "1", "validation")], Plan(supervised=("a/qa1",)), "no example left to train on"),
        ([row("a/qa1", "1", "train")], Plan(supervised=("a/qa1",)), "no example left to test on"),
        (
            [row("a/qa1", "1", "test", label=-1)],
            Plan(partial=("a/qa1",)),
            "no labelled example (1 upstream test",
        ),
        ([], Plan(partial=("a/qa1",)), "no labelled example (no example)"),
    ],
)
def test_tasks_that_cannot_play_their_part_are_named(rows, plan, wanted):
    with pytest.raises(RecipeError, match="a/qa1") as caught:
        assigned(rows, plan)
    assert wanted in str(caught.value)


# -------------------------------------------------------------------------------------------- sides


def test_sides_keep_the_answer_apart():
    fields = {"question": "Q?", "answers": [{"text": "A", "start": 3}], "passage": "P"}
    assert sides(fields, ["ref"], ["o1", "o2"], ["answers.text"]) == (
        ["3", "P", "Q?", "o1", "o2"],
        ["ref", "A"],
    )
    assert is_output("answers.0.text", ["answers"]) and not is_output("answers_too", ["answers"])


@pytest.mark.parametrize(
    ("fields", "references", "labelled"),
    [
        ({"label": 1}, [], True),
        ({"label": 0}, [], True),
        ({"label": False}, [], True),
        ({"label": -1}, [], False),
        ({"label": None}, [], False),
        ({"label": ""}, [], False),
        ({"other": 1}, [], False),
        ({"label": {"text": ["a"]}}, [], True),
        ({"label": {"text": []}}, [], False),
        ({}, ["yes"], True),
        ({}, [" "], False),
    ],
)
def test_labelled_means_that_there_is_an_answer(fields, references, labelled):
    assert is_labelled(fields, references, ["label"]) is labelled


def test_outputs_agree_by_whole_or_by_any_reference():
    assert outputs(["Yes."], "Yes.\n1") & outputs(["no", "yes"], "no\nyes")
    assert outputs([], "a b") & outputs(["A", "B"], "A\nB")
    assert not outputs(["yes"], "yes") & outputs(["no"], "no")
    assert outputs([""], "") == set()
