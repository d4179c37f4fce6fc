"""Texts as runs of UTF-8 bytes: the form that the kernels read, with characters beyond ASCII rewritten beforehand.

    >>> from taskmill.normalisers import WORDS
    >>> run = next(runs(["Don’t", "Straße"], 100))
    >>> bytes(prepared(run, WORDS, None).raw)
    b'Don tStrasse'

What becomes of a character is asked of the normaliser once and kept in a table. A text in which a mark may compose or
change places with another, and few others, is prepared in Python, as are all without the compiled kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from taskmill.marks import Change, ascii_flags
from taskmill.normalisers import Normaliser

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

POOL_BYTES = (
    1 << 23
)  # what all characters become, together: 7 MB for all of Unicode; only touched pages cost memory
HEADER = 5  # bytes before what a character becomes: see `kernels.rewrite`
_FEW = 1 << 15  # bytes looked at before all
MAX_UNKNOWN = 1 << 16  # characters looked up per pass


@dataclass(frozen=True, slots=True)
class Run:
    """Some texts end to end."""

    raw: U8
    """UTF-8 of all texts; also of lone surrogates, three bytes each."""
    offsets: I64
    """int64[num_texts + 1]: text t is raw[offsets[t]:offsets[t + 1]]."""

    def text(self, number: int) -> str:
        """Return one text."""
        return bytes(self.raw[self.offsets[number] : self.offsets[number + 1]]).decode(
            "utf-8", "surrogatepass"
        )


def runs(texts: Iterable[str], max_bytes: int) -> Iterator[Run]:
    """Yield the texts in runs of about `max_bytes`."""
    pieces, size = list[bytes](), 0
    for text in texts:
        piece = text.encode("utf-8", "surrogatepass")
        pieces.append(piece)
        size += len(piece)
        if size >= max_bytes:
            yield _run(pieces)
            pieces, size = list[bytes](), 0
    if pieces:
        yield _run(pieces)


def _run(pieces: list[bytes]) -> Run:
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    return Run(np.frombuffer(b"".join(pieces), np.uint8), offsets)


def prepared(run: Run, normaliser: Normaliser, kernels: ModuleType | None) -> Run:
    """Return the run with every text in the form whose words the normaliser's `fold` cuts."""
    raw = run.raw[run.offsets[0] : run.offsets[-1]]
    if not normaliser.prepares_ascii and raw[:_FEW].max(initial=0) < 128 and raw.max(initial=0) < 128:
        return run
    if kernels is not None and normaliser.change is not None:
        done, chosen = _rewritten(run, _characters(normaliser), kernels)
    elif normaliser.prepares_ascii:
        done, chosen = run, np.arange(len(run.offsets) - 1)
    else:
        filled = np.flatnonzero(np.diff(run.offsets))
        largest = np.maximum.reduceat(raw, run.offsets[filled] - run.offsets[0])
        done, chosen = run, filled[largest > 127]
    return _replaced(done, chosen, [normaliser.prepare(run.text(t)) for t in chosen.tolist()])


def _replaced(run: Run, chosen: I64, texts: list[str]) -> Run:
    """Return the run with other texts in the place of some."""
    if not len(chosen):
        return run
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = np.diff(run.offsets)
    sizes[chosen] = list(map(len, encoded))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    kept, pieces = run.raw.data, list[bytes | memoryview]()
    begins = [run.offsets[0], *run.offsets[chosen + 1].tolist()]
    for begin, end, piece in zip(begins, run.offsets[chosen].tolist(), encoded):
        pieces += kept[begin:end], piece
    pieces.append(kept[begins[-1] : run.offsets[-1]])
    return Run(np.frombuffer(b"".join(pieces), np.uint8), offsets)


class Characters:
    """What the characters of a normaliser become, as far as texts have held them."""

    def __init__(self, normaliser: Normaliser) -> None:
        """Look at ASCII only."""
        assert normaliser.change is not None
        self._change = normaliser.change
        self.plain = int(not normaliser.prepares_ascii)
        self.ascii_map: U8 = np.arange(256, dtype=np.uint8)
        self.ascii_map[0] = ord(" ")
        if normaliser.prepares_ascii:
            changes = [self._change(chr(code)) for code in range(128)]
            self.ascii_map[:128] = [ord(change.text or "\0") if change else 0 for change in changes]
        self.ascii_flags: U8 = np.frombuffer(ascii_flags() if self.plain else bytes(128), np.uint8)
        self.table: I32 = np.zeros(0x110000, np.int32)
        self.pool: U8 = np.zeros(POOL_BYTES, np.uint8)
        self._bytes = self.pool.data
        self._used = 1
        self._lock = threading.Lock()

    def learn(self, codes: I64) -> None:
        """Enter characters into the table; the pool first, as other threads may be reading."""
        with self._lock:
            left = np.unique(codes)
            for code in left[self.table[left] == 0].tolist():
                self.table[code] = self._place(self._change(chr(code)))

    def _place(self, change: Change | None) -> int:
        if change is None:
            return -1
        marks = change.marks.encode()
        piece = marks + change.text.encode("utf-8", "surrogatepass")
        place, begin = self._used, self._used + HEADER
        end = begin + len(piece)
        if len(piece) > 255 or end > POOL_BYTES:
            return -1
        header = bytes((len(piece), len(marks), change.flags, change.first, change.last))
        self._bytes[place:end] = header + piece
        self._used = end
        return place


_tables: dict[str, Characters] = {}


def _characters(normaliser: Normaliser) -> Characters:
    return _tables.setdefault(normaliser.name, _tables.get(normaliser.name) or Characters(normaliser))


def _rewritten(run: Run, characters: Characters, kernels: ModuleType) -> tuple[Run, I64]:
    """Return the run rewritten character by character, and which texts are left empty for Python to prepare."""
    num_texts = len(run.offsets) - 1
    offsets, hard = np.empty(num_texts + 1, np.int64), np.empty(num_texts, np.uint8)
    unknown = np.empty(MAX_UNKNOWN + 1, np.int64)
    size = int(run.offsets[-1] - run.offsets[0]) * 5 // 4 + 1024
    while True:
        out = np.empty(size, np.uint8)
        tables = (
            characters.plain,
            characters.ascii_map,
            characters.ascii_flags,
            characters.table,
            characters.pool,
        )
        done = kernels.rewrite(run.raw, run.offsets, *tables, out, offsets, hard, unknown)
        if done == kernels.TOO_SMALL:
            size *= 2
        elif done == kernels.UNKNOWN:
            characters.learn(unknown[1 : unknown[0] + 1])
        else:
            return Run(out[:done], offsets), np.flatnonzero(hard)
