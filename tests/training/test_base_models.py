"""Base models: folders and repositories that are one, and the message for each that is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_server import Fault, HubServer, Repository, serve
from token_arrays import VOCAB, tiny_model

from taskmill.recipe import Train
from taskmill.training.models import base_files
from taskmill.training.models.base_files import ModelError, identity, located, portable_name
from taskmill.training.models.model import initial_model, training_model
from taskmill.training.models.saving import save_model

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
NAME = "someone/tiny"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(), None, folder)
    return folder


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "base"))


def begin(name: object, **settings: Any) -> Any:
    train = Train(model=str(name), **settings)
    return initial_model(train, VOCAB, 64, pad_id=0, bos_id=1, eos_id=2, seed=0)


def change(folder: Path, **values: Any) -> None:
    """Change config.json; None takes a key away."""
    config = {**json.loads((folder / "config.json").read_text()), **values}
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def bert(folder: Path) -> None:
    change(folder, model_type="bert", architectures=["BertForMaskedLM"])


def translator(folder: Path) -> None:
    change(folder, model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True)


def code(folder: Path) -> None:
    change(folder, model_type="tiny-own", auto_map={"AutoModelForCausalLM": "modeling.Own"})
    (folder / "modeling.py").write_text("raise SystemExit('this code was run')\n")


def without_head(folder: Path) -> None:
    import safetensors.torch

    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def index(folder: Path, file: str = "model-00001-of-00002.safetensors") -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))


def swap(folder: Path, name: str, content: bytes = b"x") -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)


def only(folder: Path, *names: str) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")


WRONG = {
    "empty": (only, "is empty: no config.json, so no model"),
    "tokenizer": (lambda f: only(f, "tokenizer.json"), "holds tokenizer.json: no config.json"),
    "adapter": (lambda f: only(f, "adapter_config.json"), "holds an adapter.*export model RUN DIR --merge"),
    "run": (lambda f: only(f, "recipe.json"), r"is a run of Taskmill.*model/final"),
    "gguf": (lambda f: only(f, "tiny.gguf"), "holds GGUF files"),
    "config": (lambda f: (f / "config.json").write_text("[1]"), "config.json holds no JSON object"),
    "json": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "pickle": (lambda f: swap(f, "pytorch_model.bin"), r"pickled \(pytorch_model\.bin\).*can run code.*safetensors"),
    "flax": (lambda f: swap(f, "flax_model.msgpack"), "weights are Flax files; only safetensors"),
    "weights": (lambda f: swap(f, "notes.txt"), "a configuration and no weights.*`train.weights: random`"),
    "shards": (index, r"1 of the files that model\.safetensors\.index\.json names are missing"),
    "outside": (lambda f: index(f, "../x.safetensors"), r"index\.json cannot be used: expected names of"),
    "damaged": (lambda f: swap(f, "model.safetensors", b"no tensors"), "cannot load this model"),
    "head": (without_head, r"lack 1 weights of LlamaForCausalLM, as lm_head\.weight"),
    "bert": (bert, "BertForMaskedLM is no causal language model"),
    "t5": (translator, "T5ForConditionalGeneration is no causal language model"),
    "code": (code, "brings its own Python code, which is never run here"),
    "unknown": (lambda f: change(f, model_type="lama"), r"knows no model_type 'lama' - did you mean 'llama'\?"),
    "quantised": (
        lambda f: change(f, quantization_config={"quant_method": "gptq"}),
        r"weights are quantised \(gptq\).*train\.quantization: 4bit",
    ),
    "shape": (lambda f: change(f, intermediate_size=48), "have other shapes than config.json says, 6 of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_a_folder_that_is_no_model_is_explained(base: Path, kind: str) -> None:
    spoil, message = WRONG[kind]
    spoil(base)
    with pytest.raises(ModelError, match=rf"field 'train\.model': (?s:.)*{message}") as found:
        begin(base)
    assert found.value.exit_code == 2 and "\n" not in str(found.value)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_is_not_what_the_file_asks_for(base: Path, key: str) -> None:
    change(base, **{key: "flash_attention_2"})
    assert begin(base).config._attn_implementation == "sdpa"


def test_a_tokenizer_larger_than_the_models_vocabulary_is_told(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = begin(base).get_input_embeddings().num_embeddings
    info = {"max_length": 16, "pad_id": 0, "bos_id": 1, "eos_id": 2, "added_tokens": {"<|m|>": rows}}
    train = Train(model=str(base))
    for size, told in ((rows + 1, False), (rows + 4, True)):  # one id is the run's own mark
        caplog.clear()
        training_model(train, {**info, "vocab_size": size}, 1, None)
        assert ("lacks 3 of the tokenizer's own ids" in caplog.text) == told
    caplog.clear()
    training_model(Train(model=str(base), weights="random"), {**info, "vocab_size": rows + 4}, 1, None)
    assert "own ids" not in caplog.text


def test_a_file_is_no_model_but_a_configuration_is_one_for_random_weights(base: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(ModelError, match=r"is a file|a configuration without weights.*weights: random"):
            begin(base / name)
    one, same, other = (begin(base / "config.json", weights="random", method="full") for _ in range(3))
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    (base / "model.safetensors").unlink()
    assert torch.equal(begin(base, weights="random").lm_head.weight, other.lm_head.weight)


def test_sharded_weights_are_read_and_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskmill.training.models import saving

    monkeypatch.setattr(saving.write_weights, "__defaults__", (20_000,))
    save_model(tiny_model(), None, tmp_path / "sharded")
    files = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert max((tmp_path / "sharded" / name).stat().st_size for name in files) < 25_000
    expected = begin(base)
    for name, weight in begin(tmp_path / "sharded").state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name])
    again = tiny_model(seed=9)
    saving.restore_weights(again, tmp_path / "sharded")
    assert torch.equal(again.lm_head.weight, expected.lm_head.weight)


def test_a_base_is_identified_by_its_files(base: Path, tmp_path: Path) -> None:
    train = Train(model="base")
    found = identity(train, lambda name: tmp_path / name)["model"]
    assert sorted(found) == ["config.json", "generation_config.json", "model.safetensors"]
    shape = identity(Train(model="base", weights="random"), lambda name: tmp_path / name)["model"]
    assert shape == {"config.json": found["config.json"]}
    alone = Train(model="base/config.json", weights="random")
    assert identity(alone, lambda name: tmp_path / name)["model"] == shape
    assert identity(Train(model="a/b", revision="v1"), lambda name: tmp_path / name) == {
        "model": {"id": "a/b", "revision": "v1"}
    }
    assert identity(Train(), lambda name: tmp_path / name) == {}
    assert located(train, lambda name: tmp_path / name).model == str(base)
    assert [portable_name(n) for n in ("a/b", "../base", "/home/me/base", None)] == [
        "a/b",
        "../base",
        "base",
        None,
    ]


# --------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with one model, and an empty cache."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        files = {path.name: path.read_bytes() for path in sorted(whole.iterdir())}
        files |= {"modeling.py": b"raise SystemExit('code was run')", "pytorch_model.bin": b"\x80\x04."}
        running.repositories[NAME] = Repository(COMMIT, files, branch="main")
        yield running


def test_a_model_comes_from_the_hub_and_then_from_its_cache(
    hub: HubServer, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "taskmill")
    expected = begin(whole).lm_head.weight
    assert torch.equal(begin(NAME).lm_head.weight, expected)
    assert f"`train.revision: {COMMIT}` pins it" in caplog.text
    asked = {request.rsplit("/", 1)[-1] for request in hub.requests}
    assert asked == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
    }
    hub.requests.clear()
    assert torch.equal(begin(NAME, revision=COMMIT).lm_head.weight, expected)
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(begin(NAME).lm_head.weight, expected)
    with pytest.raises(ModelError, match=r"someone/other.*|not in the Hub's cache.*HF_HUB_OFFLINE"):
        begin("someone/other")


def absent(hub: HubServer) -> str:
    hub.repositories.clear()
    return r"no such repository on the Hub \(a private one needs HF_TOKEN\)"


def gated(hub: HubServer) -> str:
    hub.repositories[NAME].gated = True
    return "is gated and gives no access.*Accept its terms on https://huggingface.co/someone/tiny"


def other_commit(hub: HubServer) -> str:
    hub.repositories[NAME].branch = None
    return "has no revision"


def without_config(hub: HubServer) -> str:
    del hub.repositories[NAME].files["config.json"]
    return "has no config.json"


def pickles(hub: HubServer) -> str:
    del hub.repositories[NAME].files["model.safetensors"]
    return r"pickled \(pytorch_model\.bin\)"


def no_weights(hub: HubServer) -> str:
    for name in ("model.safetensors", "pytorch_model.bin"):
        del hub.repositories[NAME].files[name]
    return r"has no model\.safetensors; only safetensors"


def broken(hub: HubServer) -> str:
    hub.faults += [Fault("status", method=method, times=99, status=500) for method in ("HEAD", "GET")]
    return "the Hub answered|cannot be asked"


def unreachable(hub: HubServer) -> str:
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # put back by the fixture
    return "the Hub cannot be asked"


@pytest.mark.parametrize(
    "fault", [absent, gated, other_commit, without_config, pickles, no_weights, broken, unreachable]
)
def test_a_repository_that_gives_no_model_is_explained(hub: HubServer, fault: Any) -> None:
    message = fault(hub)
    with pytest.raises(ModelError, match=message) as found:
        begin(NAME)
    assert found.value.exit_code == 2 and "\n" not in str(found.value)


def test_what_can_be_no_hub_id_is_asked_of_nobody(hub: HubServer, tmp_path: Path) -> None:
    for name in (tmp_path / "none", "../models/none", "a/b/c", "models/none.json"):
        with pytest.raises(ModelError, match=r"there is no such folder, and it is no Hub id.*hf download"):
            begin(name)
    assert hub.requests == [] and not base_files.is_hub_id("a/../b")
