"""`taskmill extend`: from a run or a published folder, with questions about new pairs alone, and nothing that moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from published_run import SHARED, make_run, publish, write_data
from running import call

from taskmill.artifact import read_manifest
from taskmill.commands.finished import FinishedRun
from taskmill.splits.deciding.decision_files import read_rows
from taskmill.splits.publishing.published import open_published
from taskmill.storage import read_table

Extend = Callable[..., tuple[int, str, str]]
ADDITION = """\
data_root: more
sources:
  - {reader: table, path: tides.jsonl, benchmark: tides, options: {task: tides, category: Text Categorization, cast: CAST}}
  - {reader: table, path: calls.jsonl, benchmark: calls, options: {task: calls, category: Summarization, cast: CAST}}
"""
CAST = "{fields: {text: text}, references: answer, id: id}"
PAIRS = [("custom/notes", "calls/calls"), ("tides/tides", "calls/calls"), ("tides/tides", "logs/logs")]
"""What the added tasks share with the others and with each other."""


def write_rows(path: Path, name: str, number: int, shared: str = SHARED) -> Path:
    """Write rows of a task, three of which share a window with notes and logs."""
    rows = []
    for i in range(number):
        words = " ".join(f"{name}{chr(97 + place)}{i:02d}" for place in range(18))
        text = f"{words} {shared}" if i < 3 else words
        rows.append({"id": f"{name}{i:02d}", "text": text, "answer": f"{name} answer {i}"})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_addition(folder: Path, text: str = ADDITION, more: str = "") -> Path:
    """Write what is added: a train task, and one in the category that is held out."""
    write_rows(folder / "more" / "tides.jsonl", "tides", 20)
    write_rows(folder / "more" / "calls.jsonl", "calls", 9)
    path = folder / "more.yaml"
    path.write_text(text.replace("CAST", CAST) + more)
    return path


def pairs_of(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of a file of decisions, those without an action too."""
    return [tuple(line.split(",")[:2]) for line in path.read_text().splitlines()[1:]]  # type: ignore[misc]


def places(run: Path) -> dict[str, tuple[Any, ...]]:
    """Return where every example of a run stands."""
    columns = ("example", "split", "reason", "rule", "content")
    table = read_table(run / "splits" / "members.parquet", list(columns))
    return {row["example"]: tuple(row.values()) for row in table.to_pylist()}


def prompts(capsys: pytest.CaptureFixture[str], run: Path) -> dict[tuple[str, bytes], str]:
    """Render a run; returns the text of every prompt."""
    assert call(capsys, "render", str(run), "--quiet", "--workers", "1")[0] == 0
    found = FinishedRun(run).inputs.table("render", "prompts", ["example", "prompt", "text"]).to_pylist()
    return {(row["example"], row["prompt"]): row["text"] for row in found}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the run and the published form of V1."""
    folder = tmp_path_factory.mktemp("first")
    publish(make_run(folder), folder / "published")
    return folder


@pytest.fixture
def extend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Extend:
    """Call the command on a V1, with the usual addition and run."""

    def extended(
        target: Path, *arguments: str, add: Path | None = None, run: str = "run"
    ) -> tuple[int, str, str]:
        file = add or write_addition(tmp_path)
        run_options = ["--run", str(tmp_path / run), "--workers", "1"]
        return call(capsys, "extend", str(target), "--add", str(file), *run_options, *arguments)

    return extended


def decide(capsys: pytest.CaptureFixture[str], run: Path, *decisions: tuple[str, str, str]) -> None:
    for decision in decisions:
        assert call(capsys, "decisions", "set", str(run), *decision)[0] == 0


def test_only_new_pairs_are_asked_and_nothing_moves(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = extend(first / "run")
    run = tmp_path / "run"
    assert code == 3
    assert "taskmill: 3 of 4 overlapping pairs are above the threshold" in err
    assert sorted(pairs_of(run / "undecided.csv")) == PAIRS
    assert (
        "of which no example may go. For a pair with one of its train tasks choose keep, drop_eval_task"
        in err
    )
    decide(capsys, run, ("*", "calls/calls", "drop_eval_examples"), ("tides/tides", "logs/logs", "keep"))
    code, out, _ = extend(first / "run")
    assert code == 0
    assert (
        "B contains A: its 42 examples have the same content, level and split, and its 1 decision stands"
        in out
    )
    assert "added: 2 tasks, 29 examples, 3 decisions\n" in out
    before, after = places(first / "run"), places(run)
    assert {name: after[name] for name in before} == before
    assert {name for name, place in after.items() if place[1] == "excluded"} - before.keys() == {
        f"calls/calls#unlabeled-calls0{i}" for i in range(3)
    }
    code, out, _ = extend(first / "run", "--json")
    body = json.loads(out)
    assert code == 0
    assert [stage["status"] for stage in body["stages"]] == ["up to date"] * 3
    assert (body["contained"], body["num_moved"], body["num_examples"]) == (
        True,
        0,
        {"before": 42, "added": 29},
    )
    assert body["extends"]["root"] == open_published(first / "published").root
    assert (
        prompts(capsys, shutil.copytree(first / "run", tmp_path / "v1")).items()
        <= prompts(capsys, run).items()
    )
    code, out, _ = call(capsys, "diff", str(first / "run"), str(run), "--strict")
    assert (code, "B contains A" in out) == (0, True)


def test_a_person_cannot_move_what_is_there(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands refuse it, and `split` refuses a file that says so."""
    assert extend(first / "run")[0] == 3
    run = tmp_path / "run"
    file = run / "decisions.csv"
    before = file.read_bytes()
    moving = ("tides/tides", "logs/logs", "drop_eval_examples")
    code, _, err = call(capsys, "decisions", "set", str(run), *moving)
    assert (code, file.read_bytes()) == (2, before)
    assert "drop_eval_examples on tides/tides -> logs/logs would move examples of the benchmark" in err
    assert "open are keep, drop_train_task, drop_train_examples: taskmill decisions set" in err
    code, _, err = call(capsys, "decisions", "set", str(run), "custom/notes", "logs/logs", "drop_train_task")
    assert (code, file.read_bytes()) == (2, before)
    assert "extends, and the pair was decided there (keep), which holds" in err
    waiting = (run / "undecided.csv").read_text().replace("logs/logs,,", "logs/logs,drop_eval_task,")
    (tmp_path / "filled.csv").write_text(waiting)
    assert call(capsys, "decisions", "apply", str(run), str(tmp_path / "filled.csv"))[0] == 2
    decide(capsys, run, ("*", "*", "keep"))
    file.write_text(file.read_text().replace("tides/tides,logs/logs,keep", ",".join(moving)))
    code, _, err = extend(first / "run")
    assert (code, "drop_eval_examples on tides/tides -> logs/logs would move" in err) == (2, True)
    assert not (run / "splits" / "manifest.json").exists()


def test_a_published_folder_grows_from_sources_elsewhere(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(first / "published", tmp_path / "v1")
    write_data(tmp_path / "elsewhere")
    write_addition(tmp_path)
    assert extend(tmp_path / "v1")[0] == 2  # it does not know where the files lie
    options = ("--data-root", str(tmp_path / "elsewhere"), "--name", "harbour-2")
    assert extend(tmp_path / "v1", *options)[0] == 3
    assert sorted(pairs_of(tmp_path / "run" / "undecided.csv")) == PAIRS
    decide(capsys, tmp_path / "run", ("*", "*", "keep"))
    code, out, _ = extend(tmp_path / "v1", *options, "--json")
    body = json.loads(out)
    assert (code, body["contained"], body["name"], body["num_unclean"]) == (0, True, "harbour-2", 0)
    assert extend(first / "run", run="other")[0] == 3
    shutil.copy(tmp_path / "run" / "decisions.csv", tmp_path / "other")
    assert json.loads(extend(first / "run", "--json", run="other")[1])["root"] == body["root"]


def test_a_benchmark_that_grew_grows_again(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extend(first / "published", "--data-root", str(first / "data"), run="two")[0] == 3
    decide(capsys, tmp_path / "two", ("*", "*", "keep"))
    assert extend(first / "published", "--data-root", str(first / "data"), run="two")[0] == 0
    write_rows(tmp_path / "late" / "late.jsonl", "late", 8)
    source = "{reader: table, path: late, benchmark: late, options: {cast: CAST}}"
    text = f"sources: [{source}]\ncurate: {{taxonomy: [late-tasks.yaml]}}\n"
    (tmp_path / "late.yaml").write_text(text.replace("CAST", CAST))
    (tmp_path / "late-tasks.yaml").write_text("tasks: {late/late: {category: Summarization}}\n")
    assert extend(tmp_path / "two", add=tmp_path / "late.yaml", run="three")[0] == 3
    assert sorted(pairs_of(tmp_path / "three" / "undecided.csv")) == [
        ("custom/notes", "late/late"),
        ("tides/tides", "late/late"),
    ]
    decide(capsys, tmp_path / "three", ("*", "*", "drop_eval_task"))
    code, out, _ = extend(tmp_path / "two", add=tmp_path / "late.yaml", run="three")
    assert (code, "B contains A" in out) == (0, True)
    assert call(capsys, "diff", str(first / "published"), str(tmp_path / "three"), "--strict")[0] == 0
    exported = call(capsys, "export", "benchmark", str(tmp_path / "three"), str(tmp_path / "v3"))
    assert exported[0] == 0
    body = open_published(tmp_path / "v3").body
    assert body["extends"]["root"] == open_published(tmp_path / "three" / "extends").root
    before = open_published(tmp_path / "v3" / "recipe" / "extends")
    assert before.body["extends"]["root"] == open_published(first / "published").root
    assert call(capsys, "verify", str(tmp_path / "v3"))[0] == 0
    root = shutil.copytree(first / "data", tmp_path / "root")
    shutil.copytree(tmp_path / "more", root, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "late", root / "late")
    rebuilt = ("--run", str(tmp_path / "rebuilt"), "--data-root", str(root), "--workers", "1", "--json")
    code, out, _ = call(capsys, "rebuild", str(tmp_path / "v3"), *rebuilt)
    assert (code, json.loads(out)["root"]) == (0, body["root"])


def test_what_was_interrupted_goes_on(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extend(first / "run")[0] == 3
    run = tmp_path / "run"
    decide(capsys, run, ("*", "*", "keep"))
    root = json.loads(extend(first / "run", "--json")[1])["root"]
    (run / "overlaps" / "manifest.json").unlink()
    (run / "splits" / "manifest.json").unlink()
    (run / "extends" / "tables" / "pairs.parquet").unlink()
    (run / "recipe.json").unlink()
    assert json.loads(extend(first / "run", "--json")[1])["root"] == root
    shutil.rmtree(run / "tasks")
    (run / "extends" / "manifest.json").unlink()
    for name in ("overlaps", "splits", "recipe.yaml", "undecided.csv", "decisions.csv"):
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).unlink(missing_ok=True)
    (run / "recipe.json").unlink()
    assert extend(first / "run")[0] == 3


def test_a_source_that_has_changed_is_named(first: Path, tmp_path: Path, extend: Extend) -> None:
    write_data(tmp_path / "data")
    file = tmp_path / "data" / "logs" / "logs.jsonl"
    file.write_text(file.read_text().replace("logs answer 7", "another answer"))
    code, _, err = extend(first / "published", "--data-root", str(tmp_path / "data"))
    assert code == 1
    assert "its upstream files are not those that it was made of; nothing was built" in err
    assert "logs.jsonl" in err
    assert "logs07" in err
    assert not (tmp_path / "run" / "tasks").exists()


def test_curate_that_makes_another_example_stops_overlap(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extend(first / "run")[0] == 3
    run = tmp_path / "run"
    recipe = json.loads((run / "recipe.json").read_text())
    write_data(tmp_path / "data")
    file = tmp_path / "data" / "notes" / "notes.jsonl"
    lines = file.read_text().splitlines()
    cases = {
        "'custom/notes#unlabeled-notes29' of 'harbour' is gone: it was record": lines[:-1],
        "'custom/notes#unlabeled-notes00' of 'harbour' has other content:": [
            lines[0].replace("answer 0", "?"),
            *lines[1:],
        ],
        "'custom/notes#unlabeled-new' (record 30 of": [
            *lines,
            lines[3].replace("notes03", "new", 1).replace("3", "x"),
        ],
    }
    for source in recipe["values"]["sources"][:2]:
        source["path"] = source["path"].replace(str(first / "data"), str(tmp_path / "data"))
    (run / "recipe.json").write_text(json.dumps(recipe))
    for message, changed in cases.items():
        file.write_text("\n".join(changed) + "\n")
        code, _, err = call(capsys, "run", str(run), "--to", "split", "--force", "--quiet", "--workers", "1")
        assert code == 2
        assert message in err, err
    code, _, err = call(capsys, "overlap", str(run), "--limit", "4", "--force", "--quiet")
    assert code == 2
    assert "limit" in err


def test_a_rule_that_would_move_an_example_takes_the_other_side(
    tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default rule drops a train task on the data of a test; here the test is new and the train task is not."""
    folder = tmp_path / "v1"
    make_run(
        folder,
        lambda text: text.replace("split:\n  rules: []\n", "").replace(
            "plan:\n", "plan:\n  variants: decide\n"
        ),
    )
    addition = write_addition(tmp_path, ADDITION.replace("task: calls,", "task: calls, dataset: notes,"))
    code, _, err = extend(folder / "run", add=addition)
    assert code == 3, err
    assert ("custom/notes", "calls/calls") not in pairs_of(tmp_path / "run" / "undecided.csv")
    decide(capsys, tmp_path / "run", ("*", "*", "keep"))
    assert extend(folder / "run", add=addition)[0] == 0
    made = read_table(tmp_path / "run" / "splits" / "decisions.parquet")
    row = made.filter(pc.equal(made["eval_task"], "calls/calls")).to_pylist()[0]
    assert (row["train_task"], row["action"], row["by"]) == ("custom/notes", "drop_eval_task", "rule")
    assert "the eval side goes, since 'custom/notes' is of the benchmark that this one extends" in row["why"]


def test_a_task_stays_where_its_benchmark_keeps_only_what_is_new(
    tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    """V1's logs leave under `only_new` when a source that is added brings their data set; extended they stay."""
    only_new = "curate: {only_new: [logs, calls], taxonomy"
    folder = tmp_path / "v1"
    make_run(folder, lambda text: text.replace("curate: {taxonomy", only_new))
    text = ADDITION.replace("task: tides,", "task: tides, dataset: logs,")
    text = text.replace("task: calls,", "task: calls, dataset: notes,")
    addition = write_addition(tmp_path, text)
    code, out, _ = extend(folder / "run", add=addition)
    assert (code, "B contains A: its 42 examples" in out) == (0, True)
    manifest = read_manifest(tmp_path / "run" / "tasks")
    assert manifest is not None
    assert manifest.dropped == {
        "dataset_elsewhere": 9
    }  # the new task of a benchmark that keeps only what is new


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "plan: {held_out: {num_categories: 1}}",
            "held_out.num_categories: this was settled when the benchmark",
        ),
        ("plan: {layout: t0}", "plan.layout: this was settled"),
        ("seed: 6", "seed: cannot be added; expected data_root, sources, plan,"),
        (
            "plan: {held_out: {categories: [Text Categorization]}}",
            "extends trains the category 'Text Categorization'",
        ),
        ("plan: {held_out: {categories: [Summarisation]}}", "did you mean 'Summarization'"),
    ],
)
def test_an_addition_that_cannot_be(
    first: Path, tmp_path: Path, extend: Extend, more: str, message: str
) -> None:
    code, _, err = extend(first / "run", add=write_addition(tmp_path, more=f"{more}\n"))
    assert code == 2
    assert message in err, err


def test_the_wrong_place_is_refused(
    first: Path, tmp_path: Path, extend: Extend, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    code, _, err = extend(first / "run", run="mine")
    assert (code, "holds notes.txt and is no earlier extension of harbour" in err) == (2, True)
    (tmp_path / "file").write_text("")
    assert extend(first / "run", run="file")[0] == 2
    assert extend(first / "run", add=tmp_path / "none.yaml")[0] == 2
    assert extend(first / "run")[0] == 3
    other = make_run(tmp_path / "other", lambda text: text.replace("seed: 5", "seed: 6"))
    code, _, err = extend(other)
    assert (code, "extends another version than this one: its root is" in err) == (2, True)
    limited = make_run(tmp_path / "limited", lambda text: text.replace("seed: 5", "seed: 5\nlimit: 9"))
    code, _, err = extend(limited, run="new")
    assert (code, "--limit 9" in err) == (2, True)
    rows = read_rows(first / "run" / "decisions.csv")
    assert [row.decision.action for row in rows] == ["keep"]  # V1 is as it was
