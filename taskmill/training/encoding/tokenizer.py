"""Tokenizers: opened, trained on the run's own prompts, or copied, with the marks that they lack (no torch).

Text is never parsed for special tokens; only control segments become them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskmill.artifact import ShardWriter
from taskmill.errors import DamagedError, MissingPackageError, UsageError
from taskmill.recipe import Tokenize
from taskmill.storage import canonical_json, read_json
from taskmill.training.encoding.boundaries import Boundaries, safe_boundaries

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


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
    boundaries: Boundaries | None = None
    """Where text can be cut without changing its ids; None where that cannot be proved."""

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
        safe_boundaries(read_json(folder / "tokenizer.json")),
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


def copy_tokenizer(
    tokenize: Tokenize, source: Path | None, folder_writer: ShardWriter, controls: Collection[str] = ()
) -> dict[str, int]:
    """Copy a tokenizer's files, from a folder or the Hub, into `tokenizer/` of the stage, with the marks it lacks.

    Args:
        tokenize: the recipe's section.
        source: the folder; None for the Hub.
        folder_writer: the shard.
        controls: the texts of control segments.

    Returns:
        the ids of the marks that were added as special tokens, behind all other ids; none without
        `tokenize.add_tokens`.

    Raises:
        UsageError: it cannot be found or read, has no fast form, or cannot take a mark.
        MissingPackageError: transformers is absent.
    """
    if source is not None:
        try:
            open_tokenizer(source)
        except DamagedError as error:
            raise UsageError(f"tokenize.tokenizer: {error}") from error
        files = {name: (source / name).read_bytes() for name in TOKENIZER_FILES if (source / name).is_file()}
    else:
        files = _hub_files(tokenize)
    added: dict[str, int] = {}
    if tokenize.add_tokens:
        files["tokenizer.json"], added = _with_marks(files["tokenizer.json"], controls)
    for name, data in files.items():
        folder_writer.write_bytes(f"tokenizer/{name}", data)
    return added


def _with_marks(data: bytes, controls: Collection[str]) -> tuple[bytes, dict[str, int]]:
    """Return a `tokenizer.json` with the marks that it lacks as special tokens, and their ids."""
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_buffer(data)
    lacking = [t for t in sorted(set(controls) - {"{bos}", "{eos}"}) if backend.token_to_id(t) is None]
    if not lacking:
        return data, {}
    first = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in lacking])
    ids = backend.get_vocab(with_added_tokens=True)
    added = {token: int(ids[token]) for token in lacking}
    if min(added.values()) < first:
        raise UsageError(
            f"tokenize.add_tokens: the tokenizer's ids have gaps, so {lacking[0]!r} would get the id of another token; "
            f"add it to the tokenizer's own files, or render in a chat format whose marks it has"
        )
    return backend.to_str().encode(), added


def _hub_files(tokenize: Tokenize) -> dict[str, bytes]:
    """Return the files of a tokenizer on the Hub."""
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
    data = loaded.backend_tokenizer.to_str().encode()
    return {"tokenizer.json": data, "tokenizer_config.json": canonical_json(config)}
