"""docs/comparing.md: its commands run on two small runs and print what the page shows; its figures are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import write_stage
from page import work_through
from predicted import prediction, write_scored

from taskmill.commands.scoring.compare import CSV_COLUMNS, compared
from taskmill.evaluation.aggregation.comparing import MOST_EXACT, NUM_PERMUTATIONS, NUM_RESAMPLES, holm
from taskmill.seeding import uniform

TASKS = (
    ("flan/harbour_copa", "harbour_copa", "held_out", "Cause Effect Classification", 0.2),
    ("promptsource/harbour_copa", "harbour_copa", "held_out", "Cause Effect Classification", 0.1),
    ("crossfit/quay_analogies", "quay_analogies", "held_out", "Word Analogy", 0.0),
    ("t5/pier_news", "pier_news", "partial", "Summarization", 0.0),
    ("flan/tide_questions", "tide_questions", "partial", "Question Answering", 0.1),
    ("promptsource/quay_reviews", "quay_reviews", "supervised", "Sentiment Analysis", 0.5),
)
"""(task, family, level, category, how much better it gets)."""


def answers(model: str, gain: float, number: int) -> list[dict[str, Any]]:
    """Predictions of one model: four choices, a quarter right before anything is learnt."""
    return [
        prediction(
            task, i, float(uniform(1, "answer", model, task, template, shots, i) < 0.25 + gain * most),
            model=model, template=template, shots=shots, level=level, category=category, family=family, clean=i % 10 > 0,
        )
        for task, family, level, category, most in TASKS
        for shots in ((0,) if category == "Summarization" else (0, 5))
        for template in ("a", "b")
        for i in range(number)
    ]  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `runs/base`, whose checkpoints are scored, and `runs/longer`, tested on fewer examples."""
    models = (("initial", 0.0), ("step-000200", 0.6), ("final", 1.0))
    write_scored(tmp_path / "runs/base", [row for model, gain in models for row in answers(model, gain, 80)])
    write_stage(tmp_path / "runs/base", "train", {"metrics.jsonl": b'{"step": 400, "loss": 1}\n'})
    longer = [
        {**row, "value": max(row["value"], float(i % 9 == 0))}
        for i, row in enumerate(answers("final", 1.0, 60))
    ]
    write_scored(tmp_path / "runs/longer", longer)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(repository: Path) -> str:
    return (repository / "docs/comparing.md").read_text(encoding="utf-8")


def test_the_page_is_what_works(repository: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert work_through(page(repository), runs, capsys) == (0, 3, 3)
    text = (runs / "for-the-paper/scores.md").read_text(encoding="utf-8")
    assert text.startswith("# Scores of base")


def test_the_fields_on_the_page_are_those_of_the_json(repository: Path, runs: Path) -> None:
    body = compared(["runs/base", "runs/longer"])
    one = body["comparisons"][0]
    named = set(re.findall(r"`([a-z_]+)`", page(repository).split("## As data")[1].split("\n## ")[0]))
    assert {*body, *one, *one["rows"][0]} <= named and {*CSV_COLUMNS} <= named
    assert json.loads(json.dumps(body)) == body


def test_the_figures_on_the_page_are_those_of_the_code(repository: Path) -> None:
    text = " ".join(page(repository).split())
    assert f"{NUM_RESAMPLES:,} resamples" in text and f"{NUM_PERMUTATIONS:,} drawn swaps" in text
    assert f"at most {MOST_EXACT} groups" in text
    assert "0.01, 0.03 and 0.04 become 0.03, 0.06 and 0.06" in text
    assert holm([0.01, 0.03, 0.04]) == pytest.approx([0.03, 0.06, 0.06])
