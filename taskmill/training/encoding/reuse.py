"""Prompts that another tokens folder of the run holds already: copied from it, not encoded again (no torch).

Reads the finished folders beside the one that is written; writes nothing. A folder serves when it was made from the same
prompts table, the same tokenizer files and the same version of `tokenizers`, by the same revision of the stage; its
mixture, `max_length` and `conversations` may be others. Only prompts that stand in it whole are taken: their ids depend
on the row and the tokenizer alone. What was cut or dropped there is encoded anew, so cuts are made and counted in one
place, and the folder has the same bytes with and without another beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskmill.artifact import Manifest, ShardRecord, StageWriter, read_manifest
from taskmill.errors import DamagedError, StorageError
from taskmill.storage import file_digest
from taskmill.training.encoding.encoder import Encoder, Encodings, ranges
from taskmill.training.encoding.reading import Reached
from taskmill.training.encoding.rows import BOOL, I64, Rows

log = logging.getLogger("taskmill")

_FOLDERS = ("", "validation/")
_ARRAYS = ("ids.bin", "trained.bin", "offsets.bin", "rows.bin", "whole.bin")
"""What is read of these folders."""


@dataclass(frozen=True)
class _Documents:
    """The whole prompts of one set of arrays, in row order."""

    row_D: I64
    start_D: I64
    length_D: I64
    ids: NDArray[Any]
    trained: NDArray[np.uint8]

    @classmethod
    def open(cls, folder: Path, dtype: str, max_length: int) -> _Documents:
        offsets, rows = (np.fromfile(folder / f"{name}.bin", "<i8") for name in ("offsets", "rows"))
        is_whole, length = np.fromfile(folder / "whole.bin", np.bool_), np.diff(offsets)
        taken = np.flatnonzero(is_whole & (length <= max_length))
        ids = np.memmap(folder / "ids.bin", dtype, mode="r")
        trained = np.memmap(folder / "trained.bin", np.uint8, mode="r")
        return cls(rows[taken], offsets[taken], length[taken], ids, trained)

    def find(self, rows: I64) -> BOOL:
        """Return which of some rows are held."""
        if not len(self.row_D):
            return np.zeros(len(rows), np.bool_)
        place = np.searchsorted(self.row_D, rows)
        return np.asarray(self.row_D.take(place, mode="clip") == rows)

    def encodings(self, rows: I64) -> Encodings:
        """Return the tokens of rows that are held; segments, which only a cut would ask for, are all the first."""
        taken = np.searchsorted(self.row_D, rows)
        length = self.length_D[taken]
        places = ranges(self.start_D[taken], length)
        segments = np.zeros(len(places), np.int32)
        ids, trained = self.ids[places].astype(np.int32), self.trained[places].astype(np.bool_)
        return Encodings(ids, trained, segments, np.concatenate([[0], np.cumsum(length)]))


@dataclass(frozen=True)
class Sibling:
    """The whole prompts of a tokens folder."""

    directory: Path
    sets: tuple[_Documents, ...]
    """Those of the mixture, and those for validation."""
    num_rows: int
    """How many of the rows that are wanted it holds."""

    def encode(self, encoder: Encoder, part: Reached) -> Encodings:
        """Return the tokens of some rows: copied where they are held, else encoded."""
        found = [documents.find(part.number_R) for documents in self.sets]
        new = np.flatnonzero(~np.logical_or.reduce(found))
        order, encodings = [new], [encoder.encode(Rows.of_batch(part.table.take(pa.array(new))))]
        for documents, is_held in zip(self.sets, found):
            order.append(np.flatnonzero(is_held))
            encodings.append(documents.encodings(part.number_R[is_held]))
        return _in_order(encodings, np.argsort(np.concatenate(order)))


def _in_order(found: Sequence[Encodings], order: I64) -> Encodings:
    """Return the rows of several encodings, counted one after another, in another order."""
    length = np.concatenate([np.diff(encodings.offsets_R) for encodings in found])
    places = ranges((np.cumsum(length) - length)[order], length[order])
    ids, trained, segments = (
        np.concatenate([getattr(encodings, name) for encodings in found])[places]
        for name in ("ids_T", "trained_T", "segment_T")
    )
    return Encodings(ids, trained, segments, np.concatenate([[0], np.cumsum(length[order])]))


def find_sibling(
    out: StageWriter, tokenizer: ShardRecord, dtype: str, max_length: int, wanted: I64
) -> Sibling | None:
    """Return what the folder beside this one that holds most of the prompts has; None where none serves.

    A folder that is not finished, or of which a file is not what was written, is passed over.

    Args:
        out: the folder that is written.
        tokenizer: its tokenizer's files.
        dtype: of ids on disk.
        max_length: longer prompts are left out.
        wanted: rows that the mixture reaches, ascending.
    """
    found: list[Sibling] = []
    for directory in sorted(out.directory.parent.iterdir()):
        manifest = None if directory == out.directory else _fitting(directory, out, tokenizer)
        if manifest is None or not _intact(manifest):
            continue
        written = {file.path for file in manifest.files}
        folders = [directory / name for name in _FOLDERS if f"{name}whole.bin" in written]
        sets = tuple(_Documents.open(folder, dtype, max_length) for folder in folders)
        num_rows = np.count_nonzero(sets[0].find(wanted)) + sum(len(held.row_D) for held in sets[1:])
        found.append(Sibling(directory, sets, int(num_rows)))
    best = max(found, key=lambda sibling: sibling.num_rows, default=None)
    if best is None or not best.num_rows:
        return None
    log.info("tokenize: %d prompts are copied from %s", best.num_rows, best.directory)
    return best


def _fitting(directory: Path, out: StageWriter, tokenizer: ShardRecord) -> Manifest | None:
    """Return the manifest of a finished folder whose ids are those of this one, None of any other."""
    try:
        manifest = read_manifest(directory)
    except DamagedError as error:
        log.info("tokenize: %s is passed over: %s", directory, error)
        return None
    if manifest is None:
        return None
    body, own = manifest.body, out.identity
    serves = (
        "whole.bin" in (file.path for file in manifest.files)
        and (body["stage"], body["revision"], body["schema"]) == (own.stage, own.revision, own.schema)
        and _prompts(body["inputs"]) == _prompts(own.inputs)
        and [file for file in manifest.files if file.path.startswith("tokenizer/")] == list(tokenizer.files)
        and body["recorded"]["libraries"].get("tokenizers") == metadata.version("tokenizers")
    )
    return manifest if serves else None


def _prompts(inputs: Any) -> list[str]:
    return [table["rows"] for table in inputs if (table["stage"], table["table"]) == ("render", "prompts")]


def _intact(manifest: Manifest) -> bool:
    """Return whether the arrays of a folder are there and hold what was written."""
    for entry in manifest.files:
        path = manifest.directory / entry.path
        try:
            if path.name not in _ARRAYS or file_digest(path) == entry.sha256:
                continue
            log.info("tokenize: %s is damaged, nothing is copied from its folder", path)
        except StorageError as error:
            log.info("tokenize: %s; nothing is copied from its folder", error)
        return False
    return True
