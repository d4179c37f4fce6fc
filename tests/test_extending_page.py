"""docs/extending.md: its files are written, its commands run, and what they print and return is what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from page import work_through


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/extending.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (3, 4, 3)
    assert page.count("<!-- ") == 10
