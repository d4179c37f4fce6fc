"""The page on the template library: its commands run, its tables and messages are those of the code."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import ROOT, taskmill

from taskmill.curation.sources import _linear
from taskmill.errors import TaskmillError
from taskmill.shapes import SHAPES
from taskmill.templates.rendering import library
from taskmill.templates.rendering.library import load_library, load_templates

PAGE = (ROOT / "docs" / "templates-library.md").read_text(encoding="utf-8")


def table(marker: str) -> list[list[str]]:
    """Return the cells of the table behind a marker, without its head."""
    (text,) = re.findall(rf"<!-- {marker} -->\n((?:\|.*\n)+)", PAGE)
    return [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()[2:]
    ]


def test_the_table_of_shapes() -> None:
    named = {row[0].strip("`"): tuple(row[1:]) for row in table("shapes")}
    assert named == {
        name: (", ".join(shape.needs), ", ".join(shape.may), shape.meaning) for name, shape in SHAPES.items()
    }
    number = sum(template.style == "keywords" for template in load_library().values())
    assert f"The library has {number} templates for them" in PAGE


def test_the_table_of_structures() -> None:
    schema = {
        "db_id": "harbour",
        "table_names_original": ["Boat", "Island"],
        "column_names_original": [[-1, "*"], [0, "Boat_ID"], [0, "Name"], [1, "Name"]],
    }
    shown = {
        "table": _linear.table_text(["Boat", "Year"], [["Tern", "1901"]]),
        "triples": _linear.triples_text([("Tern", "sails to", "Ermin"), ("Ermin", "is", "an island")]),
        "schema": _linear.schema_text(schema),
        "dialogue state": _linear.state_text([("hotel-area", "east"), ("hotel-book day", "Sunday")]),
    }
    assert {row[0]: row[1].strip("`") for row in table("linear")} == shown


def test_the_table_of_instruction_sets() -> None:
    rows = table("instruction sets")
    assert len(rows) == 14 and sum(float(row[0]) for row in rows) == pytest.approx(1)
    for column, with_input in ((1, True), (2, False)):
        half = [
            t
            for _, t in sorted(load_library().items())
            if t.shape == "instruction" and bool(t.needs) is with_input
        ]
        for row, template in zip(rows, half, strict=True):
            body = row[column].strip("`").replace("⏎", "\n")
            marked = template.body.replace("{{ instruction }}", "I").replace("{{ input }}", "X")
            assert (float(row[0]), body) == (template.weight, marked)


def test_every_key_of_an_entry_is_told() -> None:
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", PAGE.split("| key | |")[1], re.MULTILINE)
    assert {name for cell in named for name in re.findall(r"\w+", cell)} == set(library._KEYS)


def test_the_example_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/recipes", tmp_path / "examples/recipes")
    shutil.copytree(ROOT / "examples/own_data", tmp_path / "examples/own_data")
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / "examples/recipes" / name).write_text(text, encoding="utf-8")
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    shown = ""
    for command in commands.splitlines():
        done = taskmill(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        shown = done.stdout
    assert "A customer writes:" in shown and "1. billing" in shown and "tickets/desk" in shown
    files = (tmp_path / "runs/own/prompts/prompts").glob("*.parquet")
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    by_task: dict[str, set[str]] = {}
    for row in rows:
        by_task.setdefault(row["task"], set()).add(row["template"])
    assert by_task == {
        "support/route_tickets": {"tickets/desk"},
        "workshop/summarise_entries": {"keywords/text-1", "keywords/text-2", "tickets/note"},
    }


def test_a_changed_template_makes_render_stale_and_nothing_before_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/recipes", tmp_path / "recipes")
    shutil.copytree(ROOT / "examples/own_data", tmp_path / "own_data")
    mine = tmp_path / "recipes/mine.yaml"
    mine.write_text("- {id: a, style: keywords, shape: text, reads: [text], body: 'Look: {{ text }}'}\n")
    command = [
        "run",
        "recipes/own-data.yaml",
        "--run",
        "run",
        "--to",
        "render",
        "--set",
        "render.templates=[mine.yaml]",
    ]
    assert taskmill(*command, cwd=tmp_path).returncode == 0
    assert "render    up to date" in taskmill(*command, cwd=tmp_path).stdout
    mine.write_text(mine.read_text().replace("Look", "See"))
    stopped = taskmill(*command, cwd=tmp_path)
    assert stopped.returncode == 1 and "external.templates" in stopped.stderr
    again = taskmill(*command, "--force", cwd=tmp_path)
    assert again.returncode == 0 and "split     up to date" in again.stdout, again.stderr
    assert "render    up to date" not in again.stdout


@pytest.mark.parametrize(("line", "message"), re.findall(r"<!-- wrong: (.*) -->\n```text\n(.*)\n```", PAGE))
def test_messages_are_as_shown(tmp_path: Path, line: str, message: str) -> None:
    entry = {"id": "a", "style": "keywords", "shape": "text", "reads": "[text]", "body": '"{{ text }}"'}
    key, _, value = line.partition(": ")
    text = "\n  ".join(f"{name}: {said}" for name, said in {**entry, key: value}.items())
    (tmp_path / "wrong.yaml").write_text(f"- {text}\n", encoding="utf-8")
    with pytest.raises(TaskmillError) as error:
        load_templates(["wrong.yaml"], tmp_path)
    assert message in str(error.value)
