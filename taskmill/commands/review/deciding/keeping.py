"""The two files that a review writes at each step: what people decided, and their notes on pairs.

Reads and writes `decisions.csv` (byte for byte as `splits.deciding.decision_files` does, and faster) and `review-notes.csv`
(train_task,eval_task,note,by,at) at the root of a run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskmill.commands.figures import counted
from taskmill.commands.review.deciding.board import Board, with_changes
from taskmill.commands.review.deciding.undoing import HISTORY_FILE, Change, History, Key, Step, Value
from taskmill.errors import StaleError, StorageError, UsageError
from taskmill.records import DECISION_COLUMNS
from taskmill.settings import Settings
from taskmill.splits.deciding.decision_files import FILE, csv_lines, last_rows, read_rows
from taskmill.splits.deciding.decisions import Decision
from taskmill.splits.split import source_of
from taskmill.storage import write_bytes

NOTES_FILE = "review-notes.csv"
NOTE_COLUMNS = ("train_task", "eval_task", "note", "by", "at")
MOST_CHARACTERS = 4000
"""Of a note or a reason."""
Signature = tuple[int, int, int] | None


def signature(path: Path | None) -> Signature:
    """Return what tells whether a file was written since; None where there is none."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def digest_of(path: Path | None) -> bytes:
    """Return the digest of a file's bytes; of nothing where there is none or it cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes() if path is not None else b"").digest()
    except OSError:
        return b""


def clean_text(text: str) -> str:
    """Return what a person typed as it is written down: line feeds only, no control characters, no blanks around it.

    Raises:
        UsageError: it is too long.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(
        c for c in text if (c >= " " and c not in _DROPPED and not "\ud800" <= c <= "\udfff") or c in "\n\t"
    )
    if len(kept.strip()) > MOST_CHARACTERS:
        raise UsageError(f"a note has {len(kept):,} characters; expected {MOST_CHARACTERS:,} or fewer")
    return kept.strip()


_DROPPED = frozenset(map(chr, range(0x7F, 0xA0)))


class DecisionLines:
    """Writes decisions.csv; what is the same in many lines, or every time, is put into CSV once."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._pairs: dict[Key, str] = {}
        self._header = csv_lines([list(DECISION_COLUMNS)])

    def warm(self, pairs: Iterable[Key]) -> None:
        """Put pairs into CSV that may be decided later."""
        for key in pairs:
            self._pairs[key] = csv_lines([key]).rstrip("\n")

    def write(self, path: Path, people: Mapping[Key, Decision]) -> bytes:
        """Write decisions atomically, sorted by pair; return the digest of the file.

        Raises:
            StorageError: the disk refuses.
        """
        pairs, notes, lines = self._pairs, dict[tuple[str, ...], str](), [self._header]
        self.warm([key for key in people if key not in pairs])
        for key in sorted(people):
            made = people[key]
            said = made.rule, made.by, made.at, made.why
            if said not in notes:
                notes[said] = csv_lines([said])
            lines.append(f"{pairs[key]},{made.action},{made.evidence},{notes[said]}")
        data = "".join(lines).encode()
        write_bytes(path.resolve(), data)
        return hashlib.blake2b(data).digest()


def read_people(path: Path | None, tasks: Iterable[str]) -> dict[Key, Decision]:
    """Return pair -> what people have decided in a file; nothing without one.

    Raises:
        UsageError: the file cannot be read, or rows are malformed; every one with `file:line`.
    """
    rows = last_rows(read_rows(path, tasks)) if path is not None else []
    return {row.decision.pair: row.decision for row in rows}


def read_notes(path: Path) -> dict[Key, tuple[str, str, str]]:
    """Return pair -> (note, by, at); nothing where there is no file.

    Raises:
        UsageError: the file cannot be read, or is not one of notes.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the notes {path}: {error}; mend the file or delete it") from error
    expected = f"expected the header {','.join(NOTE_COLUMNS)} and as many values in a row; mend the file or delete it"
    if rows and rows[0] != list(NOTE_COLUMNS):
        raise UsageError(f"{path}:1: {expected}")
    found: dict[Key, tuple[str, str, str]] = {}
    for place, row in enumerate(rows[1:]):
        if row and len(row) != len(NOTE_COLUMNS):
            raise UsageError(f"{path}, row {place + 1}: {len(row)} values; {expected}")
        if row:
            train, evaluation, note, by, at = row
            found[train, evaluation] = note.strip(), by, at
    return found


def write_notes(path: Path, notes: Mapping[Key, Sequence[str]]) -> None:
    """Write notes atomically, sorted by pair.

    Raises:
        StorageError: the disk refuses.
    """
    rows = [[*key, *notes[key]] for key in sorted(notes)]
    write_bytes(path, csv_lines([list(NOTE_COLUMNS), *rows]).encode())


class Papers:
    """The files of a review as they are on disk, and the one place where they are written."""

    def __init__(self, run: Path, settings: Settings, tasks: Sequence[str], board: Board) -> None:
        """Read them onto the board of a run; `tasks` are those that a decision may name.

        Raises:
            UsageError: decisions.csv or review-notes.csv is malformed.
        """
        self._run, self._settings, self._tasks, self._board = run, settings, tasks, board
        self._file, self._notes_file = run / FILE, run / NOTES_FILE
        self.lines = DecisionLines()
        self.history = History(run / HISTORY_FILE)
        self.digest = b""
        """Of the decisions' file as it was read or written last."""
        self._num_lost = 0
        """Decisions of a file that somebody took away, until this is said."""
        self._num_own = 0
        """Decisions of the run's file as it was read or written last."""
        self._seen: Signature = None
        self._seen_notes: Signature = None
        self._seen_history: Signature = None
        self._notes: dict[Key, tuple[str, str, str]] = {}
        self.note_texts: dict[Key, str] = {}
        """Pair -> note, of pairs that have one of their own."""
        self.notes_version = 0
        self._read_decisions()
        self._read_notes()
        self._read_history()

    def refresh(self, thorough: bool) -> None:
        """Read again what another process changed; `thorough` compares the bytes of the decisions, too.

        Raises:
            UsageError: a file is malformed now; what was read before stays.
        """
        path = self._source()
        if signature(path) != self._seen or (thorough and digest_of(path) != self.digest):
            self._read_decisions()
        if signature(self._notes_file) != self._seen_notes:
            self._read_notes()
        if signature(self.history.path) != self._seen_history:
            self._read_history()

    def complain_once(self) -> None:
        """Say before the next step that somebody took the decisions away; the one after that goes on without them.

        Raises:
            StaleError: they did.
        """
        num_lost, self._num_lost = self._num_lost, 0
        if num_lost:
            raise StaleError(
                f"{self._file} is gone, with {counted(num_lost, 'decisions')}: put it back, or repeat the step to go on "
                f"without them"
            )

    def _source(self) -> Path | None:
        return source_of(self._settings, self._run)

    def _read_decisions(self) -> None:
        path = self._source()
        seen, digest = signature(path), digest_of(path)
        self._num_lost = 0 if path == self._file else self._num_lost or self._num_own
        if digest != self.digest:
            found, known = read_people(path, self._tasks), self._board.people
            changes: dict[Key, Decision | None] = {k: d for k, d in found.items() if known.get(k) != d}
            changes.update(dict.fromkeys(known.keys() - found.keys()))
            self._board.put(changes)
        self._seen, self.digest = seen, digest
        self._num_own = len(self._board.people) if path == self._file else 0

    def _read_notes(self) -> None:
        seen = signature(self._notes_file)
        self._notes = read_notes(self._notes_file)
        self.note_texts = {key: text for key, (text, _, _) in self._notes.items() if text}
        self._seen_notes = seen
        self.notes_version += 1

    def _read_history(self) -> None:
        seen = signature(self.history.path)
        self.history.load(self._present)
        self._seen_history = seen

    def _present(self, is_note: bool, key: Key) -> Value:
        return self.note_texts.get(key) if is_note else self._board.people.get(key)

    def do(self, head: Mapping[str, Any], rows: Sequence[tuple[Key, Value, Value]]) -> Step:
        """Write a step down, then carry it out; `rows` are (pair, before, after).

        Raises:
            StorageError: the disk refuses; nothing was changed.
        """
        step = self.history.add(head, rows)
        self._carry_out(step.is_note, {key: after for key, _, after in rows}, head["by"], head["at"])
        return step

    def again(self, word: str, step: Step, by: str, at: str) -> Change:
        """Undo a step (`undo`) or do it again (`redo`), but for pairs that somebody decided otherwise since.

        Raises:
            StorageError: the disk refuses; nothing was changed.
        """
        changes, skipped = dict[Key, Value](), list[Key]()
        for key, before, after in step.rows():
            old, new = (after, before) if word == "undo" else (before, after)
            now = self._present(step.is_note, key)
            if now == old:
                changes[key] = new
            elif now != new:
                skipped.append(key)
        self.history.mark(word, step, by, at)
        self._carry_out(step.is_note, changes, by, at)
        return step.change(len(changes), skipped)

    def _carry_out(self, is_note: bool, changes: Mapping[Key, Value], by: str, at: str) -> None:
        """Write the file that a step is about; where it stays as it was, the history forgets the step."""
        path = self._notes_file if is_note else self._file
        before = signature(path)
        try:
            if changes and is_note:
                self._write_notes({key: str(value or "") for key, value in changes.items()}, by, at)
            elif changes:
                decided = {
                    key: value if isinstance(value, Decision) else None for key, value in changes.items()
                }
                self._write_decisions(decided)
        except StorageError:
            if signature(path) == before:
                self.history.withdraw()
            raise
        finally:
            self._seen_history = signature(self.history.path)

    def _write_decisions(self, changes: Mapping[Key, Decision | None]) -> None:
        self.digest = self.lines.write(self._file, with_changes(self._board.people, changes))
        self._seen = signature(self._file)
        self._board.put(changes)
        self._num_own = len(self._board.people)

    def _write_notes(self, texts: Mapping[Key, str], by: str, at: str) -> None:
        notes = {**self._notes, **{key: (text, by, at) for key, text in texts.items()}}
        write_notes(self._notes_file, {key: note for key, note in notes.items() if note[0]})
        self._read_notes()
