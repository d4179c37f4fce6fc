"""The function from positions to prompts, in every mode: quotas, passes, epochs, random access, shards."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogue_rows import catalogue
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.recipe import Auxiliary, Mix
from taskmill.seeding import derive_each, permute_each
from taskmill.storage import write_json
from taskmill.training.mixing.draws import Mixture
from taskmill.training.mixing.plan import num_positions, plan
from taskmill.training.mixing.quotas import MAX_DRAWS, Quotas
from taskmill.training.mixing.rows import train_rows

SIZES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "reasoning", "dialogue"]),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
).filter(lambda sizes: set(sizes) & {"a", "b", "c"})


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[Mix, Mixture]:
    """A mixture of any mode over a catalogue of any sizes."""
    sizes = draw(SIZES)
    conditions = draw(st.sampled_from([(None,), ("GPT3", "GPT4")]))
    by = draw(st.sampled_from(["benchmark", "class"]))
    rows, tasks = catalogue(sizes, conditions=conditions)
    if draw(st.booleans()):
        parts = (
            sorted({b for b, _ in tasks.values()}) if by == "benchmark" else [c or "none" for c in conditions]
        )
        size, keep = draw(st.integers(1, 60)), draw(st.sampled_from([0.3, 0.5, 1.0]))
        mix = Mix(
            "concatenation", by, sizes={parts[0]: size}, keep=dict.fromkeys(parts[1:], keep), epochs=3, cap=16
        )
    else:
        aside = {kind: Auxiliary(0.1, "tokens") for kind in ("reasoning", "dialogue") if kind in sizes}
        mix = Mix("shares", by, auxiliary=aside, cap=16)
    block = draw(st.sampled_from([10, 64, 1000]))
    entries = plan(mix, rows, tasks)
    return mix, Mixture(entries, draw(st.integers(0, 5)), block, mix.mode == "concatenation")


def share_errors(item_P: np.ndarray, num: int, shares: np.ndarray) -> np.ndarray:
    """How far the count of each item is from its share after every prefix: float64[prefixes, num]."""
    counts = np.cumsum(item_P[:, None] == np.arange(num), axis=0)
    return np.abs(counts - np.outer(np.arange(1, len(item_P) + 1), shares))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), min_size=1, max_size=5))
def test_quotas_hold_after_every_draw(groups: list[list[int]]) -> None:
    quotas, num = Quotas(groups), 400
    item, turn = quotas.find(np.arange(num, dtype=np.int64))
    weights = np.array([w for group in groups for w in group])
    assert share_errors(item, len(weights), weights / weights.sum()).max() < 2.5
    group = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    of_groups = np.bincount(group, weights=weights) / weights.sum()
    assert share_errors(group[item], len(groups), of_groups).max() < 2
    assert quotas.counts(num).tolist() == np.bincount(item, minlength=len(weights)).tolist()
    assert all(np.array_equal(turn[item == i], np.arange((item == i).sum())) for i in range(len(weights)))
    assert quotas.counts(int(weights.sum())).tolist() == weights.tolist()
    last = np.array([MAX_DRAWS - 2, MAX_DRAWS - 1], dtype=np.int64)
    assert all(turn < quotas.counts(MAX_DRAWS)[item] for item, turn in zip(*quotas.find(last)))


@settings(max_examples=80, deadline=None)
@given(mixtures(), st.integers(0, 900), st.integers(0, 900))
def test_every_prefix_keeps_the_shares(found: tuple[Mix, Mixture], one: int, two: int) -> None:
    mixture = found[1]
    low, high = sorted((one, two))
    entry, row = mixture.draws(high)
    again = mixture.draws(low)
    assert np.array_equal(again[0], entry[:low]) and np.array_equal(again[1], row[:low])
    shares = np.array([e.share for e in mixture.entries])
    part = np.array([mixture.benchmarks.index(e.benchmark) for e in mixture.entries])
    parts = np.bincount(part, weights=shares)
    for items, wanted, most in ((entry, shares, 2.5), (part[entry], parts, 2)):
        errors = share_errors(items, len(wanted), wanted)
        assert not high or errors.max() < mixture.block + most
        ends = (
            np.arange(mixture.block, high + 1, mixture.block)
            if high <= mixture.epoch
            else np.array([], dtype=int)
        )
        assert not len(ends) or errors[ends - 1].max() < most
    assert mixture.counts(high).tolist() == np.bincount(entry, minlength=len(shares)).tolist()


@settings(max_examples=20, deadline=None)
@given(mixtures(), st.lists(st.integers(0, 2000), max_size=30), st.integers(1, 7), st.integers(0, 300))
def test_positions_can_be_taken_in_any_order(
    found: tuple[Mix, Mixture], positions: list[int], size: int, start: int
) -> None:
    mixture, stop = found[1], start + 200
    entry, row = mixture.draws(2001)
    wanted = np.array(positions, dtype=np.int64)
    some = mixture.find(wanted)
    assert np.array_equal(some[0], entry[wanted]) and np.array_equal(some[1], row[wanted])
    assert np.array_equal(mixture.rows(stop - start, start), row[start:stop])
    shards = [list(mixture.shard(rank, size, start, stop)) for rank in range(size)]
    assert all(position % size == rank for rank, shard in enumerate(shards) for position, _ in shard)
    together = sorted(pair for shard in shards for pair in shard)
    assert together == list(zip(range(start, stop), row[start:stop].tolist()))
    assert list(islice(mixture.shard(0, 1, start), 3)) == together[:3]


@settings(max_examples=80, deadline=None)
@given(mixtures())
def test_every_pass_over_a_task_is_a_permutation(found: tuple[Mix, Mixture]) -> None:
    mixture = found[1]
    entry, row = mixture.draws(1500)
    for index, e in enumerate(mixture.entries):
        mine = row[entry == index] - e.first_row
        passes = [tuple(mine[i : i + e.num_kept].tolist()) for i in range(0, len(mine), e.num_kept)]
        assert all(len(set(p)) == len(p) and 0 <= min(p) <= max(p) < e.num_kept for p in passes)
        whole = [p for p in passes if len(p) == e.num_kept]
        assert e.num_kept < 12 or len(set(whole)) == len(whole), "every pass has an order of its own"


@settings(max_examples=60, deadline=None)
@given(mixtures().filter(lambda found: found[1].in_epochs))
def test_every_epoch_has_every_kept_prompt_once(found: tuple[Mix, Mixture]) -> None:
    mix, mixture = found
    kept = {e.first_row + i for e in mixture.entries for i in range(e.num_kept)}
    assert mixture.epoch == len(kept) and num_positions(mix, mixture.entries) == 3 * len(kept)
    row = mixture.rows(3 * len(kept))
    epochs = [row[i * len(kept) : (i + 1) * len(kept)].tolist() for i in range(3)]
    assert all(len(epoch) == len(set(epoch)) and set(epoch) == kept for epoch in epochs)
    assert len(kept) < 12 or len({tuple(epoch) for epoch in epochs}) == 3
    other = Mixture(mixture.entries[::-1], mixture.seed, mixture.block, True)
    assert np.array_equal(other.rows(len(row)), row), "the order of the entries means nothing"


def test_seed_and_many_passes() -> None:
    mixture = Mixture(plan(Mix(), *catalogue({"a": [3], "b": [1]})), 0, 1000)
    entry, rows = mixture.draws(12_000)
    assert sorted(Counter(rows.tolist()).values()) == [3_000] * 4
    other = Mixture(mixture.entries, 1, 1000)
    assert not np.array_equal(other.rows(1000), rows[:1000])
    assert np.bincount(other.draws(1000)[0]).tolist() == np.bincount(entry[:1000]).tolist()


def test_permutations_are_all_about_as_frequent() -> None:
    keys = derive_each(np.array([12345], dtype=np.uint64), np.arange(24_000, dtype=np.int64))
    places = [permute_each(keys, np.full(24_000, i), np.full(24_000, 4)) for i in range(4)]
    counts = Counter(zip(*(p.tolist() for p in places)))
    assert len(counts) == 24 and all(850 < count < 1150 for count in counts.values())
    for size in (1, 2, 63, 64, 65, 1000):
        once = permute_each(keys[:1].repeat(size), np.arange(size), np.full(size, size))
        assert sorted(once.tolist()) == list(range(size))


def test_golden_draws() -> None:
    entries = plan(Mix(), *catalogue({"a": [4, 6], "b": [5]}))
    golden = (
        [7, 1, 18, 0, 20, 9, 11, 10, 16, 2, 3, 8, 19, 0, 12, 17, 12, 7, 17, 16],
        [7, 1, 18, 0, 20, 9, 11, 10, 16, 2, 19, 17, 8, 3, 12, 0, 17, 12, 7, 2],
    )
    found = tuple(Mixture(entries, 0, 10, in_epochs).rows(20).tolist() for in_epochs in (False, True))
    assert found == golden


def test_more_positions_than_memory_holds_are_refused() -> None:
    mixture = Mixture(plan(Mix(), *catalogue({"a": [3]})), 0, 10)
    with pytest.raises(TaskmillError, match=r"GiB of memory, this machine has .* lower mix\.num_prompts"):
        mixture.draws(1 << 50)


def test_a_shard_that_is_none() -> None:
    mixture = Mixture(plan(Mix(), *catalogue({"a": [3]})), 0, 10)
    with pytest.raises(UsageError, match="no shard 2 of 2; expected a rank from 0 to 1"):
        next(mixture.shard(2, 2))


def test_a_mixture_of_another_version(tmp_path: Path) -> None:
    write_json(tmp_path / "mixture.json", {"format": 1, "tasks": []})
    with pytest.raises(DamagedError, match=r"is of format 1, this version reads 2; run `taskmill mix` again"):
        Mixture.open(tmp_path)


# ------------------------------------------------------------------------------------------------ rows

PROMPTS = [
    ("a/0", "test", None, [3]),
    ("a/0", "train", None, [2, 5]),
    ("a/0", "train", None, []),
    ("a/1", "train", "GPT3", [7]),
    ("a/1", "train", "GPT4", [1]),
    ("a/1", "train", "GPT4", [2]),
]


def write_prompts(path: Path, rows: list[tuple[str, str, str | None, list[int]]]) -> Path:
    columns = dict(zip(("task", "split", "condition", "ends"), map(list, zip(*rows))))
    schema = pa.schema(
        [
            ("task", pa.string()),
            ("split", pa.string()),
            ("condition", pa.string()),
            ("ends", pa.list_(pa.int32())),
        ]
    )
    pq.write_table(pa.table(columns, schema=schema), path, write_page_checksum=True)
    return path


def test_train_rows_are_found_over_files(tmp_path: Path) -> None:
    files = [
        write_prompts(tmp_path / "1.parquet", PROMPTS),
        write_prompts(tmp_path / "2.parquet", [("a/1", "train", "GPT4", [30]), ("b/0", "train", None, [9])]),
    ]
    assert [tuple(vars(r).values()) for r in train_rows(files)] == [
        ("a/0", None, 1, 2, 5),
        ("a/1", "GPT3", 3, 1, 7),
        ("a/1", "GPT4", 4, 3, 33),
        ("b/0", None, 7, 1, 9),
    ]
    files.append(write_prompts(tmp_path / "3.parquet", [("a/1", "train", "GPT4", [1])]))
    with pytest.raises(TaskmillError, match=r"3\.parquet: train prompts of a/1 are not consecutive"):
        train_rows(files)
