"""The loss equals its formula, however an update is cut into forward passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from token_arrays import documents, tiny_model

from taskmill.training import objective
from taskmill.training.attention import packed_logits
from taskmill.training.batches import Batch, collate
from taskmill.training.objective import label_loss, step_weight
from taskmill.training.packing import Packs

ARRAYS = documents([11, 4, 17, 6, 9], weights=[1.0, 0.1, 1.0, 0.5, 2.0])
PACKED = Packs(np.arange(5), np.array([0, 2, 4, 5]))
ALONE = Packs(np.arange(5), np.arange(6))


def test_label_loss_equals_hand_computed_values() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    first = math.log(math.e + math.e**2 + 1) - 2.0
    expected = 1.0 * first + 0.1 * math.log(3)
    got = label_loss(logits, torch.tensor([1, 0]), torch.tensor([1.0, 0.1]))
    assert float(got) == pytest.approx(expected, abs=1e-6)


def test_chunks_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(50, 7), torch.randint(0, 7, (50,)), torch.rand(50)
    whole = label_loss(logits, targets, weights)
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 21)
    assert float(label_loss(logits, targets, weights)) == pytest.approx(float(whole), rel=1e-6)


def test_loss_of_documents_equals_the_formula() -> None:
    model = tiny_model().eval()
    total = weight = 0.0
    for i in range(5):
        ids = torch.from_numpy(ARRAYS.ids[ARRAYS.offsets[i] : ARRAYS.offsets[i + 1]].astype(np.int64))
        with torch.no_grad():
            log_p = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for t in range(2, len(ids)):  # tokens from 2 on are trained
            total -= float(ARRAYS.loss_weight[i]) * float(log_p[t - 1, ids[t]])
            weight += float(ARRAYS.loss_weight[i])
    batches = cut(PACKED, 2)
    assert step_weight(batches) == pytest.approx(weight, rel=1e-6)
    assert backward(model, batches, "sdpa") == pytest.approx(total / weight, rel=1e-5)


def cut(packs: Packs, micro: int) -> list[Batch]:
    """Forward passes of `micro` packs."""
    ends = range(0, packs.num_packs, micro)
    return [collate(ARRAYS, packs, i, min(i + micro, packs.num_packs), 0) for i in ends]


def backward(model: Any, batches: list[Batch], attention: str) -> float:
    weight, total = step_weight(batches), 0.0
    for batch in batches:
        loss = label_loss(*packed_logits(model, batch, attention)) / weight
        loss.backward()
        total += float(loss.detach())
    return total


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_and_accumulated_gradients_equal_those_of_documents_alone(attention: str, method: str) -> None:
    gradients = []
    for batches in (cut(ALONE, 1), cut(ALONE, 5), cut(PACKED, 1), cut(PACKED, 2), cut(PACKED, 3)):
        model = tiny_model(attention, method)
        loss = backward(model, batches, attention)
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        gradients.append((loss, flat))
    reference_loss, reference = gradients[0]
    for loss, flat in gradients[1:]:
        assert loss == pytest.approx(reference_loss, abs=1e-6)
        assert float((flat - reference).abs().max()) <= 1e-6 * max(1.0, float(reference.abs().max()))
