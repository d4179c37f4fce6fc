"""Wrong recipes, options, data, plans, decisions and settings: one message that helps, and the right exit code."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from running import call
from small import FLAN, RECIPE, curate, fails, line, only, stage, tree, works

from taskmill.artifact import read_manifest
from taskmill.storage import read_table

READERS = ("super_natural_instructions", "promptsource", "flan", "crossfit", "t5", "reasoning")
ANALOGY = "super_natural_instructions/tasks/task2004_harbour_word_analogy.json"
TEMPLATES = "promptsource/templates/ferry_boolq/templates.yaml"
ROWS = "promptsource/data/ferry_boolq/train.jsonl"


# --------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    "raw,expected",
    [
        (None, ["no recipe file", "recipe.yaml", "recipes list"]),
        (b"\n", ["recipe.yaml:1", "empty", "`sources`"]),
        (b"name: caf\xe9\n", ["recipe.yaml", "not UTF-8", "byte 9"]),
        (b"name: [a\nsources: }\n", ["recipe.yaml:2", "not valid YAML"]),
        (RECIPE.encode() + b"mixx: {cap: 3}\n", ["mixx: unknown key", "'mix'"]),
        (RECIPE.replace("seed: 7", "seed: seven").encode(), ["recipe.yaml:2", "'seven'", "an integer"]),
        (RECIPE.replace("reader: crossfit", "reader: crosfit").encode(), ["'crosfit'", "'crossfit'"]),
        (RECIPE.replace("path: crossfit", "path: crosfit").encode(), ["sources.3.path", "'crossfit'"]),
        (
            RECIPE.replace("path: crossfit", "path: crossfit, options: {seeds: 3}").encode(),
            ["no option 'seeds'"],
        ),
        (
            RECIPE.replace("path: flan", "path: flan, include: [tide_entailmnt]").encode(),
            ["sources.2", "leave none of the 3 tasks", "'tide_entailment'"],
        ),
    ],
)
def test_recipes(small_data, capsys, raw, expected):
    path = small_data / "recipe.yaml"
    path.unlink() if raw is None else path.write_bytes(raw)
    message = fails(capsys, 2, *curate())
    assert all(text in message for text in expected), message
    assert not (small_data / "run/tasks").exists()


def test_a_directory_that_is_no_run(small_data, capsys):
    (small_data / "empty").mkdir()
    assert "without recipe.json" in fails(capsys, 2, "curate", "empty")
    for command in ("inspect", "report", "verify"):
        for place in ("empty", "nowhere", "recipe.yaml"):
            assert "taskmill run RECIPE" in fails(capsys, 2, command, place)
    assert tree(small_data / "empty") == {}


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (("--set", "mix.cap"), "expected KEY=VALUE"),
        (("--set", "=3"), "expected KEY=VALUE"),
        (("--set", "mix.cap=[1"), "not valid YAML"),
        (("--set", "mix.cpa=3"), "did you mean 'cap'"),
        (("--set", "sources.99.path=x"), "does not lead anywhere"),
        (("--set", "tokenize.vocab_size=10"), "from 300"),
        (("--set", "tokenize.max_length=0"), "from 8"),
        (("--set", "mix.shares={flan: 0.5, t5: 0.4}"), "sum to 0.9"),
        (("--from", "mix", "--to", "split"), "--from mix comes after --to split"),
        (("--to", "spilt"), "did you mean 'split'"),
        (("--workers", "0"), "x>=1"),
        (("--engine", "ray"), "'local'"),
        (("--limit", "-1"), "x>=1"),
        (("--run", "recipe.yaml"), "is a file"),
        (("--run", "recipe.yaml/below"), "recipe.yaml is a file"),
        (("--run", "recipe.yaml", "--dry-run"), "is a file"),
        (("--run", "r\udcff"), "not UTF-8"),
    ],
)
def test_options(small_data, capsys, arguments, expected):
    before = tree(small_data)
    code, out, err = call(capsys, "run", "recipe.yaml", *arguments)
    assert (code, out) == (2, "") and expected in err
    assert tree(small_data) == before


@pytest.mark.parametrize("reader", READERS)
def test_a_source_folder_without_files(small_data, capsys, reader):
    only(reader, path="void")
    (small_data / "data/void").mkdir()
    assert "void" in (message := fails(capsys, 1, *curate())) and "expected" in message


# ------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize(
    "reader,file,damage,expected",
    [
        ("flan", FLAN, line(3, b'{"inputs": "a'), ["record 3", "not valid JSON", "on_error=skip"]),
        ("flan", FLAN, line(3, b'{"inputs": "caf\xe9"}'), ["record 3", "not UTF-8"]),
        (
            "flan",
            FLAN,
            line(3, b'{"inputs": "a", "targets": NaN, "task_name": "x"}'),
            ["record 3", "'targets'", "nan"],
        ),
        ("flan", FLAN, lambda raw: b"", ["the file is empty"]),
        ("super_natural_instructions", ANALOGY, lambda raw: raw[:4000], ["not valid JSON", "on_error=skip"]),
        ("super_natural_instructions", ANALOGY, lambda raw: b"", ["the file is empty"]),
        ("super_natural_instructions", ANALOGY, lambda raw: raw.decode().encode("utf-16"), ["utf-8"]),
        ("promptsource", TEMPLATES, lambda raw: b"templates: [a\n b: }", ["line 2", "cannot be read as templates"]),
        ("promptsource", TEMPLATES, lambda raw: raw.replace(b"jinja:", b"jnja:"), ["jinja", "expected text"]),
        ("promptsource", ROWS, line(2, b'{"question": NaN}'), ["record 2", "no 'passage'; the record has question"]),
        ("crossfit", "crossfit/quay_reviews/quay_reviews_16_13_train.tsv", line(2, b"one"), ["record 2", "a tab"]),
        ("t5", "t5/pier_rte/train.tsv", line(2, b"5\tonly"), ["record 1", "2 columns; expected 4"]),
        ("reasoning", "reasoning/market_sums_train.tsv", line(2, b"q\ta"), ["record 2", "question, answer, rationale"]),
    ],
)  # fmt: skip
def test_damaged_data_stops_and_says_where(small_data, capsys, reader, file, damage, expected):
    only(reader)
    path = small_data / "data" / file
    path.write_bytes(damage(path.read_bytes()))
    message = fails(capsys, 1, *curate())
    assert all(text in message for text in [file, *expected]), message
    assert message.count("\n") == 1
    assert read_manifest(small_data / "run/tasks") is None


@pytest.mark.parametrize(
    "reader,file,damage,reason",
    [
        ("flan", FLAN, line(3, b'{"inputs": "a'), "bad_json"),
        ("t5", "t5/pier_rte/train.tsv", line(2, b"5\tonly"), "wrong_columns"),
        ("super_natural_instructions", ANALOGY, lambda raw: raw[:4000], "bad_json"),
        ("promptsource", TEMPLATES, lambda raw: b"templates: [a\n b: }", "bad_yaml"),
    ],
)
def test_skip_keeps_what_is_damaged_aside(small_data, capsys, reader, file, damage, reason):
    only(reader)
    path = small_data / "data" / file
    path.write_bytes(damage(path.read_bytes()))
    works(capsys, *curate("--set", "curate.on_error=skip"))
    manifest = read_manifest(small_data / "run/tasks")
    assert manifest is not None and manifest.dropped[reason] == 1
    counts = manifest.counts
    assert counts["examples_kept"] + sum(manifest.dropped.values()) == counts["examples_read"]
    rows = read_table(small_data / "run/tasks/dropped.parquet").to_pylist()
    (row,) = [row for row in rows if row["reason"] == reason]
    assert row["file"] == file and row["raw"] and row["raw"].encode() in path.read_bytes()


def test_a_very_long_line_is_no_problem(small_data, capsys):
    only("flan")
    record = {"inputs": "word " * 200_000, "targets": "yes", "task_name": "tide_entailment"}
    path = small_data / "data" / FLAN
    path.write_bytes(path.read_bytes() + json.dumps(record).encode() + b"\n")
    assert "177 examples kept" in works(capsys, *curate())


def test_messages_of_worker_processes_arrive_whole(small_data, capsys):
    path = small_data / "data/reasoning/market_sums_train.tsv"
    path.write_bytes(line(2, b"q\ta")(path.read_bytes()))
    arguments = ("curate", "recipe.yaml", "--run", "run", "--workers", "2", "--quiet")
    message = fails(capsys, 1, *arguments)
    for text in ("market_sums_train.tsv, record 2", r"(found 'q\ta')", "expected question", "on_error=skip"):
        assert text in message


@pytest.mark.parametrize(
    "file,text,expected",
    [
        ("taxonomy.yaml", None, ["curate.taxonomy", "taxonomy.yaml: No such file"]),
        ("taxonomy.yaml", "tasks: [a\n}", ["taxonomy.yaml:2", "not valid YAML"]),
        ("taxonomy.yaml", 'tasks:\n  "*": {categry: X}\n', ["taxonomy.yaml:2", "'category'"]),
        ("taxonomy.yaml", 'tasks:\n  "promptsource/*": {license: X}\n', ["ferry_boolq: no category", "give it a row"]),
        ("casts/ferry_boolq.yaml", None, ["no cast for 'ferry_boolq'", "ferry_boolq.yaml"]),
        ("casts/ferry_boolq.yaml", "fields: [a", ["casts/ferry_boolq.yaml", "line 1"]),
        ("casts/ferry_boolq.yaml", "feilds: {a: b}", ["unknown key 'feilds'", "'fields'"]),
    ],
)  # fmt: skip
def test_taxonomy_and_casts(small_data, capsys, file, text, expected):
    only("promptsource")
    path = small_data / "data" / file
    path.unlink() if text is None else path.write_text(text)
    message = fails(capsys, 2, *curate())
    assert all(part in message for part in expected), message


# ------------------------------------------------------------------------------------ plan and decisions


@pytest.mark.parametrize(
    "setting,expected",
    [
        ("plan.held_out.categories=[Word Analogi]", "'Word Analogy'"),
        ("plan.partial=[promptsource/fery*]", "'promptsource/ferry_boolq'"),
        ("plan.supervised=[t5/pier_rte, promptsource/*]", "as partial and as supervised"),
        ("plan.partial=['*/task2004*']", "as held_out and as partial"),
    ],
)
def test_plans(small_run, capsys, setting, expected):
    shutil.rmtree(small_run / "run/overlaps")
    assert expected in fails(capsys, 2, *stage("overlap", "--set", setting))
    works(capsys, *stage("overlap"))


PAIR = "super_natural_instructions/task2002_ferry_bolq_question_answering,promptsource/ferry_boolq"
HEADER = "train_task,eval_task,action,evidence,rule,by,at,why\n"


@pytest.mark.parametrize(
    "text,expected",
    [
        (
            HEADER + f"flan/nope,promptsource/ferry_boolq,keep,{'0' * 32},,,,\n",
            [":2", "'flan/nope'", "flan/"],
        ),
        (HEADER + f"{PAIR},drp_train_task,{'0' * 32},,,,\n", [":2", "did you mean 'drop_train_task'"]),
        (HEADER + f"{PAIR},keep,xyz,,,,\n", [":2", "'xyz' is not a digest", "undecided.csv"]),
        (HEADER.replace("evidence,", "") + f"{PAIR},keep,,,,\n", [":1", "the column 'evidence' is missing"]),
        (HEADER + f"{PAIR}\n", [":2", "2 values; expected 8"]),
        (None, ["split.decisions", "no file", "people.csv"]),
    ],
)
def test_decisions(small_run, capsys, text, expected):
    shutil.rmtree(small_run / "run/splits")
    (small_run / "run/decisions.csv").unlink(missing_ok=True)
    if text is not None:
        (small_run / "people.csv").write_text(text)
    message = fails(capsys, 2, *stage("split", "--set", "split.decisions=people.csv"))
    assert all(part in message for part in expected), message
    assert not (small_run / "run/decisions.csv").exists()


def test_undecided_pairs_stop_and_the_instructions_work(small_run, capsys):
    shutil.rmtree(small_run / "run/splits")
    code, out, err = call(capsys, *stage("split", "--set", "split.rules=[]", "--json"))
    assert (code, out) == (3, "") and err.count("taskmill: ") == 1
    assert read_manifest(small_run / "run/splits") is None
    undecided, decisions = re.search(r"listed in (\S+): .* rows to (\S+),", err).groups()
    rows = list(csv.reader(Path(undecided).read_text().splitlines()))
    assert len(rows) == 3 and err.startswith("taskmill: 2 of 3 overlapping pairs")
    example = err.split("For example:\n")[1].splitlines()[0].strip()
    filled = [example.split(",")] + [[*row[:2], "drop_eval_examples", *row[3:]] for row in rows[2:]]
    Path(decisions).write_text("\n".join(map(",".join, [rows[0], *filled])) + "\n")
    command = err.split("continue with: taskmill ")[1].split()
    works(capsys, *command, "--to", "split", "--workers", "1", "--quiet")
    made = read_table(small_run / "run/splits/decisions.parquet").to_pylist()
    assert [row["action"] for row in made] == ["drop_train_examples", "drop_eval_examples"]
    assert not Path(undecided).exists()


# --------------------------------------------------------------------------- mixture, tokenizer, model


@pytest.mark.parametrize(
    "name,folder,setting,expected",
    [
        ("mix", "mixture", "mix.shares={flann: 1.0}", ["no benchmark of that name", "'flan'", "no share for 't5'"]),
        ("mix", "mixture", "mix.auxiliary={dialogue: {share: 0.1}}", ["no task of kind 'dialogue'"]),
        ("tokenize", "tokens", "tokenize.tokenizer=nowhere", ["'nowhere' is no folder beside the recipe"]),
        ("tokenize", "tokens", "tokenize.tokenizer=some/model", ["'some/model'", "from the Hub"]),
        ("tokenize", "tokens", "tokenize.tokenizer=data", ["holds no tokenizer.json"]),
        ("tokenize", "tokens", "tokenize.tokenizer=broken", ["broken/tokenizer.json cannot be read"]),
        ("train", "model", "train.model=nowhere", ["train.model", "config.json", "hf download"]),
        ("train", "model", "train.model=data", ["train.model", "config.json"]),
        ("train", "model", "train.lora.targets=[nope]", ["train.lora.targets", "q_proj"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_not_recorded(small_run, capsys, monkeypatch, name, folder, setting, expected):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (small_run / "broken").mkdir()
    (small_run / "broken/tokenizer.json").write_text("{")
    (small_run / "broken/tokenizer_config.json").write_text("{}")
    shutil.rmtree(small_run / "run" / folder)
    recorded = (small_run / "run/recipe.json").read_bytes()
    lora = ("--set", "train.method=lora") if "lora" in setting else ()
    message = fails(capsys, 2, *stage(name, "--set", setting, *lora))
    assert all(part in message for part in expected), message
    assert (small_run / "run/recipe.json").read_bytes() == recorded
    works(capsys, *stage(name))
