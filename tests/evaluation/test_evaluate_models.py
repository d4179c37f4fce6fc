"""Which models are asked: checkpoints, rankings that are normalised, validation prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from evaluation_run import stage

from taskmill.errors import LimitError
from taskmill.recipe_evaluate import TaskScoring
from taskmill.records import SCHEMAS
from taskmill.storage import read_table


def predictions(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run / "scores/predictions.parquet").to_pylist()
    return rows


@pytest.fixture
def checkpoints(run: Path, make_model: Callable[..., Any], tokenizer_folder: Path) -> Path:
    """The run with two checkpoints, the second of which is the final model."""
    from taskmill.training.models.saving import save_model

    for name, seed in (("step-000010", 5), ("step-000020", 7)):
        save_model(make_model(seed), tokenizer_folder, run / "model" / name)
        (run / "model" / name / "optimizer.safetensors").write_bytes(b"moments")

    def write(shard: Any) -> None:
        for path in sorted((run / "model").rglob("*")):
            if path.is_file() and path.parent.name != "shards" and path.name != "manifest.json":
                shard.add_file(path.relative_to(run / "model").as_posix())

    stage(run / "model", "train", write)
    return run


def test_checkpoints_are_scored_beside_the_final_model(
    checkpoints: Path, evaluate_run: Callable[..., Any]
) -> None:
    manifest = evaluate_run(checkpoints=True, shots=(0,))
    read = {item["table"] for item in manifest.body["inputs"] if item["stage"] == "train"}
    assert {"step-000010/model.safetensors", "final/model.safetensors"} <= read
    assert not any("optimizer" in name for name in read)
    rows = predictions(checkpoints)
    by_model = {
        model: [row["scores"] for row in rows if row["model"] == model]
        for model in ("final", "initial", "step-000010")
    }
    assert sum(map(len, by_model.values())) == len(rows), "the last checkpoint is the final model"
    assert by_model["final"] != by_model["step-000010"]
    names = [row["model"] for row in rows]
    assert names == sorted(names)
    scored = read_table(checkpoints / "scores/scores.parquet").to_pylist()
    assert {row["model"] for row in scored} == set(by_model)


def test_without_the_setting_checkpoints_are_left_alone(
    checkpoints: Path, evaluate_run: Callable[..., Any]
) -> None:
    manifest = evaluate_run(shots=(0,))
    assert set(manifest.body["external"]["models"]) == {"final", "initial"}
    assert not any("step-" in item["table"] for item in manifest.body["inputs"])


@pytest.mark.parametrize("kind", ["token", "byte", "unconditional"])
def test_ranking_compares_what_the_normalisation_says(
    run: Path, evaluate_run: Callable[..., Any], tokenizer: Any, make_model: Callable[..., Any], kind: Any
) -> None:
    import torch

    evaluate_run(baseline=False, shots=(0,))
    plain = {row["prompt"]: row for row in predictions(run)}
    evaluate_run(baseline=False, shots=(0,), normalisation=kind, force=True)
    model, bos = make_model(7), tokenizer.bos_id
    for row in predictions(run):
        if row["task"] != "alpha/choice":
            continue
        for option, found, score in zip(row["options"], row["scores"], plain[row["prompt"]]["scores"]):
            ids = tokenizer.backend.encode(f" {option}").ids
            if kind == "token":
                expected = score / len(ids)
            elif kind == "byte":
                expected = score / len(option.encode())
            else:
                with torch.no_grad():
                    logprobs = model(torch.tensor([[bos, *ids]])).logits[0].log_softmax(-1)
                expected = score - sum(float(logprobs[i, token]) for i, token in enumerate(ids))
            assert found == pytest.approx(expected, abs=1e-4)
        assert row["prediction"] == max(zip(row["scores"], row["options"]))[1]
        assert math.isfinite(sum(row["scores"]))


def test_a_model_in_16_bits_is_another_one_and_chooses_much_the_same(
    run: Path, evaluate_run: Callable[..., Any]
) -> None:
    exact = evaluate_run(shots=(0,)).body["external"]["models"]
    found = {(row["model"], row["prompt"]): row for row in predictions(run)}
    rounded = evaluate_run(shots=(0,), precision="bf16", force=True).body["external"]["models"]
    assert not set(exact.values()) & set(rounded.values())
    differences = [
        abs(one - other)
        for row in predictions(run)
        for one, other in zip(row["scores"] or (), found[row["model"], row["prompt"]]["scores"] or ())
    ]
    assert len(differences) > 70 and 1e-4 < max(differences) < 0.5
    assert evaluate_run(shots=(0,), force=True).body["external"]["models"] == exact
    assert {(row["model"], row["prompt"]): row for row in predictions(run)} == found


@pytest.mark.parametrize("folder", ["final", None])
def test_a_model_that_does_not_fit_a_gpu_is_said(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    import torch

    from taskmill.training.models import model

    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(model, "load_model" if folder else "initial_model", full)
    with pytest.raises(
        LimitError, match=r"'(final|initial)' does not fit .* in fp32; evaluate.precision=bf16"
    ):
        evaluate_run(shots=(0,), baseline=folder is None)


def test_options_can_be_generated(run: Path, evaluate_run: Callable[..., Any]) -> None:
    entry = TaskScoring(("alpha/choice",), options="generate")
    manifest = evaluate_run(baseline=False, shots=(0,), tasks=(entry,))
    assert manifest.counts["ranked"] == 0 and manifest.counts["answer_not_in_options"] == 1
    for row in predictions(run):
        if row["task"] == "alpha/choice":
            assert row["metric"] == "accuracy" and row["scores"] is None
            assert row["correct_option"] is not None


def test_the_metric_of_an_entry_counts_for_chosen_options_too(
    run: Path, evaluate_run: Callable[..., Any]
) -> None:
    entry = TaskScoring(("alpha/choice",), metric="token_f1", extract="last_number")
    evaluate_run(baseline=False, shots=(0,), tasks=(entry,))
    for row in predictions(run):
        if row["task"] == "alpha/choice":
            assert row["metric"] == "token_f1" and row["scores"] is not None
            assert row["answer"] == row["prediction"], "an option is taken whole"
            assert row["value"] == float(row["prediction"] in row["references"])


def test_validation_prompts_can_be_asked_instead(run: Path, evaluate_run: Callable[..., Any]) -> None:
    path = run / "prompts/prompts/a.parquet"
    prompts = pq.read_table(path).to_pylist()
    for row in prompts:
        if row["task"] == "alpha/free":
            row["split"] = "validation"
    members = pq.read_table(run / "splits/members.parquet").to_pylist()
    for row in members:
        if row["task"] == "alpha/free":
            row["split"] = "validation"
    stage(run / "prompts", "render",
          lambda s: s.write_table("prompts/a.parquet", SCHEMAS["prompts/prompts"], prompts))  # fmt: skip
    stage(run / "splits", "split",
          lambda s: s.write_table("members.parquet", SCHEMAS["splits/members"], members))  # fmt: skip
    evaluate_run(split="validation", shots=(0,), baseline=False)
    rows = predictions(run)
    assert {row["task"] for row in rows} == {"alpha/free"} and len(rows) == 5
    assert {row["clean"] for row in rows} == {True, False}
    evaluate_run(shots=(0,), baseline=False, force=True)
    assert {row["task"] for row in predictions(run)} == {"alpha/choice", "alpha/odd"}


def test_a_run_without_such_prompts_says_so(
    run: Path, evaluate_run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    rule = TaskScoring(("alpha/choice",), options="generate")
    evaluate_run(split="validation", tasks=(rule,))
    assert "no prompt of the split validation" in caplog.text
    assert "no task that is tested has validation examples" in caplog.text
    assert predictions(run) == []
