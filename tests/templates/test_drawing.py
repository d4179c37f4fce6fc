"""Draws of pairs and templates: each once, uniform, weighted, and stable when others come or go; sorting of rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill import seeding
from taskmill.templates.drawing import order as order_file
from taskmill.templates.drawing.demonstrations import Input
from taskmill.templates.drawing.order import PairOrder, combine, smallest, weighted_choice
from taskmill.templates.drawing.sorting import Place, PromptSorter, Row, to_batch
from taskmill.text import words

IDS = st.lists(st.text(max_size=5), unique=True, max_size=12)
PLACE = Place("a/b", "train", None)


def pairs(seed: int, examples: list[str], templates: list[str], number: int = 10**6) -> list[tuple[int, int]]:
    order = PairOrder(seeding.ranks(seed, "e", examples), seeding.ranks(seed, "t", templates))
    found = order.take(number)
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


@given(IDS, IDS)
def test_every_pair_comes_once(examples: list[str], templates: list[str]) -> None:
    found = pairs(0, examples, templates)
    assert sorted(found) == [(i, j) for i in range(len(examples)) for j in range(len(templates))]


@given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=12), IDS)
def test_another_example_keeps_the_order_of_the_others(examples: list[str], templates: list[str]) -> None:
    named = [(examples[i], templates[j]) for i, j in pairs(3, examples, templates)]
    fewer = [(examples[i], templates[j]) for i, j in pairs(3, examples[:-1], templates)]
    assert [pair for pair in named if pair[0] != examples[-1]] == fewer


def test_first_pairs_spread_over_examples_and_templates() -> None:
    first = pairs(0, [str(i) for i in range(1000)], [str(j) for j in range(10)], 1000)
    per_template = Counter(j for _, j in first)
    assert all(65 <= per_template[j] <= 140 for j in range(10))  # 100 expected, sd 9.5
    distinct = len({i for i, _ in first})
    assert 610 <= distinct <= 700  # 1000 x (1 - 0.9 ** 10) = 651 expected


@pytest.mark.parametrize("small", [0, 10**9])
def test_pairs_taken_in_turns_are_in_order(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_file, "_SMALL", small)
    left = seeding.ranks(0, "e", [str(i) for i in range(5000)])
    right = seeding.ranks(0, "t", [str(j) for j in range(7)])
    ranks = combine(left[:, None], right[None, :]).ravel()
    expected = np.argsort(ranks, kind="stable").tolist()
    order, taken = PairOrder(left, right), []
    for number in (1, 5000, 3, 17, 12_000, 10**6):
        examples, templates = order.take(number)
        taken += (examples * 7 + templates).tolist()
    assert taken == expected
    assert order.take(5)[0].tolist() == []


@given(st.integers(0, 30), st.integers(0, 40))
def test_smallest_is_nested(num: int, k: int) -> None:
    hashes = seeding.ranks(1, "x", [str(i) for i in range(num)])
    chosen = smallest(hashes, k).tolist()
    assert chosen == sorted(chosen) and len(chosen) == min(k, num)
    assert set(chosen) <= set(smallest(hashes, k + 1).tolist())


def test_weighted_choice_follows_the_weights() -> None:
    examples = seeding.ranks(0, "e", [str(i) for i in range(20_000)])
    templates = seeding.ranks(0, "t", ["a", "b", "c"])
    weights = [np.array(1.0), np.array(3.0), np.array(0.0)]
    chosen = weighted_choice(examples, templates, weights)
    assert Counter(chosen.tolist())[1] == pytest.approx(15_000, abs=250)
    assert set(chosen.tolist()) == {0, 1}
    without = weighted_choice(examples, templates[:1], weights[:1])
    assert set(without.tolist()) == {0}
    masked = weighted_choice(examples, templates, [np.zeros(20_000)] * 3)
    assert set(masked.tolist()) == {-1}


def test_a_template_more_moves_examples_to_itself_alone() -> None:
    examples = seeding.ranks(0, "e", [str(i) for i in range(2000)])
    templates = seeding.ranks(0, "t", ["a", "b", "c"])
    weights = [np.array(2.0), np.array(1.0), np.array(1.0)]
    before, after = (
        weighted_choice(examples, templates[:2], weights[:2]),
        weighted_choice(examples, templates, weights),
    )
    assert set(after[before != after].tolist()) == {2}


# ------------------------------------------------------------------------------------------- sorting


def row(number: int, condition: str = "", template: str = "t", text: str = "x") -> Row:
    prompt = int(seeding.derive(0, "row", number))
    return Row(
        condition,
        prompt,
        f"e{number}",
        template,
        text,
        (len(text),),
        (2,),
        (False,),
        None,
        ("r", str(number)),
        (),
        1.0,
        "plain",
        True,
    )


def table(sorter: PromptSorter, without: tuple[str, ...] = ()) -> pa.Table:
    batches = [
        found if isinstance(found, pa.RecordBatch) else to_batch([(PLACE, found)])
        for found in sorter.sorted(without)
    ]
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize("without", [(), ("u",)])
def test_rows_are_the_same_in_memory_and_on_disk(tmp_path: Path, without: tuple[str, ...]) -> None:
    rows = [row(n, "ab"[n % 2], "tu"[n % 3 == 0], "wörter " * (n % 5 + 1)) for n in range(700)]
    with (
        PromptSorter(PLACE, tmp_path / "held") as held,
        PromptSorter(PLACE, tmp_path / "runs", 50_000) as runs,
    ):
        for start in range(0, 700, 9):
            held.extend(rows[start : start + 9])
            runs.extend(rows[start : start + 9])
        assert (tmp_path / "runs").is_dir() and not (tmp_path / "held").exists()
        assert table(held, without).equals(table(runs, without))
        assert list(held.named({"u"})) == list(runs.named({"u"})) != []
        keys = [(r["condition"], r["prompt"]) for r in table(runs, without).to_pylist()]
        assert keys == sorted(keys)
    assert not (tmp_path / "runs").exists()


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    with PromptSorter(PLACE, tmp_path / "none") as sorter:
        assert table(sorter).num_rows == 0


# ------------------------------------------------------------------------------------- equal inputs


TEXTS = st.lists(
    st.sampled_from(["a", "B", "b", "é", "E\u0301", "e", "12", ".", "?", "word", "漢", "字"]), max_size=90
)


@given(TEXTS, TEXTS, st.sampled_from([" ", "", "  ", "-"]))
def test_inputs_are_equal_in_their_words(left: list[str], right: list[str], gap: str) -> None:
    one, other = gap.join(left), " ".join(right)
    expected = words(one) == words(other) if words(one) else one.strip() == other.strip()
    assert Input(one).equals(Input(other)) == expected
    assert Input(one).equals(Input(f" {one.upper()}. ")) or not words(one)
