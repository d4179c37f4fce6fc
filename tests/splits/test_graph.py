"""The leak graph equals sets of words compared in plain Python, on made-up catalogues and on a slice of the real data."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from catalogues import example_row, examples_table, task_row, tasks_table
from hypothesis import given, settings
from hypothesis import strategies as st
from running import call
from running import settings as overrides

from taskmill.artifact import Inputs
from taskmill.normalisers import named
from taskmill.recipe import Overlap
from taskmill.splits.sharing.sides import sides
from taskmill.splits.suggesting import graph, graph_text
from taskmill.splits.suggesting.graph import LeakGraph, leak_graph, pairs_sharing

Pair = dict[str, Any]


def brute_force(
    tasks: pa.Table,
    examples: Sequence[Mapping[str, Any]],
    overlap: Overlap,
    near: Iterable[tuple[str, str]] = (),
) -> dict[tuple[str, str], Pair]:
    """Return what each unordered pair of tasks shares, by sets of words."""
    cut = named(overlap.normalisation).words
    outputs_of = dict(zip(tasks["task"].to_pylist(), tasks["output_fields"].to_pylist()))
    found = []
    for row in examples:
        inputs, answers = sides(
            json.loads(row["fields"]), row["references"], row["options"], outputs_of[row["task"]]
        )
        texts = [cut(text) for text in (*inputs, *answers)]
        grams = {tuple(t[i : i + overlap.n]) for t in texts for i in range(len(t) - overlap.n + 1)}
        whole = row["normalised"]
        outputs = {tuple(cut(text)) for text in (*row["references"], " \n ".join(answers))} - {()}
        found.append([row["example"], row["task"], row["group"], grams, whole, outputs])
    empty = graph_text._EMPTY.tobytes()
    shorts = {whole for *_, grams, whole, _ in found if not grams and whole != empty}
    for entry in found:
        entry[3] |= {entry[4]} & shorts
    groups = Counter(gram for gram, *_ in {(g, e[1], e[2]) for e in found for g in e[3]})
    frequent = {
        gram for gram, num in groups.items() if num > overlap.frequent_groups and isinstance(gram, tuple)
    }
    holders: dict[Any, list[Any]] = {}
    for entry in found:
        for gram in entry[3]:
            holders.setdefault(gram, []).append(entry)
    pairs: dict[tuple[str, str], Pair] = {}
    for a, b in itertools.combinations(tasks["task"].to_pylist(), 2):
        pairs[a, b] = {
            "touched": [0, 0],
            "rare": [0, 0],
            "same_output": [0, 0],
            "near": 0,
            "same_dataset": False,
        }
    for entry in found:
        reached: dict[str, list[bool]] = {}
        for gram in entry[3]:
            for other in holders[gram]:
                if other[1] != entry[1]:
                    flags = reached.setdefault(other[1], [False, False])
                    flags[0] |= gram not in frequent
                    flags[1] |= bool(other[5] & entry[5])
        for task, (rare, same) in reached.items():
            side = 0 if entry[1] < task else 1
            pair = pairs[min(entry[1], task), max(entry[1], task)]
            pair["touched"][side] += 1
            pair["rare"][side] += rare
            pair["same_output"][side] += same
    _near(pairs, found, near, empty)
    datasets = dict(zip(tasks["task"].to_pylist(), tasks["dataset"].to_pylist()))
    for a, b in pairs:
        pairs[a, b]["same_dataset"] = datasets[a] == datasets[b] != ""
    return {
        key: pair
        for key, pair in pairs.items()
        if pair["same_dataset"] or pair["near"] or any(pair["touched"])
    }


def _near(
    pairs: dict[tuple[str, str], Pair], found: list[list[Any]], near: Iterable[tuple[str, str]], empty: bytes
) -> None:
    joined = {entry[0]: {entry[0]} for entry in found}
    equal = (
        [(x[0], y[0]) for x, y in itertools.combinations(found, 2) if x[4] == y[4] != empty]
        if len(found) < 99
        else []
    )
    for a, b in [*equal, *near]:
        if joined[a] is not joined[b]:
            union = joined[a] | joined[b]
            for name in union:
                joined[name] = union
    for cluster in {id(members): members for members in joined.values()}.values():
        counts = Counter(name.rsplit("#", 1)[0] for name in cluster)
        for a, b in itertools.combinations(sorted(counts), 2):
            pairs[a, b]["near"] += min(counts[a], counts[b])


def as_pairs(found: LeakGraph) -> dict[tuple[str, str], Pair]:
    return {
        (found.tasks[found.first[row]], found.tasks[found.second[row]]): {
            "touched": found.touched[row].tolist(),
            "rare": found.touched_rare[row].tolist(),
            "same_output": found.touched_same_output[row].tolist(),
            "near": int(found.num_near_duplicates[row]),
            "same_dataset": bool(found.same_dataset[row]),
        }
        for row in range(len(found.first))
    }


# --------------------------------------------------------------------------------- made-up catalogues

TEXT = st.lists(st.sampled_from(["a", "B", "c,", "é", "7"]), max_size=6).map(" ".join)
EXAMPLE = st.tuples(
    st.fixed_dictionaries({"q": TEXT, "x": TEXT}),
    st.lists(TEXT, max_size=2),
    st.none() | st.lists(TEXT, max_size=2),
    st.integers(0, 3),
)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[pa.Table, list[dict[str, Any]], list[tuple[str, str]]]:
    num_tasks = draw(st.integers(1, 4))
    tasks, rows = [], []
    for number in range(num_tasks):
        name = f"set/t{number}"
        outputs = draw(st.sampled_from([(), ("x",)]))
        tasks.append(task_row(name, "C", draw(st.sampled_from(["d1", "d2", f"own{number}"])), outputs))
        for place, (fields, references, options, group) in enumerate(draw(st.lists(EXAMPLE, max_size=5))):
            rows.append(example_row(name, str(place), fields, references, options=options, group=group))
    ids = [row["example"] for row in rows]
    near = draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=3)) if ids else []
    return tasks_table(tasks), rows, near


@settings(max_examples=100)
@given(
    catalogues(),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from(["words-1", "gpt3"]),
    st.sampled_from([64, 4]),
    st.sampled_from([1, 3, 1 << 24]),
)
def test_graph_equals_sets_of_words(
    drawn: Any, n: int, frequent: int, mode: str, bits: int, step: int
) -> None:
    tasks, rows, near = drawn
    if mode != "words-1":
        near = []
    overlap = Overlap(n=n, frequent_groups=frequent, normalisation=mode)
    table = pa.table({"example": [a for a, _ in near], "survivor": [b for _, b in near]}) if near else None
    batches = examples_table(rows).to_batches(max_chunksize=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "EXPANDED_AT_ONCE", step)
        patch.setattr(graph_text, "SORTED_AT_ONCE", step)
        found = leak_graph(tasks, batches, overlap, table, hash_bits=bits)
    if mode != "words-1":  # wholes follow the normaliser as well
        cut = named(mode).words
        for row in rows:
            inputs, answers = sides(
                json.loads(row["fields"]), row["references"], row["options"], _outputs(tasks, row)
            )
            row["normalised"] = " ".join(w for t in (*inputs, *answers) for w in cut(t)).encode() or EMPTY
    assert as_pairs(found) == brute_force(tasks, rows, overlap, near)
    assert found.num_examples.tolist() == [sum(r["task"] == t for r in rows) for t in found.tasks]


EMPTY = graph_text._EMPTY.tobytes()


def _outputs(tasks: pa.Table, row: Mapping[str, Any]) -> Sequence[str]:
    return dict(zip(tasks["task"].to_pylist(), tasks["output_fields"].to_pylist()))[row["task"]]


def test_template_text_is_frequent_and_wholes_never_are() -> None:
    boiler = "every example of both tasks begins with these same words and so"
    rows = [
        example_row(f"s/{t}", str(i), {"q": f"{boiler} {t} {i}"}, ["yes"], group=i)
        for t in "ab"
        for i in range(4)
    ]
    rows += [
        example_row(f"s/{t}", f"short{i}", {"q": "yes or no"}, ["no"], group=10 + i)
        for t in "ab"
        for i in range(4)
    ]
    tasks = tasks_table([task_row(f"s/{t}", "C") for t in "ab"])
    pairs = as_pairs(leak_graph(tasks, examples_table(rows).to_batches(), Overlap(n=5, frequent_groups=3)))
    assert pairs["s/a", "s/b"] == {
        "touched": [8, 8],
        "rare": [4, 4],
        "same_output": [8, 8],
        "near": 4,
        "same_dataset": False,
    }


def test_empty_catalogue_has_no_pairs() -> None:
    found = leak_graph(tasks_table([]), [], Overlap())
    assert (len(found.first), found.num_pairs, pairs_sharing(found, 0.01)) == (0, 0, 0)


def test_pairs_sharing_counts_each_direction() -> None:
    text = "one two three four five six"
    rows = [
        example_row("s/a", "0", {"q": text}),
        *(example_row("s/b", str(i), {"q": f"other {i} words"}) for i in range(9)),
    ]
    rows.append(example_row("s/b", "x", {"q": text + " seven"}))
    tasks = tasks_table([task_row("s/a", "C"), task_row("s/b", "C")])
    found = leak_graph(tasks, examples_table(rows).to_batches(), Overlap(n=4))
    assert [pairs_sharing(found, share) for share in (0.05, 0.1, 0.5, 1.0)] == [2, 1, 1, 0]


# ------------------------------------------------------------------------------------------ real data


def test_graph_equals_sets_of_words_on_real_data(
    shared_data: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = repository / "examples/recipes/real.yaml"
    values = overrides((f"data_root={shared_data}", "limit=3"))
    code, _, error = call(
        capsys, "curate", str(recipe), "--run", str(tmp_path / "run"), "--workers", "1", *values
    )
    assert code == 0, error
    inputs = Inputs({"curate": tmp_path / "run" / "tasks"})
    tasks = inputs.table("curate", "tasks", graph.TASK_COLUMNS).sort_by("task")
    tasks = tasks.take(list(range(0, tasks.num_rows, 6)))
    overlap = Overlap(n=8, frequent_groups=4)
    examples = inputs.table("curate", "examples", graph.COLUMNS)
    examples = examples.filter(pc.is_in(examples["task"], value_set=tasks["task"].combine_chunks()))
    found = leak_graph(tasks, examples.to_batches(max_chunksize=100), overlap)
    rows = examples.to_pylist()
    equal: dict[bytes, list[str]] = {}
    for row in rows:
        if row["normalised"] != EMPTY:
            equal.setdefault(row["normalised"], []).append(row["example"])
    near = [(names[0], name) for names in equal.values() for name in names[1:]]
    expected = brute_force(tasks, rows, overlap, near)
    assert as_pairs(found) == expected
    assert sum(pair["touched"][0] > 0 for pair in expected.values()) > 200
    assert np.count_nonzero(found.touched != found.touched_rare) > 50
