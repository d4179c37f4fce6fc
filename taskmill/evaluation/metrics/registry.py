"""The metrics by name: which one a prompt gets, and what answers are worth under it, from 0 to 1, higher being better.

Which metric a prompt gets (OPT-IML section 4.1): options with the answer among them -> accuracy of the likelihood
ranking; otherwise the task's own metric on the generated text. An answer that is one of the options as it stands is valued
as it is; of any other text the part is valued that the measure's `extract` finds. Of several samples the mean is taken,
but for `pass_at_k`, which is about all of them. docs/metrics.md defines each metric.

>>> values(Measure("exact_match"), [Item(["  Paris. "], ["paris", "Lutetia"], None, None, "e", "t", "p")], workers=1)
[Valued(answer='Paris.', value=1.0, statistics=None)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from taskmill.engine import run_jobs
from taskmill.errors import DataError, did_you_mean
from taskmill.evaluation.metrics import matching, programs, translation
from taskmill.evaluation.metrics.extraction import EXTRACTIONS
from taskmill.evaluation.metrics.matching import NORMALISERS, Normaliser
from taskmill.evaluation.metrics.measure import Item, Measure, OwnFunction, Valued
from taskmill.evaluation.metrics.own import open_function
from taskmill.evaluation.metrics.rouge import rouge_l, stemmer
from taskmill.recipe_evaluate import Code
from taskmill.records import METRICS

__all__ = [
    "Item",
    "Measure",
    "OwnFunction",
    "Valued",
    "answer_index",
    "combine",
    "metric_of",
    "open_function",
    "require",
    "values",
]

_SLOW = ("bleu", "chrf")
"""Metrics of about a millisecond an answer, which are worth worker processes."""
_CHUNK = 2_000

Worth = tuple[float, list[float] | None]


def require(measures: Iterable[Measure]) -> None:
    """Check that whatever the measures need is there; where programs are to be run, tell which limits they lack.

    Raises:
        MissingPackageError: a metric's package is not installed.
        DataError: a metric, normaliser or extraction that nobody knows, a function that was not opened.
        UsageError: pass_at_k, and the recipe does not allow programs to be run, or too little memory for any.
    """
    packages: dict[str, Callable[[], object]] = {
        "rouge_l": stemmer,
        "bleu": translation.require_sacrebleu,
        "chrf": translation.require_sacrebleu,
    }
    codes: dict[Code, None] = {}
    for measure in measures:
        _check_names(measure)
        packages.get(measure.metric, bool)()
        if measure.metric == "pass_at_k":
            programs.require_permission(measure.code)
            codes[measure.code] = None
    for code in codes:
        programs.tell_limits(code)


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


def values(measure: Measure, items: Sequence[Item], workers: int) -> list[Valued]:
    """Return what every item's answers are worth, in order; the same for any number of workers.

    Raises:
        DataError: see require; an example without the fields that pass_at_k needs; what a function of one's own raises or
            returns that is no value.
        MissingPackageError, UsageError: see require.
    """
    _check_names(measure)
    if measure.metric == "pass_at_k":
        answers = [[_answer(measure, item, sample) for sample in item.samples] for item in items]
        found = programs.values(items, answers, measure.pass_k, measure.code, workers)
        return [Valued(given[0], value) for given, value in zip(answers, found)]
    if measure.metric in _SLOW and workers > 1 and len(items) > _CHUNK:
        jobs = [(measure, items[start : start + _CHUNK]) for start in range(0, len(items), _CHUNK)]
        return [valued for part in run_jobs(_values, jobs, workers) for valued in part]
    return _values((measure, items))


def combine(metric: str, statistics_RS: translation.Floats) -> translation.Floats:
    """Return float64[R]: the value in [0, 1] of a metric of a whole corpus for each row of summed statistics.

    Raises:
        DataError: a metric that is none of a corpus.
    """
    if metric != "bleu":
        raise DataError(
            f"{metric!r} is a metric of single answers, whose values are averaged", expected="bleu"
        )
    return translation.corpus_bleu(statistics_RS)


def _values(job: tuple[Measure, Sequence[Item]]) -> list[Valued]:
    measure, items = job
    return [_valued(measure, item) for item in items]


def _valued(measure: Measure, item: Item) -> Valued:
    answers = [_answer(measure, item, sample) for sample in item.samples]
    worth = [_worth(measure, answer, item) for answer in answers]
    mean = sum(value for value, _ in worth) / len(worth)
    sums = [statistics for _, statistics in worth if statistics is not None]
    return Valued(answers[0], mean, [sum(column) for column in zip(*sums)] if sums else None)


def _answer(measure: Measure, item: Item, sample: str) -> str:
    """Return the part of a sample that is valued; programs are taken out of their text whatever the task's style."""
    if item.options is not None and sample in item.options:
        return sample
    extract = "code" if measure.metric == "pass_at_k" and measure.extract == "whole" else measure.extract
    return EXTRACTIONS[extract](sample)


def _worth(measure: Measure, answer: str, item: Item) -> Worth:
    if measure.function is not None:
        return measure.function(answer, item), None
    if measure.metric == "bleu":
        return translation.bleu(answer, item.references)
    if measure.metric == "chrf":
        return translation.chrf(answer, item.references), None
    if measure.metric == "rouge_l":
        return rouge_l(answer, item.references), None
    if measure.metric == "accuracy":
        by_letter = measure.extract == "letter"
        found = matching.accuracy(answer, item.references, item.options, _normaliser(measure), by_letter)
        return found, None
    compare = {"exact_match": matching.exact_match, "token_f1": matching.token_f1}[measure.metric]
    return compare(answer, item.references, _normaliser(measure)), None


def _normaliser(measure: Measure) -> Normaliser:
    default = "squad" if measure.metric == "token_f1" else "plain"
    return NORMALISERS[measure.normaliser or default]


def _check_names(measure: Measure) -> None:
    """Check that everything that a measure names is known.

    Raises:
        DataError: it is not.
    """
    known = METRICS if measure.function is None else (measure.metric,)
    for field, value, names in (
        ("metric", measure.metric, known),
        ("normaliser", measure.normaliser or "plain", tuple(NORMALISERS)),
        ("extract", measure.extract, tuple(EXTRACTIONS)),
    ):
        if value not in names:
            raise DataError(
                f"no {field} is called {value!r}{did_you_mean(value, names)}",
                field=field,
                expected=", ".join(names),
            )
