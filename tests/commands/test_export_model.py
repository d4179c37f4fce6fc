"""`taskmill export model`: what transformers and peft open, the model card, folders and runs that are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_run import write_data
from running import call
from small import fails, make_small, works

from taskmill.artifact import read_manifest
from taskmill.training.encoding.tokenizer import open_tokenizer

Capture = pytest.CaptureFixture[str]
TEXT = "Who keeps the light at Nordhove?"
FAST = ("train.num_steps=2", "train.learning_rate=0.01", "evaluate.shots=[0]", "evaluate.max_examples=1")


def run(folder: Path, name: str, upto: str, *settings: str) -> Path:
    """Run the small recipe up to a stage."""
    from taskmill import cli

    arguments = ["run", str(folder / "recipe.yaml"), "--run", str(folder / name), "--to", upto, "--quiet"]
    arguments += [part for value in (*FAST, *settings) for part in ("--set", value)]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--workers", "1"])
    assert not stopped.value.code
    return folder / name


def export(run: Path, folder: Path, *options: str) -> dict[str, Any]:
    from taskmill.commands.export_model import ModelPlan, write_model_folder

    return write_model_folder(run, folder, ModelPlan(merge="--merge" in options))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, the run `first` of all weights, its export `base`, and the run `lora` upon that.

    The second run's format has marks that the tokenizer of the first lacks.
    """
    folder = tmp_path_factory.mktemp("models")
    make_small(folder)
    write_data(folder)
    run(folder, "first", "evaluate", "evaluate.baseline=true")
    export(folder / "first", folder / "base")
    adapted = ("train.method=lora", "train.model=base", "tokenize.tokenizer=base", "train.dropout=0.1")
    run(folder, "lora", "train", "render.format=chatml", "render.default_quality=GPT3", *adapted)
    return folder


def opened(folder: Path) -> tuple[Any, Any]:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def generated(model: Any, tokenizer: Any) -> str:
    asked = tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)
    given = model.generate(**asked, max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(given[0]))


def front(folder: Path) -> dict[str, Any]:
    head = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert isinstance(head, dict)
    return head


def card_table(folder: Path, title: str) -> dict[str, list[str]]:
    part = (folder / "README.md").read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in part.splitlines()
        if line.startswith("| ")
    ]
    return {row[0]: row[1:] for row in rows}


def test_a_whole_model_opens_and_its_tokenizer_gives_the_runs_ids(place: Path) -> None:
    model, tokenizer = opened(place / "base")
    ours = open_tokenizer(place / "first" / next(iter(sorted((place / "first/tokens").glob("*/tokenizer")))))
    for text in (TEXT, "a  b\n\n 12,3 é 数", " leading"):
        assert tokenizer(text)["input_ids"] == ours.backend.encode(text, add_special_tokens=False).ids
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (ours.eos_id, ours.pad_id)
    assert model.generation_config.eos_token_id == ours.eos_id and tokenizer.chat_template is None
    assert tokenizer.model_max_length == 256
    assert generated(model, tokenizer).startswith(TEXT)


def test_adapter_and_merged_model_write_the_same(place: Path, tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    assert export(place / "lora", tmp_path / "adapter")["kind"] == "adapter"
    assert export(place / "lora", tmp_path / "merged", "--merge")["kind"] == "merged"
    merged, tokenizer = opened(tmp_path / "merged")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    base = transformers.AutoModelForCausalLM.from_pretrained(place / "base")
    known = base.get_input_embeddings().num_embeddings
    rows = config["trainable_token_indices"]["model.embed_tokens"]
    assert rows and min(rows) >= known and max(rows) + 1 == len(tokenizer)
    base.resize_token_embeddings(len(tokenizer))
    adapter = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert generated(adapter, tokenizer) == generated(merged, tokenizer)
    for row in rows:
        assert not merged.get_input_embeddings().weight[row].equal(merged.get_output_embeddings().weight[row])


def test_whole_models_can_be_written_in_16_bits(place: Path, tmp_path: Path, capsys: Capture) -> None:
    import torch

    for name, *options in (("first",), ("lora", "--merge")):
        out = str(tmp_path / name)
        works(capsys, "export", "model", str(place / name), out, "--precision", "bf16", *options)
        model, tokenizer = opened(Path(out))
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert generated(model, tokenizer).startswith(TEXT)
    command = ("export", "model", str(place / "lora"), str(tmp_path / "adapter"), "--precision", "fp16")
    capsys.readouterr()
    assert "--precision fp16 needs --merge" in fails(capsys, 2, *command)
    assert not (tmp_path / "adapter").exists()


def test_the_chat_template_is_that_of_the_runs_format(place: Path, tmp_path: Path) -> None:
    export(place / "lora", tmp_path / "merged", "--merge")
    model, tokenizer = opened(tmp_path / "merged")
    asked = [{"role": "user", "content": TEXT}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "<|im_start|>"
    stops = model.generation_config.eos_token_id
    assert set(tokenizer.convert_ids_to_tokens(stops)) == {"</s>", "<|im_end|>"}


def test_the_card_says_what_the_run_recorded(place: Path, tmp_path: Path) -> None:
    import huggingface_hub

    first, lora = place / "first", place / "lora"
    export(lora, tmp_path / "adapter")
    huggingface_hub.ModelCard.load(place / "base" / "README.md", ignore_metadata_errors=False)
    assert front(place / "base") == {
        "library_name": "transformers", "license": "unknown", "pipeline_tag": "text-generation",
        "tags": ["taskmill", "instruction-tuning"],
    }  # fmt: skip
    assert front(tmp_path / "adapter") | {"tags": None} == {
        "library_name": "peft", "license": "unknown", "pipeline_tag": "text-generation", "tags": None,
    }  # fmt: skip
    text = (tmp_path / "adapter/README.md").read_text(encoding="utf-8")
    assert "train.dropout 0.1: LlamaForCausalLM has none on its embeddings" in text
    assert str(place) not in text and "LoRA adapters fine-tuned from `base`" in text
    splits = read_manifest(first / "splits")
    assert splits is not None and f"`{splits.root}`" in text
    lines = [json.loads(line) for line in (first / "model/metrics.jsonl").read_text().splitlines()]
    training = card_table(place / "base", "Training")
    assert training["Updates"] == ["2"]
    assert training["Loss in the last update"] == [f"{[x for x in lines if 'loss' in x][-1]['loss']:.4f}"]
    shares = card_table(place / "base", "Mixture")
    assert {"super_natural_instructions", "reasoning"} < set(shares)
    drawn = [int(row[-1]) for part, row in shares.items() if row[-1].isdigit()]
    assert sum(drawn) == 60
    assert set(card_table(place / "base", "Scores by level")) >= {"held_out", "supervised"}
    assert "Scores by level" not in text
    recipe = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    assert recipe["train"]["dropout"] == 0.1 and recipe["seed"] == 7


def test_a_base_of_random_weights_lies_beside_the_adapter(place: Path, tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    copied = Path(shutil.copytree(place / "first", place / "own"))
    shutil.rmtree(copied / "model")
    run(place, "own", "train", "train.method=lora", "evaluate.baseline=true")
    body = export(copied, tmp_path / "adapter")
    assert {"base/config.json", "base/model.safetensors"} < {entry["path"] for entry in body["files"]}
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter/base")
    adapter = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    export(copied, tmp_path / "merged", "--merge")
    merged, tokenizer = opened(tmp_path / "merged")
    assert generated(adapter, tokenizer) == generated(merged, tokenizer)
    code = (tmp_path / "adapter/README.md").read_text().split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(code.replace("DIR", str(tmp_path / "adapter")), scope)  # what the card tells to do
    assert generated(scope["model"].eval(), scope["tokenizer"]) == generated(merged, tokenizer)


def test_a_checkpoint_of_an_unfinished_training(place: Path, tmp_path: Path, capsys: Capture) -> None:
    unfinished = Path(shutil.copytree(place / "lora", tmp_path / "run"))
    (unfinished / "model/manifest.json").unlink()
    message = fails(capsys, 2, "export", "model", str(unfinished), str(tmp_path / "out"))
    assert re.search(
        r"not finished: run `taskmill train .*saved checkpoints: 1, 2 \(--checkpoint STEP\)", message
    )
    found = json.loads(
        works(
            capsys, "export", "model", str(unfinished), str(tmp_path / "out"), "--checkpoint", "1", "--json"
        )
    )
    assert (
        found["options"] == {"checkpoint": 1, "merge": False, "precision": "fp32"}
        and not (tmp_path / "out/state.json").exists()
    )
    assert card_table(tmp_path / "out", "Training")["Updates"] == ["1"]
    message = fails(capsys, 2, "export", "model", str(unfinished), str(tmp_path / "out"), "--checkpoint", "7")
    assert "no checkpoint after update 7; saved checkpoints: 1, 2" in message


def test_an_earlier_export_is_replaced_and_other_folders_are_not(
    place: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    export(place / "lora", out)
    first = works(capsys, "export", "model", str(place / "lora"), str(out), "--merge")
    assert first.splitlines()[1:] == ["merged", f"{out}/export.json"]
    assert not (out / "adapter_config.json").exists() and (out / "model.safetensors").is_file()
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    works(capsys, "export", "model", str(place / "lora"), str(out), "--merge")
    assert again == {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    for folder, message in (
        (tmp_path / "mine", "holds 'notes.txt' and is no export"),
        (place / "lora/model", "which its stage sweeps"),
    ):
        assert message in fails(capsys, 2, "export", "model", str(place / "lora"), str(folder))


def test_runs_without_a_model_are_told(place: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "there is no run" in fails(
        capsys, 2, "export", "model", str(tmp_path / "none"), str(tmp_path / "out")
    )
    assert "holds no finished stage" in fails(
        capsys, 2, "export", "model", str(place / "data"), str(tmp_path / "out")
    )
    early = Path(shutil.copytree(place / "first", tmp_path / "early"))
    shutil.rmtree(early / "model")
    message = fails(capsys, 2, "export", "model", str(early), str(tmp_path / "out"))
    assert "not finished: run `taskmill train" in message and "checkpoints" not in message
    assert "none was saved" in fails(
        capsys, 2, "export", "model", str(early), str(tmp_path / "out"), "--checkpoint", "1"
    )
    assert not (tmp_path / "out").exists()


def test_a_changed_file_is_not_exported(place: Path, tmp_path: Path, capsys: Capture) -> None:
    damaged = Path(shutil.copytree(place / "first", tmp_path / "run"))
    weights = damaged / "model/final/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    message = fails(capsys, 1, "export", "model", str(damaged), str(tmp_path / "out"))
    assert "model.safetensors is not what training wrote" in message
    assert not (tmp_path / "out/model.safetensors").exists() and not (tmp_path / "out/export.json").exists()


@pytest.mark.parametrize("options", [(), ("--precision", "bf16")])
@pytest.mark.parametrize("step", [None, 2])
def test_changed_weights_are_exported_in_no_form(
    place: Path, tmp_path: Path, capsys: Capture, step: int | None, options: tuple[str, ...]
) -> None:
    damaged = Path(shutil.copytree(place / "first", tmp_path / "run"))
    folder = damaged / "model" / (f"step-{step:06d}" if step else "final")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")  # loads as well as before
    chosen = ("--checkpoint", str(step)) if step else ()
    message = fails(capsys, 1, "export", "model", str(damaged), str(tmp_path / "out"), *chosen, *options)
    assert f"{folder.name}/model.safetensors is not what training wrote" in message
    assert not (tmp_path / "out/export.json").exists()


def test_the_page(repository: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from page import work_through

    page = (repository / "docs/models.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    files, runs, outputs = work_through(page, tmp_path, capsys)
    assert (files, runs, outputs) == (2, 5, 5)
    for code in re.findall(r"<!-- python -->\n```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})
    code, _, _ = call(capsys, "export", "model", "--help")
    assert code == 0
