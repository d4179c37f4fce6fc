"""The train stage: a causal language model fine-tuned on the packed mixture.

Reads the token arrays; writes `metrics.jsonl` (a line per update: step, loss, learning_rate, gradient_norm, num_tokens,
num_trained; and one per validation), `step-NNNNNN/` (the last checkpoints) and `final/`. Times and speeds are in the log and in
the manifest's `recorded`, so equal trainings have equal digests.

What an update takes is a pure function of the seed, the step and the number of processes (see `plan`); dropout draws on
generators that each update seeds anew. A training that is killed goes on from its newest checkpoint and ends with the same
weights, bit for bit on a CPU with the same numbers of threads and processes (torch adds up in another order on another
number; `recorded` has them). SIGINT and SIGTERM save a checkpoint at the end of the running update.

With several processes (see `distributed`) rank 0 runs `build`, the others `follow`: they write nothing and say nothing.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from taskmill.artifact import Inputs, Manifest, StageWriter
from taskmill.errors import TaskmillError
from taskmill.seeding import derive
from taskmill.settings import Settings
from taskmill.training.models import base_files
from taskmill.training.monitoring.metrics import read_metrics
from taskmill.training.monitoring.watchers import Watchers
from taskmill.training.packing.batches import Batch, prefetch
from taskmill.training.packing.plan import Plan, make_plan
from taskmill.training.tokens import Tokens
from taskmill.training.updating.distributed import PeerError, World, device_of, world
from taskmill.training.updating.schedule import learning_rate, validates_after

log = logging.getLogger("taskmill")

REVISION = 2
SECTIONS = ("train",)
READS = tuple(
    ("tokenize", name)
    for name in (
        "ids.bin",
        "trained.bin",
        "offsets.bin",
        "order.bin",
        "loss_weight.bin",
        "validation/ids.bin",
        "validation/trained.bin",
        "validation/offsets.bin",
        "validation/loss_weight.bin",
        "validation/levels.bin",
        "tokens.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    )
)

METRICS = "metrics.jsonl"
RATE_AFTER_SECONDS = 10.0
"""On a CPU its rate of matrix products, which takes a second to measure, is measured in trainings of at least this long."""


def external(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Return the identity of a named base model.

    Raises:
        UsageError: see base_files.identity.
    """
    return base_files.identity(settings.train, settings.path)


def build(settings: Settings, inputs: Inputs, out: StageWriter) -> Manifest:
    """Train, or go on training, and save the model.

    Raises:
        UsageError: the attention implementation lets documents see each other, or a setting does not fit.
        DataError: the base model cannot be loaded; a document is too long.
        TaskmillError: nothing to train on; the loss is not finite; another process failed.
        MissingPackageError: torch, transformers, safetensors or peft is absent.
        KeyboardInterrupt, SystemExit(143): stopped by SIGINT or SIGTERM, with a checkpoint saved.
    """
    parts = [out.identity.fingerprint]
    record, recorded = out.finished("model", parts), {}
    if record is None:
        joined = world()
        plan = _plan(settings, inputs, joined)
        joined.call("train")
        recorded = _Trainer(settings, plan, inputs.directory("tokenize"), joined, out).run()
        _free()
        with out.shard("model", parts) as shard:
            shard.counts.update(plan.counts())
            if settings.train.precision == "fp16":
                lines = read_metrics(out.directory / METRICS)
                shard.counts["num_skipped_updates"] = sum(
                    line.get("gradient_norm", 0) is None for line in lines
                )
            for path in sorted(p for p in out.directory.rglob("*") if p.is_file()):
                name = path.relative_to(out.directory).as_posix()
                if name == METRICS or name.startswith(("final/", "step-")):
                    shard.add_file(name)
        out.add(shard.record)
    return out.finish(recorded={"train": recorded} if recorded else {})


def follow(settings: Settings, inputs: Inputs) -> None:
    """Take part in a training that rank 0 builds.

    Raises:
        see build.
    """
    plan = _plan(settings, inputs, world())
    _Trainer(settings, plan, inputs.directory("tokenize"), world()).run()
    _free()


def _free() -> None:
    """Give a GPU's memory back, which other processes need for the next stage while this one is still there."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _plan(settings: Settings, inputs: Inputs, joined: World) -> Plan:
    tokens = Tokens.open(inputs.directory("tokenize"))
    return make_plan(settings.train, tokens, settings.seed, joined.size)


class _Trainer:
    """The state of a running training; without `out`, that of a process that helps rank 0."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        tokens_folder: Path,
        joined: World,
        out: StageWriter | None = None,
    ) -> None:
        """Make the model, check that it keeps documents apart, and take up the newest checkpoint."""
        from taskmill.training.models import model, saving
        from taskmill.training.monitoring import throughput, validation
        from taskmill.training.updating import checkpoint, update

        self._checkpoint, self._update, self._saving = checkpoint, update, saving
        self._throughput, self._validation = throughput, validation
        self.settings, self.plan, self.train, self.world = settings, plan, settings.train, joined
        self.tokens_folder, self.out = tokens_folder, out
        with joined.together():
            self.device = device_of(joined, model.pick_device(self.train.device))
            self.model, found = self._make_model()
        told = joined.from_main(
            {
                "attention": self.train.attention,
                "step": found.step if found else 0,
                "metrics_bytes": found.metrics_bytes if found else 0,
            }
        )
        self.train = dataclasses.replace(self.train, attention=told["attention"])
        self.step, self._metrics_bytes = int(told["step"]), int(told["metrics_bytes"])
        self.deviations = model.dropout_deviations(self.model, self.train.dropout)
        self.model.train()
        self.updater = update.Updater(self.model, self.train, joined, self.device)
        with joined.together():
            if not joined.is_main:
                self._install(self.train.attention)
            moments = checkpoint.read_moments(found) if found else {}
        if self.step:
            self.updater.restore(moments, found.scaling if found else {})
        joined.check_equal(plan.counts() | self._frozen_checksum())
        self.watchers: Watchers | None = None
        self._busy = 0.0  # seconds of updates
        self.meter = throughput.Meter(self.model, 1.0)  # of rate 1: its MFU is FLOP/s
        self._rate = throughput.matmul_rate(self.device, self.train.precision) if self._on_gpu else None

    @property
    def _on_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    # ------------------------------------------------------------------------------------ beginning

    def _make_model(self) -> tuple[Any, Any]:
        """Return the model that training begins or goes on with, and on rank 0 the checkpoint it was taken from."""
        from taskmill.training.models import model
        from taskmill.training.updating import sharding

        located = model.located(self.train, self.settings.path)
        info, seed, name = self.plan.tokens.info, self.settings.seed, self.train.model
        alone = self.world.size == 1 or self.train.method == "lora"
        if not alone and not self.world.is_main:
            return sharding.empty(model.training_model(located, info, seed, name, device="meta")), None
        made = model.training_model(located, info, seed, name, device=self.device)
        if self.out is None:
            return made, None
        self.model = made
        self.train = dataclasses.replace(self.train, attention=self._install(self.train.attention))
        found = self._checkpoint.newest_checkpoint(
            self.out.directory, self.out.identity.fingerprint, self.out.directory / METRICS
        )
        if found is not None:
            self._saving.restore_weights(made, found.folder)
            log.info("train: going on after update %d", found.step)
        return made if alone else made.cpu(), found

    def _install(self, wanted: str) -> str:
        """Switch the model's attention; on rank 0 documents are checked to be apart, by `auto` for each that it tries."""
        from taskmill.training.updating import attention

        name = attention.install(self.model, wanted, self.train.precision)
        if self.world.is_main and wanted != "auto":
            vocab_size = self.plan.tokens.info["vocab_size"]
            attention.isolation_check(self.model, name, vocab_size, self.train.precision)
        return name

    def _frozen_checksum(self) -> dict[str, int]:
        """Return a sum over the bits of weights that are not trained, which every process has for itself."""
        return {"frozen weights": self._update.frozen_checksum(self.model)} if self.world.size > 1 else {}

    # -------------------------------------------------------------------------------------- running

    def run(self) -> dict[str, Any]:
        """Train to the end and save the model; returns times and place, which belong to no digest."""
        first, started = self.step, time.monotonic()
        steps = range(self.step, self.plan.num_steps)
        with self._watching(), _stop_requests(self.world) as stop:
            with closing(prefetch(self.plan.batches(step, self.world.rank) for step in steps)) as ready:
                for batches in ready:
                    self._one_update(batches)
                    if validates_after(self.train, self.step, self.plan.num_steps):
                        self._validate()
                    stopped = self._stopped(stop)
                    if self.step % self.train.checkpoint_steps == 0 or stopped:
                        self._save()
                    if stopped:
                        log.warning("train: stopped after update %d; the same command goes on", self.step)
                        raise KeyboardInterrupt if stopped == signal.SIGINT else SystemExit(128 + stopped)
            if self.watchers is not None:
                self.watchers.sync()
        self._finish()
        seconds = time.monotonic() - started
        log.info("train: %d updates in %.1f s", self.step - first, seconds)
        return self._recorded(first, seconds)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Write metrics.jsonl, the live line and trackers, on rank 0."""
        with self.world.together():
            if self.out is not None:
                place = (self.out.directory, self.plan.num_steps, self.step, self._metrics_bytes)
                self.watchers = Watchers(self.settings, *place)
        with self.watchers or nullcontext():
            yield

    def _one_update(self, batches: list[Batch]) -> None:
        started = time.monotonic()
        rate = learning_rate(self.train, self.step, self.plan.num_steps)
        self._update.seed_generators(derive(self.settings.seed, "train.dropout", self.step, self.world.rank))
        try:
            done = self.updater.update(batches, self.plan.weight(self.step), rate)
        except PeerError:
            raise
        except TaskmillError as error:
            raise TaskmillError(f"update {self.step + 1}: {error}") from error
        self.step += 1
        if done.skipped:
            log.warning("train: update %d is left out: a gradient overflowed fp16", self.step)
        num_tokens, num_trained = self.world.sums(
            [sum(b.num_tokens for b in batches), sum(b.num_targets for b in batches)]
        )
        seconds = time.monotonic() - started
        self.meter.add(batches, seconds, int(num_tokens))
        self._busy += seconds
        if self.watchers is not None:
            line = {
                "step": self.step,
                "loss": done.loss,
                "learning_rate": rate,
                "gradient_norm": None if done.skipped else done.gradient_norm,
                "num_tokens": int(num_tokens),
                "num_trained": int(num_trained),
            }
            self.watchers.update(line, self.meter.recent().tokens_per_second, self._mfu())

    def _validate(self) -> None:
        with self.updater.gathered():
            losses = self._validation.validation_losses(
                self.model, self.tokens_folder, self.train, self.train.attention, self.world
            )
        if losses and self.watchers is not None:
            self.watchers.validation(self.step, losses)

    def _stopped(self, stop: list[int]) -> int:
        """Return the signal that any process was asked to stop by, or 0."""
        wanted = (signal.SIGINT, signal.SIGTERM)
        asked = self.world.sums([float(number in stop) for number in wanted])
        return next((int(number) for number, times in zip(wanted, asked) if times), 0)

    def _mfu(self) -> float | None:
        """Return the present share of what the device can do, where its rate is known."""
        if self._rate is None and self._busy > RATE_AFTER_SECONDS:
            self._rate = self._throughput.matmul_rate(self.device, self.train.precision)
        flops = self.meter.recent().mfu
        return flops / self._rate if flops and self._rate else None

    # --------------------------------------------------------------------------------------- saving

    def _save(self) -> None:
        """Write a checkpoint; every process hands in its shards."""
        with self.world.together(), self.updater.whole():
            moments = self.updater.moments()
            if self.out is None or self.watchers is None:
                return
            self.watchers.sync()
            self._checkpoint.save_checkpoint(
                self.out.directory,
                self.step,
                self.model,
                moments,
                scaling=self.updater.scaling(),
                metrics_bytes=self.watchers.num_bytes,
                fingerprint=self.out.identity.fingerprint,
                tokenizer_folder=self.tokens_folder / "tokenizer",
            )
            every, keep = self.train.checkpoint_steps, self.train.keep_checkpoints
            self._checkpoint.prune(self.out.directory, every, keep, newest=self.step)
            self.watchers.pause()

    def _finish(self) -> None:
        with self.world.together(), self.updater.whole():
            if self.out is not None:
                every, keep = self.train.checkpoint_steps, self.train.keep_checkpoints
                self._checkpoint.prune(self.out.directory, every, keep)
                folder = self.out.directory / "final"
                self._saving.save_model(self.model, self.tokens_folder / "tokenizer", folder)

    def _recorded(self, first: int, seconds: float) -> dict[str, Any]:
        speed = self.meter.total()
        mfu = speed.mfu / self._rate if speed.mfu and self._rate else None
        return {
            **self._update.place(self.device),
            "num_processes": self.world.size,
            "attention": self.train.attention,
            "deviations": self.deviations,
            "first_step": first,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(speed.tokens_per_second, 1),
            "mfu": None if mfu is None else round(mfu, 4),
        }


@contextmanager
def _stop_requests(joined: World) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying by the first.

    A second one has its usual effect, but not where a launcher passes on what a terminal has already sent to every process.
    """
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        requests.append(number)
        if joined.size == 1:
            signal.signal(number, before[signal.Signals(number)])
        log.warning("train: stopping after this update")

    for number in before:
        signal.signal(number, note)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
