"""What curate keeps of the benchmark that a recipe extends: its tasks, whoever else brings their data sets.

Reads `tables/tasks.parquet` in the folder that `extends` names. Under `curate.only_new` a task is left where another benchmark
has its data set; a task that the extended benchmark has stays, also when a source that was added brings its data set again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from taskmill.curation.merging import TaskPlan
from taskmill.errors import UsageError
from taskmill.settings import Settings
from taskmill.storage import read_table


def pinned_datasets(settings: Settings) -> dict[str, str]:
    """Return task -> data set of the benchmark that the recipe extends; nothing where it extends none.

    Raises:
        UsageError: the folder that the recipe names is no published benchmark.
        DamagedError: the table is damaged.
    """
    if settings.extends is None:
        return {}
    path = settings.path(settings.extends) / "tables" / "tasks.parquet"
    if not path.is_file():
        raise UsageError(
            f"extends: {settings.extends!r} is no published benchmark: there is no {path}; "
            f"`taskmill extend V1 --add FILE --run DIR` writes such a recipe and the folder"
        )
    table = read_table(path, ["task", "dataset"])
    return dict(zip(table["task"].to_pylist(), table["dataset"].to_pylist(), strict=True))


def staying(plans: Sequence[TaskPlan], pinned: Mapping[str, str]) -> list[TaskPlan]:
    """Return tasks of a benchmark that keeps only what is new, those that are pinned marked."""
    return [replace(plan, stays=True) if plan.task in pinned else plan for plan in plans]


def known_elsewhere(plans: Sequence[TaskPlan], pinned: Mapping[str, str]) -> dict[str, str]:
    """Return data set -> task of what is pinned in other benchmarks than that of these tasks."""
    own = {plan.benchmark for plan in plans}
    known: dict[str, str] = {}
    for task, dataset in sorted(pinned.items()):
        if task.partition("/")[0] not in own:
            known.setdefault(dataset, task)
    return known
