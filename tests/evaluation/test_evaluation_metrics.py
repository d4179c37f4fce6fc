"""Metrics of single predictions."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import DataError
from taskmill.evaluation import metrics


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        (" Paris. ", "paris", 1.0),
        ("New\n  York", "new york.", 1.0),
        ("STRASSE", "straße", 1.0),
        ("the cat", "cat", 0.0),
        ("yes", "no", 0.0),
        ("1.5", "15", 0.0),
        ("", "", 1.0),
    ],
)
def test_exact_match(prediction: str, reference: str, value: float) -> None:
    assert metrics.exact_match(prediction, ["something else", reference]) == value


@given(st.text())
def test_normalise_twice_changes_nothing_but_further_full_stops(text: str) -> None:
    once = metrics.normalise(text.replace(".", ""))
    assert metrics.normalise(once) == once


def test_rouge_takes_the_best_reference_and_stems() -> None:
    assert metrics.rouge_l("the cats are running", ["a dog", "the cat are run"]) == 1.0
    # LCS 2 of 3 predicted and 2 of 4 reference words: P = 2/3, R = 1/2, F1 = 4/7
    assert metrics.rouge_l("one two six", ["zzz", "one two three four"]) == pytest.approx(4 / 7)
    assert metrics.rouge_l("one", []) == 0.0


def test_rouge_equals_the_package_over_each_reference() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    texts = [" ".join(f"word{(i * j) % 5}" for i in range(1, 7)) for j in range(1, 8)]
    for prediction in texts:
        expected = max(scorer.score(text, prediction)["rougeL"].fmeasure for text in texts[:3])
        assert metrics.rouge_l(prediction, texts[:3]) == expected


def test_metric_of_a_prompt() -> None:
    assert metrics.metric_of("rouge_l", ["a", "b "], ["b"]) == "accuracy"
    assert metrics.metric_of("rouge_l", ["a", "b"], ["c"]) == "rouge_l"
    assert metrics.metric_of("accuracy", None, ["c"]) == "exact_match"
    assert metrics.answer_index(["x", " y", "y"], ["y"]) == 1


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'rouge_l'"):
        metrics.require(["rouge_1"])


def test_a_missing_package_is_reported_with_the_extra() -> None:
    code = (
        "import sys; sys.modules['rouge_score'] = None\n"
        "from taskmill.errors import MissingPackageError\n"
        "from taskmill.evaluation import metrics\n"
        "metrics.require(['exact_match', 'accuracy'])\n"
        "try: metrics.require(['rouge_l'])\n"
        "except MissingPackageError as error: assert 'taskmill[eval]' in str(error), error\n"
        "else: raise SystemExit('not reported')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("43 - 11 = 32. The answer is 32.", "32."),
        ("The answer is 5? No. The answer is (C).", "(C)."),
        ("thirty two", "thirty two"),
        ("", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert metrics.final_answer(text) == answer


def test_final_answer_reads_what_the_reasoning_template_writes() -> None:
    from taskmill.templates.rendering import variants

    assert metrics.FINAL_ANSWER in inspect.getsource(variants._render_reasoning)
