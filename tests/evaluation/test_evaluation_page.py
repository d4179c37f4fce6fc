"""docs/evaluation.md: its commands work, its recipes load, its tables name settings that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from page import work_through
from running import ROOT

from taskmill import recipe_reference
from taskmill.recipe_files import load

PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recipes", "own_data"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "examples" / name)
    monkeypatch.chdir(tmp_path)
    assert work_through(PAGE, tmp_path, capsys) == (0, 5, 3)


def test_the_recipes_on_the_page_load(tmp_path: Path) -> None:
    sections = re.findall(r"<!-- evaluate -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(sections) == 3
    (tmp_path / "judging.py").write_text("def overlap(prediction):\n    return 1.0\n")
    for section in sections:
        recipe = {"name": "page", "sources": [{"reader": "flan", "path": "flan"}], **yaml.safe_load(section)}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        load(tmp_path / "recipe.yaml")


def test_every_setting_on_the_page_is_one() -> None:
    known = {key for key, *_ in recipe_reference.describe()}
    sections = {key.rpartition(".")[0].removesuffix("[]") for key in known}
    named = set(re.findall(r"`((?:evaluate|render|train)(?:\.[a-z_]+)+)`", PAGE))
    assert len(named) > 10 and named <= known | sections, named - known - sections


def test_the_table_of_normalisations_is_whole() -> None:
    kinds = next(kind for key, kind, _ in recipe_reference.describe() if key == "evaluate.normalisation")
    rows = re.findall(r"^\| `(\w+)` \| the sum", PAGE, re.MULTILINE)
    assert rows == kinds.split(" | ")
