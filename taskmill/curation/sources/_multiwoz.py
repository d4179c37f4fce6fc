"""MultiWOZ as its authors publish it: dialogues with what the user has asked for after each turn.

Reads `data.json` beside `valListFile.*` and `testListFile.*`, which name the dialogues of two splits (Budzianowski et al.
2018; the same layout in 2.1, Eric et al. 2020). An example is a user's turn: the talk so far, all slots there are, and the state
after it as `domain-slot value` pairs. A group is a dialogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder, TaskData
from taskmill.curation.sources import _files
from taskmill.curation.sources._files import Record
from taskmill.curation.sources._linear import dialogue_text, state_text
from taskmill.curation.sources._records import Format, read_records
from taskmill.curation.sources._structured import Kept, RawSet

SPEAKERS = ("user", "system")
_LISTS = {"valListFile": "validation", "testListFile": "test"}
_UNSAID = frozenset(["", "none", "not mentioned"])


def _lists(folder: Path) -> list[Path]:
    return sorted(path for name in _LISTS for path in folder.glob(f"{name}.*") if path.is_file())


def _find(folder: Path) -> dict[Path, str | None]:
    names = {path.name.split(".")[0] for path in _lists(folder)}
    data = [path for path in (folder / "data.json", folder / "data.json.gz") if path.is_file()]
    return dict.fromkeys(data) if names == set(_LISTS) else {}


def _read(path: Path, split: str | None, kept: Kept, source: SourceFolder, data: TaskData) -> None:
    split_of: dict[str, str] = {}
    for listed in _lists(path.parent):
        own = _LISTS[listed.name.split(".")[0]]
        text = _files.read_all(listed, source).decode("utf-8", "replace")
        split_of |= dict.fromkeys(text.split(), own)
    number = 0
    for record in read_records(Format("json", records="*"), path, source):
        if not _files.is_record(data, source, path, record):
            continue
        name = str(record.value["*"])
        turns = _turns(record.value.get("log"))
        if turns is None:
            where = {
                "field": "log",
                "expected": "turns with a `text`, and the state in every second's `metadata`",
            }
            _files.damage(data, source, path, record, "wrong_type", f"not the turns of {name}", **where)
            continue
        for place, (talk, struct, state) in enumerate(turns):
            one = Record(number, {"dialogue": name, "turn": place}, None)
            number += 1
            _files.accept(
                data,
                source,
                path,
                one,
                {"text": talk, "struct": struct},
                [state],
                upstream_split=split_of.get(name, "train"),
                group=name,
                upstream_id=_files.usable_id(f"{name}-{place}"),
            )


def _turns(log: Any) -> list[tuple[str, str, str]] | None:
    """Return (the talk so far, all slots, the state) of each turn of the user, None where the log is none."""
    if not isinstance(log, list) or not all(
        isinstance(t, dict) and isinstance(t.get("text"), str) for t in log
    ):
        return None
    turns = []
    texts = [turn["text"] for turn in log]
    for place in range(0, len(log) - 1, 2):
        state = log[place + 1].get("metadata")
        if not isinstance(state, dict):
            return None
        slots = list(_slots(state))
        said = [(slot, value) for slot, value in slots if value.strip().lower() not in _UNSAID]
        talk = dialogue_text(list(zip(SPEAKERS * len(texts), texts[: place + 1], strict=False)))
        turns.append((talk, ", ".join(slot for slot, _ in slots), state_text(said)))
    return turns


def _slots(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (domain-slot, value) of all slots, in upstream's order; an empty text where nothing is said."""
    for domain, parts in state.items():
        for part in ("semi", "book"):
            slots = parts.get(part) if isinstance(parts, dict) else None
            for slot, value in slots.items() if isinstance(slots, dict) else ():
                if slot != "booked":
                    prefix = "book " if part == "book" else ""
                    yield f"{domain}-{prefix}{slot}", value if isinstance(value, str) else ""


MULTIWOZ = RawSet(
    _find,
    lambda path: _lists(path.parent),
    _read,
    {
        "category": "Dialogue State Tracking",
        "definition": "Write all that the user has asked for so far, as slots and values.",
        "metric": "exact_match",
        "homepage": "https://github.com/budzianowski/multiwoz",
    },
)
