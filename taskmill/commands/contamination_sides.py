"""One side of the command `contamination`: its records read in batches, file by file, and found again by number.

Reads data files. Every text and number in a record is a text of it, or those below the fields that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taskmill.commands.contamination_files import DataFile, Piece, pieces
from taskmill.curation.sources._files import Broken, FileError
from taskmill.errors import DataError, did_you_mean
from taskmill.leaves import sides_reader
from taskmill.splits.auditing.contamination import I64

BATCH_CHARACTERS = 8 << 20
BATCH_RECORDS = 20_000
NUM_ERRORS = 20
"""Damaged records that the result describes; all are counted."""


@dataclass
class Side:
    """The files of one side and what was read of them."""

    name: str
    files: list[DataFile]
    fields: tuple[str, ...]
    on_error: str
    first: list[int] = field(default_factory=lambda: [0])
    """Records read before each file, and in all."""
    numbers: list[I64] = field(default_factory=list)
    """Number in its file of each record read."""
    damaged: list[int] = field(default_factory=list)
    """Damaged records of each file; a file that cannot be read counts as one."""
    broken: list[set[int]] = field(default_factory=list)
    """Their numbers."""
    unread: list[bool] = field(default_factory=list)
    """Whether a file could not be read to its end."""
    errors: list[str] = field(default_factory=list)
    columns: list[list[str]] = field(default_factory=list)
    """What the first line of each CSV and TSV file names, as far as it has records; none of other files."""

    def __post_init__(self) -> None:
        """Make ready to read fields."""
        self._tops = sorted({name.split(".")[0] for name in self.fields} | set(self.fields))
        self._reader = sides_reader(self.fields)

    def read(self) -> Iterator[list[list[str]]]:
        """Yield the texts of the records, in batches.

        Raises:
            DataError: a record or file is damaged and nothing says skip.
        """
        for file in self.files:
            numbers = list[int]()
            self.damaged.append(0)
            self.broken.append(set())
            self.unread.append(False)
            self.columns.append([])
            batch, size = list[list[str]](), 0
            try:
                for piece in pieces(file):
                    if piece.number is None:
                        continue
                    texts = self.texts(file, piece)
                    if texts is None:
                        self.broken[-1].add(piece.number)
                        continue
                    if not numbers and file.has_header:
                        self.columns[-1] = list(piece.value)
                    numbers.append(piece.number)
                    batch.append(texts)
                    size += sum(map(len, texts))
                    if size >= BATCH_CHARACTERS or len(batch) >= BATCH_RECORDS:
                        yield batch
                        batch, size = [], 0
            except FileError as error:
                self.unread[-1] = True
                self._fail(error)
            if batch:
                yield batch
            self.numbers.append(np.array(numbers, np.int64))
            self.first.append(self.first[-1] + len(numbers))

    def texts(self, file: DataFile, piece: Piece) -> list[str] | None:
        """Return the texts of a record, None where it is damaged and skipped."""
        try:
            return self._texts(file, piece)
        except DataError as error:
            self._fail(error)
            return None

    def _texts(self, file: DataFile, piece: Piece) -> list[str]:
        """Return the texts of a record: all of its leaves, or those below the fields.

        Raises:
            DataError: it is damaged, or has none of the fields.
        """
        value = piece.value
        where: dict[str, Any] = {"file": file.name, "record": piece.number}
        fields = () if file.form == "txt" else self.fields
        if isinstance(value, Broken):
            raise DataError(value.detail, **where, value=piece.raw[:200].decode("utf-8", "replace") or None)
        if fields and not isinstance(value, dict):
            raise DataError("the record has no fields", **where, value=value, expected="an object")
        try:
            part = {name: value[name] for name in self._tops if name in value} if fields else value
            found = self._reader(part)[1 if fields else 0]
        except (TypeError, RecursionError) as error:
            expected = "text, numbers, lists and objects"
            raise DataError(f"not a JSON value: {error}", **where, expected=expected) from error
        if fields and not found and not any(_has(value, name) for name in fields):
            wanted = " or ".join(map(repr, fields))
            near = (
                did_you_mean(fields[0], value) or f"; the record has {', '.join(sorted(value)) or 'nothing'}"
            )
            hint = f"`--{self.name}-field` names those of this side"
            raise DataError(f"there is no field {wanted}{near}", **where, hint=hint)
        return [text if text.isascii() else _storable(text) for text in found]

    def _fail(self, error: DataError) -> None:
        if self.on_error == "stop":
            raise error.with_hint("`--on-error skip` goes on without what is damaged, and counts it")
        self.damaged[-1] += 1
        if len(self.errors) < NUM_ERRORS:
            self.errors.append(str(error))

    def place(self, number: int) -> tuple[DataFile, int]:
        """Return the file of a record, and its number there."""
        at = int(np.searchsorted(self.first, number, side="right")) - 1
        return self.files[at], int(self.numbers[at][number - self.first[at]])

    def per_file(self, records: I64) -> list[int]:
        """Return how many of some records each file has."""
        edges = np.searchsorted(records, self.first)
        return [int(number) for number in np.diff(edges)]

    def find(self, wanted: set[int]) -> dict[int, list[str]]:
        """Read the texts of some records again."""
        found = dict[int, list[str]]()
        for at, file in enumerate(self.files):
            own = {self.place(n)[1]: n for n in wanted if self.first[at] <= n < self.first[at + 1]}
            if not own:
                continue
            for piece in pieces(file):
                if piece.number in own:
                    number = own.pop(piece.number)
                    found[number] = self.texts(file, piece) or []
                if not own:
                    break
        return found


def _has(value: Any, name: str) -> bool:
    """Say whether a dotted path leads somewhere, be it to null or an empty list."""
    if isinstance(value, list):
        return not value or any(_has(item, name) for item in value)
    if not isinstance(value, dict):
        return False
    head, _, rest = name.partition(".")
    return name in value or (head in value and _has(value[head], rest))


def _storable(text: str) -> str:
    """Return text with lone surrogates, which no file of ours can hold, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
