"""What watches a training: metrics.jsonl, the live line and trackers, on the process that writes (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from taskmill.settings import Settings
from taskmill.training.monitoring.metrics import Metrics, validation_line
from taskmill.training.monitoring.progress import Progress
from taskmill.training.monitoring.tracking import open_trackers


class Watchers:
    """Takes in updates and validations and passes them on."""

    def __init__(
        self, settings: Settings, directory: Path, num_steps: int, first_step: int, metrics_bytes: int
    ) -> None:
        """Go on behind `first_step` of `num_steps` updates.

        Args:
            settings: `track` names the trackers.
            directory: of the stage.
            num_steps: of the whole training.
            first_step: updates done.
            metrics_bytes: length of metrics.jsonl after them.

        Raises:
            UsageError: no tracker has that name.
            MissingPackageError: its package is absent.
        """
        values = settings.values()["train"]
        config = {key: value for key, value in values.items() if not isinstance(value, dict)}
        self._trackers = open_trackers(
            settings.track, directory.parent / "tracking", settings.name, config, first_step
        )
        self._metrics = Metrics(directory / "metrics.jsonl", metrics_bytes)
        self._progress = Progress(num_steps, first_step)

    @property
    def num_bytes(self) -> int:
        """The length of metrics.jsonl."""
        return self._metrics.num_bytes

    def update(self, line: Mapping[str, Any], tokens_per_second: float, mfu: float | None) -> None:
        """Take in the line of an update, as in metrics.jsonl, and the present speed."""
        self._metrics.append(dict(line))
        self._progress.show(line, mfu)
        values = {key: float(value) for key, value in line.items() if key != "step" and value is not None}
        values["tokens_per_second"] = tokens_per_second
        if mfu is not None:
            values["mfu"] = mfu
        self._trackers.log(values, line["step"])

    def validation(self, step: int, losses: Mapping[str, float]) -> None:
        """Take in the loss by level after `step` updates."""
        self._metrics.append(validation_line(step, losses))
        self._progress.validation(losses)
        self._trackers.log({f"validation/{level}": loss for level, loss in losses.items()}, step)

    def sync(self) -> None:
        """Make what was taken in so far durable."""
        self._metrics.sync()
        self._trackers.flush()

    def pause(self) -> None:
        """Say that the time since the last update belongs to none."""
        self._progress.pause()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        self._trackers.close()
        self._metrics.__exit__()
