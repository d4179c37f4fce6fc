"""A data set on a Hub of our own, for the tests of sources on the Hub: its files, and what the cache holds of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repository, serve
from native_files import lines

from taskmill import hub_client
from taskmill.curation.places import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/pets"
LARGE = lines(*({"text": f"row {i}", "n": i} for i in range(200))).encode()
SMALL = b"text,label\na,1\n"
CARD = b"---\nlicense: cc-by-4.0\nlanguage: [en]\n---\n# Pets\n"
WHOLE = {"README.md": CARD, "data/large.jsonl": LARGE, "data/small.csv": SMALL}


@contextlib.contextmanager
def serve_pets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Run a Hub with one data set, an empty cache below `folder`, and no patience."""
    monkeypatch.setenv("TASKMILL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_HOME", str(folder / "huggingface"))
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: None)
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        files = {
            "README.md": CARD,
            "data/large.jsonl": LARGE,
            "data/small.csv": SMALL,
            "other/x.txt": b"x\n",
            "pets.py": b"raise SystemExit('a loading script was run')\n",
            "data/cached.pkl": b"\x80\x04.",
            ".gitattributes": b"* text\n",
        }
        running.repositories[NAME] = Repository(COMMIT, files)
        yield running


def kept() -> dict[str, bytes]:
    """Return the files of the data set that the cache holds."""
    top = hub.snapshot(NAME, COMMIT)
    return {p.relative_to(top).as_posix(): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}
