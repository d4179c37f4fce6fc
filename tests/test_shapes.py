"""Shapes: what they say is complete, and curation and templates read the same ones."""

from __future__ import annotations

import re

import pytest

from taskmill.curation import cast_keys, taxonomy_rows
from taskmill.shapes import SHAPES
from taskmill.templates.rendering import library


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_fields_and_a_meaning(name: str) -> None:
    shape = SHAPES[name]
    assert re.fullmatch(r"[a-z_]+", name)
    assert shape.needs and shape.fields == shape.needs + shape.may
    assert len(set(shape.fields)) == len(shape.fields) and not {"options", "listed"} & set(shape.fields)
    assert len(shape.meaning.split()) > 3 and not shape.meaning.endswith(".") and "\n" not in shape.meaning


def test_there_are_many_and_each_says_something_else() -> None:
    assert len(SHAPES) > 24
    assert len({shape.meaning for shape in SHAPES.values()}) == len(SHAPES)


def test_curation_and_templates_read_them_from_here() -> None:
    problems: list[str] = []
    assert [cast_keys.parse_shape({"shape": name}, problems) for name in SHAPES] == list(SHAPES)
    assert cast_keys.parse_shape({"shape": "choices"}, problems) is None and "'choice'" in problems[0]
    assert taxonomy_rows.CHOICES["shape"] == tuple(SHAPES)
    assert library.STYLES["keywords"] == tuple(SHAPES)
    for name, shape in SHAPES.items():
        assert library.SHAPES[name] == shape.fields
        assert {field for other, field in library.OPTIONAL if other == name} == set(shape.may)
