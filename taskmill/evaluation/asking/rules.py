"""The rules by which each task is asked and its answers are valued, from the recipe and the task table (no torch).

What an entry of `evaluate.tasks` says of a task comes first, then the section, then the task table; of several entries
that fit a task the first counts. Rules of thumb, as in OPT-IML section 4.1: a task of `zero_shot_only` is asked without
demonstrations, the answer of a reasoning task is what follows its last "The answer is".

Reads the task table; writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.errors import RecipeError, UsageError, did_you_mean
from taskmill.recipe_evaluate import Evaluate, TaskScoring, is_function, runs_code
from taskmill.records import METRICS
from taskmill.selectors import TASK_COLUMNS, Facts, read_facts, select, unmatched
from taskmill.storage import file_digest

log = logging.getLogger("taskmill")

COLUMNS = tuple(
    dict.fromkeys((*TASK_COLUMNS, "subtask", "metric", "style", "shard", "first_row", "num_kept"))
)
"""Columns of the task table that evaluation reads."""
_DEFAULT_ZERO_SHOT = Evaluate().zero_shot_only


@dataclass(frozen=True)
class Rule:
    """How one task is asked and valued."""

    task: str
    shots: tuple[int, ...]
    """Numbers of demonstrations, ascending; none where the section asks for none that the task may have."""
    metric: str
    """Of answers that are generated and that no option equals: one of records.METRICS, or FILE.py:FUNCTION."""
    is_own_metric: bool
    """Whether an entry names the metric: it then counts for chosen options too."""
    normaliser: str | None
    extract: str
    ranks: bool
    """Whether prompts with their answer among their options are ranked."""
    stop: tuple[str, ...]
    max_new_tokens: int

    @property
    def needs_fields(self) -> bool:
        """Whether its metric reads the fields of the example."""
        return runs_code(self.metric)


def resolve(evaluate: Evaluate, tasks: pa.Table, evaluated: Iterable[str]) -> dict[str, Rule]:
    """Return the rule of every evaluated task.

    Args:
        evaluate: the recipe's section.
        tasks: the task table with COLUMNS.
        evaluated: the tasks that have prompts of the split asked; where there are none no selector is judged.

    Raises:
        RecipeError: a selector that fits no evaluated task, shots that the section does not ask for, an unknown metric.
    """
    names = set(evaluated)
    facts = {task: row for task, row in read_facts(tasks).items() if task in names}
    problems = _unmatched(evaluate, facts) if facts else []
    if problems:
        raise RecipeError(problems)
    zero_shot = select(facts, evaluate.zero_shot_only)
    entries = _entries(evaluate, facts)
    rows = {row["task"]: row for row in tasks.select(["task", "metric", "style"]).to_pylist()}
    rules = {
        task: _rule(evaluate, rows[task], entries.get(task, TaskScoring(())), task in zero_shot)
        for task in facts
    }
    without = [rule.task for rule in rules.values() if not rule.shots]
    if without:
        log.warning(
            "evaluate: %d tasks are not asked, %s first: evaluate.zero_shot_only lets them be asked with 0 "
            "demonstrations alone, which evaluate.shots leaves out",
            len(without),
            without[0],
        )
    return rules


def check_code(rules: Mapping[str, Rule], evaluate: Evaluate) -> None:
    """Check that programs may be run where a metric runs them.

    Raises:
        UsageError: a task has the metric pass_at_k, and `code.run` is off.
    """
    running = sorted(rule.task for rule in rules.values() if rule.metric == "pass_at_k")
    if running and not evaluate.code.run:
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        raise UsageError(
            f"the metric pass_at_k of {running[0]!r}{more} runs programs that a model wrote, which can do whatever you can "
            "do on this machine; where that is acceptable (best in a container without network) opt in with "
            "`--set evaluate.code.run=true`, or give the task another metric in evaluate.tasks; "
            "--predict-only runs nothing"
        )


def function_digests(evaluate: Evaluate, base: Path) -> dict[str, str]:
    """Return the digest of the file behind each function that an entry names, relative to `base`.

    Raises:
        UsageError: a file is missing.
    """
    found = {}
    for entry in evaluate.tasks:
        if entry.metric is not None and is_function(entry.metric):
            path = base / entry.metric.rpartition(":")[0]
            if not path.is_file():
                raise UsageError(
                    f"evaluate.tasks: the metric {entry.metric!r} names {path}, and there is no such file"
                )
            found[entry.metric] = file_digest(path)
    return found


def may_need_fields(evaluate: Evaluate, tasks: pa.Table) -> bool:
    """Return whether some task's metric may read fields of examples."""
    named = {entry.metric for entry in evaluate.tasks} | set(tasks.column("metric").to_pylist())
    return any(runs_code(metric) for metric in named if metric)


def _unmatched(evaluate: Evaluate, facts: Facts) -> list[str]:
    """Return a line for each selector that fits no evaluated task, and for shots that are not asked."""
    asked, problems = sorted(set(evaluate.shots)), []
    lists = {f"evaluate.tasks.{number}.tasks": entry.tasks for number, entry in enumerate(evaluate.tasks)}
    for key, selectors in lists.items():
        problems += unmatched(key, selectors, facts, "evaluated tasks")
    problems += unmatched(
        "evaluate.zero_shot_only", evaluate.zero_shot_only, facts, "evaluated tasks", _DEFAULT_ZERO_SHOT
    )
    for number, entry in enumerate(evaluate.tasks):
        if more := sorted(set(entry.shots or ()) - set(asked)):
            problems.append(
                f"evaluate.tasks.{number}.shots: found {more[0]}; expected numbers of evaluate.shots, "
                f"which are {', '.join(map(str, asked))}"
            )
    return problems


def _entries(evaluate: Evaluate, facts: Facts) -> dict[str, TaskScoring]:
    """Return the first entry that fits each task."""
    found: dict[str, TaskScoring] = {}
    for entry in evaluate.tasks:
        for task in select(facts, entry.tasks):
            found.setdefault(task, entry)
    return found


def _rule(evaluate: Evaluate, row: Mapping[str, Any], entry: TaskScoring, zero_shot: bool) -> Rule:
    metric = entry.metric or row["metric"]
    if metric not in METRICS and not is_function(metric):
        raise RecipeError(
            [
                f"evaluate: no metric is called {metric!r} (of {row['task']!r}){did_you_mean(metric, METRICS)}; "
                f"there are {', '.join(METRICS)}"
            ]
        )
    shots = set(evaluate.shots)
    if entry.shots is not None:
        shots &= set(entry.shots)
    elif zero_shot:
        shots &= {0}
    extract = "after_answer" if row["style"] == "reasoning" else "whole"
    return Rule(
        task=row["task"],
        shots=tuple(sorted(shots)),
        metric=metric,
        is_own_metric=entry.metric is not None,
        normaliser=entry.normaliser,
        extract=entry.extract or extract,
        ranks=entry.options != "generate" and evaluate.endpoint is None,
        stop=evaluate.stop if entry.stop is None else entry.stop,
        max_new_tokens=entry.max_new_tokens or evaluate.max_new_tokens,
    )
