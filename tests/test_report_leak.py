"""A leak that a decision left in: the model knows the leaked half of a task, and the report shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from html_page import parse
from running import call

from taskmill import api, seeding
from taskmill.commands.finished import FinishedRun
from taskmill.report import write_report
from taskmill.report_scores import clean

COLOURS = ("red", "green", "blue", "white")
SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "pa", "ri", "so", "tu", "ve", "zo")
LEAKED, OTHER, TRAIN = "quiz/harbour_colours", "quiz/mill_colours", "notes/colours_seen"
NUM_EXAMPLES = 64

RECIPE = """\
name: leak
seed: 5
data_root: data
sources:
  - {reader: table, path: harbour.jsonl, benchmark: quiz, options: {task: harbour_colours, %s}}
  - {reader: table, path: mill.jsonl, benchmark: quiz, options: {task: mill_colours, %s}}
  - {reader: table, path: seen.jsonl, benchmark: notes, options: {task: colours_seen, %s}}
plan: {partial: ["quiz/*"], num_demonstration_groups: 4}
split: {rules: []}
render: {num_demonstrations: 0, prompts_per_task: 200}
mix: {num_prompts: 3600}
tokenize: {vocab_size: 400, max_length: 128}
train:
  architecture: {num_layers: 2, hidden_size: 64, num_heads: 4, feedforward_size: 128}
  batch_size: 16
  micro_batch_size: 16
  learning_rate: 5.0e-3
  warmup_steps: 10
evaluate: {num_resamples: 200, max_new_tokens: 4}
"""
OPTIONS = (
    "category: Question Answering, definition: Which colour was it?, license: CC0-1.0, metric: exact_match, "
    "cast: {fields: {text: question}, references: answer, id: id}"
)


def questions(name: str) -> list[dict[str, str]]:
    """Return questions whose answers can only be known by having seen them: both are drawn."""
    rows = []
    for i in range(NUM_EXAMPLES):
        draw = [seeding.derive(1, name, f"{i} {j}") for j in range(9)]
        words = ["".join(SYLLABLES[d // 12**k % 12] for k in range(2)) for d in draw]
        question = (
            f"Near {words[0]} and {words[1]} the {words[2]} painters of {words[3]} put a {words[4]} boat with "
            f"the {words[5]} flag beside {words[6]} {words[7]}; what colour had it?"
        )
        rows.append({"id": f"{name}-{i}", "question": question, "answer": COLOURS[draw[8] % 4]})
    return rows


def retold(row: dict[str, str]) -> dict[str, str]:
    """Return a question in nearly its words: examples that are equal as a whole never train."""
    return {**row, "question": row["question"].replace("what colour had it", "what colour was it")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with half of LEAKED, answers included, in what is trained, as a person decided to keep it."""
    folder = tmp_path_factory.mktemp("leak")
    harbour, mill = questions("harbour"), questions("mill")
    files = {
        "harbour": harbour,
        "mill": mill,
        "seen": [*map(retold, harbour[::2]), *questions("seen")[::4]],
    }
    folder.joinpath("data").mkdir()
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        folder.joinpath(f"data/{name}.jsonl").write_text(text, encoding="utf-8")
    folder.joinpath("recipe.yaml").write_text(RECIPE % (OPTIONS, OPTIONS, OPTIONS), encoding="utf-8")
    return folder


def test_a_leak_that_was_kept_shows_in_the_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", str(run / "recipe.yaml"), "--run", str(run / "run"), "--workers", "1", "--quiet")
    code, _, err = call(capsys, *arguments)
    assert code == 3 and "above the threshold" in err
    decision = (
        "decisions",
        "set",
        str(run / "run"),
        TRAIN,
        LEAKED,
        "keep",
        "--by",
        "ann",
        "--why",
        "for a look",
    )
    assert call(capsys, *decision)[0] == 0
    code, _, err = call(capsys, *arguments)
    assert code == 0, err
    found = FinishedRun(run / "run")
    assert [(d["eval_task"], d["action"]) for d in found.rows("split", "decisions")] == [(LEAKED, "keep")]

    scores = {
        (r["model"], r["name"]): r
        for r in api.Run(found.run).table("evaluate", "scores").to_pylist()
        if r["scope"] == "task"
    }
    leaked = scores["final", LEAKED]
    assert 0 < leaked["num_clean"] < leaked["num"]
    assert leaked["value"] > leaked["clean_high"] >= leaked["clean_value"]
    other = scores["final", OTHER]
    assert other["clean_value"] == other["value"] < leaked["value"] and other["num_clean"] == other["num"]

    assert [row["name"] for row in clean(found)["suspects"]] == [LEAKED]
    page = parse(write_report(found.run))
    text = " ".join(page.text["clean"].split())
    full, wanted = (f"{100 * leaked[name]:.1f}" for name in ("value", "clean_value"))
    assert f"{LEAKED}, 0-shot: {full} on all {leaked['num']} predictions, {wanted} (" in text
    assert f"kept by decision: {TRAIN}" in text
    assert float(full) > float(wanted) + 10
