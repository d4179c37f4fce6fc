"""`taskmill mix`, `mix --explain`, `export mixture` and `api.Run.mixture`: what they say, write, refuse and survive."""

from __future__ import annotations

import csv
import errno
import json
import math
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_run import make_chat_run
from faults import State, run_with_errors, run_with_faults, temporary_files
from running import call
from small import fails, tree, works

from taskmill import api
from taskmill.commands.export_chat import Plan
from taskmill.commands.export_chat import write_export as export_chat
from taskmill.commands.export_mixture import COLUMNS, TEXT_COLUMNS, LockPlan, write_lock
from taskmill.commands.finished import FinishedRun
from taskmill.errors import DamagedError, StaleError, UsageError
from taskmill.records import SEGMENT_KINDS
from taskmill.storage import read_table
from taskmill.training.mixture import Mixture

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to mix in a chat format with conditions; nothing may change it."""
    folder = tmp_path_factory.mktemp("mixed")
    return make_chat_run(folder, "openchat-v3.2", "render.default_quality=GPT3")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of that run that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def prompts(run: Path) -> list[dict[str, Any]]:
    files = FinishedRun(run).inputs.files("render", "prompts")
    return [row for file in files for row in read_table(file).to_pylist()]


def mix(run: Path, *values: str) -> tuple[str, ...]:
    arguments = [part for value in values for part in ("--set", f"mix.{value}")]
    return (
        "mix",
        str(run),
        "--force",
        "--quiet",
        "--set",
        "mix.auxiliary={}",
        "--set",
        "mix.num_prompts=",
        *arguments,
    )


def shares(run: Path) -> dict[str, dict[str, str]]:
    with (run / "mixture/shares.csv").open() as file:
        return {row["benchmark"]: row for row in csv.DictReader(file)}


# ----------------------------------------------------------------------------------------------- modes


def test_concatenation_draws_every_train_prompt_once_per_epoch(run: Path, capsys: Capture) -> None:
    works(capsys, *mix(run, "mode=concatenation", "epochs=2", "block=10"))
    train = {row["prompt"].hex() for row in prompts(run) if row["split"] == "train"}
    drawn = [prompt["prompt"] for _, prompt in api.Run(run).mixture()]
    first, second = drawn[: len(train)], drawn[len(train) :]
    assert len(drawn) == 2 * len(train) and set(first) == set(second) == train and first != second
    assert all(row["passes"] == "2.0" for row in shares(run).values())


def test_sizes_take_the_smallest_hashes_and_tell_what_is_short(run: Path, capsys: Capture) -> None:
    code, _, err = call(capsys, *mix(run, "mode=concatenation", "sizes={flan: 5, chat: 500}"))
    train = [row for row in prompts(run) if row["split"] == "train"]
    num_chat = sum(row["task"].startswith("chat/") for row in train)
    assert code == 0
    assert f"mix: chat has {num_chat} of the 500 prompts that mix.sizes asks for: each is taken, " in err
    found = shares(run)
    assert (found["flan"]["kept"], found["flan"]["short"]) == ("5", "0")
    assert (found["chat"]["kept"], found["chat"]["short"]) == (str(num_chat), str(500 - num_chat))
    entries = json.loads((run / "mixture/mixture.json").read_bytes())["tasks"]
    kept = {e["task"]: e["num_kept"] for e in entries if e["benchmark"] == "flan"}
    assert sum(kept.values()) == 5 and len(kept) == 3
    drawn = [prompt for _, prompt in api.Run(run).mixture()]
    for task, number in kept.items():
        hashes = sorted(row["prompt"].hex() for row in train if row["task"] == task)
        assert sorted(prompt["prompt"] for prompt in drawn if prompt["task"] == task) == hashes[:number]
    explained = json.loads(works(capsys, "mix", str(run), "--explain", "--json", "--quiet"))["mixture"]
    assert {p["part"]: p["short"] for p in explained["parts"]}["chat"] == 500 - num_chat
    assert "short: chat has" in works(capsys, "mix", str(run), "--explain", "--quiet")


def test_classes_are_sub_sampled(run: Path, capsys: Capture) -> None:
    works(capsys, *mix(run, "mode=concatenation", "by=class", "keep={GPT3: 0.25}"))
    train = Counter(row["condition"] for row in prompts(run) if row["split"] == "train")
    found = {name: int(row["kept"]) for name, row in shares(run).items()}
    assert found.pop("GPT3") == round(train.pop("GPT3") / 4)
    assert found == {name or "none": number for name, number in train.items()}
    works(
        capsys,
        *mix(
            run,
            "mode=shares",
            "keep={}",
            "by=class",
            "shares={GPT3: 0.5, GPT4: 0.5, none: 0}",
            "num_prompts=100",
            "block=50",
        ),
    )
    conditions = Counter(prompt["condition"] for _, prompt in api.Run(run).mixture())
    assert conditions == {"GPT3": 50, "GPT4": 50}


@pytest.mark.parametrize(
    "values,messages",
    [
        (("sizes={flan: 3}", "keep={t5: 0.5}", "epochs=2"), ["mix.sizes: given with", "mix.keep:", "mix.epochs:"]),
        (("mode=concatenation", "shares={flan: 1.0}"), ["mix.shares: given with mix.mode = concatenation; expected"]),
        (("mode=concatenation", "auxiliary={reasoning: {share: 0.1}}"), ["mix.auxiliary: given with mix.mode = concatenation"]),
        (("mode=concatenation", "sizes={t5: 3}", "keep={t5: 0.5}"), ["mix.keep.t5: given beside mix.sizes of the same part"]),
        (("mode=concat",), ["mix.mode: found 'concat'", "did you mean 'concatenation'"]),
        (("mode=concatenation", "sizes={flann: 3}"), ["mix.sizes.flann: no benchmark of that name", "did you mean 'flan'"]),
        (("mode=concatenation", "by=class", "keep={GPT5: 0.5}"), ["mix.keep.GPT5: no class of that name", "did you mean 'GPT4'"]),
        (("mode=concatenation", "sizes={flan: 0}"), ["mix.sizes.flan: found 0; expected a number of at least 1"]),
        (("mode=concatenation", "keep={flan: 1.5}"), ["mix.keep.flan: found 1.5; expected a number from 0 to 1"]),
        (("mode=concatenation", "epochs=0"), ["mix.epochs: found 0"]),
        (("mode=concatenation", "num_prompts=100000"), ["mix.num_prompts: found 100,000; expected at most"]),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(
    run: Path, capsys: Capture, values: tuple[str, ...], messages: list[str]
) -> None:
    before = (run / "recipe.json").read_bytes()
    found = fails(capsys, 2, *mix(run, *values))
    assert all(message in found for message in messages), found
    assert (run / "recipe.json").read_bytes() == before, "no setting that does not fit is taken up"


# --------------------------------------------------------------------------------------------- explain


def test_explain_estimates_by_bytes_and_then_counts(run: Path, capsys: Capture) -> None:
    before = set(tree(run))
    body = json.loads(works(capsys, "mix", str(run), "--explain", "--json", "--quiet"))
    assert set(tree(run)) - before <= {".lock"}, "it writes nothing"
    assert [stage["status"] for stage in body["stages"]] == ["up to date"]
    found = body["mixture"]
    assert (found["text"], found["num_prompts"], found["mode"], found["epoch"]) == (
        "estimated",
        60,
        "shares",
        None,
    )
    rows = prompts(run)
    train = [row for row in rows if row["split"] == "train"]
    drawn = [prompt for _, prompt in api.Run(run).mixture()]
    whole = sum(len(row["text"].encode()) for row in train)
    assert found["text"] == "estimated"
    for part in found["parts"]:
        names = {task["task"] for task in found["tasks"] if task["part"] == part["part"]}
        mine = [row for row in train if row["task"] in names]
        assert part["natural"]["prompts"] == pytest.approx(len(mine) / len(train), abs=1e-6)
        text = sum(len(row["text"].encode()) for row in mine) / whole
        assert part["natural"]["tokens"] == part["natural"]["sequences"] == pytest.approx(text, abs=1e-6)
        assert part["prompts"] == sum(prompt["task"] in names for prompt in drawn)
        assert part["aside"] == ({"share": 0.1, "unit": "prompts"} if part["part"] == "reasoning" else None)
    assert all(
        math.isclose(sum(part[kind][unit] for part in found["parts"]), 1, abs_tol=1e-5)
        for kind in ("natural", "wanted", "realised")
        for unit in ("prompts", "sequences", "tokens")
    )
    passes = [task["passes"] for task in found["tasks"]]
    assert passes == sorted(passes, reverse=True) and sum(task["draws"] for task in found["tasks"]) == 60
    works(capsys, "tokenize", str(run), "--quiet", "--workers", "1")
    found = json.loads(works(capsys, "mix", str(run), "--explain", "--json", "--quiet"))["mixture"]
    assert (found["text"], found["max_length"]) == ("counted", 256)
    total = sum(part["num_tokens"] for part in found["parts"])
    assert all(
        p["realised"]["tokens"] == pytest.approx(p["num_tokens"] / total, abs=1e-5) for p in found["parts"]
    )
    shown = works(capsys, "mix", str(run), "--explain", "--quiet")
    assert "of tokens as tokenize counted them" in shown and "sequences of 256 tokens" in shown


def test_explain_does_not_take_tokens_of_another_mixture(run: Path, capsys: Capture) -> None:
    works(capsys, "tokenize", str(run), "--quiet", "--workers", "1")
    works(capsys, *mix(run, "mode=concatenation"))
    found = json.loads(works(capsys, "mix", str(run), "--explain", "--json", "--quiet"))["mixture"]
    assert found["text"] == "estimated" and all(part["num_tokens"] is None for part in found["parts"])
    assert found["epoch"] == found["num_prompts"]
    works(capsys, "tokenize", str(run), "--quiet", "--workers", "1")
    assert (
        json.loads(works(capsys, "mix", str(run), "--explain", "--json", "--quiet"))["mixture"]["text"]
        == "counted"
    )


def test_explain_and_dry_run(made: Path, capsys: Capture) -> None:
    code, out, err = call(capsys, "mix", str(made), "--explain", "--dry-run")
    assert (code, out) == (2, "") and "--dry-run does not make" in err


# ------------------------------------------------------------------------------------------------ lock


def lock(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted((folder / "data").iterdir()) for row in pq.read_table(file).to_pylist()]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_the_lock_is_the_mixture(made: Path, tmp_path: Path) -> None:
    body = write_lock(made, tmp_path, LockPlan(with_text=True, num=500, shard_size=200))
    names = [f"data/train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert [e["path"] for e in body["files"]] == ["README.md", *names]
    rows, all_prompts = lock(tmp_path), prompts(made)
    mixture = Mixture.open(FinishedRun(made).inputs.directory("mix"))
    entries, numbers = mixture.draws(500)
    assert [row["position"] for row in rows] == list(range(500)) and len(set(numbers.tolist())) < 500
    for row, entry, number in zip(rows, entries.tolist(), numbers.tolist(), strict=True):
        prompt = all_prompts[number]
        expected = {name: prompt[name] for name in (*COLUMNS, *TEXT_COLUMNS)}
        expected |= {"prompt": prompt["prompt"].hex(), "kinds": [SEGMENT_KINDS[k] for k in prompt["kinds"]]}
        assert row == {"position": row["position"], "part": mixture.entries[entry].benchmark, **expected}
    assert any(row["condition"] for row in rows) and any(row["loss_weight"] < 1 for row in rows)
    assert body["counts"] == {"positions": 500, "prompts": len(set(numbers.tolist()))}
    before = contents(tmp_path)
    assert all(before[entry["path"]] == entry["sha256"] for entry in body["files"])
    write_lock(made, tmp_path, LockPlan(with_text=True, num=500, shard_size=200))
    assert contents(tmp_path) == before, "same bytes again"
    write_lock(made, tmp_path, LockPlan())
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert list(lock(tmp_path)[0]) == ["position", "part", *COLUMNS] and len(lock(tmp_path)) == 60


def test_load_dataset_streams_it(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    write_lock(made, tmp_path / "lock", LockPlan(with_text=True, shard_size=25))
    rows = lock(tmp_path / "lock")
    datasets.disable_progress_bars()
    streamed = datasets.load_dataset(str(tmp_path / "lock"), split="train", streaming=True)
    assert list(streamed) == rows
    assert next(iter(streamed.skip(30))) == rows[30]
    whole = datasets.load_dataset(str(tmp_path / "lock"), split="train", cache_dir=str(tmp_path / "cache"))
    assert whole.to_list() == rows


def test_python_iterates_from_any_position(made: Path) -> None:
    found = api.Run(made)
    whole = list(found.mixture())
    assert [position for position, _ in whole] == list(range(60))
    assert list(found.mixture(start=17, stop=40)) == whole[17:40] and list(found.mixture(60)) == []
    assert {"text", "ends", "kinds", "trained", "prompt", "part"} <= set(whole[0][1])
    beyond = list(found.mixture(stop=80))
    assert beyond[:60] == whole and len(beyond) == 80
    with pytest.raises(UsageError, match="positions 7 to 5; expected 0 <= start <= stop"):
        found.mixture(7, 5)


def test_wrong_use(made: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for target, message in (
        (tmp_path / "mine", "holds 'notes.txt' and is no export of taskmill"),
        (tmp_path / "file", "is a file; expected a folder to write to"),
        (made / "mixture/lock", "which its stage sweeps"),
        (made, "is no export of taskmill"),
    ):
        before = tree(target) if target.is_dir() else {}
        assert message in fails(capsys, 2, "export", "mixture", str(made), str(target))
        assert not target.is_dir() or tree(target) == before
    export_chat(made, tmp_path / "chat", Plan())
    assert "holds another kind of export" in fails(
        capsys, 2, "export", "mixture", str(made), str(tmp_path / "chat")
    )
    write_lock(made, tmp_path / "lock", LockPlan())
    assert "holds another kind of export" in fails(
        capsys, 2, "export", "chat", str(made), str(tmp_path / "lock")
    )
    assert "at most 4,294,967,296 positions" in fails(
        capsys, 2, "export", "mixture", str(made), str(tmp_path / "lock"), "--num", "9999999999"
    )
    assert "there is no run" in fails(
        capsys, 2, "export", "mixture", str(tmp_path / "none"), str(tmp_path / "out")
    )
    out = works(capsys, "export", "mixture", str(made), str(tmp_path / "lock"), "--json", "--num", "4")
    written = json.loads((tmp_path / "lock/export.json").read_text())
    assert json.loads(out) == {"folder": str(tmp_path / "lock"), **written}
    shown = works(capsys, "export", "mixture", str(made), str(tmp_path / "lock"), "--num", "1")
    assert shown.splitlines()[0].endswith("lock/data: 1 file, 1 position")


def test_a_changed_mixture_is_not_exported(run: Path, tmp_path: Path) -> None:
    path = run / "mixture/mixture.json"
    body = json.loads(path.read_bytes())
    for changed in ({**body, "seed": body["seed"] + 1}, {"format": body["format"]}):
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(DamagedError, match=r"mixture\.json .*taskmill mix RUN --force"):
            write_lock(run, tmp_path / "lock", LockPlan())
    assert not (tmp_path / "lock").exists()


def test_a_mixture_of_other_prompts_is_stale(run: Path, tmp_path: Path, capsys: Capture) -> None:
    change = ("--set", "render.prompts_per_task=5")
    works(capsys, "render", str(run), "--quiet", "--workers", "1", "--force", *change)
    with pytest.raises(StaleError, match=r"the mixture of .* was made of other prompts"):
        write_lock(run, tmp_path / "lock", LockPlan())
    with pytest.raises(StaleError):
        api.Run(run).mixture()
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("fault", ["kill", "full disk"])
def test_an_export_that_is_stopped_is_not_finished(made: Path, tmp_path: Path, fault: str) -> None:
    target, plan = tmp_path / "lock", LockPlan(shard_size=20)
    write_lock(made, tmp_path / "whole", plan)
    whole = contents(tmp_path / "whole")

    def build() -> None:
        write_lock(made, target, plan)

    def check(state: State) -> None:
        if state == "finished":
            assert contents(target) == whole
            return
        assert not (target / "export.json").exists()
        found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
        assert fault == "kill" or not temporary_files(target)
        kept = found - {str(p.relative_to(target)) for p in temporary_files(target)}
        assert all(whole[name] == digest for name, digest in contents(target).items() if name in kept)

    def reset() -> None:
        shutil.rmtree(target, ignore_errors=True)

    if fault == "kill":
        assert run_with_faults(build, check, reset, step=15) >= 3
    else:
        assert run_with_errors(build, check, reset, errno.ENOSPC, step=9) >= 3
