"""docs/tutorial.md: its files are written, its commands run against a Hub on this machine, and print what it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, serve
from page import work_through

from taskmill.commands.publishing.diff import view_of_run

pytest.importorskip("datasets")
HUB = "https://huggingface.co"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub on this machine, for this process and the ones that it starts."""
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_anybody")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's use of httpx
def test_the_page_is_what_works(
    repository: Path,
    tmp_path: Path,
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "harbour"
    shutil.copytree(repository / "examples/own_data", folder)
    monkeypatch.chdir(folder)
    page = (repository / "docs/tutorial.md").read_text(encoding="utf-8")
    start, end = page.split("## 6. Publish\n")
    assert work_through(start, folder, capsys) == (2, 5, 5)
    (root,) = set(
        re.findall(r"[0-9a-f]{64}", page)
    )  # whoever decides does so at another time, so it is another one
    mine = view_of_run(folder / "runs/harbour-bench").root
    end = end.replace(root, mine).replace(HUB, hub.url)
    assert work_through(end, folder, capsys) == (2, 8, 8)
    assert page.count("<!-- ") == 34
    repository_there = hub.repositories["ann/harbour-bench"]
    assert list(repository_there.tags) == ["v1", "v2"]
    body = json.loads(repository_there.files["manifest.json"])
    assert body["extends"] == {"name": "harbour-bench", "root": mine}
    codes = re.findall(r"<!-- python -->\n```python\n(.*?)```", page, re.DOTALL)
    shown = re.findall(r"<!-- printed -->\n```text\n(.*?)```", page, re.DOTALL)
    assert len(codes) == len(shown) == 2
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(codes)],
        env=dict(os.environ),
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "".join(shown), done.stderr
