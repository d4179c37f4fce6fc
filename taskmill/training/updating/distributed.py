"""The processes that train together: who each is, what rank 0 tells the others, sums over all.

A process is alone unless `torchrun` or `accelerate launch` started it (RANK, WORLD_SIZE and LOCAL_RANK are in its environment).
Rank 0 walks the stages, locks the run, writes and speaks; the others wait to be called to a stage that all of them build together
(`World.call`, `World.calls`), and leave with the exit code of rank 0 (`World.leave`).

Messages go through the launcher's store, so a rank may wait for hours while rank 0 renders; numbers go through a process
group: gloo on the CPU, nccl for tensors on a GPU. torch is imported when the first of either is needed.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from taskmill.errors import MissingPackageError, TaskmillError, UsageError

TIMEOUT = timedelta(minutes=30)
"""Longest wait of a process for the others; rank 0 writes a checkpoint in it."""
POLL_SECONDS = 0.1
LEAVE_SECONDS = 15.0
"""Longest wait at the end for what the other side has to say."""


class PeerError(TaskmillError):
    """Another process of the launch failed; it says why."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this launch failed or was killed; it says why, or its launcher does"
        )


@dataclass(frozen=True)
class World:
    """The processes of one training."""

    rank: int = 0
    """This process, from 0."""
    size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """This process among those of its machine."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    # ---------------------------------------------------------------------------------- numbers

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of each value over all processes, in fp64.

        Raises:
            PeerError: another process is gone.
        """
        if self.size == 1:
            return list(values)
        torch = _group()
        total = torch.tensor(list(values), dtype=torch.float64)
        with self.connected():
            torch.distributed.all_reduce(total)
        return [float(value) for value in total]

    def add_up(self, tensors: Sequence[Any]) -> None:
        """Replace tensors of one type and device by their sums over all processes.

        Raises:
            PeerError: another process is gone.
        """
        if self.size == 1 or not tensors:
            return
        torch = _group()
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self.connected():
            torch.distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors)])

    def hand_out(self, tensors: Sequence[Any]) -> None:
        """Replace tensors by those of rank 0.

        Raises:
            PeerError: another process is gone.
        """
        if self.size > 1:
            torch = _group()
            with self.connected():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def from_main(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return rank 0's value, of JSON types, on every process.

        Raises:
            PeerError: another process is gone.
        """
        if self.size == 1:
            return value
        torch = _group()
        data = json.dumps(value).encode() if self.is_main else b""
        length = int(self.sums([float(len(data))])[0])
        buffer = torch.frombuffer(bytearray(data or bytes(length)), dtype=torch.uint8)
        with self.connected():
            torch.distributed.broadcast(buffer, 0)
        result: dict[str, Any] = json.loads(bytes(buffer.tolist()))
        return result

    def check_equal(self, values: Mapping[str, int]) -> None:
        """Check that every process sees the same numbers, each below 2 ** 40.

        Raises:
            TaskmillError: they differ: the processes read other files.
        """
        if self.size == 1:
            return
        totals = self.sums([float(value) for value in values.values()])
        wrong = [float(value * self.size != total) for value, total in zip(values.values(), totals)]
        named = [name for name, number in zip(values, self.sums(wrong)) if number]
        if named:
            raise TaskmillError(
                f"the processes of this launch do not see the same training: {', '.join(named)} differ; every machine "
                f"needs the same run directory, base model and versions of torch and transformers"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """End a block on all processes as soon as all have ended it; where it fails on one it fails on all.

        Raises:
            PeerError: it failed on another process.
        """
        failed = 1.0
        try:
            yield
            failed = 0.0
        finally:
            number = self.sums([failed])[0]
        if number:
            raise PeerError

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Turn what torch raises when another process is gone into a PeerError."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and any(word in str(error) for word in ("gloo", "NCCL", "Connection", "peer")):
                raise PeerError from error
            raise

    # --------------------------------------------------------------------------------- messages

    def call(self, stage: str) -> None:
        """On rank 0: call the others to a stage that all build together."""
        if self.size > 1:
            _store().set(f"call/{next(_CALLS)}", stage)

    def calls(self) -> Iterator[str]:
        """On the others: the stages that rank 0 calls to, until it is done.

        Raises:
            PeerError: rank 0 is gone.
        """
        number = 0
        while True:
            with self.connected():
                while not _has(f"call/{number}"):
                    if _has("end"):
                        return
                    time.sleep(POLL_SECONDS)
                stage = _store().get(f"call/{number}").decode()
            yield stage
            number += 1

    def leave(self, message: str, code: int) -> tuple[bool, int]:
        """Agree on how the launch ends.

        Args:
            message: what this process would say, "" for nothing.
            code: its exit code.

        Returns:
            whether to say it, and the exit code, that of rank 0.
        """
        try:
            said = self._leave(message, code)
            if not said[1] and _group.cache_info().currsize:
                _torch().distributed.destroy_process_group()
            return said
        except (RuntimeError, TaskmillError):  # the store is gone, or never was
            return self.is_main or code == 2, code or int(not self.is_main)

    def _leave(self, message: str, code: int) -> tuple[bool, int]:
        if self.is_main:
            _store().set("end", json.dumps({"message": message, "code": code}))
            seconds = LEAVE_SECONDS / 5 if str(PeerError()) in message else LEAVE_SECONDS  # not all are there
            _wait(lambda: _store().add("left", 0) >= self.size - 1, seconds)
            return True, code
        stopped = code in (130, 143)  # perhaps by the launcher, since rank 0 is gone
        if not _wait(lambda: _has("end"), LEAVE_SECONDS / 5 if stopped else LEAVE_SECONDS):
            return not stopped, code or 1
        end = json.loads(_store().get("end"))
        _store().add("left", 1)
        own = code != 0 and not stopped and message != end["message"] and str(PeerError()) not in message
        return own, end["code"]


@functools.cache
def world() -> World:
    """Return the processes of this launch, from RANK, WORLD_SIZE and LOCAL_RANK.

    Raises:
        UsageError: they are no numbers, or contradict each other.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = [os.environ.get(name, default) for name, default in zip(names, ("0", "1", "0"))]
    try:
        rank, size, local_rank = (int(value) for value in values)
    except ValueError as error:
        raise UsageError(f"{', '.join(names)} are {', '.join(values)}; expected whole numbers") from error
    if not 0 <= rank < size:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {size}; expected ranks from 0 to WORLD_SIZE - 1")
    return World(rank, size, local_rank)


def leave(message: str, code: int) -> tuple[bool, int]:
    """Agree on how the launch ends, see `World.leave`; without a stage that asked who takes part, rank 0 speaks for all, and
    every process where its environment does not say who is rank 0."""
    if not world.cache_info().currsize:
        try:
            return world().is_main, code
        except UsageError:
            return True, code
    return world().leave(message, code) if world().size > 1 else (True, code)


def device_of(joined: World, device: Any) -> Any:
    """Return the device of this process: the GPU of its local rank where `device` is a GPU.

    Raises:
        UsageError: more processes on this machine than GPUs.
    """
    if device.type != "cuda":
        return device
    torch = _torch()
    if joined.local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"process {joined.local_rank + 1} of this machine has no GPU: torch sees {torch.cuda.device_count()}; "
            f"start as many processes as there are GPUs (torchrun --nproc-per-node {torch.cuda.device_count()})"
        )
    torch.cuda.set_device(joined.local_rank)
    return torch.device("cuda", joined.local_rank)


# ------------------------------------------------------------------------------------------- torch


_CALLS = iter(range(1 << 30))


def _torch() -> Any:
    try:
        import torch
        import torch.distributed
    except ImportError as error:
        raise MissingPackageError("torch", "train", "training with several processes") from error
    return torch


@functools.cache
def _store() -> Any:
    """Return the key-value store that the launcher tells of.

    Raises:
        UsageError: it cannot be reached.
    """
    torch = _torch()
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {world().size} and the processes cannot meet ({str(error).splitlines()[0]}); start them "
            f"with `torchrun` or `accelerate launch`, or unset WORLD_SIZE"
        ) from error
    return torch.distributed.PrefixStore("taskmill", store)


@functools.cache
def _group() -> Any:
    """Make the process group and return torch."""
    torch = _torch()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    joined, store = world(), torch.distributed.PrefixStore("group", _store())
    with joined.connected():
        torch.distributed.init_process_group(
            backend, store=store, rank=joined.rank, world_size=joined.size, timeout=TIMEOUT
        )
    return torch


def _has(key: str) -> bool:
    return bool(_store().check([key]))


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS / 4)
    return True
