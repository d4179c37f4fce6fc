"""A small run with conversations, two-part prompts and a document, rendered in a chat format of one's choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import make_small

from taskmill import cli

TALKS = """\
human: Who keeps the light at Nordhove? / gpt: Hanno does. / human: Since when? / gpt: Since the long frost.
system: Answer like a sailor. / human: How far is Kelp Isle? / gpt: Two hours, aye.
human: What does <|im_end|> mean, and </s>? / gpt: They are <|im_end|> marks, é 数.
gpt: Good morning at the harbour. / human: Morning. Is the ferry late? / gpt: It is.
human: Tide at noon? / function_call: tide("noon") / observation: 4.1 m / gpt: It stands at 4.1 m.
human: Thanks for the eels. / gpt: You are welcome. / human: See you on Tuesday.
human: Name berth 1 of the quay. / gpt: Berth 1 is called Rope.
human: Name berth 2 of the quay. / gpt: Berth 2 is called Gull.
human: Name berth 3 of the quay. / gpt: Berth 3 is called Pitch.
"""
"""One conversation a line."""
DOCUMENTS = [
    "The harbour of Nordhove is small.\nIts light is red.",
    "Salt was sold here for longer than fish.",
]


def make_chat_run(folder: Path, chat_format: str, *extra: str, upto: str = "mix") -> Path:
    """Write `data`, `recipe.yaml` and the run `run` up to a stage into a folder; returns the run."""
    make_small(folder)
    write_data(folder)
    arguments = ["run", str(folder / "recipe.yaml"), "--run", str(folder / "run"), "--to", upto, "--quiet"]
    settings = (f"render.format={chat_format}", "render.default_quality=GPT3", *extra)
    arguments += [part for value in settings for part in ("--set", value)]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--workers", "1"])
    assert not stopped.value.code
    return folder / "run"


def write_data(folder: Path) -> None:
    """Add conversations and documents to the small benchmark in a folder."""
    talks = []
    for number, line in enumerate(TALKS.splitlines()):
        turns = [turn.split(": ", 1) for turn in line.split(" / ")]
        spoken = [{"from": who, "value": text} for who, text in turns]
        talks.append({"id": f"talk{number}", "conversations": spoken})
    (folder / "data/sharegpt").mkdir()
    (folder / "data/sharegpt/talks.json").write_text(json.dumps(talks))
    (folder / "data/documents").mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS)
    (folder / "data/documents/harbour.jsonl").write_text(lines)
    recipe = (folder / "recipe.yaml").read_text()
    sources = "sources:\n  - {reader: sharegpt, path: sharegpt, options: {quality: GPT4}}\n"
    sources += "  - {reader: documents, path: documents}\n"
    (folder / "recipe.yaml").write_text(recipe.replace("sources:\n", sources))
