"""A Hub that is none, that lies, or is cut off; processes that are killed: nothing wrong is kept or shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_pets import COMMIT, LARGE, NAME, WHOLE, kept, serve_pets
from hub_server import Fault, HubServer
from running import ROOT

from taskmill import hub_client, recipe_files
from taskmill.cache import cache_folder
from taskmill.curation.places import hub
from taskmill.curation.places.locating import locate
from taskmill.errors import DataError, RecipeError, StorageError, TaskmillError
from taskmill.settings import Settings

pytest.importorskip("huggingface_hub")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_pets(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize(
    "body",
    [b"<html>log in</html>", b"{}", b"[1]", b"[{}]", b"null", b'[{"type": "file"}]', b"\xff", b"[" * 9999],
    ids=["html", "object", "numbers", "empty", "null", "bare", "bytes", "deep"],
)
def test_an_answer_that_is_no_listing(server: HubServer, body: bytes) -> None:
    server.faults = [Fault("body", f"tree/{COMMIT}", times=99, body=body)]
    with pytest.raises(TaskmillError, match="someone/pets") as stopped:
        hub.fetch(NAME, COMMIT, "data")
    assert len(str(stopped.value)) < 1000
    server.faults = []
    hub.fetch(NAME, COMMIT, "data")
    assert kept() == WHOLE


@pytest.mark.parametrize(
    "name", ["a\nb.txt", "/etc/x.txt", "a\\b.txt", "x" * 300 + ".txt", "\ud800.txt", "C:/x.txt"]
)
def test_listed_names_that_no_file_may_have(server: HubServer, name: str) -> None:
    server.repositories[NAME].listed = {"other/x.txt": {"path": name}}
    with pytest.raises(DataError, match="someone/pets lists a file with a name that"):
        hub.fetch(NAME, COMMIT, "data")
    assert not [p for p in cache_folder().rglob("*") if p.is_file() and p.name != "lock"]


@pytest.mark.parametrize("name", ["../..", "../x", "x/..", "./x", "-a/b"])
def test_repositories_whose_names_lead_elsewhere(server: HubServer, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="owner/name@COMMIT"):
        hub.parse_pinned(f"{name}@{COMMIT}")
    (tmp_path / "r.yaml").write_text(f"name: x\nsources:\n  - {{reader: table, hub: '{name}@{COMMIT}'}}\n")
    with pytest.raises(RecipeError, match="owner/name@COMMIT"):
        recipe_files.load(tmp_path / "r.yaml", ())
    place = f"{{reader: promptsource, path: p, options: {{data: {{a/b: {{hub: '{name}@{COMMIT}'}}}}}}}}"
    (tmp_path / "r.yaml").write_text(f"name: x\nsources: [{place}]\n")
    settings = Settings(recipe_files.load(tmp_path / "r.yaml", ()), ("sources", "curate"))
    with pytest.raises(RecipeError, match="owner/name@COMMIT"):
        locate(settings.sources[0], settings)


def test_a_pointer_in_the_place_of_a_large_file(server: HubServer) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    server.faults = [Fault("body", "large.jsonl", times=99, body=pointer)]
    with pytest.raises(TaskmillError, match=r"large\.jsonl"):
        hub.fetch(NAME, COMMIT, "data")
    assert "data/large.jsonl" not in kept()


def test_names_of_code_are_the_last_ending_only() -> None:
    read = [
        "humaneval.js.jsonl",
        "x.py.jsonl.gz",
        "a.tar.gz",
        "train-00000-of-00001.parquet",
        "LICENSE",
        "x.bin.csv",
    ]
    never = [
        "x.py",
        "x.pkl",
        "x.pkl.gz",
        "model.bin",
        "a/.hidden/x.txt",
        ".gitattributes",
        "X.PY",
        "x.npz",
        "y.pt.xz",
    ]
    assert [hub._is_data(name) for name in (*read, *never)] == [True] * len(read) + [False] * len(never)


def test_signatures_and_tokens_are_masked() -> None:
    text = "503 for 'https://u:p@cdn.example/x?X-Amz-Signature=abc&t=1' Authorization: Bearer abc.def hf_abc"
    shown = hub_client.plain(ValueError(text))
    assert not [secret for secret in ("Signature", "abc", "u:p") if secret in shown]


@pytest.mark.parametrize("endpoint", ["http://[::", "nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_none(server: HubServer, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(TaskmillError, match="HF_ENDPOINT"):
        hub.fetch(NAME, COMMIT, "data")


def test_a_disk_that_is_too_small(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
    with pytest.raises(StorageError, match=r"someone/pets is .* has 10 left.*TASKMILL_CACHE"):
        hub.fetch(NAME, COMMIT, "data")


def test_offline_mode(server: HubServer) -> None:
    code = (
        "from taskmill.curation.places import hub\nfrom taskmill.errors import StorageError\n"
        f"try:\n    hub.fetch('{NAME}', '{COMMIT}', 'data')\n"
        "except StorageError as error:\n    print(error)\n"
    )
    for shown in ("is not in the cache", ""):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and shown in done.stdout and bool(done.stdout) == bool(shown), done.stderr
        hub.fetch(NAME, COMMIT, "data")


def test_two_processes_and_one_that_is_killed(server: HubServer) -> None:
    files = {f"many/{i:03}.jsonl": LARGE + bytes([i]) for i in range(60)}
    server.repositories[NAME].files.update(files)
    code = f"from taskmill.curation.places import hub\nhub.fetch('{NAME}', '{COMMIT}', 'many')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)

    killed = start()
    while not [request for request in server.requests if request.startswith("GET") and "01" in request[-12:]]:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    before = kept()
    assert len(before) < 60 and all(files[name] == content for name, content in before.items())
    both = [start(), start()]
    assert [process.wait() for process in both] == [0, 0]
    assert {name: content for name, content in kept().items() if name.startswith("many/")} == files
    fetched = [request for request in server.requests if request.startswith("GET") and "/many/" in request]
    assert len(fetched) <= 61 + 1, "no file was fetched twice, but the one that was being fetched"


def test_a_cache_behind_a_link(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "link"))
    hub.fetch(NAME, COMMIT, "data")
    assert kept() == WHOLE
