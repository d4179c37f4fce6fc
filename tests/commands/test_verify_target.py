"""`taskmill verify` of all that it can be given: a run, a published folder, its manifest, a repository of the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import published_run
import pytest
from hub_server import Repository, serve
from running import call

from taskmill import hub_client
from taskmill.commands.publishing.targets import open_target
from taskmill.curation.places import hub as places
from taskmill.errors import UsageError

harbour = published_run.harbour
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def verify(capsys: pytest.CaptureFixture[str], target: object) -> tuple[int, dict[str, Any]]:
    code, out, err = call(capsys, "verify", str(target), "--json")
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return code, found


@pytest.fixture
def run(harbour: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(harbour / "run", tmp_path / "run"))


@pytest.fixture
def folder(harbour: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(harbour / "published", tmp_path / "published"))


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, run)
    assert (code, found["problems"], found["run"]) == (0, [], str(run))
    assert found.keys() == {"files", "problems", "run"}
    (run / "splits/members.parquet").write_bytes(b"PAR1")
    code, found = verify(capsys, run)
    assert code == 1 and "splits/members.parquet: bytes differ" in found["problems"][0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda text: text.replace("keep", "drop_train_task"),
            "not the decisions that the split was made with",
        ),
        (lambda text: text.replace("keep", "kep"), "decisions.csv:2: action: unknown 'kep'"),
        (lambda text: None, "missing; the split was made with the decisions in it"),
        (lambda text: text.replace(",,,,", ",,ann,,"), ""),
    ],
    ids=["other", "malformed", "missing", "notes"],
)
def test_the_decisions_of_a_run(
    run: Path, capsys: pytest.CaptureFixture[str], change: Any, expected: str
) -> None:
    path = run / "decisions.csv"
    text = change(path.read_text())
    path.unlink() if text is None else path.write_text(text)
    code, found = verify(capsys, run)
    assert code == (1 if expected else 0)
    assert [expected in problem for problem in found["problems"]] == [True] * bool(expected), found


def test_the_recipe_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "recipe.json").write_text("{}")
    code, found = verify(capsys, run)
    assert code == 1 and "recipe.json is not the resolved recipe of a run" in found["problems"][0]


@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_a_published_folder(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, folder / name)
    assert (code, found["problems"], found["target"]) == (0, [], str(folder / name))
    path = folder / "recipe/words/harbour.yaml"
    path.write_text(path.read_text() + "# more\n")
    (folder / "ids/train/train.parquet").unlink()
    code, found = verify(capsys, folder / name)
    assert code == 1 and len(found["problems"]) == 2
    assert any("recipe/words/harbour.yaml: " in line for line in found["problems"])
    assert any("ids/train/train.parquet: missing" in line for line in found["problems"])
    (folder / "manifest.json").write_text("{}")
    code, found = verify(capsys, folder / name)
    assert code == 1 and "manifest.json is not the manifest of a published benchmark" in found["problems"][0]


def test_a_published_folder_without_its_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "manifest.json").unlink()
    code, _, err = call(capsys, "verify", str(folder))
    assert code == 2 and "is no published benchmark: there is no manifest.json" in err


def test_a_repository(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        listed = {**files, "README.md": b"# Harbour\n", ".gitattributes": b"*\n"}
        hub.repositories["ann/harbour"] = Repository(COMMIT, listed, branch="main")
        code, found = verify(capsys, "ann/harbour")
        assert (code, found["problems"], found["commit"]) == (0, [], COMMIT)
        kept = places.snapshot("ann/harbour", COMMIT)
        assert {p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file()} == {
            *files,
            "README.md",
        }
        path = kept / "tables/tasks.parquet"
        path.write_bytes(bytes(byte ^ (place == 99) for place, byte in enumerate(path.read_bytes())))
        code, found = verify(capsys, f"ann/harbour@{COMMIT}")
        assert code == 1 and "tables/tasks.parquet" in found["problems"][0]
        asked = len(hub.requests)
        shutil.copytree(folder, tmp_path / "ann/harbour")
        assert verify(capsys, "ann/harbour")[1]["target"] == "ann/harbour"
        assert len(hub.requests) == asked, "what is here wins, and nothing is asked"


def test_what_is_none_of_these(harbour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(harbour)
    for target, expected in (
        ("publishd", "there is no publishd - did you mean 'published'"),
        ("recipe.yaml", "no manifest of a published benchmark"),
        ("a/b/c", "there is no a/b/c"),
        ("ann/harbour@", "expected a run"),
    ):
        with pytest.raises(UsageError, match=expected):
            open_target(target)
    assert open_target("run").kind == "run" and open_target("published").kind == "published"
