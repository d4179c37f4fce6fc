"""Where text can be cut so that its parts, encoded one by one, give exactly the ids of the whole (no torch).

Reads the description of a tokenizer (`tokenizer.json`), writes nothing. A cut stands before a space or a newline that
follows a visible character. Three facts make it safe; where one does not hold, no cut is named and texts stay whole:

- The normalizer works character by character, or by sequences that no space continues (NFC, NFD, NFKC, NFKD).
- The pre-tokenizer ends a piece there whatever follows, and what it does behind the cut does not look back: the
  patterns of GPT-2, Llama 3, Qwen and GPT-4o (each of whose alternatives is in `ALTERNATIVES`), Metaspace, BERT's. A
  cut is put before white space and never behind it, since `\\s+(?!\\S)` takes all of a run of it but the last character
  only where something follows.
- Without pre-tokenizer (SentencePiece BPE): no merge joins a symbol that ends in another character to one that begins
  with the word mark, so nothing grows across the cut, and merges on its two sides do not affect each other.

    boundaries = safe_boundaries(json.loads(Path("tokenizer.json").read_text()))
    boundaries.find(np.frombuffer(b"one two\\nthree", np.uint8))     # [3, 7]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MARK = "\u2581"
"""What SentencePiece writes for a space."""

ALTERNATIVES = frozenset(
    {
        *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"),
        *("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)"),
        *(r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", r"\s+(?!\S)", r"\s+"),
        *(r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?+\p{L}+"),
        *(r"\p{N}{1,3}", r"\p{N}", r"\p{N}+", r"\s*[\r\n]+", r"\s*[\r\n]"),
        *(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    }
)
"""Alternatives of pre-tokenizers' patterns of which none matches a space behind another character, looks back, or looks
ahead from such a character. Those that end in `[\\r\\n]*` match newlines behind punctuation, none behind a letter."""

_VISIBLE = (np.arange(256) > 0x20) & (np.arange(256) < 0x7F)
_LETTERS = np.array([chr(byte).isalnum() and byte < 0x80 for byte in range(256)])
_NOTHING = np.zeros(256, dtype=np.bool_)
# Lead bytes of the characters U+00C0..U+07FF, and U+0800..U+0FFF, U+4000..U+DFFF: no white space is among them.
_LEADS_OF_2 = (np.arange(256) >= 0xC3) & (np.arange(256) <= 0xDF)
_LEADS_OF_3 = (np.arange(256) == 0xE0) | ((np.arange(256) >= 0xE4) & (np.arange(256) <= 0xED))

Newline = Literal["any", "letters", "none"]
"""Behind which characters a newline can be cut off: any visible one, ASCII letters and digits, or none."""
_ORDER: tuple[Newline, ...] = ("none", "letters", "any")


@dataclass(frozen=True)
class Boundaries:
    """The safe cuts of one tokenizer."""

    newline: Newline
    wide: bool
    """Whether letters beyond ASCII count as visible too."""
    drops_space: bool
    """Whether a part behind a cut is encoded without its first space, since the tokenizer puts one before every text."""

    def find(self, data_B: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the safe cuts in UTF-8 text, ascending: a part begins at each."""
        is_newline = data_B == 0x0A
        at = np.flatnonzero((data_B == 0x20) | is_newline)
        at = at[at > 0]
        left = data_B[at - 1]
        after_newline = {"any": _VISIBLE, "letters": _LETTERS, "none": _NOTHING}[self.newline]
        newline = is_newline[at]
        safe = np.where(newline, after_newline[left], _VISIBLE[left])
        if self.wide:
            wide = _LEADS_OF_2[data_B[np.maximum(at - 2, 0)]] | _LEADS_OF_3[data_B[np.maximum(at - 3, 0)]]
            safe |= (left >= 0x80) & wide & (~newline | (self.newline == "any"))
        return at[safe].astype(np.int64)


def safe_boundaries(body: Mapping[str, Any]) -> Boundaries | None:
    """Return the safe cuts of a tokenizer, None where none can be proved; `body` is its `tokenizer.json`."""
    normalizer = _normalizer(body.get("normalizer"))
    if normalizer is None or (body["model"].get("dropout") or 0) > 0:
        return None
    newline = _newline(body, normalizer)
    if newline is None or not _added_tokens_stay_apart(body.get("added_tokens") or (), normalizer):
        return None
    return Boundaries(newline, normalizer.wide, normalizer.prepends)


# ----------------------------------------------------------------------------------------- normalizers


@dataclass(frozen=True)
class _Normalizer:
    wide: bool = True
    """Whether no letter beyond ASCII ends up as white space, or as nothing behind white space."""
    keeps: bool = True
    """Whether ASCII stays as it is."""
    marks: bool = False
    """Whether spaces become the word mark."""
    prepends: bool = False
    """Whether the word mark is put before a text."""


def _normalizer(node: Mapping[str, Any] | None) -> _Normalizer | None:
    """Return what a normalizer does, None where that is not known."""
    if node is None:
        return _Normalizer()
    kind = node["type"]
    if kind == "Sequence":
        return _all_of([_normalizer(part) for part in node["normalizers"]])
    if kind in ("NFC", "NFD"):
        return _Normalizer()
    if kind in ("NFKC", "NFKD", "StripAccents", "Lowercase", "BertNormalizer"):
        return _Normalizer(wide=False, keeps=kind in ("NFKC", "NFKD", "StripAccents"))
    if kind == "Replace" and node["pattern"] == {"String": " "} and node["content"] == MARK:
        return _Normalizer(marks=True)
    if kind == "Prepend" and node["prepend"] == MARK:
        return _Normalizer(prepends=True)
    return None


def _all_of(parts: Sequence[_Normalizer | None]) -> _Normalizer | None:
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return _Normalizer(
        all(part.wide for part in found),
        all(part.keeps for part in found),
        any(part.marks for part in found),
        any(part.prepends for part in found),
    )


# -------------------------------------------------------------------------------------- pre-tokenizers


@dataclass(frozen=True)
class _Cut:
    """What a pre-tokenizer does at a cut: it always ends a piece there, or it never looks across."""

    always: bool
    newline: Newline = "any"


def _newline(body: Mapping[str, Any], normalizer: _Normalizer) -> Newline | None:
    """Return behind what a newline can be cut off; None where not even a space can."""
    node = body.get("pre_tokenizer")
    if normalizer.marks or normalizer.prepends:  # no space is left, and a newline would get a mark
        whole = node is None or (node["type"] == "Split" and node["pattern"] == {"String": " "})
        return "none" if normalizer.marks and whole and _marks_begin_symbols(body["model"]) else None
    if node is None:
        return None
    if node["type"] == "Metaspace":
        apart = node["replacement"] == MARK and (
            node.get("split", True) or _marks_begin_symbols(body["model"])
        )
        return "none" if apart else None
    cut = _pre_tokenizer(node)
    return cut.newline if cut is not None and cut.always else None


def _pre_tokenizer(node: Mapping[str, Any]) -> _Cut | None:
    """Return what a pre-tokenizer does at a cut, None where that is not known."""
    kind = node["type"]
    if kind == "Sequence":
        parts = [_pre_tokenizer(part) for part in node["pretokenizers"]]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts) or not parts:
            return None
        newline = min((part.newline for part in found), key=_ORDER.index)
        return _Cut(any(part.always for part in found), newline)
    if kind == "ByteLevel":
        return _Cut(node.get("use_regex", True), "none" if node["add_prefix_space"] else "any")
    if kind in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit"):
        return _Cut(True)
    if kind == "Digits" or (kind == "Punctuation" and node["behavior"] == "Isolated"):
        return _Cut(False)
    if kind == "Split" and node["behavior"] == "Isolated" and not node["invert"]:
        return _pattern(node["pattern"].get("Regex", ""))
    return None


def _pattern(pattern: str) -> _Cut | None:
    parts = alternatives(pattern)
    if not parts or not ALTERNATIVES.issuperset(parts):
        return None
    behind_punctuation = any(part.endswith(("[\\r\\n]*", "[\\r\\n/]*")) for part in parts)
    return _Cut(r"\s+" in parts, "letters" if behind_punctuation else "any")


def alternatives(pattern: str) -> list[str]:
    """Return the alternatives of a regular expression, cut at the bars outside of groups and classes."""
    parts, depth, inside, escaped = [""], 0, False, False
    for char in pattern:
        plain = not escaped and not inside
        if char == "|" and plain and depth == 0:
            parts.append("")
            continue
        parts[-1] += char
        depth += plain * ((char == "(") - (char == ")"))
        inside = (inside or char == "[") and char != "]" if not escaped else inside
        escaped = char == "\\" and not escaped
    return parts


# ----------------------------------------------------------------------------------- models and tokens


def _marks_begin_symbols(model: Mapping[str, Any]) -> bool:
    """Return whether nothing that a BPE model makes of a text has the word mark behind another character."""
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    if model.get("ignore_merges") and any(re.search(f"[^{MARK}]{MARK}", token) for token in model["vocab"]):
        return False
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return not any(right.startswith(MARK) and not left.endswith(MARK) for left, right in pairs)


def _added_tokens_stay_apart(tokens: Sequence[Mapping[str, Any]], normalizer: _Normalizer) -> bool:
    """Return whether no token that is looked for in text lies across a cut or looks across it.

    Special tokens are not looked for, but what they match is not given to others.
    """
    if all(token["special"] for token in tokens):
        return True
    if normalizer.prepends or normalizer.marks:
        return False
    return not any(
        token["rstrip"]
        or token["single_word"]
        or re.search(r"\S[ \n]", token["content"])
        or (token["normalized"] and not (normalizer.keeps and token["content"].isascii()))
        for token in tokens
    )
