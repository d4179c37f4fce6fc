"""Units of answering: the same rows whoever answers them, nothing asked twice, nothing lost to a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskmill.evaluation.answering import jobs
from taskmill.evaluation.answering.models import Model
from taskmill.evaluation.asking import prompts
from taskmill.recipe_evaluate import Sampling, TaskScoring

TABLES = ("predictions.parquet", "scores.parquet")


def digests(run: Path) -> list[str]:
    return [hashlib.sha256((run / "scores" / name).read_bytes()).hexdigest() for name in TABLES]


def clear(run: Path) -> None:
    """Forget everything that was answered."""
    shutil.rmtree(run / "scores", ignore_errors=True)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_CHUNK_PROMPTS", 4)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes take over as soon as one unit is answered."""
    monkeypatch.setattr(jobs, "START_SECONDS", -1e9)
    monkeypatch.setattr(jobs, "PROBE_SECONDS", 0.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """(model, task, shots) of the units that this process answers."""
    found: list[tuple[str, str, int]] = []
    original = jobs.answer_job

    def counting(job: jobs.Job) -> Any:
        found.append((job.unit.model.name, job.unit.rule.task, job.unit.shots))
        return original(job)

    monkeypatch.setattr(jobs, "answer_job", counting)
    return found


SAMPLED = Sampling(num_samples=2, temperature=1.0)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED])
def test_scores_are_the_same_for_every_batch_size(
    run: Path, evaluate_run: Callable[..., Any], sampling: Sampling, small_chunks: None
) -> None:
    found = set()
    for size in (1, 3, 16):
        clear(run)
        evaluate_run(batch_size=size, sampling=sampling, num_resamples=5, shots=(2,), baseline=False)
        found.add(digests(run)[1])
    assert len(found) == 1


def test_rows_are_the_same_for_every_number_of_workers(
    run: Path, evaluate_run: Callable[..., Any], small_chunks: None, eager: None, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="taskmill")
    evaluate_run(num_resamples=5, shots=(0,))
    alone = digests(run)
    clear(run)
    evaluate_run(workers=3, num_resamples=5, shots=(0,))
    assert "3 processes answer" in caplog.text
    assert digests(run) == alone


def test_only_what_an_answer_depends_on_asks_again(
    run: Path, evaluate_run: Callable[..., Any], asked: list[tuple[str, str, int]]
) -> None:
    settings: dict[str, Any] = {"baseline": False, "shots": (0,)}
    evaluate_run(**settings)
    assert len(asked) == 3
    f1 = TaskScoring(("alpha/free",), metric="token_f1", normaliser="squad", extract="first_line")
    changes: list[tuple[dict[str, Any], set[str]]] = [
        ({"num_resamples": 7, "batch_size": 3, "tasks": (f1,), "pass_k": 1}, set()),
        ({"max_new_tokens": 5}, {"alpha/free", "alpha/odd"}),
        ({"normalisation": "token"}, {"alpha/choice"}),
        ({"stop": ("mat",)}, {"alpha/free", "alpha/odd"}),
        ({"tasks": (TaskScoring(("alpha/choice",), options="generate"),)}, {"alpha/choice"}),
    ]
    for change, expected in changes:  # each on top of those before
        asked.clear()
        settings |= change
        evaluate_run(force=True, **settings)
        assert {task for _, task, _ in asked} == expected, change
    asked.clear()
    evaluate_run(force=True, **{**settings, "shots": (0, 2), "baseline": True})
    assert ("final", "alpha/free", 0) not in asked and len(asked) == 9


def test_the_longest_units_go_first_and_one_model_after_the_other(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    seen: list[jobs.Unit] = []
    original = jobs.answer_job
    monkeypatch.setattr(jobs, "answer_job", lambda job: seen.append(job.unit) or original(job))
    evaluate_run(shots=(0,))
    assert len(seen) == (3 + 2 + 1) * 2, "chunks of at most four prompts"
    keys = [(unit.model.name, -unit.cost.bit_length()) for unit in seen]
    assert keys == sorted(keys)


CODE = """
import os, signal, sys
from pathlib import Path
from evaluation_run import inputs_of, resolved
from taskmill.artifact import Identity, open_stage
from taskmill.evaluation import build
from taskmill.evaluation.answering import jobs
from taskmill.evaluation.asking import prompts
from taskmill.recipe import Evaluate
from taskmill.settings import Settings

def main(run, workers, last):
    prompts._CHUNK_PROMPTS = 4
    jobs.START_SECONDS, jobs.PROBE_SECONDS = -1e9, 0.0
    seen, add = [], jobs._Progress.add
    def stop(self, unit, record):
        add(self, unit, record)
        seen.append(unit)
        if len(seen) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    jobs._Progress.add = stop
    section = Evaluate(shots=(2,), max_new_tokens=6, num_resamples=50, zero_shot_only=())
    settings, inputs = Settings(resolved(section, run), build.SECTIONS, workers), inputs_of(run)
    identity = Identity("evaluate", build.REVISION, build.fingerprinted(settings), 3, None,
                        inputs.identity(build.reads(settings, inputs)), build.external(settings, inputs))
    build.build(settings, inputs, open_stage(run / "scores", identity))

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.parametrize(("workers", "last"), [(1, 3), (2, 4)])
def test_a_killed_run_loses_no_unit_that_was_finished(
    run: Path, evaluate_run: Callable[..., Any], small_chunks: None, tmp_path: Path, workers: int, last: int,
    asked: list[tuple[str, str, int]],
) -> None:  # fmt: skip
    script = tmp_path / "killed.py"
    script.write_text(CODE)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent.parent)])
    done = subprocess.run(
        [sys.executable, str(script), str(run), str(workers), str(last)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -9
    kept = len(list((run / "scores/shards").glob("predict-*.json")))
    assert last <= kept <= 12 and not (run / "scores/manifest.json").exists()
    evaluate_run(shots=(2,))
    assert len(asked) == 12 - kept
    resumed = digests(run)
    assert not list((run / "scores").rglob("*.tmp"))
    clear(run)
    evaluate_run(shots=(2,))
    assert digests(run) == resumed


def test_processes_are_limited_by_workers_units_and_memory(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation_run import resolved

    from taskmill.recipe import Evaluate
    from taskmill.settings import Settings

    def most(workers: int, num_units: int, total: int | None, free: int | None = None) -> int:
        settings = Settings(resolved(Evaluate(), run), ("evaluate", "train"), workers)
        monkeypatch.setattr(jobs, "memory", lambda: (total, total if free is None else free))
        unit: Any = SimpleNamespace(model=Model("final", "x", run, 10**9))
        found = jobs._most_processes([unit] * num_units, settings)
        return found if free is None else jobs._fitting_now([unit] * num_units, settings, found)

    assert most(8, 100, None) == 8
    assert most(8, 3, None) == 3
    assert most(8, 100, 8 * 10**9) == 3
    assert most(8, 100, 10**8) == 1
    assert most(8, 100, 8 * 10**9, free=5 * 10**9) == 2
    server: Any = SimpleNamespace(model=Model("endpoint", "x"))
    assert jobs._most_processes([server] * 9, Settings(resolved(Evaluate(), run), ("evaluate",), 8)) == 1
    monkeypatch.undo()
    total, free = (1, 1) if jobs.memory()[0] is None else jobs.memory()
    assert total >= free > 0


def test_tiny_amounts_of_work_stay_in_this_process() -> None:
    clock = jobs._Clock()
    job: Any = SimpleNamespace(unit=SimpleNamespace(cost=1000))
    assert not clock.pays([job] * 50, 4), "nothing is known yet"
    with clock.answering(10, False):
        pass
    clock._seconds = 2.0
    assert clock.pays([job] * 50, 4)
    assert not clock.pays([job] * 50, 1)
    clock._cost = 10_000_000
    assert not clock.pays([job] * 50, 4)
