"""Every reader takes its files plain, as `.gz`, and from archives; hostile content of each is damage, never a crash."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from native_files import PETS_CAST, TEMPLATES, read_all, write
from test_source_damage import SEEDS

from taskmill.curation.places.archives import unpack
from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources import _bytes
from taskmill.errors import TaskmillError
from taskmill.recipe import known_readers


def files_of(reader: str, records: list[bytes] | None = None, gz: bool = False) -> dict[str, bytes]:
    """Return the files of a reader's smallest source by name."""
    seed = SEEDS[reader]
    content = seed.content(seed.records if records is None else records)
    files = {seed.name + ".gz": gzip.compress(content)} if gz else {seed.name: content}
    if reader == "promptsource":
        files["templates/pets/cats/templates.yaml"] = TEMPLATES.encode()
    return files


def source_of(reader: str, top: Path, casts: Path, on_error: str = "stop", gz: bool = False) -> SourceFolder:
    options = dict(SEEDS[reader].options)
    if gz and "files" in options:
        options["files"] = {split: name + ".gz" for split, name in options["files"].items()}
    return SourceFolder(top, top, options, on_error, (casts,), name="set")


def zipped(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"top/{name}", content)


def tarred(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"top/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("reader", known_readers())
def test_the_same_records_in_every_form(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    write(tmp_path, {"casts/pets-cats.yaml": PETS_CAST})
    plain, packed = files_of(reader), files_of(reader, gz=True)
    write(tmp_path, {f"plain/{name}": content for name, content in plain.items()})
    write(tmp_path, {f"gz/{name}": content for name, content in packed.items()})
    zipped(tmp_path / "a.zip", plain)
    tarred(tmp_path / "a.tar.gz", packed)
    forms = [
        (tmp_path / "plain", False),
        (tmp_path / "gz", True),
        (unpack(tmp_path / "a.zip", "a.zip") / "top", False),
        (unpack(tmp_path / "a.tar.gz", "a.tar.gz") / "top", True),
    ]
    found: list[Any] = []
    for top, gz in forms:
        tasks = read_all(reader, source_of(reader, top, tmp_path / "casts", gz=gz))
        found.append([(data.columns.fields, data.columns.references) for _, data in sorted(tasks.items())])
    assert any(fields for fields, _ in found[0])
    assert found[1:] == found[:1] * 3


HOSTILE = {
    "nul": b"\0" * 100,
    "deep": b'{"a": ' * 100_000,
    "lists": b"[" * 1_000_000,
    "digits": b'{"text": ' + b"9" * 1_000_000 + b"}",
    "surrogate": b'{"text": "\\ud83d", "instruction": "\\udc00", "input": "\\ud800"}',
    "utf-16": '{"text": "a"}'.encode("utf-16"),
    "number keys": b"{1: 2}",
    "half": b'{"text": "',
    "bidi": '{"text": "\u202e\u2066\ufffe\U0010ffff"}'.encode(),
    "quotes": b'"' * 100_001,
    "commas": b"," * 100_000,
    "tabs": b"\t" * 100_000,
    "returns": b"\r" * 100_000,
}


@pytest.mark.parametrize("reader", known_readers())
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_content_raises_only_our_errors(tmp_path: Path, reader: str, kind: str) -> None:
    write(tmp_path, {"casts/pets-cats.yaml": PETS_CAST})
    files = files_of(reader)
    name = SEEDS[reader].name
    before, between, behind = SEEDS[reader].around
    files[name] = before + between.join([*SEEDS[reader].records, HOSTILE[kind]]) + behind
    write(tmp_path, {f"up/{each}": content for each, content in files.items()})
    for on_error in ("stop", "skip"):
        try:
            read_all(reader, source_of(reader, tmp_path / "up", tmp_path / "casts", on_error))
        except TaskmillError as error:
            assert len(str(error).encode()) < 2000, "a message is no place for the file"


@pytest.mark.parametrize("reader", known_readers())
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_a_line_of_many_bytes_is_not_held(
    tmp_path: Path, reader: str, gz: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SEEDS[reader].around[1] != b"\n":
        pytest.skip("a document, which is held whole: see the limit on its size")
    monkeypatch.setattr(_bytes, "MAX_RECORD_BYTES", 1 << 20)
    write(tmp_path, {"casts/pets-cats.yaml": PETS_CAST})
    records = SEEDS[reader].records
    files = files_of(reader, [*records, b'{"text": "' + b"a" * (24 << 20) + b'"}', *records], gz)
    write(tmp_path, {f"up/{name}": content for name, content in files.items()})
    source = source_of(reader, tmp_path / "up", tmp_path / "casts", "skip", gz)
    del files
    tracemalloc.start()
    found = read_all(reader, source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reasons = [aside.reason for data in found.values() for aside in data.aside]
    assert "too_large" in reasons and peak < 12 << 20
