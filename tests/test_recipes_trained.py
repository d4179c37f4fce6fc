"""The shipped chat recipes train: by name, with folders of data and of a model filled in, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import call, settings

TORCH = pytest.importorskip("torch")
TALKS = [
    ("Name a tide.", "Neap."),
    ("Name a rope of a sail.", "Sheet."),
    ("Which knot makes a loop?", "A bowline."),
]
SMALL = (
    "data_root=data",
    "train.model=model",
    "tokenize.tokenizer=model",
    "curate.on_missing=skip",
    "train.num_steps=2",
    "train.precision=fp32",
    "train.device=cpu",
    "train.activation_checkpointing=false",
)
CASES = {
    "openchat": ("tokenize.max_length=256", "train.batch_tokens=256"),
    "flacuna": ("train.batch_size=2", "train.warmup_steps=1", "mix.sizes={code_alpaca: 2, sharegpt: 3}"),
    "tulu": ("train.batch_size=2", "mix.sizes={}"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with conversations, two instruction sets and a tiny model with a tokenizer of bytes."""
    import tokenizers
    import transformers

    folder = tmp_path_factory.mktemp("places")
    (folder / "data/sharegpt").mkdir(parents=True)
    talks = [
        {
            "id": str(number),
            "model": "Model: GPT-4" if number else "Default",
            "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}],
        }
        for number, (asked, said) in enumerate(TALKS)
    ]
    (folder / "data/sharegpt/talks.json").write_text(json.dumps(talks))
    rows = [{"instruction": asked, "input": "", "output": said} for asked, said in TALKS]
    (folder / "data/code_alpaca_20k.json").write_text(json.dumps(rows))
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **marks).save_pretrained(folder / "model")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=4096, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_trains(
    name: str,
    places: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(places)
    run = tmp_path / "run"
    arguments = ("run", name, "--run", str(run), "--to", "train", "--workers", "1", "--quiet", "--json")
    code, out, err = call(capsys, *arguments, *settings((*SMALL, *CASES[name])))
    assert code == 0, err
    stages = {stage["stage"]: stage for stage in json.loads(out)["stages"]}
    assert stages["train"]["counts"]["num_steps"] == 2
    lines = [json.loads(line) for line in (run / "model/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
    info = json.loads(next(run.glob("tokens/*/tokens.json")).read_text())
    assert ("<|end_of_turn|>" in info["added_tokens"]) is (name == "openchat")
    assert (run / "model/final/adapter_config.json").is_file() is (name == "flacuna")
