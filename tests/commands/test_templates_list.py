"""`templates list` and `templates show`: the library alone, a recipe, and runs of which more or less is finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from running import call

from taskmill.commands import templates_known
from taskmill.commands.finished import FinishedRun
from taskmill.templates.rendering.library import load_library

Captured = pytest.CaptureFixture[str]


def listed(capsys: Captured, *arguments: str) -> Any:
    """Return what `templates list --json` prints."""
    code, out, err = call(capsys, "templates", "list", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def shown(capsys: Captured, *arguments: str) -> Any:
    """Return what `templates show --json` prints."""
    code, out, err = call(capsys, "templates", "show", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_library_is_listed_whole(capsys: Captured) -> None:
    body = listed(capsys)
    assert [row["id"] for row in body["library"]] == list(load_library())
    assert body["upstream"] == body["user"] == [] and body["render"] is False
    code, out, _ = call(capsys, "templates", "list")
    assert code == 0 and all(name in out for name in load_library())


def test_style_and_shape_leave_what_has_them(capsys: Captured) -> None:
    body = listed(capsys, "--style", "keywords", "--shape", "pair")
    assert {row["shape"] for row in body["library"]} == {"pair"} and len(body["library"]) >= 2
    assert all(row["reads"] == ["text_a", "text_b"] and row["weight"] == 1 for row in body["library"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--style", "keyword"), "did you mean 'keywords'"),
        (("--shape", "pear"), "did you mean 'pair'"),
        (("--task", "a/b"), "--task needs a run"),
        (("nowhere",), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "templates", "list", *arguments)
    assert code == 2 and not out and says in err


def test_a_recipe_without_a_run_says_what_is_missing(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "templates", "list", "demo", "--style", "task")
    assert code == 0 and "task/definition" in out and "`taskmill curate demo`" in out
    code, _, err = call(capsys, "templates", "list", "demo", "--task", "*")
    assert code == 2 and "`taskmill curate demo`" in err


def test_templates_of_tasks_come_with_what_render_made_of_them(capsys: Captured, small_run: Path) -> None:
    body = listed(capsys, "run")
    run = FinishedRun(small_run / "run")
    assert body["render"] and len(body["upstream"]) == len(run.rows("curate", "templates")) > 0
    prompts = run.rows("render", "prompts", ["task", "template"])
    for row in body["upstream"]:
        mine = [p for p in prompts if (p["task"], p["template"]) == (row["task"], row["id"])]
        assert row["prompts"] == len(mine)
    everything = [*body["library"], *body["upstream"]]
    of_library = sum(1 for p in prompts if p["template"] in load_library())
    assert sum(row["prompts"] for row in body["library"]) == of_library
    dropped = [d for d in run.rows("render", "dropped") if d["template"] is not None]
    known = {row["id"] for row in everything}
    wanted = sum(1 for d in dropped if d["template"] in known)
    assert sum(sum(row["dropped"].values()) for row in everything) == wanted


def test_a_task_leaves_what_renders_it(capsys: Captured, small_run: Path) -> None:
    own = listed(capsys, "run", "--task", "promptsource/*")
    assert own["library"] == [] and {row["task"] for row in own["upstream"]} == {"promptsource/ferry_boolq"}
    shared = listed(capsys, "run", "--task", "t5/pier_rte")
    shapes = {row["shape"] for row in shared["library"]}
    assert shared["upstream"] == [] and len(shapes) == 1 and len(shared["library"]) >= 2
    code, _, err = call(capsys, "templates", "list", "run", "--task", "promptsourc/ferry_boolq")
    assert code == 2 and "did you mean 'promptsource/ferry_boolq'" in err


def test_a_run_of_which_curate_alone_is_finished_is_listed_without_prompts(
    capsys: Captured, small_run: Path
) -> None:
    for name in ("prompts", "splits", "overlaps", "mixture", "tokens", "model", "scores"):
        shutil.rmtree(small_run / "run" / name)
    body = listed(capsys, "run")
    assert body["render"] is False and body["upstream"] and "prompts" not in body["upstream"][0]
    (small_run / "run/tasks/manifest.json").unlink()
    code, _, err = call(capsys, "templates", "list", "run")
    assert code == 2 and "taskmill" in err


def test_a_template_of_the_library_is_shown(capsys: Captured, small_run: Path) -> None:
    body = shown(capsys, "keywords/pair-1")
    assert body["body"] == load_library()["keywords/pair-1"].body and len(body["digest"]) == 64
    assert "serves" not in body
    assert shown(capsys, "keywords/pair-1", "run")["digest"] == body["digest"]
    served = {name for t in load_library() for name in shown(capsys, t, "run")["serves"]}
    assert "t5/pier_rte" in served and "promptsource/ferry_boolq" not in served


def test_a_template_of_a_task_is_shown_by_id_beginning_or_name(capsys: Captured, small_run: Path) -> None:
    row = FinishedRun(small_run / "run").rows("curate", "templates")[0]
    for name in (row["template"], row["template"][:8], row["name"]):
        body = shown(capsys, name, "run")
        assert (body["id"], body["body"], body["choices"]) == (row["template"], row["body"], row["choices"])
    code, out, _ = call(capsys, "templates", "show", row["template"][:8], "run")
    assert code == 0 and row["body"].splitlines()[0] in out and "takes part" in out and row["task"] in out


def test_a_template_that_is_not_there_is_named_with_the_nearest(capsys: Captured, small_run: Path) -> None:
    code, out, err = call(capsys, "templates", "show", "keywords/pear-1")
    assert code == 2 and not out and "did you mean 'keywords/pair-1'" in err
    code, _, err = call(capsys, "templates", "show", "keywords/pa")
    assert code == 2 and "several templates begin with 'keywords/pa'" in err


def test_a_digest_covers_all_that_a_template_says(capsys: Captured) -> None:
    digests = {templates_known.library_row(template)["digest"] for template in load_library().values()}
    assert len(digests) == len(load_library())


def test_templates_of_the_recipe_are_listed_as_the_user_s(capsys: Captured, small_data: Path) -> None:
    (small_data / "mine.yaml").write_text(
        "- {id: short, style: keywords, shape: pair, reads: [text_a, text_b], body: '{{ text_a }} {{ text_b }}'}\n"
    )
    recipe = (small_data / "recipe.yaml").read_text()
    assert "render: {" in recipe
    (small_data / "recipe.yaml").write_text(recipe.replace("render: {", "render: {templates: [mine.yaml], "))
    assert [row["id"] for row in listed(capsys, "recipe.yaml")["user"]] == ["mine/short"]
    code, out, _ = call(capsys, "templates", "list", "recipe.yaml")
    assert code == 0 and "render.templates" in out and "mine/short" in out
    assert shown(capsys, "mine/short", "recipe.yaml")["shape"] == "pair"
