"""The tokenize stage: the prompts that the mixture reaches, as memory-mapped token ids (no torch).

Reads the mixture and the prompts; writes

- `ids.bin` (u16 under 65,536 ids, else u32), `trained.bin` (u8), `offsets.bin` (i64[n + 1]), `rows.bin` (i64[n], prompt
  row of each document), `loss_weight.bin` (f32[n]) and `whole.bin` (u8[n]): every distinct document once, in row order;
- `order.bin` (i64[m]): the document at each place of the mixture's order, and `positions.bin` (i64[m]): the mixture
  position of each place. Pieces of one prompt follow one another; a position without a trained token has no place;
- `validation/`, where there are validation prompts: the same six arrays of all that teach, and `levels.bin` (u8[n]);
- `tokens.json`, `shares.csv`, `dropped.parquet` and `tokenizer/`.

Rows go through in batches, so memory holds a batch and a few numbers for each row. Batches are encoded in threads and
written in order: the same bytes on any number of cores. What a folder beside this one holds is copied from it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.artifact import Inputs, Manifest, ShardWriter, StageWriter
from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.recipe import Tokenize
from taskmill.settings import Settings
from taskmill.storage import file_digest, read_json
from taskmill.training.encoding.encoder import ranges
from taskmill.training.encoding.reading import reached
from taskmill.training.encoding.reuse import find_sibling
from taskmill.training.encoding.tokenizer import (
    TOKENIZER_FILES,
    TextTokenizer,
    copy_tokenizer,
    open_tokenizer,
    train_tokenizer,
)
from taskmill.training.encoding.writing import Written, ids_dtype, write_documents
from taskmill.training.mixture import Mixture

log = logging.getLogger("taskmill")

REVISION = 3
SECTIONS = ("tokenize",)
READS = (("curate", "tasks"), ("render", "prompts"), ("mix", "mixture.json"))

FORMAT = 2
"""Version of the layout of a tokens folder."""

SHARE_COLUMNS = (
    "benchmark",
    "prompts",
    "empty",
    "sequences",
    "tokens",
    "trained_tokens",
    "share_prompts",
    "share_tokens",
)
"""Columns of shares.csv."""

I64 = NDArray[np.int64]


# ---------------------------------------------------------------------------------------------- stage


@dataclass(frozen=True)
class Tokens:
    """The finished token arrays of a run, memory-mapped."""

    ids: NDArray[Any]
    trained: NDArray[np.uint8]
    offsets: I64
    rows: I64
    loss_weight: NDArray[np.float32]
    order: I64
    """The document at each place of the mixture's order."""
    positions: I64
    """The mixture position of each place."""
    info: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Tokens:
        """Map the arrays of a tokenize stage.

        Raises:
            DamagedError: a file is missing or has another size than tokens.json says.
        """
        info = read_json(directory / "tokens.json")
        _check_format(directory, info)
        order, positions = (
            _map(directory / f"{name}.bin", "<i8", info["num_places"]) for name in ("order", "positions")
        )
        return cls(*_documents(directory, info["dtype"], info), order, positions, info)

    @property
    def lengths(self) -> I64:
        """Tokens per document: int64[n]."""
        return np.diff(self.offsets)


def open_validation(directory: Path) -> tuple[Tokens, NDArray[np.uint8]] | None:
    """Map the validation prompts of a tokenize stage; None where the run has none.

    Returns:
        the tokens, in row order, and the level of each document: 0 held_out, 1 partial, 2 supervised.

    Raises:
        DamagedError: see `Tokens.open`.
    """
    info = read_json(directory / "tokens.json")
    _check_format(directory, info)
    validation = info["validation"]
    if not validation["num_documents"]:
        return None
    folder, num = directory / "validation", validation["num_documents"]
    places = np.arange(num, dtype=np.int64)
    arrays = _documents(folder, info["dtype"], validation)
    return Tokens(*arrays, places, places, info), _map(folder / "levels.bin", "uint8", num)


def _check_format(directory: Path, info: dict[str, Any]) -> None:
    if info.get("format") != FORMAT:
        raise DamagedError(
            f"{directory / 'tokens.json'} is of format {info.get('format', 1)}, this version reads {FORMAT}; run "
            f"`taskmill tokenize` again"
        )


def _documents(folder: Path, dtype: str, counts: dict[str, int]) -> tuple[Any, Any, Any, Any, Any]:
    num, total = counts["num_documents"], counts["num_tokens"]
    return (
        _map(folder / "ids.bin", dtype, total),
        _map(folder / "trained.bin", "uint8", total),
        _map(folder / "offsets.bin", "<i8", num + 1),
        _map(folder / "rows.bin", "<i8", num),
        _map(folder / "loss_weight.bin", "<f4", num),
    )


def _map(path: Path, dtype: str, count: int) -> NDArray[Any]:
    if count == 0:
        return np.empty(0, dtype=dtype)
    try:
        array: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r")
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if len(array) != count:
        raise DamagedError(f"{path} holds {len(array)} values, tokens.json says {count}")
    return array


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the identity of a named tokenizer: the digests of its files; a Hub id and revision are settings.

    Raises:
        UsageError: the recipe names a folder that holds no tokenizer.
    """
    folder = _folder(settings)
    if folder is None:
        return {}
    return {name: file_digest(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}


def _folder(settings: Settings) -> Path | None:
    name = settings.tokenize.tokenizer
    if name is None:
        return None
    folder = settings.path(name)
    if (folder if folder.exists() else Path(name)).exists() and not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"tokenize.tokenizer: {folder} holds no tokenizer.json; expected the folder of a fast tokenizer, "
            f"relative to the recipe, or a Hub id"
        )
    return folder if folder.exists() else None


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Tokenise every prompt that the mixture reaches, and the validation prompts.

    Raises:
        UsageError: the tokenizer cannot be found, or lacks a mark of the format and is not to get it.
        DamagedError: a row of the prompts table cannot be read.
        TaskmillError: nothing is left to train on.
    """
    tokenize: Tokenize = settings.tokenize
    body = read_json(inputs.directory("mix") / "mixture.json")
    mixture = Mixture.open(inputs.directory("mix"))
    entry_P, row_P = mixture.draws(body["num_prompts"])
    wanted, place_P = np.unique(row_P, return_inverse=True)
    files = inputs.files("render", "prompts")
    # The folder is named by the fingerprint of all that is read, so a finished shard in it is of the same inputs.
    record = out.finished("tokenizer", ["tokenizer"])
    if record is None:
        with out.shard("tokenizer", ["tokenizer"]) as shard:
            shard.info["added_tokens"] = _make_tokenizer(settings, files, wanted, shard)
        record = shard.record
        out.add(record)
    assert record is not None, "a shard that ends well is recorded"
    tokenizer = open_tokenizer(out.directory / "tokenizer")
    sibling = find_sibling(out, record, ids_dtype(tokenizer), tokenize.max_length, wanted)
    with out.shard("tokens", ["tokens"]) as shard:
        written = write_documents(shard, tokenize, tokenizer, files, wanted, sibling)
        if not written.num_documents:
            raise TaskmillError("no token of the mixture carries loss; look at `taskmill inspect RUN render`")
        order, positions = _order(written.of_rows("num_pieces"), place_P)
        for name, array in (("order", order), ("positions", positions)):
            shard.write_bytes(f"{name}.bin", array.astype("<i8").tobytes())
        numbers = _numbers(written, place_P, len(order))
        info = {**numbers, **_about(tokenizer, tokenize, out.directory)}
        info |= {"validation": written.validation, "added_tokens": record.info["added_tokens"]}
        shard.write_bytes("tokens.json", json.dumps(info, indent=1, sort_keys=True).encode() + b"\n")
        shard.write_bytes("shares.csv", _shares(mixture, entry_P, place_P, written, tokenize.max_length))
        shard.counts.update(numbers)
    out.add(shard.record)
    log.info(
        "tokenize: %d documents, %d tokens; %d places of the mixture, %d tokens",
        numbers["num_documents"],
        numbers["num_tokens"],
        numbers["num_places"],
        numbers["num_drawn_tokens"],
    )
    return out.finish()


def _make_tokenizer(
    settings: Settings, files: Sequence[Path], wanted: I64, shard: ShardWriter
) -> dict[str, int]:
    """Train or copy the run's tokenizer, with the marks of its formats; returns the ids of those that it lacked."""
    controls: set[str] = set()
    if settings.tokenize.tokenizer is None:
        train_tokenizer(_texts(files, wanted, controls), settings.tokenize.vocab_size, shard, controls)
        return {}
    for part in reached(files, wanted):
        controls |= part.rows.controls()
    added = copy_tokenizer(settings.tokenize, _folder(settings), shard, controls)
    if added:
        names = ", ".join(f"{token!r} ({number})" for token, number in added.items())
        log.info("tokenize: %d marks added to the tokenizer: %s", len(added), names)
    return added


def _texts(files: Sequence[Path], wanted: I64, controls: set[str]) -> Iterator[str]:
    """Yield the texts that the mixture reaches; the control segments of all prompts are added to `controls`."""
    for part in reached(files, wanted[:0]):
        controls |= part.rows.controls()
    for part in reached(files, wanted, validation=False):
        controls |= part.rows.controls()
        yield from part.rows.whole_texts()


# --------------------------------------------------------------------------------------- order, counts


def _order(num_pieces_R: I64, place_P: I64) -> tuple[I64, I64]:
    """Return the document and the position at each place: every piece of a position's row, one after another."""
    number = num_pieces_R[place_P]
    positions = np.repeat(np.arange(len(place_P), dtype=np.int64), number)
    return ranges((np.cumsum(num_pieces_R) - num_pieces_R)[place_P], number), positions


def _numbers(written: Written, place_P: I64, num_places: int) -> dict[str, int]:
    """Return the counts of tokens.json: of distinct documents, and `num_drawn_` over the places of the mixture."""
    pieces, tokens, targets = (written.of_rows(n) for n in ("num_pieces", "num_tokens", "num_targets"))
    return {
        "num_documents": written.num_documents,
        "num_tokens": int(tokens.sum()),
        "num_trained": int(targets.sum()),
        "num_positions": len(place_P),
        "num_empty_positions": int((pieces[place_P] == 0).sum()),
        "num_places": num_places,
        "num_drawn_tokens": int(tokens[place_P].sum()),
        "num_drawn_trained": int(targets[place_P].sum()),
        **vars(written.counts),
    }


def _about(tokenizer: TextTokenizer, tokenize: Tokenize, directory: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dtype": ids_dtype(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "max_length": tokenize.max_length,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "tokenizer": hashlib.sha256((directory / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest(),
    }


def _shares(mixture: Mixture, entry_P: I64, place_P: I64, written: Written, max_length: int) -> bytes:
    """Return the realised shares of each part of the mixture: of prompts drawn, and of the tokens in their documents.

    A sequence is `max_length` tokens: packed sequences are all full, so the share of sequences is that of tokens.
    """
    part_of = {name: number for number, name in enumerate(mixture.benchmarks)}
    part_P = np.array([part_of[e.benchmark] for e in mixture.entries], dtype=np.int64)[entry_P]
    size = len(mixture.benchmarks)
    is_empty = (written.of_rows("num_pieces") == 0)[place_P]
    tokens, targets = (
        np.bincount(part_P, weights=written.of_rows(name)[place_P], minlength=size)
        for name in ("num_tokens", "num_targets")
    )
    prompts, empty = np.bincount(part_P, minlength=size), np.bincount(part_P[is_empty], minlength=size)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SHARE_COLUMNS)
    for number, name in enumerate(mixture.benchmarks):
        counts = [int(figures[number]) for figures in (prompts, empty, tokens, targets)]
        sequences = f"{tokens[number] / max_length:.2f}"
        shares = [f"{figures[number] / figures.sum():.6f}" for figures in (prompts, tokens)]
        writer.writerow([name, *counts[:2], sequences, *counts[2:], *shares])
    return text.getvalue().encode()
