"""Facts that need upstream's files: Super-NaturalInstructions' split lists and PromptSource's templates, read by their readers.

Reads below the folder that `--data` names; `compute` returns key -> value for `published.yaml`, None where the files are
not there.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.curation.sources._yaml import load_yaml
from taskmill.curation.taxonomy import load_taxonomy, taxonomy_files
from taskmill.errors import DataError

_LISTS = "Super-NaturalInstructions' splits/default/{train,test,excluded}_tasks.txt"
_TEMPLATES = "PromptSource's templates/**/templates.yaml"
TULU: dict[str, tuple[str, str, dict[str, str]]] = {
    "dolly": ("dolly", "databricks-dolly-15k.jsonl", {}),
    "oasst1": ("oasst", "oasst1", {"task": "oasst1", "paths": "all_assistant"}),
    "gpt4_alpaca": ("alpaca", "alpaca_gpt4_data.json", {}),
    "code_alpaca": ("alpaca", "code_alpaca_20k.json", {}),
    "sharegpt": ("sharegpt", "sharegpt", {"task": "sharegpt", "rules": "tulu"}),
}
"""Sets that TULU takes whole: reader, place and options, as the recipe `tulu` has them."""
NEEDS = {
    **dict.fromkeys(
        ("split.train", "split.test", "split.excluded", "split.test_by_category", "split.opt_iml_test"),
        _LISTS,
    ),
    **{f"tulu.{name}": f"the whole set {name} of TÜLU, at {place}" for name, (_, place, _) in TULU.items()},
    "eps.capped": "the sizes of OPT-IML Bench's train tasks, which are not published",
    **dict.fromkeys(
        (
            "promptsource.files",
            "promptsource.templates",
            "promptsource.original",
            "promptsource.changed",
            "promptsource.unmarked",
            "promptsource.files_without_original",
            "promptsource.kept_per_file",
        ),
        _TEMPLATES,
    ),
}
"""Key -> the upstream files that it is counted in."""
LISTS = ("super_natural_instructions/splits/default", "splits/default", "natural-instructions/splits/default")
TEMPLATES = ("promptsource/templates", "promptsource/promptsource/templates", "templates")
"""Where they are looked for below the folder."""


def compute(data: Path) -> dict[str, Any]:
    """Return the figures of upstream's files by key.

    Raises:
        DataError: a file of templates is no YAML.
    """
    found = {**_splits(_find(data, LISTS)), **_promptsource(_find(data, TEMPLATES)), **_tulu(data)}
    return {**dict.fromkeys(NEEDS), **found}


def _find(data: Path, places: tuple[str, ...]) -> Path | None:
    return next((data / place for place in places if (data / place).is_dir()), None)


def _splits(folder: Path | None) -> dict[str, Any]:
    if folder is None or not all(
        (folder / f"{role}_tasks.txt").is_file() for role in ("train", "test", "excluded")
    ):
        return {}
    tasks = {
        role: (folder / f"{role}_tasks.txt").read_text(encoding="utf-8").split()
        for role in ("train", "test", "excluded")
    }
    taxonomy = load_taxonomy(taxonomy_files([]))
    category = Counter(
        taxonomy.row(f"super_natural_instructions/{task}")["category"] for task in tasks["test"]
    )
    three = ("Textual Entailment", "Coreference Resolution", "Dialogue Act Recognition")
    return {
        **{f"split.{role}": len(names) for role, names in tasks.items()},
        "split.test_by_category": dict(sorted(category.items())),
        "split.opt_iml_test": sum(category[name] for name in three),
    }


def _promptsource(folder: Path | None) -> dict[str, Any]:
    files = sorted(folder.rglob("templates.yaml")) if folder is not None else []
    if not files:
        return {}
    marks: list[list[Any]] = []
    for path in files:
        templates = load_yaml(path.read_text(encoding="utf-8")).get("templates")
        if not isinstance(templates, dict):
            raise DataError(
                "no templates", file=str(path), field="templates", expected="a mapping of templates"
            )
        marks.append([t["metadata"].get("original_task") for t in templates.values()])
    every = [mark for file in marks for mark in file]
    return {
        "promptsource.files": len(files),
        "promptsource.templates": len(every),
        "promptsource.original": every.count(True),
        "promptsource.changed": every.count(False),
        "promptsource.unmarked": every.count(None),
        "promptsource.files_without_original": sum(True not in file for file in marks),
        "promptsource.kept_per_file": every.count(True) / len(files),
    }


def _tulu(data: Path) -> dict[str, int]:
    """Return the examples that the readers find in the sets that are there; a piece of a conversation is none."""
    found = {}
    for name, (reader_name, place, options) in TULU.items():
        if (data / place).exists():
            reader = load_reader(reader_name)
            source = SourceFolder(data / place, data, options, "stop")
            entries = reader.discover(source)
            found[f"tulu.{name}"] = sum(len(reader.read(entry, source).columns) for entry in entries)
    return found
