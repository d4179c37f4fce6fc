"""Near-duplicates equal a brute-force comparison of sets, whatever the workers and with or without numba."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalogues import assignment_table, example_row, examples_table, rng_words, task_row, tasks_table
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import compiling
from taskmill.errors import StorageError, UsageError
from taskmill.minhash import Banding
from taskmill.normalisers import WORDS
from taskmill.recipe import NearDuplicates, Overlap
from taskmill.records import SCHEMAS
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.sharing import near_duplicates
from taskmill.splits.sharing.examples import EMPTY, Catalogue, Examples, read_examples
from taskmill.splits.sharing.near_duplicates import Method, compare, find_near_duplicates
from taskmill.splits.sharing.similarity import repeated
from taskmill.text import words

ROLES = {"bench/train": "train", "bench/more": "train", "bench/test": "eval", "bench/other": "eval"}
N = 3
CERTAIN = Method(N, WORDS, 128, 1, Banding(0.5, 128, 1))
"""Misses a pair at its threshold once in 2**128 times."""

Rows = list[tuple[dict[str, Any], str]]


@pytest.fixture(params=["numpy", "compiled"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with both implementations."""
    if request.param == "compiled" and compiling.load_kernels() is None:
        pytest.skip("numba is not installed")
    monkeypatch.setenv("TASKMILL_NO_NUMBA", "1" if request.param == "numpy" else "0")
    yield request.param


def row(task: str, name: str, split: str, *texts: str) -> tuple[dict[str, Any], str]:
    """An example with these fields, and its split."""
    return example_row(f"bench/{task}", name, {f"field{i:02}": text for i, text in enumerate(texts)}), split


def catalogue_of(rows: Rows) -> tuple[Catalogue, pa.Table, np.ndarray]:
    ordered = sorted(rows, key=lambda pair: (pair[0]["task"], pair[0]["example"]))
    examples = examples_table([example for example, _ in ordered])
    assignment = assignment_table(examples, [split for _, split in ordered])
    plan = [{"task": t, "level": None, "role": role, "why": ""} for t, role in sorted(ROLES.items())]
    catalogue = make_catalogue(
        tasks_table(task_row(task, "c") for task in ROLES),
        pa.Table.from_pylist(plan, schema=SCHEMAS["overlaps/plan"]),
        assignment,
    )
    return catalogue, examples, np.array([split != "excluded" for _, split in ordered])


def parts_of(catalogue: Catalogue, examples: pa.Table, batch: int) -> Iterator[Examples]:
    everything = np.ones(examples.num_rows, bool)
    return read_examples(catalogue, examples.to_batches(max_chunksize=batch), everything)


def found(rows: Rows, method: Method = CERTAIN, batch: int = 100, workers: int = 1) -> list[dict[str, Any]]:
    catalogue, examples, taking_part = catalogue_of(rows)
    table = compare(catalogue, parts_of(catalogue, examples, batch), taking_part, method, workers)
    assert table.schema == SCHEMAS["overlaps/near_duplicates"]
    return table.to_pylist()


# --------------------------------------------------------------------------------------- brute force


def shingle_set(example: Mapping[str, Any]) -> frozenset[tuple[str, ...]]:
    """The windows of N words of each field; of an example without any, all its words."""
    cut = [words(text) for text in json.loads(example["fields"]).values()]
    windows = {tuple(text[i : i + N]) for text in cut for i in range(len(text) - N + 1)}
    whole = tuple(word for text in cut for word in text)
    return frozenset(windows or ({("whole", *whole)} if whole else set()))


def similarity(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float]:
    """Jaccard similarity and containment."""
    if one["normalised"] == other["normalised"] != EMPTY:
        return 1.0, 1.0
    a, b = shingle_set(one), shingle_set(other)
    return (len(a & b) / len(a | b), len(a & b) / min(len(a), len(b))) if a and b else (0.0, 0.0)


def expected(rows: Rows, threshold: float) -> dict[str, tuple[str, str, float, float]]:
    """Example -> survivor, relation, Jaccard similarity, containment."""
    everybody = sorted((pair for pair in rows if pair[1] != "excluded"), key=lambda p: p[0]["example"])
    clusters = [[pair] for pair in everybody]
    for i, one in enumerate(everybody):
        for other in everybody[:i]:
            if similarity(one[0], other[0])[0] >= threshold:
                mine = next(c for c in clusters if one in c)
                theirs = next(c for c in clusters if other in c)
                if mine is not theirs:
                    mine += theirs
                    clusters.remove(theirs)
    table = {}
    for cluster in clusters:
        ranked = sorted(cluster, key=lambda p: (rank(*p), p[0]["task"], p[0]["example"]))
        survivor = ranked[0]
        if all(rank(*p) == 0 for p in ranked) and len({p[0]["task"] for p in ranked}) == 1:
            continue
        relation = "across" if rank(*survivor) == 0 else "train"
        for example, _ in ranked[1:]:
            figures = similarity(example, survivor[0])
            table[example["example"]] = (survivor[0]["example"], relation, *figures)
    return table


def rank(example: Mapping[str, Any], split: str) -> int:
    """Who survives: evaluation text, then train text, then the rest."""
    if split == "test":
        return 0
    return 1 if split == "train" or (split == "demonstration" and ROLES[example["task"]] == "train") else 2


@st.composite
def catalogues(draw: st.DrawFn) -> Rows:
    text = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join) | st.sampled_from(
        ["", "a", "a b c d"]
    )
    rows = []
    for task, role in ROLES.items():
        splits = (
            ("train", "validation", "demonstration", "excluded")
            if role == "train"
            else ("test", "demonstration")
        )
        for i in range(draw(st.integers(0, 5))):
            fields = draw(st.lists(text, min_size=1, max_size=2))
            rows.append(row(task.removeprefix("bench/"), str(i), draw(st.sampled_from(splits)), *fields))
    return rows


def test_equal_to_brute_force(kind: str) -> None:
    @settings(max_examples=150)
    @given(catalogues(), st.integers(1, 9), st.sampled_from([0.3, 0.5, 0.75]), st.integers(1, 2))
    def check(rows: Rows, batch: int, threshold: float, workers: int) -> None:
        method = Method(N, WORDS, 128, 1, Banding(threshold, 128, 1))
        table = found(rows, method, batch, workers)
        seen = {r["example"]: (r["survivor"], r["relation"], r["jaccard"], r["containment"]) for r in table}
        assert len(seen) == len(table)
        assert seen == expected(rows, threshold)
        ids = {example["example"]: example["task"] for example, _ in rows}
        assert all(ids[r["example"]] == r["task"] and ids[r["survivor"]] == r["survivor_task"] for r in table)
        clusters = {(r["cluster"], r["survivor"]) for r in table}
        assert len({c for c, _ in clusters}) == len({s for _, s in clusters}) == len(clusters)
        assert [(r["survivor"], r["example"]) for r in table] == sorted(
            (r["survivor"], r["example"]) for r in table
        )

    check()


# -------------------------------------------------------------------------------------------- the rules


LONG = rng_words("long", 60, 50_000)
OTHER = rng_words("other", 60, 50_000)


def changed(text: str, place: int) -> str:
    """The text with one word replaced."""
    parts = text.split()
    parts[place] = f"x{place}"
    return " ".join(parts)


def test_the_evaluation_copy_survives() -> None:
    rows = [row("more", "0", "train", LONG), row("test", "9", "test", changed(LONG, 30))]
    (only,) = found(rows)
    assert only["example"] == "bench/more#0" and only["survivor"] == "bench/test#9"
    assert only["relation"] == "across" and only["jaccard"] == pytest.approx(55 / 61)
    assert only["containment"] == pytest.approx(55 / 58)


def test_inside_train_the_lowest_id_survives() -> None:
    rows = [
        row("train", "1", "train", LONG),
        row("train", "0", "train", LONG),
        row("more", "5", "train", LONG),
    ]
    table = found(rows)
    assert {r["survivor"] for r in table} == {"bench/more#5"} and {r["relation"] for r in table} == {"train"}
    assert [r["jaccard"] for r in table] == [1.0, 1.0]


def test_evaluation_text_of_one_task_is_its_own_affair() -> None:
    inside = [row("test", "0", "test", LONG), row("test", "1", "test", LONG)]
    assert found(inside) == []
    assert len(found([*inside, row("train", "0", "train", LONG)])) == 2
    between = found([*inside, row("other", "0", "test", LONG)])
    assert [r["survivor"] for r in between] == ["bench/other#0"] * 2
    assert {r["relation"] for r in between} == {"across"}


def test_linked_through_a_third_the_figures_are_the_true_ones() -> None:
    parts = LONG.split()
    texts = [" ".join(parts[i : i + 40]) for i in (0, 10, 20)]
    rows = [row("train", str(i), "train", text) for i, text in enumerate(texts)]
    assert [r["jaccard"] for r in found(rows)] == pytest.approx([28 / 48, 18 / 58])


def test_a_shorter_text_inside_a_longer_one_is_contained_not_similar() -> None:
    rows = [row("train", "0", "train", LONG), row("train", "1", "train", " ".join(LONG.split()[:20]))]
    assert found(rows) == []


def test_equal_words_cut_into_other_fields_are_copies() -> None:
    first, second = LONG.split()[:2], LONG.split()[2:4]
    rows = [
        row("train", "0", "train", " ".join(first), " ".join(second)),
        row("train", "1", "train", " ".join([*first, *second])),
    ]
    (only,) = found(rows)
    assert only["jaccard"] == only["containment"] == 1.0


def test_a_copy_in_other_fields_still_has_near_duplicates_of_its_own() -> None:
    parts = LONG.split()
    rows = [
        row("train", "0", "train", *(" ".join(parts[i : i + 2]) for i in range(0, 60, 2))),
        row("train", "1", "train", LONG),
        row("train", "2", "train", changed(LONG, 5)),
    ]
    assert [r["example"] for r in found(rows)] == ["bench/train#1", "bench/train#2"]


def test_examples_without_any_word_match_nothing() -> None:
    assert found([row("train", str(i), "train", "...", "?!") for i in range(4)]) == []
    signs = Overlap(n=N, normalisation="gpt3")
    catalogue, examples, taking_part = catalogue_of(
        [
            row("train", "0", "train", "+ ="),
            row("train", "1", "train", "$ <"),
            row("train", "2", "train", "+ ="),
        ]
    )
    table = find_near_duplicates(catalogue, parts_of(catalogue, examples, 5), taking_part, signs)
    assert [r["example"] for r in table.to_pylist()] == ["bench/train#2"]


def test_nothing_to_compare() -> None:
    assert found([]) == []
    assert found([row("train", "0", "excluded", LONG), row("train", "1", "train", LONG)]) == []


# ------------------------------------------------------------------------------------- many examples


def many() -> Rows:
    """Families of alike examples, and one whose members share most of their text but too little to be duplicates."""
    rows = []
    for i in range(240):
        base = rng_words(f"family{i % 20}", 60, 50_000)
        side = ("train", "train") if i % 3 else ("test", "test")
        rows.append(row(side[0], f"{i:03}", side[1], changed(base, 3 * (i % 20)) if i % 2 else base))
    shared = rng_words("template", 90, 50_000)
    rows += [row("more", f"{i:03}", "train", f"{shared} {rng_words(str(i), 40, 50_000)}") for i in range(60)]
    return rows


def test_workers_batches_and_scratch_files_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many()
    method = Method.of(Overlap(n=5))
    one = found(rows, method)
    assert len(one) > 150
    assert found(rows, method, batch=7, workers=3) == one
    monkeypatch.setattr(near_duplicates, "CHUNK_BYTES", 500)
    monkeypatch.setattr(near_duplicates, "SPILL_BYTES", 1000)
    assert found(rows, method, batch=50, workers=2) == one
    if compiling.load_kernels() is not None:
        assert found(rows, method, batch=50) == one
        monkeypatch.setenv("TASKMILL_NO_NUMBA", "1")
        assert found(rows, method) == one


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(near_duplicates, "SPILL_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match=r"scratch file .*missing.*TMPDIR"):
        found([row("train", "0", "train", LONG)])


def test_a_threshold_without_banding_is_named() -> None:
    catalogue, examples, taking_part = catalogue_of([row("train", "0", "train", LONG)])
    impossible = Overlap(near_duplicates=NearDuplicates(threshold=1.5))
    with pytest.raises(UsageError, match=r"threshold 1.5"):
        find_near_duplicates(catalogue, parts_of(catalogue, examples, 5), taking_part, impossible)


def test_the_error_probabilities_are_told(caplog: pytest.LogCaptureFixture) -> None:
    catalogue, examples, taking_part = catalogue_of([row("train", "0", "train", LONG)])
    with caplog.at_level("INFO", "taskmill"):
        find_near_duplicates(catalogue, parts_of(catalogue, examples, 5), taking_part, Overlap())
    assert "similarity 0.8: 16 bands of 8 rows of 128 permutations" in caplog.text
    assert "missed with probability 0.053" in caplog.text


@pytest.mark.parametrize("num_keys", [1, 3, 40, 5000])
def test_repeated_keys_are_grouped_as_pairs(kind: str, num_keys: int) -> None:
    places = np.arange(1200)
    keys, ties = (places * 7919 % num_keys).astype(np.uint64) << np.uint64(40), (places % 3).astype(np.uint64)
    for second in (None, ties):
        groups = dict[tuple[int, int], list[int]]()
        for place, pair in enumerate(zip(keys.tolist(), (keys if second is None else second).tolist())):
            groups.setdefault(pair, []).append(place)
        found, bounds = repeated(keys, second)
        parts = [found[low:high].tolist() for low, high in pairwise(bounds.tolist())]
        assert sorted(parts) == sorted(group for group in groups.values() if len(group) > 1)
