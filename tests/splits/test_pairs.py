"""The pair figures equal a brute-force set computation, on random small catalogues and on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from catalogues import (
    assignment_table,
    brute_force,
    check_pairs,
    example_row,
    examples_table,
    rng_words,
    task_row,
    tasks_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.compiling import load_kernels
from taskmill.normalisers import named
from taskmill.recipe import Overlap
from taskmill.records import SCHEMAS
from taskmill.splits.overlap import find_overlaps

ROLES = {
    "train": ("train", "demonstration", "validation", "excluded"),
    "eval": ("test", "demonstration", "excluded"),
}
ROLES["both"] = ("train", "test", "validation", "demonstration", "excluded")
LEVELS = {"train": None, "eval": "partial", "both": "supervised", "excluded": None}


def overlaps(
    tasks: pa.Table,
    roles: dict[str, str],
    examples: pa.Table,
    splits: list[str],
    batch: int,
    workers: int = 1,
    **overlap,
):
    rows = [{"task": t, "level": LEVELS[roles[t]], "role": roles[t], "why": ""} for t in sorted(roles)]
    plan = pa.Table.from_pylist(rows, schema=SCHEMAS["overlaps/plan"])
    assignment = assignment_table(examples, splits)
    return find_overlaps(
        tasks, plan, assignment, lambda: examples.to_batches(max_chunksize=batch), Overlap(**overlap), workers
    )


def sides_of(examples: pa.Table, splits: list[str], roles: dict[str, str]):
    """The train and the evaluation rows, as the design says in words."""
    rows = list(zip(examples.to_pylist(), splits))
    train = [
        r for r, s in rows if s == "train" or (s == "demonstration" and roles[r["task"]] in ("train", "both"))
    ]
    evaluation = [r for r, s in rows if s == "test" or (s == "validation" and roles[r["task"]] == "both")]
    return train, evaluation


MODES = ("words-1", "gpt3", "lm-eval")
PLAIN = ("a", "b", "c", "d")
AWKWARD = ("a", "B", "b", "c.", "c", "'", "-", "d\u00e9", "D\u00c9", "\u6771\u4eac", "\u2014", "a.b")


@st.composite
def catalogues(draw, vocabulary: tuple[str, ...] = PLAIN):
    text = st.lists(st.sampled_from(vocabulary), max_size=9).map(" ".join) | st.sampled_from(["", "", "a"])
    roles, rows, splits = {}, [], []
    for number in range(draw(st.integers(2, 4))):
        task = f"bench/t{number}"
        roles[task] = draw(st.sampled_from(["train", "eval", "both"]))
        for i in range(draw(st.integers(0, 5))):
            fields = {"text": draw(text), "answer": draw(text)}
            references = draw(st.lists(text, max_size=2))
            options = draw(st.none() | st.lists(text, max_size=2))
            group = draw(st.integers(0, 3))
            rows.append(example_row(task, str(i), fields, references, options=options, group=group))
            splits.append(draw(st.sampled_from(ROLES[roles[task]])))
    datasets = {task: draw(st.sampled_from(["x", "y", "z"])) for task in roles}
    return roles, datasets, rows, splits


@settings(max_examples=80, deadline=None)
@given(catalogues(), st.integers(2, 4), st.integers(0, 3), st.integers(1, 6))
def test_figures_equal_brute_force(catalogue, n, frequent_groups, batch):
    roles, datasets, rows, splits = catalogue
    fields = {task: ["answer"] for task in roles}
    tasks = tasks_table(task_row(task, "c", datasets[task], fields[task]) for task in roles)
    examples = examples_table(rows)
    train, evaluation = sides_of(examples, splits, roles)
    tables = overlaps(tasks, roles, examples, splits, batch, n=n, frequent_groups=frequent_groups)
    num_eval = {task: sum(row["task"] == task for row in evaluation) for task in roles}
    check_pairs(tables, brute_force(train, evaluation, fields, n, frequent_groups), num_eval)
    same = {
        (t, e)
        for t in roles
        for e in roles
        if datasets[t] == datasets[e] and roles[t] != "eval" and roles[e] != "train"
    }
    found = tables["pairs"].to_pylist()
    assert {(r["train_task"], r["eval_task"]) for r in found if r["same_dataset"]} == same
    keys = [(r["train_task"], r["eval_task"]) for r in found]
    assert keys == sorted(set(keys))


@settings(max_examples=60, deadline=None)
@given(catalogues(AWKWARD), st.sampled_from(MODES), st.integers(2, 4), st.integers(0, 3))
def test_figures_equal_brute_force_in_every_normalisation(catalogue, mode, n, frequent_groups):
    roles, datasets, rows, splits = catalogue
    fields = {task: ["answer"] for task in roles}
    tasks = tasks_table(task_row(task, "c", datasets[task], fields[task]) for task in roles)
    examples = examples_table(rows)
    train, evaluation = sides_of(examples, splits, roles)
    tables = overlaps(
        tasks, roles, examples, splits, 4, n=n, frequent_groups=frequent_groups, normalisation=mode
    )
    num_eval = {task: sum(row["task"] == task for row in evaluation) for task in roles}
    expected = brute_force(train, evaluation, fields, n, frequent_groups, named(mode))
    check_pairs(tables, expected, num_eval)


@settings(max_examples=60, deadline=None)
@given(catalogues(), st.integers(0, 3), st.booleans())
def test_a_train_task_more_or_less_changes_no_row_of_the_others(catalogue, number, is_frequent):
    roles, datasets, rows, splits = catalogue
    chosen = sorted(roles)[number % len(roles)]
    roles[chosen] = "train"
    splits = [
        split if row["task"] != chosen or split in ROLES["train"] else "train"
        for row, split in zip(rows, splits)
    ]
    limit = 0 if is_frequent else 1000
    with_it = found_in(roles, datasets, rows, splits, limit)
    kept = [place for place, row in enumerate(rows) if row["task"] != chosen]
    fewer = {task: role for task, role in roles.items() if task != chosen}
    without = found_in(fewer, datasets, [rows[i] for i in kept], [splits[i] for i in kept], limit)
    for name in ("pairs", "hits", "touched", "evidence"):
        assert [row for row in with_it[name] if row["train_task"] != chosen] == without[name]


def found_in(roles, datasets, rows, splits, frequent_groups) -> dict[str, list[dict]]:
    """The tables as rows; the splits belong to the rows, which are in no order."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["task"], rows[i]["example"]))
    tasks = tasks_table(task_row(task, "c", datasets[task], ["answer"]) for task in roles)
    tables = overlaps(
        tasks,
        roles,
        examples_table(rows),
        [splits[i] for i in order],
        3,
        n=2,
        frequent_groups=frequent_groups,
    )
    return {name: table.to_pylist() for name, table in tables.items()}


@settings(max_examples=30, deadline=None)
@given(catalogues(AWKWARD), st.sampled_from(MODES))
def test_numpy_gives_the_tables_of_the_compiled_kernels(catalogue, mode):
    pytest.importorskip("numba")
    assert load_kernels() is not None
    roles, datasets, rows, splits = catalogue
    tasks = tasks_table(task_row(task, "c", datasets[task], ["answer"]) for task in roles)
    examples, both = examples_table(rows), []
    with pytest.MonkeyPatch.context() as environment:
        for without in ("0", "1"):
            environment.setenv("TASKMILL_NO_NUMBA", without)
            both.append(overlaps(tasks, roles, examples, splits, 3, n=2, normalisation=mode))
    assert all(both[0][name].equals(both[1][name]) for name in both[0])


def test_examples_that_take_no_part_are_nobodys_near_duplicates():
    text = rng_words("twice", 30, 500)
    rows = [example_row(f"b/t{i}", "1", {"text": text}, ["yes"]) for i in range(3)]
    roles = {"b/t0": "eval", "b/t1": "train", "b/t2": "train"}
    tasks = tasks_table(task_row(task, "c") for task in roles)
    found = overlaps(tasks, roles, examples_table(rows), ["test", "train", "excluded"], 2)["near_duplicates"]
    assert [(row["example"], row["survivor"], row["jaccard"]) for row in found.to_pylist()] == [
        ("b/t1#1", "b/t0#1", 1.0)
    ]


def test_batches_and_threads_do_not_change_any_table():
    roles = {"b/train": "train", "b/other": "train", "b/eval": "eval"}
    rows = [
        example_row(task, f"{i:02d}", {"text": rng_words(f"{task}{i % 7}", 40, 6)}, ["yes"], group=i)
        for task in roles
        for i in range(30)
    ]
    tasks, examples = tasks_table(task_row(task, "c") for task in roles), examples_table(rows)
    splits = ["test" if task == "b/eval" else "train" for task in examples["task"].to_pylist()]
    one, many, threads = (
        overlaps(tasks, roles, examples, splits, batch, workers, n=4, frequent_groups=5)
        for batch, workers in ((1000, 1), (7, 1), (7, 3))
    )
    for name in one:
        assert one[name].equals(many[name]) and one[name].equals(threads[name])
    assert one["frequent"].num_rows and one["evidence"].num_rows


def test_evidence_shows_the_shared_window_and_where_it_is():
    shared = "seven quick brown foxes jump over"
    rows = [
        example_row("b/eval", "1", {"text": f"Before it: {shared} a fence"}, ["no"]),
        example_row("b/eval", "2", {"text": "short", "answer": f"so then {shared}"}, ["no"]),
        example_row("b/train", "1", {"text": "nothing at all"}, ["no"]),
        example_row("b/train", "2", {"text": "one two three"}, [f"And {shared}!"]),
    ]
    roles = {"b/eval": "eval", "b/train": "train"}
    tasks = tasks_table([task_row("b/eval", "c", None, ["answer"]), task_row("b/train", "c")])
    tables = overlaps(tasks, roles, examples_table(rows), ["test", "test", "train", "train"], 10, n=6)
    assert tables["evidence"].to_pylist() == [
        {
            "train_task": "b/train",
            "eval_task": "b/eval",
            "train_example": "b/train#2",
            "eval_example": f"b/eval#{name}",
            "window": shared,
            "train_position": 4,
            "eval_position": position,
        }
        for name, position in (("1", 2), ("2", 4))
    ]
    assert [row["side"] for row in tables["hits"].to_pylist()] == ["input", "output"]
    limited = overlaps(
        tasks, roles, examples_table(rows), ["test"] * 2 + ["train"] * 2, 10, n=6, num_evidence=1
    )
    assert limited["evidence"].num_rows == 1


def test_short_examples_are_compared_whole_in_their_own_column():
    rows = [
        example_row("b/eval", "1", {"text": "jump twice"}, ["JUMP JUMP"]),
        example_row("b/eval", "2", {"text": "walk left"}, ["LTURN WALK"]),
        example_row("b/eval", "3", {"text": "..."}, []),
        example_row("b/train", "1", {"text": "Jump, twice!"}, ["jump jump"]),
        example_row("b/train", "2", {"text": "walk left"}, ["no"]),
        example_row("b/train", "3", {"text": "?!"}, []),
    ]
    roles = {"b/eval": "eval", "b/train": "train"}
    tasks = tasks_table(task_row(task, "c") for task in roles)
    tables = overlaps(tasks, roles, examples_table(rows), ["test"] * 3 + ["train"] * 3, 10)
    (pair,) = tables["pairs"].to_pylist()
    assert (pair["num_hit"], pair["num_short_equal"], pair["num_same_output"]) == (0, 1, 1)
    (hit,) = tables["hits"].to_pylist()
    assert (hit["eval_example"], hit["train_example"], hit["num_grams"]) == ("b/eval#1", "b/train#1", 0)
    assert tables["evidence"].to_pylist()[0]["window"] == "jump twice jump jump"


def test_evidence_digest_ignores_frequency_and_names_but_not_content():
    def evidence(text: str, frequent_groups: int, name: str = "1") -> bytes:
        rows = [
            example_row("b/eval", "1", {"text": "a b c d e f"}, ["x"]),
            example_row("b/train", name, {"text": text}, ["y"]),
        ]
        roles = {"b/eval": "eval", "b/train": "train"}
        tasks = tasks_table(task_row(task, "c") for task in roles)
        found = overlaps(
            tasks, roles, examples_table(rows), ["test", "train"], 10, n=4, frequent_groups=frequent_groups
        )
        return found["pairs"]["evidence"].to_pylist()[0]

    base = evidence("a b c d z", 50)
    assert evidence("a b c d z", 0) == base
    assert evidence("a b c d z", 50, name="9") == base
    assert evidence("a b c d q", 50) != base
    assert base.hex() == "3ea345f43f367e32569223344b5e8997"  # changes only with a new REVISION


def test_boolq_passages_and_their_super_ni_twin(shared_data: Path):
    lines = (shared_data / "exmix_t5/boolq/dev.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    boolq = [json.loads(line) for line in lines]
    (file,) = (shared_data / "super_natural_instructions").glob("tasks*/task1661_*.json")
    twin = json.loads(file.read_text(encoding="utf-8"))["Instances"][:200]
    rows = [
        example_row(
            "t5/boolq", f"{i:04d}", {k: b[k] for k in ("question", "passage", "answer")}, [str(b["answer"])]
        )
        for i, b in enumerate(boolq)
    ]
    rows += [
        example_row("sni/task1661", f"{i:04d}", {"input": t["input"]}, t["output"])
        for i, t in enumerate(twin)
    ]
    roles = {"sni/task1661": "train", "t5/boolq": "eval"}
    fields = {"sni/task1661": [], "t5/boolq": ["answer"]}
    tasks = tasks_table(task_row(task, "c", None, fields[task]) for task in roles)
    examples = examples_table(rows)
    splits = ["train" if task == "sni/task1661" else "test" for task in examples["task"].to_pylist()]
    train, evaluation = sides_of(examples, splits, roles)
    tables = overlaps(tasks, roles, examples, splits, 100, frequent_groups=5)
    expected = brute_force(train, evaluation, fields, 13, 5)
    check_pairs(tables, expected, {"t5/boolq": len(boolq)})
    assert tables["pairs"]["num_hit"].to_pylist()[0] > 0


def test_boilerplate_is_frequent_where_every_task_that_holds_it_repeats_it():
    line = "please say what the text below is about"
    rows = [example_row("a/train", f"t{i}", {"text": f"{line} own{i}"}) for i in range(30)]
    rows += [example_row("a/eval", f"e{i}", {"text": f"{line} mine{i}"}) for i in range(20)]
    roles = {"a/train": "train", "a/eval": "eval"}
    tasks = tasks_table([task_row(task, "C") for task in roles])

    def rare(rows: list[dict], splits: list[str]) -> list[float]:
        examples = examples_table(rows)
        order = {row["example"]: split for row, split in zip(rows, splits, strict=True)}
        ordered = [order[name] for name in examples["example"].to_pylist()]
        table = overlaps(tasks, roles, examples, ordered, 7, n=5)["pairs"]
        assert table["hit_fraction"].to_pylist() == [1.0]
        return table["hit_fraction_rare"].to_pylist()

    sides = ["train"] * 30 + ["test"] * 20
    assert rare(rows, sides) == [0.0]
    assert rare(rows[29:], sides[29:]) == [1.0], "one passage behind every question is no boilerplate"
