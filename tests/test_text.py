"""Normalisation and hashing, against definitions written out the slow way."""

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskmill import leaves
from taskmill import text as kernel
from taskmill.compiling import kernels_for, load_kernels
from taskmill.text import (
    gram_hashes,
    normalise,
    short_key,
    span_hashes,
    text_leaves,
    whole_keys,
    window,
    word_hashes,
    words,
)
from taskmill.words import cut_beyond_ascii

MASK = (1 << 64) - 1
ROOT = Path(__file__).parents[1]
ODD_CHARACTERS = (
    "aZ09 _'-.\n\x00éßİıſǰΣςΐ½²ﬁ①Å\u0301\u0345\u00ad\u200b\u200d\ufeff\ufe0f"
    "東ｶﾞか\u3099ไทยกำ한ᄒ\u1161हिन्\U0001f600\ud800𝐀𠀀"
)
odd_text = st.text(st.sampled_from(ODD_CHARACTERS), max_size=40) | st.text(max_size=40)
small_text = st.lists(st.sampled_from(["a", "b", "c", "東", "É"]), max_size=30).map(" ".join)


def slow_mix(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ (value >> 33)) * factor & MASK
    return value ^ (value >> 33)


def slow_hash(word: str) -> int:
    value = 0
    for byte in word.encode():
        value = (value * 0x9E3779B97F4A7C15 + byte) & MASK
    return slow_mix(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n.,;!? -- '' ", []),
        ("The CAT's 3.5", ["the", "cat", "s", "3", "5"]),
        ("snake_case e-mail a/b", ["snake", "case", "e", "mail", "a", "b"]),
        ("don’t “quote”", ["don", "t", "quote"]),
        ("nul\x00byte", ["nul", "byte"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("İstanbul", ["i\u0307stanbul"]),
        ("ISPARTA ısparta", ["isparta", "ısparta"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("Café cafe\u0301 cafe", ["café", "café", "cafe"]),
        ("x\u0331y \u0331 z", ["x\u0331y", "z"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ﬁne x² ½ Ｆｕｌｌ", ["fine", "x2", "1", "2", "full"]),
        ("in\u00adfor\u200dma\ufefftion", ["information"]),
        ("zero\u200bwidth", ["zero", "width"]),
        ("I❤\ufe0fU", ["i", "u"]),
        ("lone\ud800surrogate", ["lone", "surrogate"]),
        ("東京に行く。", ["東", "京", "に", "行", "く"]),
        ("3年abc東x", ["3", "年", "abc", "東", "x"]),
        ("ｶﾞ か\u3099 ラーメン", ["ガ", "が", "ラ", "ー", "メ", "ン"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("𠀀𝐀𝐛", ["𠀀", "ab"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]
    assert normalise(text).split() == words(text)


@pytest.mark.parametrize("around", ["{}", "東{}a{}\u0301"])
def test_normalising_twice_changes_nothing_for_any_character(around: str) -> None:
    lines = [around.format(chr(code), chr(code)) for code in [*range(0x40000), *range(0xE0000, 0xE1000)]]
    once = [normalise(line) for line in lines]
    assert [normalise(line) for line in once] == once


@given(odd_text)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert words(normalise(text)) == words(text)


@given(odd_text)
def test_the_normal_form_of_the_input_does_not_count(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert words(unicodedata.normalize(form, text)) == words(text)


@settings(deadline=None)
@given(st.lists(odd_text, max_size=8))
@example(["", "", "a", ""])
@example(["A" * 200_000 + " b", "東" * 3, "c"])
@example(["ab", "cd", " e", "f ", "g"])
def test_compiled_and_numpy_hashes_equal_the_definition(texts: list[str]) -> None:
    load_kernels() or pytest.skip("numba is not installed")
    expected = [slow_hash(word) for text in texts for word in words(text)]
    for forbidden in ("", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TASKMILL_NO_NUMBA", forbidden)
            assert (kernels_for(0) is None) == bool(forbidden)
            hashes, offsets = word_hashes(texts)
        assert hashes.dtype == np.uint64 and hashes.tolist() == expected
        assert offsets.dtype == np.int64 and np.diff(offsets).tolist() == [len(words(text)) for text in texts]
        assert offsets[0] == 0 and len(offsets) == len(texts) + 1


def test_hashes_do_not_depend_on_chunks_or_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Text {i}, of {'many ' * (i % 50)} words É{i}" for i in range(3000)] + [""]
    load_kernels()
    whole = word_hashes(texts)
    monkeypatch.setattr(kernel, "CHUNK_BYTES", 1000)
    monkeypatch.setenv("TASKMILL_NO_NUMBA", "1")
    for got, expected in zip(word_hashes(texts), whole, strict=True):
        np.testing.assert_array_equal(got, expected)


def run_python(code: str, folder: Path = ROOT, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HASHED = """
import taskmill.compiling as c, taskmill.text as t
print(c.load_kernels() is not None, *t.word_hashes(['Some words'])[0])
"""
SOME_WORDS = f"{slow_hash('some')} {slow_hash('words')}\n"


def test_imports_neither_numba_nor_anything_but_numpy() -> None:
    code = "import sys, taskmill.text as t; t.word_hashes(['a b']); print(*{m.split('.')[0] for m in sys.modules})"
    loaded = set(run_python(code).split())
    assert "numpy" in loaded
    assert not loaded & {"numba", "polars", "pyarrow", "torch"}


def test_numba_may_be_missing() -> None:
    assert run_python(f"import sys; sys.modules['numba'] = None\n{HASHED}") == f"False {SOME_WORDS}"


COMPILED_FROM = [
    "compiling",
    "errors",
    "find_kernels",
    "group_kernels",
    "jit",
    "kernels",
    "leaves",
    "marks",
    "normalisers",
    "text",
    "utf8",
    "words",
]


def test_numba_may_find_no_folder_for_its_cache(tmp_path: Path) -> None:
    """A file stands where each of the folders that numba tries would have to be."""
    pytest.importorskip("numba")
    package = tmp_path / "taskmill"
    package.mkdir()
    for name in COMPILED_FROM:
        shutil.copy(ROOT / "taskmill" / f"{name}.py", package)
    (package / "__init__.py").touch()
    blocked = package / "__pycache__"
    blocked.touch()
    paths = dict.fromkeys(["HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"], str(blocked))
    refused = "import numba, taskmill.text as t; numba.njit(cache=True)(t.indptr_of)"
    with pytest.raises(AssertionError, match="cannot cache function"):
        run_python(refused, tmp_path, **paths)
    assert run_python(HASHED, tmp_path, **paths) == f"True {SOME_WORDS}"


@pytest.mark.parametrize("n", range(1, 14))
def test_windows_stay_inside_their_text(n: int) -> None:
    texts = ["a b c d e f g h i j k l m", "", "n", "a b c d e f g h i j k l m n", " ".join("xyz" * 9)]
    lengths = [len(words(text)) for text in texts]
    hashes, offsets = word_hashes(texts)
    grams, gram_offsets = gram_hashes(hashes, offsets, n)
    assert np.diff(gram_offsets).tolist() == [max(length - n + 1, 0) for length in lengths]
    assert grams.dtype == np.uint64 and gram_offsets.dtype == np.int64
    for number, text in enumerate(texts):
        for i, gram in enumerate(grams[gram_offsets[number] : gram_offsets[number + 1]].tolist()):
            value = 0
            for word in words(text)[i : i + n]:
                value = (value * 0xD1342543DE82EF95 + slow_hash(word)) & MASK
            assert gram == slow_mix(value)


def test_gram_hashes_see_the_order_of_words_and_refuse_bad_sizes() -> None:
    hashes, offsets = word_hashes(["a b", "b a", "a b"])
    grams, _ = gram_hashes(hashes, offsets, 2)
    assert grams[0] == grams[2] != grams[1]
    for n, hash_bits in ((0, 64), (2, 0), (2, 65)):
        with pytest.raises(ValueError, match="expected"):
            gram_hashes(hashes, offsets, n, hash_bits)


def test_window() -> None:
    text = "One, two: THREE four"
    assert window(text, 0, 2) == "one two" and window(text, 2, 2) == "three four"
    assert window(" ".join("abcdefghijklm"), 0) == "a b c d e f g h i j k l m"
    for position, n in ((3, 2), (-1, 2), (0, 5), (0, 0)):
        with pytest.raises(ValueError, match="no window"):
            window(text, position, n)


def test_short_key_sees_normalised_words_only() -> None:
    assert len(short_key(["x"])) == 16
    assert short_key(["Is it?", "YES"]) == short_key(["is  it", "yes."]) == short_key(["is it yes", ""])
    assert short_key(["is it", "no"]) != short_key(["is it", "yes"])
    assert short_key(["ab"]) != short_key(["a b"])
    assert short_key([]) == short_key(["", "?!"])


@settings(max_examples=60)
@given(st.lists(odd_text, max_size=6))
def test_keys_and_spans_see_the_words_and_their_order(texts: list[str]) -> None:
    hashes, offsets = word_hashes(texts)
    found = [words(text) for text in texts]
    keys = whole_keys(hashes, offsets)
    spans = span_hashes(hashes, offsets[:-1], offsets[1:]).tolist()
    for i, mine in enumerate(found):
        for j, other in enumerate(found[:i]):
            assert (keys[i] == keys[j]) == (spans[i] == spans[j]) == (mine == other)
    assert [key == short_key([]) for key in keys] == [not mine for mine in found]
    whole = span_hashes(hashes, offsets[:1], offsets[-1:])
    assert whole.tolist() == span_hashes(*_all_words(" ".join(texts))).tolist() or not texts


def _all_words(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hashes, offsets = word_hashes([normalise(text)])
    return hashes, offsets[:-1], offsets[1:]


@pytest.mark.parametrize(
    "character", [*ODD_CHARACTERS, "’", "…", "\u00a0", "´", "É", "ẞ", "ﷺ", "가", "ᅡ", "𝟘", "🇩"]
)
def test_texts_with_any_mixture_of_characters_hash_like_their_words(character: str) -> None:
    texts = [f"a{character}b {character}{mark}{character}x É{character}" for mark in ["", "\u0301", "’", "é"]]
    hashes, offsets = word_hashes(texts)
    for text, start, end in zip(texts, offsets, offsets[1:]):
        assert hashes[start:end].tolist() == [slow_hash(word) for word in words(text)]


LARGE_BLOCKS = (
    (0x3400, 0xA000),
    (0xAC00, 0xD7A4),
    (0x17000, 0x18D00),
    (0x20000, 0x32000),
)  # of one kind of letter
MANY_CHARACTERS = [
    chr(code)
    for code in [*range(0x80, 0x32000), *range(0xE0000, 0xE01F0)]
    if not any(low <= code < high for low, high in LARGE_BLOCKS) or code % 97 == 0
    if unicodedata.category(chr(code)) not in ("Cn", "Co")
]


@pytest.mark.parametrize(
    "around", ["A%sb", "a %s 7", "é%sÉ\u2019", "\u2019%s\u2026%s", "e%s\u0301", "ᄒ%sᅡ", "か%sx", "½%s\u00ad2"]
)
def test_a_cut_text_has_the_same_words_for_any_character(around: str) -> None:
    for character in MANY_CHARACTERS:
        text = around.replace("%s", character)
        cut = re.sub("[A-Z]+", lambda found: found[0].lower(), cut_beyond_ascii(text))
        assert re.findall(r"[a-z0-9\x80-\U0010ffff]+", cut) == words(text), ascii(text)


def test_leaves_by_side() -> None:
    fields = {"b": "x", "a": {"text": "y", "n": 2}, "label": 1, "z.w": "v", "none": None, "ok": True}
    assert leaves.leaves_by_side(fields, ()) == (["2", "y", "x", "1", "v"], [])
    assert leaves.leaves_by_side(fields, ("label", "a.text", "z")) == (["2", "x"], ["y", "1", "v"])
    assert leaves.leaves_by_side(fields, ["b"]) == (["2", "y", "1", "v"], ["x"])
    turns = {"turns": [{"user": "u"}, {"assistant": "a"}]}
    assert leaves.leaves_by_side(turns, ("turns.assistant",)) == (["u"], ["a"])
    assert leaves.leaves_by_side(["p", "q"], ("1",)) == (["p"], ["q"])


TEXT_FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "a.b", "1", "a.1"]),
    st.sampled_from(["x", "y", ""]) | st.sampled_from([None, 2, True, {"b": "z"}, ["p", "q"]]),
)


@settings(max_examples=60)
@given(
    st.lists(TEXT_FIELDS, max_size=6), st.lists(st.sampled_from(["a", "b", "a.b", "1", "a.1"]), max_size=2)
)
def test_a_reader_of_sides_does_what_leaves_by_side_does(
    examples: list[dict[str, object]], output_fields: list[str]
) -> None:
    read = leaves.sides_reader(output_fields)
    for fields in [*examples, ["p", "q"], "bare"]:
        assert read(fields) == leaves.leaves_by_side(fields, output_fields)


def test_text_leaves() -> None:
    value = {
        "z": "last",
        "choices": ["A", "B", {"label": 1}],
        "passage": {"text": "p", "ok": True, "none": None, "score": -0.5, "empty": ""},
        "big": 12345678901234567890123,
    }
    assert text_leaves(value) == [
        ("big", "12345678901234567890123"),
        ("choices.0", "A"),
        ("choices.1", "B"),
        ("choices.2.label", "1"),
        ("passage.empty", ""),
        ("passage.score", "-0.5"),
        ("passage.text", "p"),
        ("z", "last"),
    ]
    assert text_leaves("bare") == [("", "bare")]
    assert text_leaves(["x", 1.0]) == [("0", "x"), ("1", "1.0")]
    assert text_leaves(None) == text_leaves({}) == text_leaves(False) == []
    with pytest.raises(TypeError, match=r"a\.0: expected a JSON value, got set"):
        text_leaves({"a": [{1}]})
