"""Likelihood ranking with a causal language model: log-probabilities of options.

What all options of a question begin with, its trunk, goes through the model once, and what the trunks of many questions
begin with, their head, once for all of them. The options then go through it together behind the trunk's cache, one branch
each: positions go on from the trunk, and under the mask a branch sees trunk and itself but no other branch. The last
token of an option is predicted and never fed, so options of one token cost nothing beyond the trunk. That is the
same computation as one forward pass per option (up to rounding). Models that do not obey such a mask, or have no such
cache (recurrent ones), are found out by `open_scorer` and get one row per option, as do options beyond the window of a
model that sees no further.

Rows are sorted by length and cut into static batches, padded on the right, where no token sees the padding; logits are
computed where a token of an option is predicted, and nowhere else. Results come in the order of the questions.
Nothing depends on the batch size but the last bits of a float.

Shapes: B rows, P places of the trunks behind the head, T places of the branches, N tokens predicted,
U places that predict them, V vocabulary.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError, LimitError, MissingPackageError
from taskmill.evaluation.answering.rows import HEAD, I32, Layout, Row
from taskmill.evaluation.answering.scorer import (
    Scorer,
    is_exact,
    logits_at,
    mask_of,
    masks_of,
    num_ids,
    window,
)
from taskmill.evaluation.asking.fitting import Ranking

try:
    import torch
    from transformers import DynamicCache
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

log = logging.getLogger("taskmill")

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

DECIMALS = 6
"""Log-probabilities are rounded, in nats."""
TIE = 1e-5
"""Values this near count as equal: the rounding of fp32 never decides between equal options."""
_PART_CELLS = 2**23
"""Logits of which probabilities are computed at once: what is as large as they are is then small."""
_TOLERANCE = 1e-3
"""Largest difference of log-probabilities, in nats, between options in one row and in rows of their own, in fp32."""
_PROBED_WINDOW = 1024
"""Widest window, in tokens, that is tried out."""


def open_scorer(model: Any, pad_id: int, eos_id: int, batch_size: int) -> Scorer:
    """Return a scorer whose rows suit the model: options share rows where that changes no log-probability.

    Questions with a common head, and one that fits a narrow window, are ranked with shared rows and without; where
    layers see a window of at most 1,024 tokens, so are longer ones, in fp32.
    """
    scorer = Scorer(model, pad_id, eos_id, batch_size=2)
    ids = (np.arange(80, dtype=np.int32) * 7 + 3) % min(97, num_ids(model))
    options = (ids[9:12], ids[12:14], ids[14:21])
    probe = [Ranking(ids[24 : 24 + size], options, (0, 0, 0)) for size in (HEAD + 9, HEAD + 3)]
    probe.append(Ranking(ids[21:24], options[:2], (0, 0)))
    if not _equal(scorer, probe, ids[70:73]):
        name = type(model).__name__
        log.warning("evaluate: %s does not keep options in one row apart; one row each, slower", name)
        return Scorer(model, pad_id, eos_id, batch_size, tree=False)
    reach = window(model) or 0
    if 0 < reach <= _PROBED_WINDOW and is_exact(model):
        trunk = (np.arange(reach + reach // 4 + 9) ** 2 * 7 // 11 % num_ids(model)).astype(np.int32)
        wide = replace(scorer, windowed=True)
        probe = [Ranking(trunk, options[:2], (0, 0)), Ranking(trunk, options[2:], (0,))]
        scorer = wide if _equal(wide, probe, ids[70:73]) else scorer
    return replace(scorer, batch_size=batch_size)


def _equal(scorer: Scorer, probe: Sequence[Ranking], other: I32) -> bool:
    """Return whether shared rows change nothing.

    Rounding to 16 bits hides a small leak, so options may not move either when the first one is replaced.
    """
    changed = [replace(ranking, suffixes=(other, *ranking.suffixes[1:])) for ranking in probe]
    expected = np.concatenate(rank(replace(scorer, tree=False), probe))
    try:
        rows, moved = rank(scorer, probe), rank(scorer, changed)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, DataError):
        return False
    found = np.concatenate(rows)
    moves = [abs(a - b) for one, two in zip(rows, moved) for a, b in zip(one[1:], two[1:])]
    allowed = _TOLERANCE if is_exact(scorer.model) else 0.1 + 0.02 * np.abs(expected)
    return bool((np.abs(found - expected) <= allowed).all() and max(moves) <= _TOLERANCE)


def rank(scorer: Scorer, rankings: Sequence[Ranking]) -> list[list[float]]:
    """Return the log-probability of every option of every question: the sum over its tokens, unnormalised.

    In nats, rounded to DECIMALS; 0 for an option without tokens. Equal questions are computed once, and so are equal
    options of a question.

    Raises:
        DataError: the model gives no number for an option.
        LimitError: one row alone does not fit the device's memory.
    """
    first: dict[tuple[Any, ...], int] = {}
    source = [first.setdefault(_key(ranking), index) for index, ranking in enumerate(rankings)]
    scores = [[0.0] * len(ranking.suffixes) for ranking in rankings]
    layout = Layout.of(scorer)
    rows = [row for index in first.values() for row in layout.rows(index, rankings[index])]
    reader = _Reader(scorer)
    for head, batch in layout.batches(rows):
        with torch.inference_mode():
            sums = iter(_sums(reader, head, batch))
        for row in batch:
            for places, value in zip(row.options, sums):
                for option in places:
                    scores[row.question][option] = round(float(value), DECIMALS)
    return [list(scores[index]) for index in source]


def _sums(reader: _Reader, head: int, batch: Sequence[Row]) -> F64:
    """Return what a reader does, of a batch or, where the device's memory does not suffice, of one half after the other."""
    try:
        sums = reader.sums(head, batch)
    except torch.cuda.OutOfMemoryError:
        pass  # what the failure holds of the device is free behind this block only
    else:
        if np.isnan(sums).any():
            raise DataError(
                "the model gives no number (NaN) for the log-probability of an option: its weights are no numbers, or "
                "they overflow evaluate.precision"
            )
        return sums
    half, device = len(batch) // 2, reader.scorer.device
    if not half:
        raise LimitError(
            f"a prompt of {len(batch[0].trunk)} tokens with {batch[0].tail} of its options does not fit the memory of "
            f"{device} beside the model; evaluate.precision=bf16 or a lower tokenize.max_length takes less"
        )
    log.warning("evaluate: %d prompts at once do not fit the memory of %s; fewer at once", len(batch), device)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return np.concatenate([_sums(reader, head, batch[:half]), _sums(reader, head, batch[half:])])


def normalised(
    kind: str,
    scores: Sequence[float],
    ranking: Ranking,
    options: Sequence[str],
    unconditional: Sequence[float] | None,
) -> list[float]:
    """Return what options are compared by.

    Args:
        kind: `none`, `token` (per token of the option), `byte` (per UTF-8 byte of its text without leading spaces) or
            `unconditional` (less its log-probability without the prompt).
        scores: of `rank`, and `unconditional` those of the same options behind the begin token alone.
    """
    if kind == "token":
        sizes = [len(suffix) - skip for suffix, skip in zip(ranking.suffixes, ranking.skip)]
    elif kind == "byte":
        sizes = [len(option.lstrip().encode()) for option in options]
    elif kind == "unconditional":
        assert unconditional is not None
        return [score - alone for score, alone in zip(scores, unconditional, strict=True)]
    else:
        assert kind == "none", kind
        return list(scores)
    return [score / max(1, size) for score, size in zip(scores, sizes, strict=True)]


def best(scores: Sequence[float]) -> int:
    """Return the index of the highest score; of those within TIE of it the lowest index."""
    bound = max(scores) - TIE
    return next(index for index, value in enumerate(scores) if value >= bound)


def _key(ranking: Ranking) -> tuple[Any, ...]:
    return ranking.shared.tobytes(), tuple(suffix.tobytes() for suffix in ranking.suffixes), ranking.skip


# ------------------------------------------------------------------------------------------ the model


@dataclass
class _Wanted:
    """Tokens of options that are predicted by one forward pass."""

    places: list[I64]
    """Which token that goes in predicts each, row after row."""
    targets: list[I32]
    owners: list[I64]
    """The option of each, numbered through the batch."""

    def add(self, place: int, targets: I32, owner: int) -> None:
        """Add tokens that are predicted by consecutive places."""
        self.places.append(np.arange(place, place + len(targets)))
        self.targets.append(targets)
        self.owners.append(np.full(len(targets), owner))


class _Reader:
    """Runs batches through a model, and keeps the last head."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.head, self.head_cache = b"", DynamicCache()

    def sums(self, head: int, batch: Sequence[Row]) -> F64:
        """Return the summed log-probability of each option of each row, one after the other."""
        scorer = self.scorer
        trunks = [row.trunk[head:] for row in batch]
        tails = [np.concatenate(row.branches) for row in batch]
        width, tail = max(map(len, trunks)), max(map(len, tails))
        behind_trunk, behind_branch = _wanted(batch, head, width, tail)
        settings: dict[str, Any] = {"use_cache": False}
        if head or tail:
            settings = {"use_cache": True, "past_key_values": self._begin(batch[0].trunk[:head], len(batch))}
        values = [_logprobs(scorer, behind_trunk, input_ids=_padded(scorer, trunks, width), **settings)]
        if tail:
            position_BT, mask = _tree(scorer, batch, head + width, tail)
            ids_BT = _padded(scorer, tails, tail)
            given = {"input_ids": ids_BT, "position_ids": position_BT, "attention_mask": mask}
            values.append(_logprobs(scorer, behind_branch, **given, **settings))
        owner_N = np.concatenate(behind_trunk.owners + (behind_branch.owners if tail else []))
        return np.bincount(owner_N, torch.cat(values).cpu().double().numpy()).astype(np.float64)

    def _begin(self, head: I32, num_rows: int) -> Any:
        """Return a cache that holds the head for every row."""
        if not len(head):
            return DynamicCache()
        if self.head != head.tobytes():
            self.head, self.head_cache = head.tobytes(), DynamicCache()
            ids_1L = _padded(self.scorer, [head], len(head))
            settings = {"use_cache": True, "past_key_values": self.head_cache}
            logits_at(self.scorer.model, ids_1L.new_zeros(1), input_ids=ids_1L, **settings)
        cache = copy.deepcopy(self.head_cache)
        cache.batch_repeat_interleave(num_rows)
        return cache


def _wanted(batch: Sequence[Row], head: int, width: int, tail: int) -> tuple[_Wanted, _Wanted]:
    """Return what is predicted by the pass over the trunks, and by that over the branches."""
    trunk, branch = _Wanted([], [], []), _Wanted([], [], [])
    owner = 0
    for b, row in enumerate(batch):
        place, start = b * tail, b * width + row.start - head
        for suffix, skip, inputs in zip(row.suffixes, row.skip, row.branches):
            first = len(suffix) if not len(inputs) else 1
            if skip < first:
                trunk.add(start + skip, suffix[skip:first], owner)
            if first < len(suffix):
                skipped = max(skip, 1)
                branch.add(place + skipped - 1, suffix[skipped:], owner)
            place += len(inputs)
            owner += 1
    return trunk, branch


def _padded(scorer: Scorer, rows: Sequence[I32], width: int) -> torch.Tensor:
    ids_BL = np.full((len(rows), width), scorer.pad_id, dtype=np.int64)
    for b, row in enumerate(rows):
        ids_BL[b, : len(row)] = row
    return torch.from_numpy(ids_BL).to(scorer.device)


def _tree(scorer: Scorer, batch: Sequence[Row], width: int, tail: int) -> tuple[torch.Tensor, Any]:
    """Return the positions of the branches' tokens [B, T], and the mask [B, 1, T, head + P + T] as the model takes it.

    Two masks, by kind of layer, where some have a window.
    """
    position_BT = np.zeros((len(batch), tail), dtype=np.int64)
    branch_BT = np.full((len(batch), tail), -1, dtype=np.int64)
    for b, row in enumerate(batch):
        sizes = [len(branch) for branch in row.branches]
        branch_BT[b, : row.tail] = np.repeat(np.arange(len(sizes)), sizes)
        position_BT[b, : row.tail] = len(row.trunk) + np.concatenate([np.arange(size) for size in sizes])
    size_B = torch.tensor([len(row.trunk) for row in batch], device=scorer.device)
    branch, position = (torch.from_numpy(array).to(scorer.device) for array in (branch_BT, position_BT))
    place_P = torch.arange(width, device=scorer.device)
    trunk_B1P = (place_P < size_B[:, None])[:, None]
    same_BTT = (branch[:, :, None] == branch[:, None, :]).tril()
    seen_BTL = torch.cat([trunk_B1P.expand(-1, tail, -1), same_BTT], dim=2)
    whole = mask_of(scorer.model, seen_BTL)
    reach = window(scorer.model) if scorer.windowed else None
    if reach is None:
        return position, whole
    place_BL = torch.cat([place_P.expand(len(batch), -1), position], dim=1)
    near_BTL = position[:, :, None] - place_BL[:, None, :] < reach
    return position, masks_of(scorer.model, whole, mask_of(scorer.model, seen_BTL & near_BTL))


def _logprobs(scorer: Scorer, wanted: _Wanted, **arguments: Any) -> torch.Tensor:
    """Run the model; return the log-probability of every wanted token: float32[N]."""
    if not wanted.places:
        logits_at(scorer.model, arguments["input_ids"].new_zeros(1), **arguments)
        return torch.zeros(0, device=scorer.device)
    place_U, source = np.unique(np.concatenate(wanted.places), return_inverse=True)
    target = np.concatenate(wanted.targets).astype(np.int64)
    source_N, target_N = (torch.from_numpy(array).to(scorer.device) for array in (source, target))
    logits_UV = logits_at(scorer.model, torch.from_numpy(place_U).to(scorer.device), **arguments)
    parts = logits_UV.split(max(1, _PART_CELLS // logits_UV.shape[1]))
    total_U = torch.cat([part.float().logsumexp(dim=1) for part in parts])
    return logits_UV[source_N, target_N].float() - total_U[source_N]
