"""Undo and redo of the review: every step, by everybody, over kills, full disks and damaged histories."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from review_run import make_review_run
from reviewing import OPEN, check, lines, rows, shared_run, waiting
from running import ROOT

from taskmill import storage
from taskmill.commands.decisions import open_desk
from taskmill.commands.review.deciding import undoing
from taskmill.commands.review.deciding.state import CLEAR, Review, Selection
from taskmill.errors import DamagedError, StorageError, UsageError
from taskmill.splits.deciding.decisions import Decision


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
    shutil.copytree(shared_run(tmp_path_factory), run)
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
