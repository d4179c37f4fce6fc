"""`taskmill trace`: what it finds, when that was trained on, and what it says where it cannot know."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_run import NUM, answer, as_arguments, make_planted, question, run_stages, sentence, trained_steps
from running import call
from small import fails, tree, works

from taskmill import api
from taskmill.commands.finished import FinishedRun
from taskmill.commands.tracing.search import Wanted
from taskmill.normalisers import WORDS
from taskmill.storage import read_table

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained whole: 20 positions over more train prompts than that; nothing may change it."""
    return make_planted(tmp_path_factory.mktemp("planted"), "train")


@pytest.fixture(scope="module")
def tokenised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same before training, in two epochs over every train prompt."""
    settings = ("mix.mode=concatenation", "mix.epochs=2", "mix.num_prompts=")
    return make_planted(tmp_path_factory.mktemp("epochs"), "tokenize", *settings)


def traced(capsys: Capture, run: Path, text: str, *options: str) -> dict[str, Any]:
    body = json.loads(works(capsys, "trace", text, "--run", str(run), "--json", *options))
    assert body["num_texts"] == len(body["texts"]) == sum(body["verdicts"].values())
    return body


def one(capsys: Capture, run: Path, text: str, *options: str) -> dict[str, Any]:
    (found,) = traced(capsys, run, text, *options)["texts"]
    return found


def prompts(run: Path) -> list[dict[str, Any]]:
    files = FinishedRun(run).inputs.files("render", "prompts")
    return [row for file in files for row in read_table(file).to_pylist()]


def numbers(run: Path, split: str) -> list[int]:
    """Return the records of own/notes whose prompts are of a split."""
    return [
        i for i in range(NUM) if any(question(i) in p["text"] and p["split"] == split for p in prompts(run))
    ]


def positions(run: Path, text: str) -> list[int]:
    return [position for position, prompt in api.Run(run).mixture() if text in prompt["text"]]


def test_python_gives_what_json_prints(trained: Path, capsys: Capture) -> None:
    for text, n in ((question(0), None), (answer(1), 5)):
        options = () if n is None else ("--n", str(n))
        assert api.Run(trained).trace(text, n) == traced(capsys, trained, text, *options)


# ------------------------------------------------------------------------------------------------ when


def test_positions_and_updates_are_those_of_the_batches_that_training_reads(
    trained: Path, capsys: Capture
) -> None:
    unreached = 0
    for number in numbers(trained, "train"):
        found, places = one(capsys, trained, answer(number)), positions(trained, answer(number))
        if not places:
            unreached += 1
            assert found["verdict"] == "unreached" and set(found["groups"]) <= {
                "unreached",
                "test",
                "validation",
            }
            assert trained_steps(trained, answer(number)) == []
            continue
        group = found["groups"]["trained"]
        assert found["verdict"] == "trained"
        assert group["positions"] == places and group["num_positions"] == len(places)
        assert group["steps"] == trained_steps(trained, answer(number)) != []
        assert (group["first_position"], group["last_position"]) == (places[0], places[-1])
        assert (group["first_step"], group["last_step"]) == (group["steps"][0], group["steps"][-1])
    assert 0 < unreached < len(numbers(trained, "train"))


def test_an_answer_was_trained_on_and_a_question_only_read(trained: Path, capsys: Capture) -> None:
    number = next(i for i in numbers(trained, "train") if positions(trained, question(i)))
    for text, verdict, kind in ((answer(number), "trained", "output"), (question(number), "seen", "input")):
        found = one(capsys, trained, text)
        (example,) = found["groups"]["trained"]["examples"]
        span = example["prompts"][0]["spans"][0]
        assert (found["verdict"], span["kinds"]) == (verdict, [kind])
        assert span["carries_loss"] == (kind == "output") == found["groups"]["trained"]["carries_loss"]
        assert span["num_words"] == len(text.split()) and found["groups"]["trained"]["share"] == 1
        assert span["text"] == span["record"]["text"] == text
        assert (example["example"], example["file"], example["record"]) == (
            f"own/notes#unlabeled-n{number:02d}",
            "notes.jsonl",
            number,
        )
        assert (example["reader"], example["repository"], example["revision"]) == (
            "table",
            "harbour/notes",
            "v3",
        )
        assert (example["license"], example["benchmark"]) == ("CC-BY-4.0", "own") and example[
            "license_evidence"
        ]


@pytest.mark.parametrize(
    "settings",
    [
        ("train.packing=none", "train.batch_size=3"),
        ("train.num_steps=2",),
        ("train.batch_tokens=600", "train.batch_size=1"),
    ],
    ids=lambda s: s[0],
)
def test_updates_that_are_planned_for_two_epochs(
    tokenised: Path, tmp_path: Path, capsys: Capture, settings: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(tokenised, tmp_path / "run"))
    recipe = json.loads((run / "recipe.json").read_bytes())
    for item in settings:
        key, _, value = item.removeprefix("train.").partition("=")
        recipe["values"]["train"][key] = int(value) if value.isdigit() else value
    (run / "recipe.json").write_text(json.dumps(recipe))
    states = set()
    for number in numbers(run, "train")[:12]:
        body = traced(capsys, run, answer(number))
        (found,), places = body["texts"], positions(run, answer(number))
        steps = trained_steps(run, answer(number))
        states.add(found["verdict"])
        assert found["verdict"] == ("planned" if steps else "left_out")
        groups = [found["groups"][name] for name in ("planned", "left_out") if name in found["groups"]]
        listed = [position for group in groups for position in group["positions"]]
        assert set(listed) <= set(places) and len(set(listed)) == len(listed)
        assert len(listed) + sum(group["num_left_out"] for group in groups) == len(places)
        assert [step for group in groups for step in group["steps"]] == steps
        assert settings[0] == "train.num_steps=2" or groups[0]["epochs"] == [1, 2]
        if "left_out" in found["groups"]:
            num = found["groups"]["left_out"]["num_prompts"]
            assert found["groups"]["left_out"]["reasons"] == {"behind_last_update": num}
        assert body["missing"][-1]["command"] == f"taskmill train {run}" and not body["is_trained"]
    assert states == ({"planned", "left_out"} if settings == ("train.num_steps=2",) else {"planned"})


def test_pieces_that_do_not_fit_were_not_trained_on(tokenised: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(tokenised.parent, tmp_path, dirs_exist_ok=True)
    run_stages(tmp_path, "tokenize", str(tmp_path / "run"), "--set", "tokenize.max_length=60", "--force")
    capsys.readouterr()
    run = tmp_path / "run"
    assert json.loads(next(run.glob("tokens/*/tokens.json")).read_bytes())["num_documents"]
    verdicts = set()
    for number in numbers(run, "train")[:5]:
        text = question(number)
        found = one(capsys, run, text, "--n", "6")
        head = one(capsys, run, " ".join(text.split()[:8]), "--n", "6")
        assert trained_steps(run, answer(number)) and found["verdict"] == "planned"
        windows = [text.split()[i : i + 6] for i in range(len(text.split()) - 5)]
        left = [i for i, window in enumerate(windows) if trained_steps(run, " ".join(window))]
        assert left == list(range(left[0], len(windows))) and left[0] > 0
        spans = [
            [
                (s["start"], s["num_words"])
                for s in found["groups"][name]["examples"][0]["prompts"][0]["spans"]
            ]
            for name in ("planned", "left_out")
        ]
        assert spans == [[(left[0], len(text.split()) - left[0])], [(0, left[0])]]
        assert found["groups"]["left_out"]["steps"] == [] != found["groups"]["planned"]["steps"]
        verdicts.add(head["verdict"])
        if head["verdict"] == "left_out":
            assert not trained_steps(run, " ".join(question(number).split()[1:7]))
            left = head["groups"]["left_out"]
            assert left["reasons"] == {"cut_off": left["num_prompts"]}
            assert left["steps"] == [] and left["positions"] == positions(run, question(number))
        else:
            assert trained_steps(run, question(number).split()[7])
    assert "left_out" in verdicts


def test_what_a_training_followed_counts_and_not_what_was_changed_since(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    run, number = (
        tmp_path / "run",
        next(i for i in numbers(trained, "train") if positions(trained, answer(i))),
    )
    before = traced(capsys, run, answer(number))
    run_stages(tmp_path, "mix", str(run), "--set", "mix.num_prompts=40", "--set", "seed=6", "--force")
    capsys.readouterr()
    after = traced(capsys, run, answer(number))
    assert before["missing"] == [] and after["is_trained"]
    assert "the mixture was changed after the training" in after["missing"][0]["why"]
    for body in (before, after):
        body.pop("missing")
        body["texts"][0]["groups"].pop("unreached", None)
        body["searched"].pop("num_reached_prompts")
    assert before == after
    run_stages(tmp_path, "tokenize", str(run), "--force")
    shutil.rmtree(
        next(
            p
            for p in (run / "tokens").iterdir()
            if p.name == FinishedRun(trained).inputs.directory("tokenize").name
        )
    )
    capsys.readouterr()
    other = traced(capsys, run, answer(number))
    assert not other["is_trained"] and other["texts"][0]["verdict"] == "planned"
    assert "the model was trained on other tokens" in other["missing"][0]["why"]
    assert other["texts"][0]["groups"]["planned"]["steps"] == trained_steps(run, answer(number))


def missing_without_tokens(trained: Path, folder: Path, capsys: Capture) -> str:
    run = Path(shutil.copytree(trained, folder / "without"))
    shutil.rmtree(run / "tokens")
    (item,) = traced(capsys, run, answer(0))["missing"]
    return str(item["why"])


def test_before_each_stage_is_finished_what_is_known_is_told(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    number = next(i for i in numbers(trained, "train") if positions(trained, answer(i)))
    places, told = positions(trained, answer(number)), []
    for folder in ("model", "tokens", "mixture", "prompts", "splits", "overlaps"):
        shutil.rmtree(run / folder)
        body = traced(capsys, run, answer(number))
        (found,) = body["texts"]
        told.append(
            (
                found["verdict"],
                sorted({*found["groups"]} - {"test"}),
                body["missing"][0]["command"],
                body["found"],
            )
        )
        if folder in ("model", "tokens"):
            assert found["groups"]["planned"]["positions"] == places
            assert ("steps" in found["groups"]["planned"]) == (folder == "model")
    assert told == [
        ("planned", ["planned"], f"taskmill train {run}", True),
        ("planned", ["planned"], f"taskmill tokenize {run}", True),
        ("planned", ["planned"], f"taskmill mix {run}", True),
        ("train_examples", ["train"], f"taskmill render {run}", True),
        ("train_examples", ["train"], f"taskmill split {run}", True),
        ("catalogue", ["catalogue"], f"taskmill overlap {run}", False),
    ]
    assert "tokens that the model was trained on are gone" in missing_without_tokens(
        trained, tmp_path, capsys
    )
    shutil.rmtree(run / "tasks")
    assert "holds no finished stage" in fails(capsys, 2, "trace", "any text", "--run", str(run))


# ---------------------------------------------------------------------------------------------- where


def test_what_is_only_asked_or_nowhere_is_told_apart(trained: Path, capsys: Capture) -> None:
    held_out = traced(capsys, trained, f"Some words before it. {sentence('moor', 3)} And after it.")
    (found,) = held_out["texts"]
    assert found["verdict"] == "evaluation" and not held_out["found"] and list(found["groups"]) == ["test"]
    group = found["groups"]["test"]
    assert group["longest"] == 18 and group["share"] == round(18 / 25, 4) and "carries_loss" not in group
    assert group["num_positions"] == 0 and group["examples"][0]["license"] == "CC0-1.0"
    supervised = next(i for i in numbers(trained, "test") if i not in numbers(trained, "train"))
    assert one(capsys, trained, question(supervised))["verdict"] == "evaluation"
    body = traced(capsys, trained, sentence("fjord", 1, 20))
    assert (body["texts"][0]["verdict"], body["texts"][0]["groups"], body["found"]) == (
        "not_found",
        {},
        False,
    )
    assert (
        body["searched"]["num_prompts"] == len(prompts(trained))
        and body["searched"]["num_examples"] == NUM + 12
    )
    assert body["searched"]["num_reached_prompts"] == len(
        {p["prompt"] for _, p in api.Run(trained).mixture()}
    )


def test_demonstrations_are_named(trained: Path, capsys: Capture) -> None:
    shown = next(p for p in prompts(trained) if p["demonstrations"])
    number = (
        int(shown["demonstrations"][0][-2:])
        if shown["task"] == "own/notes"
        else int(shown["demonstrations"][0][-1:])
    )
    text = question(number) if shown["task"] == "own/notes" else sentence("moor", number)
    found = one(capsys, trained, text)
    spans = [
        span
        for group in found["groups"].values()
        for example in group["examples"]
        for prompt in example["prompts"]
        for span in prompt["spans"]
        if "demonstration" in span["kinds"]
    ]
    assert spans and {span["demonstration"] for span in spans} == {shown["demonstrations"][0]}


def test_short_texts_are_compared_whole_and_with_a_smaller_n_inside(trained: Path, capsys: Capture) -> None:
    whole, part = sentence("pier", 2, 3), sentence("pier", 2, 2)
    found = one(capsys, trained, f" {whole.upper()}! ")
    assert (found["compared"], found["num_words"], found["verdict"]) == ("whole", 3, "evaluation")
    assert found["groups"]["test"]["longest"] == 3 and found["groups"]["test"]["share"] == 1
    assert one(capsys, trained, part)["verdict"] == "not_found"
    inside = one(capsys, trained, part, "--n", "2")
    assert (inside["compared"], inside["verdict"]) == ("windows", "evaluation")
    assert f"`--n {len(part.split())}`" in works(capsys, "trace", part, "--run", str(trained))


def test_stretches_are_told_with_their_words_and_what_they_cover(trained: Path, capsys: Capture) -> None:
    first, second = [i for i in numbers(trained, "train") if positions(trained, answer(i))][:2]
    text = (
        f"He said: {answer(first).replace(' ', ', ')} -- then {answer(second)} and no more, and nothing else."
    )
    found = one(capsys, trained, text)
    group = found["groups"]["trained"]
    assert (group["longest"], group["num_examples"], found["num_words"]) == (14, 2, 37)
    assert group["share"] == round(28 / 37, 4)
    spans = [e["prompts"][0]["spans"][0] for e in group["examples"]]
    assert sorted((span["start"], span["num_words"]) for span in spans) == [(2, 14), (17, 14)]
    assert {span["record"]["text"] for span in spans} == {answer(first), answer(second)}
    assert {span["text"] for span in spans} == {answer(first).replace(" ", ", "), answer(second)}
    assert group["tasks"] == [{"task": "own/notes", "num": group["num_prompts"]}]
    shown = traced(capsys, trained, text, "-k", "1")["texts"][0]["groups"]["trained"]
    assert shown["num_examples"] == 2 and len(shown["examples"]) == 1


WORD = st.sampled_from("abc")


@given(st.lists(WORD, max_size=14), st.lists(WORD, max_size=14), st.integers(1, 4))
def test_spans_are_the_longest_common_stretches(left: list[str], right: list[str], n: int) -> None:
    wanted = Wanted([" ".join(left)], n, WORDS)
    if not wanted.has_long:
        return
    _, _, start, position, size = wanted.spans(wanted.index.find([" ".join(right)]))
    expected = set()
    for i, j in itertools.product(range(len(left)), range(len(right))):
        if i == 0 or j == 0 or left[i - 1] != right[j - 1]:
            pairs = zip(left[i:], right[j:])
            length = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            expected |= {(i, j, length)} if length >= n else set()
    found = set(zip(start.tolist(), position.tolist(), size.tolist()))
    if (
        max(Counter(left).values()) <= 8
    ):  # of a window that repeats itself more often the first places are looked for
        assert found == expected
    assert bool(found) == bool(expected)


# --------------------------------------------------------------------------------------------- input


def test_records_are_looked_for_text_by_text(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    number = next(i for i in numbers(trained, "train") if positions(trained, answer(i)))
    rows = [
        {"q": {"text": question(number)}, "n": 3},
        {"a": ["!", answer(number)], "z": sentence("moor", 1)},
        {"x": None},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = traced(capsys, trained, str(path))
    assert [(t["record"], t["field"], t["verdict"]) for t in body["texts"]] == [
        (0, "q.text", "seen"),
        (1, "a.1", "trained"),
        (1, "z", "evaluation"),
    ]
    assert {name: num for name, num in body["verdicts"].items() if num} == {
        "seen": 1,
        "trained": 1,
        "evaluation": 1,
    }
    plain = works(capsys, "trace", str(path), "--run", str(trained))
    assert "record 1, field a.1" in plain and "3 texts: 1 trained on; 1 read while training" in plain
    for text, found in zip((question(number), answer(number), sentence("moor", 1)), body["texts"]):
        assert one(capsys, trained, text)["groups"] == found["groups"]


def test_a_file_and_standard_input_are_texts(
    trained: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    path = tmp_path / "essay"
    path.write_bytes(b"\xef\xbb\xbf" + question(3).encode())
    expected = one(capsys, trained, question(3))
    from_file = one(capsys, trained, str(path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(question(3).encode())))
    from_stdin = one(capsys, trained, "-")
    assert (from_file["file"], from_stdin["file"], expected["file"]) == (str(path), "-", None)
    assert from_file["groups"] == from_stdin["groups"] == expected["groups"] != {}


@pytest.mark.parametrize(
    "name,data,message",
    [
        ("a.bin", b"PK\x00\x01", "is a binary file; expected UTF-8 text"),
        ("a.txt", b"caf\xe9 noir", "is not UTF-8: byte 3 is 0xe9"),
        ("a.txt", "\ufeffhello".encode("utf-16"), "is UTF-16; expected UTF-8"),
        ("a.txt", b"", "there is no word in"),
        ("a.txt", b" ?! \n", "there is no word in"),
        ("a.jsonl", b'{"x": 3}\n', "no record has a text"),
        ("a.jsonl", b'{"x": "?"}\n', "there is no word in"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b'{"x": "y"\n', "a.jsonl, record 0"),
        ("a.jsonl", b'{"x": "\xff"}\n', "a.jsonl, record 0"),
    ],
)
def test_files_that_hold_no_text_are_refused(
    trained: Path, tmp_path: Path, capsys: Capture, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    code, out, err = call(capsys, "trace", str(tmp_path / name), "--run", str(trained))
    assert code in (1, 2) and out == "" and message in err and err.startswith("taskmill: ")


def test_arguments_that_make_no_sense_are_refused(
    trained: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ("--run", str(trained))
    assert "there is no word in the text" in fails(capsys, 2, "trace", "", *run)
    assert "is a folder" in fails(capsys, 2, "trace", str(tmp_path), *run)
    (tmp_path / "essay.txt").write_text("a")
    assert "there is no file esay.txt - did you mean 'essay.txt'?" in fails(
        capsys, 2, "trace", "esay.txt", *run
    )
    assert "TEXT is not UTF-8" in fails(capsys, 2, "trace", "caf\udce9 noir", *run)
    assert "there is no run nowhere" in fails(capsys, 2, "trace", "a b c", "--run", "nowhere")
    assert "there is no run below runs" in fails(capsys, 2, "trace", "a b c")
    shutil.copytree(trained, tmp_path / "runs/one")
    assert json.loads(works(capsys, "trace", "a b c", "--json"))["run"] == "runs/one"
    shutil.copytree(trained, tmp_path / "runs/two")
    assert "several runs: name one with --run; runs/one, runs/two" in fails(capsys, 2, "trace", "a b c")
    assert json.loads(works(capsys, "trace", "x" * 5000, "--json", *run))["verdicts"]["not_found"] == 1


def test_damage_is_told(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    whole = next(run.glob("tokens/*/whole.bin"))
    whole.write_bytes(whole.read_bytes()[:-1])
    assert "whole.bin holds" in fails(capsys, 1, "trace", answer(0), "--run", str(run))
    shutil.copy(next(trained.glob("tokens/*/whole.bin")), whole)
    path = next(run.glob("prompts/prompts/*.parquet"))
    data, group = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata.row_group(0)
    column = next(
        group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "text"
    )
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 255
    path.write_bytes(data)
    assert str(path) in fails(capsys, 1, "trace", answer(0), "--run", str(run))


# -------------------------------------------------------------------------------------------- output


def test_lines_are_narrow_and_no_text_gets_through_raw(tmp_path: Path, capsys: Capture) -> None:
    from finished_run import HOSTILE, TRAIN, make_run

    run = make_run(tmp_path)
    text = f"Item 1 of {TRAIN}: {HOSTILE} \x1b[31mred\x1b[0m café 東京 \u202eevil " + "w" * 300
    capsys.readouterr()
    for arguments in (("--n", "5"), ("--n", "5", "-k", "99"), ()):
        out = works(capsys, "trace", text, "--run", str(run), *arguments)
        assert "\x1b" not in out and "\u202e" not in out
        from rich.cells import cell_len

        assert all(cell_len(line) <= 80 and line == line.rstrip() for line in out.splitlines()), out
    found = one(capsys, run, text, "--n", "5")
    assert found["verdict"] == "planned" and found["groups"]["planned"]["positions"]


def test_workers_never_change_an_answer_and_nothing_is_written(trained: Path, capsys: Capture) -> None:
    text, before = f"{question(1)} {answer(2)} {sentence('moor', 3)}", tree(trained)
    assert traced(capsys, trained, text, "--workers", "1") == traced(capsys, trained, text, "--workers", "3")
    assert tree(trained) == before


def test_of_a_document_in_pieces_the_updates_are_those_of_the_piece_that_has_the_text(
    tmp_path: Path, capsys: Capture
) -> None:
    words = " ".join(sentence("dune", i, 20) for i in range(8))
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/long.jsonl").write_text(json.dumps({"text": words}) + "\n")
    source = "  - {reader: documents, path: documents}\n"
    run = make_planted(tmp_path, "render", more_sources=source)
    settings = ("mix.auxiliary={pretraining: {share: 0.5}}", "tokenize.max_length=64", "train.batch_size=1")
    run_stages(tmp_path, "run", str(run), "--from", "mix", "--to", "tokenize", *as_arguments(settings))
    capsys.readouterr()
    all_steps = set()
    for i in range(8):
        part = " ".join(sentence("dune", i, 20).split()[4:18])
        found = one(capsys, run, part, "--n", "5")
        steps = sorted({s for j in range(10) for s in trained_steps(run, " ".join(part.split()[j : j + 5]))})
        assert found["verdict"] == "planned" and found["groups"]["planned"]["carries_loss"]
        assert found["groups"]["planned"]["steps"] == steps != []
        all_steps |= set(steps)
    assert all(
        len(one(capsys, run, sentence("dune", i, 5), "--n", "5")["groups"]["planned"]["steps"])
        < len(all_steps)
        for i in (1, 6)
    )


def test_turns_of_conversations_are_found_across_their_marks(tmp_path: Path, capsys: Capture) -> None:
    from chat_run import make_chat_run

    settings = ("mix.mode=concatenation", "mix.auxiliary={}", "mix.num_prompts=", "train.num_steps=")
    run = make_chat_run(tmp_path, "openchat-v3.2", *settings, upto="tokenize")
    capsys.readouterr()
    for text, kind in (("Who keeps the light at Nordhove", "user"), ("since THE long frost!", "assistant")):
        found = one(capsys, run, text)
        span = found["groups"]["planned"]["examples"][0]["prompts"][0]["spans"][0]
        assert (found["compared"], span["kinds"], span["carries_loss"]) == (
            "whole",
            [kind],
            kind == "assistant",
        )
        assert found["groups"]["planned"]["examples"][0]["example"] == "chat/talks#talk0"
    document = one(capsys, run, "Salt was sold here for longer than fish.", "--n", "8")
    (example,) = document["groups"]["planned"]["examples"]
    assert (example["reader"], example["prompts"][0]["spans"][0]["kinds"]) == ("documents", ["document"])
    dropped = one(capsys, run, "It stands at 4.1 m.")
    assert (dropped["verdict"], list(dropped["groups"])) == ("catalogue", ["train"])
    prompt = next(p for p in prompts(run) if p["example"] == "chat/talks#talk0")
    whole = one(capsys, run, prompt["text"].replace("{bos}", "").replace("{eos}", ""))
    assert whole["groups"]["planned"]["longest"] == whole["num_words"] >= 13
