"""Tokenizers, encoding, fitting a context, and the tokenize stage over real artefacts."""

from __future__ import annotations

import csv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from tokens_run import Segments, build, finish, labelled, prompt, row, task_row

pytest.importorskip("tokenizers")

from taskmill.artifact import Identity, Inputs, Manifest, ShardWriter, open_stage
from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.recipe import Auxiliary, Mix, Recipe, Resolved, Source, Tokenize
from taskmill.records import SEGMENT_KINDS
from taskmill.runs import verify_stage
from taskmill.settings import Settings
from taskmill.storage import read_json
from taskmill.training import mixture, tokens
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.fitting import FitCounts, fit
from taskmill.training.encoding.rows import Encoded, Rows
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer, train_tokenizer
from taskmill.training.tokens import Tokens

CORPUS = [
    "the cat sat on the mat and the dog sat on the log",
    "Größe naïve café ✓ 東京 is far",
    "</s> {eos} <s>",
] * 20
GOLDEN = {"mix": "6d5a195f7f2a6305", "tokenize": "1755e9a278e154f5"}
GOLDEN_TOKENIZERS = "0.23.3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    with ShardWriter(folder, "tokenizer", "00") as shard:
        train_tokenizer(iter(CORPUS), 400, shard)
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return open_tokenizer(folder)


# ------------------------------------------------------------------------------------------ tokenizers


def test_trained_tokenizer_opens_and_reads_back(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)
    assert 259 < tokenizer.vocab_size <= 400
    for text in [*CORPUS, "unseen Ω text\n\n  with   spaces"]:
        ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
        assert tokenizer.backend.decode(ids, skip_special_tokens=False) == text


def test_training_is_deterministic(folder: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "tokenizer", "00") as shard:
        train_tokenizer(iter(CORPUS), 400, shard)
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (
        folder / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_tokenizer_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(b"{" if file.name == name else file.read_bytes())
    with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
        open_tokenizer(tmp_path)


def test_tokenizer_without_an_end_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}}')
    with pytest.raises(DamagedError, match="no eos_token"):
        open_tokenizer(tmp_path)


# -------------------------------------------------------------------------------------------- encoding


def test_only_control_segments_become_special_tokens(tokenizer: TextTokenizer) -> None:
    text = "say </s> and <s> and {eos}"
    segments = [("{bos}", "control", False), (text, "input", False), ("{eos}", "control", True)]
    (encoded,) = encode(tokenizer, [prompt(segments)])
    assert encoded.ids[0] == tokenizer.bos_id and encoded.ids[-1] == tokenizer.eos_id
    assert not set(encoded.ids[1:-1].tolist()) & {0, 1, 2}
    assert tokenizer.backend.decode(encoded.ids[1:-1].tolist(), skip_special_tokens=False) == text
    assert encoded.trained.tolist() == [False] * (len(encoded.ids) - 1) + [True]
    (named,) = encode(tokenizer, [prompt([("<pad>", "control", True)])])
    assert named.ids.tolist() == [2]
    with pytest.raises(UsageError, match="no token '<nope>'"):
        encode(tokenizer, [prompt([("<nope>", "control", True)])])


def test_joint_tokenisation_equals_the_whole_text(tokenizer: TextTokenizer) -> None:
    segments = [("the c", "instruction", False), ("at sat on the", "input", False), (" mat", "output", True)]
    (encoded,) = encode(tokenizer, [prompt(segments)])
    whole = tokenizer.backend.encode("the cat sat on the mat", add_special_tokens=False)
    assert encoded.ids.tolist() == whole.ids
    starts = [begin for begin, _ in whole.offsets]
    assert encoded.segment.tolist() == [0 if s < 5 else 1 if s < 18 else 2 for s in starts]
    assert encoded.trained.tolist() == [s >= 18 for s in starts]


@pytest.mark.parametrize("answer", [" Größe", " 東京 ✓", " 😀 café", " plain"])
@pytest.mark.parametrize("question", ["naïve 東京?", "ascii only:", "😀😀 ✓"])
def test_trained_tokens_are_those_of_trained_segments(
    tokenizer: TextTokenizer, question: str, answer: str
) -> None:
    segments = [("Größe: ", "instruction", False), (question, "input", False), (answer, "output", True)]
    (encoded,) = encode(tokenizer, [prompt([*segments, ("{eos}", "control", True)])])
    decode = tokenizer.backend.decode
    assert decode(encoded.ids[encoded.trained][:-1].tolist(), skip_special_tokens=False) == answer
    assert decode(encoded.ids[~encoded.trained].tolist()) == "Größe: " + question
    assert encoded.segment[-1] == 3 and np.all(np.diff(encoded.segment) >= 0)


def test_empty_segments_and_batches(tokenizer: TextTokenizer) -> None:
    assert encode(tokenizer, []) == []
    first, second = encode(
        tokenizer,
        [prompt([("", "instruction", False), ("cat", "output", True), ("", "input", False)]), prompt([])],
    )
    assert first.trained.all() and set(first.segment.tolist()) == {1} and len(second.ids) == 0
    mixed = prompt([("a", "input", False), ("{eos}", "control", True), ("b", "input", False)])
    rows = Rows.of_prompts([mixed])
    assert list(rows.whole_texts()) == ["a", "b"] and rows.controls() == {"{eos}"}


# --------------------------------------------------------------------------------------------- fitting


def encoded(*segments: tuple[int, bool]) -> Encoded:
    """Return tokens 0, 1, 2 ... in segments of (length, trained)."""
    trained = np.concatenate([np.full(n, t) for n, t in segments]).astype(bool)
    number = np.concatenate([np.full(n, i) for i, (n, _) in enumerate(segments)]).astype(np.int32)
    return Encoded(np.arange(len(trained), dtype=np.int32), trained, number)


def kinds(*names: str) -> list[int]:
    return [SEGMENT_KINDS.index(name) for name in names]


def test_demonstrations_go_whole_from_the_front() -> None:
    names = kinds("instruction", "demonstration", "demonstration", "demonstration", "input", "output")
    tokens = encoded((4, False), (5, False), (6, False), (7, False), (3, False), (2, True))
    counts = FitCounts()
    (piece,) = fit(tokens, names, 17, counts)
    assert piece.segment.tolist() == [0] * 4 + [3] * 7 + [4] * 3 + [5] * 2
    assert (counts.demonstrations_dropped, counts.input_truncated) == (1, 0)
    assert fit(tokens, names, 27, counts) == [tokens]
    (piece,) = fit(tokens, names, 8, counts)
    assert piece.segment.tolist() == [0] * 3 + [4] * 3 + [5] * 2 and counts.input_truncated == 1


def test_left_truncation_keeps_the_answer() -> None:
    counts = FitCounts()
    (piece,) = fit(encoded((20, False), (3, True)), kinds("input", "output"), 8, counts)
    assert piece.ids.tolist() == list(range(15, 23)) and piece.trained.sum() == 3
    assert vars(counts) == {**vars(FitCounts()), "input_truncated": 1}
    (piece,) = fit(encoded((2, False), (30, True)), kinds("input", "output"), 8, counts)
    assert piece.trained.all() and counts.output_truncated == 1


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17, 24, 25, 40])
def test_documents_are_cut_with_nothing_lost(length: int) -> None:
    counts = FitCounts()
    pieces = fit(encoded((length - 1, True), (1, True)), kinds("document", "control"), 8, counts)
    assert np.concatenate([p.ids for p in pieces]).tolist() == list(range(length))
    assert all(2 <= len(p.ids) <= 8 for p in pieces)
    assert counts.document_cut == (length > 8) and counts.input_truncated == 0
    begun = fit(encoded((1, False), (length, True)), kinds("control", "document"), 8, FitCounts())
    assert sum(len(p.ids) for p in begun) == length + 1


@pytest.mark.parametrize(
    "tokens",
    [
        encoded((5, False)),
        encoded((1, True), (4, False)),
        encoded((3, True), (20, False)),
        encoded((0, True)),
    ],
)
def test_prompt_without_a_target_gives_nothing(tokens: Encoded) -> None:
    counts = FitCounts()
    assert fit(tokens, kinds("output", "input"), 8, counts) == [] and counts.no_trained_token == 1


# ----------------------------------------------------------------------------------------------- stage


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with curated tasks and two files of rendered prompts, some of which carry no loss."""
    documents = [[("the dog sat on the log " * 20, "document", True), ("{eos}", "control", True)]]
    no_loss: Segments = [("only a question", "input", False)]
    first = [row("a/one", i, labelled(i)) for i in range(7)] + [row("a/one", 9, no_loss)]
    first += [row("a/one", 100, labelled(100), "test")]
    second = [row("b/one", i, labelled(i)) for i in range(5)]
    second += [row("doc/one", i, s) for i, s in enumerate(documents)]
    finish(tmp_path, "curate", "tasks", {"tasks": [task_row(n) for n in ("a/one", "b/one", "doc/one")]})
    finish(tmp_path, "render", "prompts", {"prompts/a": first, "prompts/b": second})
    return tmp_path


def test_mix_and_tokenize_over_real_artefacts(run: Path) -> None:
    mixed = build(run, mixture, "mix", "mixture", mix=Mix(num_prompts=40, block=10))
    assert mixed.counts == {"num_prompts": 40, "num_tasks": 3, "num_tasks_capped": 0}
    manifest = build(run, tokens, "tokenize", "tokens/x")
    arrays = Tokens.open(run / "tokens" / "x")
    tokenizer = open_tokenizer(run / "tokens" / "x" / "tokenizer")
    wanted = mixture.Mixture.open(run / "mixture").rows(40)
    assert verify_stage(run / "tokens" / "x") == [] and arrays.info["num_positions"] == 40
    assert (
        manifest.counts["num_documents"] == len(arrays.rows) == len(arrays.lengths) == len(arrays.loss_weight)
    )
    assert arrays.offsets[-1] == len(arrays.ids) == len(arrays.trained) == manifest.counts["num_tokens"]
    is_target = arrays.trained.astype(bool)
    is_target[arrays.offsets[:-1]] = False
    assert is_target.sum() == manifest.counts["num_trained"] and arrays.lengths.max() <= 24
    assert np.all(np.diff(arrays.rows) >= 0), "documents stand in row order"
    drawn = arrays.rows[arrays.order]
    kept = drawn[np.r_[True, np.diff(arrays.positions) != 0]]
    assert kept.tolist() == wanted[wanted != 7].tolist(), "places follow the order of the mixture"
    assert (
        arrays.positions.tolist() == sorted(arrays.positions)
        and len(arrays.order) == arrays.info["num_places"]
    )
    assert set(arrays.positions.tolist()) == set(np.flatnonzero(wanted != 7).tolist())
    assert manifest.dropped == {"no_trained_token": 1} and 7 in wanted and 8 not in wanted
    assert arrays.info["num_empty_positions"] == (wanted == 7).sum() > 0 and 7 not in arrays.rows
    assert set(arrays.loss_weight[(arrays.rows >= 9) & (arrays.rows < 14)]) == {0.5}
    for index in np.flatnonzero(arrays.rows == 3):
        part = slice(arrays.offsets[index], arrays.offsets[index + 1])
        target = arrays.ids[part][arrays.trained[part] == 1].tolist()
        assert target[-1] == tokenizer.eos_id and tokenizer.backend.decode(target[:-1]) == " 3 ✓"
    pieces = np.flatnonzero(arrays.rows == 14)
    assert np.diff(pieces).tolist() == [1] * (len(pieces) - 1) and len(pieces) > 3
    assert (drawn == 14).sum() == len(pieces) * (wanted == 14).sum() > 0
    assert "{eos}" not in tokenizer.backend.get_vocab() and arrays.info["document_cut"] == 1


@pytest.mark.parametrize("stage", ["mix", "tokenize"])
def test_golden_digests_change_only_with_a_new_revision(run: Path, stage: str) -> None:
    roots = {"mix": build(run, mixture, "mix", "mixture", mix=Mix(num_prompts=40, block=10)).root}
    assert (mixture.REVISION, tokens.REVISION) == (2, 3)
    if stage == "tokenize":
        if metadata.version("tokenizers") != GOLDEN_TOKENIZERS:
            pytest.skip(f"another version of tokenizers than {GOLDEN_TOKENIZERS} may train other merges")
        roots["tokenize"] = build(run, tokens, "tokenize", "tokens/x").root
    assert roots[stage][:16] == GOLDEN[stage], (
        f"{stage} wrote other bytes: raise its REVISION, then update this"
    )


def test_same_digests_on_a_second_build_and_after_an_interruption(run: Path) -> None:
    build(run, mixture, "mix", "mixture")
    first = build(run, tokens, "tokenize", "tokens/x")
    assert build(run, tokens, "tokenize", "tokens/y").root == first.root
    (run / "tokens" / "x" / "manifest.json").unlink()
    (run / "tokens" / "x" / "shards" / "tokens.json").unlink()
    before = (run / "tokens" / "x" / "tokenizer" / "tokenizer.json").stat()
    assert build(run, tokens, "tokenize", "tokens/x").root == first.root
    assert (run / "tokens" / "x" / "tokenizer" / "tokenizer.json").stat().st_ino == before.st_ino


def test_realised_shares_are_written(run: Path) -> None:
    build(
        run,
        mixture,
        "mix",
        "mixture",
        mix=Mix(shares={"a": 0.5, "b": 0.25, "doc": 0.25}, num_prompts=40, block=20),
    )
    build(run, tokens, "tokenize", "tokens/x")
    lines = (run / "tokens" / "x" / "shares.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["a", "20"], ["b", "10"], ["doc", "10"]]
    arrays = Tokens.open(run / "tokens" / "x")
    lengths, rows = arrays.lengths[arrays.order], arrays.rows[arrays.order]
    assert int(lines[1].split(",")[4]) == lengths[rows < 9].sum()
    assert float(lines[1].split(",")[3]) == pytest.approx(lengths[rows < 9].sum() / 24, abs=0.01)
    assert float(lines[3].split(",")[7]) == pytest.approx(lengths[rows == 14].sum() / lengths.sum(), abs=1e-6)
    assert sum(int(line.split(",")[2]) for line in lines[1:]) == arrays.info["num_empty_positions"]
    assert lengths.sum() == arrays.info["num_drawn_tokens"]


def test_named_tokenizer_is_copied(run: Path, folder: Path) -> None:
    build(run, mixture, "mix", "mixture")
    named = Tokenize(tokenizer=str(folder), max_length=24)
    recipe = Recipe("tiny", (Source("flan", "x"),), tokenize=named)
    settings = Settings(Resolved(recipe, {}, run, ""), tokens.SECTIONS)
    inputs = Inputs({"curate": run / "tasks", "render": run / "prompts", "mix": run / "mixture"})
    assert set(tokens.external(settings, inputs)) == {"tokenizer.json", "tokenizer_config.json"}
    out = open_stage(run / "tokens" / "z", Identity("tokenize", 1, settings.values(), 0, None, (), {}))
    assert not isinstance(out, Manifest)
    tokens.build(settings, inputs, out)
    copied = run / "tokens" / "z" / "tokenizer" / "tokenizer.json"
    assert copied.read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_mixture_without_any_target_is_one_message(tmp_path: Path) -> None:
    finish(tmp_path, "curate", "tasks", {"tasks": [task_row("a/one")]})
    rows = [row("a/one", i, [("question", "input", False)]) for i in range(3)]
    finish(tmp_path, "render", "prompts", {"prompts/a": rows})
    build(tmp_path, mixture, "mix", "mixture")
    with pytest.raises(TaskmillError, match="no token of the mixture carries loss"):
        build(tmp_path, tokens, "tokenize", "tokens/x")


def test_truncated_array_is_named(run: Path) -> None:
    build(run, mixture, "mix", "mixture")
    build(run, tokens, "tokenize", "tokens/x")
    path = run / "tokens" / "x" / "ids.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedError, match=r"ids\.bin holds"):
        Tokens.open(run / "tokens" / "x")


def test_the_shares_of_a_mixture_are_in_the_units_they_name(run: Path) -> None:
    mix = Mix(num_prompts=40, block=10, auxiliary={"pretraining": Auxiliary(0.05, "tokens")})
    build(run, mixture, "mix", "mixture", mix=mix)
    shares = {row["benchmark"]: row for row in read_json(run / "mixture" / "mixture.json")["shares"]}
    named = {"benchmark": "pretraining", "share": 0.05, "unit": "tokens"}
    assert named.items() <= shares["pretraining"].items()
    rows = csv.DictReader((run / "mixture" / "shares.csv").read_text().splitlines())
    wanted = {row["benchmark"]: row["wanted"] for row in rows}
    assert 0 < float(wanted["pretraining"]) != 0.05
    for name in ("a", "b"):
        named = {"benchmark": name, "share": float(wanted[name]), "unit": "prompts"}
        assert named.items() <= shares[name].items()
