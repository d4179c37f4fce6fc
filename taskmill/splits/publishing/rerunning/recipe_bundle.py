"""The recipe of a published benchmark: a folder from which its run is made again, on whatever machine.

`bundle` makes it from a run, `unbundle` puts it into a new run. In `recipe/` of the published folder lie

    recipe.json             the settings, resolved; paths relative to this folder, data_root `.`: see `portable`
    recipe.yaml             as the user wrote it, to be read; where that names a place of a machine or is not what was run,
                            the settings that are no default
    decisions.csv           what people decided, where the split used it
    ...                     every file that a setting names, at its own path

Functions for metrics of one's own (FILE.py:FUNCTION) are settings of evaluation and stay out: code is never fetched.
A new run has the same files in `RUN/recipe/`, which is the folder that its recipe is relative to.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from taskmill.artifact import Inputs
from taskmill.errors import DamagedError, RecipeError, UsageError
from taskmill.plain import build, leaves, to_json
from taskmill.recipe import Recipe, Resolved, Source
from taskmill.recipe_files import shipped_base
from taskmill.recipe_values import find_problems
from taskmill.records import DIRECTORIES
from taskmill.splits.deciding.decision_files import FILE as DECISIONS
from taskmill.splits.publishing.published import RECIPE, Published
from taskmill.splits.publishing.rerunning.portable import (
    leads_out,
    local_names,
    names_place,
    places_in,
    portable_files,
    portable_sources,
    without_machine,
)
from taskmill.storage import canonical_json, digest, is_stray, read_json, remove, write_bytes

SHIPPED = Path("examples") / "meta_datasets"
"""Where the shipped demo data lie, below `shipped_base()`."""
_HEAD = "# The settings of the run that are no default, with paths relative to this file.\n"


def bundle(resolved: Resolved, run: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a run's settings without a place of this machine, and the files of its published recipe.

    Args:
        resolved: the recipe of the run.
        run: finished up to split.

    Returns:
        The settings as JSON values, and the content of each file by its path in the published folder (`recipe/...`).

    Raises:
        RecipeError: settings that cannot be made portable, all of them listed.
        UsageError: the stage curate is not finished, or the recipe has changed since.
    """
    problems: list[str] = []
    values, files = _collect(resolved, run, problems)
    if problems:
        raise RecipeError(problems)
    return values, {f"{RECIPE}/{path}": files[path] for path in sorted(files)}


def portable_values(resolved: Resolved, run: Path) -> dict[str, Any]:
    """Return a run's settings as `bundle` does, for comparison: also where they cannot be published.

    Raises:
        UsageError: see `bundle`.
    """
    return _collect(resolved, run, [])[0]


def _collect(resolved: Resolved, run: Path, problems: list[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the settings, and the files by their path in the recipe's folder; what cannot be published is a problem."""
    inputs = Inputs({"curate": run / DIRECTORIES["curate"]})
    values = to_json(resolved.recipe)
    upstream = inputs.manifest("curate").body["upstream"]
    if len(upstream) != len(resolved.recipe.sources):
        raise UsageError(
            f"{run}: its recipe has other sources than its stage curate read; `taskmill run {run}` first"
        )
    paths = portable_sources(resolved, upstream, problems)
    for source, path in zip(values["sources"], paths, strict=True):
        source["path"] = path
    values["data_root"] = "."
    files = portable_files(values, resolved.base, problems)
    values["split"]["decisions"] = None
    if (run / DECISIONS).is_file():
        values["split"]["decisions"] = DECISIONS
        files[DECISIONS] = (run / DECISIONS).read_bytes()
    without_machine(values)
    folders = [resolved.base, resolved.path(resolved.recipe.data_root), run.resolve(), Path.home()]
    problems += places_in(values, folders)
    problems += [] if problems else leads_out(values)  # what is published can be rebuilt
    files["recipe.json"] = canonical_json({"values": values}) + b"\n"
    files["recipe.yaml"] = _yaml(resolved, values).encode()
    return values, files


def _yaml(resolved: Resolved, values: Mapping[str, Any]) -> str:
    """Return the recipe as written, where it says the same and names no place of a machine, else the settings."""
    before = {**to_json(resolved.recipe), "data_root": "."}  # wherever the data lie, whoever rebuilds says it
    if before["split"]["decisions"] is None:  # decided in the run alone: recipe.json names the file
        before["split"]["decisions"] = values["split"]["decisions"]
    overridden = {key for key, origin in resolved.origin.items() if origin == "--set"} - {"data_root"}
    is_same = before == values and not overridden
    if is_same and not names_place(resolved.text):
        return resolved.text
    return _HEAD + settings_yaml(values)


def settings_yaml(values: Mapping[str, Any]) -> str:
    """Return a recipe's settings as YAML: those that are no default."""
    shown = _given(values, to_json(Recipe(name="", sources=())))
    empty = to_json(Source(reader=""))
    shown["sources"] = [_given(source, empty) for source in values["sources"]]
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)


def _given(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are no default."""
    shown = {}
    for key, value in values.items():
        usual = default.get(key)
        if isinstance(value, dict) and isinstance(usual, dict) and usual:
            inner = _given(value, usual)
            if inner:
                shown[key] = inner
        elif value != usual:
            shown[key] = value
    return shown


# -------------------------------------------------------------------------------------------- a new run


def check_bundle(published: Published, data_root: Path | None) -> None:
    """Check that a published benchmark can be rebuilt as far as its own files tell, before anything is written.

    Raises:
        UsageError, DamagedError: see `unbundle`.
    """
    recipe = _recipe(read_recipe(published), published)
    if len(recipe.sources) != len(published.body["sources"]):
        raise DamagedError(f"{published.folder}: the manifest has other sources than its recipe")
    _files(published)
    if data_root is None:
        find_data(published.body["sources"], published)
    elif not data_root.is_dir():
        raise UsageError(f"--data-root: there is no folder {data_root}")


def unbundle(published: Published, run: Path, data_root: Path | None) -> Resolved:
    """Write the recipe of a published benchmark into `run/recipe/` and return it, without sources that were missing.

    Args:
        published: the benchmark.
        run: directory of the new run.
        data_root: folder with the sources' files that are not on the Hub; None where the shipped demo data, or none, are
            needed.

    Raises:
        UsageError: files are needed and no folder is given, or another version of Taskmill wrote the recipe.
        DamagedError: a file of the recipe is missing or not what was published, or a path leads out of its folder.
    """
    check_bundle(published, data_root)
    values = read_recipe(published)
    recipe = _recipe(values, published)
    read = [not source.get("missing") for source in published.body["sources"]]
    sources = tuple(itertools.compress(recipe.sources, read))
    root = data_root.resolve() if data_root is not None else find_data(published.body["sources"], published)
    base = (run / RECIPE).resolve()
    for stray in filter(is_stray, base.rglob(".*")):  # of a rebuild that was killed
        remove(stray)
    files = _files(published)
    mark = f"{RECIPE}/recipe.json"  # first: it tells whose folder it is
    for path, data in sorted(files.items(), key=lambda item: item[0] != mark):
        place = run / path
        if not place.is_file() or place.read_bytes() != data:
            write_bytes(place, data)
    origin = {key: f"{RECIPE}/recipe.json" for key, _ in leaves(values)} | {"data_root": "--data-root"}
    return Resolved(
        dataclasses.replace(recipe, sources=sources, data_root=str(root or base)),
        origin,
        base,
        files[f"{RECIPE}/recipe.yaml"].decode(),
    )


def read_recipe(published: Published) -> dict[str, Any]:
    """Return the settings in `recipe/recipe.json`.

    Raises:
        DamagedError: they are missing, or not those of the manifest, or name something outside of their folder.
    """
    stored = read_json(published.place(f"{RECIPE}/recipe.json"))
    values = stored.get("values") if isinstance(stored, dict) else None
    if not isinstance(values, dict) or digest(values) != digest(published.body["recipe"]):
        raise DamagedError(
            f"{published.folder / RECIPE / 'recipe.json'} is not the recipe that the manifest states"
        )
    try:
        problems = leads_out(values)
        is_trusting = values["evaluate"]["code"]["run"] or values["evaluate"]["endpoint"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _other_version(published, error) from error
    if problems or is_trusting:
        problems += ["evaluate: runs programs or asks a server, which is for who evaluates to say"] * bool(
            is_trusting
        )
        raise DamagedError(
            "\n".join(f"{published.folder / RECIPE / 'recipe.json'}: {line}" for line in problems)
        )
    return values


def _recipe(values: Mapping[str, Any], published: Published) -> Recipe:
    try:
        found: Recipe = build(Recipe, values)
    except (TypeError, AttributeError, KeyError) as error:
        raise _other_version(published, error) from error
    problems = [f"{'.'.join(map(str, where))}: {what}" for where, what in find_problems(dict(values))]
    if problems:
        path = published.folder / RECIPE / "recipe.json"
        raise DamagedError("\n".join(f"{path}: {line}" for line in problems))
    return found


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _other_version(published: Published, error: Exception) -> UsageError:
    version = published.body.get("taskmill", {}).get("version")
    return UsageError(
        f"{published.folder / RECIPE / 'recipe.json'} has settings that this version of Taskmill does not know ({error}); it "
        f"was published with {version}: install that version and run this again"
    )


def _files(published: Published) -> dict[str, bytes]:
    """Return the files of the recipe, checked.

    Raises:
        DamagedError: one is missing, is not what was published, or would lie elsewhere.
    """
    found: dict[str, bytes] = {}
    for entry in published.files:
        parts = PurePosixPath(entry.path).parts
        if parts[0] != RECIPE or parts[-1].lower().endswith(".py"):
            continue
        if ".." in parts or "\\" in entry.path or entry.path != "/".join(parts):
            raise DamagedError(
                f"{published.folder}: the manifest names a file outside of {RECIPE}: {entry.path!r}"
            )
        found[entry.path] = published.content(entry)
    text = found.get(f"{RECIPE}/recipe.yaml")
    if text is None or not _is_text(text):
        problem = "missing from the manifest" if text is None else "not UTF-8 text"
        raise DamagedError(f"{published.folder / RECIPE / 'recipe.yaml'}: {problem}")
    return found


def find_data(sources: Sequence[Mapping[str, Any]], published: Published) -> Path | None:
    """Return the folder with the files that are not on the Hub where none was given: the shipped demo data, or None.

    Raises:
        UsageError: files are needed that are not among those.
    """
    local = _local(sources)
    if not needs_data_root(sources):
        return shipped_base() / SHIPPED if local else None
    lines = [f"  {origin_of(source)}  to  DIR/{source['path']}" for source in local]
    raise UsageError(
        f"{published.body['name']} reads files that are not on the Hub; name the folder that holds them with "
        "--data-root DIR:\n" + "\n".join(lines)
    )


def needs_data_root(sources: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether sources of a manifest have files that are neither on the Hub nor among the shipped demo data."""
    shipped = shipped_base() / SHIPPED
    return any(
        not (shipped / top_file(name, shipped)).is_file()
        for source in _local(sources)
        for name in local_names(source["files"])
    )


def _local(sources: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [source for source in sources if not source.get("hub") and local_names(source["files"])]


def top_file(name: str, root: Path) -> str:
    """Return the file on disk that a name belongs to: the archive where it lies in one."""
    parts = PurePosixPath(name).parts
    for length in range(1, len(parts)):
        start = "/".join(parts[:length])
        if (root / start).is_file():
            return start
    return name


def origin_of(source: Mapping[str, Any]) -> str:
    """Return where a source's files come from, as far as the manifest says."""
    if not source.get("repository"):
        return "source " + str(source["source"]).replace(". ", ", ", 1)
    revision = source.get("revision")
    return f"{source['repository']}{f' at {revision}' if revision else ''}"
