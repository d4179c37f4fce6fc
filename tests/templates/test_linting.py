"""Lint: each rule finds its mistake in one template and nothing in a sound one, by text and over records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from taskmill.errors import DataError
from taskmill.templates.drawing.examples import Example
from taskmill.templates.linting.findings import RULES, Finding, by_rule
from taskmill.templates.linting.lint import lint_task, lint_texts
from taskmill.templates.linting.record_rules import words_of
from taskmill.templates.linting.subjects import (
    Subject,
    library_subject,
    read_library_file,
    upstream_subject,
)
from taskmill.templates.linting.text_rules import TextLint
from taskmill.templates.rendering.library import LibraryTemplate, load_library
from taskmill.templates.rendering.renderer import Renderer

ROWS = [
    {"premise": f"The {name} is on the table.", "hypothesis": "There is a table.", "label": label}
    for name, label in zip(["pan", "cup", "jug", "lid", "pot", "tin"], [0, 1, 2, 0, 1, 2], strict=True)
]
CHOICES = "yes ||| maybe ||| no"
SOUND = "{{ premise }} So: {{ hypothesis }} Yes, maybe or no? ||| {{ answer_choices[label] }}"
TASK: dict[str, Any] = {
    "task": "promptsource/pots",
    "style": "instance",
    "output_fields": ["label"],
    "metadata": "{}",
    "definition": None,
}


def upstream(body: str, choices: str | None = CHOICES, identity: str = "t1") -> Subject:
    """Return a PromptSource template."""
    row = {
        "template": identity,
        "name": f"name of {identity}",
        "body": body,
        "choices": choices,
        "reads": ["premise", "hypothesis", "label"],
        "keeps_task": True,
        "why": None,
        "task": TASK["task"],
    }
    return upstream_subject(row)


def library(body: str, reads: Sequence[str] = ("text",), shape: str = "text") -> Subject:
    """Return a template of the library's form."""
    return library_subject(LibraryTemplate("mine/one", "keywords", shape, body, tuple(reads)))


def tried(
    *subjects: Subject, rows: Sequence[dict[str, Any]] = ROWS, characters: int = 10_000, **task: Any
) -> list[Finding]:
    """Return the findings over records."""
    examples = [
        Example(f"promptsource/pots#{n}", None, n, json.dumps(row), (), None, b"")
        for n, row in enumerate(rows)
    ]
    return lint_task({**TASK, **task}, subjects, examples, Renderer(0, characters), TextLint())


def rules(findings: Sequence[Finding]) -> list[str]:
    """Return the rules that found something."""
    return [finding.rule for finding in findings]


# -------------------------------------------------------------------------------------------- by text


@pytest.mark.parametrize(
    ("subject", "rule", "line", "says"),
    [
        (upstream("a\n{% if %} ||| b"), "bad-syntax", 2, "Expected an expression"),
        (upstream("{{ premise ||| {{ label }}"), "bad-syntax", 1, ""),
        (upstream("a\n\n{{ premise.__class__ }} ||| b"), "refused", 3, "__class__"),
        (upstream("{% for i in range(10 ** 9) %}{% endfor %} ||| b"), "refused", 1, "1,000"),
        (upstream("a\n{{ premise | attr('x') }} ||| b"), "refused", 2, "attr"),
        (upstream("{{ premise | uppper }} ||| b"), "unknown-filter", 1, "did you mean 'upper'"),
        (upstream("{% if premise %}\n{{ premise | titel }}{% endif %} ||| b"), "unknown-filter", 2, "title"),
        (upstream("{{ 1 if premise is odder }} ||| b"), "unknown-filter", 1, "test"),
        (upstream(SOUND, "{{ premise.__class__ }} ||| b"), "refused", 1, "__class__"),
        (upstream("{{ premise }} {{ answer_choices[label] }}"), "missing-separator", None, "|||"),
        (upstream("{{ premise }} {# ||| #} {{ label }}"), "missing-separator", None, "|||"),
        (
            upstream("a\n||| {{ answer_choices[3] }}"),
            "choice-index",
            2,
            "3] of 3 answer choices: yes ||| maybe",
        ),
        (upstream("||| {{ answer_choices[-4] }}"), "choice-index", 1, "-4"),
        (upstream("one \ntwo\t\nthree ||| b"), "trailing-whitespace", 1, "and 1 more"),
        (upstream("{{ premise }} \ntwo ||| b"), "trailing-whitespace", 1, "end of the line"),
        (library("{{ text }} {{ txet }}"), "undeclared-field", 1, "'txet' - did you mean 'text'"),
        (library("a\n{{ other }}", ["text", "other"]), "unused-field", None, "'text'"),
        (library("{{ text }}\n ||| no"), "unwanted-separator", 2, "input alone"),
        (library("{{ text }} \nx"), "trailing-whitespace", 1, ""),
        (library("{{ text | nope }}"), "unknown-filter", 1, "nope"),
    ],
)
def test_a_mistake_in_the_text_is_found(subject: Subject, rule: str, line: int | None, says: str) -> None:
    found = TextLint().check(subject)
    assert rules(found) == [rule]
    assert found[0].line == line and says in found[0].message
    assert found[0].severity == RULES[rule].severity


@pytest.mark.parametrize(
    "subject",
    [
        upstream(SOUND),
        upstream("{% if label != -1 %}{{ premise }} ||| {{ answer_choices[label] }}{% endif %}"),
        upstream("{{ premise }} \n|||\n{{ answer_choices[2] }} \n"),
        upstream("{{ premise }} ||| {{ answer_choices[-1] }}"),
        upstream("{{ premise }} ||| {{ answer_choices[9] }}", "{{ premise }} ||| b"),
        upstream('{{ [premise, hypothesis] | join(" ||| ") }}'),
        upstream("{{ premise | most_frequent | choice }} ||| {{ [1] | random }}"),
        library("{{ text }}{% if options and not listed %} {{ options | join }}{% endif %}\n"),
    ],
)
def test_a_sound_text_has_no_findings(subject: Subject) -> None:
    assert TextLint().check(subject, ["label"]) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{{ label }} {{ premise }} ||| b", "prints 'label'"),
        ("{{ ['a', 'b'][label] }} ||| b", "prints 'label'"),
        ("{{ answer_choices[label] }} ||| b", "prints 'label'"),
        ("{% set x = label %}{{ x }} ||| b", "prints 'label'"),
        ("{% if label == 1 %}True{% else %}False{% endif %} {{ premise }} ||| b", "depends on 'label'"),
        ("{{ answers.text[0] }} ||| b", "prints 'answers.text'"),
        ("{{ answers['text'] }} ||| b", "prints 'answers.text'"),
        ("{{ answers }} ||| b", "prints 'answers'"),
        ("{% for one in answers.text %}{{ one }}{% endfor %} ||| b", "prints 'answers.text'"),
    ],
)
def test_an_input_that_shows_the_answer_is_found(body: str, says: str) -> None:
    found = TextLint().check(upstream(body), ["label", "answers.text"])
    assert rules(found) == ["answer-shown"] and says in found[0].message


@pytest.mark.parametrize(
    "body",
    [
        "{{ premise }} ||| {{ label }}",
        "{% if label == 1 %}{{ premise }} ||| a{% else %}{{ hypothesis }} ||| b{% endif %}",
        "{{ answers.start }} ||| {{ answers.text }}",
        "{{ answers.text | length }} ||| {{ answers.text }}",
        "{{ 'a' if answers.text is defined }}{{ premise }} ||| b",
        "{% set all = [] %}{% for l in answers.text %}{{ all.append(l) | default('', True) }}{% endfor %}x ||| b",
        "{% for label in premise %}{{ label }}{% endfor %} ||| b",
        "{% macro show(x) %}{{ label }}{% endmacro %}{{ premise }} ||| b",
    ],
)
def test_an_input_that_keeps_the_answer_is_left_alone(body: str) -> None:
    assert TextLint().check(upstream(body), ["label", "answers.text"]) == []


def test_duplicates_are_named_with_the_first() -> None:
    subjects = [
        upstream(SOUND),
        upstream(SOUND.replace(" ", "\n"), identity="t2"),
        upstream(SOUND, "a ||| b", "t3"),
    ]
    (found,) = [finding for finding in lint_texts(subjects) if finding.rule == "duplicate-template"]
    assert found.subject.id == "t2" and "name of t1" in found.message


# ---------------------------------------------------------------------------------------- over records


@pytest.mark.parametrize(
    ("body", "choices", "rule", "says"),
    [
        ("{{ premise }} ||| {{ nothing }}", None, "never-renders", "none of 6 records"),
        ("{{ premise + label }} ||| x", None, "never-renders", "TypeError"),
        ("{{ premise }} ||| {{ ['a', 'b'][label] }}", None, "empty-renders", "2 of 6 records"),
        (
            "{{ premise }} {{ 1 / label if label < 1 else '' }} ||| b",
            None,
            "render-errors",
            "ZeroDivisionError",
        ),
        ("{{ premise }}{% if label %}{{ hypothesis * 50 }}{% endif %} ||| b", None, "too-long", "4 of 6"),
        ("{{ premise }} ||| b ||| {{ label }}", None, "more-parts", "6 of 6"),
        ("{{ premise }} ||| {{ ['yes', 'or', 'no'][label] }}", CHOICES, "answer-not-an-option", "2 of 6"),
        (
            "{{ premise }} ||| {{ answer_choices[label] }}",
            "a ||| b",
            "choice-index",
            "answer_choices[2], of 2",
        ),
    ],
)
def test_a_mistake_on_records_is_found(body: str, choices: str | None, rule: str, says: str) -> None:
    found = [f for f in tried(upstream(body, choices), characters=600) if f.rule == rule]
    assert len(found) == 1 and says in found[0].message
    assert found[0].task == TASK["task"] and found[0].share is not None


def test_sound_templates_have_no_findings_on_records() -> None:
    conditional = "{% if label != 1 %}{{ premise }} ||| {{ answer_choices[label] }}{% endif %}"
    assert tried(upstream(SOUND), upstream(conditional, identity="t2")) == []


def test_an_index_of_minus_one_takes_the_last_choice_unnoticed() -> None:
    rows = [*ROWS, {**ROWS[0], "label": -1, "other": "x"}]
    found = tried(upstream(SOUND), rows=rows, output_fields=[])
    assert rules(found) == ["choice-index"] and "takes the last one" in found[0].message


def test_a_field_that_no_record_has_is_found() -> None:
    found = tried(upstream("{{ premise }} {{ contxt }} ||| {{ answer_choices[label] }}"))
    assert rules(found) == ["missing-field"] and "'contxt'" in found[0].message


def test_an_answer_in_the_input_that_is_not_the_record_s_own_is_found() -> None:
    rows = [
        {"text": f"Word {n}.", "topic": name, "hint": {"of": name}}
        for n, name in enumerate(["sea", "sky", "sun"])
    ]
    leaks = upstream("{{ text }} About {{ hint.of }}? ||| {{ topic }}", None)
    assert tried(leaks, rows=rows, output_fields=["topic"]) == [
        f for f in tried(leaks, rows=rows, output_fields=["topic"]) if f.rule == "missing-field"
    ], "the hint is a field of the record's input"
    found = [f for f in tried(leaks, rows=rows, output_fields=["topic", "hint"]) if f.rule == "answer-shown"]
    assert len(found) == 1 and "prints 'hint.of'" in found[0].message


def test_an_answer_computed_into_the_input_is_found_by_its_records() -> None:
    rows = [{"text": f"Word {n}.", "topic": name} for n, name in enumerate(["sea", "sky", "sun"])]
    body = "{% macro show() %}{{ topic }}{% endmacro %}{{ text }} About {{ show() }}? ||| {{ topic }}"
    found = [
        f for f in tried(upstream(body, None), rows=rows, output_fields=["topic"]) if f.rule == "answer-shown"
    ]
    assert len(found) == 1 and "3 of 3 records: the input holds the answer 'sea'" in found[0].message


def test_a_text_that_states_every_answer_is_found_and_a_list_of_all_options_is_not() -> None:
    stated = upstream("{{ premise }} The answer is: certainly. ||| certainly", None)
    assert [f.message for f in tried(stated)] == [
        "the template's own text states the answer of all 6 records"
    ]
    assert tried(upstream("{{ premise }} Yes, no, maybe? ||| {{ answer_choices[label] }}")) == []


def test_templates_of_the_library_are_tried_on_the_records_of_their_style() -> None:
    task = {"style": "keywords", "metadata": '{"shape": "text"}', "output_fields": ["label"]}
    rows = [{"text": "one", "label": "a"}, {"text": "  ", "label": "b"}]
    examples = [
        Example(f"k#{n}", None, n, json.dumps(r), (r["label"],), None, b"") for n, r in enumerate(rows)
    ]
    subjects = [library_subject(t) for t in load_library().values()]
    found = lint_task({**TASK, **task}, subjects, examples, Renderer(0, 1000), TextLint())
    assert {f.subject.id for f in found} <= {"keywords/text-1", "keywords/text-2"}
    assert "empty-renders" in rules(found)
    assert [f.share for f in found if f.rule == "empty-renders"] == [0.5] * rules(found).count(
        "empty-renders"
    )


def test_broken_templates_are_left_out_of_rendering() -> None:
    found = tried(upstream("{{ premise.__class__ }} ||| b"), upstream(SOUND, identity="t2"))
    assert rules(found) == ["refused"]
    assert rules(tried(upstream("{% if %}"))) == ["bad-syntax"]


def test_what_follows_from_a_missing_separator_is_not_named_beside_it() -> None:
    assert rules(tried(upstream("{{ premise }} {{ answer_choices[label] }}"))) == ["missing-separator"]


def test_a_condition_that_few_records_meet_is_no_mistake() -> None:
    rare = upstream("{% if label == 7 %}{{ premise }} ||| b{% endif %}", None)
    assert tried(rare) == []
    assert rules(tried(rare, rows=ROWS * 2)) == ["never-renders"]


def test_so_many_records_are_rendered_as_asked_for() -> None:
    examples = [Example(f"p#{n}", None, n, json.dumps(ROWS[n]), (), None, b"") for n in range(6)]
    subject = upstream("{{ nothing }} ||| b")
    (found,) = [
        f
        for f in lint_task(TASK, [subject], examples, Renderer(0, 100), TextLint(), count=2)
        if f.rule == "never-renders"
    ]
    assert "none of 2 records" in found.message


# ---------------------------------------------------------------------------------- files and the library


def test_the_library_has_no_findings() -> None:
    assert lint_texts([library_subject(template) for template in load_library().values()]) == []


def test_entries_of_a_file_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "- {id: a, style: keywords, shape: text, reads: [text], body: '{{ text }}'}\n"
        "- {id: b, style: keywords, shape: texd, reads: [text], body: '{{ text }}'}\n"
        "- {id: a, style: keywords, shape: text, reads: [text], body: '{{ text }}'}\n"
        "- just text\n",
        encoding="utf-8",
    )
    found, wrong = read_library_file(path)
    assert [(subject.id, subject.file_line) for subject in found] == [("mine/a", 1)]
    assert [(subject.id, subject.file_line) for subject, _ in wrong] == [("b", 2), ("a", 3), ("entry 3", 4)]
    assert "did you mean 'text'" in wrong[0][1] and "line 1 already" in wrong[1][1]


@pytest.mark.parametrize("text", ["a: [", "just text", "[]", "!!python/object:os.system {}"])
def test_a_file_that_is_none_of_templates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.yaml"):
        read_library_file(tmp_path / "x.yaml")


def test_findings_are_counted_by_rule_in_the_order_of_the_rules() -> None:
    found = [*TextLint().check(library("{{ txet }}")), *TextLint().check(library("{{ text }} \nx"))]
    assert by_rule(found) == {"undeclared-field": 1, "unused-field": 1, "trailing-whitespace": 1}
    body = found[0].to_json()
    assert body["severity"] == "error" and body["template"] == "mine/one" and json.dumps(body)


def test_words_are_compared_without_case_or_space() -> None:
    assert words_of(["The  Sea."]) == " the sea . " and " sea " in words_of(["in the SEA!"])
