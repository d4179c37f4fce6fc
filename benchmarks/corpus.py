"""The text that benchmarks of overlap and near-duplicates measure on, as Parquet files in a folder of their own.

    from corpus import corpus, sides
    train, evaluation = sides(corpus(work, data, megabytes=200))

Reads the examples of a catalogue that `taskmill curate` makes of the upstream files in `data`
(`examples/recipes/catalogue.yaml`), or of the demo where `data` is None. A document is an example: the texts of its
fields, then its references, one a line. Writes `NAME-SIZE-train.parquet` and `NAME-SIZE-evaluation.parquet` with the columns text
and task, compressed with zstd, in row groups of about 8 MB; files that are there are taken as they are, so delete the folder
after a change here.

- 12 in 100 tasks, drawn by a seed, are the evaluation side; all documents of a task stand on one side.
- Less text than the catalogue has: documents evenly taken. More: all of it, then copies of it in which a word in eight,
  drawn by a seed, is another word of the copy's surroundings. Copies stay with their task.
- `long_stream` adds copies of the train documents to them, for a train side that is only read as a stream.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from taskmill.leaves import text_leaves  # noqa: E402
from taskmill.seeding import derive, smallest  # noqa: E402

SEED = 7
EVALUATION_SHARE = 0.12
REPLACED = 8  # one word in so many is another one in a copy
ROW_GROUP_BYTES = 8 << 20
BREAK = "\x1e"  # stands between documents while their words are replaced
SCHEMA = pa.schema([("text", pa.string()), ("task", pa.string())])


@dataclass(frozen=True)
class Corpus:
    """The Parquet files of the two sides."""

    train: Path
    evaluation: Path


@dataclass(frozen=True)
class Documents:
    """Texts with the task of each."""

    texts: list[str]
    tasks: list[str]

    @property
    def num_bytes(self) -> int:
        """Bytes of UTF-8."""
        return sum(len(text.encode()) for text in self.texts)

    def take(self, rows: list[int] | range) -> Documents:
        """Return the documents of those rows."""
        return Documents([self.texts[i] for i in rows], [self.tasks[i] for i in rows])

    def of(self, wanted: Callable[[str], bool]) -> Documents:
        """Return the documents of those tasks."""
        return self.take([i for i, task in enumerate(self.tasks) if wanted(task)])

    def thinned(self, num_bytes: float) -> Documents:
        """Return about so many bytes of them, evenly taken; all where there are fewer."""
        share = min(1.0, num_bytes / self.num_bytes)
        steps = np.floor(np.arange(len(self.texts) + 1) * share)
        return self.take(np.flatnonzero(np.diff(steps)).tolist())


def catalogue(work: Path, data: Path | None) -> Path:
    """Return the run folder of a finished curate, in `work`."""
    run = work / ("demo" if data is None else "catalogue")
    recipe = "demo" if data is None else str(ROOT / "examples" / "recipes" / "catalogue.yaml")
    settings = [] if data is None else ["--set", f"data_root={data.resolve()}"]
    command = [sys.executable, "-m", "taskmill", "curate", recipe, *settings, "--run", str(run), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return run


def catalogue_documents(run: Path) -> Documents:
    """Return every example of a catalogue as one document, in the catalogue's order; empty ones are left out."""
    texts, tasks = list[str](), list[str]()
    for batch in ds.dataset(run / "tasks" / "examples").to_batches(columns=["task", "fields", "references"]):
        for task, fields, references in zip(*(column.to_pylist() for column in batch.columns)):
            leaves = [text for _, text in text_leaves(json.loads(fields))]
            text = "\n".join([*leaves, *references]).replace(BREAK, " ")
            if text.strip():
                texts.append(text.encode("utf-8", "replace").decode())
                tasks.append(task)
    return Documents(texts, tasks)


def evaluation_tasks(tasks: list[str]) -> set[str]:
    """Return the tasks of the evaluation side."""
    names = sorted(set(tasks))
    return {names[i] for i in smallest(round(EVALUATION_SHARE * len(names)), SEED, "evaluation side", names)}


def altered(texts: list[str], *key: object) -> list[str]:
    """Return the texts with one word in eight replaced by a word that stands elsewhere among them."""
    words = f" {BREAK} ".join(texts).split(" ")
    counter = np.arange(len(words), dtype=np.uint64) + np.uint64(derive(SEED, "altered", *key) >> 1)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        counter ^= counter >> np.uint64(30)
        counter *= np.uint64(factor)
    counter ^= counter >> np.uint64(31)
    places = np.flatnonzero(counter % np.uint64(REPLACED) == 0)
    others = (counter[places] >> np.uint64(8)) % np.uint64(len(words))
    for place, other in zip(places.tolist(), others.tolist()):
        if words[place] != BREAK and words[other] != BREAK:
            words[place] = words[other]
    return " ".join(words).split(f" {BREAK} ")


def copies(base: Documents, num_bytes: int, first: int = 0) -> Iterator[Documents]:
    """Yield altered copies of the base, a row group at a time, until there are `num_bytes` of them."""
    size, copy = 0, first
    while True:
        for number, part in enumerate(row_groups(base)):
            made = Documents(altered(part.texts, copy, number), part.tasks)
            yield made
            size += made.num_bytes
            if size >= num_bytes:
                return
        copy += 1


def row_groups(documents: Documents) -> Iterator[Documents]:
    """Yield runs of documents of about ROW_GROUP_BYTES."""
    first = size = 0
    for i, text in enumerate(documents.texts):
        size += len(text.encode())
        if size >= ROW_GROUP_BYTES or i == len(documents.texts) - 1:
            yield documents.take(range(first, i + 1))
            first, size = i + 1, 0


def corpus(work: Path, data: Path | None, megabytes: int) -> Corpus:
    """Return about so many megabytes of documents; build the files on first need."""
    name = f"{'demo' if data is None else 'real'}-{megabytes}"
    found = Corpus(work / f"{name}-train.parquet", work / f"{name}-evaluation.parquet")
    if not (found.train.exists() and found.evaluation.exists()):
        base = catalogue_documents(catalogue(work, data))
        chosen = evaluation_tasks(base.tasks)
        wanted, have = megabytes * 1_000_000, base.num_bytes
        more = copies(base, wanted - have) if have < wanted else iter(())
        groups = list(chain(row_groups(base.thinned(wanted)), more))
        write(found.train, (group.of(lambda task: task not in chosen) for group in groups))
        write(found.evaluation, (group.of(lambda task: task in chosen) for group in groups))
    return found


def long_stream(work: Path, data: Path | None, megabytes: int, start: int) -> Corpus:
    """Return so many megabytes of train documents, those of the `start` MB and more copies of them; its evaluation side."""
    found = corpus(work, data, start)
    path = found.train.with_name(found.train.name.replace(f"-{start}-", f"-{megabytes}-from-{start}-"))
    if not path.exists():
        base = read(found.train)
        more = copies(base, megabytes * 1_000_000 - base.num_bytes, first=100)
        write(path, chain(row_groups(base), more))
    return Corpus(path, found.evaluation)


def write(path: Path, groups: Iterable[Documents]) -> None:
    """Write groups of documents as row groups of one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for group in groups:
            writer.write_table(pa.table([group.texts, group.tasks], schema=SCHEMA))
    partial.rename(path)


def read(path: Path) -> Documents:
    """Return the documents of a file."""
    table = pq.read_table(path)
    return Documents(table["text"].to_pylist(), table["task"].to_pylist())


def sides(found: Corpus) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the texts of the train side and of the evaluation side, a chunk for each row group."""
    return pa.chunked_array(stream(found.train)), pa.chunked_array(stream(found.evaluation))


def stream(path: Path, first: int = 0, step: int = 1) -> Iterator[pa.Array]:
    """Yield the texts of every `step`-th row group from `first` on."""
    with pq.ParquetFile(path) as file:
        for number in range(first, file.num_row_groups, step):
            yield file.read_row_group(number, ["text"], use_threads=False)["text"].combine_chunks()
