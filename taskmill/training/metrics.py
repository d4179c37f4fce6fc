"""metrics.jsonl: a line per update, durable up to the last checkpoint (no torch)."""

from __future__ import annotations

import json
import os
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl.

    Raises:
        DamagedError: missing or with a line that is not JSON.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
