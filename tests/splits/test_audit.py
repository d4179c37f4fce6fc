"""The audit of finished prompts: equal to a brute-force count, by segment kind, and what decisions left of the content."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_run import BOTH, EVAL, PARTIAL, TRAIN, examples, make_run, split_of, write_stage
from hypothesis import given, settings
from hypothesis import strategies as st
from running import call

from taskmill import seeding
from taskmill.commands.finished import FinishedRun
from taskmill.normalisers import WORDS, named
from taskmill.records import SCHEMAS, SEGMENT_KINDS
from taskmill.splits.auditing.audit import PromptOverlap, compare_prompts
from taskmill.splits.auditing.remaining import remaining
from taskmill.splits.auditing.segments import PLACES, PlainPrompts, num_words, plain_prompts, window_masks
from taskmill.templates.composing.schemas import Segment, encode
from taskmill.words import words

CODES = {kind: code for code, kind in enumerate(SEGMENT_KINDS)}
Segments = list[tuple[str, str]]


def plain(prompts: list[Segments]) -> PlainPrompts:
    rows = [encode([Segment(text, kind) for text, kind in own]) for own in prompts]
    return PlainPrompts(*([row[name] for row in rows] for name in ("text", "ends", "kinds")))


def spans(text: str) -> list[tuple[int, int]]:
    """Return where the words of an ASCII text stand."""
    return [match.span() for match in re.finditer(r"[a-z0-9]+", text.lower())]


def brute_places(own: Segments, n: int) -> list[set[str]]:
    """Return where each window of an ASCII prompt lies, from the characters of its words."""
    text, edges, at = "".join(t for t, _ in own), [], 0
    for part, kind in own:
        edges.append((at, at + len(part), kind))
        at += len(part)
    found = spans(text)
    windows = []
    for first in range(len(found) - n + 1):
        inside = found[first : first + n]
        touched = [
            place for place, (a, b, _) in enumerate(edges) if any(max(a, s) < min(b, e) for s, e in inside)
        ]
        kinds = {edges[place][2] for place in touched}
        windows.append(kinds | ({"crossing"} if len(touched) > 1 else set()))
    return windows


KINDS = ("instruction", "demonstration", "input", "output", "user", "assistant")
pieces = st.lists(
    st.tuples(st.text(alphabet="ab 7.\n", max_size=9), st.sampled_from(KINDS)), min_size=1, max_size=6
)


@settings(max_examples=300)
@given(st.lists(pieces, min_size=1, max_size=4), st.integers(1, 4))
def test_windows_are_mapped_to_the_segments_of_their_words(prompts: list[Segments], n: int) -> None:
    rows = plain(prompts)
    counts = num_words(rows.texts, WORDS)
    masks = window_masks(rows, counts, n, WORDS)
    at = 0
    for own, count in zip(prompts, counts.tolist()):
        expected = brute_places(own, n)
        found = [
            {p for bit, p in enumerate(PLACES) if mask >> bit & 1} for mask in masks[at : at + len(expected)]
        ]
        assert found == expected
        at += count


def test_words_beyond_ascii_that_run_on_into_the_next_segment() -> None:
    own = [("Stra", "instruction"), ("\u00dfe cafe", "input"), ("\u0301 \u6771\u4eac", "output")]
    rows = plain([own])
    counts = num_words(rows.texts, WORDS)
    assert words(rows.texts[0]) == ["strasse", "caf\u00e9", "\u6771", "\u4eac"] and counts.tolist() == [4]
    masks = window_masks(rows, counts, 1, WORDS)
    found = [{p for bit, p in enumerate(PLACES) if mask >> bit & 1} for mask in masks]
    assert found[0] == {"instruction", "input", "crossing"}
    assert "input" in found[1] and found[2] == found[3] == {"output"}


def test_symbols_hold_no_words() -> None:
    rows = [
        [Segment("{bos}", "control"), Segment("User: ", "control"), Segment("say {eos}", "user")],
        [Segment("One two", "input"), Segment(" three", "output"), Segment("{eos}", "control")],
    ]
    columns = [{k: v for k, v in encode(row).items() if k != "trained"} for row in rows]
    found = plain_prompts(pa.RecordBatch.from_pylist(columns))
    assert found.texts == ["User: say {eos}", "One two three"]
    assert found.ends == [[6, 15], [7, 13]]
    assert found.kinds[0] == [CODES["control"], CODES["user"]]


# ------------------------------------------------------------------------------------------- pairs

LEAD = "Read what stands below with care and then say what it is about in a word."
NAMES = ("a/one", "a/two", "b/three", "c/four")
STOCK = ["boat", "pier", "rope", "lamp", "tide", "net", "gull", "salt", "mast", "oar"]


def sentence(*key: object) -> str:
    """Return six words drawn by a key; few words, so that windows meet by chance."""
    return " ".join(seeding.choose(1, "sentence", STOCK, *map(str, key), str(i)) for i in range(6))


def prompt_rows() -> list[dict[str, Any]]:
    """Return prompts of four tasks, with demonstrations, an equal prompt in two tasks, and chance overlap."""
    rows = []
    for task in NAMES:
        for split in ("test", "train", "validation"):
            for i in range(9):
                example = f"{task}#{split}{i % 6}"
                shown = [
                    Segment(f"{sentence(task, 'train', i, d)} yes\n\n", "demonstration") for d in range(i % 3)
                ]
                text = sentence("same", i) if split == "test" and i < 2 else sentence(task, split, i)
                lead = [Segment(LEAD, "instruction")] if task.startswith("a/") else []
                segments = [*lead, *shown, Segment(text, "input"), Segment(f" {STOCK[i]}", "output", True)]
                key = sha256(f"{task}{split}{i}".encode()).digest()[:8]
                rows.append(
                    {"prompt": key, "example": example, "task": task, "split": split}
                    | encode([*segments, Segment("{eos}", "control", True)])
                    | {
                        "references": [],
                        "demonstrations": [],
                        "loss_weight": 1.0,
                        "format": "plain",
                        "joint": True,
                    }
                )
    return sorted(rows, key=lambda row: (row["task"], row["split"], row["prompt"]))


def brute_pairs(rows: list[dict[str, Any]], n: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the figures of each pair from sets of strings."""
    grams: dict[bytes, dict[str, set[str]]] = {}
    for row in rows:
        kinds = [SEGMENT_KINDS[k] for k in row["kinds"]]
        texts, at = [], 0
        for end in row["ends"]:
            texts.append(row["text"][at:end])
            at = end
        own = list(zip(texts, kinds))[:-1]
        line = words("".join(text for text, _ in own))
        held: dict[str, set[str]] = defaultdict(set)
        for first, places in enumerate(brute_places(own, n)):
            held[" ".join(line[first : first + n])] |= places
        grams[row["prompt"]] = held
    found: dict[tuple[str, str], dict[str, Any]] = {}
    trained, tested = ([r for r in rows if r["split"] == split] for split in ("train", "test"))
    for train_task in NAMES:
        prompts = [grams[r["prompt"]] for r in trained if r["task"] == train_task]
        for eval_task in NAMES:
            own = [r for r in tested if r["task"] == eval_task]
            everything = set().union(*prompts)
            places = {r["prompt"]: _places(grams[r["prompt"]], everything) for r in own}
            hit = [r for r in own if places[r["prompt"]]]
            if hit:
                windows = set().union(*(grams[r["prompt"]] for r in own))
                touched = [p for p in (_places(held, windows) for held in prompts) if p]
                outside = {r["example"] for r in hit if places[r["prompt"]] - {"demonstration", "crossing"}}
                found[train_task, eval_task] = {
                    "num_prompts": len(own),
                    "num_prompts_hit": len(hit),
                    "num_examples": len({r["example"] for r in own}),
                    "num_examples_hit": len({r["example"] for r in hit}),
                    "num_examples_outside": len(outside),
                    "num_train_prompts_hit": len(touched),
                    "eval_kinds": {name: sum(name in places[r["prompt"]] for r in hit) for name in PLACES},
                    "train_kinds": {name: sum(name in p for p in touched) for name in PLACES},
                }
    return found


def _places(held: dict[str, set[str]], windows: set[str]) -> set[str]:
    return set().union(*(places for gram, places in held.items() if gram in windows))


def batches(rows: list[dict[str, Any]], size: int) -> Any:
    full = [{name: row.get(name) for name in SCHEMAS["prompts/prompts"].names} for row in rows]
    table = pa.Table.from_pylist(full, schema=SCHEMAS["prompts/prompts"])
    return lambda: table.to_batches(max_chunksize=size)


def compared(rows: list[dict[str, Any]], n: int, size: int = 1000, threads: int = 1) -> PromptOverlap:
    return compare_prompts(batches(rows, size), n, WORDS, threads)


@pytest.mark.parametrize("n", [3, 5, 13])
def test_pairs_equal_a_brute_force_count(n: int) -> None:
    rows = prompt_rows()
    expected = brute_pairs(rows, n)
    found = compared(rows, n)
    assert {(p.train_task, p.eval_task) for p in found.pairs} == expected.keys() and expected
    for pair in found.pairs:
        for name, value in expected[pair.train_task, pair.eval_task].items():
            assert getattr(pair, name) == value, (pair.train_task, pair.eval_task, name)
    assert (found.num_train_prompts, found.num_test_prompts) == (36, 36)
    assert found.num_test_texts < 36, "an equal prompt of two tasks is indexed once"
    assert compared(rows, n, size=4, threads=2) == found


def test_the_most_common_windows_are_named_with_a_prompt_of_each_side() -> None:
    rows = prompt_rows()
    by_id = {row["prompt"].hex(): row for row in rows}
    (pair,) = [p for p in compared(rows, 13).pairs if (p.train_task, p.eval_task) == ("a/one", "a/two")]
    window = pair.windows[0]
    assert window.num_texts == 9 and window.text in " ".join(words(LEAD)) and window.kinds == ["instruction"]
    for prompt, task in ((window.train_prompt, "a/one"), (window.eval_prompt, "a/two")):
        row = by_id[prompt]
        assert row["task"] == task and window.text in " ".join(words(row["text"]))


def test_other_normalisations_and_no_overlap() -> None:
    rows = prompt_rows()
    same = compare_prompts(batches(rows, 7), 13, named("lm-eval"), 1)
    assert {(p.train_task, p.eval_task) for p in same.pairs} >= {("a/one", "a/two")}
    none = compared([row for row in rows if row["split"] != "train"], 3)
    assert none.pairs == [] and none.num_prompts_hit == 0
    assert compared([row for row in rows if row["split"] == "train"], 3).num_test_prompts == 0


# ----------------------------------------------------------------------------------------- command


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path, "render")


def test_a_kept_pair_and_what_is_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "audit", str(run), "--json", "--strict")
    assert code == 0, err
    body = json.loads(out)
    assert [p["train_task"] for p in body["pairs"]] == [TRAIN, BOTH]
    pair, own = body["pairs"]
    assert (pair["eval_task"], pair["verdict"]) == (EVAL, "kept")
    assert (own["eval_task"], own["verdict"], own["content_fraction"]) == (BOTH, "template", 0.0)
    assert (pair["num_prompts_hit"], pair["content_fraction"], pair["left_fraction"]) == (1, 0.25, 0.25)
    assert pair["eval_kinds"]["input"] == pair["train_kinds"]["input"] == 1
    assert body["totals"]["verdicts"] == {
        "leak": 0,
        "kept": 1,
        "template": 1,
        "demonstrations": 0,
        "clean": 0,
    }
    row, _ = pq.read_table(run / "audit/pairs.parquet").to_pylist()
    assert row["eval_input"] == 1 and row["action"] == "keep" and row["verdict"] == "kept"
    windows = pq.read_table(run / "audit/windows.parquet").to_pylist()
    assert [w["text"] for w in windows] == [w["text"] for p in body["pairs"] for w in p["windows"]]
    written = json.loads((run / "audit/audit.json").read_bytes())
    assert (
        written["totals"] == body["totals"]
        and written["prompts"] == FinishedRun(run).manifests["render"].root
    )
    assert call(capsys, "verify", str(run))[0] == 0


def test_template_text_is_told_from_leaks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "audit", str(run), "--n", "4")
    assert code == 0 and "template text" in out and "kept by a decision" in out and "no leak" in out
    assert "answer it script alert" in out and f"{TRAIN} -> {PARTIAL}" in out
    assert "\x1b" not in out


def test_a_leak_fails_when_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "overlap")
    split_again(run, dropped=())
    from finished_run import _render

    _render(run, None)  # type: ignore[arg-type]
    code, out, _ = call(capsys, "audit", str(run))
    assert code == 0 and "leaks: 1 pair" in out and "no leak" not in out
    assert call(capsys, "audit", str(run), "--strict")[0] == 1


def split_again(run: Path, dropped: tuple[str, ...]) -> None:
    """Write a split without decisions that leaves some examples out."""
    members = [
        {k: row[k] for k in ("example", "task", "group", "content")}
        | {
            "split": "excluded"
            if row["example"] in dropped
            else split_of(row["task"], int(row["example"][-1]))
        }
        for row in examples()
    ]
    roles = {TRAIN: "train", BOTH: "both"}
    tasks = [{"task": task, "role": roles.get(task, "eval")} for task in sorted((TRAIN, EVAL, PARTIAL, BOTH))]
    files = {
        "tasks.parquet": ("splits/tasks", tasks),
        "members.parquet": ("splits/members", members),
        "decisions.parquet": ("splits/decisions", []),
    }
    write_stage(run, "split", files)


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        ((), 4),
        ((0,), 3),
        ((1, 2, 3), 1),
        ((0, 1, 2, 3), 0),
    ],
)
def test_what_is_left_is_compared_again(tmp_path: Path, dropped: tuple[int, ...], left: int) -> None:
    """With 5-grams, every example but the first of one task shares text with every such example of the other."""
    run = make_run(tmp_path, "curate")
    pair = {"train_task": TRAIN, "eval_task": EVAL}
    hits = [
        {**pair, "eval_example": f"{EVAL}#{i}", "train_example": f"{TRAIN}#{i}", "num_grams": 2}
        for i in range(4)
    ]
    hits.append({**pair, "eval_example": f"{EVAL}#0", "train_example": f"{TRAIN}#9", "num_grams": 0})
    files = {
        "plan.parquet": ("overlaps/plan", []),
        "pairs.parquet": ("overlaps/pairs", [{**pair, "num_eval": 4, "num_hit": 4, "evidence": b"e" * 16}]),
        "hits.parquet": ("overlaps/hits", hits[:4]),
        "touched.parquet": (
            "overlaps/touched",
            [{**pair, "train_example": f"{TRAIN}#{i}"} for i in range(4)],
        ),
    }
    write_stage(run, "overlap", files)
    split_again(run, tuple(f"{TRAIN}#{i}" for i in dropped))
    found = remaining(FinishedRun(run).inputs, 5, WORDS)
    assert found.num_hit.get((TRAIN, EVAL), 0) == left
    assert found.fraction((TRAIN, EVAL)) == left / 4 and found.fraction((BOTH, EVAL)) == 0.0
    assert found.num_eval == {EVAL: 4, PARTIAL: 4, BOTH: 2}


def test_audit_needs_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "split")
    code, _, err = call(capsys, "audit", str(run))
    assert code == 2 and "taskmill render" in err


def test_masks_of_no_prompts() -> None:
    assert window_masks(PlainPrompts([], [], []), np.empty(0, np.int64), 13, WORDS).tolist() == []
