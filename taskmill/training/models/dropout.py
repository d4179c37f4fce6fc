"""Dropout as the recipe says, wherever an architecture has a setting for it, and where it has none.

Papers give one number ("dropout 0.1"), architectures have up to three places for it: the attention weights, what each
layer adds to the residual stream, and the embeddings. A place that an architecture lacks is a deviation from such a
recipe and is named: OPT-IML trains with 0.1 on its embeddings too, Llama drops out nothing but attention weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PLACES: dict[str, tuple[str, ...]] = {
    "attention weights": ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"),
    "residual connections": (
        "dropout",
        "hidden_dropout",
        "hidden_dropout_prob",
        "resid_pdrop",
        "resid_dropout",
        "residual_dropout",
    ),
    "embeddings": ("embd_pdrop", "emb_pdrop", "embed_dropout", "embedding_dropout"),
}
"""Where dropout is -> the settings of transformers' configurations for it."""
_EMBEDDINGS_BY = {"gpt_neox": "hidden_dropout", "xglm": "dropout", "biogpt": "hidden_dropout_prob"}
"""Model type -> the setting for the residual connections that it applies to its embeddings as well."""


def set_dropout(config: Any, rate: float) -> list[str]:
    """Give every dropout setting of a configuration the rate; returns their names."""
    found = list(_settings(config))
    for part, key in found:
        setattr(part, key, rate)
    return [key for _, key in found]


def dropout_deviations(model: Any, rate: float) -> list[str]:
    """Return a sentence for each place that the recipe's dropout cannot reach in a model; none where the rate is 0."""
    if not rate:
        return []
    name = (
        model.get_base_model().__class__.__name__ if hasattr(model, "peft_config") else type(model).__name__
    )
    keys = {key for _, key in _settings(model.config)}
    reached = {place for place, names in PLACES.items() if keys & set(names)}
    if _EMBEDDINGS_BY.get(str(getattr(model.config, "model_type", ""))) in keys:
        reached.add("embeddings")
    return [
        f"train.dropout {rate:g}: {name} has none on its {place}" for place in PLACES if place not in reached
    ]


def _settings(config: Any) -> Iterator[tuple[Any, str]]:
    """Yield (configuration, key) of every dropout setting, those of the text model and its attention included."""
    parts = [config]
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for part in (text, getattr(text, "attn_config", None)):
        if part is not None and not isinstance(part, dict) and all(part is not known for known in parts):
            parts.append(part)
    for part in parts:
        for names in PLACES.values():
            for key in names:
                if isinstance(getattr(part, key, None), (int, float)):
                    yield part, key
