"""The processes that train together: who we are, sums over all, and models spread over devices.

A process is alone unless `torchrun` or `accelerate launch` started it (RANK and WORLD_SIZE are in its environment).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The processes of one training."""

    rank: int = 0
    """This process, from 0."""
    size: int = 1
    """Processes in all."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sums(self, values: list[float]) -> list[float]:
        """Return the sums of each value over all processes, in fp64."""
        return values
