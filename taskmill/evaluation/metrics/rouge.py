"""Rouge-L F1 (Lin 2004) with the words and the stemmer of the package rouge_score, as Super-NI's evaluator has it.

Words are runs of a-z and 0-9 in the text in lower case, those of more than three letters stemmed (Porter); everything else,
other scripts included, separates words. The stem of a word is worked out once, and the longest common subsequence on
integers as bit vectors, so that many answers take seconds; values are those of the package to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from taskmill.errors import MissingPackageError

_WORD = re.compile("[a-z0-9]+")
_STEMS_KEPT = 1 << 18


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return the best Rouge-L F1 over the references.

    Raises:
        MissingPackageError: rouge_score is not installed.
    """
    words = rouge_words(prediction)
    return max((_f1(rouge_words(reference), words) for reference in references), default=0.0)


def rouge_words(text: str) -> list[str]:
    """Return the stemmed words that Rouge-L compares.

    Raises:
        MissingPackageError: rouge_score is not installed.
    """
    stem = stemmer()
    return [stem(word) if len(word) > 3 else word for word in _WORD.findall(text.lower())]


@cache
def stemmer() -> Callable[[str], str]:
    """Return the stemmer of rouge_score, which remembers what it has stemmed.

    Raises:
        MissingPackageError: rouge_score is not installed.
    """
    try:
        from rouge_score.tokenizers import DefaultTokenizer
    except ImportError as error:
        raise MissingPackageError("rouge_score", "eval", "the metric rouge_l") from error
    tokenizer = DefaultTokenizer(use_stemmer=True)

    @lru_cache(_STEMS_KEPT)
    def stem(word: str) -> str:
        return str(tokenizer.tokenize(word)[0])

    return stem


def _f1(reference: Sequence[str], prediction: Sequence[str]) -> float:
    if not reference or not prediction:
        return 0.0
    common = longest_common_subsequence(reference, prediction)
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by bit vectors (Hyyro 2004).

    A zero bit of the state stands where the subsequence grows by one along `left`.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    everything = state = (1 << len(left)) - 1
    for word in right:
        matches = state & places.get(word, 0)
        state = ((state + matches) | (state - matches)) & everything
    return len(left) - state.bit_count()
