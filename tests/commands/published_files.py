"""A published folder made by hand for the tests of sending, and what must be true of every commit on the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, serve

from taskmill import hub_client
from taskmill.splits.publishing.published import FORMAT, MANIFEST, Published
from taskmill.storage import canonical_json

NAME = "ann/bench"
TOKEN = "hf_" + "aSecretOfTheUser" * 2
CARD = b"---\nlicense: mit\n---\n# Bench\n"
FIRST = {
    "README.md": CARD,
    "ids/held_out/test.parquet": b"PAR1" + b"held out" * 300,
    "ids/supervised/train.parquet": b"PAR1" + b"supervised" * 300,
    "recipe/recipe.yaml": b"name: bench\n",
    "tables/drops.parquet": b"PAR1 small",
}
SECOND = {
    "README.md": CARD + b"More.\n",
    "ids/held_out/test.parquet": b"PAR1" + b"held out" * 300,
    "ids/held_out/validation.parquet": b"PAR1" + b"other" * 500,
    "recipe/recipe.yaml": b"name: bench 2\n",
    "tables/drops.parquet": b"PAR1 small",
}
"""A later version: a file is new, one is gone, two are others, two are the same."""


def make_published(folder: Path, files: Mapping[str, bytes]) -> Published:
    """Write files and the manifest that names them."""
    entries = []
    for path, content in sorted(files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries.append(
            {"path": path, "bytes": len(content), "sha256": digest, "rows": None, "num_rows": None}
        )
    body: dict[str, Any] = {"format": FORMAT, "version": 1, "root": "r", "files": entries, "levels": {}}
    (folder / MANIFEST).write_bytes(canonical_json(body) + b"\n")
    return Published(folder, body)


def contents(published: Published) -> dict[str, bytes]:
    """Return the files of a folder by path."""
    folder = published.folder
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@contextlib.contextmanager
def hub_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Run a Hub for this process, logged in, without patience."""
    monkeypatch.setenv("HF_HOME", str(folder / "huggingface"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: None)
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def there(hub: HubServer, name: str = NAME) -> dict[str, bytes]:
    """Return the files of the newest commit, without the Hub's own."""
    files = hub.repositories[name].files
    return {path: content for path, content in sorted(files.items()) if path != ".gitattributes"}


def assert_manifests_hold(hub: HubServer, name: str = NAME) -> None:
    """Check that at every commit the manifest, where there is one, names nothing that is missing or another."""
    for files in hub.repositories[name].history.values():
        if MANIFEST in files:
            for entry in json.loads(files[MANIFEST])["files"]:
                assert hashlib.sha256(files[entry["path"]]).hexdigest() == entry["sha256"], entry["path"]
