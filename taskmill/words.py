"""Words: how a text is normalised and cut into words.

    >>> words("It's 3.5 km to Straße 7, 東京")
    ['it', 's', '3', '5', 'km', 'to', 'strasse', '7', '東', '京']

Normalisation "words-1", in this order:

1. Invisible characters (Unicode's default ignorables: soft hyphen, joiners, direction marks, variation
   selectors, Hangul fillers) vanish and end no word. The zero width space is none of them: it separates.
2. NFKC, full case folding, NFKC again, in no particular language: "ß" is "ss", "İ" is "i" with a combining
   dot, "ı" stays, "x²" is "x2", "ﬁ" is "fi", "½" is the two words "1" and "2". Accents are kept.
3. A word is a maximal run of letters and digits of any script; combining marks stay with the word they follow
   and are dropped where they follow none. All else separates: apostrophe, hyphen, underscore, lone surrogate.
4. In scripts written without spaces (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar) each letter or digit,
   with its marks, is a word of its own. Hangul is written with spaces and needs no such rule.

Letters are those of the running Python's Unicode tables; versions differ only in characters assigned since.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from taskmill.marks import ALONE, BOUND, INSIDE, JOINS, OUTSIDE, Change, joint_of

NORMALISATION = "words-1"

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_UNSPACED = (  # blocks of the scripts written without spaces
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u30ff\u31f0-\u31ff"  # Han signs, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"  # Han, old kana
)

_JAMO = re.compile("[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")  # these compose with one another
_BOUND = re.compile(f"[{_UNSPACED}{_JAMO.pattern[1:]}")
_UNBOUND = re.compile(f"(?=[^\\W_])[{_UNSPACED}]")  # ends the word before it, composes with nothing before it
_ASCII = bytes(range(128))
_FEW = 96  # bytes of characters beyond ASCII that are looked at once, in whatever texts they stand
_SHORT = 32  # characters of a part of a text that is remembered
_letters: set[str] = set()  # characters beyond ASCII that stay what they are, as far as was looked


@functools.cache
def _marks() -> str:
    """Return the ranges of all combining marks, for a pattern; on first need, as it looks at every character."""
    categories = map(unicodedata.category, map(chr, range(0x300, 0x20000)))
    codes = [code for code, category in enumerate(categories, 0x300) if category[0] == "M"]
    firsts = [code for code, before in zip(codes, [0, *codes]) if code != before + 1]
    lasts = [code for code, after in zip(codes, [*codes[1:], 0]) if code != after - 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts))


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """Compile the pattern of one word in folded text."""
    mark = _marks()
    plain = rf"[^\W_{_UNSPACED}]"
    quick = r"[a-z0-9]++(?![^\x00-\x7f])"  # this and `start` only save time
    start = r"(?=[a-z0-9\x80-\U0010ffff])"
    return re.compile(rf"{quick}|{start}(?:{plain}+(?:[{mark}]+{plain}*)*|(?=[^\W_])[{_UNSPACED}][{mark}]*)")


def words(text: str) -> list[str]:
    """Return the normalised words of a text, in order, under the rules of the module's docstring."""
    return _ASCII_WORD.findall(text.lower()) if text.isascii() else _word_pattern().findall(_folded(text))


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text))
    return unicodedata.normalize("NFKC", text.casefold())


def cut_beyond_ascii(text: str) -> str:
    """Return a text with the same words as ever, all of whose characters beyond ASCII are parts of words."""
    beyond = text.encode("utf-8", "surrogatepass").translate(None, _ASCII)
    changes = (_changes_of_few if len(beyond) <= _FEW else _changes)(beyond)
    if changes is None:  # nothing composes across a space, and most of what stands between spaces comes again
        return " ".join([part if part.isascii() else _cut_part(part) for part in text.split(" ")])
    for character, change in changes:
        text = text.replace(character, change)
    return text


def _cut_part(part: str) -> str:
    return _cut_short_part(part) if len(part) <= _SHORT else " ".join(_word_pattern().findall(_folded(part)))


@functools.lru_cache(maxsize=1 << 16)
def _cut_short_part(part: str) -> str:
    return " ".join(_word_pattern().findall(_folded(part)))


def _changes(beyond: bytes) -> list[tuple[str, str]] | None:
    """Return what to put for which of these characters, or None where that depends on the ones beside them."""
    changes = list[tuple[str, str]]()
    for character in set(beyond.decode("utf-8", "surrogatepass")).difference(_letters):
        change = _change(character)
        if change is None:
            return None
        if change == character:
            _letters.add(character)
        else:
            changes.append((character, change))
    return changes


_changes_of_few = functools.lru_cache(maxsize=1 << 14)(_changes)


@functools.cache
def _change(character: str) -> str | None:
    """Return what a character becomes wherever it stands: itself, other letters, a space or nothing; else None.

    Only marks and Jamo compose with what stands before them, and only a letter of an unspaced script ends a word.
    """
    folded = _folded(character)
    if folded and any(unicodedata.category(part)[0] == "M" for part in character + folded):
        return None
    if any(part.isalnum() and _BOUND.match(part) for part in character + folded):
        return None
    return "".join(part if part.isalnum() else " " for part in folded)


def change_anywhere(character: str) -> Change | None:
    """Return what a character becomes, if only its marks depend on the characters beside it; else None.

    None for Jamo, and where folding changes how it combines. `marks.py` says between which neighbours it holds.
    """
    kept = _IGNORABLE.sub("", character)
    if not kept:
        return Change("")
    once, folded = unicodedata.normalize("NFKC", kept), _folded(kept)
    before = joint_of(once)
    after = before if folded == once else joint_of(folded)
    if before is None or after is None or before.first != after.first or _JAMO.search(once + folded):
        return None
    flags, last = before.flags | after.flags, max(before.last, after.last)
    num_marks = next((i for i, part in enumerate(folded) if not _is_mark(part)), len(folded))
    text, ends = _cut_text(folded[num_marks:])
    if num_marks or flags & JOINS:
        flags |= BOUND
    return Change(text, folded[:num_marks], flags | ends, before.first, last)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _cut_text(folded: str) -> tuple[str, int]:
    """Return folded text that begins with no mark, with spaces that end its words, and what a mark after it joins."""
    text, ends = "", OUTSIDE
    for part in folded:
        if _is_mark(part):
            text = text if ends == OUTSIDE else text + part if ends == INSIDE else f"{text[:-1]}{part} "
        elif part.isalnum():
            ends = ALONE if _UNBOUND.match(part) else INSIDE
            text += part if ends == INSIDE else f" {part} "
        else:
            text, ends = text + " ", OUTSIDE
    return text, ends


def normalise(text: str) -> str:
    """Return the normalised words of a text joined by one space; normalising twice changes nothing."""
    return " ".join(words(text))
