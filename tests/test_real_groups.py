"""Groups of every real Super-NaturalInstructions task: carving by group leaves no shared 13-gram, by example it does."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from taskmill import cli
from taskmill.errors import RecipeError
from taskmill.recipe import Plan
from taskmill.seeding import smallest
from taskmill.splits.planning.assignment import Rows, assign
from taskmill.splits.planning.roles import TaskPlan
from taskmill.storage import read_table
from taskmill.text import words

N, SHARE, SEED = 13, 0.2, 11
RECIPE = """
name: groups
seed: 11
sources:
  - {reader: super_natural_instructions, path: super_natural_instructions, options: {tasks: [tasks, tasks_shallow]}}
"""


@pytest.fixture(scope="module")
def tasks_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory `tasks` of a run over every real task."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    arguments = [
        "curate",
        str(folder / "recipe.yaml"),
        "--set",
        f"data_root={shared_data}",
        "--run",
        str(folder / "run"),
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--quiet"])
    assert not stopped.value.code
    return folder / "run" / "tasks"


def tables_by_task(folder: Path) -> Iterator[tuple[dict[str, object], pa.Table]]:
    rows = read_table(folder / "tasks.parquet").to_pylist()
    for shard in sorted({row["shard"] for row in rows}):
        examples = read_table(folder / "examples" / f"{shard}.parquet")
        for row in rows:
            if row["shard"] == shard:
                yield row, examples.slice(row["first_row"], row["num_kept"])


def windows(fields: str, references: Sequence[str]) -> set[int]:
    """Return the hashes of all runs of 13 words inside one text of an example, and of its whole input."""
    texts = json.loads(fields)
    whole = tuple(words(texts["input"]))
    found = {hash(("input", whole))} if whole else set[int]()
    for text in [*texts.values(), *references]:
        mine = words(text)
        found.update(hash(tuple(mine[i : i + N])) for i in range(len(mine) - N + 1))
    return found


def num_leaking(grams: list[set[int]], test: np.ndarray, train: np.ndarray) -> int:
    """Return how many test examples share a window or input that is no boilerplate with a train example."""
    number = Counter(gram for mine in grams for gram in mine)
    boilerplate = {g for g, count in number.items() if len(grams) >= 20 and count > len(grams) / 2}
    seen: set[int] = set().union(*(grams[i] for i in np.flatnonzero(train))) - boilerplate
    return sum(not seen.isdisjoint(grams[i]) for i in np.flatnonzero(test))


def test_carving_by_group_leaves_no_shared_13_gram_and_no_equal_input(
    tasks_folder: Path, repository: Path
) -> None:
    num_test = num_by_example = leaks_by_example = 0
    uncarved = []
    for row, table in tables_by_task(tasks_folder):
        group = table["group"].to_numpy()
        _, sizes = np.unique(group, return_counts=True)
        assert (row["num_groups"], row["largest_group"]) == (len(sizes), sizes.max()), row["task"]
        if 2 * sizes.max() > len(group):
            uncarved.append(row["task"])
            continue
        upstream = np.array(table["upstream_split"].to_pylist(), dtype=object)
        rows = Rows(upstream, group, np.ones(len(group), bool))
        entry = TaskPlan(str(row["task"]), "supervised", "both", "")
        try:
            split, _ = assign(entry, rows, Plan(carve_share=SHARE), SEED)
        except RecipeError:  # one example beside its demonstrations
            uncarved.append(row["task"])
            continue
        grams = [windows(*pair) for pair in zip(table["fields"].to_pylist(), table["references"].to_pylist())]
        test, train = split == "test", (split == "train") | (split == "demonstration")
        assert test.any() and train.any()
        assert num_leaking(grams, test, train) == 0, row["task"]
        num_test += int(test.sum())
        chosen = smallest(round(SHARE * len(grams)), SEED, "by example", table["example"].to_pylist())
        by_example = np.isin(np.arange(len(grams)), chosen)
        leaks_by_example += num_leaking(grams, by_example, ~by_example)
        num_by_example += len(chosen)
    page = (repository / "docs/real-data.md").read_text(encoding="utf-8")
    section = page.split("### Carving by group")[1].split("\n##")[0]
    counts = f"{num_test:,} test examples", f"{leaks_by_example:,} of {num_by_example:,}"
    assert all(count in section for count in counts), counts
    named = set(
        re.findall(r"`(super_natural_instructions/\S+)`", page.split("### Tasks that cannot be carved")[1])
    )
    assert named == set(uncarved)
