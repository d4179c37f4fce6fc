"""Runs for the tests of the review page: one with any number of pairs, quick to make, and one that really stopped.

run = make_review_run(tmp_path, 14_000)     # overlap finished, hostile text; the split can be written
run = make_stopped_run(tmp_path)            # `taskmill run` ended with exit code 3 here
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from running import taskmill

from taskmill.artifact import Identity, StageWriter, stage_directory
from taskmill.recipe import Recipe, Resolved, Rule, Source, Split, When
from taskmill.recipe_files import resolved_json
from taskmill.records import SCHEMAS
from taskmill.storage import canonical_json

HOSTILE = (
    "<script>alert('x')</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% for x in ().__class__.__mro__ %} ${7*7} <%= 1 %>",
    "\u202eright to left\u202c \u2067\u05e9\u05dc\u05d5\u05dd\u2069",
    "nul \0 and \x1b[31mred\x1b[0m, \x08\x7f",
    "long" * 500,
    "👩\u200d🚀 e\u0301 \ufeff \U0001f600",
    "</textarea><!-- --> &amp; &lt; '\" ` \\ \n\t,;=cmd|' /C calc'!A0",
)
"""Texts that a page must show as they are; a part of one stands in every example, task text and category."""
RULES = (
    Rule(
        "same-dataset",
        "drop_train_task",
        When(same_dataset=True, level=("held_out", "partial")),
        "one data set",
    ),
    Rule("frequent-only", "keep", When(hit_fraction_over=0.0, hit_fraction_rare_at_most=0.0), "nothing else"),
)
NUM_EVAL = 8
"""Test examples of every evaluated task."""
_FILES = ("tasks/tasks", "tasks/templates", "tasks/dropped")


@dataclass(frozen=True)
class _Shape:
    """How many tasks there are on each side, and how many examples a train task has."""

    num_pairs: int
    num_train: int
    num_eval: int
    num_examples: int
    hostile: bool

    def task(self, side: str, number: int) -> str:
        """Return a task id; some hold what HTML and CSV give a meaning to."""
        strange = ("", "", "", " <b>&amp;\"'</b>", ", {{x}}")[number % 5] if self.hostile else ""
        return f"{side}{number % 3}/task {number:03d}{strange}"

    def level(self, number: int) -> str:
        """Return the level of an evaluation task."""
        return ("held_out", "partial", "supervised")[number % 3]

    def hostility(self, number: int) -> str:
        """Return a hostile text, or none."""
        return HOSTILE[number % len(HOSTILE)] if self.hostile else "plain"

    def pairs(self) -> Iterable[tuple[int, int, int]]:
        """Yield (train task, evaluation task, hit evaluation examples) in the order of the table."""
        order = sorted(range(self.num_train), key=lambda t: self.task("train", t))
        evaluated = sorted(range(self.num_eval), key=lambda e: self.task("eval", e))
        for t in order:
            for e in evaluated:
                if t * self.num_eval + e < self.num_pairs:
                    yield t, e, int.from_bytes(hashlib.sha256(f"{t} {e}".encode()).digest()[:2], "big") % 5


def make_review_run(folder: Path, num_pairs: int, hostile: bool = True, num_examples: int = 4) -> Path:
    """Write the run `folder/review` up to overlap and return it.

    Two in five evaluation tasks or so are decided by rules, below the threshold or wait; pairs come in groups of a few per
    two data sets.

    Args:
        folder: where the run is put.
        num_pairs: overlapping pairs, of about three times as many train tasks as evaluation tasks.
        hostile: put HOSTILE into texts, categories, data sets and task ids.
        num_examples: of every train task.
    """
    num_eval = max(3, round(math.sqrt(num_pairs / 3)))
    shape = _Shape(num_pairs, max(4, math.ceil(num_pairs / num_eval)), num_eval, num_examples, hostile)
    run = folder / "review"
    run.mkdir(parents=True)
    split = Split(threshold=0.2, rules=RULES)
    resolved = Resolved(
        Recipe("review", (Source("documents", "docs"),), split=split), {}, folder, "name: review\n"
    )
    (run / "recipe.json").write_bytes(canonical_json(resolved_json(resolved)) + b"\n")
    tasks, examples = _tasks(shape), _examples(shape)
    _write(run, "curate", {"tasks": tasks, "examples/all": examples, "templates": [], "dropped": []})
    _write(run, "overlap", _overlap(shape, examples))
    return run


def _write(run: Path, stage: str, tables: Mapping[str, pa.Table | Sequence[Mapping[str, Any]]]) -> None:
    folder = stage_directory(run, stage)
    out = StageWriter(folder, Identity(stage, 1, {}, 0, None, (), {}))
    with out.shard("all", [stage]) as shard:
        for name, rows in tables.items():
            schema = SCHEMAS[f"{folder.name}/{name.split('/')[0]}"]
            shard.write_table(
                f"{name}.parquet", schema, rows if isinstance(rows, pa.Table) else _filled(schema, rows)
            )
    out.add(shard.record)
    out.finish()


def _filled(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table; columns that they leave out are empty."""
    empty = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
    values = {f.name: None if f.nullable else empty.get(f.type, []) for f in schema}
    columns = {name: [row.get(name, value) for row in rows] for name, value in values.items()}
    return pa.Table.from_pydict(columns, schema=schema)


def _tasks(shape: _Shape) -> list[dict[str, Any]]:
    """Return the catalogue: of each data set three train tasks, or two evaluation tasks; the first of both are of one."""
    rows = []
    for side, num, per in (("train", shape.num_train, 3), ("eval", shape.num_eval, 2)):
        for number in range(num):
            task = shape.task(side, number)
            dataset = f"{side} set {number // per}" + (
                f" {shape.hostility(number // per)}" if number // per % 4 == 1 else ""
            )
            category = f"{side.title()} {number % 4}"
            if side == "eval":
                category = {"held_out": f"Held out {shape.hostility(number)}", "partial": "Train 1"}.get(
                    shape.level(number), "Train 2"
                )
            rows.append(
                {
                    "task": task,
                    "benchmark": task.split("/")[0],
                    "name": task.split("/")[1],
                    "category": category,
                    "dataset": "one set" if number == 0 else dataset,
                    "family": task,
                    "kind": "benchmark",
                    "style": "task",
                    "definition": shape.hostility(number),
                    "output_fields": ["answer"],
                    "license": "CC0-1.0",
                    "metric": "rouge_l",
                    "revision": "v1",
                    "shard": "all",
                }
            )
    return sorted(rows, key=lambda row: row["task"])


def _sentence(e: int, j: int) -> str:
    """Return the 13 words that example `j` of evaluation task `e` shares with train tasks."""
    return " ".join(f"quay{e}x{j}y{k}" for k in range(13))


def _examples(shape: _Shape) -> pa.Table:
    rows = []
    for e in range(shape.num_eval):
        count = NUM_EVAL + (2 if shape.level(e) == "supervised" else 0)
        for j in range(count):
            text = f"{shape.hostility(e + j)} {_sentence(e, j).title().replace(' ', ', ', 3)}. {shape.hostility(j)}"
            rows.append(
                _example(shape.task("eval", e), j, text, f"answer {e} {j} {shape.hostility(j + 1)}", e)
            )
    shared: dict[tuple[int, int], list[str]] = {}
    for t, e, num_hit in shape.pairs():
        shared.setdefault((t, e % min(4, shape.num_examples)), []).extend(
            _sentence(e, j) for j in range(num_hit)
        )
    for t in range(shape.num_train):
        for i in range(shape.num_examples):
            text = f" {shape.hostility(t + i)}\n".join(
                shared.get((t, i), [f"nothing {t} {i} " + "filler " * 60])
            )
            rows.append(_example(shape.task("train", t), i, text, f"reply {t} {i}", t))
    rows.sort(key=lambda row: (row["task"], row["example"]))
    return _filled(SCHEMAS["tasks/examples"], rows)


def _example(task: str, number: int, text: str, answer: str, seed: int) -> dict[str, Any]:
    fields = json.dumps({"answer": answer, "input": text}, ensure_ascii=False, sort_keys=True)
    content = hashlib.sha256(f"{task} {fields}".encode()).digest()
    return {
        "example": f"{task}#{number:05d}",
        "task": task,
        "upstream_split": "test",
        "group": seed * 1000 + number,
        "fields": fields,
        "references": [answer],
        "content": content,
        "normalised": content[:16],
        "file": "file.json",
        "record": number,
    }


def _overlap(shape: _Shape, examples: pa.Table) -> dict[str, pa.Table | list[dict[str, Any]]]:
    """Return overlap's tables. All that evaluation tasks 4, 9, 14 ... share is frequent, and the first sentence of 3, 8 ..."""
    levels = {shape.task("eval", e): shape.level(e) for e in range(shape.num_eval)}
    plan = [
        {"task": task, "level": levels.get(task), "role": _role(levels.get(task)), "why": "as planned"}
        for task in sorted({shape.task("train", t) for t in range(shape.num_train)} | levels.keys())
    ]
    pairs, hits, touched, evidence = (list[dict[str, Any]]() for _ in range(4))
    for t, e, num_hit in shape.pairs():
        key = {"train_task": shape.task("train", t), "eval_task": shape.task("eval", e)}
        frequent = [e % 5 == 4 or (e % 5 == 3 and j == 0) for j in range(num_hit)]
        train_example = f"{key['train_task']}#{e % min(4, shape.num_examples):05d}"
        same_output = (t + e) % 3 == 0
        for j in range(num_hit):
            found = {**key, "eval_example": f"{key['eval_task']}#{j:05d}", "train_example": train_example}
            facts = {"num_grams": 1, "side": "input", "same_output": same_output, "frequent": frequent[j]}
            hits.append({**found, **facts})
            evidence.append({**found, "window": _sentence(e, j)})
        if num_hit:
            touched.append({**key, "train_example": train_example, "frequent": all(frequent)})
        pairs.append(
            {**key, **_figures(num_hit, frequent, same_output, t == e == 0), "evidence": _evidence(t, e)}
        )
    return {
        "plan": plan,
        "assignment": _assignment(examples, levels),
        "pairs": _filled(SCHEMAS["overlaps/pairs"], pairs),
        "hits": _filled(SCHEMAS["overlaps/hits"], hits),
        "touched": _filled(SCHEMAS["overlaps/touched"], touched),
        "evidence": _filled(SCHEMAS["overlaps/evidence"], evidence),
        "near_duplicates": [],
        "frequent": [
            {"gram": 8 * e + j, "text": _sentence(e, j), "num_groups": 99}
            for e in range(shape.num_eval)
            for j in range(4)
            if e % 5 == 4 or (e % 5 == 3 and j == 0)
        ],
    }


def _figures(num_hit: int, frequent: Sequence[bool], same_output: bool, same_dataset: bool) -> dict[str, Any]:
    share = num_hit / NUM_EVAL
    return {
        "same_dataset": same_dataset,
        "num_eval": NUM_EVAL,
        "num_hit": num_hit,
        "hit_fraction": share,
        "hit_fraction_rare": share - sum(frequent) / NUM_EVAL,
        "hit_input": share,
        "num_same_output": num_hit if same_output else 0,
        "num_train_touched": min(1, num_hit),
    }


def _evidence(t: int, e: int) -> bytes:
    return hashlib.sha256(f"evidence {t} {e}".encode()).digest()[:16]


def _role(level: str | None) -> str:
    return {None: "train", "supervised": "both"}.get(level, "eval")


def _assignment(examples: pa.Table, levels: Mapping[str, str]) -> pa.Table:
    """Place each example: the last two of a supervised task are trained on."""
    splits = [
        "train" if task not in levels or int(example.rpartition("#")[2]) >= NUM_EVAL else "test"
        for task, example in zip(examples["task"].to_pylist(), examples["example"].to_pylist())
    ]
    table = examples.select(["example", "task", "group"]).append_column(
        "split", pa.array(splits, pa.string())
    )
    table = table.append_column("reason", pa.nulls(len(splits), pa.string()))
    return table.select(SCHEMAS["overlaps/assignment"].names).cast(SCHEMAS["overlaps/assignment"])


# ---------------------------------------------------------------------------------- a run that stops

RECIPE = """\
name: stopped
data_root: .
sources:
{sources}plan:
  held_out: {{categories: [Summarization]}}
  supervised: []
split: {{rules: []}}
render: {{num_demonstrations: 0}}
mix: {{num_prompts: 20}}
"""
SOURCE = """\
  - reader: table
    path: {name}.jsonl
    benchmark: own
    options:
      task: {name}
      dataset: {dataset}
      category: {category}
      definition: Do as the keeper says.
      license: CC0-1.0
      metric: rouge_l
      cast: {{fields: {{text: text}}, references: answer, id: id}}
"""
TRAINED = ("notes", "letters", "diaries")
EVALUATED = ("logs", "tides")


def make_stopped_run(folder: Path) -> Path:
    """Write data and a recipe of five tasks, run it and return the run: it stopped for a person, with six open pairs."""
    lines = []
    for number, name in enumerate((*TRAINED, *EVALUATED)):
        held_out = name in EVALUATED
        rows = [
            {"id": f"r{i:02d}", "text": _text(name, number, i), "answer": f"{name} reply {i}"}
            for i in range(24)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        category = "Summarization" if held_out else "Text Categorization"
        lines.append(
            SOURCE.format(name=name, dataset=f"{'harbour' if held_out else 'ashore'}", category=category)
        )
    (folder / "recipe.yaml").write_text(RECIPE.format(sources="".join(lines)))
    run = folder / "stopped"
    ended = taskmill("run", str(folder / "recipe.yaml"), "--run", str(run), "--to", "split", "--workers", "1")
    assert ended.returncode == 3, ended.stderr
    return run


def _text(name: str, number: int, i: int) -> str:
    """Return words of the record's own; the first records of the train tasks hold those of all evaluation tasks, too."""
    own = " ".join(f"{name}{i}w{k}" for k in range(20))
    others = (
        [" ".join(f"{name}{i}w{k}" for k in range(20)) for name in EVALUATED]
        if name in TRAINED and i < 4 * (number + 1)
        else []
    )
    return f"{HOSTILE[i % 2]} ".join([own, *others])
