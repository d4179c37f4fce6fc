"""Programs that a model wrote: what counts as passed, and what they cannot do."""

from __future__ import annotations

import gzip
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskmill.errors import DataError, UsageError
from taskmill.evaluation.metrics import programs
from taskmill.evaluation.metrics.registry import Item, Measure, require, values
from taskmill.recipe_evaluate import Code

CODE = Code(run=True, seconds=1.0, memory_mb=512)
HEAD = 'def twice(x):\n    """Return x two times."""\n'
TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
RIGHT = "    return 2 * x\n"


def item(*samples: str, **fields: Any) -> Item:
    known = {"prompt": HEAD, "test": TEST, "entry_point": "twice", **fields}
    known = {name: value for name, value in known.items() if value is not None}
    return Item(samples, ["return 2 * x"], None, known, "mine/code#0", "mine/code", "p")


def passes(program: str) -> bool:
    return programs.passes(programs.programs(item(), program), programs.tests(item()), CODE)


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (5, 2, 1, 2 / 5),
        (5, 2, 3, 1 - 1 / 10),  # C(3, 3) / C(5, 3)
        (10, 3, 5, 1 - 21 / 252),  # C(7, 5) / C(10, 5)
        (10, 6, 5, 1.0),  # fewer than five fail
        (200, 1, 100, 0.5),
        (4, 0, 4, 0.0),
        (1000, 10, 1, 0.01),
    ],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, value: float) -> None:
    assert programs.pass_at_k(n, c, k) == pytest.approx(value, abs=1e-12)


def test_more_draws_than_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="num_samples"):
        programs.pass_at_k(3, 1, 10)


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT,
        RIGHT.strip(),
        "y = x\n    return y + x",
        HEAD + RIGHT,
        "def twice(x):\n    return 2 * x\n\nI hope that this helps.",
        "Here it is:\n```python\nimport math\n\ndef twice(x):\n    return 2 * x\n```\nFor example:\n```\ntwice(2)\n```\n",
        "return 2 * x\n\ndef other(:",
        "def inner(y):\n        return y\n    return inner(x) + x",
        "import math\n    return int(math.ceil(2 * x))",
    ],
)
def test_right_answers_pass_however_they_are_written(answer: str) -> None:
    assert [v.value for v in values(Measure("pass_at_k", code=CODE), [item(answer)], 1)] == [1.0]


CHEATS = {
    "nothing": "",
    "wrong": "    return 3 * x",
    "does not compile": "    return 2 *",
    "exit": "    raise SystemExit(0)",
    "exit before": RIGHT + "\nimport sys\nsys.exit(0)",
    "os._exit": RIGHT + "\nimport os\nos._exit(0)",
    "os._exit inside": "    import os\n    os._exit(0)",
    "no exec": "    return 3\nimport builtins\nbuiltins.exec = lambda *a: None\nbuiltins.compile = lambda *a: None",
    "no error": "    return 3\nimport builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})",
    "no debug": "    return 3\nimport sys\nsys.flags = None\nsys.excepthook = lambda *a: None",
    "patched exit": "    import os, sys\n    os._exit = sys.exit = lambda *a: None\n    return 3",
    "prints a token": "    import os\n    os.write(3, b'0' * 32)\n    os._exit(0)",
    "check": "    return 3\ndef check(candidate): pass",
    "at exit": "    import atexit, os\n    atexit.register(lambda: os._exit(0))\n    return 3",
    "crash": "    import ctypes\n    ctypes.string_at(0)",
    "recursion": "    return twice(x)",
    "memory": "    return [0] * 10 ** 10",
    "more memory": "    found = []\n    while True: found.append(bytearray(1 << 20))",
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_what_is_not_right_does_not_pass(name: str) -> None:
    assert not passes(CHEATS[name])


@pytest.mark.parametrize(
    "program",
    [
        "    while True: pass",
        "    import signal\n    signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n    while True: pass",
        "    import time\n    time.sleep(600)",
        "    while True: print('x' * 1_000_000)",
        "    import sys\n    while True: sys.stderr.write('x' * 1_000_000)",
        "    import os\n    while True: os.write(3, b'x' * 100_000)",
    ],
    ids=["loop", "deaf loop", "sleep", "print", "complain", "answer"],
)
def test_what_does_not_end_is_ended(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_START_SECONDS", 0.5)
    started = time.monotonic()
    code = Code(run=True, seconds=0.5)
    assert not programs.passes(programs.programs(item(), program), programs.tests(item()), code)
    assert time.monotonic() - started < 8


def test_an_interrupt_does_not_wait_for_programs() -> None:
    import signal
    import threading

    sleeping = [item("    import time\n    time.sleep(600)")] * 20
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        values(Measure("pass_at_k", code=Code(run=True)), sleeping, 2)
    assert time.monotonic() - started < 6


def test_a_fork_bomb_starts_no_process() -> None:
    if "network, processes and signals" in programs.missing_limits(CODE):
        pytest.skip("this system refuses seccomp filters")
    for start in (
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import threading\nthreading.Thread(target=print).start()",
        "import os\nos.execv('/bin/true', ['true'])",
    ):
        assert not passes(RIGHT + start)
        assert passes(RIGHT + f"try:\n    exec({start!r})\nexcept (OSError, RuntimeError): pass")


def test_a_program_reaches_neither_the_network_nor_other_processes() -> None:
    if "network, processes and signals" in programs.missing_limits(CODE):
        pytest.skip("this system refuses seccomp filters")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = "try:\n    {}\nexcept (OSError, ValueError): pass\nelse:\n    raise SystemExit(1)\n"
        for call in (
            f"import socket; socket.create_connection(('127.0.0.1', {port}))",
            f"import os; os.kill({os.getpid()}, 0)",
            "import os; os.kill(-1, 9)",
            f"import resource; resource.prlimit({os.getpid()}, resource.RLIMIT_CPU)",
            "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        ):
            assert passes(RIGHT + refused.format(call)), call


def test_a_program_writes_nowhere_but_in_its_folder(tmp_path: Path) -> None:
    if "writing outside its folder" in programs.missing_limits(CODE):
        pytest.skip("this system has no Landlock")
    kept = tmp_path / "kept"
    kept.write_text("kept", encoding="utf-8")
    refused = "try:\n    {}\nexcept OSError: pass\nelse:\n    raise SystemExit(1)\n"
    for call in (
        f"open({str(kept)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.chmod({str(kept)!r}, 0)",
        f"import os; os.rename({str(kept)!r}, 'mine')",
        f"import os; os.mkdir({str(tmp_path / 'folder')!r})",
    ):
        assert passes(RIGHT + refused.format(call)), call
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and kept.read_text(
        encoding="utf-8"
    ) == "kept"
    assert passes(RIGHT + "open('mine', 'w').write('x')\nopen('/dev/null', 'w').write('x')")


def test_a_program_that_fills_its_folder_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_MOST_FILES", 20)
    started = time.monotonic()
    assert not passes("    import time\n    for i in range(50): open(str(i), 'w')\n    time.sleep(60)")
    assert time.monotonic() - started < 2
    assert not passes(RIGHT + "with open('big', 'wb') as file: file.write(b'x' * (17 << 20))")


@pytest.mark.parametrize("after", ["", "    import time\n    time.sleep(60)"], ids=["leaves", "waits"])
def test_folders_nested_deeper_than_the_stack_are_too_much_and_are_removed(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.tempfile, "tempdir", str(tmp_path))
    deep = f"    import os\n    for i in range({programs._MOST_FILES + 200}): os.mkdir('d'); os.chdir('d')\n"
    assert not passes(deep + after)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_filled_fails_however_soon_the_program_ends() -> None:
    fill = "for i in range({}): open(str(i), 'w').close()\n"
    assert not passes(RIGHT + fill.format(programs._MOST_FILES + 1))
    assert passes(RIGHT + fill.format(100))


def test_a_program_sees_nothing_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    look = (
        "import os, sys\n"
        "assert 'OPENAI_API_KEY' not in os.environ and 'PATH' not in os.environ\n"
        "assert os.listdir('.') == [] and os.path.samefile(os.environ['HOME'], '.')\n"
        "assert sys.stdin.read() == ''\n"
        "assert not any('taskmill' in name for name in sys.modules)\n"
    )
    assert passes(RIGHT + look)
    assert not passes(RIGHT + look + "assert 'HOME' not in os.environ")


def test_strings_hash_alike_each_time() -> None:
    order = "assert list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})[0] == FIRST"
    right = [first for first in "abcdefgh" if passes(RIGHT + order.replace("FIRST", repr(first)))]
    assert len(right) == 1
    assert passes(RIGHT + order.replace("FIRST", repr(right[0])))


def test_a_program_draws_the_same_numbers_each_time() -> None:
    drawn = "import random\nassert random.randrange(1000) == {}"
    import random

    assert passes(RIGHT + drawn.format(random.Random(0).randrange(1000)))


def test_samples_and_workers() -> None:
    items = [
        item(RIGHT, "    return x", RIGHT),
        item("    return x", "", "    pass"),
        item(RIGHT, RIGHT, RIGHT),
    ]
    for workers in (1, 4):
        found = values(Measure("pass_at_k", pass_k=2, code=CODE), items, workers)
        assert [v.value for v in found] == [pytest.approx(1.0), 0.0, 1.0]
    found = values(Measure("pass_at_k", pass_k=1, code=CODE), items, 2)
    assert [v.value for v in found] == [pytest.approx(2 / 3), 0.0, 1.0]
    assert found[0].answer == "    return 2 * x"


def test_tests_may_be_a_list_of_statements_without_a_head() -> None:
    fields = {"prompt": None, "entry_point": None, "test": ["assert twice(2) == 4", "assert twice(0) == 0"]}
    answers = ["def twice(x):\n    return 2 * x", "def twice(x):\n    return 4"]
    found = values(Measure("pass_at_k", code=CODE), [item(answer, **fields) for answer in answers], 2)
    assert [v.value for v in found] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test": None}, "field 'test'.*entry_point, prompt"),
        ({"test": [""]}, "field 'test'"),
        ({"test": 3}, "field 'test'"),
        ({"entry_point": "a b"}, "field 'entry_point'.*the name of a function"),
    ],
)
def test_what_an_example_lacks_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(Measure("pass_at_k", code=CODE), [item(RIGHT, **fields)], 1)


def test_nothing_runs_without_permission(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match=r"evaluate\.code\.run"):
        require([Measure("exact_match"), Measure("pass_at_k")])
    with pytest.raises(UsageError, match=r"evaluate\.code\.run"):
        values(Measure("pass_at_k"), [item(RIGHT)], 1)


def test_limits_under_which_nothing_passes_are_told() -> None:
    with pytest.raises(UsageError, match=r"evaluate\.code\.memory_mb = 1 "):
        require([Measure("pass_at_k", code=Code(run=True, memory_mb=1))])


def test_limits_that_the_system_refuses_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "missing_limits", lambda code: ("memory", "network"))
    with caplog.at_level("WARNING", logger="taskmill"):
        require([Measure("pass_at_k", code=CODE)])
    assert "WITHOUT a limit on memory, network" in caplog.text


def test_real_humaneval(shared_data: Path) -> None:
    with gzip.open(shared_data / "code/humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    few = rows[::8]

    def passed(answer: Callable[[dict[str, str]], str], asked: list[dict[str, str]]) -> int:
        items = [
            Item([answer(row)], [], None, {"text": row["prompt"], **row}, row["task_id"], "h", "p")
            for row in asked
        ]
        return sum(v.value == 1.0 for v in values(Measure("pass_at_k", code=Code(run=True)), items, 2))

    assert passed(lambda row: row["canonical_solution"], rows) == len(rows) == 164
    assert passed(lambda row: row["canonical_solution"].strip(), few) == len(few)
    assert passed(lambda row: f"```python\n{row['prompt']}{row['canonical_solution']}\n```", few) == len(few)
    assert passed(lambda row: "", few) == 0
