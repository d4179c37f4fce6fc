"""pass_at_k: programs that a model wrote, run against their tests in limited child processes (Chen et al. 2021, section 2.1).

An example has the fields `test` (Python, or a list of statements) and, where they apply, `entry_point` (the name of a
function: `check(entry_point)` is called after `test`) and `prompt` or `text` (the head of the function, which completions
continue). A child has an empty folder as its working folder and home, an environment without anything of the user's, and the
limits of `limited_child`; its whole process group is killed when it is over, or has written too much, or takes too long. A
program passes when the child gives back a token that is made for this run alone, which it does after the last test.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from taskmill.errors import DataError, UsageError
from taskmill.evaluation.metrics.extraction import begins_program
from taskmill.evaluation.metrics.measure import Item
from taskmill.recipe_evaluate import Code

log = logging.getLogger("taskmill")

HEADS = ("prompt", "text")
"""Fields that may hold the head of a function; the first that is there counts."""
_CHILD = Path(__file__).with_name("limited_child.py")
_START_SECONDS = 10.0
_MOST_BYTES, _MOST_FILES = 64 << 20, 1000
_LOOK_SECONDS = 0.2
_ANSWER_BYTES = 4096


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Return 1 - C(n - c, k) / C(n, k): the chance that k of n samples, drawn without replacement, hold one of the c that pass.

    Raises:
        UsageError: fewer samples than k.
    """
    if not 1 <= k <= num_samples:
        raise UsageError(
            f"pass_at_k with k = {k} needs at least {k} samples, and there are {num_samples}: "
            "set evaluate.sampling.num_samples, or evaluate.pass_k"
        )
    failing = 1.0
    for number in range(num_samples - num_passed + 1, num_samples + 1):
        failing *= max(0.0, 1 - k / number)
    return 1 - failing


def values(
    items: Sequence[Item], answers: Sequence[Sequence[str]], k: int, code: Code, workers: int
) -> list[float]:
    """Return pass@k of every item, whose samples' programs are `answers`; programs run `workers` at a time.

    Raises:
        UsageError: the recipe does not allow programs to be run, or asks for more samples than there are.
        DataError: an example without the fields that this needs.
    """
    require_permission(code)
    jobs = [
        (programs(item, answer), tests(item)) for item, samples in zip(items, answers) for answer in samples
    ]
    stopped = threading.Event()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            passed = list(pool.map(lambda job: passes(job[0], job[1], code, stopped), jobs))
        except BaseException:
            stopped.set()
            raise
    found, start = [], 0
    for samples in answers:
        found.append(pass_at_k(len(samples), sum(passed[start : start + len(samples)]), k))
        start += len(samples)
    return found


def require_permission(code: Code) -> None:
    """Check that programs may be run.

    Raises:
        UsageError: `code.run` is off.
    """
    if not code.run:
        raise UsageError(
            "the metric pass_at_k runs programs that a model wrote: allow it with evaluate.code.run: true, or give the "
            "tasks that have it another metric in evaluate.tasks"
        )


def tell_limits(code: Code) -> None:
    """Warn of each limit that this system cannot put on a program.

    Raises:
        UsageError: not even a program of one line passes within the limits.
    """
    if not passes(["x = 1"], "assert x == 1", code):
        raise UsageError(
            "a program of one line does not pass within evaluate.code.memory_mb = "
            f"{code.memory_mb} and evaluate.code.seconds = {code.seconds:g}, so none would: raise them"
        )
    missing = missing_limits(code)
    if missing:
        log.warning(
            "evaluate: programs run WITHOUT a limit on %s, which this system does not allow; "
            "run them in a container without network",
            ", ".join(missing),
        )


def tests(item: Item) -> str:
    """Return the statements that a program of this example must survive.

    Raises:
        DataError: the example has no tests that can be run.
    """
    fields = item.fields or {}
    test, entry = fields.get("test"), fields.get("entry_point")
    given: list[Any] = test if isinstance(test, list) else [test]
    lines = [line for line in given if isinstance(line, str) and line.strip()]
    if not lines or len(lines) < len(given):
        raise DataError(
            f"example {item.example!r} of {item.task!r} has no tests that pass_at_k could run",
            field="test",
            value=test,
            expected="Python, or a list of statements (fields: "
            + (", ".join(sorted(fields)) or "none")
            + ")",
            hint="Give the task another metric in evaluate.tasks, or name the field `test` in its cast",
        )
    if entry is None:
        return "\n".join(lines)
    if not (isinstance(entry, str) and entry.isidentifier()):
        raise DataError(
            f"example {item.example!r} of {item.task!r} names no function to test",
            field="entry_point",
            value=entry,
            expected="the name of a function",
        )
    return "\n".join([*lines, f"check({entry})"])


def programs(item: Item, answer: str) -> list[str]:
    """Return what the answer may mean as a program, the likeliest first; the first that compiles is run.

    An answer that begins a program stands behind the head, or alone. Any other continues the head; the spaces before its first
    line, which a generated text loses, are put back.
    """
    head = next((str(item.fields[name]) for name in HEADS if item.fields and name in item.fields), "")
    if not head.strip():
        return [answer]
    lines = answer.splitlines()
    if not lines or lines[0][:1] in (" ", "\t"):
        return [head + answer]
    margin = _margin(head)
    continued = [head + margin + answer, head + textwrap.indent(answer, margin)]
    if begins_program(lines[0]):
        return [f"{head}\n{answer}", answer, *continued]
    return [*continued, head + answer]


def _margin(head: str) -> str:
    """Return the spaces before the last line of the head: those of the body of a function that ends in its docstring."""
    last = [line for line in head.splitlines() if line.strip()][-1]
    return last[: len(last) - len(last.lstrip())] or "    "


def passes(candidates: Sequence[str], after: str, code: Code, stopped: threading.Event | None = None) -> bool:
    """Return whether the first of the candidates that compiles survives the tests, in a limited child.

    Args:
        after: the tests.
        stopped: when it is set, the child is ended at once.
    """
    token = secrets.token_hex(16)
    job = {"programs": list(candidates), "tests": after, "token": token, "report": False}
    return _run_child(job, code, stopped or threading.Event()) == token.encode()


@cache
def missing_limits(code: Code) -> tuple[str, ...]:
    """Return the limits that this system cannot put on a child."""
    job = {"programs": [""], "tests": "", "token": "", "report": True}
    told = _run_child(job, code, threading.Event())
    return tuple(json.loads(told)) if told else ()


def _run_child(job: dict[str, Any], code: Code, stopped: threading.Event) -> bytes | None:
    """Return what the child gave back when it ended by itself in time, else None."""
    with tempfile.TemporaryDirectory(prefix="taskmill-code-", ignore_cleanup_errors=True) as made:
        folder = os.path.join(os.path.realpath(made), "home")
        os.mkdir(folder)
        limits = {"seconds": code.seconds, "memory": code.memory_mb << 20, "folder": folder}
        child = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        assert child.stdin is not None and child.stdout is not None, "pipes were asked for"
        try:
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(job | limits).encode())
                child.stdin.close()
            deadline = time.monotonic() + 2 * code.seconds + _START_SECONDS
            ended = _ends_in_time(child, folder, deadline, stopped)
            _kill_group(child)
            if not ended or child.returncode != 0 or _is_too_full(folder):
                return None
            os.set_blocking(child.stdout.fileno(), False)
            with suppress(BlockingIOError):
                return os.read(child.stdout.fileno(), _ANSWER_BYTES)
            return None
        finally:
            if child.returncode is None:
                _kill_group(child)
            child.stdout.close()
            _flatten(made)


def _environment(folder: str) -> dict[str, str]:
    """Return all that a child knows of its surroundings: no keys, no search paths; strings hash alike each time."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = dict.fromkeys(("HOME", "TMPDIR"), folder)
    return {**one_thread, **places, "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"}


def _ends_in_time(
    child: subprocess.Popen[bytes], folder: str, deadline: float, stopped: threading.Event
) -> bool:
    while True:
        left = deadline - time.monotonic()
        try:
            child.wait(max(0.0, min(_LOOK_SECONDS, left)))
            return True
        except subprocess.TimeoutExpired:
            if left <= 0 or stopped.is_set() or _is_too_full(folder):
                return False


def _is_too_full(folder: str) -> bool:
    """Return whether more was written than a test needs."""
    num_bytes = num_files = 0
    pending = [folder]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError as error:  # deeper than any path may be long
            if error.errno == errno.ENAMETOOLONG:
                return True
            continue
        with entries:
            for entry in entries:
                with suppress(OSError):
                    num_bytes += entry.stat(follow_symlinks=False).st_size
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                num_files += 1
                if num_files > _MOST_FILES or num_bytes > _MOST_BYTES:
                    return True
    return False


def _flatten(folder: str) -> None:
    """Move every folder inside to the top: nested deeper than Python's stack they could not be removed."""
    pending, number = [folder], 0
    while pending:
        path = pending.pop()
        with suppress(OSError):
            os.chmod(path, 0o700)
            with os.scandir(path) as entries:
                inside = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            for found in inside:
                os.chmod(found, 0o700)
                moved = os.path.join(folder, str(number))
                number += 1
                os.rename(found, moved)
                pending.append(moved)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
