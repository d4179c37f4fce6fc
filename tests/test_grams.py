"""The n-gram index: compiled, in numpy and by sets of words, on any text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskmill import compiling, grams, utf8
from taskmill.compiling import load_kernels
from taskmill.grams import GramIndex, Places
from taskmill.marks import Change
from taskmill.normalisers import WORDS, Normaliser, named
from taskmill.text import gram_hashes, word_hashes

ROOT = Path(__file__).parents[1]
ODD = (
    "aZ09 _'-.\n\t\x00\x01\x1cé“”—ßİıſǰΣςΐ½²ﬁ①Å\u0301\u0345\u00a0\u00ad\u200b\u200d\ufeff"
    "東ｶﾞか\u3099ไทยกำ한ᄒ\u1161हिन्\U0001f600\ud800𝐀𠀀㈱"
)
MODES = [named("words-1"), named("gpt3"), named("lm-eval")]
small_text = st.lists(st.sampled_from(["a", "B", "c", "東", "É", "the-"]), max_size=30).map(" ".join)
odd_text = st.text(st.sampled_from(ODD), max_size=30) | st.text(max_size=30)


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to do the work."""
    use(request.param, monkeypatch)
    yield request.param


def use(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "numpy":
        monkeypatch.setenv("TASKMILL_NO_NUMBA", "1")
    else:
        assert load_kernels() or pytest.skip("numba is not installed")


def oracle(texts: list[str], n: int, normaliser: Normaliser) -> dict[str, list[tuple[int, int]]]:
    """Return gram -> its places, in order."""
    places = defaultdict(list)
    for number, text in enumerate(texts):
        words = normaliser.words(text)
        for position in range(len(words) - n + 1):
            places[" ".join(words[position : position + n])].append((number, position))
    return dict(places)


def check(
    index: GramIndex, texts: list[str], batches: list[list[str]], threads: int = 1
) -> list[tuple[list[int], ...]]:
    """Check an index of `texts`, and what it finds in the batches, against sets of words; return all it gave."""
    n, normaliser = index.n, index.normaliser
    places = oracle(texts, n, normaliser)
    names = index.windows(np.arange(len(index.gram_hash)))
    assert sorted(names) == sorted(places)
    assert index.gram_hash.tolist() == sorted(index.gram_hash.tolist())
    assert index.num_texts == len(texts)
    assert index.num_words.tolist() == [len(normaliser.words(text)) for text in texts]
    assert len(index.text) == len(index.position) == index.indptr[-1]
    assert index.nbytes > 0
    for number, name in enumerate(names):
        part = slice(*index.indptr[number : number + 2].tolist())
        assert list(zip(index.text[part].tolist(), index.position[part].tolist())) == places[name]
    for one, other in zip(range(len(names)), range(1, len(names))):
        if index.gram_hash[one] == index.gram_hash[other]:
            assert places[names[one]][0] < places[names[other]][0]
    for batch in batches:
        found = index.find(batch, threads)
        assert found.num_words.tolist() == [len(normaliser.words(text)) for text in batch]
        mine = list(zip(found.text.tolist(), found.position.tolist(), index.windows(found.gram)))
        theirs = oracle(batch, n, normaliser)
        assert mine == sorted(
            (*place, gram) for gram in places.keys() & theirs.keys() for place in theirs[gram]
        )
    return [as_lists(index.find(batch)) for batch in batches]


def as_lists(places: Places) -> tuple[list[int], ...]:
    arrays = places.text, places.position, places.gram, places.num_words
    assert all(array.dtype == np.int64 for array in arrays)
    return tuple(array.tolist() for array in arrays)


def both_ways(
    texts: list[str], batches: list[list[str]], n: int, normaliser: Normaliser, hash_bits: int
) -> None:
    answers = []
    for way in ("numpy", "compiled"):
        with pytest.MonkeyPatch.context() as patch:
            use(way, patch)
            index = GramIndex(texts, n, normaliser, hash_bits=hash_bits)
            arrays = [getattr(index, name).tolist() for name in grams._ARRAYS]
            answers.append((check(index, texts, batches), arrays))
    assert answers[0] == answers[1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(small_text, max_size=6),
    st.lists(st.lists(small_text, max_size=5), max_size=2),
    st.integers(1, 20),
    st.sampled_from([1, 2, 4, 64]),
    st.sampled_from(MODES),
)
def test_both_ways_equal_sets_of_words(
    texts: list[str], batches: list[list[str]], n: int, hash_bits: int, normaliser: Normaliser
) -> None:
    """With 1 to 4 bits nearly every hash collides."""
    both_ways(texts, [*batches, texts], n, normaliser, hash_bits)


@settings(deadline=None, max_examples=120)
@given(
    st.lists(odd_text, max_size=5),
    st.lists(odd_text, max_size=5),
    st.integers(1, 3),
    st.sampled_from([3, 64]),
    st.sampled_from(MODES),
)
@example(["", "", "a", ""], ["a"], 1, 64, MODES[0])
@example(["ab", "cd"], ["abcd", "ab", "cd"], 1, 64, MODES[0])
@example(["東京 x"], ["x東京"], 1, 64, MODES[0])
@example(["ΑΣ Σ", "a\x00b\x1cc"], ["ας σ", "a b c"], 1, 64, MODES[1])
def test_both_ways_equal_sets_of_words_on_any_text(
    texts: list[str], others: list[str], n: int, hash_bits: int, normaliser: Normaliser
) -> None:
    both_ways(texts, [others, texts], n, normaliser, hash_bits)


def many_texts() -> list[str]:
    vocabulary = ["north", "South", "é", "西", "don’t", "a", "x" * 3000]
    texts = []
    for k in range(400):
        key = (k * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
        texts.append(" ".join(vocabulary[(key >> 2 * i) % 6 if i % 11 else 6] for i in range(key % 29)))
    return [*texts, "y" * 5000 + " tail", " ".join(["one two"] * 900)]


@pytest.mark.parametrize("hash_bits", [3, 64])
def test_long_words_and_many_texts(way: str, hash_bits: int) -> None:
    """Words across the segments that the kernel cuts at once, the same gram over and over."""
    texts = many_texts()
    index = GramIndex(texts[:200], 3, hash_bits=hash_bits)
    check(index, texts[:200], [texts[200:], texts[:50]])
    index = GramIndex(texts[200:], 3)
    check(index, texts[200:], [texts])


def test_gram_hashes_are_those_of_the_words(way: str) -> None:
    texts = many_texts()
    hashes, _ = gram_hashes(*word_hashes(texts), 3)
    assert GramIndex(texts, 3).gram_hash.tolist() == np.unique(hashes).tolist()


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_nothing(way: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = many_texts()
    alone = GramIndex(texts[:200], 3)
    monkeypatch.setattr(grams, "RUN_BYTES", 500)
    index = GramIndex(texts[:200], 3, threads=threads)
    for name in grams._ARRAYS:
        np.testing.assert_array_equal(getattr(index, name), getattr(alone, name))
    assert as_lists(index.find(texts, threads)) == as_lists(alone.find(texts))
    batches = [texts[low : low + 7] for low in range(0, len(texts), 7)]
    streamed = [as_lists(places) for places in index.find_batches(iter(batches), threads)]
    assert streamed == [as_lists(alone.find(batch)) for batch in batches]


def test_batches_are_read_on_demand() -> None:
    read = []

    def batches() -> Iterator[list[str]]:
        for number in range(100):
            read.append(number)
            yield ["a b c"]

    places = GramIndex(["a b"], 2).find_batches(batches(), threads=2)
    assert len(next(places).text) == 1 and len(read) <= 4
    assert sum(len(place.text) for place in places) == 99


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_arrow_strings_are_as_good_as_lists(way: str, kind: pa.DataType) -> None:
    texts = [
        "skipped one",
        "the cat sat on",
        "",
        "naïve “cat” sat on",
        "",
        "sat on",
        "東京 sat on",
        "left out",
    ]
    whole = pa.array(texts, pa.string()).cast(kind) if kind != pa.string_view() else pa.array(texts, kind)
    inner = whole.slice(1, 6)
    chunks = pa.chunked_array([inner.slice(0, 2), inner.slice(2, 0), inner.slice(2)])
    listed = GramIndex(texts[1:7], 2)
    for given_texts in (inner, chunks):
        index = GramIndex(given_texts, 2)
        assert index.windows(np.arange(len(index.gram_hash))) == listed.windows(
            np.arange(len(listed.gram_hash))
        )
        assert as_lists(index.find(given_texts, 2)) == as_lists(listed.find(texts[1:7]))
    empty = GramIndex(pa.chunked_array([], pa.string()), 2)
    assert as_lists(empty.find(whole.slice(3, 0))) == ([], [], [], [])
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        listed.find(pa.array(["a", None], pa.string()))


def test_save_and_load(way: str, tmp_path: Path) -> None:
    texts = many_texts()
    index = GramIndex(texts[:200], 3, hash_bits=5)
    index.save(tmp_path)
    loaded = GramIndex.load(tmp_path)
    assert (loaded.n, loaded.num_texts, loaded.nbytes) == (3, 200, index.nbytes)
    for name in grams._ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(index, name))
    assert check(loaded, texts[:200], [texts]) == [as_lists(index.find(texts))]
    with pytest.raises(ValueError, match="words-1 words; expected lm-eval"):
        GramIndex.load(tmp_path, MODES[2])
    with pytest.raises(OSError, match=r"index\.json"):
        GramIndex.load(tmp_path / "none")


def test_bad_settings_are_refused() -> None:
    for n, hash_bits in ((0, 64), (-1, 64), (2, 0), (2, 65)):
        with pytest.raises(ValueError, match="expected"):
            GramIndex(["a"], n, hash_bits=hash_bits)


def test_a_frequent_gram_costs_its_places_and_not_their_product(way: str) -> None:
    texts = ["the same three words"] * 30_000
    index = GramIndex(texts, 4)
    assert len(index.gram_hash) == 1 and index.text.tolist() == list(range(30_000))
    assert len(index.find(texts).text) == 30_000


def test_characters_that_need_more_room_or_were_not_seen(way: str) -> None:
    """Some characters become many; a run's output grows until it holds them."""
    texts = ["\ufdfa" * 900, "x", "".join(map(chr, range(0xC0, 0x2000))), "\ufdfa b"]
    check(GramIndex(texts, 1), texts, [texts[::-1]])


def test_what_a_character_becomes_is_asked_once() -> None:
    asked = []

    def change(character: str) -> Change | None:
        asked.append(character)
        return WORDS.change(character) if WORDS.change else None

    characters = utf8.Characters(Normaliser("x", WORDS.prepare, False, WORDS.fold, WORDS.words, change))
    kernels = load_kernels() or pytest.skip("numba is not installed")
    run = next(utf8.runs(["é É “é”", "e\u0301", "a"], 1000))
    for _ in range(2):
        done, hard = utf8._rewritten(run, characters, kernels)
        assert bytes(done.raw).decode() == "é é  é a" and hard.tolist() == [1]
    assert sorted(asked) == sorted(set("éÉ“”\u0301"))


COLD = """
import time
from taskmill import compiling, grams
compiling.LOAD_AFTER_BYTES = 1
texts = [f"word{i % 97} and {i % 89} other words of text {i % 83}" for i in range(3000)]
def answer():
    index = grams.GramIndex(texts[:500], 3)
    places = index.find(texts)
    return index.gram_hash.tolist(), places.text.tolist(), places.position.tolist(), places.gram.tolist()
first, ways = answer(), {compiling.kernels_for(0) is not None}
deadline = time.monotonic() + 200
while compiling.kernels_for(0) is None and time.monotonic() < deadline:
    assert answer() == first
    time.sleep(0.2)
assert answer() == first
ways.add(compiling.kernels_for(0) is not None)
print(sorted(ways))
"""


def test_a_new_environment_works_on_in_numpy_while_it_compiles(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "TASKMILL_NO_NUMBA": ""}
    for expected in ("[False, True]\n", "[True]\n"):
        done = subprocess.run(
            [sys.executable, "-c", COLD],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=230,
        )
        assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_little_text_is_not_worth_loading_numba_for() -> None:
    code = "import sys; from taskmill.grams import GramIndex; GramIndex(['a b'], 1).find(['b']); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert compiling.LOAD_AFTER_BYTES > 1 << 20


@pytest.mark.parametrize("normaliser", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("around", ["A%sb", "%s 7 %s", "é%s\u2019É", "か%sx東", "e%s\u0301", "ᄒ%sᅡ", "हि%s"])
def test_any_character_is_rewritten_to_the_words_it_has_in_python(
    around: str, normaliser: Normaliser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of characters, against the preparation of whole texts."""
    codes = [*range(0x3400), *range(0x3400, 0xE000, 61), *range(0xE000, 0x20000, 3), 0xE0001, 0x10FFFF]
    texts = [around.replace("%s", chr(code)) for code in codes]
    use("compiled", monkeypatch)
    compiled = word_hashes(texts, normaliser)
    use("numpy", monkeypatch)
    for got, expected in zip(compiled, word_hashes(texts, normaliser), strict=True):
        np.testing.assert_array_equal(got, expected)
