"""How fast a training is: tokens per second, and the share of what the device can do (MFU).

    MFU = model FLOPs of the updates / (their seconds * the device's own rate of matrix products, measured in the same run)

Model FLOPs are what the mathematics asks for (Chowdhery et al., "PaLM", 2022, appendix B; Kaplan et al., 2020, section 2.1),
not what a kernel happens to do: activations that are computed again for memory, masked halves and padding count for nothing.
Every product of an [m, k] and a [k, n] matrix is 2 m k n. For a forward and a backward pass over packed documents:

    weights     6 * P * tokens                      P: the matrices' parameters but embeddings and output layer
    attention   12 * width * sum(length ** 2) / 2   per layer and document, causal; width = heads * head size
    logits      6 * hidden * vocabulary * targets   only where a target carries loss

With adapters the gradients of frozen weights are not computed: 4 for frozen weights, 6 for trained ones. Of experts those count
that a token goes through. The first frozen layers, below which nothing is trained, are counted like the others.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import MissingPackageError
from taskmill.training.packing.batches import Batch

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What matrices are multiplied in, by `train.precision`."""
WINDOW = 20
"""Updates over which the present speed is taken."""
_SECONDS = {"cpu": 1.0, "cuda": 0.5}
_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (4096, 8192)}
_ROUNDS = {"cpu": 5, "cuda": 100}
"""Products of a size; a GPU needs many until its clock is that of a training."""


# ------------------------------------------------------------------------------------------- FLOPs


@dataclass(frozen=True)
class ModelShape:
    """What a model computes for a token."""

    weight_flops: float
    """Of the weights, per token, forward and backward."""
    attention_widths: tuple[tuple[int, int | None], ...]
    """(heads * head size, window in tokens or None for the whole document) of each layer with attention."""
    logit_flops: float
    """Of the output layer, per token with a target, forward and backward."""

    def flops(self, batch: Batch) -> float:
        """Return the FLOPs of a forward and backward pass."""
        lengths = document_lengths(batch).astype(np.float64)
        attention = sum(
            12.0 * width * attended_pairs(lengths, window) for width, window in self.attention_widths
        )
        return (
            self.weight_flops * float(lengths.sum()) + attention + self.logit_flops * float(batch.num_targets)
        )


def model_flops(model: Any, batch: Batch) -> float:
    """Return the FLOPs that a forward and backward pass of the model over a batch asks for."""
    return model_shape(model).flops(batch)


def attended_pairs(lengths: NDArray[np.float64], window: int | None = None) -> float:
    """Return the pairs of tokens that attend to each other: half of length ** 2 per document, less beyond a window."""
    reach = lengths if window is None else np.minimum(lengths, window)
    return float((lengths * reach - reach**2 / 2).sum())


def document_lengths(batch: Batch) -> NDArray[np.int64]:
    """Return the tokens of each document of a batch; padding, which carries no weight, is none."""
    starts = np.flatnonzero(batch.positions_BT == 0)
    lengths = np.diff(np.append(starts, batch.positions_BT.size))
    if not len(starts):
        return lengths.astype(np.int64)
    weights = np.add.reduceat(batch.weights_BT.ravel(), starts)
    found: NDArray[np.int64] = lengths[weights > 0].astype(np.int64)
    return found


def model_shape(model: Any) -> ModelShape:
    """Count a model's matrices once; wrapped models (adapters, data parallel) are counted as what they hold."""
    inner = model.module if hasattr(model, "module") else model
    config = inner.config.get_text_config()
    head = inner.get_output_embeddings()
    apart = {id(p) for layer in (inner.get_input_embeddings(), head) if layer for p in layer.parameters()}
    apart |= {id(p) for m in inner.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    share = _expert_share(config)
    weight_flops = 0.0
    for name, parameter in inner.named_parameters():
        if id(parameter) in apart or "trainable_tokens" in name or len(_shape(parameter)) < 2:
            continue
        used = share if ".experts." in name else 1.0
        weight_flops += (6 if parameter.requires_grad else 4) * used * math.prod(_shape(parameter))
    trained_head = head is not None and any(p.requires_grad for p in head.parameters())
    logits = (6 if trained_head else 4) * config.hidden_size * config.vocab_size
    return ModelShape(weight_flops, tuple(_attention_widths(config)), float(logits))


def _shape(parameter: Any) -> tuple[int, ...]:
    """Return the shape of a matrix, also of one that is kept in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return tuple(state.shape if state is not None else parameter.shape)


def _expert_share(config: Any) -> float:
    """Return the share of the experts that a token goes through, 1 without experts."""
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        number, chosen = getattr(config, name, None), getattr(config, "num_experts_per_tok", None)
        if number and chosen:
            return float(chosen / number)
    return 1.0


def _attention_widths(config: Any) -> Iterator[tuple[int, int | None]]:
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    for kind in kinds:
        if "attention" in kind and "linear" not in kind:
            yield width, getattr(config, "sliding_window", None) if "sliding" in kind else None


# ------------------------------------------------------------------------------------ device's rate


def matmul_rate(device: Any, precision: str) -> float:
    """Return the FLOP/s of this process's device at products of large square matrices: the best of several.

    Takes about a second on a CPU, half of one on a GPU; draws on no generator.

    Args:
        device: a torch device or its name.
        precision: `train.precision`.
    """
    kind = torch.device(device).type
    deadline = time.monotonic() + _SECONDS.get(kind, 1.0)
    best = 0.0
    for size in _SIZES.get(kind, _SIZES["cuda"]):
        values = torch.arange(size * size, device=device, dtype=torch.float32).sin_().reshape(size, size)
        matrix = values.to(DTYPES[precision])
        for round_ in range(_ROUNDS.get(kind, _ROUNDS["cuda"]) + 1):
            seconds = _product_seconds(matrix, kind)
            if round_:
                best = max(best, 2.0 * size**3 / seconds)
            if round_ and time.monotonic() + seconds > deadline:
                return best
        if time.monotonic() + 8 * seconds > deadline:
            break
    return best


def _product_seconds(matrix: Any, kind: str) -> float:
    started = time.perf_counter()
    with torch.no_grad():
        torch.matmul(matrix, matrix)
    if kind == "cuda":
        torch.cuda.synchronize(matrix.device)
    return max(time.perf_counter() - started, 1e-9)


# -------------------------------------------------------------------------------------------- meter


@dataclass(frozen=True)
class Speed:
    """How fast updates were."""

    tokens_per_second: float
    """Over all devices, without padding."""
    mfu: float | None
    """Model FLOPs of this process over what its device could have done; None without a measured rate."""


class Meter:
    """Adds up what updates asked for and how long they took."""

    def __init__(self, model: Any, rate: float | None, window: int = WINDOW) -> None:
        """Count the model once.

        Args:
            model: as it is trained.
            rate: `matmul_rate` of this process's device, or None for no MFU.
            window: updates over which the present speed is taken.
        """
        self._shape, self._rate = model_shape(model), rate
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=window)
        self._total = (0.0, 0, 0.0)

    def add(self, batches: Sequence[Batch], seconds: float, num_tokens: int | None = None) -> None:
        """Take in an update.

        Args:
            batches: this process's forward passes.
            seconds: from the first forward pass to the end of the update.
            num_tokens: of all processes; by default those of `batches`.
        """
        tokens = sum(batch.num_tokens for batch in batches) if num_tokens is None else num_tokens
        item = (sum(self._shape.flops(batch) for batch in batches), tokens, seconds)
        self._recent.append(item)
        flops, before, spent = self._total
        self._total = (flops + item[0], before + tokens, spent + seconds)

    def recent(self) -> Speed:
        """Return the speed of the last updates."""
        flops, tokens, seconds = (sum(column) for column in zip(*self._recent)) if self._recent else (0, 0, 0)
        return self._speed(flops, int(tokens), seconds)

    def total(self) -> Speed:
        """Return the speed of all updates of this process."""
        return self._speed(*self._total)

    def _speed(self, flops: float, tokens: int, seconds: float) -> Speed:
        seconds = max(seconds, 1e-9)
        return Speed(tokens / seconds, None if not self._rate else flops / seconds / self._rate)
