"""One update of the weights: gradients over every pack of the step, clipping, AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskmill.errors import MissingPackageError, TaskmillError
from taskmill.recipe import Train
from taskmill.training.attention import packed_logits
from taskmill.training.batches import Batch
from taskmill.training.objective import label_loss, step_weight

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error


@dataclass(frozen=True)
class Update:
    """What one update did."""

    loss: float
    """Weighted mean cross-entropy in nats over the targets of the step, before the update."""
    gradient_norm: float
    """2-norm over all trainable weights, before clipping."""


def num_threads() -> int:
    """Return the number of CPU threads that torch adds up on; the last bits of the weights depend on it."""
    return int(torch.get_num_threads())


def seed_generators(seed: int) -> None:
    """Seed torch's generators, on which only dropout draws."""
    torch.manual_seed(seed)


def make_optimizer(model: Any, train: Train) -> Any:
    """Return AdamW over the trainable weights; biases and norms, of one dimension, do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=train.learning_rate, betas=train.betas, fused=fused
    )


def update(
    model: Any, optimizer: Any, batches: Sequence[Batch], train: Train, learning_rate: float
) -> Update:
    """Do one update; `batches` are the forward passes that its gradient is accumulated over.

    Raises:
        TaskmillError: the loss or the gradient is not a finite number; the weights are untouched then.
    """
    device = next(model.parameters()).device
    weight = step_weight(batches)
    total = torch.zeros((), device=device)
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            logits_NV, targets_N, weights_N = packed_logits(model, batch, train.attention)
        loss = label_loss(logits_NV, targets_N, weights_N) / weight
        loss.backward()
        total += loss.detach()
    limit = train.max_gradient_norm if train.max_gradient_norm > 0 else math.inf
    norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], limit)
    result = Update(float(total), float(norm))
    if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
        raise TaskmillError(
            f"the loss is {result.loss} and the gradient's norm {result.gradient_norm}; expected finite numbers. "
            f"A smaller train.learning_rate or more train.warmup_steps keeps training stable"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return result
