"""`taskmill facts`: enough of the papers' figures are computed, none is off unexplained, and the pages show what is computed."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from running import ROOT, call

from taskmill import recipe_files
from taskmill.commands.facts import facts as module
from taskmill.commands.facts import mixtures, upstream
from taskmill.commands.facts.facts import Fact, agrees, facts
from taskmill.errors import UsageError

ENOUGH = 40
PAGES = sorted((ROOT / "docs/recipes").glob("*.md"))


@pytest.fixture(scope="module")
def found() -> list[Fact]:
    return facts()


def test_enough_is_computed_and_nothing_is_off_unexplained(found: list[Fact]) -> None:
    computed = [fact for fact in found if fact.computed is not None]
    assert len(computed) >= ENOUGH
    assert [fact.name for fact in found if fact.is_wrong] == []
    assert all(fact.explained for fact in computed if not fact.holds)
    assert {fact.key for fact in found if fact.computed is None} == set(upstream.NEEDS)
    assert all(fact.needs for fact in found if fact.computed is None)


def test_no_explanation_is_left_over(found: list[Fact]) -> None:
    assert [fact.key for fact in found if fact.holds and fact.explained] == []


def test_well_known_figures(found: list[Fact]) -> None:
    computed = {fact.key: fact.computed for fact in found}
    assert computed["flacuna.parameters"] == 40 * 2 * 8 * (5120 + 5120)
    assert computed["mix.final"] == [4, 2, 20, 25, 45, 2, 2]
    assert computed["opt_iml.30b.tokens"] == computed["opt_iml.175b.tokens"] == 4000 * 256 * 2048
    assert computed["flan_mini.total"] == 1_340_000 and computed["flan_mini.chat_share"] == 8.4
    assert (
        sum(computed["super_ni.by_category"].values()) == computed["tasks.super_natural_instructions"] == 1613
    )
    assert computed["metaicl.zero_shot_a4"] == pytest.approx(1 / sum(k**-4.0 for k in range(1, 7)))


def test_the_mixture_follows_its_recipe() -> None:
    mix = recipe_files.find("flan-mini", ("mix.sizes.apps=7",)).recipe.mix
    sizes = [(f"{part}/all", "chat", None, 500_000, 1) for part in mix.sizes]
    assert mixtures.draw(mix, sizes) == dict(sorted(mix.sizes.items())) and mix.sizes["apps"] == 7


@pytest.mark.parametrize(
    ("published", "computed", "tolerance", "expected"),
    [
        (0.671, 0.6705, 0.0005, True),
        (0.671, 0.6699, 0.0005, False),
        ([4, 2], [4.05, 1.95], 0.1, True),
        ([4, 2], [4.0, 2.0, 0.0], 0.1, False),
        ({"a": 1}, {"a": 1, "b": 0}, 0.0, False),
        (True, 1, 0.0, True),
        ("a", "b", 1.0, False),
    ],
)
def test_values_agree(published: object, computed: object, tolerance: float, expected: bool) -> None:
    assert agrees(published, computed, tolerance) is expected


def test_a_figure_that_is_off_fails_unless_it_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "taskmill.training.models.model", raising=False)
    rows = yaml.safe_load(module.PUBLISHED.read_text(encoding="utf-8"))
    row = next(row for row in rows if row["key"] == "opt_iml.30b.warmup")
    row["published"] = 61
    monkeypatch.setattr(module, "PUBLISHED", tmp_path / "published.yaml")
    module.PUBLISHED.write_text(yaml.safe_dump(rows), encoding="utf-8")
    code, out, _ = call(capsys, "facts")
    assert code == 1 and "OFF, AND NOT EXPLAINED\n30B: updates of warm-up: 60" in out
    assert "LoRA parameters on Vicuna-13B" in out and "pip install 'taskmill[train]'" in out
    row["explained"] = "a misprint"
    module.PUBLISHED.write_text(yaml.safe_dump(rows), encoding="utf-8")
    code, out, _ = call(capsys, "facts", "--json")
    (fact,) = (f for f in json.loads(out)["facts"] if f["key"] == "opt_iml.30b.warmup")
    assert code == 0 and fact["holds"] is False and fact["explained"] == "a misprint"
    assert {"name", "source", "published", "computed", "holds", "explained"} <= set(fact)


def test_upstream_files_give_the_rest(shared_data: Path) -> None:
    computed = upstream.compute(shared_data)
    assert [computed[f"split.{role}"] for role in ("train", "test", "excluded")] == [757, 119, 737]
    assert sum(computed["split.test_by_category"].values()) == 119
    assert [computed[f"promptsource.{name}"] for name in ("files", "templates", "changed")] == [
        279,
        2085,
        550,
    ]


def test_sets_are_counted_by_their_readers(tmp_path: Path) -> None:
    lines = '{"instruction": "a", "context": "", "response": "b", "category": "c"}\n'
    (tmp_path / "databricks-dolly-15k.jsonl").write_text(lines * 3)
    computed = upstream.compute(tmp_path)
    assert {key: value for key, value in computed.items() if value is not None} == {"tulu.dolly": 3}
    with pytest.raises(UsageError, match="no such folder"):
        facts(tmp_path / "nowhere")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_pages_show_what_is_computed(path: Path, found: list[Fact]) -> None:
    tables = runpy.run_path(str(ROOT / "docs/recipes/tables.py"))
    text = path.read_text(encoding="utf-8")
    assert tables["filled"](text, found) == text
    assert text.count("<!-- facts: ") == text.count("<!-- end of facts -->") > 0
