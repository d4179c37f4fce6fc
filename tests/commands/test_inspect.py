"""Inspect: every stage and one example, plain and as JSON; unknown names; no text of a run reaches the terminal raw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from finished_run import BOTH, EVAL, HOSTILE, PARTIAL, TRAIN, make_run, prompt_name
from predicted import write_scored
from scored_run import STEPS, make_scored_run

from taskmill.cli import _show_scores, cli
from taskmill.commands.finished import FinishedRun, token_texts
from taskmill.commands.inspect import _Printer, inspect, show_scores
from taskmill.errors import UsageError
from taskmill.stages import NAMES
from taskmill.training.mixture import Mixture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    return make_run(tmp_path_factory.mktemp("inspect"))


def shown(run: Path, *arguments: str) -> str:
    """Return what the command prints."""
    return CliRunner().invoke(cli, ["inspect", str(run), *arguments], catch_exceptions=False).output


def read(run: Path, *arguments: str) -> Any:
    """Return the one JSON object that the command prints."""
    text = shown(run, *arguments, "--json")
    assert text.count("\n") == 1
    return json.loads(text)


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ((), ["tiny", *NAMES, "held out", "100.0 %", "75.0"]),
        (
            ("curate",),
            [
                *(TRAIN, "Sentiment", "up/stream.json, record 10", HOSTILE),
                "up/stream at v1  licence  CC-BY-4.0",
            ],
        ),
        (
            ("overlap",),
            [
                "25.0 %",
                "[[At first, The Harbour Was Quiet That (Night) And",
                "keep, rule frequent-only, by a person",
            ],
        ),
        (("split",), ["supervised", "25.0 %", "frequent-only"]),
        (("render",), ["output, trained\n    [[ answer", "[[{eos}]]", HOSTILE]),
        (("mix",), ["12 prompts drawn", "alpha", "66.67 %"]),
        (("tokenize",), ["6 documents", "at 12 of 12 positions", "</s>]]"]),
        (("train",), ["12 updates", "loss", "3.9", "loss on validation prompts", "held out", "4.125"]),
        (("evaluate",), ["75.0", "guess", "references", "final model, 0-shot"]),
    ],
)
def test_views_show_what_they_hold(run: Path, arguments: tuple[str, ...], texts: list[str]) -> None:
    text = shown(run, *arguments)
    for wanted in texts:
        assert wanted in text, f"{wanted!r} is not in:\n{text}"
    assert "\x1b" not in text


@pytest.mark.parametrize("stage", ["", *NAMES])
def test_json_is_one_object_with_the_same_content(run: Path, stage: str) -> None:
    body = read(run, *([stage] if stage else []))
    assert isinstance(body, dict) and body
    if stage == "tokenize":
        for document in body["documents"]:
            texts = "".join(t["text"] for t in document["tokens"] if t["trained"])
            assert texts.startswith(" answer ") and texts.endswith("</s>")
            assert document["num_trained"] == sum(t["trained"] for t in document["tokens"])
    if stage == "render":
        segments = body["prompts"][0]["segments"]
        assert [s["kind"] for s in segments] == ["instruction", "input", "output", "control"]
        assert [s["trained"] for s in segments] == [False, False, True, True]
    if stage == "overlap":
        assert [p["eval_task"] for p in body["pairs"]] == [EVAL, PARTIAL]
        assert body["pairs"][0]["decision"]["by"] == "a person"


@pytest.mark.parametrize(
    ("stage", "key"), [("curate", "examples"), ("render", "prompts"), ("evaluate", "predictions")]
)
def test_count_and_task_choose_records(run: Path, stage: str, key: str) -> None:
    for number in (1, 2):
        assert len(read(run, stage, "-n", str(number))[key]) == number
    found = read(run, stage, "--task", "beta/*", "-n", "4")[key]
    assert {row["task"] for row in found} == {EVAL, PARTIAL} and len(found) == 4
    assert {row["task"] for row in read(run, stage, "--task", BOTH)[key]} == {BOTH}


def test_tokenize_of_a_task_shows_its_documents(run: Path) -> None:
    rows = {d["row"] for d in read(run, "tokenize", "--task", BOTH, "-n", "99")["documents"]}
    prompts = read(run, "render", "--task", BOTH, "-n", "99")["prompts"]
    assert rows and rows <= {
        p["row"] for name in {p["example"] for p in prompts} for p in _prompts(run, name)
    }


def _prompts(run: Path, example: str) -> list[Any]:
    found: list[Any] = read(run, "--example", example)["prompts"]
    return found


def test_an_evaluation_example_is_followed(run: Path) -> None:
    body = read(run, "--example", f"{EVAL}#0")
    assert body["example"]["file"] == "up/stream.json" and body["example"]["record"] == 10
    assert body["example"]["references"] == ["answer 0"]
    assert (body["example"]["repository"], body["example"]["revision"]) == (None, "sha256:0123")
    assert body["split"]["split"] == "test" and body["split"]["level"] == "held_out"
    assert body["split"]["clean"] is False
    assert body["overlaps"]["hits"][0]["train_example"] == f"{TRAIN}#0"
    assert body["overlaps"]["decisions"][0]["action"] == "keep"
    assert [p["prompt"] for p in body["prompts"]] == [prompt_name(f"{EVAL}#0").hex()]
    assert body["mixture"]["num_positions"] == 0 and body["tokens"] == []
    assert [(p["model"], p["value"]) for p in body["predictions"]] == [("final", 0.75), ("initial", 0.25)]
    text = shown(run, "--example", f"{EVAL}#0")
    assert "never drawn" in text and "not clean" in text and "[[the harbour was quiet" in text


def test_a_train_example_is_followed_to_its_tokens(run: Path) -> None:
    body = read(run, "--example", f"{TRAIN}#1")
    mixture = Mixture.open(run / "mixture")
    row = body["prompts"][0]["row"]
    drawn = mixture.draws(12)[1].tolist()
    assert body["mixture"]["positions"] == [i for i, r in enumerate(drawn) if r == row]
    assert body["mixture"]["num_positions"] == len(body["mixture"]["positions"]) > 0
    tokens = body["tokens"][0]["tokens"]
    text = "".join(t["text"] for t in tokens)
    assert text == "".join(s["text"] for s in body["prompts"][0]["segments"]).replace("{eos}", "</s>")
    assert body["tokens"][0]["row"] == row and len(body["tokens"]) == 1
    assert body["predictions"] == []


def test_a_dropped_example_says_why(run: Path) -> None:
    body = read(run, "--example", f"{TRAIN}#9")
    assert body["example"] is None and body["dropped"][0]["reason"] == "duplicate"
    assert f"dropped by curate: duplicate, in favour of {TRAIN}#0" in shown(run, "--example", f"{TRAIN}#9")


@pytest.mark.parametrize(
    ("stage", "task", "example", "message"),
    [
        ("rendr", None, None, "did you mean 'render'"),
        ("render", "alpha/review", None, f"did you mean '{TRAIN}'"),
        ("curate", "zzz*", None, "no task matches"),
        (None, None, f"{TRAIN}#", f"did you mean '{TRAIN}#"),
        (None, None, "alpha/reviewz#1", f"did you mean '{TRAIN}'"),
        (None, None, "zzz", "no example 'zzz'"),
        (None, TRAIN, None, "--task needs a stage"),
        ("curate", None, f"{TRAIN}#1", "leave out STAGE"),
    ],
)
def test_unknown_names_are_refused(
    run: Path, stage: str | None, task: str | None, example: str | None, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        inspect(run, stage, task, example, 3, True)
    assert message in str(error.value)


def test_an_unfinished_stage_names_its_command(tmp_path: Path) -> None:
    run = make_run(tmp_path, "split")
    with pytest.raises(UsageError, match=f"taskmill train {run}"):
        inspect(run, "train", None, None, 3, False)
    text = shown(run)
    assert f"not finished: `taskmill render {run}`" in " ".join(text.split())
    body = read(run, "--example", f"{TRAIN}#1")
    assert body["prompts"] == body["tokens"] == body["predictions"] == [] and body["mixture"] is None
    assert "train" in shown(run, "--example", f"{TRAIN}#1")


def test_terminals_get_colour_and_no_brackets(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    inspect(run, "tokenize", TRAIN, None, 1, False)
    text = capsys.readouterr().out
    assert "\x1b[4;32m" in text or "\x1b[4;2;32m" in text or "\x1b[2;4;32m" in text
    assert "[[" not in text
    inspect(run, "curate", BOTH, None, 1, False)
    text = capsys.readouterr().out
    assert "\x1b[31m" not in text and "\u241b[31mred" in text


def test_scores_fit_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_scored_run(tmp_path)
    assert "predictions  clean value" in shown(run, "evaluate")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert show_scores(run) == sorted(STEPS)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]
    table = [line for line in lines if line][1:]
    assert table[0].split() == ["name", "model", "shots", "metric", "value", "interval", "clean"]
    found = read(run)["scores"]
    assert len(table) == 1 + len(found) and max(map(len, lines)) <= 80
    assert len({len(line) for line in table}) == 1
    for line, row in zip(table[1:], found):
        assert f" {row['model']} " in line and line.endswith(f"{100 * row['clean_value']:.1f}")


def test_options_that_were_not_ranked_have_no_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = read(run, "evaluate")["predictions"][0]
    asked = {"options": ["high", "low"], "samples": None}
    for scores, said in ((None, "high | low"), ([-0.5, -2.0], "high (-0.50) | low (-2.00)")):
        _Printer(FinishedRun(run)).predicted({**row, **asked, "scores": scores})
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("models", [("final", "initial"), ("endpoint",), ("final",)])
def test_the_next_commands_are_those_that_the_run_can_take(
    models: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_scored_run(tmp_path, models)
    _show_scores(run)
    lines = capsys.readouterr().out.partition("\nNext:\n")[2].splitlines()
    commands = [line.partition("#")[0].split() for line in lines]
    wanted = [["taskmill", "report", str(run)], ["taskmill", "inspect", str(run)]]
    if len(models) == 2:
        wanted.insert(0, ["taskmill", "compare", f"{run}@initial", str(run)])
    assert commands == wanted and len({line.index("#") for line in lines}) == 1
    for command in commands:
        done = CliRunner().invoke(cli, command[1:])
        assert done.exit_code == 0, done.output


def test_a_run_that_was_asked_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_scores(write_scored(tmp_path / "unasked", [])) == []
    assert "none yet: no prompt was asked" in capsys.readouterr().out


def test_tokens_of_one_character_stay_together(run: Path) -> None:
    from taskmill.training.encoding.tokenizer import open_tokenizer

    folder = next((run / "tokens").iterdir()) / "tokenizer"
    backend = open_tokenizer(folder).backend
    text = "\u00e9\U0001f600 x"
    ids = backend.encode(text).ids
    found = token_texts(backend, ids, [0] * len(ids))
    assert "".join(piece for piece, _ in found) == text
    assert not any("\ufffd" in piece for piece, _ in found)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("person", "excluded, decision of a person"),
        ("r-1", "excluded, decision of rule r-1"),
        (None, "excluded, decision"),
    ],
)
def test_who_excluded_an_example(
    run: Path, capsys: pytest.CaptureFixture[str], rule: str | None, wanted: str
) -> None:
    row = {"split": "excluded", "level": None, "reason": "decision", "rule": rule, "why": None, "clean": True}
    _Printer(FinishedRun(run)).standing(row)
    assert capsys.readouterr().out.strip().splitlines()[-1].strip() == wanted


def test_scores_stand_beside_their_clean_ones_and_answers_beside_predictions(tmp_path: Path) -> None:
    run = make_scored_run(tmp_path)
    text = shown(run, "evaluate", "--task", EVAL, "-n", "1")
    line = next(
        row for row in text.splitlines() if row.startswith(EVAL) and " final " in row and " 0 " in row
    )
    assert line.startswith(f"{EVAL}  final")
    assert " 75.0 " in line and line.split()[-5:] == ["50.0", "50.0", "\u2013", "50.0", "18"]
    assert "final model, 0-shot with 0" not in text and "held out, not clean" in text
    text = shown(run, "evaluate", "--task", PARTIAL, "-n", "1")
    for wanted in ("predicted   guess", "and         again", "and         third", "answer      extracted 0"):
        assert wanted in text, wanted
    assert "not clean" not in text.split(f"{PARTIAL}#0")[1]
    assert "answer  " not in shown(run, "evaluate", "--task", BOTH, "-n", "1")
