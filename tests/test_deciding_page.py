"""docs/deciding.md: its file is written, its commands run, and what they print and return is what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page import work_through

from taskmill.recipe_check import check


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/deciding.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (1, 6, 6)
    assert page.count("<!-- ") == 13


def test_the_rules_on_the_page_are_a_recipe(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/deciding.md").read_text(encoding="utf-8")
    (rules,) = re.findall(r"```yaml\n(split:\n.*?)```", page, re.DOTALL)
    text = f"name: page\nsources: [{{reader: documents}}]\n{rules}"
    recipe = check(text, tmp_path / "page.yaml", (), tmp_path).recipe
    assert [rule.action for rule in recipe.split.rules][:2] == ["drop_train_task", "drop_train_task"]
