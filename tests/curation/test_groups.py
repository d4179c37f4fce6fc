"""Groups against a plain union-find, and what joins and does not join."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import boilerplate, text
from taskmill.curation import groups
from taskmill.curation.batches import finish_tasks
from taskmill.curation.groups import Holders, Shared, components, equal_edges, group_ids, shared
from taskmill.curation.merging import Limits, MergedTask, TaskPlan, merge_task
from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry

N = 3
WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])
LEAF = st.lists(WORDS, max_size=7).map(" ".join)
EXAMPLES = st.lists(
    st.tuples(st.lists(LEAF, min_size=1, max_size=3), st.sampled_from([None, None, "k1", "k2"])), max_size=26
)


def group(
    leaves: list[list[str]], keys: list[str | None] | None = None, task: str = "b/t", n: int = N
) -> list[int]:
    ids = [f"{task}#{i:04d}" for i in range(len(leaves))]
    keys = keys or [None] * len(leaves)
    whole = [text.short_key(texts) for texts in leaves]
    edges = [equal_edges([whole], text.short_key([]), [len(leaves)])]
    if None in keys:
        edges.append(shared_grams(leaves, n).edges)
    return group_ids([task], [ids], [keys], edges).tolist()


def shared_grams(leaves: list[list[str]], n: int = N, keep: int = 0) -> Shared:
    flat = [leaf for texts in leaves for leaf in texts]
    numbers = {leaf: number for number, leaf in enumerate(dict.fromkeys(flat))}
    grams, starts = text.gram_hashes(*text.word_hashes(numbers), n)
    owner = np.repeat(np.arange(len(numbers)), np.diff(starts))
    examples = np.repeat(np.arange(len(leaves)), [len(texts) for texts in leaves])
    holders = Holders.of(
        np.array([numbers[leaf] for leaf in flat], np.int64), examples, len(numbers), len(leaves)
    )
    return shared(grams, owner, holders, np.array([0, len(leaves)]), keep)


def plain_sides(leaves: list[list[str]], keys: list[str | None]) -> list[int]:
    """Union-find in plain Python over every pair that the documentation says belongs together."""
    parent = list(range(len(leaves)))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    grams = [
        {tuple(w[i : i + N]) for leaf in texts for w in [text.words(leaf)] for i in range(len(w) - N + 1)}
        for texts in leaves
    ]
    whole = [[word for leaf in texts for word in text.words(leaf)] for texts in leaves]
    number = {gram: sum(gram in mine for mine in grams) for mine in grams for gram in mine}
    boilerplate = {g for g, count in number.items() if len(leaves) >= 20 and count > len(leaves) / 2}
    for i in range(len(leaves)):
        for j in range(i):
            same_key = keys[i] is not None and keys[i] == keys[j]
            same_words = bool(whole[i]) and whole[i] == whole[j]
            shared = None in keys and bool((grams[i] & grams[j]) - boilerplate)
            if same_key or same_words or shared:
                parent[find(i)] = find(j)
    return [find(i) for i in range(len(leaves))]


def partition(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, other in enumerate(labels) if other == label) for label in labels}


@settings(max_examples=150, deadline=None)
@given(EXAMPLES)
def test_groups_are_the_components_of_a_plain_union_find(
    examples: list[tuple[list[str], str | None]],
) -> None:
    leaves, keys = [e[0] for e in examples], [e[1] for e in examples]
    assert partition(group(leaves, keys)) == partition(plain_sides(leaves, keys))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_components_name_the_smallest_node(num: int, pairs: list[tuple[int, int]]) -> None:
    edges = [(a % num, b % num) for a, b in pairs]
    label = components(
        num, np.array([a for a, _ in edges], np.int64), np.array([b for _, b in edges], np.int64)
    )
    wanted = list(range(num))
    for _ in range(num):
        for a, b in edges:
            wanted[a] = wanted[b] = min(wanted[a], wanted[b])
    assert label.tolist() == wanted


def test_a_part_by_part_scan_gives_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = [[f"w{i} w{i + 1} w{i + 2} w{i + 3}"] for i in range(0, 60, 2)] + [["x y z"], ["z x y"]]
    whole = group(leaves)
    smallest = shared_grams(leaves, keep=9).smallest[0].tolist()
    monkeypatch.setattr(groups, "_HASHES_AT_ONCE", 4)
    assert group(leaves) == whole
    assert shared_grams(leaves, keep=9).smallest[0].tolist() == smallest


def test_boilerplate_joins_only_in_small_tasks() -> None:
    def tasks(num: int) -> list[list[str]]:
        return [["read the text below", f"only{i} own{i} words{i}"] for i in range(num)]

    assert len(set(group(tasks(19)))) == 1
    assert len(set(group(tasks(20)))) == 20


@pytest.mark.parametrize(("num_templates", "num_groups"), [(0, 3), (1, 3), (3, 60), (4, 3)])
def test_the_words_of_a_template_join_nothing(num_templates: int, num_groups: int) -> None:
    """Sixty rows of three templates, told that there are so many: with four, none has the 20 rows that it takes."""
    leaves = [[f"the words of template{i % 3} only{i} own{i}"] for i in range(60)]
    flat = [leaf for texts in leaves for leaf in texts]
    grams, starts = text.gram_hashes(*text.word_hashes(flat), 4)
    limits = boilerplate.limits(np.array([60]), np.array([num_templates]))
    owner = np.repeat(np.arange(60), np.diff(starts))
    found = shared(grams, owner, Holders.one_each(np.arange(60)), np.array([0, 60]), limits=limits)
    ids = group_ids(["p3/t"], [[f"p3/t#{i:02}" for i in range(60)]], [[None] * 60], [found.edges])
    assert len(set(ids.tolist())) == num_groups


def test_a_gram_in_exactly_half_of_the_examples_joins() -> None:
    leaves = [[f"read the text own{i}" if i < 10 else f"own{i}"] for i in range(20)]
    assert len(set(group(leaves))) == 11


def test_examples_without_words_are_not_equal() -> None:
    assert len(set(group([["+"], ["-"], ["?!"]]))) == 3


def test_grams_do_not_cross_leaves_and_outputs_count() -> None:
    joined = group([["one two", "three four"], ["two three four"]])
    assert joined[0] != joined[1]
    by_output = group([["p", "the same long answer"], ["q", "the same long answer"]])
    assert by_output[0] == by_output[1]


def test_a_group_keeps_its_number_when_others_come_and_go() -> None:
    leaves = [["a b c d"], ["b c d"], ["x y z"]]
    before = group(leaves)
    assert group(leaves[:2]) == before[:2]
    assert group(leaves, task="b/other")[0] != before[0]


def test_upstream_keys_decide_alone_where_all_rows_have_one() -> None:
    leaves = [["same long text one"], ["same long text two"], ["other words here now"]]
    first, second, third = group(leaves, ["p", "q", "q"])
    assert first != second and second == third
    first, second, third = group(leaves, ["p", None, "q"])
    assert first == second != third


def test_thirteen_words_are_the_default() -> None:
    words = " ".join(f"w{i}" for i in range(13))
    assert len(set(group([[words + " x"], ["y " + words]], n=13))) == 1
    short = " ".join(f"w{i}" for i in range(12))
    assert len(set(group([[short + " x"], ["y " + short]], n=13))) == 2


@settings(max_examples=100, deadline=None)
@given(EXAMPLES, st.integers(1, 6))
def test_the_smallest_hashes_leave_boilerplate_out(
    examples: list[tuple[list[str], str | None]], keep: int
) -> None:
    leaves = [e[0] for e in examples]
    owners: dict[int, set[int]] = {}
    for i, texts in enumerate(leaves):
        hashes, offsets = text.word_hashes(texts)
        for gram in text.gram_hashes(hashes, offsets, N)[0].tolist():
            owners.setdefault(gram, set()).add(i)
    kept = [g for g, mine in owners.items() if len(leaves) < 20 or len(mine) <= len(leaves) / 2]
    assert shared_grams(leaves, keep=keep).smallest[0].tolist() == sorted(kept)[:keep]


# ----------------------------------------------------------------------------------------- equal inputs


def merged_task(
    rows: list[dict[str, Any]], name: str = "b/t", output_fields: tuple[str, ...] = ()
) -> MergedTask:
    """Merge rows {fields, options?, references?, split?, group?} of one task."""
    columns = Columns()
    for number, row in enumerate(rows):
        columns.append(
            row["fields"],
            row.get("references", [f"answer {number}"]),
            options=row.get("options"),
            upstream_split=row.get("split"),
            group=row.get("group"),
            upstream_id=f"{number:03d}",
            file="f",
            record=number,
        )
    source = SourceFolder(Path("/d"), Path("/d"), {}, "stop")
    facts = {"output_fields": list(output_fields)}
    plan = TaskPlan(name, "b", "t", "reader", source, TaskEntry("t", (), 0), facts, "r")
    defaults = {"style": "instance", "kind": "benchmark"}
    return merge_task(plan, TaskData({}, columns), defaults, {}, Limits(0, 1000, None))


def merged_groups(rows: list[dict[str, Any]], output_fields: tuple[str, ...] = ()) -> list[int]:
    """Return the groups of rows of one task, in their order."""
    task = merged_task(rows, output_fields=output_fields)
    found: list[int] = finish_tasks([task]).examples["group"].to_pylist()
    return found


def test_an_equal_input_joins_whatever_its_length() -> None:
    first, second, third = merged_groups([{"fields": {"q": body}} for body in ("Red?", "red", "blue")])
    assert first == second != third


def test_an_input_of_over_half_of_the_examples_joins_nothing() -> None:
    def rows(num: int) -> list[dict[str, Any]]:
        return [{"fields": {"q": "the same" if i < num else f"own{i}"}} for i in range(20)]

    assert len(set(merged_groups(rows(11)))) == 20
    assert len(set(merged_groups(rows(10)))) == 11
    assert len(set(merged_groups(rows(11)[:19]))) == 9


def test_options_alone_and_signs_alone_join_nothing() -> None:
    same = {"options": ["yes", "no"]}
    assert len(set(merged_groups([{"fields": {"q": sign}, **same} for sign in ("+", "-", "?")]))) == 3
    first, second, third = merged_groups(
        [{"fields": {"q": "which"}, "options": options} for options in (["a", "b"], ["B", "A"], ["a", "c"])]
    )
    assert first == second != third


def test_what_lies_under_output_fields_is_no_input() -> None:
    fields = [
        {"q": q, "label": n, "why": {"long": w}} for q, n, w in (("x", 1, "k"), ("x", 2, "l"), ("y", 1, "k"))
    ]
    first, second, third = merged_groups([{"fields": f} for f in fields], ("label", "why.long"))
    assert first == second != third
    assert len(set(merged_groups([{"fields": f} for f in fields]))) == 3
    turns = [[{"user": u}, {"assistant": a}] for u, a in (("hi", "hello"), ("hi", "yes"), ("ho", "yes"))]
    first, second, third = merged_groups([{"fields": {"turns": t}} for t in turns], ("turns.assistant",))
    assert first == second != third


def test_a_demonstrations_notes_are_no_input() -> None:
    shown = {"input": "one two", "explanation": "so it is", "example_kind": "positive"}
    first, second, third = merged_groups(
        [
            {"fields": {"input": "One two."}},
            {"fields": shown, "split": "demonstration"},
            {"fields": {**shown, "input": "three"}, "split": "demonstration"},
        ]
    )
    assert first == second != third


def test_upstream_keys_do_not_part_equal_inputs() -> None:
    assert len(set(group([["x y"], ["x y"]], ["p", "q"]))) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(EXAMPLES, max_size=4))
def test_tasks_looked_at_together_have_the_groups_they_have_alone(
    tasks: list[list[tuple[list[str], str | None]]],
) -> None:
    merged = [
        merged_task([{"fields": {"q": e[0]}, "group": e[1]} for e in task], f"b/t{number}")
        for number, task in enumerate(tasks)
    ]
    alone = [finish_tasks([task]) for task in merged]
    together = finish_tasks(merged)
    assert together.examples.to_pylist() == [row for one in alone for row in one.examples.to_pylist()]
    assert together.sketches == [row for one in alone for row in one.sketches]
    for task in merged:
        _, sizes = np.unique(finish_tasks([task]).examples["group"].to_numpy(), return_counts=True)
        finish_tasks(merged)
        assert task.row["num_groups"] == len(sizes)
        assert task.row["largest_group"] == sizes.max(initial=0)


def test_the_example_of_the_module_holds() -> None:
    assert doctest.testmod(groups).failed == 0


def test_no_examples() -> None:
    assert group([]) == []
