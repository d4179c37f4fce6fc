"""Run a stage's shards on this machine's cores: spawned processes, results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from taskmill.errors import TaskmillError
from taskmill.watching import SLOT, Watch, Watchdog, activity

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def leave_pandas_out() -> None:
    """Let pyarrow of this process believe that there is no pandas.

    It would load it, which takes as long as a small shard, to ask whether the lists that it is given are pandas' own.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    absent: Any = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])  # asks, and never again
    finally:
        sys.meta_path.remove(absent)


class _Absent:
    """An import hook that knows pandas to be missing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


_slot = 0


def slot() -> int:
    """Return which of the workers this process is, from 0: what it may take for itself alone, such as a GPU.

    0 in a process that is no worker.
    """
    return _slot


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, watch: Watch | None = None
) -> Iterator[Result]:
    """Call `function` on every job and yield the results in order, whatever the number of workers.

    `function` must be a module-level function and jobs picklable. One job or one worker runs here, unless it is watched:
    nothing can end this process's own work when it is stuck, so watched work always runs in spawned workers.

    Args:
        watch: the limits within which a worker must go on with what it publishes through `watching.activity`.

    Raises:
        LimitError: a worker went beyond `watch` and was ended.
        TaskmillError: a worker process was killed, as the system does when memory runs out.
        whatever `function` raises, for the first job that fails.
    """
    if not jobs:
        return
    if watch is None and (workers <= 1 or len(jobs) <= 1):
        for job in jobs:
            yield function(job)
        return
    number = max(1, min(workers, len(jobs)))
    context = multiprocessing.get_context("spawn")
    board = context.RawArray("c", number * SLOT) if watch is not None else None
    taken = context.Value("i", 0)
    dog = Watchdog(watch, board) if watch is not None else None
    try:
        yield from _in_workers(function, jobs, number, board, taken)
    except BrokenProcessPool as error:
        if dog is not None and dog.error is not None:
            raise dog.error from error
        doing = "; ".join(dog.doing()) if dog is not None else ""
        raise TaskmillError(
            "a worker process was killed or crashed, perhaps because memory ran out"
            + (f" ({doing})" if doing else "")
            + "; what was finished is kept: run again with --workers 1"
        ) from error
    finally:
        if dog is not None:
            dog.stop()


def _in_workers(
    function: Callable[[Job], Result], jobs: Sequence[Job], number: int, board: Any, taken: Any
) -> Iterator[Result]:
    """Yield the results of spawned workers, which publish what they do on `board`.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        number, mp_context=context, initializer=_follow_parent, initargs=(board, taken)
    ) as pool:
        with _interrupts_held():
            pending: list[Future[Result]] = [pool.submit(_work, function, job) for job in jobs]
        try:
            for future in pending:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _work(function: Callable[[Job], Result], job: Job) -> Result:
    """Do one job; what it publishes ends with it."""
    try:
        return function(job)
    finally:
        activity.rest()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT back until the block ends; processes started in it never get one, from their first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent(board: Any, taken: Any) -> None:
    """Leave interrupts to the parent, and end with it: a run that was killed must not go on writing."""
    global _slot
    with taken.get_lock():
        _slot = taken.value
        taken.value += 1
    if board is not None:
        activity.join(board, _slot)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_pandas_out()
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker process"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
