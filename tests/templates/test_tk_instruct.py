"""Tk-Instruct's encoding: blocks, full stops, which examples are shown, and what a short context keeps."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.curation.reader import SourceFolder
from taskmill.curation.sources import super_natural_instructions
from taskmill.recipe import Render, TkInstruct
from taskmill.templates.composing.segments import END, Segment, encode
from taskmill.templates.composing.tk_instruct import (
    FORMAT,
    MODES,
    TaskExample,
    compose_tk_instruct,
    draw_reference,
    first_examples,
    task_example,
)
from taskmill.training.encoding.fitting import TK_INSTRUCT, FitCounts, fit, tk_instruct_examples
from taskmill.training.encoding.rows import Encoded, Prompt

GOOD = TaskExample("positive", "a cat", "yes", "Cats count.")
OTHER = TaskExample("positive", "a stone?", "no!", "Stones do not")
BAD = TaskExample("negative", "a dog", "no", "Dogs count as well")


def test_every_block_stands_where_the_collator_puts_it() -> None:
    settings = TkInstruct(negative_examples=1, explanations=True, task_name=True)
    segments = compose_tk_instruct(
        " Is it alive \n", "a tree\n", " yes\n", [GOOD, OTHER, BAD], settings, "task001_alive"
    )
    assert segments == [
        Segment("task001_alive. Definition: Is it alive.\n\n", "instruction"),
        Segment(
            " Positive Example 1 -\nInput: a cat.\n Output: yes.\n Explanation: Cats count.\n\n",
            "demonstration",
        ),
        Segment(
            " Positive Example 2 -\nInput: a stone?\n Output: no!\n Explanation: Stones do not.\n\n",
            "demonstration",
        ),
        Segment(
            " Negative Example 1 -\nInput: a dog.\n Output: no.\n Explanation: Dogs count as well.\n\n",
            "demonstration",
        ),
        Segment("Now complete the following example -\nInput: a tree.\nOutput:", "input"),
        Segment("  yes\n", "output", True),
        END,
    ]


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        (MODES[0], ["instruction"]),
        (MODES[1], ["demonstration"] * 2),
        (MODES[2], ["instruction", "demonstration", "demonstration"]),
        (MODES[3], ["instruction", *["demonstration"] * 4]),
        (MODES[4], ["instruction", "demonstration", "demonstration"]),
    ],
)
def test_the_five_modes(mode: TkInstruct, kinds: list[str]) -> None:
    rows = [(f"t#{e.kind}-{n}", e._replace(input=f"{e.kind} {n}")) for e in (GOOD, BAD) for n in range(1, 12)]
    shown = first_examples(rows[::-1], mode)
    segments = compose_tk_instruct("Say.", "x", "y", [e for _, e in shown], mode)
    assert [s.kind for s in segments] == [*kinds, "input", "output", "control"]
    assert [name for name, _ in shown] == [
        f"t#{kind}-{n}"
        for kind, most in (("positive", mode.positive_examples), ("negative", mode.negative_examples))
        for n in range(1, most + 1)
    ]
    text = "".join(s.text for s in segments)
    assert ("Explanation: " in text) == mode.explanations and ("Definition: Say." in text) == mode.definition


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_full_stop_follows_what_ends_in_no_ascii_punctuation(text: str) -> None:
    [asked] = compose_tk_instruct("", text, "", [], TkInstruct(definition=False))[:1]
    body = asked.text.removeprefix("Now complete the following example -\nInput: ").removesuffix("\nOutput:")
    bare = text.strip()
    assert body == (bare if bare and bare[-1] in string.punctuation else bare + ".")


def test_an_example_without_explanation_or_output_still_has_its_block() -> None:
    empty = TaskExample("negative", "x", "")
    settings = TkInstruct(positive_examples=0, negative_examples=1, explanations=True, definition=False)
    assert compose_tk_instruct("", "y", "z", [empty], settings)[0].text == (
        " Negative Example 1 -\nInput: x.\n Output: .\n\n"
    )


def test_rows_become_examples_of_their_task() -> None:
    fields = {"input": "x", "explanation": "why", "example_kind": "negative"}
    assert task_example(fields, ["y"]) == TaskExample("negative", "x", "y", "why")
    assert task_example({"input": "x"}, []) == TaskExample("positive", "x", "")


def test_references_are_drawn_evenly() -> None:
    drawn = [draw_reference(5, str(i), ("a", "b", "c")) for i in range(9_000)]
    assert all(abs(drawn.count(one) / 9_000 - 1 / 3) < 0.02 for one in "abc")


def test_the_reader_names_a_task_s_examples_in_upstream_s_order(shared_data: Path) -> None:
    source = SourceFolder(shared_data / "super_natural_instructions", shared_data, {}, "stop")
    entry = super_natural_instructions.discover(source)[0]
    columns = super_natural_instructions.read(entry, source).columns
    own = [i for i, split in enumerate(columns.upstream_split) if split == "demonstration"]
    rows = [
        (f"{entry.name}#{columns.upstream_id[i]}", task_example(columns.fields[i], columns.references[i]))
        for i in own
    ]
    found = first_examples(sorted(rows, reverse=True), TkInstruct(99, 99))
    assert found == rows and all(example.output for _, example in rows)


# --------------------------------------------------------------------------------------------- short contexts


def test_both_sides_call_the_encoding_by_the_recipe_s_name() -> None:
    assert TK_INSTRUCT == FORMAT == Render(encoding=FORMAT).encoding


def encoded(segments: list[Segment]) -> tuple[Prompt, Encoded]:
    """Return a prompt with a token for each character."""
    row = encode(segments)
    number = np.concatenate([np.full(len(s.text), i) for i, s in enumerate(segments)]).astype(np.int32)
    trained = np.array([s.trained for s in segments])[number]
    return Prompt(**row), Encoded(np.arange(len(number), dtype=np.int32), trained, number)


LONG = BAD._replace(input="a dog " * 10)
SHOWN = [GOOD, LONG._replace(kind="positive"), BAD, LONG]
SEGMENTS = compose_tk_instruct("Is it alive?", "a tree", "yes", SHOWN, MODES[3])
LENGTH = [len(segment.text) for segment in SEGMENTS]


@pytest.mark.parametrize(
    ("kept", "spare"),
    [
        ([1, 2, 3, 4], 0),
        ([1, 2, 3], LENGTH[4] - 1),
        ([1, 2], LENGTH[3] - 1),
        ([1, 3], 0),
        ([1, 3], LENGTH[2] - LENGTH[3] - 1),
        ([1], LENGTH[3] - 1),
        ([], 0),
    ],
)
def test_examples_are_kept_while_they_fit_the_positive_ones_first(kept: list[int], spare: int) -> None:
    prompt, tokens = encoded(SEGMENTS)
    left = [0, *kept, 5, 6, 7]
    counts = FitCounts()
    [piece] = fit(
        tokens, prompt.kinds, sum(LENGTH[i] for i in left) + spare, counts, tk_instruct_examples(prompt)
    )
    assert sorted(set(piece.segment.tolist())) == left
    assert counts == FitCounts(demonstrations_dropped=int(len(kept) < 4))


def test_a_long_source_is_cut_on_the_right_and_the_answer_stays() -> None:
    segments = compose_tk_instruct("Is it alive?", "a tree " * 20, "yes", [GOOD], TkInstruct())
    prompt, tokens = encoded(segments)
    counts = FitCounts()
    [piece] = fit(tokens, prompt.kinds, 60, counts, tk_instruct_examples(prompt))
    text = "".join(prompt.text[i] for i in piece.ids)
    source = "".join(s.text for s in segments if s.kind in ("instruction", "input"))
    assert text == source[: 60 - len(" yes{eos}")] + " yes{eos}"
    assert counts == FitCounts(demonstrations_dropped=1, input_truncated=1)


def test_a_long_answer_leaves_the_source_half_of_the_context() -> None:
    segments = compose_tk_instruct("Is it alive?", "a tree " * 20, "yes " * 40, [], TkInstruct())
    prompt, tokens = encoded(segments)
    counts = FitCounts()
    [piece] = fit(tokens, prompt.kinds, 61, counts, tk_instruct_examples(prompt))
    assert len(piece.ids) == 61 and int(piece.trained.sum()) == 30 and not piece.trained[:31].any()
    assert (counts.input_truncated, counts.output_truncated) == (1, 1)
