"""Stop strings: where a generated text ends, found while it is still being generated (no torch).

A stop string may begin in the middle of a token and span tokens. What counts in the end is the whole text, cut before the
first stop string in it; watching only saves the tokens behind. So a token is looked at further only where its text could
end a stop string, and then with a few tokens before it: as many as the longest stop string has bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskmill.training.encoding.tokenizer import TextTokenizer

_MARGIN = 4
"""Tokens decoded before those that a stop string can span: a character's first bytes, and a space that decoding strips."""
_PART = "\ufffd"
"""What part of a character is decoded to."""


def cut(text: str, stop: Iterable[str]) -> str:
    """Return the text before the first stop string in it; empty strings stop nothing."""
    places = [text.find(string) for string in stop if string]
    return text[: min((place for place in places if place >= 0), default=len(text))]


class Watch:
    """Tells whether token ids hold one of some stop strings."""

    def __init__(self, tokenizer: TextTokenizer, stop: Iterable[str]) -> None:
        """Take the stop strings; empty ones stop nothing."""
        self.stop = tuple(string for string in stop if string)
        self._decode = tokenizer.backend.decode
        last = {string[-1] for string in self.stop}
        self._last = last if "".join(last).isascii() else last | {_PART}
        self._span = (
            max((len(string.encode("utf-8", "replace")) for string in self.stop), default=0) + _MARGIN
        )
        self._may_end: dict[int, bool] = {}

    def stopped(self, ids: Sequence[int]) -> bool:
        """Return whether the last of `ids`, which nothing has stopped so far, ends a stop string."""
        last = ids[-1]
        may_end = self._may_end.get(last)
        if may_end is None:
            # Twice, since decoding may strip the space that a text begins with.
            may_end = not self._last.isdisjoint(self._decode([last, last], skip_special_tokens=True))
            self._may_end[last] = may_end
        if not may_end:
            return False
        # A cut in the middle of a character can spoil what is decoded behind it.
        return self._holds(ids[-self._span :], _PART) and self._holds(ids)

    def _holds(self, ids: Sequence[int], *others: str) -> bool:
        text = self._decode(ids, skip_special_tokens=True)
        return any(string in text for string in (*self.stop, *others))
