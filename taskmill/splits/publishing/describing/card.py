"""The card of a published benchmark: README.md as the Hub reads it, from its manifest and nothing else.

Reads `card.yaml` of the package, which has the words. Names, reasons and ids in a manifest are anybody's text; on the card they
are text and nothing more (`markdown`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from taskmill.records import CONFIGURATIONS, LEVELS, SPLITS
from taskmill.safe_yaml import load_yaml
from taskmill.splits.publishing.describing.card_front import (
    EXCLUDED,
    TRAIN,
    configurations,
    front,
    num_examples,
    num_prompts,
    num_tasks,
    without_prompts,
)
from taskmill.splits.publishing.describing.citations import benchmark_bibtex
from taskmill.splits.publishing.describing.markdown import code, line, plain, table
from taskmill.splits.publishing.describing.redistribution import judge
from taskmill.splits.publishing.rerunning.recipe_bundle import needs_data_root

Body = Mapping[str, Any]
NUM_KEPT = 20
"""Pairs that were kept although above the threshold, on the card; the manifest names more."""
NUM_CITED = 6
"""Names of benchmarks beside a citation."""
_FILE = Path(__file__).parent / "card.yaml"
_NONE = "\u2013"


def card(body: Body, repository: str | None) -> str:
    """Return README.md.

    Args:
        body: the manifest; the entries of README.md and croissant.json need not be there.
        repository: owner/name on the Hub, None where the folder is not made for one.
    """
    name = line(body["name"])
    head = yaml.safe_dump(front(body, name, repository), sort_keys=False, allow_unicode=True, width=1_000_000)
    target = repository or "FOLDER"
    parts = [
        f"---\n{head}---",
        f"# {plain(name)}",
        *_about(body),
        *_how_to_load(body, target),
        *_levels(body),
        *_leakage(body),
        *_licenses(body),
        *_sources(body),
        *_citation(body, repository),
        *_how_to_extend(body, target),
    ]
    return "\n\n".join(parts) + "\n"


def _about(body: Body) -> Iterator[str]:
    levels = []
    for level, splits in _shown(body):
        number = sum(number for split, number in splits.items() if split != EXCLUDED)
        kind = "only trained on" if level == TRAIN else level.replace("_", " ")
        levels.append(f"{_many(number, 'example')} {kind} ({_many(body['tasks'].get(level, 0), 'task')})")
    before = body["extends"]
    yield _say(
        "about",
        num_tasks=_many(num_tasks(body), "task"),
        num_examples=_many(num_examples(body), "example"),
        version=plain(body["taskmill"]["version"]),
        levels=", ".join(levels) or "none",
        holds=_say("holds_data", num_prompts=_many(num_prompts(body), "prompt"))
        if _with_data(body)
        else _say("holds_ids"),
        extends=_say("extends", name=plain(before["name"]), root=code(before["root"])) if before else "",
    )
    yield _say("root", root=code(body["root"]))


def _how_to_load(body: Body, target: str) -> Iterator[str]:
    yield "## How to load"
    offered = configurations(body)
    if offered:
        lines = ["from datasets import load_dataset", ""]
        for name in offered:
            split = ', split="train"' if name == TRAIN else ""
            lines.append(f'{name} = load_dataset("{target}", "{name}"{split})')
        yield _block("python", "\n".join(lines))
    if TRAIN in offered:
        yield _say("train")
    if without_prompts(body):
        yield _say("no_prompts", levels=", ".join(code(level) for level in without_prompts(body)))
    yield _say("rows_data" if _with_data(body) else "rows_ids")
    yield _say("rebuild")
    place = " --data-root DIR" if needs_data_root(body["sources"]) else ""
    yield _block("sh", f"taskmill rebuild {target} --run runs/rebuilt{place} --hydrate texts")
    if place:
        yield _say("data_root")
    yield _say("verify")
    yield _block("sh", f"taskmill verify {target}")


def _levels(body: Body) -> Iterator[str]:
    rows = []
    for level, splits in _shown(body):
        numbers = [_count(splits.get(split, 0)) for split in SPLITS]
        rows.append([code(level), _words()["levels"][level], _count(body["tasks"].get(level, 0)), *numbers])
    yield "## Levels and splits"
    yield table(("level", "what it is", "tasks", *SPLITS), rows)
    yield _say("levels")


def _leakage(body: Body) -> Iterator[str]:
    leakage, overlap = body["leakage"], body["overlap"]
    n, normalisation = _count(overlap["n"]), str(overlap["normalisation"])
    yield "## Leakage"
    yield _say(
        "compared",
        n=n,
        normalisation=code(normalisation),
        words=_words()["normalisations"].get(normalisation, "words are cut in a way of its own"),
        num_pairs=_count(leakage["num_pairs"]),
        threshold=f"{100 * leakage['threshold']:g} %",
    )
    words, states = _words()["states"], leakage["states"]
    order = [*(state for state in words if state in states), *sorted(set(states) - set(words))]
    if order:
        rows = [(plain(words.get(state, state)), _count(states[state])) for state in order]
        yield table(("pairs of tasks", "number"), rows)
    yield _say(
        "unclean",
        num_unclean=_count(leakage["num_unclean"]),
        num_unclean_rare=_count(leakage["num_unclean_rare"]),
        frequent_groups=_count(overlap["frequent_groups"]),
        num_perm=plain(overlap["near_duplicates"]["num_perm"]),
        similarity=plain(overlap["near_duplicates"]["threshold"]),
    )
    yield from _kept(leakage)
    yield _say("proves", n=n)


def _kept(leakage: Mapping[str, Any]) -> Iterator[str]:
    shown = leakage["kept"][:NUM_KEPT]
    if not shown:
        yield _say("none_kept")
        return
    number = leakage["num_kept"]
    yield _say(
        "kept", num_kept=_count(number), shown=f"; the worst {len(shown)}" if number > len(shown) else ""
    )
    head = ("train task", "evaluation task", "level", "touched", "without frequent runs", "kept by", "why")
    rows = [
        (
            code(pair["train_task"]),
            code(pair["eval_task"]),
            plain(pair["level"]),
            _percent(pair["hit_fraction"]),
            _percent(pair["hit_fraction_rare"]),
            "a rule" if pair["by"] == "rule" else "a person",
            plain(pair["why"] or _NONE),
        )
        for pair in shown
    ]
    yield table(head, rows)


def _licenses(body: Body) -> Iterator[str]:
    rows = []
    for row in body["licenses"]:
        judgement = judge(str(row["license"]))
        rows.append(
            (
                plain(row["license"]),
                _count(row["num_tasks"]),
                _count(row["num_examples"]),
                "yes" if row["with_data"] else "no",
                f"{'yes' if judgement.allowed else 'no'}: {judgement.why}",
            )
        )
    yield "## Licences"
    yield table(("licence", "tasks", "examples", "text here", "may the text be handed on?"), rows)
    yield _say("licenses_data" if _with_data(body) else "licenses_ids")


def _sources(body: Body) -> Iterator[str]:
    rows = []
    for source in body["sources"]:
        home, revision = str(source["hub"] or source["repository"] or "").split("@")[0], source["revision"]
        home = home or ("" if source["path"] == "." else str(source["path"]))
        records = [file["records"] for file in source["files"] if file["records"] is not None]
        rows.append(
            (
                plain(source["benchmark"] or source["reader"]),
                code(source["reader"]),
                code(home) if home else _NONE,
                code(revision) if revision else _NONE,
                plain(source["license"] or _NONE),
                _count(len(source["files"])),
                _count(sum(records)) if records else _NONE,
            )
        )
    yield "## Sources"
    yield table(
        ("benchmark", "reader", "repository or place", "revision", "licence", "files", "records"), rows
    )
    yield _say("sources")


def _citation(body: Body, repository: str | None) -> Iterator[str]:
    yield "## Citation"
    yield _block("bibtex", benchmark_bibtex(line(body["name"]), str(body["root"]), repository))
    rows = []
    for entry in body["citations"]:
        names = [code(name) for name in entry["benchmarks"]]
        more = f" and {_count(len(names) - NUM_CITED)} more" if len(names) > NUM_CITED else ""
        rows.append(
            (plain(entry["title"]), ", ".join(names[:NUM_CITED]) + more if names else "the three levels")
        )
    if rows:
        yield _say("cite")
        yield table(("work", "for"), rows)
        yield _block("bibtex", "\n\n".join(str(entry["bibtex"]) for entry in body["citations"]))


def _how_to_extend(body: Body, target: str) -> Iterator[str]:
    yield "## How to extend"
    yield _say("extend")
    commands = (
        f"taskmill extend {target} --add more.yaml --run runs/larger\ntaskmill diff {target} runs/larger"
    )
    yield _block("sh", commands)
    built = body["built_with"]
    libraries = [f"{plain(name)} {plain(version)}" for name, version in sorted(built["libraries"].items())]
    built_with = ", ".join([f"Python {plain(built['python'])}", *libraries])
    yield _say("recipe", seed=plain(body["seed"]), built_with=built_with)


def _shown(body: Body) -> list[tuple[str, Mapping[str, int]]]:
    """Return (configuration, split -> examples) of those that there are, levels first."""
    order = (*LEVELS, *(name for name in CONFIGURATIONS if name not in LEVELS))
    return [(name, body["levels"][name]) for name in order if body["levels"].get(name)]


def _with_data(body: Body) -> bool:
    return body["prompts_root"] is not None


def _block(language: str, text: str) -> str:
    """Return a block of code that nothing in it can end."""
    kept = [one for one in text.splitlines() if not one.lstrip().startswith("```")]
    return "\n".join([f"```{language}", *kept, "```"])


def _say(key: str, /, **values: str) -> str:
    text: str = _words()["words"][key]
    return text.format(**values)


@functools.cache
def _words() -> Mapping[str, Any]:
    words: Mapping[str, Any] = load_yaml(_FILE.read_text(encoding="utf-8"))
    return words


def _count(number: int) -> str:
    return f"{number:,}"


def _many(number: int, noun: str) -> str:
    return f"{_count(number)} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    """Return a share of 1: 12.3 %; what is above 0 never shows as 0."""
    value = 100 * share
    return "<0.1 %" if 0 < value < 0.1 else f"{value:.1f} %"
