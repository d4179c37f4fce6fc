"""Steps of a review, kept beside the run so that each can be undone and done again, also after the server was killed.

Reads and appends to `review-history.jsonl` at the root of a run. A line is a record: a head and its rows, both JSON, with a tab
between them. The head of a step says what kind it is, whose and when; its rows say of each pair what was decided, or noted,
before and after. Undoing and doing again are lines as well. A line is durable before the file changes that it is about, so the
last one may name a step that a killed process never carried out: `History.load` finds out and leaves it out.

    {"about":"notes","at":"2026-03-01","by":"ann","kind":"note","label":"...","num":1,"step":1}<tab>[["a","b",null,"look"]]
    {"at":"2026-03-01","by":"ann","undo":1}<tab>[]
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmill import storage
from taskmill.errors import DamagedError, StorageError
from taskmill.splits.deciding.decisions import Decision
from taskmill.storage import write_bytes

HISTORY_FILE = "review-history.jsonl"
MOST_BYTES = 1 << 26
"""A history that is longer loses its older half."""
_HEAD = frozenset(("step", "kind", "about", "label", "by", "at", "num"))
_NUMBERS = frozenset(("step", "num", "undo", "redo", "forget"))
Key = tuple[str, str]
Value = Decision | str | None
"""What is decided or noted about a pair, None for nothing."""


@dataclass(frozen=True)
class Change:
    """A step that was done, undone or done again."""

    number: int
    """Of the step in the history, from 1; 0 where nothing changed."""
    kind: str
    """`decide`, `clear`, `note` or `merge`: the kind of step; `undo` and `redo` give that of the step they are about."""
    label: str
    """What the step is, in words: `drop_train_task on 12 pairs`."""
    num_pairs: int
    """Pairs that this call changed."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Pairs that undo or redo left alone, because somebody decided them otherwise since."""
    by: str = ""
    at: str = ""


@dataclass
class Step:
    """A step as the history holds it."""

    head: dict[str, Any]
    line: bytes
    """Its rows as JSON, read when they are asked for."""
    done: bool = True

    @property
    def number(self) -> int:
        """From 1, in the order of the history."""
        return int(self.head["step"])

    @property
    def is_note(self) -> bool:
        """Whether it changed notes; otherwise decisions."""
        return bool(self.head["about"] == "notes")

    def change(self, num_pairs: int | None = None, skipped: Sequence[Key] = ()) -> Change:
        """Return the step in words, with the pairs that a call changed."""
        head = self.head
        number = head["num"] if num_pairs is None else num_pairs
        return Change(
            self.number, head["kind"], head["label"], number, tuple(skipped), head["by"], head["at"]
        )

    def rows(self) -> list[tuple[Key, Value, Value]]:
        """Return (pair, before, after) of everything that it changed.

        Raises:
            DamagedError: the line is not as it was written.
        """
        try:
            return self._rows(json.loads(self.line))
        except (ValueError, TypeError, LookupError) as error:
            raise DamagedError(
                f"step {self.number} in {HISTORY_FILE} of the run is damaged: {error}; delete that file to go on, "
                f"nothing but Undo needs it"
            ) from error

    def _rows(self, body: Any) -> list[tuple[Key, Value, Value]]:
        if self.is_note:
            return [((train, evaluation), before, after) for train, evaluation, before, after in body]
        values, found = body["values"], list[tuple[Key, Value, Value]]()
        for train, evaluation, before, old, after, new in body["rows"]:
            key = train, evaluation
            found.append((key, _decision(key, values, before, old), _decision(key, values, after, new)))
        return found


def _decision(key: Key, values: list[list[str]], number: int | None, evidence: str) -> Decision | None:
    if number is None:
        return None
    action, rule, by, at, why = values[number]
    return Decision(*key, action, evidence, rule, by, at, why)


def _rows_json(rows: Sequence[tuple[Key, Value, Value]], is_note: bool) -> bytes:
    """Return rows as JSON; of decisions each set of action, rule, name, time and reason is written once."""
    if is_note:
        return _json([[*key, before, after] for key, before, after in rows])
    values: dict[tuple[str, ...], int] = {}

    def number(value: Value) -> tuple[int | None, str]:
        if not isinstance(value, Decision):
            return None, ""
        about = value.action, value.rule, value.by, value.at, value.why
        return values.setdefault(about, len(values)), value.evidence

    body = [[*key, *number(before), *number(after)] for key, before, after in rows]
    return _json({"rows": body, "values": [list(about) for about in values]})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _is_head(body: Any) -> bool:
    """Say whether JSON is the head of a record: numbers of steps are whole, all else is text."""
    return isinstance(body, dict) and all(
        isinstance(value, int if name in _NUMBERS else str) for name, value in body.items()
    )


class History:
    """The steps of a run's reviews, of all reviewers; each undoes one's own."""

    def __init__(self, path: Path) -> None:
        """Use the file, which need not be there; `load` reads it."""
        self.path = path
        self.steps: dict[int, Step] = {}
        self._lines: list[bytes] = []
        self._size = 0
        self._undone: list[int] = []
        self._forgotten = False
        """Whether the last line is about something that was never carried out."""

    def load(self, present: Callable[[bool, Key], Value]) -> None:
        """Read the file; lines up to a damaged one, and half a line at the end, are left out.

        Args:
            present: returns what is noted (True) or decided (False) about a pair now.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            data = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror or error}") from error
        whole = data[: data.rfind(b"\n") + 1]
        self._replay(whole.splitlines(keepends=True))
        self._size = len(whole)
        if self._lines and not self._carried_out(present):
            self._replay(self._lines[:-1])
            self._forgotten = True

    def _replay(self, lines: list[bytes]) -> None:
        """Take in lines from the first; those up to a damaged one go."""
        records = list[tuple[dict[str, Any], bytes, bytes]]()
        for line in lines:
            head, _, rows = line.partition(b"\t")
            try:
                body = json.loads(head)
            except ValueError:
                body = None
            if not _is_head(body):
                records.clear()
            elif "forget" not in body:
                records.append((body, rows, line))
            elif records:
                records.pop()
        self.steps, self._undone, self._lines, self._forgotten = {}, [], [], False
        for body, rows, line in records:
            self._take(body, rows)
            self._lines.append(line)

    def _take(self, head: Mapping[str, Any], rows: bytes) -> None:
        """Take in a record; one that is none of ours, or about a step that is not there, says nothing."""
        if "undo" in head:
            if head["undo"] in self.steps:
                self.steps[head["undo"]].done = False
                self._undone.append(head["undo"])
        elif "redo" in head:
            if head["redo"] in self._undone:
                self.steps[head["redo"]].done = True
                self._undone.remove(head["redo"])
        elif head.keys() >= _HEAD:
            step = Step(dict(head), rows)
            self.steps[step.number] = step
            self._undone = [n for n in self._undone if self.steps[n].head["by"] != head["by"]]

    def _carried_out(self, present: Callable[[bool, Key], Value]) -> bool:
        """Say whether what the last line says was done: some pair is as it would be then, or none as it was before."""
        head = json.loads(self._lines[-1].partition(b"\t")[0])
        back = "undo" in head
        number = head.get("undo", head.get("redo", head.get("step")))
        step = self.steps.get(number)
        if step is None:
            return True
        try:
            found = step.rows()
        except DamagedError:  # said where it is to be undone
            return True
        rows = [(key, after, before) if back else (key, before, after) for key, before, after in found]
        now = [(present(step.is_note, key), before, after) for key, before, after in rows]
        return any(value == after for value, _, after in now) or not any(
            value == before for value, before, _ in now
        )

    def _shorten(self) -> None:
        """Leave the newer half of the file: steps that are older can be undone no more."""
        kept, size = list[bytes](), 0
        for line in reversed(self._lines):
            size += len(line)
            if size > MOST_BYTES // 2 and kept:
                break
            kept.append(line)
        kept.reverse()
        write_bytes(self.path, b"".join(kept))
        self._replay(kept)
        self._size = sum(map(len, kept))

    def last_done(self, by: str) -> Step | None:
        """Return the step that a person would undo."""
        return next(
            (step for step in reversed(self.steps.values()) if step.done and step.head["by"] == by), None
        )

    def last_undone(self, by: str) -> Step | None:
        """Return the step that a person would do again."""
        return next(
            (self.steps[number] for number in reversed(self._undone) if self.steps[number].head["by"] == by),
            None,
        )

    def add(self, head: Mapping[str, Any], rows: Sequence[tuple[Key, Value, Value]]) -> Step:
        """Write down a step, before it is carried out, and return it; `head` has kind, about, label, by, at and num."""
        full = {**head, "step": max(self.steps, default=0) + 1}
        self._append(full, _rows_json(rows, head["about"] == "notes"))
        return self.steps[full["step"]]

    def mark(self, word: str, step: Step, by: str, at: str) -> None:
        """Write down that a step is undone (`undo`) or done again (`redo`), before it is."""
        self._append({word: step.number, "by": by, "at": at}, b"[]")

    def withdraw(self) -> None:
        """Forget the line written last, since what it is about could not be carried out."""
        line = self._lines[-1]
        self._cut(self._size - len(line))
        self._replay(self._lines[:-1])

    def _append(self, head: Mapping[str, Any], rows: bytes) -> None:
        """Add a line, durably.

        Raises:
            StorageError: the disk refuses; the file is as it was.
        """
        if self._size > MOST_BYTES:
            self._shorten()
        line = _json(dict(head)) + b"\t" + rows + b"\n"
        lead = b'{"forget":true}\t[]\n' if self._forgotten else b""
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.ftruncate(handle, self._size)
                os.lseek(handle, self._size, os.SEEK_SET)
                left = memoryview(lead + line)
                while len(left):
                    left = left[storage._write(handle, left) :]
                storage._fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._cut(self._size)
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._size += len(lead) + len(line)
        self._forgotten = False
        self._lines.append(line)
        self._take(head, rows)

    def _cut(self, size: int) -> None:
        try:
            os.truncate(self.path, size)
        except OSError:  # half a line is left out when the file is read
            return
        self._size = size
