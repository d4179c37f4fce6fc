"""docs/schemas.md: its commands run, and the prompts and tables that it shows are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from page import work_through

from taskmill.recipe import TkInstruct
from taskmill.templates.composing.schemas import DELIMITERS
from taskmill.templates.composing.tk_instruct import MODES


def test_the_prompts_on_the_page_are_rendered(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (repository / "docs/schemas.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (0, 5, 5)
    assert page.count("<!-- ") == 10


def test_the_delimiters_and_modes_on_the_page_are_the_code_s(repository: Path) -> None:
    page = (repository / "docs/schemas.md").read_text(encoding="utf-8")
    listed = re.search(r"one of eight \((.*?)\)", page, re.DOTALL)
    assert listed is not None
    assert tuple(d.replace("\\n", "\n") for d in re.findall(r"`(.*?)`", listed[1])) == DELIMITERS
    rows = page.partition("| mode | settings")[2].partition("\n\n")[0].splitlines()[2:]
    settings = [yaml.safe_load(row.split("|")[2].strip().strip("`") or "{}") for row in rows]
    assert [TkInstruct(**given) for given in settings] == list(MODES)
