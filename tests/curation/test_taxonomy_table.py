"""docs/taxonomy.md and the rows that it counts: its tables, the numbers in its text and its examples."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from taskmill.curation.taxonomy import SHIPPED, canonical, load_taxonomy, taxonomy_files
from taskmill.records import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "taxonomy.md"
HEADER = "task,category,dataset,corpora,family,subtask,metric,multiple_choice,languages,license,license_evidence,homepage"
PAPER = {
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
PAPER_CLUSTERS = 93
OURS = tuple(name for name in PAPER if name != "super_natural_instructions")
NUMBER = re.compile(r"(?<![\w.`-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w`])")
NAMES = (
    r"`[^`]*`",
    r"\d+-gram",
    r"Iyer et al\. \d{4}",
    r"Table \d",
    r"SQuAD [\d.]+ and\s+[\d.]+",
    r"20\d\d mixture",
)
"""Numbers that are part of a name."""


@cache
def rows(benchmark: str) -> list[dict[str, str]]:
    with (SHIPPED / f"{benchmark}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(title: str) -> list[list[str]]:
    """Return the cells of the page's table whose header begins with a title, without header and rule."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return cells


def test_the_table_of_benchmarks_counts_the_rows_and_the_categories() -> None:
    counted = {}
    for name, (tasks, clusters) in PAPER.items():
        assert {row["task"].partition("/")[0] for row in rows(name)} == {name}
        ids = [row["task"] for row in rows(name)]
        assert len(set(ids)) == len(ids)
        counted[name] = [tasks, len(ids), clusters, len({row["category"] for row in rows(name)})]
    union = {row["category"] for name in PAPER for row in rows(name)}
    counted["all eight"] = [
        sum(tasks for tasks, _ in PAPER.values()),
        sum(ours for _, ours, *_ in counted.values()),
        PAPER_CLUSTERS,
        len(union),
    ]
    assert {name: [int(cell) for cell in cells] for name, *cells in table("benchmark")} == counted


# ------------------------------------------------------------------------------------- counts behind the differences


class _Loader(yaml.CSafeLoader):
    pass


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


@cache
def templates(data: Path) -> dict[str, list[dict[str, object]]]:
    """Return the templates of every folder of PromptSource."""
    root = data / "promptsource" / "templates"
    found = {}
    for path in sorted(root.rglob("templates.yaml")):
        with path.open(encoding="utf-8") as file:
            read = yaml.load(file, _Loader)["templates"]
        found[path.parent.relative_to(root).as_posix()] = list(read.values())
    return found


def originals(data: Path) -> dict[str, list[dict[str, object]]]:
    return {
        name: [each for each in found if each["metadata"].get("original_task")]  # type: ignore[attr-defined]
        for name, found in templates(data).items()
    }


def mean_prompts(data: Path, *, only_with_some: bool) -> float:
    counts = [len(found) for found in originals(data).values() if found or not only_with_some]
    return round(sum(counts) / len(counts), 1)


def marked_in_text(data: Path) -> int:
    files = (data / "promptsource" / "templates").rglob("templates.yaml")
    mark = re.compile(r"^ *original_task: true *$", re.MULTILINE)
    return sum(len(mark.findall(path.read_text(encoding="utf-8"))) for path in files)


def crossfit_names(data: Path) -> set[str]:
    folder = data / "crossfit" / "custom_tasks_splits"
    return {
        name
        for path in folder.glob("*.json")
        for names in json.loads(path.read_text(encoding="utf-8")).values()
        for name in names
    }


def flan_names(data: Path) -> set[str]:
    with (data / "flan" / "flan_collection_info.csv").open(encoding="utf-8", newline="") as file:
        return {row["Dataset"] for row in csv.DictReader(file) if row["Source"] in ("FLAN", "FLAN/T0")}


def only_here(benchmark: str) -> int:
    others = {row["dataset"] for name in PAPER if name != benchmark for row in rows(name)}
    return sum(row["dataset"] not in others for row in rows(benchmark))


def release_names() -> set[str]:
    return set(yaml.safe_load((SHIPPED / "flan_names.yaml").read_text(encoding="utf-8"))["tasks"])


FROM_ROWS: dict[str, Callable[[], float]] = {
    "CrossFit: tasks whose data set no other benchmark has": lambda: only_here("crossfit"),
    "FLAN: data sets under the tasks": lambda: len({row["dataset"] for row in rows("flan")}),
    "FLAN: further names in `flan_names.yaml": lambda: len(release_names()),
    "ExMix: tasks from DialoGLUE": lambda: sum("/dialoglue_" in row["task"] for row in rows("exmix")),
    "ExMix: tasks whose data set no other benchmark has": lambda: only_here("exmix"),
    "T5: tasks whose data set no other benchmark has": lambda: only_here("t5"),
}
FROM_DATA: dict[str, Callable[[Path], float]] = {
    "PromptSource: files of templates": lambda data: len(templates(data)),
    "PromptSource: templates": lambda data: sum(map(len, templates(data).values())),
    "PromptSource: templates marked original-task, in the text of the files": marked_in_text,
    "PromptSource: templates marked original-task, as YAML reads them": lambda data: sum(
        map(len, originals(data).values())
    ),
    "PromptSource: files without an original-task template": lambda data: sum(
        not found for found in originals(data).values()
    ),
    "PromptSource: original-task templates a file": lambda data: mean_prompts(data, only_with_some=False),
    "PromptSource: original-task templates a file that has one": lambda data: mean_prompts(
        data, only_with_some=True
    ),
    "CrossFit: tasks that the partition files name": lambda data: len(crossfit_names(data)),
    "FLAN: names of the 2021 mixture in the collection's table": lambda data: len(flan_names(data)),
}


def stated() -> dict[str, float]:
    return {name: float(number) for name, number in table("what is counted")}


def test_every_line_of_the_table_of_counts_is_counted() -> None:
    assert stated().keys() == FROM_ROWS.keys() | FROM_DATA.keys()
    assert {name: count() for name, count in FROM_ROWS.items()}.items() <= stated().items()


def test_the_counts_of_upstream_files_are_those_of_the_real_files(shared_data: Path) -> None:
    assert {name: count(shared_data) for name, count in FROM_DATA.items()}.items() <= stated().items()


def test_every_number_in_the_text_stands_in_a_table_or_is_named_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    cells = {cell for title in ("benchmark", "what is counted") for row in table(title) for cell in row[1:]}
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    for name in NAMES:
        prose = re.sub(name, "", prose)
    # what the papers and FLAN's code say, where we have no number of our own
    elsewhere = {
        "5.7": "prompts a task",
        "69": "tasks in FLAN's clusters",
        "17": "clusters",
        "62": "data sets of FLAN",
    }
    assert set(NUMBER.findall(prose)) <= cells | elsewhere.keys()


# ------------------------------------------------------------------------------------------------- rows against files


def test_every_folder_of_promptsource_and_every_task_of_crossfit_has_a_row(shared_data: Path) -> None:
    assert {row["task"] for row in rows("promptsource")} == {
        f"promptsource/{name}" for name in templates(shared_data)
    }
    assert {row["task"] for row in rows("crossfit")} == {
        f"crossfit/{name}" for name in crossfit_names(shared_data)
    }


def test_flan_has_a_row_for_every_name_of_the_collection(shared_data: Path) -> None:
    taxonomy = load_taxonomy(taxonomy_files([]))
    for name in flan_names(shared_data):
        assert taxonomy.row(f"flan/{name}").get("category"), name
    for name in release_names():
        concrete = name.replace("*", "")
        assert taxonomy.row(concrete)["category"], concrete


def test_every_reasoning_file_has_a_row(shared_data: Path) -> None:
    files = {
        path.stem.removesuffix("_train") for path in (shared_data / "reasoning" / "flan_cot").glob("*.tsv")
    }
    assert files and {f"reasoning/{name}" for name in files} <= {row["task"] for row in rows("reasoning")}


def test_promptsource_tasks_are_multiple_choice_where_most_templates_list_choices(shared_data: Path) -> None:
    by_hand = {
        "promptsource/app_reviews",  # half of its templates are classification, the only ones with one answer
        "promptsource/aqua_rat/raw",  # a rationale follows the choice
        "promptsource/movie_rationales",  # quotations follow the choice
    }
    differ = set()
    for row in rows("promptsource"):
        name = row["task"].removeprefix("promptsource/")
        counted = originals(shared_data)[name] or templates(shared_data)[name]
        given = 2 * sum(bool(each.get("answer_choices")) for each in counted) > len(counted)
        if given != (row["multiple_choice"] == "true"):
            differ.add(row["task"])
    assert differ == by_hand


@pytest.mark.parametrize("name", OURS)
def test_rows_are_whole(name: str) -> None:
    known = {
        category
        for part in yaml.safe_load((SHIPPED / "categories.yaml").read_text(encoding="utf-8")).values()
        for category in part
    }
    aliases = load_taxonomy(taxonomy_files([])).aliases
    for row in rows(name):
        assert ",".join(row).removesuffix(",shape").removesuffix(",definition") == HEADER
        assert row["category"] in known, row
        assert row["metric"] in METRICS and row["multiple_choice"] in ("true", "false"), row
        assert (row["metric"] == "accuracy") == (row["multiple_choice"] == "true"), row
        assert row["dataset"] and canonical(row["dataset"], aliases) == row["dataset"], row
        assert row["languages"], row
        assert bool(row["license"]) == bool(row["license_evidence"]), row
        assert not row["subtask"] or row["family"], row
        assert len(row["languages"].split(";")) == 2 or row["category"] not in (
            "Translation",
            "Sign Language Glossing",
        )


def test_a_family_has_one_category_and_one_data_set() -> None:
    categories, datasets = defaultdict(set), defaultdict(set)
    for row in (row for name in OURS for row in rows(name) if row["family"]):
        categories[row["family"]].add(row["category"])
        datasets[row["family"]].add(row["dataset"])
    assert [family for family, found in categories.items() if len(found) > 1] == []
    assert [family for family, found in datasets.items() if len(found) > 1] == []


def test_short_answers_are_compared_whole_in_every_benchmark() -> None:
    found = {row["task"]: row["metric"] for name in OURS for row in rows(name)}
    short = ("promptsource/squad", "flan/squad_v1", "t5/squad", "crossfit/squad-with_context")
    short += (
        "promptsource/squad_v2",
        "promptsource/wino_bias/type1_anti",
        "crossfit/spider",
        "unifiedskg/spider",
    )
    assert {found[task] for task in short} == {"exact_match"}


def test_the_same_task_in_two_benchmarks_is_one_family() -> None:
    families = {row["task"]: row["family"] for name in OURS for row in rows(name)}
    for other in ("flan/copa", "crossfit/superglue-copa", "t5/super_glue-copa"):
        assert families[other] == families["promptsource/super_glue/copa"] == "copa"
    assert families["promptsource/squad"] == families["flan/squad_v1"] == families["t5/squad"]
    assert families["promptsource/squad_v2"] == families["flan/squad_v2"] != families["flan/squad_v1"]


@pytest.mark.parametrize(
    ("task", "category"),
    [
        ("promptsource/super_glue/copa", "Cause Effect Classification"),
        ("promptsource/wino_bias/type1_anti", "Stereotype Detection"),
        ("promptsource/jigsaw_unintended_bias", "Toxic Language Detection"),
        ("promptsource/race/high", "Question Answering"),
        ("promptsource/cnn_dailymail/3.0.0", "Summarization"),
        ("promptsource/blended_skill_talk", "Dialogue Generation"),
        ("flan/newsroom", "Summarization"),
        ("flan/copa", "Cause Effect Classification"),
        ("promptsource/anli", "Textual Entailment"),
        ("promptsource/winogrande/winogrande_xl", "Coreference Resolution"),
        ("reasoning/gsm8k", "Reasoning"),
        ("unifiedskg/spider", "Text to Code"),
    ],
)
def test_tasks_that_the_paper_evaluates_on_have_the_category_it_prints(task: str, category: str) -> None:
    assert load_taxonomy(taxonomy_files([])).row(task)["category"] == category


@pytest.mark.parametrize(
    ("names", "dataset"),
    [
        (("adversarial_qa/dbert", "AdversarialQA"), "adversarial_qa"),
        (("eqasc", "qasc"), "qasc"),
        (("quartz-no_knowledge", "QuaRTz"), "quartz"),
        (("kilt_nq", "nq_open", "AmbigQA"), "natural_questions"),
        (("jigsaw_unintended_bias", "Civil Comments", "jigsaw"), "civil_comments"),
        (("wikitq", "WikiTableQuestions"), "wikitablequestions"),
        (("glue-rte", "super_glue/rte", "superglue-rte"), "rte"),
    ],
)
def test_names_of_one_data_set_meet(names: tuple[str, ...], dataset: str) -> None:
    aliases = load_taxonomy(taxonomy_files([])).aliases
    assert {canonical(name, aliases) for name in names} == {dataset}


# ------------------------------------------------------------------------------------------------------------ examples


def test_the_rows_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```(yaml|csv)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [kind for kind, _ in blocks] == ["yaml", "yaml", "csv"]
    settings = yaml.safe_load(blocks[0][1])
    files = [tmp_path / name for name in settings["curate"]["taxonomy"]]
    for path, (kind, text) in zip(files, blocks[1:], strict=True):
        assert path.suffix == f".{kind}"
        path.write_text(text, encoding="utf-8")
    shipped, ours = load_taxonomy(taxonomy_files([])), load_taxonomy(taxonomy_files(files))
    task = "promptsource/wino_bias/type1_pro"
    assert ours.row(task) == {**shipped.row(task), "category": "Coreference Resolution"}
    assert ours.row("table/tide_tables")["metric"] == "exact_match"
    assert canonical("Harbour tides", ours.aliases) == "tide_tables"
    assert ours.row("table/harbour_log")["corpora"] == ["harbour logs", "weather reports"]
