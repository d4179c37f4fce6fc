"""Two versions of a benchmark: what changed, and whether the second contains the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.records import PUBLISHED
from taskmill.splits.publishing.comparing.comparison import (
    KINDS,
    Comparison,
    View,
    compare,
    moves,
    view_of_tables,
)
from taskmill.splits.publishing.comparing.matching import match
from taskmill.splits.publishing.comparing.settings_changed import changed_settings, changed_sources, leaves
from taskmill.splits.publishing.published import TABLE_NAMES, ids_path, table_path

Row = dict[str, Any]


def blank(table: str, **values: Any) -> Row:
    """A row of a published table: the values that are given, something plain for all others."""
    plain = {pa.string(): "", pa.int64(): 0, pa.uint64(): 0, pa.bool_(): True, pa.float64(): 0.0}
    row = {f.name: None if f.nullable else plain.get(f.type, []) for f in PUBLISHED[table]}
    assert values.keys() <= row.keys()
    return row | values


def example(name: str, level: str | None = "held_out", split: str = "test", **more: Any) -> Row:
    task = more.pop("task", "b/one")
    values = {
        "example": f"{task}#{name}",
        "task": task,
        "level": level,
        "split": split,
        "content": f"<{name}>",
    }
    return blank("ids", **values | more)


def decision(train: str, evaluation: str, action: str = "keep", evidence: str = "e", **more: Any) -> Row:
    return blank(
        "decisions", train_task=train, eval_task=evaluation, action=action, evidence=evidence, **more
    )


BASE = {
    "ids": [example("1"), example("2"), example("3", None, "train", task="b/two")],
    "tasks": [blank("tasks", task="b/one", level="held_out"), blank("tasks", task="b/two", role="train")],
    "decisions": [decision("b/two", "b/one")],
    "templates": [blank("templates", task="b/one", template="b/one/x", digest="d")],
}
RECIPE: Row = {"name": "base", "sources": [], "split": {"threshold": 0.01}}


def view(rows: Mapping[str, Sequence[Row]] = BASE, recipe: Row | None = None, root: str = "r") -> View:
    """A version of a benchmark with these rows; tables that are not named are empty."""
    tables = {
        table_path(name): pa.Table.from_pylist(list(rows.get(name, [])), PUBLISHED[name])
        for name in TABLE_NAMES
    }
    places = {(row["level"] or "train", row["split"]) for row in rows["ids"]}
    for level, split in places:
        mine = [row for row in rows["ids"] if (row["level"] or "train", row["split"]) == (level, split)]
        tables[ids_path(level, split)] = pa.Table.from_pylist(mine, PUBLISHED["ids"])
    return view_of_tables(tables, root, [], recipe or RECIPE)


def changed(table: str, number: int | None, **values: Any) -> dict[str, list[Row]]:
    """BASE with a row changed or, with no number, added."""
    rows = {name: [dict(row) for row in found] for name, found in BASE.items()}
    if number is None:
        rows[table].append(values)
    elif values:
        rows[table][number] |= values
    else:
        del rows[table][number]
    return rows


def kinds(found: Comparison) -> dict[str, int]:
    return {kind: table.num_rows for kind, table in found.tables.items() if table.num_rows}


def test_a_version_is_itself() -> None:
    found = compare(view(), view())
    assert found.contained and found.same and list(found.tables) == list(KINDS)
    assert (kinds(found), found.sources, found.settings) == ({}, [], [])
    assert (found.num_rows, found.columns) == ({}, {"examples": {}, "decisions": {}})


@pytest.mark.parametrize(
    ("rows", "kind", "problem"),
    [
        (changed("ids", 0), "examples_gone", "1 example is gone: b/one#1"),
        (changed("ids", None, **example("9")), "examples_added", None),
        (
            changed("ids", 0, content="x"),
            "examples_rewritten",
            "1 example has other content: b/one#1",
        ),
        (
            changed("ids", 1, split="excluded", reason="duplicate", rule="r"),
            "examples_moved",
            "1 example has moved: b/one#2, from held_out test to held_out excluded (duplicate)",
        ),
        (
            changed("ids", 2, level="supervised"),
            "examples_moved",
            "1 example has moved: b/two#3, from train to supervised train",
        ),
        (changed("ids", 0, clean=False), "examples_cleanness", None),
        (changed("ids", 0, clean_rare=False), "examples_cleanness", None),
        (changed("tasks", 0), "tasks_gone", None),
        (changed("tasks", None, **blank("tasks", task="b/three")), "tasks_added", None),
        (changed("tasks", 0, level="partial"), "tasks_changed", None),
        (changed("tasks", 0, languages=["en"]), "tasks_changed", None),
        (changed("decisions", 0), "decisions_gone", "1 decision is gone: b/two -> b/one"),
        (changed("decisions", None, **decision("b/two", "b/two")), "decisions_added", None),
        (
            changed("decisions", 0, action="drop_eval_task"),
            "decisions_changed",
            "1 decision is another one: b/two -> b/one, keep before and drop_eval_task now",
        ),
        (
            changed("decisions", 0, evidence="f"),
            "decisions_changed",
            "1 decision is another one: b/two -> b/one, keep about other evidence",
        ),
        (changed("templates", 0), "templates_gone", None),
        (changed("templates", 0, digest="x"), "templates_changed", None),
        (changed("templates", None, **blank("templates", task="b/one")), "templates_added", None),
    ],
)
def test_each_kind_of_change_is_named(rows: dict[str, list[Row]], kind: str, problem: str | None) -> None:
    before, after = view(), view(rows, root="s")
    found = compare(before, after)
    assert kinds(found) == {kind: 1} and not found.same
    assert found.problems == ([problem] if problem else [])
    assert found.contained is (problem is None)
    back = compare(after, before)
    opposite = kind.replace("gone", "GONE").replace("added", "gone").replace("GONE", "added")
    assert kinds(back) == {opposite: 1}


def test_changes_that_move_nothing_are_counted_by_column() -> None:
    found = compare(view(), view(changed("ids", 0, license="MIT", file="a")))
    assert found.contained and not found.same and kinds(found) == {}
    assert found.columns == {"examples": {"file": 1, "license": 1}, "decisions": {}}
    found = compare(view(), view(changed("decisions", 0, by="ann", why="looked")))
    assert found.contained and kinds(found) == {}
    assert found.columns == {"examples": {}, "decisions": {"by": 1, "why": 1}}
    drops = {**BASE, "drops": [blank("drops", stage="curate", reason="empty")]}
    assert compare(view(), view(drops)).num_rows == {"drops": (0, 1)}
    others = {**BASE, "drops": [blank("drops", stage="curate", reason="duplicate")]}
    assert compare(view(drops), view(others)).num_rows == {"drops": (1, 1)}
    assert not compare(view(drops), view(others)).same


def test_many_examples_are_told_by_their_number_and_the_first() -> None:
    rows = changed("ids", 0, split="train")
    rows["ids"][1] |= {"split": "train"}
    found = compare(view(), view(rows))
    assert found.problems == [
        "2 examples have moved, the first b/one#1, from held_out test to held_out train"
    ]
    assert moves(found.tables["examples_moved"]) == [("held_out test", "held_out train", 2)]
    assert moves(compare(view(), view()).tables["examples_moved"]) == []


def test_values_before_and_after_stand_side_by_side() -> None:
    found = compare(view(), view(changed("ids", 1, split="excluded", reason="duplicate", rule="r")))
    assert found.tables["examples_moved"].to_pylist() == [
        {
            "task": "b/one",
            "example": "b/one#2",
            "level_before": "held_out",
            "level_after": "held_out",
            "split_before": "test",
            "split_after": "excluded",
            "reason_before": None,
            "reason_after": "duplicate",
            "rule_before": None,
            "rule_after": "r",
        }
    ]
    found = compare(view(), view(changed("tasks", 0, level="partial", languages=["en"])))
    assert found.tables["tasks_changed"].to_pylist() == [
        {"task": "b/one", "column": "languages", "before": "[]", "after": "['en']"},
        {"task": "b/one", "column": "level", "before": "held_out", "after": "partial"},
    ]


_PLACES = st.tuples(st.sampled_from([None, "held_out", "partial"]), st.sampled_from(["train", "test"]))
_VERSION = st.dictionaries(st.sampled_from("abcdef"), st.tuples(_PLACES, st.sampled_from("xy")), max_size=6)


@settings(max_examples=40, deadline=None)
@given(_VERSION, _VERSION)
def test_containment_is_what_a_loop_over_all_rows_says(
    ours: dict[str, tuple[tuple[str | None, str], str]], theirs: dict[str, tuple[tuple[str | None, str], str]]
) -> None:
    versions = [
        view({"ids": [example(name, *place, content=text) for name, (place, text) in side.items()]})
        for side in (ours, theirs)
    ]
    found = compare(*versions)
    assert found.contained is all(theirs.get(name) == value for name, value in ours.items())
    both = ours.keys() & theirs.keys()
    assert found.tables["examples_gone"].num_rows == len(ours.keys() - theirs.keys())
    assert found.tables["examples_added"].num_rows == len(theirs.keys() - ours.keys())
    assert found.tables["examples_moved"].num_rows == sum(ours[n][0] != theirs[n][0] for n in both)
    assert found.tables["examples_rewritten"].num_rows == sum(ours[n][1] != theirs[n][1] for n in both)


def test_rows_of_200_000_examples_are_matched_in_columns() -> None:
    numbers = np.arange(200_000)
    names = pa.array([f"b/one#{number}" for number in numbers])
    table = pa.table({"example": names, "split": pa.array(["train", "test"]).take(pa.array(numbers % 2))})
    other = table.take(pa.array(numbers[::-1][:-1])).set_column(
        1, "split", pa.array(["test"] * (len(numbers) - 1))
    )
    found = match(table, other, ["example"])
    assert found.gone.to_pylist() == [{"example": "b/one#0", "split": "train"}]
    assert found.added.num_rows == 0 and found.changed_columns == {"split": 99_999}
    assert found.before["example"].equals(found.after["example"])


# ---------------------------------------------------------------------------------- sources, settings


def source(benchmark: str, path: str, **more: Any) -> Row:
    files = [{"name": name, "bytes": 1, "sha256": text, "records": 1} for name, text in more.pop("files", [])]
    return {"benchmark": benchmark, "reader": "table", "path": path, "files": files} | more


def test_sources_are_known_by_their_place_then_by_their_benchmark() -> None:
    before = [source("a", "a.csv", files=[("a.csv", "1")]), source("b", "b.csv"), source("c", "c.csv")]
    after = [
        source("d", "d.csv", files=[("d.csv", "4")]),
        source("b", "new/b.csv"),
        source("a", "a.csv", files=[("a.csv", "2"), ("a2.csv", "3")]),
    ]
    assert changed_sources(before, after, {}, {}) == [
        {
            "source": "a (a.csv)",
            "change": "changed",
            "fields": [],
            "files": {"added": ["a2.csv"], "changed": ["a.csv"]},
        },
        {
            "source": "b (new/b.csv)",
            "change": "changed",
            "fields": [{"field": "path", "before": "b.csv", "after": "new/b.csv"}],
            "files": {},
        },
        {"source": "c (c.csv)", "change": "gone", "fields": [], "files": {"gone": []}},
        {"source": "d (d.csv)", "change": "added", "fields": [], "files": {"added": ["d.csv"]}},
    ]


def test_a_source_of_the_hub_is_the_same_one_at_another_commit() -> None:
    before = [source("a", ".", hub=f"ann/a@{'1' * 40}"), source("a", ".", hub=f"bob/a@{'1' * 40}")]
    after = [source("a", ".", hub=f"bob/a@{'2' * 40}"), source("a", ".", hub=f"ann/a@{'1' * 40}")]
    (found,) = changed_sources(before, after, {}, {})
    assert (found["source"], [field["field"] for field in found["fields"]]) == ("a (bob/a)", ["hub"])


def test_how_a_source_is_read_counts_too() -> None:
    entries = [source("a", "a.csv")]
    recipes = [{"sources": [{"include": [pattern], "exclude": [], "options": {}}]} for pattern in "xy"]
    (found,) = changed_sources(entries, entries, *recipes)
    assert found["fields"] == [{"field": "include", "before": ["x"], "after": ["y"]}]


def test_settings_are_compared_value_by_value() -> None:
    before = {
        "name": "v",
        "seed": 0,
        "split": {"rules": [{"name": "a", "action": "keep"}], "threshold": 0.01},
    }
    after = {
        "name": "v",
        "seed": 0,
        "split": {"rules": [{"name": "b", "action": "keep"}, {"name": "a", "action": "drop"}]},
        "extends": None,
    }
    assert changed_settings(before, after) == [
        {"setting": "extends", "before": None, "after": None},
        {"setting": "split.rules.a.action", "before": "keep", "after": "drop"},
        {"setting": "split.rules.b.action", "before": None, "after": "keep"},
        {"setting": "split.rules.b.name", "before": None, "after": "b"},
        {"setting": "split.rules.order", "before": None, "after": ["b", "a"]},
        {"setting": "split.threshold", "before": 0.01, "after": None},
    ]
    assert changed_settings({"sources": [1]}, {"sources": [2]}) == []
    assert leaves({"a": [], "b": {}, "c": [{"x": 1}, {"x": 2}]}) == {"a": [], "b": {}, "c.0.x": 1, "c.1.x": 2}


def test_a_view_says_what_it_was_called() -> None:
    assert (view().label, replace(view(), label="runs/x").label) == ("base", "runs/x")
