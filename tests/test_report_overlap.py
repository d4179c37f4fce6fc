"""The parts of the report about overlap, what was left out, and the audit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from finished_run import BOTH, BUILDERS, EVAL, HOSTILE, PARTIAL, SHARED, TRAIN, WHY, make_run, write_stage
from html_page import parse

from taskmill.commands.audit import VERDICTS, audit
from taskmill.commands.finished import FinishedRun
from taskmill.errors import DamagedError
from taskmill.report import write_report
from taskmill.report_drops import MEANINGS, drops
from taskmill.report_overlap import MEANINGS as VERDICT_MEANINGS
from taskmill.report_overlap import audit as audit_section
from taskmill.report_overlap import matrix, overlap
from taskmill.splits.planning.roles import EVALUATION_ROLES


def change_recipe(run: Path, section: str, **values: Any) -> None:
    path = run / "recipe.json"
    body = json.loads(path.read_bytes())
    body["values"][section].update(values)
    path.write_text(json.dumps(body), encoding="utf-8")


def write_overlap(run: Path, more_alike: Sequence[dict[str, Any]] = ()) -> None:
    """Write an overlap of which two train tasks hit one example of EVAL, and one another; two clusters; a plan's drop."""
    roles = {TRAIN: ("train", None), BOTH: ("both", "supervised"), EVAL: ("eval", "held_out")}
    roles[PARTIAL] = ("eval", "partial")
    plan = [
        {"task": t, "role": role, "level": level, "why": WHY} for t, (role, level) in sorted(roles.items())
    ]
    assignment = [
        {"example": f"{t}#{i}", "task": t, "group": i, "split": "train" if t == TRAIN else "test"}
        for t in sorted(roles)
        for i in range(4)
    ]
    assignment[4] |= {"split": "excluded", "reason": "unused_test"}
    whole = {"train_task": TRAIN, "eval_task": PARTIAL, "num_eval": 4, "num_short_equal": 1}
    pairs = [
        {"train_task": BOTH, "eval_task": EVAL, "num_eval": 4, "num_hit": 1, "hit_fraction": 0.25},
        {"train_task": TRAIN, "eval_task": EVAL, "num_eval": 4, "num_hit": 2, "hit_fraction": 0.5},
        whole,
    ]
    hits = [(BOTH, EVAL, 0, 3), (TRAIN, EVAL, 0, 3), (TRAIN, EVAL, 1, 1), (TRAIN, PARTIAL, 2, 0)]
    near = {"survivor": f"{EVAL}#0", "survivor_task": EVAL, "cluster": 1}
    alike = [
        {
            "example": f"{TRAIN}#{i}",
            "task": TRAIN,
            "relation": "across",
            "jaccard": j,
            "containment": 0.9,
            **near,
        }
        for i, j in ((0, 0.8125), (1, 1.0))
    ]
    inside = {"survivor": f"{TRAIN}#2", "survivor_task": TRAIN, "cluster": 2, "relation": "train"}
    alike.append({"example": f"{TRAIN}#3", "task": TRAIN, "jaccard": 1.0, "containment": 1.0, **inside})
    found = {
        "train_task": TRAIN,
        "eval_task": EVAL,
        "train_example": f"{TRAIN}#0",
        "eval_example": f"{EVAL}#0",
    }
    files = {
        "plan.parquet": ("overlaps/plan", plan),
        "assignment.parquet": ("overlaps/assignment", assignment),
        "pairs.parquet": ("overlaps/pairs", [{**pair, "evidence": b"e" * 16} for pair in pairs]),
        "hits.parquet": (
            "overlaps/hits",
            [
                {"train_task": t, "eval_task": e, "eval_example": f"{e}#{i}", "num_grams": num}
                for t, e, i, num in hits
            ],
        ),
        "touched.parquet": ("overlaps/touched", []),
        "evidence.parquet": ("overlaps/evidence", [{**found, "window": " ".join(SHARED.split()[:13])}]),
        "near_duplicates.parquet": ("overlaps/near_duplicates", [*alike, *more_alike]),
        "frequent.parquet": ("overlaps/frequent", []),
    }
    write_stage(run, "overlap", files)


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """A run of curate and this overlap."""
    run = make_run(tmp_path, "curate")
    write_overlap(run)
    return run


def test_a_category_counts_every_example_once_however_many_tasks_hit_it(overlapping: Path) -> None:
    found = FinishedRun(overlapping)
    table = matrix(found, found.rows("overlap", "pairs"))
    assert table["columns"] == ["Sentiment", "Arithmetic"]
    assert [(r["category"], r["num"], r["size"]) for r in table["rows"]] == [
        ("Irony & <b>wit</b>", 2, 4),
        ("Facts", 1, 4),
    ]
    irony, facts = (row["cells"] for row in table["rows"])
    assert [(c["num"], c["share"], c["train_task"], c["worst"]) for c in irony] == [
        (2, 0.5, TRAIN, 0.5),
        (1, 0.25, BOTH, 0.25),
    ]
    assert facts[0]["num"] == 1 and facts[1] is None


def test_tasks_that_share_nothing_count_in_the_size_of_their_category(overlapping: Path) -> None:
    found = FinishedRun(overlapping)
    for row in found.tasks.values():
        row["category"] = "One"
    table = matrix(found, found.rows("overlap", "pairs"))
    evaluated = [r for r in found.rows("overlap", "plan") if r["role"] in EVALUATION_ROLES]
    assert len(evaluated) == 3
    assert (table["rows"][0]["num"], table["rows"][0]["size"]) == (3, 11)
    assert [cell["num"] for cell in table["rows"][0]["cells"]] == [3]


def test_a_matrix_of_too_many_categories_says_so(overlapping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskmill.report_overlap.NUM_CATEGORIES", 1)
    text = " ".join(parse(write_report(overlapping)).text["overlap"].split())
    assert "and 1 more rows and 1 more columns with less" in text
    assert (
        text.index("anySentiment") < text.index("Irony & <b>wit</b>50 %50 %") < text.index("and 1 more rows")
    )


def test_near_duplicates_show_both_texts_with_what_they_share_marked(overlapping: Path) -> None:
    near = overlap(FinishedRun(overlapping))["near"]
    assert (near["num"], near["num_clusters"], near["num_across"], near["num_exact"]) == (3, 2, 2, 2)
    assert [c["survivor"] for c in near["clusters"]] == [f"{EVAL}#0", f"{TRAIN}#2"]
    first = near["clusters"][0]
    assert (first["size"], first["example"], first["jaccard"]) == (3, f"{TRAIN}#0", 0.8125)
    assert first["tasks"] == [(TRAIN, 2), (EVAL, 1)]
    for side in ("survivor", "example"):
        marked = [t for t, flag in first["texts"][side]["input"] if flag]
        assert marked and SHARED.split()[0] in marked[0].lower()
    text = " ".join(parse(write_report(overlapping)).text["overlap"].split())
    assert "3 examples with evaluation" in text and "Jaccard similarity 0.81, containment 0.90" in text
    assert "3 examples are near-duplicates of another that survives them, in 2 clusters" in text


def test_clusters_of_the_same_tasks_are_shown_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, "curate")
    rows = [
        {"example": f"{TRAIN}#{i}", "task": TRAIN, "survivor": f"{TRAIN}#{i + 1}", "survivor_task": TRAIN}
        | {"relation": "train", "cluster": 10 + i, "jaccard": 0.9, "containment": 0.9}
        for i in (0, 2)
    ]
    write_overlap(run, rows)
    near = overlap(FinishedRun(run))["near"]
    assert (near["num_clusters"], near["num_kinds"]) == (4, 2)
    assert [c["num_alike"] for c in near["clusters"]] == [0, 2]
    assert "2 more such clusters" in parse(write_report(run)).text["overlap"]


def test_the_banding_is_shown_with_what_it_misses(overlapping: Path) -> None:
    band = overlap(FinishedRun(overlapping))["near"]["banding"]
    assert band["bands"] * band["rows"] <= band["num_perm"] == 128
    at = dict(band["curve"])
    assert at[band["threshold"]] == pytest.approx(1 - band["false_negative"])
    assert list(at.values()) == sorted(at.values()) and at[1.0] == 1
    text = " ".join(parse(write_report(overlapping)).text["overlap"].split())
    assert f"{band['bands']} bands of {band['rows']} rows" in text


@pytest.mark.parametrize("mode", ["gpt3", "lm-eval", "tokenizer"])
def test_marks_are_right_or_absent_in_every_normalisation(overlapping: Path, mode: str) -> None:
    change_recipe(overlapping, "overlap", normalisation=mode)
    page = parse(write_report(overlapping))
    text = " ".join(page.text["overlap"].split())
    if mode == "tokenizer":
        assert page.marked == [] and "Not marked, because" in text and "13 token ids" in text
    else:
        title = "The Harbour Was Quiet That (Night) And Nobody Saw The Boat Leave Before Dawn;"
        assert title in page.marked[0] and "Not marked" not in text


def test_what_decisions_took_out_is_added_up(tmp_path: Path) -> None:
    run = make_run(tmp_path, "overlap")
    made = {"evidence": "65" * 16, "why": WHY, "by": "rule", "rule": "same-dataset"}
    decisions = [
        {**made, "train_task": TRAIN, "eval_task": EVAL, "action": "drop_train_task", "num_dropped": 1200},
        {**made, "train_task": BOTH, "eval_task": EVAL, "action": "drop_train_task", "num_dropped": 34},
        {**made, "train_task": TRAIN, "eval_task": PARTIAL, "action": "keep", "by": HOSTILE, "rule": ""},
    ]
    write_stage(run, "split", {"decisions.parquet": ("splits/decisions", decisions)})
    made = overlap(FinishedRun(run))["decisions"]
    assert (made["num"], made["num_dropped"]) == (3, 1234)
    groups = [(g["action"], g["who"], g["num_pairs"], g["num_dropped"]) for g in made["groups"]]
    assert groups == [("drop_train_task", "rule same-dataset", 2, 1234), ("keep", "people", 1, 0)]
    assert [row["train_task"] for row in made["most"]] == [TRAIN, BOTH]


def test_drops_of_the_plan_are_not_counted_again_for_split(overlapping: Path) -> None:
    members = [
        {"example": f"{TRAIN}#{i}", "task": TRAIN, "group": i, "split": "excluded", "reason": reason}
        | {"content": bytes(32)}
        for i, reason in enumerate(["unused_test", "decision", "near_duplicate"])
    ]
    dropped = {row["reason"]: 1 for row in members}
    write_stage(overlapping, "split", {"members.parquet": ("splits/members", members)})
    found = FinishedRun(overlapping)
    for stage, reasons in (("overlap", {"unused_test": 1}), ("split", dropped)):
        found.manifests[stage].body["dropped"] = reasons
    stages = {s["name"]: {r["reason"]: r for r in s["rows"]} for s in drops(found)["stages"]}
    assert stages["overlap"].keys() == {"unused_test"} and stages["overlap"]["unused_test"]["tasks"] == 1
    assert stages["split"].keys() == {"decision", "near_duplicate"}
    assert stages["curate"]["duplicate"]["detail"] == WHY
    assert all(row["meaning"] for rows in stages.values() for row in rows.values())


def test_every_reason_of_the_documentation_has_a_meaning() -> None:
    source = Path(__file__).parents[1].joinpath("docs/sources.md").read_text(encoding="utf-8")
    table = source.split("## What is left aside")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named_there = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named_there) > 20
    assert named_there <= MEANINGS["curate"].keys()


@pytest.fixture
def audited(overlapping: Path) -> Path:
    for stage in ("split", "render"):
        BUILDERS[stage](overlapping, None)  # type: ignore[arg-type]
    audit(overlapping, n=5, num_shown=0)
    return overlapping


def test_the_audit_is_shown_with_its_verdicts(audited: Path) -> None:
    found = audit_section(FinishedRun(audited))
    assert found["stale"] == [] and found["rows"] and found["windows"]
    assert sum(num for _, num, _ in found["verdicts"]) == found["found"]["totals"]["num_pairs"]
    assert VERDICT_MEANINGS.keys() == set(VERDICTS)
    page = parse(write_report(audited))
    text = " ".join(page.text["audit"].split())
    assert "5-grams (words-1) of 6 train prompts against 10 test prompts" in text
    assert "earlier state" not in text and "not been audited" not in text
    assert found["windows"][0]["text"] in text


def test_an_audit_of_an_earlier_state_is_called_stale(audited: Path) -> None:
    path = audited / "audit" / "audit.json"
    body = json.loads(path.read_bytes())
    path.write_text(json.dumps({**body, "members": "0" * 64}), encoding="utf-8")
    text = " ".join(parse(write_report(audited)).text["audit"].split())
    assert f"split has changed since. taskmill audit {audited} makes it anew" in text


@pytest.mark.parametrize("damage", ["lacks", "json", "pairs"])
def test_a_damaged_audit_is_named(audited: Path, damage: str) -> None:
    folder = audited / "audit"
    if damage == "pairs":
        (folder / "pairs.parquet").write_bytes(b"no")
    else:
        (folder / "audit.json").write_text('{"check": {}}' if damage == "lacks" else "{", encoding="utf-8")
    with pytest.raises(DamagedError, match=r"pairs\.parquet" if damage == "pairs" else r"audit\.json"):
        write_report(audited)


@pytest.mark.parametrize("fixture", ["overlapping", "audited"])
def test_hostile_text_stays_text_in_the_new_parts(fixture: str, request: pytest.FixtureRequest) -> None:
    source = write_report(request.getfixturevalue(fixture)).read_text(encoding="utf-8")
    assert "<script" not in source and "\x1b" not in source and "<b>wit" not in source
