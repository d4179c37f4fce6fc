"""The units of answering, done here or by several processes, each of which loads a model once.

A unit is one chunk of prompts for one model and number of shots: a shard of the stage. What it holds does not depend on who
does it. Work begins in this process; as soon as what is left would take longer than starting others, they take over: one
per GPU, or on a CPU as many as the workers and the memory allow, with the cores divided among them. How they are divided
depends on the workers, the machine and all that is asked, not on what is left of it, so that a run that was killed ends
with the same rows: with the number of threads the last decimal of a log-probability may change.

Reads prompts, models and the tokenizer; writes `outputs/` and the records of its shards.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from taskmill import engine
from taskmill.artifact import ShardRecord, ShardWriter
from taskmill.evaluation.answering.answers import OUTPUTS, Asker, answer
from taskmill.evaluation.answering.models import Model, open_model
from taskmill.evaluation.asking import fitting
from taskmill.evaluation.asking.prompts import Chunk, correct_option, is_ranked, read_prompts
from taskmill.evaluation.asking.rules import Rule
from taskmill.records import ENDPOINT
from taskmill.settings import Settings
from taskmill.storage import read_json
from taskmill.training.encoding.tokenizer import open_tokenizer

log = logging.getLogger("taskmill")

START_SECONDS = 8.0
"""What a process takes before it loads its model."""
PROBE_SECONDS = 1.0
"""Work begins here with the smallest units, for at least so long, to see how long the others will take."""
_SMALL_SLOWNESS = 8
"""Small units may take so many times as long as their size says: batches that are not full, files."""
_PROCESS_BYTES = 700_000_000
"""Memory of a process beside its model's weights."""
_FREE_SHARE = 0.8
_SECONDS_BETWEEN_LINES = 10.0
_GENERATED_COST = 4
"""Time of a generated prompt over that of a ranked one of the same length, roughly."""


@dataclass(frozen=True)
class Unit:
    """What is answered at a time."""

    name: str
    fingerprint: str
    model: Model
    rule: Rule
    shots: int
    chunk: Chunk

    @property
    def cost(self) -> int:
        """How long it takes, in some unit."""
        num_generated = self.chunk.num_prompts - self.chunk.num_ranked
        share = (self.chunk.num_ranked + _GENERATED_COST * num_generated) / max(self.chunk.num_prompts, 1)
        return math.ceil(self.chunk.num_bytes * share) + 1


@dataclass(frozen=True)
class Job:
    """A unit for a worker."""

    unit: Unit
    settings: Settings
    tokens: Path
    """Folder of the stage tokenize."""
    directory: Path
    """Folder of this stage."""
    num_threads: int | None = None
    """Threads of a worker; None leaves them as they are."""


def answer_units(
    units: Sequence[Unit], every: Sequence[Unit], settings: Settings, tokens: Path, directory: Path
) -> Iterator[ShardRecord]:
    """Answer units, of all that are asked, and yield the records of their shards.

    Raises:
        DamagedError, DataError, UsageError, MissingPackageError: see open_model and answer.
        TaskmillError: a worker was killed, or a server does not answer.
    """
    jobs = [Job(unit, settings, tokens, directory) for unit in units]  # long ones first, neighbours together
    places = {model.name: number for number, model in enumerate(dict.fromkeys(u.model for u in units))}
    jobs.sort(key=lambda job: (places[job.unit.model.name], -job.unit.cost.bit_length()))
    num_all = sum(unit.chunk.num_prompts for unit in every)
    progress = _Progress(num_all - sum(unit.chunk.num_prompts for unit in units), num_all)
    most = _most_processes(every, settings) if settings.workers > 1 else 1
    try:
        yield from _answer_jobs(jobs, most, _fitting_now(units, settings, most), progress)
    finally:
        _release()


def _answer_jobs(jobs: list[Job], share: int, most: int, progress: _Progress) -> Iterator[ShardRecord]:
    """Answer units here, the smallest first, and hand what is left to `most` other processes where that pays.

    Each process takes its share of the cores, one of `share`.
    """
    num_threads = max(1, engine.default_workers() // share) if share > 1 else None
    with _threads(num_threads):
        clock = _Clock()
        while jobs and not (most > 1 and clock.pays(jobs, most)):
            probing = most > 1 and clock.is_new
            job = jobs.pop(_smallest(jobs) if probing else 0)
            with clock.loading():
                _load(job)
            with clock.answering(job.unit.cost, probing):
                record = answer_job(job)
            progress.add(job.unit, record)
            yield record
    if jobs:
        _release()
        log.info("evaluate: %d processes answer", min(most, len(jobs)))
        jobs = [replace(job, num_threads=num_threads) for job in jobs]
        for job, record in zip(jobs, engine.run_jobs(answer_job, jobs, most)):
            progress.add(job.unit, record)
            yield record
    progress.end()


def _smallest(jobs: Sequence[Job]) -> int:
    """Return the place of the smallest unit of the first model: its units stand together, the largest first."""
    model = jobs[0].unit.model
    return next((i for i, job in enumerate(jobs) if job.unit.model != model), len(jobs)) - 1


def answer_job(job: Job) -> ShardRecord:
    """Answer a unit and write its shard, in this process.

    Raises:
        see answer_units.
    """
    unit = job.unit
    asker = _load(job)
    rows = read_prompts(unit.chunk.place)
    counts = fitting.FitCounts()
    context = fitting.Context(asker.context.tokenizer, asker.context.max_length, counts)
    asker = Asker(context, asker.evaluate, asker.seed, asker.scorer)
    with ShardWriter(job.directory, unit.name, unit.fingerprint) as shard:
        shard.write_table(output_path(unit.name), OUTPUTS, answer(asker, unit.rule, rows, unit.shots))
        num_ranked = sum(is_ranked(unit.rule, row) for row in rows)
        shard.count("predictions", len(rows))
        shard.count("ranked", num_ranked)
        shard.count("generated", len(rows) - num_ranked)
        missing = sum(bool(row["options"]) and correct_option(row) is None for row in rows)
        shard.count("answer_not_in_options", missing)
        shard.counts.update(vars(counts))
    assert shard.record is not None
    return shard.record


def output_path(name: str) -> str:
    """Return where the answers of a unit are, relative to the stage's folder."""
    return f"outputs/{name}.parquet"


# --------------------------------------------------------------------------------------------- models

_loaded: list[tuple[str, Asker]] = []
"""The one model that this process holds, under its name."""


def _load(job: Job) -> Asker:
    """Return the unit's model, loaded unless it is the one that is there already."""
    key = f"{job.directory}/{job.unit.model.name}/{job.unit.model.identity}"
    if _loaded and _loaded[0][0] == key:
        return _loaded[0][1]
    _release()
    info = read_json(job.tokens / "tokens.json")
    tokenizer = open_tokenizer(job.tokens / "tokenizer")
    scorer = None
    if job.unit.model.name != ENDPOINT:
        if job.num_threads is not None:
            import torch

            torch.set_num_threads(job.num_threads)
        scorer = open_model(job.unit.model, job.settings, tokenizer, info, engine.slot())
    context = fitting.Context(tokenizer, info["max_length"])
    asker = Asker(context, job.settings.evaluate, job.settings.seed, scorer)
    _loaded.append((key, asker))
    return asker


def _release() -> None:
    """Let go of the model that this process holds."""
    if not _loaded:
        return
    on_gpu = _loaded[0][1].scorer is not None and _loaded[0][1].scorer.device.type == "cuda"
    _loaded.clear()
    gc.collect()
    if on_gpu:
        import torch

        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------ processes


def _most_processes(units: Sequence[Unit], settings: Settings) -> int:
    """Return how many processes could take part in all that is asked, on this machine with nothing else on it."""
    if units[0].model.name == ENDPOINT:
        return 1
    number = min(settings.workers, len(units))
    if _on_gpu(settings):
        import torch

        return int(min(number, torch.cuda.device_count()))
    return _fitting(number, memory()[0], units, settings)


def _on_gpu(settings: Settings) -> bool:
    from taskmill.training.models.model import pick_device

    return bool(pick_device(settings.train.device).type == "cuda")


def _fitting_now(units: Sequence[Unit], settings: Settings, most: int) -> int:
    """Return how many of `most` processes find room in the memory that is free."""
    return most if most == 1 or _on_gpu(settings) else _fitting(most, memory()[1], units, settings)


def _fitting(number: int, num_bytes: int | None, units: Sequence[Unit], settings: Settings) -> int:
    """Return how many of a number of processes fit in so much memory, at least one."""
    if num_bytes is not None:
        largest = max(_held_bytes(model, settings) for model in {unit.model for unit in units})
        number = min(number, int(num_bytes * _FREE_SHARE / (largest + _PROCESS_BYTES)))
    return max(number, 1)


def _held_bytes(model: Model, settings: Settings) -> int:
    """Return the memory that a model's weights take, about; their files are in fp32."""
    size = 4 if settings.evaluate.precision == "fp32" else 2
    if settings.train.method != "lora":
        return model.num_bytes * size // 4
    from taskmill.training.models.model import count_parameters, located

    return size * count_parameters(located(settings.train, settings.path))[0] + model.num_bytes


def memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory that processes may have in all, and what is free of it; None where nothing says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        total, free = found["MemTotal"], found["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return None, None
    with suppress(OSError, ValueError):  # no group of processes with a limit
        group = Path("/sys/fs/cgroup")
        limit, used = (
            int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current")
        )
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


class _Clock:
    """How long this process took to load models and to answer."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._load_seconds = self._seconds = 0.0
        self._cost = 0
        self._probing = True

    @property
    def is_new(self) -> bool:
        """Whether it is too early to say how long units take."""
        return self._probing and self._seconds < PROBE_SECONDS

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Time the loading of a model; the longest counts."""
        started = time.monotonic()
        yield
        self._load_seconds = max(self._load_seconds, time.monotonic() - started)

    @contextmanager
    def answering(self, cost: int, probing: bool) -> Iterator[None]:
        """Time the answers to a unit of this cost; small ones, to probe, count until there is a large one."""
        started = time.monotonic()
        yield
        if self._probing and not probing:
            self._seconds, self._cost, self._probing = 0.0, 0, False
        self._seconds, self._cost = self._seconds + time.monotonic() - started, self._cost + cost

    def pays(self, jobs: Sequence[Job], most: int) -> bool:
        """Return whether several processes would be done with `jobs` earlier than this one."""
        if self.is_new or not self._cost:
            return False
        left = self._seconds / self._cost * sum(job.unit.cost for job in jobs)
        if self._probing:
            left /= _SMALL_SLOWNESS
        return left * (1 - 1 / min(most, len(jobs))) > START_SECONDS + self._load_seconds


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let this process have as many threads as each of several would have; None changes nothing."""
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Progress:
    """Lines with prompts answered, of all, and how many a second."""

    def __init__(self, num_done: int, num_all: int) -> None:
        """`num_done` of the `num_all` prompts were answered by an earlier run."""
        self._before, self._num, self._all = num_done, num_done, num_all
        self._started = self._said = time.monotonic()

    def add(self, unit: Unit, record: ShardRecord) -> None:
        """Count a unit, and say so where the last line was a while ago."""
        self._num += record.counts["predictions"]
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._say(f", now the {unit.model.name} model")

    def end(self) -> None:
        """Say what it came to."""
        self._say("")

    def _say(self, more: str) -> None:
        seconds = time.monotonic() - self._started
        rate = (self._num - self._before) / seconds if seconds > 0 else 0.0
        log.info("evaluate: %d of %d prompts answered, %.1f a second%s", self._num, self._all, rate, more)
