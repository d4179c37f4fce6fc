"""How the compiled kernels are compiled: types of their arrays, and where their machine code is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types

F = TypeVar("F", bound=Callable[..., Any])


def _read(kind: Any) -> Any:
    """Return the type of an array that is only read, so that mapped files and Arrow's buffers pass."""
    return types.Array(kind, 1, "C", readonly=True)


def _written(kind: Any) -> Any:
    return types.Array(kind, 1, "C")


INT, MASK = types.int64, types.uint64
R8, R64, RI64 = _read(types.uint8), _read(types.uint64), _read(types.int64)
RI32, R32 = _read(types.int32), _read(types.uint32)
W8, W64, WI64 = _written(types.uint8), _written(types.uint64), _written(types.int64)
WI32, W32 = _written(types.int32), _written(types.uint32)
ONE = np.uint64(1)


def compiled(*arguments: Any) -> Callable[[F], F]:
    """Compile a function returning int64 for these types; its machine code is kept where numba finds a place."""
    signature = INT(*arguments)

    def compile_function(function: F) -> F:
        done: F
        try:
            done = numba.njit(signature, cache=True, nogil=True, error_model="numpy")(function)
        except (OSError, RuntimeError):  # no folder for the cache: numba says so at once or when it saves
            done = numba.njit(signature, nogil=True, error_model="numpy")(function)
        return done

    return compile_function


def inner(function: F) -> F:
    """Make a function part of the kernels that call it."""
    part: F = numba.njit(nogil=True, error_model="numpy")(function)
    return part
