"""Merging one task: ids, duplicates, caps, damaged values and what a task's row says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import text
from taskmill.curation.batches import finish_tasks
from taskmill.curation.contents import encode_record
from taskmill.curation.merging import Limits, TaskPlan, leave_task, license_of, merge_task
from taskmill.curation.reader import Aside, Columns, SourceFolder, TaskData, TaskEntry
from taskmill.errors import DataError
from taskmill.records import SCHEMAS, UPSTREAM_SPLITS
from taskmill.seeding import smallest
from taskmill.storage import canonical_json

DEFAULTS = {"style": "instance", "kind": "benchmark"}
ALL = Limits(0, 1000, None)


def plan(on_error: str = "stop", **row: Any) -> TaskPlan:
    source = SourceFolder(Path("/data/s"), Path("/data"), {}, on_error)
    return TaskPlan("b/t", "b", "t", "reader", source, TaskEntry("t", (), 0), row, "0123456789abcdef")


def add(columns: Columns, body: Any, split: str | None = None, answer: str = "yes", **more: Any) -> None:
    columns.append(
        {"text": body}, [answer], file="s/a.jsonl", record=len(columns), upstream_split=split, **more
    )


def data(*bodies: Any, facts: dict[str, Any] | None = None, **more: Any) -> TaskData:
    columns = Columns()
    for body in bodies:
        add(columns, body, **more)
    return TaskData(facts or {}, columns)


@dataclass(frozen=True)
class Rows:
    row: dict[str, Any]
    examples: pa.Table
    templates: list[dict[str, Any]]
    dropped: list[dict[str, Any]]


def merge(task: TaskData, limits: Limits = ALL, on_error: str = "stop", **row: Any) -> Rows:
    merged = merge_task(plan(on_error, **row), task, DEFAULTS, {"super_set": "set"}, limits)
    examples = finish_tasks([merged]).examples
    return Rows(merged.row, examples, merged.templates, merged.dropped)


# ------------------------------------------------------------------------------------- ids and contents

TEXTS = st.text(st.sampled_from('a,"\\:{é'), max_size=4) | st.just(',"options":')
FIELDS = st.dictionaries(
    st.sampled_from(["text", "options", "references", "b"]),
    st.recursive(
        TEXTS | st.integers(),
        lambda inner: st.dictionaries(st.sampled_from(["options", "x"]), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@given(FIELDS, st.none() | st.lists(TEXTS, max_size=2), st.lists(TEXTS, max_size=2))
def test_what_a_record_says_and_hashes_to_is_its_canonical_json(
    fields: dict[str, Any], options: list[str] | None, references: list[str]
) -> None:
    encoded = encode_record(fields, options, references)
    whole = {"references": references, "fields": fields, "options": options}
    assert encoded.fields == canonical_json(fields) and encoded.options is options
    assert encoded.content == hashlib.sha256(canonical_json(whole)).digest()


def test_options_that_change_after_a_record_was_encoded_count() -> None:
    encoded = [encode_record({"text": "a"}, options, ["yes"]) for options in (None, ["x"])]
    task = TaskData({}, Columns())
    add(task.columns, "a", encoded=encoded[0])
    task.columns.options = [["x"]]
    assert merge(task).examples["content"].to_pylist() == [encoded[1].content]


def test_an_example_is_the_documented_row() -> None:
    columns = Columns()
    fields = {"text": "Straße 7", "more": [1, None, True], "empty": {}}
    columns.append(
        fields,
        ["a"],
        file="s/f",
        record=4,
        upstream_id="u1",
        upstream_split="test",
        options=["a", "b"],
        quality="q",
    )
    [row] = merge(TaskData({}, columns)).examples.to_pylist()
    whole = {"fields": fields, "references": ["a"], "options": ["a", "b"]}
    hashes, _ = text.word_hashes(["1", "Straße 7", "a", "b", "a"])
    assert row.pop("group") > 0
    assert row == {
        "example": "b/t#u1",
        "task": "b/t",
        "upstream_split": "test",
        "fields": canonical_json(fields).decode(),
        "references": ["a"],
        "options": ["a", "b"],
        "quality": "q",
        "content": hashlib.sha256(canonical_json(whole)).digest(),
        "normalised": text.whole_keys(hashes, np.array([0, len(hashes)]))[0],
        "file": "s/f",
        "record": 4,
    }


def test_an_example_without_upstream_id_is_called_after_its_content() -> None:
    merged = merge(data("one", "two", "one"))
    rows = {row["example"]: row for row in merged.examples.to_pylist()}
    assert list(rows) == sorted(f"b/t#{row['content'].hex()[:16]}" for row in rows.values())
    [lost] = merged.dropped
    assert lost["example"] == lost["twin"] + "-2" and lost["record"] == 2


def test_ids_do_not_depend_on_place_or_on_other_examples() -> None:
    first = merge(data("one", "two", "three")).examples.to_pylist()
    second = merge(data("three", "x", "one")).examples.to_pylist()

    def ids(rows: list[dict[str, Any]]) -> dict[str, str]:
        return {row["fields"]: row["example"] for row in rows}

    both = ids(first).keys() & ids(second).keys()
    assert len(both) == 2 and all(ids(first)[k] == ids(second)[k] for k in both)


def test_an_upstream_id_for_two_records_stops_or_is_kept_aside() -> None:
    columns = Columns()
    for body in ("one", "two", "one"):
        add(columns, body, upstream_id="u")
    with pytest.raises(DataError, match=r"s/a.jsonl, record 1: the id 'u' already stands for another record"):
        merge(TaskData({}, columns))
    merged = merge(TaskData({}, columns), on_error="skip")
    assert merged.examples["example"].to_pylist() == ["b/t#u"]
    assert Counter(row["reason"] for row in merged.dropped) == {"repeated_id": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("value", "reason", "path"),
    [
        (float("nan"), "not_finite", "fields.text"),
        ([1.0, {"x": float("inf")}], "not_finite", "fields.text.1.x"),
        ("half \ud800", "lone_surrogate", "fields.text"),
        ({"\udc00": 1}, "lone_surrogate", "fields.text (a key)"),
        (b"bytes", "not_json", "fields.text"),
    ],
)
def test_a_value_that_no_table_can_hold(value: Any, reason: str, path: str) -> None:
    with pytest.raises(DataError) as caught:
        merge(data("fine", value))
    assert str(caught.value).startswith(f"s/a.jsonl, record 1, field {path!r}: ")
    assert "curate.on_error=skip" in str(caught.value)
    merged = merge(data("fine", value), on_error="skip")
    [row] = merged.dropped
    assert (row["reason"], row["file"], row["record"]) == (reason, "s/a.jsonl", 1)
    assert row["detail"].startswith(path) and "references" in row["raw"]
    row["raw"].encode()
    assert merged.examples.num_rows == 1


def test_a_surrogate_beside_the_fields_is_found() -> None:
    columns = Columns()
    add(columns, "x", group="g\ud800")
    merged = merge(TaskData({}, columns), on_error="skip")
    assert merged.dropped[0]["reason"] == "lone_surrogate" and merged.dropped[0]["detail"].startswith("group")


# ------------------------------------------------------------------------------------- what is dropped


@pytest.mark.parametrize(
    ("splits", "survivor"),
    [
        (["train", "test"], 1),
        ([None, "train"], 1),
        (["validation", "test", "validation"], 1),
        (["train", "demonstration", None], 1),
        (["demonstration", "validation"], 1),
        (["train", "train"], 0),
        ([None, None, None], 0),
    ],
)
def test_of_duplicates_the_evaluation_copy_survives(splits: list[str | None], survivor: int) -> None:
    columns = Columns()
    for split in splits:
        add(columns, "same", split)
    merged = merge(TaskData({}, columns))
    [kept] = merged.examples.to_pylist()
    assert kept["record"] == survivor
    assert {row["twin"] for row in merged.dropped} == {kept["example"]}
    assert {row["reason"] for row in merged.dropped} == {"duplicate"}


def test_equal_fields_with_another_answer_are_no_duplicate() -> None:
    columns = Columns()
    add(columns, "same", answer="yes")
    add(columns, "same", answer="no")
    assert merge(TaskData({}, columns)).examples.num_rows == 2


def test_max_examples_counts_train_and_unknown_rows_only() -> None:
    columns = Columns()
    for i in range(12):
        add(columns, f"x{i}", (None, "train", "test")[i % 3], upstream_id=f"{i:02d}")
    merged = merge(TaskData({}, columns), Limits(3, 5, None))
    kept = merged.examples.to_pylist()
    splits = Counter(row["upstream_split"] for row in kept)
    assert splits["test"] == 4 and splits["train"] + splits[None] == 5
    ids = [f"b/t#{i:02d}" for i in range(12) if i % 3 != 2]
    chosen = {ids[i] for i in smallest(5, 3, "max_examples", ids)}
    assert {row["example"] for row in kept if row["upstream_split"] != "test"} == chosen
    assert {row["reason"] for row in merged.dropped} == {"max_examples"}


def test_limit_counts_per_upstream_split_and_is_nested() -> None:
    task = TaskData({}, Columns())
    for i in range(40):
        add(task.columns, f"x{i}", (None, "train", "test", "demonstration")[i % 4])
    found: set[str] = set()
    for limit in (1, 3, 7):
        merged = merge(task, Limits(0, 1000, limit))
        rows = merged.examples.to_pylist()
        wanted = dict.fromkeys((None, "train", "test", "demonstration"), limit)
        assert Counter(row["upstream_split"] for row in rows) == wanted
        assert found <= {row["example"] for row in rows}
        found = {row["example"] for row in rows}
        assert {row["reason"] for row in merged.dropped} == {"limit"}


def test_damaged_records_are_accounted_for() -> None:
    task = data("one")
    task.aside.append(Aside("s/a.jsonl", 7, "bad_json", "why", "{half \udc80"))
    merged = merge(task)
    assert merged.row["num_read"] == 2 and merged.row["num_kept"] == 1
    [row] = merged.dropped
    assert row["reason"] == "bad_json" and row["raw"] == "{half \\udc80" and row["example"] is None


VALUES = st.one_of(
    st.sampled_from(["a", "b", "c", "A", "a!"]), st.integers(0, 2), st.just(float("nan")), st.just("\ud800")
)
ROWS = st.lists(
    st.tuples(VALUES, st.sampled_from([None, *UPSTREAM_SPLITS]), st.sampled_from([None, "1", "2"])),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(0, 6), st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 2))
def test_kept_and_dropped_is_read(
    rows: list[tuple[Any, str | None, str | None]], most: int, limit: int | None, num_damaged: int
) -> None:
    task = TaskData({}, Columns())
    for body, split, upstream_id in rows:
        add(task.columns, body, split, upstream_id=upstream_id)
    task.aside = [Aside("f", i, "bad_json", "", "") for i in range(num_damaged)]
    merged = merge(task, Limits(1, most, limit), on_error="skip")
    assert merged.examples.num_rows + len(merged.dropped) == len(rows) + num_damaged
    assert merged.row["num_read"] == len(rows) + num_damaged
    assert merged.row["num_kept"] == merged.examples.num_rows
    places = [row["record"] for row in merged.examples.to_pylist()] + [
        row["record"] for row in merged.dropped if row["file"] != "f"
    ]
    assert sorted(places) == list(range(len(rows)))
    ids = merged.examples["example"].to_pylist()
    assert ids == sorted(set(ids))
    contents = merged.examples["content"].to_pylist()
    assert len(set(contents)) == len(contents)


def test_a_task_left_to_another_benchmark_accounts_for_every_record() -> None:
    task = data("one", "one", "two")
    task.aside.append(Aside("s/a.jsonl", 9, "bad_json", "why", "{"))
    rows = leave_task(plan(), task, "dataset_elsewhere", "why", "a/t")
    assert Counter(row["reason"] for row in rows) == {"dataset_elsewhere": 3, "bad_json": 1}
    assert {row["twin"] for row in rows if row["reason"] == "dataset_elsewhere"} == {"a/t"}


# --------------------------------------------------------------------------------------------- the row


def test_a_row_has_every_column_but_the_shards() -> None:
    merged = merge(data("one"), category="C")
    columns = set(SCHEMAS["tasks/tasks"].names)
    assert columns - set(merged.row) == {"shard", "first_row"} and set(merged.row) <= columns


def test_taxonomy_wins_over_upstream_and_upstream_over_defaults() -> None:
    facts = {
        "category": "up",
        "dataset": "Super/Set",
        "license": "MIT",
        "definition": "Do.",
        "homepage": None,
        "metadata": {"b": 1, "a": None},
    }
    row = merge(data("one", facts=facts), category="taxonomy", shape="text", corpora=["Wikipedia"]).row
    assert row["category"] == "taxonomy" and row["license"] == "MIT" and row["definition"] == "Do."
    assert row["dataset"] == row["family"] == "set"
    assert row["corpora"] == ["Wikipedia"] and row["homepage"] is None and row["languages"] == []
    assert row["metadata"] == '{"a":null,"b":1,"shape":"text"}'
    assert row["revision"] == "0123456789abcdef"


def test_defaults_say_that_nothing_is_known() -> None:
    row = merge(data("one")).row
    assert (row["license"], row["license_evidence"]) == ("unknown", "not stated by the source")
    assert row["category"] == "" and row["dataset"] == "t"
    assert row["style"] == "instance" and row["kind"] == "benchmark" and row["metric"] == "rouge_l"


def test_a_licence_is_spdx_and_has_a_ground() -> None:
    found = [
        merge(data("one", facts=facts), **row).row
        for facts, row in (
            ({"license": "Apache 2.0", "license_evidence": "LICENSE"}, {}),
            ({"license": "nobody knows", "license_evidence": "a README"}, {}),
            ({"license": "MIT", "license_evidence": "a README"}, {"license": "CC BY 4.0"}),
        )
    ]
    assert [(row["license"], row["license_evidence"]) for row in found] == [
        ("Apache-2.0", "LICENSE"),
        ("unknown", "a README"),
        ("CC-BY-4.0", "the taxonomy"),
    ]
    assert license_of(plan(), data("one")) == ("unknown", "not stated by the source")


def test_groups_are_counted_demonstrations_among_them() -> None:
    columns = Columns()
    for body, split in (("same input", None), ("Same input!", "demonstration"), ("another", None)):
        add(columns, body, split, answer=str(len(columns)))
    row = merge(TaskData({}, columns)).row
    assert (row["num_groups"], row["largest_group"]) == (2, 2)
    empty = TaskData({}, Columns())
    assert merge(empty).row["num_groups"] == merge(empty).row["largest_group"] == 0


def test_options_make_a_task_multiple_choice() -> None:
    assert merge(data("one", "two", options=["yes", "no"])).row["metric"] == "accuracy"
    mixed = data("one", options=["yes", "no"])
    add(mixed.columns, "two")
    assert merge(mixed).row["multiple_choice"] is False
    assert merge(data("one", options=["yes", "no"]), style="keywords").row["metric"] == "rouge_l"


def test_only_positive_demonstrations_are_named_in_upstream_order() -> None:
    columns = Columns()
    for name, kind in (("z", "positive"), ("y", "negative"), ("a", "positive")):
        columns.append(
            {"input": name, "example_kind": kind},
            ["o"],
            file="f",
            record=0,
            upstream_id=name,
            upstream_split="demonstration",
        )
    assert merge(TaskData({}, columns)).row["demonstrations"] == ["b/t#z", "b/t#a"]


def test_metadata_that_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match="task b/t: metadata is no JSON"):
        merge(data("one", facts={"metadata": {"x": float("nan")}}))


def template(identity: str) -> dict[str, Any]:
    return {
        "template": identity,
        "name": "n",
        "body": "{{text}}",
        "choices": "yes ||| no",
        "reads": ["text"],
        "keeps_task": True,
        "why": None,
        "metadata": {"x": 1},
    }


def test_templates_are_sorted_and_digested() -> None:
    task = data("one")
    task.templates = [template("b"), template("a")]
    merged = merge(task)
    assert [row["template"] for row in merged.templates] == ["a", "b"]
    assert {frozenset(row) for row in merged.templates} == {frozenset(SCHEMAS["tasks/templates"].names)}
    assert json.loads(merged.templates[0]["metadata"]) == {"x": 1}
    assert len({row["digest"] for row in merged.templates}) == 2
    assert merged.row["multiple_choice"] is True
    task.templates = [template("a"), template("a")]
    with pytest.raises(DataError, match="two templates 'a'"):
        merge(task)
