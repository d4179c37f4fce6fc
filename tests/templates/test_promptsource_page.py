"""docs/promptsource.md: its example gives what it shows, its numbers and reasons are those of the code and the files."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import pytest
from running import ROOT

from taskmill.curation.sources.promptsource import changed_templates
from taskmill.templates.composing.schemas import Drop
from taskmill.templates.rendering.renderer import Renderer

PAGE = ROOT / "docs" / "promptsource.md"


def test_the_example_gives_what_the_page_shows() -> None:
    tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried.attempted >= 4 and not tried.failed


def test_the_numbers_of_templates_are_those_of_the_files(shared_data: Path) -> None:
    from taskmill.curation.sources._yaml import load_yaml

    text = PAGE.read_text(encoding="utf-8")
    marks = [
        template["metadata"].get("original_task")
        for path in (shared_data / "promptsource" / "templates").rglob("templates.yaml")
        for template in load_yaml(path.read_text(encoding="utf-8"))["templates"].values()
    ]
    original = marks.count(True)
    assert f"{len(marks) - original} of the {len(marks):,} templates" in text
    assert f"All {original:,} templates that upstream marks" in text


def test_the_length_of_the_list_is_stated() -> None:
    count = sum(map(len, changed_templates().values()))
    assert f"The list has {count} of them" in PAGE.read_text(encoding="utf-8")


def test_the_table_is_filled_and_has_no_difference_without_a_reason() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- fidelity -->\n(.*?)<!-- end fidelity -->", text, re.DOTALL)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in block.splitlines()
        if line.startswith("|")
    ]
    numbers = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows[2:]}
    real = numbers["real"]
    assert real[1] == real[2] > 5_000
    for templates, renders, equal, refused, different in numbers.values():
        assert renders == equal + refused + different and templates
    assert max(row[0] for row in numbers.values()) == 2_085
    assert "no known reason" not in block


@pytest.mark.parametrize(
    ("body", "row", "reason"),
    [
        ("{{ answer_choices }} ||| b", '{"answer_choices": 1}', "render_error"),
        ("{{ a * 99 }} ||| b", '{"a": "word"}', "too_long"),
        ("{% for i in range(99999) %}{% for j in [1, 2] %}{% endfor %}{% endfor %}a ||| b", "{}", "limit"),
        ("{{ a.lower }} ||| b", '{"a": "x"}', "render_error"),
        ("{{ a }}", '{"a": "x"}', "no_output"),
        ("{{ a }} ||| ", '{"a": "x"}', "empty"),
    ],
)
def test_the_reasons_of_its_table(body: str, row: str, reason: str) -> None:
    found = Renderer(0, 100).promptsource({"template": "t", "body": body, "choices": None}, row, "e")
    assert isinstance(found, Drop) and found.reason == reason


@pytest.mark.parametrize("body", ["{{ a.__class__ }}", "{{ a | attr('x') }}", "{% include 'x' %}"])
def test_templates_that_it_says_are_refused(body: str) -> None:
    assert Renderer(0, 100).check(f"{body} ||| b", None) is not None


def test_the_benchmark_takes_the_options_that_it_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import promptsource_fidelity

    page = tmp_path / "page.md"
    page.write_text("<!-- fidelity -->\nold\n<!-- end fidelity -->\n")
    monkeypatch.setattr(sys, "argv", ["promptsource_fidelity.py", "--quick", "--page", str(page)])
    promptsource_fidelity.main()
    assert "| of the example shipped here | 12 |" in page.read_text() and "old" not in page.read_text()
