"""Which segments of a prompt the words of its text lie in: from the byte ends of segments to word positions.

Reads rows of prompts/prompts, writes nothing. Symbols (`{bos}`, `{eos}`) stand for tokens and hold no words, so they are
taken out first. Segments are normalised one by one; where a word runs on from one segment into the next, which shows in
the number of words, the text up to each segment says where its words begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskmill.normalisers import Normaliser
from taskmill.records import SEGMENT_KINDS
from taskmill.text import word_hashes

I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]

PLACES = (*SEGMENT_KINDS, "crossing")
"""What a window can lie in; a window of several segments lies in the kind of each, and in `crossing`."""
CROSSING = 1 << len(SEGMENT_KINDS)
SYMBOLS = ("{bos}", "{eos}")
_CONTROL = SEGMENT_KINDS.index("control")


@dataclass(frozen=True)
class PlainPrompts:
    """Prompts without symbols."""

    texts: list[str]
    ends: list[list[int]]
    """UTF-8 byte end of each segment."""
    kinds: list[list[int]]

    def take(self, rows: Sequence[int]) -> PlainPrompts:
        """Return some of them."""
        return PlainPrompts(
            [self.texts[row] for row in rows],
            [self.ends[row] for row in rows],
            [self.kinds[row] for row in rows],
        )


def plain_prompts(batch: pa.RecordBatch) -> PlainPrompts:
    """Return the prompts of a batch with the columns `text`, `ends` and `kinds`."""
    columns = (batch.column(name).to_pylist() for name in ("text", "ends", "kinds"))
    plain = PlainPrompts([], [], [])
    for text, ends, kinds in zip(*columns):
        if kinds.count(_CONTROL) == 1 and kinds[-1] == _CONTROL and text.endswith(SYMBOLS[1]):
            if ends[-1] - (ends[-2] if len(ends) > 1 else 0) == len(SYMBOLS[1]):
                text, ends, kinds = text[: -len(SYMBOLS[1])], ends[:-1], kinds[:-1]
        elif _CONTROL in kinds:
            pieces = _pieces(text, ends)
            kept = [
                (piece, kind)
                for piece, kind in zip(pieces, kinds)
                if kind != _CONTROL or piece not in SYMBOLS
            ]
            text, kinds = "".join(piece for piece, _ in kept), [kind for _, kind in kept]
            ends = list(accumulate(len(piece.encode()) for piece, _ in kept))
        plain.texts.append(text)
        plain.ends.append(ends)
        plain.kinds.append(kinds)
    return plain


def _pieces(text: str, ends: Sequence[int]) -> list[str]:
    """Return the texts of the segments."""
    if text.isascii():
        return [text[start:end] for start, end in pairwise((0, *ends))]
    data = text.encode()
    return [data[start:end].decode() for start, end in pairwise((0, *ends))]


def num_words(texts: Sequence[str], normaliser: Normaliser) -> I64:
    """Return how many words each text has: int64[num_texts]."""
    counts: I64 = np.diff(word_hashes(texts, normaliser)[1])
    return counts


def window_masks(prompts: PlainPrompts, words: I64, n: int, normaliser: Normaliser) -> I16:
    """Return where the window that begins at each word lies, as bits of PLACES.

    Args:
        prompts: the prompts.
        words: int64[num_prompts], words of each text.
        n: words a window.
        normaliser: how texts are cut.

    Returns:
        int16[words.sum()], the prompts end to end; what stands at the last n - 1 words of a prompt means nothing.
    """
    pieces = [_pieces(text, ends) for text, ends in zip(prompts.texts, prompts.ends)]
    first = np.append(0, np.cumsum([len(p) for p in pieces], dtype=np.int64)).astype(np.int64)
    counts = num_words([piece for own in pieces for piece in own], normaliser)
    sums = np.append(0, np.cumsum(counts))
    before = np.append(0, np.cumsum(words)).astype(np.int64)
    shared = list[tuple[int, int]]()
    for row in np.flatnonzero(sums[first[1:]] - sums[first[:-1]] != words).tolist():
        begins, cut = _boundaries(pieces[row], int(words[row]), normaliser)
        counts[first[row] : first[row + 1]] = np.diff(begins)
        shared += [
            (int(before[row]) + begins[place] - 1, int(first[row]) + place)
            for place in cut
            if begins[place] > 0
        ]
    bits = np.left_shift(1, np.array([k for own in prompts.kinds for k in own], np.int16)).astype(np.int16)
    segment = np.repeat(np.arange(len(counts)), counts)
    mask, last = bits[segment].astype(np.int16), segment.copy()
    for word, also in shared:
        mask[word] |= bits[also]
        last[word] = max(last[word], also)
    return _over_windows(mask, segment, last, n)


def _boundaries(pieces: Sequence[str], total: int, normaliser: Normaliser) -> tuple[list[int], list[int]]:
    """Return how many words begin before each piece and in all, and the pieces that begin within a word."""
    inner = range(1, len(pieces))
    heads = num_words(["".join(pieces[:place]) for place in inner], normaliser).tolist()
    tails = num_words(["".join(pieces[place:]) for place in inner], normaliser).tolist()
    begins = [0, *accumulate((min(head, total) for head in heads), max), total]
    cut = [place for place, head, tail in zip(inner, heads, tails) if pieces[place] and head + tail > total]
    return begins, cut


def _over_windows(mask: I16, first: I64, last: I64, n: int) -> I16:
    """Join the masks of the n words from each word on."""
    joined, size = mask.copy(), 1
    while size < n and len(joined) > size:
        step = min(size, n - size)
        joined[:-step] |= joined[step:].copy()
        size += step
    if len(joined) >= n:
        crossing = first[: len(first) - n + 1] != last[n - 1 :]
        crossing |= _any_over(first != last, n)
        joined[: len(crossing)][crossing] |= CROSSING
    return joined


def _any_over(flags: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.bool_]:
    sums = np.append(0, np.cumsum(flags))
    found: npt.NDArray[np.bool_] = sums[n:] > sums[: len(sums) - n]
    return found
