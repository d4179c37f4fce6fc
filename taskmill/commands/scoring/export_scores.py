"""The command `export scores`: a run's scores for spreadsheets, notebooks and papers.

Reads the scores, and with --predictions the predictions, of a finished evaluate stage. Writes `scores.csv` and
`scores.parquet` (the rows of `scores/scores`), `scores.md` (see `markdown`), `curves.csv` where checkpoints were
scored, `predictions.parquet` where asked for, and `export.json`, last. In the CSV a name that a spreadsheet would run as a
formula begins with '; the Parquet file has it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from taskmill.commands.export_folder import claim, finish
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.compare import learning_curves
from taskmill.commands.scoring.markdown import markdown, selection
from taskmill.commands.scoring.scores import model_order
from taskmill.commands.scoring.tables import bounds, csv_bytes, points
from taskmill.errors import UsageError
from taskmill.records import SCHEMAS
from taskmill.storage import FileEntry, TableWriter, iter_batches, remove, write_bytes

FORMAT_VERSION = 1
_KIND = b"scores\n"
_NAMES = ("scores.csv", "scores.parquet", "scores.md", "curves.csv", "predictions.parquet")
CURVE_COLUMNS = (
    "step",
    "model",
    "level",
    "shots",
    "value",
    "low",
    "high",
    "clean_value",
    "clean_low",
    "clean_high",
    "num",
)
"""Columns of curves.csv."""


def export_scores(run: Path, folder: Path, predictions: bool, as_json: bool) -> None:
    """Write a run's scores into a folder and print what came of it.

    Raises:
        UsageError: there are no scores, or the folder holds other files.
        StorageError: the folder cannot be written.
    """
    found, rows = scored_run(run)
    body = write_scores_folder(found, rows, folder, predictions)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **body}, sort_keys=True))
        return
    for name, score in body["selection"].items():
        said = f"{points(score['value'])} ({bounds(score['low'], score['high'])})"
        clean = f", clean {points(score['clean_value'])}" if score["clean_value"] is not None else ""
        click.echo(f"selection score of {name}: {said}{clean}")
    click.echo(f"{folder / 'scores.md'}")


def scored_run(run: Path) -> tuple[FinishedRun, list[Row]]:
    """Return a run and the rows of its scores.

    Raises:
        UsageError: it has none; the message names the command that makes them, where there is one.
    """
    found = FinishedRun(run)
    found.require("evaluate")
    rows = found.rows("evaluate", "scores")
    if not rows and not found.rows("evaluate", "predictions", ["model"]):
        raise UsageError(f"{run} was evaluated on no prompt: it has no scores to export")
    if not rows:
        raise UsageError(f"{run} has no scores: run `{found.command('evaluate')}` first")
    return found, rows


def write_scores_folder(
    found: FinishedRun, rows: list[Row], folder: Path, predictions: bool
) -> dict[str, Any]:
    """Write the folder and return the content of its export.json; see `export_scores`."""
    earlier = claim(folder, found.run, _KIND, lambda _: _NAMES)
    curves = learning_curves(found)
    curves = curves if len({point["step"] for point in curves}) > 2 else []
    schema = SCHEMAS["scores/scores"]
    entries = [
        write_bytes(folder / "scores.csv", csv_bytes(rows, schema.names)),
        write_bytes(folder / "scores.md", markdown(found, rows, curves).encode("utf-8", "replace")),
        _write_table(folder, "scores", iter([rows])),
    ]
    if curves:
        entries.append(write_bytes(folder / "curves.csv", csv_bytes(curves, CURVE_COLUMNS)))
    if predictions:
        files = found.inputs.files("evaluate", "predictions")
        batches = (batch for path in files for batch in iter_batches(path))
        entries.append(_write_table(folder, "predictions", batches))
    for path in sorted(earlier - {entry.path for entry in entries}):
        remove(folder / path)
    scores = {row["model"]: selection(row) for row in _first(rows)}
    body = {"format": FORMAT_VERSION, "options": {"predictions": predictions}, "selection": scores}
    return finish(folder, found, ("split", "render", "train", "evaluate"), entries, body)


def _first(rows: list[Row]) -> list[Row]:
    """Return the rows of selection scores, of the model that the run is about first."""
    found = [row for row in rows if (row["scope"], row["name"]) == ("level", "all")]
    return sorted(found, key=lambda row: model_order(row["model"]))


def _write_table(folder: Path, name: str, batches: Iterator[Any]) -> FileEntry:
    with TableWriter(folder / f"{name}.parquet", SCHEMAS[f"scores/{name}"]) as writer:
        for batch in batches:
            writer.write(batch)
    assert writer.entry is not None, "the file was committed"
    return writer.entry
