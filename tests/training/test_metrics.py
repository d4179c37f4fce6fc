"""metrics.jsonl: both kinds of line, in order; what is damaged is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmill.errors import DamagedError
from taskmill.training.monitoring.metrics import Metrics, read_metrics, updates, validation_line, validations

LINES = [
    {"step": 1, "loss": 3.5, "num_tokens": 10},
    validation_line(1, {"held_out": 3.75, "supervised": 3.5}),
    {"step": 2, "loss": 3.25, "num_tokens": 12},
]


def write(path: Path) -> int:
    metrics = Metrics(path, 0)
    with metrics:
        for line in LINES:
            metrics.append(line)
        metrics.sync()
    return metrics.num_bytes


def test_both_kinds_are_read_and_parted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert write(path) == path.stat().st_size
    lines = read_metrics(path)
    assert lines == LINES
    assert [line["loss"] for line in updates(lines)] == [3.5, 3.25]
    assert validations(lines) == [(1, {"held_out": 3.75, "supervised": 3.5})]


def test_a_training_that_goes_on_cuts_what_lies_behind_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path)
    first_two = sum(len(line) for line in path.read_bytes().splitlines(keepends=True)[:2])
    metrics = Metrics(path, first_two)
    with metrics:
        metrics.append({"step": 2, "loss": 3.0})
    assert read_metrics(path) == [*LINES[:2], {"step": 2, "loss": 3.0}]


@pytest.mark.parametrize("text", ['{"step": 1}\n{"st', '{"step": 1}\n7\n', None])
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DamagedError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(path)
