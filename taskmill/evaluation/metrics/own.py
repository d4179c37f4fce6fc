"""A function of the user's own as a metric: FILE.py:FUNCTION, called by the names of its parameters.

Of `prediction`, `references`, `options`, `fields`, `example`, `task`, `prompt` and `samples` it gets those that it asks for,
as keyword arguments, and returns a number from 0 to 1, or a bool. The file is run once, by its path; nothing is written
beside it.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from taskmill.errors import DataError, RecipeError, did_you_mean, shorten
from taskmill.evaluation.metrics.measure import Item, OwnFunction

ARGUMENTS = ("prediction", "references", "options", "fields", "example", "task", "prompt", "samples")
_ASKS = f"it is called with keyword arguments among {', '.join(ARGUMENTS)}"


def open_function(text: str, base: Path) -> OwnFunction:
    """Open FILE.py:FUNCTION, the file relative to `base`; return it as a function of (answer, item).

    Raises:
        RecipeError: no such file or function, a file that cannot be run, parameters that nothing is known for.
    """
    file, _, name = text.rpartition(":")
    path = base / file
    if not file.endswith(".py") or not name.isidentifier():
        raise RecipeError([f"metric {text!r}: expected FILE.py:FUNCTION"])
    if not path.is_file():
        raise RecipeError([f"metric {text!r}: there is no file {path}; paths are relative to the recipe"])
    defined = vars(_load(path, text))
    function = defined.get(name)
    if not callable(function):
        functions = [key for key, value in defined.items() if inspect.isfunction(value)]
        raise RecipeError(
            [
                f"metric {text!r}: {path} has no function {name!r}{did_you_mean(name, functions)}; "
                f"it has {', '.join(sorted(functions)) or 'none'}"
            ]
        )
    wanted = _parameters(function, f"metric {text!r}: {path}, {name}")

    def value(answer: str, item: Item) -> float:
        known = {**vars(item), "prediction": answer}
        arguments = {key: _copied(known[key]) for key in wanted}
        try:
            found = function(**arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a function of the user's raises
            _failed(error, path, text, item)
        return _checked(found, text, item)

    return value


def _load(path: Path, text: str) -> ModuleType:
    """Run a file as a module whose name is taken from its path, so that it hides no other."""
    name = f"_taskmill_own_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        source = path.read_bytes()
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file of the user's raises
        del sys.modules[name]
        raise RecipeError([f"metric {text!r}: running the file failed: {_last_line(error, path)}"]) from None
    return module


def _parameters(function: Callable[..., Any], where: str) -> tuple[str, ...]:
    """Return the arguments that the function asks for.

    Raises:
        RecipeError: parameters without a default that have no such name, positional ones, or none of the answers.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise RecipeError([f"{where}: its parameters cannot be read; {_ASKS}"]) from None
    wanted = []
    for name, parameter in parameters.items():
        if parameter.kind == parameter.VAR_KEYWORD:
            return ARGUMENTS
        if parameter.kind == parameter.VAR_POSITIONAL:
            continue
        if name in ARGUMENTS and parameter.kind != parameter.POSITIONAL_ONLY:
            wanted.append(name)
        elif parameter.default is parameter.empty:
            raise RecipeError([f"{where}: parameter {name!r}{did_you_mean(name, ARGUMENTS)}; {_ASKS}"])
    if not {"prediction", "samples"} & set(wanted):
        raise RecipeError([f"{where}: it asks for neither prediction nor samples; {_ASKS}"])
    return tuple(wanted)


def _copied(value: Any) -> Any:
    """Return lists and dictionaries anew, so that a function cannot change what the next one reads."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _failed(error: BaseException, path: Path, text: str, item: Item) -> NoReturn:
    raise DataError(
        f"the metric {text!r} failed on the answer to {item.example!r} of {item.task!r}: {_last_line(error, path)}"
    ) from None


def _last_line(error: BaseException, path: Path) -> str:
    """Return `file:line: Error: message`, the line being the last one in the user's file."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    place = f"{path}:{line}" if line is not None else str(path)
    return f"{place}: {type(error).__name__}: {what}"


def _checked(found: object, text: str, item: Item) -> float:
    """Return a value in [0, 1].

    Raises:
        DataError: anything else.
    """
    if isinstance(found, np.bool_):
        found = bool(found)
    try:
        value = float(found) if isinstance(found, Real) else math.nan
    except (OverflowError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(
            f"the metric {text!r} gave {shorten(found)} for the answer to {item.example!r} of {item.task!r}",
            expected="a number from 0 to 1",
        )
    return value
