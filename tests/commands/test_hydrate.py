"""`taskmill rebuild --hydrate`: the published rows with their texts, as `load_dataset` reads them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from published_run import forge
from running import call

from taskmill.commands.publishing import hydrating
from taskmill.commands.publishing.hydrating import EXAMPLES, TEXTS, hydrate
from taskmill.errors import DamagedError
from taskmill.splits.publishing.published import Published, open_published
from taskmill.storage import canonical_json

RECIPE = """\
name: bay
data_root: data
sources:
  - {reader: table, path: forms.jsonl, benchmark: bay, options: {task: forms, category: Text Categorization, CAST, OPTIONS}}
  - {reader: table, path: boats.jsonl, benchmark: bay-2, options: {task: boats, category: Title Generation, CAST}}
  - {reader: table, path: logs.jsonl, benchmark: bay, options: {task: logs, category: Summarization, CAST}}
plan:
  held_out: {categories: [Summarization]}
  supervised: [bay/forms]
  num_demonstration_groups: 2
split: {near_duplicates: drop}
"""
CAST = "license: CC-BY-NC-4.0, metric: rouge_l, definition: 'Do it.', cast: {fields: {text: text}, references: answer, id: id"
OPTIONS = ", options: {const: [red, blue]}}"


@pytest.fixture(scope="module")
def bay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, the run `run` and its benchmark `published`; files of examples are not in the order of tasks."""
    folder = tmp_path_factory.mktemp("bay")
    (folder / "data").mkdir()
    for name, number in (("forms", 30), ("boats", 12), ("logs", 9)):
        rows = []
        for i in range(number):
            text = " ".join(f"{name}{chr(97 + place)}{i:02d}" for place in range(18)) + " \u00e5\U0001f6a2"
            answer = ("red", "blue")[i % 2] if name == "forms" else f"{name} {i}"
            rows.append(
                {"id": f"{name}{i:02d}", "text": rows[0]["text"] if i == 1 else text, "answer": answer}
            )
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = RECIPE.replace("CAST, OPTIONS", CAST + OPTIONS).replace("CAST", CAST + "}")
    (folder / "recipe.yaml").write_text(recipe)
    from taskmill import api

    api.run(folder / "recipe.yaml", directory=folder / "run", to="split", workers=1)
    api.export_benchmark(folder / "run", folder / "published")
    return folder


def rebuild(
    capsys: pytest.CaptureFixture[str], bay: Path, run: Path, *options: object
) -> tuple[int, str, str]:
    arguments = (bay / "published", "--run", run, "--data-root", bay / "data", "--workers", 1, *options)
    return call(capsys, "rebuild", *map(str, arguments))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ids_of(published: Published) -> dict[str, list[dict[str, Any]]]:
    """Return the published rows by path below ids/."""
    folder = published.folder / "ids"
    return {
        p.relative_to(folder).as_posix(): pq.read_table(p).to_pylist()
        for p in sorted(folder.rglob("*.parquet"))
    }


def check_rows(folder: Path, published: Published) -> list[dict[str, Any]]:
    """Check that a hydrated folder has the published rows and the texts that their digests are of; returns all rows."""
    expected, found = ids_of(published), []
    paths = sorted(
        p.relative_to(folder / EXAMPLES).as_posix() for p in (folder / EXAMPLES).rglob("*.parquet")
    )
    assert paths == sorted(expected)
    for path in paths:
        rows = pq.read_table(folder / EXAMPLES / path).to_pylist()
        assert [{k: v for k, v in row.items() if k not in TEXTS} for row in rows] == expected[path], path
        for row in rows:
            whole = {**{name: row[name] for name in TEXTS}, "fields": json.loads(row["fields"])}
            assert hashlib.sha256(canonical_json(whole)).hexdigest() == row["content"], row
        found += rows
    return found


def test_the_published_rows_with_their_texts(
    bay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts"
    code, out, err = rebuild(capsys, bay, tmp_path / "run", "--hydrate", texts)
    assert code == 0, err
    assert f"{texts} holds the same rows with their texts, of every licence; it is not for publishing" in out
    assert f'load_dataset("{texts}", "held_out")' in out
    published = open_published(bay / "published")
    rows = check_rows(texts, published)
    assert len(rows) == 51 and {row["split"] for row in rows} >= {
        "train",
        "test",
        "demonstration",
        "excluded",
    }
    upstream = {
        (f"{name}.jsonl", number): json.loads(line)
        for name in ("forms", "boats", "logs")
        for number, line in enumerate((bay / f"data/{name}.jsonl").read_text().splitlines())
    }
    for row in rows:
        raw = upstream[row["file"], row["record"]]
        assert json.loads(row["fields"]) == {"text": raw["text"]} and row["references"] == [raw["answer"]]
        assert row["options"] == (["red", "blue"] if row["task"] == "bay/forms" else None)
    card = (texts / "README.md").read_text(encoding="utf-8")
    assert "**Not for publishing.**" in card and published.root in card and "CC-BY-NC-4.0" in card

    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = datasets.get_dataset_config_names(str(texts))
    assert (
        names
        == datasets.get_dataset_config_names(str(bay / "published"))
        == ["held_out", "supervised", "train"]
    )
    for name in names:
        ids, loaded = (
            datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"))
            for folder in (bay / "published", texts)
        )
        assert list(ids) == list(loaded)
        for split in ids:
            assert loaded[split].remove_columns(list(TEXTS)).to_list() == ids[split].to_list()


def test_again_and_after_a_kill_it_has_the_same_bytes(
    bay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, run, texts = open_published(bay / "published"), bay / "run", tmp_path / "texts"
    body = hydrate(published, run, texts)
    assert body["counts"] == {"examples": 51} and body["of"]["root"] == published.root
    first = contents(texts)
    (texts / "export.json").unlink()
    (texts / EXAMPLES / "held_out/.test.parquet.77.tmp").write_text("half")
    (texts / EXAMPLES / "held_out/test.parquet").write_text("half")
    (texts / EXAMPLES / "partial").mkdir()
    (texts / EXAMPLES / "partial/test.parquet").write_text("of another version")
    hydrate(published, run, texts)
    assert contents(texts) == first
    monkeypatch.setattr(hydrating, "_BATCH", 2)
    monkeypatch.setattr(hydrating, "ROW_GROUP", 7)
    hydrate(published, run, texts)
    assert pq.ParquetFile(texts / EXAMPLES / "supervised/train.parquet").num_row_groups > 1
    check_rows(texts, published)


def test_a_folder_that_is_not_ours_is_refused_before_anything_is_built(
    bay: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for folder, said in (
        (tmp_path / "mine", "holds 'notes.txt'"),
        (bay / "published", "another kind of export"),
        (tmp_path / "run/tasks/texts", "which its stage sweeps"),
    ):
        code, _, err = rebuild(capsys, bay, tmp_path / "run", "--hydrate", folder)
        assert code == 2 and said in err
    assert not (tmp_path / "run").exists() and contents(tmp_path / "mine") == {"notes.txt": b"mine"}


def test_other_rows_get_no_texts(bay: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def other(folder: Path, body: dict[str, Any]) -> None:
        path = folder / "ids/held_out/test.parquet"
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path)

    forged = forge(bay / "published", tmp_path / "forged", other)
    arguments = ("--run", tmp_path / "run", "--data-root", bay / "data", "--hydrate", tmp_path / "texts")
    code, out, _ = call(capsys, "rebuild", str(forged), *map(str, arguments))
    assert code == 1 and f"{tmp_path / 'texts'} was not written: the rows are others" in out
    assert not (tmp_path / "texts").exists()
    with pytest.raises(DamagedError, match="does not hold the rows that were published"):
        hydrate(open_published(forged), bay / "run", tmp_path / "texts")
    assert not list((tmp_path / "texts").rglob("*.parquet")) and not (tmp_path / "texts/export.json").exists()
    copy = shutil.copytree(bay / "published", tmp_path / "copy")
    table = pq.read_table(copy / "ids/train/train.parquet")
    pq.write_table(table.take([1, 0, *range(2, len(table))]), copy / "ids/train/train.parquet")
    (tmp_path / "texts" / EXAMPLES / ".test.parquet.77.tmp").write_text("of a process that was killed")
    with pytest.raises(DamagedError, match="does not hold the rows"):
        hydrate(open_published(copy), bay / "run", tmp_path / "texts")
    assert not list((tmp_path / "texts").rglob("*.tmp")), "swept before anything is written"
