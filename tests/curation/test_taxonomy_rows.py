"""The shipped rows: every one valid, Super-NaturalInstructions as upstream has it, and the checks that guard them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from taskmill.curation.sources.super_natural_instructions import NO_DATA_SET
from taskmill.curation.taxonomy import (
    SHIPPED,
    Layer,
    Taxonomy,
    canonical,
    categories,
    load_taxonomy,
    make_layer,
    taxonomy_files,
)
from taskmill.curation.taxonomy_check import check_files, check_layer, check_shipped, look_alikes
from taskmill.curation.taxonomy_rows import read_file

KEYWORDS = ("crossfit", "exmix", "t5", "unifiedskg")
"""Benchmarks without instructions of their own."""
HEADER = "task,category,dataset,corpora,family,subtask,metric,multiple_choice,languages,license,license_evidence,homepage"
SNI = "super_natural_instructions"
COUNTS = """
Translation 394; Question Answering 207; Program Execution 90; Question Generation 83; Sentiment Analysis 75;
Text Categorization 46; Text Matching 43; Toxic Language Detection 40; Misc. 37; Cause Effect Classification 37;
Information Extraction 34; Wrong Candidate Generation 27; Textual Entailment 27; Named Entity Recognition 25;
Commonsense Classification 24; Fill in The Blank 22; Text Completion 21; Sentence Composition 20; Title Generation 19;
Question Understanding 16; Summarization 16; Language Identification 15; Sentence Perturbation 15;
Answerability Classification 14; Coreference Resolution 14; Dialogue Generation 13; Text Quality Evaluation 12;
Paraphrasing 12; Text to Code 12; Question Rewriting 11; Word Semantics 10; Pos Tagging 10; Story Composition 9;
Data to Text 9; Linguistic Probing 9; Speaker Identification 9; Word Analogy 8; Answer Verification 7;
Stereotype Detection 7; Gender Classification 7; Negotiation Strategy Detection 7; Dialogue Act Recognition 7;
Coherence Classification 6; Ethics Classification 6; Explanation 6; Keyword Tagging 5; Mathematics 5;
Sentence Ordering 5; Intent Identification 5; Word Relation Classification 5; Code to Text 4; Text Simplification 4;
Dialogue State Tracking 4; Grammar Error Detection 3; Stance Detection 3; Section Classification 3; Fact Verification 3;
Overlap Extraction 2; Question Decomposition 2; Irony Detection 2; Speaker Relation Classification 2; Style Transfer 2;
Grammar Error Correction 2; Number Conversion 2; Spelling Error Detection 1; Spam Classification 1; Paper Review 1;
Entity Generation 1; Entity Relation Classification 1; Discourse Connective Identification 1;
Discourse Relation Classification 1; Preposition Prediction 1; Sentence Expansion 1; Sentence Compression 1;
Punctuation Error Detection 1; Poem Generation 1
"""
"""Tasks of each category in the release (Wang et al. 2022)."""
CORRECTED = {
    "task105_story_cloze-rocstories_sentence_generation": "rocstories",
    "task110_logic2text_sentence_generation": "logic2text",
    "task114_is_the_given_word_longest": "task114_is_the_given_word_longest",
    "task650_opus100_ar_en_translation": "opus_100",
    "task651_opus100_en_ar_translation": "opus_100",
    "task865_mawps_addsub_question_answering": "mawps",
    "task866_mawps_multidiv_question_answering": "mawps",
    "task867_mawps_multiop_question_answering": "mawps",
    "task868_mawps_singleop_question_answering": "mawps",
}
"""Tasks under whose Source upstream names another set than the one their text is from."""
RENAMED = {"nlu_asdiv_dataset": "asdiv", "lj_speec": "lj_speech", "essential": "essential_terms"}


@pytest.fixture(scope="module")
def shipped() -> Taxonomy:
    return load_taxonomy(taxonomy_files([]))


def test_every_shipped_row_is_right() -> None:
    found = check_shipped()
    assert found.problems == [] and found.warnings == []


def test_every_task_has_a_category_of_the_list_and_a_data_set(shipped: Taxonomy) -> None:
    known = categories()
    for task in shipped.tasks:
        row = shipped.row(task)
        assert row["category"] in known, task
        assert row["dataset"], task


def test_the_union_has_over_a_hundred_categories_all_in_use(shipped: Taxonomy) -> None:
    used = {shipped.row(task)["category"] for task in shipped.tasks}
    assert len(used) > 100
    assert used == set(categories())
    assert all(text.endswith(".") and "\n" not in text for text in categories().values())


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.csv")), ids=lambda path: path.stem)
def test_a_shipped_file_has_the_header_and_its_own_benchmark(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    own = (",definition" if path.stem in KEYWORDS else "") + (",shape" if path.stem == "unifiedskg" else "")
    assert ",".join(lines[0]) == HEADER + own
    tasks = [cells[0] for cells in lines[1:]]
    assert len(tasks) == len(set(tasks)) > 0
    benchmarks = {task.partition("/")[0] for task in tasks}
    assert len(benchmarks) == 1 and path.stem.startswith(benchmarks.pop())
    assert {len(cells) for cells in lines} == {len(lines[0])}
    assert all("*" not in task for task in tasks)


@pytest.mark.parametrize("benchmark", KEYWORDS)
def test_every_task_without_an_instruction_upstream_has_one_of_ours(
    benchmark: str, shipped: Taxonomy
) -> None:
    rows = {task: shipped.row(task) for task in shipped.tasks if task.startswith(f"{benchmark}/")}
    assert len(rows) > 15
    for task, row in rows.items():
        assert row["definition"][0].isupper() and row["definition"].endswith("."), task
        assert 2 < len(row["definition"].split()) <= 24, task


def test_a_license_has_its_ground(shipped: Taxonomy) -> None:
    for task in shipped.tasks:
        row = shipped.row(task)
        assert ("license" in row) == ("license_evidence" in row), task


def test_super_natural_instructions_keeps_its_76_categories(shipped: Taxonomy) -> None:
    tasks = [task for task in shipped.tasks if task.startswith(f"{SNI}/")]
    found = Counter(shipped.row(task)["category"] for task in tasks)
    expected = {name: int(number) for name, number in re.findall(r"\s*(.+?) (\d+)(?:;|\n$)", COUNTS)}
    assert found == expected
    assert len(tasks) == 1613 and len(found) == 76


def test_mmlu_and_bbh_are_whole(shipped: Taxonomy) -> None:
    for family, number, dataset in (("mmlu", 57, "mmlu"), ("bbh", 27, "big_bench")):
        rows = {t: shipped.row(t) for t in shipped.tasks if t.startswith(f"evaluation/{family}_")}
        assert len(rows) == number
        assert all(t == f"evaluation/{family}_{row['subtask']}" for t, row in rows.items())
        assert {(row["family"], row["dataset"]) for row in rows.values()} == {(family, dataset)}


def test_mmlu_questions_in_super_natural_instructions_are_mmlu(shipped: Taxonomy) -> None:
    rows = [shipped.row(task) for task in shipped.tasks if "_mmmlu_" in task]
    assert len(rows) == 57 and {row["dataset"] for row in rows} == {"mmlu"}
    assert {row["subtask"] for row in rows} == {
        shipped.row(task)["subtask"] for task in shipped.tasks if task.startswith("evaluation/mmlu_")
    }


# ------------------------------------------------------------------------------------ against upstream


def test_rows_say_what_the_task_files_say(shared_data: Path, shipped: Taxonomy) -> None:
    files = sorted((shared_data / SNI).glob("tasks*/*.json"))
    assert len(files) == 1421
    aliases = shipped.aliases
    for path in files:
        upstream = json.loads(path.read_text(encoding="utf-8"))
        row = shipped.row(f"{SNI}/{path.stem}")
        assert row["category"] == upstream["Categories"][0], path.stem
        assert row["languages"] == sorted({*upstream["Input_language"], *upstream["Output_language"]}), (
            path.stem
        )
        source = upstream["Source"][0]
        source = RENAMED.get(source, source)
        expected = path.stem if source in NO_DATA_SET else source
        if "_lhoestq_" in path.stem:
            expected = "squad"  # its texts are: the sketches of task739 and SQuAD are equal
        assert row["dataset"] == canonical(CORRECTED.get(path.stem, expected), aliases), path.stem


def test_the_rows_are_the_tasks_of_the_index(shared_data: Path, shipped: Taxonomy) -> None:
    index = (shared_data / SNI / "tasks" / "README.md").read_text(encoding="utf-8")
    upstream = dict(re.findall(r"^`(task\S+?)`.*\|([^|]+)\|[^|]+\|[^|]+\|[^|]+$", index, re.MULTILINE))
    rows = {
        task.partition("/")[2]: shipped.row(task)["category"]
        for task in shipped.tasks
        if task.startswith(SNI)
    }
    assert rows == {name: category.strip() for name, category in upstream.items()}


def test_the_rows_are_the_tasks_of_the_split_lists(shared_data: Path, shipped: Taxonomy) -> None:
    lists = (shared_data / SNI / "splits" / "default").glob("*_tasks.txt")
    names = [
        line.strip()
        for path in lists
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    assert sorted(f"{SNI}/{name}" for name in names) == [t for t in shipped.tasks if t.startswith(f"{SNI}/")]


def test_mmlu_and_bbh_are_named_like_their_files(shared_data: Path, shipped: Taxonomy) -> None:
    subjects = {
        path.stem.removesuffix("_val") for path in (shared_data / "eval" / "mmlu" / "val").glob("*.csv")
    }
    bbh = {path.stem for path in (shared_data / "eval" / "bbh").glob("*.json")}
    known = set(shipped.tasks)
    assert len(subjects) == 57 and {f"evaluation/mmlu_{name}" for name in subjects} <= known
    assert len(bbh) == 22 and {f"evaluation/bbh_{name}" for name in bbh} <= known


# ------------------------------------------------------------------------------------------ the checks


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["adverserial_qa", "adversarial_qa"], 1),
        (["movie_rationales", "movie_rationale"], 1),
        (["bool_questions", "boolquestions"], 1),
        (["dialogeu_set", "dialogue_set"], 1),
        (["conll2002", "conll2003"], 0),
        (["semeval_2018_task1", "semeval_2018_task3"], 0),
        (["cola", "coqa"], 0),
        (["adversarial_qa", "adversarial_nli"], 0),
        (["hate_speech_18", "hate_speech"], 0),
        (["wizard_of_internet", "wizard_of_wikipedia"], 0),
    ],
)
def test_look_alikes(names: list[str], expected: int) -> None:
    assert len(look_alikes(names)) == expected


def test_a_misspelt_data_set_of_a_user_is_warned_of(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("task,category,dataset\nown/t,Question Answering,adverserial_qa\n", encoding="utf-8")
    found = check_files([mine])
    assert found.problems == []
    assert (
        len(found.warnings) == 1
        and "'adversarial_qa' and 'adverserial_qa' are one edit apart" in found.warnings[0]
    )
    told = tmp_path / "told.yaml"
    told.write_text("distinct:\n  - [adversarial_qa, adverserial_qa]\n", encoding="utf-8")
    assert check_files([mine, told]).warnings == []


def test_a_row_for_a_mistyped_task_or_benchmark_is_warned_of(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "tasks:\n"
        "  evaluation/mmlu_anatomi: {license: MIT}\n"
        "  evaluatoin/gsm8k: {license: MIT}\n"
        "  'nothing/like/*': {license: MIT}\n"
        "  own/something_else: {license: MIT, category: Question Answering}\n",
        encoding="utf-8",
    )
    warnings = check_files([mine]).warnings
    assert len(warnings) == 3
    assert (
        "mine.yaml:2: evaluation/mmlu_anatomi" in warnings[0] and "'evaluation/mmlu_anatomy'?" in warnings[0]
    )
    assert "mine.yaml:3" in warnings[1] and "did you mean 'evaluation'?" in warnings[1]
    assert "mine.yaml:4: nothing/like/*: the pattern matches no task" in warnings[2]


def test_two_files_that_contradict_one_another_are_named(tmp_path: Path) -> None:
    for name, license in (("a", "MIT"), ("b", "CC0-1.0"), ("c", "CC0-1.0")):
        (tmp_path / f"{name}.csv").write_text(f"task,license\nown/t,{license}\n", encoding="utf-8")
    found = check_files([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert len(found.warnings) == 1 and "b.csv:2: own/t.license: 'CC0-1.0', but" in found.warnings[0]
    assert check_files([tmp_path / "b.csv", tmp_path / "c.csv"]).warnings == []


def test_shipped_rows_are_held_to_more(tmp_path: Path) -> None:
    texts = {
        "aliases.yaml": "aliases:\n  boolq: [bool_q]\n",
        "flan.csv": "task,category,dataset,corpora\n"
        "flan/a,Question Answring,bool_q,News\nflan/b,Question Answering,movie_rationales,news\n",
        "more.csv": "task,category,dataset\nflan/b,Summarization,movie_rationale\nflam/c,Summarization,x\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    layer = make_layer(tuple(read_file(path) for path in sorted(tmp_path.iterdir())))
    problems = check_layer(layer).problems
    expected = [
        "flan.csv:2: flan/a.category: 'Question Answring' is no known category - did you mean 'Question Answering'?",
        "more.csv:2: flan/b.category: 'Summarization', but",
        "more.csv:2: flan/b.dataset: 'movie_rationale', but",
        "flan.csv:2: flan/a.dataset: 'bool_q': the data set is called 'boolq'",
        "data sets 'movie_rationale' and 'movie_rationales' are one edit apart",
        "more.csv:3: flam/c: no reader's benchmark is called 'flam'",
        "flan.csv:3: flan/b.corpora: 'news' is written 'News' elsewhere",
    ]
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems)), problems


def test_a_canonical_name_that_is_also_an_alias_is_found() -> None:
    layer = Layer((), {}, (), {"a": "b", "b": "c", "c": "c"})
    assert ["'b' is a canonical name" in line for line in check_layer(layer).problems] == [True]
