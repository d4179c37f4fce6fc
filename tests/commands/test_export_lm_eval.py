"""`taskmill export lm-eval`: names, keys, shares of groups, the copied functions, what the harness makes of contexts."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small import fails, works

from taskmill.artifact import ShardWriter
from taskmill.commands.lm_eval import keys, layout
from taskmill.commands.lm_eval.bundling import bundle
from taskmill.commands.lm_eval.contexts import (
    HarnessTokenizer,
    Posed,
    open_harness_tokenizer,
    pose_openings,
    pose_rankings,
)
from taskmill.commands.lm_eval.leaves import BENCHMARK, EVERYTHING, LEVEL, Leaf, factors, groups_of
from taskmill.commands.lm_eval.names import unique_names
from taskmill.errors import DataError
from taskmill.evaluation.aggregation.nodes import ALL_SHOTS, Place
from taskmill.evaluation.asking.fitting import (
    Context,
    Question,
    Ranking,
    Segment,
    fit_openings,
    fit_rankings,
)
from taskmill.records import SEGMENT_KINDS
from taskmill.training.encoding.tokenizer import train_tokenizer

Capture = pytest.CaptureFixture[str]
FUNCTIONS = ["rows", "ranked", "generated", "corpus"]


# ------------------------------------------------------------------------------------------------ keys


def test_keys_are_those_of_the_installed_harness() -> None:
    pytest.importorskip("lm_eval")
    from dataclasses import fields

    from lm_eval.config.group import AggMetricConfig, GroupConfig
    from lm_eval.config.task import TaskConfig

    assert {field.name for field in fields(TaskConfig)} == keys.TASK_KEYS
    assert {field.name for field in fields(GroupConfig)} == keys.GROUP_KEYS
    assert {field.name for field in fields(AggMetricConfig)} == keys.AGGREGATE_KEYS


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"task": "t", "output_typ": "multiple_choice"}, "output_typ"),
        ({"task": "t", "metric_list": [{"metric": "acc", "agregation": "mean"}]}, "metric_list.agregation"),
        ({"task": "t", "generation_kwargs": {"untill": []}}, "generation_kwargs.untill"),
        ({"group": "g", "task": [], "aggregate_metric": []}, "aggregate_metric"),
        ({"group": "g", "aggregate_metric_list": [{"weight_by_sice": True}]}, "weight_by_sice"),
    ],
)
def test_a_key_that_the_harness_does_not_know_is_refused(config: dict[str, Any], wrong: str) -> None:
    with pytest.raises(DataError, match=re.escape(wrong)) as caught:
        keys.check(config)
    assert "did you mean" in str(caught.value)


# ----------------------------------------------------------------------------------------------- names


@given(
    st.dictionaries(st.tuples(st.text(max_size=6)), st.lists(st.text(max_size=80), max_size=4), max_size=12)
)
def test_names_are_legal_and_unique(things: dict[tuple[str], list[str]]) -> None:
    names = unique_names(things)
    assert len(set(names.values())) == len(things)
    assert all(re.fullmatch(r"taskmill[a-z0-9_]{0,140}", name) for name in names.values())
    assert unique_names(dict(reversed(list(things.items())))) == names


# ---------------------------------------------------------------------------------------------- shares


def _places() -> dict[str, Place]:
    rows = [
        ("a/1", "f", "a", "QA", "held_out", None),
        ("a/2", "g", "a", "QA", "held_out", "s"),
        ("a/3", "g", "a", "QA", "held_out", "s"),
        ("b/1", "f", "b", "QA", "held_out", None),
        ("b/2", "h", "b", "NLI", "held_out", None),
        ("b/3", "i", "b", "NLI", "supervised", None),
    ]
    return {row[0]: Place(*row) for row in rows}


def _leaves() -> dict[Leaf, int]:
    found = {}
    for place, task in enumerate(_places()):
        for shots in (0, 2) if task != "b/2" else (0,):
            for variant in "xyz"[: 1 + place % 3]:
                found[Leaf(task, variant, shots, True, "accuracy")] = 3 + place
    found[Leaf("a/1", "x", 0, False, "exact_match")] = 1
    return found


def test_groups_of_the_harness_give_the_scores_of_the_hierarchy() -> None:
    import pyarrow as pa

    from taskmill.evaluation.aggregation.hierarchy import aggregate
    from taskmill.records import SCHEMAS

    leaves, places = _leaves(), _places()
    values = {
        leaf: [(7 * i + 3 * n) % 5 / 4 for i in range(number)]
        for n, (leaf, number) in enumerate(leaves.items())
    }
    parts = []
    for task, shots in sorted({(leaf.task, leaf.shots) for leaf in leaves}):
        rows = [
            {**vars(places[task]), "model": "final", "shots": shots, "template": leaf.variant, "group": i,
             "metric": leaf.metric, "value": value, "clean": True, "statistics": None}
            for leaf in leaves if (leaf.task, leaf.shots) == (task, shots) for i, value in enumerate(values[leaf])
        ]  # fmt: skip
        schema = pa.schema([SCHEMAS["scores/predictions"].field(name) for name in rows[0]])
        parts.append(pa.Table.from_pylist(rows, schema=schema))
    scores = aggregate(parts, seed=0, num_resamples=2)
    ours = {(row["scope"], row["name"], row["shots"]): row["value"] for row in scores}
    groups = groups_of(places, leaves)
    shares = factors(groups)
    for group in groups:
        assert sum(group.shares.values()) == pytest.approx(1)
        of_leaves = [np.mean(values[leaf]) * shares[leaf][group.metric] for leaf in group.leaves]
        assert np.mean(of_leaves) == pytest.approx(ours[group.scope, group.name, group.shots], abs=1e-6)
    assert {group.metric for group in groups} == {"in_category", LEVEL, BENCHMARK, EVERYTHING}


def test_every_leaf_is_once_below_the_root_and_once_below_the_benchmarks() -> None:
    leaves = _leaves()
    groups = groups_of(_places(), leaves)
    names = layout.name_all("r", leaves, groups)
    below = {
        Path(path).stem: yaml.safe_load(data)["task"] for path, data in layout.group_files(groups, names, "v")
    }

    def spread(name: str) -> list[str]:
        return [leaf for part in below[name] for leaf in spread(part)] if name in below else [name]

    wanted = sorted(names.leaf(leaf) for leaf in leaves)
    assert len(set(wanted)) == len(leaves)
    assert sorted(spread(names.root)) == wanted == sorted(spread(names.benchmarks))
    assert [group.shots for group in groups if names.group(group) == names.root] == [ALL_SHOTS]


# ------------------------------------------------------------------------------------- copied functions


def _opened(path: Path) -> ModuleType:
    """Open a file as the harness does: without a name in sys.modules while it runs."""
    spec = importlib.util.spec_from_file_location(str(path.with_suffix("")), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The Python file of an export."""
    path = tmp_path_factory.mktemp("scoring") / "scoring.py"
    path.write_text(bundle("taskmill.commands.lm_eval.scoring", FUNCTIONS, "Scores answers."))
    return _opened(path)


def test_the_copied_file_needs_neither_taskmill_nor_torch(scoring: ModuleType) -> None:
    assert scoring.__file__ is not None
    code = (
        "import runpy, sys\n"
        "sys.modules['taskmill'] = sys.modules['torch'] = None\n"
        f"found = runpy.run_path({scoring.__file__!r})\n"
        "print(found['_value']({'metric': 'exact_match', 'normaliser': '', 'references': ['a'], 'options': None,"
        " 'extract': 'whole'}, 'A.'))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout == "(1.0, [])\n", done.stderr


TEXTS = st.text(alphabet="ab c.1,ABC()\n", max_size=12)


@given(
    text=TEXTS,
    references=st.lists(TEXTS, min_size=1, max_size=3),
    options=st.one_of(st.none(), st.lists(TEXTS, min_size=1, max_size=3)),
    metric=st.sampled_from(["accuracy", "exact_match", "token_f1", "rouge_l", "bleu", "chrf"]),
    normaliser=st.sampled_from([None, "exact", "plain", "squad", "number"]),
    extract=st.sampled_from(["whole", "first_line", "after_answer", "last_number", "letter", "code"]),
)
def test_the_copied_metrics_are_those_of_the_evaluate_stage(
    scoring: ModuleType,
    text: str,
    references: list[str],
    options: list[str] | None,
    metric: str,
    normaliser: str | None,
    extract: str,
) -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    from taskmill.evaluation.metrics.registry import Item, Measure, values

    item = Item([text.strip()], references, options, None, "e", "t", "p")
    (valued,) = values(Measure(metric, normaliser, extract), [item], 1)
    doc = {"name": metric, "metric": metric, "normaliser": normaliser or "", "extract": extract, "options": options,
           "references": references, "corpus": metric == "bleu", "shares": {"in_all": 0.5}}  # fmt: skip
    found = scoring.generated(doc, [text])
    if metric == "bleu":
        assert found == {
            "bleu": [1.0, *(valued.statistics or [])],
            "in_all": [0.5, *(valued.statistics or [])],
        }
    else:
        assert found == {metric: pytest.approx(valued.value), "in_all": pytest.approx(valued.value / 2)}


def test_the_copied_choice_is_that_of_ranking(scoring: ModuleType) -> None:
    pytest.importorskip("torch")
    from taskmill.commands.lm_eval.rows import _sizes
    from taskmill.evaluation.answering.ranking import best, normalised
    from taskmill.evaluation.asking.fitting import Ranking

    options = ["yes", " no", "möglich", "yes"]
    suffixes = tuple(np.arange(size, dtype=np.int32) for size in (1, 3, 4, 1))
    ranking = Ranking(np.array([1], dtype=np.int32), suffixes, (0, 1, 0, 1))
    for kind in ("none", "token", "byte", "unconditional"):
        for shift in range(12):
            scores = [-float((5 * i + shift) % 7) - 1 for i in range(4)]
            alone = [-float((3 * i + shift) % 5) for i in range(4)]
            chosen = options[best(normalised(kind, scores, ranking, options, alone))]
            doc = {"options": options, "sizes": _sizes(kind, ranking, options), "references": ["yes"], "name": "acc",
                   "metric": "accuracy", "normaliser": "", "extract": "whole", "corpus": False, "shares": {}}  # fmt: skip
            results = [(s, False) for s in scores] + [(s, False) for s in alone if kind == "unconditional"]
            assert scoring.ranked(doc, results) == {"acc": float(chosen == "yes")}
    tie = {"options": ["a", "b"], "sizes": [1.0, 1.0], "references": ["a"], "name": "acc", "metric": "accuracy",
           "normaliser": "", "extract": "whole", "corpus": False, "shares": {}}  # fmt: skip
    assert scoring.ranked(tie, [(-1.0 - 1e-7, False), (-1.0, False)]) == {"acc": 1.0}, "ties go to the first"


# --------------------------------------------------------------------------------------------- contexts

LENGTH = 40
TURN = ("<|user|>", "<|assistant|>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HarnessTokenizer:
    """A tokenizer of bytes and a few words, with two marks of a chat format."""
    folder = tmp_path_factory.mktemp("tokenizer")
    with ShardWriter(folder, "tokenizer", "x") as shard:
        train_tokenizer(iter(["Answer: yes no maybe the cat sat on a mat good"] * 9), 300, shard, TURN)
    return open_harness_tokenizer(folder / "tokenizer", LENGTH)


def _question(
    *pieces: tuple[str, str], answer: str = " yes", joint: bool = True, tk: bool = False
) -> Question:
    segments = tuple(Segment(text, SEGMENT_KINDS.index(kind)) for text, kind in pieces)
    return Question(segments, answer, joint=joint, tk_instruct=tk)


def _posed(tokenizer: HarnessTokenizer, question: Question, options: Sequence[str]) -> tuple[Posed, Ranking]:
    context = Context(tokenizer.own, LENGTH)
    rankings = fit_rankings(context, [question], [options])
    (posed,) = pose_rankings(tokenizer, [question], [options], rankings)
    return posed, rankings[0]


def test_a_plain_question_is_its_text(tokenizer: HarnessTokenizer) -> None:
    question = _question(("the cat sat\n", "instruction"), ("Answer:", "input"))
    posed, _ = _posed(tokenizer, question, ["yes", "no"])
    assert posed == Posed("the cat sat\nAnswer:", (" yes", " no"))


def test_demonstrations_that_do_not_fit_are_not_in_the_text(tokenizer: HarnessTokenizer) -> None:
    shown = [(f"the cat sat on a mat {place} good\n", "demonstration") for place in range(9)]
    posed, ranking = _posed(tokenizer, _question(*shown, ("Answer:", "input")), ["yes", "no"])
    assert 0 < ranking.num_demonstrations < 9
    assert posed.same_tokens and posed.same_boundary
    assert posed.context == "".join(t for t, _ in shown[-ranking.num_demonstrations :]) + "Answer:"


def test_examples_of_tk_instruct_leave_from_the_end(tokenizer: HarnessTokenizer) -> None:
    positive = [(f"Positive Example {place} the cat good\n", "demonstration") for place in range(2)]
    negative = [
        ("Negative Example 1 the mat\n", "demonstration"),
        ("Negative Example 2 mat\n", "demonstration"),
    ]
    question = _question(*positive, *negative, ("Answer:", "input"), tk=True)
    posed, ranking = _posed(tokenizer, question, ["yes", "no"])
    assert 0 < ranking.num_demonstrations < 4
    assert posed.same_tokens and "".join(t for t, _ in positive[:1]) in posed.context


def test_a_cut_prefix_is_the_text_that_is_left(tokenizer: HarnessTokenizer) -> None:
    question = _question(("{bos}", "control"), ("cat sat mat " * 30, "input"), ("Answer:", "input"))
    posed, ranking = _posed(tokenizer, question, ["yes", "maybe no"])
    assert posed.same_tokens and posed.same_boundary and len(ranking.shared) < LENGTH
    assert posed.context.startswith("<s>") and posed.context.endswith("Answer:")


def test_marks_and_white_space_of_a_chat_format(tokenizer: HarnessTokenizer) -> None:
    question = _question(
        (TURN[0], "control"),
        ("\nthe cat\n", "user"),
        (TURN[1], "control"),
        ("\n", "assistant"),
        answer="yes",
        joint=False,
    )
    posed, _ = _posed(tokenizer, question, ["yes", "no"])
    assert posed.context == "<|user|>\nthe cat\n<|assistant|>\n"
    assert posed.same_tokens and not posed.same_boundary and posed.usable, (
        "the newline is summed with the option"
    )


def test_a_mark_in_the_text_of_a_record_is_told(tokenizer: HarnessTokenizer) -> None:
    posed, _ = _posed(tokenizer, _question(("the </s> cat\nAnswer:", "input")), ["yes", "no"])
    assert not posed.same_tokens and not posed.same_boundary and posed.usable


def test_nothing_before_an_option_is_the_begin_of_sequence(tokenizer: HarnessTokenizer) -> None:
    posed, ranking = _posed(tokenizer, _question(answer="yes"), ["yes", "", "no"])
    assert posed == Posed("<s>", ("yes", "</s>", "no")), "an empty option is the end of the turn"
    assert ranking.shared.tolist() == [tokenizer.own.bos_id]


def test_openings_are_texts_too(tokenizer: HarnessTokenizer) -> None:
    questions = [
        _question(("the cat sat\nAnswer:", "input")),
        _question(("cat sat mat " * 30, "input")),
        _question(),
        _question(("the </s> cat", "input")),
        _question(("\u20ac" * 30, "input")),
    ]
    openings = fit_openings(Context(tokenizer.own, LENGTH), questions, 8)
    posed = pose_openings(tokenizer, questions, openings)
    assert [one.same_tokens for one in posed[:4]] == [True, True, True, False]
    assert posed[0].context == "the cat sat\nAnswer:" and posed[2].context == "<s>"
    for one, opening in zip(posed[:3], openings, strict=False):
        assert tokenizer.encode([one.context]) == [opening.ids.tolist()]
    assert all(one.usable for one in posed)


# ---------------------------------------------------------------------------------------------- command


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_export_is_the_same_bytes_and_replaces_an_earlier_one(small_run: Path, capsys: Capture) -> None:
    out = works(capsys, "export", "lm-eval", "run", "first")
    assert out.splitlines()[-1] == "first/README.md" and "of the harness" in out
    first = _contents(Path("first"))
    body = json.loads(first["export.json"])
    assert {entry["path"] for entry in body["files"]} == set(first) - {"export.json", ".taskmill-export"}
    assert works(capsys, "export", "lm-eval", "run", "second") and _contents(Path("second")) == first
    Path("first/tasks/taskmill_gone.yaml").write_text("task: gone")
    Path("first/.export.json.123.tmp").write_text("of a killed export")
    works(capsys, "export", "lm-eval", "run", "first")
    assert _contents(Path("first")) == first


def test_every_file_is_yaml_with_known_keys_and_rows(small_run: Path, capsys: Capture) -> None:
    body = json.loads(works(capsys, "export", "lm-eval", "run", "tasks", "--json"))
    prompts = pq.read_table("run/scores/predictions.parquet").num_rows
    assert body["counts"]["prompts"] == prompts and not body["left_out"]
    yaml.SafeLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    num_rows = 0
    for path in sorted(Path("tasks/tasks").glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        keys.check(config)
        assert config["task"] == path.stem and config["num_fewshot"] == 0 and not config["target_delimiter"]
        rows = pq.read_table(path.parent / config["dataset_kwargs"]["file"]).to_pylist()
        assert {config["doc_to_text"], config["doc_to_target"]} <= set(rows[0])
        num_rows += len(rows)
    assert num_rows == prompts
    scores = json.loads(Path("tasks/scores.json").read_text(encoding="utf-8"))
    assert set(scores) == {p.stem for p in Path("tasks").glob("*/*.yaml")} - {"taskmill_small_benchmarks"}


def test_a_run_without_scores_is_exported_without_them(small_run: Path, capsys: Capture) -> None:
    shutil.rmtree("run/scores")
    works(capsys, "export", "lm-eval", "run", "tasks")
    assert not Path("tasks/scores.json").exists() and Path("tasks/README.md").exists()
    shutil.rmtree("run/tokens")
    said = fails(capsys, 2, "export", "lm-eval", "run", "other")
    assert "'tokenize'" in said and "taskmill tokenize run" in said


def test_a_run_answered_in_16_bits_is_asked_in_16_bits(small_run: Path, capsys: Capture) -> None:
    works(capsys, "export", "lm-eval", "run", "exact")
    assert "dtype=float32," in Path("exact/README.md").read_text(encoding="utf-8")
    shutil.rmtree("run/scores")
    recipe = Path("recipe.yaml").read_text(encoding="utf-8")
    Path("recipe.yaml").write_text(recipe.replace("evaluate: {", "evaluate: {precision: bf16, "))
    works(capsys, "run", "recipe.yaml", "--run", "run", "--to", "train", "--workers", "1", "--quiet")
    works(capsys, "export", "lm-eval", "run", "tasks")
    text = Path("tasks/README.md").read_text(encoding="utf-8")
    assert "dtype=bfloat16," in text and "prompts were answered in bf16, but for the output layer" in text


def test_another_folder_is_left_alone(small_run: Path, capsys: Capture) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert "notes.txt" in fails(capsys, 2, "export", "lm-eval", "run", "mine")
    works(capsys, "export", "chat", "run", "chat")
    assert "another kind of export" in fails(capsys, 2, "export", "lm-eval", "run", "chat")
    assert "run/tasks" in fails(capsys, 2, "export", "lm-eval", "run", "run/tasks/x")


def test_what_the_harness_cannot_value_is_left_out_and_told(small_run: Path, capsys: Capture) -> None:
    Path("mine.py").write_text("def value(answer, item):\n    return 1.0\n")
    shutil.rmtree("run/scores")
    recipe = Path("recipe.yaml").read_text(encoding="utf-8")
    entry = "evaluate: {tasks: [{tasks: ['*'], metric: 'mine.py:value'}], "
    Path("recipe.yaml").write_text(recipe.replace("evaluate: {", entry))
    works(capsys, "run", "recipe.yaml", "--run", "run", "--to", "train", "--workers", "1", "--quiet")
    said = fails(capsys, 1, "export", "lm-eval", "run", "tasks")
    assert "every prompt was left out" in said and "metric runs code" in said


def test_scores_of_other_prompts_are_refused(small_run: Path, capsys: Capture) -> None:
    works(capsys, "render", "run", "--set", "render.test_examples=1", "--force", "--workers", "1", "--quiet")
    said = fails(capsys, 1, "export", "lm-eval", "run", "tasks")
    assert "the prompts of run have changed" in said and "taskmill evaluate run" in said
