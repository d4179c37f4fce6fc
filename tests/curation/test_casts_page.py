"""docs/casts.md: it has every key of the code and no other, its casts parse, and its values are what they give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from taskmill.curation import cast_keys, casting
from taskmill.curation.sources._cast_record import caster
from taskmill.curation.sources._records import FORMATS
from taskmill.curation.sources._value_keys import KEYS, TYPES, parse_value
from taskmill.curation.sources._values import evaluate
from taskmill.curation.sources._yaml import load_yaml
from taskmill.shapes import SHAPES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "casts.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text of a section."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code(cell: str) -> Any:
    """Return the YAML between backquotes."""
    return load_yaml(cell.strip().strip("`"))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_every_key_has_its_row() -> None:
    assert [row[0].strip("`") for row in rows("Keys of a cast")] == list(
        order(casting._KEYS, "Keys of a cast")
    )
    assert [row[0].strip("`") for row in rows("Values")] == list(KEYS)
    text = section("Keys of a cast")
    for name in (*FORMATS, *cast_keys.FILE_SPLITS, *cast_keys.FACTS, *casting.HUB_SPLITS):
        assert f"`{name}`" in text, name
    assert all(f"`{name}`" in section("Values") for name in TYPES)


def order(keys: tuple[str, ...], title: str) -> list[str]:
    """Return the keys in the order of the page, those that it lacks at the end."""
    shown = [row[0].strip("`") for row in rows(title)]
    return [key for key in shown if key in keys] + sorted(set(keys) - set(shown))


def test_shapes_are_those_of_the_code() -> None:
    named = {
        row[0].strip("`"): (
            set(row[1].split(", ")),
            set(row[2].split(", ")) - {""} if len(row) > 2 else set(),
        )
        for row in rows("Shapes")
    }
    assert named == {name: (set(shape.needs), set(shape.may)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("row", rows("Keys of a cast"), ids=lambda row: row[0].strip("`"))
def test_each_example_of_a_key_is_a_sound_cast_with_that_key(row: list[str]) -> None:
    stated = code(row[2])
    assert row[0].strip("`") in stated
    casting.parse_cast({"fields": {"review": "review"}, **stated}, "page", "docs/casts.md")


@pytest.mark.parametrize("row", rows("Values"), ids=lambda row: row[0].strip("`"))
def test_each_example_of_a_value_gives_what_the_page_says(row: list[str]) -> None:
    (record,) = map(json.loads, blocks("json"))
    raw, problems = cast_keys.text_keys(code(row[2])), list[str]()
    found = evaluate(parse_value(raw, "value", problems), record, "value", ["dry", "rainy"])
    assert problems == [] and row[0].strip("`") in raw
    assert json.dumps(found) == json.dumps(json.loads(row[3].strip("`")))


def test_whole_casts_parse_and_read() -> None:
    small, whole, layouts = (casting.parse_cast(load_yaml(text), "page", "page") for text in blocks("yaml"))
    assert caster(small, keywords=False)({"review": "a", "stars": 3})["references"] == ["3"]
    record = {
        "asked": "q",
        "passage": "p",
        **{letter: letter * 2 for letter in "abcd"},
        "key": "C",
        "number": "7",
    }
    example = caster(whole, keywords=True)(record)
    assert example["references"] == ["cc"] and (example["group"], example["upstream_id"]) == ("p", "7")
    assert layouts.layouts["hub"].files["validation"] == ("dev_easy", "dev_hard")
