"""Which token comes next: the likeliest, or one drawn with numbers that depend on nothing but the prompt's key.

Shapes: R rows, V vocabulary, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taskmill import seeding
from taskmill.errors import MissingPackageError

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

_TOP = 1024
"""Likeliest tokens among which the nucleus is looked for first: nearly always it is there, and a sort takes ten times as long."""


def uniforms(keys: Sequence[int], samples: Sequence[int], num_steps: int) -> NDArray[np.float64]:
    """Return the numbers in [0, 1) that the tokens of each row are drawn with: float64[R, T].

    Each is a pure function of the prompt's key, the number of the sample and the step.
    """
    keys_R = np.array([key & 0xFFFFFFFFFFFFFFFF for key in keys], dtype=np.uint64)
    sample_keys_R = seeding.derive_each(keys_R, np.array(samples, dtype=np.int64))
    steps = np.arange(num_steps, dtype=np.int64)
    bits_RT = seeding.derive_each(sample_keys_R[:, None], steps[None, :])
    values: NDArray[np.float64] = (bits_RT >> np.uint64(11)) / 2.0**53
    return values


def likeliest(logits_RV: torch.Tensor) -> torch.Tensor:
    """Return the token of the highest logit of each row, of equal ones the lowest id: int64[R]."""
    return logits_RV.argmax(dim=-1)


def draw(logits_RV: torch.Tensor, uniform_R: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Return the token at which the cumulative distribution of each row passes its number: int64[R].

    Computed in fp64 and summed by token id, so that rounding moves a draw only where a number falls on an edge.

    Args:
        logits_RV: of the next token.
        uniform_R: float64 numbers in [0, 1).
        temperature: above 0; what logits are divided by.
        top_p: tokens are drawn from the fewest whose probabilities sum to it (Holtzman et al. 2020, section 3.1).
    """
    probability_RV = (logits_RV.double() / temperature).softmax(dim=-1)
    if top_p < 1:
        probability_RV = _nucleus(probability_RV, top_p)
    cumulative_RV = probability_RV.cumsum(dim=-1)
    total_R1 = cumulative_RV[:, -1:].contiguous()
    found_R1 = torch.searchsorted(cumulative_RV, uniform_R[:, None] * total_R1, right=True)
    last_R1 = torch.searchsorted(cumulative_RV, total_R1)  # the last token that can be drawn
    return torch.minimum(found_R1, last_R1)[:, 0].clamp(max=logits_RV.shape[-1] - 1)


def _nucleus(probability_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the probabilities with those outside the nucleus set to 0; of equal ones the lowest ids stay."""
    size = probability_RV.shape[-1]
    top_RK = probability_RV.topk(min(_TOP, size)).values
    if size > _TOP and bool((top_RK.sum(dim=-1) < top_p).any()):
        top_RK = probability_RV.sort(dim=-1, descending=True).values
    before_RK = top_RK.cumsum(dim=-1) - top_RK
    num_inside_R1 = (before_RK < top_p).sum(dim=-1, keepdim=True)
    least_R1 = top_RK.gather(1, num_inside_R1 - 1)
    above_RV, equal_RV = probability_RV > least_R1, probability_RV == least_R1
    num_equal_R1 = num_inside_R1 - above_RV.sum(dim=-1, keepdim=True)
    inside_RV = above_RV | (equal_RV & (equal_RV.cumsum(dim=-1) <= num_equal_R1))
    return probability_RV.masked_fill(~inside_RV, 0.0)
