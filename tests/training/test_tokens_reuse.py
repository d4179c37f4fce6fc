"""What a tokens folder beside the one that is written holds: copied, and never a byte of difference."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokens_run import Segments, build, finish, labelled, row, task_row

pytest.importorskip("tokenizers")

from taskmill.artifact import Manifest, ShardWriter
from taskmill.digests import digest
from taskmill.recipe import Mix, Tokenize
from taskmill.runs import verify_stage
from taskmill.storage import read_json
from taskmill.training import mixture, tokens
from taskmill.training.encoding.tokenizer import train_tokenizer

CORPUS = ["Größe 3: the cat sat on the log", "Größe 4: 3 ✓ the dog"] * 20
MARK = "<|end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    with ShardWriter(folder, "tokenizer", "00") as shard:
        train_tokenizer(iter(CORPUS), 300, shard)
    return folder / "tokenizer"


def talk(number: int) -> Segments:
    turns: list[tuple[str, str, bool]] = []
    for turn in range(5):
        turns += [(f"ask {number}.{turn}?", "user", False), (f" {turn} ✓", "assistant", True)]
        turns += [(MARK, "control", True)]
    return turns


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Prompts that stay whole, lose their left, are cut into pieces, are split, are dropped; train and validation."""
    no_loss: Segments = [("only a question", "input", False)]
    long: Segments = [("cat " * 40, "input", False), (" yes", "output", True)]
    first = [row("a/one", i, labelled(i)) for i in range(9)]
    first += [row("a/one", 20 + i, no_loss) for i in range(3)] + [
        row("a/one", 30 + i, long) for i in range(2)
    ]
    first += [row("a/one", 40 + i, labelled(i), "validation", "partial") for i in range(3)]
    first += [
        row("a/one", 50, no_loss, "validation", "partial"),
        row("a/one", 51, long, "validation", "partial"),
    ]
    second = [row("talk/one", i, talk(i)) for i in range(3)] + [
        row("c/one", i, labelled(i)) for i in range(9)
    ]
    second += [row("doc/one", i, [("the dog sat " * 30, "document", True)]) for i in range(2)]
    names = ("a/one", "c/one", "doc/one", "talk/one")
    finish(tmp_path, "curate", "tasks", {"tasks": [task_row(name) for name in names]})
    finish(tmp_path, "render", "prompts", {"prompts/a": first, "prompts/b": second})
    build(tmp_path, mixture, "mix", "mixture", mix=Mix(num_prompts=200, block=10))
    return tmp_path


def mix_again(run: Path, **changes: Any) -> None:
    shutil.rmtree(run / "mixture")
    build(run, mixture, "mix", "mixture", mix=Mix(block=10, **changes))


def afresh(run: Path, tokenize: Tokenize) -> Manifest:
    """Build with no folder beside it."""
    manifest = build(run, tokens, "tokenize", "alone/x", tokenize=tokenize)
    shutil.rmtree(run / "alone")
    return manifest


def equal(first: Manifest, second: Manifest) -> bool:
    return all(
        first.body[key] == second.body[key] for key in ("root", "counts", "dropped", "fingerprint", "shards")
    )


def num_copied(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many prompts were copied as the last build told, 0 where it told of none."""
    found = [r.args for r in caplog.records if "are copied" in r.msg]
    caplog.clear()
    return int(found[-1][0]) if found else 0  # type: ignore[index, arg-type]


def array(folder: Path, name: str, dtype: str) -> Any:
    return np.fromfile(folder / f"{name}.bin", dtype)


def resign(folder: Path, **changes: Any) -> None:
    """Change fields of a manifest, which stays a valid one."""
    body = {**read_json(folder / "manifest.json"), **changes}
    body["digest"] = digest({key: value for key, value in body.items() if key != "digest"})
    (folder / "manifest.json").write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize("conversations", ["cut", "split"])
@pytest.mark.parametrize("num_first", [12, 200])
def test_a_folder_beside_it_changes_no_byte(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture, num_first: int, conversations: Any
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    tokenize = Tokenize(tokenizer=str(folder), max_length=24, conversations=conversations)
    mix_again(run, num_prompts=num_first)
    build(run, tokens, "tokenize", "tokens/first", tokenize=tokenize)
    mix_again(run, num_prompts=150, shares={"a": 0.5, "c": 0.1, "doc": 0.2, "talk": 0.2})
    expected = afresh(run, tokenize)
    assert num_copied(caplog) == 0
    assert equal(build(run, tokens, "tokenize", "tokens/second", tokenize=tokenize), expected)
    first = run / "tokens" / "first"
    whole = array(first, "rows", "<i8")[array(first, "whole", "?")]
    wanted = np.unique(mixture.Mixture.open(run / "mixture").rows(150))
    assert num_copied(caplog) == len(np.intersect1d(whole, wanted)) + 3
    assert len(np.setdiff1d(wanted, whole)) >= 10, "cut and dropped prompts are encoded anew"
    assert expected.dropped == {"no_trained_token": 4} and expected.counts["document_cut"] == 2
    assert expected.counts[f"conversation_{'split' if conversations == 'split' else 'truncated'}"] == 3
    assert expected.counts["input_truncated"] == 2 and verify_stage(run / "tokens" / "second") == []


def test_what_is_whole_is_told_of_every_document(run: Path, folder: Path) -> None:
    build(run, tokens, "tokenize", "tokens/x", tokenize=Tokenize(tokenizer=str(folder), max_length=24))
    arrays = tokens.Tokens.open(run / "tokens" / "x")
    is_labelled = (arrays.rows < 9) | ((arrays.rows >= 22) & (arrays.rows < 31))
    assert array(run / "tokens" / "x", "whole", "?").tolist() == is_labelled.tolist()
    assert array(run / "tokens" / "x" / "validation", "whole", "u1").tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(("before", "after"), [(24, 60), (60, 24), (24, 9)])
def test_a_folder_of_another_length_serves_too(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture, before: int, after: int
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    first = Tokenize(tokenizer=str(folder), max_length=before, conversations="split")
    build(run, tokens, "tokenize", "tokens/first", tokenize=first)
    second = Tokenize(tokenizer=str(folder), max_length=after)
    expected = afresh(run, second)
    assert equal(build(run, tokens, "tokenize", "tokens/second", tokenize=second), expected)
    folders = [run / "tokens" / "first", run / "tokens" / "first" / "validation"]
    is_held = [
        array(folder, "whole", "?") & (np.diff(array(folder, "offsets", "<i8")) <= after)
        for folder in folders
    ]
    assert num_copied(caplog) == np.count_nonzero(np.concatenate(is_held))


@pytest.mark.parametrize(
    "name", ["ids.bin", "whole.bin", "validation/rows.bin", "manifest.json", "shards/tokens.json"]
)
@pytest.mark.parametrize("damage", ["changed", "cut", "lost"])
def test_a_damaged_folder_is_passed_over(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    tokenize = Tokenize(tokenizer=str(folder), max_length=24)
    expected = build(run, tokens, "tokenize", "tokens/first", tokenize=tokenize)
    path = run / "tokens" / "first" / name
    data = path.read_bytes()
    half = len(data) // 2
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(data[:half] + (bytes([data[half] ^ 1]) + data[half + 1 :]) * (damage == "changed"))
    assert equal(build(run, tokens, "tokenize", "tokens/second", tokenize=tokenize), expected)
    assert (num_copied(caplog) > 0) == (name == "shards/tokens.json"), "a shard's record is not read"


@pytest.mark.parametrize("what", ["revision", "library", "prompts", "no whole.bin", "tokenizer"])
def test_a_folder_of_other_ids_does_not_serve(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    tokenize = Tokenize(tokenizer=str(folder), max_length=24)
    manifest = build(run, tokens, "tokenize", "tokens/first", tokenize=tokenize)
    body, first = manifest.body, run / "tokens" / "first"
    if what == "revision":
        resign(first, revision=body["revision"] - 1)
    elif what == "library":
        resign(first, recorded={**body["recorded"], "libraries": {"tokenizers": "0.1"}})
    elif what == "prompts":
        resign(first, inputs=[{**table, "rows": "0" * 64} for table in body["inputs"]])
    elif what == "no whole.bin":
        shards = [{**s, "files": [f for f in s["files"] if "whole" not in f["path"]]} for s in body["shards"]]
        resign(first, shards=shards)
    else:
        tokenize = Tokenize(vocab_size=300, max_length=24)
    expected = afresh(run, tokenize)
    assert equal(build(run, tokens, "tokenize", "tokens/second", tokenize=tokenize), expected)
    assert num_copied(caplog) == 0


def test_a_trained_tokenizer_serves_where_it_is_the_same(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    short, long = (Tokenize(vocab_size=300, max_length=size) for size in (24, 60))
    build(run, tokens, "tokenize", "tokens/first", tokenize=short)
    expected = afresh(run, long)
    assert equal(build(run, tokens, "tokenize", "tokens/second", tokenize=long), expected)
    assert num_copied(caplog) > 0


def test_the_folder_that_holds_most_is_taken(
    run: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskmill")
    tokenize = Tokenize(tokenizer=str(folder), max_length=24)
    for name, num_prompts in (("a", 3), ("b", 200), ("c", 5)):
        mix_again(run, num_prompts=num_prompts)
        build(run, tokens, "tokenize", f"tokens/{name}", tokenize=tokenize)
    mix_again(run, num_prompts=100)
    caplog.clear()
    build(run, tokens, "tokenize", "tokens/d", tokenize=tokenize)
    (record,) = [r for r in caplog.records if "are copied" in r.msg]
    assert record.args[1] == run / "tokens" / "b"  # type: ignore[index]
