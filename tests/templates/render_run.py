"""A tiny run up to render, written through the real artefact functions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.artifact import Identity, Inputs, Manifest, StageWriter, open_stage
from taskmill.recipe import Recipe, Render, Resolved
from taskmill.records import DIRECTORIES, SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import canonical_json
from taskmill.templates import build as stage
from taskmill.text import short_key, text_leaves

TASK_DEFAULTS = {
    "category": "Textual Entailment",
    "dataset": "data",
    "corpora": [],
    "family": "family",
    "subtask": None,
    "kind": "benchmark",
    "definition": None,
    "demonstrations": [],
    "output_fields": [],
    "upstream_role": None,
    "metric": "rouge_l",
    "multiple_choice": False,
    "languages": ["en"],
    "license": "CC0-1.0",
    "license_evidence": "test",
    "homepage": None,
    "repository": None,
    "revision": "1",
    "metadata": "{}",
    "num_read": 0,
    "num_kept": 0,
    "num_groups": 0,
    "largest_group": 1,
    "num_rendered_templates": 0,
    "first_row": 0,
}


def task(name: str, style: str, shard: str, **facts: Any) -> dict[str, Any]:
    benchmark, _, short = name.partition("/")
    return {
        **TASK_DEFAULTS,
        "task": name,
        "benchmark": benchmark,
        "name": short,
        "style": style,
        "shard": shard,
    } | facts


def template(
    task_id: str, number: int, body: str, choices: str | None = None, **facts: Any
) -> dict[str, Any]:
    defaults = {"reads": [], "keeps_task": True, "why": None, "metadata": "{}", "digest": ""}
    named = {
        "template": f"{task_id}/t{number}",
        "task": task_id,
        "name": f"t{number}",
        "body": body,
        "choices": choices,
    }
    return {**named, **defaults, **facts}


def example(
    task_id: str,
    number: int,
    fields: Mapping[str, Any],
    references: Sequence[str],
    *,
    split: str = "train",
    options: Sequence[str] | None = None,
    upstream_split: str | None = None,
    group: int | None = None,
) -> dict[str, Any]:
    """A row of tasks/examples with its `split` beside it."""
    content = {"fields": fields, "references": list(references), "options": options and list(options)}
    return {
        "example": f"{task_id}#{number}",
        "task": task_id,
        "upstream_split": upstream_split,
        "group": number if group is None else group,
        "fields": canonical_json(fields).decode(),
        "references": list(references),
        "options": None if options is None else list(options),
        "quality": None,
        "content": hashlib.sha256(canonical_json(content)).digest(),
        "normalised": short_key(text for _, text in text_leaves(content)),
        "file": "hand",
        "record": number,
        "split": split,
    }


def finish(directory: Path, name: str, tables: Mapping[str, tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Write {file: (schema, rows)} as a finished stage."""
    out = open_stage(directory, Identity(name, 1, {}, 0, None, (), {}), force=True)
    if isinstance(out, Manifest):
        return
    with out.shard("all", tables and [name]) as shard:
        for file, (schema, rows) in tables.items():
            shard.write_table(file, SCHEMAS[schema], list(rows))
    out.add(shard.record)
    out.finish()


def write_run(
    run: Path,
    tasks: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    templates: Sequence[Mapping[str, Any]] = (),
    duplicates: Sequence[Sequence[str]] = (),
) -> Inputs:
    """Write curate, overlap and split as render finds them; each of `duplicates` is one cluster of ids."""
    shard_of = {t["task"]: t["shard"] for t in tasks}
    rows = sorted(examples, key=lambda e: (e["task"], e["example"]))
    next_row: Counter[str] = Counter()
    placed = []
    for row in sorted(tasks, key=lambda t: str(t["task"])):
        num_kept = sum(e["task"] == row["task"] for e in rows)
        placed.append({**row, "first_row": next_row[row["shard"]], "num_kept": num_kept})
        next_row[row["shard"]] += num_kept
    files: dict[str, Any] = {
        "tasks.parquet": ("tasks/tasks", placed),
        "templates.parquet": ("tasks/templates", templates),
    }
    for shard in sorted(set(shard_of.values())):
        own = [{k: v for k, v in r.items() if k != "split"} for r in rows if shard_of[r["task"]] == shard]
        files[f"examples/{shard}.parquet"] = ("tasks/examples", own)
    near = [
        {
            "example": other,
            "task": other.partition("#")[0],
            "survivor": ids[0],
            "survivor_task": ids[0].partition("#")[0],
            "relation": "train",
            "cluster": number,
            "jaccard": 1.0,
            "containment": 1.0,
        }
        for number, ids in enumerate(duplicates)
        for other in ids[1:]
    ]
    members = [
        {"example": r["example"], "task": r["task"], "split": r["split"], "reason": None, "rule": None}
        | {"group": r["group"], "content": r["content"], "clean": True, "clean_rare": True}
        for r in rows
    ]
    finish(run / "tasks", "curate", files)
    finish(run / "overlaps", "overlap", {"near_duplicates.parquet": ("overlaps/near_duplicates", near)})
    finish(
        run / "splits",
        "split",
        {
            "tasks.parquet": ("splits/tasks", [_split_task(t["task"], rows) for t in tasks]),
            "members.parquet": ("splits/members", members),
        },
    )
    return Inputs({name: run / DIRECTORIES[name] for name in ("curate", "overlap", "split")})


def _split_task(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = [r["split"] for r in rows if r["task"] == name]
    splits = ("train", "validation", "test", "demonstration", "excluded")
    level = None if "test" not in own else "supervised" if "train" in own else "partial"
    counts = {f"num_{split}": own.count(split) for split in splits}
    return {"task": name, "level": level, "role": "both" if level else "train", "why": "", **counts}


def render(
    run: Path,
    inputs: Inputs,
    settings: Render,
    workers: int = 1,
    seed: int = 0,
    max_batch: int = stage.MAX_BATCH,
) -> Manifest:
    """Run the stage as `stages.py` does."""
    recipe = Recipe("test", (), render=settings, seed=seed)
    given = Settings(Resolved(recipe, {}, run, ""), stage.SECTIONS, workers)
    identity = Identity(
        "render",
        stage.REVISION,
        given.values(),
        given.seed,
        given.limit,
        inputs.identity(stage.READS),
        stage.external(given, inputs),
    )
    out = open_stage(run / "prompts", identity, force=True)
    assert isinstance(out, StageWriter)
    return stage.build(given, inputs, out, max_batch)


def rows_of(run: Path, table: str = "prompts") -> list[dict[str, Any]]:
    """Read a table of the finished stage."""
    rows: list[dict[str, Any]] = Inputs({"render": run / "prompts"}).table("render", table).to_pylist()
    return rows


def copa(number: int) -> dict[str, Any]:
    """A premise with two alternatives in the Hub's layout; every word differs by number."""
    return {
        "premise": f"The lantern {number} fell over.",
        "choice1": f"The barn {number} caught fire.",
        "choice2": f"The cow {number} slept on.",
        "question": "effect",
        "label": number % 2,
    }


def small_world(run: Path, num: int = 12) -> Inputs:
    """Four COPA tasks as in OPT-IML Table 2, a reasoning task and documents, in two shards."""
    tasks = [
        task(
            "crossfit/copa",
            "keywords",
            "a-000",
            definition="Choose what happens next.",
            metadata='{"shape":"text"}',
        ),
        task("flan/copa", "instance", "a-000"),
        task("p3/copa", "instance", "b-000", output_fields=["label"]),
        task("reasoning/sums", "reasoning", "b-000", kind="reasoning", output_fields=["answer", "rationale"]),
        task("sni/copa", "task", "b-000", definition="Say which of two sentences follows.\nAnswer 1 or 2."),
        task("web/pages", "document", "b-000", kind="pretraining"),
    ]
    templates = [
        template(
            "p3/copa",
            1,
            "Exercise: choose the most plausible alternative.\n\n{{ premise }} so...\n- {{ choice1 }}\n- {{ choice2 }} |||"
            " {% if label != -1 %}{{ answer_choices[label] }}{% endif %}",
            "{{ choice1 }} ||| {{ choice2 }}",
        ),
        template(
            "p3/copa",
            2,
            "{% if question == 'cause' %}{{ premise }} because ||| {{ answer_choices[label] }}{% endif %}",
            "{{ choice1 }} ||| {{ choice2 }}",
        ),
        template("p3/copa", 3, "{{ premise }}\nWhat follows? Answer: ||| {{ [choice1, choice2][label] }}"),
        template("p3/copa", 4, "{{ choice1 }} ||| {{ premise }}", keeps_task=False, why="writes the premise"),
        template("p3/copa", 5, "{% if %} ||| x"),
    ]
    splits = ["train"] * (num - 4) + ["validation", "test", "test", "demonstration"]
    examples: list[dict[str, Any]] = []
    for number, split in enumerate(splits):
        row = copa(number)
        options = [row["choice1"], row["choice2"]]
        answer = options[row["label"]]
        text = f"{row['premise']} (A) {options[0]} (B) {options[1]}"
        shown = f"{row['premise']} What happens next?\nOPTIONS:\n- {options[0]}\n- {options[1]}"
        numbered = f"{row['premise']} (1) {options[0]} (2) {options[1]}"
        question = {
            "question": f"What is {number} + {number}?",
            "answer": f"{2 * number}",
            "rationale": "Add them.",
        }
        examples += [
            example("crossfit/copa", number, {"text": text}, [answer], options=options, split=split),
            example("flan/copa", number, {"inputs": shown}, [answer], options=options, split=split),
            example("p3/copa", number, row, [], split=split),
            example("sni/copa", number, {"input": numbered}, [str(row["label"] + 1)], split=split),
        ]
        if split == "train":
            examples.append(example("reasoning/sums", number, question, [question["answer"]]))
            examples.append(example("web/pages", number, {"text": f"  Seite {number}: Größe.\n"}, []))
    examples.append(example("p3/copa", 90, {**copa(90), "label": -1}, [], split="test"))
    for number, kind in ((91, "positive"), (92, "negative"), (93, "positive")):
        fields = {"input": f"Worked {kind} case {number}.", "explanation": "so", "example_kind": kind}
        row = example(
            "sni/copa", number, fields, ["1"], split="demonstration", upstream_split="demonstration"
        )
        examples.append(row)
    return write_run(run, tasks, examples, templates)


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(row["fields"])
    return fields
