"""Typed errors: each carries a whole message for the user and the exit code of the command line.

Exit codes: 1 failed (data, disk, drift), 2 wrong usage or recipe, 3 stopped for a person.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TaskmillError(Exception):
    """A failure that the user can understand and act on; shown as one message without a traceback."""

    exit_code = 1

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process boundary whole, whatever arguments the subclass takes."""
        return (_restore, (type(self), self.args, dict(self.__dict__)))


def _restore(kind: type[TaskmillError], args: tuple[object, ...], state: dict[str, object]) -> TaskmillError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class DataError(TaskmillError):
    """An upstream file or record that cannot be read as its format says."""

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        record: object = None,
        field: str | None = None,
        value: object = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        """`record` counts from 0 within the file; `value` is shown shortened to 120 characters."""
        where = str(file) if file is not None else ""
        if record is not None:
            where += f", record {record}" if where else f"record {record}"
        if field is not None:
            where += f", field {field!r}" if where else f"field {field!r}"
        text = f"{where}: {problem}" if where else problem
        if value is not None:
            text += f" (found {shorten(value)})"
        if expected:
            text += f"; expected {expected}"
        if hint:
            text += f". {hint}"
        super().__init__(text)
        self.problem, self.file, self.record, self.field = problem, file, record, field

    def with_hint(self, hint: str) -> DataError:
        """Return this error with a sentence of advice added to its message."""
        self.args = (f"{self.args[0]}. {hint}",)
        return self


class RecipeError(TaskmillError):
    """A recipe with one or more problems, all of them listed."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        """`problems` are complete lines, each starting with `file:line`."""
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(TaskmillError):
    """A command or option that makes no sense as given."""

    exit_code = 2


class StaleError(TaskmillError):
    """A finished stage that was built from other settings or inputs than the present ones."""


class DamagedError(TaskmillError):
    """A file of a run that is missing or does not hold the bytes that its manifest says."""


class StorageError(TaskmillError):
    """A file that could not be written or read because of the disk or its permissions."""


class BusyError(TaskmillError):
    """A run directory that another process is writing."""


class LimitError(TaskmillError):
    """A worker that took more time or memory for one thing than it may, and was ended."""


class EndpointError(TaskmillError):
    """A server of a model that cannot be reached, or that does not answer what it is asked."""


class MissingPackageError(TaskmillError):
    """An optional package that a stage needs and that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Name the `package`, the `extra` of taskmill that brings it and the `purpose` it serves."""
        super().__init__(f"{purpose} needs the package {package}: run `pip install 'taskmill[{extra}]'`")


class DecisionNeededError(TaskmillError):
    """Overlapping pairs above the threshold that neither a rule nor a person has decided."""

    exit_code = 3


def shorten(value: object, width: int = 120) -> str:
    """Return `repr(value)`, cut to `width` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `value`, or None when nothing is near."""
    folded = {name.casefold(): name for name in sorted(set(choices), reverse=True)}
    matches = difflib.get_close_matches(value.casefold(), sorted(folded), n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return ` - did you mean 'x'?` or the empty string, to be appended to a message."""
    match = nearest(value, choices)
    return f" - did you mean {match!r}?" if match else ""
