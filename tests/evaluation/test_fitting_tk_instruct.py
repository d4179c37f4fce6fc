"""Prompts in Tk-Instruct's encoding, fitted to the context: the last examples go first, then the right of the text."""

from __future__ import annotations

import pytest
from evaluation_run import CONTROL, DEMONSTRATION, INPUT, INSTRUCTION, OUTPUT, prompt_columns

from taskmill.evaluation.asking import fitting
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.rows import Prompt
from taskmill.training.encoding.tokenizer import TextTokenizer

POSITIVE = [" Positive Example 1 -\nthe cat sat.\n\n", " Positive Example 2 -\n" + "the mat " * 60 + "\n\n"]
NEGATIVE = [" Negative Example 1 -\nno cat.\n\n", " Negative Example 2 -\nno mat is good.\n\n"]
HEAD, ASKED = "Is this good?\n\n", "Now complete\nthe cat sat.\nOutput:"


def question(source: str = ASKED) -> fitting.Question:
    shown = [(text, DEMONSTRATION) for text in (*POSITIVE, *NEGATIVE)]
    pieces = [(HEAD, INSTRUCTION), *shown, (source, INPUT), (" yes", OUTPUT), ("{eos}", CONTROL)]
    return fitting.split_prompt(**prompt_columns(pieces), format="tk-instruct")


def num_tokens(tokenizer: TextTokenizer, text: str) -> int:
    return len(encode(tokenizer, [Prompt(text, [len(text.encode())], [INPUT], [False])])[0].ids)


@pytest.mark.parametrize(
    ("kept", "num_dropped"),
    [
        ([*POSITIVE, *NEGATIVE], 0),
        ([*POSITIVE, NEGATIVE[0]], 1),
        (POSITIVE, 2),
        ([POSITIVE[0], *NEGATIVE], 1),
        ([POSITIVE[0], NEGATIVE[0]], 2),
        (POSITIVE[:1], 3),
        ([], 4),
    ],
)
def test_examples_are_kept_while_they_fit(
    tokenizer: TextTokenizer, kept: list[str], num_dropped: int
) -> None:
    text = HEAD + "".join(kept) + ASKED
    context = fitting.Context(tokenizer, num_tokens(tokenizer, text + " yes"))
    [ranking] = fitting.fit_rankings(context, [question()], [["yes", "no"]])
    assert tokenizer.backend.decode(ranking.shared.tolist()) == text
    assert ranking.num_demonstrations == len(kept)
    assert context.counts == fitting.FitCounts(demonstrations_dropped=num_dropped)


def test_a_long_source_is_cut_on_the_right(tokenizer: TextTokenizer) -> None:
    source = "Now complete\n" + "the cat sat on a mat " * 30 + "\nOutput:"
    context = fitting.Context(tokenizer, 24)
    [opening] = fitting.fit_openings(context, [question(source)], 4)
    text = tokenizer.backend.decode(opening.ids.tolist())
    assert len(opening.ids) == 20 and (HEAD + source).startswith(text) and text.startswith(HEAD)
    [ranking] = fitting.fit_rankings(context, [question(source)], [["yes", "no no no"]])
    assert (HEAD + source).startswith(tokenizer.backend.decode(ranking.shared.tolist()))
    assert len(ranking.shared) + max(map(len, ranking.suffixes)) == 24
    assert context.counts.prefixes_cut == 2 and context.counts.demonstrations_dropped == 8


def test_shots_are_the_positive_examples_first(tokenizer: TextTokenizer) -> None:
    kept = fitting.keep_shots(question(), 2)
    assert [s.text for s in kept.prefix if s.kind == DEMONSTRATION] == POSITIVE
