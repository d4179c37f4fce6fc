"""`taskmill export chat`: rows, orders, what is left out, folders that are taken, and the page about it."""

from __future__ import annotations

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from chat_run import DOCUMENTS, TALKS, make_chat_run
from running import call
from small import fails, works

from taskmill.artifact import Identity, open_stage
from taskmill.commands.export_chat import Plan, write_export
from taskmill.commands.export_files import Sink
from taskmill.commands.finished import FinishedRun
from taskmill.errors import StaleError
from taskmill.records import SCHEMAS
from taskmill.storage import read_table
from taskmill.training.mixture import Mixture

Capture = pytest.CaptureFixture[str]
ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_run(tmp_path_factory.mktemp("chatml"), "chatml")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metaicl = "render.metaicl={max_demonstrations: 3, exponent: 1.0, suffix_loss: true}"
    return make_chat_run(tmp_path_factory.mktemp("plain"), "plain", metaicl)


@pytest.fixture(scope="module")
def openchat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = "render.conditions={GPT4: {text: Best, weight: 1}, GPT3: {text: GPT3, weight: 0}}"
    return make_chat_run(tmp_path_factory.mktemp("openchat"), "openchat-v3.2", weights)


def lines(folder: Path, name: str = "train") -> list[dict[str, Any]]:
    files = sorted((folder / name).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def talks() -> list[list[dict[str, str]]]:
    """The conversations as messages, without what follows the last answer."""
    found = []
    for line in TALKS.splitlines():
        turns = [turn.split(": ", 1) for turn in line.split(" / ")]
        messages = [{"role": ROLES.get(who, who), "content": text} for who, text in turns]
        found.append(messages[:-1] if messages[-1]["role"] == "user" else messages)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_messages_are_the_conversations_without_marks(chatml: Path, tmp_path: Path) -> None:
    body = write_export(chatml, tmp_path, Plan())
    rows = lines(tmp_path)
    said = [row["messages"] for row in rows if row["task"] == "chat/talks"]
    assert sorted(said, key=str) == sorted(talks(), key=str)
    two_part = [row for row in rows if row["task"] != "chat/talks"]
    assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] for row in two_part)
    assert all(row["messages"][1]["content"] == row["messages"][1]["content"].strip() for row in two_part)
    texts = lines(tmp_path, "train-documents")
    assert sorted(row["text"] for row in texts) == sorted(DOCUMENTS)
    counts = body["counts"]
    assert counts["prompts"] == counts["prompts_exported"] == len(rows) + len(texts) == counts["rows"]
    assert (counts["rows_of_documents"], counts["prompts_left_out"]) == (2, 0)
    assert counts["prompts_with_a_tool_turn"] == 1
    assert counts["prompts_that_llama_factory_skips"] == 1
    assert not any(value is None for row in rows + texts for value in row.values())


def test_rows_lead_back_to_the_prompts(chatml: Path, tmp_path: Path) -> None:
    write_export(chatml, tmp_path, Plan(split="all"))
    run = FinishedRun(chatml)
    prompts = [row for file in run.inputs.files("render", "prompts") for row in read_table(file).to_pylist()]
    found = [(s, row) for s in ("train", "validation", "test") for row in lines(tmp_path, s)]
    found += [("train", row) for row in lines(tmp_path, "train-documents")]
    assert sorted(row["row"] for _, row in found) == list(range(len(prompts)))
    for split, row in found:
        prompt = prompts[row["row"]]
        assert (prompt["split"], prompt["prompt"].hex()) == (split, row["prompt_id"])
        names = ("example", "task", "template", "level", "condition")
        assert [row[name] for name in names] == [prompt[name] or "" for name in names]
        assert row["loss_weight"] == prompt["loss_weight"]


def test_mixture_order_is_the_mixture(chatml: Path, tmp_path: Path) -> None:
    body = write_export(chatml, tmp_path, Plan(order="mixture", num=500))
    rows = sorted(lines(tmp_path) + lines(tmp_path, "train-documents"), key=lambda row: row["position"])
    run = FinishedRun(chatml)
    wanted = Mixture.open(run.inputs.directory("mix")).rows(500).tolist()
    assert [row["row"] for row in rows] == wanted and len(set(wanted)) < 500
    assert [row["position"] for row in rows] == list(range(500))
    places = [row["position"] for row in lines(tmp_path)]
    assert places == sorted(places)
    assert body["counts"]["prompts"] == 500
    write_export(chatml, tmp_path / "all", Plan(order="mixture"))
    assert len(lines(tmp_path / "all")) + len(lines(tmp_path / "all", "train-documents")) == 60


def test_an_answer_a_row(chatml: Path, tmp_path: Path) -> None:
    body = write_export(chatml, tmp_path, Plan("prompt-completion"))
    rows = [row for row in lines(tmp_path) if row["task"] == "chat/talks"]
    expected = [
        (talk[:place], [talk[place]], sum(m["role"] == "assistant" for m in talk[:place]))
        for talk in talks()
        for place, message in enumerate(talk)
        if message["role"] == "assistant" and talk[0]["role"] != "assistant"
    ]
    assert sorted(((r["prompt"], r["completion"], r["answer"]) for r in rows), key=str) == sorted(
        expected, key=str
    )
    assert body["dropped"] == {"nothing_asked": 1}
    (dropped,) = read_table(tmp_path / "dropped.parquet").to_pylist()
    assert (dropped["stage"], dropped["task"], dropped["reason"]) == ("export", "chat/talks", "nothing_asked")


def test_a_plain_run_gives_texts_and_says_suffix_loss(plain: Path, tmp_path: Path) -> None:
    body = write_export(plain, tmp_path / "texts", Plan("prompt-completion"))
    run = FinishedRun(plain)
    prompts = [row for file in run.inputs.files("render", "prompts") for row in read_table(file).to_pylist()]
    several = 0
    for row in lines(tmp_path / "texts"):
        prompt = prompts[row["row"]]
        assert row["prompt"] + row["completion"] + "{eos}" == prompt["text"]
        starts = [0, *prompt["ends"]]
        assert len(row["prompt"].encode()) == starts[prompt["trained"].index(True)]
        several += bool(prompt["demonstrations"])
        assert (row["prompt"] == "") == (row["task"] == "documents/harbour")
    assert several > 10
    assert body["dropped"] == {"several_answers": 3}
    assert not (tmp_path / "texts/chat_template.jinja").exists()
    body = write_export(plain, tmp_path / "messages", Plan())
    assert body["dropped"] == {"loss_beyond_the_answer": several}
    assert not (tmp_path / "messages/chat_template.jinja").exists()
    listed = read_table(tmp_path / "messages/dropped.parquet").to_pylist()
    assert len(listed) == several and all(prompts[row["record"]]["demonstrations"] for row in listed)
    said = [row["messages"] for row in lines(tmp_path / "messages") if row["task"] == "chat/talks"]
    alike = {"tool": "user"}  # the plain format writes both in the same way
    expected = [[{**m, "role": alike.get(m["role"], m["role"])} for m in talk] for talk in talks()]
    assert sorted(said, key=str) == sorted(expected, key=str)


def test_conditions_and_weights(openchat: Path, tmp_path: Path) -> None:
    body = write_export(openchat, tmp_path, Plan())
    rows = lines(tmp_path)
    assert {row["condition"] for row in rows} == {"GPT4"}
    assert all(row["chat_template_kwargs"] == {"condition": "Best"} for row in rows)
    assert body["counts"]["prompts_with_a_condition"] == len(rows)
    assert set(body["dropped"]) == {"weight_zero"}
    assert 'condition | default("Best")' in (tmp_path / "chat_template.jinja").read_text()
    assert (
        json.loads((tmp_path / "train-documents/00000.jsonl").read_text().splitlines()[0])["text"]
        in DOCUMENTS
    )


def test_same_bytes_again_and_each_file_as_export_json_says(chatml: Path, tmp_path: Path) -> None:
    for order in ("rows", "mixture"):
        plan = Plan(order=order, shard_size=50)
        body = write_export(chatml, tmp_path / order, plan)
        first = contents(tmp_path / order)
        write_export(chatml, tmp_path / order, plan)
        write_export(chatml, tmp_path / f"{order}-2", plan)
        assert contents(tmp_path / order) == first == contents(tmp_path / f"{order}-2")
        assert {entry["path"] for entry in body["files"]} == first.keys() - {
            "export.json",
            ".taskmill-export",
        }
        for entry in body["files"]:
            assert sha256(first[entry["path"]]).hexdigest() == entry["sha256"]
            assert len(first[entry["path"]]) == entry["bytes"]
        assert json.loads(first["export.json"]) == body
        assert body["source"].keys() == ({"render"} if order == "rows" else {"render", "mix"})
        assert str(tmp_path).encode() not in b"".join(first.values())


def test_shards_and_parquet_hold_the_same_rows(chatml: Path, tmp_path: Path) -> None:
    body = write_export(chatml, tmp_path / "json", Plan(shard_size=100))
    names = [e["path"] for e in body["files"] if e["path"].startswith("train/")]
    assert names == [f"train/{number:05d}.jsonl" for number in range(len(names))] and len(names) > 2
    assert [e["num_rows"] for e in body["files"] if e["path"] in names][:-1] == [100] * (len(names) - 1)
    tables = write_export(chatml, tmp_path / "parquet", Plan(shard_size=100, parquet=True))
    rows = [e["rows"] for e in tables["files"] if e["path"].startswith("train")]
    assert rows == [e["rows"] for e in body["files"] if e["path"].startswith("train")]
    files = sorted((tmp_path / "parquet/train").glob("*.parquet"))
    assert [r for file in files for r in pq.read_table(file).to_pylist()] == lines(tmp_path / "json")
    info = json.loads((tmp_path / "json/dataset_info.json").read_text())
    assert [info[f"small_train_{n:05d}"]["file_name"] for n in range(len(names))] == names
    assert (
        yaml.safe_load((tmp_path / "parquet/axolotl.yaml").read_text())["datasets"][0]["ds_type"] == "parquet"
    )


def test_num_is_of_each_split(chatml: Path, tmp_path: Path) -> None:
    body = write_export(chatml, tmp_path, Plan(split="all", num=3))
    assert body["counts"]["prompts"] == 9
    assert [len(lines(tmp_path, split)) for split in ("validation", "test")] == [3, 3]


def test_an_earlier_export_is_replaced_and_other_files_are_not(
    chatml: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "chat"
    write_export(chatml, target, Plan(shard_size=20))
    (target / "export.json").unlink()  # as if it had been killed
    (target / "train/.00009.jsonl.12.tmp").write_text("half")
    (target / "notes.txt").write_text("mine")
    write_export(chatml, target, Plan(shard_size=200, num=10, parquet=True))
    assert [p.name for p in (target / "train").iterdir()] == ["00000.parquet"]
    assert (target / "notes.txt").read_text() == "mine" and not (
        target / "train-documents/00000.jsonl"
    ).exists()
    before = contents(chatml)
    message = fails(capsys, 2, "export", "chat", str(chatml), str(chatml))
    assert "is no export of taskmill; expected a new or empty folder" in message
    assert contents(chatml) == before
    assert "is a file" in fails(capsys, 2, "export", "chat", str(chatml), str(target / "notes.txt"))
    real = Sink.write

    def stop(self: Sink, line: bytes) -> None:
        if self.num_rows == 5:
            raise KeyboardInterrupt
        real(self, line)

    monkeypatch.setattr(Sink, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        write_export(chatml, target, Plan())
    assert not (target / "export.json").exists() and not list(target.rglob("*.tmp"))


def test_a_tokenizer_s_own_chat_template(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    )
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (tmp_path / "own.jinja").write_text(template)
    run = make_chat_run(tmp_path, "own.jinja")
    body = write_export(run, tmp_path / "chat", Plan())
    said = [row["messages"] for row in lines(tmp_path / "chat") if row["task"] == "chat/talks"]
    expected = [talk for talk in talks() if "tide(" not in str(talk)]  # render: a template gets no calls
    assert sorted(said, key=str) == sorted(expected, key=str)
    assert (tmp_path / "chat/chat_template.jinja").read_text() == template
    assert body["dropped"] == {}


def test_wrong_use(chatml: Path, tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "out")
    message = fails(capsys, 2, "export", "chat", str(chatml), out, "--order", "mixture", "--split", "test")
    assert "--order mixture is an order of train prompts" in message
    inside = str(chatml / "prompts/chat")
    assert "which its stage sweeps" in fails(capsys, 2, "export", "chat", str(chatml), inside)
    assert not Path(inside).exists()
    assert "there is no run" in fails(capsys, 2, "export", "chat", str(tmp_path / "none"), out)
    assert not Path(out).exists()


def test_a_stage_that_is_missing_or_stale(tmp_path: Path, capsys: Capture) -> None:
    own = 'roles: {user: {prefix: "Q "}, assistant: {prefix: "A ", end: "{eos}"}}\n'
    (tmp_path / "own.yaml").write_text(own)
    run = make_chat_run(tmp_path, "own.yaml", upto="split")
    out = str(tmp_path / "out")
    capsys.readouterr()
    assert "the stage 'render'" in fails(capsys, 2, "export", "chat", str(run), out)
    works(capsys, "render", str(run), "--quiet", "--workers", "1")
    assert "the stage 'mix'" in fails(capsys, 2, "export", "chat", str(run), out, "--order", "mixture")
    works(capsys, "mix", str(run), "--quiet")
    works(capsys, "export", "chat", str(run), out, "--order", "mixture")
    works(
        capsys,
        "render",
        str(run),
        "--quiet",
        "--workers",
        "1",
        "--force",
        "--set",
        "render.prompts_per_task=5",
    )
    with pytest.raises(StaleError, match=r"the mixture of .* was made of other prompts"):
        write_export(run, tmp_path / "out", Plan(order="mixture"))
    (tmp_path / "own.yaml").write_text(own.replace("Q ", "Question "))
    with pytest.raises(StaleError, match=r"the chat format 'own.yaml' has changed"):
        write_export(run, tmp_path / "out", Plan())


def test_segments_that_the_format_does_not_write_are_listed(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    recipe = {"base": str(tmp_path), "origin": {}, "text": "", "values": {"name": "x", "sources": []}}
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(recipe))
    settings = {"render": {"format": "tulu"}}
    out = open_stage(run / "prompts", Identity("render", 1, settings, 1, None, (), {}))
    row = dict.fromkeys(SCHEMAS["prompts/prompts"].names, "")
    row |= {"prompt": b"12345678", "split": "train", "format": "tulu", "loss_weight": 1.0, "joint": True}
    row |= {"text": "ab", "ends": [1, 2], "kinds": [5, 6], "trained": [False, True], "options": None}
    row |= {"references": [], "demonstrations": [], "condition": None}
    with out.shard("all", ["x"]) as shard:
        shard.write_table("prompts/all.parquet", SCHEMAS["prompts/prompts"], [row])
    out.add(shard.record)
    out.finish()
    message = fails(capsys, 1, "export", "chat", str(run), str(tmp_path / "out"))
    assert "every prompt was left out (1 not in the format)" in message
    (dropped,) = read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert dropped["detail"].startswith("the format tulu does not write")
    assert not (tmp_path / "out/export.json").exists()
    assert "no validation prompt" in fails(
        capsys, 1, "export", "chat", str(run), str(tmp_path / "out"), "--split", "validation"
    )


def test_json_is_the_export(chatml: Path, tmp_path: Path, capsys: Capture) -> None:
    out = works(capsys, "export", "chat", str(chatml), str(tmp_path / "a"), "--json", "--num", "4")
    written = json.loads((tmp_path / "a/export.json").read_text())
    assert json.loads(out) == {"folder": str(tmp_path / "a"), **written}


def test_the_page(repository: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (repository / "docs/chat-export.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = ""
    parts = re.findall(r"<!-- (\w+)(?:: (\S+))? -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert [kind for kind, *_ in parts] == ["run", "output", "row", "script", "file", "file"]
    for kind, name, text in parts:
        if kind == "run":
            for command in text.strip().splitlines():
                code, out, err = call(capsys, *shlex.split(command)[1:])
                assert code == int(name), err
                shown = out
        elif kind == "output":
            given, expected = shown.splitlines(), text.splitlines()
            assert all(line.startswith(wanted) for line, wanted in zip(given, expected, strict=True)), shown
        elif kind == "row":
            (row,) = lines(Path("chat"))[:1]
            assert json.loads(text).keys() == row.keys()
            assert [row[k] for k in ("condition", "loss_weight", "position")] == ["", 1.0, 0]
        elif kind == "file":
            assert (Path("chat") / name).read_text() == text
    written = {
        p.name if p.parent == Path("chat") else f"{p.parent.name}/{p.name}" for p in Path("chat").rglob("*")
    }
    for name in re.findall(r"^\| `([\w./-]+)`", page.partition("## What is written")[2], re.MULTILINE)[:7]:
        assert name in written, name
