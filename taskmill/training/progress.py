"""What a running training says of itself."""

from __future__ import annotations

import logging
import time
from typing import Any

log = logging.getLogger("taskmill")
_LOG_SECONDS = 15.0


class Progress:
    """A line in the log at the first update, the last, and every few seconds."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps, self._shown, self._num_tokens = num_steps, time.monotonic(), 0

    def show(self, line: dict[str, Any]) -> None:
        """Take in an update."""
        now, step = time.monotonic(), line["step"]
        self._num_tokens += line["num_tokens"]
        if step not in (1, self._num_steps) and now - self._shown < _LOG_SECONDS:
            return
        speed = self._num_tokens / max(now - self._shown, 1e-9)
        log.info(
            "train: update %d of %d, loss %.4f, %.0f tokens/s", step, self._num_steps, line["loss"], speed
        )
        self._shown, self._num_tokens = now, 0
