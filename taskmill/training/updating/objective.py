"""The loss: cross-entropy on trained tokens, weighted per token, normalised over the whole update.

    loss = sum over all packs of the update of w * CE  /  sum over all packs of the update of w

Both sums run over the global step, so the result does not depend on how the update is cut into forward passes
(the C-RLFT normalisation of Wang et al., "OpenChat", 2023; with all weights 1 it is the plain mean over targets).
OPT-IML (section 3) trains on target tokens only: what is trained, and with which weight, the batches say.

`packed_loss` computes logits at tokens with a target only, a chunk of them at a time, and makes the gradient of a chunk
while its logits are there: as many matrix products as the plain way, and logits are never whole in memory.

Shape suffixes: B, T packs and their tokens; N tokens with a target; H width of the model; V ids of the vocabulary.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.errors import MissingPackageError
from taskmill.training.packing.batches import Batch
from taskmill.training.updating.attention import bare, lay_out, packed_logits

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

log = logging.getLogger("taskmill")

CHUNK_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Logits that are in memory at a time."""
_PROBED = 4  # rows of logits that the model computes itself, to compare


def step_weight(batches: Iterable[Batch]) -> float:
    """Return the sum of target weights over all forward passes of an update."""
    return sum(batch.weight for batch in batches)


def label_loss(logits_NV: Any, targets_N: Any, weights_N: Any) -> Any:
    """Return the weighted sum of cross-entropies, a scalar in fp32; divide it by the update's `step_weight`.

    Args:
        logits_NV: one row per target, any floating type.
        targets_N: int64, the ids to predict.
        weights_N: float32.
    """
    total = logits_NV.new_zeros((), dtype=torch.float32)
    for part in _parts(logits_NV.shape, logits_NV.device):
        losses = torch.nn.functional.cross_entropy(logits_NV[part].float(), targets_N[part], reduction="none")
        total = total + (losses * weights_N[part]).sum()
    return total


def packed_loss(model: Any, batch: Batch, implementation: str) -> Any:
    """Return the weighted sum of cross-entropies of a batch, a scalar in fp32; divide it by the update's `step_weight`.

    The first call for a model compares some logits with its own; where they differ, since the model does more to them
    than is known here, this and later calls compute the logits of all targets at once, by the model itself.
    Call it under autocast for 16-bit training. Without gradients it is the loss of validation.

    Args:
        model: may be wrapped for distributed training; its output layer's weights are read inside its forward pass only.
        batch: one without targets gives 0, by a forward pass nevertheless.
        implementation: what `attention.install` returned.
    """
    inner = bare(model)
    if _OWN_LOGITS.get(inner):
        return label_loss(*packed_logits(model, batch, implementation))
    inputs, tail, losses = lay_out(model, batch, implementation), Tail.of(inner), []
    known = inner in _OWN_LOGITS
    expected: list[Any] = []

    def compute(head: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        rows_NH = given[0].flatten(0, -2).index_select(0, inputs.chosen_N)
        losses.append(_loss_of_rows(head, tail, rows_NH, inputs.targets_N, inputs.weights_N))
        if not known:
            with torch.no_grad():
                expected.append(tail(head.forward(rows_NH[:_PROBED])))
        return (rows_NH[None, : 1 if known else _PROBED].detach(), *given[1:])

    head = inner.get_output_embeddings()
    hook = head.register_forward_pre_hook(compute)
    try:
        logits_1NV = model(**inputs.arguments).logits
    finally:
        hook.remove()
    if not known and not _alike(expected[0], logits_1NV[0].detach()):
        _OWN_LOGITS[inner] = True
        log.info("train: %s does more to its logits than is known here; they are whole", type(inner).__name__)
        return label_loss(*packed_logits(model, batch, implementation))
    _OWN_LOGITS[inner] = False
    return losses[0]


_OWN_LOGITS: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
"""Models that have been looked at, and whether only they know how to compute their logits."""


def _alike(ours: Any, theirs: Any) -> bool:
    tolerance = 1e-4 if ours.dtype == theirs.dtype == torch.float32 else 2e-2
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max() + 1e-6)


# ------------------------------------------------------------------------ from hidden states to the loss


@dataclass(frozen=True)
class Tail:
    """What a model does to the logits of its output layer: a factor, then a soft cap."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> Tail:
        """Read it from the model's configuration, under the names that transformers' models use."""
        config = model.config.get_text_config()
        factors = [getattr(config, key, None) or 1.0 for key in _FACTORS]
        divisors = [getattr(config, key, None) or 1.0 for key in _DIVISORS]
        caps = [getattr(config, key, None) for key in _CAPS]
        return cls(math.prod(factors) / math.prod(divisors), next((cap for cap in caps if cap), None))

    def __call__(self, logits: Any) -> Any:
        """Return the logits that the model gives, in fp32."""
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


_FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere, Falcon-H1
_DIVISORS = ("logits_scaling",)  # Granite
_CAPS = ("final_logit_softcapping", "logits_soft_cap")  # Gemma 2, RecurrentGemma


def _loss_of_rows(head: Any, tail: Tail, rows_NH: Any, targets_N: Any, weights_N: Any) -> Any:
    """Return the weighted sum over rows of hidden states, with its gradient where one is wanted."""
    parameters = [p for p in head.parameters() if p.requires_grad]
    if not torch.is_grad_enabled() or not (rows_NH.requires_grad or parameters):
        total = rows_NH.new_zeros((), dtype=torch.float32)
        for part in _parts((len(rows_NH), _num_ids(head)), rows_NH.device):
            total = total + label_loss(tail(head.forward(rows_NH[part])), targets_N[part], weights_N[part])
        return total
    plain = (
        type(head).forward is torch.nn.Linear.forward and head.weight.is_floating_point() and tail.cap is None
    )
    gradients = _gradients_of_linear if plain else _gradients_of_any
    total, grads = gradients(head, parameters, tail, rows_NH.detach(), targets_N, weights_N)
    return _Known.apply(total, grads, rows_NH, *parameters)


def _parts(shape: Sequence[int], device: Any) -> list[slice]:
    """Cut N rows of V logits into equal chunks of at most CHUNK_LOGITS."""
    most = max(1, CHUNK_LOGITS.get(device.type, CHUNK_LOGITS["cuda"]) // max(1, shape[-1]))
    number = max(1, -(-shape[0] // most))
    rows = max(1, -(-shape[0] // number))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def _num_ids(head: Any) -> int:
    return int(getattr(head, "out_features", None) or head.weight.shape[0])


def _gradients_of_linear(
    head: Any, parameters: list[Any], tail: Tail, rows_NH: Any, targets_N: Any, weights_N: Any
) -> tuple[Any, list[Any]]:
    """Return the sum and its gradients by rows and parameters of a linear layer, with one buffer of logits per chunk."""
    weight_VH, bias_V = head.weight, head.bias
    kind = rows_NH.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows_NH.dtype
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        cast_VH, cast_NH = weight_VH.to(dtype), rows_NH.to(dtype)
        total = torch.zeros((), device=rows_NH.device)
        by_rows_NH = torch.empty_like(cast_NH)
        sums = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        for part in _parts((len(rows_NH), len(weight_VH)), rows_NH.device):
            logits_nV = torch.mm(cast_NH[part], cast_VH.t())
            if bias_V is not None:
                logits_nV += bias_V.to(dtype)
            logits_nV = logits_nV.float() if tail.scale == 1.0 else logits_nV.float() * tail.scale
            loss, slopes_nV = _cross_entropy_(logits_nV, targets_N[part, None], weights_N[part, None])
            total += loss
            slopes_nV = (slopes_nV if tail.scale == 1.0 else slopes_nV * tail.scale).to(dtype)
            by_rows_NH[part] = torch.mm(slopes_nV, cast_VH)
            for parameter, summed in zip(parameters, sums):
                if parameter is bias_V:
                    summed += slopes_nV.sum(0, dtype=torch.float32)
                elif dtype == torch.float32:
                    summed.addmm_(slopes_nV.t(), cast_NH[part])
                else:
                    summed += torch.mm(slopes_nV.t(), cast_NH[part])
        return total, [by_rows_NH.to(rows_NH.dtype), *(s.to(p.dtype) for s, p in zip(sums, parameters))]


def _cross_entropy_(logits_nV: Any, targets_n1: Any, weights_n1: Any) -> tuple[Any, Any]:
    """Return the weighted sum of cross-entropies, and the logits' buffer with the gradient by the logits in it."""
    at_target_n1 = logits_nV.gather(1, targets_n1)
    highest_n1 = logits_nV.amax(1, keepdim=True)
    powers_nV = logits_nV.sub_(highest_n1).exp_()
    sums_n1 = powers_nV.sum(1, keepdim=True)
    loss = ((sums_n1.log() + highest_n1 - at_target_n1) * weights_n1).sum()
    slopes_nV = powers_nV.mul_(weights_n1 / sums_n1)
    return loss, slopes_nV.scatter_add_(1, targets_n1, -weights_n1)


def _gradients_of_any(
    head: Any, parameters: list[Any], tail: Tail, rows_NH: Any, targets_N: Any, weights_N: Any
) -> tuple[Any, list[Any]]:
    """Return the sum and its gradients for any output layer (adapters, quantised weights), by autograd in each chunk."""
    total, found = torch.zeros((), device=rows_NH.device), []
    sums: list[Any] = [None] * len(parameters)
    for part in _parts((len(rows_NH), _num_ids(head)), rows_NH.device):
        with torch.enable_grad():
            rows_nH = rows_NH[part].requires_grad_()
            loss = label_loss(tail(head.forward(rows_nH)), targets_N[part], weights_N[part])
            by_rows_nH, *others = torch.autograd.grad(loss, [rows_nH, *parameters], allow_unused=True)
        total = total + loss.detach()
        found.append(by_rows_nH)
        for place, gradient in enumerate(others):
            if gradient is not None:
                sums[place] = gradient if sums[place] is None else sums[place].add_(gradient)
    return total, [torch.cat(found), *sums]


class _Known(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """A sum whose gradients by rows and parameters are there already."""

    @staticmethod
    def forward(ctx: Any, total: Any, gradients: list[Any], *_: Any) -> Any:
        """Keep the gradients for the one backward pass."""
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, slope: Any) -> tuple[Any, ...]:
        """Multiply them, in place, by the slope of what became of the sum."""
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, *(None if g is None else g.mul_(slope) for g in gradients))
