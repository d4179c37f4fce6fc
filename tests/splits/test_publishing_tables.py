"""The tables of a published benchmark, against the tables of its run joined row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_run import STEMS, inputs_of, make_benchmark_run

from taskmill import recipe_files
from taskmill.commands.decisions import open_desk
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.published import Published, ids_path
from taskmill.splits.publishing.writing.folder import write_published
from taskmill.splits.publishing.writing.manifest import PublishPlan
from taskmill.splits.publishing.writing.tables import published_tables

Rows = dict[str, list[dict]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_benchmark_run(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tables(run: Path) -> dict[str, pa.Table]:
    return published_tables(inputs_of(run), recipe_files.from_json(run))


@pytest.fixture(scope="module")
def before(run: Path) -> Rows:
    """Rows of the run's tables as `folder/name`."""
    found = {
        path.relative_to(run).with_suffix("").as_posix(): pq.read_table(path).to_pylist()
        for stage in ("tasks", "overlaps", "splits")
        for path in (run / stage).glob("*.parquet")
    }
    shards = sorted((run / "tasks" / "examples").glob("*.parquet"))
    return {**found, "tasks/examples": [row for path in shards for row in pq.read_table(path).to_pylist()]}


def ids_of(tables: dict[str, pa.Table]) -> list[dict]:
    rows = [r for path, t in tables.items() if path.startswith("ids/") for r in t.to_pylist()]
    return sorted(rows, key=lambda row: (row["task"], row["example"]))


def test_every_example_is_listed_once_with_what_all_stages_say_of_it(tables: dict, before: Rows) -> None:
    tasks = {row["task"]: row for row in before["tasks/tasks"]}
    levels = {row["task"]: row["level"] for row in before["splits/tasks"]}
    examples = {row["example"]: row for row in before["tasks/examples"]}
    assigned = {row["example"]: row for row in before["overlaps/assignment"]}
    wanted = []
    for row in before["splits/members"]:
        example, task, plan = examples[row["example"]], tasks[row["task"]], assigned[row["example"]]
        keys = ("example", "task", "split", "reason", "rule", "group", "clean", "clean_rare")
        wanted.append(
            {key: row[key] for key in keys}
            | {key: task[key] for key in ("benchmark", "category", "license")}
            | {key: example[key] for key in ("upstream_split", "file", "record")}
            | {key: example[key].hex() for key in ("content", "normalised")}
            | {"level": levels[row["task"]]}
            | {"assigned": plan["split"], "assigned_reason": plan["reason"]}
        )
    assert ids_of(tables) == sorted(wanted, key=lambda row: (row["task"], row["example"]))
    for path, table in tables.items():
        if path.startswith("ids/"):
            rows = table.to_pylist()
            assert {ids_path(row["level"] or "train", row["split"]) for row in rows} == {path}
            assert rows == sorted(rows, key=lambda row: (row["task"], row["example"]))


def test_tables_have_the_published_columns_and_order(tables: dict, before: Rows) -> None:
    for path, table in tables.items():
        name = "ids" if path.startswith("ids/") else Path(path).stem
        assert table.schema.equals(PUBLISHED[name]), path
    tasks = tables["tables/tasks.parquet"].to_pylist()
    assert [row["task"] for row in tasks] == sorted(row["task"] for row in before["tasks/tasks"])
    split = {row["task"]: row for row in before["splits/tasks"]}
    plan = {row["task"]: row for row in before["overlaps/plan"]}
    for row in tasks:
        assert {key: row[key] for key in split[row["task"]]} == split[row["task"]]
        assert [row["planned_level"], row["planned_role"]] == [
            plan[row["task"]]["level"],
            plan[row["task"]]["role"],
        ]
    assert {"frequent", "templates", "near_duplicates"} <= {Path(path).stem for path in tables}


def test_what_is_left_out_is_listed_with_its_reason(tables: dict, before: Rows) -> None:
    drops = tables["tables/drops.parquet"].to_pylist()
    by_curate = [row for row in drops if row["stage"] == "curate"]
    names = ("task", "example", "reason", "twin", "file", "record")
    expected = [{key: row[key] for key in names} for row in before["tasks/dropped"]]
    assert [{key: row[key] for key in names} for row in by_curate] == expected != []
    excluded = {row["example"]: row for row in before["splits/members"] if row["split"] == "excluded"}
    others = {row["example"]: row for row in drops if row["stage"] != "curate"}
    assert others.keys() == excluded.keys()
    assert all(
        (row["reason"], row["rule"]) == (excluded[e]["reason"], excluded[e]["rule"])
        for e, row in others.items()
    )
    stages = Counter((row["stage"], row["reason"]) for row in others.values())
    assert stages == {
        ("split", "decision"): stages["split", "decision"],
        ("split", "duplicate"): 1,
        ("split", "near_duplicate"): 2,
        ("overlap", "unused_test"): 5,
    }


def test_the_twin_of_a_dropped_example_is_what_it_was_too_much_like(tables: dict, before: Rows) -> None:
    drops = [row for row in tables["tables/drops.parquet"].to_pylist() if row["stage"] == "split"]
    members = {row["example"]: row for row in before["splits/members"]}
    near = {row["example"]: row["survivor"] for row in before["overlaps/near_duplicates"]}
    deciders = {
        (row["train_task"], row["eval_task"]): row["rule"] if row["by"] == "rule" else "person"
        for row in before["splits/decisions"]
        if row["action"] == "drop_train_examples"
    }
    num_choices = list[int]()
    for row in drops:
        twin = row["twin"]
        assert twin is None or members[twin]["split"] != "excluded"
        assert (row["num_grams"] is None) or row["reason"] == "decision"
        if row["reason"] == "decision":
            hits, windows = (
                [
                    (-found.get("num_grams", 0), found["eval_example"])
                    for found in before[f"overlaps/{name}"]
                    if found["train_example"] == row["example"]
                    and deciders.get((found["train_task"], found["eval_task"])) == row["rule"]
                ]
                for name in ("hits", "evidence")
            )
            num_choices.append(len({number for number, _ in hits}))
            if hits:
                assert (-row["num_grams"], twin) == min(hits)
            else:
                assert twin == min((example for _, example in windows), default=None)
        elif row["reason"] == "duplicate":
            assert members[twin]["content"] == members[row["example"]]["content"] and twin != row["example"]
            assert members[twin]["split"] == "test"
        else:
            cluster = near[row["example"]]
            assert twin == cluster or near[twin] == cluster
    assert max(num_choices) > 1 and min(num_choices) == 0  # there was something to choose
    assert {row["rule"] for row in drops} == {None, "person", "supervised-instances"}


def test_tables_without_examples_are_those_of_the_run(tables: dict, before: Rows) -> None:
    for name, source in (
        ("decisions", "splits/decisions"),
        ("near_duplicates", "overlaps/near_duplicates"),
        ("frequent", "overlaps/frequent"),
        ("templates", "tasks/templates"),
    ):
        found = tables[f"tables/{name}.parquet"].to_pylist()
        wanted = [{key: row[key] for key in PUBLISHED[name].names} for row in before[source]]
        assert sorted(found, key=str) == sorted(wanted, key=str)
    assert len(before["splits/decisions"]) == 3 and len(before["overlaps/near_duplicates"]) > 2


def test_an_evaluation_example_that_a_decision_took_out_has_the_train_example_as_twin(tmp_path: Path) -> None:
    run = make_benchmark_run(tmp_path, "split", "drop_train_task", "drop_eval_examples")
    tables = published_tables(inputs_of(run), recipe_files.from_json(run))
    hits = pq.read_table(run / "overlaps" / "hits.parquet").to_pylist()
    rows = [r for r in tables["tables/drops.parquet"].to_pylist() if r["reason"] == "decision"]
    of_logs = [row for row in rows if row["task"] == "other/logs"]
    [hit] = [hit for hit in hits if hit["train_task"] == "own/tides"]
    assert [(r["example"], r["twin"], r["num_grams"]) for r in of_logs] == [
        (hit["eval_example"], hit["train_example"], hit["num_grams"])
    ]
    pair = ("own/echoes", "other/logs")
    touched = {hit["train_example"] for hit in hits if (hit["train_task"], hit["eval_task"]) == pair}
    assert {row["example"] for row in rows if row["twin"] and row["task"] == "own/echoes"} >= touched
    assert len([row for row in rows if row["task"] == "own/echoes"]) == 49 > len(touched) > 4


def test_pairs_are_in_the_state_that_the_commands_show(run: Path, tables: dict) -> None:
    desk = open_desk(run)
    states = desk.states(desk.verdict(desk.people.values()))
    found = {(r["train_task"], r["eval_task"]): r for r in tables["tables/pairs.parquet"].to_pylist()}
    assert {pair: row["state"] for pair, row in found.items()} == states
    assert {pair: row["evidence"] for pair, row in found.items()} == desk.present()
    assert set(states.values()) == {"person", "rule", "below"}


def test_no_text_of_the_data_is_in_a_benchmark_of_ids(run: Path, tmp_path: Path) -> None:
    made = publish(run, tmp_path)
    parts = [stem + "zq" for stem in STEMS]
    for entry in made.files:
        path = made.folder / entry.path
        texts = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            texts = str(pq.read_table(path).to_pydict())
        assert not any(part in texts for part in parts), entry.path
    assert any(
        part in str(pq.read_table(run / "overlaps" / "evidence.parquet").to_pydict()) for part in parts
    )


def test_the_root_says_nothing_of_prompts_and_all_of_rows(run: Path, tmp_path: Path) -> None:
    made, with_data = publish(run, tmp_path / "a"), publish(run, tmp_path / "b", with_data=True)
    assert made.root == with_data.root
    assert made.body["prompts_root"] is None and with_data.body["prompts_root"]
    assert [f for f in with_data.files if not f.path.startswith("data/")] == made.files


def test_the_manifest_counts_what_the_tables_hold(run: Path, tmp_path: Path, tables: dict) -> None:
    made = publish(run, tmp_path)
    body, rows = made.body, ids_of(tables)
    counted = Counter((row["level"] or "train", row["split"]) for row in rows)
    assert {(c, s): n for c, splits in body["levels"].items() for s, n in splits.items()} == counted
    assert body["tasks"] == {
        "held_out": 1,
        "supervised": 1,
        "train": 2,
    }  # and own/drift, of which nothing is used
    kept = [row for row in rows if row["split"] != "excluded"]
    assert {row["license"]: row["num_examples"] for row in body["licenses"]} == Counter(
        row["license"] for row in kept
    )
    leakage = body["leakage"]
    assert [(row["train_task"], row["by"], row["why"]) for row in leakage["kept"]] == [
        ("own/tides", "ann", "one log only")
    ]
    assert leakage["num_kept"] == 1 and leakage["num_unclean"] == sum(not row["clean"] for row in rows) == 1
    assert [source["files"][0]["name"] for source in body["sources"]] == [
        "notes.jsonl",
        "logs.jsonl",
        "echoes.jsonl",
        "tides.jsonl",
        "drift_test.jsonl",
    ]
    assert made.ids().to_pylist() == rows
    assert made.ids(["split", "example"]).column_names == ["split", "example"]


def publish(run: Path, folder: Path, with_data: bool = False) -> Published:
    """Write a benchmark without words about it."""
    resolved = recipe_files.from_json(run)
    values = recipe_files.resolved_json(resolved)["values"]
    plan = PublishPlan(with_data)
    return write_published(inputs_of(run), resolved, folder, plan, (values, {}), lambda body: {}, {})
