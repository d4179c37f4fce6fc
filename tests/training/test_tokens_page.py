"""The page on tokens: its recipe runs, its table of files and counts is what the stage writes."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from page import work_through
from running import ROOT

pytest.importorskip("tokenizers")

from taskmill.training.encoding.fitting import FitCounts

PAGE = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")


def test_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert work_through(PAGE, tmp_path, capsys) == (2, 1, 1)
    (folder,) = (tmp_path / "runs" / "talks" / "tokens").iterdir()
    listed = set(re.findall(r"^\| `([\w./]+)` \|", PAGE.partition("## Joint")[0], re.MULTILINE))
    written = {path.name for path in folder.iterdir()} - {"manifest.json", "shards"}
    assert listed - {"validation/", "tokenizer/"} == written - {"tokenizer"}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})
    positions = [line.split()[0] for line in shown.getvalue().splitlines()]
    info = json.loads((folder / "tokens.json").read_text())
    assert len(positions) == info["num_places"] == 8 and sorted(set(positions)) == ["0", "1", "2", "3"]
    for name in re.findall(r"`(num_\w+)`", PAGE):
        assert name in info


def test_every_kind_of_cut_is_on_the_page() -> None:
    section = PAGE.partition("## What is cut, and counted")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [field.name for field in fields(FitCounts)]
