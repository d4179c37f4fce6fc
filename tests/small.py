"""A small benchmark in a folder of its own, and how tests of wrong input run commands on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from running import ROOT, call

EXAMPLES = ROOT / "examples/meta_datasets"
FILES = (
    "super_natural_instructions/tasks/task2002_ferry_bolq_question_answering.json",
    "super_natural_instructions/tasks/task2004_harbour_word_analogy.json",
    "super_natural_instructions/tasks/task2010_market_sums_arithmetic.json",
    "flan/skarrow_zs_opt_train.jsonl",
    "crossfit/quay_reviews",
    "t5/pier_rte",
    "reasoning/market_sums_train.tsv",
    "promptsource/data/ferry_boolq",
    "promptsource/templates/ferry_boolq",
    "casts",
    "taxonomy.yaml",
)
RECIPE = """\
name: small
seed: 7
data_root: data
sources:
  - {reader: super_natural_instructions, path: super_natural_instructions}
  - {reader: promptsource, path: promptsource}
  - {reader: flan, path: flan}
  - {reader: crossfit, path: crossfit}
  - {reader: t5, path: t5}
  - {reader: reasoning, path: reasoning}
curate: {taxonomy: [data/taxonomy.yaml], casts: [data/casts]}
plan:
  held_out: {categories: [Word Analogy]}
  partial: [promptsource/ferry_boolq, "*/task2010*"]
  supervised: [t5/pier_rte]
  num_demonstration_groups: 4
render: {test_examples: 2}
mix: {num_prompts: 60, auxiliary: {reasoning: {share: 0.1}}}
tokenize: {vocab_size: 400, max_length: 256}
train:
  architecture: {num_layers: 1, hidden_size: 32, num_heads: 2, feedforward_size: 64}
  num_steps: 2
  warmup_steps: 1
  batch_size: 4
  checkpoint_steps: 1
evaluate: {max_new_tokens: 2, num_resamples: 10, baseline: false}
"""
FLAN = "flan/skarrow_zs_opt_train.jsonl"
Aside = Callable[[bytes], bytes]


def make_small(folder: Path) -> None:
    """Write `data` and `recipe.yaml` into a folder."""
    for name in FILES:
        target = folder / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (EXAMPLES / name).is_dir() else shutil.copy)(EXAMPLES / name, target)
    (folder / "recipe.yaml").write_text(RECIPE)


def works(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must end well; returns stdout."""
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    return out


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a command that must fail with one message and nothing on stdout; returns the message."""
    found, out, err = call(capsys, *arguments)
    assert (found, out) == (code, ""), err
    assert err.startswith("taskmill: ") and err.count("taskmill: ") == 1, err
    assert "Traceback" not in err
    return err


def curate(*extra: str) -> tuple[str, ...]:
    return ("curate", "recipe.yaml", "--run", "run", "--workers", "1", "--quiet", *extra)


def stage(name: str, *extra: str) -> tuple[str, ...]:
    """Arguments for a stage of the run `run`, from what it recorded."""
    return (name, "run", "--workers", "1", "--quiet", *extra)


def only(reader: str, **source: object) -> None:
    """Leave the recipe a single source."""
    recipe = yaml.safe_load(RECIPE)
    recipe["sources"] = [{"reader": reader, "path": reader, **source}]
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))


def tree(folder: Path) -> dict[str, int]:
    """Return every file and folder below a folder with its time."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def line(number: int, text: bytes) -> Aside:
    """Return a function that replaces one line of a file."""

    def change(raw: bytes) -> bytes:
        lines = raw.split(b"\n")
        lines[number] = text
        return b"\n".join(lines)

    return change
