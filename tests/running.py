"""Run the command line from tests: in a process of its own, or in this one with what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskmill import cli
from taskmill.artifact import read_manifest, stage_directory
from taskmill.stages import NAMES

ROOT = Path(__file__).resolve().parent.parent

TINY = (
    "mix.num_prompts=300",
    "train.num_steps=3",
    "train.warmup_steps=1",
    "train.checkpoint_steps=2",
    "train.architecture.num_layers=1",
    "train.architecture.hidden_size=32",
    "train.architecture.feedforward_size=64",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "tokenize.vocab_size=512",
    "render.test_examples=4",
    "evaluate.shots=[0]",
    "evaluate.max_new_tokens=3",
    "evaluate.num_resamples=20",
)
"""Overrides that make the demo quick where what the model learns does not matter."""


def settings(values: tuple[str, ...]) -> list[str]:
    """Return overrides as arguments."""
    return [part for value in values for part in ("--set", value)]


def taskmill(
    *arguments: str, cwd: Path | None = None, code: str | None = None, package: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `taskmill` in a process of its own; `code` runs there before it, `package` is where the package lies."""
    script = f"{code or ''}\nfrom taskmill.cli import main\nimport sys\nmain(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=cwd, env=environment
    )


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `taskmill` in this process; returns the exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def roots(run: Path) -> dict[str, str]:
    """Return the row digest over everything that each finished stage wrote."""
    found = {}
    for stage in NAMES:
        directory = stage_directory(run, stage)
        for folder in sorted(directory.glob("*/")) if stage == "tokenize" else [directory]:
            manifest = read_manifest(folder)
            if manifest is not None:
                found[stage] = manifest.root
    return found


def json_lines(text: str) -> list[Any]:
    """Parse one JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]
