"""The tokenize stage: the prompts that the mixture reaches, as memory-mapped token ids (no torch).

Reads the mixture and the prompts; writes `ids.bin` (u16 under 65,536 ids, else u32), `trained.bin` (u8), `offsets.bin`
(i64[n + 1]), `rows.bin` (i64[n], prompt row of each document), `loss_weight.bin` (f32[n]), `tokens.json`, `shares.csv`,
`dropped.parquet` and `tokenizer/`. Document i stands at mixture position i, but for long documents, whose pieces follow
one another. A row that is reached twice is tokenised once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskmill.artifact import Inputs, Manifest, ShardWriter, StageWriter
from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.records import SCHEMAS
from taskmill.settings import Settings
from taskmill.storage import file_digest, iter_batches, read_json
from taskmill.training.fitting import TK_INSTRUCT, FitCounts, fit, tk_instruct_examples
from taskmill.training.mixture import Mixture
from taskmill.training.tokenizer import (
    TOKENIZER_FILES,
    Encoded,
    Prompt,
    TextTokenizer,
    copy_tokenizer,
    encode,
    open_tokenizer,
    plain_texts,
    train_tokenizer,
)

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("tokenize",)
READS = (("curate", "tasks"), ("render", "prompts"), ("mix", "mixture.json"))

_BATCH = 2_000

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
    info: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Tokens:
        """Map the arrays of a tokenize stage.

        Raises:
            DamagedError: a file is missing or has another size than tokens.json says.
        """
        info = read_json(directory / "tokens.json")
        num, total = info["num_documents"], info["num_tokens"]
        return cls(
            _map(directory / "ids.bin", info["dtype"], total),
            _map(directory / "trained.bin", "uint8", total),
            _map(directory / "offsets.bin", "<i8", num + 1),
            _map(directory / "rows.bin", "<i8", num),
            _map(directory / "loss_weight.bin", "<f4", num),
            info,
        )

    @property
    def lengths(self) -> I64:
        """Tokens per document: int64[n]."""
        return np.diff(self.offsets)


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
    """Tokenise every prompt that the mixture reaches, in position order.

    Raises:
        UsageError: the tokenizer cannot be found.
        TaskmillError: nothing is left to train on.
    """
    body = read_json(inputs.directory("mix") / "mixture.json")
    mixture = Mixture.open(inputs.directory("mix"))
    entry_P, row_P = mixture.draws(body["num_prompts"])
    wanted, place_P = np.unique(row_P, return_inverse=True)
    files = inputs.files("render", "prompts")
    # The folder is named by the fingerprint of all that is read, so a finished shard in it is of the same inputs.
    if not out.finished("tokenizer", ["tokenizer"]):
        with out.shard("tokenizer", ["tokenizer"]) as shard:
            if settings.tokenize.tokenizer is None:
                controls: set[str] = set()
                texts = (text for p, _, _ in _prompts(files, wanted) for text in plain_texts(p, controls))
                train_tokenizer(texts, settings.tokenize.vocab_size, shard, controls)
            else:
                copy_tokenizer(settings.tokenize, _folder(settings), shard)
        out.add(shard.record)
    tokenizer = open_tokenizer(out.directory / "tokenizer")
    fitted = _encode_rows(tokenizer, files, wanted, settings.tokenize.max_length)
    with out.shard("tokens", ["tokens"]) as shard:
        _write(shard, tokenizer, fitted, place_P, wanted, settings.tokenize.max_length)
        _write_shares(shard, mixture, entry_P, place_P, fitted)
    out.add(shard.record)
    log.info("tokenize: %d documents, %d tokens", shard.counts["num_documents"], shard.counts["num_tokens"])
    return out.finish()


@dataclass
class _Fitted:
    """The pieces of every distinct row that is reached, in row order."""

    pieces: list[list[Encoded]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    counts: FitCounts = field(default_factory=FitCounts)


def _prompts(files: Sequence[Path], wanted: I64) -> Iterator[tuple[Prompt, float, dict[str, Any]]]:
    """Yield (prompt, loss weight, names) of the wanted rows, in row order."""
    named = ("task", "example", "template", "format")
    columns = ["text", "ends", "kinds", "trained", "joint", "loss_weight", *named]
    first = 0
    for path in files:
        for batch in iter_batches(path, columns):
            here = (
                wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + batch.num_rows)]
                - first
            )
            first += batch.num_rows
            for row in batch.take(pa.array(here)).to_pylist():
                prompt = Prompt(row["text"], row["ends"], row["kinds"], row["trained"], row["joint"])
                yield prompt, row["loss_weight"], {k: row[k] for k in named}


def _encode_rows(tokenizer: TextTokenizer, files: Sequence[Path], wanted: I64, max_length: int) -> _Fitted:
    fitted = _Fitted()
    pending: list[tuple[Prompt, float, dict[str, Any]]] = []

    def flush() -> None:
        for (prompt, weight, names), encoded in zip(pending, encode(tokenizer, [p for p, _, _ in pending])):
            examples = tk_instruct_examples(prompt) if names["format"] == TK_INSTRUCT else None
            pieces = fit(encoded, prompt.kinds, max_length, fitted.counts, examples)
            fitted.pieces.append(pieces)
            fitted.weight.append(weight)
            if not pieces:
                detail = "no token carries loss; its positions stay empty"
                fitted.dropped.append(
                    {"stage": "tokenize", **names, "reason": "no_trained_token", "detail": detail}
                )
        pending.clear()

    for item in _prompts(files, wanted):
        pending.append(item)
        if len(pending) >= _BATCH:
            flush()
    flush()
    return fitted


def _write(
    shard: ShardWriter, tokenizer: TextTokenizer, fitted: _Fitted, place_P: I64, wanted: I64, max_length: int
) -> None:
    none = Encoded(np.empty(0, np.int32), np.empty(0, np.bool_), np.empty(0, np.int32))
    documents = [(place, piece) for place in place_P.tolist() for piece in (fitted.pieces[place] or [none])]
    lengths = np.array([len(piece.ids) for _, piece in documents], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
    dtype = "<u2" if tokenizer.vocab_size < 65_536 else "<u4"
    ids = np.concatenate([piece.ids for _, piece in documents]).astype(dtype)
    trained = np.concatenate([piece.trained for _, piece in documents]).astype(np.uint8)
    places = np.array([place for place, _ in documents], dtype=np.int64)
    if not trained.any():
        raise TaskmillError("no token of the mixture carries loss; look at `taskmill inspect RUN render`")
    for name, array in (
        ("ids.bin", ids),
        ("trained.bin", trained),
        ("offsets.bin", offsets),
        ("rows.bin", wanted[places].astype("<i8")),
        ("loss_weight.bin", np.array(fitted.weight, dtype="<f4")[places]),
    ):
        shard.write_bytes(name, np.ascontiguousarray(array).tobytes())
    numbers = {
        "num_documents": len(documents),
        "num_positions": len(place_P),
        "num_tokens": int(offsets[-1]),
        "num_trained": int(trained.sum()),
        **{k: int(v) for k, v in vars(fitted.counts).items()},
    }
    info = {
        **numbers,
        "dtype": dtype,
        "vocab_size": tokenizer.vocab_size,
        "max_length": max_length,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "tokenizer": hashlib.sha256(
            (shard.directory / "tokenizer" / "tokenizer.json").read_bytes()
        ).hexdigest(),
    }
    shard.write_bytes("tokens.json", json.dumps(info, indent=1, sort_keys=True).encode() + b"\n")
    schema = SCHEMAS["tokens/dropped"]
    shard.write_table(
        "dropped.parquet", schema, [{n: row.get(n) for n in schema.names} for row in fitted.dropped]
    )
    shard.counts.update(numbers)
    if fitted.dropped:
        shard.drop("no_trained_token", len(fitted.dropped))


def _write_shares(shard: ShardWriter, mixture: Mixture, entry_P: I64, place_P: I64, fitted: _Fitted) -> None:
    """Write realised shares by prompts and tokens."""
    length = np.array([sum(len(p.ids) for p in pieces) for pieces in fitted.pieces], dtype=np.int64)
    trained = np.array(
        [sum(int(p.trained.sum()) for p in pieces) for pieces in fitted.pieces], dtype=np.int64
    )
    names = np.array([mixture.benchmarks.index(e.benchmark) for e in mixture.entries])[entry_P]
    size = len(mixture.benchmarks)
    prompts = np.bincount(names, minlength=size)
    tokens = np.bincount(names, weights=length[place_P], minlength=size)
    targets = np.bincount(names, weights=trained[place_P], minlength=size)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "prompts", "tokens", "trained_tokens", "share_prompts", "share_tokens"])
    for index, name in enumerate(mixture.benchmarks):
        share_prompts, share_tokens = prompts[index] / prompts.sum(), tokens[index] / tokens.sum()
        writer.writerow(
            [
                name,
                int(prompts[index]),
                int(tokens[index]),
                int(targets[index]),
                f"{share_prompts:.6f}",
                f"{share_tokens:.6f}",
            ]
        )
    shard.write_bytes("shares.csv", text.getvalue().encode())
