"""docs/mixture.md: commands print what it shows, its recipes are right, its Python works, its columns are the lock's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from page import work_through
from running import ROOT

from taskmill import api
from taskmill.commands.export_mixture import COLUMNS, TEXT_COLUMNS
from taskmill.recipe_files import find

PAGE = (ROOT / "docs" / "mixture.md").read_text(encoding="utf-8")


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert work_through(PAGE, tmp_path, capsys) == (0, 5, 5)
    script = re.findall(r"```python\n(from taskmill.*?)```", PAGE, re.DOTALL)
    assert len(script) == 1
    exec(script[0], {"Path": Path})
    printed = capsys.readouterr().out.splitlines()
    rows = list(api.Run(tmp_path / "runs/mixed").mixture(1_000, 1_002))
    assert printed == [f"{position} {row['task']} {len(row['text'])}" for position, row in rows]


def test_the_recipes_on_the_page_are_right(tmp_path: Path) -> None:
    sections = re.findall(r"<!-- mix -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(sections) == 4
    for section in sections:
        recipe = {"name": "page", "sources": [{"reader": "flan", "path": "flan"}], **yaml.safe_load(section)}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert find(str(tmp_path / "recipe.yaml"), ()).recipe.mix.mode in ("shares", "concatenation")


def test_the_columns_on_the_page_are_those_of_the_lock() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE.partition("## The mixture lock")[2], re.MULTILINE)
    names = [name for row in rows[:7] for name in re.findall(r"`(\w+)`", row)]
    assert sorted(names) == sorted(("position", "part", *COLUMNS, *TEXT_COLUMNS))
