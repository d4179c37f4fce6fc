"""Metrics of single predictions: accuracy, exact match, Rouge-L F1; each is between 0 and 1, higher is better.

Which metric a prompt gets (OPT-IML section 4.1): options with the answer among them -> accuracy of the likelihood
ranking; otherwise the task's own metric on the generated text. `rouge_l` needs the package rouge_score (extra `eval`);
`require` reports it missing before anything costly starts.

>>> exact_match("  Paris. ", ["paris", "Lutetia"])
1.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from taskmill.errors import DataError, MissingPackageError, did_you_mean
from taskmill.records import METRICS

FINAL_ANSWER = "The answer is"
"""What stands between the rationale and the answer in the outputs of reasoning tasks."""

Score = Callable[[str, Sequence[str]], float]


def require(metrics: Iterable[str]) -> None:
    """Check that every package behind the named metrics is there.

    Raises:
        MissingPackageError: `rouge_l` is named and rouge_score is not installed.
        DataError: a metric that nobody knows.
    """
    for metric in sorted(set(metrics)):
        _known(metric)
        if metric == "rouge_l":
            _rouge_scorer()


def answer_index(options: Sequence[str] | None, references: Sequence[str]) -> int | None:
    """Return the lowest index of an option that equals a reference (outer spaces aside), or None."""
    answers = {reference.strip() for reference in references}
    return next((i for i, option in enumerate(options or ()) if option.strip() in answers), None)


def metric_of(task_metric: str, options: Sequence[str] | None, references: Sequence[str]) -> str:
    """Return the metric of one prompt: accuracy where the answer is among its options, else the task's.

    A task that asks for accuracy has exact match where it must be generated.
    """
    if answer_index(options, references) is not None:
        return "accuracy"
    return "exact_match" if task_metric == "accuracy" else task_metric


def score(metric: str, prediction: str, references: Sequence[str]) -> float:
    """Return the value of one prediction under the named metric, in [0, 1].

    Raises:
        DataError: a metric that nobody knows.
        MissingPackageError: see require.
    """
    return _SCORES[_known(metric)](prediction, references)


def final_answer(text: str) -> str:
    """Return what a worked answer comes to: the text after the last `The answer is`, or all of it where nothing does.

    Outputs of reasoning tasks are rendered as a rationale that ends so; their references hold the answer alone.
    """
    return text.rpartition(FINAL_ANSWER)[2].strip()


def normalise(text: str) -> str:
    """Return `text` as exact match compares it.

    The normaliser `plain`: spaces of every kind collapsed to one and outer ones stripped, casefolded, one final
    full stop dropped. Articles and other punctuation count.
    """
    folded = " ".join(text.split()).casefold()
    return folded.removesuffix(".").rstrip()


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 when the chosen option equals a reference (outer spaces aside), else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 when the prediction equals a reference after `normalise`, else 0.0."""
    return float(normalise(prediction) in {normalise(reference) for reference in references})


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return the best Rouge-L F1 over the references, words stemmed (Lin 2004; as Super-NI's evaluator).

    Raises:
        MissingPackageError: rouge_score is not installed.
    """
    scorer = _rouge_scorer()
    return max((scorer(reference, prediction) for reference in references), default=0.0)


@cache
def _rouge_scorer() -> Callable[[str, str], float]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingPackageError("rouge_score", "eval", "the metric rouge_l") from error
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda reference, prediction: float(scorer.score(reference, prediction)["rougeL"].fmeasure)


_SCORES: dict[str, Score] = {"accuracy": accuracy, "exact_match": exact_match, "rouge_l": rouge_l}


def _known(metric: str) -> str:
    if metric not in METRICS or metric not in _SCORES:
        raise DataError(
            f"no metric is called {metric!r}{did_you_mean(metric, METRICS)}",
            field="metric",
            expected=", ".join(METRICS),
        )
    return metric
