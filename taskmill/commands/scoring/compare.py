"""The command `compare`: whether one trained model is better than another, and where.

Reads the predictions and scores of finished runs; writes nothing, or the CSV that is asked for. A model is named RUN, or
RUN@MODEL with a value of the column `model` of scores (final, initial, step-000500, endpoint). Each is compared with the
first, over the prompts that both answered.

    compare_runs(["runs/base", "runs/base@initial"], as_json=False, csv_file=None, num_tasks=20)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.compare_tables import show
from taskmill.commands.scoring.scores import evaluate_settings, model_order
from taskmill.commands.scoring.tables import csv_bytes
from taskmill.errors import UsageError, did_you_mean
from taskmill.evaluation.aggregation.comparing import adjust, compare
from taskmill.evaluation.aggregation.curves import curves, step_of
from taskmill.evaluation.aggregation.joining import COLUMNS, join, why_apart
from taskmill.records import DIRECTORIES, SCHEMAS
from taskmill.storage import iter_batches, write_bytes

CSV_COLUMNS = (
    "first_model",
    "other_model",
    "scope",
    "name",
    "shots",
    "metric",
    "num",
    "first",
    "other",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "num_clean",
    "clean_first",
    "clean_other",
    "clean_difference",
    "clean_low",
    "clean_high",
    "clean_p",
    "clean_p_holm",
)
"""Columns of the file that --csv writes."""
HOW = ("normalisation", "precision", "max_new_tokens", "stop", "sampling", "pass_k", "tasks")
"""Settings of evaluate that say how a prompt is asked and what its answer is worth."""


@dataclass(frozen=True)
class Side:
    """One of the models that are compared."""

    name: str
    """As it was given."""
    found: FinishedRun
    model: str

    @cached_property
    def predictions(self) -> pa.Table:
        """Its predictions, with the columns that a comparison reads."""
        mine = [
            batch.filter(pc.equal(batch.column("model"), self.model))
            for path in self.found.inputs.files("evaluate", "predictions")
            for batch in iter_batches(path, COLUMNS)
        ]
        schema = SCHEMAS["scores/predictions"]
        return pa.Table.from_batches(mine, pa.schema([schema.field(name) for name in COLUMNS]))


def compare_runs(names: Sequence[str], as_json: bool, csv_file: Path | None, num_tasks: int) -> None:
    """Print how each model differs from the first, by level, category and task.

    Args:
        names: RUN or RUN@MODEL, two or more.
        as_json: print one JSON object.
        csv_file: also write every row there.
        num_tasks: most tasks shown of a comparison; JSON and CSV have all.

    Raises:
        UsageError: fewer than two models, one of them twice, a run without scores, a model that is not there, or nothing
            that both answered; a CSV in the folder of a stage.
        StorageError: the CSV cannot be written.
    """
    if csv_file is not None:
        _check_place(csv_file, names)
    body = compared(names)
    if csv_file is not None:
        write_bytes(csv_file, csv_bytes(_flat(body), CSV_COLUMNS))
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
    else:
        show(body, num_tasks)
        if csv_file is not None:
            click.echo(f"{csv_file}")


def _check_place(csv_file: Path, names: Sequence[str]) -> None:
    """Check that the CSV takes no file of a stage's place.

    Raises:
        UsageError: it lies in the folder of a stage.
    """
    for run in {open_side(name).found.run for name in names}:
        for name in DIRECTORIES.values():
            if csv_file.resolve().is_relative_to((run / name).resolve()):
                raise UsageError(
                    f"--csv {csv_file} lies in {run / name}, which its stage sweeps; choose another place"
                )


def compared(names: Sequence[str]) -> Row:
    """Return {"models": [..], "comparisons": [{.., "rows": [..]}], "curves": {model: [..]}}; see `compare_runs`."""
    sides = [open_side(name) for name in names]
    _check(sides)
    first, *others = sides
    comparisons = [_comparison(first, other) for other in others]
    adjust(row for comparison in comparisons for row in comparison["rows"])
    models = [
        {
            "name": side.name,
            "run": str(side.found.run),
            "model": side.model,
            "num_predictions": side.predictions.num_rows,
        }
        for side in sides
    ]
    runs = {str(side.found.run): side.found for side in sides}
    lines = {run: learning_curves(found) for run, found in runs.items()}
    return {
        "models": models,
        "comparisons": comparisons,
        "curves": {run: points for run, points in lines.items() if len({p["step"] for p in points}) > 2},
    }


def open_side(name: str) -> Side:
    """Open RUN or RUN@MODEL.

    Raises:
        UsageError: there is no such run, it has no scores, or not of that model.
    """
    path, model = Path(name), ""
    if not path.is_dir() and "@" in name:
        before, _, model = name.rpartition("@")
        path = Path(before)
    found = FinishedRun(path)
    found.require("evaluate")
    if not found.inputs.files("evaluate", "scores"):
        raise UsageError(
            f"the predictions of {path} are not scored yet: run `{found.command('evaluate')}` first"
        )
    scores = found.table("evaluate", "scores")
    assert scores is not None, "its file is there"
    return Side(name, found, _model(path, model, sorted(set(scores.column("model").to_pylist()))))


def _model(run: Path, wanted: str, known: Sequence[str]) -> str:
    if not known:
        raise UsageError(f"{run} was evaluated on no prompt: it has no scores to compare")
    if not wanted:
        return min(known, key=model_order)
    if wanted not in known:
        hint = did_you_mean(wanted, known)
        raise UsageError(f"{run} has no scores of a model {wanted!r}; it has {', '.join(known)}{hint}")
    return wanted


def _check(sides: Sequence[Side]) -> None:
    """Refuse fewer than two models, and one that is named twice.

    Raises:
        UsageError: so it is.
    """
    if len(sides) < 2:
        run = sides[0].found.run if sides else "RUN"
        raise UsageError(
            f"expected two models or more to compare: other runs, or another model of one, "
            f"as in `taskmill compare {run}@initial {run}`"
        )
    seen: dict[tuple[Path, str], str] = {}
    for side in sides:
        key = (side.found.run.resolve(), side.model)
        if key in seen:
            raise UsageError(
                f"{side.name} and {seen[key]} are the same model, {side.model} of {side.found.run}; a model is compared "
                f"with others, such as {side.found.run}@initial"
            )
        seen[key] = side.name


def _comparison(first: Side, other: Side) -> Row:
    """Return the rows of two models and what they have in common.

    Raises:
        UsageError: they have nothing in common; the message says why.
    """
    joined = join(first.predictions, other.predictions)
    if not joined.num:
        reason = why_apart(first.predictions, other.predictions)
        raise UsageError(
            f"{first.name} and {other.name} have no prompt in common that could be compared: {reason}"
        )
    tasks = [set(pc.unique(side.predictions.column("task")).to_pylist()) for side in (first, other)]
    return {
        "first_model": first.name,
        "other_model": other.name,
        "num_common": joined.num,
        "share_of_first": joined.num / first.predictions.num_rows,
        "share_of_other": joined.num / other.predictions.num_rows,
        "num_other_metric": joined.num_other_metric,
        "tasks_only_in_first": sorted(tasks[0] - tasks[1]),
        "tasks_only_in_other": sorted(tasks[1] - tasks[0]),
        "tasks_placed_otherwise": joined.moved(),
        "asked_otherwise": _asked_otherwise(first.found, other.found),
        "rows": compare(joined),
    }


def _asked_otherwise(first: FinishedRun, other: FinishedRun) -> list[str]:
    """Return the settings of evaluate under which the same prompts were asked or valued differently: not the models' doing."""
    sides = [evaluate_settings(run) for run in (first, other)]
    found = [name for name in HOW if sides[0].get(name) != sides[1].get(name)]
    if bool(sides[0].get("endpoint")) != bool(sides[1].get("endpoint")):
        found.append("endpoint")
    return [f"evaluate.{name}" for name in found]


def _flat(body: Row) -> list[Row]:
    return [
        {**row, "first_model": comparison["first_model"], "other_model": comparison["other_model"]}
        for comparison in body["comparisons"]
        for row in comparison["rows"]
    ]


def learning_curves(found: FinishedRun) -> list[Row]:
    """Return the points of a run's learning curves, see `curves`; none when it has no scores."""
    rows = found.rows("evaluate", "scores")
    steps = [line["step"] for line in found.metrics if "step" in line]
    known = [step for row in rows if (step := step_of(row["model"], 0)) is not None]
    return curves(rows, max([*steps, *known], default=0))
