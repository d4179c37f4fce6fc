"""One update of the weights: gradients over every pack of the step, clipping, AdamW.

The optimizer's copy of the trained weights, their gradients and moments are fp32 in every precision. With bf16 and fp16 the
forward and backward pass run on working copies in that type, made anew after each update (Micikevicius et al., "Mixed
precision training", 2018); each copy's gradient is added to the fp32 one as soon as the backward pass has it, and let go.

    loss = sum of weight * CE over all packs of the update, on all processes / sum of weights over the same

Every process knows the divisor before the first forward pass, so gradients are summed, never averaged: over forward passes, and
over processes by one addition at the end (adapters; frozen weights stay whole on each) or by FSDP2 (full; see `sharding`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from taskmill.errors import DamagedError, MissingPackageError, TaskmillError
from taskmill.recipe import Train
from taskmill.training.models.pretrained import quiet
from taskmill.training.packing.batches import Batch
from taskmill.training.updating.distributed import World
from taskmill.training.updating.objective import packed_loss

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

from taskmill.training.updating import sharding

WORKING_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the forward and backward pass compute in, by `train.precision`; None is fp32, without working copies."""
FIRST_SCALE, GROWTH_UPDATES, LEAST_SCALE = 2.0**16, 2000, 2.0**-10
"""fp16: the loss is scaled by a power of two, doubled after so many updates, halved where a gradient overflows."""


@dataclass(frozen=True)
class Update:
    """What one update did."""

    loss: float
    """Weighted mean cross-entropy in nats over the targets of the step, before the update."""
    gradient_norm: float
    """2-norm over all trainable weights, before clipping."""
    skipped: bool = False
    """fp16: a gradient overflowed, so the weights are as before."""


def num_threads() -> int:
    """Return the number of CPU threads that torch adds up on; the last bits of the weights depend on it."""
    return int(torch.get_num_threads())


def place(device: Any) -> dict[str, Any]:
    """Return where a training ran: device, threads, and the most memory that a GPU held, in bytes."""
    if device.type != "cuda":
        return {"device": str(device), "num_threads": num_threads()}
    most = torch.cuda.max_memory_allocated(device)
    name = torch.cuda.get_device_name(device)
    return {"device": f"{device} ({name})", "num_threads": num_threads(), "peak_device_bytes": int(most)}


def frozen_checksum(model: Any) -> int:
    """Return a sum over the bits of all weights that are not trained, below 2 ** 40."""
    total = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
            bits = parameter.detach().contiguous().view(kinds[parameter.element_size()])
            total = (total + int(bits.sum(dtype=torch.int64))) % 2**40
    return total


def seed_generators(seed: int) -> None:
    """Seed torch's generators, on which only dropout draws."""
    torch.manual_seed(seed)


def make_optimizer(weights: Sequence[Any], train: Train) -> Any:
    """Return AdamW, fused where torch has it; biases and norms, of one dimension, do not decay."""
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.epsilon,
        fused=weights[0].device.type in ("cpu", "cuda"),
    )


class PackedLoss(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """The summed loss of a forward pass as a module, so that FSDP2 sees all that reads its weights."""

    def __init__(self, model: Any, implementation: str) -> None:
        """Take a causal language model and the implementation of its attention."""
        super().__init__()
        self.model, self.implementation = model, implementation

    def forward(self, batch: Batch) -> Any:
        """Return the sum of weight * CE over a batch, a scalar in fp32."""
        return packed_loss(self.model, batch, self.implementation)


class Updater:
    """A model, its optimizer and all that changes with an update."""

    def __init__(self, model: Any, train: Train, world: World | None = None, device: Any = "cpu") -> None:
        """Take up a model.

        Args:
            model: trained weights in fp32; its attention is `train.attention`.
            train: precision, optimizer, clipping.
            world: the processes that train together; all of them make an Updater.
            device: of this process; the model goes there, or shards of it.

        Raises:
            UsageError: see `sharding.shard`.
        """
        self.model, self.train, self.world = model, train, world or World()
        self._scale, self._updates_at_scale = (FIRST_SCALE if train.precision == "fp16" else 1.0), 0
        if train.activation_checkpointing:
            with quiet():
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._loss = PackedLoss(model, train.attention)
        self.sharded = self.world.size > 1 and train.method == "full"
        dtype = WORKING_TYPES[train.precision]
        if self.sharded:
            sharding.shard(self._loss, self.world, torch.device(device), dtype)
            self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        else:
            model.to(device)
            self.weights = split(model, dtype)
            self.world.hand_out([weight.data for weight in self.weights.values()])
        self._working = (
            [] if self.sharded or dtype is None else [p for p in model.parameters() if p.requires_grad]
        )
        self._refresh()
        self.optimizer = make_optimizer(list(self.weights.values()), train)

    def update(self, batches: Sequence[Batch], weight: float, learning_rate: float) -> Update:
        """Do one update.

        Args:
            batches: this process's forward passes, whose gradients are added up; some may be empty.
            weight: the sum of target weights over the batches of all processes.
            learning_rate: of this update.

        Raises:
            TaskmillError: the loss or the gradient is not a finite number, and the weights are untouched; or no memory.
            PeerError: another process is gone.
        """
        try:
            with self.world.connected():
                total = self._gradients(batches, weight)
                norm = self._clipped_norm()
        except torch.cuda.OutOfMemoryError as error:
            raise TaskmillError(
                f"the GPU has no room for a forward pass of {batches[0].ids_BT.shape} tokens; a smaller "
                f"train.micro_batch_size or train.activation_checkpointing=true needs less"
            ) from error
        loss = self.world.sums([float(total)])[0]
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.train.precision == "fp16"):
            raise TaskmillError(
                f"the loss is {loss} and the gradient's norm {norm}; expected finite numbers. "
                f"A smaller train.learning_rate or more train.warmup_steps keeps training stable"
            )
        finite = math.isfinite(norm)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self._refresh()
        self.optimizer.zero_grad(set_to_none=True)
        self._rescale(finite)
        return Update(loss, norm, not finite)

    def _gradients(self, batches: Sequence[Batch], weight: float) -> Any:
        """Leave the scaled gradient of this process in its weights; returns its part of the loss, on its device."""
        factor = self._scale * (self.world.size if self.sharded else 1)  # FSDP2 divides by the processes
        total = torch.zeros((), device=next(self.model.parameters()).device)
        for batch in batches:
            if not batch.num_tokens and not self.sharded:
                continue  # shards are gathered by all processes together, so there an empty pass is done too
            loss = self._loss(batch) / weight
            (loss * factor).backward()
            total += loss.detach()
        if self.world.size > 1 and not self.sharded:
            self._add_up()
        return total

    def _add_up(self) -> None:
        """Sum gradients over processes; a weight without a gradient anywhere keeps none."""
        weights = list(self.weights.values())
        has = torch.tensor(
            [w.grad is not None for w in weights], dtype=torch.float32, device=weights[0].device
        )
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        self.world.add_up([*(weight.grad for weight in weights), has])
        for weight, number in zip(weights, has.tolist()):
            if not number:
                weight.grad = None

    def _clipped_norm(self) -> float:
        """Undo the scale, clip, and return the norm over all processes' weights before it."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        if self._scale != 1.0:
            torch._foreach_mul_(gradients, 1.0 / self._scale)
        limit = self.train.max_gradient_norm if self.train.max_gradient_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(list(self.weights.values()), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _refresh(self) -> None:
        if self._working:
            with torch.no_grad():
                torch._foreach_copy_(self._working, list(self.weights.values()))

    def _rescale(self, finite: bool) -> None:
        if self.train.precision != "fp16":
            return
        self._updates_at_scale = self._updates_at_scale + 1 if finite else 0
        if not finite:
            self._scale /= 2
        elif self._updates_at_scale == GROWTH_UPDATES:
            self._scale, self._updates_at_scale = self._scale * 2, 0
        if self._scale < LEAST_SCALE:
            raise TaskmillError(
                "gradients overflow fp16 at any scale of the loss; --set train.precision=bf16 has more room, "
                "a smaller train.learning_rate keeps training stable"
            )

    # ------------------------------------------------------------------------------ saving, going on

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let rank 0's model have its weights whole and in fp32, to be saved; all processes enter together."""
        if self.sharded:
            with self.world.connected(), sharding.put_together(self.model, self.world):
                yield
            return
        low = [parameter.data for parameter in self._working]
        for parameter, master in zip(self._working, self.weights.values() if low else ()):
            parameter.data = master.data
        try:
            yield
        finally:
            for parameter, data in zip(self._working, low):
                parameter.data = data

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Let the model be run without its loss: what FSDP2 gathers for a whole forward pass is there for the block."""
        if self.sharded:
            self._loss.unshard()
        try:
            yield
        finally:
            if self.sharded:
                self._loss.reshard()

    def moments(self) -> dict[str, Any]:
        """Return the optimizer's state, `<moment>/<weight>`, whole; all processes call this, rank 0 has the result."""
        states = {
            f"{moment}/{name}": value
            for name, weight in self.weights.items()
            for moment, value in self.optimizer.state.get(weight, {}).items()
        }
        return sharding.gather(states, self.world)

    def restore(self, moments: Mapping[str, Any], scaling: Mapping[str, float]) -> None:
        """Put the optimizer and the scale of the loss back to where they were; all processes call this.

        Args:
            moments: what `moments` returned; rank 0's are taken.
            scaling: what `scaling` returned; rank 0's is taken.

        Raises:
            DamagedError: a weight that the model has not.
        """
        steps = {
            key: float(value) for key, value in moments.items() if value.numel() == 1 and value.dim() == 0
        }
        given = self.world.from_main({"keys": sorted(moments), "steps": steps, "scaling": dict(scaling)})
        fused = bool(self.optimizer.defaults.get("fused"))
        for key in given["keys"]:
            moment, name = key.split("/", 1)
            if name not in self.weights:
                raise DamagedError(f"optimizer.safetensors has the unknown parameter {name!r}")
            weight = self.weights[name]
            if key in given["steps"]:
                place = weight.device if fused else "cpu"
                state = torch.tensor(given["steps"][key], dtype=torch.float32, device=place)
            else:
                state = torch.zeros_like(weight, requires_grad=False)
                if self.sharded:
                    sharding.fill(state, moments.get(key), self.world, weight.device)
                else:
                    if self.world.is_main:
                        state.copy_(moments[key])
                    self.world.hand_out([state])
            self.optimizer.state[weight][moment] = state
        self._scale = float(given["scaling"].get("scale", self._scale))
        self._updates_at_scale = int(given["scaling"].get("updates", 0))

    def scaling(self) -> dict[str, float]:
        """Return the scale of the loss and the updates since it changed; nothing but with fp16."""
        if self.train.precision != "fp16":
            return {}
        return {"scale": self._scale, "updates": self._updates_at_scale}


def split(model: Any, dtype: Any) -> dict[str, Any]:
    """Turn a model's weights into working copies and return the fp32 ones that are trained, by name.

    Args:
        model: changed in place; weights in 4 bits stay as they are.
        dtype: of the working copies, or None for fp32: then the model's own weights are returned.
    """
    named = list(model.named_parameters())
    if dtype is None:
        return {name: parameter for name, parameter in named if parameter.requires_grad}
    masters = {}
    for name, parameter in named:
        if not parameter.is_floating_point():
            continue
        if parameter.requires_grad:
            masters[name] = torch.nn.Parameter(parameter.data.float())
            parameter.register_post_accumulate_grad_hook(functools.partial(_hand_over, masters[name]))
        parameter.data = parameter.data.to(dtype)
    return masters


def _hand_over(master: Any, parameter: Any) -> None:
    """Add a working copy's gradient to the fp32 one."""
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad += parameter.grad
    parameter.grad = None
