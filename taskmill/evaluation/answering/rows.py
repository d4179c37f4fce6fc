"""How questions are laid out for a model that ranks: rows of a trunk and branches, cut into batches (see ranking).

Options of a question share a row where the model allows it; equal ones are there once. Rows are sorted by length, those
with a frequent head apart, and cut into batches that keep masks, logits, keys and values within their limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import MissingPackageError
from taskmill.evaluation.answering import caching
from taskmill.evaluation.answering.scorer import Scorer, num_ids, window
from taskmill.evaluation.asking.fitting import Ranking

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

I32 = NDArray[np.int32]

HEAD = 16
"""Fewest tokens that trunks have in common for a pass of their own."""
_FREQUENT = 4
"""Fewest rows with a common head that come together; fewer where batches are smaller."""
_THREAD_TOKENS = 512
"""On a CPU, tokens of a forward pass for each thread: with more, what layers hand on leaves the processor's cache."""
_DEVICE_TOKENS = 2**15
"""On a GPU, tokens of a forward pass: enough to keep it busy; what a layer of a large model makes of them takes a few GB."""
_MASK_CELLS = 2**26
"""Most cells of an attention mask (B x T x tokens seen): 256 MB in fp32."""
_LOGIT_CELLS = 2**26
"""Most logits at once (U x V): 256 MB in fp32."""
_ROW_TOKENS = 2048
"""Options of one question are spread over rows with branches of about this many tokens."""


@dataclass(frozen=True)
class Row:
    """Some options of a question, as the model is given them."""

    question: int
    options: tuple[tuple[int, ...], ...]
    """The places of each distinct option among those of the question."""
    trunk: I32
    """int32[c]: what goes through the model first."""
    start: int
    """Place of the trunk that predicts the first token of every option."""
    branches: tuple[I32, ...]
    """What of each option goes through the model behind the trunk: its tokens but the last."""
    suffixes: tuple[I32, ...]
    skip: tuple[int, ...]

    @property
    def tail(self) -> int:
        """Tokens of all branches."""
        return sum(map(len, self.branches))

    @property
    def wanted(self) -> int:
        """Places whose logits the row needs, at most."""
        return 1 + sum(len(suffix) - 1 for suffix in self.suffixes)


@dataclass(frozen=True)
class Layout:
    """How questions are laid out for a model."""

    tree: bool
    window: int | None
    """Tokens that a row with branches may have."""
    batch_size: int
    most_logits: int
    most_fed: int
    """Tokens that go through the model at once."""
    most_kept: int
    """Tokens whose keys and values are kept at once."""

    @classmethod
    def of(cls, scorer: Scorer) -> Layout:
        """Read it from a scorer's model."""
        most_logits = max(1, _LOGIT_CELLS // num_ids(scorer.model))
        most_kept = caching.most_tokens(scorer.model, scorer.device)
        on_cpu = scorer.device.type == "cpu"
        most_fed = max(2, torch.get_num_threads()) * _THREAD_TOKENS if on_cpu else _DEVICE_TOKENS
        reach = None if scorer.windowed else window(scorer.model)
        return cls(scorer.tree, reach, scorer.batch_size, most_logits, most_fed, most_kept)

    def rows(self, index: int, ranking: Ranking) -> Iterator[Row]:
        """Lay a question's options out over rows: equal ones once, and those without tokens not at all."""
        distinct: dict[tuple[bytes, int], list[int]] = {}
        for option, (suffix, skip) in enumerate(zip(ranking.suffixes, ranking.skip)):
            if len(suffix) > skip:
                distinct.setdefault((suffix.tobytes(), skip), []).append(option)
        groups = list(distinct.values())
        lengths = [len(ranking.suffixes[group[0]]) for group in groups]
        room = min(_ROW_TOKENS, self.most_logits)
        if self.window:
            room = min(room, self.window - len(ranking.shared))
        longest = max(lengths, default=0)
        together = longest == 1 or (self.tree and len(groups) > 1 and longest <= max(room, 1))
        start, size = 0, 0
        for end, length in enumerate(lengths):
            if end > start and (not together or (size + length > room and longest > 1)):
                yield _row(index, ranking, groups[start:end], together)
                start, size = end, 0
            size += length
        if groups:
            yield _row(index, ranking, groups[start:], together)

    def batches(self, rows: Sequence[Row]) -> Iterator[tuple[int, list[Row]]]:
        """Cut rows into batches within all limits, each with the size of its head.

        Rows with a frequent head come together, longest first; the head has what the trunks of all of them begin with.
        """
        groups: dict[bytes, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.trunk[:HEAD].tobytes() if self.tree else b"", []).append(row)
        enough = max(2, min(_FREQUENT, self.batch_size))
        frequent = {key: group for key, group in groups.items() if key and len(group) >= enough}
        others = [row for key, group in groups.items() if key not in frequent for row in group]
        for group in (*(frequent[key] for key in sorted(frequent)), others):
            head = self.head_size(group) if group is not others else 0
            for batch in self._cut(head, sorted(group, key=_order)):
                yield head, batch

    def _cut(self, head: int, rows: Sequence[Row]) -> Iterator[list[Row]]:
        batch: list[Row] = []
        trunk = tail = wanted = 0
        for row in rows:
            trunk, tail = max(trunk, len(row.trunk)), max(tail, row.tail)
            wanted += row.wanted
            if batch and self._over(len(batch) + 1, head, trunk + tail, tail, wanted):
                yield batch
                batch, trunk, tail, wanted = [], len(row.trunk), row.tail, row.wanted
            batch.append(row)
        if batch:
            yield batch

    def _over(self, num_rows: int, head: int, length: int, tail: int, wanted: int) -> bool:
        return (
            num_rows > self.batch_size
            or num_rows * (length - head) > self.most_fed
            or num_rows * length > self.most_kept
            or num_rows * length * tail > _MASK_CELLS
            or wanted > self.most_logits
            or (self.window is not None and tail > 0 and length > self.window)
        )

    def head_size(self, rows: Sequence[Row]) -> int:
        """Return how many tokens of the trunks go through the model once for all."""
        if self.window and max(len(row.trunk) + row.tail for row in rows) > self.window:
            return 0
        head = rows[0].trunk[: min(row.start for row in rows)]
        for row in rows[1:]:
            differ = np.flatnonzero(head != row.trunk[: len(head)])
            head = head[: int(differ[0])] if differ.size else head
        return len(head) if len(head) >= HEAD else 0


def _order(row: Row) -> tuple[Any, ...]:
    return -int(16 * math.log2(len(row.trunk))), -row.tail, row.question, row.options


def _row(index: int, ranking: Ranking, groups: Sequence[Sequence[int]], together: bool) -> Row:
    suffixes = tuple(ranking.suffixes[group[0]] for group in groups)
    trunk, branches = ranking.shared, tuple(suffix[:-1] for suffix in suffixes)
    if not together:
        trunk, branches = np.concatenate([trunk, branches[0]]), (branches[0][:0],)
    return Row(
        question=index,
        options=tuple(map(tuple, groups)),
        trunk=trunk,
        start=len(ranking.shared) - 1,
        branches=branches,
        suffixes=suffixes,
        skip=tuple(ranking.skip[group[0]] for group in groups),
    )
