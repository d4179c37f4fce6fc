"""Test prompts as token ids: k demonstrations kept, fitted to the context, split into what is given and what is asked.

A prompt's *answer* is its last segment of kind output (else its last trained segment that is neither control nor blank);
what stands before it is the *prefix*; what follows it is never shown, but for the control segment that ends the turn: it
ends what is generated too. Rules, all on whole segments, tokenised as the prompt's format says:

- k-shot keeps the first k demonstrations: they are drawn in order of preference, so k-shot sets are nested.
- Where the prefix and what must follow it (the longest option, or the room kept for generation) exceed the context,
  demonstrations are dropped from the front, as in training, so that those nearest to the example stay; where that is
  not enough, tokens are cut on the left of the prefix (a first `{bos}` stays).
- A prompt in Tk-Instruct's encoding keeps its examples as long as they fit, the positive ones and then the negative ones,
  so the last go first; tokens are then cut on its right (Wang et al. 2022, section 5), as in training.
- Generation keeps room for `max_new_tokens`, at most half of the context.
- A prefix without any token becomes the begin (else end) of sequence token: a model needs something to start from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError
from taskmill.records import SEGMENT_KINDS
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.fitting import NEGATIVE, TK_INSTRUCT
from taskmill.training.encoding.rows import Encoded, Prompt
from taskmill.training.encoding.tokenizer import TextTokenizer

I32 = NDArray[np.int32]

DEMONSTRATION = SEGMENT_KINDS.index("demonstration")
OUTPUT = SEGMENT_KINDS.index("output")
CONTROL = SEGMENT_KINDS.index("control")


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt's text."""

    text: str
    kind: int
    """Code of records.SEGMENT_KINDS."""
    trained: bool = False


@dataclass(frozen=True)
class Question:
    """A test prompt split at its answer."""

    prefix: tuple[Segment, ...]
    answer: str
    """The answer as rendered, with its leading space."""
    end: str = "{eos}"
    """The control segment that ends the answer's turn."""
    joint: bool = True
    """Whether the text between control segments is encoded as a whole, or segment by segment."""
    tk_instruct: bool = False
    """Whether the last examples go first, and the right of the prefix."""
    withheld: tuple[Segment, ...] = ()
    """Negative examples left out, to be tried again beside fewer positive ones."""

    @property
    def lead(self) -> str:
        """The spaces that an answer begins with; options get the same."""
        return self.answer[: len(self.answer) - len(self.answer.lstrip())]

    @property
    def num_demonstrations(self) -> int:
        """Demonstrations in the prefix."""
        return sum(segment.kind == DEMONSTRATION for segment in self.prefix)


@dataclass(frozen=True)
class Ranking:
    """Token ids of a question and its options, of which the log-probabilities are wanted."""

    shared: I32
    """int32[c], c >= 1: what every option begins with; computed once."""
    suffixes: tuple[I32, ...]
    """int32[s] per option: its tokens after `shared`."""
    skip: tuple[int, ...]
    """First tokens of each suffix that still belong to the prefix and are not summed."""
    num_demonstrations: int = 0
    """Demonstrations that `shared` holds."""


@dataclass(frozen=True)
class Opening:
    """Token ids to generate from."""

    ids: I32
    """int32[n], n >= 1."""
    max_new_tokens: int
    num_demonstrations: int = 0
    """Demonstrations that `ids` hold."""
    end_id: int | None = None
    """The token that ends the answer's turn, where it is not the end of sequence."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer, themselves left out."""
    key: int = 0
    """64-bit key of what is drawn for it; a pure function of the recipe's seed and the prompt."""
    cut: bool = False
    """Whether tokens were cut, beside demonstrations that were dropped."""


@dataclass
class FitCounts:
    """What had to be cut, in prompts but for the first."""

    demonstrations_dropped: int = 0
    """Demonstrations."""
    prefixes_cut: int = 0
    options_cut: int = 0


@dataclass(frozen=True)
class Context:
    """What prompts are fitted to."""

    tokenizer: TextTokenizer
    max_length: int
    """Tokens of context."""
    counts: FitCounts = field(default_factory=FitCounts)


def split_prompt(
    text: str,
    ends: Sequence[int],
    kinds: Sequence[int],
    trained: Sequence[bool],
    joint: bool = True,
    format: str = "plain",
) -> Question:
    """Return a prompt of the prompts table, split at its answer.

    Raises:
        DataError: no segment is an answer.
    """
    raw = text.encode()
    starts = [0, *ends[:-1]]
    pieces = [raw[a:b].decode() for a, b in zip(starts, ends)]
    segments = [Segment(*piece) for piece in zip(pieces, kinds, trained)]
    outputs = [i for i, segment in enumerate(segments) if segment.kind == OUTPUT]
    others = [i for i, s in enumerate(segments) if s.trained and s.kind != CONTROL and s.text.strip()]
    if not outputs and not others:
        raise DataError("a test prompt has no answer", value=text, expected="an output or a trained segment")
    place = (outputs or others)[-1]
    end = next((s.text for s in segments[place:] if s.kind == CONTROL), "{eos}")
    return Question(tuple(segments[:place]), segments[place].text, end, joint, format == TK_INSTRUCT)


def keep_shots(question: Question, shots: int) -> Question:
    """Return the question with its first `shots` demonstrations only."""
    kept: list[Segment] = []
    for segment in question.prefix:
        shots -= segment.kind == DEMONSTRATION
        if segment.kind != DEMONSTRATION or shots >= 0:
            kept.append(segment)
    return replace(question, prefix=tuple(kept))


# ------------------------------------------------------------------------------------------- fitting


def fit_rankings(
    context: Context, questions: Sequence[Question], options: Sequence[Sequence[str]]
) -> list[Ranking]:
    """Encode questions with their options, fitted to the context."""

    def encode_all(pending: Sequence[Question], places: Sequence[int]) -> list[list[Encoded]]:
        answers = [[question.lead + o for o in options[i]] for question, i in zip(pending, places)]
        prompts = [_prompt(q, answer) for q, many in zip(pending, answers) for answer in many]
        encoded = iter(encode(context.tokenizer, prompts))
        return [[next(encoded) for _ in many] for many in answers]

    def fits(rows: list[Encoded]) -> bool:
        return max(len(row.ids) for row in rows) <= context.max_length

    fitted = _drop_until(context, questions, encode_all, fits)
    return [_ranking(context, question, rows) for question, rows in fitted]


def fit_openings(context: Context, questions: Sequence[Question], max_new_tokens: int) -> list[Opening]:
    """Encode questions to generate from, fitted to the context."""
    return [opening for _, opening in fit_questions(context, questions, max_new_tokens)]


def fit_questions(
    context: Context, questions: Sequence[Question], max_new_tokens: int
) -> list[tuple[Question, Opening]]:
    """Return questions with the demonstrations that fit the context, and their openings.

    `Opening.cut` says whether tokens had to go as well, which the question still has.
    """
    reserve = min(max_new_tokens, context.max_length // 2)
    limit = context.max_length - reserve

    def encode_all(pending: Sequence[Question], places: Sequence[int]) -> list[Encoded]:
        return encode(context.tokenizer, [_prompt(question, None) for question in pending])

    fitted = _drop_until(context, questions, encode_all, lambda row: len(row.ids) <= limit)
    openings = []
    for question, row in fitted:
        ids = _started(context, row.ids)
        cut = len(ids) > limit
        if cut:
            ids = _cut(context, ids, limit, question.tk_instruct)
            context.counts.prefixes_cut += 1
        room = min(max_new_tokens, context.max_length - len(ids))
        end_id = context.tokenizer.symbol(question.end)
        openings.append((question, Opening(ids, room, question.num_demonstrations, end_id, cut=cut)))
    return openings


def fit_unconditional(
    context: Context, questions: Sequence[Question], options: Sequence[Sequence[str]]
) -> list[Ranking]:
    """Encode the same options behind the begin (else end) of sequence token alone."""
    alone = [replace(question, prefix=(), withheld=()) for question in questions]
    return fit_rankings(replace(context, counts=FitCounts()), alone, options)


def _drop_until(
    context: Context,
    questions: Sequence[Question],
    encode_all: Callable[[Sequence[Question], Sequence[int]], list[Any]],
    fits: Callable[[Any], bool],
) -> list[tuple[Question, Any]]:
    """Encode all questions, again and again those too long, each time with one demonstration fewer."""
    result: dict[int, tuple[Question, Any]] = {}
    pending = dict(enumerate(questions))
    while pending:
        places = list(pending)
        shorter: dict[int, Question] = {}
        for place, row in zip(places, encode_all(list(pending.values()), places)):
            question = pending[place]
            fewer = None if fits(row) else with_fewer(question)
            if fewer is None:
                result[place] = (question, row)
                dropped = questions[place].num_demonstrations - question.num_demonstrations
                context.counts.demonstrations_dropped += dropped
            else:
                shorter[place] = fewer
        pending = shorter
    return [result[place] for place in range(len(questions))]


def with_fewer(question: Question) -> Question | None:
    """Return the question with the next smaller set of demonstrations to be tried, None when it has none.

    The first one leaves or, in Tk-Instruct's encoding, the last negative one; when none of these is left, the last
    positive one, and all negative ones are tried again: what fits first is what is kept by adding while it fits.
    """
    places = [i for i, segment in enumerate(question.prefix) if segment.kind == DEMONSTRATION]
    if not places:
        return None
    place = places[-1] if question.tk_instruct else places[0]
    gone = question.prefix[place]
    left = question.prefix[:place] + question.prefix[place + 1 :]
    if not question.tk_instruct:
        return replace(question, prefix=left)
    if gone.text.startswith(NEGATIVE):
        return replace(question, prefix=left, withheld=(gone, *question.withheld))
    return replace(question, prefix=left[:place] + question.withheld + left[place:], withheld=())


def _prompt(question: Question, answer: str | None) -> Prompt:
    """Return a prompt of the prefix and an answer (None: nothing); an empty answer is the end of the turn."""
    segments = list(question.prefix)
    if answer is not None:
        segments.append(Segment(answer, OUTPUT, True) if answer else Segment(question.end, CONTROL, True))
    ends = np.cumsum([len(s.text.encode()) for s in segments], dtype=np.int64).tolist()
    return Prompt(
        "".join(s.text for s in segments),
        ends,
        [s.kind for s in segments],
        [s.trained for s in segments],
        question.joint,
    )


def _ranking(context: Context, question: Question, rows: Sequence[Encoded]) -> Ranking:
    """Split encoded options into what they share and the rest.

    An option's tokens are those that start in it; where none does (a token of the prefix swallowed it), its last.
    """
    first = [
        min(int(np.searchsorted(row.segment, len(question.prefix))), max(len(row.ids) - 1, 0)) for row in rows
    ]
    shared = min(min(first), _common(rows))
    prefix, suffixes = rows[0].ids[:shared], [row.ids[shared:] for row in rows]
    prefix = _started(context, prefix)
    skip = [f - shared for f in first]
    room = context.max_length - max(len(suffix) for suffix in suffixes)
    if room < 1:
        suffixes = [suffix[: context.max_length - 1] for suffix in suffixes]
        skip = [min(s, len(suffix) - 1) for s, suffix in zip(skip, suffixes)]
        context.counts.options_cut += 1
    if len(prefix) > max(room, 1):
        prefix = _cut(context, prefix, max(room, 1), question.tk_instruct)
        context.counts.prefixes_cut += 1
    return Ranking(prefix, tuple(suffixes), tuple(skip), question.num_demonstrations)


def _common(rows: Sequence[Encoded]) -> int:
    """Return the number of tokens that all rows begin with."""
    size = min(len(row.ids) for row in rows)
    head = rows[0].ids[:size]
    for row in rows[1:]:
        differ = np.flatnonzero(head != row.ids[: len(head)])
        head = head[: int(differ[0])] if differ.size else head
    return len(head)


def _started(context: Context, ids: I32) -> I32:
    if len(ids):
        return ids
    tokenizer = context.tokenizer
    return np.array([tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id], dtype=np.int32)


def _cut(context: Context, ids: I32, size: int, keep_left: bool) -> I32:
    """Return the first `size` tokens, or the last ones with a first begin-of-sequence token kept."""
    if keep_left:
        return ids[:size]
    keeps_bos = size > 1 and context.tokenizer.bos_id is not None and ids[0] == context.tokenizer.bos_id
    return np.concatenate([ids[:1], ids[len(ids) - size + 1 :]]) if keeps_bos else ids[len(ids) - size :]
