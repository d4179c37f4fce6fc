"""The overlap of real tasks equals a brute-force count over sets of word tuples, in every normalisation.

The brute force has its own way to cut words (but for ours, whose definition is `words`), and looks at one pair of examples
after the other wherever both hold a window.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from taskmill import cli
from taskmill.recipe import Overlap
from taskmill.records import SCHEMAS
from taskmill.splits.overlap import find_overlaps
from taskmill.splits.sharing.sides import outputs, sides
from taskmill.storage import read_table
from taskmill.text import words

N, FREQUENT_GROUPS, LIMIT, EVERY = 13, 6, 150, 30
SNI = "super_natural_instructions/task"
SUPERVISED = [f"{SNI}{number}_" for number in ("109", "126", "248", "809", "1720")]
EVALUATED = [
    *("promptsource/super_glue/", "promptsource/codah/", "evaluation/gsm8k"),
    *(
        f"{SNI}{number}_"
        for number in ("018", "021", "036", "1401", "1537", "1557", "1670", "620", "792", "815")
    ),
]
"""Beginnings of task ids: evaluated only; those above are trained on too."""
NEAR = re.compile(
    r"qasc|codah|boolq|glue|_cb_|obqa|jfleg|ohsumed|scan_|dream|gsm8k|pawsx|mctaco|_offenseval|md_gender|civil_"
)
"""Train tasks that share text with the evaluated ones, or look so."""
Cut = Callable[[str], list[str]]
Window = tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """Some tasks of the real recipe, planned and assigned."""

    tasks: pa.Table
    plan: pa.Table
    assignment: pa.Table
    examples: pa.Table

    def every(self, step: int) -> Slice:
        """Return the slice with every so many examples only."""
        rows = pa.array(range(0, self.examples.num_rows, step))
        return Slice(self.tasks, self.plan, self.assignment.take(rows), self.examples.take(rows))


@pytest.fixture(scope="module")
def part(shared_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """The evaluated tasks, their relatives, and every thirtieth other task; roles are given here, without any check."""
    run, recipe = tmp_path_factory.mktemp("overlap") / "run", repository / "examples/recipes/real.yaml"
    places = ["--set", f"data_root={shared_data}", "--run", str(run)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["curate", str(recipe), *places, "--limit", str(LIMIT), "--quiet"])
    assert not stopped.value.code
    tasks = read_table(run / "tasks/tasks.parquet").sort_by("task")
    roles = {task: role_of(task) for task in tasks["task"].to_pylist()}
    kept = [
        task
        for place, (task, role) in enumerate(roles.items())
        if role != "train" or NEAR.search(task) or place % EVERY == 0
    ]
    value_set = pa.array(kept, pa.string())
    examples = pa.concat_tables(map(read_table, sorted((run / "tasks/examples").glob("*.parquet"))))
    tasks, examples = (t.filter(pc.is_in(t["task"], value_set)) for t in (tasks, examples))
    examples = examples.sort_by([("task", "ascending"), ("example", "ascending")]).combine_chunks()
    levels = {"eval": "partial", "both": "supervised", "train": None}
    plan = [{"task": task, "level": levels[roles[task]], "role": roles[task], "why": ""} for task in kept]
    columns = (examples[name].to_pylist() for name in ("task", "upstream_split", "group"))
    splits = [split_of(roles[task], upstream, group) for task, upstream, group in zip(*columns)]
    assignment = examples.select(["example", "task", "group"]).append_column("split", pa.array(splits))
    assignment = assignment.append_column("reason", pa.nulls(len(splits), pa.string()))
    return Slice(tasks, pa.Table.from_pylist(plan, SCHEMAS["overlaps/plan"]), assignment, examples)


def role_of(task: str) -> str:
    if task.startswith(tuple(SUPERVISED)):
        return "both"
    return "eval" if task.startswith(tuple(EVALUATED)) else "train"


def split_of(role: str, upstream: str | None, group: int) -> str:
    """Of evaluated tasks all but demonstrations and a few excluded ones; of supervised ones half the groups."""
    if upstream == "demonstration":
        return "demonstration"
    if role == "train":
        return "train"
    kind = group % 10
    if role == "eval":
        return "excluded" if kind == 0 else "test"
    return "train" if kind < 5 else "validation" if kind == 5 else "test"


# ---------------------------------------------------------------------------------- four ways to cut


def gpt3_words(text: str) -> list[str]:
    """GPT-3 appendix C, as far as it says: lower case, no punctuation, cut at white space."""
    kept = (character for character in text.lower() if unicodedata.category(character)[0] != "P")
    return "".join(kept).split()


def harness_words(text: str) -> list[str]:
    """lm-evaluation-harness: ASCII letters lowered, ASCII punctuation deleted, cut at white space."""
    table = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)
    return text.translate(table).split()


@pytest.fixture(scope="module")
def tokenizer(part: Slice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a byte-level tokenizer trained on the slice."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(part.examples["fields"].to_pylist()[::40], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return folder


def token_words(folder: Path) -> Cut:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: list(map(str, made.encode(text, add_special_tokens=False).ids))


# --------------------------------------------------------------------------------------- brute force


@dataclass(frozen=True)
class Example:
    """What brute force knows of an example."""

    name: str
    task: str
    group: int
    position: dict[Window, int]
    """Of each window's first word, counted over all texts."""
    input: set[Window]
    output: set[Window]
    whole: object
    outputs: set[int]


def look(
    part: Slice, cut: Cut, is_ours: bool, wanted: np.ndarray, evaluated: set[Window] | None
) -> Iterable[Example]:
    """Cut the wanted examples into windows; only those of `evaluated` are kept where it is given."""
    fields = dict(zip(part.tasks["task"].to_pylist(), part.tasks["output_fields"].to_pylist()))
    for row in part.examples.filter(pa.array(wanted)).to_pylist():
        texts = sides(json.loads(row["fields"]), row["references"], row["options"], fields[row["task"]])
        position, found, line = dict[Window, int](), (set[Window](), set[Window]()), list[str]()
        for windows, text in [(found[k], text) for k, side in enumerate(texts) for text in side]:
            mine = cut(text)
            for i, window in enumerate(zip(*(mine[k:] for k in range(N)))):
                if evaluated is None or window in evaluated:
                    position.setdefault(window, len(line) + i)
                    windows.add(window)
            line += mine
        whole = row["normalised"] if is_ours else tuple(line)
        answers = outputs(row["references"], "\n".join(texts[1]))
        yield Example(
            row["example"], row["task"], row["group"], position, *found, whole if line else None, answers
        )


def brute_force(part: Slice, cut: Cut, is_ours: bool) -> dict[str, Any]:
    """Return every hit and touched example of every pair of tasks, from sets of windows."""
    split, task = (np.array(part.assignment[name].to_pylist()) for name in ("split", "task"))
    role = dict(zip(part.plan["task"].to_pylist(), part.plan["role"].to_pylist()))
    trains, evals = (np.isin([role[name] for name in task], [side, "both"]) for side in ("train", "eval"))
    evaluation = list(look(part, cut, is_ours, (split == "test") | ((split == "validation") & evals), None))
    holders, wholes = defaultdict[Window, list[Example]](list), defaultdict[object, list[Example]](list)
    for example in evaluation:
        for window in example.position:
            holders[window].append(example)
        if not example.position and example.whole is not None:
            wholes[example.whole].append(example)
    pairs: dict[tuple[str, str], dict[tuple[str, str], set[Window]]] = defaultdict(dict)
    known = {example.name: example for example in evaluation}
    groups = defaultdict[Window, set[tuple[str, int]]](set)
    holding = defaultdict[Window, set[str]](set)
    for example in look(
        part, cut, is_ours, (split == "train") | ((split == "demonstration") & trains), set(holders)
    ):
        for other in wholes.get(example.whole, ()):
            pairs[example.task, other.task][example.name, other.name] = set()
        for window in example.position:
            groups[window] |= {(e.task, e.group) for e in (example, *holders[window])}
            holding[window] |= {e.name for e in (example, *holders[window])}
            for other in holders[window]:
                pairs[example.task, other.task].setdefault((example.name, other.name), set()).add(window)
        known.setdefault(example.name, example)
    sizes = Counter(
        task[
            np.isin(split, ["train", "test"])
            | ((split == "demonstration") & trains)
            | ((split == "validation") & evals)
        ].tolist()
    )
    frequent = {
        window
        for window, found in groups.items()
        if len(found) > FREQUENT_GROUPS
        or all(
            sizes[name] >= 20 and count > sizes[name] / 2
            for name, count in Counter(known[e].task for e in holding[window]).items()
        )
    }
    return {
        "pairs": {key: figures(shared, known, frequent) for key, shared in pairs.items()},
        "frequent": {" ".join(window): len(groups[window]) for window in frequent},
        "known": known,
    }


def figures(
    shared: Mapping[tuple[str, str], set[Window]], known: Mapping[str, Example], frequent: set[Window]
) -> dict[str, Any]:
    """Return the rows of hits and touched of one pair of tasks."""
    hits: dict[str, dict[str, Any]] = {}
    touched: dict[str, bool] = {}
    for (train, name), windows in sorted(shared.items()):
        touched[train] = touched.get(train, True) and bool(windows) and windows <= frequent
        hit = hits.setdefault(name, {"train_example": train, "windows": set(), "same_output": False})
        hit["windows"] |= windows
        hit["same_output"] |= bool(known[train].outputs & known[name].outputs)
    for name, hit in hits.items():
        windows = hit.pop("windows")
        on = ["input"] * bool(windows & known[name].input) + ["output"] * bool(windows & known[name].output)
        hit["num_grams"] = len(windows)
        hit["side"] = on[0] if len(on) == 1 else "both"
        hit["frequent"] = bool(windows) and windows <= frequent
    return {"hits": hits, "touched": touched}


# --------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("mode", ["words-1", "gpt3", "lm-eval", "tokenizer"])
def test_every_pair_and_example_equals_brute_force(
    part: Slice, mode: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("tokenizer") if mode == "tokenizer" else None
    part = part.every(3) if folder else part  # the slow one
    cuts: dict[str, Cut] = {"words-1": words, "gpt3": gpt3_words, "lm-eval": harness_words}
    cut = token_words(folder) if folder else cuts[mode]
    settings = Overlap(
        n=N, normalisation=mode, tokenizer=str(folder) if folder else None, frequent_groups=FREQUENT_GROUPS
    )
    batches = part.examples.to_batches(max_chunksize=3000)
    tables = find_overlaps(part.tasks, part.plan, part.assignment, lambda: batches, settings, 2)
    expected = brute_force(part, cut, mode == "words-1")
    assert {row["text"]: row["num_groups"] for row in tables["frequent"].to_pylist()} == expected["frequent"]
    assert len(expected["pairs"]) > 60 and (folder or expected["frequent"])
    seen: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"hits": {}, "touched": {}})
    for row in tables["hits"].to_pylist():
        pair = seen[row.pop("train_task"), row.pop("eval_task")]
        pair["hits"][row.pop("eval_example")] = row
    for row in tables["touched"].to_pylist():
        seen[row["train_task"], row["eval_task"]]["touched"][row["train_example"]] = row["frequent"]
    assert seen.keys() == expected["pairs"].keys()
    for key, pair in expected["pairs"].items():
        assert seen[key] == pair, key
    check_pairs(tables["pairs"].to_pylist(), expected["pairs"])
    check_evidence(tables["evidence"].to_pylist(), expected["known"])


def check_pairs(rows: Sequence[Mapping[str, Any]], pairs: Mapping[tuple[str, str], Any]) -> None:
    """Assert that the figures of pairs follow from their hits."""
    found = {(row["train_task"], row["eval_task"]): row for row in rows}
    assert len(found) == len(rows) and pairs.keys() <= found.keys()
    assert all(found[key]["same_dataset"] for key in found.keys() - pairs.keys())
    for key, row in found.items():
        hits = list(pairs[key]["hits"].values()) if key in pairs else []
        real = [hit for hit in hits if hit["num_grams"]]
        counts = {
            "hit_fraction": len(real),
            "hit_fraction_rare": sum(not hit["frequent"] for hit in real),
            "hit_input": sum(hit["side"] != "output" for hit in real),
            "hit_output": sum(hit["side"] != "input" for hit in real),
        }
        assert {name: row[name] for name in counts} == {
            name: number / row["num_eval"] for name, number in counts.items()
        }
        numbers = {
            "num_hit": len(real),
            "num_short_equal": len(hits) - len(real),
            "num_same_output": sum(hit["same_output"] for hit in hits),
            "num_train_touched": len(pairs[key]["touched"]) if key in pairs else 0,
        }
        assert {name: row[name] for name in numbers} == numbers
    assert sum(row["num_short_equal"] for row in rows) and any(row["hit_output"] for row in rows)


def check_evidence(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Example]) -> None:
    """Assert that each window is the first of the evaluation example that the train example holds, where it says."""
    for row in rows:
        train, evaluation = known[row["train_example"]], known[row["eval_example"]]
        window = tuple(row["window"].split(" "))
        if not evaluation.position:
            assert (row["train_position"], row["eval_position"]) == (0, 0)
            continue
        common = train.position.keys() & evaluation.position.keys()
        assert window == min(common, key=lambda window: evaluation.position[window])
        assert row["train_position"] == train.position[window]
        assert row["eval_position"] == evaluation.position[window]
    assert len({row["eval_example"] for row in rows}) > 50
    assert any(chain.from_iterable((row["train_position"], row["eval_position"]) for row in rows))
