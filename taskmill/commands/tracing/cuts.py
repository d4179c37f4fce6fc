"""Whether what `trace` finds in a prompt is in the tokens that are trained on, or was cut off to fit the context.

Reads the token arrays, and decodes the documents of prompts that were cut; writes nothing. A prompt whose document is whole needs
no look: `whole.bin` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taskmill.commands.finished import FinishedRun
from taskmill.commands.tracing.records import read_prompt_rows
from taskmill.commands.tracing.search import Spans, masks_of
from taskmill.errors import DamagedError
from taskmill.normalisers import Normaliser

I64 = npt.NDArray[np.int64]
I16 = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]
MOST_CHECKED = 500
"""Prompts whose tokens are looked at for one text, those with the longest spans."""


class Cuts:
    """The prompts of which tokenize cut something off, and what is left of them."""

    def __init__(self, found: FinishedRun, normaliser: Normaliser, has_tokens: bool) -> None:
        """Find them.

        Raises:
            DamagedError: whole.bin is missing or too short.
        """
        self.found, self.normaliser = found, normaliser
        self.documents = np.empty(0, np.int64)
        self.rows = np.empty(0, np.int64)
        if has_tokens:
            path = found.inputs.directory("tokenize") / "whole.bin"
            self._rows = np.asarray(found.tokens.rows)
            whole = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
            if len(whole) != len(self._rows):
                raise DamagedError(f"{path} holds {len(whole)} values, tokens.json says {len(self._rows)}")
            self.rows = np.unique(self._rows[whole == 0])

    def settle(self, spans: Spans, words: Sequence[str], n: int) -> tuple[Spans, Bools, dict[int, set[int]]]:
        """Cut spans of a text to what is in the tokens, and what is not.

        Args:
            spans: of one text, in prompts that are reached.
            words: of that text.
            n: words a window.

        Returns:
            the spans, those that were cut in parts; bool[s], whether a span is not in the tokens; and row -> the
            documents that hold some of it, for the rows of which something was cut off.
        """
        places = np.flatnonzero(np.isin(spans.row, self.rows))
        places = places[np.argsort(-spans.size[places], kind="stable")]
        known, held = dict[int, dict[int, set[str]]](), dict[int, set[int]]()
        whole, parts, lost = np.ones(len(spans.row), bool), list[Spans](), list[bool]()
        for i in places.tolist():
            row = int(spans.row[i])
            if row not in known:
                if len(known) == MOST_CHECKED:
                    continue
                known[row] = self._windows(row, n)
            start, num = int(spans.start[i]), max(1, int(spans.size[i]) - n + 1)
            windows = (" ".join(words[a : a + n]) for a in range(start, start + num))
            found = [{doc for doc, own in known[row].items() if window in own} for window in windows]
            held[row] = held.get(row, set()).union(*found)
            whole[i] = False
            own = self._parts(spans.take(np.array([i])), np.array([not item for item in found]), n)
            parts += [part for part, _ in own]
            lost += [is_lost for _, is_lost in own]
        kept = spans.take(np.flatnonzero(whole))
        flags = np.array([False] * len(kept.row) + lost, bool)
        return Spans.joined([kept, *parts]), flags, held

    def _parts(self, span: Spans, is_lost: Bools, n: int) -> list[tuple[Spans, bool]]:
        """Cut a span into runs of windows that are in the tokens, and the runs of words that none of these holds."""
        if is_lost.all() or not is_lost.any():
            return [(span, bool(is_lost[0]))]
        kept = _runs(~is_lost)
        covered = np.zeros(int(span.size[0]), bool)
        for first, last in kept:
            covered[first : last + n - 1] = True
        runs = [(first, last + n - 1, False) for first, last in kept]
        runs += [(first, last, True) for first, last in _runs(~covered)]
        masks = self._masks(int(span.row[0]))[int(span.position[0]) :]
        parts = []
        for first, last, lost in runs:
            mask = np.bitwise_or.reduce(masks[first:last], keepdims=True)
            size = np.array([last - first])
            part = Spans(span.text, span.row, span.start + first, size, span.position + first, mask)
            parts.append((part, lost))
        return parts

    def _masks(self, row: int) -> I16:
        """Return where the words of a prompt lie."""
        ((_, table),) = read_prompt_rows(self.found, [row])
        return masks_of(table.combine_chunks().to_batches()[0], 1, self.normaliser)[0]

    def _windows(self, row: int, n: int) -> dict[int, set[str]]:
        """Return the windows of each document of a prompt, with and without special tokens."""
        tokens, backend = self.found.tokens, self.found.tokenizer.backend
        windows = dict[int, set[str]]()
        for document in np.flatnonzero(self._rows == row).tolist():
            start, stop = tokens.offsets[document : document + 2].tolist()
            ids = tokens.ids[start:stop].tolist()
            windows[document] = set()
            for skip in (False, True):
                own = self.normaliser.words(backend.decode(ids, skip_special_tokens=skip))
                windows[document].update(" ".join(own[i : i + n]) for i in range(len(own) - n + 1))
        return windows


def _runs(flags: Bools) -> list[tuple[int, int]]:
    """Return (first, one past the last) of each run of places that are true."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2]))
