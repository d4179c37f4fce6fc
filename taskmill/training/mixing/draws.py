"""The function of a mixture: (seed, position) -> prompt row, for positions 0, 1, 2 ..., with nothing walked before it.

Positions come in blocks. The quotas of `mixing.quotas` say which entries a block holds, a keyed permutation says in what
order, and a task's prompts come in a keyed order of their own, all of them once before any of them twice. In epochs, every
prompt that is kept comes once in each epoch, whose last block may be a short one. Reads `mixture.json`.

>>> mixture = Mixture.open(Path("runs/demo/mixture"))        # doctest: +SKIP
>>> mixture.at(np.array([8_000, 3]))                         # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.seeding import derive, derive_each, permute_each
from taskmill.storage import read_json
from taskmill.training.mixing.quotas import MAX_DRAWS, Quotas

FORMAT_VERSION = 2
CONCATENATION = "concatenation"
_SHARE_UNIT = 2**60
"""Shares become whole weights of the quotas in this unit."""
_BYTES = 50
"""Memory for each position that is drawn: its entry, its row, and what finds the distinct rows."""
_CHUNK = 1 << 16
"""Positions worked out together: their arrays stay in the processor's cache."""

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """The train prompts of one task under one condition, consecutive rows of the prompts table."""

    task: str
    condition: str | None
    benchmark: str
    """The part of the mixture that it belongs to: its benchmark, its class where the recipe mixes by class, or its kind
    where that is set aside."""
    num_prompts: int
    num_kept: int
    """Prompts that are drawn: the first rows, whose hashes are the smallest."""
    first_row: int
    """Row number over all prompts files in name order."""
    mean_bytes: float
    cap: int
    rate: float
    """What its share of its part is in proportion to: min(num_prompts, cap), in epochs num_kept."""
    share: float
    """Of all prompts drawn; sums to 1 over entries."""


class Mixture:
    """position -> prompt row; depends on seed, block, entries and whether they come in epochs alone."""

    def __init__(self, entries: Sequence[Entry], seed: int, block: int, in_epochs: bool = False) -> None:
        """Take the entries in any order; those of share 0 are never drawn.

        Args:
            entries: their shares count, or in epochs their num_kept.
            seed: of all permutations.
            block: positions over which every share is met.
            in_epochs: whether every kept prompt is drawn once per epoch.
        """
        self.seed = seed
        self.entries = sorted(
            (e for e in entries if e.share > 0 and e.num_kept),
            key=lambda e: (e.benchmark, e.task, e.condition or ""),
        )
        self.benchmarks = sorted({e.benchmark for e in self.entries})
        self._first_E = np.array([e.first_row for e in self.entries], dtype=np.int64)
        self._kept_E = np.array([e.num_kept for e in self.entries], dtype=np.int64)
        self._key_E = np.array(
            [derive(seed, "mix pass", e.task, e.condition or "") for e in self.entries], dtype=np.uint64
        )
        self._block_key = np.array([derive(seed, "mix block")], dtype=np.uint64)
        weight_E = (
            self._kept_E.tolist()
            if in_epochs
            else [max(1, round(e.share * _SHARE_UNIT)) for e in self.entries]
        )
        groups: dict[str, list[int]] = {}
        for entry, weight in zip(self.entries, weight_E, strict=True):
            groups.setdefault(entry.benchmark, []).append(weight)
        self._quotas = Quotas(list(groups.values()))
        self.epoch = sum(weight_E) if in_epochs else MAX_DRAWS
        """Positions of an epoch; of everything where there is none."""
        self.block = min(block, self.epoch)
        self._blocks_per_epoch = -(-self.epoch // self.block)
        self.in_epochs = in_epochs

    @classmethod
    def open(cls, directory: Path) -> Mixture:
        """Read the mixture of a finished mix stage.

        Raises:
            DamagedError: mixture.json is missing, no JSON, or of another version.
        """
        path = directory / "mixture.json"
        body = read_json(path)
        if body.get("format") != FORMAT_VERSION:
            raise DamagedError(
                f"{path} is of format {body.get('format')}, this version reads {FORMAT_VERSION}; run `taskmill mix` again"
            )
        entries = [Entry(**{k: e[k] for k in Entry.__annotations__}) for e in body["tasks"]]
        return cls(entries, body["seed"], body["block"], body["mode"] == CONCATENATION)

    def find(self, position_P: I64) -> tuple[I64, I64]:
        """Return the entry (int64[n], an index of `entries`) and the row (int64[n], of the prompts table) of positions.

        Args:
            position_P: int64[n] in any order, each from 0 to under 2 ** 32. Those of a block are worked out together.
        """
        epoch_P, place_P = np.divmod(position_P, self.epoch)
        number_P = epoch_P * self._blocks_per_epoch + place_P // self.block
        slot_P = place_P % self.block
        number_B, block_P = np.unique(number_P, return_inverse=True)
        order = np.argsort(block_P, kind="stable")
        step = max(1, _CHUNK // self.block)
        edges = np.searchsorted(block_P[order], np.arange(0, len(number_B) + step, step))
        entry_P, turn_P = np.empty_like(position_P), np.empty_like(position_P)
        for part, (start, stop) in enumerate(pairwise(edges.tolist())):
            here = order[start:stop]
            first = part * step
            entry_BS, turn_BS = self._blocks(number_B[first : first + step])
            at = (block_P[here] - first, slot_P[here])
            entry_P[here], turn_P[here] = entry_BS[at], turn_BS[at]
        return entry_P, self._rows(entry_P, turn_P)

    def at(self, position_P: I64) -> I64:
        """Return the prompt row of each position: int64[n]; see `find`."""
        return self.find(position_P)[1]

    def draws(self, num_positions: int, start: int = 0) -> tuple[I64, I64]:
        """Return entry and row of positions start .. start + num_positions - 1: int64[n] each; see `find`.

        Raises:
            TaskmillError: this machine's memory does not hold so many positions.
        """
        _check_memory(num_positions)
        entry = np.empty(num_positions, dtype=np.int64)
        row = np.empty(num_positions, dtype=np.int64)
        for first, stop in self._chunks(start, start + num_positions):
            found = self.find(np.arange(first, stop, dtype=np.int64))
            entry[first - start : stop - start], row[first - start : stop - start] = found
        return entry, row

    def rows(self, num_positions: int, start: int = 0) -> I64:
        """Return the prompt row of positions start .. start + num_positions - 1: int64[n]."""
        return self.draws(num_positions, start)[1]

    def counts(self, num_positions: int) -> I64:
        """Return how often each entry is drawn at positions 0 .. num_positions - 1: int64[len(entries)]."""
        epochs, rest = divmod(num_positions, self.epoch)
        whole = rest // self.block * self.block
        counts = self._quotas.counts(whole)
        if epochs:
            counts = counts + epochs * self._quotas.counts(self.epoch)
        last = self.draws(rest - whole, epochs * self.epoch + whole)[0]
        return counts + np.bincount(last, minlength=len(self.entries))

    def shard(
        self, rank: int, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield (position, row) of the positions from `start` on that leave `rank` when divided by `size`.

        The shards of ranks 0 .. size - 1 are disjoint and together all positions; with w workers on each of r ranks, take
        `shard(rank * w + worker, r * w)`. Going on is starting at the next position.

        Raises:
            UsageError: a rank that is not in [0, size).
        """
        if not 0 <= rank < size:
            raise UsageError(f"no shard {rank} of {size}; expected a rank from 0 to {size - 1}")
        for first, last in self._chunks(start, MAX_DRAWS if stop is None else stop):
            mine = np.arange(first + (rank - first) % size, last, size, dtype=np.int64)
            yield from zip(mine.tolist(), self.at(mine).tolist())

    def _chunks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut positions where blocks of the first epoch end."""
        step = max(1, _CHUNK // self.block) * self.block
        while start < stop:
            last = min(stop, (start // step + 1) * step)
            yield start, last
            start = last

    def _blocks(self, number_B: I64) -> tuple[I64, I64]:
        """Return the entry and turn of every slot of some blocks, int64[blocks, block] each; slots beyond a short one's end
        hold anything."""
        entry_BS = np.zeros((len(number_B), self.block), dtype=np.int64)
        turn_BS = np.zeros_like(entry_BS)
        epoch_B, inner_B = np.divmod(number_B, self._blocks_per_epoch)
        size_B = np.minimum(self.block, self.epoch - inner_B * self.block)
        for size in np.unique(size_B).tolist():
            at = np.flatnonzero(size_B == size)
            entry, turn = self._shuffled(number_B[at], inner_B[at] * self.block, size)
            if self.in_epochs:
                turn += epoch_B[at, None] * self._kept_E[entry]
            entry_BS[at, :size], turn_BS[at, :size] = entry, turn
        return entry_BS, turn_BS

    def _shuffled(self, number_B: I64, first_B: I64, size: int) -> tuple[I64, I64]:
        """Return entry and turn, int64[blocks, size], of blocks of one size: what their quotas hold in a keyed order, with the
        turns of an entry ascending."""
        shape = (len(number_B), size)
        slots = np.arange(size, dtype=np.int64)
        entry, turn = (a.reshape(shape) for a in self._quotas.find((first_B[:, None] + slots).ravel()))
        keys = np.repeat(derive_each(self._block_key, number_B), size)
        full = np.full(len(keys), size, dtype=np.int64)
        places = permute_each(keys, np.tile(slots, shape[0]), full).reshape(shape)
        short = entry.astype(np.int16 if len(self.entries) < 2**15 else np.int64)  # sorted by radix
        order = np.argsort(short, axis=1, kind="stable")
        moved = np.argsort(np.take_along_axis(short, places, 1), axis=1, kind="stable")
        turns = np.empty_like(turn)
        np.put_along_axis(turns, moved, np.take_along_axis(turn, order, 1), 1)
        return np.take_along_axis(entry, places, 1), turns

    def _rows(self, entry_P: I64, turn_P: I64) -> I64:
        """Return the row of each entry's turn: a permutation of its kept prompts for every pass over them."""
        rows = np.empty_like(entry_P)
        for first in range(0, len(entry_P), _CHUNK):
            here = slice(first, first + _CHUNK)
            entry, kept = entry_P[here], self._kept_E[entry_P[here]]
            passes, place = np.divmod(turn_P[here], kept)
            keys = derive_each(self._key_E[entry], passes)
            rows[here] = self._first_E[entry] + permute_each(keys, place, kept)
        return rows


def _check_memory(num_positions: int) -> None:
    """Refuse more positions than this machine's memory holds, rather than be killed by the system."""
    if not hasattr(os, "sysconf"):
        return
    memory, needed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), num_positions * _BYTES
    if needed > memory:
        raise TaskmillError(
            f"{num_positions:,} positions of the mixture take {needed / 2**30:,.0f} GiB of memory, this machine has "
            f"{memory / 2**30:,.0f}; lower mix.num_prompts, mix.epochs or --num"
        )
