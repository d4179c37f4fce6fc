"""Facts of training: batches, steps, warm-ups and learning rates of the shipped recipes, by the loop's own functions (no torch).

Reads the shipped recipes; `compute` returns key -> value for `published.yaml`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from taskmill import recipe_files
from taskmill.commands.facts import mixtures
from taskmill.recipe import Recipe, Train
from taskmill.training.packing.packs import Packs
from taskmill.training.packing.steps import make_steps
from taskmill.training.updating.schedule import learning_rate, warmup_updates

LLAMA_2_RATE, LLAMA_2_BATCH = 3e-4, 4e6
"""Peak rate and tokens per update of the 13B base model of OpenChat in pre-training (Touvron et al. 2023, section 2)."""


def compute() -> dict[str, Any]:
    """Return the figures of training by key."""
    return {**_opt_iml(), **_flacuna(), **_tulu(), **_openchat()}


def _recipe(name: str) -> Recipe:
    return recipe_files.find(name).recipe


def tokens_per_step(recipe: Recipe) -> int:
    """Return the tokens that an update has room for."""
    train = recipe.train
    return train.batch_tokens or train.batch_size * recipe.tokenize.max_length


def _num_steps(train: Train, num_documents: int) -> int:
    """Return the updates that documents fill, each in a sequence of its own."""
    numbers = np.arange(num_documents + 1, dtype=np.int64)
    return make_steps(Packs(numbers[:-1], numbers), train).num_steps


def _peak(train: Train, num_steps: int) -> float:
    return max(learning_rate(train, step, num_steps) for step in range(min(num_steps, 5000)))


def _opt_iml() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in (("30b", "opt-iml"), ("175b", "opt-iml-175b")):
        recipe = _recipe(name)
        train, steps = recipe.train, recipe.train.num_steps or 0
        found |= {
            f"opt_iml.{key}.batch": train.batch_size,
            f"opt_iml.{key}.steps": steps,
            f"opt_iml.{key}.tokens_per_step": tokens_per_step(recipe),
            f"opt_iml.{key}.tokens": steps * tokens_per_step(recipe),
            f"opt_iml.{key}.warmup": warmup_updates(train, steps),
            f"opt_iml.{key}.peak": _peak(train, steps),
        }
    train = _recipe("opt-iml").train
    return found | {
        "opt_iml.end": learning_rate(train, train.num_steps or 0, train.num_steps or 0),
        "opt_iml.betas": list(train.betas),
        "opt_iml.clip": train.max_gradient_norm,
        "opt_iml.dropout": train.dropout,
        "opt_iml.length": _recipe("opt-iml").tokenize.max_length,
        "opt_iml_max.30b.steps": _recipe("opt-iml-max").train.num_steps,
    }


def _flacuna() -> dict[str, Any]:
    recipe = _recipe("flacuna")
    train = recipe.train
    steps = _num_steps(train, mixtures.flan_mini_total())
    return {
        "flacuna.batch": train.batch_size,
        "flacuna.length": recipe.tokenize.max_length,
        "flacuna.peak": _peak(train, steps),
        "flacuna.warmup": warmup_updates(train, steps),
        "flacuna.warmup_of_script": warmup_updates(dataclasses.replace(train, warmup_share=1e-4), steps),
        "flacuna.epochs": recipe.mix.epochs,
        "flacuna.lora": [train.lora.rank, train.lora.alpha, train.lora.dropout],
        "flacuna.precision": train.precision,
    }


def _tulu() -> dict[str, Any]:
    recipe = _recipe("tulu")
    train = recipe.train
    steps = _num_steps(train, mixtures.tulu_total("tulu") * recipe.mix.epochs)
    warmup = warmup_updates(train, steps)
    return {
        "tulu.batch": train.batch_size,
        "tulu.length": recipe.tokenize.max_length,
        "tulu.epochs": recipe.mix.epochs,
        "tulu.peak": _peak(train, steps),
        "tulu.warmup_share": warmup / steps,
        "tulu.end": learning_rate(train, steps, steps),
        "tulu.decay": train.weight_decay,
    }


def _openchat() -> dict[str, Any]:
    recipe = _recipe("openchat")
    train = recipe.train
    steps = 1000
    return {
        "openchat.tokens_per_step": tokens_per_step(recipe),
        "openchat.length": recipe.tokenize.max_length,
        "openchat.epochs": recipe.mix.epochs,
        "openchat.peak": _peak(train, steps),
        "openchat.peak_by_square_root": LLAMA_2_RATE * math.sqrt(tokens_per_step(recipe) / LLAMA_2_BATCH),
        "openchat.end_over_peak": learning_rate(train, steps, steps) / train.learning_rate,
        "openchat.adamw": [*train.betas, train.epsilon, train.weight_decay],
    }
