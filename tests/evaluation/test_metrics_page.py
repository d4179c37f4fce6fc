"""`docs/metrics.md` says what the code does."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import yaml

from taskmill.evaluation.metrics import limited_child, own, programs
from taskmill.evaluation.metrics.extraction import EXTRACTIONS
from taskmill.evaluation.metrics.matching import NORMALISERS
from taskmill.recipe_evaluate import Code, Sampling, TaskScoring
from taskmill.records import METRICS


@pytest.fixture
def page(repository: Path) -> Path:
    return repository / "docs/metrics.md"


def test_examples_run(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_lists_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for head, names in (
        ("metric", METRICS),
        ("extract", EXTRACTIONS),
        ("normaliser", NORMALISERS),
        ("argument", own.ARGUMENTS),
    ):
        table = re.search(rf"^\| {head} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
        assert table is not None
        assert re.findall(r"^\| `(\w+)` \|", table[1], re.MULTILINE) == list(names)


def test_recipes_of_the_page_are_recipes(page: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    entries, code = (yaml.safe_load(block)["evaluate"] for block in blocks)
    assert all(TaskScoring(**entry) for entry in entries["tasks"])
    assert Code(**code["code"]) == Code(run=True) and Sampling(**code["sampling"]) and code["pass_k"] == 10


def test_limits_are_stated_as_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert f"{limited_child.MAX_FILE >> 20} MiB a file" in text
    assert f"{programs._MOST_BYTES >> 20} MiB and {programs._MOST_FILES:,} files in all" in text
    assert programs._START_SECONDS == 10
