"""The train stage: a causal language model fine-tuned on the packed mixture.

Reads the token arrays; writes `metrics.jsonl` (a line per update: step, loss, learning_rate, gradient_norm, num_tokens,
num_trained), `step-NNNNNN/` (the last checkpoints) and `final/`. Times are in the log and in the manifest's
`recorded`, so equal trainings have equal digests.

Update s takes packs [s * batch_size, (s + 1) * batch_size): a pure function of the seed and the step. A training that
is killed goes on from its newest checkpoint and ends with the same weights, bit for bit on a CPU with the same number of
threads (torch adds up in another order on another number; the manifest's `recorded` has it). SIGINT and SIGTERM save
one at the end of the running update.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.artifact import Inputs, Manifest, StageWriter
from taskmill.errors import DamagedError, TaskmillError, UsageError
from taskmill.recipe import Train
from taskmill.seeding import derive
from taskmill.settings import Settings
from taskmill.storage import file_digest
from taskmill.training.batches import Batch, collate, target_weights
from taskmill.training.metrics import Metrics
from taskmill.training.packing import Packs, pack
from taskmill.training.progress import Progress
from taskmill.training.schedule import count_steps, learning_rate
from taskmill.training.tokens import Tokens

log = logging.getLogger("taskmill")

REVISION = 1
SECTIONS = ("train",)
READS = tuple(
    ("tokenize", name)
    for name in (
        "ids.bin",
        "trained.bin",
        "offsets.bin",
        "loss_weight.bin",
        "tokens.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    )
)

METRICS = "metrics.jsonl"
_BASE_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the identity of a named base model: the digests of its files, or its Hub id and revision.

    Raises:
        UsageError: a file, or a folder that lies beside the present directory and not beside the recipe.
    """
    train: Train = settings.train
    if train.model is None:
        return {}
    folder = settings.path(train.model)
    if not folder.is_dir():
        if folder.exists() or Path(train.model).exists():
            raise UsageError(
                f"train.model: {folder} is no folder; expected one relative to the recipe, or a Hub id"
            )
        return {"model": {"id": train.model, "revision": train.revision}}
    files = {path.name: path for pattern in _BASE_FILES for path in folder.glob(pattern)}
    return {"model": {name: file_digest(path) for name, path in sorted(files.items())}}


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Train, or go on training, and save the model.

    Raises:
        UsageError: the attention implementation lets documents see each other, or a setting does not fit.
        DataError: the base model cannot be loaded; a document is too long.
        TaskmillError: nothing to train on; the loss is not finite.
        MissingPackageError: torch, transformers, safetensors or peft is absent.
        KeyboardInterrupt, SystemExit(143): stopped by SIGINT or SIGTERM, with a checkpoint saved.
    """
    parts = [out.identity.fingerprint]
    record, recorded = out.finished("model", parts), {}
    if record is None:
        plan = make_plan(settings.train, Tokens.open(inputs.directory("tokenize")), settings.seed)
        trainer = _Trainer(settings, plan, inputs.directory("tokenize") / "tokenizer", out)
        recorded = trainer.run()
        with out.shard("model", parts) as shard:
            shard.counts.update(plan.counts())
            for path in sorted(p for p in out.directory.rglob("*") if p.is_file()):
                name = path.relative_to(out.directory).as_posix()
                if name == METRICS or name.startswith(("final/", "step-")):
                    shard.add_file(name)
        out.add(shard.record)
    return out.finish(recorded={"train": recorded} if recorded else {})


# ------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Plan:
    """Everything about a training that is known before it starts."""

    train: Train
    tokens: Tokens
    packs: Packs
    num_steps: int
    num_without_target: int
    """Documents left out since no token of theirs is a target."""

    def batches(self, step: int) -> list[Batch]:
        """Return the forward passes of an update, counted from 0."""
        size, micro = self.train.batch_size, self.train.micro_batch_size
        last = min((step + 1) * size, self.packs.num_packs)
        pad_id = int(self.tokens.info["pad_id"] or 0)
        return [
            collate(self.tokens, self.packs, first, min(first + micro, last), pad_id)
            for first in range(step * size, last, micro)
        ]

    def counts(self) -> dict[str, int]:
        """Return what the whole training goes through."""
        num_packs = min(self.num_steps * self.train.batch_size, self.packs.num_packs)
        documents = self.packs.documents[: self.packs.offsets[num_packs]]
        lengths = self.tokens.offsets[documents + 1] - self.tokens.offsets[documents]
        return {
            "num_steps": self.num_steps,
            "num_packs": num_packs,
            "num_documents": len(documents),
            "num_documents_without_target": self.num_without_target,
            "num_tokens": int(lengths.sum()),
        }


def make_plan(train: Train, tokens: Tokens, seed: int) -> Plan:
    """Pack the documents and count the updates.

    Raises:
        DataError: a document is longer than `max_length`, or a loss weight cannot be used.
        DamagedError: a token id that the tokenizer does not have.
        TaskmillError: no document has a target.
    """
    info = tokens.info
    if len(tokens.ids) and int(np.max(tokens.ids)) >= info["vocab_size"]:
        raise DamagedError(f"ids.bin holds an id above the tokenizer's {info['vocab_size']} ids")
    lengths = np.diff(tokens.offsets)
    teaches = target_weights(tokens) > 0
    packs = pack(np.where(teaches, lengths, 0), info["max_length"], train.packing_window, seed)
    if not packs.num_packs:
        raise TaskmillError(
            "no document of the mixture has a token to learn; look at `taskmill inspect RUN tokenize`"
        )
    fill = lengths[packs.documents].sum() / (packs.num_packs * info["max_length"])
    log.info(
        "train: %d documents in %d packs, %.2f %% full", len(packs.documents), packs.num_packs, 100 * fill
    )
    without = int(((lengths > 0) & ~teaches).sum())
    return Plan(train, tokens, packs, count_steps(train, packs.num_packs), without)


# ------------------------------------------------------------------------------------------- training


class _Trainer:
    """The state of a running training."""

    def __init__(self, settings: Settings, plan: Plan, tokenizer_folder: Path, out: StageWriter) -> None:
        """Make the model, check that it keeps documents apart, and take up the newest checkpoint."""
        from taskmill.training import attention, checkpoint, model, saving, update

        self._checkpoint, self._update, self._save_model = checkpoint, update, saving.save_model
        self.plan, self.train, self.directory = plan, plan.train, out.directory
        self.tokenizer_folder, self.fingerprint = tokenizer_folder, out.identity.fingerprint
        device = model.pick_device(self.train.device)
        self.model = model.training_model(
            model.located(self.train, settings.path), plan.tokens.info, settings.seed, self.train.model
        ).to(device)
        self.train = dataclasses.replace(
            self.train, attention=attention.install(self.model, self.train.attention)
        )
        attention.isolation_check(self.model, self.train.attention, plan.tokens.info["vocab_size"])
        self.model.train()
        self.optimizer = update.make_optimizer(self.model, self.train)
        update.seed_generators(derive(settings.seed, "train.dropout"))
        self.device, self.step = str(device), 0
        metrics_bytes = 0
        found = checkpoint.newest_checkpoint(self.directory, self.fingerprint, self.directory / METRICS)
        if found is not None:
            checkpoint.restore(found, self.model, self.optimizer)
            self.step, metrics_bytes = found.step, found.metrics_bytes
            log.info("train: going on after update %d", self.step)
        self.metrics = Metrics(self.directory / METRICS, metrics_bytes)

    def run(self) -> dict[str, Any]:
        """Train to the end and save the model; returns times and place, which belong to no digest."""
        started, first, num_tokens = time.monotonic(), self.step, 0
        with self.metrics, _stop_requests() as stop:
            progress = Progress(self.plan.num_steps)
            while self.step < self.plan.num_steps:
                line = self._one_update()
                num_tokens += line["num_tokens"]
                progress.show(line)
                if self.step % self.train.checkpoint_steps == 0 or stop:
                    self._save()
                if stop:
                    log.warning("train: stopped after update %d; the same command goes on", self.step)
                    raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])
            self.metrics.sync()
        seconds = time.monotonic() - started
        self._checkpoint.prune(self.directory, self.train.checkpoint_steps, self.train.keep_checkpoints)
        self._save_model(self.model, self.tokenizer_folder, self.directory / "final")
        speed = num_tokens / max(seconds, 1e-9)
        log.info("train: %d updates in %.1f s, %.0f tokens/s", self.step - first, seconds, speed)
        return {
            "device": self.device,
            "num_threads": self._update.num_threads(),
            "first_step": first,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(speed, 1),
        }

    def _one_update(self) -> dict[str, Any]:
        batches = self.plan.batches(self.step)
        rate = learning_rate(self.train, self.step, self.plan.num_steps)
        try:
            done = self._update.update(self.model, self.optimizer, batches, self.train, rate)
        except TaskmillError as error:
            raise TaskmillError(f"update {self.step + 1}: {error}") from error
        self.step += 1
        line = {
            "step": self.step,
            "loss": done.loss,
            "learning_rate": rate,
            "gradient_norm": done.gradient_norm,
            "num_tokens": sum(batch.num_tokens for batch in batches),
            "num_trained": sum(batch.num_targets for batch in batches),
        }
        self.metrics.append(line)
        return line

    def _save(self) -> None:
        self.metrics.sync()
        self._checkpoint.save_checkpoint(
            self.directory,
            self.step,
            self.model,
            self.optimizer,
            metrics_bytes=self.metrics.num_bytes,
            fingerprint=self.fingerprint,
            tokenizer_folder=self.tokenizer_folder,
        )
        self._checkpoint.prune(
            self.directory, self.train.checkpoint_steps, self.train.keep_checkpoints, newest=self.step
        )


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying by the first; a second one has its usual effect."""
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        requests.append(number)
        signal.signal(number, before[signal.Signals(number)])
        log.warning("train: stopping after this update")

    for number in before:
        signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
