"""Archives as sources: unpacked whole, once, inside the cache; everything that is not sound is refused."""

from __future__ import annotations

import ast
import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskmill import safe_yaml
from taskmill.cache import cache_folder
from taskmill.curation.places import archives
from taskmill.curation.places.archives import unpack
from taskmill.errors import DataError, StorageError, TaskmillError

FILES = {
    "data/train.jsonl": b'{"text": "a"}\n' * 50,
    "data/deep/test.csv": b"a,b\n1,2\n",
    "README": b"x",
    "empty": b"",
}
Make = Callable[[Path, dict[str, bytes]], None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))


def make_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", b"")
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path: Path, files: dict[str, bytes]) -> None:
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "tar": "w"}[
        path.name.rpartition(".")[2]
    ]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("./data")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make(path: Path, files: dict[str, bytes]) -> Path:
    (make_zip if path.name.endswith(".zip") else make_tar)(path, files)
    return path


def held(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def left_behind() -> list[str]:
    """Return what a refused archive left in the cache, locks aside."""
    kept = (cache_folder() / "archives").glob("*")
    return [p.name for p in kept if p.suffix != ".lock"]


KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "A.ZIP"]


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_is_unpacked_once(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.isupper():
        make(tmp_path / "lower.zip", FILES).rename(tmp_path / name)
        path = tmp_path / name
    else:
        path = make(tmp_path / name, FILES)
    folder = unpack(path, name)
    assert held(folder) == FILES
    assert folder.is_relative_to(cache_folder())
    inode = (folder / "README").stat().st_ino
    path.rename(tmp_path / f"moved-{name}")
    assert unpack(tmp_path / f"moved-{name}", name) == folder, "known by its bytes, not by its name"
    assert (folder / "README").stat().st_ino == inode
    (folder / "README").unlink()
    assert held(unpack(tmp_path / f"moved-{name}", name)) == FILES, "a damaged cache mends itself"


EVIL_NAMES = [
    ("../out.txt", "outside"),
    ("data/../../out.txt", "outside"),
    ("/out.txt", "outside"),
    ("C:/out.txt", "outside"),
    ("c:out.txt", "outside"),
    ("..\\out.txt", "outside"),
    ("a\\b.txt", "outside"),
    ("data/TRAIN.jsonl", "collides"),
    ("data/train.jsonl", "collides"),
    ("Data/other.jsonl", "collides"),
    ("README/inside", "collides"),
    ("data/deep", "collides"),
    ("tab\there", "plain text"),
]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(("evil", "problem"), EVIL_NAMES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_stay_in_their_place(tmp_path: Path, kind: str, evil: str, problem: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in (*FILES, evil):
                archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name in (*FILES, evil):
                tar.addfile(tarfile.TarInfo(name))
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "cache")}
    with pytest.raises(DataError, match=rf"(?s)up/a\.{kind}.*{problem}"):
        unpack(path, f"up/a.{kind}")
    assert left_behind() == []
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "cache")} == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_a_tar_holds_files_and_folders_only(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"a link.* device"):
        unpack(path, "a.tar")
    assert left_behind() == []


def test_a_zip_holds_files_and_folders_only(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"a link.* device"):
        unpack(path, "a.zip")


def test_encrypted_and_hidden_names(tmp_path: Path) -> None:
    raw = make(tmp_path / "a.zip", {"secret.txt": b"x"}).read_bytes()
    for place in (raw.rindex(b"PK\x03\x04") + 6, raw.rindex(b"PK\x01\x02") + 8):
        raw = raw[:place] + bytes([raw[place] | 1]) + raw[place + 1 :]
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(DataError, match=r"encrypted.*Unpack it yourself"):
        unpack(tmp_path / "b.zip", "b.zip")
    raw = make(tmp_path / "c.zip", {"ab/cd": b"x"}).read_bytes().replace(b"ab/cd", b"a\x00/cd")
    (tmp_path / "c.zip").write_bytes(raw)
    with pytest.raises(DataError, match="plain text"):
        unpack(tmp_path / "c.zip", "c.zip")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_bombs(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    path = make(tmp_path / f"a.{kind}", {"zeros": b"\0" * (8 << 20)})
    with pytest.raises(DataError, match="200 times its"):
        unpack(path, path.name)
    assert left_behind() == []
    monkeypatch.setattr(archives, "MAX_RATIO", 1 << 20)
    assert set(held(unpack(path, path.name))) == {"zeros"}
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 22)
    (cache_folder() / "archives").rename(tmp_path / "old")
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(path, path.name)


def test_a_header_that_lies_about_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    raw = bytearray(make(tmp_path / "a.zip", {"zeros": b"\0" * (8 << 20)}).read_bytes())
    place = raw.rindex(b"PK\x01\x02") + 24
    raw[place : place + 4] = (10).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(DataError):
        unpack(tmp_path / "b.zip", "b.zip")
    assert left_behind() == []


def test_too_many_members_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    for name in ("many.zip", "many.tar.gz"):
        with pytest.raises(DataError, match="more than 20 members"):
            unpack(make(tmp_path / name, {f"f{i}": b"" for i in range(21)}), name)
        with pytest.raises(DataError, match="holds no file"):
            unpack(make(tmp_path / f"none-{name}", {}), name)


def test_a_tar_header_cannot_ask_for_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf())
        file.write(b"\0" * (1 << 20))
    with pytest.raises(DataError, match="damaged archive"):
        unpack(tmp_path / "a.tar.gz", "a.tar.gz")


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(Path, "rename", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unpack(path, "a.zip")
    assert left_behind() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    cache_folder().mkdir()
    cache_folder().chmod(0o500)
    with pytest.raises(StorageError, match="TASKMILL_CACHE"):
        unpack(make(tmp_path / "a.zip", FILES), "a.zip")


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    cache_folder().write_text("x")
    with pytest.raises(StorageError, match="TASKMILL_CACHE"):
        unpack(make(tmp_path / "a.zip", FILES), "a.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_archives_raise_only_our_errors(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = make(tmp_path / name, FILES).read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        piece = data.draw(st.binary(max_size=6) | st.just(content[end : end + 40]))
        content = content[:start] + piece + content[end:]
    (tmp_path / name).write_bytes(content)
    try:
        folder = unpack(tmp_path / name, name)
    except TaskmillError as error:
        assert name in str(error)
    else:
        assert all(p.resolve().is_relative_to(folder) for p in folder.rglob("*"))
    assert {p.name for p in tmp_path.iterdir()} <= {"cache", name}


def test_nothing_in_curation_can_load_code_or_pickles(repository: Path) -> None:
    forbidden = {"pickle", "dill", "joblib", "torch", "datasets", "marshal", "shelve", "runpy", "pandas"}
    calls = {"eval", "exec", "compile", "__import__"}
    for path in sorted((repository / "taskmill" / "curation").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)]
                assert not forbidden & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func)
                assert function not in calls, path
                assert function.split(".")[0] not in ("np", "numpy") or not function.endswith("load"), path
                assert function not in ("yaml.unsafe_load", "yaml.full_load"), path
                assert function not in ("yaml.load", "yaml.safe_load"), path
    assert issubclass(safe_yaml.Loader, yaml.constructor.SafeConstructor)
    assert not issubclass(safe_yaml.Loader, yaml.constructor.FullConstructor)


# --------------------------------------------------------------------------------- damage that passes unseen


def raw_tar(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


TWO = raw_tar(("one.txt", b"1" * 512), ("two.txt", b"2" * 512))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TWO[:1024], "no end mark"),
        (TWO[:1024] + b"x" + TWO[1025:], "no end mark"),
        (TWO[:2048], "no end mark"),
        (TWO[:1024] + b"\0" * 512 + TWO[1536:], "behind its end mark"),
        (TWO + TWO, "behind its end mark"),
        (TWO[:1300], "damaged"),
    ],
    ids=["cut between members", "broken header", "no mark", "zeroed header", "two in a row", "cut"],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_no_member_of_a_tar_is_lost_unseen(
    tmp_path: Path, content: bytes, problem: str, compress: Callable[[bytes], bytes]
) -> None:
    name = "a.tar" if compress is bytes else "a.tar.gz"
    (tmp_path / name).write_bytes(compress(content))
    with pytest.raises(DataError, match=rf"{name}.*{problem}.*Fetch it again"):
        unpack(tmp_path / name, name)
    assert left_behind() == []


def test_the_checksum_of_a_compressed_tar_is_looked_at(tmp_path: Path) -> None:
    stored = bytearray(gzip.compress(TWO, 0))
    stored[stored.index(b"1" * 512) + 9] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(stored)
    with pytest.raises(DataError, match=r"a\.tar\.gz.*CRC"):
        unpack(tmp_path / "a.tar.gz", "a.tar.gz")
    assert left_behind() == []


@pytest.mark.parametrize(
    "name",
    ["a" * 256, "ä" * 128, "/".join(["d" * 100] * 11), "/".join("x" * 65)],
    ids=["part", "bytes", "whole", "depth"],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_no_file_can_have(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(DataError, match="too long or has too many folders"):
        unpack(make(tmp_path / f"a.{kind}", {"good": b"x", name: b"x"}), f"a.{kind}")
    assert left_behind() == []


@pytest.mark.parametrize(
    "pair",
    [
        ("\u00e9.txt", "e\u0301.txt"),
        ("\ufb01.txt", "fi.txt"),
        ("stra\u00dfe.txt", "STRASSE.txt"),
        ("x", "x/y"),
        ("x/y", "x"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_some_file_systems_hold_for_one(tmp_path: Path, kind: str, pair: tuple[str, str]) -> None:
    with pytest.raises(DataError, match="collides with"):
        unpack(make(tmp_path / f"a.{kind}", dict.fromkeys(pair, b"x")), f"a.{kind}")


@pytest.mark.parametrize("name", ["..", "a/..", "./../x", "a/b/../../../x", "\\\\server\\x", "D:\\x"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_every_way_out(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(DataError, match="outside"):
        unpack(make(tmp_path / f"a.{kind}", {name: b"x"}), f"a.{kind}")
    assert left_behind() == []


def test_a_sparse_tar_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("holes")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10240)
    with pytest.raises(DataError, match=r"a\.tar"):
        unpack(tmp_path / "a.tar", "a.tar")
    assert left_behind() == []


def test_overlapping_members_of_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", b"\0" * (1 << 19))
        first = archive.infolist()[0]
        for number in range(1, 400):  # every name shares the bytes of the first
            other = zipfile.ZipInfo("0")
            for slot in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, slot, getattr(first, slot))
            other.filename = other.orig_filename = str(number)
            archive.filelist.append(other)
    with pytest.raises(DataError, match=r"a\.zip"):
        unpack(tmp_path / "a.zip", "a.zip")
    assert left_behind() == []


def test_wrong_checksums_and_archives_in_archives(tmp_path: Path) -> None:
    raw = bytearray(make(tmp_path / "a.zip", {"t": b"x" * 40}).read_bytes())
    place = raw.rindex(b"PK\x01\x02") + 16
    raw[place] ^= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match="CRC"):
        unpack(tmp_path / "a.zip", "a.zip")
    inner = make(tmp_path / "inner.zip", {"t": b"x"}).read_bytes()
    assert held(unpack(make(tmp_path / "outer.zip", {"inner.zip": inner}), "outer.zip")) == {
        "inner.zip": inner
    }


def test_permissions_of_members_are_not_taken_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.mtime = kind, 0o4000, 12345, 1 << 62
            archive.addfile(member)
    file = unpack(tmp_path / "a.tar", "a.tar") / "d" / "f"
    assert file.stat().st_uid == os.getuid() and not file.stat().st_mode & (stat.S_ISUID | 0o111)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    )
    with pytest.raises(DataError, match=r"up/a\.zip: a pointer of Git LFS.*git lfs pull"):
        unpack(tmp_path / "a.zip", "up/a.zip")


def test_a_member_of_less_than_no_bytes(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("less").tobuf())
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"\0" * 10240)
    with pytest.raises(DataError, match="a member of -1 bytes"):
        unpack(tmp_path / "a.tar", "a.tar")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_killed_while_unpacking_and_two_at_once(tmp_path: Path, repository: Path, name: str) -> None:
    files = {f"d{i % 7}/{i:04}.txt": bytes([i % 251]) * 3000 for i in range(1500)}
    path = make(tmp_path / name, files)
    code = f"from pathlib import Path\nfrom taskmill.curation.places.archives import unpack\nunpack(Path({str(path)!r}), 'a')"
    environment = {**os.environ, "PYTHONPATH": str(repository)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], env=environment)

    for _ in range(2):
        killed = start()
        while killed.poll() is None and not list((cache_folder() / "archives").glob("*.tmp/d3/*5.txt")):
            pass
        killed.kill()
        killed.wait()
        assert not list((cache_folder() / "archives").glob("*.json"))
    both = [start(), start()]
    assert [process.wait() for process in both] == [0, 0]
    assert held(unpack(path, "a")) == files
    assert not list((cache_folder() / "archives").glob("*.tmp"))
