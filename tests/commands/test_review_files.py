"""The files of the review: shared with other processes, merged with other people's, and written as a split."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from published_run import SHARED as TIDES
from published_run import make_run
from review_run import HOSTILE, make_review_run, make_stopped_run
from reviewing import OPEN, check, lines, rows, waiting
from running import call

from taskmill.artifact import read_manifest
from taskmill.commands.decisions import open_desk
from taskmill.commands.review.deciding.keeping import clean_text
from taskmill.commands.review.deciding.state import Review, Selection, View
from taskmill.errors import BusyError, StaleError, UsageError
from taskmill.runs import RunLock
from taskmill.splits.deciding.decision_files import write_decisions


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
