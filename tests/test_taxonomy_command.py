"""`taskmill taxonomy show`, `check` and `diff` through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskmill.cli import cli
from taskmill.errors import TaskmillError

CATALOGUE = {
    "super_natural_instructions": (1613, 76),
    "promptsource": (280, 51),
    "crossfit": (159, 32),
    "flan": (70, 12),
    "exmix": (14, 10),
    "t5": (36, 9),
    "unifiedskg": (21, 7),
    "reasoning": (14, 1),
}
"""Tasks and clusters of OPT-IML (Iyer et al. 2022), Table 1."""


def taxonomy(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["taxonomy", *map(str, arguments)])


def as_json(*arguments: object) -> Any:
    result = taxonomy(*arguments, "--json")
    return json.loads(result.stdout)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(
        "task,category,dataset,license,license_evidence\n"
        "evaluation/gsm8k,Mathematics,,,\n"
        "own/reviews,Sentiment Analysis,own_reviews,CC0-1.0,my own\n",
        encoding="utf-8",
    )
    return path


# ----------------------------------------------------------------------------------------------- show


def test_the_summary_stands_beside_the_paper() -> None:
    body = as_json("show")
    found = {row["benchmark"]: (row["paper_tasks"], row["paper_clusters"]) for row in body["benchmarks"]}
    assert {name: figures for name, figures in found.items() if figures != (None, None)} == CATALOGUE
    natural = next(r for r in body["benchmarks"] if r["benchmark"] == "super_natural_instructions")
    assert (natural["num_tasks"], natural["num_categories"]) == (1613, 76)
    assert body["all"]["num_tasks"] == sum(row["num_tasks"] for row in body["benchmarks"])
    assert body["all"]["num_categories"] > 100
    text = taxonomy("show").stdout
    assert "evaluation" in text and "1,613" in text


def test_rows_are_found_by_pattern_id_and_name(mine: Path) -> None:
    rows = as_json("show", "evaluation/mmlu_college_*")["rows"]
    assert len(rows) == 6 and {row["family"] for row in rows} == {"mmlu"}
    assert rows[0]["subtask"] == "college_biology" and rows[0]["multiple_choice"] is True
    assert [row["task"] for row in as_json("show", "evaluation/drop")["rows"]] == ["evaluation/drop"]
    assert "evaluation/drop" in [row["task"] for row in as_json("show", "drop")["rows"]]
    ours = as_json("show", "gsm8k", "own/*", "--taxonomy", mine)["rows"]
    found = {row["task"]: row["category"] for row in ours}
    assert found["evaluation/gsm8k"] == "Mathematics" and found["own/reviews"] == "Sentiment Analysis"
    new = as_json("show", "documents/new")["rows"]
    assert new == [{"task": "documents/new", "category": "Pretraining"}], "a pattern says something of it"


def test_rows_are_found_by_category_and_any_name_of_the_data_set() -> None:
    rows = as_json("show", "--category", "word analogy")["rows"]
    assert {row["category"] for row in rows} == {"Word Analogy"} and len(rows) >= 8
    assert as_json("show", "--dataset", "super_glue/boolq") == as_json("show", "--dataset", "BoolQ")
    assert len(as_json("show", "--dataset", "boolq", "--category", "Question Generation")["rows"]) >= 2
    assert "tasks in 1 category\n" in taxonomy("show", "evaluation/mmlu_*").stdout.replace(
        "categorie\n", "category\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluation/gsm8"], "did you mean 'evaluation/gsm8k'?"),
        (["evaluation/zzz*"], "no task with a row matches 'evaluation/zzz*'"),
        (["--category", "Sumarization"], "did you mean 'Summarization'?"),
        (["--dataset", "boolqq"], "did you mean 'boolq'?"),
    ],
)
def test_nothing_found_names_the_nearest(arguments: list[str], expected: str) -> None:
    result = taxonomy("show", *arguments)
    assert isinstance(result.exception, TaskmillError) and result.exception.exit_code == 2
    assert expected in str(result.exception)


# ---------------------------------------------------------------------------------------------- check


def test_the_shipped_files_pass() -> None:
    result = taxonomy("check")
    assert result.exit_code == 0 and result.stdout == "0 problems, 0 warnings\n"


def test_a_sound_file_passes_and_a_new_category_is_a_warning(mine: Path) -> None:
    assert taxonomy("check", mine).exit_code == 0
    mine.write_text("task,category\nown/t,Sumarization\n", encoding="utf-8")
    result = taxonomy("check", mine)
    assert result.exit_code == 0
    assert "mine.csv:2: own/t.category: 'Sumarization' is no known category" in result.stdout
    assert "did you mean 'Summarization'?" in result.stdout and "0 problems, 1 warning\n" in result.stdout


def test_a_broken_file_fails(mine: Path) -> None:
    mine.write_text("task,metric\nown/t,rouge\n", encoding="utf-8")
    result = taxonomy("check", mine)
    assert result.exit_code == 1 and "mine.csv:2: own/t.metric: found 'rouge'" in result.stdout
    assert as_json("check", mine)["problems"][0].endswith("did you mean 'rouge_l'?")
    assert taxonomy("check", mine.with_name("absent.csv")).exit_code == 1


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with two tasks of the user's; the file of one states its category, that of the other does not."""
    for name in ("letters", "sums"):
        (tmp_path / f"{name}.jsonl").write_text('{"input": "a", "output": "b"}\n', encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    cast = "{fields: {text: input}, references: output}"
    path.write_text(
        f"""
name: small
sources:
  - reader: table
    path: .
    options: {{task: letters, files: {{train: [letters.jsonl]}}, cast: {cast}, category: Misc.}}
  - reader: table
    path: .
    options: {{task: sums, files: {{train: [sums.jsonl]}}, cast: {cast}}}
curate: {{taxonomy: [mine.csv]}}
""",
        encoding="utf-8",
    )
    (tmp_path / "mine.csv").write_text("task,category\ncustom/summs,Mathematics\n", encoding="utf-8")
    return path


def test_tasks_of_a_recipe_without_a_category_fail(recipe: Path) -> None:
    result = taxonomy("check", recipe)
    assert result.exit_code == 1
    body = as_json("check", recipe)
    assert len(body["problems"]) == 1
    assert body["problems"][0].startswith("custom/sums: no row, and its files state no category")
    assert "did you mean 'custom/summs'?" in body["problems"][0]
    assert any(line.startswith("custom/letters: no row; its files say 'Misc.'") for line in body["warnings"])
    unused = next(line for line in body["warnings"] if "no source offers this task" in line)
    assert "mine.csv:2: custom/summs" in unused and "did you mean 'custom/sums'?" in unused
    (recipe.parent / "mine.csv").write_text("task,category\ncustom/sums,Mathematics\n", encoding="utf-8")
    assert taxonomy("check", recipe).exit_code == 0


def test_a_setting_of_the_recipe_can_be_given(recipe: Path) -> None:
    assert as_json("check", recipe, "--set", "curate.taxonomy=[]")["warnings"] != []
    assert not any(
        "mine.csv" in w for w in as_json("check", recipe, "--set", "curate.taxonomy=[]")["warnings"]
    )


def test_the_demo_is_covered() -> None:
    body = as_json("check", "demo")
    assert body["problems"] == []


def test_a_recipe_and_a_file_are_not_checked_together(recipe: Path, mine: Path) -> None:
    result = taxonomy("check", recipe, mine)
    assert isinstance(result.exception, TaskmillError) and "one recipe" in str(result.exception)


# ----------------------------------------------------------------------------------------------- diff


def test_what_a_file_changes_of_the_shipped_rows(mine: Path) -> None:
    body = as_json("diff", "shipped", mine)
    assert list(body["added"]) == ["own/reviews"] and body["removed"] == {} and body["aliases"] == {}
    assert body["changed"] == {"evaluation/gsm8k": {"category": ["Reasoning", "Mathematics"]}}
    lines = taxonomy("diff", "shipped", mine).stdout.splitlines()
    assert lines[0].startswith("+ own/reviews: category=Sentiment Analysis")
    assert lines[1] == "~ evaluation/gsm8k.category: Reasoning -> Mathematics"
    assert lines[2] == "rows: 1 added, 0 removed, 1 changed; 0 other names of data sets"


def test_what_changed_between_two_files(mine: Path) -> None:
    other = mine.with_name("other.yaml")
    other.write_text(
        "tasks:\n  own/reviews: {category: Sentiment Analysis, corpora: [forum], multiple_choice: true}\n"
        "  'own/*': {license: MIT}\naliases:\n  own_reviews: [reviews_of_mine]\n",
        encoding="utf-8",
    )
    body = as_json("diff", mine, other)
    assert list(body["added"]) == ["own/*"] and list(body["removed"]) == ["evaluation/gsm8k"]
    assert body["changed"]["own/reviews"]["corpora"] == [None, ["forum"]]
    assert body["changed"]["own/reviews"]["license"] == ["CC0-1.0", "MIT"]
    assert body["aliases"]["reviews_of_mine"] == [None, "own_reviews"]
    result = taxonomy("diff", mine, other)
    assert result.exit_code == 0
    assert "~ own/reviews.multiple_choice: nothing -> true" in result.stdout
    assert "- evaluation/gsm8k: category=Mathematics" in result.stdout
    assert (
        taxonomy("diff", other, other).stdout
        == "rows: 0 added, 0 removed, 0 changed; 0 other names of data sets\n"
    )


def test_help_reads_no_taxonomy() -> None:
    code = (
        "import sys; from taskmill.cli import cli; cli.main(['taxonomy', '--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('yaml', 'pyarrow', 'rich', 'taskmill.curation.taxonomy')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
    )
