"""docs/training-speed.md: its commands do what it shows, and it names every implementation there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page import work_through

from taskmill.training.updating.attention import IMPLEMENTATIONS


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/training-speed.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (0, 3, 3)
    assert page.count("<!-- ") == 6
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == ["auto", *IMPLEMENTATIONS]
