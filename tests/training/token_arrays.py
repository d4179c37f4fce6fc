"""Token arrays made by hand, in memory and as a finished tokenize stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taskmill.artifact import Identity, Inputs, ShardWriter, StageWriter, open_stage
from taskmill.recipe import Architecture, Lora, Recipe, Resolved, Train
from taskmill.settings import Settings
from taskmill.training import loop
from taskmill.training.models.model import add_lora, initial_model
from taskmill.training.updating.attention import install

torch.set_num_threads(1)  # the tensors are tiny, and other test runs share the cores

VOCAB = 48
TINY = Architecture(num_layers=2, hidden_size=32, num_heads=2, feedforward_size=64)


@dataclass
class Arrays:
    ids: Any
    trained: Any
    offsets: Any
    loss_weight: Any
    order: Any = None
    positions: Any = None

    def __post_init__(self) -> None:
        """Every document stands once in the order, unless something else is said."""
        self.order = np.arange(len(self.loss_weight)) if self.order is None else self.order
        self.positions = np.arange(len(self.order)) if self.positions is None else self.positions

    @property
    def lengths(self) -> Any:
        return np.diff(self.offsets)


def documents(
    lengths: Sequence[int],
    weights: Sequence[float] | None = None,
    trained_from: int = 2,
    order: Sequence[int] | None = None,
) -> Arrays:
    """Documents with made-up ids; tokens from `trained_from` on carry loss; `order` is that of their numbers."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = (np.arange(offsets[-1]) * 7 + np.arange(offsets[-1]) ** 2 // 5) % VOCAB
    trained = np.concatenate([np.arange(n) >= trained_from for n in lengths] + [np.zeros(0, bool)])
    loss_weight = np.ones(len(lengths)) if weights is None else np.array(weights)
    places = None if order is None else np.array(order, dtype=np.int64)
    weights_n = loss_weight.astype(np.float32)
    return Arrays(ids.astype(np.uint16), trained.astype(np.uint8), offsets, weights_n, places)


def tiny_model(attention: str = "sdpa", method: str = "full", seed: int = 3) -> Any:
    """A small Llama, or one whose adapters already do something."""
    train = Train(architecture=TINY)
    model = initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=seed)
    install(model, attention)
    if method == "lora":
        model = add_lora(model, Lora(rank=4, alpha=16, dropout=0.0), seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.05)
    return model


def pattern_documents(number: int) -> Arrays:
    """Documents that can be learnt: ids count up by a step that the first token gives."""
    rows = []
    for i in range(number):
        step = 1 + i % 3
        rows.append([3 + i % 3, *((6 + (i * 5 + step * j) % 40) for j in range(6 + i % 9)), 2])
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    trained = np.concatenate([np.arange(len(r)) >= 2 for r in rows])
    return Arrays(
        np.concatenate(rows).astype(np.uint16),
        trained.astype(np.uint8),
        offsets,
        np.ones(number, dtype=np.float32),
    )


def write_tokens(
    folder: Path,
    arrays: Arrays,
    max_length: int = 64,
    validation: tuple[Arrays, Sequence[int]] | None = None,
) -> Inputs:
    """Write a finished tokenize stage and return the inputs of a stage that reads it.

    `validation` gives documents and the code of each one's level (0 held_out, 1 partial, 2 supervised).
    """
    out = open_stage(folder, Identity("tokenize", 1, {}, 0, None, (), {}))
    assert isinstance(out, StageWriter)
    number = len(arrays.loss_weight)
    info = {
        "format": 2,
        "dtype": "uint16",
        "num_documents": number,
        "num_places": len(arrays.order),
        "num_positions": len(arrays.order),
        "added_tokens": {},
        "validation": {"num_documents": 0, "num_tokens": 0},
        "num_tokens": len(arrays.ids),
        "num_trained": int(arrays.trained.sum()),
        "vocab_size": VOCAB,
        "max_length": max_length,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": 0,
    }
    with out.shard("tokens", []) as shard:
        shard.write_bytes("ids.bin", arrays.ids.astype("<u2").tobytes())
        shard.write_bytes("trained.bin", arrays.trained.tobytes())
        shard.write_bytes("offsets.bin", arrays.offsets.astype("<i8").tobytes())
        shard.write_bytes("rows.bin", np.arange(number, dtype="<i8").tobytes())
        shard.write_bytes("loss_weight.bin", arrays.loss_weight.astype("<f4").tobytes())
        shard.write_bytes("order.bin", arrays.order.astype("<i8").tobytes())
        shard.write_bytes("positions.bin", arrays.positions.astype("<i8").tobytes())
        if validation is not None:
            _write_validation(shard, *validation)
            info["validation"] = {
                "num_documents": len(validation[1]),
                "num_tokens": len(validation[0].ids),
            }
        shard.write_bytes("tokens.json", json.dumps(info).encode())
        shard.write_bytes("tokenizer/tokenizer.json", b"{}")
        shard.write_bytes("tokenizer/tokenizer_config.json", b"{}")
    out.add(shard.record)
    out.finish()
    return Inputs({"tokenize": folder})


def _write_validation(shard: ShardWriter, arrays: Arrays, levels: Sequence[int]) -> None:
    for name, array in (
        ("ids", arrays.ids.astype("<u2")),
        ("trained", arrays.trained),
        ("offsets", arrays.offsets.astype("<i8")),
        ("rows", np.arange(len(levels), dtype="<i8")),
        ("loss_weight", arrays.loss_weight.astype("<f4")),
        ("levels", np.array(levels, dtype=np.uint8)),
    ):
        shard.write_bytes(f"validation/{name}.bin", array.tobytes())


def settings_for(base: Path, train: Train, seed: int = 5) -> Settings:
    """The settings of the train stage."""
    return Settings(Resolved(Recipe("test", (), seed=seed, train=train), {}, base, ""), loop.SECTIONS)


def stage(run: Path, inputs: Inputs, settings: Settings) -> StageWriter:
    """Open the train stage of a run as the command line does."""
    identity = Identity(
        "train",
        loop.REVISION,
        settings.values(),
        settings.seed,
        settings.limit,
        inputs.identity(loop.READS),
        loop.external(settings, inputs),
    )
    out = open_stage(run / "model", identity)
    assert isinstance(out, StageWriter)
    return out
