"""`taskmill.api`: publishing, checking, rebuilding and comparing return the objects that the commands print with --json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import published_run
import pytest
from published_files import hub_for
from running import call

from taskmill import api
from taskmill.errors import UsageError

harbour = published_run.harbour


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    _, out, err = call(capsys, *map(str, arguments), "--json")
    assert len(out.splitlines()) == 1, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_each_returns_what_its_command_prints(
    harbour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder, again = harbour / "run", tmp_path / "v1", tmp_path / "again"
    made = api.export_benchmark(run, folder)
    assert made == printed(capsys, "export", "benchmark", run, folder)
    assert (
        api.verify(folder) == printed(capsys, "verify", folder) and api.verify(str(folder))["problems"] == []
    )
    rebuilt = api.rebuild(folder, again, harbour / "data", 1, tmp_path / "texts")
    assert rebuilt["same"] and rebuilt["root"] == made["root"]
    options = ("--run", again, "--data-root", harbour / "data", "--hydrate", tmp_path / "texts")
    assert rebuilt == printed(capsys, "rebuild", folder, *options)
    assert api.diff(folder, again) == printed(capsys, "diff", folder, again)
    planned = api.publish(again, "ann/harbour", tag="v1", dry_run=True)
    assert planned == printed(capsys, "publish", again, "ann/harbour", "--tag", "v1", "--dry-run")
    assert planned["root"] == made["root"]
    assert capsys.readouterr().out == ""
    (folder / "ids/train/train.parquet").write_bytes(b"")
    problems = api.verify(folder)
    assert problems == printed(capsys, "verify", folder) and problems["problems"]
    with pytest.raises(UsageError, match="is no export of taskmill"):
        api.export_benchmark(run, tmp_path)


def test_publish_sends_it(harbour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with hub_for(tmp_path, monkeypatch) as hub:
        sent = api.publish(harbour / "run", "ann/harbour", tag="v1")
        assert hub.repositories["ann/harbour"].tags == {"v1": sent["commit"]}
        assert api.diff("ann/harbour@v1", harbour / "run")["same"]
        assert api.publish(harbour / "run", "ann/harbour", tag="v1")["num_commits"] == 0
