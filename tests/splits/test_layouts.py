"""Layouts: what ships fits the taxonomy and the publications, how recipes add to one, and docs/layouts.md as it stands."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from catalogues import task_row, tasks_table
from running import call, taskmill

from taskmill.curation.taxonomy import categories, load_taxonomy, taxonomy_files
from taskmill.errors import RecipeError
from taskmill.plain import to_json
from taskmill.recipe import HeldOut, Plan, Recipe, Resolved, Trained, Validation
from taskmill.settings import Settings
from taskmill.splits import overlap
from taskmill.splits.planning.layout_files import (
    Layout,
    find_layout,
    join_plans,
    parse_layout,
    shipped,
    without_tasks,
)
from taskmill.splits.planning.levels import plan_tasks
from taskmill.splits.planning.roles import TaskPlan

PARTS = re.compile(r"<!-- (file: (?P<path>\S+)|run|output) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)

FLAN = {
    "summarization": "aeslc cnn_dailymail gigaword multi_news newsroom samsum xsum ag_news_subset wiki_lingua_english_en "
    "opinion_abstracts_rotten_tomatoes opinion_abstracts_idebate",
    "structure_to_text": "web_nlg_en common_gen e2e_nlg dart",
    "reading_comprehension": "squad_v1 squad_v2 drop multirc openbookqa bool_q",
    "closed_book_qa": "trivia_qa natural_questions arc_challenge arc_easy",
    "paraphrase": "glue_mrpc glue_qqp paws_wiki stsb",
    "sentiment": "imdb_reviews sentiment140 yelp_polarity_reviews sst2",
    "common_sense": "copa hellaswag story_cloze piqa",
    "translation": "para_crawl_enes wmt14_enfr wmt16_translate_csen wmt16_translate_deen wmt16_translate_fien "
    "wmt16_translate_roen wmt16_translate_ruen wmt16_translate_tren",
    "coreference": "definite_pronoun_resolution winogrande wsc wsc273",
    "entailment": "anli_r1 anli_r2 anli_r3 cb rte mnli_matched mnli_mismatched qnli wnli snli",
    "read_comp_and_common_sense": "record cosmos_qa",
    "miscellaneous": "math_dataset quac coqa wic cola trec true_case fix_punct word_segment",
}
"""The published clusters, by the names of the tasks in FLAN's code; WSC273 is what the paper calls its WSC."""
APART = [
    ("entailment", "paraphrase"),
    ("reading_comprehension", "read_comp_and_common_sense"),
    ("common_sense", "read_comp_and_common_sense"),
]


@cache
def everything() -> pa.Table:
    """Every task that the shipped taxonomy knows, with invented upstream roles for Super-NaturalInstructions."""
    taxonomy, rows = load_taxonomy(taxonomy_files([])), []
    for number, task in enumerate(taxonomy.tasks):
        known = taxonomy.row(task)
        name = task.partition("/")[2]
        dataset = known.get("dataset") or name
        row = task_row(task, known.get("category") or "Misc.", dataset)
        row |= {"family": known.get("family") or dataset, "languages": known.get("languages") or []}
        if task.startswith("super_natural"):
            row["upstream_role"] = ("train", "excluded")[number % 2]
        rows.append(row)
    return tasks_table(rows)


def planned(layout: Layout, table: pa.Table, **more: object) -> dict[str, TaskPlan]:
    plan = join_plans(Plan(**more), layout)
    return {entry.task: entry for entry in plan_tasks(table, plan, 0, layout.selectors)}


def layout_of(plan: str, name: str = "mine") -> Layout:
    return parse_layout(f"title: t\nplan: {plan}", name, "mine.yaml")


# --------------------------------------------------------------------------------------------- shipped


@pytest.mark.parametrize("name", shipped())
def test_shipped_layouts_say_where_they_are_from_and_name_only_what_is_known(name: str) -> None:
    layout = find_layout(name)
    assert layout and layout.name == name and len(layout.title) < 110
    assert "et al." in layout.source and layout.notes
    missing = [text for text in without_tasks(layout, everything()) if text not in layout.plan.categories]
    assert set(missing) <= {"upstream_role=test"}, missing
    named = {*layout.plan.held_out.categories} - set(layout.plan.categories)
    assert named <= set(categories())


def test_all_published_divisions_ship() -> None:
    assert set(shipped()) == {
        "opt-iml",
        "t0",
        "super-ni/default",
        "super-ni/xlingual",
        *(f"flan/{c}" for c in FLAN),
    }


@pytest.mark.parametrize("cluster", FLAN)
def test_each_flan_layout_evaluates_its_cluster_and_trains_no_related_one(cluster: str) -> None:
    layout = find_layout(f"flan/{cluster}")
    assert layout
    found = planned(layout, everything())
    flan = {task.partition("/")[2]: entry for task, entry in found.items() if task.startswith("flan/")}
    assert {name for name, entry in flan.items() if entry.level} == set(FLAN[cluster].split())
    related = {b for pair in APART if cluster in pair for b in pair} - {cluster}
    for other in related:
        assert all(flan[name].role == "excluded" for name in FLAN[other].split()), other
    far = set(FLAN) - related - {cluster}
    trained = {name for name, entry in flan.items() if entry.role == "train"}
    assert trained >= {name for other in far for name in FLAN[other].split()} - {
        "wsc",
        "wsc273",
        "winogrande",
        "wnli",
    }


def test_the_twelve_flan_clusters_are_whole() -> None:
    names = [name for cluster in FLAN.values() for name in cluster.split()]
    assert len(FLAN) == 12 and len(set(names)) == len(names) == 70
    assert {
        task.partition("/")[2] for task in everything()["task"].to_pylist() if task.startswith("flan/")
    } == set(names)


def test_t0_trains_its_base_groups_and_holds_out_four_kinds() -> None:
    layout = find_layout("t0")
    assert layout
    found = planned(layout, everything())
    trained = {task for task, entry in found.items() if entry.role == "train"}
    assert len(trained) == 38 and all(task.startswith("promptsource/") for task in trained)
    level = {task for task, entry in found.items() if entry.level == "held_out"}
    assert {task.partition("/")[2] for task in level if task.startswith("promptsource/")} == {
        "anli",
        "super_glue/cb",
        "super_glue/rte",
        "super_glue/wsc.fixed",
        "winogrande/winogrande_xl",
        "super_glue/copa",
        "hellaswag",
        "story_cloze/2016",
        "super_glue/wic",
    }
    assert {task for task in level if not task.startswith("promptsource/")} == {
        "evaluation/bbh_formal_fallacies",
        *(f"evaluation/bbh_logical_deduction_{num}_objects" for num in ("three", "five", "seven")),
    }


def test_opt_iml_gives_the_levels_that_the_paper_states() -> None:
    layout = find_layout("opt-iml")
    assert layout
    assert any("Blended Skill Talk" in note for note in layout.notes)
    assert any("NOT FOUND" in note for note in layout.notes)
    found = planned(layout, everything())
    wanted = {
        "held_out": "promptsource/super_glue/copa flan/copa promptsource/wino_bias/type1_anti promptsource/jfleg flan/anli_r3 "
        "flan/mnli_matched flan/snli flan/wnli flan/winogrande flan/wsc flan/story_cloze flan/wic promptsource/super_glue/rte "
        "super_natural_instructions/task1664_winobias_text_generation",
        "partial": "evaluation/mmlu_anatomy promptsource/jigsaw_unintended_bias flan/newsroom promptsource/race/high flan/bool_q "
        "flan/arc_easy flan/openbookqa reasoning/gsm8k reasoning/strategyqa unifiedskg/dart unifiedskg/multiwoz "
        "super_natural_instructions/task1720_civil_comments_toxicity_classification",
        "supervised": "flan/squad_v1 promptsource/squad promptsource/blended_skill_talk promptsource/cnn_dailymail/3.0.0 "
        "unifiedskg/spider",
    }
    for level, names in wanted.items():
        assert {found[name].level for name in names.split()} == {level}, level
    trained = {entry.task for entry in found.values() if entry.role in ("train", "both")}
    categories_of = dict(zip(everything()["task"].to_pylist(), everything()["category"].to_pylist()))
    held = {
        "Word Analogy",
        "Textual Entailment",
        "Coreference Resolution",
        "Dialogue Act Recognition",
        "Stereotype Detection",
    }
    assert not {categories_of[task] for task in trained} & held
    marked = {entry.task for entry in found.values() if entry.is_validation}
    assert marked >= {"flan/squad_v1", "promptsource/blended_skill_talk", "flan/copa", "reasoning/gsm8k"}
    assert "unifiedskg/spider" not in marked


def test_super_ni_default_is_upstreams_lists(shared_data: Path) -> None:
    roles = {}
    for path in (shared_data / "super_natural_instructions/splits/default").glob("*_tasks.txt"):
        roles |= dict.fromkeys(path.read_text().split(), path.name.partition("_")[0])
    rows = [row for row in everything().to_pylist() if row["benchmark"] == "super_natural_instructions"]
    table = tasks_table(row | {"upstream_role": roles[row["name"]]} for row in rows)
    layout = find_layout("super-ni/default")
    assert layout
    assert without_tasks(layout, table) == []
    kept = planned(layout, table, variants="decide").values()
    assert Counter(entry.level or entry.role for entry in kept) == {
        "train": 757,
        "held_out": 119,
        "excluded": 737,
    }
    found = planned(layout, table)
    gone = {
        entry.task
        for entry in found.values()
        if entry.role == "excluded" and roles[entry.task.partition("/")[2]] == "train"
    }
    assert len(gone) == 5 and all("variant" in found[task].why for task in gone)
    note = " ".join(layout.notes)
    assert all(task.partition("/")[2].partition("_")[0] in note for task in gone)


# --------------------------------------------------------------------------------------------- joining


def test_a_recipe_adds_to_its_layout() -> None:
    layout = layout_of(
        "{held_out: {categories: [A], tasks: ['a/*']}, partial: [x], carve_share: 0.3, num_demonstration_groups: 5, "
        "categories: {A: [d], B: [e]}, train: {tasks: [y]}}"
    )
    plan = Plan(
        HeldOut(("B", "A")),
        partial=("z", "x"),
        supervised=("s",),
        num_demonstration_groups=9,
        categories={"A": ("f",), "C": ("g",)},
        train=Trained(num_tasks=4),
        validation=Validation(("v",), 7),
        layout="mine",
    )
    joined = join_plans(plan, layout)
    assert joined == Plan(
        HeldOut(("A", "B"), ("a/*",)),
        partial=("x", "z"),
        supervised=("s",),
        carve_share=0.3,
        num_demonstration_groups=9,
        categories={"A": ("d", "f"), "B": ("e",), "C": ("g",)},
        train=Trained(("y",), 4),
        validation=Validation(("v",), 7),
        layout="mine",
    )
    assert join_plans(plan, None) is plan
    assert join_plans(Plan(train=Trained(("q",))), layout_of("{}")).train.tasks == ("q",)


def test_a_layout_may_name_what_is_not_there_and_a_recipe_may_not() -> None:
    table = tasks_table([task_row("a/one", "QA"), task_row("a/two", "QA")])
    layout = layout_of("{held_out: {categories: [Gone]}, partial: [a/one, a/gone], supervised: [b/*]}")
    found = planned(layout, table)
    assert {task: entry.level or entry.role for task, entry in found.items()} == {
        "a/one": "partial",
        "a/two": "train",
    }
    assert without_tasks(layout, table) == ["Gone", "a/gone", "b/*"]
    with pytest.raises(RecipeError, match="'c/gone' fits none"):
        planned(layout, table, partial=("c/gone",))


def test_the_content_of_a_layout_is_in_the_fingerprint(tmp_path: Path) -> None:
    def external(text: str) -> dict[str, object]:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        recipe = Recipe("test", (), plan=Plan(layout="mine.yaml"))
        settings = Settings(Resolved(recipe, {}, tmp_path, ""), overlap.SECTIONS)
        return overlap.external(settings, None)  # type: ignore[arg-type]

    one = external("title: one\nplan: {exclude: [a]}")
    assert external("title: another\nplan: {exclude: [a]}") == one
    assert external("title: one\nplan: {exclude: [b]}") != one


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plan: [", "not valid YAML"),
        ("[]", "expected a mapping with title, source, notes, plan"),
        ("title: t", "`plan` a mapping"),
        ("titel: t\nplan: {}", "unknown key 'titel' - did you mean 'title'?"),
        ("plan: {partal: [a]}", "plan: unknown key 'partal' - did you mean 'partial'?"),
        ("plan: {held_out: {task: [a]}}", "plan.held_out: unknown key 'task' - did you mean 'tasks'?"),
        ("plan: {partial: a}", "plan.partial: found 'a'; expected a list"),
        ("plan: {carve_share: 3}", "plan.carve_share: found 3; expected a number from"),
        ("plan: {layout: t0}", "a layout has no layout of its own"),
        ("plan: {}\nnotes: 3", "notes: found 3; expected a list"),
    ],
)
def test_wrong_layouts_are_explained(text: str, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_layout(text, "mine", "folder/mine.yaml")
    assert wanted in str(caught.value)
    assert all(problem.startswith("folder/mine.yaml: ") for problem in caught.value.problems)


def test_a_layout_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"plan\.layout: found 'flan/sentimnet' - did you mean 'flan/sentiment'\?"
    ):
        find_layout("flan/sentimnet", lambda name: tmp_path / name)
    assert find_layout(None) is None


# --------------------------------------------------------------------------------------------- commands


def test_layouts_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "recipes", "layouts")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(shipped())
    code, out, _ = call(capsys, "recipes", "layouts", "super-ni/default")
    layout = find_layout("super-ni/default")
    assert code == 0 and layout
    plan = yaml.safe_load(out[out.index("\nplan:") :])
    assert layout_of(json.dumps(plan["plan"])).plan == layout.plan
    assert layout.source in out.replace("\n", " ") and all(note.split()[0] in out for note in layout.notes)
    code, out, _ = call(capsys, "recipes", "layouts", "t0", "--json")
    body = json.loads(out)
    assert code == 0 and body["name"] == "t0" and body["plan"]["train"]["tasks"][0] == "p*/glue/mrpc"
    assert to_json(layout_of(json.dumps(body["plan"])).plan)["held_out"] == body["plan"]["held_out"] | {
        "num_categories": 0
    }
    code, out, err = call(capsys, "recipes", "layouts", "opt-im")
    assert code == 2 and "did you mean 'opt-iml'?" in err and not out


def test_the_page_is_what_works(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/layouts.md").read_text(encoding="utf-8")
    shown, counts = "", Counter[str]()
    for part in PARTS.finditer(page):
        kind = part[1].split(":")[0]
        counts[kind] += 1
        if kind == "file":
            path = tmp_path / part["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(part["text"], encoding="utf-8")
        elif kind == "run":
            for command in part["text"].strip().splitlines():
                program, *arguments = command.split()
                assert program == "taskmill"
                done = taskmill(*arguments, cwd=tmp_path)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                shown = " ".join(done.stdout.split())
        else:
            for line in part["text"].splitlines():
                assert " ".join(line.split()) in shown, line
    assert counts == {"file": 6, "run": 3, "output": 3}
