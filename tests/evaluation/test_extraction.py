"""Which part of a generated text is the answer."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.evaluation.metrics.extraction import EXTRACTIONS

CASES = {
    "whole": [("  a\nb ", "a\nb"), ("", "")],
    "first_line": [("\n  a b \nc", "a b"), (" \n\t", ""), ("one", "one")],
    "after_answer": [
        ("43 - 11 = 32. The answer is 32.", "32"),
        ("The answer is 5? No. The answer is (C).", "(C)"),
        ("So the answer is: **Paris**.", "Paris"),
        ("Answer: yes\nand more", "yes"),
        ("16 - 3 = 13\n#### 1,234", "1,234"),
        ("The answer is\n\n 7 apples.\n\nQ: What?", "7 apples"),
        ("The final answer is 3.14.", "3.14"),
        ("The correct option is D.", "D"),
        ("answers: none", "answers: none"),
        ("thirty two.", "thirty two"),
        ("", ""),
    ],
    "last_number": [
        ("so 3 x $350 = $1,050.00.", "1050.00"),
        ("x = -5", "-5"),
        ("10-5", "5"),
        ("pages 3-7", "7"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("(\u22123)", "-3"),
        ("7 - -2", "-2"),
        ("50%", "50"),
        ("3/4 of it", "3/4"),
        ("on 2020/05/01", "01"),
        ("1, 2,3", "3"),
        ("12,34", "34"),
        ("1,234,567", "1234567"),
        ("about .25", ".25"),
        ("5 apples and 3.", "3"),
        ("none", ""),
    ],
    "letter": [
        ("(A)", "A"),
        ("A.", "A"),
        ("B) cat", "B"),
        ("C: because it is", "C"),
        ("b", "B"),
        ("[E]", "E"),
        ("**B**", "B"),
        ("B\nbecause", "B"),
        ("option B", "B"),
        ("It is late. The answer is (c).", "C"),
        ("The answer is B because it is", "B"),
        ("The correct option is D.", "D"),
        ("A dog barks.", "A dog barks"),
        ("I think so", "I think so"),
        ("(A) is wrong. The answer is (B)", "B"),
    ],
    "code": [
        ("    return x\n", "    return x"),
        ("return x", "return x"),
        ("for i in x:\n        y\n    return 1\n\nThis works.", "for i in x:\n        y\n    return 1"),
        ("return 1\ndef other():\n    pass", "return 1"),
        (
            "def f(x):\n    return x\n\nX = f(1)\n\nThis works.\n\ndef g(:",
            "def f(x):\n    return x\n\nX = f(1)",
        ),
        ("Sure!\n```python\ndef f():\n    pass\n```\nDone.", "def f():\n    pass"),
        ("```\ndef f():\n    pass\n```\nUse:\n```\nf()\n```", "def f():\n    pass"),
        ("```\n    x = 1\n    return x\n```", "    x = 1\n    return x"),
        ("```python\ndef f():\n    pass", "def f():\n    pass"),
        ("", ""),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "answer"), [(name, *case) for name in CASES for case in CASES[name]]
)
def test_answers(name: str, text: str, answer: str) -> None:
    assert EXTRACTIONS[name](text) == answer


def test_every_extraction_has_cases_and_a_place_in_the_recipe() -> None:
    from typing import get_args, get_type_hints

    from taskmill.recipe_evaluate import TaskScoring

    assert set(CASES) == set(EXTRACTIONS)
    known = {name for part in get_args(get_type_hints(TaskScoring)["extract"]) for name in get_args(part)}
    known |= {part for part in get_args(get_type_hints(TaskScoring)["extract"]) if isinstance(part, str)}
    assert known == set(EXTRACTIONS)


@given(st.sampled_from(sorted(EXTRACTIONS)), st.text())
def test_an_extraction_never_fails(name: str, text: str) -> None:
    EXTRACTIONS[name](text)


@given(
    st.sampled_from(sorted(EXTRACTIONS)), st.text("1,.$-/ A()`\n*defanswer is:#", min_size=50, max_size=400)
)
def test_an_extraction_of_odd_texts_never_fails(name: str, text: str) -> None:
    EXTRACTIONS[name](text)


def test_extractions_take_no_time_on_long_texts() -> None:
    import time

    started = time.monotonic()
    for function in EXTRACTIONS.values():
        for part in ("1", "1,", "$ ", "-", "(", "`", "```\n", "answer ", "A ", "\n", "x =", "def f\n", "#"):
            function(part * 20_000)
    assert time.monotonic() - started < 10


def test_after_answer_reads_what_the_reasoning_template_writes() -> None:
    from taskmill.templates.rendering import variants

    assert "The answer is" in inspect.getsource(variants._render_reasoning)
    assert EXTRACTIONS["after_answer"]("Because. The answer is 4.") == "4"
