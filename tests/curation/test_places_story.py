"""From a Hub repository and from archives to a verified run, through the command line, as a user would go."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, Repository, serve
from native_files import lines, write
from running import taskmill

from taskmill.artifact import read_manifest

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
CARD = b"---\nlicense: cc-by-sa-4.0\n---\n# Errands\n"
ERRANDS = [
    {"instruction": f"Name errand number {i}.", "input": "", "output": f"Fetch {i} apples."}
    for i in range(12)
]
HUB_RECIPE = f"""
name: errands
sources:
  - {{reader: alpaca, hub: someone/errands@{COMMIT}, path: data, options: {{task: errands}}}}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_TOKEN", "hf_notToBeSeen")
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def run(folder: Path, *arguments: str) -> str:
    """Run a command that has to succeed; return what it printed, once no token is in it."""
    done = taskmill(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "notToBeSeen" not in done.stdout + done.stderr
    return done.stdout


def test_a_hub_source_from_recipe_to_verify(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = lines(*ERRANDS, {"instruction": "No answer.", "input": "", "output": ""}).encode()
    files = {"README.md": CARD, "data/errands.jsonl": content, "errands.py": b"raise SystemExit(9)\n"}
    server.repositories["someone/errands"] = Repository(COMMIT, files)
    write(tmp_path, {"recipe.yaml": HUB_RECIPE})
    assert "would first fetch someone/errands@" in run(tmp_path, "run", "recipe.yaml", "--dry-run")
    assert not server.requests and not (tmp_path / "runs").exists()
    run(tmp_path, "curate", "recipe.yaml")
    (task,) = json.loads(run(tmp_path, "tasks", "runs/errands", "--json"))["tasks"]
    assert (task["license"], task["repository"], task["revision"]) == (
        "CC-BY-SA-4.0",
        "someone/errands",
        COMMIT,
    )
    assert "CC-BY-SA-4.0" in run(tmp_path, "licenses", "runs/errands")
    manifest = read_manifest(tmp_path / "runs/errands/tasks")
    assert manifest is not None
    (upstream,) = manifest.body["upstream"]
    assert (upstream["repository"], upstream["revision"]) == ("someone/errands", COMMIT)
    (file,) = upstream["files"]
    assert (file["name"], file["bytes"]) == ("data/errands.jsonl", len(content))
    assert (file["sha256"], file["records"]) == (hashlib.sha256(content).hexdigest(), task["num_read"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "up to date" in run(tmp_path, "curate", "recipe.yaml")
    run(tmp_path, "curate", "recipe.yaml", "--run", "again")
    again = read_manifest(tmp_path / "again/tasks")
    assert again is not None and again.root == manifest.root and again.body["upstream"] == [upstream]
    run(tmp_path, "verify", "runs/errands")
    everything = [p for top in ("runs", "again", "cache") for p in (tmp_path / top).rglob("*") if p.is_file()]
    assert not [p for p in everything if b"notToBeSeen" in p.read_bytes()]


def test_offline_without_a_cache_is_one_message(server: HubServer, tmp_path: Path) -> None:
    write(tmp_path, {"recipe.yaml": HUB_RECIPE})
    done = taskmill(
        "curate", "recipe.yaml", cwd=tmp_path, code="import os; os.environ['HF_HUB_OFFLINE'] = '1'"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "someone/errands" in done.stderr and "is not in the cache" in done.stderr


def tarred(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CORE = [
    {
        "instruction": f"Count the petals of flower {i}.",
        "instances": [
            {"instruction_with_input": "", "input": f"rose {i}", "constraints": "None.", "output": f"{i}"}
        ],
    }
    for i in range(5)
]
SUBJECT = "".join(f'"Which is {i}?",one,two,three,four,{"ABCD"[i % 4]}\n' for i in range(8))
MMLU = {
    f"data/{split}/gardening_{split}.csv": SUBJECT.replace("is", split).encode()
    for split in ("dev", "val", "test")
}
ARCHIVES = """
name: packed
data_root: data
sources:
  - {reader: unnatural_instructions, path: unnatural/core_data.zip}
  - {reader: mmlu, path: data.tar}
  - {reader: documents, path: texts.tar.gz/texts/deep}
curate: {taxonomy: [taxonomy.yaml]}
"""


def test_archives_as_they_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    texts = {
        f"texts/{name}.jsonl": lines({"text": f"A page on {name}."}).encode() for name in ("deep/a", "b")
    }
    packed: dict[str, Any] = {
        "data/unnatural/core_data.zip": zipped({"core_data.jsonl": lines(*CORE).encode()}),
        "data/data.tar": tarred(MMLU, "w"),
        "data/texts.tar.gz": tarred(texts, "w:gz"),
        "recipe.yaml": ARCHIVES,
        "taxonomy.yaml": "tasks: {'*/*': {category: Pretraining}}\n",
    }
    write(tmp_path, packed)
    run(tmp_path, "curate", "recipe.yaml")
    tasks = json.loads(run(tmp_path, "tasks", "runs/packed", "--json"))["tasks"]
    kept = {task["task"]: task["num_kept"] for task in tasks}
    assert kept == {"chat/core_data": 5, "evaluation/mmlu_gardening": 24, "documents/a": 1}
    manifest = read_manifest(tmp_path / "runs/packed/tasks")
    assert manifest is not None
    names = {file["name"]: file["sha256"] for source in manifest.body["upstream"] for file in source["files"]}
    assert {
        f"data.tar/{name}": hashlib.sha256(content).hexdigest() for name, content in MMLU.items()
    }.items() <= names.items()
    assert "unnatural/core_data.zip/core_data.jsonl" in names and "texts.tar.gz/texts/deep/a.jsonl" in names
    run(tmp_path, "verify", "runs/packed")
    for archive in ("data.tar", "unnatural/core_data.zip"):
        place = tmp_path / "data" / archive
        place.write_bytes(place.read_bytes()[: place.stat().st_size // 4])
        done = taskmill("curate", "recipe.yaml", "--run", "other", cwd=tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"{archive}" in done.stderr and "damaged archive" in done.stderr
        write(tmp_path, {f"data/{archive}": packed[f"data/{archive}"]})


def test_links_and_folders_beside_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    text = lines({"text": "A page."})
    other = lines({"text": "Another page."})
    write(tmp_path, {"disk/one/same.jsonl": text, "beside/two/same.jsonl": other, "project/data/x": ""})
    (tmp_path / "beside/pages.zip").write_bytes(
        zipped({"three/same.jsonl": lines({"text": "Third."}).encode()})
    )
    (tmp_path / "project/data/linked").symlink_to(tmp_path / "disk")
    recipe = """
name: linked
data_root: data
sources:
  - {reader: documents, path: linked/one, benchmark: a}
  - {reader: documents, path: ../../beside/two, benchmark: b}
  - {reader: documents, path: ../../beside/pages.zip/three, benchmark: c}
curate: {taxonomy: [taxonomy.yaml]}
"""
    taxonomy = "tasks: {'*/*': {category: Pretraining}}\n"
    write(tmp_path / "project", {"recipe.yaml": recipe, "taxonomy.yaml": taxonomy})
    run(tmp_path / "project", "curate", "recipe.yaml")
    manifest = read_manifest(tmp_path / "project/runs/linked/tasks")
    assert manifest is not None
    names = [file["name"] for source in manifest.body["upstream"] for file in source["files"]]
    assert names == ["linked/one/same.jsonl", "two/same.jsonl", "pages.zip/three/same.jsonl"]


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
    recipe = "name: x\nsources: [{reader: documents, path: texts}]\n"
    write(tmp_path, {"texts/page.txt": pointer, "recipe.yaml": recipe})
    done = taskmill("curate", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "texts/page.txt: a pointer of Git LFS, not the file itself. Run `git lfs pull`" in done.stderr


@pytest.mark.parametrize(
    "path", ["pages.7z", "pages.jsonl.zst", "pages.tar.zst", "pages.jsonl.XZ", "outer.zip/inner.zip"]
)
def test_what_has_to_be_unpacked_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    packed = zipped({"inner.zip": zipped({"page.txt": b"A page."})}) if "/" in path else b"\x28\xb5\x2f\xfd"
    recipe = f"name: x\nsources: [{{reader: documents, path: {path}}}]\n"
    write(tmp_path, {path.split("/")[0]: packed, "recipe.yaml": recipe})
    done = taskmill("curate", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 2 and path in done.stderr
    assert "unpack it, and let `path` name what comes out" in done.stderr
