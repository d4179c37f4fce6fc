"""Fit an encoded prompt to the context: which segments go, which end is cut (no torch).

Reads and writes nothing. By what the prompt is:

- A document, all of it text to learn, is cut into consecutive pieces.
- A conversation keeps its beginning: TULU, Vicuna and OpenChat cut on the right. Or it is split between pairs of turns
  (what the user says and the answers to it): each piece has the opening of the conversation (its first mark, the system
  text) and as many pairs as fit, in order; a pair that does not fit beside the opening is left out, and the pairs
  before and after it stand in different pieces (TULU's and Vicuna's rule for ShareGPT).
- A prompt in Tk-Instruct's encoding keeps its examples as long as they fit, the positive ones and then the negative ones
  (Wang et al. 2022, section 5), so the last go first; instruction and input are then cut on the right.
- Any other prompt loses whole demonstrations from the front, then the left of what remains (OPT-IML section 3), in a
  chat format the left of instruction and input, since what the format writes stays. Under
  suffix loss (`templates.composing.metaicl`) a demonstration is two segments, which go together, and the loss begins
  at the output of the first demonstration left; where none is left, at the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskmill.records import SEGMENT_KINDS
from taskmill.training.encoding.rows import Encoded, Prompt

TK_INSTRUCT = "tk-instruct"
"""The column `format` of prompts in that encoding."""
DEMONSTRATION = SEGMENT_KINDS.index("demonstration")
_DOCUMENT = {SEGMENT_KINDS.index("document"), SEGMENT_KINDS.index("control")}
_ANSWER = tuple(SEGMENT_KINDS.index(kind) for kind in ("output", "assistant"))
_SOURCE = tuple(SEGMENT_KINDS.index(kind) for kind in ("instruction", "input"))
_USER, _ASSISTANT = SEGMENT_KINDS.index("user"), SEGMENT_KINDS.index("assistant")
_SPOKEN = {_USER, _ASSISTANT}
_CONTROL = SEGMENT_KINDS.index("control")
_TWO_PART = {*_SOURCE, DEMONSTRATION, SEGMENT_KINDS.index("document")}
NEGATIVE = " Negative Example"
"""What a negative example begins with in that encoding."""

I32 = NDArray[np.int32]
BOOL = NDArray[np.bool_]


@dataclass
class FitCounts:
    """What had to be cut, in prompts."""

    demonstrations_dropped: int = 0
    input_truncated: int = 0
    output_truncated: int = 0
    conversation_truncated: int = 0
    conversation_split: int = 0
    pairs_left_out: int = 0
    """Pairs of turns, not prompts."""
    document_cut: int = 0
    no_trained_token: int = 0


def fit(
    encoded: Encoded,
    kinds: Sequence[int],
    max_length: int,
    counts: FitCounts,
    examples: Sequence[Sequence[int]] | None = None,
    split_conversations: bool = False,
) -> list[Encoded]:
    """Cut a prompt to the context, as the module says. A prompt without a trained token gives nothing.

    Args:
        encoded: the tokens.
        kinds: code of each segment.
        max_length: tokens of context.
        counts: what is cut is counted there.
        examples: of a prompt in Tk-Instruct's encoding, what `tk_instruct_examples` gave; None for all others.
        split_conversations: whether conversations are split between pairs of turns rather than cut on the right.

    Returns:
        the pieces, each of at most `max_length` tokens; usually one.
    """
    if not encoded.trained[1:].any():
        counts.no_trained_token += 1
        return []
    if len(encoded.ids) <= max_length:
        return [encoded]
    if set(kinds) <= _DOCUMENT:
        return _pieces(encoded, max_length, counts)
    spoken = bool(_SPOKEN & set(kinds))
    if spoken and not _TWO_PART & set(kinds):
        if split_conversations:
            return _split(encoded, kinds, max_length, counts)
        fitted = _part(encoded, slice(0, max_length))
        counts.conversation_truncated += bool(fitted.trained[1:].any())
    elif examples is not None:
        fitted = _cut_right(_while_they_fit(encoded, examples, max_length, counts), kinds, max_length, counts)
    else:
        shorter = _from_the_front(encoded, kinds, max_length, counts)
        fitted = _cut_source(shorter, kinds, max_length, counts) if spoken else shorter
        fitted = _cut_left(fitted, max_length, counts)
    if not fitted.trained[1:].any():
        counts.no_trained_token += 1
        return []
    return [fitted]


def tk_instruct_examples(prompt: Prompt) -> tuple[list[int], list[int]]:
    """Return the segments that are positive and those that are negative examples of a prompt in Tk-Instruct's encoding."""
    raw = prompt.text.encode()
    starts = [0, *prompt.ends[:-1]]
    positive: list[int] = []
    negative: list[int] = []
    for number, kind in enumerate(prompt.kinds):
        if kind == DEMONSTRATION:
            is_negative = raw[starts[number] :].startswith(NEGATIVE.encode())
            (negative if is_negative else positive).append(number)
    return positive, negative


def _part(encoded: Encoded, part: slice | I32 | NDArray[np.intp]) -> Encoded:
    return Encoded(encoded.ids[part], encoded.trained[part], encoded.segment[part])


def _without(encoded: Encoded, segments: Sequence[int]) -> Encoded:
    return _part(encoded, np.flatnonzero(~np.isin(encoded.segment, segments)))


def _pieces(encoded: Encoded, max_length: int, counts: FitCounts) -> list[Encoded]:
    counts.document_cut += 1
    starts = list(range(0, len(encoded.ids), max_length))
    if len(encoded.ids) - starts[-1] == 1:  # a lone token is never a target: give it company
        starts[-1] -= 1
    edges = [*starts, len(encoded.ids)]
    return [_part(encoded, slice(start, stop)) for start, stop in itertools.pairwise(edges)]


# ---------------------------------------------------------------------------------------- between turns


def _split(encoded: Encoded, kinds: Sequence[int], max_length: int, counts: FitCounts) -> list[Encoded]:
    """Split a conversation between pairs of turns, as the module says."""
    edges = np.searchsorted(encoded.segment, [*_pair_starts(encoded, kinds), len(kinds)]).tolist()
    opening = np.arange(edges[0])
    pieces: list[list[NDArray[np.intp]]] = [[opening]]
    for start, stop in itertools.pairwise(edges):
        if len(opening) + stop - start > max_length:
            counts.pairs_left_out += 1
            pieces.append([opening])
            continue
        if sum(map(len, pieces[-1])) + stop - start > max_length:
            pieces.append([opening])
        pieces[-1].append(np.arange(start, stop))
    found = [_part(encoded, np.concatenate(piece)) for piece in pieces if len(piece) > 1]
    found = [piece for piece in found if piece.trained[1:].any()]
    counts.conversation_split += bool(found)
    counts.no_trained_token += not found
    return found


def _pair_starts(encoded: Encoded, kinds: Sequence[int]) -> list[int]:
    """Return the segments at which pairs of turns begin.

    A pair begins where a user speaks after an answer. Of the marks between the two, those that end the answer stay
    with it: the ones that carry loss, and all that do not stand before the first user too.
    """
    spoken = [number for number, kind in enumerate(kinds) if kind in _SPOKEN]
    turns = [
        number
        for before, number in itertools.pairwise([-1, *spoken])
        if before < 0 or (kinds[before] == _ASSISTANT and kinds[number] == _USER)
    ]
    marks = [_marks_before(encoded, kinds, number) for number in turns]
    # What opens a pair is what stands before each of them; with a single pair nothing has to be told apart.
    shared = 0
    while all(len(own) > shared for own in marks) and len({own[-1 - shared] for own in marks}) == 1:
        shared += 1
    return [number - shared * (len(turns) > 1) for number in turns]


def _marks_before(encoded: Encoded, kinds: Sequence[int], number: int) -> list[tuple[int, ...]]:
    """Return the ids of the control segments right before a segment, in order, from the last on that carries loss."""
    first = number
    while first and kinds[first - 1] == _CONTROL and not encoded.trained[encoded.segment == first - 1].any():
        first -= 1
    return [tuple(encoded.ids[encoded.segment == mark].tolist()) for mark in range(first, number)]


# ------------------------------------------------------------------------------------------- from the left


def _from_the_front(encoded: Encoded, kinds: Sequence[int], max_length: int, counts: FitCounts) -> Encoded:
    """Drop demonstrations from the front until the prompt fits or has none."""
    numbers = [i for i, kind in enumerate(kinds) if kind == DEMONSTRATION]
    suffix_loss = bool(encoded.trained[np.isin(encoded.segment, numbers)].any())
    width = 2 if suffix_loss else 1
    demonstrations = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    counts.demonstrations_dropped += bool(demonstrations)
    for place, own in enumerate(demonstrations, start=1):
        encoded = _without(encoded, own)
        if suffix_loss:
            left = demonstrations[place:]
            begin = left[0][-1] if left else _answer(kinds, own[-1])
            encoded = Encoded(encoded.ids, encoded.trained & (encoded.segment >= begin), encoded.segment)
        if len(encoded.ids) <= max_length:
            break
    return encoded


def _answer(kinds: Sequence[int], after: int) -> int:
    """Return the first segment behind `after` that is an answer."""
    found = (number for number in range(after + 1, len(kinds)) if kinds[number] in _ANSWER)
    return next(found, after + 1)


def _cut_source(encoded: Encoded, kinds: Sequence[int], max_length: int, counts: FitCounts) -> Encoded:
    """Cut instruction and input on the left; what a chat format writes around them stays."""
    excess = len(encoded.ids) - max_length
    source = np.flatnonzero(np.isin(np.asarray(kinds)[encoded.segment], _SOURCE))
    if excess <= 0 or excess > len(source):
        return encoded
    counts.input_truncated += 1
    return _part(encoded, np.delete(np.arange(len(encoded.ids)), source[:excess]))


def _cut_left(encoded: Encoded, max_length: int, counts: FitCounts) -> Encoded:
    cut = max(len(encoded.ids) - max_length, 0)
    if cut and encoded.trained[cut + 1 :].any():
        if encoded.trained[:cut].any():
            counts.output_truncated += 1
        else:
            counts.input_truncated += 1
    return _part(encoded, slice(cut, None))


# ------------------------------------------------------------------------------------------ from the right


def _while_they_fit(
    encoded: Encoded, examples: Sequence[Sequence[int]], max_length: int, counts: FitCounts
) -> Encoded:
    """Keep of each group of examples those from its first on that fit beside all that is kept before them."""
    segments = [number for group in examples for number in group]
    if not segments:
        return encoded
    length = np.bincount(encoded.segment, minlength=max(segments) + 1)
    room = max_length - len(encoded.ids) + int(length[segments].sum())
    dropped: list[int] = []
    for group in examples:
        for place, number in enumerate(group):
            if length[number] > room:
                dropped += group[place:]
                break
            room -= int(length[number])
    counts.demonstrations_dropped += bool(dropped)
    return _without(encoded, dropped)


def _cut_right(encoded: Encoded, kinds: Sequence[int], max_length: int, counts: FitCounts) -> Encoded:
    """Cut instruction and input on the right; an answer that leaves them under half of the context likewise, to that half."""
    if len(encoded.ids) <= max_length:
        return encoded
    is_source = np.isin(np.asarray(kinds)[encoded.segment], _SOURCE)
    source, rest = np.flatnonzero(is_source), np.flatnonzero(~is_source)
    num_rest = min(len(rest), max(max_length - len(source), max_length // 2))
    num_source = min(len(source), max_length - num_rest)
    counts.input_truncated += num_source < len(source)
    counts.output_truncated += num_rest < len(rest)
    return _part(encoded, np.sort(np.concatenate([source[:num_source], rest[:num_rest]])))
