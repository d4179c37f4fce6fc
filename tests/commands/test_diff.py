"""The command `diff`: two versions of a benchmark beside one another, as runs and as published folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from planted_run import make_planted, run_stages
from running import call

from taskmill.commands.publishing.diff import open_view
from taskmill.commands.publishing.diff_output import CHANGES, LINES, show
from taskmill.splits.publishing.comparing.comparison import KINDS, compare

MORE = """\
  - reader: table
    path: more.jsonl
    benchmark: own
    options:
      task: more
      category: Text Categorization
      cast: {fields: {text: text}, references: answer, id: id}
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs v1, grown (a source more) and other (settings and a file changed)."""
    folder = tmp_path_factory.mktemp("versions")
    make_planted(folder, "split")
    (folder / "run").rename(folder / "v1")
    rows = [
        {"id": f"m{i}", "text": f"words of a kind of their own {i}", "answer": f"m {i}"} for i in range(4)
    ]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    (folder / "grown.yaml").write_text(recipe.replace("plan:\n", f"{MORE}plan:\n", 1))
    run_stages(folder, "run", str(folder / "grown.yaml"), "--to", "split")
    (folder / "run").rename(folder / "grown")
    notes = (folder / "notes.jsonl").read_text(encoding="utf-8")
    (folder / "notes.jsonl").write_text(notes.replace("reefa00", "other"), encoding="utf-8")
    held_out = ["--set", "plan.held_out.categories=[]"]
    run_stages(folder, "run", str(folder / "recipe.yaml"), "--to", "split", *held_out)
    (folder / "run").rename(folder / "other")
    (folder / "notes.jsonl").write_text(notes, encoding="utf-8")
    return folder


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = call(capsys, "diff", *arguments, "--json")
    assert code == 0, err
    body: dict[str, Any] = json.loads(out)
    return body


def test_a_run_is_the_same_as_itself(versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "diff", str(versions / "v1"), str(versions / "v1"), "--strict")
    assert code == 0
    assert "B contains A: its 52 examples have the same content, level and split" in out
    assert out.endswith("Nothing differs.\n")


def test_a_version_that_grew_contains_the_one_before(
    versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = str(versions / "v1"), str(versions / "grown")
    code, out, _ = call(capsys, "diff", *names, "--strict", "-k", "2")
    assert code == 0 and "B contains A" in out
    for line in (
        "sources    1 added",
        "own (more.jsonl): added, 1 file",
        "own/more: train, Text Categorization, 4 examples",
        "and 2 more examples; -k 4 shows them, --json all there is",
    ):
        assert line in out, out
    body = found(capsys, *names)
    assert body["contained"] and not body["same"] and body["problems"] == []
    assert [task["task"] for task in body["tasks"]["added"]] == ["own/more"]
    assert len(body["examples"]["added"]) == 4 and body["moves"] == []
    assert (body["before"]["num_examples"], body["after"]["num_examples"]) == (52, 56)
    assert body["before"]["root"] != body["after"]["root"]


def test_the_other_way_round_it_is_not_contained(versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = str(versions / "grown"), str(versions / "v1")
    code, out, _ = call(capsys, "diff", *names, "--strict")
    assert code == 1 and "does not contain A" in out and "4 examples are gone, the first own/more#" in out
    assert call(capsys, "diff", *names)[0] == 0


def test_changed_files_settings_and_places_are_named(
    versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = str(versions / "v1"), str(versions / "other")
    body = found(capsys, *names)
    assert not body["contained"]
    assert [(s["source"], s["files"]) for s in body["sources"]] == [
        ("own (notes.jsonl)", {"changed": ["notes.jsonl"]})
    ]
    settings = {setting["setting"]: setting["after"] for setting in body["settings"]}
    assert settings == {"plan.held_out.categories": []}
    (rewritten,) = body["examples"]["rewritten"]
    assert rewritten["example"].endswith("n00")
    assert rewritten["content_before"] != rewritten["content_after"]
    assert {(move["level_before"], move["level_after"]) for move in body["examples"]["moved"]} == {
        ("held_out", None)
    }
    _, out, _ = call(capsys, "diff", *names)
    for line in (
        "1 example has other content: own/notes#",
        "file changed: notes.jsonl",
        'plan.held_out.categories: ["Summarization"] -> []',
        "other/logs: level held_out -> none, role eval -> train",
    ):
        assert line in out, out


def test_rows_that_their_root_digest_does_not_stand_for_are_pointed_out(
    versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view, other = open_view(str(versions / "v1")), open_view(str(versions / "grown"))
    for after in (replace(view, root="0" * 64), replace(other, root=view.root)):
        show(compare(view, after), 5)
        assert "a file was changed, `taskmill verify` names it" in capsys.readouterr().out


def test_every_kind_of_change_has_a_line_and_a_word() -> None:
    assert {"tasks_changed", *LINES} == set(KINDS)
    assert {kind.partition("_")[2] for kind in KINDS} == set(CHANGES)


def test_an_unfinished_run_and_an_unknown_name_are_answered(
    versions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(versions / "v1", tmp_path / "half")
    shutil.rmtree(tmp_path / "half/splits")
    code, _, err = call(capsys, "diff", str(versions / "v1"), str(tmp_path / "half"))
    assert code == 2 and "the stage 'split' of" in err and "taskmill split" in err
    code, _, err = call(capsys, "diff", str(versions / "v1"), str(versions / "growm"))
    assert code == 2 and "grown" in err


def test_a_published_folder_is_the_run_it_was_made_from(
    versions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "published"
    assert call(capsys, "export", "benchmark", str(versions / "v1"), str(folder))[0] == 0
    for target in (folder, folder / "manifest.json"):
        body = found(capsys, str(target), str(versions / "v1"), "--strict")
        assert body["same"] and body["contained"]
        assert body["before"]["root"] == body["after"]["root"]
        assert (body["sources"], body["settings"]) == ([], [])


@pytest.mark.parametrize("name", ["tables/tasks.parquet", "ids/held_out/test.parquet"])
def test_tables_with_other_columns_are_answered(
    versions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "published"
    assert call(capsys, "export", "benchmark", str(versions / "v1"), str(folder))[0] == 0
    pq.write_table(pq.read_table(folder / name).drop_columns(["license"]), folder / name)
    code, _, err = call(capsys, "diff", str(folder), str(versions / "v1"))
    assert code == 1 and "taskmill verify" in err and "license" in err
