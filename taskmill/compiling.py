"""When the compiled kernels are worth their cost: loading them takes half a second, compiling them several.

Until then, without numba, or with TASKMILL_NO_NUMBA=1, the caller works in numpy, with the same results. Where no
machine code is kept from an earlier run, a process of its own compiles while numpy works on, and nobody waits for it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LOAD_AFTER_BYTES = 24 << 20  # this much text takes numpy longer than loading takes
KERNELS = "taskmill.kernels"
FIND_KERNELS = "taskmill.find_kernels"
_SOURCES = ("jit.py", "find_kernels.py", "group_kernels.py", "kernels.py")
_LAST = {KERNELS: "collect", FIND_KERNELS: "rewrite"}  # the kernel of each that is compiled last


@dataclass(slots=True)
class _State:
    bytes_seen: int = 0
    module: ModuleType | None = None
    finding: ModuleType | None = None
    compiler: subprocess.Popen[bytes] | None = None
    missing: bool = False


_state = _State()
_lock = threading.RLock()


def kernels_for(num_bytes: int) -> ModuleType | None:
    """Return the compiled kernels if they are worth it for the next `num_bytes` of text, else None.

    What was asked for before counts, so many small calls get them in the end.
    """
    if os.environ.get("TASKMILL_NO_NUMBA") == "1" or _state.missing:
        return None
    if _state.module is not None:
        return _state.module
    with _lock:
        _state.bytes_seen += num_bytes
        if _state.bytes_seen >= LOAD_AFTER_BYTES and _ready():
            return load_kernels()
    return None


def find_kernels() -> ModuleType | None:
    """Return the compiled kernels that find, which another process may have ready before the rest; else None."""
    found = kernels_for(0) or _state.finding
    if found is None and _state.compiler is not None and _is_kept(FIND_KERNELS):
        with _lock:
            found = _state.finding = importlib.import_module(FIND_KERNELS)
    return found


def load_kernels() -> ModuleType | None:
    """Load the compiled kernels, compiling where no earlier run has; None where numba is missing."""
    with _lock:
        if _state.module is None and not _state.missing:
            try:
                _state.module = importlib.import_module(KERNELS)
            except ImportError:
                _state.missing = True
        return _state.module


def _ready() -> bool:
    """Say whether loading is quick, and have the machine code made in the background where it is not."""
    if _state.compiler is not None:
        return _state.compiler.poll() is not None
    try:
        if importlib.util.find_spec("numba") is None or _is_kept(KERNELS):
            return True
        polite = "import os; getattr(os, 'nice', int)(10)"  # the work itself comes first
        command = [sys.executable, "-c", f"{polite}; import {KERNELS}"]
        paths = os.pathsep.join(path for path in [os.getcwd(), *sys.path] if path)
        _state.compiler = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError):  # no process to be had, or a module that stands in for numba
        return True
    return False


def _is_kept(module: str) -> bool:
    """Say whether the machine code of these kernels is on disk, without importing numba."""
    package = Path(__file__).parent
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    name = f"{module.rpartition('.')[2]}.{_LAST[module]}-*.{python}*.nbi"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    found = Path(chosen).glob(f"**/{name}") if chosen else (package / "__pycache__").glob(name)
    version = importlib.metadata.version("numba").encode()
    changed = max((package / source).stat().st_mtime for source in _SOURCES)

    def is_newer(path: Path) -> bool:
        return path.stat().st_mtime > changed

    kept = (path for path in found if is_newer(path) and version in path.read_bytes())
    return any(is_newer(code) for path in kept for code in path.parent.glob(f"{path.stem}.*.nbc"))
