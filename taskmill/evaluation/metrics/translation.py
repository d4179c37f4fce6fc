"""BLEU and chrF of sacrebleu, on the scale from 0 to 1.

BLEU is a metric of a whole corpus: of each answer the counts are kept (`STATISTICS` of them), summed over answers and only then
combined. Its tokenizer is 13a and its smoothing `exp`, sacrebleu's defaults for a corpus; the value of a single answer has the
effective order. chrF is chrF2 (six letters, no words) of each answer, averaged over answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from taskmill.errors import MissingPackageError

ORDER = 4
STATISTICS = 2 * ORDER + 2
"""Matches and n-grams of one to four words, then the lengths of the answer and of the nearest reference, in words."""

Floats = npt.NDArray[np.float64]


def bleu(prediction: str, references: Sequence[str]) -> tuple[float, list[float]]:
    """Return (BLEU of this answer alone, with effective order; its statistics); zeros without references.

    Raises:
        MissingPackageError: sacrebleu is not installed.
    """
    if not references:
        return 0.0, [0.0] * STATISTICS
    found = _scorers()[0].sentence_score(prediction, list(references))
    statistics = [*found.counts, *found.totals, found.sys_len, found.ref_len]
    return min(1.0, found.score / 100), [float(number) for number in statistics]


def chrf(prediction: str, references: Sequence[str]) -> float:
    """Return the best chrF2 over the references.

    Raises:
        MissingPackageError: sacrebleu is not installed.
    """
    if not references:
        return 0.0
    return min(1.0, float(_scorers()[1].sentence_score(prediction, list(references)).score) / 100)


def corpus_bleu(statistics_RS: Floats) -> Floats:
    """Return float64[R]: BLEU in [0, 1] of each row of summed statistics (Papineni et al. 2002).

    An order without matches counts as 1/2, 1/4, ... of one (the smoothing `exp` of sacrebleu; Chen and Cherry 2014, method 3).
    """
    counts_RN, totals_RN = statistics_RS[:, :ORDER], statistics_RS[:, ORDER : 2 * ORDER]
    system_R, reference_R = statistics_RS[:, 2 * ORDER], statistics_RS[:, 2 * ORDER + 1]
    missing_RN = (counts_RN == 0) & (totals_RN > 0)
    smoothing_RN = 2.0 ** np.cumsum(missing_RN, axis=1)
    some_R = np.asarray((counts_RN.max(axis=1) > 0) & (totals_RN.min(axis=1) > 0))
    precisions_RN = np.where(missing_RN, 1 / smoothing_RN, counts_RN) / np.where(totals_RN > 0, totals_RN, 1)
    logs_R = np.log(np.where(some_R[:, None], precisions_RN, 1.0)).mean(axis=1)
    short_R = np.minimum(0.0, 1 - reference_R / np.where(system_R > 0, system_R, 1))
    return np.where(some_R, np.minimum(1.0, np.exp(logs_R + short_R)), 0.0)


@cache
def _scorers() -> tuple[Any, Any]:
    """Return sacrebleu's (BLEU, chrF)."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingPackageError("sacrebleu", "eval", "the metrics bleu and chrf") from error
    return BLEU(tokenize="13a", effective_order=True), CHRF()


def require_sacrebleu() -> None:
    """Check that sacrebleu is there.

    Raises:
        MissingPackageError: it is not installed.
    """
    _scorers()
