"""docs/publishing.md: its commands run and print what it shows, and it names every file and field there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from page import work_through

from taskmill.records import PUBLISHED
from taskmill.splits.publishing.published import TABLE_NAMES


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/publishing.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (0, 6, 6)
    assert page.count("<!-- ") == 14
    body = json.loads((tmp_path / "v1/manifest.json").read_text(encoding="utf-8"))
    manifest = page.split("### The manifest")[1].split("## Verify")[0]
    assert set(re.findall(r"`([a-z_]+)`", manifest)) >= body.keys()
    for path in tmp_path.glob("v1/[!.]*"):
        assert f"`{path.name}" in page, path
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (code,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"<!-- printed -->\n```text\n(.*?)```", page, re.DOTALL)
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out == shown


def test_the_page_names_every_table_and_column_of_ids(repository: Path) -> None:
    page = (repository / "docs/publishing.md").read_text(encoding="utf-8")
    for name in TABLE_NAMES:
        assert f"`tables/{name}.parquet`" in page
    rows = page.split("The rows of an example")[1].split("### The manifest")[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in rows.splitlines() if "|" in line))
    assert sorted(named) == sorted(PUBLISHED["ids"].names)
