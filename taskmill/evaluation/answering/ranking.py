"""Scoring with a causal language model: log-probabilities of options, and greedy generation.

Ranking puts a question and all its options into one row: the shared prefix once, then each option's tokens, with a mask
under which an option sees the prefix and itself but no other option, and positions that go on from the prefix. That
is the same computation as one forward pass per option (up to rounding), with the prefix computed once. Models that do
not obey such a mask (recurrent ones) are found out by `open_scorer` and get one row per option.

Rows are sorted by length and cut into static batches, padded on the left; results come in the order of the
requests. Nothing depends on the batch size but the last bits of a float. Position ids and masks are always explicit.

Shapes: B rows, L row length, K last positions of which logits are wanted, V vocabulary, N options.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import MissingPackageError
from taskmill.evaluation.fitting import Opening, Ranking

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

log = logging.getLogger("taskmill")

DECIMALS = 6
"""Log-probabilities are rounded, in nats."""
TIE = 1e-5
"""Log-probabilities this near count as equal: the rounding of fp32 never decides between equal options."""
_MASK_CELLS = 2**26
"""Most cells of an attention mask (B x L x L): 256 MB in fp32."""
_LOGIT_CELLS = 2**27
"""Most logits kept (B x K x V): 512 MB in fp32."""
_TOLERANCE = 1e-3
"""Largest difference of log-probabilities, in nats, between options in one row and in rows of their own."""
_ROW_TOKENS = 4096
"""Options of one question are spread over rows of at most about this many tokens."""


@dataclass(frozen=True)
class Scorer:
    """A model ready to be asked."""

    model: Any
    """A transformers (or peft) causal language model in evaluation mode."""
    pad_id: int
    eos_id: int
    batch_size: int
    """Rows per forward pass at most."""
    tree: bool = True
    """Whether options share a row; a model that does not obey such masks gets a row for each option."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device


def open_scorer(model: Any, pad_id: int, eos_id: int, batch_size: int) -> Scorer:
    """Return a scorer whose rows suit the model: options share rows where that changes no log-probability."""
    scorer = Scorer(model, pad_id, eos_id, batch_size)
    size = min(97, int(model.get_input_embeddings().num_embeddings))
    ids = (np.arange(24, dtype=np.int32) * 7 + 3) % size
    probe = [Ranking(ids[:9], (ids[9:14], ids[14:16], ids[16:]), (0, 0, 0))]
    plain = replace(scorer, tree=False)
    try:
        together = rank(scorer, probe)
    except (RuntimeError, ValueError, TypeError):
        together = [[np.inf] * 3]
    if np.abs(np.subtract(together, rank(plain, probe))).max() <= _TOLERANCE:
        return scorer
    log.warning(
        "evaluate: %s does not keep options in one row apart; one row each, slower", type(model).__name__
    )
    return plain


# ------------------------------------------------------------------------------------------- ranking


@dataclass(frozen=True)
class _Row:
    """Some options of a question, laid out behind the shared prefix."""

    question: int
    options: tuple[int, ...]
    shared: NDArray[np.int32]
    suffixes: tuple[NDArray[np.int32], ...]

    @property
    def tail(self) -> int:
        """Tokens of all suffixes."""
        return sum(map(len, self.suffixes))

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.shared) + self.tail


def rank(scorer: Scorer, rankings: Sequence[Ranking]) -> list[list[float]]:
    """Return the log-probability of every option of every question: the sum over its tokens, unnormalised.

    In nats, rounded to DECIMALS.
    """
    scores = [[0.0] * len(ranking.suffixes) for ranking in rankings]
    rows = [row for index, ranking in enumerate(rankings) for row in _rows(index, ranking, scorer.tree)]
    rows.sort(key=lambda row: (-row.length, row.question, row.options))
    for batch in _batches(scorer, rows):
        with torch.inference_mode():
            found = _forward_rows(scorer, batch)
        for row, values in zip(batch, found):
            start = 0
            for option, suffix in zip(row.options, row.suffixes):
                skip = rankings[row.question].skip[option]
                value = float(values[start + skip : start + len(suffix)].sum())
                scores[row.question][option] = round(value, DECIMALS)
                start += len(suffix)
    return scores


def best(scores: Sequence[float]) -> int:
    """Return the index of the highest score; of those within TIE of it the lowest index."""
    bound = max(scores) - TIE
    return next(index for index, value in enumerate(scores) if value >= bound)


def _rows(index: int, ranking: Ranking, tree: bool) -> Iterator[_Row]:
    options: list[int] = []
    size = len(ranking.shared)
    for option, suffix in enumerate(ranking.suffixes):
        if options and (not tree or size + len(suffix) > _ROW_TOKENS):
            yield _row(index, ranking, options)
            options, size = [], len(ranking.shared)
        options.append(option)
        size += len(suffix)
    yield _row(index, ranking, options)


def _row(index: int, ranking: Ranking, options: Sequence[int]) -> _Row:
    return _Row(index, tuple(options), ranking.shared, tuple(ranking.suffixes[o] for o in options))


def _batches(scorer: Scorer, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Cut rows, longest first, into batches that keep masks and logits within their limits."""
    vocab_size = int(scorer.model.get_input_embeddings().num_embeddings)
    batch: list[_Row] = []
    tail = 0
    for row in rows:
        wide = max(tail, row.tail + 1)
        length = batch[0].length if batch else row.length
        size = len(batch) + 1
        over = size * length**2 > _MASK_CELLS or size * wide * vocab_size > _LOGIT_CELLS
        if batch and (size > scorer.batch_size or over):
            yield batch
            batch, wide = [], row.tail + 1
        batch.append(row)
        tail = wide
    if batch:
        yield batch


def _forward_rows(scorer: Scorer, batch: Sequence[_Row]) -> list[NDArray[np.float64]]:
    """Return for each row the log-probability of each suffix token: float64[tail]."""
    length = max(row.length for row in batch)
    keep = max(row.tail for row in batch) + 1
    ids_BL = np.full((len(batch), length), scorer.pad_id, dtype=np.int64)
    position_BL = np.zeros((len(batch), length), dtype=np.int64)
    branch_BL = np.full((len(batch), length), -1, dtype=np.int64)
    for b, row in enumerate(batch):
        begin = length - row.length
        ids_BL[b, begin:] = np.concatenate([row.shared, *row.suffixes])
        position_BL[b, begin:], branch_BL[b, begin:] = _layout(row)
    branch = torch.from_numpy(branch_BL).to(scorer.device)
    logits_BKV = _logits(
        scorer.model,
        keep,
        input_ids=torch.from_numpy(ids_BL).to(scorer.device),
        position_ids=torch.from_numpy(position_BL).to(scorer.device),
        attention_mask=_tree_mask(branch, scorer.model.dtype) if scorer.tree else (branch >= 0).long(),
        use_cache=False,
    )
    return [_suffix_logprobs(logits_KV, row) for logits_KV, row in zip(logits_BKV, batch)]


def _layout(row: _Row) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (position, branch) of a row's tokens: branch 0 is the prefix, then 1, 2, ... for its options."""
    shared = len(row.shared)
    position = [np.arange(shared)] + [np.arange(shared, shared + len(s)) for s in row.suffixes]
    sizes = [shared, *map(len, row.suffixes)]
    return np.concatenate(position), np.repeat(np.arange(len(sizes)), sizes)


def _tree_mask(branch_BL: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask [B, 1, L, L]: earlier tokens of the prefix and of the same option are seen."""
    size = branch_BL.shape[1]
    query_BL1, key_B1L = branch_BL[:, :, None], branch_BL[:, None, :]
    earlier_LL = torch.ones(size, size, dtype=torch.bool, device=branch_BL.device).tril()
    seen_BLL = earlier_LL & ((key_B1L == 0) | (key_B1L == query_BL1))
    mask_BLL = torch.zeros(seen_BLL.shape, dtype=dtype, device=branch_BL.device)
    return mask_BLL.masked_fill_(~seen_BLL, torch.finfo(dtype).min)[:, None]


def _suffix_logprobs(logits_KV: torch.Tensor, row: _Row) -> NDArray[np.float64]:
    """Return float64[tail]; a suffix's first token is predicted by the prefix's last, the others by the one before."""
    if not row.tail:
        return np.zeros(0)
    last_shared = len(logits_KV) - row.tail - 1
    source, start = [], last_shared + 1
    for suffix in row.suffixes:
        source += [last_shared, *range(start, start + len(suffix) - 1)][: len(suffix)]
        start += len(suffix)
    ids_T = torch.from_numpy(np.concatenate(row.suffixes).astype(np.int64)).to(logits_KV.device)
    chosen_TV = logits_KV[torch.tensor(source, device=logits_KV.device)].float()
    value_T = chosen_TV.gather(1, ids_T[:, None])[:, 0] - chosen_TV.logsumexp(dim=1)
    values: NDArray[np.float64] = value_T.double().cpu().numpy()
    return values


# ---------------------------------------------------------------------------------------- generation


def generate(scorer: Scorer, openings: Sequence[Opening]) -> list[list[int]]:
    """Return greedily generated token ids, without the end-of-sequence token that ended them.

    Each stops at its first end of sequence or of turn, or after its own `max_new_tokens`; among equal logits the lowest id wins.
    """
    order = sorted(range(len(openings)), key=lambda i: (-len(openings[i].ids), i))
    results: list[list[int]] = [[] for _ in openings]
    for start in range(0, len(order), scorer.batch_size):
        places = order[start : start + scorer.batch_size]
        with torch.inference_mode():
            found = _generate_batch(scorer, [openings[i] for i in places])
        for place, ids in zip(places, found):
            results[place] = ids
    return results


def _generate_batch(scorer: Scorer, openings: Sequence[Opening]) -> list[list[int]]:
    length = max(len(opening.ids) for opening in openings)
    ids_BL = np.full((len(openings), length), scorer.pad_id, dtype=np.int64)
    mask_BL = np.zeros((len(openings), length), dtype=np.int64)
    for b, opening in enumerate(openings):
        ids_BL[b, length - len(opening.ids) :] = opening.ids
        mask_BL[b, length - len(opening.ids) :] = 1
    next_BT = torch.from_numpy(ids_BL).to(scorer.device)
    mask = torch.from_numpy(mask_BL).to(scorer.device)
    limit_B = torch.tensor([opening.max_new_tokens for opening in openings], device=scorer.device)
    ends = [scorer.eos_id if opening.end_id is None else opening.end_id for opening in openings]
    end_B = torch.tensor(ends, device=scorer.device)
    position_BT = (mask.cumsum(1) - 1).clamp(min=0)
    open_B = limit_B > 0
    new: list[torch.Tensor] = []
    cache = None
    while bool(open_B.any()):
        out = _call(
            scorer.model,
            1,
            input_ids=next_BT,
            attention_mask=mask,
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        chosen_B = out.logits[:, -1].float().argmax(dim=-1)
        open_B = open_B & (chosen_B != scorer.eos_id) & (chosen_B != end_B)
        new.append(torch.where(open_B, chosen_B, scorer.eos_id))
        open_B = open_B & (len(new) < limit_B)
        next_BT = new[-1][:, None]
        mask = torch.cat([mask, torch.ones_like(next_BT)], dim=1)
        position_BT = position_BT[:, -1:] + 1
    new_BT = torch.stack(new, dim=1).tolist() if new else [[] for _ in openings]
    return [_until(ids, scorer.eos_id) for ids in new_BT]


def _until(ids: list[int], eos_id: int) -> list[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids


# ------------------------------------------------------------------------------------------- calling


def _logits(model: Any, keep: int, **arguments: Any) -> torch.Tensor:
    """Return the logits of the last `keep` positions: [B, K, V]."""
    logits: torch.Tensor = _call(model, keep, **arguments).logits[:, -keep:]
    return logits


def _call(model: Any, keep: int, **arguments: Any) -> Any:
    """Run the model, asking for the last `keep` logits only where it can leave the others out."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        arguments["logits_to_keep"] = keep
    return model(**arguments)
