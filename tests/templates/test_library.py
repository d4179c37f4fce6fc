"""The template library: every template renders, in every combination of what may be missing; entries are checked."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from render_run import example, rows_of, task, write_run
from render_run import render as render_run

from taskmill.errors import DataError, UsageError
from taskmill.recipe import Render as RenderSettings
from taskmill.shapes import SHAPES as KEYWORDS
from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.drawing.examples import Example
from taskmill.templates.rendering.bodies import body_problem
from taskmill.templates.rendering.library import (
    LIBRARY,
    OPTIONAL,
    SHAPES,
    STYLES,
    LibraryTemplate,
    library_digest,
    load_library,
    load_templates,
    templates_digest,
    unused,
)
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.rendering.variants import task_variants

LIMIT = 100_000
NAMES = sorted(load_library())
PUBLISHED = [0.2, 0.1, 0.1, *[0.05] * 10, 0.1]
"""Weights of the variants with an input and of those without, in the order of the published lists."""


def cases(template: LibraryTemplate) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield fields and options in every combination of what an example may lack."""
    assert template.shape is not None
    may = [f for shape, f in sorted(OPTIONAL) if shape == template.shape and f not in template.needs]
    for number in range(len(may) + 1):
        for missing in itertools.combinations(may, number):
            for options in ([], ["red", "blue"], [f"colour {n}" for n in range(30)]):
                given = {f: f"<{f}>" for f in SHAPES[template.shape] if f not in missing}
                yield given, options


def render(template: LibraryTemplate, fields: dict[str, Any], options: list[str]) -> Rendered:
    """Render an example of a task that has the template's shape."""
    metadata = json.dumps({"shape": template.shape})
    row = task("mine/x", template.style, "s", metadata=metadata, definition="Do it.")
    found = task_variants(row, [], Renderer(0, LIMIT))
    (variant,) = [one for one in found.variants if one.template == template.id]
    example = Example("mine/x#0", None, 0, json.dumps(fields), ("the answer",), tuple(options) or None, b"")
    made = variant.render(example)
    assert isinstance(made, Rendered), made
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_template_shows_all_fields_and_options_and_leaves_no_loose_space(name: str) -> None:
    template = load_library()[name]
    assert body_problem(template.body, template.reads) is None
    for fields, options in cases(template):
        made = render(template, fields, options)
        text = made.target if template.style == "document" else made.source
        if template.style in ("keywords", "reasoning"):
            assert all(option in text for option in options), text
        if template.style != "chat" or template.fits(fields):
            assert all(value in text for value in fields.values()), text
        assert not re.search(r"[ \t]\n|\n\n\n|None|  ", text), repr(text)
        assert text == text.strip() and "the answer" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_template_refuses_an_example_without_a_field_that_it_needs(name: str) -> None:
    template = load_library()[name]
    assert template.shape is not None
    optional = {field for shape, field in OPTIONAL if shape == template.shape}
    given: dict[str, Any] = {"options": [], "listed": False}
    given |= {field: None if field in optional else "x" for field in SHAPES[template.shape]}
    assert isinstance(Renderer(0, LIMIT).shipped(template, given, "e"), str)
    for field in template.reads:
        found = Renderer(0, LIMIT).shipped(template, {k: v for k, v in given.items() if k != field}, "e")
        assert isinstance(found, Drop) and found.reason == "render_error" and field in found.detail


def test_options_that_the_text_lists_are_not_repeated() -> None:
    for template in load_library().values():
        if template.style == "keywords":
            fields = dict.fromkeys(KEYWORDS[str(template.shape)].needs, "Which? (A) red (B) blue")
            made = render(template, fields, ["red", "blue"])
            assert made.source.count("red") == len(fields), made.source


def test_every_shape_of_keywords_tasks_has_two_templates_or_more() -> None:
    for shape in KEYWORDS:
        own = [t for t in load_library().values() if (t.style, t.shape) == ("keywords", shape)]
        assert len(own) >= 2 and len({t.body for t in own}) == len(own), shape
        assert all(t.draw == "pool" and t.keeps_task and not t.options for t in own)
    assert {t.shape for t in load_library().values()} == set(SHAPES)


def test_copa_is_shown_as_crossfit_and_flan_show_it() -> None:
    fields = {"premise": "The lantern fell.", "relation": "effect"}
    bodies = [load_library()[f"keywords/cause_effect-{n}"] for n in (1, 2)]
    first, second = (render(body, fields, ["The barn burnt.", "The cow slept."]) for body in bodies)
    assert first.source == "The lantern fell. (A) The barn burnt. (B) The cow slept.\nAsked for: effect"
    assert second.source.endswith("Options:\n- The barn burnt.\n- The cow slept.")


# ------------------------------------------------------------------------------------ instruction sets


def instruction_sets(with_input: bool) -> list[LibraryTemplate]:
    return [
        t
        for _, t in sorted(load_library().items())
        if t.shape == "instruction" and ("input" in t.reads) is with_input
    ]


@pytest.mark.parametrize("with_input", [True, False])
def test_fourteen_variants_with_the_published_weights(with_input: bool) -> None:
    half = instruction_sets(with_input)
    assert [t.weight for t in half] == PUBLISHED and sum(PUBLISHED) == pytest.approx(1)
    assert all(t.draw == "one" and t.style == "chat" for t in half)
    assert all(t.needs == (("input",) if with_input else ()) for t in half)


SHOWN = {
    True: [
        "I||X||", "I|X||", "I|X|", "I||Input: X||Output:", "I|Input: X|Output:", "I|X||Response:",
        "I||Additional Context:|X||Answer:", "Task: I|Input: X|Output:", "Task: I||X||", "Task: I||X||Answer:",
        "*||I||X||Answer:", "I||* -|Input: X|Output:", "Instruction: I||Input: X||",
        "*||### Instruction:|I||### Input:|X||### Response:",
    ],
    False: [
        "I||", "I|", "I", "I Output:", "I|Response:", "I||Answer:", "Task: I||", "Instruction: I|",
        "Instruction: I|Output:", "*||I||", "*||I|", "*: I|Answer:", "*|I|", "*||### Instruction:|I||### Response:",
    ],
}  # fmt: skip
"""The published shapes: | a newline, * a sentence of ours."""


@pytest.mark.parametrize("with_input", [True, False])
def test_variants_have_the_published_shapes(with_input: bool) -> None:
    values = {"instruction": "I", "input": "X", "options": [], "listed": False}
    for template, shape in zip(instruction_sets(with_input), SHOWN[with_input], strict=True):
        text = Renderer(0, LIMIT).shipped(template, values, "e")
        assert isinstance(text, str)
        pattern = re.escape(shape.replace("|", "\n")).replace(r"\*", r"[A-Z][^\n]{15,}")
        assert re.fullmatch(pattern, text), (template.id, text)


def test_an_example_fits_the_half_that_shows_what_it_has() -> None:
    both = [*instruction_sets(True), *instruction_sets(False)]
    for given in (
        {"instruction": "I", "input": "X"},
        {"instruction": "I"},
        {"instruction": "I", "input": " "},
    ):
        fitting = [t for t in both if t.fits(given)]
        assert fitting == instruction_sets("X" in given.values())


# ------------------------------------------------------------------------------------------- entries

SOUND = {"id": "a", "style": "keywords", "shape": "text", "reads": ["text"], "body": "{{ text }}"}


def load(folder: Path, *entries: Any) -> dict[str, LibraryTemplate]:
    (folder / "some.yaml").write_text(json.dumps(entries), encoding="utf-8")
    return load_library(folder)


def test_an_entry_has_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, SOUND)["a"] == LibraryTemplate("a", "keywords", "text", "{{ text }}", ("text",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bodi": "x"}, r"unknown key 'bodi'.*did you mean 'body'"),
        ({"shape": "texts"}, r"unknown shape.*did you mean 'text'.*found 'texts'"),
        ({"shape": "instruction"}, "no shape of style keywords"),
        ({"style": "keyword"}, "did you mean 'keywords'"),
        ({"reads": ["txt"]}, r"no field 'txt'.*did you mean 'text'"),
        ({"reads": []}, "a list of one field or more"),
        ({"reads": "text"}, "unusable reads"),
        ({"body": " "}, "unusable body"),
        ({"weight": 0}, "a number above 0"),
        ({"weight": True}, "a number above 0"),
        ({"weight": float("inf")}, "a number above 0"),
        ({"draw": "ones"}, "did you mean 'one'"),
        ({"needs": ["text"]}, "with `draw: one`"),
        ({"metadata": []}, "a mapping"),
        ({"metadata": {"leads": []}}, "`leads`: a list of texts"),
        ({"style": "reasoning", "shape": "reasoning", "reads": ["question"]}, "without an instruction"),
        ({"keeps_task": "no"}, "true or false"),
        ({"options": ["a", "a"]}, "a list of texts"),
        ({"tasks": [1]}, "patterns of task ids"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    text = json.dumps([SOUND, {**SOUND, "id": "b", **change}]).replace("Infinity", ".inf")
    (tmp_path / "some.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        load_library(tmp_path)
    assert "some.yaml, record 1, field" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "not a template"),
        ("a: 1", "not a list of templates"),
        ("[]", "not a list of templates"),
        ("- {id: a", "not valid YAML"),
        ("- !!python/object:os.system {}", "builds an object"),
        (json.dumps([SOUND, SOUND]), "two templates of one id"),
        (json.dumps([{k: v for k, v in SOUND.items() if k != "body"}]), "the key 'body' is missing"),
        (json.dumps([{k: v for k, v in SOUND.items() if k != "shape"}]), "the key 'shape' is missing"),
    ],
)
def test_a_file_that_is_no_list_of_templates(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_library(tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{{ text }} {{ txet }}", r"reads txet, which `reads` does not list.*did you mean 'text'"),
        ("nothing", "lists text, which the body does not use"),
        ("{{ text }} ||| {{ options }}", "part behind"),
        ("a\n{% if %} {{ text }}", "line 2 of the body"),
        ("{{ text.__class__ }}", "refused"),
        ("{{ text }}{{ 'a' * 10 ** 9 }}", "refused"),
    ],
)
def test_a_body_is_read_before_anything_is_rendered(tmp_path: Path, body: str, message: str) -> None:
    assert re.search(message, body_problem(body, ["text"]) or "")
    (tmp_path / "mine.yaml").write_text(json.dumps([{**SOUND, "body": body}]), encoding="utf-8")
    with pytest.raises(DataError, match="mine/a") as error:
        load_templates(["mine.yaml"], tmp_path)
    assert re.search(message, str(error.value))


# ------------------------------------------------------------------------------------- one's own files


def test_ids_get_the_name_of_their_file_unless_they_have_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "deep" / "b.yml").write_text(json.dumps([SOUND, {**SOUND, "id": "x/y"}]))
    (tmp_path / "a.yaml").write_text(json.dumps([{**SOUND, "options": ["no", "yes"]}]))
    found = load_templates(["more", "a.yaml"], tmp_path)
    assert [one.id for one in found] == ["a/a", "b/a", "x/y"]
    assert load_templates([], tmp_path) == ()


def test_one_id_twice_or_an_id_of_the_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps([{**SOUND, "id": "keywords/text-1"}]))
    with pytest.raises(DataError, match="the library has a template of this id"):
        load_templates(["a.yaml"], tmp_path)
    (tmp_path / "b.yaml").write_text(json.dumps([{**SOUND, "id": "c/a"}]))
    (tmp_path / "c.yaml").write_text(json.dumps([SOUND]))
    with pytest.raises(DataError, match="two templates of one id"):
        load_templates(["b.yaml", "c.yaml"], tmp_path)


@pytest.mark.parametrize("path", ["none.yaml", "empty"])
def test_a_path_without_templates_is_a_message(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"render\.templates"):
        load_templates([path], tmp_path)


def test_digests_follow_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps([SOUND]))
    before = templates_digest(["a.yaml"], tmp_path)
    (tmp_path / "a.yaml").write_text(json.dumps([{**SOUND, "body": "Text: {{ text }}"}]))
    assert templates_digest(["a.yaml"], tmp_path) != before != library_digest()
    assert re.fullmatch("[0-9a-f]{64}", library_digest()) and len(list(LIBRARY.glob("*.yaml"))) >= 6


def own(folder: Path, **change: Any) -> tuple[LibraryTemplate, ...]:
    (folder / "own.yaml").write_text(json.dumps([{**SOUND, **change}]))
    return load_templates(["own.yaml"], folder)


def test_a_template_for_all_tasks_of_its_shape_joins_the_library(tmp_path: Path) -> None:
    row = task("mine/x", "keywords", "s", metadata='{"shape": "text"}')
    names = [v.template for v in task_variants(row, [], Renderer(0, LIMIT), own(tmp_path)).variants]
    assert names == ["keywords/text-1", "keywords/text-2", "own/a"]
    other = task("mine/x", "keywords", "s", metadata='{"shape": "pair"}')
    names = [v.template for v in task_variants(other, [], Renderer(0, LIMIT), own(tmp_path)).variants]
    assert names == ["keywords/pair-1", "keywords/pair-2"]


@pytest.mark.parametrize("style", sorted(set(STYLES) - {"document"}))
def test_a_template_that_names_its_tasks_takes_the_place_of_all_others(tmp_path: Path, style: str) -> None:
    change: dict[str, Any] = {
        "style": style,
        "tasks": ["mine/*"],
        "reads": ["crew"],
        "options": ["red", "blue"],
    }
    change["body"] = "{{ crew | length }} people: {{ crew | join(' and ') }}\n{{ options | length }}"
    if style == "reasoning":
        change["metadata"] = {"instruction": "Think."}
    entry = {k: v for k, v in {**SOUND, **change}.items() if k != "shape"}
    (tmp_path / "own.yaml").write_text(json.dumps([entry]))
    mine = load_templates(["own.yaml"], tmp_path)
    row = task("mine/x", style, "s", metadata='{"shape": "fields of mine"}', definition="Count.")
    (variant,) = task_variants(row, [], Renderer(0, LIMIT), mine).variants
    example = Example("mine/x#0", None, 0, '{"crew": ["Ann", "Ode"]}', ("red",), None, b"")
    made = variant.render(example)
    assert isinstance(made, Rendered) and made.source == "2 people: Ann and Ode\n2"
    assert style == "reasoning" or made.options == ("red", "blue")
    other = task("yours/x", "keywords", "s", metadata='{"shape": "text"}')
    assert len(task_variants(other, [], Renderer(0, LIMIT), mine).variants) == 2


def test_a_template_whose_tasks_are_not_there_is_told(tmp_path: Path) -> None:
    mine = own(tmp_path, tasks=["mine/*", "yours/x"])
    assert unused(mine, {"mine/x": "keywords"}) == unused(own(tmp_path), {}) == []
    assert unused(mine, {"mine/x": "task", "theirs/x": "keywords"}) == ["own/a"]


def test_a_template_that_asks_for_something_else_takes_no_part(tmp_path: Path) -> None:
    row = task("mine/x", "keywords", "s", metadata='{"shape": "text"}')
    found = task_variants(row, [], Renderer(0, LIMIT), own(tmp_path, keeps_task=False))
    assert len(found.variants) == 2 and [one.template for one in found.refused] == ["own/a"]
    assert found.refused[0].drop.reason == "changes_task"


def test_examples_draw_their_variant_by_weight_and_by_what_they_have(tmp_path: Path) -> None:
    number = 3000
    rows = []
    for place in range(number):
        fields = {"instruction": f"Say {place}."} | ({"input": f"case {place}"} if place % 2 else {})
        rows.append(example("chat/x", place, fields, ["Yes."], split="test" if place < 40 else "train"))
    inputs = write_run(tmp_path, [task("chat/x", "chat", "s", metadata='{"shape": "instruction"}')], rows)
    render_run(tmp_path, inputs, RenderSettings())
    found = rows_of(tmp_path)
    assert len(found) == number and len({row["example"] for row in found}) == number
    drawn: Counter[str] = Counter()
    for row in found:
        has_input = int(row["example"].partition("#")[2]) % 2 == 1
        assert row["template"].startswith("instruction_sets/input" if has_input else "instruction_sets/bare")
        assert ("case " in row["text"].replace("following case", "")) is has_input
        drawn[row["template"]] += 1
    for template in (*instruction_sets(True), *instruction_sets(False)):
        expected = template.weight * number / 2
        assert abs(drawn[template.id] - expected) < 5 * expected**0.5, (template.id, drawn)
