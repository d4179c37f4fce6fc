"""Metrics that compare whole answers or their words: accuracy, exact match, token F1; and what they compare as equal.

>>> exact_match("$1,000", ["1000.0"], number)
1.0
>>> token_f1("a small cat", ["the cat"], squad)
0.6666666666666666
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction

Normaliser = Callable[[str], str]

_NUMBER = re.compile(
    r"(?P<sign>[-+\u2212]?)\s?[$\u00a3\u20ac\u00a5\u20b9]?\s?(?P<inner>[-\u2212]?)"
    r"(?:(?P<above>\d+)/(?P<below>\d+)|(?P<decimal>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?P<power>[eE][+-]?\d{1,2})?)"
    r"\s?%?",
    re.ASCII,
)
_LONGEST_NUMBER = 100
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact(text: str) -> str:
    """Return the text, outer spaces aside."""
    return text.strip()


def plain(text: str) -> str:
    """Return the text with spaces of every kind as one, outer ones stripped, casefolded, one final full stop dropped.

    Articles and other punctuation count.
    """
    folded = " ".join(text.split()).casefold()
    return folded.removesuffix(".").rstrip()


def squad(text: str) -> str:
    """Return the text in lower case without ASCII punctuation and the words a, an, the; spaces as one (SQuAD 1.1)."""
    without = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without).split())


def number(text: str) -> str:
    """Return one spelling for all texts that are the same number, and `plain` for any other text.

    1,000 and 1000.0 and $1,000 and 1e3 are one number, and so are 1/2 and 0.5. A sign, a currency sign, thousands commas and a
    final percent sign may stand about it; the percent sign is dropped, it divides nothing. Longer than 100 characters
    is no number.
    """
    folded = plain(text)
    match = _NUMBER.fullmatch(folded) if len(folded) <= _LONGEST_NUMBER else None
    if match is None:
        return folded
    if match["above"] is not None:
        if not int(match["below"]):
            return folded
        size = Fraction(int(match["above"]), int(match["below"]))
    else:
        digits = match["decimal"].replace(",", "") + (match["power"] or "")
        size = Fraction(Decimal(digits, Context(prec=_LONGEST_NUMBER)))
    negative = (match["sign"] in ("-", "\u2212")) != bool(match["inner"])
    return str(-size if negative else size)


NORMALISERS: dict[str, Normaliser] = {"exact": exact, "plain": plain, "squad": squad, "number": number}


def accuracy(
    prediction: str,
    references: Sequence[str],
    options: Sequence[str] | None = None,
    normaliser: Normaliser = plain,
    by_letter: bool = False,
) -> float:
    """Return 1.0 when the option that was chosen is a reference (outer spaces aside), else 0.0.

    The option chosen is the one that the prediction is; else, of an answer that was generated, the first equal to it after
    the normaliser; else, with `by_letter`, the one at the letter's place. An answer that is no option is compared itself.
    """
    answers = {reference.strip() for reference in references}
    chosen = _chosen(prediction.strip(), [option.strip() for option in options or ()], normaliser, by_letter)
    if chosen is not None:
        return float(chosen in answers)
    return float(normaliser(prediction) in {normaliser(answer) for answer in answers})


def exact_match(prediction: str, references: Sequence[str], normaliser: Normaliser = plain) -> float:
    """Return 1.0 when the prediction equals a reference after the normaliser, else 0.0."""
    return float(normaliser(prediction) in {normaliser(reference) for reference in references})


def token_f1(prediction: str, references: Sequence[str], normaliser: Normaliser = squad) -> float:
    """Return the best F1 over the references of the words in common, each as often as both have it (SQuAD 1.1).

    Where a side has no words, 1.0 if both have none, else 0.0.
    """
    words = Counter(normaliser(prediction).split())
    return max((_f1(words, Counter(normaliser(text).split())) for text in references), default=0.0)


def _f1(words: Counter[str], others: Counter[str]) -> float:
    if not words or not others:
        return float(words == others)
    common = (words & others).total()
    if not common:
        return 0.0
    precision, recall = common / words.total(), common / others.total()
    return 2 * precision * recall / (precision + recall)


def _chosen(prediction: str, options: Sequence[str], normaliser: Normaliser, by_letter: bool) -> str | None:
    if not options or prediction in options:
        return prediction
    wanted = normaliser(prediction)
    for option in options:
        if wanted and normaliser(option) == wanted:
            return option
    place = ord(prediction) - ord("A") if by_letter and len(prediction) == 1 else -1
    return options[place] if 0 <= place < len(options) else None
