"""The harness itself on exports: every chosen option, log-probability, text and score is the evaluate stage's.

One run of the demo in miniature is evaluated here and by `lm_eval run` in a process of its own, off the network; a few of its
prompts in a chat format, with other normalisations and metrics, by the harness in this process.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import settings, taskmill
from small import works

from taskmill.commands.lm_eval.contexts import _encode_pairs, open_harness_tokenizer
from taskmill.commands.lm_eval.export_lm_eval import write_export

pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytest.importorskip("rouge_score")

SMALL = (
    "mix.num_prompts=2000",
    "train.num_steps=100",
    "train.warmup_steps=5",
    "train.learning_rate=0.01",
    "train.architecture.num_layers=1",
    "train.architecture.hidden_size=64",
    "train.architecture.feedforward_size=128",
    "train.batch_size=8",
    "train.micro_batch_size=8",
    "tokenize.vocab_size=1024",
    "render.test_examples=40",
    "evaluate.shots=[0, 2]",
    "evaluate.baseline=false",
    "evaluate.max_new_tokens=8",
    "evaluate.num_resamples=20",
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
TOLERANCE = 1e-3
"""Nats: what two ways of computing the same log-probability in fp32 may differ by."""

Sample = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder where the commands of docs/lm-eval.md were run; the export was moved before the harness ran."""
    folder = tmp_path_factory.mktemp("harness")
    page = (repository / "docs/lm-eval.md").read_text(encoding="utf-8")
    block = page.partition("<!-- run -->\n```bash\n")[2].partition("```")[0].replace("\\\n", " ")
    *ours, harness = [shlex.split(line) for line in block.strip().splitlines()]
    for arguments in ours:
        more = ["--workers", "2", *settings(SMALL)] if arguments[1] == "run" else []
        done = taskmill(*arguments[1:], *more, cwd=folder)
        assert done.returncode == 0, done.stderr
    (folder / "tasks").rename(folder / "moved")
    moved = ["moved" if word == "tasks" else word for word in harness[1:]]
    command = [sys.executable, "-m", harness[0], *moved, "--batch_size", "64"]
    environment = {**os.environ, **OFFLINE, "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def samples(place: Path) -> list[Sample]:
    """Each sample that the harness logged, with the run's prediction of it."""
    return list(paired(place / "runs/demo", place / "results"))


def paired(run: Path, results: Path) -> Iterator[Sample]:
    rows = pq.read_table(run / "scores/predictions.parquet").to_pylist()
    ours = {(row["prompt"].hex(), row["task"], row["shots"]): row for row in rows if row["model"] == "final"}
    for path in sorted(results.rglob("samples_*.jsonl")):
        config = path.name.removeprefix("samples_taskmill_demo_")
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            task = sample["doc"]["example"].split("#")[0]
            yield sample, ours.pop((sample["doc"]["prompt"], task, int(config.split("shot_")[0])))
    assert not ours, "the harness was given every prompt"


def test_ten_tasks_and_two_thousand_prompts_are_compared(samples: list[Sample]) -> None:
    assert len(samples) >= 2_000
    assert len({prediction["task"] for _, prediction in samples}) >= 10
    assert min(Counter(prediction["metric"] for _, prediction in samples).values()) >= 100


def test_every_log_probability_and_chosen_option_is_equal(samples: list[Sample]) -> None:
    ranked = [(sample, ours) for sample, ours in samples if ours["scores"] is not None]
    assert len(ranked) > 1_000 and len({ours["value"] for _, ours in ranked}) == 2
    for sample, ours in ranked:
        found = [float(value) for value, _ in sample["filtered_resps"]]
        assert found == pytest.approx(ours["scores"], abs=TOLERANCE), ours["example"]
        assert ours["options"][found.index(max(found))] == ours["prediction"], "no tie decides"
        assert sample["acc"] == ours["value"]


def test_every_generated_text_and_its_value_is_equal(samples: list[Sample]) -> None:
    free = [(sample, ours) for sample, ours in samples if ours["scores"] is None]
    assert len(free) > 500 and len({ours["prediction"] for _, ours in free}) >= 8
    assert any(ours["value"] > 0 for _, ours in free)
    for sample, ours in free:
        assert sample["filtered_resps"][0].strip() == ours["prediction"], ours["example"]
        assert sample[ours["metric"]] == pytest.approx(ours["value"], abs=1e-6)


def test_scores_of_tasks_groups_and_everything_are_equal(place: Path) -> None:
    (path,) = (place / "results").rglob("results_*.json")
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    ours = json.loads((place / "moved/scores.json").read_text(encoding="utf-8"))
    compared = Counter(ours[name]["metric"] for name in results if name in ours)
    assert compared["in_all"] == 1 and compared["in_level"] == 6 and compared["in_category"] > 15
    assert set(results) <= set(ours)
    for name, found in results.items():
        score = found[f"{ours[name]['metric']},none"]
        assert score == pytest.approx(ours[name]["values"]["final"], abs=1e-6), name
    for name, group in ours.items():  # by benchmark: the mean of what the harness says of the leaves
        if group["metric"] == "in_benchmark":
            leaves = json_yaml(place / "moved/groups" / f"{name}.yaml")["task"]
            mean = sum(results[leaf]["in_benchmark,none"] for leaf in leaves) / len(leaves)
            assert mean == pytest.approx(group["values"]["final"], abs=1e-6), name


def json_yaml(path: Path) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def test_the_export_says_the_command_of_the_page(place: Path, repository: Path) -> None:
    page = (repository / "docs/lm-eval.md").read_text(encoding="utf-8")
    told = (place / "moved/README.md").read_text(encoding="utf-8")
    for text in (
        "lm_eval run --model hf",
        "dtype=float32,add_bos_token=False,max_length=256",
        "--tasks taskmill_demo --batch",
    ):
        assert text in page and text in told
    body = json.loads((place / "moved/export.json").read_text(encoding="utf-8"))
    assert {f"`{name}`" for name in ("other_tokens", "other_boundary", "more_room")} <= set(page.split())
    assert {"other_tokens", "other_boundary", "more_room"} <= set(body["counts"])
    assert not any(body["counts"][name] for name in ("other_tokens", "other_boundary", "more_room"))


# --------------------------------------------------------------------------------- the harness in here

KINDS = {
    "unconditional": (
        "evaluate.normalisation=unconditional",
        "evaluate.tasks=[{tasks: ['super_natural_instructions/task2005*'], metric: bleu, stop: [' a']}, "
        "{tasks: ['t5/slate_corrections'], metric: token_f1, normaliser: plain, extract: first_line}, "
        "{tasks: ['exmix/desk_intents'], options: generate, extract: letter}, "
        "{tasks: ['t5/dock_replies', 't5/harbour_digest'], metric: chrf}]",
    ),
    "byte": ("evaluate.normalisation=byte",),
}


@pytest.fixture(scope="module")
def harness(place: Path) -> Any:
    """The harness's Hugging Face backend with the model of the run."""
    patched = pytest.MonkeyPatch()
    for name, value in OFFLINE.items():
        patched.setenv(name, value)
    from lm_eval.models.huggingface import HFLM

    yield HFLM(
        pretrained=str(place / "model"),
        dtype="float32",
        add_bos_token=False,
        max_length=256,
        device="cpu",
        batch_size=64,
    )
    patched.undo()


@pytest.mark.parametrize("kind", KINDS)
def test_other_normalisations_and_metrics_are_equal(
    place: Path, harness: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    run, folder = tmp_path / "run", tmp_path / "tasks"
    shutil.copytree(place / "runs/demo", run, ignore=shutil.ignore_patterns("scores"))
    few = ("evaluate.shots=[0]", "evaluate.max_examples=2", *KINDS[kind])
    works(capsys, "evaluate", str(run), "--workers", "1", "--quiet", *settings(few))
    write_export(run, folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(
        model=harness, tasks=["taskmill_demo"], task_manager=manager, bootstrap_iters=10, log_samples=False
    )["results"]
    ours = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert len(results) > 30
    for name, found in results.items():
        score = found[f"{ours[name]['metric']},none"]
        assert score == pytest.approx(ours[name]["values"]["final"], abs=1e-6), name
    metrics = {score["metric"] for score in ours.values()}
    wanted = {"acc_mutual_info", "bleu", "token_f1", "chrf", "acc"} if kind == "unconditional" else {"acc"}
    assert wanted <= metrics


PIECES = st.lists(
    st.sampled_from(
        ["<|im_start|>", "<|im_end|>", "<s>", " ", "\n", "\t", "yes", " no", "Answer:", "é", "word", "1"]
    ),
    max_size=6,
).map("".join)


@given(pairs=st.lists(st.tuples(PIECES.filter(str.strip), PIECES.filter(bool)), min_size=1, max_size=4))
def test_pairs_are_encoded_as_the_harness_does(
    place: Path, harness: Any, pairs: list[tuple[str, str]]
) -> None:
    tokenizer = open_harness_tokenizer(place / "model", 256)
    assert _encode_pairs(tokenizer, pairs) == [harness._encode_pair(*pair) for pair in pairs]
