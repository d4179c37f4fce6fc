"""Options of readers: refusing those that make no sense, and the kinds that several readers have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from taskmill.curation.reader import SourceFolder
from taskmill.errors import RecipeError, did_you_mean


def refuse(reader: str, *problems: str) -> None:
    """Refuse options.

    Raises:
        RecipeError: there are problems.
    """
    if problems:
        raise RecipeError([f"sources: reader {reader!r}: {problem}" for problem in problems])


def one_of(source: SourceFolder, reader: str, option: str, choices: Sequence[str]) -> str:
    """Return an option that is one of `choices`, of which the first is the default.

    Raises:
        RecipeError: it is none of them.
    """
    found = source.options.get(option, choices[0])
    if found not in choices:
        hint = did_you_mean(str(found), choices)
        refuse(reader, f"option {option}: found {found!r}; expected one of {', '.join(choices)}{hint}")
    return str(found)


def path_of(source: SourceFolder, reader: str, option: str) -> Path | None:
    """Return the path that an option names, relative to the source's folder, or None without one.

    Raises:
        RecipeError: it is no path.
    """
    found = source.options.get(option)
    if found is None:
        return None
    if not isinstance(found, str) or not found or not found.isprintable():
        refuse(reader, f"option {option}: found {found!r}; expected the path of a file or folder")
    folder = source.path if source.path.is_dir() else source.path.parent
    return Path(os.path.normpath(folder / str(found)))
