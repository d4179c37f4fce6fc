"""Hostile templates are refused, and what a template may do is counted alike on every machine."""

from __future__ import annotations

import json
import time

import pytest

from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.rendering.renderer import Renderer

ROW = json.dumps({"text": "one two", "xs": [1, 2], "n": 1_000_000_000})

REACHING = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''['__class__'] }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ xs.append.__self__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{% set f = ''.format %}{{ f.__globals__ }}",
]
GROWING = [
    "{{ 'a' * 300000000 }}",
    "{{ 'a' * n }}",
    "{{ n * [1] }}",
    "{{ '%0200000000d'|format(1) }}",
    "{{ '%0200000000d' % 1 }}",
    "{{ '%*d' % (n, 1) }}",
    "{{ '{:>100000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, n) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 'x'|center(n) }}",
    "{{ 'x'|indent(n, true) }}",
    "{{ 'x'.ljust(n) }}",
    "{{ xs|batch(n, 0)|list }}",
    "{{ ('x' * 5000).replace('x', 'y' * 50000) }}",
    "{{ ('x' * 5000)|replace('x', 'y' * 50000) }}",
    "{{ range(100000)|join('y' * 5000) }}",
    "{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ 1 }}{% endmacro %}{% for i in range(60000) %}{% set _ = m() %}{% endfor %}",
    "{% set s = namespace(t='aa') %}{% for i in range(60) %}{% set s.t = s.t ~ s.t %}{% endfor %}",
    "{% set s = namespace(t='aa') %}{% for i in range(60) %}{% set s.t = s.t + s.t %}{% endfor %}",
    "{% set s = namespace(t=[1]) %}{% for i in range(60) %}{% set s.t = [s.t, s.t] %}{% endfor %}{{ s.t }}",
    "{% for i in range(60) %}{% set _ = xs.extend(xs) %}{% endfor %}",
]
FAILING = [
    "{{ range(n)|list }}",
    "{{ missing.name }}",
    "{{ 1 / 0 }}",
    "{{ xs.append }}",
    "{{ xs|map('string') }}",
]


def rendered(body: str, choices: str | None = None, example: str = "e") -> Rendered | Drop:
    template = {"template": "t", "body": body, "choices": choices}
    return Renderer(0, 1000).promptsource(template, ROW, example)


@pytest.mark.parametrize("body", REACHING)
def test_reaching_into_python_is_unsafe(body: str) -> None:
    found = rendered(body + " ||| x")
    assert isinstance(found, Drop) and found.reason == "unsafe"


@pytest.mark.parametrize("body", GROWING)
def test_growing_without_bound_stops_soon(body: str) -> None:
    start = time.monotonic()
    found = rendered(body + " ||| x")
    assert isinstance(found, Drop) and found.reason == "limit"
    assert time.monotonic() - start < 10  # a bound on a hang, not a measurement


@pytest.mark.parametrize("body", FAILING)
def test_failing_is_a_render_error(body: str) -> None:
    found = rendered(body + " ||| x")
    assert isinstance(found, Drop) and found.reason == "render_error"


def test_hostile_choices_are_refused_too() -> None:
    found = rendered("a ||| b", "{{ ''.__class__ }} ||| b")
    assert isinstance(found, Drop) and found.reason == "unsafe"


def test_long_text_is_dropped_while_it_is_made() -> None:
    found = rendered("{% for i in range(50000) %}word {% endfor %} ||| x")
    assert found == Drop("too_long", "TooLongError: more than 1000 characters")


def test_messages_hold_no_addresses() -> None:
    found = rendered("{{ text.upper.nothing.more }} ||| x")
    assert isinstance(found, Drop) and "0x" not in found.detail


def test_limits_leave_usual_templates_alone() -> None:
    body = (
        "{{ '%s and %d' % (text, 7) }} {{ '{:>5}'.format(3) }} {{ text * 3 }} {{ xs + [3] }} ||| {{ xs|sum }}"
    )
    found = rendered(body)
    assert isinstance(found, Rendered)
    assert found.source == "one two and 7     3 one twoone twoone two [1, 2, 3]"


def test_budget_is_renewed_for_every_render() -> None:
    renderer = Renderer(0, 10_000_000)
    template = {"template": "t", "body": "{% for i in range(60000) %}{% endfor %}a ||| b", "choices": None}
    assert all(isinstance(renderer.promptsource(template, ROW, "e"), Rendered) for _ in range(3))
