"""The evaluate stage on a run in miniature: tables, resuming, predictions first, missing packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_run import inputs_of, resolved

from taskmill.commands.finished import FinishedRun
from taskmill.commands.scoring.scores import scores
from taskmill.errors import DamagedError, MissingPackageError, StaleError
from taskmill.evaluation import build
from taskmill.evaluation.answering import jobs, models, ranking
from taskmill.evaluation.answering.models import Model
from taskmill.evaluation.metrics import registry as metrics
from taskmill.evaluation.metrics import rouge
from taskmill.recipe import Evaluate
from taskmill.runs import check_inputs, verify_stage
from taskmill.settings import Settings
from taskmill.storage import read_table

BLOCKED = ("pydantic", "polars", "datasets", "datasketch", "orjson")


def rows_of(run: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(run / "scores" / f"{name}.parquet").to_pylist()
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were opened, in order."""
    opened: list[str] = []
    original = jobs.open_model

    def counting(model: Model, *rest: Any) -> Any:
        opened.append(model.name)
        return original(model, *rest)

    monkeypatch.setattr(jobs, "open_model", counting)
    return opened


def test_predictions_and_scores(run: Path, evaluate_run: Callable[..., Any]) -> None:
    manifest = evaluate_run()
    assert verify_stage(run / "scores") == []
    predictions = rows_of(run, "predictions")
    assert len(predictions) == 18 * 2 * 2  # test prompts, shots, models
    assert manifest.counts["predictions"] == 72
    assert manifest.counts["ranked"] == 12 * 4
    assert manifest.counts["generated"] == 6 * 4
    assert manifest.counts["answer_not_in_options"] == 4
    order = [(row["model"], row["task"], row["shots"]) for row in predictions]
    assert order == sorted(order)
    for row in predictions:
        ranked = row["task"] == "alpha/choice"
        wanted = {"alpha/choice": "accuracy", "alpha/free": "rouge_l", "alpha/odd": "exact_match"}
        assert row["metric"] == wanted[row["task"]]
        if ranked:
            assert row["prediction"] == row["options"][ranking.best(row["scores"])]
            assert row["options"][row["correct_option"]] in row["references"]
            assert row["value"] == float(row["prediction"] in row["references"])
        else:
            assert row["scores"] is None and row["correct_option"] is None
            item = metrics.Item([row["prediction"]], row["references"], None, None, "", "", "")
            [valued] = metrics.values(metrics.Measure(row["metric"]), [item], 1)
            assert row["value"] == pytest.approx(valued.value, abs=1e-6)
    rows = {(r["model"], r["scope"], r["name"], r["shots"]): r for r in rows_of(run, "scores")}
    for model in ("final", "initial"):
        for shots in (0, 2):
            mine = [r for r in predictions if (r["model"], r["shots"]) == (model, shots)]
            held_out = [r["value"] for r in mine if r["level"] == "held_out"]
            row = rows[model, "level", "held_out", shots]
            assert row["value"] == pytest.approx(sum(held_out) / len(held_out), abs=1e-6)
            assert row["num"] == 12
    levels = [r["value"] for k, r in rows.items() if k[0] == "final" and k[1] == "level" and k[2] != "all"]
    assert rows["final", "level", "all", -1]["value"] == pytest.approx(sum(levels) / 6, abs=2e-6)


def test_predictions_equal_scores_computed_from_the_text(
    run: Path, evaluate_run: Callable[..., Any], tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    import torch

    evaluate_run(shots=(1,), baseline=False)
    table = read_table(run / "prompts" / "prompts" / "a.parquet").to_pylist()
    prompts = {row["prompt"]: row for row in table if row["split"] == "test"}
    model = make_model(7)
    for row in rows_of(run, "predictions")[:4]:
        text = prompts[row["prompt"]]["text"]
        second = text.index("the mat 1 is good")
        prefix = text[:second] + text[text.index("\n", second) + 1 : text.rindex("Answer:") + len("Answer:")]
        given = tokenizer.backend.encode(prefix).ids
        for option, score in zip(row["options"], row["scores"]):
            ids = tokenizer.backend.encode(f"{prefix} {option}").ids
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(given), len(ids)))
            assert score == pytest.approx(expected, abs=1e-5)


def test_batch_size_changes_no_row(run: Path, evaluate_run: Callable[..., Any]) -> None:
    evaluate_run(batch_size=32)
    whole = rows_of(run, "predictions")
    evaluate_run(batch_size=1, force=True)
    for one, other in zip(whole, rows_of(run, "predictions"), strict=True):
        assert other.pop("scores") == pytest.approx(one.pop("scores"), abs=1e-5)
        assert one == other


def test_a_killed_run_goes_on_with_what_is_missing(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    root = evaluate_run().root
    for path in (run / "scores").rglob("*"):
        if path.is_file():
            path.unlink()
    loads.clear()
    original, calls = jobs.answer, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(jobs, "answer", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run()
    assert not (run / "scores" / "manifest.json").exists()
    assert evaluate_run().root == root
    assert len(calls) == 5 + (12 - 4)
    assert loads == ["final", "final", "initial"]
    assert evaluate_run().root == root
    assert len(calls) == 13


def test_predict_only_then_score(run: Path, evaluate_run: Callable[..., Any], loads: list[str]) -> None:
    evaluate_run(predict_only=True)
    assert not (run / "scores" / "scores.parquet").exists()
    before = rows_of(run, "predictions")
    assert {row["value"] for row in before} == {None}
    assert evaluate_run(predict_only=True).body["external"]["predict_only"] is True
    loads.clear()
    with pytest.raises(StaleError):
        evaluate_run()
    evaluate_run(force=True)
    assert loads == []
    after = rows_of(run, "predictions")
    assert all(row["value"] is not None for row in after)
    assert [{**row, "value": None} for row in after] == before
    assert rows_of(run, "scores")


def test_another_final_model_is_predicted_again_and_the_initial_one_kept(
    run: Path, evaluate_run: Callable[..., Any], loads: list[str], make_model: Callable[..., Any],
    tokenizer_folder: Path,
) -> None:  # fmt: skip
    from evaluation_run import stage

    from taskmill.training.models.saving import save_model

    evaluate_run()
    loads.clear()
    save_model(make_model(8), tokenizer_folder, run / "model" / "final")
    stage(run / "model", "train", lambda shard: [shard.add_file(f"final/{p.name}") for p in
                                                 sorted((run / "model" / "final").iterdir())])  # fmt: skip
    with pytest.raises(StaleError, match=r"external\.model"):
        evaluate_run()
    evaluate_run(force=True)
    assert loads == ["final"]


def test_an_adapter_is_scored_on_its_base(
    run: Path, evaluate_run: Callable[..., Any], tokenizer: Any, tokenizer_folder: Path
) -> None:
    import dataclasses

    import evaluation_run
    import torch

    from taskmill.training.models.model import add_lora, initial_model
    from taskmill.training.models.saving import save_model

    train = dataclasses.replace(evaluation_run.TRAIN, method="lora")
    base = initial_model(
        train, tokenizer.vocab_size, evaluation_run.MAX_LENGTH, pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, seed=3,
    )  # fmt: skip
    adapted = add_lora(base, train.lora, 3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    import shutil

    shutil.rmtree(run / "model")
    save_model(adapted, tokenizer_folder, run / "model" / "final")
    evaluation_run.stage(run / "model", "train", lambda shard: [shard.add_file(f"final/{p.name}") for p in
                         sorted((run / "model" / "final").iterdir())])  # fmt: skip
    recipe = resolved(Evaluate(max_new_tokens=2, num_resamples=5), run)
    changed = dataclasses.replace(recipe, recipe=dataclasses.replace(recipe.recipe, train=train))
    settings = Settings(changed, build.SECTIONS)
    from taskmill.artifact import Identity, StageWriter

    identity = Identity("evaluate", 1, settings.values(), 3, None, (), {})
    build.build(settings, inputs_of(run), StageWriter(run / "scores", identity))
    rows = rows_of(run, "predictions")
    half = len(rows) // 2
    assert [r["prompt"] for r in rows[:half]] == [r["prompt"] for r in rows[half:]]
    differ = [a["scores"] != b["scores"] for a, b in zip(rows[:half], rows[half:]) if a["scores"]]
    assert differ and all(differ)


def test_max_examples_keeps_every_variant_of_few_examples(
    run: Path, evaluate_run: Callable[..., Any]
) -> None:
    evaluate_run(max_examples=2, shots=(0,), baseline=False)
    rows = [row for row in rows_of(run, "predictions") if row["task"] == "alpha/choice"]
    assert len(rows) == 4
    assert len({row["example"] for row in rows}) == 2


def test_a_missing_metric_package_is_reported_before_a_model_loads(
    run: Path, evaluate_run: Callable[..., Any], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.tokenizers", None)
    rouge.stemmer.cache_clear()
    with pytest.raises(MissingPackageError, match=r"rouge_score.*taskmill\[eval\]"):
        evaluate_run()
    assert loads == []
    evaluate_run(predict_only=True)
    assert loads == ["final", "initial"]


def test_runs_without_the_packages_that_a_gpu_image_lacks(run: Path) -> None:
    code = """
import json, sys
from pathlib import Path
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
from evaluation_run import inputs_of, resolved
from taskmill.artifact import Identity, StageWriter
from taskmill.evaluation import build
from taskmill.recipe import Evaluate
from taskmill.settings import Settings
run = Path(sys.argv[1])
settings = Settings(resolved(Evaluate(max_new_tokens=2, num_resamples=5), run), build.SECTIONS)
settings.predict_only = True
identity = Identity("evaluate", 1, settings.values(), 3, None, (), {})
build.build(settings, inputs_of(run), StageWriter(run / "scores", identity))
"""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent.parent)])
    blocked = json.dumps([*BLOCKED, "rouge_score", "sacrebleu"])
    subprocess.run(
        [sys.executable, "-c", code, str(run), blocked], check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert rows_of(run, "predictions")


def test_predictions_tell_the_shots_asked_from_the_demonstrations_shown(
    run: Path, evaluate_run: Callable[..., Any]
) -> None:
    manifest = evaluate_run(max_new_tokens=30, baseline=False)
    asked_and_shown = {(row["shots"], row["num_demonstrations"]) for row in rows_of(run, "predictions")}
    assert {shots for shots, _ in asked_and_shown} == {0, 2}
    assert (2, 2) in asked_and_shown and any(shown < shots for shots, shown in asked_and_shown)
    missing = sum(row["shots"] - row["num_demonstrations"] for row in rows_of(run, "predictions"))
    assert missing == manifest.counts["demonstrations_dropped"] > 0
    fewer = sum(row["num_demonstrations"] < row["shots"] for row in rows_of(run, "predictions"))
    assert scores(FinishedRun(run))["short_of_shots"] == [(2, fewer)]


@pytest.mark.parametrize(
    "path", ["tokens/tokenizer/tokenizer.json", "model/final/config.json", "model/final/model.safetensors"]
)
def test_damage_to_what_answers_is_found_before_anything_is_scored(run: Path, path: str) -> None:
    settings, inputs = Settings(resolved(Evaluate(), run), build.SECTIONS), inputs_of(run)
    check_inputs(inputs, build.reads(settings, inputs))
    raw = bytearray((run / path).read_bytes())
    raw[-3] ^= 0x40
    (run / path).write_bytes(bytes(raw))
    with pytest.raises(DamagedError, match=Path(path).name):
        check_inputs(inputs, build.reads(settings, inputs))


def test_a_damaged_adapter_is_not_scored(tmp_path: Path) -> None:
    import evaluation_run

    def write(shard: Any) -> None:
        shard.write_bytes("final/adapter_model.safetensors", b"weights")

    evaluation_run.stage(tmp_path / "model", "train", write)
    (tmp_path / "model" / "final" / "adapter_model.safetensors").write_bytes(b"Weights")
    inputs = inputs_of(tmp_path)
    read = [("train", name) for name in models.files(inputs.manifest("train"), False)]
    with pytest.raises(DamagedError, match="adapter_model"):
        check_inputs(inputs, read)
