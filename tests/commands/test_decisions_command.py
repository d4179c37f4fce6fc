"""`decisions list|set|apply|merge`: on a hand-made overlap, and on the demo from the stop to the finished split."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from finished_run import write_stage
from running import call

from taskmill.recipe import Recipe, Resolved, Rule, Source, Split, When
from taskmill.recipe_files import resolved_json
from taskmill.records import DECISION_COLUMNS
from taskmill.runs import RunLock
from taskmill.splits.deciding.decisions import STATES
from taskmill.storage import canonical_json, read_table

HEADER = ",".join(DECISION_COLUMNS)
ROLES = {
    "a/one": ("train", None),
    "a/three": ("train", None),
    "a/two": ("train", None),
    "e/held": ("eval", "held_out"),
    "e/idle": ("eval", "held_out"),
    "e/part": ("eval", "partial"),
}
PAIRS = [
    ("a/one", "e/held", 20, False),
    ("a/one", "e/part", 5, False),
    ("a/three", "e/part", 1, False),
    ("a/two", "e/held", 10, True),
    ("a/two", "e/part", 30, False),
]
STATE = {
    ("a/two", "e/part"): "dropped",
    ("a/one", "e/held"): "undecided",
    ("a/two", "e/held"): "rule",
    ("a/one", "e/part"): "undecided",
    ("a/three", "e/part"): "below",
}


def evidence(train: str, evaluation: str) -> str:
    """The evidence digest of a pair."""
    return f"{train}{evaluation}".encode().ljust(16, b"-")[:16].hex()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which overlap is finished: 100 examples a task; a rule drops a/two."""
    run = tmp_path / "run"
    run.mkdir()
    rule = Rule("same", "drop_train_task", When(same_dataset=True), "one data set")
    recipe = Recipe("small", (Source("documents"),), split=Split(threshold=0.01, rules=(rule,)))
    resolved = Resolved(recipe, {}, tmp_path, "name: small\n")
    (run / "recipe.json").write_bytes(canonical_json(resolved_json(resolved)))
    figures = {"num_eval": 100, "num_same_output": 0, "num_short_equal": 0, "num_train_touched": 4}
    pairs = [
        {"train_task": t, "eval_task": e, "same_dataset": same, "num_hit": n, "hit_fraction": n / 100}
        | {"hit_fraction_rare": n / 100, "evidence": bytes.fromhex(evidence(t, e)), **figures}
        for t, e, n, same in PAIRS
    ]
    assignment = [
        {
            "example": f"{task}#{i}",
            "task": task,
            "split": {"train": "train", "eval": "test"}[role],
            "group": i,
        }
        for task, (role, _) in ROLES.items()
        for i in range(8)
    ]
    plan = [{"task": task, "level": level, "role": role} for task, (role, level) in ROLES.items()]
    files = {
        "plan.parquet": ("overlaps/plan", plan),
        "assignment.parquet": ("overlaps/assignment", assignment),
        "pairs.parquet": ("overlaps/pairs", pairs),
    }
    write_stage(run, "overlap", files)
    return run


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def write(path: Path, *decisions: tuple[str, ...]) -> Path:
    """Write rows (train task, eval task, action, by, at, why), on the present evidence."""
    lines = [
        f"{t},{e},{action},{evidence(t, e)},,{','.join((*more, '', '', '')[:3])}"
        for t, e, action, *more in decisions
    ]
    path.write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    return path


def good(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = call(capsys, "decisions", *map(str, arguments))
    assert code == 0, err
    return out


def bad(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    found, out, err = call(capsys, "decisions", *map(str, arguments))
    assert found == code and "Traceback" not in err, err
    return out + err


# ------------------------------------------------------------------------------------------------ list


def test_list_gives_every_pair_with_its_state_the_worst_first(run, capsys):
    body = json.loads(good(capsys, "list", run, "--json"))
    assert [(p["train_task"], p["eval_task"]) for p in body["pairs"]] == list(STATE)
    assert {(p["train_task"], p["eval_task"]): p["state"] for p in body["pairs"]} == STATE
    assert body["counts"] == {"undecided": 2, "rule": 1, "dropped": 1, "below": 1}
    worst = body["pairs"][1]
    assert worst["touched_fraction"] == 0.5 and worst["num_train"] == 8 and worst["hit_fraction"] == 0.2
    assert body["pairs"][2]["decision"]["rule"] == "same" and worst["decision"] is None
    shown = good(capsys, "list", run)
    lines = shown.splitlines()
    assert lines[0].startswith("dropped   a/two -> e/part  partial, evidence ")
    assert (
        "drop_train_task, rule same: one data set" in shown and "20 of 100 evaluation examples hit" in shown
    )
    assert "4 of 8 train examples touched" in shown
    assert "5 pairs: 2 undecided, 1 rule, 1 dropped, 1 below" in shown
    assert lines[-1] == f"then continue with: taskmill run {run}"


def test_list_narrows_by_pattern_state_and_number(run, capsys):
    def pairs(*more: str) -> list[Any]:
        return json.loads(good(capsys, "list", run, *more, "--json"))["pairs"]

    assert len(pairs("a/t*")) == 3 and len(pairs("e/held")) == 2 and len(pairs("e/idle")) == 0
    for state in STATES:
        assert [p["state"] for p in pairs("--state", state)] == [s for s in STATE.values() if s == state]
    assert "and 4 more pairs" in good(capsys, "list", run, "-n", "1")
    assert "PATTERN: no task fits 'a/tow' - did you mean 'a/two'?" in bad(capsys, 2, "list", run, "a/tow")
    bad(capsys, 2, "list", run, "--state", "open")


def test_decisions_need_the_stage_overlap_and_a_run(run, tmp_path, capsys):
    (run / "overlaps/manifest.json").unlink()
    write_stage(run, "curate", {"tasks.parquet": ("tasks/tasks", [])})
    for arguments in (
        ["list", run],
        ["set", run, "a", "b", "keep"],
        ["apply", run, "f"],
        ["merge", run, "f"],
    ):
        assert "taskmill overlap" in bad(capsys, 2, *arguments)
        none = [tmp_path / "none" if a is run else a for a in arguments]
        assert "there is no run" in bad(capsys, 2, *none)
    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------------- set


def test_set_writes_the_pair_with_its_present_evidence(run, capsys):
    shown = good(capsys, "set", run, "a/one", "e/held", "keep", "--why", 'fine, "so far"', "--by", "ann")
    assert "a/one -> e/held: keep" in shown and "1 pair still undecided" in shown
    (row,) = rows(run / "decisions.csv")
    assert row.pop("at").endswith("Z")
    assert row == {
        "train_task": "a/one",
        "eval_task": "e/held",
        "action": "keep",
        "rule": "",
        "by": "ann",
        "evidence": evidence("a/one", "e/held"),
        "why": 'fine, "so far"',
    }
    body = json.loads(good(capsys, "set", run, "a/one", "e/held", "drop_eval_task", "--json"))
    assert [r["action"] for r in body["set"]] == ["drop_eval_task"] and body["num_undecided"] == 1
    assert [r["action"] for r in rows(run / "decisions.csv")] == ["drop_eval_task"]
    listed = json.loads(good(capsys, "list", run, "--state", "person", "--json"))["pairs"]
    assert [p["decision"]["action"] for p in listed] == ["drop_eval_task"]


def test_set_by_pattern_decides_what_waits_and_nothing_else(run, capsys):
    shown = good(capsys, "set", run, "*", "e/*", "drop_train_examples")
    assert {(r["train_task"], r["eval_task"]) for r in rows(run / "decisions.csv")} == {
        pair for pair, state in STATE.items() if state == "undecided"
    }
    assert "2 decisions written" in shown and f"continue with: taskmill run {run}" in shown
    assert "was" not in shown
    message = bad(capsys, 2, "set", run, "*", "e/*", "keep")
    assert "5 pairs of '*' and 'e/*': none waits for a decision" in message and "2 person, 1 rule" in message
    shown = good(capsys, "set", run, "a/two", "e/held", "keep")  # a full name wins over a rule
    assert "(was drop_train_task, rule same: one data set)" in shown and "1 pair still undecided" in shown


@pytest.mark.parametrize(
    ("train", "evaluation", "action", "wanted"),
    [
        ("a/noe", "e/held", "keep", "TRAIN_TASK: no task fits 'a/noe' - did you mean 'a/one'?"),
        ("a/one", "e/hold", "keep", "EVAL_TASK: no task fits 'e/hold' - did you mean 'e/held'?"),
        ("a/one", "e/held", "kep", "ACTION: no action is called 'kep' - did you mean 'keep'?"),
        ("a/one", "e/idle", "keep", "share nothing"),
        ("a/one", "e/idle", "keep", "'a/one' shares text with e/held, e/part"),
        ("e/held", "a/one", "keep", "the other way round"),
        ("a/three", "e/*", "keep", "none waits for a decision (1 below)"),
    ],
)
def test_set_refuses_what_makes_no_sense_and_names_what_would(run, capsys, train, evaluation, action, wanted):
    assert wanted in bad(capsys, 2, "set", run, train, evaluation, action)
    assert not (run / "decisions.csv").exists()


def test_a_busy_run_and_a_damaged_file_change_nothing(run, capsys):
    with RunLock(run):
        assert "being written" in bad(capsys, 1, "set", run, "a/one", "e/held", "keep")
    path = run / "decisions.csv"
    path.write_text(f"{HEADER}\na/one,e/held,kep,12,,,,\n")
    before = path.read_bytes()
    message = bad(capsys, 2, "set", run, "a/one", "e/held", "keep")
    assert f"{path}:2:" in message and "'kep'" in message and "'12'" in message
    assert path.read_bytes() == before


# ----------------------------------------------------------------------------------------------- apply


def test_apply_takes_what_holds_and_names_what_does_not(run, tmp_path, capsys):
    file = write(
        tmp_path / "filled.csv",
        ("a/one", "e/held", "keep", "ann"),
        ("a/one", "e/part", ""),
        ("a/one", "e/idle", "keep"),
        ("gone/x", "e/held", "keep"),
    )
    file.write_text(file.read_text() + f"a/three,e/part,keep,{'0' * 32},,,,\n")
    code, out, err = call(capsys, "decisions", "apply", str(run), str(file))
    assert (code, err) == (1, "")
    assert [(r["train_task"], r["action"], r["by"]) for r in rows(run / "decisions.csv")] == [
        ("a/one", "keep", "ann")
    ]
    assert f"refused  {file}:4: a/one -> e/idle: the two tasks share nothing here" in out
    assert f"refused  {file}:5: gone/x -> e/held: no task is called 'gone/x'" in out
    present = evidence("a/three", "e/part")[:8]
    assert (
        f"{file}:6: a/three -> e/part: it judged the evidence 00000000, and the present one is {present}"
        in out
    )
    body = json.loads(call(capsys, "decisions", "apply", str(run), str(file), "--json")[1])
    assert len(body["set"]) == 1 and [r["place"][-2:] for r in body["refused"]] == [":4", ":6", ":5"]


def test_apply_wins_over_earlier_decisions_and_says_so(run, tmp_path, capsys):
    good(capsys, "set", run, "a/one", "e/held", "keep", "--by", "ann")
    good(capsys, "set", run, "a/one", "e/part", "keep", "--by", "ann")
    shown = good(
        capsys, "apply", run, write(tmp_path / "b.csv", ("a/one", "e/held", "drop_eval_task", "bob"))
    )
    assert "a/one -> e/held: drop_eval_task" in shown and "(was keep, by ann at " in shown
    assert [(r["action"], r["by"]) for r in rows(run / "decisions.csv")] == [
        ("drop_eval_task", "bob"),
        ("keep", "ann"),
    ]


def test_apply_writes_nothing_of_a_malformed_file(run, tmp_path, capsys):
    file = write(tmp_path / "f.csv", ("a/one", "e/held", "keep"), ("a/one", "e/part", "drop"))
    assert f"{file}:3: action: unknown 'drop'" in bad(capsys, 2, "apply", run, file)
    assert "none.csv" in bad(capsys, 2, "apply", run, tmp_path / "none.csv")
    assert not (run / "decisions.csv").exists()


def test_the_recipes_decisions_are_the_ground_that_is_built_on(run, tmp_path, capsys):
    body = json.loads((run / "recipe.json").read_text())
    body["values"]["split"]["decisions"] = "shared.csv"
    (run / "recipe.json").write_text(json.dumps(body))
    write(tmp_path / "shared.csv", ("a/one", "e/part", "keep", "ann"))
    assert "decisions about" not in good(capsys, "list", run)
    good(capsys, "set", run, "a/one", "e/held", "keep", "--by", "bob")
    assert [r["by"] for r in rows(run / "decisions.csv")] == ["bob", "ann"]


# ----------------------------------------------------------------------------------------------- merge


def test_merge_makes_one_of_equal_decisions(run, tmp_path, capsys):
    files = [
        write(tmp_path / "ann.csv", ("a/one", "e/held", "keep", "ann", "2026-01-02", "same topic")),
        write(
            tmp_path / "bob.csv",
            ("a/one", "e/held", "keep", "bob", "2026-01-03", "chance"),
            ("a/one", "e/part", "drop_train_examples", "bob", "2026-01-03"),
        ),
    ]
    shown = good(capsys, "merge", run, *files)
    assert "2 decisions written" in shown and "0 pairs still undecided" in shown
    found = rows(run / "decisions.csv")
    assert [(r["action"], r["by"], r["at"]) for r in found] == [
        ("keep", "ann, bob", "2026-01-03"),
        ("drop_train_examples", "bob", "2026-01-03"),
    ]
    assert found[0]["why"] == "same topic; chance"
    assert "nothing to write" in good(capsys, "merge", run, *files)


@pytest.mark.parametrize(
    ("prefer", "action"),
    [(None, None), ("newest", "drop_eval_task"), ("ann.csv", "keep"), ("bob.csv", "drop_eval_task")],
)
def test_merge_stops_at_contradictions_unless_told_who_wins(run, tmp_path, capsys, prefer, action):
    ann = write(tmp_path / "ann.csv", ("a/one", "e/held", "keep", "ann", "2026-01-02", "same topic"))
    bob = write(tmp_path / "bob.csv", ("a/one", "e/held", "drop_eval_task", "bob", "2026-01-02T08:00:00Z"))
    more = ["--prefer", tmp_path / prefer if str(prefer).endswith(".csv") else prefer] if prefer else []
    code, out, err = call(capsys, "decisions", "merge", *map(str, [run, ann, bob, *more]))
    if action is None:
        assert code == 3 and out == "" and not (run / "decisions.csv").exists()
        assert "1 pair decided in different ways; nothing was written" in err
        assert f"{ann}:2: keep, by ann at 2026-01-02: same topic" in err
        assert f"{bob}:2: drop_eval_task, by bob at 2026-01-02T08:00:00Z" in err
        return
    assert code == 0, err
    assert [r["action"] for r in rows(run / "decisions.csv")] == [action]


def test_merge_counts_the_runs_own_decisions_and_refuses_what_is_gone(run, tmp_path, capsys):
    good(capsys, "set", run, "a/one", "e/held", "keep", "--by", "me")
    ann = write(tmp_path / "ann.csv", ("a/one", "e/held", "drop_eval_task"), ("a/one", "e/idle", "keep"))
    assert "by me at" in bad(capsys, 3, "merge", run, ann)
    out = bad(capsys, 1, "merge", run, ann, "--prefer", run / "decisions.csv")
    assert "e/idle: the two tasks share nothing here" in out and "nothing to write" in out
    assert [r["action"] for r in rows(run / "decisions.csv")] == ["keep"]
    assert "--prefer: " in bad(capsys, 2, "merge", run, ann, "--prefer", "newst")
    dateless = write(tmp_path / "d.csv", ("a/one", "e/part", "keep"), ("a/one", "e/part", "drop_eval_task"))
    good(capsys, "merge", run, dateless, "--prefer", "newest")  # within one file the last row wins
    assert rows(run / "decisions.csv")[1]["action"] == "drop_eval_task"
    other = write(tmp_path / "o.csv", ("a/one", "e/part", "keep"))
    assert "different ways" in bad(capsys, 3, "merge", run, other, "--prefer", "newest")  # neither has a date


def test_evidence_that_changed_leaves_the_old_row_and_waits_again(run, tmp_path, capsys):
    old = write(run / "decisions.csv", ("a/one", "e/held", "keep", "ann", "2026-01-02"))
    old.write_text(old.read_text().replace(evidence("a/one", "e/held"), "0" * 32))
    body = json.loads(good(capsys, "list", run, "--state", "outdated", "--json"))["pairs"]
    assert [(p["before"]["by"], p["decision"]) for p in body] == [("ann", None)]
    assert "before: keep, by ann at 2026-01-02" in good(capsys, "list", run)
    good(capsys, "set", run, "a/one", "e/part", "keep")
    path = write(tmp_path / "idle.csv", ("a/two", "e/idle", "keep"))
    old.write_text(old.read_text() + path.read_text().splitlines()[1] + "\n")
    assert "1 decision about tasks that share nothing, such as a/two -> e/idle" in good(capsys, "list", run)
    old.write_text("\n".join(line for line in old.read_text().splitlines() if "e/idle" not in line))
    assert [r["evidence"][:2] for r in rows(old)] == ["00", evidence("a/one", "e/part")[:2]]
    good(capsys, "merge", run, write(tmp_path / "new.csv", ("a/one", "e/held", "drop_eval_task")))
    assert [r["action"] for r in rows(old)] == ["drop_eval_task", "keep"]


# ---------------------------------------------------------------------------------------- the whole way


def test_from_the_stop_to_the_finished_split(tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["--set", "split.rules=[]", "--set", "split.decisions=null"]
    code, _, err = call(capsys, "run", "demo", "--to", "split", "--quiet", "--run", str(run), *settings)
    assert code == 3
    commands = [line.split("   (")[0].split() for line in err.splitlines() if line.startswith("  taskmill ")]
    assert [c[1:3] for c in commands][:3] == [
        ["decisions", "list"],
        ["decisions", "set"],
        ["decisions", "apply"],
    ]
    for command in commands[:2]:
        code, _, err = call(capsys, *command[1:])
        assert code == 0, err
    waiting = rows(run / "undecided.csv")
    for row in waiting:
        row["action"] = "drop_train_examples"
    lines = [HEADER, *(",".join(row.values()) for row in waiting), ""]
    (run / "undecided.csv").write_text("\n".join(lines))
    code, _, err = call(capsys, "split", str(run), "--quiet")
    assert code == 3 and "have an action in" in err  # split never throws away what was filled in
    assert any(row["action"] for row in rows(run / "undecided.csv"))
    (run / "undecided.csv").write_text("\n".join(lines))
    code, out, err = call(capsys, *commands[2][1:])
    assert code == 0 and "0 pairs still undecided" in out, err
    code, _, err = call(capsys, "split", str(run), "--quiet")
    assert code == 0 and not (run / "undecided.csv").exists(), err
    made = read_table(run / "splits/decisions.parquet").to_pylist()
    assert {(d["train_task"], d["eval_task"]) for d in made} == {
        (w["train_task"], w["eval_task"]) for w in waiting
    }
    members = read_table(run / "splits/members.parquet").to_pylist()
    assert sum(d["num_dropped"] for d in made) == sum(m["reason"] == "decision" for m in members) > 0
