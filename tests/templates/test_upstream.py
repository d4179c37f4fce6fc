"""PromptSource's rules that a template relies on: names, marks, choices, chance, and rows that templates change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.rendering import upstream
from taskmill.templates.rendering.renderer import Parts, Renderer
from taskmill.templates.sandboxing.sandbox import TooLongError

LIMIT = 100_000
MARK = "3ed2dface8203c4c9dfb1a5dc58e41e0"


def parts(body: str, row: dict[str, Any] | None = None, choices: str | None = None) -> Parts:
    template = {"template": "t", "body": body, "choices": choices}
    return Renderer(0, LIMIT).parts(template, json.dumps(row or {}), "e")


# ------------------------------------------------------------------------------------------- separators


def test_every_part_is_given_and_stripped() -> None:
    assert parts(" a ||| b |||\n|||c ").parts == ["a", "b", "", "c"]
    assert parts("no separator").parts == ["no separator"]
    assert parts("").parts == [""]


def test_a_template_may_cut_the_row_where_its_own_separators_were() -> None:
    body = "{% for one in document.split('" + MARK + "') %}[{{ one }}]{% endfor %} ||| {{ document }}"
    found = parts(body, {"document": "first|||||second"})
    assert found.parts == ["[first][||second]", "first|||||second"]


def test_separators_at_any_depth_are_text() -> None:
    row = {"a": [{"b": "x ||| y"}, ["|||"]]}
    assert parts("{{ a[0].b }}{{ a[1] | join }} ||| {{ a }}", row).parts[0] == "x ||| y|||"
    assert len(parts("{{ a }} ||| z", row).parts) == 2


def test_separators_that_json_escapes_are_text_too() -> None:
    template = {"template": "t", "body": "{{ a }} ||| b", "choices": None}
    found = Renderer(0, LIMIT).parts(template, '{"a": "x \\u007c\\u007C| y"}', "e")
    assert found.parts == ["x ||| y", "b"]


def test_choices_are_cut_before_hidden_separators_come_back() -> None:
    found = parts("{{ answer_choices | length }} ||| b", {"a": "p ||| q"}, "{{ a }} ||| no")
    assert found == Parts(["2", "b"], ["p ||| q", "no"])


def test_a_body_that_prints_a_choice_with_a_separator_is_cut_there_as_upstream_cuts_it() -> None:
    assert parts("{{ answer_choices[0] }} ||| b", {"a": "p ||| q"}, "{{ a }} ||| no").parts == ["p", "q", "b"]


# -------------------------------------------------------------------------------------- names and values


def test_names_are_those_of_upstream() -> None:
    assert parts("{{ zip([1], [2]) | list }} ||| {{ 'x' | highlight }}").parts == [
        "[(1, 2)]",
        "<span style='color: #F08080'>x</span>",
    ]
    with pytest.raises(jinja2.UndefinedError, match="enumerate"):
        parts("{{ enumerate([1]) | list }} ||| x")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{{ [] | most_frequent }}", "None"),
        ("{{ ['b', 'a', 'a', 'b', 'c'] | most_frequent }}", "['b', 'a']"),
        ("[{{ [] | random }}]", "[]"),
        ("{{ nothing | default('d') }}{{ [nothing, 1] | join('-') }}", "d-1"),
        ("{{ nothing == none }}{{ nothing is defined }}", "FalseFalse"),
        ("{{ none }}{{ 1.0 }}{{ true }}", "None1.0True"),
        ("{{ '%0.1f' | format(x) }}", "0.2"),
        ("{% if x %}\n one\n{% endif %}\n", "one"),
        ("a\n{% if x %}\nb\n{% endif %}\nc", "a\n\nb\n\nc"),
        ("a\n{%- if x %} b {% endif -%}\nc", "a b c"),
        ("{{ (x * 5) | round / 5 }}", "0.2"),
    ],
)
def test_values_are_printed_as_upstream_prints_them(body: str, text: str) -> None:
    assert parts(body + " ||| y", {"x": 0.24}).parts[0] == text


def test_a_choice_among_nothing_is_refused() -> None:
    with pytest.raises(IndexError):
        parts("{{ [] | choice }} ||| x")


@pytest.mark.parametrize("body", ["{{ t }}", "{% for i in range(9) %}{{ t }}{% endfor %}"])
def test_a_long_text_is_refused_with_and_without_loops(body: str) -> None:
    template = {"template": "t", "body": body + " ||| x", "choices": None}
    with pytest.raises(TooLongError):
        Renderer(0, 50).parts(template, json.dumps({"t": "word " * 11}), "e")


# ---------------------------------------------------------------------------------------- answer choices


@pytest.mark.parametrize(
    ("choices", "fixed"),
    [
        (None, None),
        ("No ||| Yes", ["No", "Yes"]),
        ("", [""]),
        ("{{ ['a', 'b'] | join(' ||| ') }}", ["a", "b"]),
        ("{% for n in [1, 2] %}{{ n }}{% if not loop.last %}|||{% endif %}{% endfor %}", ["1", "2"]),
        ("{{ a }} ||| b", None),
        ("{{ ['a', 'b'] | choice }}", None),
    ],
)
def test_fixed_choices_are_those_that_read_no_column(choices: str | None, fixed: list[str] | None) -> None:
    template = {"template": "t", "body": "a ||| b", "choices": choices}
    assert Renderer(0, LIMIT).fixed_choices(template) == fixed


@pytest.mark.parametrize("choices", ["yes ||| no", "{{ a }} ||| no"])
def test_a_template_that_changes_its_choices_leaves_the_options_as_they_were(choices: str) -> None:
    template = {
        "template": "t",
        "body": "{{ answer_choices.pop() }}{{ answer_choices | length }} ||| yes",
        "choices": choices,
    }
    renderer = Renderer(0, LIMIT)
    for _ in range(2):
        found = renderer.promptsource(template, '{"a": "yes"}', "e")
        assert found == Rendered("", "no1", "yes", ("yes",), ("yes", "no"))


def test_equal_choices_are_one_option() -> None:
    template = {"template": "t", "body": "a ||| b", "choices": "b ||| c ||| b"}
    found = Renderer(0, LIMIT).promptsource(template, "{}", "e")
    assert isinstance(found, Rendered) and found.options == ("b", "c")


# ------------------------------------------------------------------------------- rows that templates change


@pytest.mark.parametrize(
    ("body", "pure"),
    [
        ("{{ a }}{% for x in xs %}{{ x.lower() }}{{ loop.index }}{% endfor %}", True),
        ("{{ ', '.join(xs) }}{{ a.split(' ')[0] }}{{ d.items() | list }}{{ range(3) | list }}", True),
        ("{% macro m(x) %}{{ x }}{% endmacro %}{{ m(a) }}", True),
        ("{% set n = namespace(c=0) %}{% set n.c = 1 %}{{ n.c }}", True),
        ("{{ xs.append(1) }}", False),
        ("{{ d.update({'a': 1}) }}", False),
        ("{% set f = xs.pop %}{{ f() }}", False),
        ("{% for f in [xs.pop] %}{{ f() }}{% endfor %}", False),
        ("{{ xs['append'](1) }}", False),
        ("{% set range = xs.append %}{{ range(1) }}", False),
        ("{% macro zip(range) %}{{ range(1) }}{% endmacro %}{{ zip(xs.append) }}", False),
    ],
)
def test_templates_that_may_change_a_row_are_told_from_those_that_cannot(body: str, pure: bool) -> None:
    assert upstream.is_pure(upstream.environment().parse(body)) is pure


BODIES = (
    "{{ xs | join }} ||| a",
    "{{ xs.append('z') or '' }}{{ xs | join }} ||| a",
    "{{ xs.pop(0) }}{{ xs | length }} ||| a",
    "{% set f = xs.extend %}{{ f(['q']) or '' }}{{ xs | join }} ||| a",
    "{{ d.update({'k': 'changed'}) or '' }}{{ d.k }} ||| {{ xs | sort | join }}",
    "{{ d.k }}{{ xs[::-1] | join }} ||| a",
)


ALONE = ("ab", "abz", "a1", "abq", "changed", "vba")


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(BODIES) - 1), min_size=2, max_size=12))
def test_no_template_sees_what_another_changed(order: list[int]) -> None:
    renderer, fields = Renderer(0, LIMIT), '{"d":{"k":"v"},"xs":["a","b"]}'
    for number in order:
        template = {"template": "t", "body": BODIES[number], "choices": None}
        assert renderer.parts(template, fields, "e").parts[0] == ALONE[number]


def test_what_choices_change_is_seen_by_the_body_of_that_render() -> None:
    assert parts("{{ xs | join }} ||| a", {"xs": ["p", "q"]}, "{{ xs.pop() }} ||| r").parts[0] == "p"


def test_numbers_beyond_64_bits_and_half_pairs_are_rendered_as_they_are() -> None:
    template = {"template": "t", "body": "{{ n }} {{ m }} {{ t | length }} ||| a", "choices": None}
    fields = '{"n": 123456789012345678901234567890, "m": -1e400, "t": "\\ud800x"}'
    assert Renderer(0, LIMIT).parts(template, fields, "e").parts[0] == "123456789012345678901234567890 -inf 2"


# ------------------------------------------------------------------------------ beside bare Jinja, and the list


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The files of benchmarks/ that compare engines."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import promptsource_fidelity

    yield promptsource_fidelity
    for name in ("promptsource_fidelity", "promptsource_engines", "promptsource_rows"):
        sys.modules.pop(name, None)


def test_real_templates_render_odd_rows_like_bare_jinja(engines: Any, shared_data: Path) -> None:
    templates = engines.templates_below(shared_data / "promptsource" / "templates")
    assert len(templates) == 2_085
    changing = [t for t in templates if ".append(" in t.row["body"] or ".pop(" in t.row["body"]]
    assert len(changing) > 90
    rows, renderer = engines.invented_rows(), Renderer(0, LIMIT)
    found: dict[str, int] = {}
    for template in [*changing[::8], *templates[::40]]:
        for row in list(engines.odd_rows(rows[template.dataset], template.dataset, 2))[::4]:
            verdict = engines.compare(engines.Plain(), renderer, template, row, False).verdict
            found[verdict] = found.get(verdict, 0) + 1
    assert set(found) <= {"equal", "both_refuse", "separator_in_list"}
    assert found["equal"] > 10 * found["both_refuse"]


def test_a_difference_is_told_with_its_reason(engines: Any) -> None:
    def verdict(body: str, row: dict[str, Any], limit: int = LIMIT) -> str:
        template = engines.Template("d", body, {"template": "t", "body": body, "choices": None})
        found = engines.compare(engines.Plain(), Renderer(0, limit), template, row, False)
        return str(found.verdict)

    assert verdict("{{ ['a', 'b', 'c'] | choice }} ||| {{ [1, 2, 3] | random }}", {}) == "equal"
    assert verdict("{{ a[0] }} ||| b", {"a": ["x ||| y"]}) == "separator_in_list"
    assert verdict("{{ d.keys() | join }} ||| b", {"d": {"z": 1, "a": 2}}) == "order_of_keys"
    assert verdict("{{ a }} ||| b", {"a": "x" * 99}, 50) == "too_long"
    assert verdict("{% for i in range(n) %}{% endfor %}a ||| b", {"n": 200_000}) == "limit"
    assert verdict("{{ a.x.y }} ||| b", {"a": 1}) == "both_refuse"
    assert verdict("{{ a.lower }} ||| b", {"a": "x"}) == "address"


def test_a_clone_that_is_none_stops(engines: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="clone of bigscience-workshop/promptsource"):
        engines.PromptSource(tmp_path)


def test_a_clone_is_loaded_by_its_path(engines: Any, tmp_path: Path) -> None:
    (tmp_path / "promptsource").mkdir()
    (tmp_path / "promptsource" / "templates.py").write_text(
        "import pkg_resources, jinja2\nenv = jinja2.Environment()\n"
        "where = pkg_resources.resource_filename(__name__, 'templates')\n"
    )
    module = engines.PromptSource(tmp_path).module
    assert module.where == str(tmp_path / "promptsource" / "templates") and "choice" in module.env.filters


def test_drops_name_their_reason() -> None:
    template = {"template": "t", "body": "{{ a.b.c }} ||| d", "choices": None}
    found = Renderer(0, LIMIT).promptsource(template, '{"a": 1}', "e")
    assert isinstance(found, Drop) and found.reason == "render_error" and "no attribute 'b'" in found.detail
