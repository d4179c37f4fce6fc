"""Rows for `promptsource_fidelity.py`: real ones through the casts, and invented ones with odd values.

Reads `examples/recipes/catalogue.yaml` (where the rows of which data set lie) below a folder of real upstream files, and
`tests/curation/fixtures/casts/hub_rows.jsonl` (one invented row of each data set with templates).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from measuring import ROOT
from promptsource_engines import Row, Template

from taskmill import seeding
from taskmill.curation.casting import casts_by_folder
from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.curation.sources._yaml import load_yaml
from taskmill.curation.sources.promptsource import template_row

INVENTED = ROOT / "tests/curation/fixtures/casts/hub_rows.jsonl"
RECIPE = ROOT / "examples/recipes/catalogue.yaml"
SHIPPED = ROOT / "examples/meta_datasets/promptsource"
SEED = 5
LABELS = range(-1, 5)
TEXTS = (
    "",
    " ",
    "  two  spaces \n",
    "left ||| right",
    "|||",
    "Größe, 漢字 und 🙂",
    "{{ answer_choices }} {% raw %}",
    "<b>&amp;</b> \"quoted\" 'so'",
    "one\r\ntwo\ttabs\u2028three",
    "e\u0301 \u00a0 \u200b",
    "a, b; c. d! [SEP] e @highlight f _ g",
    "12",
    "long " * 600,
)
NUMBERS = (-1, 0, 1, 2, 3, 7, 2**63, 10**25, 0.5, -2.75, 3.0)

_TURNS = ["who directed the mill", "Ode", "what is it about", "bread", "what else", "the river"]
_MEANING = (
    "name[The Mill], eatType[pub], food[bread], priceRange[cheap], customer rating[high], area[river], "
    "familyFriendly[yes], near[sea]"
)
_BUGGY = ["def f(", "a", ")", ":", "#NEWLINE#", "#INDENT#", "return ", "b", "#UNINDENT#"]
_NAMES = [
    [{"name": kind, "sent_id": 0, "pos": [0, 1], "type": kind}]
    for kind in ("PER", "LOC", "ORG", "TIME", "NUM")
]
BRANCHES: dict[str, list[Row]] = {
    "super_glue/copa": [{"question": "cause"}, {"question": "effect"}],
    "trec": [
        {"coarse_label": coarse, "fine_label": fine} for coarse, fine in ((0, 2), (2, 26), (4, 34), (5, 40))
    ],
    "cos_e/v1.0": [{"choices": ["stone", "water", "bread"]}],
    "discofuse/discofuse-sport": [{"coherent_second_sentence": ""}],
    "discofuse/discofuse-wikipedia": [{"coherent_second_sentence": ""}],
    "docred": [{"vertexSet": _NAMES}],
    "e2e_nlg_cleaned": [{"meaning_representation": _MEANING}],
    "great_code": [
        {
            "source_tokens": _BUGGY,
            "has_bug": True,
            "error_location": 7,
            "repair_candidates": ["1"],
            "repair_targets": [1],
        }
    ],
    "liar": [{"party_affiliation": "democrat"}],
    "mdd/task3_qarecs": [
        {"dialogue_turns": {"speaker": [0, 1, 0, 1, 0, 1][:size], "utterance": _TURNS[:size]}}
        for size in (4, 6)
    ],
    "scientific_papers/arxiv": [{"article": "one\ntwo\nthree\nfour\nfive\nsix"}],
    "scientific_papers/pubmed": [{"article": "one\ntwo\nthree\nfour\nfive\nsix"}],
    "selqa/answer_selection_analysis": [{"topic": 3}],
    "wiki_hop/masked": [{"question": f"{relation} ode"} for relation in ("place_of_birth", "place_of_death")],
}
"""Columns of further rows, for templates that only render where these say so."""


def templates_below(folder: Path) -> list[Template]:
    """Read every `templates.yaml` of a folder."""
    found = []
    for path in sorted(folder.rglob("templates.yaml")):
        dataset = path.parent.relative_to(folder).as_posix()
        listed = load_yaml(path.read_text(encoding="utf-8"))["templates"]
        found += [Template(dataset, str(key), template_row(str(key), value)) for key, value in listed.items()]
    return found


def real_rows(data: Path, most: int) -> dict[str, list[Row]]:
    """Return up to `most` rows, evenly spaced, of every data set that the recipe of the whole catalogue knows."""
    reader, found = load_reader("promptsource"), {}
    for stated in yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["sources"]:
        if stated["reader"] == "promptsource":
            source = SourceFolder(data / stated["path"], data, named(stated["options"]), "stop")
            for entry in reader.discover(source):
                found[entry.name] = spaced(reader.read(entry, source).columns.fields, most)
    return found


def named(value: Any) -> Any:
    """Return YAML values with text for every key: the split of unlabelled rows is called null."""
    if isinstance(value, dict):
        return {"null" if key is None else str(key): named(item) for key, item in value.items()}
    return value


def shipped_rows(most: int) -> dict[str, list[Row]]:
    """Return up to `most` rows of every data set of the example that ships with the repository."""
    reader = load_reader("promptsource")
    casts = (SHIPPED.parent / "casts",)
    source = SourceFolder(SHIPPED, SHIPPED, {}, "stop", casts)
    return {e.name: spaced(reader.read(e, source).columns.fields, most) for e in reader.discover(source)}


def spaced(rows: list[Row], most: int) -> list[Row]:
    """Return at most `most` rows, evenly spaced."""
    return rows if len(rows) <= most else [rows[place * len(rows) // most] for place in range(most)]


def invented_rows() -> dict[str, Row]:
    """Return one row of each data set with templates; data sets that share a cast share the row of one of them."""
    lines = INVENTED.read_text(encoding="utf-8").strip().split("\n")
    named = {held["name"]: held["row"] for held in map(json.loads, lines)}
    casts = casts_by_folder([])
    shared = {casts[name].name: row for name, row in named.items()}
    return {name: shared[cast.name] for name, cast in casts.items() if cast.name in shared} | named


def odd_rows(row: Row, name: str, num_rows: int) -> Iterator[Row]:
    """Yield `row`, `row` with what `BRANCHES` has and under every label, then `num_rows` with values replaced by hash."""
    yield copy.deepcopy(row)
    for columns in BRANCHES.get(name, ()):
        yield {**copy.deepcopy(row), **copy.deepcopy(columns)}
    labels = [key for key, value in row.items() if type(value) is int and key not in ("idx", "id")]
    for label in LABELS if labels else ():
        yield {**copy.deepcopy(row), **dict.fromkeys(labels, label)}
    for number in range(num_rows):
        yield {
            key: value
            for key, value in _odd(row, name, (number,)).items()
            if seeding.uniform(SEED, "odd/gone", name, number, key) >= 0.03
        }


def _odd(value: Any, name: str, place: tuple[Any, ...]) -> Any:
    """Return a value with about a third of what it holds replaced."""
    drawn = seeding.uniform(SEED, "odd", name, *place)
    pick = seeding.derive(SEED, "odd/pick", name, *place)
    if isinstance(value, dict):
        return {key: _odd(item, name, (*place, key)) for key, item in value.items()}
    if drawn < 0.03:
        return None
    if isinstance(value, list):
        items = [_odd(item, name, (*place, number)) for number, item in enumerate(value)]
        return ([], items[:1], items[::-1], items + items[:1])[pick % 4] if drawn < 0.12 else items
    if drawn > 0.3:
        return value
    if isinstance(value, bool):
        return not value
    return TEXTS[pick % len(TEXTS)] if isinstance(value, str) else NUMBERS[pick % len(NUMBERS)]
