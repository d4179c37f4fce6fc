"""What the manifest of a published benchmark says, made from the manifests and small tables of a run.

Everything in it follows from the run: no time, host or place on a machine. See `published` for the folder that it stands in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.errors import UsageError
from taskmill.recipe import Resolved
from taskmill.records import CONFIGURATIONS
from taskmill.splits.deciding.decisions import Decision, Pair
from taskmill.splits.publishing.describing.citations import citations
from taskmill.splits.publishing.describing.redistribution import redistributable
from taskmill.splits.publishing.published import (
    DATA,
    FORMAT,
    FORMAT_VERSION,
    IDS,
    TABLES,
    open_published,
    rows_root,
    table_path,
)
from taskmill.splits.publishing.writing.tables import (
    UNLEVELLED,
    count_places,
    decisions_of,
    pairs_without_sizes,
)
from taskmill.storage import FileEntry, digest

IDS_ONLY, WITH_DATA = "ids-only", "with-data"
STAGES = ("curate", "overlap", "split")
_USED = ("num_train", "num_validation", "num_test", "num_demonstration")
NUM_KEPT = 50
"""Most pairs that the manifest names of those above the threshold that were kept."""


@dataclass(frozen=True)
class PublishPlan:
    """What is published."""

    with_data: bool = False
    """Publish the prompts of tasks whose licence allows it."""
    with_mixture: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are published."""
        return (*STAGES, *(["render"] if self.with_data else []), *(["mix"] if self.with_mixture else []))


def manifest_body(
    inputs: Inputs,
    resolved: Resolved,
    plan: PublishPlan,
    recipe: Mapping[str, Any],
    tables: Mapping[str, pa.Table],
    files: Sequence[FileEntry],
) -> dict[str, Any]:
    """Return the manifest but for its digest.

    Args:
        inputs: the stages that are published.
        resolved: the recipe of the run.
        plan: what is published.
        recipe: the recipe's values without places on this machine.
        tables: as `published_tables` returns them.
        files: those written so far.

    Raises:
        UsageError: a stage is not finished, or what the benchmark extends is not there.
        DamagedError: a manifest is not the one that was written.
    """
    settings, split = resolved.recipe, inputs.manifest("split").body["recorded"]
    tasks = tables[table_path("tasks")]
    overlap = inputs.manifest("overlap").body["settings"]["overlap"]
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": settings.name,
        "root": rows_root(files, IDS, TABLES),
        "prompts_root": rows_root(files, DATA) if plan.with_data else None,
        "mode": WITH_DATA if plan.with_data else IDS_ONLY,
        "taskmill": {
            "version": split["version"],
            "revisions": {stage: inputs.manifest(stage).body["revision"] for stage in plan.stages},
        },
        "built": split["started"][:10],
        "built_with": {"python": split["python"], "libraries": split["libraries"]},
        "seed": settings.seed,
        "recipe": dict(recipe),
        "recipe_digest": digest(recipe),
        "extends": _extended(resolved),
        "sources": source_entries(inputs, recipe),
        "levels": count_places((p, t.num_rows) for p, t in tables.items() if p.startswith(f"{IDS}/")),
        "tasks": _tasks(tasks),
        "languages": _distinct(tasks, "languages"),
        "categories": _distinct(tasks, "category"),
        "leakage": _leakage(inputs, settings.split.threshold, tables),
        "licenses": _licenses(tasks, plan),
        "citations": citations(sorted({*_distinct(tasks, "benchmark"), *_distinct(tasks, "dataset")})),
        "overlap": {
            key: overlap[key] for key in ("n", "normalisation", "frequent_groups", "near_duplicates")
        },
        "stages": {
            stage: {"fingerprint": inputs.manifest(stage).fingerprint, "root": inputs.manifest(stage).root}
            for stage in plan.stages
        },
        "files": [asdict(entry) for entry in sorted(files, key=lambda entry: entry.path)],
    }


def _extended(resolved: Resolved) -> dict[str, str] | None:
    """Return name and root of the benchmark that this one extends."""
    folder = resolved.recipe.extends
    if folder is None:
        return None
    before = open_published(resolved.path(folder))
    return {"name": str(before.body["name"]), "root": before.root}


def source_entries(inputs: Inputs, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each source of a recipe's values with the upstream files that were read of it.

    Raises:
        UsageError: the stage curate is not finished, or read other sources.
    """
    upstream = inputs.manifest("curate").body["upstream"]
    stated = recipe["sources"]
    if len(upstream) != len(stated):
        raise UsageError(
            f"the stage 'curate' read {len(upstream)} sources and the recipe of the run has {len(stated)}: "
            f"run `taskmill run RUN` first"
        )
    found = []
    for source, entry in zip(stated, upstream):
        names = {key: source[key] for key in ("reader", "hub", "path")}
        names["benchmark"] = entry["source"].split(". ", 1)[1].rsplit(" (", 1)[0]
        files = [
            {key: file[key] for key in ("name", "bytes", "sha256", "records")} for file in entry["files"]
        ]
        origin = {key: entry[key] for key in ("source", "repository", "revision", "license")}
        found.append({**origin, **names, "missing": entry.get("missing", False), "files": files})
    return found


def _tasks(tasks: pa.Table) -> dict[str, int]:
    """Return the tasks of each configuration that have an example which is not excluded."""
    number: Counter[str] = Counter()
    for row in tasks.select(["level", *_USED]).to_pylist():
        number[row["level"] or UNLEVELLED] += _num_used(row) > 0
    return {configuration: number[configuration] for configuration in CONFIGURATIONS if number[configuration]}


def _distinct(tasks: pa.Table, column: str) -> list[str]:
    """Return the values of a column, or of its lists, over the tasks with an example that is not excluded."""
    rows = [row for row in tasks.select([column, *_USED]).to_pylist() if _num_used(row)]
    values = [row[column] if isinstance(row[column], list) else [row[column]] for row in rows]
    return sorted({item for items in values for item in items})


def _num_used(row: Mapping[str, Any]) -> int:
    return sum(row[name] for name in _USED)


def _leakage(inputs: Inputs, threshold: float, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Return what is known of shared text: pairs by state, unclean examples, and what was kept above the threshold."""
    pairs = {pair.tasks: pair for pair in pairs_without_sizes(inputs)}
    kept = [
        (pairs[decision.pair], decision)
        for decision in decisions_of(inputs)
        if decision.action == "keep"
        and decision.pair in pairs
        and pairs[decision.pair].must_be_decided(threshold)
    ]
    kept.sort(key=lambda item: item[0].badness)
    counts = inputs.manifest("split").counts
    return {
        "threshold": threshold,
        "num_pairs": len(pairs),
        "states": dict(sorted(Counter(tables[table_path("pairs")]["state"].to_pylist()).items())),
        "num_unclean": counts["num_unclean"],
        "num_unclean_rare": counts["num_unclean_rare"],
        "kept": [_kept(*item) for item in kept[:NUM_KEPT]],
        "num_kept": len(kept),
    }


def _kept(pair: Pair, decision: Decision) -> dict[str, Any]:
    figures = {name: getattr(pair, name) for name in ("level", "hit_fraction", "hit_fraction_rare")}
    tasks = {"train_task": pair.train_task, "eval_task": pair.eval_task}
    return {**tasks, **figures, "by": decision.by, "why": decision.why}


def _licenses(tasks: pa.Table, plan: PublishPlan) -> list[dict[str, Any]]:
    """Return tasks and examples by licence; examples that are excluded do not count."""
    num_tasks: Counter[str] = Counter()
    num_examples: Counter[str] = Counter()
    for row in tasks.select(["license", *_USED]).to_pylist():
        number = _num_used(row)
        num_tasks[row["license"]] += number > 0
        num_examples[row["license"]] += number
    return [
        {
            "license": license,
            "num_tasks": num_tasks[license],
            "num_examples": num_examples[license],
            "with_data": plan.with_data and redistributable(license),
        }
        for license in sorted(num_tasks)
        if num_tasks[license]
    ]


def allowed_tasks(tasks: pa.Table, allowed: Callable[[str], bool]) -> pa.Array:
    """Return the tasks of `tasks` whose licence allows to pass their text on."""
    fits = [allowed(license) for license in tasks["license"].to_pylist()]
    return pc.filter(tasks["task"], pa.array(fits, pa.bool_())).combine_chunks()
