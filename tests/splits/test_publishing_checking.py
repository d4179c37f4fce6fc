"""Whether `verify` names every byte that was changed in a published benchmark, and survives what others may write as one."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_run import inputs_of, make_benchmark_run

from taskmill import recipe_files
from taskmill.errors import DamagedError, UsageError
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.checking import verify_published
from taskmill.splits.publishing.published import MANIFEST, open_published, rows_root
from taskmill.splits.publishing.writing.folder import write_manifest, write_published, write_table
from taskmill.splits.publishing.writing.manifest import PublishPlan
from taskmill.storage import FileEntry, canonical_json, digest

Body = dict[str, Any]
NUM_FLIPS = 1_000
NUM_IN_MANIFEST = 400


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checking")
    run = make_benchmark_run(folder, "render")
    resolved = recipe_files.from_json(run)
    values = recipe_files.resolved_json(resolved)["values"]
    recipe = (values, {"recipe/recipe.json": b'{"values": 1}\n', "recipe/old.parquet": b"no table"})
    plan = PublishPlan(with_data=True)
    words = {"README.md": b"# quays\n" * 40, "croissant.json": b"{}\n" * 40}
    made = write_published(inputs_of(run), resolved, folder / "made", plan, recipe, lambda body: words, {})
    return made.folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "published"))


def only_problem(folder: Path) -> str:
    problems, _ = verify_published(folder)
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    return problems[0]


def test_an_intact_benchmark_has_no_problem(folder: Path) -> None:
    number = len([path for path in folder.rglob("*") if path.is_file()])
    assert verify_published(folder) == ([], number)
    assert verify_published(folder / MANIFEST) == ([], number)
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (folder / "LICENSE").write_text("MIT")
    assert verify_published(folder)[0] == []


def test_every_flip_of_a_bit_is_named_by_its_file(folder: Path) -> None:
    chance = random.Random(8)
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = files.pop(folder / MANIFEST)
    num_flips = 0
    while num_flips < NUM_FLIPS - NUM_IN_MANIFEST:  # one in each file at a time
        for path, data in files.items():
            path.write_bytes(flipped(data, chance))
            num_flips += 1
        problems, _ = verify_published(folder)
        assert len(problems) == len(files) and not any("\n" in line for line in problems)
        assert all(any(line.startswith(f"{path}: ") for line in problems) for path in files)
    for path, data in files.items():
        path.write_bytes(data)
    for _ in range(NUM_IN_MANIFEST):
        (folder / MANIFEST).write_bytes(flipped(manifest, chance))
        assert only_problem(folder).startswith(str(folder / MANIFEST))
    (folder / MANIFEST).write_bytes(manifest)
    assert verify_published(folder)[0] == []


def flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def test_every_truncation_is_named_by_its_file(folder: Path) -> None:
    chance = random.Random(9)
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = files.pop(folder / MANIFEST)
    for cut in (lambda size: 0, lambda size: size - 1, chance.randrange):
        for path, data in files.items():
            path.write_bytes(data[: cut(len(data))])
        problems, _ = verify_published(folder)
        assert [line.split(": ")[0] for line in problems] == [str(path) for path in files]
    for size in (0, len(manifest) - 1, len(manifest) // 2):
        (folder / MANIFEST).write_bytes(manifest[:size])
        assert only_problem(folder).startswith(str(folder / MANIFEST))


def test_a_damaged_page_is_named_with_its_rows_and_column(folder: Path) -> None:
    path = folder / "ids" / "train" / "train.parquet"
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(PUBLISHED["ids"].get_field_index("content"))
        start, size = column.dictionary_page_offset, column.total_compressed_size
    data = path.read_bytes()
    middle = start + size // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    line = only_problem(folder)
    first = pq.read_table(folder / "ids" / "train" / "train.parquet", columns=["example"])["example"][0]
    assert f"rows 0 to {len(pq.read_table(path, columns=['task'])) - 1}, from example {first}" in line
    assert "column 'content'" in line


def test_files_that_are_missing_or_too_much_are_named(folder: Path) -> None:
    (folder / "tables" / "drops.parquet").unlink()
    (folder / "ids" / "train" / "extra.parquet").write_bytes(b"PAR1")
    (folder / "recipe" / "note.txt").write_text("mine")
    shutil.rmtree(folder / "data" / "held_out")
    problems, _ = verify_published(folder)
    assert problems == [
        f"{folder}/data/held_out/test-00000-of-00001.parquet: missing",
        f"{folder}/tables/drops.parquet: missing",
        f"{folder}/ids/train/extra.parquet: not in the manifest",
        f"{folder}/recipe/note.txt: not in the manifest",
    ]


def test_a_file_that_another_library_wrote_anew_is_told_from_one_with_other_rows(folder: Path) -> None:
    path = folder / "tables" / "tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, compression="snappy")
    assert only_problem(folder).endswith("its rows are the same")
    pq.write_table(table.slice(1), path)
    assert only_problem(folder).endswith(f"{len(table) - 1} rows, the manifest says {len(table)}")
    pq.write_table(table.drop(["license"]), path)
    assert "other columns" in only_problem(folder)


def test_rows_that_do_not_fit_their_digest_are_a_problem_whatever_the_bytes(folder: Path) -> None:
    table = pq.read_table(folder / "tables" / "templates.parquet")
    entry = write_table(folder, "tables/templates.parquet", table.cast(PUBLISHED["templates"]))
    changed = {**vars(entry), "rows": digest("other rows")}
    rewrite(folder, lambda body: body["files"].__setitem__(place(body, entry.path), changed))
    lines, _ = verify_published(folder)
    assert lines[0] == f"{folder}/tables/templates.parquet: rows differ from what the manifest says"
    assert lines[1:] == [f"{folder}/manifest.json: root is not that of the files below ids/ and tables/"]


@pytest.mark.parametrize("kind", ["file", "folder", "top", "pipe", "directory"])
def test_nothing_behind_a_link_is_read(folder: Path, tmp_path: Path, kind: str) -> None:
    outside = Path(shutil.copytree(folder, tmp_path / "outside"))
    if kind == "file":
        path = folder / "README.md"
        path.unlink()
        path.symlink_to(outside / "README.md")
    elif kind in ("folder", "top"):
        path = folder / "ids" / ("train" if kind == "folder" else "")
        shutil.rmtree(path)
        path.symlink_to(outside / path.relative_to(folder))
    else:
        path = folder / "README.md"
        path.unlink()
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
    problems, _ = verify_published(folder)
    assert problems and all("a link" in line or "not a file" in line or "not in" in line for line in problems)
    assert any(line.startswith(str(path)) for line in problems)
    unread = [
        entry.path for entry in open_published(folder).files if (folder / entry.path).is_relative_to(path)
    ]
    for name in unread:
        expected = "not a file" if kind in ("pipe", "directory") else "a link"
        assert any(line.startswith(f"{folder / name}: {expected}") for line in problems), name
    assert unread


# ----------------------------------------------------------------------------------- hostile manifests


def place(body: Body, path: str) -> int:
    return [entry["path"] for entry in body["files"]].index(path)


def rewrite(folder: Path, change: Callable[[Body], object]) -> None:
    """Change the manifest and give it the digest that fits, as anybody can."""
    body = json.loads((folder / MANIFEST).read_bytes())
    change(body)
    write_manifest(folder, body)


def first_path(path: object) -> Callable[[Body], object]:
    return lambda body: body["files"][0].update(path=path)


MISSHAPEN: dict[str, Callable[[Body], object]] = {
    "leads out": first_path("../../../etc/passwd"),
    "leads out in the middle": first_path("ids/../../secret"),
    "absolute": first_path("/etc/passwd"),
    "a drive": first_path("C:/secret"),
    "back slashes": first_path("ids\\..\\..\\secret"),
    "a line feed": first_path("README.md\nall is well"),
    "a null": first_path("README\x00.md"),
    "half a surrogate": first_path("\ud800"),
    "a long name": first_path("a" * 5_000),
    "no name": first_path(""),
    "itself": first_path(MANIFEST),
    "a number for a name": first_path(7),
    "a file twice": lambda body: body["files"].append(body["files"][-1]),
    "not sorted": lambda body: body["files"].reverse(),
    "an unknown key": lambda body: body["files"][0].update(mode="0777"),
    "a key less": lambda body: body["files"][0].pop("rows"),
    "a file that is no object": lambda body: body["files"].append("README.md"),
    "a huge number": lambda body: body["files"][0].update(bytes=10**400),
    "a negative number": lambda body: body["files"][0].update(bytes=-1),
    "a truth value": lambda body: body["files"][0].update(bytes=True),
    "a fraction": lambda body: body["files"][0].update(num_rows=1.5),
    "no digest": lambda body: body["files"][0].update(sha256="../x"),
    "files that are no list": lambda body: body.update(files={"README.md": 1}),
    "no levels": lambda body: body.pop("levels"),
    "levels of text": lambda body: body["levels"].update(train="many"),
    "a name that is a list": lambda body: body.update(name=["quays"]),
    "sources without files": lambda body: body["sources"][0].pop("files"),
    "a recipe whose sources are text": lambda body: body["recipe"].update(sources=["/etc"]),
    "deeply nested": lambda body: body.update(name=nested(200)),
}
"""Changes after which a manifest is refused before any file that it names is looked at."""

UNTRUE: dict[str, Callable[[Body], object]] = {
    "no files": lambda body: body.update(files=[]),
    "levels that count wrong": lambda body: body["levels"]["train"].update(train=1),
    "another root": lambda body: body.update(root="0" * 64),
    "another recipe": lambda body: body["recipe"].update(seed=99),
    "a table that nobody knows": lambda body: body["files"].append(
        {**body["files"][-1], "path": "tables/zz.parquet"}
    ),
    "a table less": lambda body: body["files"].pop(place(body, "tables/pairs.parquet")),
    "a digest of rows of a text": lambda body: body["files"][0].update(rows="0" * 64),
    "another root of prompts": lambda body: body.update(prompts_root="0" * 64),
    "no root of prompts": lambda body: body.update(prompts_root=None),
    "another mode": lambda body: body.update(mode="ids-only"),
    "a table less and the root that fits": lambda body: (
        body["files"].pop(place(body, "tables/pairs.parquet")),
        body.update(root=rows_root([FileEntry(**entry) for entry in body["files"]], "ids", "tables")),
    ),
}
"""Changes after which a manifest says what is not so."""


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", [*MISSHAPEN, *UNTRUE])
def test_a_hostile_manifest_is_refused_in_one_line(folder: Path, name: str) -> None:
    if name in MISSHAPEN:
        rewrite_anyway(folder, MISSHAPEN[name])
        with pytest.raises(DamagedError, match="is not a manifest that Taskmill writes"):
            open_published(folder)
    else:
        rewrite_anyway(folder, UNTRUE[name])
    problems, _ = verify_published(folder)
    assert problems and all("\n" not in line and len(line) < 600 for line in problems)
    manifest = [line for line in problems if line.startswith(str(folder / MANIFEST))]
    assert manifest or "a digest of rows" in name


def rewrite_anyway(folder: Path, change: Callable[[Body], object]) -> None:
    """Write a manifest that `open_published` may refuse."""
    body = json.loads((folder / MANIFEST).read_bytes())
    change(body)
    plain = {key: value for key, value in body.items() if key != "digest"}
    (folder / MANIFEST).write_bytes(canonical_json({**plain, "digest": digest(plain)}) + b"\n")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null\n",
        b"[]\n",
        b'{"format": "taskmill-benchmark"}\n',
        b'{"format": "taskmill-benchmark", "version": 2}\n',
        b'{"format": "taskmill-benchmark", "version": true}\n',
        b'{"format": "taskmill-benchmark", "version": 1e999}\n',
        b'{"format": "taskmill-benchmark", "version": 1, "digest": 1}\n',
        b'{"format": "taskmill-benchmark", "version": 1, "x": NaN, "digest": 1}\n',
        b'{"format": "taskmill-benchmark", "version": 1, "x": 1e999, "digest": ""}\n',
        b'{"format": "taskmill-benchmark", "version": ' + b"9" * 5_000 + b"}\n",
        b'{"format": "taskmill-benchmark", "version": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        b'{"format": "taskmill-benchmark", "version": 1, "x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}\n",
        b"\xff\xfe\x00",
    ],
    ids=range(14),
)
def test_what_is_no_manifest_is_refused_in_one_line(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    assert str(folder / MANIFEST) in only_problem(folder)
    with pytest.raises((DamagedError, UsageError)):
        open_published(folder)


def test_keys_that_are_there_twice_are_no_canonical_json(folder: Path) -> None:
    text = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(text[:-2] + b',"name":"quays"}\n')
    assert "changed after it was written" in only_problem(folder)
    (folder / MANIFEST).write_bytes(json.dumps(json.loads(text), indent=1).encode())
    assert "changed after it was written" in only_problem(folder)


def test_a_parquet_file_of_strange_columns_is_refused_before_its_rows_are_read(folder: Path) -> None:
    path = folder / "tables" / "pairs.parquet"
    strange = pa.table({"x": pa.array([{"a": [{"b": 1}]}]), "y": pa.array([b"1"], pa.binary(1))})
    pq.write_table(strange, path)
    body = json.loads((folder / MANIFEST).read_bytes())
    sha256 = __import__("hashlib").sha256(path.read_bytes()).hexdigest()
    entry = body["files"][place(body, "tables/pairs.parquet")]
    entry.update(bytes=path.stat().st_size, sha256=sha256)
    rewrite(folder, lambda found: found.update(files=body["files"]))
    assert f"{path}: other columns than a published benchmark has there: x, y" in verify_published(folder)[0]


def test_a_folder_without_manifest_is_no_benchmark(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).unlink()
    for place in (folder, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="is no published benchmark"):
            verify_published(place)
