"""The tokenizer whose ids are the words of the overlap check: what the recipe must say, and when the stage is stale."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from catalogues import example_row, examples_table, run_stage, task_row, tasks_table, write_catalogue

from taskmill.artifact import Manifest
from taskmill.errors import StaleError, UsageError
from taskmill.recipe import HeldOut, Overlap, Plan
from taskmill.splits import overlap

PLAN = Plan(HeldOut(("TE",)), num_demonstration_groups=1)
SHARED = "Bread, Butter and jam"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one held-out task and one trained task that share a text."""
    rows = [
        example_row(task, str(i), {"text": f"{SHARED} {task} {i}"}, ["yes"], group=i)
        for task in ("b/held", "b/docs")
        for i in range(4)
    ]
    tasks = tasks_table([task_row("b/held", "TE"), task_row("b/docs", "DOC")])
    write_catalogue(tmp_path / "run", tasks, examples_table(rows))
    return tmp_path / "run"


@pytest.fixture
def folder(run: Path) -> Path:
    """A tokenizer that cuts at white space, in the recipe's folder."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = {word: i for i, word in enumerate(["?", *SHARED.split(), *map(str, range(4))])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(run / "words")
    return run / "words"


def run_overlap(run: Path, **settings: object) -> Manifest:
    return run_stage("overlap", overlap, run, PLAN, Overlap(n=4, **settings))


def test_the_ids_of_a_tokenizer_are_the_words(run: Path, folder: Path) -> None:
    run_overlap(run, normalisation="tokenizer", tokenizer="words")
    windows = {row["window"] for row in pq.read_table(run / "overlaps/evidence.parquet").to_pylist()}
    assert windows == {"1 2 3 4"}
    assert {row["num_grams"] for row in pq.read_table(run / "overlaps/hits.parquet").to_pylist()} == {3}


def test_another_tokenizer_makes_the_stage_stale(run: Path, folder: Path) -> None:
    first = run_overlap(run, normalisation="tokenizer", tokenizer="words")
    assert run_overlap(run, normalisation="tokenizer", tokenizer="words").body == first.body
    path = folder / "tokenizer.json"
    body = json.loads(path.read_text())
    body["model"]["vocab"]["jam"] = 99
    path.write_text(json.dumps(body))
    with pytest.raises(StaleError, match=r"external\.tokenizer"):
        run_overlap(run, normalisation="tokenizer", tokenizer="words")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalisation": "tokenizer"}, "needs a tokenizer: a folder or a Hub id"),
        ({"tokenizer": "words"}, "only for `normalisation: tokenizer`; the recipe has 'words-1'"),
        ({"normalisation": "tokenizer", "tokenizer": "tasks"}, "holds no tokenizer.json"),
    ],
)
def test_what_the_recipe_must_say(run: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_overlap(run, **settings)
    assert not (run / "overlaps/manifest.json").exists()
