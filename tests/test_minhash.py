"""Signatures equal datasketch's; shingles, banding and the two implementations are what their definitions say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from taskmill import compiling, minhash
from taskmill.errors import UsageError
from taskmill.text import gram_hashes, word_hashes, words

LEAVES = st.lists(st.sampled_from(["a", "b", "c d", "e-f", "東", ""]), max_size=8).map(" ".join)
EXAMPLES = st.lists(st.lists(LEAVES, max_size=3), max_size=5)
SETS = st.lists(st.sets(st.integers(0, 2**64 - 1), max_size=40), min_size=1, max_size=6)


@pytest.fixture(params=["numpy", "compiled"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with both implementations."""
    if request.param == "compiled":
        if compiling.load_kernels() is None:
            pytest.skip("numba is not installed")
        monkeypatch.delenv("TASKMILL_NO_NUMBA", raising=False)
    else:
        monkeypatch.setenv("TASKMILL_NO_NUMBA", "1")
    assert (minhash.kernels() is None) == (request.param == "numpy")
    yield request.param


def flat(sets: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sets end to end, and where they begin."""
    values = np.array([value for part in sets for value in part], np.uint64)
    return values, np.append(0, np.cumsum([len(part) for part in sets])).astype(np.int64)


def shingled(examples: list[list[str]], n: int) -> tuple[np.ndarray, np.ndarray]:
    texts = [text for example in examples for text in example]
    first = np.append(0, np.cumsum([len(example) for example in examples])).astype(np.int64)
    return minhash.shingles(*word_hashes(texts), first, n)


def window_hash(window: list[str]) -> int:
    return int(gram_hashes(*word_hashes([" ".join(window)]), len(window))[0][0])


def slow_shingles(example: list[str], n: int) -> list[int]:
    """The windows of n words of each text in order, each once; of short texts the hash of all words, `None` here."""
    found = [words(text) for text in example]
    return list(dict.fromkeys(window_hash(f[i : i + n]) for f in found for i in range(len(f) - n + 1)))


# ------------------------------------------------------------------------------------------ shingles


@pytest.mark.parametrize("n", [1, 3])
def test_shingles_are_the_distinct_windows_in_order(n: int, kind: str) -> None:
    @given(EXAMPLES)
    def check(examples: list[list[str]]) -> None:
        values, indptr = shingled(examples, n)
        assert len(indptr) == len(examples) + 1
        for i, example in enumerate(examples):
            seen, expected = values[indptr[i] : indptr[i + 1]].tolist(), slow_shingles(example, n)
            if expected or not words(" ".join(example)):
                assert seen == expected
            else:
                assert len(seen) == 1

    check()


def test_a_short_example_is_one_shingle_of_all_its_words_in_order(kind: str) -> None:
    examples = [["a b", "c"], ["a", "b c!"], ["c", "a b"], ["a b"], [""], []]
    values, indptr = shingled(examples, 3)
    assert indptr.tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert values[0] == values[1] and len(set(values.tolist())) == 3


def test_a_window_never_runs_from_one_text_into_the_next(kind: str) -> None:
    values, indptr = shingled([["a b c", "d e f"], ["a b c d e f"]], 3)
    assert indptr.tolist() == [0, 2, 6]
    assert set(values[:2].tolist()) < set(values[2:].tolist())


def test_shingles_want_a_window() -> None:
    with pytest.raises(ValueError, match="n: 0"):
        shingled([["a"]], 0)


@given(EXAMPLES, st.integers(1, 4))
def test_the_two_implementations_agree(examples: list[list[str]], n: int) -> None:
    if compiling.load_kernels() is None:
        pytest.skip("numba is not installed")
    texts = [text for example in examples for text in example]
    first = np.append(0, np.cumsum([len(example) for example in examples])).astype(np.int64)
    found = word_hashes(texts)
    best = minhash.Banding(0.5, 5, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TASKMILL_NO_NUMBA", raising=False)
        fast = minhash.sketch(*found, first, n, best, 16, 3)
        patch.setenv("TASKMILL_NO_NUMBA", "1")
        slow = minhash.sketch(*found, first, n, best, 16, 3)
    for name in ("shingles", "indptr", "digest", "keys"):
        one, other = getattr(fast, name), getattr(slow, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name


# ---------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("num_perm, seed", [(128, 1), (16, 7), (31, 2)])
def test_signatures_are_those_of_datasketch(num_perm: int, seed: int, kind: str) -> None:
    @given(SETS)
    def check(sets: list[set[int]]) -> None:
        signed = minhash.signatures(*flat([sorted(s) for s in sets]), num_perm, seed)
        assert signed.dtype == np.uint32 and signed.shape == (len(sets), num_perm)
        for row, values in zip(signed, sets):
            theirs = MinHash(num_perm=num_perm, seed=seed, hashfunc=minhash.to_uint32)
            for value in values:
                theirs.update(value)
            assert np.array_equal(row, theirs.hashvalues)
            assert theirs == minhash.to_minhash(row, seed)

    check()


def test_threads_change_no_signature() -> None:
    sets = [[(i * j * 2654435761) % 2**64 for j in range(1, i % 7 + 1)] for i in range(50)]
    compiling.load_kernels()
    one, *others = (minhash.signatures(*flat(sets), 128, 1, threads) for threads in (1, 2, 3, 60))
    assert all(np.array_equal(one, other) for other in others)
    assert minhash.signatures(*flat([]), 8).shape == (0, 8)


def test_order_and_repetition_of_shingles_change_no_signature(kind: str) -> None:
    one, other = minhash.signatures(*flat([[3, 9, 27], [27, 3, 9, 3]]))
    assert np.array_equal(one, other)


def test_a_signature_can_go_on_in_datasketch() -> None:
    signed = minhash.signatures(*flat([[1, 2, 3], [1, 2, 3, 4]]))
    grown = minhash.to_minhash(signed[0])
    grown.update(4)
    assert grown == minhash.to_minhash(signed[1]) and grown.jaccard(minhash.to_minhash(signed[1])) == 1


# ------------------------------------------------------------------------------------------- banding


@pytest.mark.parametrize("threshold, num_perm", [(0.8, 128), (0.5, 64), (0.3, 128), (0.9, 256)])
def test_banding_is_datasketchs(threshold: float, num_perm: int) -> None:
    best, theirs = (
        minhash.banding(threshold, num_perm),
        MinHashLSH(threshold=threshold, num_perm=num_perm, weights=(0.05, 0.95)),
    )
    assert (best.bands, best.rows) == (theirs.b, theirs.r)
    points = np.linspace(0, threshold, 20001)
    curve = 1 - (1 - points**best.rows) ** best.bands
    area = float(((curve[1:] + curve[:-1]) / 2 * np.diff(points)).sum())
    assert best.false_positive == pytest.approx(area, abs=1e-6)
    assert best.false_negative == pytest.approx((1 - threshold**best.rows) ** best.bands)
    assert best.probability(1.0) == 1 and best.probability(0.0) == 0


@pytest.mark.parametrize("threshold, num_perm", [(1.5, 128), (1.0, 128), (0.8, 1)])
def test_no_banding_for_impossible_numbers(threshold: float, num_perm: int) -> None:
    with pytest.raises(
        UsageError, match=f"no banding of {num_perm} permutations for the threshold {threshold}"
    ):
        minhash.banding(threshold, num_perm)


def test_band_keys_are_equal_exactly_where_rows_are(kind: str) -> None:
    drawn = np.arange(24, dtype=np.uint32).reshape(4, 6) % 5
    drawn[1, :2], drawn[2, 4:], drawn[3] = drawn[0, :2], drawn[0, 4:], drawn[0]
    drawn[:, 2:4] = drawn[:, :2]  # equal rows in two bands are two keys
    keys = minhash.band_keys(drawn, 3, 2)
    for band in range(3):
        rows = [tuple(row) for row in drawn[:, 2 * band : 2 * band + 2].tolist()]
        assert [[a == b for b in rows] for a in rows] == (keys[:, band, None] == keys[None, :, band]).tolist()
    assert not set(keys[:, 0].tolist()) & set(keys[:, 1].tolist())


# ---------------------------------------------------------------------------------- datasketch's form


def test_the_filled_index_answers_datasketchs_query() -> None:
    base = list(range(100, 200))
    sets = [base, [*base[:95], *range(1000, 1005)], list(range(5000, 5100)), [*base[:20], *range(7000, 7080)]]
    signed = minhash.signatures(*flat(sets), 128, 5)
    lsh = MinHashLSH(threshold=0.7, num_perm=128)
    minhash.fill_lsh(lsh, ["a", "near", "far", "fifth"], signed, 5)
    assert sorted(lsh.query(minhash.to_minhash(signed[0], 5))) == ["a", "near"]
    assert lsh.query(minhash.to_minhash(signed[2], 5)) == ["far"]


# ----------------------------------------------------------------------------------------- real data


def real_texts(folder: Path) -> list[str]:
    """Inputs and answers of the real Super-NaturalInstructions tasks."""
    texts = []
    for path in sorted((folder / "super_natural_instructions").rglob("task*.json"))[:40]:
        for instance in json.loads(path.read_text(encoding="utf-8"))["Instances"][:120]:
            texts.append(instance["input"] + "\n" + " ".join(instance["output"]))
    return texts


def test_estimates_are_within_the_theoretical_error_on_real_pairs(shared_data: Path) -> None:
    texts = real_texts(shared_data)
    first = np.arange(len(texts) + 1)
    values, indptr = minhash.shingles(*word_hashes(texts), first, 3)
    sets = [set(values[indptr[i] : indptr[i + 1]].tolist()) for i in range(len(texts))]
    pairs = ((i, i + step) for step in range(1, 40) for i in range(0, len(texts) - step, 2))
    alike = ((i, j, len(sets[i] & sets[j]) / max(1, len(sets[i] | sets[j]))) for i, j in pairs)
    chosen = list(islice(((i, j, true) for i, j, true in alike if 0 < true < 1), 10_000))
    assert len(chosen) == 10_000
    left, right = np.array([i for i, _, _ in chosen]), np.array([j for _, j, _ in chosen])
    true = np.array([value for *_, value in chosen])
    theory = float(np.sqrt(np.mean(true * (1 - true) / 128)))
    errors = []
    for seed in range(1, 9):  # pairs share texts, so that the errors of one seed lean to one side together
        signed = minhash.signatures(values, indptr, 128, seed)
        errors.append((signed[left] == signed[right]).mean(axis=1) - true)
    assert 0.9 * theory < float(np.sqrt(np.mean(np.square(errors)))) < 1.1 * theory
    assert abs(np.mean(errors)) < 0.2 * theory
