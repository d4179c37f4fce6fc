"""Facts of the catalogue: tasks, categories, layouts and limits, counted in the shipped taxonomy, layouts and recipes.

Reads the files that ship; `compute` returns key -> value for `published.yaml`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from taskmill import recipe_files
from taskmill.commands.taxonomy import PAPER, summary
from taskmill.curation.casting import known_casts
from taskmill.curation.taxonomy import Taxonomy, load_taxonomy, taxonomy_files
from taskmill.recipe import Plan, Recipe, known_layouts
from taskmill.splits.planning.layout_files import find_layout

_NI = "super_natural_instructions"


def compute() -> dict[str, Any]:
    """Return the figures of the catalogue by key."""
    taxonomy = load_taxonomy(taxonomy_files([]))
    return {**_benchmarks(taxonomy), **_super_ni(taxonomy), **_layouts(taxonomy), **_limits()}


def _benchmarks(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return tasks and categories of each benchmark as `taskmill taxonomy show` counts them, and what is left of them."""
    rows = {row["benchmark"]: row for row in summary(taxonomy)["benchmarks"]}
    found: dict[str, Any] = {}
    for name in PAPER:
        found[f"tasks.{name}"] = rows[name]["num_tasks"]
        found[f"categories.{name}"] = rows[name]["num_categories"]
    found["tasks.flan_in_text"] = rows["flan"]["num_tasks"]
    found["tasks.sum"] = sum(rows[name]["num_tasks"] for name in PAPER)
    found["tasks.headline"] = len(_kept(taxonomy))
    return found


def _kept(taxonomy: Taxonomy) -> list[str]:
    """Return the tasks of the eight benchmarks that are left where some keep only data sets that no other has."""
    only_new = Recipe("", ()).curate.only_new
    rows = {task: taxonomy.row(task) for task in taxonomy.tasks if task.partition("/")[0] in PAPER}
    kept: list[str] = []
    known: set[str] = set()
    for wave in (False, True):
        for task in sorted(rows):
            benchmark, name = task.split("/", 1)
            dataset = rows[task].get("dataset", name)
            if (benchmark in only_new) is wave and not (wave and dataset in known):
                kept.append(task)
        known |= {rows[task].get("dataset", task) for task in kept}
    return kept


def _super_ni(taxonomy: Taxonomy) -> dict[str, Any]:
    tasks = [task for task in taxonomy.tasks if task.startswith(f"{_NI}/")]
    by_category = Counter(taxonomy.row(task)["category"] for task in tasks)
    return {
        "super_ni.by_category": dict(sorted(by_category.items())),
        "super_ni.paper_tasks": len(tasks),
        "super_ni.test_categories": sorted(_plan("super-ni/default").held_out.categories),
        "super_ni.test_category_tasks": sum(
            by_category[name] for name in _plan("super-ni/default").held_out.categories
        ),
    }


def _layouts(taxonomy: Taxonomy) -> dict[str, Any]:
    plan = _plan("opt-iml")
    reasoning = [task for task in taxonomy.tasks if task.startswith("reasoning/")]
    held = [task for task in reasoning if task in plan.partial]
    return {
        "opt_iml.held_out_categories": sorted(plan.held_out.categories),
        "opt_iml.reasoning_sets": sorted(task.partition("/")[2] for task in reasoning),
        "opt_iml.reasoning_validation": sorted(task.partition("/")[2] for task in held),
        "opt_iml.reasoning_train": len(reasoning) - len(held),
        "opt_iml.dialogue_sets": sorted(
            task.partition("/")[2]
            for task in taxonomy.tasks
            if task.startswith("dialogue/") and taxonomy.row(task)["category"] == "Dialogue Generation"
        ),
        "opt_iml.t5_kept": sorted(
            name for name in known_casts([]) if name.startswith("wmt") or name == "cnn_dailymail"
        ),
        "opt_iml.validation_examples": plan.validation.max_examples,
        "flan.clusters": sum(name.startswith("flan/") for name in known_layouts()),
        "t0.held_out": sum(name.startswith("T0 ") for name in _plan("t0").held_out.categories),
    }


def _plan(layout: str) -> Plan:
    found = find_layout(layout)
    assert found is not None
    return found.plan


def _limits() -> dict[str, Any]:
    recipe = recipe_files.find("opt-iml").recipe
    maximum = recipe_files.find("opt-iml-max").recipe
    return {
        "opt_iml.max_examples": recipe.curate.max_examples,
        "opt_iml.max_examples_flan": recipe.curate.max_examples_by_benchmark["flan"],
        "opt_iml.only_new": sorted(recipe.curate.only_new),
        "opt_iml.gram": recipe.overlap.n,
        "opt_iml.threshold": recipe.split.threshold,
        "opt_iml.validation_prompts": recipe.render.validation_prompts,
        "opt_iml.shots": list(recipe.evaluate.shots),
        "opt_iml.new_tokens": recipe.evaluate.max_new_tokens,
        "opt_iml_max.levels": sum(
            map(len, (maximum.plan.held_out.categories, maximum.plan.partial, maximum.plan.supervised))
        ),
    }
