"""A run's examples in datasketch's index: its own query finds what is alike, whatever storage it is given."""

from __future__ import annotations

from pathlib import Path

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
from datasketch import MinHash

from taskmill.api import Run
from taskmill.artifact import Inputs
from taskmill.errors import UsageError
from taskmill.minhash import to_uint32
from taskmill.recipe import HeldOut, NearDuplicates, Overlap, Plan
from taskmill.records import DIRECTORIES
from taskmill.splits import overlap
from taskmill.splits.sharing.lsh import make_lsh, make_minhash
from taskmill.text import gram_hashes, word_hashes

SETTINGS = Overlap(n=5, near_duplicates=NearDuplicates(threshold=0.6, num_perm=64, seed=3))
TEXT, OTHER = rng_words("text", 60, 50_000), rng_words("other", 60, 50_000)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """A run of three tasks, one of them excluded, with curate and overlap finished."""
    changed = TEXT.replace(TEXT.split()[30], "changed")
    rows = [
        example_row("bench/a", "0", {"question": TEXT}, ["yes"], upstream_split="train"),
        example_row("bench/a", "1", {"question": OTHER}, ["no"], upstream_split="train"),
        example_row("bench/a", "2", {"question": "?"}, ["!"], upstream_split="train"),
        example_row("bench/b", "0", {"question": changed}, ["yes"], upstream_split="test"),
        example_row("bench/c", "0", {"question": TEXT}, ["yes"], upstream_split="train"),
    ]
    tasks = [task_row("bench/a", "A"), task_row("bench/b", "B"), task_row("bench/c", "C")]
    write_catalogue(tmp_path, tasks_table(tasks), examples_table(rows))
    plan = Plan(held_out=HeldOut(categories=("B",)), exclude=("bench/c",))
    run_stage("overlap", overlap, tmp_path, plan, SETTINGS)
    return Inputs({stage: tmp_path / folder for stage, folder in DIRECTORIES.items()})


def test_datasketchs_query_finds_the_near_duplicates(inputs: Inputs) -> None:
    lsh = make_lsh(inputs, SETTINGS)
    assert sorted(lsh.query(make_minhash([TEXT, "yes"], SETTINGS))) == ["bench/a#0", "bench/b#0"]
    assert lsh.query(make_minhash([OTHER], SETTINGS)) == ["bench/a#1"]
    assert sorted(lsh.keys.keys()) == [
        "bench/a#0",
        "bench/a#1",
        "bench/b#0",
    ]  # without words, and excluded: not there


def test_a_threshold_of_its_own(inputs: Inputs) -> None:
    half = make_minhash([" ".join(TEXT.split()[:42])], SETTINGS)
    assert make_lsh(inputs, SETTINGS, threshold=0.95).query(half) == []
    assert "bench/a#0" in make_lsh(inputs, SETTINGS, threshold=0.2).query(half)


def test_the_storage_is_datasketchs(inputs: Inputs) -> None:
    with pytest.raises(ValueError, match="storage"):
        make_lsh(inputs, SETTINGS, storage_config={"type": "nowhere"})
    assert make_lsh(inputs, SETTINGS, storage_config={"type": "dict", "basename": b"mine"}).query(
        make_minhash([OTHER], SETTINGS)
    )


def test_a_minhash_is_that_of_its_windows() -> None:
    found = make_minhash([TEXT, "short"], SETTINGS)
    grams, _ = gram_hashes(*word_hashes([TEXT]), 5)
    theirs = MinHash(num_perm=64, seed=3, hashfunc=to_uint32)
    theirs.update_batch(grams.tolist())
    assert found == theirs


def test_from_a_run(small_run: Path) -> None:
    run = Run(small_run / "run")
    assigned = run.table("overlap", "assignment", ["example", "split"]).to_pylist()
    lsh = run.lsh(threshold=0.5)
    assert set(lsh.keys.keys()) == {row["example"] for row in assigned if row["split"] != "excluded"}
    assert len(run.minhash("What is the capital?", "Rome")) == lsh.h == 128
    (small_run / "run/overlaps/manifest.json").unlink()
    with pytest.raises(UsageError, match="not finished"):
        run.lsh()
