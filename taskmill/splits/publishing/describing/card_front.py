"""The front of a dataset card: what the Hub and `load_dataset` read of README.md.

Reads `card_front.yaml` of the package, and the manifest. Every file is named: a pattern would take files that are not listed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taskmill.records import CONFIGURATIONS, LEVELS, SPLITS
from taskmill.safe_yaml import load_yaml
from taskmill.splits.publishing.published import DATA, IDS

Body = Mapping[str, Any]
TRAIN, EXCLUDED = "train", "excluded"
MIXED = "mixed-per-task"
_FILE = Path(__file__).parent / "card_front.yaml"


def front(body: Body, name: str, repository: str | None) -> dict[str, Any]:
    """Return the front of the card.

    Args:
        body: the manifest.
        name: of the benchmark, as plain text.
        repository: owner/name on the Hub.
    """
    found: dict[str, Any] = {
        "pretty_name": name,
        **_license(body, repository),
        "language": language_codes(body.get("languages", ())),
        "task_categories": _task_categories(body.get("categories", ())),
        "size_categories": [_size(num_examples(body))],
        "tags": tags(body),
        "configs": [
            {"config_name": configuration, "data_files": [_data_files(*item) for item in splits.items()]}
            for configuration, splits in configurations(body).items()
        ],
    }
    return {key: value for key, value in found.items() if value}


def configurations(body: Body, top: str | None = None) -> dict[str, dict[str, list[str]]]:
    """Return configuration -> split -> files below `top`, as `load_dataset` offers them; without the excluded examples.

    The configuration of a level is all that its tasks have. `train` has every train example of the benchmark, of whatever
    level, and further splits of tasks without one.
    """
    top = top or root_folder(body)
    places: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(body["files"], key=lambda entry: str(entry["path"])):
        folder, *rest = str(entry["path"]).split("/")
        if folder == top and len(rest) == 2 and rest[1].endswith(".parquet"):
            split = rest[1].removesuffix(".parquet").split("-")[0]
            places.setdefault((rest[0], split), []).append(str(entry["path"]))
    found: dict[str, dict[str, list[str]]] = {}
    for configuration in (*LEVELS, TRAIN):
        for split in (split for split in SPLITS if split != EXCLUDED):
            every = configuration == TRAIN and split == TRAIN
            paths = [
                path
                for one in (CONFIGURATIONS if every else [configuration])
                for path in places.get((one, split), ())
            ]
            if paths:
                found.setdefault(configuration, {})[split] = paths
    return found


def without_prompts(body: Body) -> list[str]:
    """Return the levels of a benchmark with data that have examples in use and no prompt: no licence allows any."""
    offered = configurations(body) if body["prompts_root"] is not None else body["levels"]
    return [
        name for name, splits in body["levels"].items() if name not in offered and splits.keys() - {EXCLUDED}
    ]


def root_folder(body: Body) -> str:
    """Return the folder whose rows `load_dataset` gives: prompts where there are any, ids else."""
    return DATA if body["prompts_root"] is not None else IDS


def num_examples(body: Body) -> int:
    """Return the examples that are not excluded."""
    return sum(
        number for splits in body["levels"].values() for split, number in splits.items() if split != EXCLUDED
    )


def num_prompts(body: Body) -> int:
    """Return the prompts that are published."""
    return sum(int(entry["num_rows"]) for entry in body["files"] if str(entry["path"]).startswith(f"{DATA}/"))


def num_tasks(body: Body) -> int:
    """Return the tasks with an example that is not excluded."""
    return sum(body["tasks"].values())


def language_codes(languages: Iterable[str]) -> list[str]:
    """Return the codes of languages that are known by their names, sorted."""
    codes = {name: code for code, names in _hub()["languages"].items() for name in names}
    return sorted({codes[language] for language in languages if language in codes})


def _data_files(split: str, paths: list[str]) -> dict[str, Any]:
    return {"split": split, "path": paths[0] if len(paths) == 1 else paths}


def _license(body: Body, repository: str | None) -> dict[str, str]:
    """Return the licence that all tasks share, in the Hub's spelling; else that each task has its own."""
    stated = {str(row["license"]) for row in body["licenses"]}
    if len(stated) == 1:
        (license,) = stated
        known = hub_license(license)
        if known is not None:
            return {"license": known}
    link = f"https://huggingface.co/datasets/{repository}#licences" if repository else ""
    return {"license": "other", "license_name": MIXED, **({"license_link": link} if link else {})}


def hub_license(license: str) -> str | None:
    """Return the Hub's identifier of a licence; None where it has none."""
    listed = _hub()
    folded = license.casefold()
    if license == "unknown" or folded in listed["same_licenses"]:
        return folded
    other = listed["licenses"].get(license)
    return None if other is None else str(other)


def _size(number: int) -> str:
    listed = _hub()
    return next(
        (str(row["name"]) for row in listed["sizes"] if number < row["below"]), str(listed["largest"])
    )


def _task_categories(categories: Iterable[str]) -> list[str]:
    present = set(categories)
    listed = _hub()["task_categories"].items()
    return sorted({"text-generation", *(name for name, ours in listed if present & set(ours))})


def tags(body: Body) -> list[str]:
    """Return the words under which it is found."""
    found = ["taskmill", "benchmark", "instruction-tuning", "croissant"]
    return [
        *found,
        *(level.replace("_", "-") for level in LEVELS if level in body["levels"]),
        str(body["mode"]),
    ]


@functools.cache
def _hub() -> Mapping[str, Any]:
    listed: Mapping[str, Any] = load_yaml(_FILE.read_text(encoding="utf-8"))
    return listed
