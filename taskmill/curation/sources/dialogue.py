"""Any set of dialogues that lists their turns: JSON lines, JSON or Parquet; a task for all files of one stem.

    - reader: dialogue
      path: wizard
      options: {turns: dialog, speaker: speaker, text: text, roles: {"*_Apprentice": user, "*_Wizard": assistant}}

A record is an object; `turns` is the path of its list of turns, or a list of paths whose lists are read by turns. A turn is a
text, or `text` and `speaker` are paths in it. `roles` says who a speaker is (`*` stands for any text, null leaves the turn
out); without it the first speaker is the user and the second the assistant, and turns without a speaker alternate. The sets that
OPT-IML trains on, as ParlAI or the Hub keeps them:

    Wizard of Wikipedia    turns: dialog, speaker: speaker, text: text, roles as above
    Wizard of Internet     unwrap: true, turns: dialog_history, speaker: action, text: text,
                           roles: {"Apprentice => Wizard": user, "Wizard => Apprentice": assistant, "*SearchAgent*": null}
    Blended Skill Talk     turns: dialog, speaker: "0", text: "1"
    ConvAI2                turns: dialog, speaker: sender, text: text
    Multi-Session Chat     turns: dialog, speaker: id, text: text
    LIGHT, WILD            turns: speech, where they were turned into JSON (upstream's pickles are never loaded)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskmill.curation.reader import Columns, SourceFolder, TaskData, TaskEntry
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._options import refuse
from taskmill.curation.sources._records import Format, form_of, read_records
from taskmill.curation.sources._values import Unusable, find_path
from taskmill.errors import did_you_mean, shorten

BENCHMARK = "dialogue"
STYLE, KIND = "dialogue", "dialogue"
ROLES = ("user", "assistant", "system", "call", "tool")
OPTIONS = {
    "turns": "path of the list of turns, or a list of paths read by turns; by default turns",
    "speaker": "path of the speaker in a turn; by default turns alternate between user and assistant",
    "text": "path of the text in a turn; by default a turn is a text",
    "roles": f"speaker -> {', '.join(ROLES)}, or null to leave the turn out",
    "context": "path of a text or list of texts that stands before the turns, such as a persona",
    "id": "path of the dialogue's id",
    "group": "path of what must stay on one side; by default the id",
    "records": "JSON: path of the list of dialogues; by default the document is the list",
    "unwrap": "true where a record is an object of one key, and the dialogue its value",
}
_PATHS = ("speaker", "text", "context", "id", "group", "records")


def discover(source: SourceFolder) -> list[TaskEntry]:
    """List the tasks: files that differ in `_train`, `_valid`, `_test` or a shard number only.

    Raises:
        DataError: the folder is missing or holds no such file.
        RecipeError: an option is not what it should be.
    """
    options = dict(source.options)
    problems = [
        f"option {name}: found {shorten(options[name])}; expected a path"
        for name in _PATHS
        if name in options and not (isinstance(options[name], str) and options[name])
    ]
    turns = options.get("turns", "turns")
    paths = [turns] if isinstance(turns, str) else turns
    if not (isinstance(paths, list | tuple) and paths and all(isinstance(p, str) and p for p in paths)):
        problems.append(f"option turns: found {shorten(turns)}; expected a path or a list of paths")
    if not isinstance(options.get("unwrap", False), bool):
        problems.append(f"option unwrap: found {shorten(options['unwrap'])}; expected true or false")
    problems += _problems_of_roles(options.get("roles"), "speaker" in options)
    refuse("dialogue", *problems)
    expected = "dialogues as *.jsonl, *.json or *.parquet"
    tasks: dict[str, list[Path]] = {}
    for path in _files.list_files(source, (".jsonl", ".json", ".parquet"), expected):
        tasks.setdefault(_files.task_of_file(path, source), []).append(path)
    return [_files.make_entry(name, files) for name, files in sorted(tasks.items())]


def _problems_of_roles(roles: Any, speaker: bool) -> list[str]:
    if roles is None:
        return []
    if not isinstance(roles, Mapping):
        return [f"option roles: found {shorten(roles)}; expected a mapping of speakers to roles"]
    problems = [
        f"option roles.{name}: found {role!r}; expected one of {', '.join(ROLES)}, or null"
        + did_you_mean(str(role), ROLES)
        for name, role in roles.items()
        if role is not None and role not in ROLES
    ]
    return problems + ([] if speaker else ["option roles: without the option speaker no turn has a speaker"])


def read(entry: TaskEntry, source: SourceFolder) -> TaskData:
    """Read the dialogues of every split of one set.

    Raises:
        DataError: a file or dialogue is damaged and the recipe says stop.
    """
    facts = {"category": "Dialogue Generation", "dataset": entry.name, "metadata": {"shape": "turns"}}
    data = TaskData(facts, Columns())
    for path in entry.files:
        split = _files.split_of_file(path)
        with _files.reading(data, source, path):
            form = Format(form_of(path, source), records=source.options.get("records"))
            for record in read_records(form, path, source):
                if not _files.is_record(data, source, path, record):
                    continue
                try:
                    example = _dialogue(record.value, source.options)
                except Unusable as error:
                    where = {"field": error.field, "value": error.value, "expected": error.expected}
                    _files.damage(data, source, path, record, error.reason, error.problem, **where)
                    continue
                _accept(data, source, path, record, split, example)
    return data


def _accept(
    data: TaskData,
    source: SourceFolder,
    path: Path,
    record: Record,
    split: str | None,
    example: dict[str, Any],
) -> None:
    number, group = example.pop("id"), example.pop("group")
    before = f"{split}-" if split else ""
    _files.accept(
        data,
        source,
        path,
        record,
        example,
        [],
        upstream_id=_files.usable_id(None if number is None else f"{before}{number}"),
        upstream_split=split,
        group=None if group is None else f"{before}{group}",
    )


def _dialogue(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dialogue, with its id and group.

    Raises:
        Unusable: a path does not exist or holds something else.
    """
    if options.get("unwrap"):
        inner = next(iter(record.values()), None)
        if len(record) != 1 or not isinstance(inner, dict):
            raise Unusable("wrong_type", "not an object of one key", "unwrap", record, "{name: dialogue}")
        record = {"id": next(iter(record)), **inner}
    turns = _turns(record, options)
    found: dict[str, Any] = {"turns": turns}
    if "context" in options:
        found["context"] = _context(find_path(record, options["context"]), options["context"])
    number = _scalar(record, options.get("id"))
    return {**found, "id": number, "group": _scalar(record, options.get("group")) or number}


def _turns(record: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, str]]:
    path = options.get("turns", "turns")
    lists = [find_path(record, p) for p in ([path] if isinstance(path, str) else path)]
    if not all(isinstance(listed, list) for listed in lists) or not any(lists):
        raise Unusable(
            "wrong_type", "not a list of turns", str(path), lists[0], "a list of at least one turn"
        )
    longest = max(map(len, lists))
    items = [listed[place] for place in range(longest) for listed in lists if place < len(listed)]
    speakers: dict[str, str] = {}
    turns: list[dict[str, str]] = []
    for place, item in enumerate(items):
        text = find_path({"turn": item}, f"turn.{options['text']}") if "text" in options else item
        if not isinstance(text, str):
            raise Unusable("bad_turn", "not text", f"turns.{place}", item, "a text, or the option `text`")
        role: str | None = ROLES[place % 2]
        if "speaker" in options:
            role = _role(
                find_path({"turn": item}, f"turn.{options['speaker']}"), options.get("roles"), speakers
            )
        if role is not None:
            turns.append({role: text})
    if not turns:
        raise Unusable("no_turns", "every turn is left out", "turns", items, "at least one turn with a role")
    return turns


def _role(speaker: Any, roles: Mapping[str, str | None] | None, speakers: dict[str, str]) -> str | None:
    """Return the role of a speaker; without `roles` in the order of first appearance, kept in `speakers`."""
    if not isinstance(speaker, (str, int)):
        raise Unusable("bad_turn", "not a speaker", "speaker", speaker, "a text or a number")
    name = str(speaker)
    if roles is not None:
        for pattern, role in roles.items():
            if name == str(pattern) or fnmatch.fnmatchcase(name, str(pattern)):
                return role
        hint = did_you_mean(name, map(str, roles))
        raise Unusable("unknown_speaker", f"not a speaker of the option roles{hint}", "speaker", speaker)
    if name not in speakers:
        if len(speakers) == 2:
            expected = "two speakers, or the option roles"
            raise Unusable("unknown_speaker", "a third speaker", "speaker", speaker, expected)
        speakers[name] = ROLES[len(speakers)]
    return speakers[name]


def _context(found: Any, path: str) -> str:
    """Return a text, or texts a line each."""
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(text, str) for text in listed):
        raise Unusable("wrong_type", "not text", path, found, "a text or a list of texts")
    return "\n".join(listed)


def _scalar(record: Mapping[str, Any], path: str | None) -> str | None:
    """Return a text or number at a path as text; where there is none, null."""
    if path is None:
        return None
    try:
        found = find_path(record, path)
    except Unusable:
        return None
    return None if found is None or isinstance(found, (bool, float, dict, list)) else str(found)
