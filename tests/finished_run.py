"""A tiny finished run for the tests of views, with hostile text in it: real tables, mixture and tokens."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.artifact import Identity, Manifest, StageWriter, open_stage, stage_directory
from taskmill.recipe import Mix, Recipe, Resolved, Source, Tokenize
from taskmill.recipe_files import resolved_json
from taskmill.records import SCHEMAS
from taskmill.stages import Walk
from taskmill.storage import canonical_json
from taskmill.templates.composing.schemas import Rendered, Wording, compose, encode

HOSTILE = "<script>alert('x')</script>"
TRAIN, EVAL, PARTIAL, BOTH = "alpha/reviews", "beta/reviews_again", "beta/capitals", "alpha/sums"
SHARED = "the harbour was quiet that night and nobody saw the boat leave before dawn"
WHY = f"because {HOSTILE}"


def make_run(folder: Path, last: str = "evaluate") -> Path:
    """Write the run `folder/tiny` up to the stage `last` and return it."""
    run = folder / "tiny"
    run.mkdir(parents=True)
    recipe = Recipe(
        name="tiny",
        sources=(Source("documents", "docs"),),
        seed=7,
        mix=Mix(block=10, num_prompts=12),
        tokenize=Tokenize(vocab_size=300, max_length=128),
    )
    resolved = Resolved(recipe, {"name": "tiny.yaml:1", "seed": "--set"}, folder, "name: tiny\n")
    run.joinpath("recipe.json").write_bytes(canonical_json(resolved_json(resolved)) + b"\n")
    for stage, build in BUILDERS.items():
        build(run, Walk(resolved, run))
        if stage == last:
            break
    return run


def write_stage(
    run: Path, stage: str, files: dict[str, tuple[str, list[dict[str, Any]]] | bytes], **counts: int
) -> None:
    identity = Identity(stage, 1, {}, 7, None, (), {})
    out = open_stage(stage_directory(run, stage), identity)
    assert isinstance(out, StageWriter)
    with out.shard("all", [stage]) as shard:
        for path, content in files.items():
            if isinstance(content, bytes):
                shard.write_bytes(path, content)
            else:
                shard.write_table(path, SCHEMAS[content[0]], [_filled(content[0], row) for row in content[1]])
        shard.counts.update(counts)
        for row in files.get("dropped.parquet", ("", []))[1]:
            shard.drop(row["reason"])
    out.add(shard.record)
    assert isinstance(out.finish(), Manifest)


def _filled(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Give the columns that a row leaves out an empty value."""
    empty = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
    return {f.name: row.get(f.name, None if f.nullable else empty.get(f.type, [])) for f in SCHEMAS[table]}


def _tasks() -> list[dict[str, Any]]:
    categories = {TRAIN: "Sentiment", EVAL: "Irony & <b>wit</b>", PARTIAL: "Facts", BOTH: "Arithmetic"}
    return [
        {
            "task": task,
            "benchmark": task.split("/")[0],
            "name": task.split("/")[1],
            "category": categories[task],
            "kind": "benchmark",
            "style": "task",
            "definition": f"Answer it. {HOSTILE}",
            "license": "CC-BY-4.0" if task == TRAIN else f"other {HOSTILE}",
            "metric": "exact_match",
            "repository": "up/stream" if task == TRAIN else None,
            "revision": "v1" if task == TRAIN else "sha256:0123",
            "num_read": 5 if task == TRAIN else 4,
            "num_kept": 4,
            "shard": "all",
        }
        for task in sorted(categories)
    ]


def examples() -> list[dict[str, Any]]:
    """Return four examples of every task; the first of TRAIN and of EVAL share a window."""
    rows = []
    for task in sorted((TRAIN, EVAL, PARTIAL, BOTH)):
        for i in range(4):
            text = f"Item {i} of {task}: {HOSTILE} \x1b[31mred\x1b[0m café 東京"
            if i == 0 and task in (TRAIN, EVAL):
                text = f"At first, {SHARED.title().replace(' Night ', ' (Night) ')}; {task} then went on."
            fields = canonical_json({"input": text}).decode()
            rows.append(
                {
                    "example": f"{task}#{i}",
                    "task": task,
                    "upstream_split": "train",
                    "group": 2**63 + i,
                    "fields": fields,
                    "references": [f"answer {i}"],
                    "content": sha256(fields.encode()).digest(),
                    "normalised": sha256(fields.encode()).digest()[:16],
                    "file": "up/stream.json",
                    "record": 10 + i,
                }
            )
    return rows


def split_of(task: str, i: int) -> str:
    """Return where example `i` of a task stands."""
    return {TRAIN: "train", BOTH: "train" if i < 2 else "test"}.get(task, "test")


def _curate(run: Path, walk: Walk) -> None:
    dropped = {"stage": "curate", "task": TRAIN, "example": f"{TRAIN}#9", "reason": "duplicate"}
    dropped |= {"twin": f"{TRAIN}#0", "detail": WHY, "file": "up/stream.json", "record": 19}
    files = {
        "tasks.parquet": ("tasks/tasks", _tasks()),
        "examples/all.parquet": ("tasks/examples", examples()),
        "templates.parquet": ("tasks/templates", []),
        "dropped.parquet": ("tasks/dropped", [dropped]),
    }
    write_stage(run, "curate", files, examples_read=17, examples_kept=16)


def _levels() -> list[dict[str, Any]]:
    level = {EVAL: "held_out", PARTIAL: "partial", BOTH: "supervised"}
    role = {TRAIN: "train", BOTH: "both"}
    names = sorted((TRAIN, EVAL, PARTIAL, BOTH))
    return [{"task": t, "level": level.get(t), "role": role.get(t, "eval"), "why": WHY} for t in names]


def _overlap(run: Path, walk: Walk) -> None:
    pair = {"train_task": TRAIN, "eval_task": EVAL}
    found = {"train_example": f"{TRAIN}#0", "eval_example": f"{EVAL}#0"}
    window = " ".join(SHARED.split()[:13])
    figures = {
        "num_eval": 4,
        "num_hit": 1,
        "hit_fraction": 0.25,
        "hit_fraction_rare": 0.25,
        "hit_input": 0.25,
    }
    short = {
        "train_task": TRAIN,
        "eval_task": PARTIAL,
        "num_eval": 4,
        "num_short_equal": 1,
        "evidence": b"s" * 16,
    }
    hit = {**pair, **found, "num_grams": 2, "side": "input", "same_output": True}
    files = {
        "plan.parquet": ("overlaps/plan", _levels()),
        "assignment.parquet": ("overlaps/assignment", []),
        "pairs.parquet": ("overlaps/pairs", [{**pair, **figures, "evidence": b"e" * 16}, short]),
        "hits.parquet": ("overlaps/hits", [hit]),
        "touched.parquet": ("overlaps/touched", [{**pair, "train_example": f"{TRAIN}#0"}]),
        "evidence.parquet": ("overlaps/evidence", [{**pair, **found, "window": window}]),
        "near_duplicates.parquet": ("overlaps/near_duplicates", []),
        "frequent.parquet": ("overlaps/frequent", [{"gram": 5, "text": "is the answer", "num_groups": 70}]),
    }
    write_stage(run, "overlap", files, num_pairs=2)


def _split(run: Path, walk: Walk) -> None:
    members = [
        {
            "example": row["example"],
            "task": row["task"],
            "split": split_of(row["task"], int(row["example"][-1])),
            "group": row["group"],
            "content": row["content"],
            "clean": row["example"] != f"{EVAL}#0",
        }
        for row in examples()
    ]
    decision = {"train_task": TRAIN, "eval_task": EVAL, "action": "keep", "evidence": "65" * 16, "why": WHY}
    decision |= {"rule": "frequent-only", "by": "a person", "at": "2026-01-02", "hit_fraction": 0.25}
    tasks = [
        {**row, "num_train": sum(m["split"] == "train" for m in members if m["task"] == row["task"])}
        | {"num_test": sum(m["split"] == "test" for m in members if m["task"] == row["task"])}
        for row in _levels()
    ]
    files = {
        "tasks.parquet": ("splits/tasks", tasks),
        "members.parquet": ("splits/members", members),
        "decisions.parquet": ("splits/decisions", [decision]),
    }
    write_stage(run, "split", files, num_train=6, num_test=10)


def prompt_name(example: str) -> bytes:
    """Return the prompt made from an example."""
    return sha256(example.encode()).digest()[:8]


def _render(run: Path, walk: Walk) -> None:
    levels = {row["task"]: row["level"] for row in _levels()}
    rows = []
    for row in examples():
        source, answer = json.loads(row["fields"])["input"], row["references"][0]
        rendered = Rendered(f"Answer it. {HOSTILE}", source, answer, (answer,))
        segments = compose("task", rendered, [], Wording("\nAnswer:"))
        names = {"prompt": prompt_name(row["example"]), "example": row["example"], "task": row["task"]}
        split = split_of(row["task"], int(row["example"][-1]))
        names |= {"split": split, "level": levels[row["task"]] if split == "test" else None}
        rows.append(
            {
                **names,
                **encode(segments),
                "references": [answer],
                "loss_weight": 1.0,
                "format": "plain",
                "joint": True,
            }
        )
    rows.sort(key=lambda row: (row["task"], row["split"], row["prompt"]))
    dropped = {
        "stage": "render",
        "task": PARTIAL,
        "example": f"{PARTIAL}#7",
        "reason": "unlabelled",
        "detail": "",
    }
    files = {
        "prompts/all.parquet": ("prompts/prompts", rows),
        "dropped.parquet": ("prompts/dropped", [dropped]),
    }
    write_stage(run, "render", files, num_prompts=len(rows))


def _mix(run: Path, walk: Walk) -> None:
    walk.build("mix")


def _tokenize(run: Path, walk: Walk) -> None:
    walk.build("tokenize")


def _train(run: Path, walk: Walk) -> None:
    lines = [
        {"step": i + 1, "loss": 5.0 - i / 10, "learning_rate": 0.1, "num_tokens": 100, "num_trained": 20}
        for i in range(12)
    ]
    lines[6:6] = [{"step": 6, "validation": {"held_out": 5.25, "supervised": 4.5}}]
    lines.append({"step": 12, "validation": {"held_out": 5.5, "supervised": 4.125}})
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    write_stage(run, "train", {"metrics.jsonl": text.encode()}, num_steps=12)


def _evaluate(run: Path, walk: Walk) -> None:
    tasks = {t["task"]: t for t in _tasks()}
    levels = {row["task"]: row["level"] for row in _levels()}
    predictions, scores = list[dict[str, Any]](), list[dict[str, Any]]()
    for model, value in (("final", 0.75), ("initial", 0.25)):
        score = {"model": model, "shots": 0, "metric": "exact_match", "value": value, "low": value - 0.1}
        score |= {"high": value + 0.1, "num": 4, "clean_value": value - 0.05}
        for row in examples():
            task = tasks[row["task"]]
            if split_of(task["task"], int(row["example"][-1])) == "test":
                facts = {"model": model, "prompt": prompt_name(row["example"]), "level": levels[task["task"]]}
                facts |= {
                    "prediction": f"guess {HOSTILE}",
                    "metric": "exact_match",
                    "value": value,
                    "clean": True,
                }
                predictions.append({**row, **task, **facts, "family": task["name"]})
        for name, level in sorted((t, n) for t, n in levels.items() if n):
            scores.append({**score, "scope": "task", "name": name})
            scores.append({**score, "scope": "category", "name": f"{level}/{tasks[name]['category']}"})
            scores.append({**score, "scope": "benchmark", "name": f"{level}/{tasks[name]['benchmark']}"})
            scores.append({**score, "scope": "level", "name": level})
        scores.append({**score, "scope": "level", "name": "all", "shots": -1})
    files = {
        "predictions.parquet": ("scores/predictions", predictions),
        "scores.parquet": ("scores/scores", scores),
    }
    write_stage(run, "evaluate", files, num_predictions=len(predictions))


BUILDERS = {
    "curate": _curate,
    "overlap": _overlap,
    "split": _split,
    "render": _render,
    "mix": _mix,
    "tokenize": _tokenize,
    "train": _train,
    "evaluate": _evaluate,
}
