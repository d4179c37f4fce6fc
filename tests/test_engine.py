"""Jobs on spawned workers: order, errors, and workers that end with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskmill.engine import default_workers, run_jobs
from taskmill.errors import DataError, TaskmillError


def work(job: int) -> int:
    if job == 13:
        raise DataError("bad record", file="a.json", record=job)
    if job == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return job * job


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    assert list(run_jobs(work, [3, 1, 2, 5], workers)) == [9, 1, 4, 25]
    assert default_workers() >= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_cross_the_process_boundary_whole(workers: int) -> None:
    with pytest.raises(DataError, match=r"a\.json, record 13: bad record") as caught:
        list(run_jobs(work, [1, 13, 2], workers))
    assert (caught.value.file, caught.value.record) == ("a.json", 13)


def loads_pandas(job: int) -> bool:
    import pyarrow as pa

    pa.table({"number": [job]})
    return "pandas" in sys.modules


def test_workers_do_not_load_pandas() -> None:
    assert list(run_jobs(loads_pandas, [1, 2], 2)) == [False, False]


def test_killed_worker_is_one_message() -> None:
    with pytest.raises(TaskmillError, match=r"worker process was killed.*--workers 1"):
        list(run_jobs(work, [99, 1], 2))


def write_forever(path: str) -> None:
    with Path(f"{path}.{os.getpid()}").open("ab", buffering=0) as file:
        for _ in range(3000):
            file.write(b".")
            time.sleep(0.02)


def test_workers_end_with_a_killed_run(tmp_path: Path) -> None:
    """A worker that outlived its run would go on writing where the next run writes."""
    here = Path(__file__).parent
    script = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "from test_engine import write_forever; from taskmill.engine import run_jobs\n"
        f"if __name__ == '__main__': list(run_jobs(write_forever, [{str(tmp_path / 'worker')!r}] * 2, 2))\n"
    )
    (tmp_path / "main.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("worker.*"))) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    sizes = [-1]
    while sizes != (sizes := [p.stat().st_size for p in sorted(tmp_path.glob("worker.*"))]):
        assert time.monotonic() < deadline, "the workers are still writing"
        time.sleep(0.5)
