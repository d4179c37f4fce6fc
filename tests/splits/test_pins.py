"""A benchmark that grows: small catalogues, drawn, split, published as tables, added to and split again on what is pinned.

Nothing of the first version moves or is asked again, whatever the added examples share with it; what is new is decided by the
same rules, and no added text is left where it would leak.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest
from catalogues import example_row, examples_table, task_row, tasks_table
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import RecipeError, UsageError
from taskmill.recipe import (
    HeldOut,
    NearDuplicates,
    Overlap,
    PartialCategories,
    Plan,
    Rule,
    Split,
    Trained,
    Validation,
    When,
)
from taskmill.records import ACTIONS, PUBLISHED
from taskmill.splits.deciding.decisions import Decision, Verdict, decide, read_pairs
from taskmill.splits.deciding.membership import train_sizes
from taskmill.splits.overlap import find_overlaps, make_catalogue
from taskmill.splits.planning.assignment import plan_and_assign
from taskmill.splits.planning.levels import plan_tasks
from taskmill.splits.planning.roles import TaskPlan
from taskmill.splits.publishing.pins import Pins, pins_of
from taskmill.splits.split import make_members, settle

Row = dict[str, Any]
OLD = {"a/docs": "DOC", "a/held": "TE", "a/part": "QA", "a/qa": "QA", "a/sup": "SUM"}
NEW = {"b/held": "TE", "b/part": "QA", "b/qa": "QA", "b/sup": "SUM", "b/far": "FAR"}
DATASETS = {"b/qa": "a/held", "b/part": "a/qa", "b/sup": "a/docs"}
"""Added tasks on data sets of the first version."""
PLAN = Plan(HeldOut(("TE",)), partial=("*/part",), supervised=("*/sup",), num_demonstration_groups=1)
OVERLAP = Overlap(n=3, frequent_groups=4, num_evidence=2, near_duplicates=NearDuplicates(0.6, 64))
RULES = (
    Rule("same", "drop_train_task", When(same_dataset=True, level=("held_out", "partial"), same_task=False)),
    Rule("supervised", "drop_train_examples", When(level=("supervised",), hit_fraction_rare_over=0.0)),
    Rule("frequent", "keep", When(hit_fraction_over=0.0, hit_fraction_rare_at_most=0.0)),
    Rule("tests", "drop_eval_examples", When(same_output_fraction_over=0.6)),
)
UPSTREAM = (None, "train", "train", "test", "test", "validation", "demonstration")
PHRASES = [[f"p{number}w{place}" for place in range(4)] for number in range(5)]
THRESHOLD = 0.2


def base_rows(tasks: Sequence[str]) -> list[Row]:
    """Two examples to train and two to test of every task, that share nothing."""
    return [
        example_row(task, f"z{i}", {"text": f"{task} {i} of its own"}, [f"{task} {i}"], upstream_split=split)
        for task in tasks
        for i, split in enumerate(("train", "train", "test", "test"))
    ]


def drawn_rows(tasks: Sequence[str], data: bytes) -> list[Row]:
    """Four bytes an example give its task, the phrases that it shares, its own words, its split and its answer."""
    rows = []
    for place in range(len(data) // 4):
        a, b, c, d = data[4 * place : 4 * place + 4]
        words = [*PHRASES[b % 5], *(PHRASES[b // 5 % 3] if b >= 64 else [])]
        words += [f"own{place}x{a}"] * (c % 3)  # without any it is a copy of others
        rows.append(
            example_row(
                tasks[a % len(tasks)],
                f"{place:02d}",
                {"text": " ".join(words)},
                [("yes", "no")[d % 2]],
                upstream_split=UPSTREAM[c // 3 % 7],
                group=d // 2 % 6,
            )
        )
    return rows


@dataclass
class Version:
    """A version of a benchmark: every table that is made of it."""

    tasks: pa.Table
    examples: pa.Table
    tables: dict[str, pa.Table]
    verdict: Verdict
    waiting: list[tuple[str, str]]
    """Pairs that a person was asked about."""

    def members(self) -> dict[str, Row]:
        return {row["example"]: row for row in self.tables["members"].to_pylist()}


def make(
    tasks: pa.Table,
    rows: list[Row],
    mode: str,
    actions: Sequence[str],
    pins: Pins | None = None,
    chosen: Plan = PLAN,
) -> Version:
    """Plan, compare, decide and split, as the stages do it; a person decides what the rules leave."""
    pins = pins or Pins()
    examples = examples_table(rows)
    plan, assignment = plan_and_assign(tasks, examples.to_batches(), chosen, 7, None, pins.plan)
    tables = find_overlaps(
        tasks, plan, assignment, examples.to_batches, OVERLAP, 1, pins.text if pins.root else None
    )
    pins.check_pairs(tables["pairs"])
    levels = dict(zip(plan["task"].to_pylist(), plan["level"].to_pylist()))
    pairs = read_pairs(tables["pairs"].to_pylist(), levels, train_sizes(plan, assignment))
    new = [pair for pair in pairs if not pins.decided.has(pair.tasks)]
    made, turn = pins.decided.made, pins.decided.turn
    asked = decide(new, [], RULES, THRESHOLD, False, made, turn).undecided
    people = []
    for pair in asked:
        may = [action for action in actions if action in pins.decided.open_actions(pair.tasks)] or ["keep"]
        chosen = may[hashlib.sha256(repr(pair.tasks).encode()).digest()[0] % len(may)]
        people.append(Decision(*pair.tasks, chosen, pair.evidence, "", "ann"))
    pins.decided.refuse(people, {pair.tasks: pair.evidence for pair in pairs}, "run")
    verdict = decide(new, people, RULES, THRESHOLD, False, made, turn)
    assert not verdict.undecided
    catalogue = make_catalogue(tasks, plan, assignment)
    batches = examples.select(["example", "task", "content"]).to_batches()
    members = pins.place(make_members(catalogue, plan, assignment, batches))
    categories = dict(zip(tasks["task"].to_pylist(), tasks["category"].to_pylist()))
    section = Split(THRESHOLD, RULES, None, mode)
    found = settle(members, plan, categories, assignment["group"], tables, section, verdict.decisions, pairs)
    found = pins.uphold(found)
    return Version(
        tasks,
        examples,
        {**tables, **found, "plan": plan, "assignment": assignment, "final": found["tasks"]},
        verdict,
        [pair.tasks for pair in asked],
    )


def published(version: Version) -> Pins:
    """Return what a version pins, from tables in the form in which they are published."""
    t = version.tables
    plan, final = t["plan"], t["final"]
    tasks = final.append_column("planned_level", plan["level"]).append_column("planned_role", plan["role"])
    tasks = tasks.append_column("planned_why", plan["why"])
    facts = version.examples.select(["file", "record"])
    ids = t["members"].append_column("assigned", t["assignment"]["split"])
    ids = ids.append_column("assigned_reason", t["assignment"]["reason"])
    content = pa.array([value.hex() for value in ids["content"].to_pylist()], pa.string())
    ids = ids.set_column(ids.schema.get_field_index("content"), "content", content)
    for name in facts.column_names:
        ids = ids.append_column(name, facts[name])
    evidence = pa.array([value.hex() for value in t["pairs"]["evidence"].to_pylist()], pa.string())
    pairs = t["pairs"].set_column(t["pairs"].schema.get_field_index("evidence"), "evidence", evidence)
    assert set(ids.column_names) <= set(PUBLISHED["ids"].names)
    named = {"tasks": tasks, "pairs": pairs, "decisions": t["decisions"]}
    named |= {
        "near_duplicates": t["near_duplicates"],
        "frequent": t["frequent"].select(["gram", "num_groups"]),
    }
    return pins_of("root", "v1", ids, named)


def tasks_of(categories: dict[str, str], same: bool) -> pa.Table:
    datasets = DATASETS if same else {}
    return tasks_table([task_row(t, c, datasets.get(t), []) for t, c in categories.items()])


# ------------------------------------------------------------------------------------------ properties


BYTES = st.binary(min_size=24, max_size=120)
ACTION = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3)
MODES = st.sampled_from(("keep", "drop_across", "drop"))


@settings(max_examples=80)
@given(BYTES, BYTES, st.booleans(), MODES, ACTION)
def test_what_is_there_stays_and_what_is_new_does_not_leak(first, second, same, mode, actions):
    old = [*base_rows(list(OLD)), *drawn_rows(list(OLD), first)]
    added = [*base_rows(list(NEW)), *drawn_rows(list(NEW), second)]
    try:
        one = make(tasks_of(OLD, same), old, mode, actions)
        two = make(tasks_of(OLD | NEW, same), [*old, *added], mode, actions, published(one))
    except UsageError as error:  # the decisions left a level without examples, and the message says which
        assert "example left" in str(error)
        return
    check_kept(one, two)
    check_new(two, mode)


@settings(max_examples=15)
@given(BYTES, BYTES, BYTES, MODES)
def test_a_benchmark_grows_again(first, second, third, mode):
    most = {task: category for task, category in NEW.items() if task != "b/far"}
    parts = [drawn_rows(list(OLD), first), drawn_rows(list(most), second), drawn_rows(["b/far"], third)]
    rows = [*base_rows([*OLD, *NEW]), *parts[0], *parts[1], *parts[2]]

    def upto(tasks: dict[str, str]) -> list[Row]:
        return [row for row in rows if row["task"] in tasks]

    try:
        one = make(tasks_of(OLD, False), upto(OLD), mode, ["keep"])
        two = make(tasks_of(OLD | most, False), upto(OLD | most), mode, ["keep"], published(one))
        three = make(tasks_of(OLD | NEW, False), upto(OLD | NEW), mode, ["keep"], published(two))
    except UsageError as error:
        assert "example left" in str(error)
        return
    check_kept(one, two)
    check_kept(two, three)
    check_kept(one, three)
    check_new(three, mode)


def check_kept(one: Version, two: Version) -> None:
    """Everything that the first version says of its tasks, the second says too; nothing of it was asked again."""
    old = set(one.tasks["task"].to_pylist())
    pair, moved = ("train_task", "eval_task"), ("clean", "clean_rare")
    for name in ("plan", "assignment", "final", "pairs", "hits", "touched", "decisions", "evidence"):
        rows = two.tables[name].to_pylist()
        keys = pair if "train_task" in two.tables[name].column_names else ("task",)
        assert [row for row in rows if {row[key] for key in keys} <= old] == one.tables[name].to_pylist(), (
            name
        )
    members = [row for row in two.tables["members"].to_pylist() if row["task"] in old]
    for before, after in zip(one.tables["members"].to_pylist(), members, strict=True):
        assert {**before, **dict.fromkeys(moved)} == {**after, **dict.fromkeys(moved)}
        assert before["clean"] or not after["clean"]
    near = two.tables["near_duplicates"].to_pylist()
    assert [row for row in near if row["task"] in old] == one.tables["near_duplicates"].to_pylist()
    assert not [pair for pair in two.waiting if set(pair) <= old]


def texts(version: Version) -> dict[str, frozenset[tuple[str, ...]]]:
    """Example -> its windows of three words; of those that have none, all their words."""
    found = {}
    for row in version.examples.to_pylist():
        parts = [*json.loads(row["fields"]).values(), *row["references"]]
        words = [part.split() for part in parts]
        grams = {tuple(w[i : i + 3]) for w in words for i in range(len(w) - 2)}
        found[row["example"]] = frozenset(grams or {tuple(w for part in words for w in part)})
    return found


def check_new(two: Version, mode: str) -> None:
    """No pair is left open, no copy is on both sides, nothing that a decision drops is left, and `clean` is true."""
    members, side = two.members(), sides(two)
    content = {"train": {}, "eval": {}}
    for name, on in side.items():
        content[on].setdefault(members[name]["content"], []).append(name)
    for digest in content["train"].keys() & content["eval"].keys():
        raise AssertionError((content["train"][digest], content["eval"][digest]))
    added = set(NEW)
    touched, hits = two.tables["touched"].to_pylist(), two.tables["hits"].to_pylist()
    rare = {"supervised"}
    for made in two.verdict.decisions:
        if not {made.train_task, made.eval_task} & added:
            continue
        rows, column = (touched, "train_example") if "train" in made.action else (hits, "eval_example")
        on = "train" if "train" in made.action else "eval"
        gone = {
            row[column]
            for row in rows
            if (row["train_task"], row["eval_task"]) == made.pair
            and not (made.rule in rare and row["frequent"])
        }
        dropped = {d.train_task for d in two.verdict.decisions if d.action == "drop_train_task"}
        dropped_eval = {d.eval_task for d in two.verdict.decisions if d.action == "drop_eval_task"}
        if made.action.endswith("examples") and not (
            made.train_task in dropped or made.eval_task in dropped_eval
        ):
            assert not [name for name in gone if side.get(name) == on], made
    check_near(two, mode, side, added)
    check_clean(two, side)


def sides(version: Version) -> dict[str, str]:
    """Example -> the side on which it stands."""
    roles = {row["task"]: row["role"] for row in version.tables["plan"].to_pylist()}
    found = {}
    for name, row in version.members().items():
        role, split = roles[row["task"]], row["split"]
        if split == "train" or (split == "demonstration" and role in ("train", "both")):
            found[name] = "train"
        elif split == "test" or (split == "validation" and role in ("eval", "both")):
            found[name] = "eval"
    return found


def check_near(two: Version, mode: str, side: dict[str, str], added: set[str]) -> None:
    """An added example never stands across from a near-duplicate that overlap named, unless these are kept."""
    for row in two.tables["near_duplicates"].to_pylist():
        pair = (side.get(row["example"]), side.get(row["survivor"]))
        if mode == "keep" or None in pair or not {row["task"], row["survivor_task"]} & added:
            continue
        assert pair[0] == pair[1], row
        assert mode == "drop_across" or pair != ("train", "train") or row["task"] not in added, row


def check_clean(two: Version, side: dict[str, str]) -> None:
    """A clean evaluation example shares no window with train text."""
    grams, members = texts(two), two.members()
    trained = set().union(*(grams[name] for name, on in side.items() if on == "train"))
    for name, on in side.items():
        if on == "eval" and members[name]["clean"]:
            assert not grams[name] & trained, name


# ------------------------------------------------------------------------------------------- one by one


def test_a_rule_that_would_move_an_example_is_turned_and_a_person_is_refused():
    old = base_rows(list(OLD))
    one = make(tasks_of(OLD, False), old, "keep", ["keep"])
    pins = published(one)
    train, test, new = "a/qa", "a/held", "b/far"
    rule = Decision(train, new, "drop_train_task", "0" * 32, "same", "rule", "", "the same data")
    turned = pins.decided.turn(rule)
    assert (turned.action, turned.rule) == ("drop_eval_task", "same")
    assert turned.why.startswith("the same data; the eval side goes, since 'a/qa' is of the benchmark")
    back = pins.decided.turn(
        replace(rule, train_task=new, eval_task=test, action="drop_eval_examples", why="")
    )
    assert back.action == "drop_train_examples"
    assert back.why.startswith("the train side goes")
    assert pins.decided.turn(replace(rule, train_task="b/x")) == replace(rule, train_task="b/x")
    assert pins.decided.open_actions((train, test)) == ()
    assert pins.decided.open_actions((train, new)) == ("keep", "drop_eval_task", "drop_eval_examples")
    assert pins.decided.open_actions((new, test)) == ("keep", "drop_train_task", "drop_train_examples")
    assert Pins().decided.open_actions((train, test)) == ACTIONS
    people = [
        replace(rule, by="ann"),
        Decision(train, test, "drop_train_task", ""),
        Decision("b/x", "b/y", "keep", ""),
    ]
    with pytest.raises(UsageError) as refused:
        pins.decided.refuse(people, {d.pair: d.evidence for d in people}, "runs/two")
    lines = str(refused.value).split("\n")
    assert len(lines) == 2
    assert (
        "open are keep, drop_eval_task, drop_eval_examples: taskmill decisions set runs/two a/qa b/far"
        in lines[0]
    )
    assert "both tasks are of the benchmark that this one extends" in lines[1]
    pins.decided.refuse(people, {people[2].pair: ""}, "runs/two")
    pins.decided.refuse(people, {d.pair: "other" for d in people}, "runs/two")


def test_a_recipe_that_says_otherwise_reaches_added_tasks_alone():
    rows = [
        example_row(task, f"{i:02d}", {"text": f"{task[2:]}{task[0]}{i}"}, ["yes"], group=i)
        for task in (*OLD, *NEW)
        for i in range(12)
    ]
    old = [row for row in rows if row["task"] in OLD]
    one = make(tasks_of(OLD, False), old, "keep", ["keep"])
    other = replace(
        PLAN,
        partial=("b/part",),
        supervised=("*/sup", "a/qa"),
        exclude=("a/docs",),
        carve_share=0.5,
        validation=Validation(("*/sup",), 2),
    )
    two = make(tasks_of(OLD | NEW, False), rows, "keep", ["keep"], published(one), other)
    check_kept(one, two)
    plan = {row["task"]: row for row in two.tables["plan"].to_pylist()}
    assert (plan["a/qa"]["role"], plan["a/docs"]["role"], plan["a/part"]["level"]) == (
        "train",
        "train",
        "partial",
    )
    assert "choose models" in plan["b/sup"]["why"]
    assert "choose models" not in plan["a/sup"]["why"]
    splits = [row["split"] for row in two.tables["members"].to_pylist() if row["task"] == "b/sup"]
    assert (splits.count("validation"), splits.count("test")) == (2, 4)


# ------------------------------------------------------------------------------------------------ plans


CATEGORY = {f"a/t{i}": "ABCD"[i % 4] for i in range(12)}
FAMILY = {task: f"f{int(task[3:]) // 2}" for task in CATEGORY}


def catalogue(tasks: dict[str, tuple[str, str]]) -> pa.Table:
    return tasks_table(
        {**task_row(task, category), "family": family, "kind": "benchmark"}
        for task, (category, family) in tasks.items()
    )


@settings(max_examples=150)
@given(
    st.integers(0, 9),
    st.integers(0, 2),
    st.sampled_from(("", "A", "B")),
    st.one_of(st.none(), st.integers(1, 4)),
    st.lists(st.tuples(st.sampled_from("ABCDE"), st.integers(0, 8)), min_size=1, max_size=6),
    st.sampled_from(("exclude", "decide")),
)
def test_the_plan_of_what_is_there_holds(seed, num_held, divided, num_tasks, added, variants):
    plan = Plan(
        HeldOut(num_categories=num_held),
        partial_categories=PartialCategories((divided,) if divided else ()),
        train=Trained(num_tasks=num_tasks),
        variants=variants,
    )
    first = {task: (CATEGORY[task], FAMILY[task]) for task in CATEGORY}
    try:
        before = {entry.task: entry for entry in plan_tasks(catalogue(first), plan, seed)}
    except RecipeError:
        return
    pinned = {task: TaskPlan(task, e.level, e.role, e.why) for task, e in before.items()}
    new = {f"b/n{i}": (category, f"f{family}") for i, (category, family) in enumerate(added)}
    after = {e.task: e for e in plan_tasks(catalogue(first | new), plan, seed, pinned=pinned)}
    assert {task: after[task] for task in pinned} == pinned
    held = {CATEGORY[task] for task, entry in pinned.items() if entry.level == "held_out"}
    unseen = {FAMILY[task] for task, entry in pinned.items() if entry.level}
    trained = {FAMILY[task] for task, entry in pinned.items() if entry.role == "train"}
    for task, (category, family) in new.items():
        entry = after[task]
        if category in held:
            variant = variants == "exclude" and family in trained
            assert entry.role == ("excluded" if variant else "eval"), entry
        elif family in unseen and variants == "exclude":
            assert entry.role == "excluded" and "a variant of" in entry.why
        else:
            assert entry.role in ("train", "excluded"), entry


def test_a_category_that_is_trained_cannot_be_held_out_later():
    first = {task: (CATEGORY[task], FAMILY[task]) for task in CATEGORY}
    pinned = {entry.task: entry for entry in plan_tasks(catalogue(first), Plan())}
    more = catalogue({**first, "b/n": ("A", "other")})
    with pytest.raises(RecipeError, match=r"extends trains the category 'A' \('a/t8'\)"):
        plan_tasks(more, Plan(HeldOut(("A",))), pinned=pinned)
    entries = {entry.task: entry for entry in plan_tasks(more, Plan(partial=("b/n",)), pinned=pinned)}
    assert (entries["b/n"].level, entries["a/t8"].role) == ("partial", "train")
    twin = catalogue({**first, "b/n": ("A", "f0")})
    entries = {entry.task: entry for entry in plan_tasks(twin, Plan(partial=("b/n",)), pinned=pinned)}
    assert entries["b/n"].role == "excluded"
    assert (
        "a variant of 'a/t1' (family 'f0'), which the benchmark that this one extends trains"
        in entries["b/n"].why
    )
