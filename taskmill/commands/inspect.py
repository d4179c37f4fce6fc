"""The command `inspect`: what a stage of a run holds, or one example followed through all stages, on the terminal.

Reads finished stages, writes to stdout: coloured on a terminal, plain elsewhere, one JSON object with --json. What
carries loss is green on a terminal and stands in [[ ]] elsewhere; so do words that two texts share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from taskmill.commands import content
from taskmill.commands.figures import count as number
from taskmill.commands.figures import counted, decimal, duration, percent, words
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.terminal import Terminal
from taskmill.errors import UsageError
from taskmill.records import SPLITS
from taskmill.stages import position

NUM_TASKS = 40
"""Tasks listed unless a pattern names fewer; the rest is counted."""
NUM_SAMPLES = 5
NUM_CHARACTERS = 2_000
_SCORES_WIDTH = 100
"""Characters a line from which a table of scores has the counts, and the intervals of clean scores."""
_CLEAN = "of 100, with 95 % intervals; clean: predictions on examples that share no text with the train side"
_CLEAN_IN_SHORT = "of 100; clean: over examples that share no text with training"
_STYLES = {"instruction": "magenta dim", "demonstration": "dim", "input": "dim", "control": "yellow"}


def inspect(
    run: Path, stage: str | None, task: str | None, example: str | None, count: int, as_json: bool
) -> None:
    """Print what `stage` of a run holds, the whole run without one, or everything about one `example`.

    Args:
        run: the run directory.
        stage: one of the stages' names.
        task: shell pattern of tasks.
        example: an example's id.
        count: records shown.
        as_json: print one JSON object with the same content.

    Raises:
        UsageError: an unknown stage, task or example, or a stage that is not finished.
        DamagedError: a file of the run is missing or changed.
    """
    found = FinishedRun(run)
    if stage is not None:
        position(stage)
        found.require(stage)
    if example is not None:
        if stage is not None or task is not None:
            raise UsageError("--example follows an example through every stage: leave out STAGE and --task")
        body, name = content.follow(found, example), "example"
    elif stage is None:
        if task is not None:
            raise UsageError(f"--task needs a stage: `taskmill inspect {run} curate --task {task}`")
        body, name = content.overview(found), "overview"
    else:
        body, name = content.COLLECT[stage](found, task, count), stage
    if as_json:
        click.echo(json.dumps(body, sort_keys=True))
        return
    getattr(_Printer(found), name)(body)


def show_scores(run: Path) -> list[str]:
    """Print the scores by level of a finished run, as the last words of `taskmill run`; returns the models scored."""
    found = FinishedRun(run)
    rows = content.overview(found)["scores"]
    _Printer(found).scores(rows)
    return sorted({row["model"] for row in rows})


class _Printer(Terminal):
    """Writes contents; one method for each, and for what they share."""

    def __init__(self, run: FinishedRun) -> None:
        super().__init__()
        self.run = run

    def segments(self, prompt: Row) -> None:
        """Write a prompt, a segment at a time."""
        notes = [f"example {prompt['example']}", prompt["split"], words(prompt["level"] or "")]
        if prompt["template"]:
            notes.append(f"template {prompt['template']}")
        if prompt["demonstrations"]:
            notes.append(counted(len(prompt["demonstrations"]), "demonstrations"))
        self.title(f"{prompt['task']}  prompt {prompt['prompt']}", ", ".join(n for n in notes if n))
        for segment in prompt["segments"]:
            text, trained = _cut(segment["text"].rstrip("\n")), segment["trained"]
            self.line("  ", (segment["kind"] + (", trained" if trained else ""), "cyan"))
            if self.colour and not trained:
                self.line("    ", (text.replace("\n", "\n    "), _STYLES.get(segment["kind"], "")))
            else:
                self.marked([(text, trained)], "    ")
        if prompt["options"]:
            self.line("  ", ("options", "cyan"), "  ", " | ".join(prompt["options"]))
        self.line("  ", ("references", "cyan"), "  ", " | ".join(prompt["references"]))

    def document(self, document: Row) -> None:
        """Write a document's tokens, a bar between two of them off the terminal."""
        facts = f"{counted(document['num_tokens'], 'tokens')}, {number(document['num_trained'])} carry loss"
        self.title(f"document {document['document']}", f"prompt row {document['row']}, {facts}")
        self.marked(((t["text"], t["trained"]) for t in document["tokens"]), boundary="|")

    # -------------------------------------------------------------------------------------- stages

    def overview(self, body: Row) -> None:
        self.line((body["name"], "bold"), f"  {body['run']}")
        self.title("stages")
        done = {row["stage"]: row for row in body["stages"]}
        rows = []
        for name in content.COLLECT:
            row = done.get(name)
            if row is None:
                rows.append((name, f"not finished: `{self.run.command(name)}`", "", ""))
                continue
            counts = ", ".join(counted(v, k) for k, v in sorted(row["counts"].items()) if v)
            dropped = ", ".join(f"{number(v)} {words(k)}" for k, v in sorted(row["dropped"].items()) if v)
            rows.append(
                (
                    name,
                    counts + (f"; dropped {dropped}" if dropped else ""),
                    duration(row["seconds"]),
                    row["root"][:12],
                )
            )
        self.table(("stage", "counts", ">time", "rows"), rows)
        if body["levels"]:
            self.levels(body["levels"])
        if body["mixture"]:
            self.shares(body["mixture"])
        if body["scores"]:
            self.scores(body["scores"])

    def levels(self, rows: Sequence[Row]) -> None:
        self.title("levels", "examples per split")
        names = ("level", ">tasks", *(f">{split}" for split in SPLITS))
        cells = ([words(r["level"]), number(r["tasks"]), *(number(r[s]) for s in SPLITS)] for r in rows)
        self.table(names, cells)

    def shares(self, rows: Sequence[Row]) -> None:
        self.title("mixture", "shares of prompts")
        names = ("benchmark", ">natural", ">wanted", ">realised", ">tasks", ">capped", ">prompts", ">passes")
        cells = (
            [r["benchmark"], *(percent(float(r[k])) for k in ("natural", "wanted", "realised"))]
            + [number(int(r[k])) for k in ("tasks", "tasks_capped", "prompts")]
            + [decimal(float(r["passes"]), 2)]
            for r in rows
        )
        self.table(names, cells)

    def scores(self, rows: Sequence[Row], title: str = "scores") -> None:
        if not rows:
            self.title(title, "none yet: no prompt was asked, or predictions wait for their values")
            return
        narrow = self.console.width < _SCORES_WIDTH
        self.title(title, _CLEAN_IN_SHORT if narrow else _CLEAN)
        names = ["name", "model", ">shots", "metric", ">value", ">interval"]
        names += [">clean"] if narrow else [">predictions", ">clean value", ">interval", ">clean"]
        cells = []
        for r in rows:
            name = words(r["name"]) if r["scope"] == "level" else r["name"]
            shots = "all" if r["shots"] < 0 else str(r["shots"])
            value, clean = _hundred(r["value"]), _hundred(r["clean_value"])
            row = [name, r["model"], shots, _metric(r["metric"]), value, _interval(r["low"], r["high"])]
            if not narrow:
                row += [number(r["num"]), clean, _interval(r["clean_low"], r["clean_high"])]
            cells.append([*row, clean if narrow else number(r["num_clean"])])
        self.table(names, cells)

    def curate(self, body: Row) -> None:
        tasks = body["tasks"]
        self.title("tasks", number(len(tasks)))
        names = ("task", "category", "style", "metric", ">read", ">kept", "licence")
        cells = (
            (
                *(t["task"], t["category"], t["style"], words(t["metric"])),
                *(number(t["num_read"]), number(t["num_kept"]), t["license"]),
            )
            for t in tasks[:NUM_TASKS]
        )
        self.table(names, cells)
        self.more(len(tasks) - NUM_TASKS, "tasks; --task PATTERN names fewer, --json lists all")
        for example in body["examples"]:
            self.record(example)

    def record(self, row: Row) -> None:
        """Write an example of the catalogue."""
        self.title(
            row["example"], f"{row['file']}, record {row['record']}, {row['upstream_split'] or 'no'} split"
        )
        for name, value in row["fields"].items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self.line("  ", (name, "cyan"), "  ", _cut(text).replace("\n", "\n    "))
        self.line("  ", ("references", "cyan"), "  ", " | ".join(row["references"]))
        if row["options"]:
            self.line("  ", ("options", "cyan"), "  ", " | ".join(row["options"]))
        self.line(
            "  ",
            ("group", "cyan"),
            f"  {row['group']:016x}  ",
            ("content", "cyan"),
            f"  {row['content'][:16]}",
        )
        place = f"{row['repository']} at {row['revision']}" if row["repository"] else row["revision"]
        self.line("  ", ("from", "cyan"), f"  {place}  ", ("licence", "cyan"), f"  {row['license']}")

    def overlap(self, body: Row) -> None:
        self.line(f"{counted(body['num_pairs'], 'pairs')} with shared text or of one data set; the worst:")
        for pair in body["pairs"]:
            self.title(f"{pair['train_task']} -> {pair['eval_task']}", words(pair["level"] or ""))
            self.line(
                f"  {number(pair['num_hit'])} of {number(pair['num_eval'])} evaluation examples hit: "
                f"{percent(pair['hit_fraction'])}, {percent(pair['hit_fraction_rare'])} without frequent windows; "
                f"{number(pair['num_same_output'])} with an equal output, "
                f"{number(pair['num_short_equal'])} short ones equal as a whole"
            )
            if pair["decision"]:
                self.decided(pair["decision"])
            for item in pair["evidence"]:
                self.windows(item)

    def decided(self, decision: Row) -> None:
        facts = [words(decision["action"])]
        if decision["rule"]:
            facts.append(f"rule {decision['rule']}")
        if decision["by"] not in ("", "rule"):
            facts.append(f"by {decision['by']} {decision['at']}".rstrip())
        self.line(("  decision", "cyan"), f"  {', '.join(facts)}: {decision['why']}")

    def windows(self, item: Row) -> None:
        from taskmill.commands.evidence import clip

        for side in ("train", "eval"):
            self.line("  ", (f"{side}  {item[side + '_example']}", "cyan"))
            for name, parts in (item[side] or {"window": [(item["windows"][0], True)]}).items():
                if parts:
                    self.line("    ", (name, "dim"))
                    self.marked(clip(parts), "      ")

    def split(self, body: Row) -> None:
        self.levels(body["levels"])
        self.title("tasks", number(len(body["tasks"])))
        cells = (
            [
                t["task"],
                words(t["level"] or "-"),
                t["role"],
                *(number(t[f"num_{s}"]) for s in SPLITS),
                t["why"],
            ]
            for t in body["tasks"][:NUM_TASKS]
        )
        self.table(("task", "level", "role", *(f">{s}" for s in SPLITS), "why"), cells)
        self.more(len(body["tasks"]) - NUM_TASKS, "tasks; --task PATTERN names fewer, --json lists all")
        self.title("decisions", number(len(body["decisions"])))
        for decision in body["decisions"][:NUM_TASKS]:
            pair = f"{decision['train_task']} -> {decision['eval_task']}"
            self.line(f"  {pair}  ", (percent(decision["hit_fraction"]), "bold"))
            self.decided(decision)
        self.more(
            len(body["decisions"]) - NUM_TASKS, "decisions; --task PATTERN names fewer, --json lists all"
        )

    def render(self, body: Row) -> None:
        for prompt in body["prompts"]:
            self.segments(prompt)

    def mix(self, body: Row) -> None:
        self.line(counted(body["num_prompts"], "prompts_drawn"))
        self.shares(body["shares"])
        self.title("tasks", number(len(body["tasks"])))
        cells = (
            [e["task"], e["benchmark"], number(e["num_prompts"]), number(e["rate"]), percent(e["share"], 2)]
            for e in body["tasks"][:NUM_TASKS]
        )
        self.table(("task", "part", ">prompts", ">rate", ">share"), cells)
        self.more(len(body["tasks"]) - NUM_TASKS, "tasks; --task PATTERN names fewer, --json lists all")

    def tokenize(self, body: Row) -> None:
        info = body["info"]
        self.line(
            f"{counted(info['num_documents'], 'documents')}, {counted(info['num_tokens'], 'tokens')}, "
            f"{number(info['num_trained'])} carry loss; vocabulary {number(info['vocab_size'])}"
        )
        drawn = info["num_positions"] - info["num_empty_positions"]
        self.line(
            f"the mixture draws them at {number(drawn)} of {counted(info['num_positions'], 'positions')}: "
            f"{counted(info['num_drawn_tokens'], 'tokens')}, {number(info['num_drawn_trained'])} carry loss"
        )
        cuts = [f"{words(name)} {number(count)}" for name, count in body["cuts"].items() if count]
        if cuts:
            self.line(f"fitted to {number(info['max_length'])} tokens: {', '.join(cuts)}")
        for document in body["documents"]:
            self.document(document)

    def train(self, body: Row) -> None:
        self.line(counted(body["num_updates"], "updates"))
        lines = body["first"] + body["last"]
        names = list(dict.fromkeys(["step", "loss", *(name for line in lines for name in line)]))
        self.table([f">{name}" for name in names], ([_figure(line.get(n)) for n in names] for line in lines))
        if body["validations"]:
            self.title("loss on validation prompts")
            levels = list(dict.fromkeys(name for line in body["validations"] for name in line["validation"]))
            rows = (
                [_figure(v["step"]), *(_figure(v["validation"].get(n)) for n in levels)]
                for v in body["validations"]
            )
            self.table([">step", *(f">{words(name)}" for name in levels)], rows)

    def evaluate(self, body: Row) -> None:
        self.scores(body["levels"])
        if body["tasks"]:
            self.scores(body["tasks"], "tasks")
        for row in body["predictions"]:
            self.predicted(row)

    def predicted(self, row: Row) -> None:
        shots = f"{row['shots']}-shot"
        if row["num_demonstrations"] != row["shots"]:
            shots += f" with {counted(row['num_demonstrations'], 'demonstrations')}"
        clean = "" if row["clean"] else ", not clean"
        self.title(row["example"], f"{row['model']} model, {shots}, {words(row['level'])}{clean}")
        samples = row["samples"] or [row["prediction"]]
        for place, text in enumerate(samples[:NUM_SAMPLES]):
            self.line(
                "  ",
                ("predicted" if place == 0 else "and", "cyan"),
                "   " if place == 0 else "         ",
                _cut(text),
            )
        self.more(len(samples) - NUM_SAMPLES, "samples; --json lists all")
        if row["answer"] != row["prediction"]:
            self.line("  ", ("answer", "cyan"), "      ", _cut(row["answer"]))
        self.line("  ", ("references", "cyan"), "  ", " | ".join(row["references"]))
        if row["options"]:
            options = row["options"]
            if row["scores"]:
                options = [f"{o} ({decimal(s, 2)})" for o, s in zip(options, row["scores"])]
            self.line("  ", ("options", "cyan"), "     ", " | ".join(options))
        value = "not scored yet" if row["value"] is None else _hundred(row["value"])
        self.line("  ", ("value", "cyan"), f"       {value}, {_metric(row['metric'])}")

    # ------------------------------------------------------------------------------------- example

    def example(self, body: Row) -> None:
        if body["example"]:
            self.record(body["example"])
        for row in body["dropped"]:
            twin = f", in favour of {row['twin']}" if row["twin"] else ""
            self.line(
                ("  dropped", "red"), f" by {row['stage']}: {words(row['reason'])}{twin}. {row['detail']}"
            )
        self.standing(body["split"])
        self.shared(body["overlaps"])
        for prompt in body["prompts"]:
            self.segments(prompt)
        if body["mixture"]:
            mixture = body["mixture"]
            places = ", ".join(number(p) for p in mixture["positions"])
            rest = " ..." if mixture["num_positions"] > len(mixture["positions"]) else ""
            self.title(
                "mixture", f"{number(mixture['num_positions'])} of {number(mixture['num_prompts'])} positions"
            )
            self.line(f"  {places}{rest}" if places else "  never drawn")
        for document in body["tokens"]:
            self.document(document)
        for row in body["predictions"]:
            self.predicted(row)

    def standing(self, row: Row | None) -> None:
        if row is None:
            return
        self.title("split", "" if "why" in row else "as planned, before decisions")
        facts = [
            row["split"],
            f"level {words(row['level'])}" if row.get("level") else "",
            words(row.get("reason") or ""),
        ]
        if row.get("rule") == "person":
            facts[-1] += " of a person"
        elif row.get("rule"):
            facts[-1] += f" of rule {row['rule']}"
        if row.get("clean") is False:
            facts.append("not clean")
        self.line("  ", ", ".join(f for f in facts if f), f"; {row['why']}" if row.get("why") else "")

    def shared(self, body: Row) -> None:
        if not any(body.values()):
            return
        self.title("overlap")
        for hit in body["hits"]:
            self.line(
                f"  {hit['train_example']} -> {hit['eval_example']}: {counted(hit['num_grams'], 'windows')} in {hit['side']}"
                f"{', equal output' if hit['same_output'] else ''}{', all frequent' if hit['frequent'] else ''}"
            )
        for row in body["evidence"]:
            self.marked([(row["window"], True)], "    ")
        for row in body["touched"]:
            self.line(
                f"  touches {row['eval_task']} as train text{', frequent only' if row['frequent'] else ''}"
            )
        for row in body["near_duplicates"]:
            self.line(f"  {row['example']} is a near-duplicate of {row['survivor']}")
        for row in body["decisions"]:
            self.decided(row)


def _cut(text: str) -> str:
    return text if len(text) <= NUM_CHARACTERS else text[:NUM_CHARACTERS] + " ..."


def _hundred(value: float | None) -> str:
    return decimal(None if value is None else 100 * value, 1)


def _interval(low: float | None, high: float | None) -> str:
    return "\u2013" if low is None or high is None else f"{_hundred(low)} \u2013 {_hundred(high)}"


def _metric(name: str) -> str:
    """Return a metric in words; a function of one's own as it is named."""
    return name if ":" in name else words(name)


def _figure(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else number(value)
        if isinstance(value, int)
        else str(value)
    )
