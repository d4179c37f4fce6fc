"""A tiny run up to rendered prompts, and its stages mix and tokenize."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.artifact import Identity, Inputs, Manifest, open_stage
from taskmill.recipe import Recipe, Resolved, Source, Tokenize
from taskmill.records import SCHEMAS, SEGMENT_KINDS
from taskmill.settings import Settings
from taskmill.training.encoding.rows import Prompt

Segments = Sequence[tuple[str, str, bool]]


def prompt(segments: Segments) -> Prompt:
    """Return a prompt of (text, kind, trained)."""
    ends = np.cumsum([len(text.encode()) for text, _, _ in segments]).tolist()
    kinds = [SEGMENT_KINDS.index(kind) for _, kind, _ in segments]
    return Prompt("".join(text for text, _, _ in segments), ends, kinds, [t for _, _, t in segments])


def row(
    task: str, number: int, segments: Segments, split: str = "train", level: str | None = None
) -> dict[str, Any]:
    """Return a row of the prompts table."""
    built = prompt(segments)
    return {
        "prompt": hashlib.sha256(f"{task}{number}".encode()).digest()[:8],
        "example": f"{task}#{number}",
        "task": task,
        "split": split,
        "level": level,
        "text": built.text,
        "ends": built.ends,
        "kinds": built.kinds,
        "trained": built.trained,
        "references": ["x"],
        "demonstrations": [],
        "loss_weight": 0.5 if task == "b/one" else 1.0,
        "format": "segments",
        "joint": True,
    }


def labelled(number: int) -> Segments:
    return [
        (f"Größe {number}: the cat sat", "input", False),
        (f" {number} ✓", "output", True),
        ("{eos}", "control", True),
    ]


def task_row(name: str) -> dict[str, Any]:
    filled = {f.name: "" for f in SCHEMAS["tasks/tasks"] if str(f.type) == "string" and not f.nullable}
    lists = {f.name: [] for f in SCHEMAS["tasks/tasks"] if str(f.type).startswith("list")}
    numbers = {
        "multiple_choice": False,
        "num_read": 1,
        "num_kept": 1,
        "num_groups": 1,
        "largest_group": 1,
        "num_rendered_templates": 0,
        "first_row": 0,
    }
    kind = "pretraining" if name.startswith("doc") else "benchmark"
    return {**filled, **lists, **numbers, "task": name, "benchmark": name.partition("/")[0], "kind": kind}


def finish(run: Path, stage: str, folder: str, tables: dict[str, list[dict[str, Any]]]) -> Manifest:
    """Write a finished stage."""
    out = open_stage(run / folder, Identity(stage, 1, {}, 0, None, (), {}))
    assert not isinstance(out, Manifest)
    with out.shard("all", ["all"]) as shard:
        for path, rows in tables.items():
            shard.write_table(f"{path}.parquet", SCHEMAS[f"{folder}/{path.partition('/')[0]}"], rows)
    out.add(shard.record)
    return out.finish()


def settings_for(run: Path, module: Any, **changes: Any) -> Settings:
    settings = {"tokenize": Tokenize(vocab_size=300, max_length=24), **changes}
    recipe = Recipe("tiny", (Source("flan", "x"),), **settings)
    return Settings(Resolved(recipe, {}, run, ""), module.SECTIONS)


def build(run: Path, module: Any, stage: str, folder: str, **changes: Any) -> Manifest:
    """Build mix or tokenize as the command line does."""
    settings = settings_for(run, module, **changes)
    stages = {"curate": "tasks", "render": "prompts", "mix": "mixture"}
    inputs = Inputs({name: run / path for name, path in stages.items()})
    found = Identity(stage, module.REVISION, settings.values(), 0, None, inputs.identity(module.READS), {})
    opened = open_stage(run / folder, found)
    return opened if isinstance(opened, Manifest) else module.build(settings, inputs, opened)
