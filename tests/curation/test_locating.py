"""Where sources lie, what the cache keeps of them, and what a shard depends on."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from native_files import folder, lines, read_all, write

from taskmill import cache, recipe_files
from taskmill.artifact import Identity, Inputs, Manifest, StageWriter, open_stage
from taskmill.cache import cache_folder, file_digests
from taskmill.curation import build
from taskmill.curation.catalogue import read_catalogue
from taskmill.curation.places.locating import locate
from taskmill.curation.sources import _bytes
from taskmill.errors import DataError, RecipeError
from taskmill.settings import Settings
from taskmill.storage import file_digest

# ---------------------------------------------------------------------------------------------- the cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))


def old(path: Path, seconds: int = 100) -> Path:
    """Make a file look changed some time ago; its entry's time cannot be set, so the clock is."""
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache believe that it is a minute later, when files written by the test are old."""
    now = time.time_ns
    monkeypatch.setattr(cache.time, "time_ns", lambda: now() + 60_000_000_000)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that are really read, as it happens."""
    read: list[Path] = []
    monkeypatch.setattr(cache, "file_digest", lambda path: (read.append(path), file_digest(path))[1])
    return read


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.setenv("TASKMILL_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "taskmill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "taskmill"


@pytest.mark.usefixtures("later")
def test_a_file_is_read_once_until_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text(file.name)
    expected = {file: file_digest(file) for file in files}
    assert file_digests(files) == expected and sorted(hashed) == files
    hashed.clear()
    assert file_digests([*files, files[0]]) == expected and hashed == []
    before = files[1].stat()
    files[1].write_text("B")
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digests(files)[files[1]] == file_digest(files[1]), "same size and time, other bytes"
    assert hashed == [files[1]]


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path, hashed: list[Path]) -> None:
    (tmp_path / "a").write_text("a")
    for _ in range(2):
        file_digests([tmp_path / "a"])
    assert len(hashed) == 2
    assert not (cache_folder() / "digests.json").exists()


@pytest.mark.usefixtures("later")
def test_a_damaged_or_unwritable_cache_is_none(tmp_path: Path, hashed: list[Path]) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    expected = file_digests([file])
    place = cache_folder() / "digests.json"
    whole = place.read_bytes()
    for damage in (
        b"",
        b"\xff",
        whole[:-9],
        whole.replace(b'"', b"'"),
        b"[]",
        b"x\n" + whole.partition(b"\n")[2],
    ):
        place.write_bytes(damage)
        hashed.clear()
        assert file_digests([file]) == expected and hashed == [file]
    place.unlink()
    place.mkdir()
    assert file_digests([file]) == expected
    place.rmdir()
    cache_folder().rmdir()
    cache_folder().write_text("no folder")
    assert file_digests([file]) == expected


# ------------------------------------------------------------------------------------------------ places

RECIPE = """
name: places
data_root: data
sources:
SOURCES
curate: {taxonomy: [taxonomy.yaml]}
"""


def load(root: Path, *sources: str, overrides: tuple[str, ...] = ()) -> Settings:
    text = RECIPE.replace("SOURCES", "\n".join(f"  - {{reader: documents, {source}}}" for source in sources))
    text = text.replace("documents, reader: ", "")
    write(root, {"recipe.yaml": text})
    if not (root / "taxonomy.yaml").exists():
        write(root, {"taxonomy.yaml": "tasks: {'*/*': {category: Pretraining}}\n"})
    return Settings(recipe_files.load(root / "recipe.yaml", overrides), build.SECTIONS)


TEXTS = lines(*({"text": f"A text of number {i}."} for i in range(5)))


def test_folders_files_and_archives_give_the_same_records(tmp_path: Path) -> None:
    write(tmp_path, {"data/up/texts.jsonl": TEXTS})
    with zipfile.ZipFile(tmp_path / "data/up/t.zip", "w") as archive:
        archive.writestr("texts.jsonl", TEXTS)
    with tarfile.open(tmp_path / "data/t.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "data/up/texts.jsonl", "deep/texts.jsonl")
    places = {
        "up": "up/texts.jsonl",
        "up/texts.jsonl": "up/texts.jsonl",
        "up/t.zip": "up/t.zip/texts.jsonl",
        "up/t.zip/texts.jsonl": "up/t.zip/texts.jsonl",
        "t.tar.gz/deep": "t.tar.gz/deep/texts.jsonl",
        "t.tar.gz/deep/texts.jsonl": "t.tar.gz/deep/texts.jsonl",
    }
    found = []
    for path, name in places.items():
        settings = load(tmp_path, f"path: {path}")
        data = read_all("documents", locate(settings.sources[0], settings))["texts"]
        assert set(data.columns.file) == {name}
        found.append(data.columns.fields)
    assert all(fields == [{"text": f"A text of number {i}."} for i in range(5)] for fields in found)


def test_paths_that_do_not_exist(tmp_path: Path) -> None:
    write(tmp_path, {"data/texts/a.jsonl": TEXTS})
    with zipfile.ZipFile(tmp_path / "data/t.zip", "w") as archive:
        archive.writestr("texts/a.jsonl", TEXTS)
    for path, message in [
        ("text", r"does not exist below the data root .* did you mean 'texts'"),
        ("t.zip/text", r"does not exist below the top of the archive t\.zip - did you mean 'texts'"),
        ("t.zap", r"does not exist .*did you mean 't\.zip'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            read_catalogue(load(tmp_path, f"path: {path}"))
    (tmp_path / "data/t.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"t\.zip.*damaged archive"):
        read_catalogue(load(tmp_path, "path: t.zip"))


def test_names_that_ids_cannot_hold(tmp_path: Path) -> None:
    write(tmp_path, {"data/texts/a.jsonl": TEXTS, "data/texts/b#1.jsonl": TEXTS})
    with pytest.raises(RecipeError, match=r"'b#1' \(from texts/b#1\.jsonl\).*exclude: \['b#1'\]"):
        read_catalogue(load(tmp_path, "path: texts"))
    assert len(read_catalogue(load(tmp_path, "path: texts, exclude: ['b#1']")).plans) == 1


def test_what_the_manifest_says_of_sources(tmp_path: Path) -> None:
    write(tmp_path, {"data/a/a.jsonl": TEXTS, "data/b/b.jsonl": TEXTS})
    catalogue = read_catalogue(load(tmp_path, "path: a, repository: me/a, revision: v2", "path: b"))
    assert [(u["path"], u["repository"], u["revision"]) for u in catalogue.upstream()] == [
        ("a", "me/a", "v2"),
        ("b", None, None),
    ]
    assert [plan.revision[:7] for plan in catalogue.plans] == ["sha256:"] * 2
    assert catalogue.plans[0].origin.revision == "v2"


def writer(settings: Settings, directory: Path) -> tuple[StageWriter | Manifest, Identity]:
    outside = build.external(settings, Inputs({}))
    identity = Identity("curate", build.REVISION, settings.values(), 0, None, (), outside)
    return open_stage(directory, identity, True), identity


def built(settings: Settings, directory: Path) -> dict[str, int]:
    """Curate; return when each table of examples was written."""
    out, _ = writer(settings, directory)
    if isinstance(out, StageWriter):
        build.build(settings, Inputs({}), out)
    return {p.name: p.stat().st_mtime_ns for p in (directory / "examples").iterdir()}


def test_another_source_leaves_the_other_shards_alone(tmp_path: Path) -> None:
    write(tmp_path, {f"data/{name}/{name}.jsonl": TEXTS.replace("text of", name) for name in "abc"})
    one = "path: a, benchmark: one"
    two = "path: b, benchmark: two"
    first = built(load(tmp_path, one), tmp_path / "out")
    second = built(load(tmp_path, two, one), tmp_path / "out")
    assert len(second) == 2 and first.items() <= second.items()
    for changed in (
        load(tmp_path, one, overrides=("curate.max_examples=3",)),
        load(tmp_path, one + ", repository: me/a"),
        load(tmp_path, one, overrides=("curate.on_error=skip",)),
    ):
        assert not first.items() & built(changed, tmp_path / "out").items()
        first = built(load(tmp_path, one), tmp_path / "out")
    write(tmp_path, {"more.yaml": "tasks: {two/b: {category: Conversation}}\n"})
    after = built(
        load(tmp_path, one, two, overrides=("curate.taxonomy=[taxonomy.yaml, more.yaml]",)), tmp_path / "out"
    )
    assert first.items() <= after.items(), "rows for other tasks change nothing"


def test_no_place_on_this_machine_is_in_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("x", "y"):
        monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / f"cache-{name}"))
        write(tmp_path / name, {"data/a/a.jsonl": TEXTS})
        with zipfile.ZipFile(tmp_path / name / "data/b.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("b.jsonl"), TEXTS)
        settings = load(tmp_path / name, "path: a", "path: b.zip")
        built(settings, tmp_path / name / "out")
        out, identity = writer(settings, tmp_path / name / "out")
        assert isinstance(out, Manifest)
        found.append((identity.fingerprint, out.root, [s["fingerprint"] for s in out.body["shards"]]))
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------------ limits


def test_a_line_that_is_too_long_is_damage_and_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bytes, "MAX_RECORD_BYTES", 1 << 20)
    long = b'{"text": "' + b"a" * (30 << 20) + b'"}\n'
    good = b'{"text": "b"}\n'
    for name, content in (
        ("d.jsonl", good + long + good),
        ("d.jsonl.gz", gzip.compress(good + long + good, 1)),
    ):
        write(tmp_path, {f"up-{name}/{name}": content})
        del content
        source = folder(tmp_path, f"up-{name}")
        with pytest.raises(DataError, match=r"d\.jsonl.*, record 1: the line is longer than"):
            read_all("documents", source)
        tracemalloc.start()
        (data,) = read_all("documents", folder(tmp_path, f"up-{name}", on_error="skip")).values()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20
        (aside,) = data.aside
        assert (aside.reason, aside.record, len(aside.raw)) == ("too_large", 1, _bytes.RAW_LIMIT)
        assert data.columns.record == [0, 2]


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_csv_cell_that_is_too_long_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote: bytes
) -> None:
    monkeypatch.setattr(_bytes, "MAX_RECORD_BYTES", 1 << 20)
    content = b"text,label\na,1\n" + quote + b"a" * (9 << 20) + quote + b",1\nb,0\n"
    write(tmp_path, {"up/d.csv": content})
    options: dict[str, Any] = {
        "cast": {"fields": {"text": "text"}, "references": "label"},
        "files": {"train": "d.csv"},
    }
    with pytest.raises(DataError, match=r"d\.csv, record 1"):
        read_all("table", folder(tmp_path, "up", **options))
    (data,) = read_all("table", folder(tmp_path, "up", on_error="skip", **options)).values()
    assert [aside.reason for aside in data.aside] == ["too_large"] and data.columns.record == [0]


def test_a_document_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bytes, "SMALL_BYTES", 1 << 16)
    write(tmp_path, {"tasks/t.json": b" " * (1 << 20), "bomb/t.json.gz": gzip.compress(b" " * (1 << 22))})
    source = folder(tmp_path)
    with pytest.raises(DataError, match=r"t\.json\.gz: more than .* held whole"):
        _bytes.read_all(tmp_path / "bomb/t.json.gz", source)
    monkeypatch.setattr(_bytes, "MAX_DOCUMENT_BYTES", 1 << 19)
    with pytest.raises(DataError, match=r"tasks/t\.json: more than 524,288 bytes"):
        read_all("super_natural_instructions", source)


def test_lines_are_cut_at_line_feeds_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\xef\xbb\xbfone\r\n\n\rtwo\x0b\x0c\x85\n" + "dreiä€\u2028x\n".encode() + b"\r\r\nend"
    (tmp_path / "t").write_bytes(content)
    expected = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    for size in range(3, 40):
        monkeypatch.setattr(_bytes, "_BLOCK", size)
        for end in (b"", b"\n"):
            (tmp_path / "t").write_bytes(content + end)
            assert list(_bytes.read_lines(tmp_path / "t", folder(tmp_path))) == list(enumerate(expected))


def test_real_files_keep_their_lines(shared_data: Path) -> None:
    source = folder(shared_data)
    for path in sorted(shared_data.rglob("*.jsonl")):
        content = path.read_bytes()
        if content:
            lines_read = [line for _, line in _bytes.read_lines(path, source)]
            assert lines_read == [x.removesuffix(b"\r") for x in content.removesuffix(b"\n").split(b"\n")]
            assert all(json.loads(line) is not None for line in lines_read[:1] if line)
