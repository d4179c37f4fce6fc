"""Attention that never crosses a document inside a pack, and the check that it does not.

A packed forward pass gives the model restarting positions, no cache and an explicit four-dimensional mask in the form
that the chosen implementation understands. Measured with a small Llama: positions alone, or a mask of ones beside
them, let documents see each other without a word; `eager` reads a boolean mask as numbers to add, which does the same.
So `isolation_check` compares packed with separate logits before each training and refuses when they differ.

Shape suffixes: B packs, T tokens of a pack, N chosen tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from taskmill.errors import MissingPackageError, UsageError
from taskmill.seeding import derive
from taskmill.training.batches import Batch, collate
from taskmill.training.packing import Packs

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error

log = logging.getLogger("taskmill")

IMPLEMENTATIONS = ("sdpa", "eager")
TOLERANCE = 1e-4
"""Largest difference of logits in fp32 that counts as equal; crossing documents give about 0.01 to 0.2."""
_CHECK_LENGTHS = (5, 7, 3)


def install(model: Any, wanted: str) -> str:
    """Give the model the implementation that `train.attention` names and return its name; `auto` takes the fastest."""
    name = "sdpa" if wanted == "auto" else wanted
    model.set_attn_implementation(name)
    return name


def document_mask(documents_BT: Any, implementation: str) -> Any:
    """Return who may attend to whom: [B, 1, T, T], a token to itself and earlier ones of its document.

    Boolean for `sdpa`; for `eager` float32 to be added, 0 where allowed and the lowest number elsewhere.

    Raises:
        UsageError: an implementation that this project does not offer.
    """
    implementation = "sdpa" if implementation == "auto" else implementation
    if implementation not in IMPLEMENTATIONS:
        raise UsageError(
            f"train.attention is {implementation!r}; expected one of {', '.join(map(repr, IMPLEMENTATIONS))}"
        )
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    allowed_B1TT = same_BTT.tril()[:, None]
    if implementation == "sdpa":
        return allowed_B1TT
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(allowed_B1TT.shape, device=documents_BT.device).masked_fill(~allowed_B1TT, lowest)


def packed_logits(model: Any, batch: Batch, implementation: str) -> tuple[Any, Any, Any]:
    """Run the model over packs and return what the loss needs, computed at the tokens with a target only.

    Returns:
        logits_NV, targets_N, weights_N: one row per token whose target carries loss, in batch order.
    """
    device = next(model.parameters()).device
    chosen_N = torch.from_numpy(np.flatnonzero(batch.weights_BT)).to(device)
    targets_N = torch.from_numpy(batch.targets_BT).to(device).flatten()[chosen_N]
    weights_N = torch.from_numpy(batch.weights_BT).to(device).flatten()[chosen_N]
    return _logits_at(model, batch, implementation, chosen_N), targets_N, weights_N


def _logits_at(model: Any, batch: Batch, implementation: str, chosen_N: Any) -> Any:
    """Return logits_NV at the chosen places of the flattened [B * T]; the output layer sees no other token."""
    device = chosen_N.device

    def choose(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTH = inputs[0]
        return (hidden_BTH.flatten(0, 1).index_select(0, chosen_N), *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        return model(
            input_ids=torch.from_numpy(batch.ids_BT).to(device),
            position_ids=torch.from_numpy(batch.positions_BT).to(device),
            attention_mask=document_mask(torch.from_numpy(batch.documents_BT).to(device), implementation),
            use_cache=False,
        ).logits
    finally:
        hook.remove()


# ---------------------------------------------------------------------------------- isolation check


class _Documents:
    """Three short documents of made-up ids, every token trained: token arrays for the check."""

    def __init__(self, vocab_size: int) -> None:
        lengths = np.array(_CHECK_LENGTHS)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        draws = [derive(0, "isolation", i) % vocab_size for i in range(int(lengths.sum()))]
        self.ids = np.array(draws, dtype=np.int64)
        self.trained = np.ones(len(draws), dtype=np.uint8)
        self.loss_weight = np.ones(len(lengths), dtype=np.float32)


def isolation_check(model: Any, implementation: str, vocab_size: int) -> float:
    """Compare the logits of short documents in packs with those of each alone, in fp32.

    The packs are [two documents] and [one document, padding], through the same forward pass as training.

    Returns:
        the largest absolute difference of logits.

    Raises:
        UsageError: it is above TOLERANCE: with this implementation the model would train across documents.
    """
    documents = _Documents(vocab_size)
    packs = Packs(np.array([0, 1, 2], dtype=np.int64), np.array([0, 2, 3], dtype=np.int64))
    batch = collate(documents, packs, 0, 2, pad_id=0)
    device, training = next(model.parameters()).device, model.training
    places = [0, _CHECK_LENGTHS[0], batch.ids_BT.shape[1]]
    model.eval()
    largest = 0.0
    with torch.no_grad():
        chosen = torch.arange(batch.ids_BT.size, device=device)
        packed_NV = _logits_at(model, batch, implementation, chosen).float()
        for number, (place, length) in enumerate(zip(places, _CHECK_LENGTHS)):
            start = int(documents.offsets[number])
            alone_T = torch.from_numpy(documents.ids[start : start + length]).to(device)
            alone_TV = model(input_ids=alone_T[None], use_cache=False).logits[0].float()
            largest = max(largest, float((packed_NV[place : place + length] - alone_TV).abs().max()))
    model.train(training)
    if not largest <= TOLERANCE:
        other = next(name for name in IMPLEMENTATIONS if name != implementation)
        raise UsageError(
            f"with attention {implementation!r} this model sees across the documents of a pack: logits differ by "
            f"{largest:.2g} from those of each document alone, expected at most {TOLERANCE:g}; "
            f"nothing was trained. Try --set train.attention={other}"
        )
    log.info("train: documents in a pack are isolated (%s, largest difference %.1g)", implementation, largest)
    return largest
