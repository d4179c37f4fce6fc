"""docs/trace.md: its commands print what it shows, and its tables name what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from page import work_through
from running import ROOT

from taskmill.commands.tracing.answer import VERDICTS
from taskmill.commands.tracing.output import _SAYS
from taskmill.commands.tracing.reach import STATES

PAGE = (ROOT / "docs" / "trace.md").read_text(encoding="utf-8")


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recipes", "own_data"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "examples" / name)
    monkeypatch.chdir(tmp_path)
    assert work_through(PAGE, tmp_path, capsys) == (0, 3, 3)


def test_the_tables_of_the_page_are_whole() -> None:
    rows = re.findall(r"^\| ([^|`]+) \| `(\w+)` \|", PAGE, re.MULTILINE)[1:]
    assert rows == [(_SAYS[name][0], name) for name in VERDICTS]
    assert all(f"`{state}`" in PAGE for state in STATES)
