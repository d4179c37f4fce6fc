"""The keys that the lm-evaluation-harness knows in a task's and in a group's YAML, and a check against them.

The harness's own `validate` calls a file with a misspelt key valid, and `run` then ends in a traceback or, worse, ignores
it; so every file is checked here before it is written. Read from lm_eval 0.4.13: `config/task.py` (TaskConfig),
`config/group.py` (GroupConfig, AggMetricConfig), `api/task.py` (entries of metric_list).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from taskmill.errors import DataError, did_you_mean

HARNESS_VERSION = "0.4.13"
"""The version that the keys were read from."""

TASK_KEYS = frozenset(
    [
        "task",
        "task_alias",
        "tag",
        "custom_dataset",
        "dataset_path",
        "dataset_name",
        "dataset_kwargs",
        "training_split",
        "validation_split",
        "test_split",
        "fewshot_split",
        "process_docs",
        "doc_to_text",
        "doc_to_target",
        "doc_to_image",
        "doc_to_audio",
        "unsafe_code",
        "doc_to_choice",
        "process_results",
        "use_prompt",
        "description",
        "target_delimiter",
        "fewshot_delimiter",
        "fewshot_config",
        "num_fewshot",
        "metric_list",
        "output_type",
        "generation_kwargs",
        "repeats",
        "filter_list",
        "should_decontaminate",
        "doc_to_decontamination_query",
        "gen_prefix",
        "metadata",
    ]
)
"""Fields of TaskConfig."""
GROUP_KEYS = frozenset(["group", "group_alias", "task", "aggregate_metric_list", "metadata"])
"""Fields of GroupConfig."""
AGGREGATE_KEYS = frozenset(["metric", "filter_list", "aggregation", "weight_by_size"])
"""Fields of AggMetricConfig, an entry of a group's `aggregate_metric_list`."""
METRIC_KEYS = frozenset(["metric", "aggregation", "higher_is_better", "hf_evaluate"])
"""What the harness reads in an entry of a task's `metric_list`; other keys would be arguments of the metric."""
GENERATION_KEYS = frozenset(["until", "max_gen_toks", "do_sample", "temperature", "top_p"])
"""What is written in `generation_kwargs`; the harness hands every other key to the model as it is."""


def check(config: Mapping[str, Any]) -> None:
    """Check every key of a task's or a group's YAML.

    Raises:
        DataError: the harness has no such key there.
    """
    name = str(config.get("group", config.get("task")))
    if "group" in config:
        _known(name, "", config, GROUP_KEYS)
        for entry in config.get("aggregate_metric_list", ()):
            _known(name, "aggregate_metric_list.", entry, AGGREGATE_KEYS)
        return
    _known(name, "", config, TASK_KEYS)
    for entry in config.get("metric_list", ()):
        _known(name, "metric_list.", entry, METRIC_KEYS)
    _known(name, "generation_kwargs.", config.get("generation_kwargs", ()), GENERATION_KEYS)


def _known(name: str, place: str, keys: Iterable[str], known: frozenset[str]) -> None:
    for key in keys:
        if key not in known:
            raise DataError(
                f"the harness has no key {place}{key} ({name}){did_you_mean(key, sorted(known))}",
                field=f"{place}{key}",
                expected=f"a key of lm_eval {HARNESS_VERSION}",
            )
