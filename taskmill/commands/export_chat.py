"""The command `export chat`: finished prompts as files that TRL, axolotl and LLaMA-Factory read as they are.

Reads prompts, and the mixture for its order; writes a folder: the data (see `export_files`), `dropped.parquet` with every
prompt that is left out and why, and `export.json`, written last, with counts and digests. In mixture order each prompt is
converted once, in row order, into an unnamed file; positions then copy from it, so memory holds 14 bytes a prompt.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from taskmill import __version__, recipe_files
from taskmill.commands.export_files import Sink, axolotl, llama_factory, to_line, with_position
from taskmill.commands.export_rows import COLUMNS, NAMES, Exported, Exporter, Flag, Layout
from taskmill.commands.figures import counted, words
from taskmill.commands.finished import FinishedRun
from taskmill.errors import StaleError, StorageError, TaskmillError, UsageError
from taskmill.plain import build
from taskmill.recipe import Render
from taskmill.records import DIRECTORIES, SCHEMAS
from taskmill.storage import (
    FileEntry,
    TableWriter,
    digest,
    iter_batches,
    read_json,
    remove,
    write_bytes,
    write_json,
)
from taskmill.templates.chat.formats import RoleFormat, load_format
from taskmill.templates.chat.to_jinja import chat_template
from taskmill.training.mixture import Mixture

FORMAT_VERSION = 1
SHARD_SIZE = 1_000_000
SPLITS = ("train", "validation", "test")
EXPORT = "export.json"
MARK = ".taskmill-export"
"""An empty file that tells an export's folder, finished or not, from others."""
_BATCH = 2_000
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
    earlier = _claim(folder, run)
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
    found.require("mix")
    read = {item["table"]: item["rows"] for item in found.manifests["mix"].body["inputs"]}
    if read.get("prompts") != found.manifests["render"].rows("prompts"):
        raise StaleError(
            f"the mixture of {found.run} was made of other prompts: run `{found.command('mix')}` first"
        )
    directory = found.inputs.directory("mix")
    number = plan.num or read_json(directory / "mixture.json")["num_prompts"]
    return Mixture.open(directory).rows(number)


def _exporter(found: FinishedRun, plan: Plan) -> tuple[Exporter, Render]:
    """Return what converts rows, in the chat format that the prompts were rendered in.

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
    return Exporter(chat, conditions, plan.layout), settings


def _claim(folder: Path, run: Path) -> set[str]:
    """Mark the folder as an export's and return the files in it that an earlier or interrupted export wrote.

    Raises:
        UsageError: the folder holds files that are none of an export, or lies in a stage's.
    """
    for name in DIRECTORIES.values():
        if folder.resolve().is_relative_to((run / name).resolve()):
            raise UsageError(f"{folder} lies in {run / name}, which its stage sweeps; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; expected a folder to write to")
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if present and MARK not in present:
        raise UsageError(
            f"{folder} holds {present[0]!r} and is no export of taskmill; expected a new or empty folder, or an earlier "
            f"export, which is replaced"
        )
    names = ["dropped.parquet", *_CARDS]
    for split in SPLITS:
        for name in (split, f"{split}-documents"):
            names += [
                f"{name}/{path.name}" for path in (folder / name).glob("*") if _SHARD.fullmatch(path.name)
            ]
    remove(folder / EXPORT) if EXPORT in present else write_bytes(folder / MARK, b"")
    return {name for name in names if (folder / name).is_file()}


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
    for row, number in _rows(files, splits=wanted):
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
    offsets = np.zeros(len(wanted) + 1, dtype=np.int64)
    flags = np.zeros(len(wanted), dtype=np.int16)
    try:
        with tempfile.TemporaryFile(dir=export.folder) as spool:
            end = 0
            for place, (row, number) in enumerate(_rows(files, wanted=wanted)):
                found = export.exporter.export(row, number)
                flags[place] = found.flags
                export.flags[found.flags] += times[place]
                if found.drop is not None:
                    export.reasons[found.drop.reason] += times[place]
                    export.drop(row, number, found)
                end += spool.write(b"".join(to_line(record) + b"\n" for record in found.records))
                offsets[place + 1] = end
            for position, place in enumerate(place_P.tolist()):
                start, stop = offsets[place : place + 2].tolist()
                if start < stop:
                    spool.seek(start)
                    sink = export.sink("train", int(flags[place]))
                    for line in spool.read(stop - start).splitlines():
                        sink.write(with_position(line, position))
    except OSError as error:
        raise StorageError(f"cannot write below {export.folder}: {error.strerror or error}") from error


def _rows(
    files: list[Path], splits: tuple[str, ...] | None = None, wanted: I64 | None = None
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (row, its number) of the prompts of some splits, or of wanted numbers, ascending."""
    first = 0
    for path in files:
        for batch in iter_batches(path, COLUMNS, _BATCH):
            if wanted is not None:
                low, high = np.searchsorted(wanted, [first, first + batch.num_rows]).tolist()
                places = wanted[low:high] - first
            else:
                fits = pc.is_in(batch.column("split"), value_set=pa.array(splits))
                places = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
            if len(places):
                rows = batch.take(pa.array(places)).to_pylist()
                yield from zip(rows, (places + first).tolist(), strict=True)
            first += batch.num_rows


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
    answer = exporter.chat.roles.get("assistant", RoleFormat())
    ends = [part.text for part in answer.end if part.control and part.text not in ("{bos}", "{eos}")]
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
    manifests = {stage: found.manifests[stage] for stage in ("render", "mix") if found.has(stage)}
    if plan.order == "rows":
        manifests.pop("mix", None)
    body: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "taskmill": __version__,
        "options": {name: getattr(plan, name) for name in Plan.__annotations__},
        "chat_format": {"name": export.exporter.chat.name, "digest": export.exporter.chat.digest},
        "source": {
            stage: {"fingerprint": manifest.fingerprint, "root": manifest.root}
            for stage, manifest in manifests.items()
        },
        "counts": counts,
        "dropped": dict(sorted(export.reasons.items())),
        "files": [vars(entry) for entry in sorted(entries, key=lambda entry: entry.path)],
    }
    body["digest"] = digest(body)
    write_json(export.folder / EXPORT, body)
    return body
