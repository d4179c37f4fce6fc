"""The command `export mixture`: the mixture lock, an ordered list of prompts that any trainer can stream.

Reads mixture and prompts; writes `data/train-00000-of-0000N.parquet`, one row a position, `README.md`, whose head tells the
Hugging Face libraries where the rows are, and `export.json`, written last, with counts and digests:

    load_dataset("lock", split="train", streaming=True)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from taskmill.commands.export_folder import EXPORT, claim, finish
from taskmill.commands.figures import count, counted, percent
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.mixture_order import I64, integers, open_mixture, prompts_in_order
from taskmill.errors import UsageError
from taskmill.records import SCHEMAS, SEGMENT_KINDS
from taskmill.storage import FileEntry, TableWriter, remove, write_bytes
from taskmill.training.mixing.draws import Mixture
from taskmill.training.mixing.quotas import MAX_DRAWS

FORMAT_VERSION = 1
SHARD_SIZE = 100_000
COLUMNS = ("prompt", "example", "task", "template", "demonstrations", "condition", "loss_weight")
"""Columns of prompts/prompts in the lock."""
TEXT_COLUMNS = ("text", "ends", "kinds", "trained", "format", "joint")
"""Those with --with-text."""
_KIND = b"mixture\n"
_SHARD = re.compile(r"train-\d{5}-of-\d{5}\.parquet|\.train-\d{5}-of-\d{5}\.parquet\.\d+\.tmp")


@dataclass(frozen=True)
class LockPlan:
    """What is exported, and how."""

    with_text: bool = False
    num: int | None = None
    """Positions; by default as many as the run reaches."""
    shard_size: int = SHARD_SIZE
    """Rows in a file."""


def export_mixture(run: Path, folder: Path, plan: LockPlan, as_json: bool) -> None:
    """Write the mixture lock of a run into a folder and print what came of it.

    Raises:
        UsageError: the run lacks a stage, or the folder holds other files.
        StaleError: the mixture is not that of the prompts.
        StorageError: the folder cannot be written.
    """
    body = write_lock(run, folder, plan)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **body}, sort_keys=True))
        return
    shards = [entry for entry in body["files"] if entry["path"].startswith("data/")]
    click.echo(
        f"{folder}/data: {counted(len(shards), 'files')}, {counted(body['counts']['positions'], 'positions')}"
    )
    click.echo(f"{counted(body['counts']['prompts'], 'distinct prompts')}")
    click.echo(f"{folder / EXPORT}")


def write_lock(run: Path, folder: Path, plan: LockPlan) -> dict[str, Any]:
    """Write the folder and return the content of its export.json; see `export_mixture`."""
    found = FinishedRun(run)
    mixture, number = open_mixture(found)
    number = plan.num or number
    if number > MAX_DRAWS:
        raise UsageError(f"--num: found {number:,}; a mixture has at most {MAX_DRAWS:,} positions")
    earlier = claim(folder, run, _KIND, _written)
    entry_P, row_P = mixture.draws(number)
    rows = _rows(found, mixture, (entry_P, row_P), _columns(plan), folder)
    shards = _write_shards(folder, ({"position": p, **row} for p, row in enumerate(rows)), number, plan)
    counts = {"positions": number, "prompts": len(np.unique(row_P))}
    card = write_bytes(folder / "README.md", _card(found, mixture, counts, plan).encode())
    entries = [*shards, card]
    for path in sorted(earlier - {entry.path for entry in entries}):
        remove(folder / path)
    body = {
        "format": FORMAT_VERSION,
        "options": {name: getattr(plan, name) for name in LockPlan.__annotations__},
        "mixture": {"seed": mixture.seed, "block": mixture.block, "in_epochs": mixture.in_epochs},
        "counts": counts,
    }
    return finish(folder, found, ("render", "mix"), entries, body)


def iterate(run: Path, start: int, stop: int | None) -> Iterator[tuple[int, Row]]:
    """Return (position, prompt) of a run's mixture from `start` on, with text; see `api.Run.mixture`."""
    found = FinishedRun(run)
    mixture, number = open_mixture(found)
    stop = number if stop is None else stop
    if not 0 <= start <= stop <= MAX_DRAWS:
        raise UsageError(f"positions {start} to {stop}; expected 0 <= start <= stop <= {MAX_DRAWS}")
    rows = _rows(found, mixture, mixture.draws(stop - start, start), (*COLUMNS, *TEXT_COLUMNS))
    return zip(range(start, stop), rows)


def _rows(
    found: FinishedRun,
    mixture: Mixture,
    draws: tuple[I64, I64],
    columns: Sequence[str],
    folder: Path | None = None,
) -> Iterator[Row]:
    """Yield the prompt of each draw, with its part and the kinds of its segments as names."""
    entry_P, row_P = draws
    rows = prompts_in_order(found, row_P, columns, folder)
    for entry, row in zip(integers(entry_P), rows, strict=True):
        if "kinds" in row:
            row["kinds"] = [SEGMENT_KINDS[kind] for kind in row["kinds"]]
        yield {"part": mixture.entries[entry].benchmark, **row}


def _written(folder: Path) -> list[str]:
    """Return the names of files that an export may have written."""
    return ["README.md", *(f"data/{p.name}" for p in (folder / "data").glob("*") if _SHARD.fullmatch(p.name))]


def _columns(plan: LockPlan) -> tuple[str, ...]:
    return (*COLUMNS, *TEXT_COLUMNS) if plan.with_text else COLUMNS


def _schema(plan: LockPlan) -> pa.Schema:
    prompts = SCHEMAS["prompts/prompts"]
    own = {"prompt": pa.string(), "kinds": pa.list_(pa.string())}
    fields = [pa.field("position", pa.int64(), False), pa.field("part", pa.string(), False)]
    for name in _columns(plan):
        fields.append(pa.field(name, own.get(name, prompts.field(name).type), prompts.field(name).nullable))
    return pa.schema(fields)


def _write_shards(folder: Path, rows: Iterator[Row], number: int, plan: LockPlan) -> list[FileEntry]:
    schema, num_shards = _schema(plan), -(-number // plan.shard_size)
    entries = []
    for shard in range(num_shards):
        name = f"data/train-{shard:05d}-of-{num_shards:05d}.parquet"
        with TableWriter(folder / name, schema, name) as table:
            for row in islice(rows, plan.shard_size):
                table.append(row)
        assert table.entry is not None, "set when the table is closed"
        entries.append(table.entry)
    return entries


# ---------------------------------------------------------------------------------------------- card

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# {name}: mixture lock

The ordered list of prompts that a training run draws: {positions} positions, {prompts} distinct prompts. Row by row it is
the order of training, so stream it and do not shuffle it:

```python
from datasets import load_dataset

rows = load_dataset("DIR", split="train", streaming=True)
rows = rows.skip(1_000)      # to go on behind position 999
```

| column | what it is |
|---|---|
{columns}

| part | positions | share |
|---|---|---|
{parts}

Made by `taskmill export mixture` from these stages; seed {seed}.

| stage | root digest of its rows |
|---|---|
{roots}
"""
_ABOUT = {
    "position": "place in the mixture, from 0",
    "part": "benchmark, class, or kind that the recipe sets aside",
    "prompt": "id of the prompt: 16 hex digits; a prompt that is drawn again has its id again",
    "example": "id of the example it shows",
    "task": "task of the example",
    "template": "template that wrote it; null where a schema did",
    "demonstrations": "ids of the examples shown before it",
    "condition": "class of quality that the text names; null without",
    "loss_weight": "weight of its loss",
    "text": "the whole text, control segments as `{bos}` and `{eos}` or the format's own marks",
    "ends": "where each segment of the text ends, in bytes of UTF-8",
    "kinds": "kind of each segment",
    "trained": "whether each segment carries loss",
    "format": "chat format of the text",
    "joint": "whether the text is tokenised as one, or segment by segment",
}
"""Column -> what the card says of it."""


def _card(found: FinishedRun, mixture: Mixture, counts: dict[str, int], plan: LockPlan) -> str:
    """Return README.md: where the rows are, what they hold, what they were made from."""
    drawn: dict[str, int] = {}
    for entry, number in zip(mixture.entries, mixture.counts(counts["positions"]).tolist(), strict=True):
        drawn[entry.benchmark] = drawn.get(entry.benchmark, 0) + number
    parts = [
        f"| {_cell(name)} | {count(n)} | {percent(n / counts['positions'], 2)} |" for name, n in drawn.items()
    ]
    stages = [stage for stage in ("curate", "split", "render", "mix") if found.has(stage)]
    return _CARD.format(
        name=found.recipe.get("values", {}).get("name", "taskmill"),
        positions=count(counts["positions"]),
        prompts=count(counts["prompts"]),
        columns="\n".join(f"| `{name}` | {_ABOUT[name]} |" for name in _schema(plan).names),
        parts="\n".join(parts),
        seed=mixture.seed,
        roots="\n".join(f"| {stage} | `{found.manifests[stage].root}` |" for stage in stages),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
