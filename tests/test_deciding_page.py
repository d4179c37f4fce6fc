"""docs/deciding.md: its file is written, its commands run, and what they print and return is what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from running import call

from taskmill.recipe_check import check

PARTS = re.compile(
    r"<!-- (file: (?P<path>\S+)|run: (?P<code>\d)|output) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL
)


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/deciding.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown, kinds = "", list[str]()
    for part in PARTS.finditer(page):
        kinds.append(part[1].split(":")[0])
        if part["path"]:
            (tmp_path / part["path"]).write_text(part["text"], encoding="utf-8")
        elif part["code"]:
            for command in part["text"].strip().splitlines():
                program, *arguments = shlex.split(command)
                assert program == "taskmill"
                code, out, err = call(capsys, *arguments)
                shown = out + err
                assert code == int(part["code"]), shown
        else:
            for line in part["text"].strip().splitlines():
                assert line in shown, f"{line!r} is not in\n{shown}"
    assert (kinds.count("file"), kinds.count("run"), kinds.count("output")) == (1, 6, 6)
    assert page.count("<!-- ") == len(kinds)


def test_the_rules_on_the_page_are_a_recipe(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/deciding.md").read_text(encoding="utf-8")
    (rules,) = re.findall(r"```yaml\n(split:\n.*?)```", page, re.DOTALL)
    text = f"name: page\nsources: [{{reader: documents}}]\n{rules}"
    recipe = check(text, tmp_path / "page.yaml", (), tmp_path).recipe
    assert [rule.action for rule in recipe.split.rules][:2] == ["drop_train_task", "drop_train_task"]
