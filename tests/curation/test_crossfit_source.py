"""CrossFit: few-shot files, choices, task partitions, damage."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from mutations import mutated
from native_files import folder, read_all, write

from taskmill.curation.reader import load_reader
from taskmill.errors import DataError, TaskmillError

FILES: dict[str, str | bytes] = {
    "cf/data/tides/tides_16_13_train.tsv": "When?\tat noon\n",
    "cf/data/boats/boats_16_13_train.tsv": "Which? (A) Tern (B) Gull\tGull\n",
    "cf/data/boats/boats_16_21_dev.tsv": "What?\tone\ttwo\n",
    "cf/data/boats/boats_16_13_test.tsv": "Where?\there\n",
    "cf/data/boats/notes.tsv": "not a few-shot file\n",
    "cf/custom_tasks_splits/random.json": json.dumps(
        {"train": ["boats", "moons"], "dev": ["tides"], "test": []}
    ),
}


def test_splits_seeds_and_choices(tmp_path: Path) -> None:
    found = read_all("crossfit", folder(write(tmp_path, FILES), "cf/data"))
    columns = found["boats"].columns
    assert columns.fields == [{"text": "Where?"}, {"text": "Which? (A) Tern (B) Gull"}, {"text": "What?"}]
    assert columns.references == [["here"], ["Gull"], ["one", "two"]]
    assert columns.upstream_split == ["test", "train", "validation"]
    assert columns.options == [None, ["Tern", "Gull"], None]
    assert found["boats"].facts["metadata"] == {"shape": "text", "seeds": [13, 21]}
    assert "upstream_role" not in found["boats"].facts


@pytest.mark.parametrize("partition", ["random", "../custom_tasks_splits/random.json"])
def test_a_partition_gives_tasks_their_roles(
    tmp_path: Path, partition: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="taskmill"):
        found = read_all("crossfit", folder(write(tmp_path, FILES), "cf/data", partition=partition))
    assert {name: data.facts["upstream_role"] for name, data in found.items()} == {
        "boats": "train",
        "tides": "validation",
    }
    assert found["tides"].facts["metadata"]["partition"] == "random"
    assert "1 tasks of the partition random have no files: moons" in caplog.text


@pytest.mark.parametrize(
    ("content", "partition", "message"),
    [
        (b"{}", "randon", "did you mean 'random'"),
        (b"{}", 3, "name of a partition"),
        (b"[]", "random", "not a task partition"),
        (b'{"train": [1]}', "random", "field 'train'"),
        (b"{", "random", "not valid JSON"),
        (b"", "random", "empty"),
    ],
)
def test_partitions_that_are_none(tmp_path: Path, content: bytes, partition: object, message: str) -> None:
    write(tmp_path, {**FILES, "cf/custom_tasks_splits/random.json": content})
    with pytest.raises(TaskmillError, match=message):
        load_reader("crossfit").discover(folder(tmp_path, "cf/data", partition=partition))


@pytest.mark.parametrize(
    ("content", "reason", "kept"),
    [
        (b"a\tb\nno output\n", "wrong_columns", 1),
        (b"a\tb\n\xff\tb\n", "bad_encoding", 1),
        (b"", "empty_file", 0),
    ],
)
def test_damage(tmp_path: Path, content: bytes, reason: str, kept: int) -> None:
    write(tmp_path, {"cf/q/q_16_13_train.tsv": content})
    with pytest.raises(DataError, match="q_16_13_train"):
        read_all("crossfit", folder(tmp_path, "cf"))
    (data,) = read_all("crossfit", folder(tmp_path, "cf", on_error="skip")).values()
    assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == kept


def test_mutated_records_are_kept_or_kept_aside(tmp_path: Path) -> None:
    seeds = [b"Which? (A) Tern (B) Gull\tGull", b"What?\tone\ttwo"]
    changed = [line for line in mutated(seeds, 10_000, 7) if line]
    write(tmp_path, {"cf/q/q_16_13_train.tsv": b"\n".join(changed)})
    (data,) = read_all("crossfit", folder(tmp_path, "cf", on_error="skip")).values()
    assert len(data.columns) + len(data.aside) == len(changed) and len(data.aside) > 100


def test_real_partitions(shared_data: Path, tmp_path: Path) -> None:
    """Upstream's repository has the partitions only; a file of ours stands in for the tasks."""
    root = shared_data / "crossfit/custom_tasks_splits"
    for path in sorted(root.glob("*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = {"train": "train", "dev": "validation", "test": "test"}
        wanted = {task: role for key, role in names.items() for task in raw[key]}
        twice = set(raw["train"]) & set(raw["dev"])
        assert twice == ({"sick"} if path.stem == "train_non_nli_test_nli" else set())
        some = sorted({*sorted(wanted)[::15], *twice})
        write(tmp_path / path.stem, {f"{task}/{task}_16_13_train.tsv": "a\tb\n" for task in some})
        found = read_all("crossfit", folder(tmp_path / path.stem, partition=str(path)))
        assert {name: data.facts["upstream_role"] for name, data in found.items()} == {
            t: wanted[t] for t in some
        }
