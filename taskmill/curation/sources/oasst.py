"""OpenAssistant conversations (OASST1, OASST2): trees of messages of prompters and assistants.

Forms of a record, told one by one: a tree {message_tree_id, tree_state, prompt: {text, role, replies: [..]}}; a message with
its `replies` inside; a message alone {message_id, parent_id, text, role ..}, as the Hub's Parquet has them, whose trees are
put together file by file (`user_message_id` and `parent_message_id` are names for the same); a text alone, which is a
prompt that nobody answered (`no_answer`). A group is a tree.

An example is a path from the root. Option `paths`:
- `leaf` (default; TULU since August 2023): paths to messages without replies;
- `all_assistant` (TULU of June 2023): paths to every message of an assistant, which repeat their beginnings;
- `top_reply` (TULU 2): one path a tree, to the reply of the best `rank` each time (0 is best; without ranks the first).

A path is left out, for the first of these that holds: the tree is not `ready_for_export` where it has a state
(`tree_not_ready`), a message on it is `deleted`, was rejected in review (`rejected`) or is in a language that the option
`languages` does not name (`language`), or the last message is not an assistant's (`no_answer`). A deleted reply still
counts as a reply, as in TULU's conversion; `top_reply` passes it over. Option `quality` looks at the path's last message.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _chat, _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._options import one_of, refuse
from taskmill.curation.sources._values import Unusable

BENCHMARK = "chat"
STYLE, KIND = "chat", "chat"
PATHS = ("leaf", "all_assistant", "top_reply")
OPTIONS = {
    **_chat.OPTIONS,
    "paths": f"which paths are examples: {', '.join(PATHS)}; by default {PATHS[0]}",
    "languages": "codes of the languages that are taken, such as [en]; by default all",
}
READY = "ready_for_export"
UNKNOWN = "unknown"
"""Language of a message that names none."""
NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "eo": "Esperanto",
    "es": "Spanish",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "gl": "Galician",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nb-NO": "Norwegian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt-BR": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk-UA": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""Language codes of the exports -> names."""
_EXPECTED = "trees or messages as *.jsonl, *.json or *.parquet"


@dataclass
class Message:
    """A message and the replies to it."""

    value: dict[str, Any]
    number: int
    """Of its record."""
    role: str
    text: str
    rank: float
    """0 is best; infinite without one."""
    replies: list[Message] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """A root and what is known of its tree."""

    root: Message
    name: str | None
    problem: _chat.Left | Unusable | None


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option makes no sense.
    """
    paths = one_of(source, "oasst", "paths", PATHS)
    languages = source.options.get("languages")
    good = isinstance(languages, list) and all(isinstance(code, str) for code in languages)
    if languages is not None and not (good and languages):
        refuse("oasst", f"option languages: found {languages!r}; expected codes such as [en]")
    return _chat.list_entries(source, "oasst", _EXPECTED, paths=paths, languages=languages)


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the paths of one task.

    Raises:
        DataError: a file or record is damaged and the recipe says stop.
    """
    data = TaskData({}, Columns())
    languages: Counter[str] = Counter()
    for path in entry.files:
        with _files.reading(data, source, path):
            for message, item in _read_file(path, entry, source, data):
                record = Record(
                    message.number, {k: v for k, v in message.value.items() if k != "replies"}, None
                )
                if _chat.add(data, source, entry, path, record, item):
                    languages[_files.storable(str(message.value.get("lang") or UNKNOWN))] += 1
    metadata = {"shape": "turns", "paths": entry.detail["paths"]}
    known = sorted({NAMES.get(code, code) for code in languages if code != UNKNOWN})
    data.facts = {
        **({"languages": known} if known else {}),
        "dataset": entry.name,
        "category": "Conversation",
        "output_fields": list(_chat.OUTPUT_FIELDS),
        "metadata": {**metadata, "languages": {code: languages[code] for code in sorted(languages)}},
    }
    return data


def _read_file(
    path: Path, entry: TaskEntry, source: SourceFolder, data: TaskData
) -> Iterator[tuple[Message, _chat.Item]]:
    """Yield (last message, what becomes of the path) for the paths of a file; report what is no message itself."""
    alone: list[Message] = []
    quality = entry.detail["quality"] or {}
    wanted = frozenset({"replies", "prompt", str(quality.get("field")).split(".")[0]})
    for record in _chat.records(path, source, wanted):
        if isinstance(record.value, str):
            _files.leave(data, source, path, record, "no_answer", "a prompt alone")
        elif _files.is_record(data, source, path, record):
            try:
                found = _parse_record(record)
            except (Unusable, RecursionError) as error:
                problem = error if isinstance(error, Unusable) else _TOO_DEEP
                _chat.add(data, source, entry, path, record, problem)
                continue
            if isinstance(found, Tree):
                yield from _examples(found, entry)
            else:
                alone.append(found)
    for item in _join(alone):
        if isinstance(item, Tree):
            yield from _examples(item, entry)
        else:
            yield item


# -------------------------------------------------------------------------------------- trees from records

_TOO_DEEP = Unusable("too_deep", "lists or objects nested too deeply", "replies", "..")


def _parse_record(record: Record) -> Tree | Message:
    """Return the tree of a record, or its message where that is alone.

    Raises:
        Unusable: something in it is not what it should be.
    """
    value = record.value
    if "prompt" in value:
        prompt = value["prompt"]
        if not isinstance(prompt, dict):
            raise Unusable("wrong_type", "not a message", "prompt", prompt, "an object")
        root = _parse_nested(prompt, record.number, "prompt")
        name = value.get("message_tree_id") or _message_id(prompt)
        return Tree(root, _key(name, "message_tree_id"), _state_problem(value))
    if not value.get("replies"):
        return _parse(value, record.number, "")
    root = _parse_nested(value, record.number, "")
    name = _key(value.get("message_tree_id") or _message_id(value), "message_id")
    orphan = None if _parent_id(value) is None else _orphan(value)
    return Tree(root, name, orphan or _state_problem(value))


def _parse_nested(value: dict[str, Any], number: int, where: str) -> Message:
    """Return a message with its replies; a loop, since trees may be deep.

    Raises:
        Unusable: a message is not what it should be.
    """
    root = _parse(value, number, where)
    waiting = [(root, where)]
    while waiting:
        message, where = waiting.pop()
        found = message.value.get("replies")
        place = f"{where}.replies" if where else "replies"
        if found is not None and not isinstance(found, list):
            raise Unusable("wrong_type", "not a list of messages", place, found, "a list")
        for n, reply in enumerate(found or []):
            if not isinstance(reply, dict):
                raise Unusable("wrong_type", "not a message", f"{place}.{n}", reply, "an object")
            message.replies.append(_parse(reply, number, f"{place}.{n}"))
            waiting.append((message.replies[-1], f"{place}.{n}"))
    return root


def _parse(value: dict[str, Any], number: int, where: str) -> Message:
    """Return a message without its replies.

    Raises:
        Unusable: a field is missing or not what it should be.
    """
    prefix = f"{where}." if where else ""
    text = _chat.need_text(value, "text", f"{prefix}text")
    role = _chat.role_of(_chat.need_text(value, "role", f"{prefix}role"), f"{prefix}role")
    for name in ("deleted", "review_result"):
        if value.get(name) is not None and not isinstance(value[name], bool):
            raise Unusable(
                "wrong_type", "not yes or no", f"{prefix}{name}", value[name], "true, false or null"
            )
    lang = value.get("lang")
    if lang is not None and not isinstance(lang, str):
        raise Unusable("wrong_type", "not a language", f"{prefix}lang", lang, "a code such as en")
    return Message(value, number, role, text, _rank(value.get("rank"), f"{prefix}rank"))


def _rank(found: Any, where: str) -> float:
    if found is None:
        return math.inf
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Unusable("wrong_type", "not a rank", where, found, "a number or null")
    return math.inf if isinstance(found, float) and math.isnan(found) else found


def _message_id(value: dict[str, Any]) -> Any:
    return value.get("message_id", value.get("user_message_id"))


def _parent_id(value: dict[str, Any]) -> Any:
    return value.get("parent_id", value.get("parent_message_id"))


def _key(found: Any, where: str) -> str | None:
    """Return an id as text.

    Raises:
        Unusable: it is neither text nor a whole number.
    """
    if found is None or (isinstance(found, str) and found):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise Unusable("wrong_type", "not an id", where, found, "a text that is not empty")


def _state_problem(value: dict[str, Any]) -> _chat.Left | None:
    """Return that a tree is not ready, if it says so.

    Raises:
        Unusable: its state is no text.
    """
    state = value.get("tree_state")
    if state is not None and not isinstance(state, str):
        raise Unusable("wrong_type", "not a state", "tree_state", state, f"text such as {READY}")
    return None if state in (None, READY) else _chat.Left("tree_not_ready", f"the tree's state is {state!r}")


def _orphan(value: dict[str, Any]) -> Unusable:
    problem = "the message that this one replies to is not in the file"
    return Unusable("missing_parent", problem, "parent_id", _parent_id(value), "the id of a message")


def _join(messages: list[Message]) -> Iterator[Tree | tuple[Message, Unusable]]:
    """Yield the trees of messages that stand alone, and the messages that are in none."""
    known: dict[str, Message] = {}
    parents: list[tuple[Message, str, str | None]] = []
    for message in messages:
        try:
            parent = _key(_parent_id(message.value), "parent_id")
            _key(message.value.get("message_tree_id"), "message_tree_id")
            _state_problem(message.value)
            name = _key(_message_id(message.value), "message_id")
            if name is None:
                _chat.need_text(message.value, "message_id")
            if name in known or name is None:
                raise Unusable("duplicate_id", "an earlier message has the same id", "message_id", name)
        except Unusable as error:
            yield message, error
            continue
        known[name] = message
        parents.append((message, name, parent))
    roots = []
    for message, name, parent in parents:
        if parent is not None and parent in known:
            known[parent].replies.append(message)
        else:
            group = _key(message.value.get("message_tree_id"), "message_tree_id") or name
            orphan = None if parent is None else _orphan(message.value)
            roots.append(Tree(message, group, orphan or _state_problem(message.value)))
    yield from roots
    yield from _in_circles([message for message, _, _ in parents], roots)


def _in_circles(messages: list[Message], roots: list[Tree]) -> Iterator[tuple[Message, Unusable]]:
    """Yield the messages that no root leads to."""
    reached: set[int] = set()
    waiting = [tree.root for tree in roots]
    while waiting:
        message = waiting.pop()
        reached.add(id(message))
        waiting.extend(message.replies)
    for message in messages:
        if id(message) not in reached:
            value = _parent_id(message.value)
            yield message, Unusable("circle", "the message replies to its own replies", "parent_id", value)


# ---------------------------------------------------------------------------------------- paths of a tree


def _examples(tree: Tree, entry: TaskEntry) -> Iterator[tuple[Message, _chat.Item]]:
    """Yield (last message, what becomes of the path) for the paths that the option `paths` wants."""
    wanted, languages = entry.detail["paths"], entry.detail["languages"]
    found = _top_path(tree, languages) if wanted == "top_reply" else _walk(tree, languages, wanted == "leaf")
    for path, problem in found:
        last = path[-1]
        if problem is not None:
            yield last, problem
        elif last.role != "assistant":
            yield last, _chat.Left("no_answer", "the last message of the path is not an assistant's")
        else:
            yield last, _example(path, tree, entry)


def _example(path: list[Message], tree: Tree, entry: TaskEntry) -> _chat.Item:
    last = path[-1].value
    try:
        quality = _chat.quality_of(entry.detail["quality"], last)
    except Unusable as error:
        return error
    columns = {"upstream_id": _message_id(last), "group": tree.name, "quality": quality}
    return _chat.Example({"turns": [{message.role: message.text} for message in path]}, [], columns)


Problem = _chat.Left | Unusable | None


def _problem_of(message: Message, languages: list[str] | None) -> _chat.Left | None:
    value = message.value
    if value.get("deleted"):
        return _chat.Left("deleted", "a message of the path is deleted")
    if value.get("review_result") is False:
        return _chat.Left("rejected", "a message of the path was rejected in review")
    if languages is not None and value.get("lang") not in languages:
        return _chat.Left("language", f"a message of the path is in {value.get('lang')!r}")
    return None


def _walk(tree: Tree, languages: list[str] | None, leaf: bool) -> Iterator[tuple[list[Message], Problem]]:
    """Yield the paths to leaves, or to every assistant; depth first, a loop since trees may be deep."""
    path: list[Message] = []
    waiting: list[tuple[Message, int, Problem]] = [(tree.root, 0, tree.problem)]
    num_paths = 0
    while waiting:
        message, depth, problem = waiting.pop()
        del path[depth:]
        path.append(message)
        problem = problem or _problem_of(message, languages)
        if (not message.replies) if leaf else message.role == "assistant":
            num_paths += 1
            yield path, problem
        waiting.extend((reply, depth + 1, problem) for reply in reversed(message.replies))
    if not num_paths:
        yield [tree.root], tree.problem or _problem_of(tree.root, languages)


def _top_path(tree: Tree, languages: list[str] | None) -> Iterator[tuple[list[Message], Problem]]:
    """Yield the path of best replies."""
    path, problem = [tree.root], tree.problem or _problem_of(tree.root, languages)
    while path[-1].replies and problem is None:
        replies = path[-1].replies
        usable = [reply for reply in replies if _problem_of(reply, languages) is None]
        path.append(min(usable or replies, key=lambda reply: reply.rank))
        problem = _problem_of(path[-1], languages)
    yield path, problem
