"""The command `publish`: what it sends, what it says, what `load_dataset` then gives, and that a dry run asks nobody."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Fault, HubServer
from planted_run import make_planted
from published_files import TOKEN, assert_manifests_hold, contents, hub_for, there
from running import call, json_lines

from taskmill.commands.publishing.package import make_package
from taskmill.commands.publishing.publish import FOLDER
from taskmill.runs import RunLock
from taskmill.splits.publishing.published import MANIFEST, open_published
from taskmill.splits.publishing.sending import hub

pytest.importorskip("huggingface_hub")

NAME = "ann/planted"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to render."""
    return make_planted(tmp_path_factory.mktemp("planted"), "render")


@pytest.fixture
def run(planted: Path) -> Iterator[Path]:
    """The run, of which a test must leave nothing else."""
    before = listed(planted)
    yield planted
    assert listed(planted) - before <= {".lock"}
    logging.getLogger("taskmill").handlers.clear()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_for(tmp_path, monkeypatch) as running:
        yield running


def listed(run: Path) -> set[str]:
    return {p.relative_to(run).as_posix() for p in run.rglob("*")}


def test_publish_and_publish_again(
    server: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "publish", str(run), NAME, "--tag", "v1")
    assert code == 0, err
    made = make_package(run, tmp_path / "made", False, False, NAME)
    assert there(server, NAME) == contents(made)
    repository = server.repositories[NAME]
    assert out.splitlines() == [
        f"{server.url}/datasets/{NAME}",
        f"commit {repository.commit}, tag v1",
        f"root digest {made.root}",
        next(line for line in out.splitlines() if " files sent (" in line),
        "",
        "Anyone can run:",
        f'  python -c \'from datasets import load_dataset; print(load_dataset("{NAME}", "held_out", revision="v1"))\'',
        f"  taskmill verify {NAME}@v1",
        f"  taskmill rebuild {NAME}@v1 --run runs/planted-rebuilt --data-root DIR",
    ]
    assert f"hub: {NAME}: committing {len(made.files) + 1} files" in err
    code, out, err = call(capsys, "publish", str(run), NAME, "--json")
    (told,) = json_lines(out)
    assert (told["commit"], told["num_commits"], told["num_sent"]) == (repository.commit, 0, 0)
    assert told["root"] == made.root and told["num_files"] == len(made.files) + 1
    assert told["commands"][1] == f"taskmill verify {NAME}@{repository.commit}"
    assert repository.messages == ["initial commit", "Publish the benchmark"]
    assert not [c for c in there(server, NAME).values() if b"aSecret" in c or str(run).encode() in c]
    assert "aSecret" not in out + err


def test_another_version_with_data_of_the_same_run(
    server: HubServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "publish", str(run), NAME, "--private", "--with-data", "--tag", "v1")[0] == 0
    code, out, err = call(capsys, "publish", str(run), NAME, "--tag", "v2")
    assert code == 0, err
    repository = server.repositories[NAME]
    assert repository.token == TOKEN and "(private)" in out and "Whoever may read it can run:" in out
    assert "of an earlier version deleted" in out
    with_data, without = (repository.history[repository.tags[tag]] for tag in ("v1", "v2"))
    assert any(p.startswith("data/") for p in with_data) and not any(p.startswith("data/") for p in without)
    roots = [json.loads(files[MANIFEST])["root"] for files in (with_data, without)]
    assert roots[0] == roots[1], "the rows of ids and tables are the same"
    assert_manifests_hold(server, NAME)


LOAD = """
import json, sys
from datasets import load_dataset
from pyarrow import parquet
from huggingface_hub import DatasetCard
from pathlib import Path
import pyarrow as pa

found = {}
for folder, name in zip(sys.argv[1::2], sys.argv[2::2]):
    folder = Path(folder)
    for item in DatasetCard.load(folder / "README.md").data.to_dict()["configs"]:
        loaded = load_dataset(name, item["config_name"], revision="v1")
        assert set(loaded) == {part["split"] for part in item["data_files"]}, loaded
        for part in item["data_files"]:
            paths = [part["path"]] if isinstance(part["path"], str) else part["path"]
            held = pa.concat_tables([parquet.read_table(folder / path) for path in paths])
            rows = loaded[part["split"]].to_list()
            assert rows == held.to_pylist(), (name, item, part)
            found[f"{name} {item['config_name']} {part['split']}"] = len(rows)
print(json.dumps(found))
"""


def test_load_dataset_gives_every_level_row_for_row(server: HubServer, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    arguments: list[str] = []
    expected = {}
    for with_data, name in ((False, "ann/ids"), (True, "ann/data")):
        made = make_package(run, tmp_path / name, with_data, False, name)
        hub.send(made, name, tag="v1")
        arguments += [str(made.folder), name]
        num_train = sum(splits.get("train", 0) for splits in made.body["levels"].values())
        expected[f"{name} train train"] = num_train
        for level, splits in made.body["levels"].items():
            expected.update({f"{name} {level} {split}": number for split, number in splits.items()})
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ids_only = {key: number for key, number in found.items() if key.startswith("ann/ids")}
    assert ids_only == {key: number for key, number in expected.items() if key.startswith("ann/ids")}
    assert {key.replace("ann/data", "ann/ids") for key in found} >= set(ids_only) - {
        "ann/ids held_out demonstration"
    }
    assert sum(found.values()) > sum(ids_only.values()) > 80


def test_a_dry_run_asks_nobody_and_leaves_nothing(
    server: HubServer, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    arguments = ("publish", str(run), NAME, "--tag", "v1", "--with-data", "--dry-run")
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert not server.requests and not (run / FOLDER).exists()
    assert f"{NAME}, tag v1 would hold:" in out and "Nothing was sent" in out
    assert (
        "CC-BY-4.0: 1 task, 40 examples; its text may be published" in out
        and "README.md, as people see it:\n  # planted\n" in out
    )
    assert "the mixture and its shares: --with-mixture adds them" in out
    code, out, _ = call(capsys, *arguments, "--json")
    (told,) = json_lines(out)
    assert told["dry_run"] and set(told["sizes"]) >= {"README.md", MANIFEST, "recipe/recipe.json"}
    assert told["card"].startswith("---\n")
    code, out, err = call(capsys, *arguments[:3])
    assert code == 1 and "pip install 'taskmill[hub]'" in err and not (run / FOLDER).exists()


def test_no_token_is_shown_or_kept(
    server: HubServer,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_DEBUG", True)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.DEBUG)
    body = json.dumps({"error": f"no {TOKEN}"}).encode()
    shown = ""
    for fault in (
        Fault("status", "/batch", "POST", 1, 429, {"Retry-After": "1", "X-Error-Message": TOKEN}, body),
        Fault("status", "", "PUT", 9999, 500, body=body),
        Fault("status", "/commit/main", "POST", 99, 403, body=body),
        Fault("drop", "/commit/main", "POST", 99),
    ):
        server.faults = [fault]
        code, out, err = call(capsys, "publish", str(run), NAME, "--tag", "v1")
        assert code == (0 if fault.status == 429 else 1), err
        shown += out + err
        server.repositories.clear()
        server.objects.clear()
    kept = [path for top in (run, tmp_path) for path in top.rglob("*") if path.is_file()]
    assert len(kept) > 20 and "HTTP 403: no ***" in shown
    assert "aSecret" not in shown and not [path for path in kept if b"aSecret" in path.read_bytes()]


@pytest.mark.parametrize("ending", ["/create", "/batch", "/commit/main", "/refs"])
def test_interrupted_and_repeated(
    server: HubServer, run: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    (run / FOLDER / "data").mkdir(parents=True)
    (run / FOLDER / "data" / "stale.parquet").write_bytes(b"of a killed process")

    def stop(number: int, method: str, path: str) -> None:
        if path.endswith(ending):
            server.hook = None
            os.kill(os.getpid(), signal.SIGINT)

    server.hook = stop
    code, out, err = call(capsys, "publish", str(run), NAME, "--tag", "v1")
    assert code == 130 and not out and "interrupted" in err and not (run / FOLDER).exists()
    code, out, err = call(capsys, "publish", str(run), NAME, "--tag", "v1")
    assert code == 0, err
    assert "data/stale.parquet" not in there(server, NAME)
    assert server.repositories[NAME].messages == ["initial commit", "Publish the benchmark"]


def test_one_at_a_time_and_other_things_that_stop_it(
    server: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLock(run):
        code, _, err = call(capsys, "publish", str(run), NAME)
    assert code == 1 and "is being written by another process" in err
    code, _, err = call(capsys, "publish", str(tmp_path / "none"), NAME)
    assert code == 2 and "there is no run" in err and not (tmp_path / "none").exists()
    code, _, err = call(capsys, "publish", str(run), "planted")
    assert code == 2 and "expected OWNER/NAME" in err
    code, _, err = call(capsys, "publish", str(run), NAME, "--with-mixture")
    assert code == 2 and "'mix'" in err
    assert not server.requests
    server.faults = [Fault("status", "/create", "POST", 99, 403, body=b'{"error": "read-only token"}')]
    code, out, err = call(capsys, "publish", str(run), NAME)
    assert code == 1 and not out and err.count("taskmill: ") == 1
    assert "this login may not write to ann/planted (HTTP 403: read-only token)" in err
    assert not (run / FOLDER).exists()


def test_what_is_published_can_be_opened(server: HubServer, run: Path, tmp_path: Path) -> None:
    made = make_package(run, tmp_path / "made", False, False, NAME)
    hub.send(made, NAME)
    for path, content in there(server, NAME).items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    assert open_published(tmp_path / "copy").body == made.body
