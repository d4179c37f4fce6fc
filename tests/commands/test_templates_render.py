"""`templates render`: what is previewed is what the stage makes, on a run's records or on given fields."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from running import call

from taskmill.commands import templates_preview
from taskmill.commands.finished import FinishedRun
from taskmill.templates.composing.schemas import describe_segments

Captured = pytest.CaptureFixture[str]
PAIR = '{"fields": {"text_a": "It rains.", "text_b": "It is wet."}, "references": ["yes"], "options": ["yes", "no"]}'


def preview(capsys: Captured, *arguments: str) -> Any:
    """Return what `templates render --json` prints."""
    code, out, err = call(capsys, "templates", "render", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(capsys: Captured, *arguments: str) -> str:
    """Return the message of a command with wrong usage."""
    code, out, err = call(capsys, "templates", "render", *arguments)
    assert code == 2 and not out, (code, out, err)
    return err


@pytest.mark.parametrize("style", ["task", "keywords", "reasoning", "instance"])
def test_a_preview_is_the_prompt_of_the_stage(capsys: Captured, small_run: Path, style: str) -> None:
    run = FinishedRun(small_run / "run")
    names = {name for name, task in run.tasks.items() if task["style"] == style}
    prompts = [p for p in run.rows("render", "prompts") if p["task"] in names and p["split"] == "train"]
    assert prompts, "tasks of every style are trained on"
    for prompt in prompts[:4]:
        body = preview(
            capsys,
            prompt["template"],
            "--run",
            "run",
            "--task",
            prompt["task"],
            "--example",
            prompt["example"],
        )
        (example,) = body["examples"]
        (made,) = example["renders"]
        assert made["prompt"] == prompt["prompt"].hex()
        segments = [(s["kind"], s["trained"], s["text"]) for s in made["segments"]]
        assert segments == describe_segments(prompt)
        assert made["options"] == prompt["options"] and made["references"] == prompt["references"]


def test_curate_alone_is_enough(capsys: Captured, small_run: Path) -> None:
    for name in ("prompts", "splits", "overlaps", "mixture", "tokens", "model", "scores"):
        shutil.rmtree(small_run / "run" / name)
    run = FinishedRun(small_run / "run")
    own = sorted(row["template"] for row in run.rows("curate", "templates"))
    body = preview(capsys, ",".join(own), "--run", "run", "-n", "3")
    assert body["task"] == "promptsource/ferry_boolq" and len(body["examples"]) == 3
    for example in body["examples"]:
        assert [made["template"] for made in example["renders"]] == own
        assert all(made["input"] and made["output"] and not made["dropped"] for made in example["renders"])
    assert preview(capsys, own[0][:8], "--run", "run")["examples"][0]["renders"][0]["template"] == own[0]


def test_a_pattern_means_every_template_that_fits(capsys: Captured, small_run: Path) -> None:
    body = preview(capsys, "keywords/*-1", "--run", "run", "--task", "t5/pier_rte", "-n", "1")
    made = body["examples"][0]["renders"]
    assert len(made) > 5 and {m["template"] for m in made} >= {"keywords/pair-1", "keywords/text-1"}
    fitting = [m for m in made if m["dropped"] is None]
    assert fitting and all(m["dropped"]["reason"] == "render_error" for m in made if m not in fitting)


def test_a_chat_format_is_laid_out(capsys: Captured) -> None:
    body = preview(capsys, "keywords/pair-1", "--fields", PAIR, "--format", "tulu")
    made = body["examples"][0]["renders"][0]
    kinds = [segment["kind"] for segment in made["segments"]]
    assert body["format"] == "tulu" and kinds[0] == "control" and "assistant" in kinds
    assert "<|user|>" in "".join(segment["text"] for segment in made["segments"])
    trained = [segment["text"] for segment in made["segments"] if segment["trained"]]
    assert trained[0].strip() == "yes"


def test_fields_may_be_a_file_and_need_no_run(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(PAIR, encoding="utf-8")
    inline = preview(capsys, "keywords/pair-1", "--fields", PAIR)
    assert preview(capsys, "keywords/pair-1", "--fields", str(tmp_path / "record.json")) == inline
    made = inline["examples"][0]["renders"][0]
    assert made["output"] == "yes" and made["options"] == ["yes", "no"] and "It rains." in made["input"]


def test_templates_of_yaml_files_are_previewed(capsys: Captured, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "- {id: a, style: keywords, shape: pair, reads: [text_a, text_b], body: '{{ text_a }}/{{ text_b }}'}\n"
    )
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        "templates:\n  t1: {name: one, jinja: '{{ text_a }} ||| {{ text_b }}', answer_choices: null}\n"
        "  t2: {name: two, jinja: '{{ text_a.__class__ }} ||| b', answer_choices: null}\n"
    )
    body = preview(capsys, f"{mine},{theirs}", "--fields", PAIR)
    first, second, third = body["examples"][0]["renders"]
    assert first["template"] == "mine/a" and first["input"] == "It rains./It is wet."
    assert (second["input"], second["output"], second["keeps_task"]) == ("It rains.", "It is wet.", False)
    assert third["dropped"]["reason"] == "template_error" and "__class__" in third["dropped"]["detail"]


def test_a_template_that_changes_the_task_is_previewed_and_says_so(
    capsys: Captured, small_data: Path
) -> None:
    file = small_data / "data/promptsource/templates/ferry_boolq/templates.yaml"
    text = file.read_text(encoding="utf-8")
    assert "original_task: true" in text
    file.write_text(text.replace("original_task: true", "original_task: false"), encoding="utf-8")
    call(capsys, "curate", "recipe.yaml", "--run", "run", "--quiet", "--workers", "1")
    name = FinishedRun(Path("run")).rows("curate", "templates")[0]["name"]
    made = preview(capsys, name, "--run", "run")["examples"][0]["renders"][0]
    assert made["keeps_task"] is False and made["why"] and made["input"]
    code, out, _ = call(capsys, "templates", "render", name, "--run", "run")
    assert code == 0 and "takes no part: upstream says" in out


def test_drops_say_why(capsys: Captured) -> None:
    made = preview(capsys, "keywords/pair-1", "--fields", '{"text_a": "x"}')["examples"][0]["renders"][0]
    assert made["dropped"]["reason"] == "unlabelled" and "references" in made["dropped"]["detail"]
    record = '{"fields": {"text_a": "x"}, "references": ["y"]}'
    code, out, _ = call(capsys, "templates", "render", "keywords/pair-1", "--fields", record)
    assert code == 0 and "dropped  render error: UndefinedError" in out


def test_the_preview_is_printed_with_what_carries_loss(capsys: Captured) -> None:
    code, out, _ = call(capsys, "templates", "render", "keywords/pair-1,keywords/pair-2", "--fields", PAIR)
    assert code == 0 and out.count("[[ yes]]") == out.count("[[{eos}]]") == 2
    assert "output, trained" in out and "yes | no" in out and "given#0" in out


def test_columns_stand_side_by_side_where_there_is_room(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = preview(capsys, "keywords/pair-1,keywords/pair-2", "--fields", PAIR)
    both = {}
    for width in (80, 160):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        templates_preview.print_preview(body)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        assert max(map(len, lines)) <= width
        both[width] = any("keywords/pair-1" in line and "keywords/pair-2" in line for line in lines)
    assert both == {80: False, 160: True}


def test_control_characters_of_a_record_are_shown_as_signs(capsys: Captured) -> None:
    record = json.dumps({"fields": {"text_a": "\x1b[2J", "text_b": "\r"}, "references": ["\x07"]})
    code, out, _ = call(capsys, "templates", "render", "keywords/pair-1", "--fields", record)
    assert code == 0 and not {"\x1b", "\r", "\x07"} & set(out)


def test_records_have_to_come_from_somewhere(capsys: Captured) -> None:
    assert "--run RUN or --fields" in refused(capsys, "keywords/pair-1")


def test_templates_of_a_run_take_given_fields(capsys: Captured, small_run: Path) -> None:
    row = FinishedRun(small_run / "run").rows("curate", "templates")[0]
    fields = preview(capsys, row["template"], "--run", "run", "-n", "1")["examples"][0]["fields"]
    fields = {name: f"{value} barley" if isinstance(value, str) else value for name, value in fields.items()}
    body = preview(capsys, row["template"], "--run", "run", "--fields", json.dumps(fields))
    (example,) = body["examples"]
    assert example["example"] == "given#0" and "barley" in example["renders"][0]["input"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keywords/pear-1",), "did you mean 'keywords/pair-1'"),
        (("gone.yaml",), "gone.yaml is no file"),
        (("keywords/pair-1", "--task", "a/b"), "--task names records of a run"),
        (("keywords/pair-1", "--example", "a/b#1"), "--example names records of a run"),
        (("keywords/pair-1", "--format", "tulo"), "did you mean 'tulu'"),
    ],
)
def test_wrong_names_are_refused(capsys: Captured, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(capsys, *arguments, "--fields", PAIR)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("{", "not JSON"),
        ("gone.json", "is no file"),
        ('{"fields": {}, "references": "yes"}', "references: found 'yes'; expected a list of texts"),
        ('{"fields": {}, "options": [1]}', "options"),
        ('{"fields": {}, "definition": 7}', "definition: found 7; expected text"),
    ],
)
def test_fields_that_are_no_record_are_refused(capsys: Captured, fields: str, says: str) -> None:
    assert says in refused(capsys, "keywords/pair-1", "--fields", fields)


def test_a_json_file_that_holds_no_object_is_refused(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    assert "expected an object" in refused(capsys, "keywords/pair-1", "--fields", str(tmp_path / "list.json"))


def test_records_that_are_not_in_the_run_are_refused(capsys: Captured, small_run: Path) -> None:
    assert "no task matches 't5/pier_rtx'" in refused(
        capsys, "keywords/pair-1", "--run", "run", "--task", "t5/pier_rtx"
    )
    assert "no example 't5/pier_rte#x'" in refused(
        capsys, "keywords/pair-1", "--run", "run", "--example", "t5/pier_rte#x"
    )
    assert "no task of run fits" in refused(capsys, "document/plain", "--run", "run")
    assert "nowhere" in refused(capsys, "keywords/pair-1", "--run", "nowhere")
