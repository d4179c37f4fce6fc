"""Baize: records with `input`, the text of a conversation with the marks [|Human|] and [|AI|] (and `topic`, not read).

    Some words about who speaks. [|Human|] Hello! [|AI|] Hi. [|Human|]

Texts are stripped of outer blank space (TULU's conversion does so too). A round, which is what one [|Human|] begins, makes
a user turn and an assistant turn for each [|AI|] in it. A round without [|AI|] is skipped and what stands before the first
[|Human|] is no turn; both are no records, so the metadata counts them (blank ones aside). A record without any complete
round is left out as `no_answer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
OPTIONS = dict(_chat.OPTIONS)
_EXPECTED = "records with input, a text with [|Human|] and [|AI|], as *.json, *.jsonl or *.parquet"


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    return _chat.list_entries(source, "baize", _EXPECTED)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the conversations of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    left_out: Counter[str] = Counter()

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        text = _chat.need_text(value, "input")
        quality = _chat.quality_of(entry.detail["quality"], value)
        turns = split_rounds(text, left_out)
        if turns:
            yield _chat.Example({"turns": turns}, [], {"quality": quality})
        else:
            yield _chat.Left("no_answer", "no round of the text has both [|Human|] and [|AI|]")

    _chat.read_each(entry, source, data, convert)
    data.facts = {
        "dataset": entry.name,
        "category": "Conversation",
        "languages": ["English"],
        "output_fields": list(_chat.OUTPUT_FIELDS),
        "metadata": {"shape": "turns", "left_out": {name: left_out[name] for name in sorted(left_out)}},
    }
    return data


def split_rounds(text: str, left_out: Counter[str]) -> list[dict[str, str]]:
    """Return the turns of a text; `left_out` counts its preamble and its rounds without an answer."""
    preamble, *rounds = text.split("[|Human|]")
    left_out["preamble"] += bool(preamble.strip())
    turns: list[dict[str, str]] = []
    for part in rounds:
        asked, *answers = (piece.strip() for piece in part.split("[|AI|]"))
        if answers:
            turns += [{"user": asked}, *({"assistant": answer} for answer in answers)]
        else:
            left_out["round_without_answer"] += bool(asked)
    return turns
