"""Tasks and groups as the harness's YAML, checked key by key, and which group holds what.

taskmill_demo                                   everything: the mean over levels and numbers of shots
  taskmill_demo_0shot_held_out                  a level
    taskmill_demo_0shot_held_out_word_analogy   a category of it
      taskmill_demo_0shot_flan_news_text_1      a leaf: one variant of a task
taskmill_demo_benchmarks                        the same leaves by benchmark
  taskmill_demo_0shot_held_out_benchmark_flan
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from taskmill.commands.lm_eval.keys import check
from taskmill.commands.lm_eval.leaves import BENCHMARK, CATEGORY, LEVEL, Group, Leaf
from taskmill.commands.lm_eval.names import Key, file_name, unique_names
from taskmill.evaluation.aggregation.nodes import ALL, ALL_SHOTS
from taskmill.evaluation.aggregation.variants import DEFAULT

SCORING = "scoring"
"""The Python file beside the tasks."""
GROUPS, TASKS, DATA = "groups", "tasks", "data"
"""Folders of the export."""
_BENCHMARKS = "benchmarks"


class Function(str):
    """A function of the Python file beside the YAML, which the harness opens."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes functions, and every list and mapping in full."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write a reference to something written before."""
        return True


_Dumper.add_representer(Function, lambda dumper, value: dumper.represent_scalar("!function", str(value)))


@dataclass(frozen=True)
class Names:
    """The names of the leaves and groups of an export."""

    by_key: Mapping[Key, str]

    def leaf(self, leaf: Leaf) -> str:
        """Return the harness's name of a leaf."""
        return self.by_key[_leaf_key(leaf)]

    def group(self, group: Group) -> str:
        """Return the harness's name of a group."""
        return self.by_key[_group_key(group)]

    @property
    def root(self) -> str:
        """The name of the group of everything."""
        return self.by_key[("group", "level", ALL, ALL_SHOTS)]

    @property
    def benchmarks(self) -> str:
        """The name of the group that holds all benchmarks' groups."""
        return self.by_key[(_BENCHMARKS,)]


def name_all(run: str, leaves: Iterable[Leaf], groups: Iterable[Group]) -> Names:
    """Return names for all leaves and groups of a run called `run`."""
    leaves = set(leaves)
    things: dict[Key, list[str]] = {(_BENCHMARKS,): [run, "benchmarks"]}
    alike = Counter((leaf.task, leaf.variant, leaf.shots) for leaf in leaves)
    for leaf in leaves:
        way = f"{'ranked' if leaf.ranked else 'generated'}_{leaf.metric}"
        variant = "" if leaf.variant == DEFAULT else leaf.variant
        several = alike[leaf.task, leaf.variant, leaf.shots] > 1
        things[_leaf_key(leaf)] = [run, f"{leaf.shots}shot", leaf.task, variant, way if several else ""]
    for group in groups:
        level, _, rest = group.name.partition("/")
        between = "benchmark" if group.metric == BENCHMARK else ""
        parts = [] if group.name == ALL else [f"{group.shots}shot", level, between, rest]
        things[_group_key(group)] = [run, *parts]
    return Names(unique_names(things))


def data_file(leaf: Leaf) -> str:
    """Return the file of a leaf's rows, in the folder."""
    parts = [f"{leaf.shots}shot", leaf.task, "" if leaf.variant == DEFAULT else leaf.variant]
    return f"{DATA}/{file_name(_leaf_key(leaf), parts)}.parquet"


def _leaf_key(leaf: Leaf) -> Key:
    return ("leaf", leaf.task, leaf.variant, leaf.shots, leaf.ranked, leaf.metric)


def _group_key(group: Group) -> Key:
    return ("group", group.scope, group.name, group.shots)


# ------------------------------------------------------------------------------------------------ YAML


def group_files(groups: Sequence[Group], names: Names, version: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the folder, YAML) of every group."""
    for group in groups:
        if group.metric in (CATEGORY, BENCHMARK):
            below = [names.leaf(leaf) for leaf in group.leaves]
        elif group.metric == LEVEL:
            below = [names.group(g) for g in groups if g.metric == CATEGORY and _in_level(g, group)]
        else:
            below = [names.group(g) for g in groups if g.metric == LEVEL]
        mean = {"metric": group.metric, "aggregation": "mean", "weight_by_size": False}
        yield _group(names.group(group), below, [mean], version)
    yield _group(names.benchmarks, [names.group(g) for g in groups if g.metric == BENCHMARK], [], version)


def _in_level(category: Group, level: Group) -> bool:
    return category.shots == level.shots and category.name.partition("/")[0] == level.name


def _group(name: str, below: list[str], metrics: list[dict[str, Any]], version: str) -> tuple[str, bytes]:
    config: dict[str, Any] = {"group": name, "task": below}
    if metrics:
        config["aggregate_metric_list"] = metrics
    config["metadata"] = {"version": version}
    return f"{GROUPS}/{name}.yaml", _yaml(config)


def task_file(
    name: str,
    leaf: Leaf,
    generation: Mapping[str, Any] | None,
    columns: Mapping[str, Any],
    version: str,
) -> tuple[str, bytes]:
    """Return (path in the folder, YAML) of a leaf.

    Args:
        name: of the task in the harness.
        leaf: what it holds.
        generation: `generation_kwargs` of a leaf that is answered freely.
        columns: those that are the same in all of its rows; `name` is what the harness calls its metric, `shares` has what
            its score is multiplied by, by metric of groups.
        version: of the export.
    """
    mean = Function(f"{SCORING}.corpus") if columns["corpus"] else "mean"
    ranked: dict[str, Any] = {"output_type": "multiple_choice", "doc_to_choice": "choices"}
    free: dict[str, Any] = {"output_type": "generate_until", "generation_kwargs": dict(generation or {})}
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": Function(f"{SCORING}.rows"),
        "dataset_kwargs": {"file": f"../{data_file(leaf)}", "columns": dict(columns)},
        "test_split": "test",
        **(ranked if leaf.ranked else free),
        "doc_to_text": "context",
        "doc_to_target": "target" if leaf.ranked else "references",
        "process_results": Function(f"{SCORING}.{'ranked' if leaf.ranked else 'generated'}"),
        "description": "",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": each, "aggregation": mean, "higher_is_better": True}
            for each in (columns["name"], *columns["shares"])
        ],
        "metadata": {"version": version},
    }
    return f"{TASKS}/{name}.yaml", _yaml(config)


def _yaml(config: dict[str, Any]) -> bytes:
    check(config)
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20).encode()
