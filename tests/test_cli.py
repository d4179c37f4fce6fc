"""The command line: quick help, one message for every mistake, exit codes."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tiny_stage import build

from taskmill import errors
from taskmill.cli import cli
from taskmill.errors import DamagedError, DataError, TaskmillError
from taskmill.recipe_files import shipped
from taskmill.runs import RunLock
from taskmill.stages import NAMES

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "transformers",
    "polars",
    "pyarrow",
    "datasets",
    "numpy",
    "pydantic",
    "jinja2",
    "yaml",
    "numba",
)
RECIPE = "name: tiny\ndata_root: data\nsources:\n  - {reader: flan, path: flan}\n"


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "taskmill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def assert_one_message(done: subprocess.CompletedProcess[str], code: int, *expected: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    for text in expected:
        assert text in done.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    script = (
        "import sys\nfrom taskmill.cli import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit as stop: code = stop.code\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    code, *loaded = done.stderr.split()
    assert code == "0" and "click" in loaded
    assert not set(loaded) & set(HEAVY)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize("name,command", list(commands(cli)), ids=lambda value: str(value))
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    text = inspect.cleandoc(command.help or "")
    assert text.partition("\n")[0].endswith("."), "one line that says what it does"
    assert f"Example:\n  taskmill {name}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.metavar, f"{name} {parameter.opts}"


def test_every_stage_is_a_command() -> None:
    assert set(NAMES) < set(cli.commands)


# -------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (("rnu", "demo"), "No such command 'rnu'"),
        (
            ("run", "no-such-recipe"),
            "no recipe file, shipped recipe or run directory is called 'no-such-recipe'",
        ),
        (("run",), "Missing argument 'RECIPE'"),
        (("run", "RECIPE", "--set", "mix.cpa=3"), "mix.cpa: unknown key - did you mean 'cap'?"),
        (("run", "RECIPE", "--set", "mix.cap"), "expected KEY=VALUE"),
        (("run", "RECIPE", "--from", "tokenise"), "no stage 'tokenise' - did you mean 'tokenize'?"),
        (("run", "RECIPE", "--from", "mix", "--to", "split"), "--from mix comes after --to split"),
        (("curate", "RECIPE", "--workers", "0"), "--workers"),
        (("curate", "RECIPE", "--limit", "none"), "--limit"),
        (("recipes", "show", "RECIPE", "--set", "seed=x"), "seed: found 'x'; expected an integer"),
        (("verify", "."), "holds no finished stage"),
        (("render", "RECIPE"), "run `taskmill curate RECIPE` first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_message(recipe: Path, arguments: tuple[str, ...], expected: str) -> None:
    done = run(*(str(recipe) if a == "RECIPE" else a for a in arguments), cwd=recipe.parent)
    assert_one_message(done, 2, expected)


def test_every_problem_of_a_recipe_is_listed(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("flan,", "flann,") + "mix: {capp: 3}\nseed: x\n")
    done = run("run", str(recipe), cwd=recipe.parent)
    assert_one_message(
        done, 2, "recipe.yaml:4: sources.0.reader", "recipe.yaml:5: mix.capp", "recipe.yaml:6: seed"
    )
    assert not (recipe.parent / "runs").exists()


def test_missing_source_is_a_message(recipe: Path) -> None:
    done = run("curate", str(recipe), cwd=recipe.parent)
    assert done.returncode in (1, 2)
    assert_one_message(done, done.returncode, "flan")


def test_busy_run_fails_with_1(recipe: Path) -> None:
    with RunLock(recipe.parent / "busy"):
        done = run("curate", str(recipe), "--run", "busy", cwd=recipe.parent)
    assert_one_message(done, 1, "busy is being written by another process")


def test_run_in_a_place_that_cannot_be_written(recipe: Path) -> None:
    done = run("curate", str(recipe), "--run", str(recipe / "below"), cwd=recipe.parent)
    assert_one_message(done, 2, "cannot be a directory", "is a file", "--run DIR")


def test_dry_run_writes_nothing(recipe: Path) -> None:
    done = run("run", str(recipe), "--to", "split", "--dry-run", "--json", cwd=recipe.parent)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr
    assert sorted(p.name for p in recipe.parent.iterdir()) == ["recipe.yaml"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_command_says_so(number: signal.Signals, code: int) -> None:
    script = (
        "import time; from taskmill.cli import cli, main\n"
        "@cli.command()\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "main(['wait'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in messages
    assert "what was finished is kept" in messages


# ------------------------------------------------------------------------------------- what they print


def test_recipes_list_show_schema(recipe: Path) -> None:
    listed = run("recipes", "list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(shipped())
    shown = run("recipes", "show", str(recipe), "--set", "mix.cap=9")
    assert "mix.cap = 9  # --set\n" in shown.stdout
    assert 'name = "tiny"  # recipe.yaml:1\n' in shown.stdout and "seed = 0  # default\n" in shown.stdout
    body = json.loads(run("recipes", "show", str(recipe), "--json").stdout)
    assert body["values"]["name"] == "tiny" and body["origin"]["seed"] == "default"
    assert "mix.cap: integer = 4096\n" in run("recipes", "schema").stdout
    assert "mix" in json.loads(run("recipes", "schema", "--json").stdout)["properties"]


def test_verify_names_damage_and_fails_with_1(tmp_path: Path) -> None:
    build(tmp_path / "tasks")
    done = run("verify", str(tmp_path))
    assert done.returncode == 0 and done.stdout == "8 files checked, 0 problems\n"
    (tmp_path / "tasks" / "alpha.txt").write_bytes(b"x" * 50)
    done = run("verify", str(tmp_path), "--json")
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert "alpha.txt: bytes differ" in problem


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m taskmill recipes schema | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_messages_cannot_steer_a_terminal() -> None:
    terminal, side = os.openpty()
    command = [sys.executable, "-m", "taskmill", "verify", "no\x1b[31mrun"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=side, cwd=ROOT, check=False)
    os.close(side)
    told = os.read(terminal, 4096).decode()
    os.close(terminal)
    assert "\x1b" not in told and "no␛[31mrun" in told


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_read_and_write_nothing(closed: str) -> None:
    script = (
        "import sys; from taskmill.cli import main\n"
        "try: main(['--version'])\n"
        "finally: sys.stdin.read(), sys.stdout.isatty(), sys.stderr.isatty()\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------- errors


def every_error() -> list[TaskmillError]:
    made: list[TaskmillError] = [
        DataError("odd", file="a.json", record=3, field="x", value="y" * 300, expected="text", hint="Look."),
        errors.RecipeError(["r.yaml:1: a", "r.yaml:2: b"]),
        errors.MissingPackageError("torch", "train", "training"),
    ]
    kinds = [k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, TaskmillError)]
    return made + [kind("a message") for kind in kinds if kind not in map(type, made)]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_errors_cross_process_boundaries(error: TaskmillError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and again.args == error.args and str(again) == str(error)
    assert again.__dict__ == error.__dict__ and again.exit_code == error.exit_code


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {type(error).__name__: error.exit_code for error in every_error()}
    assert {name for name, code in codes.items() if code == 2} == {"RecipeError", "UsageError"}
    assert {name for name, code in codes.items() if code == 3} == {"DecisionNeededError"}
    assert set(codes.values()) == {1, 2, 3}


def test_messages_name_place_value_and_expectation() -> None:
    error = DataError("odd", file="a.json", record=3, field="x", value=7, expected="text", hint="Look there.")
    assert str(error) == "a.json, record 3, field 'x': odd (found 7); expected text. Look there."
    assert str(DataError("odd", field="x")) == "field 'x': odd"
    assert errors.nearest("BOOLQ", ["boolq", "BOOK"]) == "boolq" and errors.nearest("zzz", ["boolq"]) is None
    assert errors.did_you_mean("flann", ["flan"]) == " - did you mean 'flan'?"
    assert len(errors.shorten("x" * 500)) == 120
    assert isinstance(DamagedError("x"), TaskmillError)
