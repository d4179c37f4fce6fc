"""Measure contenders in fresh processes of one process tree, and sum the samples up.

A contender's child prints one line of JSON last; `sample` runs it, and adds what else the machine did meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLEAN = 0.1  # of the wall time on one core: a sample is clean where other processes take no more
ENOUGH = 3  # clean samples before the others are set aside

Sample = dict[str, Any]


def sample(command: list[str], environment: dict[str, str] | None = None) -> Sample:
    """Run a contender; return its line, `process_seconds` from start to end, and `others`: cores busy beside it.

    Raises SystemExit where it fails.
    """
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **(environment or {})}
    busy, own, started = busy_seconds(), children_seconds(), time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=settings, text=True, start_new_session=True, **pipes) as process:
        output, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    others = (busy_seconds() - busy) - (children_seconds() - own)
    wait_for_group(process.pid)
    line = json.loads(output.splitlines()[-1])
    return {**line, "process_seconds": seconds, "others": max(0.0, others) / seconds}


def has_gpu() -> bool:
    """Return whether torch is there and sees a GPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def llama_shape(vocab_size: int, width: int, layers: int, heads: int, inner: int) -> dict[str, int]:
    """Return a Llama's sizes as its configuration names them."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
    }


def wait_for_group(group: int) -> None:
    """Wait until what a contender leaves behind has ended, such as a process that compiles for later runs."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while True:
            os.killpg(group, 0)
            time.sleep(0.05)


def busy_seconds() -> float:
    """Return the processor time that all processes of the machine have taken so far; 0 where it is not told."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, _ = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """Return the processor time of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    """Return the peak resident memory of this process; of its parent's at most, where Linux does not tell its own."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def median(samples: list[Sample], key: str) -> float:
    """Return the median over the clean samples, or over all of them where fewer than three are clean."""
    clean = [s for s in samples if s["others"] <= CLEAN]
    return statistics.median(s[key] for s in (clean if len(clean) >= ENOUGH else samples))


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_with_memory(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds, and the peak megabytes of it and its children together, shared pages once.

    Raises SystemExit where it fails.
    """
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=settings
    ) as process:
        while process.poll() is None:
            peak = max(peak, tree_megabytes(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        errors = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return seconds, peak


def tree_megabytes(pid: int) -> float:
    """Return the proportional set size of a process and its descendants, as Linux tells it; 0 elsewhere."""
    total, waiting = 0.0, [pid]
    while waiting:
        number = waiting.pop()
        try:
            rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
            total += int(rollup.split("\nPss:")[1].split()[0]) * 1024 / 1e6
            for task in Path(f"/proc/{number}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError, IndexError):
            continue
    return total


def fill(page: Path, name: str, lines: list[str]) -> None:
    """Put lines between the comments `<!-- name -->` and `<!-- end name -->` of a page of the docs.

    Raises SystemExit where the page has no such comments.
    """
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(f"<!-- end {name} -->")
    if not (found and closed):
        raise SystemExit(f"{page} has no place for {name}")
    page.write_text("\n".join([before + found, *lines, "", closed + after]), encoding="utf-8")


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table whose columns but the first are aligned right."""
    rules = ["---", *("---:" for _ in heads[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
