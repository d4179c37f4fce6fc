"""Taxonomy files: which row wins, which names are one data set, and what is said of mistakes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from taskmill.curation.taxonomy import (
    CATEGORIES,
    SHIPPED,
    Neighbours,
    Taxonomy,
    canonical,
    fold,
    load_taxonomy,
    missing_categories,
    taxonomy_files,
    warn_of_categories,
)
from taskmill.curation.taxonomy_rows import read_file
from taskmill.errors import RecipeError


def taxonomy(folder: Path, *texts: str) -> Taxonomy:
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(text, encoding="utf-8")
    return load_taxonomy(files)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        taxonomy(folder, text)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_the_more_specific_row_wins_column_by_column(tmp_path: Path) -> None:
    found = taxonomy(
        tmp_path,
        """
tasks:
  b/exact: {category: exact, license: MIT}
  "b/*": {category: pattern, family: f}
  "b/ex*": {category: longer pattern, homepage: h}
  "other/*": {category: other}
""",
    )
    assert found.row("b/exact") == {"category": "exact", "license": "MIT", "family": "f", "homepage": "h"}
    assert found.row("b/extra")["category"] == "longer pattern"
    assert found.row("c/x") == {}


def test_the_recipes_file_wins_over_the_shipped_one(tmp_path: Path) -> None:
    shipped = "tasks:\n  b/t: {category: shipped, license: MIT}\naliases:\n  one: [two]\n"
    user = "tasks:\n  'b/*': {category: user}\naliases:\n  three: [two]\n"
    found = taxonomy(tmp_path, shipped, user)
    assert found.row("b/t") == {"category": "user", "license": "MIT"}
    assert canonical("Two", found.aliases) == "three"


def test_other_names_follow_a_set_that_the_recipe_calls_otherwise(tmp_path: Path) -> None:
    shipped = "aliases:\n  mnli: [multi_nli, mnli_matched]\n  snli: [esnli]\n"
    renamed = taxonomy(tmp_path, shipped, "aliases:\n  all_nli: [mnli, snli]\n").aliases
    assert {canonical(name, renamed) for name in ("multi_nli", "mnli", "esnli", "snli")} == {"all_nli"}
    added = taxonomy(tmp_path, shipped, "aliases:\n  multi_nli: [my_nli]\n").aliases
    assert {canonical(name, added) for name in ("my_nli", "multi_nli", "mnli", "mnli_matched")} == {
        "multi_nli"
    }
    apart = taxonomy(tmp_path, shipped, "aliases:\n  mnli: [a]\n  multi_nli: [b]\n").aliases
    found = [canonical(name, apart) for name in ("a", "mnli", "mnli_matched", "b", "multi_nli")]
    assert found == ["mnli", "mnli", "mnli", "multi_nli", "multi_nli"]


def test_shipped_files_come_first() -> None:
    files = taxonomy_files([Path("mine.yaml")])
    shipped = {*SHIPPED.glob("*.yaml"), *SHIPPED.glob("*.csv")} - {CATEGORIES}
    assert files[-1] == Path("mine.yaml") and set(files[:-1]) == shipped
    assert len(shipped) > 2


def test_shipped_files_are_one_layer_above_which_each_file_of_a_recipe_is_one(tmp_path: Path) -> None:
    mine = [tmp_path / "a.yaml", tmp_path / "b.csv"]
    mine[0].write_text('tasks:\n  "*/gsm8k": {category: Mathematics}\n', encoding="utf-8")
    mine[1].write_text("task,license\nevaluation/gsm8k,CC0-1.0\n", encoding="utf-8")
    found = load_taxonomy(taxonomy_files(mine))
    assert [len(layer.files) for layer in found.layers[1:]] == [1, 1]
    row = found.row("evaluation/gsm8k")
    assert (row["category"], row["license"], row["dataset"]) == ("Mathematics", "CC0-1.0", "gsm8k")
    assert load_taxonomy(taxonomy_files([])).row("evaluation/gsm8k")["category"] == "Reasoning"


def test_rows_of_the_readers_own_name_are_the_weakest(tmp_path: Path) -> None:
    shipped = "tasks:\n  b/t: {category: upstream, license: MIT, family: f}\n  'mine/*': {family: mine}\n"
    found = taxonomy(tmp_path, shipped, "tasks:\n  mine/t: {category: own}\n")
    assert found.row("mine/t", "b/t") == {"category": "own", "license": "MIT", "family": "mine"}
    assert found.row("mine/t") == {"category": "own", "family": "mine"}
    assert found.row("b/t", "b/t") == found.row("b/t")


def test_a_name_with_brackets_is_a_pattern_and_also_itself(tmp_path: Path) -> None:
    found = taxonomy(tmp_path, 'tasks:\n  "b/[xy]": {category: both}\n')
    assert found.row("b/x") == found.row("b/[xy]") == {"category": "both"}
    assert found.keys == ["b/[xy]"] and found.tasks == []


HEADER = "task,category,dataset,corpora,family,subtask,metric,multiple_choice,languages,license,license_evidence,homepage"


def test_a_csv_file_says_the_same_as_yaml(tmp_path: Path) -> None:
    line = 'b/t,Question Answering,boolq,Wikipedia; news,f,s,rouge_l,TRUE,English,MIT,"a, b",https://x.org'
    (tmp_path / "rows.csv").write_text(f"\ufeff{HEADER}\r\n{line}\r\n\r\nb/u,,,,,,,false\r\n", "utf-8")
    (tmp_path / "rows.yaml").write_text(
        """
tasks:
  b/t:
    {category: Question Answering, dataset: boolq, corpora: [Wikipedia, news], family: f, subtask: s,
     metric: rouge_l, multiple_choice: true, languages: [English], license: MIT, license_evidence: "a, b",
     homepage: "https://x.org"}
  b/u: {multiple_choice: false}
""",
        encoding="utf-8",
    )
    csv, yaml = (read_file(tmp_path / f"rows.{suffix}") for suffix in ("csv", "yaml"))
    assert csv.rows == yaml.rows and len(csv.rows) == 2
    assert csv.problems == yaml.problems == []
    assert csv.lines == {"b/t": 2, "b/u": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("category,dataset\na,b\n", ["0.csv:1: there is no column `task`"]),
        ("task,categry\nb/t,x\n", ["0.csv:1: categry: unknown column - did you mean 'category'?"]),
        ("task,license,license\nb/t,x,y\n", ["0.csv:1: license: the column is there twice"]),
        ("task,metric\nb/t,rouge\n", ["0.csv:2: b/t.metric: found 'rouge'", "'rouge_l'?"]),
        (
            "task,multiple_choice\nb/t,maybe\n",
            ["0.csv:2: b/t.multiple_choice: found 'maybe'; expected true or false"],
        ),
        ("task,category\nb/t,x,y\n", ["0.csv:2: 3 cells; expected 2"]),
        ("task,category\n,x\n", ["0.csv:2: the cell `task` is empty"]),
        ("task,category\nb/t,x\nb/u,y\nb/t,z\n", ["0.csv:4: b/t: given twice, first in line 2"]),
        ('task,category\nb/t,"x\n', ["not valid CSV"]),
        ("task,category\nb/t,x\n\nb/u,y,z\n", ["0.csv:4: 3 cells"]),
    ],
)
def test_a_mistake_in_a_csv_file_is_named_with_its_line(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    (tmp_path / "0.csv").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_taxonomy([tmp_path / "0.csv"])
    lines = caught.value.problems
    assert all(any(part in line for line in lines) for part in expected), lines


@pytest.mark.parametrize("name", ["rows.tsv", "rows.json", "rows"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("task\tcategory\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"expected a file that ends in one of \.csv, \.yaml, \.yml"):
        load_taxonomy([tmp_path / name])


@pytest.mark.parametrize("name", ["a.csv", "a.yaml"])
def test_bytes_that_are_no_text_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"task,category\nb/t,\xff\n")
    with pytest.raises(RecipeError, match=r"not UTF-8 \(byte 18\)"):
        load_taxonomy([tmp_path / name])


@pytest.mark.parametrize(
    ("upstream", "name"),
    [
        ("super_glue/boolq", "boolq"),
        ("super_glue-boolq", "boolq"),
        ("bool_q", "boolq"),
        ("BoolQ", "boolq"),
        ("commitmentbank", "cb"),
        ("super_glue/cb", "cb"),
        ("recognizing_textual_entailment", "rte"),
        ("glue-rte", "rte"),
        ("codah/codah", "codah"),
        ("creak_2018", "creak"),
        ("aqua_rat/raw", "aqua"),
        ("measuring_massive_multitask_language_understanding", "mmlu"),
        ("wsc; enhanced_wsc", "winograd_wsc"),
        ("some new set", "some_new_set"),
    ],
)
def test_twins_get_one_name(upstream: str, name: str) -> None:
    assert canonical(upstream, load_taxonomy(taxonomy_files([])).aliases) == name


def test_a_mistyped_name_stays_another_data_set() -> None:
    aliases = load_taxonomy(taxonomy_files([])).aliases
    assert canonical("bolq", aliases) == "bolq"


def test_every_shipped_canonical_name_is_its_own() -> None:
    aliases = load_taxonomy(taxonomy_files([])).aliases
    assert all(aliases[name] == name and fold(name) == name for name in set(aliases.values()))


def test_real_sources_that_are_one_set_meet(shared_data: Path) -> None:
    """Twins that the data's own notes name: Source of the Super-NI file against PromptSource's folder."""
    aliases = load_taxonomy(taxonomy_files([])).aliases
    folder = shared_data / "super_natural_instructions" / "tasks"
    twins = {
        "task1661_super_glue_classification": "super_glue/boolq",
        "task1388_cb_entailment": "super_glue/cb",
        "task1344_glue_entailment_classification": "super_glue/rte",
        "task156_codah_classification_adversarial": "codah/codah",
    }
    for task, promptsource in twins.items():
        source = json.loads((folder / f"{task}.json").read_text(encoding="utf-8"))["Source"][0]
        assert canonical(source, aliases) == canonical(promptsource, aliases)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tasks:\n  b/t: {categry: x}\n", ["0.yaml:2: tasks.b/t.categry: unknown column", "'category'?"]),
        ("tasks:\n  b/t: {metric: rouge}\n", ["0.yaml:2: tasks.b/t.metric: found 'rouge'", "'rouge_l'?"]),
        ("tasks:\n  b/t: {corpora: Wikipedia}\n", ["tasks.b/t.corpora", "expected a list of texts"]),
        ("tasks:\n  b/t: {category: 3}\n", ["found 3; expected a text"]),
        ("tasks:\n  b/t: {multiple_choice: maybe}\n", ["expected true or false"]),
        ("tasks:\n  b/t: [1]\n", ["0.yaml:2: tasks.b/t: expected a mapping of columns"]),
        ("tasks: [a]\n", ["0.yaml:1: tasks: expected a mapping"]),
        ("task: {}\n", ["0.yaml:1: unknown part 'task'", "'tasks'?"]),
        ("- a\n", ["0.yaml:1: expected a mapping with `tasks` or `aliases`"]),
        ("tasks:\n  b/t: {category: a}\n  b/t: {category: b}\n", ["0.yaml:3: b/t: given twice", "line 2"]),
        ("tasks: {a: 1\n", ["not valid YAML"]),
        ("tasks:\n  b/t: {category: a, category: b}\n", ["0.yaml:2: b/t.category: given twice"]),
        ("[" * 50_000, ["0.yaml:1: not valid YAML: more than 16 levels"]),
        (
            "tasks:\n  a/b: &a [x, *a]\n",
            ["0.yaml:2: not valid YAML: the alias *a stands within what it stands for"],
        ),
        ("aliases:\n  one: two\n", ["aliases.one", "expected a list of other names"]),
        ("aliases:\n  One: [two]\n", ["a canonical name is written 'one'"]),
        ("aliases:\n  one: [two]\n  three: [Two]\n", ["0.yaml:3", "'Two' is already another name of 'one'"]),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    lines = problems(tmp_path, text)
    assert all(any(part in line for line in lines) for part in expected), lines


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "tasks:\n  a/b: {x: 1, metric: 2}\n  c/d: {y: 1}\n")) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read .*absent\.yaml"):
        load_taxonomy([tmp_path / "absent.yaml"])


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert taxonomy(tmp_path, "").row("b/t") == {}


def test_tasks_without_category_are_all_named_with_the_nearest_row() -> None:
    error = missing_categories(["promptsource/bolq", "x/y"], ["promptsource/boolq", "zz"])
    assert len(error.problems) == 2
    assert "did you mean 'promptsource/boolq'?" in error.problems[0]
    assert error.exit_code == 2


def test_a_near_name_is_looked_for_in_the_same_benchmark_first() -> None:
    known = [
        "flan/bool_q",
        "promptsource/super_glue/boolq",
        "p/scan",
        "super_natural_instructions/task7_scan_length",
    ]
    near = Neighbours([*known, "flan/boolq*"])
    assert near.nearest("promptsource/bolq") == "promptsource/super_glue/boolq"
    assert near.nearest("flan/boolqq") == "flan/bool_q"
    assert near.nearest("super_natural_instructions/task12_scan_lenght") == known[3]
    assert near.nearest("t5/scann") == "p/scan"
    assert near.nearest("flan/paraphrases") is None
    assert near.namesakes("t5/boolq") == ["promptsource/super_glue/boolq"]
    assert near.hint("t5/scan") == " - did you mean 'p/scan'?"
    same = Neighbours(["a/x1", "b/same", "c/same", "a/sam"]).hint("a/same")
    assert same == " - did you mean 'a/sam'?; 'b/same', 'c/same' have the same name"
    assert near.hint("flan/paraphrases") == ""


def test_many_unknown_tasks_are_told_quickly() -> None:
    known = load_taxonomy(taxonomy_files([])).keys
    started = time.perf_counter()
    error = missing_categories(
        [f"super_natural_instructions/task{n}_unheard_of_{n}" for n in range(200)], known
    )
    assert len(error.problems) == 200
    assert time.perf_counter() - started < 10


def test_a_category_that_only_a_recipe_has_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "task,category\nb/t,Question Answring\nb/u,Question Answering\nb/v,Question Answring\n",
        encoding="utf-8",
    )
    warn_of_categories(load_taxonomy(taxonomy_files([mine])))
    assert len(caplog.messages) == 1
    assert (
        "mine.csv:2: b/t.category: 'Question Answring' is no known category, in 2 rows" in caplog.messages[0]
    )
    assert "did you mean 'Question Answering'?" in caplog.messages[0]


def test_what_only_looks_alike_can_be_called_distinct(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("distinct:\n  - [one_set, two_set, Three]\n", encoding="utf-8")
    assert len(read_file(path).distinct) == 3
    path.write_text("distinct:\n  - one_set\n", encoding="utf-8")
    assert "expected lists of two or more data sets" in read_file(path).problems[0]


def test_the_demo_taxonomy_agrees_with_the_demo_data(repository: Path) -> None:
    folder = repository / "examples" / "meta_datasets"
    known = load_taxonomy([folder / "taxonomy.yaml"])
    tasks = json.loads((folder / "TASKS.json").read_text(encoding="utf-8"))
    for task in tasks:
        name = f"{task['benchmark']}/{task['task']}"
        row = known.row(name)
        expected = {"metric": task["metric"], "license": task["licence"]}
        if task["benchmark"] != "super_natural_instructions":
            expected |= {"category": task["category"], "dataset": task["dataset"]}
        assert {key: row.get(key) for key in expected} == expected, name
    named = {f"{task['benchmark']}/{task['task']}" for task in tasks}
    assert set(known.keys) - {"*"} == named
