"""Proposals: they decide every open pair, leave no level empty, take the cheaper side and say what each costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from catalogues import (
    example_row,
    examples_table,
    rng_words,
    run_stage,
    task_row,
    tasks_table,
    write_catalogue,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import call

from taskmill.artifact import Inputs
from taskmill.recipe import HeldOut, Overlap, Plan, Split
from taskmill.records import DECISION_COLUMNS, DIRECTORIES
from taskmill.splits import overlap, split
from taskmill.splits.deciding.decision_files import FILE, read_decisions, write_decisions
from taskmill.splits.deciding.decisions import Pair, decide, read_pairs
from taskmill.splits.deciding.membership import links, train_sizes
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.suggesting import graph as graphs
from taskmill.splits.suggesting import outlook
from taskmill.splits.suggesting.prices import WEIGHT, Price, Stock
from taskmill.splits.suggesting.suggest import BY, Ground, in_words, propose

PLAN = Plan(
    held_out=HeldOut(("Held",)),
    partial=("s/partial",),
    supervised=("s/both",),
    num_demonstration_groups=2,
)
OVERLAP = Overlap(n=5, frequent_groups=30)
CATEGORIES = {
    "s/held": "Held",
    "s/held2": "Held",
    "s/partial": "Seen",
    "s/both": "Other",
    "s/a": "Seen",
    "s/b": "Far",
}


def rows_of(
    task: str, keys: list[str], answers: list[str] | None = None, role: str | None = None
) -> list[dict]:
    """Examples that share their text with every other example of the same key."""
    found = []
    for place, key in enumerate(keys):
        answer = answers[place] if answers else f"{task} {place}"
        fields = {"q": rng_words(key, 9, 500), "own": f"{task[2:]} {place}"}
        found.append(example_row(task, f"{place:02d}", fields, [answer], group=place, upstream_split=role))
    return found


def make_run(run: Path, rows: list[dict], datasets: dict[str, str] | None = None, plan: Plan = PLAN) -> None:
    tasks = [task_row(t, c, (datasets or {}).get(t)) for t, c in CATEGORIES.items()]
    write_catalogue(run, tasks_table(tasks), examples_table(rows))
    run_stage("overlap", overlap, run, plan, OVERLAP)


def ground_of(
    run: Path, protected: frozenset[str] = frozenset(), weight: int = WEIGHT
) -> tuple[Ground, list[Pair]]:
    """What stands with no rule and no decision, and every pair."""
    inputs = Inputs({name: run / folder for name, folder in DIRECTORIES.items()})
    tasks = inputs.table("curate", "tasks").sort_by("task")
    plan, assignment = inputs.table("overlap", "plan"), inputs.table("overlap", "assignment")
    catalogue = make_catalogue(tasks, plan, assignment)
    members = split.make_members(
        catalogue, plan, assignment, inputs.batches("curate", "examples", ["example", "task", "content"])
    )
    hits = links(members, inputs.table("overlap", "hits"), "eval_example")
    stock = Stock(members, hits, links(members, inputs.table("overlap", "touched"), "train_example"))
    graph = graphs.leak_graph(tasks, inputs.batches("curate", "examples", graphs.COLUMNS), OVERLAP)
    roles = dict(zip(plan["task"].to_pylist(), plan["role"].to_pylist()))
    levels = dict(zip(plan["task"].to_pylist(), plan["level"].to_pylist()))
    partial = frozenset(task for task, level in levels.items() if level == "partial")
    families = {task: task for task in roles}
    ground = Ground(
        stock.after([], frozenset()),
        *(roles, families, dict(CATEGORIES), outlook.ties(graph), partial, protected, weight),
    )
    return ground, read_pairs(
        inputs.table("overlap", "pairs").to_pylist(), levels, train_sizes(plan, assignment)
    )


def suggested(run: Path, **more: Any) -> dict[tuple[str, str], str]:
    """Apply the proposals to a run without rules; returns pair -> action of the rows written."""
    ground, pairs = ground_of(run, **more)
    open_pairs = decide(pairs, [], (), 0.01).undecided
    proposals = propose(ground, open_pairs)
    assert {pair for p in proposals for pair in p.pairs} == set(open_pairs)
    assert sum(len(p.pairs) for p in proposals) == len(open_pairs)
    decisions = [decision for proposal in proposals for decision in proposal.decisions]
    assert not decide(pairs, decisions, (), 0.01).undecided
    write_decisions(run / FILE, decisions)
    assert read_decisions(run / FILE, ground.roles) == sorted(decisions, key=lambda d: d.pair)
    return {decision.pair: decision.action for decision in decisions}


def plain_rows() -> list[dict]:
    rows = []
    for task in CATEGORIES:
        rows += rows_of(task, [f"{task} {place}" for place in range(24)])
    return rows


def shared(rows: list[dict], train: str, evaluation: str, num: int, answers: bool = False) -> list[dict]:
    """The rows with the text of the last `num` evaluation examples copied over train examples, outputs too or not."""
    of = {task: [row for row in rows if row["task"] == task] for task in (train, evaluation)}
    for place in range(num):
        source, target = of[evaluation][-1 - place], of[train][place]
        fields = {**json.loads(target["fields"]), "q": json.loads(source["fields"])["q"]}
        replacement = example_row(
            train,
            target["example"].split("#")[1],
            fields,
            source["references"] if answers else target["references"],
            group=target["group"],
        )
        target.update(replacement)
    return rows


# -------------------------------------------------------------------------------------------- choices


def test_nothing_shared_needs_no_proposal(tmp_path: Path) -> None:
    make_run(tmp_path, plain_rows())
    assert suggested(tmp_path) == {}


def test_the_train_task_of_one_data_set_goes_unless_it_weighs_more(tmp_path: Path) -> None:
    make_run(tmp_path, plain_rows(), {"s/b": "same", "s/held": "same"})
    assert suggested(tmp_path) == {("s/b", "s/held"): "drop_train_task"}
    assert suggested(tmp_path, weight=1) == {("s/b", "s/held"): "drop_eval_task"}
    assert suggested(tmp_path, weight=1, protected=frozenset({"s/held"})) == {
        ("s/b", "s/held"): "drop_train_task"
    }
    assert suggested(tmp_path, protected=frozenset({"s/b"})) == {("s/b", "s/held"): "drop_eval_task"}
    both = suggested(tmp_path, protected=frozenset({"s/b", "s/held"}))
    assert both == {("s/b", "s/held"): "keep"}


def test_one_row_drops_a_task_and_covers_its_other_pairs(tmp_path: Path) -> None:
    rows = shared(plain_rows(), "s/b", "s/held2", 2)
    make_run(tmp_path, rows, {"s/b": "same", "s/held": "same"})
    ground, pairs = ground_of(tmp_path)
    (proposal,) = propose(ground, decide(pairs, [], (), 0.01).undecided)
    assert [pair.eval_task for pair in proposal.pairs] == ["s/held", "s/held2"]
    assert [decision.pair for decision in proposal.decisions] == [("s/b", "s/held")]
    assert proposal.price == Price("drop_train_task", train=24)


def test_most_of_the_text_in_the_other_is_one_source(tmp_path: Path) -> None:
    make_run(tmp_path, shared(plain_rows(), "s/b", "s/held", 20))
    assert suggested(tmp_path) == {("s/b", "s/held"): "drop_train_task"}
    run_stage("split", split, tmp_path, PLAN, OVERLAP, Split(rules=()))


def test_unrelated_outputs_are_kept_and_equal_ones_are_not(tmp_path: Path) -> None:
    make_run(tmp_path / "unrelated", shared(plain_rows(), "s/b", "s/partial", 3))
    assert suggested(tmp_path / "unrelated") == {("s/b", "s/partial"): "keep"}
    make_run(tmp_path / "equal", shared(plain_rows(), "s/b", "s/partial", 3, answers=True))
    assert suggested(tmp_path / "equal") == {("s/b", "s/partial"): "drop_train_examples"}


def test_frequent_text_is_kept_whatever_the_outputs(tmp_path: Path) -> None:
    rows = [
        example_row(
            row["task"],
            row["example"].split("#")[1],
            {**json.loads(row["fields"]), "q": "the same question stands before every single example"},
            ["yes"],
            group=row["group"],
        )
        if row["task"] in ("s/b", "s/held")
        else row
        for row in plain_rows()
    ]
    make_run(tmp_path, rows)
    ground, pairs = ground_of(tmp_path)
    (proposal,) = propose(ground, decide(pairs, [], (), 0.01).undecided)
    assert (proposal.action, proposal.reason, proposal.price.given_away) == ("keep", "frequent", 0)


def test_a_supervised_task_is_judged_by_example_even_with_itself(tmp_path: Path) -> None:
    rows = plain_rows()
    for row in rows:
        if row["task"] == "s/both" and row["group"] < 12:
            fields = {**json.loads(row["fields"]), "q": rng_words("passage", 9, 500)}
            row.update(
                example_row("s/both", row["example"].split("#")[1], fields, ["yes"], group=row["group"])
            )
    plan = Plan(supervised=("s/both",), carve_share=0.5)
    make_run(tmp_path, rows, plan=plan)
    chosen = suggested(tmp_path)
    assert chosen == {("s/both", "s/both"): "drop_train_examples"}
    run_stage("split", split, tmp_path, plan, OVERLAP, Split(rules=()))


def test_an_evaluation_task_that_costs_more_than_it_weighs_loses_its_hit_examples(tmp_path: Path) -> None:
    rows = plain_rows()
    key = [row for row in rows if row["task"] == "s/held"][-1]
    for row in rows:
        if row["task"] in ("s/a", "s/b") and row["group"] < 8:
            fields = {**json.loads(row["fields"]), "q": json.loads(key["fields"])["q"]}
            row.update(
                example_row(
                    row["task"], row["example"].split("#")[1], fields, key["references"], group=row["group"]
                )
            )
    make_run(tmp_path, rows)
    assert set(suggested(tmp_path, weight=17).values()) == {"drop_train_examples"}
    assert set(suggested(tmp_path, weight=15).values()) == {"drop_eval_examples"}


def test_a_partial_task_goes_when_its_category_would_train_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, plain_rows(), {"s/a": "same", "s/held": "same", "s/partial": "same"})
    chosen = suggested(tmp_path)
    assert ("s/a", "s/partial") in chosen and chosen["s/a", "s/partial"] == "drop_eval_task"
    run_stage("split", split, tmp_path, PLAN, OVERLAP, Split(rules=()))


def test_the_last_trained_task_of_a_partial_category_stays(tmp_path: Path) -> None:
    make_run(tmp_path, plain_rows(), {"s/a": "same", "s/held": "same"})
    assert suggested(tmp_path) == {("s/a", "s/held"): "drop_eval_task"}
    run_stage("split", split, tmp_path, PLAN, OVERLAP, Split(rules=()))


def test_prices_are_said_in_words(tmp_path: Path) -> None:
    make_run(tmp_path, shared(plain_rows(), "s/b", "s/held", 20))
    ground, pairs = ground_of(tmp_path)
    (proposal,) = propose(ground, decide(pairs, [], (), 0.01).undecided)
    (pair,) = proposal.pairs
    assert in_words(proposal.price, proposal.pairs) == "drop train task s/b: -24 train examples"
    words = [in_words(price, proposal.pairs) for price in proposal.alternatives]
    assert "keep: 81.8 % of s/held touched (18 of 22), 0 with an equal output" in words
    assert f"drop evaluation task s/held: -{pair.num_eval} evaluation examples" in words
    (decision,) = proposal.decisions
    assert (decision.by, decision.evidence) == (BY, pair.evidence)
    assert decision.why.endswith("drop train task s/b: -24 train examples")


PAIRS = st.tuples(
    st.sampled_from(["s/a", "s/b", "s/both"]),
    st.sampled_from(["s/held", "s/held2", "s/partial", "s/both"]),
    st.integers(1, 22),
    st.booleans(),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(PAIRS, max_size=5),
    st.dictionaries(st.sampled_from(sorted(CATEGORIES)), st.sampled_from(["d1", "d2"]), max_size=4),
    st.sampled_from([1, 7, 100]),
    st.frozensets(st.sampled_from(sorted(CATEGORIES)), max_size=2),
)
def test_any_catalogue_splits_after_the_proposals(
    tmp_path_factory, copies, datasets, weight, protected
) -> None:
    rows = plain_rows()
    for train, evaluation, num, answers in copies:
        if train != evaluation:
            rows = shared(rows, train, evaluation, num, answers)
    run = tmp_path_factory.mktemp("run")
    make_run(run, rows, datasets)
    chosen = suggested(run, weight=weight, protected=protected)
    for (train, evaluation), action in chosen.items():
        assert not (action == "drop_train_task" and train in protected)
        assert not (action == "drop_eval_task" and evaluation in protected)
    if not protected:  # who protects a task may leave a level nothing to stand on
        run_stage("split", split, run, PLAN, OVERLAP, Split(rules=()))


# ------------------------------------------------------------------------------------------- the plan


def test_exchanges_name_what_a_rule_pays_too_much_for() -> None:
    edges = [("t/a", "e/small"), ("t/b", "e/small"), ("t/c", "e/large")]
    train, evaluation = {"t/a": 5_000, "t/b": 4_000, "t/c": 100}, {"e/small": 5, "e/large": 900}
    (swap,) = outlook.exchanges(edges, train, evaluation, 100)
    assert (swap.evaluation_task, swap.train_tasks, swap.num_train) == ("e/small", ("t/a", "t/b"), 9_000)
    assert outlook.exchanges(edges, train, evaluation, 100, {"e/small"}) == []


def test_evaluation_prices_count_what_goes_for_one_alone() -> None:
    edges = [("t/a", "e/x"), ("t/a", "e/y"), ("t/b", "e/y"), ("t/c", "e/z")]
    sizes = {"t/a": 10, "t/b": 20, "t/c": 40}
    tasks = {"e/x": "e/x", "e/y": "e/y", "e/z": "e/z"}
    found = outlook.evaluation_prices(edges, tasks, sizes, dict.fromkeys(tasks, 3))
    assert [(p.name, p.alone, p.num_train) for p in found] == [("e/z", ("t/c",), 40), ("e/y", ("t/b",), 20)]
    joint = outlook.evaluation_prices(
        edges, {"e/x": "C", "e/y": "C", "e/z": "D"}, sizes, dict.fromkeys(tasks, 3)
    )
    assert [(p.name, p.alone, p.num_evaluation) for p in joint] == [
        ("D", ("t/c",), 3),
        ("C", ("t/a", "t/b"), 6),
    ]


def test_category_prices_count_tied_tasks_whole_and_others_by_example(tmp_path: Path) -> None:
    rows = shared(shared(plain_rows(), "s/a", "s/held", 20), "s/b", "s/held2", 3)
    tasks = tasks_table(
        [task_row(t, c, "one" if t in ("s/both", "s/held") else None) for t, c in CATEGORIES.items()]
    )
    graph = graphs.leak_graph(tasks, examples_table(rows).to_batches(), OVERLAP)
    found = outlook.ties(graph, [("s/b", "s/partial")])
    assert found["s/a", "s/held"] == found["s/held", "s/a"] == "contained"
    assert (found["s/both", "s/held"], found["s/partial", "s/b"]) == ("same_dataset", "alias")
    prices = {
        p.category: p for p in outlook.category_prices(graph, found, CATEGORIES, {"s/held": "held_out"})
    }
    held = prices["Held"]
    assert (held.planned, held.num_tasks, held.num_examples, held.num_tied, held.num_touched) == (
        "held_out",
        2,
        48,
        48,
        3,
    )
    assert held.tied == {"s/a": "contained", "s/both": "same_dataset"}
    assert held.total == 99
    assert outlook.moves([("s/a", "s/held"), ("s/a", "s/partial")], CATEGORIES) == {"s/a": ["s/held"]}


def test_near_duplicates_tie_tasks_that_share_no_window() -> None:
    """Every fourth word differs, so no five in a row are common."""
    rows = []
    for place in range(8):
        told = rng_words(f"story {place}", 20, 400).split(" ")
        other = [f"x{i}" if i % 4 == 3 else word for i, word in enumerate(told)]
        rows += [
            example_row("s/a", str(place), {"q": " ".join(told)}),
            example_row("s/b", str(place), {"q": " ".join(other)}),
        ]
    tasks = tasks_table([task_row("s/a", "C"), task_row("s/b", "D")])
    near = pa.table({"example": [f"s/b#{i}" for i in range(8)], "survivor": [f"s/a#{i}" for i in range(8)]})
    batches = examples_table(rows).to_batches()
    assert outlook.ties(graphs.leak_graph(tasks, batches, OVERLAP)) == {}
    found = outlook.ties(graphs.leak_graph(tasks, batches, OVERLAP, near))
    assert found == {("s/a", "s/b"): "contained", ("s/b", "s/a"): "contained"}
    few = outlook.ties(graphs.leak_graph(tasks, batches, OVERLAP, near.slice(0, 4)))
    assert few == {}


# ---------------------------------------------------------------------------------------- the command


def demo(*more: str) -> list[str]:
    return ["demo", "--run", "run", "--quiet", "--workers", "1", "--set", "split.decisions=null", *more]


NO_RULES = ("--set", "split.rules=[]")


def test_the_demo_splits_after_its_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "run", *demo(*NO_RULES), "--to", "split")[0] == 3
    code, out, err = call(capsys, "split", *demo(*NO_RULES), "--suggest")
    assert code == 0, err
    assert "6 pairs above the threshold: 0 decided by rules, 6 by 6 proposals" in out
    assert (
        "keep: 26.8 % of promptsource/quay_reviews/stalls touched (30 of 112), 0 with an equal output" in out
    )
    lines = (tmp_path / "run/suggested.csv").read_text().splitlines()
    assert lines[0] == ",".join(DECISION_COLUMNS)
    actions = {line.split(",")[0]: line.split(",")[2] for line in lines[1:]}
    assert actions == {  # what the demo's curator decided, and what its rules do
        "super_natural_instructions/task2002_ferry_bolq_question_answering": "drop_train_task",
        "reasoning/market_sums": "drop_train_task",
        "super_natural_instructions/task2003_lamp_commands_to_actions": "drop_train_examples",
        "super_natural_instructions/task2007_stall_review_question_generation": "keep",
        "super_natural_instructions/task2011_office_message_routing": "keep",
        "flan/harbour_news": "drop_train_examples",
    }
    assert not (tmp_path / "run/splits/manifest.json").exists()
    code, _, err = call(capsys, "decisions", "apply", "run", "run/suggested.csv")
    assert code == 0, err
    code, _, err = call(capsys, "split", *demo(*NO_RULES))
    assert code == 0, err
    code, out, _ = call(capsys, "split", *demo(*NO_RULES), "--suggest", "--json")
    body = json.loads(out)
    assert code == 0 and body["proposals"] == [] and body["pairs"]["person"] == 6


def test_rules_come_first_and_json_has_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "run", *demo(), "--to", "overlap")[0] == 0
    keep = ("--keep", "super_natural_instructions/*", "--weight", "3")
    code, out, err = call(capsys, "split", *demo(), "--suggest", "--json", *keep)
    assert code == 0, err
    body = json.loads(out)
    assert body["pairs"] == {"above": 6, "rule": 6, "person": 0, "dropped": 0, "proposed": 0}
    assert {rule["rule"] for rule in body["rules"]} >= {
        "supervised-instances",
        "frequent-only",
        "same-output",
    }
    assert body["weight"] == 3 and body["catalogue"]["tasks"] == 35
    assert (tmp_path / "run/suggested.csv").read_text() == ",".join(DECISION_COLUMNS) + "\n"
    (tmp_path / "run/suggested.csv").unlink()
    code, out, _ = call(capsys, "split", "run", "--quiet", "--suggest", "--dry-run")
    assert code == 0 and "6 pairs above the threshold: 6 decided by rules, 0 by 0 proposals" in out
    assert not (tmp_path / "run/suggested.csv").exists()
    assert {price["category"] for price in body["categories"]} >= {"Word Analogy", "Question Answering"}


def test_suggest_refuses_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "split", *demo(), "--suggest")
    assert code == 2 and "the stage 'curate' is not finished: run `taskmill curate" in err
    assert call(capsys, "run", *demo(), "--to", "overlap")[0] == 0
    code, _, err = call(capsys, "split", *demo(), "--suggest", "--set", "plan.partial=[]")
    assert code == 2 and "taskmill overlap" in err and "plan.partial" in err
    code, _, err = call(capsys, "split", *demo(), "--suggest", "--keep", "promtsource/*")
    assert code == 2 and "--keep" in err and "promptsource" in err
    code, _, err = call(capsys, "split", *demo(), "--keep", "*")
    assert code == 2 and "--suggest" in err
    assert not (tmp_path / "run/suggested.csv").exists()
