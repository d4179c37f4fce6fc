"""The report of a run: one self-contained HTML file.

Reads the finished stages of a run (those that are missing are named with the command that makes them), writes
RUN/report.html. Every text of the run reaches the page through Jinja's escaping; nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from taskmill.commands import figures
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.scoring.scores import level_scores, scores, shown_model
from taskmill.errors import shorten
from taskmill.records import INITIAL, LEVELS, SPLITS
from taskmill.report_drops import drops
from taskmill.report_overlap import audit, overlap
from taskmill.report_scores import clean, curves, tasks, variants
from taskmill.stages import NAMES, STAGES
from taskmill.training.models.base_files import portable_name

TEMPLATE = Path(__file__).parent / "report.html.j2"
NUM_ROWS = 60
"""Rows of long tables that are shown; the rest is counted."""
NUM_PROMPT_CHARACTERS = 1_500


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the report of a run and return its path, by default RUN/report.html.

    Raises:
        UsageError: the run has no finished stage.
        DamagedError: a file of the run is missing or changed.
        StorageError: the report cannot be written.
    """
    from taskmill.storage import write_bytes

    path = output or run / "report.html"
    write_bytes(path, render(FinishedRun(run)).encode("utf-8", "replace"))
    return path


def render(run: FinishedRun) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: figures.visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(bar=figures.bar, heat=figures.heat)
    for name in (
        "count",
        "compact",
        "percent",
        "decimal",
        "signed",
        "duration",
        "size",
        "words",
        "named",
        "parts",
    ):
        environment.filters[name] = getattr(figures, name)
    template = environment.get_template(TEMPLATE.name)
    sections = [_section(run, *item) for item in SECTIONS]
    return template.render(head=head(run), sections=sections)


def _section(
    run: FinishedRun, name: str, title: str, stages: Sequence[str], build: Callable[[FinishedRun], Row]
) -> Row:
    """Return a section; `data` is None when none of its stages is finished."""
    missing = [{"stage": stage, "command": run.command(stage)} for stage in stages if not run.has(stage)]
    data = build(run) if not stages or run.has(stages[0]) else None
    return {"id": name, "title": title, "missing": missing, "data": data}


# ------------------------------------------------------------------------------------- head and flow


def head(run: FinishedRun) -> Row:
    """Return the run's name and the figures that matter."""
    values = run.recipe.get("values", {})
    tasks = list(run.tasks.values())
    cards = []
    if tasks:
        cards.append(
            ("tasks", figures.count(len(tasks)), f"{len({t['benchmark'] for t in tasks})} benchmarks")
        )
        cards.append(("categories", figures.count(len({t["category"] for t in tasks})), ""))
        records = account(run)
        cards.append(
            ("examples", figures.count(records["kept"]), f"of {figures.count(records['read'])} read")
        )
    if run.has("render"):
        splits = prompt_splits(run)
        cards.append(
            ("prompts", figures.count(splits.total()), f"{figures.count(splits['train'])} to train on")
        )
    if run.has("tokenize"):
        info = run.tokens.info
        share = info["num_drawn_trained"] / max(1, info["num_drawn_tokens"])
        cards.append(
            ("tokens", figures.compact(info["num_drawn_tokens"]), f"{figures.percent(share)} carry loss")
        )
    before = {(r["level"], r["shots"]): r for r in level_scores(run, INITIAL)}
    shown = {row["level"]: row for row in reversed(level_scores(run, shown_model(run)))}
    for level, row in reversed(shown.items()):
        old = before.get((level, row["shots"]))
        text = f"{figures.signed(100 * (row['value'] - old['value']))} by training" if old else ""
        cards.append((f"{figures.words(level)} score", f"{100 * row['value']:.1f}", text))
    return {
        "name": values.get("name") or run.run.name,
        "cards": [{"label": label, "value": value, "note": note} for label, value, note in cards],
        "num_finished": len(run.manifests),
        "num_stages": len(NAMES),
        "limit": values.get("limit"),
        "seed": values.get("seed"),
        "levels": {row["level"] for row in run.rows("overlap", "plan", ["level"]) if row["level"]},
    }


def prompt_splits(run: FinishedRun) -> Counter[str]:
    """Return how many prompts each split has."""
    return _counted(run, "render", "prompts", "split")


def _counted(run: FinishedRun, stage: str, table: str, column: str) -> Counter[str]:
    found = run.table(stage, table, [column])
    values = found.column(column).value_counts().to_pylist() if found is not None else []
    return Counter({v["values"]: v["counts"] for v in values})


def flow(run: FinishedRun) -> Row:
    """Return what each stage read, kept, dropped and cost."""
    stages = []
    for stage in STAGES:
        manifest = run.manifests.get(stage.name)
        row: Row = {"name": stage.name, "help": stage.help, "command": run.command(stage.name)}
        if manifest is not None:
            row |= {
                "counts": {k: v for k, v in manifest.counts.items() if v},
                "dropped": {k: v for k, v in manifest.dropped.items() if v},
                "seconds": manifest.body["recorded"]["seconds"],
                "root": manifest.root,
                "bytes": sum(f.bytes for f in manifest.files),
            }
        stages.append({**row, "finished": manifest is not None})
    return {"stages": stages, "account": account(run) if run.has("curate") else None}


def account(run: FinishedRun) -> Row:
    """Return read, kept and dropped of curate: the one place where records come in."""
    manifest = run.manifests["curate"]
    read = manifest.counts.get("examples_read", sum(t["num_read"] for t in run.tasks.values()))
    kept = manifest.counts.get("examples_kept", sum(t["num_kept"] for t in run.tasks.values()))
    dropped = sum(manifest.dropped.values())
    return {"read": read, "kept": kept, "dropped": dropped, "equal": kept + dropped == read}


# ------------------------------------------------------------------------------------ catalogue, levels


def catalogue(run: FinishedRun) -> Row:
    """Return tasks by category and benchmark, and licences."""
    tasks = list(run.tasks.values())
    benchmarks = sorted({t["benchmark"] for t in tasks})
    rows = []
    for category in sorted({t["category"] for t in tasks}):
        mine = [t for t in tasks if t["category"] == category]
        cells = [
            (len(here), sum(t["num_kept"] for t in here))
            for here in ([t for t in mine if t["benchmark"] == b] for b in benchmarks)
        ]
        rows.append({"category": category, "cells": cells, "total": (len(mine), _kept(mine))})
    totals = [[t for t in tasks if t["benchmark"] == b] for b in benchmarks]
    licences = []
    for name in sorted({t["license"] for t in tasks}):
        mine = [t for t in tasks if t["license"] == name]
        licences.append({"name": name, "tasks": len(mine), "examples": _kept(mine)})
    return {
        "benchmarks": benchmarks,
        "rows": rows,
        "totals": [(len(mine), _kept(mine)) for mine in totals],
        "total": (len(tasks), _kept(tasks)),
        "licences": sorted(licences, key=lambda row: (-row["examples"], row["name"])),
    }


def _kept(tasks: Sequence[Row]) -> int:
    return sum(task["num_kept"] for task in tasks)


def levels(run: FinishedRun) -> Row:
    """Return the tasks of each level with examples per split."""
    tasks = run.rows("split", "tasks")
    groups = []
    titles = {
        **{level: figures.words(level) for level in LEVELS},
        "train": "train only",
        "excluded": "excluded",
    }
    for name, title in titles.items():
        mine = [
            t for t in tasks if (t["level"] or ("excluded" if t["role"] == "excluded" else "train")) == name
        ]
        rows = [
            {
                "task": t["task"],
                "category": _category(run, t["task"]),
                "why": t["why"],
                "splits": [t[f"num_{split}"] for split in SPLITS],
            }
            for t in mine
        ]
        totals = [sum(row["splits"][i] for row in rows) for i in range(len(SPLITS))]
        groups.append(
            {"name": name, "title": title, "tasks": rows[:NUM_ROWS], "num": len(rows), "totals": totals}
        )
    decisions = Counter(d["action"] for d in run.rows("split", "decisions", ["action"]))
    reasons = _counted(run, "split", "members", "reason")
    return {
        "splits": SPLITS,
        "groups": [group for group in groups if group["num"]],
        "decisions": sorted(decisions.items()),
        "reasons": sorted((name, number) for name, number in reasons.items() if name),
    }


def _category(run: FinishedRun, task: str) -> str:
    return str(run.tasks[task]["category"]) if task in run.tasks else task


# --------------------------------------------------------------------------- mixture, prompts, training


def mixture(run: FinishedRun) -> Row:
    """Return natural, wanted and realised shares per benchmark."""
    tokens = {row["benchmark"]: row for row in run.shares("tokenize")}
    rows = []
    for share in run.shares("mix"):
        row: Row = {"name": share["benchmark"], "tokens": tokens.get(share["benchmark"])}
        row |= {name: float(share[name]) for name in ("natural", "wanted", "realised", "passes")}
        row |= {name: int(share[name]) for name in ("tasks", "tasks_capped", "prompts")}
        rows.append(row)
    most = max((max(r["natural"], r["wanted"], r["realised"]) for r in rows), default=1.0)
    return {
        "rows": sorted(rows, key=lambda r: (-r["wanted"], r["name"])),
        "most": most,
        "has_tokens": bool(tokens),
    }


def prompts(run: FinishedRun) -> Row:
    """Return a train prompt of each style and a test prompt of each level, in segments."""
    from taskmill.templates.composing.schemas import describe_segments

    by_style: dict[str, list[str]] = {}
    for task in run.tasks.values():
        by_style.setdefault(task["style"], []).append(task["task"])
    found = [
        row for names in by_style.values() for row in run.spread("render", "prompts", names, 1, split="train")
    ]
    plans = run.rows("overlap", "plan")
    for level in LEVELS:
        names = [p["task"] for p in plans if p["level"] == level]
        found += run.spread("render", "prompts", names, 1, split="test")
    for row in found:
        row["segments"] = [
            {"kind": kind, "trained": trained, "text": _cut(text.rstrip("\n"))}
            for kind, trained, text in describe_segments(row)
        ]
    return {"prompts": found, "splits": sorted(prompt_splits(run).items())}


def _cut(text: str) -> str:
    half = NUM_PROMPT_CHARACTERS // 2
    return text if len(text) <= 2 * half else f"{text[:half]} \u2026 {text[-half:]}"


def training(run: FinishedRun) -> Row:
    """Return the loss curve, the loss on validation prompts by level, and what was trained on."""
    lines = [line for line in run.metrics if isinstance(line.get("loss"), (int, float))]
    manifest = run.manifests["train"]
    train = manifest.body["settings"].get("train") or run.recipe.get("values", {}).get("train", {})
    data: Row = {"lines": len(lines), "counts": manifest.counts, "settings": train}
    data["recorded"] = manifest.body.get("recorded", {}).get("train", {})
    data["model"] = portable_name(train.get("model"))
    if lines:
        losses = [float(line["loss"]) for line in lines]
        stretch = max(1, len(losses) // 20)
        levels = validation_points(run.metrics)
        data |= {
            "curve": figures.loss_curve([float(line["step"]) for line in lines], losses, levels),
            "first": losses[0],
            "last": losses[-1],
            "start": sum(losses[:stretch]) / stretch,
            "end": sum(losses[-stretch:]) / stretch,
            "num_tokens": sum(line.get("num_tokens", 0) for line in lines),
            "num_trained": sum(line.get("num_trained", 0) for line in lines),
            "levels": [
                {"name": level, "num": len(points), "first": points[0], "last": points[-1]}
                | {"lowest": min(points, key=lambda point: point[1])}
                for level, points in levels.items()
            ],
        }
    return data


def validation_points(lines: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Return the (updates done, loss) of the validations among the lines of metrics.jsonl, by level."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for level, loss in line.get("validation", {}).items():
            found.setdefault(level, []).append((float(line["step"]), float(loss)))
    return {level: found[level] for level in LEVELS if level in found}


# ----------------------------------------------------------------------------------------- provenance


def provenance(run: FinishedRun) -> Row:
    """Return versions, digests, upstream files and every setting with its origin."""
    from taskmill.plain import leaves

    origin: Mapping[str, str] = run.recipe.get("origin", {})
    settings = [
        {"key": key, "value": shorten(value, 160), "origin": origin.get(key, "")}
        for key, value in leaves(run.recipe.get("values", {}))
    ]
    stages = [
        {"name": name, "seed": m.body["seed"], "revision": m.body["revision"], "fingerprint": m.fingerprint}
        | {"root": m.root, **m.body["recorded"]}
        for name, m in run.manifests.items()
    ]
    upstream = [
        {"source": item.get("source", ""), "path": item.get("path") or item.get("repository", "")}
        | {"num_files": len(item["files"]), "bytes": sum(f["bytes"] for f in item["files"])}
        for item in (run.manifests["curate"].body["upstream"] if run.has("curate") else [])
    ]
    return {
        "stages": stages,
        "upstream": upstream,
        "settings": settings,
        "libraries": sorted({(n, v) for s in stages for n, v in s["libraries"].items()}),
        "pythons": sorted({s["python"] for s in stages}),
        "versions": sorted({s["version"] for s in stages}),
        "hosts": sorted({s["host"] for s in stages}),
    }


SECTIONS: tuple[tuple[str, str, tuple[str, ...], Callable[[FinishedRun], Row]], ...] = (
    ("flow", "Flow", (), flow),
    ("drops", "Drops", ("curate",), drops),
    ("catalogue", "Catalogue", ("curate",), catalogue),
    ("levels", "Levels", ("split",), levels),
    ("overlap", "Overlap", ("overlap",), overlap),
    ("mixture", "Mixture", ("mix",), mixture),
    ("prompts", "Prompts", ("render",), prompts),
    ("audit", "Audit", ("render",), audit),
    ("training", "Training", ("train",), training),
    ("scores", "Scores", ("evaluate",), scores),
    ("tasks", "Best and worst tasks", ("evaluate",), tasks),
    ("variants", "Prompt variants", ("evaluate",), variants),
    ("clean", "Clean against full", ("evaluate",), clean),
    ("curves", "Learning curves", ("evaluate",), curves),
    ("provenance", "Provenance", (), provenance),
)
