"""Invented documents with the lengths of real ones, and the models that train on them; shared by all contenders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST = 1  # the id that begins each document and stands nowhere else


@dataclass(frozen=True)
class Documents:
    """Token arrays as `collate` reads them; ids follow Zipf's law, the last fifth of each document carries loss."""

    ids: Any
    trained: Any
    offsets: Any
    loss_weight: Any
    order: Any

    @property
    def lengths(self) -> Any:
        """Tokens of each document."""
        return np.diff(self.offsets)

    def of(self, number: int) -> tuple[list[int], list[int]]:
        """Return a document's ids, and its labels: -100 where nothing is learnt."""
        here = slice(self.offsets[number], self.offsets[number + 1])
        ids = self.ids[here]
        return ids.tolist(), np.where(self.trained[here] > 0, ids, -100).tolist()


def documents(num_tokens: int, vocab_size: int, mean: float, longest: int, seed: int = 0) -> Documents:
    """Draw documents until they have `num_tokens`: lengths are lognormal (sigma 1), cut to `longest`."""
    random = np.random.default_rng(seed)
    drawn = random.lognormal(np.log(mean) - 0.5, 1.0, 2 * int(num_tokens / mean) + 50)
    lengths = np.clip(drawn.astype(np.int64), 8, longest)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), num_tokens)) + 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = FIRST + 1 + (random.zipf(1.2, offsets[-1]) - 1) % (vocab_size - FIRST - 1)
    ids[offsets[:-1]] = FIRST
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    trained = place >= np.repeat(lengths - np.maximum(1, lengths // 5), lengths)
    weights = np.ones(len(lengths), np.float32)
    return Documents(
        ids.astype(np.int64), trained.astype(np.uint8), offsets, weights, np.arange(len(lengths))
    )


def make_model(shape: dict[str, int], context: int, device: str, attention: str = "sdpa") -> Any:
    """Return a Llama of this shape with the same random weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **shape, max_position_embeddings=context, pad_token_id=0, bos_token_id=FIRST, eos_token_id=2
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(config).float()
