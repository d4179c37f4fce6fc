"""Settings of render that cannot be meant, or not together."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmill.errors import RecipeError
from taskmill.recipe_check import check
from taskmill.recipe_files import load

RECIPE = "name: made\nsources: [{reader: documents}]\n"


@pytest.mark.parametrize(
    ("render", "problem"),
    [
        ("{metaicl: {exponent: -1}}", "expected a number from 0 to 100"),
        ("{metaicl: {max_demonstrations: 0}}", "expected a number from 1 to 64"),
        ("{tk_instruct: {positive_examples: -1}}", "expected a number from 0 to 64"),
        ("{format: tulu, metaicl: {suffix_loss: true}}", "given with render.format = 'tulu'; expected plain"),
        ("{encoding: tulu, metaicl: {suffix_loss: true}}", "given with render.encoding = 'tulu'"),
        ("{encoding: tulu, negative_demonstrations: 1}", "does not tell them from positive ones"),
        (
            "{encoding: tk-instruct, negative_demonstrations: 1}",
            "render.tk_instruct.negative_examples instead",
        ),
        ("{metaicl: {suffix_loss: true}, negative_demonstrations: 1}", "would learn their wrong outputs"),
        ("{templates: [nothere.yaml]}", "no file or folder of templates 'nothere.yaml' as a path"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, render: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(f"{RECIPE}render: {render}\n", tmp_path / "made.yaml", (), tmp_path)
    assert problem in str(caught.value) and "made.yaml:3" in str(caught.value)


@pytest.mark.parametrize(
    "render",
    ["{metaicl: {suffix_loss: true}}", "{format: tulu, metaicl: {exponent: 2}}", "{encoding: tk-instruct}"],
)
def test_what_can_be_meant_is_taken(tmp_path: Path, render: str) -> None:
    assert check(f"{RECIPE}render: {render}\n", tmp_path / "made.yaml", (), tmp_path).recipe.render


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            "render: {format: tullu}",
            r"recipe.yaml:3: render.format: no chat format 'tullu'.*did you mean 'tulu'",
        ),
        ("plan: {layout: optiml}", r"recipe.yaml:3: plan.layout: no layout 'optiml'"),
        (
            "render: {format: chat/mine.jinja}",
            r"render.format: no chat format 'chat/mine.jinja'.*shipped are chatml",
        ),
    ],
)
def test_a_format_or_layout_that_is_not_there_is_told_when_the_recipe_is_read(
    setting: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: a\nsources: [{{reader: documents}}]\n{setting}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=problem):
        load(path)


def test_a_format_beside_the_recipe_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\nsources: [{reader: documents}]\nrender: {format: mine.yaml}\n", encoding="utf-8"
    )
    assert load(path).recipe.render.format == "mine.yaml"


@pytest.mark.parametrize("setting", ["plan: {layout: flan/entailment}", "render: {format: vicuna-v1.1}"])
def test_what_is_shipped_is_there(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: a\nsources: [{{reader: documents}}]\n{setting}\n", encoding="utf-8")
    assert load(path).recipe.name == "a"
