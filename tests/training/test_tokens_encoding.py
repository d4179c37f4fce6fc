"""Encoding in parts beside the plain encoding of whole texts: the same ids and segments whatever the texts hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from taskmill.errors import DamagedError
from taskmill.records import SEGMENT_KINDS
from taskmill.training.encoding.boundaries import alternatives, safe_boundaries
from taskmill.training.encoding.encoder import Encoder, cut, encode
from taskmill.training.encoding.rows import CONTROL, PIECES, Encoded, Prompt, Rows
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CORPUS = [
    "the cat's mat isn't 12345 ok.\n\nOutput: yes  no\n",
    "Größe naïve e\u0301 café привет мир 한국어 텍스트 東京 タワー\u3000x",
    "don't  stop; (a b) [c d]\n- e\n- f == g",
    "x \u0301y a\u00a0b \u2581 c\u2028d \t tab \r\n end </s> <s> <|im start|>",
] * 8
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
SPACED = "<|im start|>"
CONTROLS = ["{bos}", "{eos}", "<pad>"]


def bpe(pre: Any, normalizer: Any = None, words: int = 420, **model: Any) -> Tokenizer:
    """A BPE tokenizer trained on the corpus."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **model))
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet())) if "ByteLevel" in repr(pre) else []
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2(add_prefix_space: bool = False, **more: Any) -> Tokenizer:
    return bpe(pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space), **more)


def llama3(normalizer: Any = None) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return bpe(pre_tokenizers.Sequence([split, level]), normalizer, ignore_merges=True)


def llama2() -> Tokenizer:
    """SentencePiece BPE as converted: words are learnt apart, and no pre-tokenizer keeps them apart."""
    trained = bpe(pre_tokenizers.Metaspace(prepend_scheme="always"), byte_fallback=True, fuse_unk=True)
    body = json.loads(trained.to_str())
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    body["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    body["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(body))


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def with_spaces_as_tokens() -> Tokenizer:
    tokenizer = gpt2(normalizer=normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 3)])
    return tokenizer


def with_a_token_of_two_words() -> Tokenizer:
    tokenizer = gpt2()
    tokenizer.add_tokens([AddedToken("cat mat", normalized=False)])
    return tokenizer


def swallowing() -> Tokenizer:
    tokenizer = gpt2()
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True, lstrip=True, rstrip=True), SPACED])
    return tokenizer


MAKE: dict[str, tuple[Any, bool]] = {
    "gpt2": (gpt2, True),
    "gpt2-prefix": (lambda: gpt2(True), True),
    "digits": (
        lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])),
        True,
    ),
    "llama3": (llama3, True),
    "llama3-nfc": (lambda: llama3(normalizers.NFC()), True),
    "nfkc": (lambda: gpt2(normalizer=normalizers.NFKC()), True),
    "metaspace-always": (lambda: bpe(pre_tokenizers.Metaspace(prepend_scheme="always")), True),
    "metaspace-first": (lambda: bpe(pre_tokenizers.Metaspace(prepend_scheme="first")), True),
    "metaspace-never": (lambda: bpe(pre_tokenizers.Metaspace(prepend_scheme="never")), True),
    "metaspace-whole": (lambda: bpe(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)), False),
    "llama2": (llama2, True),
    "wordpiece": (wordpiece, True),
    "no-pre-tokenizer": (lambda: bpe(None, words=300), False),
    "stripped": (lambda: gpt2(normalizer=normalizers.Strip()), False),
    "space-tokens": (with_spaces_as_tokens, True),
    "two-word-token": (with_a_token_of_two_words, False),
    "swallowing": (swallowing, True),
}


@pytest.fixture(scope="module", params=list(MAKE))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    made, safe = MAKE[request.param]
    (folder / "tokenizer.json").write_text(made().to_str())
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    opened = open_tokenizer(folder)
    assert (opened.boundaries is not None) == safe
    return opened


# ------------------------------------------------------------------------------------ the plain encoding


def plain(tokenizer: TextTokenizer, prompt: Prompt) -> tuple[Encoded, Any]:
    """Encode a prompt run by run, each as a whole; returns also which tokens have characters of their own."""
    raw = prompt.text.encode()
    pieces = [raw[a:b].decode() for a, b in zip([0, *prompt.ends[:-1]], prompt.ends)]
    runs: list[tuple[int | None, list[int]]] = []
    previous: int | None = None
    for number, kind in enumerate(prompt.kinds):
        glued = prompt.joint or (kind in PIECES and previous in PIECES)
        if kind == CONTROL:
            runs.append((number, [number]))
        elif glued and runs and runs[-1][0] is None:
            runs[-1][1].append(number)
        else:
            runs.append((None, [number]))
        previous = kind
    runs = [(mark, own) for mark, own in runs if mark is not None or any(pieces[n] for n in own)]
    marks = [None if mark is None else tokenizer.symbol(pieces[mark]) for mark, _ in runs]
    takes = [(False, False) if m is None else tokenizer.swallows.get(m, (False, False)) for m in marks]
    ids: list[int] = []
    segment: list[int] = []
    wide: list[bool] = []
    for place, (mark, own) in enumerate(runs):
        if mark is not None:
            ids += [] if marks[place] is None else [marks[place]]  # type: ignore[list-item]
            segment += [] if marks[place] is None else [mark]
            wide += [] if marks[place] is None else [True]
            continue
        text, dropped = "".join(pieces[n] for n in own), 0
        if prompt.joint and place and takes[place - 1][1]:
            dropped = len(text) - len(text.lstrip())
        if prompt.joint and place + 1 < len(runs) and takes[place + 1][0]:
            text = text.rstrip()
        text = text[dropped:]
        encoding = tokenizer.backend.encode_batch([text], add_special_tokens=False)[0] if text else None
        ends = np.cumsum([len(pieces[n]) for n in own])
        for number, (begin, end) in zip(encoding.ids, encoding.offsets) if encoding else ():
            ids.append(number)
            found = int(np.searchsorted(ends, begin + dropped, side="right"))
            segment.append(own[min(found, len(own) - 1)])
            wide.append(begin < end)
    trained = np.asarray(prompt.trained, dtype=bool)[np.array(segment, dtype=int)]
    return Encoded(np.array(ids, np.int32), trained, np.array(segment, np.int32)), np.array(wide, bool)


WORDS = [
    *(" ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85"),
    *("the", " cat", "'s", "'S", " isn't", "123", " 45678", ".", "...", "-", "_", "\u2581", "(", "))\n"),
    *(
        "\u0301",
        " \u0301",
        "e\u0301",
        "é",
        "Größe",
        " привет",
        "мир ",
        "한국어 ",
        "텍스트",
        "東京",
        "タワー",
        "😀",
        "\u061c",
    ),
    *("</s>", " <s> ", "<|im start|>", "{eos}", "cat mat", "\u1680", "\u200b", "\x00", "ﬁ", "\u00b4", "İ"),
]
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=14).map("".join)
kinds = st.sampled_from(["instruction", "demonstration", "input", "output", "user", "assistant", "document"])


@st.composite
def prompts(draw: Any) -> Prompt:
    segments: list[tuple[str, str, bool]] = []
    for _ in range(draw(st.integers(0, 5))):
        trained = draw(st.booleans())
        if draw(st.integers(0, 3)) == 0:
            segments.append((draw(st.sampled_from(CONTROLS)), "control", trained))
            continue
        text = draw(texts)
        at = draw(st.integers(0, len(text)))
        segments += [(text[:at], draw(kinds), trained), (text[at:], draw(kinds), draw(st.booleans()))]
    return made(segments, draw(st.booleans()))


def made(segments: Sequence[tuple[str, str, bool]], joint: bool = True) -> Prompt:
    ends = np.cumsum([len(text.encode()) for text, _, _ in segments]).tolist()
    codes = [SEGMENT_KINDS.index(kind) for _, kind, _ in segments]
    return Prompt("".join(t for t, _, _ in segments), ends, codes, [t for _, _, t in segments], joint)


def check(tokenizer: TextTokenizer, given_prompts: list[Prompt]) -> None:
    for prompt, found in zip(given_prompts, encode(tokenizer, given_prompts), strict=True):
        expected, wide = plain(tokenizer, prompt)
        assert found.ids.tolist() == expected.ids.tolist(), prompt
        assert found.segment[wide].tolist() == expected.segment[wide].tolist(), prompt
        assert found.trained[wide].tolist() == expected.trained[wide].tolist(), prompt


@settings(max_examples=40, deadline=None)
@given(st.lists(prompts(), min_size=1, max_size=4))
def test_parts_give_the_ids_and_segments_of_the_whole(
    tokenizer: TextTokenizer, given_prompts: list[Prompt]
) -> None:
    check(tokenizer, given_prompts)


def test_the_corpus_in_parts(tokenizer: TextTokenizer) -> None:
    answers = [(" yes", "output", True), ("{eos}", "control", True)]
    shared = [
        made([(text, "instruction", False), (text[::-1], "input", False), *answers]) for text in CORPUS[:4]
    ]
    mid_word = [made([(text[:9], "input", False), (text[9:], "output", True)], False) for text in CORPUS[:4]]
    check(tokenizer, [*shared, *mid_word, made([])])
    if tokenizer.backend.token_to_id(SPACED) is not None:
        check(
            tokenizer, [made([("a b ", "input", False), (SPACED, "control", False), (" c", "output", True)])]
        )


# ------------------------------------------------------------------------------------------ what is shared


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder: Path = tmp_path_factory.mktemp("counting")
    (folder / "tokenizer.json").write_text(gpt2().to_str())
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return open_tokenizer(folder)


def test_what_prompts_share_is_encoded_once(counting: TextTokenizer) -> None:
    definition = "Definition: name the colour of the thing.\n\n"
    rows = Rows.of_prompts(
        [made([(definition, "instruction", False), (f"thing {n}", "input", False)]) for n in range(50)]
    )
    parts = cut(rows, counting.boundaries)
    encoder = Encoder(counting)
    encoder.encode(rows)
    assert len(parts.start_P) > 400
    assert len(encoder._words) == 6 + 50, (
        "words of the definition, and the numbers; where a segment ends is apart"
    )
    before = encoder._words
    assert encoder.encode(rows).ids_T.tolist() == Encoder(counting).encode(rows).ids_T.tolist()
    assert encoder._words.equals(before), "nothing is encoded again"


def test_segments_that_do_not_cover_their_text_are_refused() -> None:
    with pytest.raises(DamagedError, match="do not end where its text does"):
        Rows.of_prompts([Prompt("abc", [2], [0], [False])])


def test_alternatives_are_cut_outside_of_groups_and_classes() -> None:
    assert alternatives(r"(?i:'s|'t)|[|(\]]+|\||a") == [r"(?i:'s|'t)", r"[|(\]]+", r"\|", "a"]
    body = json.loads(llama3().to_str())
    body["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] += "|(?<=x)y"
    assert safe_boundaries(body) is None, "an alternative that is not known"
