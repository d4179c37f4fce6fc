"""The state behind the review page: what it shows, decides, undoes and merges, and that its files lose nothing."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_run import SHARED as TIDES
from published_run import make_run
from review_run import HOSTILE, make_review_run, make_stopped_run
from running import ROOT, call

from taskmill import storage
from taskmill.artifact import read_manifest
from taskmill.commands.decisions import open_desk
from taskmill.commands.evidence import FREQUENT, SHARED, UNMARKED, tones
from taskmill.commands.review.deciding import undoing
from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.evidence_texts import Examples
from taskmill.commands.review.deciding.keeping import clean_text
from taskmill.commands.review.deciding.state import CLEAR, SORTS, PairRow, Review, Selection, View
from taskmill.errors import BusyError, DamagedError, StaleError, StorageError, UsageError
from taskmill.records import ACTIONS
from taskmill.runs import RunLock
from taskmill.splits.deciding.decision_files import write_decisions
from taskmill.splits.deciding.decisions import STATES, Decision, Verdict
from taskmill.storage import iter_batches

WAITING = ("undecided", "outdated")
OPEN = View(states=WAITING)
EVERYTHING = View()


@pytest.fixture(autouse=True)
def no_old_handlers() -> None:
    """Progress goes nowhere: commands that ran before left handlers of streams that are closed."""
    logging.getLogger("taskmill").handlers.clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with 60 pairs."""
    return make_review_run(tmp_path, 60)


@pytest.fixture
def review(run: Path) -> Review:
    return Review(run, "ann")


def rows(review: Review, view: View = EVERYTHING, group: tuple[str, str] | None = None) -> list[PairRow]:
    return review.pairs(view, group, 0, 10**6)[0]


def waiting(review: Review, count: int) -> tuple[tuple[str, str], ...]:
    """Pairs that wait, the worst first."""
    return tuple(row.pair.tasks for row in rows(review, OPEN)[:count])


def lines(run: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Pair -> its row in decisions.csv."""
    with (run / "decisions.csv").open(encoding="utf-8", newline="") as file:
        return {(row["train_task"], row["eval_task"]): row for row in csv.DictReader(file)}


def expected(run: Path) -> tuple[Verdict, dict[tuple[str, str], str]]:
    """What the run's own files come to, worked out from nothing."""
    desk = open_desk(run)
    verdict = desk.verdict(desk.people.values())
    return verdict, desk.states(verdict)


def check(review: Review) -> None:
    """What is shown is what the files say."""
    verdict, states = expected(review.run)
    assert {row.pair.tasks: row.state for row in rows(review)} == states
    assert [
        row.decision for row in sorted(rows(review), key=lambda r: r.pair.tasks) if row.decision
    ] == verdict.decisions
    assert review.progress().num_waiting == len(verdict.undecided)


# ------------------------------------------------------------------------------------------------ look


def test_progress_counts_pairs_as_the_stage_sees_them(review, run):
    progress = review.progress()
    verdict, _ = expected(run)
    assert (
        progress.num_pairs == 60
        and sum(progress.counts.values()) == 60
        and list(progress.counts) == list(STATES)
    )
    assert progress.num_waiting == len(verdict.undecided) > 10 and not progress.can_write
    assert progress.counts["rule"] and progress.counts["below"]
    assert (progress.split, progress.undo, progress.redo, progress.num_mine) == ("to do", None, None, 0)
    check(review)


def test_groups_hold_every_pair_once_most_waiting_first(review):
    groups = review.groups(View())
    assert sum(group.num_pairs for group in groups) == 60 and len({group.key for group in groups}) == len(
        groups
    )
    assert groups == sorted(groups, key=lambda g: (-g.num_waiting, -g.worst, g.key))
    assert len(groups) == review.progress().num_groups
    assert sum(g.num_waiting > 0 for g in groups) == review.progress().num_groups_waiting
    for group in groups:
        mine = rows(review, View(), group.key)
        assert len(mine) == group.num_pairs
        assert {(row.train_dataset, row.eval_dataset) for row in mine} == {group.key}
        counts = {state: n for state in STATES if (n := sum(row.state == state for row in mine))}
        assert dict(group.counts) == counts
        open_rows = [row for row in mine if row.state in WAITING]
        assert group.num_waiting == len(open_rows)
        assert group.worst == max(r.pair.hit_fraction + r.pair.short_fraction for r in open_rows or mine)
        kinds = {row.suggestion for row in open_rows}
        alone = kinds.pop() if len(kinds) == 1 else None
        assert (group.suggestion and group.suggestion.action) == (alone and alone.action)
    some = frozenset(group.key for group in groups[3:9:2])
    assert review.groups(View(), some) == groups[3:9:2]


def test_the_worst_of_a_group_is_that_of_the_pairs_that_wait(review):
    def shares(key: tuple[str, str]) -> list[float]:
        return [row.pair.hit_fraction for row in rows(review, OPEN, key)]

    group = next(g for g in review.groups(View()) if len(set(shares(g.key))) > 1)
    worst = rows(review, OPEN, group.key)[0]
    while worst.pair.hit_fraction == group.worst:
        review.decide("keep", Selection(pairs=(worst.pair.tasks,)))
        worst = rows(review, OPEN, group.key)[0]
    after = next(g for g in review.groups(View()) if g.key == group.key)
    assert after.worst == max(shares(group.key)) < group.worst and after.num_pairs == group.num_pairs


def test_groups_of_a_view_follow_what_is_decided(review):
    view = View(text="EVAL0/TASK", hit_over=0.2)
    before = review.groups(view)
    assert 0 < sum(g.num_pairs for g in before) < 60
    review.decide("keep", Selection(group=before[0].key, view=view, waiting_only=True))
    after = {group.key: group for group in review.groups(view)}
    assert (
        after[before[0].key].num_waiting == 0
        and after[before[0].key].counts["person"] == before[0].num_waiting
    )
    assert review.groups(view) == Review(review.run, "ann").groups(view)


@pytest.mark.parametrize(
    ("view", "fits"),
    [
        (View(states=("below", "rule")), lambda r: r.state in ("below", "rule")),
        (View(levels=("partial",)), lambda r: r.pair.level == "partial"),
        (View(same_dataset=True), lambda r: r.train_dataset == r.eval_dataset == "one set"),
        (
            View(text="task 00 eval0"),
            lambda r: "task 00" in str(r.pair.tasks) and "eval0" in r.pair.eval_task,
        ),
        (View(text="SCRIPT"), lambda r: "script" in f"{r.train_dataset}{r.eval_dataset}{r.eval_category}"),
        (View(hit_over=0.25), lambda r: r.pair.hit_fraction > 0.25),
        (View(only_frequent=True), lambda r: r.pair.num_hit > 0 and r.pair.hit_fraction_rare == 0),
        (View(only_frequent=False), lambda r: r.pair.num_hit == 0 or r.pair.hit_fraction_rare > 0),
        (View(by="frequent-only"), lambda r: r.decision is not None and r.decision.rule == "frequent-only"),
        (View(action="keep"), lambda r: r.decision is not None and r.decision.action == "keep"),
        (View(noted=True), lambda r: r.note != ""),
        (
            View(levels=("held_out",), hit_over=0.1, noted=False),
            lambda r: r.pair.level == "held_out" and r.pair.num_hit and not r.note,
        ),
    ],
)
def test_filters_show_what_fits_and_nothing_else(review, view, fits):
    review.note(*waiting(review, 1)[0], "look again")
    everything = rows(review)
    want = [row for row in everything if fits(row)]
    assert rows(review, view) == want and 0 < len(want) < 60
    part, number = review.pairs(view, None, 1, 2)
    assert (part, number) == (want[1:3], len(want))


def test_orders_sort_all_pairs(review):
    review.decide("keep", Selection(pairs=waiting(review, 2)))
    keys: dict[str, Callable[[PairRow], object]] = {
        "worst": lambda r: r.pair.badness,
        "rare": lambda r: -r.pair.hit_fraction_rare,
        "touched": lambda r: -r.pair.touched_fraction,
        "train": lambda r: r.pair.tasks,
        "eval": lambda r: r.pair.tasks[::-1],
        "newest": lambda r: r.decision is None or not r.decision.at,
    }
    assert keys.keys() == set(SORTS)
    for sort, key in keys.items():
        found = rows(review, View(sort=sort))
        assert found == sorted(found, key=key) and len(found) == 60  # type: ignore[arg-type]


def test_a_view_of_what_there_is_not_is_refused_with_the_nearest(review):
    for view in (
        View(states=("undecide",)),
        View(levels=("heldout",)),
        View(sort="worse"),
        View(action="kep"),
    ):
        with pytest.raises(UsageError, match="did you mean"):
            review.pairs(view)
        with pytest.raises(UsageError, match="did you mean"):
            review.decide("keep", Selection(view=view))


# -------------------------------------------------------------------------------------------- evidence


def test_evidence_marks_the_shared_words_of_both_texts_and_keeps_hostile_text(review):
    row = next(
        row for row in rows(review, View(text="task 000")) if row.pair.num_hit >= 3 and row.state != "rule"
    )
    found = review.evidence(*row.pair.tasks)
    assert found.row == row and found.num_items == row.pair.num_hit and len(found.items) == 3
    for item in found.items:
        window = item.windows[0]
        assert not window.frequent and item.side == "input" and not item.short_equal
        marked = [text for text, tone in item.eval["input"] if tone]
        assert [text.replace(",", "").lower() for text in marked] == [window.text]
        assert [text for text, tone in item.train["input"] if tone] == [window.text]
    more = review.evidence(*row.pair.tasks, start=2, count=50)
    assert more.items[0] == found.items[2] and len(more.items) == found.num_items - 2
    shown = "".join(text for item in more.items for text, _ in item.eval["input"])
    assert any(text[:20] in shown for text in HOSTILE)


def test_frequent_windows_have_a_tone_of_their_own(review):
    row = next(row for row in rows(review, View(only_frequent=True)))
    item = review.evidence(*row.pair.tasks).items[0]
    assert item.frequent and item.windows[0].frequent
    assert {tone for _, tone in item.train["input"]} - {UNMARKED} == {FREQUENT}
    both = tones("a b c d e x", {"a b c": FREQUENT, "c d e": SHARED})
    assert both == [("a b", FREQUENT), (" ", UNMARKED), ("c d e", SHARED), (" x", UNMARKED)]


def test_evidence_goes_on_where_the_table_of_windows_ends(tmp_path):
    run = make_stopped_run(tmp_path)
    review = Review(run, "ann")
    row = rows(review)[0]
    table = run / "overlaps/evidence.parquet"
    before = review.evidence(*row.pair.tasks, 0, 10)
    assert before.num_items == row.pair.num_hit + row.pair.num_short_equal > 1
    pairs = storage.read_table(table)
    with storage.TableWriter(table, pairs.schema) as writer:
        writer.write(pairs.slice(0, 0))
    after = Review(run, "ann").evidence(*row.pair.tasks, 0, 10)
    assert {(i.train_example, i.eval_example) for i in after.items} == {
        (i.train_example, i.eval_example) for i in before.items
    }
    assert [dict(i.train) for i in after.items] == [
        dict(i.train) for i in sorted(before.items, key=lambda i: i.eval_example)
    ]


def test_examples_are_found_in_whichever_row_group_they_stand(tmp_path):
    run = make_review_run(tmp_path, 12, num_examples=5000)
    path = run / "tasks/examples/all.parquet"
    known = [row for batch in iter_batches(path) for row in batch.to_pylist()]
    assert len(known) > 2 * storage.ROW_GROUP
    examples = Examples([path], {})
    wanted = [row["example"] for row in known[::4999]]
    assert {k: v["fields"] for k, v in examples.find(wanted).items()} == {
        row["example"]: row["fields"] for row in known if row["example"] in set(wanted)
    }
    assert examples.find(["train0/task 000#99999", "nobody#1"]) == {}


# ----------------------------------------------------------------------------------- decide and preview


def test_a_decision_is_on_disk_with_evidence_name_time_and_reason(review, run):
    pair = waiting(review, 1)[0]
    change = review.decide("drop_train_examples", Selection(pairs=(pair,)), " the same\r\npassages \0")
    row = lines(run)[pair]
    assert (row["action"], row["by"], row["why"], row["rule"]) == (
        "drop_train_examples",
        "ann",
        "the same\npassages",
        "",
    )
    assert row["evidence"] == review.row(*pair).pair.evidence and row["at"].endswith("Z")
    assert (change.num_pairs, change.kind, change.number) == (1, "decide", 1)
    assert review.row(*pair).state == "person" and review.progress().num_mine == 1
    assert review.decide("drop_train_examples", Selection(pairs=(pair,)), "again").num_pairs == 0
    assert lines(run)[pair]["why"] == "the same\npassages"
    check(review)


def test_a_group_and_a_filter_decide_what_waits_and_overrule_only_when_asked(review, run):
    group = review.groups(View())[0]
    assert review.decide("keep", Selection(group=group.key, waiting_only=True)).num_pairs == group.num_waiting
    check(review)
    ruled = rows(review, View(states=("rule",)))
    view = View(states=("rule", "person"))
    preview = review.preview("drop_eval_examples", Selection(view=view))
    assert preview.num_overruled == len(ruled) and len(preview.replaced) == group.num_waiting
    assert review.decide("drop_eval_examples", Selection(view=view), token=preview.token).num_pairs == len(
        preview.pairs
    )
    assert {row["action"] for row in lines(run).values()} == {"drop_eval_examples"}
    check(review)


def test_nothing_selected_or_unknown_is_refused(review):
    pair = waiting(review, 1)[0]
    for selection in (
        Selection(),
        Selection(pairs=(("a", "b"),)),
        Selection(pairs=(pair, (pair[0], "nobody"))),
        Selection(group=("no", "set")),
        Selection(view=View(text="nowhere at all")),
        Selection(view=View(states=("rule",)), waiting_only=True),
    ):
        with pytest.raises(UsageError):
            review.decide("keep", selection)
        with pytest.raises(UsageError):
            review.preview("keep", selection)
    with pytest.raises(UsageError, match="did you mean 'drop_train_task'"):
        review.decide("drop_traintask", Selection(pairs=(pair,)))
    with pytest.raises(UsageError, match="no person"):
        review.clear(Selection(pairs=(pair,)))
    with pytest.raises(UsageError, match="4,000"):
        review.decide("keep", Selection(pairs=(pair,)), "x" * 5000)
    assert not (review.run / "decisions.csv").exists()


def test_a_preview_says_what_the_step_then_does(review, run):
    train = waiting(review, 1)[0][0]
    named = tuple(row.pair.tasks for row in rows(review, OPEN) if row.pair.train_task == train)
    assert len(named) > 1
    shown = review.progress(), review.groups(OPEN)
    preview = review.preview("drop_train_task", Selection(pairs=named[:1]))
    before = {row.pair.tasks: row.state for row in rows(review)}
    assert (review.progress(), review.groups(OPEN)) == shown
    assert preview.dropped_tasks == (train,) and preview.num_waiting_before == 1
    assert (
        preview.num_train_examples == review.row(*named[0]).pair.num_train and preview.num_eval_examples == 0
    )
    assert before == {row.pair.tasks: row.state for row in rows(review)}
    review.decide("drop_train_task", Selection(pairs=named[:1]), token=preview.token)
    after = {row.pair.tasks: row.state for row in rows(review)}
    assert (
        {key for key in after if before[key] in WAITING and after[key] == "dropped"}
        == set(preview.moot)
        == set(named[1:])
    )
    assert preview.num_waiting_after == review.progress().num_waiting
    back = review.preview(CLEAR, Selection(pairs=named[:1]))
    assert set(back.reopened) == set(named[1:]) and [d.pair for d in back.replaced] == [named[0]]
    review.clear(Selection(pairs=named[:1]), back.token)
    assert {row.pair.tasks: row.state for row in rows(review)} == before
    check(review)


def test_examples_of_a_preview_are_counted_once(review):
    pairs = tuple(row.pair.tasks for row in rows(review, View(hit_over=0.0)))
    hits = storage.read_table(review.run / "overlaps/hits.parquet").to_pylist()
    touched = storage.read_table(review.run / "overlaps/touched.parquet").to_pylist()
    chosen = set(pairs[::3])
    drop = review.preview("drop_eval_examples", Selection(pairs=pairs[::3]))
    assert drop.num_eval_examples == len(
        {h["eval_example"] for h in hits if (h["train_task"], h["eval_task"]) in chosen}
    )
    drop = review.preview("drop_train_examples", Selection(pairs=pairs[::3]))
    assert drop.num_train_examples == len(
        {t["train_example"] for t in touched if (t["train_task"], t["eval_task"]) in chosen}
    )
    assert drop.exact and drop.num_eval_examples == 0


def test_what_changed_since_it_was_shown_is_not_decided(review, run):
    pairs = waiting(review, 3)
    token = review.preview("keep", Selection(pairs=pairs)).token
    Review(run, "bob").decide("drop_train_task", Selection(pairs=pairs[:1]), "mine")
    with pytest.raises(StaleError):
        review.decide("keep", Selection(pairs=pairs), token=token)
    assert lines(run)[pairs[0]]["by"] == "bob" and len(lines(run)) == 1
    with pytest.raises(StaleError, match="built again"):
        review.decide("keep", Selection(pairs=pairs, revision="0123"))
    review.decide("keep", Selection(pairs=pairs[1:2], revision=review.revision))


STEP = st.tuples(
    st.sampled_from([*ACTIONS, CLEAR, "undo", "redo", "outdated"]),
    st.sets(st.integers(0, 23), min_size=1, max_size=6),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(STEP, max_size=12))
def test_the_verdict_after_any_steps_is_that_of_decide(tmp_path_factory, steps):
    """On the board alone, so that many steps are quick; undo and redo give back what was before."""
    run = _shared_run(tmp_path_factory)
    desk = open_desk(run)
    tasks = {task: {"dataset": "", "category": ""} for task in desk.tasks}
    board = Board(desk.settings, desk.pairs, tasks)
    history, undone = (
        list[dict[tuple[str, str], Decision | None]](),
        list[dict[tuple[str, str], Decision | None]](),
    )
    for action, numbers in steps:
        pairs = [board.pairs[n] for n in sorted(numbers)]
        if action in ("undo", "redo"):
            stack, other = (history, undone) if action == "undo" else (undone, history)
            changes = stack.pop() if stack else {}
            other.append({key: board.people.get(key) for key in changes})
        else:
            made = {p.tasks: Decision(*p.tasks, action, p.evidence, "", "ann") for p in pairs}
            if action == "outdated":
                made = {k: replace(d, action="keep", evidence="0" * 32) for k, d in made.items()}
            changes = dict.fromkeys(made) if action == CLEAR else dict(made)
            history.append({key: board.people.get(key) for key in changes})
        states = list(board.state)
        moved = board.put(changes)
        assert {(n, b, a) for n, (b, a) in enumerate(zip(states, board.state)) if b != a} == set(moved)
        verdict = desk.verdict(board.people.values())
        assert board.verdict() == verdict
        assert dict(zip(board.keys, board.state)) == desk.states(verdict)
        assert [STATES[code] for code in board.codes] == board.state and board.num_waiting == len(
            verdict.undecided
        )


_RUNS: dict[str, Path] = {}


def _shared_run(factory: pytest.TempPathFactory) -> Path:
    if "run" not in _RUNS:
        _RUNS["run"] = make_review_run(factory.mktemp("board"), 24)
    return _RUNS["run"]


# ----------------------------------------------------------------------------------------- undo and redo


def test_every_step_can_be_undone_and_done_again(review, run):
    pairs = waiting(review, 6)
    states = list[dict[tuple[str, str], object]]()

    def now() -> dict[tuple[str, str], object]:
        check(review)
        return {row.pair.tasks: (row.decision, row.note, row.state) for row in rows(review)}

    review.note(*pairs[5], "look")
    for step in (
        lambda: review.decide("keep", Selection(pairs=pairs[:3]), "first"),
        lambda: review.note(*pairs[4], "hm"),
        lambda: review.note(*pairs[0], "second thoughts"),
        lambda: review.decide("drop_eval_task", Selection(view=OPEN), "all"),
        lambda: review.note(*pairs[4], ""),
        lambda: review.clear(Selection(pairs=pairs[:2])),
    ):
        states.append(now())
        assert step().num_pairs > 0
    states.append(now())
    for place in range(len(states) - 2, -1, -1):
        review = Review(run, "ann") if place % 2 else review
        assert review.undo().skipped == ()
        assert now() == states[place]
    assert review.progress().undo is not None and review.progress().undo.kind == "note"
    for place in range(1, len(states)):
        review = Review(run, "ann") if place % 2 else review
        review.redo()
        assert now() == states[place]
    with pytest.raises(UsageError, match="nothing to do again"):
        review.redo()
    review.undo()
    review.note(*pairs[5], "another step")
    assert review.progress().redo is None
    with pytest.raises(UsageError, match="nothing to do again"):
        review.redo()


ACT = st.tuples(
    st.sampled_from(["keep", "drop_train_task", "drop_eval_task", CLEAR, "undo", "redo", "cli", "reopen"]),
    st.sets(st.integers(0, 23), min_size=1, max_size=4),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACT, min_size=3, max_size=9))
def test_files_after_any_steps_hold_what_the_steps_say(tmp_path_factory, acts):
    """A model of two stacks beside the review, whose files are judged anew after each step."""
    run = tmp_path_factory.mktemp("acts") / "run"
    shutil.copytree(_shared_run(tmp_path_factory), run)
    review = Review(run, "ann")
    keys = [row.pair.tasks for row in rows(review)]
    actions: dict[tuple[str, str], str] = {}
    done, undone = (
        list[dict[tuple[str, str], tuple[str, str]]](),
        list[dict[tuple[str, str], tuple[str, str]]](),
    )
    for act, numbers in acts:
        pairs = tuple(keys[number] for number in sorted(numbers))
        if act == "reopen":
            review = Review(run, "ann")
        elif act == "cli":
            desk = open_desk(run)
            desk.write(
                [Decision(*pairs[0], "drop_eval_examples", review.row(*pairs[0]).pair.evidence, "", "cli")]
            )
            actions[pairs[0]] = "drop_eval_examples"
        elif act in ("undo", "redo"):
            stack, other = (done, undone) if act == "undo" else (undone, done)
            if not stack:
                with pytest.raises(UsageError):
                    review.undo() if act == "undo" else review.redo()
                continue
            step = stack.pop()
            other.append(step)
            change = review.undo() if act == "undo" else review.redo()
            number = skipped = 0
            for key, (before, after) in step.items():
                old, new = (after, before) if act == "undo" else (before, after)
                now = actions.get(key, "")
                if now == old:
                    actions[key], number = new, number + 1
                skipped += now not in (old, new)
            assert (change.num_pairs, len(change.skipped)) == (number, skipped)
        else:
            want = "" if act == CLEAR else act
            step = {key: (actions.get(key, ""), want) for key in pairs if actions.get(key, "") != want}
            try:
                review.clear(Selection(pairs=pairs)) if act == CLEAR else review.decide(
                    act, Selection(pairs=pairs)
                )
            except UsageError:
                assert act == CLEAR and not step
            if step:
                done.append(step)
                undone.clear()
                actions.update(dict.fromkeys(step, want))
        held = (
            {key: row["action"] for key, row in lines(run).items()}
            if (run / "decisions.csv").exists()
            else {}
        )
        assert held == {key: action for key, action in actions.items() if action}
        check(review)


def test_undo_leaves_what_somebody_decided_since(review, run):
    pairs = waiting(review, 3)
    review.decide("keep", Selection(pairs=pairs))
    bob = Review(run, "bob")
    with pytest.raises(UsageError, match="nothing to undo"):
        bob.undo()
    bob.decide("drop_train_examples", Selection(pairs=pairs[:1]), "no")
    change = review.undo()
    assert (change.num_pairs, change.skipped) == (2, pairs[:1])
    assert {key: row["by"] for key, row in lines(run).items()} == {pairs[0]: "bob"}
    assert review.redo().num_pairs == 2 and len(lines(run)) == 3
    bob.undo()
    assert lines(run)[pairs[0]]["by"] == "ann"
    check(review)


def test_the_first_decision_over_the_recipes_file_can_be_undone(run):
    pair = waiting(Review(run, "ann"), 1)[0]
    review = Review(run, "ann")
    review.decide("keep", Selection(pairs=(pair,)))
    review.undo()
    assert lines(run) == {} and review.progress().num_mine == 0


@pytest.mark.parametrize("name", ["_write", "_fsync", "_rename"])
def test_a_refusing_disk_changes_nothing_or_leaves_a_step_that_can_be_undone(review, run, monkeypatch, name):
    pairs = waiting(review, 3)
    review.decide("keep", Selection(pairs=pairs[:1]), "kept")
    before = lines(run)
    real, outcomes = getattr(storage, name), list[bool]()
    for fatal in range(10):
        calls = iter(range(10))

        def failing(*arguments, calls=calls, fatal=fatal):
            if next(calls) == fatal:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        monkeypatch.setattr(storage, name, failing)
        try:
            review.decide("drop_train_examples", Selection(pairs=pairs), "all of them")
        except StorageError:
            monkeypatch.setattr(storage, name, real)
            outcomes.append(lines(run) == before)
        else:
            break
        check(review)
        assert Review(run, "ann").progress().undo == review.progress().undo
        if not outcomes[-1]:  # the file was renamed, and only making that durable failed
            assert review.undo().num_pairs == 3
        assert lines(run) == before
    assert outcomes == {"_write": [True, True], "_fsync": [True, True, False], "_rename": [True]}[name]
    monkeypatch.setattr(storage, name, real)
    assert review.undo().num_pairs == 3 and lines(run) == before


def test_a_killed_server_loses_nothing_that_was_answered(run):
    """A step written down and not carried out is forgotten; half a line of the history is left out."""
    review = Review(run, "ann")
    pairs = waiting(review, 4)
    review.decide("keep", Selection(pairs=pairs[:2]), "one")
    code = f"""
import os
from pathlib import Path
from taskmill.commands.review.deciding import keeping
from taskmill.commands.review.deciding.state import Review, Selection
review = Review(Path({str(run)!r}), "ann")
keeping.write_bytes = lambda *_: os._exit(9)
review.decide("drop_train_task", Selection(pairs={pairs!r}), "two")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == 9
    assert len((run / "review-history.jsonl").read_bytes().splitlines()) == 2
    with (run / "review-history.jsonl").open("ab") as file:
        file.write(b'{"step":3,"kind"')
    copy = shutil.copytree(run, run.parent / "copy")
    again = Review(copy, "ann")
    assert again.undo().num_pairs == 2 and Review(copy, "ann").progress().undo is None
    assert again.redo().num_pairs == 2 and len(lines(copy)) == 2
    again = Review(run, "ann")
    assert again.progress().undo == review.progress().undo
    assert len(lines(run)) == 2
    again.decide("keep", Selection(pairs=pairs[2:]), "three")
    last = Review(run, "ann")
    assert [last.undo().num_pairs, last.undo().num_pairs] == [2, 2] and lines(run) == {}
    check(last)


def test_a_damaged_history_costs_the_steps_before_it_and_nothing_else(review, run):
    pairs = waiting(review, 3)
    for pair in pairs:
        review.decide("keep", Selection(pairs=(pair,)))
    path = run / "review-history.jsonl"
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(text[0] + text[1][:20] + b"\n" + text[2])
    assert review.undo().num_pairs == 1
    with pytest.raises(UsageError, match="nothing to undo"):
        review.undo()
    assert len(lines(run)) == 2


def test_a_history_of_other_types_is_no_history_and_damaged_rows_are_named(review, run):
    review.decide("keep", Selection(pairs=waiting(review, 1)))
    path = run / "review-history.jsonl"
    good = path.read_bytes()
    head = good.partition(b"\t")[0]
    for wrong in (b'{"undo":[1]}\t[]\n', head.replace(b'"step":1', b'"step":"x"') + b"\t[]\n", b"7\t[]\n"):
        path.write_bytes(wrong)
        with pytest.raises(UsageError, match="nothing to undo"):
            review.undo()
    path.write_bytes(head + b'\t{"rows":[[1]]}\n')
    with pytest.raises(DamagedError, match=r"step 1 in review-history\.jsonl"):
        review.undo()
    path.write_bytes(good)
    assert review.undo().num_pairs == 1


def test_a_long_history_loses_its_older_half(review, run, monkeypatch):
    pairs = waiting(review, 12)
    monkeypatch.setattr(undoing, "MOST_BYTES", 2000)
    for pair in pairs:
        review.decide("keep", Selection(pairs=(pair,)))
    assert (run / "review-history.jsonl").stat().st_size < 4000
    again = Review(run, "ann")
    assert again.progress().undo == review.progress().undo
    number = 0
    while again.progress().undo is not None:
        number += again.undo().num_pairs
    assert 3 < number < 12 and len(lines(run)) == 12 - number
    check(again)


def test_several_threads_decide_and_look_without_losing_a_step(review, run):
    pairs = waiting(review, 24)
    problems = list[BaseException]()

    def work(number: int) -> None:
        try:
            for pair in pairs[number::4]:
                review.decide("keep", Selection(pairs=(pair,)), str(number))
                assert review.row(*pair).state == "person"
                review.groups(OPEN), review.progress(), review.evidence(*pair)
        except BaseException as error:  # noqa: BLE001 (shown by the thread that waits)
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert set(lines(run)) == set(pairs) and review.progress().num_mine == 24
    for _ in pairs:
        review.undo()
    assert lines(run) == {}


# ------------------------------------------------------------------------------------------------ files


def test_what_other_processes_change_is_read_and_kept(review, run, capsys):
    pairs = waiting(review, 4)
    review.decide("keep", Selection(pairs=pairs[:1]))
    code, _, err = call(capsys, "decisions", "set", str(run), *pairs[1], "drop_train_task", "--by", "cli")
    assert code == 0, err
    assert review.row(*pairs[1]).decision.by == "cli"
    check(review)
    text = (run / "decisions.csv").read_text(encoding="utf-8")
    stamp = (run / "decisions.csv").stat()
    (run / "decisions.csv").write_text(text.replace(",cli,", ",bob,"), encoding="utf-8")
    os.utime(run / "decisions.csv", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    review.decide("keep", Selection(pairs=pairs[2:]))
    assert {key: row["by"] for key, row in lines(run).items()} == dict(
        zip(sorted(pairs), map({pairs[1]: "bob"}.get, sorted(pairs), ["ann"] * 4))
    )
    check(review)


def test_a_file_that_is_broken_meanwhile_is_reported_and_never_overwritten(review, run):
    pairs = waiting(review, 2)
    review.decide("keep", Selection(pairs=pairs[:1]))
    good = (run / "decisions.csv").read_bytes()
    bad = good + b"a,b,kep,xyz,,,,\n"
    (run / "decisions.csv").write_bytes(bad)
    for step in (review.progress, review.undo, lambda: review.decide("keep", Selection(pairs=pairs))):
        with pytest.raises(UsageError, match=r"decisions\.csv:3"):
            step()
    assert (run / "decisions.csv").read_bytes() == bad
    (run / "decisions.csv").write_bytes(good)
    review.decide("keep", Selection(pairs=pairs))
    check(review)


def test_a_file_that_somebody_takes_away_stops_one_step(review, run):
    pairs = waiting(review, 4)
    review.decide("keep", Selection(pairs=pairs[:3]))
    path = run / "decisions.csv"
    kept = path.read_bytes()
    for back, num in ((kept, 4), (None, 1)):
        path.unlink()
        review.progress()
        with pytest.raises(StaleError, match=r"decisions\.csv is gone, with \d decisions"):
            review.decide("keep", Selection(pairs=pairs[3:]))
        assert not path.exists()
        if back is not None:
            path.write_bytes(back)
        review.decide("keep", Selection(pairs=pairs[3:]))
        assert len(lines(run)) == num
        check(review)


def test_a_link_to_decisions_stays_one(review, run, tmp_path):
    shared = tmp_path / "shared.csv"
    review.decide("keep", Selection(pairs=waiting(review, 1)))
    (run / "decisions.csv").rename(shared)
    (run / "decisions.csv").symlink_to(shared)
    review.decide("keep", Selection(pairs=waiting(review, 1)))
    assert (run / "decisions.csv").is_symlink() and shared.read_text().count("\n") == 3


def test_a_busy_run_is_looked_at_and_not_changed(review, run):
    pairs = waiting(review, 2)
    with RunLock(run):
        for step in (
            lambda: review.decide("keep", Selection(pairs=pairs)),
            lambda: review.note(*pairs[0], "x"),
            lambda: review.merge(b"train_task,eval_task,action,evidence\n", "mine"),
        ):
            with pytest.raises(BusyError):
                step()
        assert review.progress().num_mine == 0 and review.groups(View())
        assert review.write_split().message.startswith(str(run))
    assert not (run / "decisions.csv").exists()
    review.decide("keep", Selection(pairs=pairs))


def test_the_file_is_the_one_that_the_command_line_writes(review, run, tmp_path):
    review.decide("keep", Selection(view=OPEN), 'a "quoted", reason\nof two lines =1+1')
    desk = open_desk(run)
    write_decisions(tmp_path / "same.csv", [desk.people[pair] for pair in sorted(desk.people)])
    assert (run / "decisions.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()


def test_overlap_built_again_shows_other_pairs(review, run, tmp_path):
    pair = waiting(review, 1)[0]
    revision = review.revision
    other = make_review_run(tmp_path / "other", 40, hostile=True)
    review.decide("keep", Selection(pairs=(pair,)))
    for folder in ("tasks", "overlaps"):
        (run / folder).rename(run / f"old-{folder}")
        (other / folder).rename(run / folder)
    if pair not in {row.pair.tasks for row in rows(review)}:
        assert review.progress().num_pairs == 40
    assert review.progress().num_pairs == 40 and review.revision != revision
    with pytest.raises(StaleError):
        review.preview("keep", Selection(view=OPEN, revision=revision))


def test_notes_stand_for_reasons_and_are_reasons_of_decisions(review, run):
    first, second = waiting(review, 2)
    hostile = "\n".join(HOSTILE)
    review.note(*first, hostile)
    assert review.row(*first).note == clean_text(hostile) == Review(run, "bob").row(*first).note
    assert review.row(*first).state == "undecided" and not (run / "decisions.csv").exists()
    review.decide("keep", Selection(pairs=(first, second)))
    assert lines(run)[first]["why"] == clean_text(hostile) and lines(run)[second]["why"] == ""
    assert review.note(*first, "short").kind == "note"
    assert lines(run)[first]["why"] == "short" and review.row(*first).note == "short"
    assert review.note(*first, "short").num_pairs == 0
    review.undo()
    assert lines(run)[first]["why"] == clean_text(hostile)
    review.note(*first, "")
    assert lines(run)[first]["why"] == "" and review.row(*first).note == clean_text(hostile)
    assert review.note(*first, "").num_pairs == 1 and review.row(*first).note == ""
    review.undo(), review.undo()
    assert lines(run)[first]["why"] == review.row(*first).note == clean_text(hostile)
    (run / "review-notes.csv").write_text("nonsense\n")
    with pytest.raises(UsageError, match=r"review-notes\.csv:1"):
        review.progress()


def test_a_review_needs_a_finished_overlap_and_reads_malformed_files_as_the_stage_does(run, tmp_path):
    (run / "decisions.csv").write_text("train_task,eval_task\n")
    with pytest.raises(UsageError, match=r"decisions\.csv:1"):
        Review(run, "ann")
    (run / "overlaps/manifest.json").unlink()
    with pytest.raises(UsageError, match="taskmill overlap"):
        Review(run, "ann")
    with pytest.raises(UsageError, match="there is no run"):
        Review(tmp_path / "nowhere", "ann")


# ------------------------------------------------------------------------------------------------ merge


def theirs(review: Review, *decided: tuple[tuple[str, str], str, str], evidence: str = "") -> bytes:
    """Bob's decisions: (pair, action, at)."""
    found = [["train_task", "eval_task", "action", "evidence", "rule", "by", "at", "why"]]
    for pair, action, at in decided:
        found.append([*pair, action, evidence or review.row(*pair).pair.evidence, "", "bob", at, "his"])
    text = [",".join(f'"{value.replace(chr(34), chr(34) * 2)}"' for value in row) for row in found]
    return ("\n".join(text) + "\n").encode()


def test_a_merge_shows_new_equal_contradicting_and_refused_rows_and_is_one_step(review, run):
    a, b, c, d, e = waiting(review, 5)
    review.decide("keep", Selection(pairs=(a, b, c)), "mine")
    data = theirs(review, (b, "keep", ""), (c, "drop_train_task", "2999-01-01"), (d, "keep", "2026-01-01"))
    data += theirs(review, (e, "keep", ""), evidence="0" * 32).partition(b"\n")[2]
    ruled = next(row.pair.tasks for row in rows(review) if row.state == "rule")
    with_ruled = data + theirs(review, (ruled, "keep", "")).partition(b"\n")[2]
    assert review.merge_preview(data).num_overruled == 0
    assert review.merge_preview(with_ruled).num_overruled == 1
    data += b'nobody/x,"eval0/task 000",keep,' + b"0" * 32 + b",,,,\n"
    found = review.merge_preview(data, "bob.csv")
    assert [x.pair for x in found.new] == [d] and [x.pair for x in found.equal] == [b]
    assert [(x.pair, x.mine.by, x.theirs.by) for x in found.contradicting] == [(c, "ann", "bob")]
    assert {(row.decision.train_task, row.line) for row in found.refused} == {(e[0], 5), ("nobody/x", 6)}
    assert "no task is called" in found.refused[0].why or "no task is called" in found.refused[1].why
    assert len(lines(run)) == 3
    before = (run / "decisions.csv").read_bytes()
    change = review.merge(data, "mine", token=found.token)
    assert (change.num_pairs, change.kind) == (2, "merge")
    assert {k: r["by"] for k, r in lines(run).items()} == {a: "ann", b: "ann, bob", c: "ann", d: "bob"}
    review.undo()
    assert (run / "decisions.csv").read_bytes() == before
    for prefer, choices, action in (
        ("theirs", {}, "drop_train_task"),
        ("newest", {}, "drop_train_task"),
        ("theirs", {c: "mine"}, "keep"),
        ("mine", {c: "theirs"}, "drop_train_task"),
    ):
        review.merge(data, prefer, choices)
        assert lines(run)[c]["action"] == action
        check(review)
        review.undo()
    review.note(*a, "changed since")
    with pytest.raises(StaleError):
        review.merge(data, "mine", token=found.token)
    with pytest.raises(UsageError, match="did you mean 'theirs'"):
        review.merge(data, "their")


def test_a_merge_of_undated_contradictions_asks_and_of_nonsense_names_the_line(review, run):
    pair = waiting(review, 1)[0]
    review.decide("keep", Selection(pairs=(pair,)))
    at = lines(run)[pair]["at"]
    data = theirs(review, (pair, "drop_eval_task", at))
    assert len(review.merge_preview(data).contradicting) == 1
    with pytest.raises(UsageError, match="choose mine or theirs"):
        review.merge(data, "newest")
    for bad in (b"\xff\xfe", b"a,b\n", data.replace(b"drop_eval_task", b"drop"), b""):
        with pytest.raises(UsageError, match=r"bob\.csv") as error:
            review.merge_preview(bad, "bob.csv")
        assert "taskmill-merge" not in str(error.value)


# ------------------------------------------------------------------------------------------------ split


def test_a_stopped_run_goes_to_a_clean_split_through_the_review_alone(tmp_path, capsys):
    run = make_stopped_run(tmp_path)
    review = Review(run, "ann")
    assert review.progress().num_waiting == 6 and review.progress().split == "to do"
    refused = review.write_split()
    assert (refused.ok, refused.exit_code) == (False, 3) and "6 of 6 overlapping pairs" in refused.message
    group = review.groups(View())[0]
    review.decide("drop_train_examples", Selection(group=group.key, waiting_only=True), "shared words")
    assert review.progress().can_write
    done = review.write_split()
    assert done.ok and done.status == "built" and done.counts["num_unclean"] == 0, done.message
    assert done.dropped["decision"] > 0 and review.progress().split == "up to date"
    assert review.write_split().status == "up to date"
    code, out, err = call(capsys, "split", str(run))
    assert code == 0 and "up to date" in out, err
    pair = rows(review)[0].pair.tasks
    review.note(*pair, "a reason changes nothing")
    assert review.progress().split == "up to date"
    review.decide("keep", Selection(pairs=(pair,)))
    assert review.progress().split == "stale"
    assert review.write_split().counts["num_unclean"] > 0 and review.progress().split == "up to date"
    review.undo()
    assert review.progress().split == "stale"
    (run / "splits/members.parquet").unlink()
    review.redo()
    assert review.progress().split == "damaged"
    assert review.write_split().status == "built"


def test_a_split_that_leaves_a_level_empty_says_so(tmp_path):
    run = make_stopped_run(tmp_path)
    review = Review(run, "ann")
    review.decide("drop_eval_task", Selection(view=View()))
    root = read_manifest(run / "splits")
    outcome = review.write_split()
    assert not outcome.ok or outcome.counts["num_drop_eval_task"] == 6
    assert root is None and json.loads((run / "recipe.json").read_bytes())["values"]["name"] == "stopped"


def test_the_made_run_can_be_split_too(tmp_path):
    review = Review(make_review_run(tmp_path, 12), "ann")
    review.decide("drop_train_examples", Selection(view=OPEN))
    outcome = review.write_split()
    assert outcome.ok, outcome.message
    assert outcome.counts["num_test"] > 0 and review.progress().split == "up to date"


def test_of_a_benchmark_that_extends_another_only_new_pairs_are_decided_and_move_nothing_old(
    tmp_path, capsys
):
    first = make_run(tmp_path)
    rows_of = {
        name: [{"text": f"{name} {i} {TIDES}", "answer": f"{name} {i}"} for i in range(9)]
        for name in ("tides", "calls")
    }
    text = "data_root: .\nsources:\n"
    for name, category in (("tides", "Text Categorization"), ("calls", "Summarization")):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of[name]))
        options = (
            f"{{task: {name}, category: {category}, cast: {{fields: {{text: text}}, references: answer}}}}"
        )
        text += f"  - {{reader: table, path: {name}.jsonl, benchmark: new, options: {options}}}\n"
    (tmp_path / "more.yaml").write_text(text)
    run = tmp_path / "second"
    code, _, err = call(
        capsys,
        "extend",
        str(first),
        "--add",
        str(tmp_path / "more.yaml"),
        "--run",
        str(run),
        "--workers",
        "1",
    )
    assert code == 3, err
    review = Review(run, "ann")
    by_pair = {row.pair.tasks: row for row in rows(review)}
    old = by_pair["custom/notes", "logs/logs"]
    assert old.state in ("person", "rule") and old.actions == ()
    new = by_pair["new/tides", "logs/logs"]
    assert (
        new.state == "undecided" and "drop_eval_task" not in new.actions and "drop_train_task" in new.actions
    )
    for pair, action in ((old.pair.tasks, "drop_eval_task"), (new.pair.tasks, "drop_eval_task")):
        with pytest.raises(UsageError, match="benchmark that this one extends"):
            review.decide(action, Selection(pairs=(pair,)))
        with pytest.raises(UsageError, match="benchmark that this one extends"):
            review.preview(action, Selection(pairs=(pair,)))
    check(review)
    review.decide("drop_train_examples", Selection(pairs=(new.pair.tasks,)))
    check(review)
    review.decide("keep", Selection(view=OPEN))
    check(review)
    assert review.progress().num_waiting == 0 and review.write_split().ok
    review.undo()
    check(review)
