"""The command `export chat`: finished prompts as files that TRL, axolotl and LLaMA-Factory read as they are.

Reads prompts, and the mixture for its order; writes a folder: the data (see `export_files`), `dropped.parquet` with every
prompt that is left out and why, and `export.json`, written last, with counts and digests. In mixture order each prompt is
converted once, in row order; positions then copy from there (see `mixture_order`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from taskmill import recipe_files
from taskmill.commands.export_files import Sink, axolotl, llama_factory, to_line, with_position
from taskmill.commands.export_folder import EXPORT, claim, finish
from taskmill.commands.export_rows import COLUMNS, NAMES, Exported, Exporter, Flag, Layout
from taskmill.commands.figures import counted, words
from taskmill.commands.finished import FinishedRun
from taskmill.commands.mixture_order import Spool, integers, open_mixture, read_prompts
from taskmill.errors import StaleError, TaskmillError, UsageError
from taskmill.plain import build
from taskmill.recipe import Condition, Render
from taskmill.records import SCHEMAS
from taskmill.storage import FileEntry, TableWriter, remove, write_bytes
from taskmill.templates.chat.formats import ChatFormat, RoleFormat, load_format
from taskmill.templates.chat.to_jinja import chat_template

FORMAT_VERSION = 1
SHARD_SIZE = 1_000_000
SPLITS = ("train", "validation", "test")
_SHARD = re.compile(r"\d{5}\.(jsonl|parquet)|\.\d{5}\.(jsonl|parquet)\.\d+\.tmp")
_CARDS = ("dataset_info.json", "axolotl.yaml", "chat_template.jinja")

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What is exported, and how."""

    layout: Layout = "messages"
    split: str = "train"
    order: Literal["rows", "mixture"] = "rows"
    num: int | None = None
    """Most prompts of each split, or positions of the mixture."""
    shard_size: int = SHARD_SIZE
    parquet: bool = False


@dataclass
class _Export:
    """The files and counts of an export under way."""

    folder: Path
    plan: Plan
    exporter: Exporter
    dropped: TableWriter
    sinks: dict[str, Sink] = field(default_factory=dict)
    flags: Counter[int] = field(default_factory=Counter)
    """Flags of a prompt -> prompts, counted as often as they are drawn."""
    reasons: Counter[str] = field(default_factory=Counter)

    def sink(self, split: str, flags: int) -> Sink:
        name = f"{split}-documents" if flags & Flag.DOCUMENT else split
        if name not in self.sinks:
            self.sinks[name] = Sink(self.folder, name, self.plan.shard_size, self.plan.parquet)
        return self.sinks[name]

    def drop(self, row: dict[str, Any], number: int, found: Exported) -> None:
        """List a prompt that is left out."""
        assert found.drop is not None
        empty = dict.fromkeys(SCHEMAS["prompts/dropped"].names)
        named = {name: row[name] for name in ("task", "example", "template")}
        why = {"stage": "export", "reason": found.drop.reason, "detail": found.drop.detail}
        self.dropped.append({**empty, **named, **why, "record": number})

    def close(self) -> list[FileEntry]:
        for sink in self.sinks.values():
            sink.close()
        return sorted((e for sink in self.sinks.values() for e in sink.entries), key=lambda e: e.path)

    def abandon(self) -> None:
        for sink in self.sinks.values():
            sink.abandon()


def export_chat(run: Path, folder: Path, plan: Plan, as_json: bool) -> None:
    """Export a run's prompts into a folder and print what came of it.

    Raises:
        UsageError: the run lacks a stage, the folder holds other files, or the options contradict each other.
        StaleError: the mixture or the chat format is not that of the prompts.
        TaskmillError: no prompt can be exported.
        StorageError: the folder cannot be written.
    """
    body = write_export(run, folder, plan)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **body}, sort_keys=True))
        return
    for entry in body["files"]:
        if entry["num_rows"]:
            click.echo(f"{entry['path']}: {counted(entry['num_rows'], 'rows')}")
    for name, number in body["counts"].items():
        if number:
            click.echo(f"{words(name)}: {number:,}")
    for reason, number in body["dropped"].items():
        click.echo(f"left out, {words(reason)}: {number:,}")
    click.echo(f"{folder / EXPORT}")


def write_export(run: Path, folder: Path, plan: Plan) -> dict[str, Any]:
    """Write the folder and return the content of its export.json; see `export_chat`."""
    found = FinishedRun(run)
    found.require("render")
    mixture = _mixture(found, plan) if plan.order == "mixture" else None
    exporter, settings = _exporter(found, plan)
    earlier = claim(folder, run, b"", _written)
    with TableWriter(folder / "dropped.parquet", SCHEMAS["prompts/dropped"]) as dropped:
        export = _Export(folder, plan, exporter, dropped)
        try:
            files = found.inputs.files("render", "prompts")
            if mixture is None:
                _in_row_order(export, files)
            else:
                _in_mixture_order(export, files, mixture)
            data = export.close()
        except BaseException:
            export.abandon()
            raise
    if not data:
        raise TaskmillError(_nothing(export))
    assert dropped.entry is not None, "set when the table is closed"
    cards = _cards(export, found, [entry.path for entry in data], settings)
    entries = [*data, dropped.entry, *cards]
    for path in sorted(earlier - {entry.path for entry in entries}):
        remove(folder / path)
    return _finish(export, found, entries)


# ------------------------------------------------------------------------------------ what is exported


def _mixture(found: FinishedRun, plan: Plan) -> I64:
    """Return the prompt row of each position.

    Raises:
        UsageError: the split is not train, or there is no mixture.
        StaleError: the mixture was made of other prompts.
    """
    if plan.split != "train":
        raise UsageError(f"--order mixture is an order of train prompts; leave --split {plan.split} out")
    mixture, number = open_mixture(found)
    return mixture.rows(plan.num or number)


def chat_format(found: FinishedRun) -> tuple[ChatFormat, dict[str, Condition], Render]:
    """Return the chat format that a run's prompts were rendered in, its conditions, and the section `render`.

    Raises:
        StaleError: the files of that format have changed since.
        UsageError: they are not there.
    """
    body = found.manifests["render"].body
    settings: Render = build(Render, body["settings"].get("render", {}))
    chat = load_format(settings.format, recipe_files.from_json(found.run).base)
    if body["external"].get("format", chat.digest) != chat.digest:
        raise StaleError(
            f"the chat format {settings.format!r} has changed since the prompts of {found.run} were rendered in it: "
            f"run `{found.command('render')}` first"
        )
    conditions = (settings.conditions or chat.conditions) if chat.has_conditions else {}
    return chat, dict(conditions), settings


def _exporter(found: FinishedRun, plan: Plan) -> tuple[Exporter, Render]:
    """Return what converts rows, in the run's chat format; see `chat_format`."""
    chat, conditions, settings = chat_format(found)
    return Exporter(chat, conditions, plan.layout), settings


def end_marks(chat: ChatFormat) -> list[str]:
    """Return the special tokens that end an answer, beside the tokenizer's `eos_token`."""
    answer = chat.roles.get("assistant", RoleFormat())
    return [part.text for part in answer.end if part.control and part.text not in ("{bos}", "{eos}")]


def _written(folder: Path) -> list[str]:
    """Return the names of files that an export may have written."""
    names = ["dropped.parquet", *_CARDS]
    for split in SPLITS:
        for name in (split, f"{split}-documents"):
            names += [
                f"{name}/{path.name}" for path in (folder / name).glob("*") if _SHARD.fullmatch(path.name)
            ]
    return names


def _nothing(export: _Export) -> str:
    if not export.flags:
        return f"there is no {export.plan.split} prompt to export; `taskmill inspect RUN render` shows what there is"
    why = ", ".join(f"{number:,} {words(reason)}" for reason, number in sorted(export.reasons.items()))
    other = "prompt-completion" if export.plan.layout == "messages" else "messages"
    return f"every prompt was left out ({why}); --layout {other} may say more"


# ---------------------------------------------------------------------------------------------- orders


def _in_row_order(export: _Export, files: list[Path]) -> None:
    """Write each prompt once, as the prompts stand."""
    plan = export.plan
    wanted = SPLITS if plan.split == "all" else (plan.split,)
    taken: Counter[str] = Counter()
    for row, number in read_prompts(files, COLUMNS, splits=wanted):
        if plan.num is not None and taken[row["split"]] >= plan.num:
            continue
        taken[row["split"]] += 1
        found = export.exporter.export(row, number)
        export.flags[found.flags] += 1
        if found.drop is not None:
            export.reasons[found.drop.reason] += 1
            export.drop(row, number, found)
        for record in found.records:
            export.sink(row["split"], found.flags).write(to_line(record))


def _in_mixture_order(export: _Export, files: list[Path], row_P: I64) -> None:
    """Write the prompt of each position; `row_P`: prompt rows, int64[num_positions]."""
    wanted, place_P = np.unique(row_P, return_inverse=True)
    times = np.bincount(place_P, minlength=len(wanted)).tolist()
    flags = np.zeros(len(wanted), dtype=np.int16)
    with Spool(len(wanted), export.folder) as spool:
        for place, (row, number) in enumerate(read_prompts(files, COLUMNS, wanted=wanted)):
            found = export.exporter.export(row, number)
            flags[place] = found.flags
            export.flags[found.flags] += times[place]
            if found.drop is not None:
                export.reasons[found.drop.reason] += times[place]
                export.drop(row, number, found)
            spool.append(b"".join(to_line(record) + b"\n" for record in found.records))
        for position, place in enumerate(integers(place_P)):
            item = spool.read(place)
            if item:
                sink = export.sink("train", int(flags[place]))
                for line in item.splitlines():
                    sink.write(with_position(line, position))


# --------------------------------------------------------------------------------------------- results


def _cards(export: _Export, found: FinishedRun, files: list[str], settings: Render) -> list[FileEntry]:
    """Write what trainers are told about the files."""
    plan, exporter = export.plan, export.exporter
    layout = "text" if exporter.as_text else plan.layout
    template = b""
    if not exporter.is_plain:
        template = chat_template(exporter.chat, settings.system, exporter.conditions).encode()
    name = re.sub(r"[^A-Za-z0-9]+", "_", str(found.recipe.get("values", {}).get("name", "taskmill")))
    info = json.dumps(llama_factory(name, files, layout), indent=2).encode() + b"\n"
    ends = end_marks(exporter.chat)
    entries = axolotl(files, layout, bool(template), ends, plan.order == "mixture")
    texts = dict(zip(_CARDS, (info, entries, template), strict=True))
    return [write_bytes(export.folder / card, text) for card, text in texts.items() if text]


def _finish(export: _Export, found: FinishedRun, entries: list[FileEntry]) -> dict[str, Any]:
    """Write export.json and return its content."""
    plan, total = export.plan, sum(export.flags.values())
    refused = sum(number for flags, number in export.flags.items() if flags & Flag.DROPPED)
    counts = {
        "prompts": total,
        "prompts_exported": total - refused,
        "prompts_left_out": refused,
        "rows": sum(sink.num_rows for sink in export.sinks.values()),
        "rows_of_documents": sum(
            s.num_rows for name, s in export.sinks.items() if name.endswith("-documents")
        ),
    }
    for flag, name in NAMES.items():
        counts[name] = sum(
            number
            for flags, number in export.flags.items()
            if flags & flag
            and not flags & (Flag.DROPPED | (Flag.DOCUMENT if flag is Flag.NOT_ALTERNATING else 0))
        )
    stages = ("render",) if plan.order == "rows" else ("render", "mix")
    body = {
        "format": FORMAT_VERSION,
        "options": {name: getattr(plan, name) for name in Plan.__annotations__},
        "chat_format": {"name": export.exporter.chat.name, "digest": export.exporter.chat.digest},
        "counts": counts,
        "dropped": dict(sorted(export.reasons.items())),
    }
    return finish(export.folder, found, stages, entries, body)
