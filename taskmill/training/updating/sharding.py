"""Full fine-tuning over several devices: weights, gradients and moments in shards (FSDP2), the model whole on none of them.

Each transformer block is gathered for its forward and its backward pass; embeddings, last norm and output layer stay gathered
from the forward to the backward pass. Shards are fp32; blocks are gathered, and compute, in `train.precision`; gradients are
summed in fp32 (Zhao et al., "PyTorch FSDP", 2023).

Rank 0 holds the model whole in its memory, in fp32, when training begins and whenever it saves; the other ranks never do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from taskmill.errors import MissingPackageError, UsageError
from taskmill.training.updating.distributed import World

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error


def shard(root: Any, world: World, device: Any, dtype: Any) -> None:
    """Spread a module's weights over the processes: rank 0's are taken, the others' are not read.

    Args:
        root: the module whose forward pass is the whole of what is computed.
        world: the processes; all call this.
        device: of this process.
        dtype: of the forward and backward pass, or None for fp32.

    Raises:
        UsageError: torch is older than 2.6.
    """
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError as error:
        raise UsageError(
            f"full fine-tuning with several processes needs torch 2.6 (this is {torch.__version__}); "
            f"update it, start one process, or --set train.method=lora"
        ) from error
    mesh = torch.distributed.init_device_mesh(device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    whole = {name: parameter.detach() for name, parameter in root.named_parameters()}
    for block in blocks(root):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for name, parameter in root.named_parameters():
        fill(parameter, whole.pop(name), world, device)
    for buffer in root.buffers():
        torch.distributed.broadcast(buffer, 0)


def blocks(root: Any) -> list[Any]:
    """Return the transformer blocks: the modules of every list of at least two of one class, outermost first."""
    found: list[Any] = []
    inside: set[int] = set()
    for module in root.modules():
        if not isinstance(module, torch.nn.ModuleList) or id(module) in inside:
            continue
        if len(module) > 1 and len({type(child) for child in module}) == 1:
            found += list(module)
            inside |= {id(part) for child in module for part in child.modules()}
    return found


def fill(parameter: Any, whole: Any, world: World, device: Any) -> None:
    """Put rank 0's whole tensor into a shard on every process; the others' `whole` is not read."""
    from torch.distributed.tensor import distribute_tensor

    values = whole.float().to(device) if world.is_main else torch.empty(parameter.shape, device=device)
    with torch.no_grad():
        parameter.copy_(distribute_tensor(values, parameter.device_mesh, parameter.placements))


def empty(model: Any) -> Any:
    """Give a model on the meta device memory that is not written to, which costs none until it is."""
    model.to_empty(device="cpu")
    model.tie_weights()
    return model


def gather(tensors: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Return shards put together, on the CPU of rank 0, one after another; nothing on the other processes."""
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if world.is_main:
            found[name] = whole.detach().cpu()
    return found


@contextmanager
def put_together(model: Any, world: World) -> Iterator[None]:
    """Give rank 0's model its weights whole, on the CPU, for as long as the block runs; all processes call this."""
    parameters = dict(model.named_parameters())
    whole = gather(parameters, world)
    if not world.is_main:
        yield
        return
    instead = {id(p): torch.nn.Parameter(whole[name], requires_grad=False) for name, p in parameters.items()}
    places = [
        (module, key, p)
        for module in model.modules()
        for key, p in module._parameters.items()
        if p is not None
    ]
    for module, key, parameter in places:
        module._parameters[key] = instead[id(parameter)]
    try:
        yield
    finally:
        for module, key, parameter in places:
            module._parameters[key] = parameter
