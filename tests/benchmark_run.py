"""A small run with everything that a published benchmark tells of: leaks, decisions, copies, licences of both kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskmill import cli
from taskmill.artifact import Inputs
from taskmill.records import DIRECTORIES

RECIPE = """\
name: quays
seed: 3
data_root: upstream
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
      license: MIT
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
  - reader: table
    path: echoes.jsonl
    benchmark: own
    options:
      task: echoes
      category: Dialogue
      definition: Repeat it.
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
  - reader: table
    path: tides.jsonl
    benchmark: own
    options:
      task: tides
      category: Dialogue
      definition: Tell the tide.
      license: CC-BY-NC-4.0
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
  - reader: table
    path: drift_test.jsonl
    benchmark: own
    options:
      task: drift
      category: Dialogue
      definition: Tell the drift.
      license: MIT
      metric: rouge_l
      cast: {fields: {text: text}, references: answer, id: id}
plan:
  held_out: {categories: [Summarization]}
  supervised: [own/notes]
  carve_share: 0.25
  num_demonstration_groups: 2
split: {near_duplicates: drop}
render: {num_demonstrations: 1}
mix: {num_prompts: 20, block: 10}
"""
STEMS = ("quay", "reef", "moor", "pier", "lamp", "tide", "kelp", "silt")
"""What every word of the data begins with; no other file of a run has such words."""


def sentence(stem: str, number: int, num_words: int = 18) -> str:
    """Return words that stand in one record alone."""
    return " ".join(f"{stem}zq{chr(97 + place)}{number:02d}" for place in range(num_words))


def make_benchmark_run(
    folder: Path, upto: str = "mix", of_echoes: str = "drop_train_examples", of_tides: str = "keep"
) -> Path:
    """Write data, recipe and decisions into a folder and the run `folder/run`; returns the run.

    `own/echoes` holds sentences of `other/logs`, of `own/notes`, and near-duplicates of its own; a person decides that the
    examples touched by the logs go, a rule those by the notes. `own/tides` holds one sentence of another log and a copy of it,
    which a person keeps. A note stands there twice. `own/drift` is a test that nobody asked for.
    `of_echoes` and `of_tides` are what the person decides.
    """
    notes = [_row("n", i, sentence("quay", i), sentence("reef", i, 14)) for i in range(40)]
    notes.append({**notes[7], "id": "n90"})
    logs = [_row("l", i, sentence("moor", i), sentence("pier", i, 3)) for i in range(12)]
    echoes = [_row("e", i, sentence("lamp", i, 30), sentence("kelp", i, 3)) for i in range(20)]
    echoes += [_row("s", i, f"{sentence('lamp', 40 + i)} {sentence('moor', i)}", "lampzq") for i in range(6)]
    echoes[20]["text"] += " " + sentence("moor", 9, 14)
    echoes[21]["text"] += " " + sentence("moor", 11, 15)
    for i in range(20):
        start = f"{sentence('moor', 7, 14)} " if i % 2 else ""
        echoes.append(_row("q", i, start + sentence("quay", i), "lampzq"))
    echoes += [_row("d", i, sentence("lamp", 60, 60) + f" lampzqend{i}", "kelpzq") for i in range(3)]
    tides = [_row("t", i, sentence("tide", i), sentence("kelp", 50 + i, 3)) for i in range(16)]
    tides.append(_row("k", 0, f"{sentence('moor', 10)} {sentence('tide', 30)}", "tidezq"))
    tides.append({**logs[10], "id": "copy"})
    drift = [_row("f", i, sentence("silt", i), sentence("silt", 50 + i, 3)) for i in range(5)]
    upstream = folder / "upstream"
    upstream.mkdir(parents=True)
    tables = {"notes": notes, "logs": logs, "echoes": echoes, "tides": tides, "drift_test": drift}
    for name, rows in tables.items():
        (upstream / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    run = folder / "run"
    _call(
        "run", str(folder / "recipe.yaml"), "--to", "overlap", "--run", str(run), "--quiet", "--workers", "1"
    )
    for train, action, why in (
        ("own/echoes", of_echoes, "the logs read aloud"),
        ("own/tides", of_tides, "one log only"),
    ):
        _call("decisions", "set", str(run), train, "other/logs", action, "--why", why, "--by", "ann")
    _call("run", str(run), "--to", upto, "--quiet", "--workers", "1")
    return run


def inputs_of(run: Path) -> Inputs:
    """Return access to the stages of a run."""
    return Inputs(
        {stage: run / DIRECTORIES[stage] for stage in ("curate", "overlap", "split", "render", "mix")}
    )


def _row(prefix: str, number: int, text: str, answer: str) -> dict[str, str]:
    return {"id": f"{prefix}{number:02d}", "text": text, "answer": answer}


def _call(*arguments: str) -> None:
    """Run a command that must end well."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert not stopped.value.code, arguments
