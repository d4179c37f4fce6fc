"""A small run whose every record has words of its own, and what its training really reads, found by decoding all batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskmill import cli
from taskmill.commands.finished import FinishedRun
from taskmill.plain import build
from taskmill.recipe import Train
from taskmill.training.packing.plan import make_plan

NUM = 40
RECIPE = """\
name: planted
seed: 5
data_root: .
sources:
  - reader: table
    path: notes.jsonl
    benchmark: own
    repository: harbour/notes
    revision: v3
    options:
      task: notes
      category: Text Categorization
      definition: Write down what the keeper says.
      license: CC-BY-4.0
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
  - reader: table
    path: logs.jsonl
    benchmark: other
    options:
      task: logs
      category: Summarization
      definition: Say it in one sentence.
      license: CC0-1.0
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
plan:
  held_out: {categories: [Summarization]}
  supervised: [own/notes]
  carve_share: 0.2
  num_demonstration_groups: 2
render: {num_demonstrations: 1}
mix: {num_prompts: 20, block: 10}
tokenize: {vocab_size: 600, max_length: 512}
train:
  architecture: {num_layers: 1, hidden_size: 32, num_heads: 2, feedforward_size: 64}
  batch_size: 2
  micro_batch_size: 2
  packing_window: 8
  warmup_steps: 1
evaluate: {max_new_tokens: 2, num_resamples: 10}
"""


def sentence(stem: str, number: int, num_words: int = 18) -> str:
    """Return words that stand in one record alone."""
    return " ".join(f"{stem}{chr(97 + place)}{number:02d}" for place in range(num_words))


def question(number: int) -> str:
    """Return what record `number` of own/notes asks."""
    return sentence("quay", number)


def answer(number: int) -> str:
    """Return what it answers."""
    return sentence("reef", number, 14)


def make_planted(folder: Path, upto: str, *settings: str, more_sources: str = "") -> Path:
    """Write the data, the recipe and the run `run` up to a stage into a folder; returns the run."""
    notes = [{"id": f"n{i:02d}", "text": question(i), "answer": answer(i)} for i in range(NUM)]
    logs = [{"id": f"l{i}", "text": sentence("moor", i), "answer": sentence("pier", i, 3)} for i in range(12)]
    for name, rows in (("notes", notes), ("logs", logs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.replace("plan:\n", f"{more_sources}plan:\n", 1))
    run_stages(folder, "run", str(folder / "recipe.yaml"), "--to", upto, *as_arguments(settings))
    return folder / "run"


def run_stages(folder: Path, *arguments: str) -> None:
    """Run a command on the run in a folder that must end well."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--run", str(folder / "run"), "--quiet", "--workers", "1"])
    assert not stopped.value.code


def as_arguments(settings: tuple[str, ...]) -> list[str]:
    """Return overrides as arguments."""
    return [part for value in settings for part in ("--set", value)]


def trained_steps(run: Path, text: str, num_processes: int = 1) -> list[int]:
    """Return the updates, counted from 1, one of whose documents has a text, by decoding what every process is given."""
    found = FinishedRun(run)
    values = found.recipe["values"]
    plan = make_plan(build(Train, values["train"]), found.tokens, values["seed"], num_processes)
    steps = []
    for step in range(plan.num_steps):
        documents = []
        for rank in range(num_processes):
            for batch in plan.batches(step, rank):
                for ids, numbers in zip(batch.ids_BT, batch.documents_BT):
                    for number in set(numbers.tolist()):
                        documents.append(found.tokenizer.backend.decode(ids[numbers == number].tolist()))
        if any(text in " ".join(document.split()) for document in documents):
            steps.append(step + 1)
    return steps
