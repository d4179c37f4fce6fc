"""What `mix --explain` shows: natural, wanted and realised shares of a finished mixture, and which tasks are drawn how often.

Reads mixture, tasks, and the tokens that were made of this mixture where there are any; writes nothing but to stdout. Shares
of text are those of the tokens counted by tokenize, before it of rendered bytes; packed sequences are all of one length, so
shares of tokens are shares of sequences.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from taskmill.artifact import read_manifest
from taskmill.commands.figures import count, counted, decimal, percent, size
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.records import DIRECTORIES
from taskmill.training.mixing.draws import Mixture

NUM_REPEATED = 10
"""Tasks listed of those that are drawn most often."""
NUM_NAMED = 8
"""Names in a line; the rest is counted."""


def explain_mixture(run: Path) -> Row:
    """Return the finished mixture of a run as JSON values.

    Raises:
        UsageError: the stage mix is not finished.
        DamagedError: one of its files is missing or changed.
    """
    found = FinishedRun(run)
    found.require("mix")
    directory = found.manifests["mix"].directory
    body = found.json_file(directory / "mixture.json")
    mixture = Mixture.open(directory)
    draws = dict.fromkeys(((e["task"], e["condition"]) for e in body["tasks"]), 0)
    for entry, number in zip(mixture.entries, mixture.counts(body["num_prompts"]).tolist(), strict=True):
        draws[entry.task, entry.condition] = number
    entries = [{**e, "draws": draws[e["task"], e["condition"]]} for e in body["tasks"]]
    tokens, info = _tokens(found)
    return {
        **{name: body[name] for name in ("mode", "by", "seed", "block", "num_prompts")},
        "epoch": mixture.epoch if mixture.in_epochs else None,
        "text": "counted" if tokens else "estimated",
        "max_length": info.get("max_length"),
        "parts": _parts(found.shares("mix"), body["shares"], entries, tokens, info),
        "tasks": _tasks(entries),
        "benchmarks_without_prompts": _without_prompts(found, entries),
    }


def _tokens(found: FinishedRun) -> tuple[dict[str, int], Row]:
    """Return the counted tokens of each part and tokens.json; empty where no tokens were made of this mixture."""
    mixture = found.manifests["mix"].rows("mixture.json")
    made = []
    for folder in sorted((found.run / DIRECTORIES["tokenize"]).glob("*/")):
        manifest = read_manifest(folder)
        read = {} if manifest is None else {i["table"]: i["rows"] for i in manifest.body["inputs"]}
        if manifest is not None and read.get("mixture.json") == mixture:
            made.append(manifest)
    if not made:
        return {}, {}
    newest = max(made, key=lambda manifest: (manifest.body["recorded"]["started"], manifest.directory.name))
    with (newest.directory / "shares.csv").open(encoding="utf-8", newline="") as file:
        tokens = {row["benchmark"]: int(row["tokens"]) for row in csv.DictReader(file)}
    return tokens, found.json_file(newest.directory / "tokens.json")


def _parts(
    table: Sequence[dict[str, str]],
    shares: Sequence[Row],
    entries: Sequence[Row],
    tokens: dict[str, int],
    info: Row,
) -> list[Row]:
    """Return the parts, largest wanted share first, each with its shares by unit."""
    text = {row["benchmark"]: _text(row["benchmark"], entries, tokens) for row in table}
    totals = {kind: math.fsum(t[kind] for t in text.values()) for kind in ("natural", "wanted", "realised")}
    aside = {
        row["benchmark"]: {"share": row["share"], "unit": row["unit"]} if row["set_aside"] else None
        for row in shares
    }
    parts = []
    for row in table:
        name, here = row["benchmark"], text[row["benchmark"]]
        by_unit = {}
        for kind, total in totals.items():
            share = round(here[kind] / total, 6) if total else 0.0
            by_unit[kind] = {"prompts": float(row[kind]), "sequences": share, "tokens": share}
        part: Row = {"part": name, "aside": aside[name], **by_unit}
        part |= {key: int(row[key]) for key in ("tasks", "tasks_capped", "prompts", "kept", "short")}
        part |= {"passes": float(row["passes"]), "num_bytes": None, "num_tokens": None, "num_sequences": None}
        if tokens:
            number = tokens.get(name, 0)
            part |= {"num_tokens": number, "num_sequences": round(number / info["max_length"], 1)}
        else:
            part["num_bytes"] = round(here["realised"])
        parts.append(part)
    return sorted(parts, key=lambda part: (-part["wanted"]["prompts"], part["part"]))


def _text(part: str, entries: Sequence[Row], tokens: dict[str, int]) -> dict[str, float]:
    """Return the text of a part, in bytes or, where they were counted, in tokens: all of it, as wanted, and as drawn."""
    mine = [e for e in entries if e["benchmark"] == part]
    text = {
        kind: math.fsum(e[key] * e["mean_bytes"] for e in mine)
        for kind, key in (("natural", "num_prompts"), ("wanted", "share"), ("realised", "draws"))
    }
    if tokens and text["realised"]:
        per_byte = tokens.get(part, 0) / text["realised"]
        text = {kind: number * per_byte for kind, number in text.items()}
    return text


def _tasks(entries: Sequence[Row]) -> list[Row]:
    """Return the tasks, those with most passes first."""
    tasks = [
        {
            "task": e["task"],
            "condition": e["condition"],
            "part": e["benchmark"],
            "prompts": e["num_prompts"],
            "kept": e["num_kept"],
            "capped": e["num_prompts"] > e["cap"] and e["rate"] < e["num_prompts"],
            "share": e["share"],
            "draws": e["draws"],
            "passes": round(e["draws"] / e["num_kept"], 4) if e["num_kept"] else 0.0,
        }
        for e in entries
    ]
    return sorted(tasks, key=lambda t: (-t["passes"], t["task"], t["condition"] or ""))


def _without_prompts(found: FinishedRun, entries: Sequence[Row]) -> list[str]:
    """Return the benchmarks of the catalogue that have no train prompt."""
    has = {found.tasks[e["task"]]["benchmark"] for e in entries if e["task"] in found.tasks}
    return sorted({task["benchmark"] for task in found.tasks.values()} - has)


# ---------------------------------------------------------------------------------------------- terminal


def show_mixture(body: Row) -> None:
    """Print what `explain_mixture` found."""
    terminal = Terminal()
    terminal.line(_headline(body))
    _show_shares(terminal, body)
    _show_draws(terminal, body)
    _show_tasks(terminal, body)
    for line in _remarks(body):
        terminal.line(line)


def _headline(body: Row) -> str:
    parts = f"{counted(body['num_prompts'], 'positions')} of {counted(len(body['tasks']), 'tasks')}"
    if body["epoch"] is not None:
        parts += f", {decimal(body['num_prompts'] / body['epoch'], 2)} epochs of {counted(body['epoch'], 'prompts')}"
    return (
        f"{parts}; mode {body['mode']} by {body['by']}, blocks of {count(body['block'])}, seed {body['seed']}"
    )


def _show_shares(terminal: Terminal, body: Row) -> None:
    unit = "tokens" if body["text"] == "counted" else "text"
    source = (
        "of tokens as tokenize counted them"
        if unit == "tokens"
        else "of text by mean rendered bytes, before tokenize"
    )
    terminal.title("shares", f"of prompts, and {source}; shares of packed sequences are the same")
    kinds = ("natural", "wanted", "realised")
    names = ["part", *(f">{kind}" for kind in kinds), *(f">{kind} {unit}" for kind in kinds), "set aside"]
    rows = []
    for part in body["parts"]:
        shares = [percent(part[kind][by], 2) for by in ("prompts", "tokens") for kind in kinds]
        aside = part["aside"] and f"{percent(part['aside']['share'], 2)} of {part['aside']['unit']}"
        rows.append([part["part"], *shares, aside or ""])
    terminal.table(names, rows)


def _show_draws(terminal: Terminal, body: Row) -> None:
    is_counted = body["text"] == "counted"
    note = f"sequences of {count(body['max_length'])} tokens" if is_counted else "text in rendered bytes"
    terminal.title("draws", note)
    names = ("part", ">tasks", ">capped", ">prompts kept", ">drawn", ">passes")
    rows = []
    for p in body["parts"]:
        cells = [p["part"], *(count(p[key]) for key in ("tasks", "tasks_capped", "kept", "prompts"))]
        text = (
            [count(p["num_tokens"]), decimal(p["num_sequences"], 1)] if is_counted else [size(p["num_bytes"])]
        )
        rows.append([*cells, decimal(p["passes"], 2), *text])
    terminal.table((*names, *((">tokens", ">sequences") if is_counted else (">text",))), rows)


def _show_tasks(terminal: Terminal, body: Row) -> None:
    terminal.title("tasks drawn most often", "passes over their prompts")
    with_class = any(task["condition"] is not None for task in body["tasks"])
    rows = []
    for task in body["tasks"][:NUM_REPEATED]:
        condition = [task["condition"] or ""] if with_class else []
        cells = [count(task["kept"]), count(task["draws"]), decimal(task["passes"], 2)]
        rows.append([task["task"], *condition, task["part"], *cells])
    terminal.table(
        ("task", *(("class",) if with_class else ()), "part", ">prompts", ">drawn", ">passes"), rows
    )
    terminal.more(len(body["tasks"]) - NUM_REPEATED, "tasks; --json lists all")


def _remarks(body: Row) -> list[str]:
    """Return a line for each thing that a mixture may lack."""
    tasks = body["tasks"]
    lines = []
    capped = [t["task"] for t in tasks if t["capped"]]
    if capped:
        lines.append(f"capped: {_some(capped)}")
    lines += [
        f"short: {p['part']} has {count(p['kept'])} prompts, {count(p['short'])} fewer than its size"
        for p in body["parts"]
        if p["short"]
    ]
    unreached = [t["task"] for t in tasks if not t["draws"]]
    if unreached:
        lines.append(f"never drawn: {_some(unreached)}")
    if body["benchmarks_without_prompts"]:
        lines.append(f"no train prompt: {_some(body['benchmarks_without_prompts'])}")
    return ["", *lines] if lines else []


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - NUM_NAMED:,} more" if len(distinct) > NUM_NAMED else ""
    return ", ".join(distinct[:NUM_NAMED]) + more
