"""Prompts as ids: shots, the context, the place where an answer begins."""

from __future__ import annotations

import pytest
from evaluation_run import CONTROL, DEMONSTRATION, INPUT, INSTRUCTION, OUTPUT, pieces_of, prompt_columns

from taskmill.errors import DataError
from taskmill.evaluation.asking import fitting
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.rows import Prompt
from taskmill.training.encoding.tokenizer import TextTokenizer


def question(pieces: list[tuple[str, int]]) -> fitting.Question:
    return fitting.split_prompt(**prompt_columns(pieces))


def ids_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    return encode(tokenizer, [Prompt(text, [len(text.encode())], [INPUT], [False])])[0].ids.tolist()


def prefix_text(asked: fitting.Question) -> str:
    return "".join(segment.text for segment in asked.prefix)


def test_the_answer_and_what_follows_are_not_in_the_prefix() -> None:
    asked = question(pieces_of("the café", "yes"))
    assert asked.answer == " yes"
    assert asked.lead == " "
    assert prefix_text(asked).endswith("the café\nAnswer:")


def test_a_prompt_without_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="has no answer"):
        question([("only input", INPUT)])


@pytest.mark.parametrize("shots", [0, 1, 2, 3, 7])
def test_k_shot_keeps_the_first_k_demonstrations(shots: int) -> None:
    kept = fitting.keep_shots(question(pieces_of("body", "yes", demonstrations=3)), shots)
    text = prefix_text(kept)
    assert [f"the mat {i} is" in text for i in range(3)] == [i < shots for i in range(3)]
    assert text.startswith("Is this good ?") and text.endswith("body\nAnswer:")


def test_demonstrations_leave_from_the_front_until_the_longest_option_fits(tokenizer: TextTokenizer) -> None:
    asked = question(pieces_of("body", "yes", demonstrations=3))
    without = [fitting.keep_shots(asked, 0)]
    need = len(ids_of(tokenizer, prefix_text(without[0]) + " maybe maybe"))
    one = len(ids_of(tokenizer, "the mat 2 is good. Answer: yes\n"))
    context = fitting.Context(tokenizer, need + one)
    [ranking] = fitting.fit_rankings(context, [asked], [["yes", "maybe maybe"]])
    expected = "Is this good ?\nthe mat 2 is good. Answer: yes\nbody\nAnswer:"
    assert ranking.shared.tolist() == ids_of(tokenizer, expected)
    assert context.counts.demonstrations_dropped == 2
    assert context.counts.prefixes_cut == 0


def test_a_prefix_that_cannot_fit_is_cut_on_the_left_and_counted(tokenizer: TextTokenizer) -> None:
    asked = question([("{bos}", CONTROL), ("cat " * 40, INPUT), (" yes", OUTPUT)])
    whole = [tokenizer.bos_id, *ids_of(tokenizer, "cat " * 40)]
    context = fitting.Context(tokenizer, 20)
    [opening] = fitting.fit_openings(context, [asked], 6)
    assert opening.ids.tolist() == [whole[0], *whole[-13:]]
    assert opening.max_new_tokens == 6
    [ranking] = fitting.fit_rankings(context, [asked], [["yes", "no no no"]])
    assert len(ranking.shared) + max(map(len, ranking.suffixes)) == 20
    assert ranking.shared[0] == tokenizer.bos_id
    assert context.counts.prefixes_cut == 2


def test_generation_keeps_at_most_half_of_the_context_free(tokenizer: TextTokenizer) -> None:
    short, long = question([("cat", INPUT), (" a", OUTPUT)]), question([("cat " * 40, INPUT), (" a", OUTPUT)])
    openings = fitting.fit_openings(fitting.Context(tokenizer, 20), [short, long], 256)
    assert [len(opening.ids) for opening in openings] == [1, 10]
    assert [opening.max_new_tokens for opening in openings] == [19, 10]


def test_options_are_the_tokens_that_start_in_the_answer(tokenizer: TextTokenizer) -> None:
    asked = question([("the cat is", INPUT), (" good", OUTPUT), ("{eos}", CONTROL)])
    options = ["good", "bad mat", "goodness"]
    [ranking] = fitting.fit_rankings(fitting.Context(tokenizer, 64), [asked], [options])
    for option, suffix, skip in zip(options, ranking.suffixes, ranking.skip):
        assert [*ranking.shared.tolist(), *suffix.tolist()] == ids_of(tokenizer, f"the cat is {option}")
        assert suffix[skip:].tolist() == ids_of(tokenizer, f" {option}")


def test_a_token_across_the_border_belongs_to_the_prefix(tokenizer: TextTokenizer) -> None:
    asked = question([("the ca", INPUT), ("t", OUTPUT)])
    joint = ids_of(tokenizer, "the cat")
    assert len(joint) == 2, "the test needs 'cat' to be one token"
    [ranking] = fitting.fit_rankings(fitting.Context(tokenizer, 64), [asked], [["t", "t sat"]])
    assert ranking.shared.tolist() == joint[:1]
    scored = [suffix[skip:].tolist() for suffix, skip in zip(ranking.suffixes, ranking.skip)]
    assert scored == [joint[1:], ids_of(tokenizer, " sat")]


def test_empty_prefix_and_empty_option(tokenizer: TextTokenizer) -> None:
    asked = question([("", INSTRUCTION), ("yes", OUTPUT)])
    [ranking] = fitting.fit_rankings(fitting.Context(tokenizer, 64), [asked], [["yes", ""]])
    assert ranking.shared.tolist() == [tokenizer.bos_id]
    assert [suffix.tolist() for suffix in ranking.suffixes] == [ids_of(tokenizer, "yes"), [tokenizer.eos_id]]


def test_without_demonstration_segments_shots_change_nothing() -> None:
    asked = question(pieces_of("x", "yes", demonstrations=0))
    assert fitting.keep_shots(asked, 5) == asked
    assert all(segment.kind != DEMONSTRATION for segment in asked.prefix)
