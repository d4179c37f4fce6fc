"""docs/reviewing.md: its commands run, and on the page that it serves every pair is decided as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page import work_through
from review_server import Client, serve

from taskmill.records import ACTIONS


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs/reviewing.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before, command, after = re.split(r"<!-- review -->\n```sh\ntaskmill (.*)\n```", page)
    assert work_through(before, tmp_path, capsys) == (0, 2, 1)
    _, run, *options = command.split(" ")
    with serve(Path(run), *options) as server:
        client = Client(server)
        client.enter()
        fields = {"all": "1", "waiting_only": "1", "view": "state=all", "action": "as_suggested"}
        assert "<small>suggested: drop the train task - looks like one data" in client.get("/").text
        assert "As suggested: 6 pairs" in client.post("/preview", **fields).text
        assert client.post("/apply", **fields).code == 200
        assert "The split is written" in client.post("/write").text
        assert client.post("/end").code == 200
        server.wait()
    (ended,) = re.findall(r"<!-- ended -->\n```text\n(.*?)```", after, re.DOTALL)
    assert server.ended["code"] == 0 and ended == server.ended["out"]
    assert work_through(after, tmp_path, capsys) == (0, 2, 2)


def test_the_page_names_what_the_page_has(repository: Path) -> None:
    page = (repository / "docs/reviewing.md").read_text(encoding="utf-8")
    folder = repository / "taskmill/commands/review/page"
    shown = (folder / "parts.html.j2").read_text(encoding="utf-8")
    for label in re.findall(r"\*([A-Z][A-Za-z, ]+)\*", re.sub(r"\*\*.*?\*\*", "", page)):
        assert label in shown, label
    keys = (folder / "review.js").read_text(encoding="utf-8")
    for key in re.findall(r"^\| .*? \|", page, re.MULTILINE):
        for name in re.findall(r"`([a-z/?])`", key):
            assert re.search(rf'[ "]{re.escape(name)}"?: ', keys), name
    assert len(ACTIONS) == 5
