"""Conversations as ShareGPT, Vicuna, OpenChat, FLAN-MINI and LLaMA-Factory write them, or as role and content.

    {"id": "a_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": "[..]"}
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "system": "Be kind."}

The turns stand under `conversations`, `items`, `messages` or `conversation`. `_chat.ROLES` says who is who; what an
assistant puts under `tool_calls` or `function_call` is a turn of role `call`. A record's `system` text (`system_prompt`,
`system_message`) becomes the first turn, its `tools` the field `tools`; other keys are not read. Texts stay as they are,
HTML included; a content of several parts becomes their texts, a line each. Long conversations are not cut here.

Option `rules`:
- `keep` (default): every turn stays, also system and tool turns and an assistant that speaks first. A conversation
  without any turn is left out as `no_turns`, one without an assistant turn or call as `no_answer`.
- `tulu` (Wang et al. 2023): a conversation with a system turn (`system_turn`), a turn of Bing (`bing_turn`) or of anybody
  else but human and gpt (`other_turn`) is left out, and one in which human and gpt do not alternate, human first
  (`not_alternating`). An unpaired last turn is cut off first; it is no record, so the metadata counts it.

A group is a conversation. Long ones are published in pieces, `<conversation>_<number of its first turn>`: ids share a group
where what stands before the number is a ShareGPT id (7 characters), or where the pieces do not overlap by these numbers.

Option `task_field` names the field whose values are tasks (FLAN-MINI: `source`), over all files.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _buckets, _chat, _files
from taskmill.curation.sources._options import one_of, refuse
from taskmill.curation.sources._values import Unusable

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
RULES = ("keep", "tulu")
OPTIONS = {
    **_chat.OPTIONS,
    "rules": f"which conversations are taken: {' or '.join(RULES)}; by default {RULES[0]}",
    "task_field": "field of a record that names its task; by default a task a file",
}
KEYS = ("conversations", "items", "messages", "conversation")
SYSTEM = ("system", "system_prompt", "system_message")
CALLS = ("tool_calls", "function_call")
_EXPECTED = "conversations as *.json, *.jsonl or *.parquet"
_TURNS = "a list of objects with from and value, or role and content"
_PIECE = re.compile(r"(.+)_(\d{1,9})", re.DOTALL)
_SHAREGPT_ID = re.compile(r"[A-Za-z0-9_-]{7}")


class Turn(NamedTuple):
    """A turn, with upstream's word for who speaks."""

    speaker: str
    role: str
    text: str


# ----------------------------------------------------------------------------------------- discovering


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files, or the values of `task_field`.

    Raises:
        DataError: the folder is missing or holds no such file, or no record has the `task_field`.
        RecipeError: an option makes no sense.
        StorageError: the cache, which files with a `task_field` are cut into, cannot be written.
    """
    rules = one_of(source, "sharegpt", "rules", RULES)
    field = source.options.get("task_field")
    problems = []
    if field is not None and not (isinstance(field, str) and field):
        problems.append(f"option task_field: found {field!r}; expected the name of a field")
    if field is not None and "task" in source.options:
        problems.append("options task and task_field: expected at most one of them")
    refuse("sharegpt", *problems)
    entries = _chat.list_entries(source, "sharegpt", _EXPECTED, rules=rules)
    if field is None:
        return entries
    files = _files_of(entries)
    detail = {**entries[0].detail, "joined": len(set(map(_files.own_name, files))) > 1, "task_field": field}
    buckets = _buckets.cut(source, files, _naming(field))
    if not buckets.tasks:
        raise _buckets.no_names(source, files, buckets, field=field, expected="a string")
    return _buckets.make_entries(source, files, buckets, **detail)


def _files_of(entries: list[TaskEntry]) -> list[Path]:
    return sorted({path for entry in entries for path in entry.files})


def _naming(field: str) -> _buckets.Naming:
    return _buckets.Naming((field,), lambda name: name if name.strip() and name.isprintable() else None)


# --------------------------------------------------------------------------------------------- reading


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the conversations of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    rules, quality = entry.detail["rules"], entry.detail["quality"]
    speakers: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    lengths: dict[str, int] = {}

    def convert(value: dict[str, Any]) -> Iterator[_chat.Item]:
        turns = turns_of(value)
        tools = _chat.as_text(value.get("tools"), "tools")
        wanted = _chat.quality_of(quality, value)
        speakers.update(turn.speaker for turn in turns)
        group = _files.usable_id(value.get("id"))
        if group is not None:
            lengths[group] = max(lengths.get(group, 0), len(turns))
        problem = _problem(turns) if rules == "keep" else _tulu(turns, counts)
        if problem is not None:
            yield problem
            return
        fields: dict[str, Any] = {"turns": [{turn.role: turn.text} for turn in turns]}
        if tools.strip():
            fields["tools"] = tools
        yield _chat.Example(fields, [], {"upstream_id": group, "group": group, "quality": wanted})

    field = entry.detail.get("task_field")
    if field is None:
        _chat.read_each(entry, source, data, convert)
    else:
        files = _files_of(_chat.list_entries(source, "sharegpt", _EXPECTED))
        for path, record in _buckets.records_of_entry(entry, source, files, _naming(field), data):
            _chat.add_record(data, source, entry, path, record, convert)
    data.columns.group = join_pieces(data.columns.group, lengths)
    metadata: dict[str, Any] = {"shape": "turns", "rules": rules}
    metadata["speakers"] = {_files.storable(name): speakers[name] for name in sorted(speakers)}
    if any(counts.values()):
        metadata["left_out"] = dict(counts)
    data.facts = {
        "dataset": entry.name,
        "category": "Conversation",
        "output_fields": list(_chat.OUTPUT_FIELDS),
        "metadata": metadata,
    }
    return data


def turns_of(value: Mapping[str, Any]) -> list[Turn]:
    """Return the turns of a record, its `system` text first.

    Raises:
        Unusable: they are missing, a turn is no turn, or nobody knows who speaks.
    """
    key = next((key for key in KEYS if value.get(key) is not None), KEYS[0])
    system = next((text for name in SYSTEM if (text := _chat.maybe_text(value, name)).strip()), "")
    turns = [Turn("system", "system", system)] if system else []
    for number, row in enumerate(_chat.need_rows(value, key, _TURNS)):
        where = f"{key}.{number}"
        speaker_key = "role" if row.get("from") is None and "role" in row else "from"
        text_key = "content" if row.get("value") is None and "content" in row else "value"
        speaker = _chat.need_text(row, speaker_key, f"{where}.{speaker_key}")
        role = _chat.role_of(speaker, f"{where}.{speaker_key}")
        calls = next(
            (text for name in CALLS if (text := _chat.as_text(row.get(name), f"{where}.{name}"))), ""
        )
        if calls and row.get(text_key) is None:
            text = ""
        else:
            text = _text(row, text_key, f"{where}.{text_key}")
        if text or not calls:
            turns.append(Turn(speaker, role, text))
        if calls:
            turns.append(Turn("tool_calls", "call", calls))
    return turns


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    """Return the text of a turn; where it is a list of parts, their texts, a line each.

    Raises:
        Unusable: it is missing, not text, or has a part that is none, such as an image.
    """
    parts = row.get(key)
    if not isinstance(parts, list):
        return _chat.need_text(row, key, where)
    texts: list[str] = []
    for number, part in enumerate(parts):
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise Unusable("not_text", "a part that is not text", f"{where}.{number}", part, "a text")
        texts.append(text)
    return "\n".join(texts)


def _problem(turns: list[Turn]) -> _chat.Left | None:
    """Return why a conversation teaches nothing, if so."""
    if not turns:
        return _chat.Left("no_turns", "the conversation is empty")
    if not any(turn.role in ("assistant", "call") for turn in turns):
        return _chat.Left("no_answer", "the conversation has no turn of an assistant")
    return None


def _tulu(turns: list[Turn], counts: Counter[str]) -> _chat.Left | None:
    """Return why TULU leaves a conversation out, if so; else cut off an unpaired last turn."""
    for number, turn in enumerate(turns):
        speaker = turn.speaker.strip().lower()
        if speaker in ("human", "user", "gpt", "chatgpt", "assistant"):
            continue
        reason = f"{speaker}_turn" if speaker in ("system", "bing") else "other_turn"
        return _chat.Left(reason, f"turn {number} is of {turn.speaker!r}; TULU takes human and gpt alone")
    paired = turns[: len(turns) // 2 * 2]
    for number, turn in enumerate(paired):
        if turn.role != ("user", "assistant")[number % 2]:
            return _chat.Left("not_alternating", f"turn {number} is of {turn.speaker!r} out of order")
    if turns and not paired:
        return _chat.Left("no_answer", "the conversation is a single turn")
    if not turns:
        return _problem(turns)
    counts["unpaired_last_turn"] += len(turns) - len(paired)
    del turns[len(paired) :]
    return None


def join_pieces(groups: list[str | None], lengths: Mapping[str, int]) -> list[str | None]:
    """Return the conversation of each id; an id that is no piece of one stands for itself.

    Args:
        groups: upstream ids of examples.
        lengths: number of turns of every id, those left out included.
    """
    pieces: dict[str, list[tuple[int, int]]] = {}
    for name, num_turns in lengths.items():
        match = _PIECE.fullmatch(name)
        if match:
            pieces.setdefault(match[1], []).append((int(match[2]), num_turns))
    whole = {name for name, found in pieces.items() if _SHAREGPT_ID.fullmatch(name) or _in_order(found)}

    def conversation_of(name: str | None) -> str | None:
        match = _PIECE.fullmatch(name) if name is not None else None
        return match[1] if match and match[1] in whole else name

    return [conversation_of(name) for name in groups]


def _in_order(pieces: list[tuple[int, int]]) -> bool:
    """Say whether (first turn, number of turns) never overlap and are several."""
    pieces = sorted(pieces)
    return len(pieces) > 1 and all(a + n <= b for (a, n), (b, _) in itertools.pairwise(pieces))
