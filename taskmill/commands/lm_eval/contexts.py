"""Questions as the texts that the harness is given, and what its own encoding makes of them.

The harness knows texts only: a context and, for ranking, the options behind it. It moves spaces at the end of a context to
the front of the option, encodes both together, and takes for the option what is left behind as many tokens as the context
alone has (`api/model.py`, `_encode_pair`). Special tokens written as text become special tokens again. Here the same is
done with the run's tokenizer and compared with the tokens that the evaluate stage scores; what differs is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill.errors import MissingPackageError
from taskmill.evaluation.asking.fitting import CONTROL, Opening, Question, Ranking, Segment, with_fewer
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer

Ids = list[int]


@dataclass(frozen=True)
class HarnessTokenizer:
    """A run's tokenizer as the harness uses it: with special tokens read out of the text, and none added."""

    own: TextTokenizer
    backend: Any
    """tokenizers.Tokenizer that parses special tokens."""
    max_length: int

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        return [found.ids for found in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def text(self, segment: Segment) -> str:
        """Return a segment as text; a symbol as the text of its special token, nothing where there is none."""
        if segment.kind != CONTROL or segment.text not in ("{bos}", "{eos}"):
            return segment.text
        number = self.own.symbol(segment.text)
        return "" if number is None else str(self.backend.id_to_token(number))

    def decoded(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens included."""
        return str(self.backend.decode(list(map(int, ids)), skip_special_tokens=False))


def open_harness_tokenizer(folder: Path, max_length: int) -> HarnessTokenizer:
    """Open the tokenizer of a run's tokens.

    Raises:
        DamagedError: there is no tokenizer.
        MissingPackageError: the package tokenizers is absent.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackageError("tokenizers", "train", "fitting prompts to the context") from error
    own = open_tokenizer(folder)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return HarnessTokenizer(own, backend, max_length)


@dataclass(frozen=True)
class Posed:
    """A question as the harness is given it."""

    context: str
    choices: tuple[str, ...] = ()
    """Of a ranked question: what follows the context, option by option."""
    same_tokens: bool = True
    """Whether the harness gives the model the tokens that the evaluate stage gives it."""
    same_boundary: bool = True
    """Whether it also sums over the same ones of them."""
    usable: bool = True
    """Whether the harness takes it: it refuses a context or an option without a token, and an option too long."""


def pose_rankings(
    tokenizer: HarnessTokenizer,
    questions: Sequence[Question],
    options: Sequence[Sequence[str]],
    rankings: Sequence[Ranking],
) -> list[Posed]:
    """Return ranked questions as texts.

    Args:
        tokenizer: of the run.
        questions: with all demonstrations that were asked for.
        options: of each question.
        rankings: what the evaluate stage makes of each.
    """
    choices = [
        tuple(question.lead + option or tokenizer.text(Segment(question.end, CONTROL)) for option in many)
        for question, many in zip(questions, options)
    ]
    texts = [_texts(tokenizer, q, r.num_demonstrations) for q, r in zip(questions, rankings)]
    cut = [tokenizer.decoded(_before(ranking, 0)) for ranking in rankings]
    found = _ranked(tokenizer, [many[0] for many in texts], choices, rankings)
    again = [
        (place, text)
        for place, posed in enumerate(found)
        if not posed.same_tokens
        for text in (*texts[place][1:], cut[place])
    ]
    others = _ranked(
        tokenizer, [t for _, t in again], [choices[p] for p, _ in again], [rankings[p] for p, _ in again]
    )
    for (place, _), posed in zip(again, others):
        found[place] = max(found[place], posed, key=_likeness)
    return found


def pose_openings(
    tokenizer: HarnessTokenizer, questions: Sequence[Question], openings: Sequence[Opening]
) -> list[Posed]:
    """Return questions to be answered freely as texts; see `pose_rankings`."""
    result = []
    for question, opening in zip(questions, openings):
        ids = opening.ids.tolist()
        texts = [*_texts(tokenizer, question, opening.num_demonstrations), tokenizer.decoded(ids)]
        equal = next((text for text in texts if tokenizer.encode([text])[0] == ids), None)
        text = texts[-1] if equal is None else equal
        result.append(Posed(text, same_tokens=equal is not None, usable=bool(text)))
    return result


# ------------------------------------------------------------------------------------------------ parts


def _texts(tokenizer: HarnessTokenizer, question: Question, num_demonstrations: int) -> list[str]:
    """Return the prefixes with so many demonstrations that fitting tries, as texts; mostly it is one."""
    texts: list[str] = []
    left: Question | None = question
    while left is not None and (left.tk_instruct or left.num_demonstrations >= num_demonstrations):
        if left.num_demonstrations == num_demonstrations:
            texts.append("".join(map(tokenizer.text, left.prefix)))
        left = with_fewer(left)
    return texts or [""]


def _before(ranking: Ranking, option: int) -> Ids:
    """Return the tokens that stand before an option."""
    return [*ranking.shared.tolist(), *ranking.suffixes[option][: ranking.skip[option]].tolist()]


def _ranked(
    tokenizer: HarnessTokenizer,
    contexts: Sequence[str],
    choices: Sequence[Sequence[str]],
    rankings: Sequence[Ranking],
) -> list[Posed]:
    """Return contexts with options, compared with what the evaluate stage ranks."""
    pairs = [(context, choice) for context, many in zip(contexts, choices) for choice in many]
    encoded = iter(_encode_pairs(tokenizer, pairs))
    return [
        _compared(tokenizer, context, many, ranking, [next(encoded) for _ in many])
        for context, many, ranking in zip(contexts, choices, rankings)
    ]


def _encode_pairs(tokenizer: HarnessTokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
    """Return the ids of (context, option) as the harness cuts them."""
    stripped = [context.rstrip() for context, _ in pairs]
    heads = dict(zip(dict.fromkeys(stripped), tokenizer.encode(list(dict.fromkeys(stripped)))))
    whole = tokenizer.encode([context + option for context, option in pairs])
    return [(heads[head], ids[len(heads[head]) :]) for head, ids in zip(stripped, whole)]


def _compared(
    tokenizer: HarnessTokenizer,
    context: str,
    choices: Sequence[str],
    ranking: Ranking,
    encoded: Sequence[tuple[Ids, Ids]],
) -> Posed:
    usable, tokens, boundary = bool(context), True, True
    for option, (head, tail) in enumerate(encoded):
        wanted = [*ranking.shared.tolist(), *ranking.suffixes[option].tolist()]
        usable = usable and len(head) > 0 and 0 < len(tail) <= tokenizer.max_length
        tokens = tokens and head + tail == wanted
        boundary = boundary and len(head) == len(ranking.shared) + ranking.skip[option]
    return Posed(context, tuple(choices), tokens, tokens and boundary, usable)


def _likeness(posed: Posed) -> tuple[bool, bool, bool]:
    """Return what orders texts of one question: the more the harness reads one as the evaluate stage does, the higher."""
    return posed.usable, posed.same_tokens, posed.same_boundary
