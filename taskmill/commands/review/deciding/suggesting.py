"""What `taskmill split RUN --suggest` proposes for the pairs that wait, as a review shows it.

Reads `suggested.csv` at the root of a run, again where it changed; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.filters import WAITING, Suggestion
from taskmill.commands.review.deciding.keeping import Signature, clean_text, signature
from taskmill.commands.suggest import FILE
from taskmill.errors import UsageError
from taskmill.splits.deciding.decision_files import read_rows

_NEVER: Signature = (-1, -1, -1)


class Proposals:
    """The proposals of a run, put on its board."""

    def __init__(self, run: Path, board: Board) -> None:
        """Read them."""
        self._run, self._path, self._board = run, run / FILE, board
        self._seen = _NEVER
        self._problem = ""
        self.refresh()

    def refresh(self) -> bool:
        """Read the file where it changed, and return whether it did; of a malformed one nothing is taken."""
        seen = signature(self._path)
        if seen == self._seen:
            return False
        found, self._problem = dict[int, Suggestion](), ""
        try:
            found = dict(self._fitting()) if seen is not None else found
        except UsageError as error:
            first, *more = str(error).splitlines()
            self._problem = f"{first} (and {len(more):,} more like this)" if more else first
        self._board.propose(found)
        self._seen = seen
        return True

    def _fitting(self) -> Iterator[tuple[int, Suggestion]]:
        """Yield what the file says of pairs whose evidence is the present one, where its action is open."""
        said: dict[tuple[str, str], Suggestion] = {}
        last = {row.decision.pair: row.decision for row in read_rows(self._path)}
        for pair, made in last.items():
            place = self._board.number.get(pair)
            if place is None or made.evidence != self._board.pairs[place].evidence:
                continue
            if made.action in self._board.open_actions(place):
                about = made.action, made.why
                if about not in said:
                    said[about] = Suggestion(made.action, clean_text(made.why), proposed=True)
                yield place, said[about]

    def hint(self) -> str:
        """Return in a line why no pair that waits has a proposal, and how to get one; empty where there is no need."""
        if self._problem:
            return f"No suggestions are shown: {self._problem}"
        states = self._board.state
        if not self._board.num_waiting or any(states[place] in WAITING for place in self._board.proposed):
            return ""
        what = (
            "Suggestions with their reasons for what waits"
            if self._seen is None
            else f"{FILE} says nothing of what waits; write it again"
        )
        return f"{what}: taskmill split {self._run} --suggest"
