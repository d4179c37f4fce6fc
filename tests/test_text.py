"""Normalisation, hashing and the confirmed n-gram overlap, against definitions written out the slow way."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskmill import leaves
from taskmill import text as kernel
from taskmill import words as word_rules
from taskmill.text import (
    GramIndex,
    SharedGrams,
    find_shared,
    gram_hashes,
    load_compiled,
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


def slow_windows(texts: list[str], n: int) -> dict[tuple[str, ...], set[tuple[int, int]]]:
    """Return word tuple -> its (text, position) places."""
    places = defaultdict(set)
    for number, text in enumerate(texts):
        found = words(text)
        for position in range(len(found) - n + 1):
            places[tuple(found[position : position + n])].add((number, position))
    return dict(places)


def places_by_gram(shared: SharedGrams) -> dict[str, tuple[set, set]]:
    """Return gram text -> (train places, evaluation places), checking the invariants of the arrays on the way."""
    num_grams = len(shared.gram_text)
    assert len(set(shared.gram_text)) == len(shared.gram_hash) == len(shared.eval_indptr) - 1 == num_grams
    assert set(shared.gram_id.tolist()) == set(range(num_grams))
    train = list(zip(shared.train_text.tolist(), shared.train_position.tolist(), strict=True))
    assert train == sorted(set(train))
    assert shared.gram_hash.tolist() == sorted(shared.gram_hash.tolist())
    found = {}
    for number, gram in enumerate(shared.gram_text):
        part = slice(*shared.eval_indptr[number : number + 2])
        places = list(zip(shared.eval_text[part].tolist(), shared.eval_position[part].tolist(), strict=True))
        assert places and places == sorted(set(places))
        mine = {
            place for place, gram_id in zip(train, shared.gram_id.tolist(), strict=True) if gram_id == number
        }
        found[gram] = (mine, set(places))
    return found


def build_index(texts: list[str], n: int, hash_bits: int = 64) -> GramIndex:
    return GramIndex(*gram_hashes(*word_hashes(texts), n, hash_bits))


def assert_equals_brute_force(
    eval_texts: list[str], batches: list[list[str]], n: int, hash_bits: int = 64
) -> None:
    index = build_index(eval_texts, n, hash_bits)
    evaluation = slow_windows(eval_texts, n)
    for batch in batches:
        shared = find_shared(index, eval_texts, batch, n, hash_bits)
        train = slow_windows(batch, n)
        expected = {
            " ".join(gram): (train[gram], evaluation[gram]) for gram in train.keys() & evaluation.keys()
        }
        assert places_by_gram(shared) == expected


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
def test_compiled_and_numpy_hashes_equal_the_definition(texts: list[str]) -> None:
    expected = [slow_hash(word) for text in texts for word in words(text)]
    kernels = [kernel._hash_words, load_compiled() or pytest.skip("numba is not installed")]
    for hash_words in kernels:
        parts = [hash_words(*buffer) for buffer in kernel._buffers(texts)]
        assert [value for hashes, _ in parts for value in hashes.tolist()] == expected
    hashes, offsets = word_hashes(texts)
    assert hashes.dtype == np.uint64 and hashes.tolist() == expected
    assert offsets.dtype == np.int64 and np.diff(offsets).tolist() == [len(words(text)) for text in texts]
    assert offsets[0] == 0 and len(offsets) == len(texts) + 1


def test_hashes_do_not_depend_on_chunks_or_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Text {i}, of {'many ' * (i % 50)} words É{i}" for i in range(3000)] + [""]
    load_compiled()
    whole = word_hashes(texts)
    monkeypatch.setattr(kernel, "CHUNK_BYTES", 1000)
    monkeypatch.setenv("TASKMILL_NO_NUMBA", "1")
    assert kernel._kernel(1 << 30) is kernel._hash_words
    for got, expected in zip(word_hashes(texts), whole, strict=True):
        np.testing.assert_array_equal(got, expected)


def run_python(code: str, folder: Path = ROOT, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HASHED = "import taskmill.text as t; print(t.load_compiled() is not None, *t.word_hashes(['Some words'])[0])"
SOME_WORDS = f"{slow_hash('some')} {slow_hash('words')}\n"


def test_imports_neither_numba_nor_anything_but_numpy() -> None:
    code = "import sys, taskmill.text as t; t.word_hashes(['a b']); print(*{m.split('.')[0] for m in sys.modules})"
    loaded = set(run_python(code).split())
    assert "numpy" in loaded
    assert not loaded & {"numba", "polars", "pyarrow", "torch"}


def test_numba_may_be_missing() -> None:
    assert run_python(f"import sys; sys.modules['numba'] = None; {HASHED}") == f"False {SOME_WORDS}"


def test_numba_may_find_no_folder_for_its_cache(tmp_path: Path) -> None:
    """A file stands where each of the folders that numba tries would have to be."""
    pytest.importorskip("numba")
    package = tmp_path / "taskmill"
    package.mkdir()
    for module in (kernel, leaves, word_rules):
        shutil.copy(module.__file__, package)
    (package / "__init__.py").touch()
    blocked = package / "__pycache__"
    blocked.touch()
    paths = dict.fromkeys(["HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"], str(blocked))
    refused = "import numba, taskmill.text as t; numba.njit(cache=True)(t._scan)"
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


@given(st.lists(small_text, max_size=6), st.lists(small_text, max_size=6), st.sampled_from([4, 7, 64]))
def test_lookup_equals_a_dict(eval_texts: list[str], train_texts: list[str], hash_bits: int) -> None:
    index = build_index(eval_texts, 2, hash_bits)
    evaluation, _ = gram_hashes(*word_hashes(eval_texts), 2, hash_bits)
    expected = {gram: place for place, gram in enumerate(sorted(set(evaluation.tolist())))}
    assert index.grams.tolist() == list(expected)
    grams, _ = gram_hashes(*word_hashes(train_texts), 2, hash_bits)
    assert index.lookup(grams).tolist() == [expected.get(gram, -1) for gram in grams.tolist()]
    assert index.nbytes > 0


def test_lookup_at_the_ends_of_the_hash_range() -> None:
    grams = np.array([0, MASK, 1 << 63], np.uint64)
    index = GramIndex(grams, np.array([0, 2, 3], np.int64))
    assert index.lookup(np.array([MASK, 1, MASK - 1, 0, 1 << 63], np.uint64)).tolist() == [2, -1, -1, 0, 1]
    assert index.text.tolist() == [0, 1, 0] and index.position.tolist() == [0, 0, 1]
    big = np.arange(1 << 17, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    index = GramIndex(big, np.array([0, len(big)], np.int64))
    np.testing.assert_array_equal(index.grams[index.lookup(big)], big)
    assert (index.lookup(big + np.uint64(1)) == -1).all()


@settings(deadline=None)
@given(
    st.lists(small_text, max_size=6),
    st.lists(st.lists(small_text, max_size=5), max_size=3),
    st.integers(1, 13),
    st.sampled_from([1, 2, 4, 64]),
)
def test_shared_grams_equal_brute_force(
    eval_texts: list[str], batches: list[list[str]], n: int, hash_bits: int
) -> None:
    """With 1 to 4 bits nearly every hash collides, between windows of either side."""
    assert_equals_brute_force(eval_texts, batches, n, hash_bits)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(odd_text, max_size=5),
    st.lists(odd_text, max_size=5),
    st.integers(1, 3),
    st.sampled_from([3, 64]),
)
def test_shared_grams_equal_brute_force_on_any_text(
    eval_texts: list[str], train_texts: list[str], n: int, hash_bits: int
) -> None:
    assert_equals_brute_force(eval_texts, [train_texts, eval_texts], n, hash_bits)


@pytest.mark.parametrize("hash_bits", [6, 64])
def test_shared_grams_of_larger_batches(hash_bits: int) -> None:
    vocabulary = ["north", "South", "é", "西"]
    digits = [slow_mix(i) for i in range(200)]
    texts = [" ".join(vocabulary[digit >> 2 * k & 3] for k in range(digit % 25)) for digit in digits]
    assert_equals_brute_force(texts[:80], [texts[80:130], texts[130:], texts[80:130]], 3, hash_bits)


def test_a_collision_is_never_evidence() -> None:
    eval_texts, train_texts = ["one two three", "four five six"], ["seven eight nine", "four five six"]
    shared = find_shared(build_index(eval_texts, 3, 1), eval_texts, train_texts, 3, 1)
    assert shared.gram_text == ["four five six"]
    assert shared.train_text.tolist() == [1] and shared.eval_text.tolist() == [1]


def test_index_follows_the_texts_and_pickles_without_them() -> None:
    eval_texts, train_texts = ["a b c d"], ["z a b c"]
    index = build_index(eval_texts, 3)
    first = find_shared(index, eval_texts, train_texts, 3)
    assert index.windows is not None
    for copy, texts in ((pickle.loads(pickle.dumps(index)), eval_texts), (index, list(eval_texts))):
        assert places_by_gram(find_shared(copy, texts, train_texts, 3)) == places_by_gram(first)
        assert copy.windows is not None and copy.windows.texts is texts
    assert pickle.loads(pickle.dumps(index)).windows is None
    with pytest.raises(ValueError, match="2 texts; expected the 1 of the index"):
        find_shared(index, ["a", "b"], train_texts, 3)


def test_nothing_shared_gives_empty_arrays() -> None:
    for eval_texts, train_texts in (([], []), ([], ["a b"]), (["a b"], []), (["a b"], ["c d"]), ([""], [""])):
        shared = find_shared(build_index(eval_texts, 2), eval_texts, train_texts, 2)
        assert places_by_gram(shared) == {}
        assert shared.eval_indptr.tolist() == [0]


def test_a_frequent_gram_costs_its_places_and_not_their_product() -> None:
    texts = ["the same three words"] * 3000
    shared = find_shared(build_index(texts, 4), texts, texts, 4)
    assert len(shared.train_text) == len(shared.eval_text) == 3000
    assert shared.gram_text == ["the same three words"]


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
