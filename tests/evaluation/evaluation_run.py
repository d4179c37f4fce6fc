"""A run in miniature for the tests of evaluation: prompts, tables, stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskmill.artifact import Identity, Inputs, ShardWriter, StageWriter
from taskmill.recipe import Architecture, Evaluate, Recipe, Resolved, Source, Train
from taskmill.records import SCHEMAS, SEGMENT_KINDS
from taskmill.seeding import derive

MAX_LENGTH = 64
TEXT = "the cat sat on a mat and is this good or bad yes no maybe answer question input"
WORDS = TEXT.split()
TRAIN = Train(architecture=Architecture(num_layers=2, hidden_size=32, num_heads=4, feedforward_size=48))

INSTRUCTION, DEMONSTRATION, INPUT, OUTPUT, CONTROL = (
    SEGMENT_KINDS.index(kind) for kind in ("instruction", "demonstration", "input", "output", "control")
)
Piece = tuple[str, int]


def prompt_columns(pieces: list[Piece]) -> dict[str, Any]:
    """Text, ends, kinds and trained of a prompt; output and what follows it carry loss."""
    text, ends, trained, seen = "", [], [], False
    for piece, kind in pieces:
        text += piece
        seen = seen or kind == OUTPUT
        ends.append(len(text.encode()))
        trained.append(seen)
    return {"text": text, "ends": ends, "kinds": [kind for _, kind in pieces], "trained": trained}


def pieces_of(body: str, answer: str, demonstrations: int = 2) -> list[Piece]:
    return [
        ("Is this good ?\n", INSTRUCTION),
        *((f"the mat {i} is good. Answer: yes\n", DEMONSTRATION) for i in range(demonstrations)),
        (f"{body}\nAnswer:", INPUT),
        (f" {answer}", OUTPUT),
        ("{eos}", CONTROL),
    ]


def _row(task: str, level: str, number: int, template: str, **columns: Any) -> dict[str, Any]:
    name = f"{task}#{number}"
    return {
        "prompt": derive(0, "prompt", task, number, template).to_bytes(8, "little"), "example": name,
        "task": task, "split": "test", "level": level, "template": template, "demonstrations": [],
        "condition": None, "loss_weight": 1.0, "format": "plain", "joint": True, **columns,
    }  # fmt: skip


def prompt_rows() -> list[dict[str, Any]]:
    rows = []
    for number in range(6):
        for template in ("t1", "t2"):
            answer = ("yes", "no", "maybe")[number % 3]
            body = f"{template} the cat {number} sat on a mat"
            rows.append(
                _row(
                    "alpha/choice",
                    "held_out",
                    number,
                    template,
                    options=["yes", "no", "maybe"],
                    references=[answer],
                    **prompt_columns(pieces_of(body, answer)),
                )
            )
    for number in range(5):
        columns = prompt_columns(pieces_of(f"number {number} and more words", "good mat"))
        rows.append(
            _row("alpha/free", "supervised", number, "t1", options=None, references=["good mat"], **columns)
        )
    columns = prompt_columns(pieces_of("odd one", "purple"))
    rows.append(
        _row("alpha/odd", "partial", 0, "t1", options=["red", "blue"], references=["purple"], **columns)
    )
    rows.append({**rows[0], "split": "train", "level": None, "example": "alpha/choice#train"})
    return rows


def task_rows() -> list[dict[str, Any]]:
    facts = {
        "alpha/choice": ("Entailment", "accuracy"),
        "alpha/free": ("Summarization", "rouge_l"),
        "alpha/odd": ("Question Answering", "exact_match"),
    }
    rows = []
    for task, (category, metric) in facts.items():
        row = dict.fromkeys(SCHEMAS["tasks/tasks"].names, "")
        lists = {name: [] for name in ("corpora", "demonstrations", "output_fields", "languages")}
        numbers = dict.fromkeys(
            ("num_read", "num_kept", "num_groups", "largest_group", "num_rendered_templates", "first_row"), 0
        )
        row |= lists | numbers | {"multiple_choice": False, "subtask": None}
        benchmark, name = task.split("/")
        rows.append(row | {"task": task, "benchmark": benchmark, "name": name, "family": name,
                           "category": category, "metric": metric})  # fmt: skip
    return rows


def stage(folder: Path, name: str, write: Callable[[ShardWriter], None]) -> None:
    out = StageWriter(folder, Identity(name, 1, {}, 0, None, (), {}))
    with out.shard("all", []) as shard:
        write(shard)
    out.add(shard.record)
    out.finish()


def resolved(evaluate: Evaluate, base: Path) -> Resolved:
    recipe = Recipe("mini", (Source("flan", "x"),), seed=3, train=TRAIN, evaluate=evaluate)
    return Resolved(recipe, {}, base, "")


def inputs_of(run: Path) -> Inputs:
    names = {
        "curate": "tasks",
        "split": "splits",
        "render": "prompts",
        "tokenize": "tokens",
        "train": "model",
    }
    return Inputs({stage: run / folder for stage, folder in names.items()})
