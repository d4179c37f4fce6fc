"""A run in miniature, finished up to the trained model, and a tiny tokenizer and model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation_run import MAX_LENGTH, TRAIN, WORDS, inputs_of, prompt_rows, resolved, stage, task_rows

from taskmill.artifact import Identity, ShardWriter
from taskmill.recipe import Evaluate
from taskmill.records import SCHEMAS
from taskmill.settings import Settings
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer, train_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two threads than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 3
    with ShardWriter(folder, "tokenizer", "x") as shard:
        train_tokenizer(iter(texts), 320, shard)
    return folder / "tokenizer"


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> TextTokenizer:
    return open_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def make_model(tokenizer: TextTokenizer) -> Callable[..., Any]:
    """A tiny random Llama whose logits are far enough apart to tell right from wrong."""

    def make(seed: int = 0, scale: float = 4.0) -> Any:
        import torch

        from taskmill.training.models.model import initial_model

        model = initial_model(
            TRAIN, tokenizer.vocab_size, MAX_LENGTH, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id, seed=seed,
        ).eval()  # fmt: skip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale if parameter.ndim > 1 else 1.0)
        return model

    return make


@pytest.fixture
def run(tmp_path: Path, tokenizer_folder: Path, make_model: Callable[..., Any]) -> Path:
    """The folder of a run whose stages up to train are finished."""
    from taskmill.training.models.saving import save_model

    prompts = prompt_rows()
    examples = sorted({(row["task"], row["example"], row["split"]) for row in prompts})
    members = [
        {"example": e, "task": t, "split": s, "reason": None, "rule": None, "group": i // 2,
         "content": bytes(32), "clean": i % 2 == 0, "clean_rare": i % 2 == 0}
        for i, (t, e, s) in enumerate(examples)
    ]  # fmt: skip
    info = {"max_length": MAX_LENGTH, "vocab_size": 320, "tokenizer": "abc"}

    def tokens(shard: ShardWriter) -> None:
        shard.write_bytes("tokens.json", json.dumps(info).encode())
        for path in tokenizer_folder.iterdir():
            shard.write_bytes(f"tokenizer/{path.name}", path.read_bytes())

    def model(shard: ShardWriter) -> None:
        save_model(make_model(7), tokenizer_folder, tmp_path / "model" / "final")
        for path in sorted((tmp_path / "model" / "final").iterdir()):
            shard.add_file(f"final/{path.name}")

    stage(tmp_path / "tasks", "curate",
          lambda s: s.write_table("tasks.parquet", SCHEMAS["tasks/tasks"], task_rows()))  # fmt: skip
    stage(tmp_path / "splits", "split",
          lambda s: s.write_table("members.parquet", SCHEMAS["splits/members"], members))  # fmt: skip
    stage(tmp_path / "prompts", "render",
          lambda s: s.write_table("prompts/a.parquet", SCHEMAS["prompts/prompts"], prompts))  # fmt: skip
    stage(tmp_path / "tokens", "tokenize", tokens)
    stage(tmp_path / "model", "train", model)
    return tmp_path


@pytest.fixture
def evaluate_run(run: Path) -> Callable[..., Any]:
    """Run the evaluate stage over the miniature run; returns its manifest."""

    def go(force: bool = False, predict_only: bool = False, workers: int = 1, **evaluate: Any) -> Any:
        from taskmill.artifact import Manifest, open_stage
        from taskmill.evaluation import build

        default = {"shots": (0, 2), "max_new_tokens": 6, "num_resamples": 50, "zero_shot_only": ()}
        settings = Settings(resolved(Evaluate(**{**default, **evaluate}), run), build.SECTIONS, workers)
        settings.predict_only = predict_only
        inputs = inputs_of(run)
        identity = Identity(
            "evaluate", build.REVISION, build.fingerprinted(settings), settings.seed, None,
            inputs.identity(build.reads(settings, inputs)), build.external(settings, inputs),
        )  # fmt: skip
        opened = open_stage(run / "scores", identity, force)
        return opened if isinstance(opened, Manifest) else build.build(settings, inputs, opened)

    return go
