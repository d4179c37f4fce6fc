"""The main job, as a new user runs it: the shipped demo from upstream files to scores."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from running import TINY, call, json_lines, roots, settings, taskmill

from taskmill import api
from taskmill.cli import cli
from taskmill.errors import UsageError
from taskmill.stages import NAMES


def rows(run: Path, stage: str, table: str, *columns: str) -> list[dict]:
    return api.Run(run).table(stage, table, list(columns) or None).to_pylist()


def test_every_stage_is_finished_and_accounts_for_each_record(demo_run, repository):
    for stage in NAMES:
        assert api.Run(demo_run).manifest(stage).root
    with pytest.raises(UsageError, match="did you mean 'split'"):
        api.Run(demo_run).manifest("splits")
    counts = api.Run(demo_run).manifest("curate")
    assert counts.counts["examples_kept"] + sum(counts.dropped.values()) == counts.counts["examples_read"]
    tasks = rows(demo_run, "curate", "tasks", "benchmark", "category", "num_read", "num_kept", "kind")
    benchmarks = {t["benchmark"] for t in tasks if t["kind"] != "pretraining"}
    assert len(tasks) >= 25 and len({t["category"] for t in tasks}) >= 12 and len(benchmarks) == 8
    assert sum(t["num_kept"] for t in tasks) >= 2000
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert f"{len(tasks)} tasks in {len({t['category'] for t in tasks})} categories" in readme


def test_planted_overlaps_are_found_and_decided(demo_run, repository):
    planted = json.loads((repository / "examples/meta_datasets/PLANTED.json").read_text())
    pairs = {(p["train_task"], p["eval_task"]): p for p in rows(demo_run, "overlap", "pairs")}
    decisions = {(d["train_task"], d["eval_task"]): d for d in rows(demo_run, "split", "decisions")}
    wanted = {
        "drop train task": "drop_train_task",
        "keep": "keep",
        "drop train examples": "drop_train_examples",
    }
    checked = 0
    for item in planted:
        if item.get("id") not in {"a", "b", "c", "f", "h1"}:
            continue
        pair = pairs[item["train_task"], item["eval_task"]]
        found = pair["num_short_equal"] if item["id"] == "f" else pair["num_hit"]
        assert found == item["num_hit"], item
        assert decisions[item["train_task"], item["eval_task"]]["action"] == wanted[item["wanted"]]
        checked += 1
    assert checked == 5
    boilerplate = ("super_natural_instructions/task2011_office_message_routing", "t5/harbour_digest")
    expected = {
        (i["train_task"], i["eval_task"]) for i in planted if i.get("id") in {"a", "b", "c", "f", "h1"}
    }
    assert {k for k, p in pairs.items() if p["num_hit"] or p["num_short_equal"]} == expected | {boilerplate}
    assert pairs[boilerplate]["num_hit"] and not pairs[boilerplate]["hit_fraction_rare"]
    assert rows(demo_run, "overlap", "frequent"), "the planted boilerplate sentence is marked frequent"


def test_nothing_held_out_is_trained(demo_run):
    category = {t["task"]: t["category"] for t in rows(demo_run, "curate", "tasks", "task", "category")}
    level = {t["task"]: t["level"] for t in rows(demo_run, "split", "tasks", "task", "level")}
    members = rows(demo_run, "split", "members")
    train = [m for m in members if m["split"] == "train"]
    test = [m for m in members if m["split"] == "test"]
    held_out = {category[task] for task, name in level.items() if name == "held_out"}
    assert held_out == {"Word Analogy", "Grammar Error Correction", "Cause Effect Classification"}
    assert not {category[m["task"]] for m in train} & held_out
    evaluated_only = {task for task, name in level.items() if name in ("held_out", "partial")}
    assert not {m["task"] for m in train} & evaluated_only
    assert not {m["group"] for m in train} & {m["group"] for m in test}
    assert not {m["content"] for m in train} & {m["content"] for m in test}
    assert set(level.values()) >= {"held_out", "partial", "supervised"}


def test_prompts_are_drawn_only_from_what_the_split_allows(demo_run):
    split = {m["example"]: m["split"] for m in rows(demo_run, "split", "members", "example", "split")}
    for prompt in rows(demo_run, "render", "prompts", "example", "split", "demonstrations"):
        assert split[prompt["example"]] == prompt["split"]
        assert prompt["example"] not in prompt["demonstrations"]
        assert {split[d] for d in prompt["demonstrations"]} <= {"train", "demonstration"}


def test_the_model_learns(demo_run):
    metrics = json_lines((demo_run / "model/metrics.jsonl").read_text())
    losses = [m["loss"] for m in metrics if "loss" in m]
    assert sum(losses[-10:]) / 10 <= 0.7 * sum(losses[:10]) / 10
    scores = {
        (s["model"], s["name"], s["shots"]): s
        for s in rows(demo_run, "evaluate", "scores")
        if s["scope"] == "task"
    }
    ranked = [name for model, name, shots in scores if (model, shots) == ("final", 0)]
    supervised = {t["task"] for t in rows(demo_run, "split", "tasks") if t["level"] == "supervised"}
    chosen = [n for n in ranked if n in supervised and scores["final", n, 0]["metric"] == "accuracy"]
    assert len(chosen) >= 4
    for name in chosen:
        assert scores["final", name, 0]["value"] > scores["initial", name, 0]["high"], name
    levels = {
        (s["model"], s["name"], s["shots"]): s
        for s in rows(demo_run, "evaluate", "scores")
        if s["scope"] == "level"
    }
    assert levels["final", "supervised", 0]["value"] > levels["initial", "supervised", 0]["high"]


def test_a_second_run_has_nothing_to_do(demo_run, capsys):
    code, out, _ = call(capsys, "run", "demo", "--run", str(demo_run), "--json")
    assert code == 0
    assert {s["status"] for s in json.loads(out)["stages"]} == {"up to date"}


def test_a_refused_setting_leaves_finished_scores_alone(demo_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    before = {path: path.read_bytes() for path in (run / "scores").glob("*.*")}
    for setting, said in (
        ('[{tasks: ["nope/*"]}]', "fits none of the 16 evaluated tasks"),
        ('[{tasks: ["*"], options: generate, metric: pass_at_k}]', "evaluate.code.run"),
    ):
        override = ("--set", f"evaluate.tasks={setting}")
        code, _, err = call(capsys, "evaluate", str(run), "--force", *override)
        assert code == 2 and said in err
        assert {path: path.read_bytes() for path in (run / "scores").glob("*.*")} == before
    code, out, _ = call(capsys, "evaluate", str(run))
    assert code == 0 and "up to date" in out


def test_verify_names_a_damaged_file(demo_run, tmp_path, capsys):
    run = tmp_path / "copy"
    shutil.copytree(demo_run, run)
    code, out, _ = call(capsys, "verify", str(run))
    assert code == 0 and " 0 problems" in out
    path = run / "prompts/prompts/exmix-000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, out, _ = call(capsys, "verify", str(run))
    assert code == 1 and "exmix-000.parquet" in out


def test_views_of_the_demo(demo_run, tmp_path, capsys):
    code, out, _ = call(capsys, "report", str(demo_run), "--output", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert code == 0 and "ferry_bolq" in page and not re.search(r'(src|href)="https?:', page)
    example = rows(demo_run, "render", "prompts", "example", "split")[0]["example"]
    for arguments in ([], *([stage] for stage in NAMES), ["--example", example]):
        code, out, _ = call(capsys, "inspect", str(demo_run), *arguments)
        assert code == 0 and out.strip()


def test_readme_commands_about_the_demo_run(repository, demo_run, tmp_path, monkeypatch, capsys):
    section = (
        (repository / "README.md")
        .read_text(encoding="utf-8")
        .split("## Really held out")[1]
        .split("\n## ")[0]
    )
    commands = re.findall(r"^taskmill (.*?)(?: +#.*)?$", section, re.MULTILINE)
    assert len(commands) == 5
    shutil.copytree(demo_run, tmp_path / "runs/demo")
    shutil.copytree(repository / "examples/own_data", tmp_path / "examples/own_data")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        code, out, err = call(capsys, *command.split())
        assert code == 0 and out, (command, err)


def _examples() -> list[str]:
    found = []

    def look(command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name in command.commands:
                look(command.commands[name])
        match = re.search(r"Example:\n\s+taskmill (.+)", command.help or "")
        assert match, f"{command.name}: its help ends without an example"
        found.append(match.group(1).strip())

    look(cli)
    return sorted(set(found))


MORE = """\
sources:
  - reader: table
    path: more.jsonl
    benchmark: mine
    options: {task: names, category: Title Generation, license: CC0-1.0, cast: {fields: {text: text}, references: name}}
"""


def published_commands() -> list[str]:
    """The commands of the README's part about publishing, but for the page that runs until somebody ends it."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = text.split("## Publish it, rebuild it")[1].split("\n## ")[0]
    return re.findall(r"^taskmill ((?!review).*?)(?: +#.*)?$", section, re.MULTILINE)


def test_readme_commands_about_publishing_run(demo_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(demo_run, tmp_path / "runs/demo")
    monkeypatch.chdir(tmp_path)
    Path("more.yaml").write_text(MORE, encoding="utf-8")
    Path("more.jsonl").write_text('{"text": "A lamp that hangs above the gate", "name": "Gate lamp"}\n')
    commands = published_commands()
    assert len(commands) == 7
    for command in commands:
        code, out, err = call(capsys, *shlex.split(command))
        assert code == 0 and out, (command, err)


@pytest.mark.parametrize("example", sorted({*_examples()} - {*published_commands(), "review runs/demo"}))
def test_examples_of_the_help_texts_run(example, demo_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(demo_run.parent.parent)
    if example.startswith("decisions"):  # which may write into the run
        shutil.copytree(demo_run, tmp_path / "runs/demo")
        monkeypatch.chdir(tmp_path)
        for name in ("runs/demo/undecided.csv", "ann.csv", "bob.csv"):
            shutil.copy(demo_run / "decisions.csv", name)
    Path("mine.csv").write_text("task,category\nmine/notes,Text Categorization\n", encoding="utf-8")
    Path("data").mkdir(exist_ok=True)
    for name in ("train", "test"):
        Path(f"data/{name}.jsonl").write_text('{"question": "Which way to the harbour?"}\n', encoding="utf-8")
    code, out, err = call(capsys, *shlex.split(example))
    assert code == 0 and out.strip(), err


KILL = """
import os, signal
from taskmill import storage
rename = storage._rename
seen = [0]
def stop(source, target):
    if "/{folder}/" in str(target):
        seen[0] += 1
        if seen[0] == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
storage._rename = stop
"""


def test_killed_at_every_stage_and_with_other_workers_the_rows_are_the_same(tiny_run, tmp_path):
    run = tmp_path / "run"
    arguments = ("run", "demo", "--run", str(run), "--workers", "2", *settings(TINY))
    folders = ("tasks", "overlaps", "splits", "prompts", "mixture", "tokens", "model", "scores")
    for number, folder in enumerate(folders):
        code = KILL.format(folder=folder, number=2 + number % 2)
        done = taskmill(*arguments, code=code)
        assert done.returncode == -9, (folder, done.stderr)
    done = taskmill(*arguments)
    assert done.returncode == 0, done.stderr
    assert roots(run) == roots(tiny_run)
    assert set(roots(run)) == set(NAMES)
    assert not list(run.rglob("*.tmp"))


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "polars", "datasets", "datasketch", "orjson", "rouge_score"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_training_half_runs_on_a_bare_gpu_image(tiny_run, tmp_path):
    """Mix, tokenize, train and evaluate need neither pydantic nor any of the data packages."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for folder in ("mixture", "tokens", "model", "scores"):
        shutil.rmtree(run / folder)
    done = taskmill("run", str(run), "--from", "mix", "--to", "train", code=BLOCK)
    assert done.returncode == 0, done.stderr
    done = taskmill("evaluate", str(run), code=BLOCK)
    assert done.returncode == 1 and "taskmill[eval]" in done.stderr and "Traceback" not in done.stderr
    assert "model" not in [line.split()[0] for line in done.stdout.splitlines()]
    done = taskmill("evaluate", str(run), "--predict-only", code=BLOCK)
    assert done.returncode == 0, done.stderr
    assert {p["value"] for p in rows(run, "evaluate", "predictions", "value")} == {None}
    done = taskmill("evaluate", str(run))
    assert done.returncode == 0, done.stderr
    assert roots(run) == roots(tiny_run)
