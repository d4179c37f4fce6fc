"""Exported files in TRL: its trainer reads them as docs/chat-export.md shows, and trains the tokens that this package trains.

All of it runs in one process of its own, as importing TRL takes seconds and warns.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from chat_run import make_chat_run

from taskmill.commands.export_chat import Plan, write_export
from taskmill.commands.finished import FinishedRun

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="trl is not installed; it comes with the extra `dev`"
)
MODEL = """
import json, os
from pathlib import Path
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

def make():
    tokenizer = AutoTokenizer.from_pretrained("tokenizer")
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained("model")
    tokenizer.save_pretrained("model")

def dump():
    names = ("position", "input_ids", "labels")
    rows = [{name: row[name] for name in names} for row in trainer.train_dataset]
    loss = trainer.state.log_history[-1]["train_loss"]
    Path("trained.json").write_text(json.dumps({"rows": rows, "loss": loss}))
"""
NUM = 600
SETTINGS = (f"mix.num_prompts={NUM}", "tokenize.max_length=1024")
Rows = dict[int, list[tuple[list[int], list[int]]]]
"""Position -> (ids, labels) of its rows."""


class Case(NamedTuple):
    """An export, and how TRL reads it."""

    chat_format: str
    layout: Literal["messages", "prompt-completion"]
    leave_out: tuple[str, ...] = ()
    """Lines of the page's script."""
    files: str = "train"


ALL = ("assistant_only_loss=True,", 'chat_template_path="chat/chat_template.jinja",')
CASES = {
    "messages": Case("chatml", "messages"),
    "documents": Case("chatml", "messages", ALL, "train-documents"),
    "answers": Case("chatml", "prompt-completion"),
    "completions": Case("chatml", "prompt-completion", ALL[:1]),
    "tulu": Case("tulu", "messages"),
    "vicuna": Case("vicuna-v1.1", "messages"),
    "conditions": Case("openchat-v3.2", "messages"),
    "texts": Case("plain", "prompt-completion", ALL),
}


class Trained(NamedTuple):
    """What TRL made of an export."""

    run: FinishedRun
    rows: Rows
    loss: float


@pytest.fixture(scope="module")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """What TRL makes of each case, all of them in one process."""
    root = tmp_path_factory.mktemp("trl")
    page = (repository / "docs/chat-export.md").read_text(encoding="utf-8")
    script = re.search(r"<!-- script: messages -->\n```python\n(.*?)```", page, re.DOTALL)
    assert script is not None
    program, runs = MODEL, dict[str, FinishedRun]()
    for name, case in CASES.items():
        if case.chat_format not in runs:
            folder = root / f"run-{case.chat_format}"
            runs[case.chat_format] = FinishedRun(
                make_chat_run(folder, case.chat_format, *SETTINGS, upto="tokenize")
            )
        run = runs[case.chat_format]
        write_export(run.run, root / name / "chat", Plan(case.layout, order="mixture"))
        (root / name / "tokenizer").symlink_to((run.inputs.directory("tokenize") / "tokenizer").resolve())
        body = script[1].replace("chat/train/", f"chat/{case.files}/")
        for line in case.leave_out:
            assert line in body
            body = body.replace(line, "")
        program += f"\nos.chdir({str(root / name)!r})\nmake()\n{body}\ndump()\n"
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: _read(root / name / "trained.json", runs[case.chat_format]) for name, case in CASES.items()}


def _read(path: Path, run: FinishedRun) -> Trained:
    body = json.loads(path.read_text())
    rows: Rows = {}
    for row in body["rows"]:
        rows.setdefault(row["position"], []).append((row["input_ids"], row["labels"]))
    return Trained(run, rows, body["loss"])


def ours(run: FinishedRun, position: int) -> tuple[list[int], list[int]]:
    """Return ids and labels of a position as `taskmill tokenize` has them."""
    tokens = run.tokens
    document = int(tokens.order[position])  # every prompt is one document
    start, stop = tokens.offsets[document : document + 2].tolist()
    ids, loss = tokens.ids[start:stop].tolist(), tokens.trained[start:stop].tolist()
    return ids, [number if carries else -100 for number, carries in zip(ids, loss)]


def positions_of(run: FinishedRun, rows: set[int]) -> set[int]:
    """Return the positions at which some prompt rows are drawn."""
    drawn = run.tokens.rows[run.tokens.order].tolist()
    return {position for position, row in enumerate(drawn) if row in rows}


def spelled(run: FinishedRun) -> set[int]:
    """Return the positions of the prompt whose user spells special tokens, which TRL takes for the tokens themselves."""
    rows = run.find("render", "prompts", "task", {"chat/talks"})
    numbers = {row["row"] for row in rows if "What does <|im_end|> mean" in row["text"]}
    return positions_of(run, numbers)


def test_every_case_trains_a_step(trained: dict[str, Trained]) -> None:
    for name, found in trained.items():
        assert 0 < found.loss < 20, name
        assert found.run.tokens.info["num_places"] == found.run.tokens.info["num_positions"] == NUM
    positions = {*trained["messages"].rows, *trained["documents"].rows}
    assert positions == set(range(NUM)) == {*trained["texts"].rows, *several_answers(trained["texts"].run)}


def several_answers(run: FinishedRun) -> set[int]:
    """Return the positions that a plain run cannot export as one text and another."""
    rows = run.find("render", "prompts", "task", {"chat/talks"})
    numbers = {row["row"] for row in rows if row["text"].count("{eos}") > 1}
    numbers |= {row["row"] for row in rows if row["trained"][0]}
    return positions_of(run, numbers)


def unanswered(run: FinishedRun) -> set[int]:
    """Return the positions of the prompt whose last turn is left out, where its format keeps it."""
    rows = run.find("render", "prompts", "task", {"chat/talks"})
    numbers = {row["row"] for row in rows if "See you on Tuesday." in row["text"]}
    return positions_of(run, numbers)


@pytest.mark.parametrize("name", ["messages", "documents", "tulu", "vicuna", "conditions", "texts"])
def test_tokens_and_labels_are_those_of_this_package(trained: dict[str, Trained], name: str) -> None:
    found = trained[name]
    differ = {position for position, rows in found.rows.items() if rows != [ours(found.run, position)]}
    expected = set() if name == "documents" else spelled(found.run) | unanswered(found.run)
    assert differ == expected
    assert spelled(found.run) and bool(unanswered(found.run)) == (name == "tulu")
    for position in unanswered(found.run):
        ((ids, labels),) = found.rows[position]
        assert tuple(kept[: len(ids)] for kept in ours(found.run, position)) == (ids, labels)
    assert len(found.rows) - len(differ) > (0 if name == "documents" else 500)


@pytest.mark.parametrize("name", ["answers", "completions"])
def test_an_answer_a_row_trains_each_answer_once(trained: dict[str, Trained], name: str) -> None:
    found, most = trained[name], 0
    for position in found.rows.keys() - spelled(found.run):
        rows, (ids, labels) = found.rows[position], ours(found.run, position)
        assert rows[-1][0] == ids and all(row[0] == ids[: len(row[0])] for row in rows)
        together = [-100] * len(ids)
        for _, row_labels in rows:
            for place, label in enumerate(row_labels):
                assert together[place] == -100 or label == -100
                together[place] = max(together[place], label)
        if name == "completions":  # the newline that ChatML writes after an answer
            ends = [len(row[0]) - 1 for row in rows]
            assert all(together[end] == ids[end] and labels[end] == -100 for end in ends)
            together = [-100 if place in ends else label for place, label in enumerate(together)]
        assert together == labels
        most = max(most, len(rows))
    assert most == 2


def test_a_condition_reaches_the_chat_template(trained: dict[str, Trained]) -> None:
    found = trained["conditions"]
    decode = found.run.tokenizer.backend.decode
    texts = [decode(rows[0][0], skip_special_tokens=False) for rows in found.rows.values()]
    assert {text.partition(" User:")[0].rpartition(">")[2].strip() for text in texts} == {"GPT3", "GPT4"}
