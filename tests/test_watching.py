"""The watchdog: a worker that is stuck or grows is ended, by name, whatever it is stuck in."""

from __future__ import annotations

import os
import signal
import time

import pytest
from peak_memory import peak_growth

from taskmill.engine import run_jobs
from taskmill.errors import LimitError, TaskmillError
from taskmill.watching import Watch, activity


def work(job: str) -> str:
    activity.begin(f"the thing {job}")
    if job == "compares":  # one instruction in compiled code, which holds the interpreter's lock throughout
        a, b = [1], [1]
        for _ in range(60):
            a, b = [a, a], [b, b]
        return str(a == b)
    if job == "grows":
        held = "a" * 10**9
        time.sleep(30)
        return held
    if job == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "sleeps":
        activity.rest()
        time.sleep(1.5)
    return job


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stuck_worker_is_ended_by_name(workers: int) -> None:
    done = []
    with pytest.raises(LimitError, match=r"the thing compares: took longer than 1 seconds.*kept\. Do this"):
        for result in run_jobs(work, ["a", "compares", "b"], workers, Watch(1, 4000, "Do this")):
            done.append(result)
    assert done == ["a"]


def test_a_growing_worker_is_ended_and_this_process_does_not_grow() -> None:
    def stop() -> None:
        with pytest.raises(LimitError, match="the thing grows: made the worker hold more than 300 MB"):
            list(run_jobs(work, ["grows", "a"], 1, Watch(60, 300)))

    assert peak_growth(stop) < 50


def test_a_worker_that_dies_is_named_too() -> None:
    with pytest.raises(TaskmillError, match=r"killed or crashed.*\(the thing dies\)"):
        list(run_jobs(work, ["dies"], 1, Watch(60, 4000)))


@pytest.mark.parametrize("workers", [1, 3])
def test_work_within_the_limits_is_as_ever(workers: int) -> None:
    jobs = ["a", "sleeps", "b", "c"]
    assert list(run_jobs(work, jobs, workers, Watch(1, 4000))) == jobs
    assert list(run_jobs(work, [], workers, Watch(1, 4000))) == []
