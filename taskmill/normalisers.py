"""How the overlap check turns text into words: Taskmill's own way, and three others for comparison.

| name | words |
|---|---|
| `words-1` | runs of letters and digits of any script, folded (`words.py`); the default |
| `gpt3` | lower case, no punctuation of any script, cut at white space (GPT-3 appendix C, as far as it says) |
| `lm-eval` | ASCII lower case, no ASCII punctuation, cut at white space: lm-evaluation-harness's lookup |
| `tokenizer` | the ids of a tokenizer, each written as a number |

    >>> named("lm-eval").words("Don't stop, Zoë!")
    ['dont', 'stop', 'zoë']
    >>> named("words-1").words("Don't stop, Zoë!")
    ['don', 't', 'stop', 'zoë']
"""

from __future__ import annotations

import functools
import string
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from taskmill.errors import MissingPackageError, UsageError, did_you_mean
from taskmill.marks import Change
from taskmill.words import NORMALISATION, change_anywhere, cut_beyond_ascii, words

NAMES = (NORMALISATION, "gpt3", "lm-eval", "tokenizer")
_SPACE_ONLY = bytes(0 if byte == 32 else byte for byte in range(256))
_WORDS = bytes(
    (byte + 32 if 65 <= byte <= 90 else byte) if byte > 127 or chr(byte).isalnum() else 0
    for byte in range(256)
)


@dataclass(frozen=True)
class Normaliser:
    """A way to cut text into words, in the form that the kernel takes."""

    name: str
    """One of NAMES."""
    prepare: Callable[[str], str]
    """Returns a text whose words, as `fold` cuts them, are those of the text."""
    prepares_ascii: bool
    """Whether ASCII texts are prepared too; else `fold` alone cuts them."""
    fold: bytes
    """256 bytes: what each byte of UTF-8 becomes, 0 for one that separates words."""
    words: Callable[[str], list[str]]
    """The words of a text, in order."""
    change: Callable[[str], Change | None] | None = None
    """Returns what one character becomes in a prepared text; None where that depends on others, but for its marks."""


def named(name: str, tokenizer: str | None = None, revision: str | None = None) -> Normaliser:
    """Return the normaliser of that name.

    Args:
        name: one of NAMES.
        tokenizer: folder or Hub id, for `tokenizer`.
        revision: commit or tag of a tokenizer on the Hub.

    Raises:
        UsageError: no such normaliser, or no tokenizer given or found.
        MissingPackageError: a tokenizer is asked for and transformers is not installed.
    """
    if name == NORMALISATION:
        return WORDS
    if name == "gpt3":
        return _split("gpt3", _without_punctuation, _changed(_without_punctuation))
    if name == "lm-eval":
        return _split("lm-eval", _without_ascii_punctuation, _changed(_without_ascii_punctuation))
    if name == "tokenizer":
        return _split("tokenizer", _token_ids(tokenizer, revision))
    raise UsageError(
        f"no normalisation {name!r}{did_you_mean(name, NAMES)}; expected one of {', '.join(NAMES)}"
    )


WORDS = Normaliser(NORMALISATION, cut_beyond_ascii, False, _WORDS, words, change_anywhere)


def _split(
    name: str, cleaned: Callable[[str], str], change: Callable[[str], Change | None] | None = None
) -> Normaliser:
    """Return a normaliser whose words are the runs between white space, or NUL, of a cleaned text."""

    def cut(text: str) -> list[str]:
        return cleaned(text.replace("\0", " ")).split()

    return Normaliser(name, lambda text: " ".join(cut(text)), True, _SPACE_ONLY, cut, change)


def _changed(cleaned: Callable[[str], str]) -> Callable[[str], Change | None]:
    """Return the change of one character; that of a capital sigma depends on whether it ends a word."""

    def change(character: str) -> Change | None:
        if character == "\u03a3":
            return None
        return Change(" " if character.isspace() or character == "\0" else cleaned(character))

    return change


@functools.cache
def _punctuation() -> dict[int, None]:
    return {
        code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")
    }


def _without_punctuation(text: str) -> str:
    return text.lower().translate(_punctuation())


_HARNESS = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)


def _without_ascii_punctuation(text: str) -> str:
    return text.translate(_HARNESS)


def _token_ids(tokenizer: str | None, revision: str | None) -> Callable[[str], str]:
    """Return a function from a text to its token ids, joined by spaces."""
    if tokenizer is None:
        raise UsageError("the normalisation `tokenizer` needs a tokenizer: a folder or a Hub id")
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingPackageError("transformers", "train", "the normalisation `tokenizer`") from error
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, revision=revision)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the tokenizer {tokenizer!r}: {str(error).splitlines()[0]}") from error
    return lambda text: " ".join(map(str, loaded(text, add_special_tokens=False)["input_ids"]))
