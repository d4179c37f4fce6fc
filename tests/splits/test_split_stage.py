"""The stages overlap and split on disk: what decisions do, when split stops, and what never lies on two sides."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from catalogues import (
    example_row,
    example_sides,
    examples_table,
    rng_words,
    run_stage,
    task_row,
    tasks_table,
    windows,
    write_catalogue,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskmill.artifact import Manifest
from taskmill.errors import DecisionNeededError, StaleError, UsageError
from taskmill.recipe import DEFAULT_RULES, HeldOut, Overlap, Plan, Rule, Split, When
from taskmill.records import DECISION_COLUMNS
from taskmill.runs import verify_stage
from taskmill.splits import overlap, split
from taskmill.splits.deciding.decision_files import read_decisions

N = 5
PLAN = Plan(HeldOut(("TE",)), partial=("b/part",), supervised=("b/sup",))
CATEGORIES = {"b/held": "TE", "b/part": "QA", "b/qa": "QA", "b/sup": "SUM", "b/docs": "DOC"}
GOLDEN = {
    "overlap": "22f1d4f0b571598e5a43ae623fec72eaf2f69499c08c6f70ea8dbd2faace0d57",
    "split": "9e3dc6a1f1610cb5a0bc83db5c661e3ca163145bd27c9ed981faa3c9556393b6",
}


def text(key: str) -> str:
    return rng_words(key, 12, 5000)


def catalogue_rows() -> list[dict]:
    """Five tasks of 20 examples; b/docs holds text of all evaluated tasks, b/qa one of b/part."""
    rows = []
    for task in CATEGORIES:
        for i in range(20):
            own = text(f"{task}{i}")
            if task == "b/docs" and i < 4:
                own = f"{text(f'b/held{i}')} {text(f'b/part{i + 10}')} {text(f'b/sup{i}')}"
            if task == "b/qa" and i == 0:
                own = " so ".join(text(f"b/part{j}") for j in range(14, 20))
            rows.append(
                example_row(task, f"{i:02d}", {"text": own, "label": i % 2}, [f"answer {i}"], group=i)
            )
    return rows


def make_run(run: Path, rows: list[dict] | None = None) -> Path:
    tasks = [task_row(task, category, None, ["label"]) for task, category in CATEGORIES.items()]
    write_catalogue(run, tasks_table(tasks), examples_table(rows or catalogue_rows()))
    run_stage("overlap", overlap, run, PLAN, Overlap(n=N))
    return run


def run_split(run: Path, rules: tuple[Rule, ...] = (), threshold: float = 0.01, **more) -> Manifest:
    near = more.pop("near_duplicates", "keep")
    section = Split(threshold, rules, more.pop("decisions", None), near)
    return run_stage("split", split, run, split=section, **more)


def assigned(run: Path) -> dict[str, str]:
    rows = pq.read_table(run / "overlaps/assignment.parquet").to_pylist()
    return {row["example"]: row["split"] for row in rows}


def members(run: Path) -> dict[str, dict]:
    return {row["example"]: row for row in pq.read_table(run / "splits/members.parquet").to_pylist()}


def decide_all(run: Path, action: str, **other: str) -> None:
    """Decide every undecided pair; `other` maps the name of a train task to its own action."""
    with pytest.raises(DecisionNeededError):
        run_split(run)
    lines = (run / "undecided.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[2] = other.get(row[0].split("/")[1], action)
    (run / "decisions.csv").write_text("\n".join([lines[0], *map(",".join, rows), ""]))


def test_split_stops_until_a_person_has_decided(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(DecisionNeededError) as caught:
        run_split(run)
    assert caught.value.exit_code == 3
    assert "b/docs -> b/held (held_out)" in str(caught.value) and str(run / "decisions.csv") in str(
        caught.value
    )
    assert not (run / "splits/manifest.json").exists() and not (run / "splits/members.parquet").exists()
    undecided = pq.read_table(run / "overlaps/pairs.parquet").to_pylist()
    lines = (run / "undecided.csv").read_text().splitlines()
    assert lines[0] == ",".join(DECISION_COLUMNS)
    assert {tuple(line.split(",")[:2]) for line in lines[1:]} == {
        (r["train_task"], r["eval_task"]) for r in undecided if r["num_hit"]
    }
    decide_all(run, "keep")
    manifest = run_split(run)
    assert not (run / "undecided.csv").exists()
    assert manifest.counts["num_decisions_people"] == len(lines) - 1
    assert run_split(run).body == manifest.body  # up to date
    assert not verify_stage(run / "splits") and not verify_stage(run / "overlaps")


def test_keep_drops_nothing_and_says_who_is_not_clean(tmp_path):
    run = make_run(tmp_path / "run")
    decide_all(run, "keep")
    run_split(run)
    found = members(run)
    assert {row["reason"] for row in found.values()} == {None}
    unclean = {name for name, row in found.items() if not row["clean"]}
    hits = pq.read_table(run / "overlaps/hits.parquet").to_pylist()
    assert unclean == {row["eval_example"] for row in hits} and unclean
    decisions = pq.read_table(run / "splits/decisions.parquet").to_pylist()
    assert {(d["by"], d["action"], d["at"]) for d in decisions} == {("person", "keep", "")}


@pytest.mark.parametrize("action", ["drop_train_examples", "drop_eval_examples"])
def test_dropping_examples_leaves_no_shared_gram(tmp_path, action):
    run = make_run(tmp_path / "run")
    manifest = run_split(run, (Rule("all", action),))
    found = members(run)
    table, column = {"drop_train_examples": ("touched", "train_example")}.get(
        action, ("hits", "eval_example")
    )
    about = {row[column] for row in pq.read_table(run / f"overlaps/{table}.parquet").to_pylist()}
    dropped = {name for name, row in found.items() if row["reason"] == "decision"}
    assert dropped == about and manifest.dropped == {"decision": len(about)}
    assert {found[name]["rule"] for name in dropped} == {"all"}
    assert all(row["clean"] for row in found.values())
    assert_no_shared_gram(run)


def assert_no_shared_gram(run: Path) -> None:
    rows = [
        r for f in sorted((run / "tasks/examples").glob("*.parquet")) for r in pq.read_table(f).to_pylist()
    ]
    found, grams = members(run), {"train": set(), "test": set()}
    for row in rows:
        side = found[row["example"]]["split"]
        if side in grams:
            grams[side] |= set().union(
                *(windows(t, N) for side_ in example_sides(row, ["label"]) for t in side_)
            )
    assert grams["train"] and grams["test"] and not grams["train"] & grams["test"]


def test_text_that_a_task_repeats_around_its_examples_costs_none(tmp_path):
    around = "say what this text is about"
    tasks = [task_row(task, category, None, ["label"]) for task, category in CATEGORIES.items()]
    rows = [
        example_row(
            task,
            f"{i:02d}",
            {"text": f"{around if task == 'b/sup' else ''} {text(f'{task}{i}')}", "label": i % 2},
            [f"answer {i}"],
            group=i,
        )
        for task in CATEGORIES
        for i in range(20)
    ]
    all_of_it = {"text": ". ".join(text(f"b/sup{i}") for i in range(20)), "label": 0}
    rows.append(example_row("b/docs", "90", all_of_it, ["answer"], group=90))
    rows.append(example_row("b/docs", "91", {"text": f"well {around}", "label": 0}, ["answer"], group=91))
    run = tmp_path / "run"
    write_catalogue(run, tasks_table(tasks), examples_table(rows))
    run_stage("overlap", overlap, run, PLAN, Overlap(n=N, frequent_groups=10))
    run_split(run, DEFAULT_RULES)
    found = members(run)
    assert [name for name, row in found.items() if row["split"] == "excluded"] == ["b/docs#90"]
    assert not any(
        row["clean"] for row in found.values() if row["task"] == "b/sup" and row["split"] == "test"
    )
    actions = {
        (d["train_task"], d["action"]) for d in pq.read_table(run / "splits/decisions.parquet").to_pylist()
    }
    assert actions == {("b/docs", "drop_train_examples"), ("b/sup", "keep")}


def test_dropping_tasks(tmp_path):
    run = make_run(tmp_path / "run")
    decide_all(run, "drop_train_task", qa="drop_eval_task")
    run_split(run)
    tasks = {row["task"]: row for row in pq.read_table(run / "splits/tasks.parquet").to_pylist()}
    assert tasks["b/docs"]["role"] == "excluded" and tasks["b/docs"]["num_excluded"] == 20
    assert tasks["b/part"]["role"] == "excluded" and tasks["b/part"]["level"] is None
    assert "drop_eval_task on b/qa -> b/part" in tasks["b/part"]["why"]
    assert tasks["b/held"]["level"] == "held_out" and tasks["b/held"]["num_test"] == 10
    assert {row["rule"] for row in members(run).values() if row["reason"]} == {"person"}


def test_a_level_that_loses_its_examples_is_an_error_that_names_the_decisions(tmp_path):
    run = make_run(tmp_path / "run")
    rules = (Rule("gone", "drop_train_task", When(train_task=("b/qa",))), Rule("rest", "keep"))
    with pytest.raises(UsageError) as caught:
        run_split(run, rules)
    message = str(caught.value)
    assert "'b/part' needs a trained task in its category 'QA'" in message
    assert "drop_train_task on b/qa -> b/part (rule gone)" in message
    assert not (run / "splits/manifest.json").exists()

    shared = catalogue_rows()
    everything = " ".join(text(f"b/held{i}") for i in range(20))
    shared.append(example_row("b/docs", "99", {"text": everything, "label": 1}, [], group=99))
    run = make_run(tmp_path / "other", shared)
    with pytest.raises(
        UsageError, match=r"'b/held' has no test example left .*, after: drop_eval_examples on b/docs"
    ):
        run_split(run, (Rule("all", "drop_eval_examples"),))


def test_the_recipes_decisions_are_copied_once_and_then_belong_to_the_run(tmp_path):
    run = make_run(tmp_path / "run")
    decide_all(run, "keep")
    (run / "decisions.csv").rename(run / "shared.csv")
    run_split(run, decisions="shared.csv")
    assert (run / "decisions.csv").read_bytes() == (run / "shared.csv").read_bytes()
    (run / "shared.csv").write_text("changed\n")
    run_split(run, decisions="shared.csv")
    with pytest.raises(UsageError, match=r"there is no file .*none\.csv"):
        run_split(make_run(tmp_path / "new"), decisions="none.csv")


def test_other_notes_leave_the_split_alone_and_other_actions_do_not(tmp_path):
    run = make_run(tmp_path / "run")
    decide_all(run, "keep")
    first = run_split(run)
    path = run / "decisions.csv"
    path.write_text(path.read_text().replace(",,,,", ",,Ann,2026-01-31,because"))
    assert run_split(run).body == first.body
    path.write_text(path.read_text().replace(",keep,", ",drop_train_examples,"))
    with pytest.raises(StaleError, match=r"external\.decisions"):
        run_split(run)
    assert run_split(run, force=True).root != first.root


def test_train_copies_of_evaluation_examples_never_stay(tmp_path):
    rows = catalogue_rows()
    copied = {"text": text("b/held3"), "label": 1}
    rows.append(example_row("b/docs", "copy", copied, ["answer 3"], group=77))
    run = make_run(tmp_path / "run", rows)
    plan = assigned(run)
    assert plan["b/docs#copy"] == "train"
    run_split(run, (Rule("all", "keep"),))
    row = members(run)["b/docs#copy"]
    expected = ("excluded", "duplicate") if plan["b/held#03"] == "test" else ("train", None)
    assert (row["split"], row["reason"]) == expected


@pytest.mark.parametrize("stage", ["overlap", "split"])
def test_golden_digests_change_only_with_a_new_revision(tmp_path, stage):
    run = make_run(tmp_path / "run")
    rules = (Rule("docs", "drop_train_examples", When(train_task=("b/docs",))), Rule("rest", "keep"))
    made = {"split": run_split(run, rules), "overlap": run_stage("overlap", overlap, run, PLAN, Overlap(n=N))}
    root = made[stage].root
    assert root == GOLDEN[stage], f"the rows of {stage} changed: raise its REVISION, then update this digest"


ACTIONS = st.sampled_from(["keep", "drop_train_examples", "drop_eval_examples"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("hpqsd"), st.integers(0, 15), ACTIONS), max_size=6), st.integers(0, 99)
)
def test_nothing_lies_on_two_sides(tmp_path_factory, changes, seed):
    rows, tasks = catalogue_rows(), {task[2]: task for task in CATEGORIES}
    for number, (letter, i, _) in enumerate(changes):
        fields = {"text": text(f"{tasks[letter]}{i}"), "label": i % 2}
        other = tasks["hpqsd"[(number + seed) % 5]]
        rows.append(example_row(other, f"copy{number}", fields, [f"answer {i}"], group=200 + number))
    run = make_run(tmp_path_factory.mktemp("run"), rows)
    rules = tuple(
        Rule(f"r{k}", action, When(train_task=(tasks[letter],)))
        for k, (letter, _, action) in enumerate(changes)
    )
    try:
        run_split(
            run, (*rules, Rule("rest", "keep")), near_duplicates=("keep", "drop_across", "drop")[seed % 3]
        )
    except UsageError as error:
        assert "example left" in str(error)
        return
    found = members(run)
    for column in ("group", "content"):
        keys = {
            s: {
                (row["task"] if column == "group" else None, row[column])
                for row in found.values()
                if row["split"] == s
            }
            for s in ("train", "test", "validation")
        }
        assert not keys["train"] & (keys["test"] | keys["validation"])
    assert not {row["task"] for row in found.values() if row["split"] == "train"} & {"b/held", "b/part"}
    names = {row["task"] for row in found.values()}
    assert names == set(CATEGORIES) and len(found) == len(rows)


def test_decisions_in_the_run_are_those_that_count(tmp_path):
    run = make_run(tmp_path / "run")
    decide_all(run, "keep", qa="drop_train_examples")
    run_split(run)
    people = read_decisions(run / "decisions.csv", CATEGORIES)
    applied = pq.read_table(run / "splits/decisions.parquet").to_pylist()
    assert [(d.train_task, d.eval_task, d.action, d.evidence) for d in people] == [
        (d["train_task"], d["eval_task"], d["action"], d["evidence"]) for d in applied
    ]
    assert all(0 < d["hit_fraction"] <= 1 for d in applied)


def test_decisions_carry_their_figures_and_what_they_took_out(tmp_path):
    run = make_run(tmp_path / "run")
    manifest = run_split(
        run, (Rule("docs", "drop_train_examples", When(train_task=("b/docs",))), Rule("rest", "keep"))
    )
    pairs = {
        (p["train_task"], p["eval_task"]): p
        for p in pq.read_table(run / "overlaps/pairs.parquet").to_pylist()
    }
    applied = pq.read_table(run / "splits/decisions.parquet").to_pylist()
    for decision in applied:
        pair = pairs[decision["train_task"], decision["eval_task"]]
        for name in ("hit_fraction", "hit_fraction_rare", "num_hit", "num_same_output", "num_train_touched"):
            assert decision[name] == pair[name]
        assert decision["evidence"] == pair["evidence"].hex() and decision["rule"] in ("docs", "rest")
    taken = {(d["train_task"], d["eval_task"]): d["num_dropped"] for d in applied}
    assert sum(taken.values()) == manifest.dropped["decision"] == 4
    assert taken["b/docs", "b/held"] > 0 == taken["b/qa", "b/part"]
    assert taken["b/docs", "b/sup"] == 0  # all that it touches the decisions before it took out


def test_a_rule_about_the_touched_share_of_the_train_task(tmp_path):
    run = make_run(tmp_path / "run")
    trained = sum(s == "train" and name.startswith("b/docs#") for name, s in assigned(run).items())
    touched = {
        (p["train_task"], p["eval_task"]): p["num_train_touched"]
        for p in pq.read_table(run / "overlaps/pairs.parquet").to_pylist()
    }
    limit = (max(touched.values()) - 0.5) / trained
    run_split(
        run, (Rule("much", "drop_train_examples", When(touched_fraction_over=limit)), Rule("rest", "keep"))
    )
    made = {
        (d["train_task"], d["eval_task"]): d["rule"]
        for d in pq.read_table(run / "splits/decisions.parquet").to_pylist()
    }
    assert made == {pair: "much" if n == max(touched.values()) else "rest" for pair, n in touched.items()}
    assert set(made.values()) == {"much", "rest"}


@pytest.mark.parametrize(
    ("mode", "dropped"),
    [
        ("keep", set()),
        ("drop_across", {"b/docs#near", "b/qa#near"}),
        ("drop", {"b/docs#near", "b/qa#near", "b/qa#twin"}),
    ],
)
def test_near_duplicates_go_from_train_text_as_the_recipe_says(tmp_path, mode, dropped):
    rows = catalogue_rows()
    run = make_run(tmp_path / "first", rows)
    tested = sorted(
        name for name, split in assigned(run).items() if split == "test" and name.startswith("b/held#")
    )[0]
    own = next(row["fields"] for row in rows if row["example"] == tested)
    about = {
        "b/docs#near": f"{json.loads(own)['text']} again",
        "b/qa#near": f"well {json.loads(own)['text']}",
    }
    about |= {"b/docs#twin": text("b/twin"), "b/qa#twin": f"{text('b/twin')} too"}
    for name, words in about.items():
        task, short = name.split("#")
        rows.append(example_row(task, short, {"text": words, "label": 0}, ["answer"], group=300 + len(rows)))
    run = make_run(tmp_path / "run", rows)
    manifest = run_split(run, (Rule("all", "keep"),), near_duplicates=mode)
    found = members(run)
    assert {name for name, row in found.items() if row["reason"] == "near_duplicate"} == dropped
    assert manifest.dropped.get("near_duplicate", 0) == len(dropped)
    assert {found[name]["rule"] for name in dropped} <= {None} and found[tested]["split"] == "test"
    assert not found[tested]["clean"] or mode != "keep"
    with pytest.raises(StaleError, match=r"split\.near_duplicates"):
        run_split(run, (Rule("all", "keep"),), near_duplicates="keep" if mode == "drop" else "drop")


def test_where_a_decision_takes_the_survivor_the_next_of_its_cluster_survives(tmp_path):
    rows = catalogue_rows()
    run = make_run(tmp_path / "first", rows)
    tested = sorted(
        name for name, split in assigned(run).items() if split == "test" and name.startswith("b/held#")
    )[0]
    shared = json.loads(next(row["fields"] for row in rows if row["example"] == tested))["text"]
    long = f"{rng_words('long', 90, 5000)} {shared} {rng_words('more', 90, 5000)}"
    for task in ("b/docs", "b/qa"):
        for i in range(2):
            rows.append(
                example_row(task, f"long{i}", {"text": f"{long} {i}", "label": 0}, ["no"], group=300 + i)
            )
    run = make_run(tmp_path / "run", rows)
    near = {
        r["example"]: r["survivor"]
        for r in pq.read_table(run / "overlaps/near_duplicates.parquet").to_pylist()
    }
    assert near == dict.fromkeys(("b/docs#long1", "b/qa#long0", "b/qa#long1"), "b/docs#long0")
    rules = (Rule("docs", "drop_train_examples", When(train_task=("b/docs",))), Rule("rest", "keep"))
    run_split(run, rules, near_duplicates="drop")
    found = members(run)
    assert [found[f"b/docs#long{i}"]["reason"] for i in (0, 1)] == ["decision", "decision"]
    assert [found[f"b/qa#long{i}"]["reason"] for i in (0, 1)] == [None, "near_duplicate"]


def test_what_a_person_filled_into_undecided_stays_and_a_damaged_file_is_not_replaced(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(DecisionNeededError):
        run_split(run)
    path = run / "undecided.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[2], cells[5] = "keep", "ann"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    with pytest.raises(DecisionNeededError, match=r"1 of them have an action in .*undecided\.csv already"):
        run_split(run)
    assert path.read_text().splitlines() == [lines[0], ",".join(cells), *lines[2:]]
    path.write_text(f"{lines[0]}\nb/docs,b/held,kep,{cells[3]},,,,\n")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"undecided\.csv:2: action: unknown 'kep'"):
        run_split(run)
    assert path.read_bytes() == before
