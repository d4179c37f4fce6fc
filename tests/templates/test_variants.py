"""Which variants a task has, and what counts as an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from render_run import task

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.drawing.examples import Example
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import is_labelled, task_variants


def example(
    fields: dict[str, Any], references: tuple[str, ...] = (), options: tuple[str, ...] | None = None
) -> Example:
    return Example("t#1", None, 1, json.dumps(fields), references, options, b"")


@pytest.mark.parametrize(
    ("fields", "output_fields", "labelled"),
    [
        ({"label": -1}, ["label"], False),
        ({"label": None}, ["label"], False),
        ({}, ["label"], False),
        ({"label": ""}, ["label"], False),
        ({"label": 0}, ["label"], True),
        ({"label": False}, ["label"], True),
        ({"label": "-1"}, ["label"], True),
        ({"label": -1, "why": "so"}, ["label", "why"], True),
        ({"answers": {"text": []}}, ["answers.text"], False),
        ({"answers": {"text": ["x"]}}, ["answers.text"], True),
        ({"questions": [{"label": 1}, {"label": -1}]}, ["questions.label"], True),
        ({"questions": [{"label": -1}]}, ["questions.label"], False),
        ({"label": -1}, [], True),
    ],
)
def test_is_labelled(fields: dict[str, Any], output_fields: list[str], labelled: bool) -> None:
    assert is_labelled((), json.dumps(fields), output_fields) == labelled
    assert is_labelled(("known",), json.dumps(fields), output_fields)


def only(task_row: dict[str, Any], number: int, given: Example) -> Rendered | Drop:
    return task_variants(task_row, [], Renderer(0, 1000)).variants[number].render(given)


def test_options_are_listed_unless_the_text_has_them() -> None:
    row = task("crossfit/x", "keywords", "s", metadata='{"shape": "text"}', definition="Pick.")
    plain = only(row, 0, example({"text": "Which colour?"}, ("red",), ("red", "blue")))
    assert isinstance(plain, Rendered)
    assert plain.source == "Which colour?\n\nOptions:\n- red\n- blue"
    there = only(row, 0, example({"text": "Which? (A) red (B) blue"}, ("red",), ("red", "blue")))
    assert isinstance(there, Rendered) and there.source == "Which? (A) red (B) blue"


def test_question_context_and_text_of_structures_may_be_missing() -> None:
    row = task("t5/x", "keywords", "s", metadata='{"shape": "question"}')
    assert only(row, 0, example({"question": "Why?"}, ("so",))) == Rendered(
        "", "Question: Why?", "so", ("so",)
    )
    row = task("skg/x", "keywords", "s", metadata='{"shape": "structured"}')
    found = only(row, 1, example({"struct": {"a": 1}, "text": ""}, ("so",)))
    assert isinstance(found, Rendered) and found.source == 'Structure: {"a": 1}'


def test_missing_field_and_empty_input_are_dropped() -> None:
    row = task("flan/x", "instance", "s")
    missing = only(row, 0, example({"input": "x"}, ("so",)))
    assert isinstance(missing, Drop) and missing.reason == "render_error" and "inputs" in missing.detail
    assert only(row, 0, example({"inputs": " \n"}, ("so",))) == Drop("empty", "the input is empty")


def test_all_references_are_kept_and_the_first_is_the_target() -> None:
    row = task("sni/x", "task", "s", definition="Do.")
    found = only(row, 0, example({"input": "a"}, ("p", " ", "q")))
    assert found == Rendered("Do.", "a", "p", ("p", "q"))


def test_answer_sentence_ends_in_one_full_stop() -> None:
    row = task("cot/x", "reasoning", "s")
    found = only(row, 0, example({"question": "q", "rationale": "r."}, ("Yes.",)))
    assert isinstance(found, Rendered) and found.target == "r. The answer is Yes."
