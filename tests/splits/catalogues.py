"""Small catalogues for the tests of splits: tables as curate writes them, runs on disk, and overlaps by brute force."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from taskmill.artifact import Identity, Inputs, Manifest, StageWriter, open_stage
from taskmill.normalisers import WORDS, Normaliser
from taskmill.plain import to_json
from taskmill.recipe import Overlap, Plan, Recipe, Resolved, Split
from taskmill.records import DIRECTORIES, SCHEMAS
from taskmill.settings import Settings
from taskmill.splits.sharing.sides import outputs, sides
from taskmill.storage import canonical_json
from taskmill.text import gram_hashes, short_key, text_leaves, word_hashes


def example_row(
    task: str, name: str, fields: Mapping[str, Any], references: Sequence[str] = (), **more: Any
) -> dict:
    """An example as curate writes it; `more` may give upstream_split, group and options."""
    options = more.get("options")
    body = {"fields": fields, "references": list(references), "options": options}
    return {
        "example": f"{task}#{name}",
        "task": task,
        "upstream_split": more.get("upstream_split"),
        "group": more.get("group", int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")),
        "fields": canonical_json(dict(fields)).decode(),
        "references": list(references),
        "options": options,
        "quality": None,
        "content": hashlib.sha256(canonical_json(body)).digest(),
        "normalised": short_key(text for _, text in text_leaves(body)),
        "file": "file.json",
        "record": 0,
    }


def examples_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    ordered = sorted(rows, key=lambda row: (row["task"], row["example"]))
    return pa.Table.from_pylist(ordered, schema=SCHEMAS["tasks/examples"])


def task_row(task: str, category: str, dataset: str | None = None, output_fields: Sequence[str] = ()) -> dict:
    values = {field.name: _blank(field) for field in SCHEMAS["tasks/tasks"]}
    benchmark, _, name = task.partition("/")
    values |= {"task": task, "benchmark": benchmark, "name": name, "category": category}
    return values | {"dataset": dataset or task, "output_fields": list(output_fields)}


def _blank(field: pa.Field) -> Any:
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    return {pa.string(): "", pa.int64(): 0, pa.bool_(): False}[field.type]


def tasks_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["task"]), schema=SCHEMAS["tasks/tasks"])


# ------------------------------------------------------------------------------------- runs on disk


def write_catalogue(run: Path, tasks: pa.Table, examples: pa.Table) -> None:
    """Write the stage curate of a run."""
    writer = StageWriter(run / DIRECTORIES["curate"], Identity("curate", 1, {}, 0, None, (), {}))
    with writer.shard("all", []) as shard:
        shard.write_table("tasks.parquet", SCHEMAS["tasks/tasks"], tasks)
        middle = examples.num_rows // 2
        while 0 < middle < examples.num_rows and examples["task"][middle] == examples["task"][middle - 1]:
            middle += 1
        for number, part in enumerate((examples.slice(0, middle), examples.slice(middle))):
            shard.write_table(f"examples/part-{number}.parquet", SCHEMAS["tasks/examples"], part)
    writer.add(shard.record)
    writer.finish()


def run_stage(
    stage: str,
    module: ModuleType,
    run: Path,
    plan: Plan | None = None,
    overlap: Overlap | None = None,
    split: Split | None = None,
    force: bool = False,
    workers: int = 1,
) -> Manifest:
    """Run a stage as the command line does."""
    recipe = Recipe("test", (), plan=plan or Plan(), overlap=overlap or Overlap(), split=split or Split())
    settings = Settings(Resolved(recipe, {}, run, ""), module.SECTIONS, workers)
    inputs = Inputs({name: run / folder for name, folder in DIRECTORIES.items()})
    external = module.external(settings, inputs) if hasattr(module, "external") else {}
    sections = {name: to_json(getattr(recipe, name)) for name in module.SECTIONS}
    identity = Identity(
        stage, module.REVISION, sections, recipe.seed, None, inputs.identity(module.READS), external
    )
    out = open_stage(run / DIRECTORIES[stage], identity, force)
    return out if isinstance(out, Manifest) else module.build(settings, inputs, out)


# --------------------------------------------------------------------------------------- brute force


def example_sides(row: Mapping[str, Any], output_fields: Sequence[str]) -> tuple[list[str], list[str]]:
    return sides(json.loads(row["fields"]), row["references"], row["options"], output_fields)


def windows(text: str, n: int, normaliser: Normaliser = WORDS) -> set[tuple[str, ...]]:
    found = normaliser.words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def window_hash(window: tuple[str, ...], normaliser: Normaliser) -> bytes:
    return gram_hashes(*word_hashes([" ".join(window)], normaliser), len(window))[0].astype(">u8").tobytes()


def whole_digest(row: Mapping[str, Any], texts: Sequence[str], normaliser: Normaliser) -> bytes:
    """The digest of all words of an example: curate's own where these are the words it cuts."""
    if normaliser is WORDS:
        return row["normalised"]
    line = " ".join(word for text in texts for word in normaliser.words(text))
    return hashlib.blake2b(line.encode(), digest_size=16, person=normaliser.name.encode()).digest()


def brute_force(
    train: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]],
    output_fields: Mapping[str, Sequence[str]],
    n: int,
    frequent_groups: int,
    normaliser: Normaliser = WORDS,
) -> dict[str, Any]:
    """Every figure of every pair, from sets of word tuples: {(train task, eval task): {...}}."""
    facts = {
        row["example"]: _facts(row, output_fields[row["task"]], n, normaliser)
        for row in (*train, *evaluation)
    }
    holders: dict[tuple[str, ...], tuple[set, set]] = {}
    for side, rows in enumerate((train, evaluation)):
        for row in rows:
            for window in facts[row["example"]]["all"]:
                holders.setdefault(window, (set(), set()))[side].add((row["task"], row["group"]))
    shared = {window: a | b for window, (a, b) in holders.items() if a and b}
    sizes = Counter(row["task"] for row in (*train, *evaluation))
    counts = Counter((w, row["task"]) for row in (*train, *evaluation) for w in facts[row["example"]]["all"])

    def boilerplate(window: tuple[str, ...]) -> bool:
        holding = {task for side in holders[window] for task, _ in side}
        return all(sizes[task] >= 20 and counts[window, task] > sizes[task] / 2 for task in holding)

    frequent = {w for w, groups in shared.items() if len(groups) > frequent_groups or boilerplate(w)}
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for e in evaluation:
        for t in train:
            common = facts[e["example"]]["all"] & facts[t["example"]]["all"]
            whole = (
                facts[e["example"]]["short"] and facts[e["example"]]["whole"] == facts[t["example"]]["whole"]
            )
            if not common and not whole:
                continue
            pair = pairs.setdefault(
                (t["task"], e["task"]), {"hits": {}, "touched": {}, "train": set(), "eval": set()}
            )
            hit = pair["hits"].setdefault(e["example"], {"grams": set(), "train": set(), "same": False})
            hit["grams"] |= common
            hit["train"].add(t["example"])
            hit["same"] |= bool(facts[e["example"]]["outputs"] & facts[t["example"]]["outputs"])
            touched = pair["touched"].setdefault(t["example"], set())
            touched |= common | ({("", whole)} if whole else set())
            hashes = {window_hash(window, normaliser) for window in common}
            hashes |= {facts[e["example"]]["whole"][:8][::-1]} if whole else set()
            pair["train"] |= {t["content"] + h for h in hashes}
            pair["eval"] |= {e["content"] + h for h in hashes}
    return {
        "pairs": {key: _figures(pair, facts, frequent) for key, pair in pairs.items()},
        "frequent": {" ".join(window): len(shared[window]) for window in frequent},
    }


def _facts(
    row: Mapping[str, Any], output_fields: Sequence[str], n: int, normaliser: Normaliser
) -> dict[str, Any]:
    texts = example_sides(row, output_fields)
    found = [set().union(*(windows(text, n, normaliser) for text in side)) for side in texts]
    everything = [*texts[0], *texts[1]]
    return {
        "sides": found,
        "all": found[0] | found[1],
        "whole": whole_digest(row, everything, normaliser),
        "short": not (found[0] | found[1]) and any(normaliser.words(text) for text in everything),
        "outputs": outputs(row["references"], "\n".join(texts[1])),
    }


def _figures(pair: Mapping[str, Any], facts: Mapping[str, Any], frequent: set) -> dict[str, Any]:
    hits = {}
    for example, hit in pair["hits"].items():
        on = [bool(hit["grams"] & side) for side in facts[example]["sides"]] if hit["grams"] else [True, True]
        hits[example] = {
            "train_example": min(hit["train"]),
            "num_grams": len(hit["grams"]),
            "side": {(True, False): "input", (False, True): "output", (True, True): "both"}[tuple(on)],
            "same_output": hit["same"],
            "frequent": bool(hit["grams"]) and hit["grams"] <= frequent,
        }
    return {
        "hits": hits,
        "touched": {example: grams <= frequent for example, grams in pair["touched"].items()},
        "train": b"".join(sorted(pair["train"])),
        "eval": b"".join(sorted(pair["eval"])),
    }


def observed(tables: Mapping[str, pa.Table]) -> dict[tuple[str, str], dict[str, Any]]:
    """The tables hits and touched in the shape of `brute_force`."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in tables["hits"].to_pylist():
        pair = found.setdefault((row.pop("train_task"), row.pop("eval_task")), {"hits": {}, "touched": {}})
        pair["hits"][row.pop("eval_example")] = row
    for row in tables["touched"].to_pylist():
        found[row["train_task"], row["eval_task"]]["touched"][row["train_example"]] = row["frequent"]
    return found


def check_pairs(
    tables: Mapping[str, pa.Table], expected: Mapping[str, Any], num_eval: Mapping[str, int]
) -> None:
    """Assert that hits, touched, frequent and every figure of pairs are those of `brute_force`."""
    from taskmill.splits.sharing.pairs import evidence_digest

    seen = observed(tables)
    assert seen.keys() == expected["pairs"].keys()
    for pair, want in expected["pairs"].items():
        assert seen[pair]["hits"] == want["hits"]
        assert seen[pair]["touched"] == want["touched"]
    for row in tables["pairs"].to_pylist():
        nothing: dict[str, Any] = {"hits": {}, "touched": {}, "train": b"", "eval": b""}
        want = expected["pairs"].get((row["train_task"], row["eval_task"]), nothing)
        real = [hit for hit in want["hits"].values() if hit["num_grams"]]
        num = max(1, num_eval[row["eval_task"]])
        figures = {
            "num_eval": num_eval[row["eval_task"]],
            "num_hit": len(real),
            "hit_fraction": len(real) / num,
            "hit_fraction_rare": sum(not hit["frequent"] for hit in real) / num,
            "hit_input": sum(hit["side"] != "output" for hit in real) / num,
            "hit_output": sum(hit["side"] != "input" for hit in real) / num,
            "num_same_output": sum(hit["same_output"] for hit in want["hits"].values()),
            "num_short_equal": len(want["hits"]) - len(real),
            "num_train_touched": len(want["touched"]),
            "evidence": evidence_digest(want["train"], want["eval"], row["same_dataset"]),
        }
        assert {name: row[name] for name in figures} == figures
        assert want["hits"] or row["same_dataset"]
    assert expected["pairs"].keys() <= {
        (r["train_task"], r["eval_task"]) for r in tables["pairs"].to_pylist()
    }
    seen_frequent = {row["text"]: row["num_groups"] for row in tables["frequent"].to_pylist()}
    assert seen_frequent == expected["frequent"]


def assignment_table(examples: pa.Table, splits: Sequence[str]) -> pa.Table:
    table = examples.select(["example", "task", "group"]).append_column(
        "split", pa.array(splits, pa.string())
    )
    reasons = pa.array(["task" if split == "excluded" else None for split in splits], pa.string())
    return table.append_column("reason", reasons).cast(SCHEMAS["overlaps/assignment"])


def rng_words(key: str, num: int, vocabulary: int) -> str:
    """Words that depend on the key alone."""
    digest = hashlib.shake_256(key.encode()).digest(2 * num)
    return " ".join(f"w{value % vocabulary}" for value in np.frombuffer(digest, "<u2").tolist())
