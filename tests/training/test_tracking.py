"""Trackers: what they write, going on after a kill, and their failures, which end no training."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from taskmill.errors import UsageError
from taskmill.training.monitoring.tracking import TRACKERS, Trackers, open_trackers

Curve = list[tuple[int, float]]
CONFIG = {"learning_rate": 5e-5, "schedule": "linear"}


def tensorboard_curve(folder: Path, name: str) -> Curve:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = reader.EventAccumulator(str(folder / "tensorboard" / "demo"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def trackio_curve(folder: Path, name: str) -> Curve:
    connection = sqlite3.connect(folder / "trackio" / "demo.db")
    rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    connection.close()
    return [(step, json.loads(values)[name]) for step, values in rows if name in json.loads(values)]


CURVES = {"tensorboard": tensorboard_curve, "trackio": trackio_curve}
tracker = pytest.mark.parametrize("name", sorted(TRACKERS))


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, called by other tests, keeps its lines to itself."""
    monkeypatch.setattr(logging.getLogger("taskmill"), "propagate", True)


@pytest.fixture(autouse=True)
def _needs_package(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and "name" in callspec.params:
        pytest.importorskip(TRACKERS[callspec.params["name"]][0], reason="the extra `track` is not installed")


def track(folder: Path, name: str, first: int, last: int, value: float) -> None:
    trackers = open_trackers([name], folder, "demo", CONFIG, first)
    for step in range(first + 1, last + 1):
        trackers.log({"loss": value + step, "learning_rate": 0.5}, step)
        if step % 2 == 0:
            trackers.log({"validation/held_out": value}, step)
    trackers.close()


@tracker
def test_values_are_written(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    track(tmp_path, name, 0, 4, 0.0)
    assert CURVES[name](tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert CURVES[name](tmp_path, "validation/held_out") == [(2, 0.0), (4, 0.0)]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert capfd.readouterr().out == ""


@tracker
def test_a_training_that_goes_on_has_each_step_once(tmp_path: Path, name: str) -> None:
    track(tmp_path, name, 0, 5, 0.0)
    track(tmp_path, name, 3, 6, 10.0)
    assert CURVES[name](tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0), (5, 15.0), (6, 16.0)]
    assert CURVES[name](tmp_path, "validation/held_out") == [(2, 0.0), (4, 10.0), (6, 10.0)]


@tracker
def test_a_training_that_starts_anew_clears_what_was_there(tmp_path: Path, name: str) -> None:
    track(tmp_path, name, 0, 5, 0.0)
    track(tmp_path, name, 0, 2, 10.0)
    assert CURVES[name](tmp_path, "loss") == [(1, 11.0), (2, 12.0)]


KILLED = """
import os, sys
from pathlib import Path
from taskmill.training.monitoring.tracking import open_trackers
trackers = open_trackers(("tensorboard", "trackio"), Path(sys.argv[1]), "demo", {})
for step in range(1, 8):
    trackers.log({"loss": float(step)}, step)
    if step == 4:
        trackers.flush()  # a checkpoint is saved here
os.kill(os.getpid(), 9)
"""


def test_nothing_up_to_the_checkpoint_is_lost_by_a_kill(tmp_path: Path) -> None:
    for package, _ in TRACKERS.values():
        pytest.importorskip(package, reason="the extra `track` is not installed")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    for name in TRACKERS:
        track(tmp_path, name, 4, 6, 10.0)
        expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 15.0), (6, 16.0)]
        assert CURVES[name](tmp_path, "loss") == expected


@tracker
def test_a_tracker_that_cannot_be_opened_is_left_out(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text("a file where a folder should be")
    trackers = open_trackers([name], tmp_path, "demo", CONFIG, first_step=1)
    assert trackers.names == ()
    trackers.log({"loss": 1.0}, 2)
    trackers.close()
    assert f"{name} cannot be opened and is left out: " in caplog.text
    assert len(caplog.records) == 1


def test_a_database_that_breaks_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("trackio", reason="the extra `track` is not installed")
    trackers = open_trackers(["trackio"], tmp_path, "demo", CONFIG)
    trackers.log({"loss": 1.0}, 1)
    trackers.flush()
    for path in (tmp_path / "trackio").glob("demo.db*"):
        path.write_bytes(b"no database" * 500)
    for step in (2, 3):
        trackers.log({"loss": 1.0}, step)
        trackers.flush()
    assert trackers.names == ()
    assert [r.levelno for r in caplog.records if r.name == "taskmill"] == [logging.WARNING]
    assert "trackio failed and is left out from here on: " in caplog.text


class Failing:
    """A tracker whose disk is full."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.calls += 1
        raise OSError("No space left on device")

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Kept:
    """A tracker that works."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_one_that_fails_is_dropped_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    failing, kept = Failing(), Kept()
    trackers = Trackers({"one": failing, "two": kept})
    for step in (1, 2, 3):
        trackers.log({"loss": 1.0}, step)
    trackers.close()
    assert (failing.calls, kept.steps) == (1, [1, 2, 3])
    assert caplog.messages == ["train: one failed and is left out from here on: No space left on device"]


def test_no_names_are_fine(tmp_path: Path) -> None:
    trackers = open_trackers((), tmp_path / "tracking", "demo", {})
    trackers.log({"loss": 1.0}, 1)
    trackers.close()
    assert not os.listdir(tmp_path)


def test_an_unknown_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tracker 'tensorbord' - did you mean 'tensorboard'"):
        open_trackers(["tensorbord"], tmp_path, "demo", {})


@tracker
def test_an_absent_package_is_said(tmp_path: Path, name: str) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.modules[{name!r}] = None\n"
        "from taskmill.errors import MissingPackageError\n"
        "from taskmill.training.monitoring.tracking import open_trackers\n"
        f"try:\n    open_trackers([{name!r}], Path(sys.argv[1]), 'demo', {{}})\n"
        "except MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == (
        f"tracking with {name} needs the package {name}: run `pip install 'taskmill[track]'`\n"
    )
