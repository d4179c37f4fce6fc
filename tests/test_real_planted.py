"""Leaks planted among the real examples of the whole catalogue: all are found wherever thirteen words are common."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import taskmill

from taskmill import api
from taskmill.text import words

NUM = 40
EVALUATION, QUESTIONS = "planted/evaluation", "planted/questions"
TEMPLATE = "please read what follows with great care and then say in one short line what you make of it"


def every(step: int) -> Callable[[str], str]:
    """Return a function that replaces each `step`-th word by one that no text has."""

    def change(passage: str) -> str:
        line = words(passage)
        line[step - 1 :: step] = [f"qz{i}x" for i in range(len(line[step - 1 :: step]))]
        return " ".join(line)

    return change


PLANTED: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "templated": lambda passage: f"Here is a text: \u00ab{passage}\u00bb Now answer about it.",
    "other_case": lambda passage: passage.upper().replace(", ", " \u2013 ").replace(". ", "!  "),
    "thirteen_words": lambda passage: " ".join(words(passage)[20:33]),
    "one_word_in_20": every(20),
    "mistyped_source": str,
}
MISSED: dict[str, Callable[[str], str]] = {
    "twelve_words": lambda passage: " ".join(words(passage)[20:32]),
    "one_word_in_13": every(13),
}
"""What shares no thirteen words: not found, and nobody says that it was."""


def passages(shared_data: Path) -> list[str]:
    """Return real passages of 60 words."""
    found = list[str]()
    for line in (shared_data / "pretraining/wiki_demo.txt").read_text(encoding="utf-8").splitlines():
        parts = line.split()
        found += [" ".join(parts[i : i + 60]) for i in range(100, len(parts) - 60, len(parts) // 2)]
    return found[: NUM + 1]


def source(
    folder: Path, name: str, rows: list[dict[str, str]], category: str, dataset: str
) -> dict[str, Any]:
    """Write a task's rows and return its source."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "reader": "table",
        "path": str(folder / f"{name}.jsonl"),
        "benchmark": "planted",
        "options": {
            "task": name,
            "category": category,
            "dataset": dataset,
            "definition": "Say it.",
            "license": "CC0-1.0",
            "cast": {"fields": {"text": "text"}, "references": "answer", "id": "id"},
        },
    }


def row(number: int, text: str) -> dict[str, str]:
    return {"id": f"p{number:03}", "text": text, "answer": f"answer {number}"}


@pytest.fixture(scope="module")
def run(shared_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """The catalogue with planted tasks, of which the held-out ones are evaluated, up to overlap."""
    folder = tmp_path_factory.mktemp("planted")
    texts = passages(shared_data)
    assert len(texts) == NUM + 1
    shared, texts = texts[-1], texts[:-1]
    recipe = yaml.safe_load((repository / "examples/recipes/catalogue.yaml").read_text(encoding="utf-8"))
    for name, change in {**PLANTED, **MISSED}.items():
        dataset = "adverserial_passages" if name == "mistyped_source" else name
        rows = [row(i, change(text)) for i, text in enumerate(texts)]
        recipe["sources"].append(source(folder, name, rows, "Text Categorization", dataset))
    rows = [row(i, f"{text} What does passage {i} say?") for i, text in enumerate(texts)]
    recipe["sources"].append(source(folder, "evaluation", rows, "Planted", "adversarial_passages"))
    rows = [row(i, f"{shared} And what of point number {i}?") for i in range(20)]
    recipe["sources"].append(source(folder, "questions", rows, "Planted", "questions"))
    recipe["sources"].append(source(folder, "passage", [row(0, shared)], "Text Categorization", "passage"))
    for name, category in (("template_train", "Text Categorization"), ("template_evaluation", "Planted")):
        rows = [row(i, f"{TEMPLATE}: {name} {i} has words of its own {i * 7}") for i in range(80)]
        recipe["sources"].append(source(folder, name, rows, category, name))
    recipe |= {"data_root": str(shared_data), "plan": {"held_out": {"categories": ["Planted"]}}}
    recipe["plan"]["num_demonstration_groups"] = 0
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = taskmill("run", str(folder / "recipe.yaml"), "--run", str(folder / "run"), "--to", "overlap")
    assert done.returncode == 0, done.stderr
    return api.Run(folder / "run")


def names_by_pair(run: api.Run, table: str, column: str) -> dict[tuple[str, str], set[str]]:
    found = defaultdict[tuple[str, str], set[str]](set)
    for r in run.table("overlap", table).to_pylist():
        found[r["train_task"], r["eval_task"]].add(r[column].rpartition("-")[2])
    return found


def test_the_catalogue_is_large(run: api.Run) -> None:
    assert run.table("overlap", "assignment", ["example"]).num_rows > 100_000


def test_every_planted_leak_is_found_and_no_other_is_claimed(run: api.Run) -> None:
    hits = names_by_pair(run, "hits", "eval_example")
    touched = names_by_pair(run, "touched", "train_example")
    everyone = {f"p{i:03}" for i in range(NUM)}
    for name in PLANTED:
        pair = f"planted/{name}", EVALUATION
        assert hits[pair] == touched[pair] == everyone, name
    for name in MISSED:
        pair = f"planted/{name}", EVALUATION
        assert not hits[pair] and not touched[pair], name


def test_a_passage_behind_twenty_questions_hits_them_all(run: api.Run) -> None:
    pair = "planted/passage", QUESTIONS
    assert names_by_pair(run, "hits", "eval_example")[pair] == {f"p{i:03}" for i in range(20)}
    assert names_by_pair(run, "touched", "train_example")[pair] == {"p000"}


def test_the_same_text_under_a_mistyped_name_is_no_equal_data_set(run: api.Run) -> None:
    pairs = {(p["train_task"], p["eval_task"]): p for p in run.table("overlap", "pairs").to_pylist()}
    pair = pairs["planted/mistyped_source", EVALUATION]
    assert not pair["same_dataset"]
    assert pair["hit_fraction"] == pair["hit_fraction_rare"] == 1


def test_template_text_never_alarms(run: api.Run) -> None:
    pairs = {(p["train_task"], p["eval_task"]): p for p in run.table("overlap", "pairs").to_pylist()}
    pair = pairs["planted/template_train", "planted/template_evaluation"]
    assert pair["hit_fraction"] == 1 and pair["hit_fraction_rare"] == 0
    texts = {r["text"] for r in run.table("overlap", "frequent").to_pylist()}
    assert " ".join(TEMPLATE.split()[:13]) in texts
