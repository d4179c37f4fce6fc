"""From answers to predictions: each answer with its metric, value, group and whether its example is clean.

Reads `outputs/` of this stage, the prompts, the split's members and, for metrics that look at an example's fields, the
catalogue's examples; writes nothing. One task under one model and number of shots is held at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.artifact import Inputs
from taskmill.errors import DamagedError
from taskmill.evaluation.aggregation.hierarchy import DECIMALS
from taskmill.evaluation.answering.jobs import Unit, output_path
from taskmill.evaluation.asking.prompts import (
    Row,
    Survey,
    metric_of,
    question_of,
    read_prompts,
    references_of,
)
from taskmill.evaluation.asking.rules import Rule
from taskmill.evaluation.metrics import registry as metrics
from taskmill.evaluation.metrics.extraction import EXTRACTIONS
from taskmill.recipe_evaluate import Evaluate, is_function
from taskmill.records import SCHEMAS
from taskmill.storage import iter_batches, read_rows, read_table

_FACTS = ("task", "family", "subtask", "benchmark", "category")
VALUES = pa.schema(
    [
        SCHEMAS["scores/predictions"].field(name)
        for name in ("references", "correct_option", "metric", "answer", "value", "statistics")
    ]
)
"""Columns of what the metrics make of an answer, in predictions too."""


class Members:
    """(group, clean) of the examples that are asked, read a task at a time."""

    def __init__(self, inputs: Inputs, split: str) -> None:
        """Find where the examples of a split are."""
        self._places: dict[str, list[tuple[Path, list[int]]]] = {}
        for path in inputs.files("split", "members"):
            first, found = 0, dict[str, list[int]]()
            for batch in iter_batches(path, ["task", "split"]):
                numbers = pc.indices_nonzero(pc.equal(batch.column("split"), split))
                tasks = batch.column("task").take(numbers).to_pylist()
                for number, task in zip(numbers.to_pylist(), tasks):
                    found.setdefault(task, []).append(first + number)
                first += batch.num_rows
            for task, rows in found.items():
                self._places.setdefault(task, []).append((path, rows))

    def of(self, task: str) -> dict[str, tuple[int, bool]]:
        """Return (group, clean) by example.

        Raises:
            DamagedError: see storage.read_rows.
        """
        found: dict[str, tuple[int, bool]] = {}
        for path, rows in self._places.get(task, []):
            table = read_rows(path, rows)
            columns = (table.column(name).to_pylist() for name in ("example", "group", "clean"))
            found.update({example: (group, clean) for example, group, clean in zip(*columns)})
        return found


class Fields:
    """The fields of examples, read a task at a time."""

    def __init__(self, inputs: Inputs, tasks: pa.Table) -> None:
        """Take the task table, with the columns of rules.COLUMNS."""
        rows = tasks.select(["task", "shard", "first_row", "num_kept"]).to_pylist()
        self._places = {row["task"]: row for row in rows}
        self._inputs = inputs

    def of(self, task: str) -> dict[str, dict[str, Any]]:
        """Return the fields by example.

        Raises:
            DamagedError: a file of examples is missing or damaged.
        """
        place = self._places[task]
        files = {path.stem: path for path in self._inputs.files("curate", "examples")}
        rows = range(place["first_row"], place["first_row"] + place["num_kept"])
        table = read_rows(files[place["shard"]], rows)
        pairs = zip(table.column("example").to_pylist(), table.column("fields").to_pylist())
        return {example: json.loads(fields) for example, fields in pairs}


@dataclass(frozen=True)
class Valuing:
    """What predictions are made with."""

    evaluate: Evaluate
    facts: Mapping[str, Mapping[str, Any]]
    """Task -> its row of the task table."""
    members: Members
    fields: Fields
    functions: Mapping[str, metrics.OwnFunction]
    """Functions of one's own, by FILE.py:FUNCTION."""
    outputs: Path
    """Folder of the stage."""
    workers: int
    predict_only: bool

    def measure(self, rule: Rule, metric: str, chosen: bool) -> metrics.Measure:
        """Return how answers under a metric are valued; `chosen` ones, the options of a ranking, are taken whole."""
        return metrics.Measure(
            metric,
            rule.normaliser,
            "whole" if chosen else rule.extract,
            self.evaluate.pass_k,
            self.evaluate.code,
            self.functions.get(metric),
        )


def open_functions(evaluate: Evaluate, base: Path) -> dict[str, metrics.OwnFunction]:
    """Return the functions that entries name, opened; paths are relative to `base`.

    Raises:
        RecipeError: see metrics.open_function.
    """
    named = {entry.metric for entry in evaluate.tasks if entry.metric and is_function(entry.metric)}
    return {metric: metrics.open_function(metric, base) for metric in sorted(named)}


def measures_of(
    valuing: Valuing, surveys: Sequence[Survey], rules: Mapping[str, Rule]
) -> Iterator[metrics.Measure]:
    """Yield the measures that are needed, so that what they need is looked for before a model loads."""
    for survey in surveys:
        rule = rules[survey.place.task]
        for metric in survey.metrics:
            yield valuing.measure(rule, metric, False)


@dataclass(frozen=True)
class Answered:
    """The prompts of a task, and what one model answered to them with one number of shots."""

    model: str
    rule: Rule
    shots: int
    rows: list[Row]
    answers: list[dict[str, Any]]
    """Rows of answers.OUTPUTS, one for each prompt."""


def read_answers(valuing: Valuing, survey: Survey, units: Sequence[Unit]) -> Answered:
    """Read what the units of a task answered, in order.

    Raises:
        DamagedError: an output does not answer the prompts that there are.
    """
    rows = read_prompts(survey.place)
    answers: list[dict[str, Any]] = []
    for unit in units:
        answers += read_table(valuing.outputs / output_path(unit.name)).to_pylist()
    if [row["prompt"] for row in rows] != [answer["prompt"] for answer in answers]:
        path = valuing.outputs / output_path(units[0].name)
        raise DamagedError(f"{path} answers other prompts than there are; --force makes it again")
    first = units[0]
    return Answered(first.model.name, first.rule, first.shots, rows, answers)


def prediction_table(valuing: Valuing, found: Answered, valued: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the predictions of one model for one task and number of shots, with their values (see VALUES).

    Raises:
        DamagedError: see storage.read_rows.
    """
    facts = {name: valuing.facts[found.rule.task][name] for name in _FACTS}
    members = valuing.members.of(found.rule.task)
    rows = [
        {
            "model": found.model,
            "shots": found.shots,
            **facts,
            **{name: row[name] for name in ("prompt", "example", "level", "template", "options")},
            **answer,
            **value,
            "group": members[row["example"]][0],
            "clean": members[row["example"]][1],
        }
        for row, answer, value in zip(found.rows, found.answers, valued, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["scores/predictions"])


def values(valuing: Valuing, answered: Answered) -> list[dict[str, Any]]:
    """Return what the metrics make of answers, a row of VALUES for each; without values where only predictions are made.

    Raises:
        DamagedError: a file of examples is missing or damaged.
        whatever a metric raises.
    """
    rule, rows, answers = answered.rule, answered.rows, answered.answers
    found: list[dict[str, Any]] = []
    by_measure: dict[metrics.Measure, list[int]] = {}
    for place, (row, given) in enumerate(zip(rows, answers)):
        references, chosen = references_of(row), given["scores"] is not None
        measure = valuing.measure(rule, metric_of(rule, row), chosen)
        by_measure.setdefault(measure, []).append(place)
        found.append(
            {
                "references": references,
                "correct_option": metrics.answer_index(row["options"], references),
                "metric": measure.metric,
                "answer": given["prediction"] if chosen else EXTRACTIONS[rule.extract](given["prediction"]),
                "value": None,
                "statistics": None,
            }
        )
    if valuing.predict_only:
        return found
    fields = valuing.fields.of(rule.task) if rule.needs_fields else {}
    for measure, places in by_measure.items():
        items = [_item(rule, rows[i], answers[i], found[i]["references"], fields) for i in places]
        for place, valued in zip(places, metrics.values(measure, items, valuing.workers), strict=True):
            found[place] |= {
                "answer": valued.answer,
                "value": round(valued.value, DECIMALS),
                "statistics": valued.statistics,
            }
    return found


def _item(
    rule: Rule,
    row: Row,
    answer: Mapping[str, Any],
    references: list[str],
    fields: Mapping[str, dict[str, Any]],
) -> metrics.Item:
    shown = question_of(row, 0).prefix if rule.needs_fields else ()
    return metrics.Item(
        samples=answer["samples"] or [answer["prediction"]],
        references=references,
        options=row["options"],
        fields=fields.get(row["example"]),
        example=row["example"],
        task=row["task"],
        prompt="".join(segment.text for segment in shown),
    )
