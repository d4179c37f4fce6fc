"""Where recipes come from: YAML files, the shipped ones, and the resolved `recipe.json` of a run.

`load` reads and checks a YAML recipe through `recipe_check`, which needs pydantic; `from_json` reads the resolved recipe
of a run and needs nothing but the standard library.
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

from taskmill.errors import UsageError, did_you_mean
from taskmill.plain import build, to_json
from taskmill.recipe import PACKAGE, Recipe, Resolved


def load(path: Path, overrides: tuple[str, ...] = (), base: Path | None = None) -> Resolved:
    """Read a YAML recipe, apply `key=value` overrides, check everything and resolve defaults.

    Args:
        path: the recipe file.
        overrides: `a.b=VALUE` strings; VALUE is YAML.
        base: folder that the recipe's paths are relative to; by default the recipe's own.

    Raises:
        RecipeError: every problem found, each with `file:line`, key, value, expectation, nearest key.
        UsageError: the file cannot be read, or an override is not `key=value`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the recipe {path}: not UTF-8 text (byte {error.start})") from error
    checked: Resolved = _check_module().check(text, path, overrides, base or path.resolve().parent)
    return checked


def _check_module() -> types.ModuleType:
    try:
        from taskmill import recipe_check
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading a YAML recipe or --set needs the package {error.name}: run `pip install {error.name}`; "
            f"the directory of a run works without it"
        ) from error
    return recipe_check


def shipped() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    return {p.stem: p for p in sorted((PACKAGE / "recipes").glob("*.yaml"))}


WITH_DATA = ("demo",)
"""Shipped recipes whose data ship too; the paths of the others begin at the present folder."""


def shipped_base() -> Path:
    """Return the folder that the paths of shipped recipes with data begin at: the clone, or the installed package."""
    clone = PACKAGE.parent
    return clone if (clone / "examples" / "meta_datasets").is_dir() else PACKAGE


def find(name: str, overrides: tuple[str, ...] = ()) -> Resolved:
    """Load a recipe by file path, shipped name or run directory.

    Raises:
        UsageError: nothing of that name exists.
        RecipeError: the recipe has problems.
    """
    path = Path(name)
    if path.is_dir() and (path / "recipe.json").is_file():
        return from_json(path, overrides)
    if path.is_file():
        return load(path, overrides)
    known = shipped()
    if name in known:
        base = shipped_base() if name in WITH_DATA else Path.cwd()
        return load(known[name], overrides, base=base)
    if path.is_dir():
        raise UsageError(
            f"{name} is a directory without recipe.json, so no run; expected a recipe file or a run"
        )
    hint = did_you_mean(name, known)
    raise UsageError(
        f"no recipe file, shipped recipe or run directory is called {name!r}{hint}; "
        f"`taskmill recipes list` shows the shipped ones"
    )


# --------------------------------------------------------------------------------------- recipe.json


def from_json(run: Path, overrides: tuple[str, ...] = ()) -> Resolved:
    """Read the resolved recipe of a run directory; overrides re-read its `recipe.yaml` values.

    Raises:
        UsageError: `recipe.json` is missing or not JSON.
        RecipeError: an override does not fit.
    """
    path = run / "recipe.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        base, text = Path(stored["base"]), stored["text"]
        origin, recipe = dict(stored["origin"]), build(Recipe, stored["values"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not the resolved recipe of a run: {error}; `taskmill run RECIPE --run {run}` writes it again"
        ) from error
    if not (base.is_absolute() and base.is_dir()):
        base = (run / stored["base"]).resolve()
    resolved = Resolved(recipe, origin, base, text)
    if overrides:
        checked: Resolved = _check_module().override(resolved, overrides, path)
        return checked
    return resolved


def resolved_json(resolved: Resolved) -> dict[str, Any]:
    """Return the content of `recipe.json`."""
    return {
        "base": str(resolved.base),
        "origin": resolved.origin,
        "text": resolved.text,
        "values": to_json(resolved.recipe),
    }
