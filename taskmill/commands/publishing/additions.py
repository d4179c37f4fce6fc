"""What is added to a benchmark: YAML files with `sources`, and `plan` where these are to be evaluated, joined to its recipe.

An addition is written like a recipe without a name. Its paths are relative to its own `data_root`, by default its folder:

    sources:
      - {reader: table, path: tides.jsonl, benchmark: own, options: {...}}
    plan:
      held_out: {categories: [Tides]}
    curate:
      taxonomy: [own-tasks.csv]

Lists of the plan are joined to the benchmark's own; a number that is given counts for the tasks that are added. Nothing here
reaches a task that is there already, so that draws, which are made, and the layout cannot be given again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from taskmill.errors import RecipeError, UsageError
from taskmill.plain import build, to_json
from taskmill.recipe import Recipe, Resolved, Source
from taskmill.recipe_files import load
from taskmill.splits.planning.layout_files import Layout, join_plans
from taskmill.splits.publishing.rerunning.recipe_bundle import settings_yaml
from taskmill.storage import canonical_json

ALLOWED = ("name", "data_root", "sources", "plan", "curate.taxonomy", "curate.casts")
SETTLED = ("plan.layout", "plan.held_out.num_categories", "plan.train.num_tasks", "plan.train.num_categories")
"""Settings of the plan that were made with the benchmark and are not made again."""
_HEAD = "# Written by `taskmill extend`: the settings that are no default.\n"


def read_addition(path: Path) -> Resolved:
    """Read a YAML file of what is added.

    Raises:
        RecipeError: every problem of the file, also settings that an addition cannot have.
        UsageError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"--add: there is no file {path}; expected YAML with `sources` to add")
    addition = load(path, ("name=addition",))
    problems = []
    for key, place in addition.origin.items():
        if place == "default" or key == "name":
            continue
        if any(key == name or key.startswith(f"{name}.") for name in SETTLED):
            problems.append(
                f"{place}: {key}: this was settled when the benchmark was made; name tasks or categories"
            )
        elif not any(key == name or key.startswith(f"{name}.") for name in ALLOWED):
            problems.append(f"{place}: {key}: cannot be added; expected {', '.join(ALLOWED[1:])}")
    if problems:
        raise RecipeError(sorted(problems))
    return addition


def join(before: Resolved, additions: Iterable[Resolved], name: str | None, extends: str) -> Resolved:
    """Return the recipe of a benchmark with additions.

    Args:
        before: the recipe of the benchmark that grows, whose folder the paths of the result are relative to.
        additions: what is added.
        name: of the new version; by default that of the one before.
        extends: where the published form of the one before lies, relative to `before.base`.
    """
    recipe = before.recipe
    for addition in additions:
        root = addition.path(addition.recipe.data_root)
        sources = [_placed(source, root) for source in addition.recipe.sources]
        settled = Layout("", "", "", (), recipe.plan)
        curate, more = recipe.curate, addition.recipe.curate
        recipe = dataclasses.replace(
            recipe,
            sources=(*recipe.sources, *sources),
            plan=join_plans(addition.recipe.plan, settled),
            curate=dataclasses.replace(
                curate,
                taxonomy=(*curate.taxonomy, *(str(addition.path(file)) for file in more.taxonomy)),
                casts=(*curate.casts, *(str(addition.path(folder)) for folder in more.casts)),
            ),
        )
    recipe = dataclasses.replace(recipe, name=name or recipe.name, extends=extends)
    recipe = build(Recipe, json.loads(canonical_json(to_json(recipe))))  # in the order of recipe.json
    return dataclasses.replace(before, recipe=recipe, text=_HEAD + settings_yaml(to_json(recipe)))


def _placed(source: Source, root: Path) -> Source:
    """Return a source with its path made absolute, unless it is on the Hub."""
    if source.hub is not None:
        return source
    return dataclasses.replace(source, path=os.path.normpath(root / source.path))
