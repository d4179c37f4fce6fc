"""Attention that never crosses a document inside a pack: which implementation, what the model is given, and the check.

`documents`, `flash` and `flex` (see kernels.py) get packs flattened into one row without padding, and where each document
begins. `sdpa` and `eager` get rows with an explicit four-dimensional mask. Measured with a small Llama: positions alone, or a
mask of ones beside them, let documents see each other without a word; `eager` reads a boolean mask as numbers to add,
which does the same. So `isolation_check` compares packed with separate logits before each training and refuses where
they differ; the reference is the model's own plain attention over one document.

Shape suffixes: B packs, T tokens of a pack, N chosen tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import MissingPackageError, UsageError
from taskmill.seeding import derive
from taskmill.training.packing.batches import Batch
from taskmill.training.updating import kernels
from taskmill.training.updating.kernels import REGISTERED, Documents

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

log = logging.getLogger("taskmill")

IMPLEMENTATIONS = (*REGISTERED, "sdpa", "eager")
TOLERANCE = 1e-4
"""Largest difference of logits in fp32 that counts as equal; crossing documents give about 0.01 to 0.2."""
HALF_TOLERANCE = 2e-3
"""The same in 16 bits, as a share of the largest logit, for logits before and after another document is changed."""
_CHECK_LENGTHS = (5, 7, 3)
_LONGEST_CHECKED_WINDOW = 4096
_REFUSALS = (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError)
"""What a model or a kernel raises where it does not take an implementation."""


# ------------------------------------------------------------------------------------------ which one


def install(model: Any, wanted: str, precision: str = "fp32") -> str:
    """Give the model the implementation that `train.attention` names and return its name.

    `auto` takes the first that is there and keeps documents apart: on a GPU of flash, documents, flex, sdpa and eager,
    elsewhere of documents, sdpa and eager.

    Raises:
        UsageError: the named implementation is not there, or the model does not take it.
    """
    inner = bare(model)
    if wanted != "auto":
        _switch(inner, wanted)
        return wanted
    names = ["documents", "sdpa", "eager"]
    if next(inner.parameters()).device.type == "cuda":
        names = ["flash"] * (kernels.has_flash() and precision != "fp32") + [
            "documents",
            "flex",
            "sdpa",
            "eager",
        ]
    reasons = []
    for name in names:
        try:
            _switch(inner, name)
            isolation_check(model, name, int(inner.get_input_embeddings().num_embeddings), precision)
        except UsageError as error:
            reasons.append(f"{name}: {error}")
            log.info("train: attention %s is passed over: %s", name, error)
        else:
            return name
    raise UsageError(
        f"{type(inner).__name__} keeps the documents of a pack apart with no attention that is there; "
        f"{'; '.join(reasons)}"
    )


def _switch(model: Any, name: str) -> None:
    _known(name)
    if name == "flash" and not kernels.has_flash():
        raise UsageError(
            "train.attention is 'flash' and the package flash-attn is not installed; --set train.attention=auto takes "
            "the fastest that is there"
        )
    if name == "flex" and next(model.parameters()).device.type == "cpu":
        raise UsageError(
            "train.attention is 'flex', which has no gradient on a CPU; --set train.attention=auto"
        )
    wanted = REGISTERED.get(name, name)
    if model.config._attn_implementation == wanted:
        return
    refused = (
        f"{type(model).__name__} does not take train.attention={name}; --set train.attention=auto finds one"
    )
    if not getattr(model, "_can_set_attn_implementation", lambda: True)():
        raise UsageError(refused)
    try:
        model.set_attn_implementation(wanted)
    except (AttributeError, KeyError, ValueError) as error:
        raise UsageError(refused) from error
    if model.config._attn_implementation != wanted:
        raise UsageError(refused)


def _known(implementation: str) -> None:
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(map(repr, ("auto", *IMPLEMENTATIONS)))
        raise UsageError(f"train.attention is {implementation!r}; expected one of {names}")


def bare(model: Any) -> Any:
    """Return the model inside the wrappers of torch's distributed training."""
    while not hasattr(model, "get_output_embeddings"):
        model = model.module
    return model


def _window(model: Any) -> int | None:
    """Return how many tokens layers with a sliding window see; None where all layers see everything before."""
    config = model.config.get_text_config()
    if not getattr(config, "use_sliding_window", True):
        return None
    widths = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size")]
    return min((int(width) for width in widths if width), default=None)


# ------------------------------------------------------------------------------- what the model gets


@dataclass(frozen=True)
class Inputs:
    """A batch as the model and the loss take it, on the model's device."""

    arguments: dict[str, Any]
    """What the model is called with."""
    chosen_N: Any
    """Places among the tokens that the model is given, row after row, at which logits are wanted."""
    targets_N: Any
    weights_N: Any


def lay_out(model: Any, batch: Batch, implementation: str, *, every_token: bool = False) -> Inputs:
    """Bring a batch to the model's device in the form that the implementation takes.

    Where nothing is to be learnt, one token stands for all, with weight 0, so that every device of a training has a
    forward pass. Copies do not wait for the device, and nothing is read back from it.

    Args:
        model: switched to the implementation.
        batch: padding has no weight.
        implementation: one of IMPLEMENTATIONS.
        every_token: choose all tokens but padding, not those with a target only.

    Raises:
        UsageError: an implementation that this project does not offer.
    """
    _known(implementation)
    device = next(model.parameters()).device
    weights, starts, lengths = batch.weights_BT.ravel(), *_documents(batch)
    live = np.add.reduceat(weights, starts) > 0 if len(starts) else np.zeros(0, bool)
    if not live.any():
        batch, weights = _one_token(), np.zeros(1, np.float32)
        starts, lengths, live = np.zeros(1, np.int64), np.ones(1, np.int64), np.ones(1, bool)
    kept = np.repeat(live, lengths)
    chosen = np.flatnonzero(kept if every_token else weights)
    chosen = chosen if len(chosen) else np.zeros(1, np.int64)
    targets, chosen_weights = batch.targets_BT.ravel()[chosen], weights[chosen]
    if implementation in REGISTERED:
        arguments = _flat(batch, np.flatnonzero(kept), lengths[live], device)
        chosen = np.searchsorted(np.flatnonzero(kept), chosen)
    else:
        arguments = _rows(batch, implementation, _window(bare(model)), int(lengths.max()), device)
    copies = [copied(array, device) for array in (chosen, targets, chosen_weights)]
    return Inputs({**arguments, "use_cache": False}, *copies)


def _documents(batch: Batch) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return starts and lengths of all documents of a batch, padding among them, row after row."""
    starts = np.flatnonzero(batch.positions_BT.ravel() == 0)
    return starts, np.diff(np.append(starts, batch.positions_BT.size))


def _one_token() -> Batch:
    zeros = np.zeros((1, 1), np.int64)
    return Batch(zeros, zeros, zeros, zeros, np.zeros((1, 1), np.float32), 0)


def _flat(batch: Batch, kept: NDArray[Any], lengths: NDArray[Any], device: Any) -> dict[str, Any]:
    """Return one row of all documents, one after another; the mask is a mark that keeps transformers from making one."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return {
        "input_ids": copied(batch.ids_BT.ravel()[kept], device)[None],
        "position_ids": copied(batch.positions_BT.ravel()[kept], device)[None],
        "attention_mask": torch.zeros((1, 1, 1, 1), device=device),
        "documents": Documents(tuple(lengths.tolist()), copied(offsets, device)),
    }


def _rows(batch: Batch, implementation: str, window: int | None, longest: int, device: Any) -> dict[str, Any]:
    """Return the packs as rows with a mask; transformers makes the masks of layers that see a window only."""
    mask = None
    if window is None or longest <= window:
        mask = document_mask(copied(batch.documents_BT, device), implementation)
    return {
        "input_ids": copied(batch.ids_BT, device),
        "position_ids": copied(batch.positions_BT, device),
        "attention_mask": mask,
    }


def copied(array: NDArray[Any], device: Any) -> Any:
    """Return a tensor on the device; the copy to a GPU is under way when this returns."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def document_mask(documents_BT: Any, implementation: str) -> Any:
    """Return who may attend to whom: [B, 1, T, T], a token to itself and earlier ones of its document.

    Boolean for `sdpa`; for `eager` float32 to be added, 0 where allowed and the lowest number elsewhere.
    """
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    allowed_B1TT = same_BTT.tril()[:, None]
    if implementation == "sdpa":
        return allowed_B1TT
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(allowed_B1TT.shape, device=documents_BT.device).masked_fill(~allowed_B1TT, lowest)


def packed_logits(model: Any, batch: Batch, implementation: str) -> tuple[Any, Any, Any]:
    """Run the model over packs and return its logits at the tokens with a target only, whole in memory.

    Returns:
        logits_NV, targets_N, weights_N: one row per token whose target carries loss, in batch order.
    """
    inputs = lay_out(model, batch, implementation)
    return _logits(model, inputs), inputs.targets_N, inputs.weights_N


def _logits(model: Any, inputs: Inputs) -> Any:
    """Return logits_NV at the chosen tokens; the output layer sees no other token."""

    def choose(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0].flatten(0, -2).index_select(0, inputs.chosen_N)[None], *given[1:])

    hook = bare(model).get_output_embeddings().register_forward_pre_hook(choose)
    try:
        return model(**inputs.arguments).logits[0]
    finally:
        hook.remove()


# ---------------------------------------------------------------------------------- isolation check


def isolation_check(model: Any, implementation: str, vocab_size: int, precision: str = "fp32") -> float:
    """Compare the logits of documents in packs with those of each alone, through the forward pass of training.

    The packs are [two documents] and [one document, padding]; where layers see a window of at most 4,096 tokens, one
    document is longer than it. In fp32 the logits are equal to TOLERANCE. In 16 bits rounding hides what a document
    leaks, so there the first document is changed and the logits of the others may not move.

    Returns:
        the largest absolute difference of logits.

    Raises:
        UsageError: it is too large: with this implementation the model would train across documents.
    """
    _known(implementation)
    try:
        largest, limit = _difference(model, implementation, vocab_size, precision)
    except torch.cuda.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(
            f"this model cannot compute packs with attention {implementation!r}: {reason}"
        ) from error
    if not largest <= limit:
        other = next(name for name in ("sdpa", "eager") if name != implementation)
        raise UsageError(
            f"with attention {implementation!r} this model sees across the documents of a pack: logits differ by "
            f"{largest:.2g} from those of each document alone, expected at most {limit:.2g}; "
            f"nothing was trained. Try --set train.attention={other}"
        )
    log.info("train: documents in a pack are isolated (%s, largest difference %.1g)", implementation, largest)
    return largest


def _difference(model: Any, implementation: str, vocab_size: int, precision: str) -> tuple[float, float]:
    """Return the largest difference of logits and the limit for it."""
    window = _window(bare(model))
    lengths = [*_CHECK_LENGTHS]
    if window is not None and window <= _LONGEST_CHECKED_WINDOW:
        lengths[1] = window + 3
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            packed_NV = _packed(model, implementation, lengths, vocab_size, 0)
            if dtype is None and packed_NV.dtype == torch.float32:
                alone_NV = _alone(model, lengths, vocab_size)
                return float((packed_NV - alone_NV).abs().max()), TOLERANCE
            again_NV = _packed(model, implementation, lengths, vocab_size, 1)
            rest = slice(lengths[0], None)
            limit = HALF_TOLERANCE * float(packed_NV.float().abs().max())
            return float((packed_NV - again_NV)[rest].float().abs().max()), limit
    finally:
        model.train(training)


def _packed(model: Any, implementation: str, lengths: list[int], vocab_size: int, variant: int) -> Any:
    """Return the logits of all tokens, document after document."""
    inputs = lay_out(model, _check_batch(lengths, vocab_size, variant), implementation, every_token=True)
    return _logits(model, inputs)


def _alone(model: Any, lengths: list[int], vocab_size: int) -> Any:
    """Return the logits of each document in a pass of its own, by the model's plain attention where it can switch."""
    inner = bare(model)
    before = inner.config._attn_implementation
    if before in REGISTERED.values():
        inner.set_attn_implementation("eager")
    device, found = next(model.parameters()).device, []
    try:
        for number, length in enumerate(lengths):
            ids_T = copied(_made_up(number, length, vocab_size, 0), device)
            found.append(model(input_ids=ids_T[None], use_cache=False).logits[0])
    finally:
        if before in REGISTERED.values():
            inner.set_attn_implementation(before)
    return torch.cat(found)


def _made_up(number: int, length: int, vocab_size: int, variant: int) -> NDArray[np.int64]:
    """Return a document's ids; another variant changes the first document only."""
    purpose = f"isolation{variant}" if number == 0 and variant else "isolation"
    draws = [derive(0, purpose, 10_000 * number + i) % vocab_size for i in range(length)]
    return np.array(draws, dtype=np.int64)


def _check_batch(lengths: list[int], vocab_size: int, variant: int) -> Batch:
    """Lay out [two documents] and [one document, padding], every token but each last one with a target."""
    width = max(lengths[0] + lengths[1], lengths[2] + 1)
    arrays = {name: np.zeros((2, width), np.int64) for name in ("ids", "positions", "documents", "targets")}
    weights = np.zeros((2, width), np.float32)
    places = ((0, 0), (0, lengths[0]), (1, 0))
    for number, ((row, start), length) in enumerate(zip(places, lengths)):
        here = (row, slice(start, start + length))
        arrays["ids"][here] = _made_up(number, length, vocab_size, variant)
        arrays["positions"][here] = np.arange(length)
        arrays["documents"][here] = number
        arrays["targets"][row, start : start + length - 1] = arrays["ids"][row, start + 1 : start + length]
        weights[row, start : start + length - 1] = 1
    for row, end in ((0, lengths[0] + lengths[1]), (1, lengths[2])):
        arrays["positions"][row, end:] = np.arange(width - end)
        arrays["documents"][row, end:] = len(lengths)
    fields = {f"{name}_BT": array for name, array in arrays.items()}
    return Batch(**fields, weights_BT=weights, num_tokens=sum(lengths))
