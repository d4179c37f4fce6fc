"""Segments and schemas: byte ends, the delimiter rule, where demonstrations stand, what each style looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.records import SEGMENT_KINDS
from taskmill.templates.composing import tulu
from taskmill.templates.composing.schemas import (
    DELIMITERS,
    Rendered,
    Segment,
    Wording,
    closed_input,
    compose,
    describe_segments,
    dialogue_text,
    encode,
    reasoned,
)
from taskmill.templates.composing.segments import END
from taskmill.templates.drawing.demonstrations import Example
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import task_variants

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SEGMENTS = st.lists(st.builds(Segment, TEXT, st.sampled_from(SEGMENT_KINDS), st.booleans()), max_size=8)


@given(SEGMENTS)
def test_segments_survive_encoding(segments: list[Segment]) -> None:
    row = encode(segments)
    assert describe_segments(row) == [(s.kind, s.trained, s.text) for s in segments]
    assert row["ends"][-1:] == ([len(row["text"].encode())] if segments else [])


def test_ends_count_bytes() -> None:
    row = encode([Segment("Größe 東", "input"), Segment(" ½", "output", True)])
    assert row["ends"] == [11, 14]
    assert row["kinds"] == [SEGMENT_KINDS.index("input"), SEGMENT_KINDS.index("output")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("Is it?", "Is it?\nA:"), ("Is it? \n", "Is it?\nA:"), ("Label:", "Label:"), ("Label: \n", "Label:")],
)
def test_delimiter_only_where_no_colon_ends_the_input(source: str, expected: str) -> None:
    assert closed_input(source, Wording("\nA:")) == expected


def test_the_eight_delimiters() -> None:
    assert len(set(DELIMITERS)) == 8
    assert all(d[0] in "\n " and d.endswith(":") for d in DELIMITERS)
    assert {d.strip() for d in DELIMITERS} == {"Answer:", "A:", "Output:", "answer:", "output:"}


TARGET = Rendered("Do it.", "in", "out", ("out",))
SHOWN = [Rendered("Do it.", "one:", "1", ("1",)), Rendered("Do it.", "two", " 2 ", ("2",))]


def test_task_level_states_the_instruction_once() -> None:
    segments = compose("task", TARGET, SHOWN, Wording(" A:", "Task: ", "Input: "))
    assert segments == [
        Segment("Task: Do it.\n\n", "instruction"),
        Segment("Input: one: 1\n\n", "demonstration"),
        Segment("Input: two A: 2\n\n", "demonstration"),
        Segment("Input: in A:", "input"),
        Segment(" out", "output", True),
        Segment("{eos}", "control", True),
    ]


def test_instance_level_repeats_it_in_each_demonstration() -> None:
    segments = compose("keywords", TARGET, SHOWN, Wording(" A:"))
    assert segments == [
        Segment("Do it.\none: 1\n\n", "demonstration"),
        Segment("Do it.\ntwo A: 2\n\n", "demonstration"),
        Segment("Do it.\n", "instruction"),
        Segment("in A:", "input"),
        Segment(" out", "output", True),
        Segment("{eos}", "control", True),
    ]


def test_dropping_demonstrations_is_the_prompt_without_them() -> None:
    for style in ("task", "instance"):
        with_them = compose(style, TARGET, SHOWN, Wording("\nA:"))
        without = compose(style, TARGET, [], Wording("\nA:"))
        assert [s for s in with_them if s.kind != "demonstration"] == without


def test_document_is_not_changed() -> None:
    assert compose("document", Rendered("", "", " a\n", ()), [], Wording(" A:")) == [
        Segment(" a\n", "document", True),
        Segment("{eos}", "control", True),
    ]


# ------------------------------------------------------------------------------------ COPA (OPT-IML table 2)

COPA = {
    "premise": "The jar slipped from the shelf.",
    "question": "effect",
    "first": "It broke on the floor.",
    "second": "It filled with honey.",
}
COPA_ANSWERS = (COPA["first"], COPA["second"])


def task_row(style: str, **facts: Any) -> dict[str, Any]:
    row = {"task": "made/task", "style": style, "definition": None, "metadata": "{}", "output_fields": []}
    return {**row, **facts}


def copa_prompt(
    facts: dict[str, Any],
    fields: dict[str, str],
    answers: tuple[str, ...],
    wording: Wording,
    templates: tuple[dict[str, Any], ...] = (),
) -> list[Segment]:
    """Compose the one prompt of an example in the first of its task's variants."""
    row = task_row(**facts)
    example = Example(
        "copa#1", "train", 1, json.dumps(fields), answers[:1], answers[1:] or None, b"", "train"
    )
    [variant] = task_variants(row, templates, Renderer(0, 10_000)).variants[:1]
    rendered = variant.render(example)
    assert isinstance(rendered, Rendered), rendered
    segments = compose(row["style"], rendered, [], wording)
    if not facts.get("definition") or row["style"] == "task":
        page = (Path(__file__).parents[2] / "docs/schemas.md").read_text(encoding="utf-8")
        assert "```text\n" + "".join(segment.text for segment in segments[:-1]) + "\n```" in page
    return segments


def test_copa_as_super_natural_instructions_asks_it() -> None:
    facts = {
        "style": "task",
        "definition": 'Say which of two sentences follows from the first. Answer with "1" or "2".',
    }
    text = "{premise} (1) {first} (2) {second}".format(**COPA)
    segments = copa_prompt(facts, {"input": text}, ("1",), Wording("\nOutput:", "Instructions: ", "Input: "))
    assert segments == [
        Segment(
            'Instructions: Say which of two sentences follows from the first. Answer with "1" or "2".\n\n',
            "instruction",
        ),
        Segment(
            "Input: The jar slipped from the shelf. (1) It broke on the floor. (2) It filled with honey.\nOutput:",
            "input",
        ),
        Segment(" 1", "output", True),
        END,
    ]


def test_copa_as_promptsource_asks_it() -> None:
    body = (
        "Pick what is likelier.\n\n{{ premise }} {% if question == 'cause' %}as{% else %}so{% endif %}...\n"
        "{% for choice in answer_choices %}- {{ choice }}\n{% endfor %}|||{{ answer_choices[label] }}"
    )
    segments = copa_prompt(
        {"style": "instance"},
        {**COPA, "label": 0},
        COPA_ANSWERS[:1],
        Wording(" Answer:"),
        (
            {
                "template": "t1",
                "body": body,
                "choices": "{{first}}|||{{second}}",
                "keeps_task": True,
                "why": None,
            },
        ),
    )
    assert segments == [
        Segment(
            "Pick what is likelier.\n\nThe jar slipped from the shelf. so...\n"
            "- It broke on the floor.\n- It filled with honey. Answer:",
            "input",
        ),
        Segment(" It broke on the floor.", "output", True),
        END,
    ]


def test_copa_as_flan_asks_it() -> None:
    inputs = "{premise} What does this lead to?\n\nOPTIONS:\n- {first}\n- {second}".format(**COPA)
    segments = copa_prompt(
        {"style": "instance"}, {"inputs": inputs}, (COPA["first"], *COPA_ANSWERS), Wording("\nA:")
    )
    assert segments == [
        Segment(f"{inputs}\nA:", "input"),
        Segment(" It broke on the floor.", "output", True),
        END,
    ]


def test_copa_as_crossfit_asks_it_has_no_instruction_unless_one_is_written() -> None:
    text = "{premise} (A) {first} (B) {second}".format(**COPA)
    answers = (COPA["first"], *COPA_ANSWERS)
    facts = {"style": "keywords", "metadata": '{"shape": "text"}', "definition": None}
    without = copa_prompt(dict(facts), {"text": text}, answers, Wording(" output:"))
    assert without == [
        Segment(
            "The jar slipped from the shelf. (A) It broke on the floor. (B) It filled with honey. output:",
            "input",
        ),
        Segment(" It broke on the floor.", "output", True),
        END,
    ]
    facts["definition"] = "Choose what follows."
    written = copa_prompt(facts, {"text": text}, answers, Wording(" output:"))
    assert written == [Segment("Choose what follows.\n", "instruction"), *without]


# --------------------------------------------------------------------------------------------- other styles


def test_reasoning_states_one_instruction_and_learns_rationale_and_answer() -> None:
    row = task_row("reasoning")
    fields = json.dumps({"question": "What is 2 + 3 - 1?", "rationale": "2 + 3 is 5, less 1 is 4."})
    example = Example("sums#1", "train", 1, fields, ("4",), None, b"", "train")
    [variant] = task_variants(row, [], Renderer(0, 1000)).variants
    rendered = variant.render(example)
    assert isinstance(rendered, Rendered)
    segments = compose("reasoning", rendered, [rendered], Wording("\nA:"))
    assert [s.kind for s in segments] == ["instruction", "demonstration", "input", "output", "control"]
    assert "step" in segments[0].text and segments[0].text.endswith(".\n\n")
    assert segments[2].text == "What is 2 + 3 - 1?\nA:"
    assert segments[3].text == " 2 + 3 is 5, less 1 is 4. The answer is 4."


@pytest.mark.parametrize(
    ("rationale", "answer", "target"),
    [
        (" So it is 4. ", "4", "So it is 4. The answer is 4."),
        ("So it is no.", "no.", "So it is no. The answer is no."),
        ("", "4", "The answer is 4."),
    ],
)
def test_reasoned(rationale: str, answer: str, target: str) -> None:
    assert reasoned(rationale, answer) == target


def test_dialogue_is_its_turns_joined_by_newlines_and_all_of_it_is_learned() -> None:
    fields = {"turns": [{"user": "Hello.\n"}, {"assistant": "Hi!"}, {"user": " "}, {"user": "Bye."}]}
    text = dialogue_text(fields)
    assert text == "Hello.\nHi!\nBye."
    assert dialogue_text({**fields, "context": ["I am a cat."]}) == "I am a cat.\n" + text
    assert dialogue_text({**fields, "context": "I am a dog. "}) == "I am a dog.\n" + text
    assert compose("dialogue", Rendered("", "", text, ()), [], Wording(" A:")) == [
        Segment(text, "document", True),
        Segment("{eos}", "control", True),
    ]


def test_negative_examples_and_explanations_are_labelled() -> None:
    good = SHOWN[0]._replace(example_kind="positive", explanation=" It counts. ")
    bad = SHOWN[1]._replace(example_kind="negative")
    wording = Wording("\nOutput:", "", "Input: ")
    shown = [s.text for s in compose("task", TARGET, [good, bad], wording, explanations=True)[1:3]]
    assert shown == [
        "Positive example\nInput: one: 1\nExplanation: It counts.\n\n",
        "Negative example\nInput: two\nOutput: 2\n\n",
    ]
    assert compose("task", TARGET, [good], wording)[1].text == "Input: one: 1\n\n"
    assert (
        compose("instance", TARGET, [good], wording, explanations=True)[0].text == "Do it.\nInput: one: 1\n\n"
    )


# -------------------------------------------------------------------------------------------- the delimiter

STYLES = st.sampled_from(["task", "instance", "keywords", "reasoning"])


@given(STYLES, TEXT, TEXT, st.sampled_from(DELIMITERS), st.sampled_from(["", "Input: "]), st.integers(0, 2))
def test_the_instructions_end_in_a_colon_and_in_no_delimiter_they_do_not_need(
    style: str, instruction: str, source: str, delimiter: str, prefix: str, k: int
) -> None:
    shown = [Rendered(instruction, f"{source}{i}", "x", ("x",)) for i in range(k)]
    given_text = Rendered(instruction, source, "out", ("out",))
    segments = compose(style, given_text, shown, Wording(delimiter, "", prefix))
    assert segments[-2:] == [Segment(" out", "output", True), END]
    text = "".join(segment.text for segment in segments[:-2])
    assert text.endswith(":")
    asked = source if source.strip() else instruction
    if asked.rstrip().endswith(":") and (source.strip() or not k):
        assert text.endswith(asked.rstrip())


def test_an_instruction_without_input_is_what_the_delimiter_closes() -> None:
    poem = Rendered("Write a poem.", " ", "Roses", ("Roses",))
    wording = Wording("\nAnswer:", "Task: ", "Input: ")
    assert compose("task", poem, [], wording)[0] == Segment("Task: Write a poem.\nAnswer:", "input")
    assert compose("task", poem._replace(instruction="Poem:"), [], wording)[0].text == "Task: Poem:"
    with_shown = compose("task", poem, [poem], wording)
    assert [s.text for s in with_shown][0::2] == ["Task: Write a poem.\n\n", "Answer:", "{eos}"]


# ------------------------------------------------------------------------------------------- TÜLU's encoding


def test_tulu_few_shot_is_blocks_behind_the_definition() -> None:
    assert compose("task", TARGET, SHOWN, Wording("unused"), encoding="tulu") == [
        Segment("Do it.\n\n", "instruction"),
        Segment("Input:\none:\nOutput:\n1\n\n", "demonstration"),
        Segment("Input:\ntwo\nOutput:\n2\n\n", "demonstration"),
        Segment("Input:\nin\nOutput:\n", "input"),
        Segment("out", "output", True),
        END,
    ]


@pytest.mark.parametrize(
    ("source", "asked", "answer"),
    [
        ("Do it.\n\nin\n\n", "Do it.\n\nin\n\n", "out"),
        ("Do it.\nInput: in\nOutput:", "Do it.\nInput: in\nOutput:", " out"),
        ("Is it? Answer: ", "Is it? Answer:", " out"),
        ("Is it?", "Is it?\n", "out"),
        ("Is it:\t", "Is it:\t", " out"),
    ],
)
def test_tulu_prompt_that_is_rendered_already_ends_in_newline_or_colon(
    source: str, asked: str, answer: str
) -> None:
    for style in ("task", "instance"):
        segments = compose(style, Rendered("", source, " out\n", ()), [], Wording("unused"), encoding="tulu")
        assert segments == [Segment(asked, "input"), Segment(answer, "output", True), END]


def test_tulu_shows_demonstrations_of_rendered_prompts_before_them() -> None:
    one = Rendered("", "Is it?", "yes", ())
    segments = compose("instance", one, [one], Wording("unused"), encoding="tulu")
    assert segments[0] == Segment("Is it?\nyes\n\n", "demonstration")
    assert [s.kind for s in segments] == ["demonstration", "input", "output", "control"]


def test_tulu_shows_demonstrations_in_one_prompt_of_four() -> None:
    drawn = [tulu.num_demonstrations(3, str(i), 2) for i in range(20_000)]
    assert set(drawn) == {0, 2} and abs(drawn.count(2) / len(drawn) - 0.25) < 0.012
