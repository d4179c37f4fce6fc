"""The command `contamination`: which evaluation records share 13-grams with train records, for files and Hub data sets.

Reads the files of both sides (see contamination_files), holds the evaluation side, streams the train side. Writes the result to
stdout, and with `out` report.json, hits.jsonl, {hits,touched}.parquet, report.html and, on request, cleaned copies below clean/.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import click

from taskmill.commands.contamination_files import Layout, find_files
from taskmill.commands.contamination_output import Printer, hit_rows, worst_hits, write_clean, write_results
from taskmill.commands.contamination_sides import Side
from taskmill.engine import default_workers
from taskmill.errors import UsageError
from taskmill.normalisers import WORDS, Normaliser, named
from taskmill.splits.auditing.contamination import FREQUENT, I64, Contamination, Records, Result

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What is compared, how, and what is written."""

    train: tuple[str, ...]
    against: tuple[str, ...]
    train_field: tuple[str, ...] = ()
    against_field: tuple[str, ...] = ()
    records: str | None = None
    no_header: bool = False
    n: int = 13
    normalisation: str = WORDS.name
    tokenizer: str | None = None
    revision: str | None = None
    frequent: int = FREQUENT
    threshold: float | None = None
    num_shown: int = 5
    out: Path | None = None
    clean: str | None = None
    """`train` or `evaluation`: the side that is copied without its hit records."""
    ignore_frequent: bool = False
    on_error: str = "stop"
    workers: int | None = None


def contamination(options: Options, as_json: bool = False) -> bool:
    """Compare the records of both sides; print and write what they share.

    Returns:
        Whether the threshold is exceeded.

    Raises:
        UsageError: places or options that make no sense.
        DataError: a file or record is damaged and nothing says skip.
        StorageError: the result cannot be written.
    """
    _check_options(options)
    normaliser = named(options.normalisation, options.tokenizer, options.revision)
    train, evaluation = _sides(options)
    found, result = _compare(options, normaliser, train, evaluation)
    body = _body(options, train, evaluation, result)
    body["worst"] = worst_hits(found, result, train, evaluation, options.num_shown)
    if options.out is not None:
        if options.clean == "train":
            touched = result.touched_rare if options.ignore_frequent else result.touched
            body["clean"] = write_clean(options.out, train, (touched, result.equal))
        elif options.clean:
            hits = result.evaluation
            hit = hits.record[~hits.is_frequent] if options.ignore_frequent else hits.record
            body["clean"] = write_clean(options.out, evaluation, (hit, result.short_equal))
        write_results(options.out, body, hit_rows(found, result, train, evaluation), train, result)
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
    else:
        Printer().show(body)
    worst = max(row["hit_fraction"] for row in body["evaluation"]["files"])
    return options.threshold is not None and worst > options.threshold


def _check_options(options: Options) -> None:
    """Refuse options that contradict each other, before anything is read.

    Raises:
        UsageError: they do; the message says what is missing.
    """
    if not options.train or not options.against:
        raise UsageError("name both sides: `taskmill contamination --train PLACE --against PLACE`")
    if options.clean and options.out is None:
        raise UsageError("--clean writes copies below the folder of --out: name one")
    if options.ignore_frequent and not options.clean:
        raise UsageError("--ignore-frequent is about the copies that --clean writes: add --clean")
    if options.normalisation != "tokenizer" and (options.tokenizer or options.revision):
        raise UsageError("--tokenizer and --revision belong to --normalisation tokenizer: add that")
    if options.threshold is not None and isnan(options.threshold):
        raise UsageError("--threshold: found nan; expected a number from 0 to 1")
    if (
        options.out is not None
        and next(p for p in (options.out, *options.out.absolute().parents) if p.exists()).is_file()
    ):
        raise UsageError(f"--out: {options.out} is no folder, nor can one be made there")


def _sides(options: Options) -> tuple[Side, Side]:
    """Return both sides with their files.

    Raises:
        UsageError: a place that makes no sense.
    """
    layout = Layout(options.records, not options.no_header)
    sides = []
    for name, places, fields in (
        ("train", options.train, options.train_field),
        ("against", options.against, options.against_field),
    ):
        files = list({file.path: file for place in places for file in find_files(place, layout)}.values())
        sides.append(Side(name, files, fields, options.on_error))
    out = options.out.resolve() if options.out is not None else None
    for side in sides:
        for file in side.files:
            if out is not None and (file.path.resolve().is_relative_to(out)):
                raise UsageError(
                    f"{file.name} lies in {options.out}, which results go to: name another --out"
                )
    return sides[0], sides[1]


def _compare(
    options: Options, normaliser: Normaliser, train: Side, evaluation: Side
) -> tuple[Contamination, Result]:
    records = [texts for batch in evaluation.read() for texts in batch]
    _check_read(evaluation, options.against, len(records))
    threads = options.workers or default_workers()
    found = Contamination(Records.of(records), options.n, normaliser, options.frequent, threads)
    del records
    with ThreadPoolExecutor(1) as pool:  # one batch is looked up while the next is read
        looked_up: Future[None] | None = None
        for batch in train.read():
            if looked_up is not None:
                looked_up.result()
            looked_up = pool.submit(found.add, Records.of(batch))
        if looked_up is not None:
            looked_up.result()
    _check_read(train, options.train, found.num_train)
    return found, found.result()


def _check_read(side: Side, places: tuple[str, ...], num_records: int) -> None:
    """Refuse a side without records: nothing that is said of it would mean anything.

    Raises:
        UsageError: there is none; the message has the first damage.
    """
    if not num_records:
        why = f": {side.errors[0]}" if side.errors else ""
        if not why and any(file.has_header for file in side.files):
            why = "; the first line of CSV and TSV names the columns, unless `--no-header` is given"
        raise UsageError(f"--{side.name}: no record of {', '.join(places)} could be read{why}")


def _body(options: Options, train: Side, evaluation: Side, result: Result) -> Row:
    """Return the figures of both sides, in all and by file."""
    hits = result.evaluation
    sides = {
        "train": _figures(
            train, {"touched": result.touched, "touched_rare": result.touched_rare, "equal": result.equal}
        ),
        "evaluation": _figures(
            evaluation,
            {
                "hit": hits.record,
                "hit_rare": hits.record[~hits.is_frequent],
                "short": result.short,
                "short_equal": result.short_equal,
            },
        ),
    }
    for row in (sides["evaluation"], *sides["evaluation"]["files"]):
        row["hit_fraction"] = row["num_hit"] / max(1, row["num_records"])
        row["hit_fraction_rare"] = row["num_hit_rare"] / max(1, row["num_records"])
    check = {k: v for k, v in asdict(options).items() if k not in ("out", "num_shown", "workers")}
    both = {file.path.resolve() for file in train.files} & {file.path.resolve() for file in evaluation.files}
    same = sorted(file.name for file in evaluation.files if file.path.resolve() in both)
    return {"check": check, **sides, "same_files": same, "clean": []}


def _figures(side: Side, records: dict[str, I64]) -> Row:
    files: list[Row] = [
        {"file": file.name, "columns": columns, "num_records": len(numbers), "num_damaged": damaged}
        for file, columns, numbers, damaged in zip(side.files, side.columns, side.numbers, side.damaged)
    ]
    for name, found in records.items():
        for row, number in zip(files, side.per_file(found)):
            row[f"num_{name}"] = number
    keys = [key for key in files[0] if key.startswith("num_")]
    return {**{key: sum(row[key] for row in files) for key in keys}, "files": files, "errors": side.errors}
