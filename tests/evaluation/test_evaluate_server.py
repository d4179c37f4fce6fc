"""A server that answers instead of a model: what it is sent, what its answers are worth, what is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from completion_server import CompletionServer, serve
from evaluation_run import CONTROL, DEMONSTRATION, INPUT, OUTPUT, prompt_columns

from taskmill.evaluation.answering import jobs
from taskmill.evaluation.asking import fitting
from taskmill.evaluation.asking.wording import fit_texts
from taskmill.recipe_evaluate import Endpoint, Sampling, TaskScoring
from taskmill.storage import read_table
from taskmill.training.encoding.tokenizer import TextTokenizer


def know_it(prompt: str, body: dict[str, Any], sample: int) -> tuple[str, str]:
    """Answer `Yes.` to a choice and some words to anything else."""
    return (" Yes." if "the cat" in prompt else " good mat"), "stop"


def predictions(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run / "scores/predictions.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_server_answers_and_no_model_is_needed(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, api: Any
) -> None:
    shutil.rmtree(run / "model")
    monkeypatch.setattr(jobs, "open_model", lambda *_: pytest.fail("a model loads"))
    with serve(know_it) as server:
        manifest = evaluate_run(endpoint=Endpoint(server.url, "tiny", api), max_new_tokens=9, stop=("###",))
        _sent(server, api)
    assert manifest.counts["ranked"] == 0
    assert "train" not in manifest.body["settings"]
    assert not any(item["stage"] == "train" for item in manifest.body["inputs"])
    rows = predictions(run)
    assert {row["model"] for row in rows} == {"endpoint"}
    for row in rows:
        assert row["scores"] is None
        if row["task"] == "alpha/choice":
            assert (row["metric"], row["prediction"]) == ("accuracy", "Yes.")
            assert row["value"] == float(row["references"] == ["yes"]), "equal after normalisation"
        elif row["task"] == "alpha/free":
            assert row["value"] == 1.0


def _sent(server: CompletionServer, api: str) -> None:
    assert len(server.bodies) == 36
    for body in server.bodies:
        assert body["model"] == "tiny" and "###" in body["stop"]
        text = body["messages"][0]["content"] if api == "chat" else body["prompt"]
        assert text.endswith("\nAnswer:") and text.startswith("Is this good ?") and "{eos}" not in text
        assert text.count("Answer: yes") <= 2


def test_who_answers_at_what_pace_changes_no_fingerprint(run: Path, evaluate_run: Callable[..., Any]) -> None:
    with serve(know_it) as server:
        endpoint = Endpoint(server.url, "tiny", num_requests=1)
        first = evaluate_run(endpoint=endpoint)
        again = evaluate_run(endpoint=Endpoint(server.url, "tiny", num_requests=5, timeout_seconds=9.0))
        assert again.fingerprint == first.fingerprint
        num = len(server.bodies)
        evaluate_run(endpoint=Endpoint(server.url, "tiny-chat"), force=True)
        assert len(server.bodies) == 2 * num


def test_samples_are_kept_and_the_metric_is_their_mean(run: Path, evaluate_run: Callable[..., Any]) -> None:
    def write(prompt: str, body: dict[str, Any], sample: int) -> tuple[str, str]:
        return (" good mat" if body["seed"] % 2 else " bad"), "stop"

    with serve(write) as server:
        evaluate_run(
            endpoint=Endpoint(server.url, "tiny"),
            sampling=Sampling(num_samples=4, temperature=1.0),
            tasks=(TaskScoring(("alpha/free",), metric="exact_match"),),
        )
    rows = [row for row in predictions(run) if row["task"] == "alpha/free"]
    assert {len(row["samples"]) for row in rows} == {4}
    for row in rows:
        assert row["prediction"] == row["samples"][0]
        assert row["value"] == row["samples"].count("good mat") / 4
    assert len({tuple(row["samples"]) for row in rows}) > 1


def test_texts_keep_marks_for_completions_and_lose_them_for_chat(tokenizer: TextTokenizer) -> None:
    pieces = [
        ("{bos}", CONTROL), ("the cat sat", INPUT), ("{eos}", CONTROL), ("yes", INPUT), ("<pad>", CONTROL),
        ("good", OUTPUT), ("<pad>", CONTROL),
    ]  # fmt: skip
    question = fitting.split_prompt(
        *(prompt_columns(pieces)[n] for n in ("text", "ends", "kinds", "trained"))
    )
    context = fitting.Context(tokenizer, 64)
    [marked] = fit_texts(context, [question], 5, plain=False)
    assert marked.text == "the cat sat</s>yes<pad>" and marked.stop == ("<pad>",)
    [plain] = fit_texts(context, [question], 5, plain=True)
    assert plain.text == "the cat sat\nyes" and plain.stop == ()


def test_texts_fit_the_context(tokenizer: TextTokenizer) -> None:
    pieces = [
        *((f"the mat {n} is good. Answer: yes\n", DEMONSTRATION) for n in range(4)),
        ("the cat sat\nAnswer:", INPUT),
        (" yes", OUTPUT),
    ]
    question = fitting.split_prompt(
        *(prompt_columns(pieces)[n] for n in ("text", "ends", "kinds", "trained"))
    )
    counts = []
    for length in (200, 60, 12):
        context = fitting.Context(tokenizer, length)
        [wording] = fit_texts(context, [question], 4, plain=False)
        assert len(tokenizer.backend.encode(wording.text).ids) + wording.max_new_tokens <= length
        assert (wording.text.endswith("Answer:") and "mat 0" not in wording.text) or length == 200
        counts.append(wording.num_demonstrations)
    assert counts[0] == 4 > counts[1] > counts[2] == 0


def test_a_run_that_never_trained_is_scored_from_the_command_line(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from running import call

    for folder in ("model", "scores"):
        shutil.rmtree(small_run / "run" / folder)
    code, _, err = call(capsys, "evaluate", "run")
    assert code == 2 and "taskmill train" in err
    with serve(know_it) as server:
        setting = f"evaluate.endpoint={{url: '{server.url}', model: tiny}}"
        code, out, _ = call(capsys, "evaluate", "run", "--set", setting, "--dry-run")
        assert code == 0 and "to do" in out
        code, out, err = call(capsys, "evaluate", "run", "--set", setting, "--quiet")
        assert code == 0 and "built" in out, err
    assert not (small_run / "run/model").exists()
    code, out, _ = call(capsys, "evaluate", "run")
    assert code == 0 and "up to date" in out
    code, _, err = call(capsys, "evaluate", "run", "--set", "evaluate.endpoint=null")
    assert code == 2 and "taskmill train" in err
