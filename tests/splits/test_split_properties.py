"""Splits of 1,000 small worlds each: what holds after the decisions, whatever overlaps and whoever decides.

A world is a few tasks whose examples hold grams by number, so that every overlap can be found by comparing sets. Plan and
assignment, decisions and membership are the package's own; pairs, hits, touched and near-duplicates come from the sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from catalogues import example_row, examples_table, task_row, tasks_table
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import UsageError
from taskmill.recipe import Action, HeldOut, Plan, Rule, Split, When
from taskmill.records import ACTIONS, SCHEMAS
from taskmill.splits.deciding.decisions import Decision, Pair, decide, fits, read_pairs
from taskmill.splits.deciding.membership import train_sizes
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.planning.assignment import plan_and_assign
from taskmill.splits.split import make_members, settle

CATEGORIES = {
    "b/chat": "DOC",
    "b/docs": "DOC",
    "b/held1": "TE",
    "b/held2": "TE",
    "b/part1": "QA",
    "b/part2": "QA",
    "b/qa": "QA",
    "b/sup1": "SUM",
    "b/sup2": "SUM",
    "b/zoo": "QA",
}
NAMES = list(CATEGORIES)[:-1]
"""Tasks that get drawn examples; the last has examples of its own only and is always there to train its category."""
PLAN = Plan(HeldOut(("TE",)), partial=("b/part*",), supervised=("b/sup*",), num_demonstration_groups=1)
UPSTREAM = (None, "train", "train", "test", "validation", "demonstration")
FREQUENT = {8, 9}
"""Grams that count as frequent: fixed, because which grams are frequent depends on all tasks."""
THRESHOLD = 0.15
EXAMPLE_ACTIONS = ("keep", "drop_train_examples", "drop_eval_examples")
CASES = settings(max_examples=1000)
Row = dict[str, Any]


@dataclass
class World:
    """Tasks, examples, and what the package and the sets make of them."""

    tasks: pa.Table
    rows: list[Row]
    examples: pa.Table
    grams: dict[str, frozenset[int]]
    near: dict[str, int]
    """Example -> the cluster of near-duplicates that it is in, 0 for none."""
    plan: pa.Table
    assignment: pa.Table
    categories: dict[str, str]
    side: dict[str, str] = field(default_factory=dict)
    """Example -> train or eval, where it is text of a side."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    def roles(self) -> dict[str, str]:
        return dict(zip(self.plan["task"].to_pylist(), self.plan["role"].to_pylist()))


def base_rows() -> list[Row]:
    """Two examples to train and two to test of every task, that share nothing."""
    return [
        example_row(task, f"z{i}", {"text": f"{task} {i} of its own", "label": "yes"}, ["yes"], **more)
        for task in CATEGORIES
        for i in range(4)
        for more in ({"group": 90 + i, "upstream_split": "train" if i < 2 else "test"},)
    ]


BASE = base_rows()


@cache
def make_tasks(same_dataset: bool, without: str | None) -> pa.Table:
    shared = {"b/qa": "one", "b/held1": "one", "b/docs": "two", "b/part1": "two"} if same_dataset else {}
    named = [(t, c) for t, c in CATEGORIES.items() if t != without]
    return tasks_table([task_row(t, c, shared.get(t), ["label"]) for t, c in named])


@cache
def drawn_row(task: str, name: str, body: str, output: str, upstream_split: str | None, group: int) -> Row:
    fields = {"text": body, "label": output}
    return example_row(task, name, fields, [output], upstream_split=upstream_split, group=group)


def read_world(data: bytes, same_dataset: bool, without: str | None = None) -> World:
    """Decode a world: four bytes an example give its task, its grams, its group and split, its output and copies."""
    rows, grams, near = list(BASE), dict[str, frozenset[int]](), dict[str, int]()
    for place in range(len(data) // 4):
        a, b, c, d = data[4 * place : 4 * place + 4]
        held = frozenset(g for g in (b % 16, b // 16) if g < 10)
        body = " ".join(map(str, sorted(held))) + ("" if d >= 128 else f" by {place}")
        output = ("yes", "no", "maybe")[d % 3]
        row = drawn_row(NAMES[a % 9], f"{place:02d}", body, output, UPSTREAM[c % 6], c // 6 % 5)
        rows.append(row)
        grams[row["example"]], near[row["example"]] = held, d // 3 % 5
    rows = [row for row in rows if row["task"] != without]
    grams = {row["example"]: grams.get(row["example"], frozenset()) for row in rows}
    tasks, examples = make_tasks(same_dataset, without), examples_table(rows)
    plan, assignment = plan_and_assign(tasks, examples.to_batches(), PLAN, 7)
    categories = dict(zip(tasks["task"].to_pylist(), tasks["category"].to_pylist()))
    world = World(tasks, rows, examples, grams, near, plan, assignment, categories)
    compare(world, dict(zip(tasks["task"].to_pylist(), tasks["dataset"].to_pylist())))
    return world


def compare(world: World, datasets: Mapping[str, str]) -> None:
    """Fill in the sides, the tables of overlap and the pairs, by comparing sets of grams."""
    roles = world.roles()
    for name, task, split in zip(*(world.assignment[c].to_pylist() for c in ("example", "task", "split"))):
        trains, evaluated = roles[task] in ("train", "both"), roles[task] in ("eval", "both")
        if split == "train" or (split == "demonstration" and trains):
            world.side[name] = "train"
        elif split == "test" or (split == "validation" and evaluated):
            world.side[name] = "eval"
    by_task: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(world.rows, key=lambda row: row["example"]):
        if row["example"] in world.side:
            by_task.setdefault((world.side[row["example"]], row["task"]), []).append(row)
    found: dict[str, list[Row]] = {"pairs": [], "hits": [], "touched": []}
    for train in sorted(t for side, t in by_task if side == "train"):
        for evaluated in sorted(t for side, t in by_task if side == "eval"):
            same = datasets[train] == datasets[evaluated]
            one(world, by_task["train", train], by_task["eval", evaluated], same, found)
    found["near_duplicates"] = near_duplicates(world)
    world.tables = {
        name: pa.Table.from_pylist(rows, schema=SCHEMAS[f"overlaps/{name}"]) for name, rows in found.items()
    }
    levels = dict(zip(world.plan["task"].to_pylist(), world.plan["level"].to_pylist()))
    world.pairs = read_pairs(found["pairs"], levels, train_sizes(world.plan, world.assignment))


def one(
    world: World, train: list[Row], evaluated: list[Row], same: bool, found: dict[str, list[Row]]
) -> None:
    """Compare one train task with one evaluation task."""
    names = {"train_task": train[0]["task"], "eval_task": evaluated[0]["task"]}
    hits, touched = list[Row](), dict[str, frozenset[int]]()
    for e in evaluated:
        common = {t["example"]: world.grams[t["example"]] & world.grams[e["example"]] for t in train}
        common = {name: grams for name, grams in common.items() if grams}
        if not common:
            continue
        equal = any(t["references"] == e["references"] for t in train if t["example"] in common)
        grams = frozenset().union(*common.values())
        about = {"eval_example": e["example"], "train_example": min(common), "num_grams": len(grams)}
        hits.append({**names, **about, "side": "input", "same_output": equal, "frequent": grams <= FREQUENT})
        for name, part in common.items():
            touched[name] = touched.get(name, frozenset()) | part
    if not hits and not same:
        return
    num, evidence = (
        len(evaluated),
        repr((sorted(touched.items(), key=str), [h["eval_example"] for h in hits], same)),
    )
    figures = {
        "num_eval": num,
        "num_hit": len(hits),
        "hit_fraction": len(hits) / num,
        "hit_output": 0.0,
        "hit_fraction_rare": sum(not hit["frequent"] for hit in hits) / num,
        "hit_input": len(hits) / num,
        "num_same_output": sum(hit["same_output"] for hit in hits),
        "num_short_equal": 0,
        "num_train_touched": len(touched),
        "same_dataset": same,
        "evidence": hashlib.sha256(evidence.encode()).digest()[:16],
    }
    found["pairs"].append({**names, **figures})
    found["hits"] += hits
    found["touched"] += [
        {**names, "train_example": name, "frequent": grams <= FREQUENT}
        for name, grams in sorted(touched.items())
    ]


def clusters(world: World) -> dict[int, list[str]]:
    """Cluster -> its examples of a side, the evaluation ones first."""
    found: dict[int, list[str]] = {}
    for name in sorted(world.side, key=lambda name: (world.side[name] != "eval", name)):
        if world.near.get(name):
            found.setdefault(world.near[name], []).append(name)
    return {number: names for number, names in found.items() if len(names) > 1}


def near_duplicates(world: World) -> list[Row]:
    return [
        {
            "example": name,
            "task": name.split("#")[0],
            "survivor": names[0],
            "survivor_task": names[0].split("#")[0],
        }
        | {"relation": "across" if world.side[names[0]] == "eval" else "train", "cluster": number}
        | {"jaccard": 1.0, "containment": 1.0}
        for number, names in clusters(world).items()
        for name in names[1:]
    ]


# --------------------------------------------------------------------------------------------- deciding

WHEN = (
    When(),
    When(same_dataset=True, same_task=False),
    When(hit_fraction_rare_over=0.0),
    When(hit_fraction_over=0.2),
    When(hit_fraction_over=0.0, hit_fraction_rare_at_most=0.0),
    When(same_output_fraction_over=0.5),
    When(same_output_fraction_at_most=0.0, hit_input_over=0.0),
    When(touched_fraction_over=0.3),
    When(num_hit_at_most=1),
    When(level=("supervised",)),
    When(train_task=("b/d*", "b/chat")),
)


def rules(actions: Sequence[str]) -> st.SearchStrategy[tuple[Rule, ...]]:
    choice = st.tuples(st.sampled_from(WHEN), st.sampled_from(actions))
    return st.lists(choice, max_size=4).map(
        lambda found: tuple(Rule(f"r{i}", action, when) for i, (when, action) in enumerate(found))
    )


def people(pairs: Iterable[Pair], choose: Callable[[Pair], str]) -> list[Decision]:
    """Decisions of a person about some pairs."""
    return [Decision(*pair.tasks, choose(pair), pair.evidence, "", "ann") for pair in pairs]


def by_name(actions: Sequence[str]) -> Callable[[Pair], str]:
    """Choose an action by the names of a pair, so that another world of the same tasks chooses the same."""
    return lambda pair: actions[hashlib.sha256(repr(pair.tasks).encode()).digest()[0] % len(actions)]


def split(
    world: World, section: Split, choose: Callable[[Pair], str]
) -> tuple[dict[str, Row], list[Decision], Row]:
    """Return example -> row of members, the decisions, and the tables; a person decides what the rules leave."""
    open_pairs = decide(world.pairs, [], section.rules, section.threshold).undecided
    verdict = decide(world.pairs, people(open_pairs, choose), section.rules, section.threshold)
    assert not verdict.undecided
    catalogue = make_catalogue(world.tasks, world.plan, world.assignment)
    batches = world.examples.select(["example", "task", "content"]).to_batches()
    members = make_members(catalogue, world.plan, world.assignment, batches)
    made = settle(
        members,
        world.plan,
        world.categories,
        world.assignment["group"],
        world.tables,
        section,
        verdict.decisions,
        world.pairs,
    )
    return {row["example"]: row for row in made["members"].to_pylist()}, verdict.decisions, made


def standing(world: World, members: Mapping[str, Row]) -> dict[str, str]:
    """Example -> its side, after the decisions."""
    return {name: side for name, side in world.side.items() if members[name]["split"] != "excluded"}


WORLDS = st.binary(min_size=16, max_size=120)
CHOICES = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2)
"""What a person does about the pairs that the rules leave."""
MODES = st.sampled_from(("keep", "drop_across", "drop"))


@CASES
@given(WORLDS, st.booleans(), rules(ACTIONS), MODES, CHOICES)
def test_what_stands_after_the_decisions(data, same_dataset, chosen, mode, actions):
    world = read_world(data, same_dataset)
    section = Split(THRESHOLD, chosen, None, mode)
    try:
        members, decisions, made = split(world, section, by_name(actions))
    except UsageError as error:  # the decisions left a level without examples, and the message says which
        assert "example left" in str(error)
        return
    check_membership(world, members)
    check_decided(world, section, members, decisions)
    check_near_duplicates(world, mode, members)
    check_reasons(world, members, decisions, made)
    check_clean(world, members)


def check_membership(world: World, members: Mapping[str, Row]) -> None:
    """Every example stands once; levels are disjoint by task, category, group and content."""
    assert list(members) == sorted(world.grams, key=lambda name: (name.split("#")[0], name))
    roles, sides = world.roles(), standing(world, members)
    train = {name for name, side in sides.items() if side == "train"}
    evaluated = set(sides) - train
    assert not {members[name]["task"] for name in train} & {t for t, role in roles.items() if role == "eval"}
    assert "TE" not in {world.categories[members[name]["task"]] for name in train}
    assert not {members[n]["content"] for n in train} & {members[n]["content"] for n in evaluated}
    only = {name for name in train if members[name]["split"] == "train"}
    groups = [{(members[n]["task"], members[n]["group"]) for n in names} for names in (only, evaluated)]
    assert not groups[0] & groups[1]
    levels = dict(zip(world.plan["task"].to_pylist(), world.plan["level"].to_pylist()))
    by_level = {
        level: {n for n in evaluated if levels[members[n]["task"]] == level} for level in set(levels.values())
    }
    assert sum(map(len, by_level.values())) == len(evaluated) and not by_level.get(None)


def check_decided(
    world: World, section: Split, members: Mapping[str, Row], decisions: Sequence[Decision]
) -> None:
    """No pair above the threshold is without a decision, no touched example on the side that it was dropped from."""
    made, sides = {d.pair: d for d in decisions}, standing(world, members)
    gone_train = {d.train_task for d in decisions if d.action == "drop_train_task"}
    gone_eval = {d.eval_task for d in decisions if d.action == "drop_eval_task"}
    assert not {name.split("#")[0] for name, side in sides.items() if side == "train"} & gone_train
    assert not {name.split("#")[0] for name, side in sides.items() if side == "eval"} & gone_eval
    rare = {rule.name for rule in section.rules if rule.when.hit_fraction_rare_over is not None}
    for pair in world.pairs:
        leaks = pair.same_dataset and pair.level != "supervised"
        gone = pair.train_task in gone_train or pair.eval_task in gone_eval
        if pair.hit_fraction > section.threshold or leaks:
            assert pair.tasks in made or gone
        if gone or pair.tasks not in made:
            continue
        name = {"drop_train_examples": ("touched", "train"), "drop_eval_examples": ("hits", "eval")}
        if made[pair.tasks].action not in name:
            continue
        table, side = name[made[pair.tasks].action]
        for row in world.tables[table].to_pylist():
            if (row["train_task"], row["eval_task"]) == pair.tasks:
                spared = row["frequent"] and made[pair.tasks].rule in rare
                assert spared or sides.get(row[f"{side}_example"]) != side


def check_near_duplicates(world: World, mode: str, members: Mapping[str, Row]) -> None:
    """Of a cluster one text stays at most, as the mode says, and none is lost altogether."""
    sides = standing(world, members)
    for names in clusters(world).values():
        left = [sides[name] for name in names if name in sides]
        if mode == "drop":
            assert left.count("train") <= ("eval" not in left)
        elif mode == "drop_across":
            assert len(set(left)) < 2
        if any(members[name]["reason"] == "near_duplicate" for name in names):
            assert left and mode != "keep" and (mode == "drop" or "eval" in left)
        assert all(world.side[n] == "train" for n in names if members[n]["reason"] == "near_duplicate")


def check_reasons(
    world: World, members: Mapping[str, Row], decisions: Sequence[Decision], made: Mapping[str, pa.Table]
) -> None:
    """Nothing is excluded without a ground, and every exclusion is counted once."""
    assigned = dict(zip(world.assignment["example"].to_pylist(), world.assignment["split"].to_pylist()))
    contents = {members[n]["content"] for n, side in standing(world, members).items() if side == "eval"}
    actions = {(d.decider, d.action) for d in decisions}
    for name, row in members.items():
        if row["split"] != "excluded":
            assert row["split"] == assigned[name] and row["reason"] is None and row["rule"] is None
        elif row["reason"] == "duplicate":
            assert world.side[name] == "train" and row["content"] in contents
        elif row["reason"] == "decision":
            assert any(who == row["rule"] and action != "keep" for who, action in actions)
        else:
            assert row["reason"] == "near_duplicate" or assigned[name] == "excluded"
    reasons = [row["reason"] for row in members.values()]
    assert sum(made["decisions"]["num_dropped"].to_pylist()) == reasons.count("decision")
    totals = made["tasks"].select([f"num_{s}" for s in ("train", "test", "excluded")]).to_pylist()
    for name in ("train", "test", "excluded"):
        assert sum(t[f"num_{name}"] for t in totals) == sum(r["split"] == name for r in members.values())


def check_clean(world: World, members: Mapping[str, Row]) -> None:
    """`clean` is never true of an example that shares a gram with train text, `clean_rare` of none with a rare one."""
    sides = standing(world, members)
    held = frozenset().union(*(world.grams[name] for name, side in sides.items() if side == "train"))
    for name, row in members.items():
        assert row["clean"] <= row["clean_rare"]
        shared = world.grams[name] & held if sides.get(name) == "eval" else frozenset()
        assert not (shared and row["clean"]) and not (shared - FREQUENT and row["clean_rare"])
        assert row["clean"] or sides.get(name) == "eval"


# ------------------------------------------------------------------------------------ a task comes or goes


def linked(world: World, task: str, gone: set[str]) -> set[str]:
    """Examples that evidence names together with a task, or with `gone` tasks, and their copies and near-duplicates."""
    about, names = {task, *gone}, set[str]()
    for table, column in (("hits", "eval_example"), ("touched", "train_example")):
        for row in world.tables[table].to_pylist():
            if row["train_task"] in about or row["eval_task"] in about:
                names.add(row[column])
    names |= {row["example"] for row in world.rows if row["task"] in about}
    content = {row["example"]: row["content"] for row in world.rows}
    alike = [set(cluster) for cluster in clusters(world).values()]
    alike += [{n for n in content if content[n] == value} for value in set(content.values())]
    while more := [group for group in alike if group & names and group - names]:
        names = names.union(*more)
    return names


@CASES
@given(WORLDS, rules(EXAMPLE_ACTIONS), MODES, st.sampled_from(NAMES), st.booleans())
def test_a_task_moves_only_what_evidence_names_with_it(data, chosen, mode, task, whole_tasks):
    actions = ACTIONS if whole_tasks else EXAMPLE_ACTIONS
    section, choose = Split(THRESHOLD, chosen, None, mode), by_name(actions)
    both = [read_world(data, False, without) for without in (None, task)]
    found = [dict(zip(w.assignment["example"].to_pylist(), w.assignment.to_pylist())) for w in both]
    assert {name: row for name, row in found[0].items() if row["task"] != task} == found[1]
    try:
        (before, decisions, _), (after, others, _) = (split(world, section, choose) for world in both)
    except UsageError:
        return
    changed = {name for name, row in after.items() if standing_of(row) != standing_of(before[name])}
    gone = {d.train_task for d in decisions if d.action == "drop_train_task" and task in d.pair}
    gone |= {d.eval_task for d in decisions if d.action == "drop_eval_task" and task in d.pair}
    assert changed <= linked(both[0], task, gone)
    kept = [d for d in decisions if task not in d.pair]
    if not whole_tasks:
        assert kept == others  # one pair's decision never depends on another pair


def standing_of(row: Row) -> tuple[str, str | None]:
    return row["split"], row["reason"]


# ----------------------------------------------------------------------------------------------- rules

FRACTIONS = st.sampled_from((0.0, 0.1, 0.2, 0.5, 1.0))
TASKS = st.sampled_from(("b/chat", "b/docs", "b/qa"))
SOME_PAIRS = st.lists(
    st.builds(
        Pair,
        *(TASKS, TASKS, st.sampled_from(("held_out", "partial", "supervised")), st.booleans(), st.just(10)),
        *(st.integers(0, 10), FRACTIONS, FRACTIONS, st.integers(0, 5), st.integers(0, 3), st.just("0" * 32)),
        *(FRACTIONS, FRACTIONS, st.integers(0, 8), st.integers(0, 8)),
    ),
    max_size=6,
    unique_by=lambda pair: pair.tasks,
)


@CASES
@given(SOME_PAIRS, rules(ACTIONS), st.randoms(use_true_random=False))
def test_the_first_rule_that_fits_decides_and_nothing_else_matters(pairs, chosen, chance):
    verdict = decide(pairs, [], chosen, THRESHOLD)
    made = {d.pair: d for d in verdict.decisions}
    shuffled = list(pairs)
    chance.shuffle(shuffled)
    assert decide(shuffled, [], chosen, THRESHOLD) == verdict
    for pair in pairs:
        fitting = [rule for rule in chosen if fits(rule.when, pair)]
        assert (pair.tasks in made) == bool(fitting)
        if fitting:
            assert (made[pair.tasks].rule, made[pair.tasks].action) == (fitting[0].name, fitting[0].action)
    for pair in verdict.undecided:
        assert pair.must_be_decided(THRESHOLD) and pair.tasks not in made
    if len(chosen) > 1:
        first, second, *rest = chosen
        swapped = {d.pair: d.rule for d in decide(pairs, [], (second, first, *rest), THRESHOLD).decisions}
        for pair in pairs:
            both = fits(first.when, pair) and fits(second.when, pair)
            assert (swapped.get(pair.tasks) != getattr(made.get(pair.tasks), "rule", None)) == both
    one_at_a_time = [d for pair in pairs for d in decide([pair], [], chosen, THRESHOLD).decisions]
    assert sorted(one_at_a_time, key=lambda d: d.pair) == verdict.decisions


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_rules_ranks_them(order):
    found = (
        Rule("all", "keep"),
        Rule("some", "drop_train_task", When(hit_fraction_over=0.1)),
        Rule("none", "drop_eval_task", When(num_hit_at_most=0)),
    )
    pair = replace(Pair("a", "b", "partial", False, 10, 2, 0.2, 0.2, 0, 0, "0" * 32), num_train=4)
    (made,) = decide([pair], [], tuple(found[i] for i in order), 0.5).decisions
    assert made.rule == ("all" if order.index(0) < order.index(1) else "some")


def test_actions_of_rules_are_those_of_the_recipe():
    assert set(Action.__args__) == set(ACTIONS)
