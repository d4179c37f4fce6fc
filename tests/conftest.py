"""Fixtures of the whole suite."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Slow machines are no failures; CI draws the same cases every time, a developer's machine others each time.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")

# A shell starts background jobs with Ctrl-C ignored, and their children inherit that: tests of Ctrl-C need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite and every process it starts have caches of their own, and no way to the real Hub.
CACHES = tempfile.mkdtemp(prefix="taskmill-tests-")
atexit.register(shutil.rmtree, CACHES, ignore_errors=True)
os.environ.update(
    TASKMILL_CACHE=f"{CACHES}/taskmill",
    HF_HOME=f"{CACHES}/huggingface",
    HF_ENDPOINT="http://127.0.0.1:9",
    HF_HUB_DISABLE_TELEMETRY="1",
)
os.environ.pop("HF_TOKEN", None)

# Other processes share the cores: threads that wait for one another sleep, as spinning makes training several times slower.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TASKMILL_SHARED_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the demo first: the longest file, which keeps both cores busy, ends long before any other of several seconds."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real upstream files; tests that use it skip when it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real upstream data at {SHARED_DATA} (set TASKMILL_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as it ships, run once through the command line with two workers: `<folder>/runs/demo`.

    Its tests are all in `test_demo.py`: the files of the suite are shared out whole among processes, each of which would
    run it again.
    """
    from running import taskmill

    folder = tmp_path_factory.mktemp("demo")
    done = taskmill("run", "demo", "--workers", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "demo"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo made quick (see `running.TINY`), run with one worker."""
    from running import TINY, settings, taskmill

    run = tmp_path_factory.mktemp("tiny") / "run"
    done = taskmill("run", "demo", "--run", str(run), "--workers", "1", *settings(TINY))
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with `data` and `recipe.yaml` (see `small.RECIPE`), which is the present directory."""
    from small import make_small

    make_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `small_data` with its finished run `run`; to be copied, never changed."""
    from small import make_small

    from taskmill import cli

    folder = tmp_path_factory.mktemp("small")
    make_small(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["run", str(folder / "recipe.yaml"), "--run", str(folder / "run"), "--quiet", "--workers", "1"]
        )
    assert not stopped.value.code
    return folder


@pytest.fixture
def small_run(small_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `small_built`, which is the present directory."""
    shutil.copytree(small_built, tmp_path, dirs_exist_ok=True)
    recorded = tmp_path / "run/recipe.json"
    recorded.write_text(recorded.read_text().replace(str(small_built), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path
