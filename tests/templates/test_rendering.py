"""PromptSource's semantics, on hand-made templates and on the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from render_run import copa

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.rendering.renderer import Renderer

LIMIT = 100_000


def apply(body: str, row: dict[str, Any], choices: str | None = None, example: str = "e") -> Rendered | Drop:
    template = {"template": "t", "body": body, "choices": choices}
    return Renderer(0, LIMIT).promptsource(template, json.dumps(row), example)


def test_text_is_cut_at_the_bars_and_stripped() -> None:
    found = apply("  {{ a }}\n\n ||| \n{{ b }} \n", {"a": "x", "b": "y"})
    assert found == Rendered("", "x", "y", ("y",))


def test_third_part_is_left_out_and_noted() -> None:
    found = apply("a ||| b ||| c", {})
    assert found == Rendered("", "a", "b", ("b",), None, ("renders_with_more_parts",))


def test_bars_in_the_row_are_text() -> None:
    found = apply("{{ a }} {{ c.d[0] }} ||| {{ a }}", {"a": "p ||| q", "c": {"d": ["r ||| s"]}})
    assert isinstance(found, Rendered)
    assert (found.source, found.target) == ("p ||| q r ||| s", "p ||| q")


def test_undefined_names_render_empty() -> None:
    found = apply("a{{ nothing }}b{% for x in nowhere %}c{% endfor %} ||| d", {})
    assert isinstance(found, Rendered) and found.source == "ab"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a {{ b }}", "no_output"),
        ("{% if b %}a ||| c{% endif %}", "empty"),
        ("a ||| {{ b }}", "empty"),
        ("{{ b }} ||| c", "empty"),
        ("{{ b.c.d }} ||| e", "render_error"),
        ("{{ '1' + 1 }} ||| e", "render_error"),
    ],
)
def test_reasons(body: str, reason: str) -> None:
    found = apply(body, {})
    assert isinstance(found, Drop) and found.reason == reason


def test_reserved_field_is_refused() -> None:
    found = apply("a ||| b", {"answer_choices": "x"})
    assert isinstance(found, Drop) and found.reason == "render_error"


def test_choices_are_options_and_visible_in_the_template() -> None:
    found = apply("{{ answer_choices | join(', ') }}? ||| {{ answer_choices[n] }}", {"n": 1}, " no ||| yes ")
    assert found == Rendered("", "no, yes?", "yes", ("yes",), ("no", "yes"))


def test_options_without_the_answer_are_left_out() -> None:
    found = apply("a ||| maybe", {}, "no ||| yes")
    assert isinstance(found, Rendered)
    assert (found.options, found.notes) == (None, ("options_without_the_answer",))


def test_mutation_is_seen_by_its_own_render_only() -> None:
    renderer = Renderer(0, LIMIT)
    template = {
        "template": "t",
        "body": "{% set _ = xs.append('c') %}{{ xs|join }} ||| d",
        "choices": "{{ xs.pop() }} ||| d",
    }
    for _ in range(2):
        found = renderer.promptsource(template, '{"xs": ["a", "b"]}', "e")
        assert isinstance(found, Rendered) and found.source == "ac"


def test_choice_depends_on_the_example_alone() -> None:
    body = "{{ ['p', 'q', 'r', 's'] | choice }}{{ ['p', 'q', 'r', 's'] | random }} ||| x"
    renderer = Renderer(0, LIMIT)
    template = {"template": "t", "body": body, "choices": None}
    first = [renderer.promptsource(template, "{}", str(n)) for n in range(30)]
    assert [apply(body, {}, example=str(n)) for n in range(30)] == first
    assert len(set(first)) > 8


def test_most_frequent() -> None:
    found = apply(
        "{{ xs | most_frequent | join(' ') }} ||| {{ xs | most_frequent | choice }}",
        {"xs": ["b", "a", "b", "a", "c"]},
    )
    assert isinstance(found, Rendered)
    assert found.source == "b a" and found.target in "ba"


def test_compile_errors_say_where() -> None:
    assert (Renderer(0, LIMIT).check("a\n{% if %} ||| b", None) or "").startswith("line 2: ")
    assert Renderer(0, LIMIT).check("a ||| b", "{{ x }} ||| {% for %}") is not None
    assert Renderer(0, LIMIT).check("a ||| b", "{{ x }} ||| y") is None


# ------------------------------------------------------------------------------------ real templates


class TemplateLoader(yaml.SafeLoader):
    """Knows upstream's two tags as plain mappings."""


for tag in ("!Template", "!TemplateMetadata"):
    TemplateLoader.add_constructor(tag, lambda loader, node: loader.construct_mapping(node, deep=True))

PASSAGE = {"question": "is the sea salt", "passage": "Sea water | holds salt.\n\nIt tastes so.", "idx": 3}
ENTAILMENT = {"premise": "It rained all day.", "hypothesis": "The ground is wet", "idx": 1}
CODAH = {
    "id": 0,
    "question_category": 2,
    "question_propmt": "The baker",
    "candidate_answers": ["ate the oven.", "baked bread.", "flew off.", "melted."],
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "super_glue/boolq": [{**PASSAGE, "label": label} for label in (0, 1)],
    "super_glue/cb": [{**ENTAILMENT, "label": label} for label in (0, 1, 2)],
    "super_glue/rte": [{**ENTAILMENT, "label": label} for label in (0, 1)],
    "super_glue/copa": [{**copa(1), "question": question} for question in ("cause", "effect")],
    "codah/codah": [{**CODAH, "correct_answer_idx": label} for label in range(4)],
}


def real_templates(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "templates.yaml").read_text(encoding="utf-8")
    return list(yaml.load(text, TemplateLoader)["templates"].values())


@pytest.mark.parametrize("name", sorted(ROWS))
def test_real_templates_give_every_row_an_input_and_an_output(shared_data: Path, name: str) -> None:
    templates = real_templates(shared_data / "promptsource" / "templates" / name)
    assert len(templates) >= 4
    renderer, kept = Renderer(0, LIMIT), 0
    for template in templates:
        body, choices = template["jinja"], template["answer_choices"]
        assert renderer.check(body, choices) is None
        for row in ROWS[name]:
            found = renderer.promptsource(
                {"template": "t", "body": body, "choices": choices}, json.dumps(row), "e"
            )
            kept += isinstance(found, Rendered)
            assert isinstance(found, Rendered) or found.reason == "empty"
    assert kept >= len(templates)


def test_all_real_templates_compile(shared_data: Path) -> None:
    renderer, number = Renderer(0, LIMIT), 0
    for path in sorted((shared_data / "promptsource" / "templates").rglob("templates.yaml"))[:60]:
        for template in real_templates(path.parent):
            number += 1
            assert renderer.check(template["jinja"], template["answer_choices"]) is None, (
                path,
                template["name"],
            )
    assert number > 200
