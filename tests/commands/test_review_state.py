"""The state behind the review page: what it shows, and what a decision does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from review_run import HOSTILE, make_review_run, make_stopped_run
from reviewing import OPEN, WAITING, check, expected, lines, rows, shared_run, waiting

from taskmill import storage
from taskmill.commands.decisions import open_desk
from taskmill.commands.evidence import FREQUENT, SHARED, UNMARKED, tones
from taskmill.commands.review.deciding.board import Board
from taskmill.commands.review.deciding.evidence_texts import Examples
from taskmill.commands.review.deciding.state import CLEAR, SORTS, SUGGESTED, PairRow, Review, Selection, View
from taskmill.errors import StaleError, UsageError
from taskmill.records import ACTIONS
from taskmill.splits.deciding.decision_files import write_decisions
from taskmill.splits.deciding.decisions import STATES, Decision
from taskmill.storage import iter_batches


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
    run = shared_run(tmp_path_factory)
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


# ------------------------------------------------------------------------------------ as it is suggested


def suggest(run: Path, found: list[PairRow], action: str, /, **other: str) -> None:
    """Write suggested.csv with an action for pairs; `other` replaces columns of the last row."""
    made = [
        Decision(*row.pair.tasks, action, row.pair.evidence, "", "suggestion", "", f"reason {n % 2}")
        for n, row in enumerate(found)
    ]
    write_decisions(run / "suggested.csv", [*made[:-1], replace(made[-1], **other)])


def test_suggestions_decide_each_pair_that_waits_by_its_own_and_nothing_else(review, run):
    assert f"taskmill split {run} --suggest" in review.progress().hint
    with pytest.raises(UsageError, match="--suggest"):
        review.decide(SUGGESTED, Selection(view=View()))
    mine = waiting(review, 1)[0]
    review.decide("keep", Selection(pairs=(mine,)), "seen")
    ruled, asked = rows(review, View(states=("rule",))), rows(review, OPEN)
    suggest(run, [review.row(*mine), *ruled, *asked], "drop_eval_examples", evidence="0" * 32)
    before = {row.pair.tasks: row for row in rows(review)}
    old, new = before[asked[-1].pair.tasks], before[asked[0].pair.tasks]
    assert old.suggestion == asked[-1].suggestion and review.progress().hint == ""
    assert new.suggestion is not None and new.suggestion.proposed
    assert (new.suggestion.action, new.suggestion.why[:7]) == ("drop_eval_examples", "reason ")
    preview = review.preview(SUGGESTED, Selection(view=View()))
    assert set(preview.pairs) == {row.pair.tasks for row in asked[:-1]}
    assert preview.counts == {"drop_eval_examples": len(asked) - 1} and preview.num_overruled == 0
    same = review.preview("drop_eval_examples", Selection(pairs=preview.pairs))
    assert (preview.num_eval_examples, preview.num_train_examples) == (same.num_eval_examples, 0)
    assert review.decide(SUGGESTED, Selection(view=View()), token=preview.token).num_pairs == len(asked) - 1
    made = lines(run)
    assert {made[key]["by"] for key in preview.pairs} == {"ann"} and made.keys() == {mine, *preview.pairs}
    assert all(made[key]["why"] == before[key].suggestion.why for key in preview.pairs)
    assert made[mine]["action"] == "keep" and rows(review, View(states=("rule",))) == [
        replace(row, suggestion=before[row.pair.tasks].suggestion) for row in ruled
    ]
    check(review)
    review.undo()
    assert {row.pair.tasks: row for row in rows(review)} == before


def test_examples_of_mixed_suggestions_are_counted_once(review, run):
    asked = [row for row in rows(review, OPEN) if row.pair.num_train_touched]
    train = asked[0].pair.train_task
    same = [row for row in asked if row.pair.train_task == train]
    rest = [row for row in asked if row.pair.train_task != train]
    assert len(same) > 1 and rest
    suggest(run, [*same[1:], *rest, same[0]], "drop_train_examples", action="drop_train_task")
    found = review.preview(SUGGESTED, Selection(view=View()))
    only = review.preview("drop_train_examples", Selection(pairs=tuple(row.pair.tasks for row in rest)))
    assert found.num_train_examples == same[0].pair.num_train + only.num_train_examples
    assert found.counts == {"drop_train_task": 1, "drop_train_examples": len(asked) - 1}
    assert found.dropped_tasks == (train,)


def test_suggestions_are_read_again_and_a_malformed_file_is_a_line(review, run):
    asked, plain = rows(review, OPEN), review.groups(View())
    suggest(run, asked, "drop_train_examples")
    token = review.preview(SUGGESTED, Selection(view=View())).token
    assert {g.suggestion.action for g in review.groups(View()) if g.suggestion} == {"drop_train_examples"}
    suggest(run, asked, "keep", why="the last")
    agreed = {row.pair.tasks: row.suggestion for row in rows(review, OPEN)}
    for group in review.groups(View()):
        kinds = {agreed[row.pair.tasks] for row in rows(review, OPEN, group.key)}
        assert group.suggestion == (kinds.pop() if len(kinds) == 1 else None)
    with pytest.raises(StaleError):
        review.decide(SUGGESTED, Selection(view=View()), token=token)
    (run / "suggested.csv").write_text("train_task,eval_task,action,evidence\na,b,kep,x\nc,d,kep,x\n")
    hint = review.progress().hint
    assert "suggested.csv:2: action: unknown 'kep'" in hint and "\n" not in hint and "3 more" in hint
    assert (rows(review, OPEN), review.groups(View())) == (asked, plain)
    (run / "suggested.csv").unlink()
    assert "--suggest" in review.progress().hint and not (run / "decisions.csv").exists()
