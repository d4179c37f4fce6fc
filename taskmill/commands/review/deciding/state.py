"""The state behind the review page: the pairs of a run, what people decide about them step by step, and their evidence.

Reads curate's and overlap's tables and `recipe.json`; before a step returns it writes, under the run's lock, `decisions.csv` and
`review-notes.csv` at the root of the run, each as a whole, and adds to `review-history.jsonl`. A file that another process
changed is read again first, and nothing of it is lost. All methods may be called from several threads.

    review = Review(Path("runs/demo"), "ann")
    review.decide("drop_train_task", Selection(group=("boolq", "boolq"), waiting_only=True), "the same data set")
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from taskmill.artifact import MANIFEST
from taskmill.commands.figures import counted
from taskmill.commands.review.deciding import merging
from taskmill.commands.review.deciding.board import Board, Changes
from taskmill.commands.review.deciding.evidence_texts import Evidence as Evidence
from taskmill.commands.review.deciding.filters import SORTS as SORTS
from taskmill.commands.review.deciding.filters import Group as Group
from taskmill.commands.review.deciding.filters import Key, check_view
from taskmill.commands.review.deciding.filters import PairRow as PairRow
from taskmill.commands.review.deciding.filters import View as View
from taskmill.commands.review.deciding.keeping import Papers, clean_text, signature
from taskmill.commands.review.deciding.listing import Grouping, deciders, fitting, ordered
from taskmill.commands.review.deciding.merging import MergePreview as MergePreview
from taskmill.commands.review.deciding.opening import open_run
from taskmill.commands.review.deciding.progress import Progress as Progress
from taskmill.commands.review.deciding.progress import progress_of
from taskmill.commands.review.deciding.selection import CLEAR as CLEAR
from taskmill.commands.review.deciding.selection import SUGGESTED as SUGGESTED
from taskmill.commands.review.deciding.selection import Preview as Preview
from taskmill.commands.review.deciding.selection import Selection as Selection
from taskmill.commands.review.deciding.selection import chosen, look_ahead, place_of, steps, token_of
from taskmill.commands.review.deciding.splitting import SplitOutcome as SplitOutcome
from taskmill.commands.review.deciding.splitting import bring_up_to_date
from taskmill.commands.review.deciding.suggesting import Proposals
from taskmill.commands.review.deciding.undoing import Change as Change
from taskmill.commands.review.deciding.undoing import Step, Value
from taskmill.errors import BusyError, StaleError, UsageError
from taskmill.records import DIRECTORIES
from taskmill.runs import RunLock
from taskmill.splits.deciding.decision_files import Placed
from taskmill.splits.deciding.decisions import RULE, Decision

T = TypeVar("T")
_MOST_KEPT = 64
"""Answers that are kept while nothing changes."""


class Review:
    """A run under review by one person."""

    def __init__(self, run: Path, by: str) -> None:
        """Read the run's pairs, decisions, notes and history; `by` is written beside what is decided here.

        Raises:
            UsageError: there is no such run, overlap is not finished, or decisions.csv or review-notes.csv is malformed.
            DamagedError: a table is damaged.
        """
        self.run, self.by = run, clean_text(by.replace("\n", " "))
        self._mutex, self._splitting = threading.RLock(), False
        self._parsed: tuple[tuple[bytes, str], list[Placed]] | None = None
        self._open()

    def _open(self) -> None:
        opened = open_run(self.run)
        self._papers = Papers(self.run, opened.settings, opened.tasks, opened.board)
        self._proposals = Proposals(self.run, opened.board)
        self._opened = opened
        self._shown: dict[object, Any] = {}
        self._groupings: dict[View, Grouping] = {}
        self._shown_at: tuple[int, int] | None = None

    @contextmanager
    def _reading(self) -> Iterator[Board]:
        """Give the board as the run is now; another thread waits."""
        with self._mutex:
            self._refresh()
            yield self._opened.board

    def _refresh(self, thorough: bool = False) -> None:
        """Take in what other processes changed."""
        if self._opened.is_stale():
            self._open()
        self._papers.refresh(thorough)
        if self._proposals.refresh():
            self._groupings = {}
        version = self._opened.board.version, self._papers.notes_version
        if version != self._shown_at:
            self._shown, self._shown_at = {}, version

    @contextmanager
    def _writing(self) -> Iterator[Board]:
        """Give the board as the run is now, under the run's lock.

        Raises:
            BusyError: another process writes the run.
        """
        with self._mutex:
            if self._splitting:
                raise BusyError(f"the split of {self.run} is being written; wait until it is done")
            with RunLock(self.run):
                self._refresh(thorough=True)
                self._papers.complain_once()
                yield self._opened.board

    def _kept(self, key: object, make: Callable[[], T]) -> T:
        """Return what was made for the present decisions and notes, or make it."""
        if key not in self._shown:
            if len(self._shown) >= _MOST_KEPT:
                self._shown.pop(next(iter(self._shown)))
            self._shown[key] = make()
        found: T = self._shown[key]
        return found

    @property
    def revision(self) -> str:
        """A name of the pairs and their evidence; another one after the stage overlap was built again."""
        return self._opened.revision

    def warm(self) -> None:
        """Read what the first evidence and preview need, so that they answer at once; call it in a thread."""
        self._papers.lines.warm(self._opened.board.keys)
        self._opened.texts.warm()

    # ------------------------------------------------------------------------------------- look

    def progress(self) -> Progress:
        """Return how far the review is, what can be undone, and whether the split is up to date."""
        with self._reading() as board:
            return replace(
                self._kept("progress", lambda: progress_of(board, self.run, self.by)),
                split=self._split_status(board),
                undo=_change(self._papers.history.last_done(self.by)),
                redo=_change(self._papers.history.last_undone(self.by)),
                hint=self._kept("hint", self._proposals.hint),
            )

    def _split_status(self, board: Board) -> str:
        written = signature(self.run / DIRECTORIES["split"] / MANIFEST)
        return self._kept(("split", written), lambda: self._opened.split_status(board.people))

    def groups(self, view: View, keys: frozenset[tuple[str, str]] | None = None) -> list[Group]:
        """Return what a view shows by data sets, most waiting pairs first, then the worst.

        `keys` names the groups that are wanted, (train data set, evaluation data set) of each; None means all.
        """
        with self._reading() as board:
            return list(self._kept(("groups", view, keys), lambda: self._grouped(board, view, keys)))

    def _grouped(self, board: Board, view: View, keys: frozenset[Key] | None) -> list[Group]:
        while len(self._groupings) > _MOST_KEPT:
            self._groupings.pop(next(iter(self._groupings)))
        grouping = self._groupings.setdefault(view, Grouping())
        return grouping.groups(board, self._places(board, view, None), keys)

    def _places(self, board: Board, view: View, group: Key | None) -> list[int]:
        check_view(view)
        notes = self._papers.note_texts
        return self._kept(
            ("places", view, group), lambda: ordered(board, fitting(board, view, notes, group), view.sort)
        )

    def pairs(
        self, view: View, group: tuple[str, str] | None = None, start: int = 0, count: int = 50
    ) -> tuple[list[PairRow], int]:
        """Return `count` pairs from `start` of those that a view shows, of one group or all, and how many there are."""
        with self._reading() as board:
            places = self._places(board, view, group)
            start = max(0, start)
            notes = self._papers.note_texts
            return [board.row(place, notes) for place in places[start : start + max(0, count)]], len(places)

    def row(self, train_task: str, eval_task: str) -> PairRow:
        """Return one pair.

        Raises:
            UsageError: the two tasks share nothing.
        """
        with self._reading() as board:
            return board.row(place_of(board, train_task, eval_task), self._papers.note_texts)

    def names(self) -> list[str]:
        """Return every person and rule with a decision that holds, sorted: choices of `View.by`."""
        with self._reading() as board:
            return self._kept(
                "names",
                lambda: sorted({name for made in board.made if made for name in deciders(made) if name}),
            )

    def evidence(self, train_task: str, eval_task: str, start: int = 0, count: int = 3) -> Evidence:
        """Return a pair with `count` items of its evidence from `start`: the texts of both examples, marked.

        Raises:
            UsageError: the two tasks share nothing.
            DamagedError: a table is damaged.
        """
        with self._reading() as board:
            row, texts = self.row(train_task, eval_task), self._opened.texts
            place = place_of(board, train_task, eval_task)
        items, number = texts.items(place, max(0, start), max(0, count))
        return Evidence(row, number, max(0, start), items)

    # ----------------------------------------------------------------------------------- decide

    def _chosen(self, board: Board, selection: Selection, action: str) -> list[int]:
        if selection.revision and selection.revision != self.revision:
            raise StaleError(
                f"the stage overlap of {self.run} was built again since this page was shown: load it again"
            )
        return chosen(board, selection, self._papers.note_texts, proposed_only=action == SUGGESTED)

    def preview(self, action: str, selection: Selection) -> Preview:
        """Return what deciding (or CLEAR, or SUGGESTED) would do; changes nothing.

        Raises:
            UsageError: unknown action or pair, an empty selection.
            StaleError: overlap was built again since the page was shown.
        """
        with self._reading() as board:
            places = self._chosen(board, selection, action)
            return look_ahead(board, self._opened.shared, self.run, action, places)

    def decide(self, action: str, selection: Selection, why: str = "", token: str = "") -> Change:
        """Decide every pair of a selection on its present evidence, over what was decided before.

        Where `why` is empty, the pair's note is the reason. SUGGESTED decides those that wait and have a proposal, each by its
        own and, without `why`, for its reason. `token` is that of the preview, if there was one.

        Raises:
            UsageError: unknown action or pair, an empty selection, a malformed decisions.csv.
            StaleError: something else would be done than the preview showed.
            BusyError: another process writes the run; nothing was changed.
            StorageError: the disk refuses; nothing was changed.
        """
        reason, at = clean_text(why), _now()
        with self._writing() as board:
            notes = self._papers.note_texts

            def decision(place: int, its_action: str) -> Decision:
                key, proposed = board.keys[place], board.proposed.get(place)
                said = proposed.why if proposed and action == SUGGESTED else board.note(key, notes)
                evidence = board.pairs[place].evidence
                return Decision(*key, its_action, evidence, "", self.by, at, reason or said)

            places = self._chosen(board, selection, action)
            changes = steps(board, action, places, decision)
            self._check(board, action, changes, token)
            return self._step("decide", action, changes, at)

    def _check(self, board: Board, action: str, changes: Changes, token: str) -> None:
        """Check that a step is the one that was shown."""
        before = {key: board.people.get(key) for key in changes}
        if token and token != token_of(action, changes, before, board):
            raise StaleError(
                "the pairs or what is decided about them changed since this was shown: look again"
            )

    def _step(self, kind: str, action: str, changes: Changes, at: str) -> Change:
        """Write down and carry out a step on decisions."""
        rows = [(key, self._opened.board.people.get(key), changes[key]) for key in sorted(changes)]
        where = " -> ".join(rows[0][0]) if len(rows) == 1 else counted(len(rows), "pairs")
        head = {"kind": kind, "about": "decisions", "label": f"{action} on {where}"}
        if not rows:
            return Change(0, kind, f"{action}: all of it is decided so already", 0, (), self.by, at)
        self._opened.board.check(changes, self.run)
        step = self._papers.do({**head, "by": self.by, "at": at, "num": len(rows)}, rows)
        return step.change()

    def clear(self, selection: Selection, token: str = "") -> Change:
        """Take back people's decisions of a selection, so that rules decide the pairs or they wait.

        Raises:
            UsageError: unknown pair, nothing in the selection was decided by a person.
            StaleError: see decide.
            BusyError: see decide.
        """
        with self._writing() as board:
            changes = steps(board, CLEAR, self._chosen(board, selection, CLEAR), _nobody)
            self._check(board, CLEAR, changes, token)
            return self._step("clear", CLEAR, changes, _now())

    def note(self, train_task: str, eval_task: str, text: str) -> Change:
        """Set the note of a pair: the `why` of a decision that a person made, else one of its own; empty text removes it.

        Raises:
            UsageError: the two tasks share nothing, or the text is too long.
            BusyError: another process writes the run.
        """
        text, at = clean_text(text), _now()
        head = {
            "kind": "note",
            "label": f"note on {train_task} -> {eval_task}",
            "by": self.by,
            "at": at,
            "num": 1,
        }
        with self._writing() as board:
            key = board.pairs[place_of(board, train_task, eval_task)].tasks
            person = board.people.get(key)
            row: tuple[Key, Value, Value]
            if person is not None and (person.why or text):
                row, about = (key, person, replace(person, why=text)), "decisions"
            else:
                row, about = (key, self._papers.note_texts.get(key), text or None), "notes"
            if row[1] == row[2]:
                return Change(0, "note", str(head["label"]), 0, (), self.by, at)
            return self._papers.do({**head, "about": about}, [row]).change()

    def undo(self) -> Change:
        """Take the last step back; pairs that somebody decided otherwise since stay and are `skipped`.

        Raises:
            UsageError: there is nothing to undo.
            BusyError: another process writes the run.
        """
        with self._writing():
            step = self._papers.history.last_done(self.by)
            if step is None:
                raise UsageError("there is nothing to undo")
            return self._papers.again("undo", step, self.by, _now())

    def redo(self) -> Change:
        """Do the step again that was undone last.

        Raises:
            UsageError: there is nothing to do again.
            BusyError: another process writes the run.
        """
        with self._writing():
            step = self._papers.history.last_undone(self.by)
            if step is None:
                raise UsageError("there is nothing to do again")
            return self._papers.again("redo", step, self.by, _now())

    # ------------------------------------------------------------------------------------ merge

    def _sides(self, board: Board, data: bytes, name: str) -> merging.Sides:
        present = {pair.tasks: pair.evidence for pair in board.pairs}
        about = hashlib.blake2b(data).digest(), name
        if self._parsed is None or self._parsed[0] != about:
            self._parsed = about, merging.parse(data, name)
        theirs = self._parsed[1]
        return merging.sides(board.people, theirs, present, self._opened.tasks, board.limited)

    def _merge_token(self, data: bytes) -> str:
        return hashlib.blake2b(self._papers.digest + data, digest_size=16).hexdigest()

    def merge_preview(self, data: bytes, name: str = "decisions.csv") -> MergePreview:
        """Return what another person's decisions.csv would change; changes nothing.

        Raises:
            UsageError: it is not a CSV of decisions; every malformed row with `name:line`.
        """
        with self._reading() as board:
            found = merging.compare(self._sides(board, data, name), name, self._merge_token(data))
            made = [board.made[board.number[decision.pair]] for decision in found.new]
            return replace(found, num_overruled=sum(old is not None and old.by == RULE for old in made))

    def merge(
        self,
        data: bytes,
        prefer: str,
        choices: Mapping[tuple[str, str], str] | None = None,
        name: str = "decisions.csv",
        token: str = "",
    ) -> Change:
        """Take in another person's decisions as one step that can be undone.

        Args:
            data: the file.
            prefer: one of merging.PREFERENCES, for pairs that contradict each other.
            choices: pair -> `mine` or `theirs`, before `prefer`.
            name: of the file, for messages.
            token: of the preview, if there was one.

        Raises:
            UsageError: see merge_preview; or `newest` cannot tell which of two is later.
            StaleError: one's own decisions changed since the preview.
            BusyError: another process writes the run.
        """
        with self._writing() as board:
            if token and token != self._merge_token(data):
                raise StaleError("the decisions changed since this was shown: look again")
            rows = merging.united(self._sides(board, data, name), prefer, choices or {})
            changes = {row.pair: row for row in rows if board.people.get(row.pair) != row}
            return self._step("merge", f"merge of {name}", changes, _now())

    # ------------------------------------------------------------------------------------ split

    def write_split(self) -> SplitOutcome:
        """Bring the stage split up to date, as `taskmill split RUN --force` would; other methods answer meanwhile.

        Never raises a TaskmillError: what went wrong is in the outcome.
        """
        with self._mutex:
            if self._splitting:
                return SplitOutcome(False, "failed", f"the split of {self.run} is being written already", 1)
            self._splitting = True
        try:
            return bring_up_to_date(self.run)
        finally:
            self._splitting = False


def _nobody(place: int, action: str) -> Decision:
    raise AssertionError(place, action)


def _change(step: Step | None) -> Change | None:
    return step.change() if step is not None else None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
