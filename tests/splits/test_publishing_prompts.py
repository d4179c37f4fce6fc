"""The prompts of a published benchmark: those of the run, by level and split, of tasks whose licence allows it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_run import inputs_of, make_benchmark_run
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import recipe_files
from taskmill.records import PUBLISHED, SEGMENT_KINDS
from taskmill.splits.publishing.published import data_path
from taskmill.splits.publishing.writing import prompts_table
from taskmill.splits.publishing.writing.manifest import allowed_tasks
from taskmill.splits.publishing.writing.prompts_table import input_and_output, write_prompts
from taskmill.splits.publishing.writing.tables import published_tables
from taskmill.storage import FileEntry

KINDS = [kind for kind in SEGMENT_KINDS if kind != "control"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_benchmark_run(tmp_path_factory.mktemp("prompts"), "render")


def written(run: Path, folder: Path, *licenses: str) -> list[FileEntry]:
    inputs = inputs_of(run)
    tasks = published_tables(inputs, recipe_files.from_json(run))["tables/tasks.parquet"]
    return write_prompts(inputs, tasks, allowed_tasks(tasks, lambda license: license in licenses), folder)


def rows_of(folder: Path, entries: list[FileEntry]) -> list[dict]:
    return [row for entry in entries for row in pq.read_table(folder / entry.path).to_pylist()]


def prompts_of(run: Path) -> list[dict]:
    paths = sorted((run / "prompts" / "prompts").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_prompts_are_those_of_the_run_in_its_order(run: Path, tmp_path: Path) -> None:
    entries = written(run, tmp_path, "CC-BY-4.0", "MIT", "CC-BY-NC-4.0", "unknown")
    wanted = [
        {
            **{key: value for key, value in row.items() if key != "joint"},
            "prompt": row["prompt"].hex(),
            "kinds": [SEGMENT_KINDS[kind] for kind in row["kinds"]],
        }
        for row in prompts_of(run)
    ]
    found = rows_of(tmp_path, entries)
    for entry in entries:
        _, configuration, name = entry.path.split("/")
        split = name.split("-")[0]
        mine = [r for r in wanted if (r["level"] or "train") == configuration and r["split"] == split]
        rows = pq.read_table(tmp_path / entry.path).to_pylist()
        assert [{key: row[key] for key in mine[0]} for row in rows] == mine
        assert pq.read_schema(tmp_path / entry.path).remove_metadata().names == PUBLISHED["prompts"].names
    assert len(found) == len(wanted) > 0
    assert {entry.path for entry in entries} == {
        data_path("held_out", "test", 0, 1),
        data_path("supervised", "test", 0, 1),
        data_path("supervised", "train", 0, 1),
        data_path("train", "train", 0, 1),
    }


def test_input_and_output_are_what_is_asked_and_what_carries_loss(run: Path, tmp_path: Path) -> None:
    for row in rows_of(tmp_path, written(run, tmp_path, "CC-BY-4.0", "MIT")):
        assert row["text"] == row["input"] + row["output"] + "{eos}"
        assert row["output"].strip() == row["references"][0]
        assert row["input"].startswith(("Write down what", "Say it in"))


def test_prompts_of_other_licences_stay_out(run: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, written(run, tmp_path, "MIT"))
    assert {row["task"] for row in rows} == {"other/logs"} and {row["license"] for row in rows} == {"MIT"}
    assert {row["category"] for row in rows} == {"Summarization"}
    assert written(run, tmp_path / "none", "Apache-2.0") == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("size", [1, 5_000])
def test_files_are_cut_by_the_rows_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    whole = rows_of(tmp_path / "whole", written(run, tmp_path / "whole", "CC-BY-4.0", "unknown"))
    monkeypatch.setattr(prompts_table, "SHARD_BYTES", size)
    monkeypatch.setattr(prompts_table, "_BATCH", 7)
    entries = written(run, tmp_path / "cut", "CC-BY-4.0", "unknown")
    assert rows_of(tmp_path / "cut", entries) == whole
    monkeypatch.setattr(prompts_table, "_BATCH", 1_000)
    assert written(run, tmp_path / "again", "CC-BY-4.0", "unknown") == entries
    for entry in entries:
        rows = pq.read_table(tmp_path / "cut" / entry.path)["text"].to_pylist()
        assert sum(len(text.encode()) for text in rows[:-1]) < size
        stem, _, count = entry.path.removesuffix(".parquet").rpartition("-of-")
        assert len([e for e in entries if e.path.startswith(stem[:-5])]) == int(count)
    assert len(entries) > (3 if size < 5_000 else 2)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_that_is_filled_to_the_byte_is_full(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(tmp_path / "whole", written(run, tmp_path / "whole", "MIT"))
    monkeypatch.setattr(prompts_table, "SHARD_BYTES", len(whole[0]["text"].encode()))
    entries = written(run, tmp_path / "cut", "MIT")
    assert entries[0].num_rows == 1 and entries[0].path == data_path("held_out", "test", 0, len(entries))
    assert rows_of(tmp_path / "cut", entries) == whole


@settings(max_examples=100)
@given(st.lists(st.tuples(st.text(), st.sampled_from(KINDS), st.booleans()), min_size=1))
def test_sides_are_cut_at_the_first_text_with_loss(segments: list[tuple[str, str, bool]]) -> None:
    texts = [text.encode("utf-8", "replace") for text, _, _ in segments]
    ends, row = 0, {"ends": [], "kinds": [], "trained": []}
    for text, (_, kind, trained) in zip(texts, segments):
        ends += len(text)
        row["ends"].append(ends)
        row["kinds"].append(SEGMENT_KINDS.index(kind))
        row["trained"].append(trained)
    flags = [trained for _, _, trained in segments]
    first = flags.index(True) if True in flags else len(flags)
    found = input_and_output({**row, "text": b"".join(texts).decode()})
    assert found == (
        b"".join(texts[:first]).decode(),
        b"".join(text for text, flag in zip(texts, flags) if flag).decode(),
    )


def test_symbols_of_tokens_are_in_neither_side_and_marks_of_a_format_are() -> None:
    texts = ["{bos}", "<user>", "ask {eos}", "{eos}", "<bot>", "say", "{eos}"]
    kinds = ["control", "control", "user", "control", "control", "assistant", "control"]
    row = {
        "text": "".join(texts),
        "ends": [sum(map(len, texts[: place + 1])) for place in range(len(texts))],
        "kinds": [SEGMENT_KINDS.index(kind) for kind in kinds],
        "trained": [False] * 5 + [True] * 2,
    }
    assert input_and_output(row) == ("<user>ask {eos}<bot>", "say")


def test_no_place_of_this_machine_is_a_name_of_a_format() -> None:
    names = ["plain", "/home/ann/formats/mine.yaml", "../formats/mine.yaml", "formats/mine.yaml"]
    assert [prompts_table._plain_name(name) for name in names] == [
        "plain",
        "mine.yaml",
        "mine.yaml",
        "formats/mine.yaml",
    ]
    assert pa.types.is_string(PUBLISHED["prompts"].field("format").type)
