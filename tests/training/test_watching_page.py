"""docs/watching-training.md: its commands and its Python run, and its sample lines have the fields of real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from page import work_through
from running import json_lines

from taskmill.records import LEVELS


def test_the_page_is_what_works(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("tensorboard", "trackio"):
        pytest.importorskip(package, reason="the extra `track` is not installed")
    page = (repository / "docs/watching-training.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert work_through(page, tmp_path, capsys) == (0, 3, 2)
    assert page.count("<!-- ") == 5

    names: dict[str, object] = {}
    for part in re.finditer(r"```python\n(.*?)```\n\nprints `(.*?)`", page, re.DOTALL):
        exec(part[1], names)
        assert capsys.readouterr().out.strip() == part[2]
    assert page.count("```python") == 2

    (sample,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    real = json_lines(Path("runs/watched/model/metrics.jsonl").read_text())
    for shown in json_lines(sample):
        like = next(line for line in real if ("validation" in line) == ("validation" in shown))
        assert list(shown) == list(like)
        assert list(shown.get("validation", LEVELS)) == list(LEVELS)
    listed = set(
        re.findall(
            r"^\| `(\w+)` \|", page.partition("| field | what |")[2].partition("\n\n")[0], re.MULTILINE
        )
    )
    assert listed == {name for line in real for name in line}

    assert all(set(line["validation"]) == set(LEVELS) for line in real if "validation" in line)
    assert "validation, held out" in Path("runs/watched/report.html").read_text(encoding="utf-8")
    assert {p.name for p in Path("runs/watched/tracking").iterdir()} == {"tensorboard", "trackio"}
    files = json.loads(Path("runs/watched/model/manifest.json").read_text())["shards"][0]["files"]
    assert not [f for f in files if "track" in f["path"]]
