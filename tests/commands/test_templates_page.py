"""docs/templates.md: its files are written, its commands run, and what they print is what it shows; its rules are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page import work_through
from running import ROOT

from taskmill.templates.linting.findings import RULES

PAGE = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert work_through(PAGE, tmp_path, capsys) == (2, 7, 6)
    assert PAGE.count("<!-- ") == 16  # that of the rules too


def test_the_rules_on_the_page_are_those_of_the_code() -> None:
    (table,) = re.findall(r"<!-- rules -->\n((?:\|.*\n)+)", PAGE)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    cells = [tuple(cell.strip().replace("\\|", "|") for cell in row) for row in rows]
    assert cells == [(f"`{name}`", rule.severity, rule.about) for name, rule in RULES.items()]
