"""Suggestions on the real catalogue: without a rule, the twins that a person judged are found and priced."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import call, settings

SNI = "super_natural_instructions"
TWINS = {
    f"{SNI}/task1661_super_glue_classification": "promptsource/super_glue/boolq",
    f"{SNI}/task1388_cb_entailment": "promptsource/super_glue/cb",
    f"{SNI}/task1344_glue_entailment_classification": "promptsource/super_glue/rte",
    f"{SNI}/task156_codah_classification_adversarial": "promptsource/codah/codah",
    "reasoning/gsm8k": "evaluation/gsm8k",
}


def test_the_real_recipe_splits_after_its_suggestion(
    shared_data: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = str(repository / "examples/recipes/real.yaml"), tmp_path / "run"
    values = settings((f"data_root={shared_data}", "limit=60", "split.decisions=null", "split.rules=[]"))
    command = [recipe, "--run", str(run), "--quiet", "--workers", "1", *values]
    code, _, err = call(capsys, "run", *command, "--to", "split")
    assert code == 3, err
    code, out, err = call(capsys, "split", *command, "--suggest", "--json")
    assert code == 0, err
    body = json.loads(out)
    assert body["catalogue"]["tasks"] == 1431
    assert body["catalogue"]["pairs"] == 1431 * 1430 // 2
    assert body["pairs"]["above"] == body["pairs"]["proposed"] > len(body["proposals"]) > 0
    proposed = {pair["train_task"]: proposal for proposal in body["proposals"] for pair in proposal["pairs"]}
    for train in TWINS:
        assert proposed[train]["action"] == "drop_train_task", train
        assert proposed[train]["price"]["train"] >= 60 and proposed[train]["price"]["evaluation"] == 0
        assert any(price["text"].startswith("keep: ") for price in proposed[train]["alternatives"])
    with (run / "suggested.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["train_task"]: row for row in csv.DictReader(file)}
    assert {train: rows[train]["eval_task"] for train in TWINS} == TWINS
    assert {row["by"] for row in rows.values()} == {"suggestion"}
    code, _, err = call(capsys, "decisions", "apply", str(run), str(run / "suggested.csv"))
    assert code == 0, err
    code, out, err = call(capsys, "split", *command, "--json")
    assert code == 0, err
    (stage,) = json.loads(out)["stages"]
    assert stage["counts"]["num_train"] == body["examples"]["proposed"]["train"] - _demonstrations(run)


def _demonstrations(run: Path) -> int:
    """Demonstrations of tasks that train, which count as train examples too."""
    roles = {row["task"]: row["role"] for row in pq.read_table(run / "splits/tasks.parquet").to_pylist()}
    members = pq.read_table(run / "splits/members.parquet", columns=["task", "split"]).to_pylist()
    return sum(m["split"] == "demonstration" and roles[m["task"]] in ("train", "both") for m in members)
