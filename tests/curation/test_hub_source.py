"""Sources on the Hub, through a server of our own: what is fetched, what goes wrong, and the cache afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_pets import COMMIT, LARGE, NAME, WHOLE, kept, serve_pets
from hub_server import Fault, HubServer, Repository
from native_files import TEMPLATES, lines, read_all, write
from running import taskmill

from taskmill import hub_client, recipe_files
from taskmill.artifact import Manifest, read_manifest
from taskmill.cache import cache_folder
from taskmill.curation.places import hub
from taskmill.curation.places.locating import locate
from taskmill.errors import DataError, MissingPackageError, RecipeError, StorageError, TaskmillError
from taskmill.settings import Settings
from taskmill.storage import read_table

pytest.importorskip("huggingface_hub")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_pets(tmp_path, monkeypatch) as running:
        yield running


def test_data_files_below_the_path_are_fetched_and_nothing_else(server: HubServer) -> None:
    assert hub.fetch(NAME, COMMIT, "data") == hub.snapshot(NAME, COMMIT)
    assert kept() == WHOLE
    assert hub.license_of(NAME, COMMIT) == "cc-by-4.0"
    assert not [request for request in server.requests if request.endswith((".py", ".pkl", ".gitattributes"))]
    before = len(server.requests)
    hub.fetch(NAME, COMMIT, "data/small.csv")
    assert len(server.requests) == before, "what is there is not asked for again"
    hub.fetch(NAME, COMMIT)
    assert kept() == WHOLE | {"other/x.txt": b"x\n"}
    assert not [request for request in server.requests[before:] if "/tree/" in request or "large" in request]


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault("status", "large.jsonl", status=429, headers={"Retry-After": "0"}), 1),
        (Fault("status", "large.jsonl", status=503), 2),
        (Fault("status", "large.jsonl", method="HEAD", status=500), 1),
        (Fault("status", f"tree/{COMMIT}", status=503), 2),
        (Fault("drop", "large.jsonl"), 2),
        (Fault("short", "large.jsonl"), 1),
        (Fault("bytes", "large.jsonl"), 1),
        (Fault("bytes", "small.csv"), 1),
    ],
    ids=lambda value: f"{value.kind}-{value.status}-{value.ending[:5]}" if isinstance(value, Fault) else "",
)
def test_what_passes_is_tried_again(server: HubServer, fault: Fault, times: int) -> None:
    fault.times = times
    server.faults = [fault]
    hub.fetch(NAME, COMMIT, "data")
    assert fault.times == 0, "the fault never happened"
    assert kept() == WHOLE


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Fault("status", "small.csv", status=503, times=99), StorageError, "HTTP 503 .* are kept"),
        (Fault("status", "small.csv", status=403, times=99), DataError, "may not be read .*hf auth login"),
        (
            Fault("bytes", "small.csv", times=99),
            DataError,
            r"small\.csv: the Hub does not send what it lists",
        ),
        (Fault("short", "small.csv", times=99), TaskmillError, "small"),
    ],
    ids=["status", "forbidden", "bytes", "short"],
)
def test_what_stays_is_one_message_and_no_half_file(
    server: HubServer, fault: Fault, error: type[TaskmillError], message: str
) -> None:
    server.faults = [fault]
    with pytest.raises(error, match=message):
        hub.fetch(NAME, COMMIT, "data")
    assert "data/small.csv" not in kept()
    assert kept()["data/large.jsonl"] == LARGE, "what was complete is kept"
    server.faults = []
    before = len(server.requests)
    hub.fetch(NAME, COMMIT, "data")
    assert kept() == WHOLE
    assert not [request for request in server.requests[before:] if "large" in request]


def test_a_listing_is_not_believed(server: HubServer) -> None:
    repository = server.repositories[NAME]
    for change in ({"size": 3}, {"oid": "f" * 40}):
        repository.listed = {"data/small.csv": dict(change)}
        with pytest.raises(DataError, match="does not send what it lists"):
            hub.fetch(NAME, COMMIT, "data")
    repository.listed = {}
    hub.fetch(NAME, COMMIT, "data")
    assert kept() == WHOLE, "a listing that proved wrong is asked for again"
    (hub.snapshot(NAME, COMMIT).parent / "listing.json").unlink()
    repository.files["../../outside.txt"] = b"x"
    with pytest.raises(DataError, match="could land outside"):
        hub.fetch(NAME, COMMIT, "other")


@pytest.mark.parametrize(
    ("name", "commit", "path", "message"),
    [
        ("someone/cats", COMMIT, ".", r"no data set someone/cats .*HF_TOKEN"),
        (NAME, "f" * 40, ".", r"has no commit f{40}.*commits/main"),
        (NAME, COMMIT, "dta", r"no file or folder 'dta' - did you mean 'data'"),
        (NAME, COMMIT, "pets.py", r"no data file in 'pets\.py'.*never run"),
        (NAME, COMMIT, "../x", "leads out of the repository"),
    ],
)
def test_what_is_not_there(server: HubServer, name: str, commit: str, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        hub.fetch(name, commit, path)


def test_an_archive_of_a_repository(server: HubServer, tmp_path: Path) -> None:
    texts = lines({"text": "one"}, {"text": "two"}).encode()
    server.repositories[NAME].files["packed/texts.zip"] = zipped({"inner/texts.jsonl": texts})
    recipe = f"""
name: x
sources:
  - {{reader: documents, hub: {NAME}@{COMMIT}, path: packed/texts.zip/inner}}
"""
    (tmp_path / "r.yaml").write_text(recipe)
    settings = Settings(recipe_files.load(tmp_path / "r.yaml", ()), ("sources", "curate"))
    (data,) = read_all("documents", locate(settings.sources[0], settings)).values()
    assert data.columns.file == ["packed/texts.zip/inner/texts.jsonl"] * 2
    assert [fields["text"] for fields in data.columns.fields] == ["one", "two"]


@pytest.mark.parametrize(
    "place", ["{hub: someone/cats}", "{hub: someone/cats@main, folder: x}", "{hub: 3}", "[{hub: a/b@c}]"]
)
def test_places_that_are_not_pinned(server: HubServer, tmp_path: Path, place: str) -> None:
    text = (
        f"name: x\nsources: [{{reader: promptsource, path: p, options: {{data: {{pets/cats: {place}}}}}}}]\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    settings = Settings(recipe_files.load(tmp_path / "r.yaml", ()), ("sources", "curate"))
    with pytest.raises(RecipeError, match=r"option data\.pets/cats.*owner/name@COMMIT"):
        locate(settings.sources[0], settings)
    assert not server.requests


@pytest.mark.parametrize(
    ("status", "stated", "wait"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "99999"}, hub_client.LONGEST_WAIT),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 4.0),
        (503, {"Retry-After": "soon"}, 4.0),
        (500, {}, 4.0),
        (404, {}, None),
        (403, {"Retry-After": "7"}, None),
    ],
)
def test_how_long_to_wait(status: int, stated: dict[str, str], wait: float | None) -> None:
    error = OSError("no")
    error.response = SimpleNamespace(status_code=status, headers=stated)  # type: ignore[attr-defined]
    assert hub_client._wait(error, 3) == wait


def test_private_and_gated_data_sets(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = "hf_" + "aSecretOfTheUser" * 2
    server.repositories[NAME].token = token
    with pytest.raises(DataError, match=r"HTTP 401.*hf auth login"):
        hub.fetch(NAME, COMMIT, "other")
    for shown in (token + "x", "hf_bad\nheader"):
        monkeypatch.setenv("HF_TOKEN", shown)
        with pytest.raises(TaskmillError) as wrong:
            hub.fetch(NAME, COMMIT, "other")
        assert "aSecret" not in str(wrong.value) and "hf_bad" not in str(wrong.value)
    monkeypatch.setenv("HF_TOKEN", token)
    hub.fetch(NAME, COMMIT, "other")
    server.repositories[NAME].gated = True
    with pytest.raises(DataError, match=r"gated: accept its conditions at .*/datasets/someone/pets") as gated:
        hub.fetch(NAME, COMMIT, "data")
    assert "aSecret" not in str(gated.value) + caplog.text
    everything = b"".join(p.read_bytes() for p in cache_folder().rglob("*") if p.is_file())
    assert b"aSecret" not in everything


def test_no_network(server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.utils._http as http

    monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(StorageError, match=r"is not in the cache.*TASKMILL_CACHE") as nothing:
        hub.fetch(NAME, COMMIT, "data")
    assert "secret" not in str(nothing.value)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    hub.fetch(NAME, COMMIT, "data")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.fetch(NAME, COMMIT, "data/large.jsonl") == hub.snapshot(NAME, COMMIT)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"taskmill\[hub\]"):
        hub.fetch(NAME, COMMIT)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub: someone/pets", r"40 hex digits.*datasets/someone/pets/commits/main"),
        ("hub: someone/pets@main", "40 hex digits"),
        ("hub: pets@" + COMMIT, "owner/name@COMMIT"),
        (f"hub: {NAME}@{COMMIT}, repository: a/b", "beside `hub`"),
        (f"hub: {NAME}@{COMMIT}, revision: v1", "beside `hub`"),
        (f"hub: {NAME}@{COMMIT}, path: ../x", "top of the repository"),
        ("revision: v1", "without `repository`"),
        ("repository: ''", "empty"),
    ],
)
def test_recipes_that_name_sources_wrongly(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(f"name: x\nsources:\n  - {{reader: table, {source}}}\n")
    with pytest.raises(RecipeError, match=message):
        recipe_files.load(tmp_path / "r.yaml", ())


# ------------------------------------------------------------------------------------- the command line


def parquet(*rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


REVIEWS = {
    split: [{"text": f"{split} pet {i} was fine", "label": i % 2, "idx": i} for i in range(40)]
    for split in ("train", "validation")
}
CATS = [{"text": f"cat {i}", "label": i % 2, "words": ["ab", "c"]} for i in range(30)]
RECIPE = f"""
name: remote
data_root: data
sources:
  - reader: table
    hub: someone/reviews@{COMMIT}
    path: plain
    options:
      task: reviews
      files: {{train: train-*.parquet, validation: validation-*.parquet}}
      cast: {{fields: {{text: text}}, references: {{path: label, labels: [bad, good]}}, id: idx}}
      category: Sentiment Analysis
      dataset: our_reviews
  - reader: promptsource
    path: promptsource
    options:
      data: {{pets/cats: {{hub: "someone/cats@{COMMIT}", folder: cats}}}}
  - {{reader: documents, path: texts.zip/inner, repository: someone/texts, revision: v1}}
curate: {{casts: [casts], taxonomy: [taxonomy.yaml]}}
"""
TAXONOMY = """
tasks:
  promptsource/pets/cats: {category: Text Categorization}
  documents/*: {category: Pretraining}
"""
CATS_CAST = """dataset: cats
datasets: [pets/cats]
format: parquet
files: {train: ["train-*.parquet"]}
fields: {text: text, label: label, words: words}
references: {path: label, labels: ["no", "yes"]}
output_fields: [label]
"""


def zipped(files: dict[str, bytes]) -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def world(folder: Path, server: HubServer) -> None:
    plain = {f"plain/{s}-00000-of-00001.parquet": parquet(*rows) for s, rows in REVIEWS.items()}
    card = b"---\nlicense: mit\n---\n"
    server.repositories["someone/reviews"] = Repository(COMMIT, {**plain, "README.md": card})
    cats = {"cats/train-00000-of-00001.parquet": parquet(*CATS)}
    server.repositories["someone/cats"] = Repository(COMMIT, cats)
    texts = lines(*({"text": f"A text of number {i}"} for i in range(9))).encode()
    write(
        folder,
        {
            "recipe.yaml": RECIPE,
            "casts/pets-cats.yaml": CATS_CAST,
            "taxonomy.yaml": TAXONOMY,
            "data/promptsource/templates/pets/cats/templates.yaml": TEMPLATES,
            "data/texts.zip": zipped({"inner/texts.jsonl": texts}),
        },
    )


def curate(folder: Path, name: str) -> tuple[subprocess.CompletedProcess[str], Manifest | None]:
    done = taskmill("curate", "recipe.yaml", "--run", name, "--workers", "1", cwd=folder)
    return done, read_manifest(folder / name / "tasks") if done.returncode == 0 else None


def rows(manifest: Manifest, table: str) -> list[dict[str, Any]]:
    found = [read_table(manifest.directory / file.path) for file in manifest.table_files(table)]
    listed: list[dict[str, Any]] = pa.concat_tables(found).to_pylist()
    return listed


def test_curate_from_the_hub_and_again_without_it(server: HubServer, tmp_path: Path) -> None:
    world(tmp_path, server)
    done, first = curate(tmp_path, "run")
    assert first is not None, done.stderr
    tasks = {row["task"]: row for row in rows(first, "tasks")}
    reviews, cats, texts = (
        tasks[name] for name in ("custom/reviews", "promptsource/pets/cats", "documents/texts")
    )
    assert (reviews["repository"], reviews["revision"]) == ("someone/reviews", COMMIT)
    assert reviews["license"].lower() == "mit" and "someone/reviews" in reviews["license_evidence"]
    assert (texts["repository"], texts["revision"]) == ("someone/texts", "v1")
    assert cats["repository"] is None and cats["revision"].startswith("sha256:")
    examples = {(row["file"], row["record"]): json.loads(row["fields"]) for row in rows(first, "examples")}
    for split, listed in REVIEWS.items():
        name = f"plain/{split}-00000-of-00001.parquet"
        assert [examples[name, i]["text"] for i in range(len(listed))] == [row["text"] for row in listed]
    name = f"someone/cats@{COMMIT}/cats/train-00000-of-00001.parquet"
    assert [examples[name, i] for i in range(len(CATS))] == CATS
    assert [examples["texts.zip/inner/texts.jsonl", i]["text"] for i in range(9)] == [
        f"A text of number {i}" for i in range(9)
    ]
    upstream = first.body["upstream"]
    assert [item["repository"] for item in upstream] == ["someone/reviews", None, "someone/texts"]
    held = {file["name"]: file["sha256"] for item in upstream for file in item["files"]}
    content = server.repositories["someone/cats"].files["cats/train-00000-of-00001.parquet"]
    assert held[name] == hashlib.sha256(content).hexdigest()

    server.repositories.clear()
    requests = len(server.requests)
    done, second = curate(tmp_path, "again")
    assert second is not None, done.stderr
    assert len(server.requests) == requests
    assert (second.root, second.fingerprint) == (first.root, first.fingerprint)
    assert second.body["upstream"] == upstream
