"""Contamination of records in memory: equal to sets of joined strings, and to the rule of lm-evaluation-harness's lookup."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.normalisers import named
from taskmill.splits.auditing.contamination import Contamination, Records


def brute(
    train: Sequence[Sequence[str]], test: Sequence[Sequence[str]], n: int, frequent: int, cut: Any
) -> Any:
    """Return what the two sides share, from sets of joined strings."""

    def grams(record: Sequence[str]) -> set[str]:
        lines = [cut(text) for text in record]
        return {" ".join(line[i : i + n]) for line in lines for i in range(len(line) - n + 1)}

    def whole(record: Sequence[str]) -> str:
        lines = [cut(text) for text in record]
        return (
            "" if any(len(line) >= n for line in lines) else " ".join(word for line in lines for word in line)
        )

    ours, theirs = [grams(record) for record in test], [grams(record) for record in train]
    shared = set().union(*ours) & set().union(*theirs)
    numbers = Counter(gram for held in (*ours, *theirs) for gram in held)
    rare = {gram for gram in shared if numbers[gram] <= frequent}
    wholes, train_wholes = {whole(r) for r in test} - {""}, {whole(r) for r in train}
    return {
        "hit": {i: len(held & shared) for i, held in enumerate(ours) if held & shared},
        "hit_rare": [i for i, held in enumerate(ours) if held & rare],
        "touched": [i for i, held in enumerate(theirs) if held & shared],
        "touched_rare": [i for i, held in enumerate(theirs) if held & rare],
        "short": [i for i, record in enumerate(test) if whole(record)],
        "short_equal": [i for i, r in enumerate(test) if whole(r) and whole(r) in train_wholes],
        "equal": [i for i, record in enumerate(train) if whole(record) in wholes],
    }


def ours(
    train: Sequence[Sequence[str]],
    test: Sequence[Sequence[str]],
    n: int,
    frequent: int,
    mode: str,
    batch: int,
) -> Any:
    check = Contamination(Records.of(test), n, named(mode), frequent, threads=2)
    for start in range(0, len(train), batch):
        check.add(Records.of(train[start : start + batch]))
    result = check.result()
    hits = result.evaluation
    assert result.num_train == len(train)
    for record, window, source in zip(
        hits.record.tolist(), check.index.windows(hits.gram), hits.train_record.tolist()
    ):
        for held in (test[record], train[source]):
            assert any(f" {window} " in f" {' '.join(named(mode).words(text))} " for text in held)
    return {
        "hit": dict(zip(hits.record.tolist(), hits.num_grams.tolist())),
        "hit_rare": hits.record[~hits.is_frequent].tolist(),
        "touched": result.touched.tolist(),
        "touched_rare": result.touched_rare.tolist(),
        "short": result.short.tolist(),
        "short_equal": result.short_equal.tolist(),
        "equal": result.equal.tolist(),
    }


texts = st.text(alphabet="aB1 .\u00e9\u6771", max_size=12)
sides = st.lists(st.lists(texts, max_size=3), min_size=1, max_size=8)


@settings(max_examples=300)
@given(
    sides,
    sides,
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(["words-1", "lm-eval", "gpt3"]),
    st.integers(1, 9),
)
def test_equal_to_sets_of_strings(
    train: list[list[str]], test: list[list[str]], n: int, frequent: int, mode: str, batch: int
) -> None:
    expected = brute(train, test, n, frequent, named(mode).words)
    assert ours(train, test, n, frequent, mode, batch) == expected


def harness_words(text: str) -> list[str]:
    """Cut a text as the rule of lm-evaluation-harness's lookup says: capitals of ASCII lowered, its punctuation deleted."""
    kept = (c.lower() if c in string.ascii_uppercase else c for c in text if c not in string.punctuation)
    return "".join(kept).split()


@settings(max_examples=200)
@given(
    st.lists(st.text(alphabet="aZ9 '-\u00c9\u2019\u00a0\n_", max_size=30), min_size=1, max_size=6),
    st.lists(st.text(alphabet="aZ9 '-\u00c9\u2019\u00a0\n_", max_size=30), min_size=1, max_size=6),
)
def test_the_harness_mode_gives_the_flags_of_its_lookup(train: list[str], test: list[str]) -> None:
    rows = [[text] for text in train], [[text] for text in test]
    expected = brute(*rows, 3, 10**9, harness_words)
    found = ours(*rows, 3, 10**9, "lm-eval", 2)
    assert (found["hit"], found["touched"]) == (expected["hit"], expected["touched"])


def test_the_harness_mode_on_real_data(shared_data: Path) -> None:
    questions = (shared_data / "eval/gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    test = [[json.loads(line)["question"]] for line in questions]
    lines = (shared_data / "reasoning/flan_cot/gsm8k_train.tsv").read_bytes().decode().split("\n")
    train = [line.split("\t")[:1] for line in lines if line]
    found = ours(train, test, 13, 50, "lm-eval", 1000)
    assert found == brute(train, test, 13, 50, harness_words) and len(found["hit"]) == 3
