"""metrics.jsonl: a line per update and per validation, durable up to the last checkpoint (no torch).

    {"gradient_norm": 1.71, "learning_rate": 5e-05, "loss": 2.31, "num_tokens": 4051, "num_trained": 802, "step": 7}
    {"step": 7, "validation": {"held_out": 2.6, "partial": 2.4, "supervised": 2.2}}

A line is canonical JSON. The validation after update s stands behind the line of s and before the checkpoint of s, so that a
training that goes on from there writes the same file. Times and speeds are in no line: equal trainings have equal files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taskmill import storage
from taskmill.errors import DamagedError, StorageError
from taskmill.storage import canonical_json


class Metrics:
    """metrics.jsonl while it grows; it is durable up to the last checkpoint.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """

    def __init__(self, path: Path, num_bytes: int) -> None:
        """Cut the file to `num_bytes` and append from there."""
        self.path, self.num_bytes = path, num_bytes
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._handle, num_bytes)
        os.lseek(self._handle, num_bytes, os.SEEK_SET)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line."""
        left = memoryview(canonical_json(line) + b"\n")
        self.num_bytes += len(left)
        try:
            while len(left):
                left = left[storage._write(self._handle, left) :]
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Make the lines written so far durable."""
        try:
            storage._fsync(self._handle)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def validation_line(step: int, losses: Mapping[str, float]) -> dict[str, Any]:
    """Return the line of a validation after `step` updates: `losses` are nats per trained token, by level."""
    return {"step": step, "validation": dict(losses)}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl: lines of both kinds, in order; `updates` and `validations` part them.

    Raises:
        DamagedError: missing or with a line that is not a JSON object.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict):
            raise DamagedError(f"{path} cannot be read: line {number} is no JSON object")
    return lines


def updates(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of updates."""
    return [line for line in lines if "validation" not in line]


def validations(lines: Iterable[Mapping[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    """Return (updates done, loss by level) of each validation."""
    return [(line["step"], line["validation"]) for line in lines if "validation" in line]
