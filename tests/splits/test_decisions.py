"""Decisions: the CSV, who wins, rules, and the message that stops for a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskmill.errors import UsageError
from taskmill.recipe import DEFAULT_RULES, Rule, When
from taskmill.records import DECISION_COLUMNS
from taskmill.splits.deciding.decision_files import (
    decisions_digest,
    read_decisions,
    undecided_message,
    write_decisions,
)
from taskmill.splits.deciding.decisions import Decision, Pair, decide, fits

TASKS = ["a/train", "a/eval", "b/other"]
OLD, NEW = "0" * 32, "f" * 32
PAIR = Pair("a/train", "a/eval", "partial", False, 100, 20, 0.2, 0.1, 5, 0, NEW, 0.15, 0.05, 30, 40)
HEADER = ",".join(DECISION_COLUMNS)


def person(action: str = "keep", evidence: str = NEW, **more: str) -> Decision:
    return Decision("a/train", "a/eval", action, evidence, **more)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path):
    rows = [
        person(why='same "text", on\ntwo lines', by="Ann", at="2026-01-31"),
        Decision("b/other", "a/eval", "keep", OLD),
    ]
    write_decisions(tmp_path / "decisions.csv", rows)
    assert read_decisions(tmp_path / "decisions.csv", TASKS) == rows
    assert (tmp_path / "decisions.csv").read_text().splitlines()[0] == HEADER


def test_last_row_of_a_pair_wins_and_blank_actions_decide_nothing(tmp_path):
    path = write(
        tmp_path / "d.csv",
        "﻿train_task,eval_task,action,evidence",
        f"a/train,a/eval,keep,{OLD}",
        "",
        f" a/train ,a/eval,drop_eval_task,{NEW.upper()}",
        f"b/other,a/eval,,{OLD}",
    )
    assert read_decisions(path, TASKS) == [person("drop_eval_task")]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["train_task,eval_task,action"], [":1:", "the column 'evidence' is missing", HEADER]),
        ([HEADER + ",reasons"], [":1:", "unknown column 'reasons'"]),
        (["train_task,eval_task,action,evidence,action"], ["'action' is there twice"]),
        ([], [":1:", "the columns 'train_task', 'eval_task', 'action', 'evidence' are missing"]),
        (
            [HEADER, f"a/train,a/eval,drop_train,{OLD},,,,"],
            [":2:", "'drop_train'", "did you mean 'drop_train_task'"],
        ),
        ([HEADER, f"a/trian,a/eval,keep,{OLD},,,,"], [":2:", "'a/trian'", "did you mean 'a/train'?"]),
        ([HEADER, "a/train,a/eval,keep,12,,,,"], [":2:", "'12' is not a digest", "32 hex"]),
        ([HEADER, f"a/train,a/eval,keep,{OLD}"], [":2:", "4 values; expected 8"]),
        ([HEADER, f"a/train,a/eval,keep,{OLD},,,,x,y"], [":2:", "9 values"]),
        ([HEADER, f'a/train,a/eval,keep,{OLD},,,,"open'], ["not CSV"]),
        (
            [HEADER, "no/a,a/eval,keep,1,,,,", f"a/train,a/eval,no,{OLD},,,,"],
            [":2:", ":3:", "'no/a'", "'1'", "'no'"],
        ),
    ],
)
def test_malformed_files_are_explained_with_file_and_line(tmp_path, lines, wanted):
    path = write(tmp_path / "d.csv", *lines)
    with pytest.raises(UsageError) as caught:
        read_decisions(path, TASKS)
    assert all(text in str(caught.value) for text in [str(path), *wanted]), str(caught.value)


def test_unreadable_files_are_usage_errors(tmp_path):
    (tmp_path / "latin.csv").write_bytes(b"train_task,\xff")
    for name in ("missing.csv", "latin.csv"):
        with pytest.raises(UsageError, match=name):
            read_decisions(tmp_path / name, TASKS)


def test_digest_counts_pair_action_and_evidence_only():
    base = [person(), Decision("b/other", "a/eval", "keep", OLD)]
    assert decisions_digest(base) == decisions_digest(
        [base[1], person(by="Ann", at="now", why="so", rule="r")]
    )
    for other in (person("drop_eval_task"), person(evidence=OLD), replace(person(), eval_task="b/other")):
        assert decisions_digest([other, base[1]]) != decisions_digest(base)


def test_a_persons_decision_on_the_present_evidence_wins_over_rules():
    rules = (Rule("all", "drop_train_task"),)
    verdict = decide([PAIR], [person("keep", by="Ann", at="2026")], rules, 0.01)
    assert verdict.decisions == [person("keep", by="Ann", at="2026")] and not verdict.undecided
    verdict = decide([PAIR], [], rules, 0.01)
    assert verdict.decisions == [person("drop_train_task", rule="all", by="rule")]


def test_changed_evidence_makes_a_pair_undecided_again_even_where_a_rule_fits():
    verdict = decide([PAIR], [person(evidence=OLD)], (Rule("all", "drop_train_task"),), 0.01)
    assert verdict.undecided == [PAIR] and not verdict.decisions
    message = undecided_message(verdict, 1, 0.01, Path("runs/x"))
    assert "on evidence that has changed" in message
    low = replace(PAIR, hit_fraction=0.0)
    assert decide([low], [person(evidence=OLD)], (), 0.01).undecided == [low]


@pytest.mark.parametrize(
    ("change", "undecided"),
    [
        ({}, True),
        ({"hit_fraction": 0.01}, False),
        ({"hit_fraction": 0.011}, True),
        ({"hit_fraction": 0.0, "num_short_equal": 1}, False),
        ({"hit_fraction": 0.0, "num_short_equal": 2}, True),
        ({"hit_fraction": 0.0, "same_dataset": True}, True),
        ({"hit_fraction": 0.0, "same_dataset": True, "level": "supervised"}, False),
    ],
)
def test_what_must_be_decided(change, undecided):
    assert bool(decide([replace(PAIR, **change)], [], (), 0.01).undecided) is undecided


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (When(), True),
        (When(same_dataset=True), False),
        (When(same_dataset=False, level=("partial", "held_out")), True),
        (When(level=("supervised",)), False),
        (When(same_task=True), False),
        (When(same_task=False), True),
        (When(hit_fraction_over=0.2), False),
        (When(hit_fraction_over=0.19), True),
        (When(hit_fraction_rare_over=0.1), False),
        (When(hit_fraction_rare_at_most=0.1), True),
        (When(hit_fraction_rare_at_most=0.09), False),
        (When(hit_input_over=0.15), False),
        (When(hit_input_over=0.14), True),
        (When(hit_output_over=0.05), False),
        (When(hit_output_over=0.04), True),
        (When(num_hit_at_most=19), False),
        (When(num_hit_at_most=20), True),
        (When(touched_fraction_over=0.75), False),
        (When(touched_fraction_over=0.74), True),
        (When(same_output_fraction_over=0.25), False),
        (When(same_output_fraction_over=0.24), True),
        (When(same_output_fraction_at_most=0.24), False),
        (When(same_output_fraction_at_most=0.25), True),
        (When(train_task=("a/*",), eval_task=("b/*",)), False),
        (When(train_task=("x", "a/tr*"), eval_task=("a/*",)), True),
    ],
)
def test_every_condition_of_a_rule_counts(when, expected):
    assert fits(when, PAIR) is expected


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"same_dataset": True}, "same-dataset"),
        ({"level": "supervised"}, "supervised-instances"),
        ({"level": "supervised", "train_task": "a/eval", "same_dataset": True}, "supervised-instances"),
        ({"hit_fraction_rare": 0.0}, "frequent-only"),
        ({"level": "supervised", "hit_fraction_rare": 0.0}, "frequent-only"),
        (
            {"level": "supervised", "train_task": "a/eval", "same_dataset": True, "hit_fraction_rare": 0.0},
            "frequent-only",
        ),
        ({"num_same_output": 11}, "same-output"),
        ({"num_same_output": 10}, None),
        ({"hit_fraction": 0.0, "hit_fraction_rare": 0.0, "num_hit": 0, "num_short_equal": 5}, "same-output"),
    ],
)
def test_shipped_rules(change, rule):
    verdict = decide([replace(PAIR, **change)], [], DEFAULT_RULES, 0.01)
    assert [d.rule for d in verdict.decisions] == ([rule] if rule else [])
    assert bool(verdict.undecided) is (rule is None)


def test_short_equal_examples_are_hits_on_both_sides():
    short = replace(PAIR, num_short_equal=10, num_same_output=15)
    for when in (
        When(hit_fraction_over=0.29),
        When(hit_input_over=0.24),
        When(hit_output_over=0.14),
        When(same_output_fraction_over=0.49, same_output_fraction_at_most=0.5),
    ):
        assert fits(when, short)
    assert not fits(When(num_hit_at_most=29), short)
    assert not fits(When(touched_fraction_over=0.0), replace(PAIR, num_train=0))


def test_a_row_that_calls_itself_a_rule_is_still_a_persons():
    """Rows copied from the decisions of another split name a rule that this recipe may not have."""
    copied = person("drop_train_examples", rule="gone-since", by="rule")
    (made,) = decide([PAIR], [copied], (Rule("all", "keep"),), 0.01).decisions
    assert (made.by, made.decider, made.rule) == ("person", "person", "gone-since")


def test_every_pair_has_a_state():
    pairs = [
        PAIR,
        replace(PAIR, train_task="a/low", hit_fraction=0.0),
        replace(PAIR, train_task="a/ruled", same_dataset=True),
        replace(PAIR, train_task="a/ruled", eval_task="b/other"),
        replace(PAIR, train_task="a/open"),
        replace(PAIR, train_task="a/old"),
    ]
    rules = (Rule("same", "drop_train_task", When(same_dataset=True)),)
    people = [person(), Decision("a/old", "a/eval", "keep", OLD)]
    verdict = decide(pairs, people, rules, 0.01)
    states = verdict.states(pairs, 0.01)
    assert [states[p.tasks] for p in pairs] == ["person", "below", "rule", "dropped", "undecided", "outdated"]


def test_pairs_of_a_dropped_task_need_no_decision():
    other = replace(PAIR, eval_task="b/other", evidence=OLD)
    verdict = decide([PAIR, other], [person("drop_train_task")], (), 0.01)
    assert not verdict.undecided
    assert decide([PAIR, other], [person("drop_eval_task")], (), 0.01).undecided == [other]


def test_a_persons_decision_holds_on_a_part_of_the_data():
    pair = replace(PAIR, hit_fraction=0.5)
    assert decide([pair], [person("keep", OLD)], (), 0.01).undecided == [pair]
    limited = decide([pair], [person("keep", OLD)], (), 0.01, limited=True)
    assert [d.action for d in limited.decisions] == ["keep"] and not limited.undecided


def test_the_message_names_the_worst_pairs_and_how_to_continue():
    pairs = [
        replace(PAIR, train_task=f"a/t{i:02d}", hit_fraction=i / 100, num_short_equal=i) for i in range(3, 33)
    ]
    verdict = decide(pairs, [], (), 0.01)
    message = undecided_message(verdict, 99, 0.01, Path("runs/x"))
    lines = message.splitlines()
    assert lines[0].startswith("30 of 99 overlapping pairs") and "1.00%" in lines[0]
    assert (
        lines[1].startswith("  a/t32 -> a/eval (partial): 32.00% of 100 examples") and "a/t12" not in message
    )
    assert f"  a/t32,a/eval,drop_train_examples,{NEW},,you,," in lines
    assert "runs/x/decisions.csv" in message and lines[-1].endswith("taskmill run runs/x")
    for command in (
        "list runs/x --state undecided",
        "set runs/x a/t32 a/eval",
        "apply runs/x runs/x/undecided.csv",
    ):
        assert f"  taskmill decisions {command}" in message
    assert "  taskmill split runs/x --suggest" in message and "already" not in message
    assert "7 of them have an action" in undecided_message(verdict, 99, 0.01, Path("runs/x"), 7)
