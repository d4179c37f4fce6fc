"""The command `audit`: the paper's own check on the finished prompts, beside the content figures of the same pairs.

Reads prompts/prompts, overlaps, splits and tasks of a run; writes audit/{pairs,windows}.parquet and, last, audit/audit.json
beside the stages, and the result to stdout. OPT-IML counts 13-grams of the instantiated sequences (section 2.3), so that template
text raises its figures; Taskmill decides by content. Both figures of each pair are shown, with a verdict:

| verdict | what it says |
|---|---|
| `leak` | content above the threshold is left, and no decision keeps it |
| `kept` | content above the threshold is left, by a decision |
| `template` | only the prompts are above the threshold: what they share is put around the content, or beside it |
| `demonstrations` | the same, and outside of demonstrations the prompts are not above it |
| `clean` | neither figure is above the threshold |
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from taskmill.commands.figures import count, counted, percent, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.engine import default_workers
from taskmill.errors import UsageError
from taskmill.normalisers import named
from taskmill.splits.auditing.audit import PromptOverlap, PromptPair, compare_prompts
from taskmill.splits.auditing.prompt_index import COLUMNS
from taskmill.splits.auditing.remaining import Remaining, remaining
from taskmill.splits.auditing.segments import PLACES
from taskmill.storage import TableWriter, remove, write_json

VERDICTS = ("leak", "kept", "template", "demonstrations", "clean")
DIRECTORY = "audit"
_PAIR = ("train_task", "eval_task")
READS = ("curate", "overlap", "split", "render")
_S, _I, _F = pa.string(), pa.int64(), pa.float64()


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    """A name that ends in `?` may be null."""
    return pa.schema([pa.field(n.rstrip("?"), kind, nullable=n.endswith("?")) for n, kind in columns])


PAIRS = _schema(
    ("train_task", _S),
    ("eval_task", _S),
    ("verdict", _S),
    ("num_prompts", _I),
    ("num_prompts_hit", _I),
    ("prompt_fraction", _F),
    ("num_examples", _I),
    ("num_examples_hit", _I),
    ("num_examples_outside", _I),
    ("example_fraction", _F),
    ("num_train_prompts_hit", _I),
    ("content_fraction", _F),
    ("num_left", _I),
    ("left_fraction", _F),
    ("action?", _S),
    ("rule?", _S),
    ("why?", _S),
    *((f"eval_{name}", _I) for name in PLACES),
    *((f"train_{name}", _I) for name in PLACES),
)
"""Columns of audit/pairs.parquet; `eval_KIND` are test prompts with a matching window in segments of that kind, `train_KIND`
train prompts."""
WINDOWS = _schema(
    ("train_task", _S),
    ("eval_task", _S),
    ("text", _S),
    ("num_texts", _I),
    ("kinds", pa.list_(_S)),
    ("train_prompt", _S),
    ("eval_prompt", _S),
)
"""Columns of audit/windows.parquet: the most common windows of each pair."""


@dataclass(frozen=True)
class Check:
    """What the audit compares, and by which figure."""

    n: int
    normalisation: str
    threshold: float
    content_n: int
    content_normalisation: str


def audit(
    run: Path,
    n: int | None = None,
    normalisation: str | None = None,
    num_shown: int = 10,
    strict: bool = False,
    workers: int | None = None,
    as_json: bool = False,
) -> bool:
    """Compare the train prompts of a run with its test prompts, print and write what they share.

    Args:
        run: the run directory.
        n: words a gram of prompts; by default the recipe's overlap.n.
        normalisation: how prompts are cut into words; by default the recipe's.
        num_shown: pairs shown of each verdict.
        strict: ask whether a leak is left.
        workers: threads; by default one a core.
        as_json: print one JSON object.

    Returns:
        Whether the command failed: a leak is left and `strict` asks.

    Raises:
        UsageError: a stage that is read is not finished, or no prompt is evaluated.
        DamagedError: a file of the run is missing or changed.
        StorageError: the result cannot be written.
    """
    found = FinishedRun(run)
    for stage in READS:
        found.require(stage)
    check, tokenizer = _check(found, n, normalisation)
    threads = workers or default_workers()
    prompts = compare_prompts(
        lambda: found.inputs.batches("render", "prompts", COLUMNS),
        check.n,
        named(check.normalisation, *tokenizer),
        threads,
    )
    if not prompts.num_test_prompts:
        raise UsageError(
            f"{run} has no test prompt: its plan evaluates no task; `taskmill inspect {run} split`"
        )
    content = named(check.content_normalisation, *tokenizer)
    rows = _rows(found, prompts, remaining(found.inputs, check.content_n, content, threads), check)
    body: Row = {
        "run": str(run),
        "check": asdict(check),
        "totals": _totals(prompts, rows, check),
        "prompts": found.manifests["render"].root,
        "members": found.manifests["split"].root,
    }
    _write(run, rows, body)
    if as_json:
        click.echo(json.dumps({**body, "pairs": rows}, sort_keys=True))
    else:
        _Printer().show(body, rows, num_shown)
    return strict and bool(body["totals"]["verdicts"]["leak"])


def _check(run: FinishedRun, n: int | None, normalisation: str | None) -> tuple[Check, tuple[Any, Any]]:
    """Return what is compared: the recipe's settings unless others are given; and the tokenizer it names."""
    values = run.recipe.get("values", {})
    overlap, split = values.get("overlap", {}), values.get("split", {})
    own_n, own = overlap.get("n", 13), overlap.get("normalisation", "words-1")
    check = Check(n or own_n, normalisation or own, split.get("threshold", 0.01), own_n, own)
    return check, (overlap.get("tokenizer"), overlap.get("revision"))


def _rows(run: FinishedRun, prompts: PromptOverlap, left: Remaining, check: Check) -> list[Row]:
    """Return a row for each pair that shares text in prompts or in content."""
    content = {_key(row): row for row in run.rows("overlap", "pairs") if row["num_hit"]}
    decisions = {_key(row): row for row in run.rows("split", "decisions")}
    shared = {(pair.train_task, pair.eval_task): pair for pair in prompts.pairs}
    rows = []
    for key in sorted(content.keys() | shared.keys()):
        pair = shared.get(key) or _no_prompts(key, prompts)
        decision = decisions.get(key, {})
        row = {
            **asdict(pair),
            "prompt_fraction": pair.prompt_fraction,
            "example_fraction": pair.example_fraction,
            "content_fraction": content.get(key, {}).get("hit_fraction", 0.0),
            "num_left": left.num_hit.get(key, 0),
            "left_fraction": left.fraction(key),
            "action": decision.get("action") or None,
            "rule": decision.get("rule") or None,
            "why": decision.get("why") or None,
        }
        rows.append({**row, "verdict": _verdict(row, check.threshold)})
    return rows


def _key(row: Row) -> tuple[str, str]:
    return row["train_task"], row["eval_task"]


def _no_prompts(key: tuple[str, str], prompts: PromptOverlap) -> PromptPair:
    """Return the figures of a pair whose prompts share nothing."""
    sizes = prompts.sizes.get(key[1], (0, 0))
    none = dict.fromkeys(PLACES, 0)
    return PromptPair(*key, sizes[0], 0, sizes[1], 0, 0, 0, none, none, [])


def _verdict(row: Row, threshold: float) -> str:
    if row["left_fraction"] > threshold:
        return "kept" if row["action"] == "keep" else "leak"
    if row["example_fraction"] <= threshold:
        return "clean"
    outside = row["num_examples_outside"] / max(1, row["num_examples"])
    return "template" if outside > threshold else "demonstrations"


def _totals(prompts: PromptOverlap, rows: list[Row], check: Check) -> Row:
    """Return the figures over all pairs."""
    above = {
        name: sum(row[name] > check.threshold for row in rows)
        for name in ("example_fraction", "prompt_fraction", "content_fraction", "left_fraction")
    }
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "num_train_prompts": prompts.num_train_prompts,
        "num_test_prompts": prompts.num_test_prompts,
        "num_test_texts": prompts.num_test_texts,
        "num_prompts_hit": prompts.num_prompts_hit,
        "num_pairs": len(rows),
        "above": above,
        "verdicts": {name: verdicts[name] for name in VERDICTS},
    }


def _write(run: Path, rows: list[Row], body: Row) -> None:
    """Write both tables, then audit.json: where that is, the audit is whole."""
    path = run / DIRECTORY / "audit.json"
    remove(path)
    with TableWriter(run / DIRECTORY / "pairs.parquet", PAIRS) as table:
        for row in rows:
            flat = {
                f"{side}_{n}": num for side in ("eval", "train") for n, num in row[f"{side}_kinds"].items()
            }
            table.append({name: {**row, **flat}[name] for name in PAIRS.names})
    with TableWriter(run / DIRECTORY / "windows.parquet", WINDOWS) as windows:
        for row in rows:
            windows.write([{**dict(zip(_PAIR, _key(row))), **window} for window in row["windows"]])
    assert table.entry is not None and windows.entry is not None
    digests = {"pairs": table.entry.rows, "windows": windows.entry.rows}
    write_json(path, {**body, "tables": digests})


# ----------------------------------------------------------------------------------------- terminal

_TITLES = {
    "leak": ("leaks", "content above the threshold is left, and no decision keeps it"),
    "kept": ("kept by a decision", "content above the threshold is left"),
    "template": ("template text", "what the prompts share is not in the content"),
    "demonstrations": ("shown as demonstrations", "what the prompts share lies in demonstrations"),
}


class _Printer(Terminal):
    """Writes the result."""

    def show(self, body: Row, rows: list[Row], num_shown: int) -> None:
        """Write the totals, then the pairs by verdict, the worst first."""
        check, totals = body["check"], body["totals"]
        self.line(
            (f"{check['n']}-grams", "bold"),
            f" ({check['normalisation']}) of {counted(totals['num_train_prompts'], 'train prompts')} against "
            f"{counted(totals['num_test_prompts'], 'test prompts')} "
            f"({count(totals['num_test_texts'])} distinct, {count(totals['num_prompts_hit'])} hit)",
        )
        above, num = totals["above"], totals["num_pairs"]
        content = f"{check['content_n']}-grams, {check['content_normalisation']}"
        self.line("")
        self.table(
            ("", ">pairs", f">above {percent(check['threshold'])} of examples"),
            [
                ("prompts, as OPT-IML counts", count(num), count(above["example_fraction"])),
                (f"content, before decisions ({content})", count(num), count(above["content_fraction"])),
                ("content, left by decisions", count(num), count(above["left_fraction"])),
            ],
        )
        for verdict, (title, note) in _TITLES.items():
            own = [row for row in rows if row["verdict"] == verdict]
            if not own:
                continue
            self.title(f"{title}: {counted(len(own), 'pairs')}", note)
            for row in sorted(own, key=_badness)[:num_shown]:
                self.pair(row)
            self.more(len(own) - num_shown, "pairs; -k shows more of them, --json all")
        if not totals["verdicts"]["leak"]:
            self.line("")
            self.line(("no leak: no content above the threshold is left undecided", "green"))

    def pair(self, row: Row) -> None:
        """Write one pair with its figures, where they lie, and its windows."""
        self.line(f"  {row['train_task']} -> {row['eval_task']}")
        self.line(
            f"    prompts {percent(row['prompt_fraction'])} ({count(row['num_prompts_hit'])} of "
            f"{count(row['num_prompts'])}), examples {percent(row['example_fraction'])}; content "
            f"{percent(row['content_fraction'])}, left {percent(row['left_fraction'])}"
        )
        places = [
            f"{name} {percent(num / row['num_prompts'])}" for name, num in row["eval_kinds"].items() if num
        ]
        if places:
            self.line(("    in ", "dim"), ", ".join(places))
        if row["action"]:
            by = f" by rule {row['rule']}" if row["rule"] else " by a person"
            self.line(("    decision ", "dim"), f"{words(row['action'])}{by}: {row['why'] or ''}")
        for window in row["windows"]:
            self.line(
                ("    ", ""),
                (f"{count(window['num_texts'])} x ", "dim"),
                (window["text"], "green"),
                (f"  in {', '.join(window['kinds'])}", "dim"),
            )


def _badness(row: Row) -> tuple[float, float, str, str]:
    return -row["left_fraction"], -row["example_fraction"], row["train_task"], row["eval_task"]
