"""The mix stage: what is drawn how often, as a pure function from a position to a prompt row (no torch).

Reads tasks and prompts; writes `mixture.json` (the function's parameters) and `shares.csv` (natural, wanted and realised
shares of prompts). Shares and sizes: `mixing.shares`, `mixing.sizes`; the function: `mixing.draws`. OPT-IML section 4.

>>> Mixture.open(Path("runs/demo/mixture")).rows(3)          # doctest: +SKIP
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from taskmill.artifact import Inputs, Manifest, StageWriter
from taskmill.recipe import Mix
from taskmill.records import SHARE_COLUMNS
from taskmill.settings import Settings
from taskmill.storage import canonical_json
from taskmill.training.mixing.draws import CONCATENATION, FORMAT_VERSION, Entry
from taskmill.training.mixing.draws import Mixture as Mixture
from taskmill.training.mixing.plan import num_positions, plan
from taskmill.training.mixing.rows import train_rows

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("mix",)
READS = (("curate", "tasks"), ("render", "prompts"))


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Write `mixture.json` and `shares.csv`.

    Raises:
        UsageError: settings that do not fit the benchmarks or classes which have train prompts.
        TaskmillError: there is no train prompt.
    """
    mix: Mix = settings.mix
    tasks = inputs.table("curate", "tasks", ["task", "benchmark", "kind"])
    kinds = {t: (b, k) for t, b, k in zip(*(tasks[c].to_pylist() for c in ("task", "benchmark", "kind")))}
    entries = plan(mix, train_rows(inputs.files("render", "prompts")), kinds)
    num_prompts = num_positions(mix, entries)
    mixture = Mixture(entries, settings.seed, mix.block, mix.mode == CONCATENATION)
    table = share_table(mix, entries, mixture, num_prompts)
    body = {
        "format": FORMAT_VERSION,
        "seed": settings.seed,
        "block": mix.block,
        "mode": mix.mode,
        "by": mix.by,
        "num_prompts": num_prompts,
        "shares": [_share(mix, row) for row in table],
        "tasks": [asdict(e) for e in entries],
    }
    with out.shard("mixture", [e.task for e in entries]) as shard:
        shard.write_bytes("mixture.json", canonical_json(json.loads(json.dumps(body))) + b"\n")
        shard.write_bytes("shares.csv", _csv(table))
        shard.count("num_prompts", num_prompts)
        shard.count("num_tasks", len({e.task for e in entries}))
        shard.count("num_tasks_capped", sum(row["tasks_capped"] for row in table))
    out.add(shard.record)
    _tell_short(mix, table)
    log.info("mix: %d prompts drawn from %d tasks of %d parts", num_prompts, len(entries), len(table))
    return out.finish()


def share_table(
    mix: Mix, entries: Sequence[Entry], mixture: Mixture, num_prompts: int
) -> list[dict[str, Any]]:
    """Return a row of `SHARE_COLUMNS` for each part, shares of prompts over the first `num_prompts` positions."""
    drawn = dict.fromkeys(((e.task, e.condition) for e in entries), 0)
    for e, count in zip(mixture.entries, mixture.counts(num_prompts).tolist(), strict=True):
        drawn[e.task, e.condition] = count
    total = sum(e.num_prompts for e in entries)
    table = []
    for name in sorted({e.benchmark for e in entries}):
        mine = [e for e in entries if e.benchmark == name]
        kept = sum(e.num_kept for e in mine)
        count = sum(drawn[e.task, e.condition] for e in mine)
        capped = mix.mode != CONCATENATION or name in mix.sizes
        values = (
            name,
            round(sum(e.num_prompts for e in mine) / total, 6),
            round(math.fsum(e.share for e in mine), 6),
            round(count / num_prompts, 6),
            len({e.task for e in mine}),
            len({e.task for e in mine if e.num_prompts > e.cap}) if capped else 0,
            count,
            round(count / kept, 4) if kept else 0.0,
            kept,
            max(0, mix.sizes.get(name, 0) - kept),
        )
        table.append(dict(zip(SHARE_COLUMNS, values, strict=True)))
    return table


def _tell_short(mix: Mix, table: Sequence[Mapping[str, Any]]) -> None:
    for row in table:
        if row["short"]:
            log.warning(
                "mix: %s has %d of the %d prompts that mix.sizes asks for: each is taken, %d are missing",
                row["benchmark"],
                row["kept"],
                mix.sizes[row["benchmark"]],
                row["short"],
            )


def _share(mix: Mix, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's share in its unit: as the recipe sets it aside, else of all prompts."""
    part = next((part for kind, part in mix.auxiliary.items() if kind == row["benchmark"]), None)
    share, unit = (row["wanted"], "prompts") if part is None else (part.share, part.unit)
    return {
        "benchmark": row["benchmark"],
        "set_aside": part is not None,
        "unit": unit,
        "share": share,
        "num_kept": row["kept"],
        "num_short": row["short"],
    }


def _csv(table: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, SHARE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()
