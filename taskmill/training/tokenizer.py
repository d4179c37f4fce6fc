"""Tokenizers and the encoding of prompts: text to ids, which of them carry loss, and their segments (no torch).

Tokenisation is joint: the text between two control segments is encoded as a whole, and a token belongs to the segment
in which it starts. Where a prompt's format says so it is segment by segment: each is encoded on its own, but for
instructions, demonstrations and inputs side by side, the pieces of one text. Text is never parsed for special tokens;
only control segments become them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.artifact import ShardWriter
from taskmill.errors import DamagedError, MissingPackageError, UsageError
from taskmill.recipe import Tokenize
from taskmill.records import SEGMENT_KINDS
from taskmill.storage import canonical_json, read_json

CONTROL = SEGMENT_KINDS.index("control")
PIECES = frozenset(SEGMENT_KINDS.index(kind) for kind in ("instruction", "demonstration", "input"))
"""Segments that make one text with their neighbours of these kinds."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
BOOL = NDArray[np.bool_]


# ------------------------------------------------------------------------------------------ tokenizers


@dataclass(frozen=True)
class TextTokenizer:
    """A fast tokenizer and its special ids."""

    backend: Any
    """tokenizers.Tokenizer, set never to parse special tokens out of text."""
    bos_id: int | None
    eos_id: int
    pad_id: int
    vocab_size: int
    """One more than the largest id; ids may have gaps."""
    swallows: Mapping[int, tuple[bool, bool]] = field(default_factory=dict)
    """Id of a special token -> whether it takes the white space on its left, and on its right, with it."""

    def symbol(self, text: str) -> int | None:
        """Return the id of a control segment: the symbols `{bos}` and `{eos}`, or a token's own text.

        Raises:
            UsageError: the tokenizer has no such token.
        """
        if text == "{eos}":
            return self.eos_id
        if text == "{bos}":
            return self.bos_id
        found = self.backend.token_to_id(text)
        if found is None:
            raise UsageError(
                f"the tokenizer has no token {text!r} for a control segment; add it to the tokenizer as a special "
                f"token, or render in a chat format that has no such token"
            )
        return int(found)


def open_tokenizer(folder: Path) -> TextTokenizer:
    """Open a folder with `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        DamagedError: the files are missing or do not describe a tokenizer with an end-of-sequence token.
        MissingPackageError: the package tokenizers is absent.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackageError("tokenizers", "train", "tokenizing") from error
    config = read_json(folder / "tokenizer_config.json")
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:
        raise DamagedError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    ids = {name: _special_id(backend, config, name) for name in ("bos_token", "eos_token", "pad_token")}
    eos = ids["eos_token"]
    if eos is None:
        raise DamagedError(f"{folder} names no eos_token; training needs one to end a document")
    pad = ids["pad_token"]
    return TextTokenizer(
        backend,
        ids["bos_token"],
        eos,
        eos if pad is None else pad,
        max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        {
            number: (token.lstrip, token.rstrip)
            for number, token in backend.get_added_tokens_decoder().items()
            if token.special and (token.lstrip or token.rstrip)
        },
    )


def _special_id(backend: Any, config: Mapping[str, Any], name: str) -> int | None:
    token = config.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(text) if text else None
    return None if found is None else int(found)


def train_tokenizer(
    texts: Iterator[str], vocab_size: int, folder_writer: ShardWriter, controls: Collection[str] = ()
) -> None:
    """Train a byte-level BPE tokenizer on texts and write it to `tokenizer/` of the stage.

    `controls`, complete once the texts are read, become special tokens beyond `vocab_size`.

    Raises:
        MissingPackageError: the package tokenizers is absent.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingPackageError("tokenizers", "train", "training a tokenizer") from error
    special = ["<s>", "</s>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(sorted(set(controls) - {"{bos}", "{eos}"}))
    config = {
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder_writer.write_bytes("tokenizer/tokenizer.json", tokenizer.to_str(pretty=False).encode())
    folder_writer.write_bytes("tokenizer/tokenizer_config.json", canonical_json(config))


def copy_tokenizer(tokenize: Tokenize, source: Path | None, folder_writer: ShardWriter) -> None:
    """Copy a tokenizer's files, from a folder or the Hub, into `tokenizer/` of the stage.

    Raises:
        UsageError: it cannot be found or read, or has no fast form.
        MissingPackageError: transformers is absent.
    """
    if source is not None:
        try:
            open_tokenizer(source)
        except DamagedError as error:
            raise UsageError(f"tokenize.tokenizer: {error}") from error
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                folder_writer.write_bytes(f"tokenizer/{name}", (source / name).read_bytes())
        return
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingPackageError("transformers", "train", "loading a tokenizer from the Hub") from error
    try:
        loaded = AutoTokenizer.from_pretrained(tokenize.tokenizer, revision=tokenize.revision, use_fast=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"tokenize.tokenizer: {tokenize.tokenizer!r} is no folder beside the recipe, and cannot be loaded from "
            f"the Hub: {reason}"
        ) from error
    if not loaded.is_fast:
        raise UsageError(f"tokenize.tokenizer: {tokenize.tokenizer!r} has no fast form (tokenizer.json)")
    names = ("bos_token", "eos_token", "pad_token")
    config = {name: getattr(loaded, name) for name in names if getattr(loaded, name)}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    folder_writer.write_bytes("tokenizer/tokenizer.json", loaded.backend_tokenizer.to_str().encode())
    folder_writer.write_bytes("tokenizer/tokenizer_config.json", canonical_json(config))


# ------------------------------------------------------------------------------------------- encoding


@dataclass(frozen=True)
class Prompt:
    """A prompt's text and segments, as in a row of the prompts table."""

    text: str
    ends: Sequence[int]
    """Where each segment ends, in UTF-8 bytes."""
    kinds: Sequence[int]
    """Codes of records.SEGMENT_KINDS."""
    trained: Sequence[bool]
    joint: bool = True
    """Whether the text between control segments is encoded as a whole, or segment by segment."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of a prompt."""

    ids: I32
    """int32[n]."""
    trained: BOOL
    """bool[n]: whether the token carries loss."""
    segment: I32
    """int32[n]: the segment in which the token starts."""


def encode(tokenizer: TextTokenizer, prompts: Sequence[Prompt]) -> list[Encoded]:
    """Encode prompts: jointly between control segments, or segment by segment, as each prompt says.

    Raises:
        UsageError: a control segment that the tokenizer has no token for.
    """
    spans = [_spans(prompt) for prompt in prompts]
    if tokenizer.swallows:
        spans = [_swallowed(tokenizer, p, s) if p.joint else s for p, s in zip(prompts, spans)]
    texts = [
        p.text[start:stop] for p, s in zip(prompts, spans) for start, stop, control in s.runs if not control
    ]
    encodings = iter(tokenizer.backend.encode_batch(texts, add_special_tokens=False))
    return [_assemble(tokenizer, p, s, encodings) for p, s in zip(prompts, spans)]


def plain_texts(prompt: Prompt, controls: set[str] | None = None) -> Iterator[str]:
    """Yield the texts that are encoded as a whole, what a tokenizer is trained on; add the others to `controls`."""
    for start, stop, control in _spans(prompt).runs:
        if control is None:
            yield prompt.text[start:stop]
        elif controls is not None:
            controls.add(prompt.text[start:stop])


@dataclass(frozen=True)
class _Spans:
    ends: I64
    """Segment ends in characters."""
    runs: list[tuple[int, int, int | None]]
    """(start, stop, None) of text encoded as a whole, or (start, stop, segment) of a control segment; in characters."""


def _spans(prompt: Prompt) -> _Spans:
    ends = np.asarray(prompt.ends, dtype=np.int64)
    if not prompt.text.isascii():
        raw = prompt.text.encode()
        pieces = [len(raw[a:b].decode()) for a, b in zip([0, *ends[:-1]], ends)]
        ends = np.cumsum(pieces, dtype=np.int64)
    runs: list[tuple[int, int, int | None]] = []
    start = done = 0
    previous = CONTROL
    for index, (stop, kind) in enumerate(zip(ends.tolist(), prompt.kinds)):
        cut = kind == CONTROL or not (prompt.joint or (kind in PIECES and previous in PIECES))
        if cut and start > done:
            runs.append((done, start, None))
            done = start
        if kind == CONTROL:
            runs.append((start, stop, index + 1))
            done = stop
        start, previous = stop, kind
    if start > done:
        runs.append((done, start, None))
    return _Spans(ends, runs)


def _swallowed(tokenizer: TextTokenizer, prompt: Prompt, spans: _Spans) -> _Spans:
    """Return the spans without the white space that special tokens beside it take with them."""
    tokens = [tokenizer.symbol(prompt.text[a:b]) if control else None for a, b, control in spans.runs]
    takes = [(False, False) if t is None else tokenizer.swallows.get(t, (False, False)) for t in tokens]
    runs = list(spans.runs)
    for place, (start, stop, control) in enumerate(spans.runs):
        if control is None:
            text = prompt.text[start:stop]
            if place and takes[place - 1][1]:
                start += len(text) - len(text.lstrip())
            if place + 1 < len(runs) and takes[place + 1][0]:
                stop -= len(text) - len(text.rstrip())
            runs[place] = (start, max(start, stop), None)
    return _Spans(spans.ends, [run for run in runs if run[0] < run[1]])


def _assemble(tokenizer: TextTokenizer, prompt: Prompt, spans: _Spans, encodings: Iterator[Any]) -> Encoded:
    ids: list[Any] = []
    segments: list[Any] = []
    for start, stop, control in spans.runs:
        if control:
            token = tokenizer.symbol(prompt.text[start:stop])
            if token is not None:
                ids.append([token])
                segments.append([control - 1])
            continue
        encoding = next(encodings)
        ids.append(encoding.ids)
        begins = np.array([begin for begin, _ in encoding.offsets], dtype=np.int64) + start
        found = np.searchsorted(spans.ends, begins, side="right")
        segments.append(np.minimum(found, len(spans.ends) - 1))
    flat = np.concatenate(ids).astype(np.int32) if ids else np.empty(0, np.int32)
    segment = np.concatenate(segments).astype(np.int32) if segments else np.empty(0, np.int32)
    return Encoded(flat, np.asarray(prompt.trained, dtype=np.bool_)[segment], segment)
