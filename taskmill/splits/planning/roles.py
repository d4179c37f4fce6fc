"""What a task is used for: its level and its role in a benchmark. Reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

TRAINING_ROLES, EVALUATION_ROLES = ("train", "both"), ("eval", "both")


@dataclass(frozen=True)
class TaskPlan:
    """What a task is used for."""

    task: str
    level: str | None
    role: str
    why: str
    is_validation: bool = False
    """Whether some of its examples are set aside to choose models by."""
