"""A small run with people's decisions and files of its own, published in a folder, and published folders that were changed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskmill import recipe_files
from taskmill.digests import digest
from taskmill.errors import DecisionNeededError
from taskmill.splits.deciding.decision_files import FILE as DECISIONS
from taskmill.splits.deciding.decision_files import UNDECIDED_FILE
from taskmill.splits.publishing.published import DATA, IDS, TABLES, Published, open_published, rows_root
from taskmill.splits.publishing.rerunning.recipe_bundle import bundle
from taskmill.splits.publishing.writing.folder import write_manifest, write_published
from taskmill.splits.publishing.writing.manifest import PublishPlan
from taskmill.stages import Walk
from taskmill.storage import FileEntry, file_digest, rows_digest

SHARED = " ".join(f"tide{chr(97 + place)}" for place in range(16))
RECIPE = """\
# The harbour's benchmark.
name: harbour
seed: 5
data_root: data
sources:
  - {reader: table, path: notes, repository: harbour/notes, revision: v3, options: OPTIONS}
  - {reader: table, path: logs, benchmark: logs, options: LOGS}
curate: {taxonomy: [words/harbour.yaml]}
plan:
  held_out: {categories: [Summarization]}
  num_demonstration_groups: 2
split:
  rules: []
render: {num_demonstrations: 1, templates: [words/templates.yaml]}
"""
OPTIONS = "{task: notes, cast: CAST, metric: rouge_l, license: CC-BY-4.0, definition: Write down what the keeper says.}"
LOGS = "{task: logs, cast: CAST, metric: rouge_l, license: CC0-1.0, definition: Say it in one sentence.}"
CAST = "{fields: {text: text}, references: answer, id: id}"
TAXONOMY = """\
tasks:
  custom/notes: {category: Text Categorization}
  logs/logs: {category: Summarization}
"""
TEMPLATES = """\
- id: keeper
  style: keywords
  shape: text
  reads: [text]
  body: "The keeper: {{ text }}"
"""


def write_data(folder: Path) -> None:
    """Write the upstream files: 30 notes and 12 logs, three of which share a window with a note."""
    rows: dict[str, list[dict[str, str]]] = {"notes": [], "logs": []}
    for name, number in (("notes", 30), ("logs", 12)):
        for i in range(number):
            words = " ".join(f"{name}{chr(97 + place)}{i:02d}" for place in range(18))
            text = f"{words} {SHARED}" if i < 3 else words
            rows[name].append({"id": f"{name}{i:02d}", "text": text, "answer": f"{name} answer {i}"})
        place = folder / name / f"{name}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))


def write_recipe(folder: Path, change: Callable[[str], str] = lambda text: text) -> Path:
    """Write the recipe and the files that it names; returns its path."""
    (folder / "words").mkdir(parents=True, exist_ok=True)
    (folder / "words" / "harbour.yaml").write_text(TAXONOMY)
    (folder / "words" / "templates.yaml").write_text(TEMPLATES)
    text = change(RECIPE).replace("OPTIONS", OPTIONS).replace("LOGS", LOGS).replace("CAST", CAST)
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


def make_run(
    folder: Path, change: Callable[[str], str] = lambda text: text, last: str = "split", **settings: Any
) -> Path:
    """Write data and recipe below `folder` and make its run, `folder/run`; a person keeps what must be decided."""
    write_data(folder / "data")
    overrides = tuple(f"{key}={value}" for key, value in settings.items())
    return run_stages(write_recipe(folder, change), folder / "run", last, overrides)


def run_stages(recipe: Path, run: Path, last: str = "split", overrides: tuple[str, ...] = ()) -> Path:
    """Make a run of a recipe; a person keeps what must be decided."""
    logging.getLogger(
        "taskmill"
    ).handlers.clear()  # of a command that was called before, whose stderr is closed
    walker = Walk(recipe_files.load(recipe, overrides), run)
    for stage in ("curate", "overlap", "split", "render")[: ["split", "render"].index(last) + 3]:
        try:
            walker.build(stage)
        except DecisionNeededError:
            lines = (run / UNDECIDED_FILE).read_text().splitlines()
            place = lines[0].split(",").index("action")
            rows = [line.split(",") for line in lines]
            kept = [",".join([*row[:place], "keep", *row[place + 1 :]]) for row in rows[1:]]
            (run / DECISIONS).write_text("\n".join([lines[0], *kept]) + "\n")
            walker.build(stage)
    walker.record_recipe()
    return run


def publish(run: Path, folder: Path, with_data: bool = False) -> Published:
    """Publish a run in a folder, without words about it."""
    resolved = recipe_files.from_json(run)
    plan = PublishPlan(with_data)
    inputs = Walk(resolved, run).inputs("mix")
    return write_published(inputs, resolved, folder, plan, bundle(resolved, run), lambda body: {}, {})


def forge(folder: Path, target: Path, change: Callable[[Path, dict[str, Any]], None]) -> Path:
    """Copy a published folder, change files and the manifest, and make every digest fit again."""
    shutil.copytree(folder, target)
    body = open_published(target).body
    change(target, body)
    entries = []
    for entry in body["files"]:
        if (target / entry["path"]).is_file():
            entries.append(_entry(target, entry["path"]))
    body["files"] = [vars(entry) for entry in entries]
    body["root"] = rows_root(entries, IDS, TABLES)
    if body["prompts_root"] is not None:
        body["prompts_root"] = rows_root(entries, DATA)
    body["recipe_digest"] = digest(body["recipe"])
    write_manifest(target, body)
    return target


def sha256(path: Path) -> str:
    """Return the digest (hex) of a file."""
    return file_digest(path)


def _entry(folder: Path, path: str) -> FileEntry:
    sha256 = file_digest(folder / path)
    size = (folder / path).stat().st_size
    if not path.endswith(".parquet"):
        return FileEntry(path, 0, size, sha256, sha256)
    rows, number = rows_digest(folder / path)
    return FileEntry(path, number, size, sha256, rows)


@pytest.fixture(scope="session")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the recipe, `run` and `published`."""
    folder = tmp_path_factory.mktemp("harbour")
    publish(make_run(folder), folder / "published")
    return folder
