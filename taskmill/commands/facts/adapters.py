"""Facts of LoRA: trained parameters of the published adapters, counted on a model without memory (torch, transformers, peft).

`compute` returns key -> value for `published.yaml`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from taskmill import recipe_files

KEYS = ("flacuna.parameters", "flacuna.parameters_share")
VICUNA_13B = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 5120,
    "intermediate_size": 13_824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
"""Shape of LLaMA 13B (Touvron et al. 2023, Table 2), which Vicuna-13B has."""


def compute() -> dict[str, Any]:
    """Return the figures of adapters by key.

    Raises:
        MissingPackageError: torch, transformers or peft is absent.
    """
    from taskmill.training.models.model import count_parameters

    train = recipe_files.find("flacuna").recipe.train
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(VICUNA_13B), encoding="utf-8")
        every, trained = count_parameters(dataclasses.replace(train, model=str(config)))
    return {"flacuna.parameters": trained, "flacuna.parameters_share": trained / (every - trained)}
