"""Texts with combining marks: the compiled table of characters, against the words that Python cuts."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskmill import utf8
from taskmill.compiling import load_kernels
from taskmill.marks import joint_of
from taskmill.normalisers import WORDS, Normaliser, named
from taskmill.text import word_hashes

MODES = [WORDS, named("gpt3"), named("lm-eval")]
MARKS = [chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
ALPHABETS = (
    "हिन्दीक़फ़नऩर्ऱळऴािीु\u093c\u094d\u0902।",
    "বাংলাে\u09be\u09d7ড\u09bc\u09cdো",
    "தமிழ்ெொேோ\u0bbe\u0b92\u0bd7",
    "ಕೊ\u0cc6\u0cc2\u0cd5\u0cca മലൊ\u0d46\u0d3e සිංහෝ\u0dd9\u0dcf\u0dca",
    "العربية\u064b\u064e\u0651\u0652\u0653\u0654\u0655\u0670اويآأۀە\u0640؟ﷺﹶ",
    "שׁלוֹם\u05b8\u05bc\u05c1\u05c2\u05b0\u05beﬡשּׂ",
    "ไทยกำน้ำที่ปู่\u0e38\u0e3a\u0e48ำເລາຳ\u0ec8\u0eb8",
    "ខ្មែរ\u17d2\u17dd\u17c6\u200b မြန်မာဥ\u102e\u1037\u1039",
    "한국ᄒ\u1161\u11ab각가\u11a8\u302eㅎ\uffa1",
    "eEäßﬁİıǰΐάᾳ\u0301\u0300\u0308\u0323\u0327\u0331\u0338\u0345\u0344ếạµ<=",
    "かがｶﾞ\u3099\u309aパﾊﾟ東々ー㍿㍘゛\u309b",
    "བོད\u0f71\u0f72\u0f74\u0f73\u0fb2\u0fb7\u0f0b",
    "\U00011131\U00011127\U000110ba\U00011099\U0001d15e\U0001d165\U0001e8d0\U0001e943\u20dd\u20d0",
)
COMMON = "aZ7 _.-\n\x00é½²´¨\u00ad\u200d\u200c\ufe0f\u034f\u200b’\ud800\U0001f600"
rich = st.sampled_from(ALPHABETS).flatmap(
    lambda letters: st.text(st.sampled_from(letters * 2 + COMMON + "\u0301\u0323"), max_size=24)
)
mixed = st.text(st.sampled_from("".join(ALPHABETS) + COMMON), max_size=24)
wild = st.text(st.sampled_from(MARKS) | st.sampled_from("".join(ALPHABETS)) | st.characters(), max_size=12)


def rewritten(texts: list[str], normaliser: Normaliser = WORDS) -> tuple[list[list[str]], list[int]]:
    """Return the words of each text after the compiled rewriting, and which texts are left to Python."""
    kernels = load_kernels() or pytest.skip("numba is not installed")
    run = next(utf8.runs(texts, 1 << 30))
    done, hard = utf8._rewritten(run, utf8._characters(normaliser), kernels)
    ready = [done.raw[start:end].tobytes() for start, end in zip(done.offsets, done.offsets[1:])]
    cut = [text.translate(normaliser.fold).replace(b"\0", b" ").split() for text in ready]
    return [[word.decode("utf-8", "surrogatepass") for word in found] for found in cut], hard.tolist()


def check(texts: list[str], normaliser: Normaliser = WORDS) -> list[int]:
    """Compare the texts that are not left to Python; return those that are."""
    found, hard = rewritten(texts, normaliser)
    for number in set(range(len(texts))).difference(hard):
        assert found[number] == normaliser.words(texts[number]), ascii(texts[number])
    return hard


@settings(deadline=None, max_examples=300)
@given(st.lists(rich | mixed | wild, min_size=1, max_size=12))
@example(
    [
        "\u0301a",
        "a \u0301b",
        "a\u00ad\u0301",
        "\u0e48ก",
        "ก\u00ad\u0e48\u200dx",
        "क\u094d\u200dष",
        "\u0331\u0301",
    ]
)
def test_marks_are_rewritten_as_python_cuts_them(texts: list[str]) -> None:
    for normaliser in MODES:
        check(texts, normaliser)


@pytest.mark.parametrize("normaliser", MODES, ids=lambda mode: mode.name)
@settings(deadline=None)
@given(texts=st.lists(rich | mixed | wild, max_size=8))
def test_compiled_and_numpy_hashes_of_marks_are_equal(normaliser: Normaliser, texts: list[str]) -> None:
    load_kernels() or pytest.skip("numba is not installed")
    expected = word_hashes([" ".join(normaliser.words(text)) for text in texts], normaliser)
    for forbidden in ("", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TASKMILL_NO_NUMBA", forbidden)
            for got, wanted in zip(word_hashes(texts, normaliser), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "around",
    [
        "%s",
        "a%s",
        "%sa b",
        "é%s\u0331x",
        "e\u0323%s",
        "か%s東",
        "ก%s\u0e48ข",
        "न%s\u093c",
        " %s\u0301",
        "<%s 가%s",
    ],
)
def test_every_mark_and_every_character_that_becomes_one(around: str) -> None:
    codes = [
        *range(0x80, 0x3400),
        *range(0xA000, 0xAC00),
        *range(0xF900, 0x12000),
        *range(0x16000, 0x1F000, 3),
    ]
    check([around.replace("%s", chr(code)) for code in codes])


def test_every_two_marks_on_a_letter_of_their_own() -> None:
    """Marks beside any mark of their block, and the commonest of other blocks."""
    for letter in "ढeכ":
        texts = [
            f"{letter}{first}{second}x"
            for first in MARKS
            for second in [*MARKS[:110:7], *(chr(ord(first) ^ bits) for bits in range(1, 64, 5))]
        ]
        check(texts)


@pytest.mark.parametrize(
    "text",
    [
        "हिन्दी भाषा में फ़िल्म और सड़क",
        "বাংলা ভাষার শব্দ",
        "தமிழ் மொழி",
        "తెలుగు భాష",
        "ભાષા ગુજરાતી",
        "ภาษาไทยน้ำใจที่ดี",
        "العَرَبِيَّة".replace("\u0651\u064e", "\u064e\u0651"),
        "שָׁלוֹם".replace("\u05c1\u05b8", "\u05b8\u05c1"),
        "ខ្មែរ ភាសា",
        "I❤\ufe0fU \u0301x",
        "ɛ\u0303x",
        "´quoted´ ¨",
        "İstanbul",
        "မြန်မာဘာသာ",
    ],
)
def test_common_texts_are_not_left_to_python(text: str) -> None:
    assert check([text]) == []


@pytest.mark.parametrize(
    "text", ["cafe\u0301", "न\u093c", "か\u3099", "ᄒ\u1161", "x\u0301\u0323", "ا\u0653", "α\u0345"]
)
def test_what_may_compose_or_change_places_is_left_to_python(text: str) -> None:
    assert check([text]) == [0]


def test_a_joint_says_what_normalising_can_change() -> None:
    for text in ("क", "e", "é", "\u0301", "\u093c", "\u0e33"):
        joint = joint_of(unicodedata.normalize("NFKC", text))
        assert joint is not None
        for mark in MARKS[::3]:
            after = joint_of(unicodedata.normalize("NFKC", mark))
            if after is None or (joint.flags & 4 and after.flags & 8) or 0 < after.first < joint.last:
                continue
            parts = [unicodedata.normalize("NFKC", part) for part in (text, mark)]
            assert unicodedata.is_normalized("NFC", "".join(parts)), ascii(parts)
