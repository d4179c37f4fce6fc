"""Conversations that are split, validation prompts, marks that a tokenizer lacks, and batches: what reaches the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokens_run import Segments, build, finish, labelled, prompt, row, task_row

pytest.importorskip("tokenizers")

from taskmill.artifact import ShardWriter
from taskmill.errors import UsageError
from taskmill.recipe import Mix, Tokenize
from taskmill.runs import verify_stage
from taskmill.storage import read_json, read_table
from taskmill.training import mixture, tokens
from taskmill.training.encoding import encoder, reading
from taskmill.training.encoding.fitting import FitCounts, fit
from taskmill.training.encoding.rows import Encoded
from taskmill.training.encoding.tokenizer import open_tokenizer, train_tokenizer
from taskmill.training.tokens import Tokens, open_validation

START, END = 90, 91


def conversation(
    *pairs: tuple[int, int], opening: int = 3, marks: bool = False
) -> tuple[Encoded, list[str], list[int]]:
    """Return a conversation of pairs (tokens of the user, tokens of the answer), its kinds, and where pairs begin.

    The first mark and a system text open it, an end mark that carries loss closes each answer; with `marks`, one that
    does not stands before each user.
    """
    made: list[tuple[str, int, bool]] = [("control", 1, False), ("system", opening - 1, False)]
    for user, answer in pairs:
        made += [("control", 1, False)] * marks + [("user", user, False)]
        made += [("assistant", answer, True), ("control", 1, True)]
    lengths = [n for _, n, _ in made]
    segment = np.repeat(np.arange(len(made)), lengths).astype(np.int32)
    ids = np.arange(len(segment), dtype=np.int32)
    kinds = [kind for kind, _, _ in made]
    for number, (kind, _, trained) in enumerate(made):
        if kind == "control" and number:
            ids[segment == number] = END if trained else START
    whole = np.array([flag for _, _, flag in made], dtype=bool)[segment]
    sizes = [user + answer + 1 + marks for user, answer in pairs]
    return Encoded(ids, whole, segment), kinds, (opening + np.cumsum([0, *sizes])).tolist()


def split(
    encoded: Encoded, kinds: list[str], max_length: int, counts: FitCounts | None = None
) -> list[list[int]]:
    from taskmill.records import SEGMENT_KINDS

    codes = [SEGMENT_KINDS.index(kind) for kind in kinds]
    pieces = fit(encoded, codes, max_length, counts or FitCounts(), split_conversations=True)
    assert all(len(piece.ids) <= max_length and piece.trained[1:].any() for piece in pieces)
    return [piece.ids.tolist() for piece in pieces]


@pytest.mark.parametrize("marks", [False, True])
def test_a_conversation_is_split_between_pairs_and_opens_again(marks: bool) -> None:
    encoded, kinds, at = conversation((4, 4), (5, 3), (2, 2), (6, 1), marks=marks)
    ids, counts = encoded.ids.tolist(), FitCounts()
    size = 3 + at[2] - at[0]
    assert split(encoded, kinds, size, counts) == [ids[: at[2]], ids[:3] + ids[at[2] : at[4]]]
    assert counts == FitCounts(conversation_split=1)
    assert [piece[-1] for piece in split(encoded, kinds, size - 1)] == [END] * 3, "each ends an answer"
    assert split(encoded, kinds, len(ids)) == [ids], "what fits stays whole"


def test_a_pair_that_is_too_long_is_left_out_and_ends_a_piece() -> None:
    encoded, kinds, at = conversation((2, 2), (30, 4), (2, 2), (2, 2))
    ids, counts = encoded.ids.tolist(), FitCounts()
    assert split(encoded, kinds, 20, counts) == [ids[: at[1]], ids[:3] + ids[at[2] :]]
    assert counts == FitCounts(conversation_split=1, pairs_left_out=1)
    encoded, kinds, at = conversation((30, 4), opening=5)
    counts = FitCounts()
    assert split(encoded, kinds, 20, counts) == [] and counts == FitCounts(
        pairs_left_out=1, no_trained_token=1
    )


def test_without_splitting_a_conversation_is_cut_on_the_right() -> None:
    encoded, kinds, _ = conversation((4, 4), (5, 3))
    counts = FitCounts()
    (piece,) = fit(encoded, [8, 4, 5, 6, 8, 5, 6, 8], 14, counts)
    assert kinds[-3:] == ["user", "assistant", "control"]
    assert piece.ids.tolist() == encoded.ids[:14].tolist() and counts == FitCounts(conversation_truncated=1)


# ----------------------------------------------------------------------------------------------- stage


def chat(number: int, pairs: int = 6) -> Segments:
    segments = [("{bos}", "control", False), (f"talk {number}. ", "system", False)]
    for pair in range(pairs):
        segments += [("<|user|>", "control", False), (f"ask {pair} {number}", "user", False)]
        segments += [(f" answer {pair}", "assistant", True), ("{eos}", "control", True)]
    return segments


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with chats, tasks of three levels, and prompts of other splits."""
    levels = {"a/held": "held_out", "a/part": "partial", "b/same": "supervised"}
    rows = [row("c/chat", i, chat(i)) for i in range(4)]
    for task, level in levels.items():
        rows += [row(task, 50 + i, labelled(i), "validation", level) for i in range(2)]
        rows += [row(task, 90, labelled(3), "test", level)]
    rows += [row("b/same", i, labelled(i)) for i in range(6)]
    rows += [row("b/same", 59, [("no answer", "input", False)], "validation", "supervised")]
    rows += [row("b/same", 60, labelled(9), "validation", None)]
    rows.sort(key=lambda r: (r["task"], r["split"], r["example"]))
    names = sorted({r["task"] for r in rows})
    finish(tmp_path, "curate", "tasks", {"tasks": [task_row(name) for name in names]})
    half = len(rows) // 2
    finish(tmp_path, "render", "prompts", {"prompts/a": rows[:half], "prompts/b": rows[half:]})
    build(tmp_path, mixture, "mix", "mixture", mix=Mix(num_prompts=30, block=10))
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    with ShardWriter(folder, "tokenizer", "00") as shard:
        train_tokenizer(iter(["ask an answer to the cat that sat 1 2 3 talk"] * 9), 290, shard)
    return folder / "tokenizer"


def tokenize(run: Path, folder: Path | None = None, name: str = "x", **settings: Any) -> Tokens:
    section = Tokenize(
        tokenizer=None if folder is None else str(folder), vocab_size=300, max_length=40, **settings
    )
    build(run, tokens, "tokenize", f"tokens/{name}", tokenize=section)
    assert verify_stage(run / "tokens" / name) == []
    return Tokens.open(run / "tokens" / name)


def prompt_rows(run: Path) -> list[dict[str, Any]]:
    return [
        r for name in "ab" for r in read_table(run / "prompts" / "prompts" / f"{name}.parquet").to_pylist()
    ]


def test_validation_prompts_that_teach_have_arrays_of_their_own(run: Path) -> None:
    arrays, rows = tokenize(run), prompt_rows(run)
    found = open_validation(run / "tokens" / "x")
    assert found is not None
    held, levels = found
    wanted = [
        n for n, r in enumerate(rows) if r["split"] == "validation" and r["level"] and any(r["trained"])
    ]
    assert held.rows.tolist() == wanted and held.order.tolist() == list(range(6))
    assert [("held_out", "partial", "supervised")[code] for code in levels] == [
        rows[n]["level"] for n in wanted
    ]
    assert not set(held.rows.tolist()) & set(arrays.rows.tolist())
    info = arrays.info["validation"]
    assert (info["num_documents"], info["num_tokens"]) == (6, len(held.ids)) and info["no_trained_token"] == 1
    tokenizer = open_tokenizer(run / "tokens" / "x" / "tokenizer")
    for number, place in enumerate(wanted):
        part = slice(held.offsets[number], held.offsets[number + 1])
        text = tokenizer.backend.decode(held.ids[part].tolist(), skip_special_tokens=False)
        assert text == rows[place]["text"].replace("{eos}", "</s>")
        targets = held.ids[part][held.trained[part] == 1].tolist()
        answer = rows[place]["text"].encode()[slice(*rows[place]["ends"][:2])].decode()
        assert tokenizer.backend.decode(targets[:-1]) == answer and targets[-1] == tokenizer.eos_id
    dropped = read_table(run / "tokens" / "x" / "dropped.parquet").to_pylist()
    assert [(d["task"], d["reason"]) for d in dropped] == [("b/same", "no_trained_token")]


def test_without_validation_prompts_there_is_no_such_folder(tmp_path: Path) -> None:
    finish(tmp_path, "curate", "tasks", {"tasks": [task_row("a/one")]})
    finish(tmp_path, "render", "prompts", {"prompts/a": [row("a/one", i, labelled(i)) for i in range(3)]})
    build(tmp_path, mixture, "mix", "mixture")
    tokenize(tmp_path)
    assert open_validation(tmp_path / "tokens" / "x") is None
    assert not (tmp_path / "tokens" / "x" / "validation").exists()


def test_marks_that_the_tokenizer_lacks_are_added_behind_its_ids(run: Path, folder: Path) -> None:
    before = open_tokenizer(folder)
    arrays = tokenize(run, folder)
    assert arrays.info["added_tokens"] == {"<|user|>": before.vocab_size}
    assert arrays.info["vocab_size"] == before.vocab_size + 1
    after = open_tokenizer(run / "tokens" / "x" / "tokenizer")
    assert after.backend.get_added_tokens_decoder()[before.vocab_size].special
    assert (arrays.ids == before.vocab_size).sum() > 4, "at most one a turn, as far as conversations fit"
    plain = prompt([("say <|user|> aloud", "input", True)])
    for one, other in zip(encoder.encode(before, [plain]), encoder.encode(after, [plain])):
        assert one.ids.tolist() == other.ids.tolist(), "text never becomes the mark"
    with pytest.raises(UsageError, match=r"no token '<\|user\|>' for a control segment"):
        tokenize(run, folder, "y", add_tokens=False)


def test_pieces_of_a_conversation_follow_one_another_in_the_order(run: Path, folder: Path) -> None:
    cut, whole = tokenize(run, folder, "cut"), tokenize(run, folder, "split", conversations="split")
    chats = {n for n, r in enumerate(prompt_rows(run)) if r["task"] == "c/chat"}
    assert cut.info["conversation_truncated"] == 4 and whole.info["conversation_split"] == 4
    pieces = [np.flatnonzero(whole.rows == n) for n in sorted(chats)]
    assert all(len(own) > 1 and len(own) == own[-1] - own[0] + 1 for own in pieces)
    opening = whole.ids[whole.offsets[pieces[0][0]] :][:5].tolist()
    assert all(whole.ids[whole.offsets[n] :][:5].tolist() == opening for n in pieces[0]), "each opens again"
    drawn = whole.rows[whole.order]
    for position in np.unique(whole.positions).tolist():
        places = np.flatnonzero(whole.positions == position)
        expected = np.flatnonzero(whole.rows == drawn[places[0]])
        assert whole.order[places].tolist() == expected.tolist() and np.all(np.diff(places) == 1)
    assert whole.info["num_places"] > whole.info["num_positions"] == cut.info["num_places"] == 30
    assert whole.info["num_trained"] > cut.info["num_trained"]


def test_batches_and_threads_leave_no_trace(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize(run, folder, "x", conversations="split")
    monkeypatch.setattr(reading, "_BYTES", 64)
    monkeypatch.setattr(encoder, "_KEPT_WORDS", 3)
    tokenize(run, folder, "y", conversations="split")
    one, other = (read_json(run / "tokens" / name / "manifest.json")["root"] for name in "xy")
    assert one == other
