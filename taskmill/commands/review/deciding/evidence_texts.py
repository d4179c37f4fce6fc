"""The evidence of one pair as texts side by side, the shared windows marked.

Reads overlap's tables evidence, hits, touched and frequent, and the examples that they name. Tables are read when they are first
asked for and kept; of the examples, those that were found last.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskmill.artifact import Inputs
from taskmill.commands.evidence import (
    FREQUENT,
    SHARED,
    Toned,
    clip,
    marked_sides,
    shared_windows,
    side_texts,
    tones,
)
from taskmill.commands.finished import Row
from taskmill.commands.review.deciding.filters import Key, PairRow
from taskmill.errors import DamagedError
from taskmill.normalisers import Normaliser
from taskmill.splits.deciding.decisions import Pair
from taskmill.splits.sharing.examples import I64

NUM_KEPT = 256
"""Examples that are kept in memory, and row groups of which the ids are."""
NUM_WINDOWS = 5
"""Windows named of an item that overlap named none of."""
_COLUMNS = ("task", "fields", "references", "options")
_BATCH = 500


@dataclass(frozen=True)
class Window:
    """Normalised words that both examples share."""

    text: str
    frequent: bool
    """Whether it stands in so many groups that the figures without frequent text leave it out."""


@dataclass(frozen=True)
class Item:
    """A train example and an evaluation example that share text."""

    train_example: str
    eval_example: str
    windows: tuple[Window, ...]
    """Some of the windows; the texts have all of them marked."""
    side: str
    """Where the evaluation example is hit: `input`, `output` or `both`."""
    same_output: bool
    """Whether the evaluation example has a train example with an equal output."""
    short_equal: bool
    """Whether the two are short and equal as a whole."""
    frequent: bool
    """Whether all that the evaluation example shares with the train task is frequent."""
    train: Mapping[str, Toned]
    """`input` and `output` -> text in parts, each with how it is marked, clipped: list of (text, 0 not, 1 shared, 2 shared as
    frequent text only)."""
    eval: Mapping[str, Toned]


@dataclass(frozen=True)
class Evidence:
    """A pair with some of its items."""

    row: PairRow
    num_items: int
    """Items that there are in all: the shown windows first, then the other hit evaluation examples."""
    start: int
    items: tuple[Item, ...]


class Examples:
    """Rows of tasks/examples by id; what was found last is kept."""

    def __init__(self, files: Sequence[Path], shards: Mapping[str, str]) -> None:
        """Use the table's files; `shards` says in which a task is: the stem of its name."""
        self._files, self._shards = {path.stem: path for path in files}, shards
        self._bounds: dict[Path, list[tuple[str, str] | None]] = {}
        self._ids = OrderedDict[tuple[Path, int], pa.ChunkedArray]()
        self._rows = OrderedDict[str, Row]()

    def find(self, ids: Collection[str]) -> dict[str, Row]:
        """Return id -> row, of those that there are.

        Raises:
            DamagedError: a file is missing or damaged.
        """
        wanted: dict[tuple[Path, int], dict[int, str]] = {}
        for example in ids:
            if example not in self._rows:
                group, place = self._place(example)
                if group is not None:
                    wanted.setdefault(group, {})[place] = example
        for (path, number), places in wanted.items():
            for place, row in _read_rows(path, number, sorted(places)):
                self._rows[places[place]] = row
        found = {example: self._rows[example] for example in ids if example in self._rows}
        while len(self._rows) > NUM_KEPT:
            self._rows.popitem(last=False)
        return found

    def _place(self, example: str) -> tuple[tuple[Path, int] | None, int]:
        """Return (file, row group) and the place therein; (None, -1) of an example that is not there."""
        shard = self._files.get(self._shards.get(example.partition("#")[0], ""))
        for path in [shard] if shard is not None else self._files.values():
            for number, bounds in enumerate(self._groups(path)):
                if bounds is None or bounds[0] <= example <= bounds[1]:
                    place: int = pc.index(self._group_ids(path, number), example).as_py()
                    if place >= 0:
                        return (path, number), place
        return None, -1

    def _groups(self, path: Path) -> list[tuple[str, str] | None]:
        """Return the first and last id of each row group; None where the file does not say."""
        if path not in self._bounds:
            with _Opened(path) as file:
                column = file.schema_arrow.names.index("example")
                chunks = [file.metadata.row_group(g).column(column) for g in range(file.num_row_groups)]
                stats = [chunk.statistics if chunk.is_stats_set else None for chunk in chunks]
                self._bounds[path] = [
                    (s.min, s.max) if s is not None and s.has_min_max else None for s in stats
                ]
        return self._bounds[path]

    def _group_ids(self, path: Path, group: int) -> pa.ChunkedArray:
        if (path, group) not in self._ids:
            with _Opened(path) as file:
                self._ids[path, group] = file.read_row_group(group, columns=["example"])["example"]
            if len(self._ids) > NUM_KEPT:
                self._ids.popitem(last=False)
        return self._ids[path, group]


def _read_rows(path: Path, group: int, places: Sequence[int]) -> Iterator[tuple[int, Row]]:
    """Yield the rows at ascending places of a row group, and read no further than the last."""
    first, left = 0, list(places)
    with _Opened(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=list(_COLUMNS)):
            while left and left[0] < first + batch.num_rows:
                place = left.pop(0)
                yield place, batch.slice(place - first, 1).to_pylist()[0]
            if not left:
                return
            first += batch.num_rows


class _Opened:
    """A Parquet file; what goes wrong with it is a DamagedError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> pq.ParquetFile:
        try:
            self._file = pq.ParquetFile(self._path, page_checksum_verification=True)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._damaged(error) from error
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, (OSError, pa.ArrowException)):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DamagedError(
            f"{self._path} is missing or damaged ({reason}); `taskmill verify RUN` lists what is"
        )


class ByPair:
    """The rows of a table, found by pair."""

    def __init__(self, table: pa.Table, pairs: Sequence[Pair]) -> None:
        """Number the pair of each row, with the place of the pair in `pairs`; rows of others have no number."""
        names = sorted({task for pair in pairs for task in pair.tasks})
        place = {name: number for number, name in enumerate(names)}
        keys = np.array([place[p.train_task] * len(names) + place[p.eval_task] for p in pairs], np.int64)
        order = np.argsort(keys)
        train, evaluation = (
            pc.fill_null(pc.index_in(table[column], value_set=pa.array(names, pa.string())), -1)
            .to_numpy()
            .astype(np.int64)
            for column in ("train_task", "eval_task")
        )
        wanted = train * len(names) + evaluation
        at = np.minimum(np.searchsorted(keys[order], wanted), max(0, len(keys) - 1))
        found = (keys[order][at] == wanted) & (train >= 0) & (evaluation >= 0) if len(keys) else wanted < 0
        self.pair: I64 = np.where(found, order[at], -1) if len(keys) else wanted
        """int64[num_rows]: the number of each row's pair, or -1."""
        self._rows: I64 = np.argsort(self.pair, kind="stable")
        self._sorted: I64 = self.pair[self._rows]

    def of(self, pair: int) -> I64:
        """Return the rows of a pair, in the order of the table."""
        first, last = np.searchsorted(self._sorted, [pair, pair + 1])
        return self._rows[first:last]


class Shared:
    """What overlap found about the pairs: who was hit by whom, and how many examples a set of decisions takes out."""

    def __init__(self, inputs: Inputs, pairs: Sequence[Pair]) -> None:
        """Use the finished stage overlap; tables are read when they are asked for."""
        self._inputs, self._pairs, self._lock = inputs, pairs, threading.RLock()

    @cached_property
    def hits(self) -> tuple[pa.Table, ByPair]:
        """The table hits."""
        columns = ["train_task", "eval_task", "eval_example", "train_example"]
        return self._read("hits", [*columns, "num_grams", "side", "same_output", "frequent"])

    @cached_property
    def touched(self) -> tuple[pa.Table, ByPair]:
        """The table touched."""
        return self._read("touched", ["train_task", "eval_task", "train_example"])

    @cached_property
    def evidence(self) -> tuple[pa.Table, ByPair]:
        """The table evidence."""
        columns = ["train_task", "eval_task", "train_example", "eval_example", "window"]
        return self._read("evidence", columns)

    @cached_property
    def frequent(self) -> frozenset[str]:
        """The texts of frequent grams."""
        return frozenset(self._inputs.table("overlap", "frequent", ["text"])["text"].to_pylist())

    @cached_property
    def _train_examples(self) -> I64:
        return _codes(self.touched[0]["train_example"])

    @cached_property
    def _eval_examples(self) -> I64:
        return _codes(self.hits[0]["eval_example"])

    def _read(self, name: str, columns: Sequence[str]) -> tuple[pa.Table, ByPair]:
        table = self._inputs.table("overlap", name, columns).combine_chunks()
        found = ByPair(table, self._pairs)
        return table.drop_columns(["train_task", "eval_task"]), found

    def warm(self) -> None:
        """Read everything now."""
        with self._lock:
            self.num_touched([]), self.num_hit([]), self.evidence, self.frequent

    def num_touched(self, pairs: Sequence[int]) -> int:
        """Return how many distinct train examples share text with the evaluation task of one of these pairs."""
        with self._lock:
            return self._distinct(self._train_examples, self.touched[1], pairs)

    def num_hit(self, pairs: Sequence[int]) -> int:
        """Return how many distinct evaluation examples share text with the train task of one of these pairs."""
        with self._lock:
            return self._distinct(self._eval_examples, self.hits[1], pairs)

    def _distinct(self, codes: I64, rows: ByPair, pairs: Sequence[int]) -> int:
        chosen = np.zeros(len(self._pairs) + 1, bool)
        chosen[list(pairs)] = True
        return len(np.unique(codes[chosen[rows.pair]]))

    def items(self, pair: int) -> list[tuple[Key, list[str]]]:
        """Return ((train example, evaluation example), windows) of a pair: first what overlap kept, then other hits."""
        with self._lock:
            (evidence, by_evidence), (hits, by_hits) = self.evidence, self.hits
        found: dict[Key, list[str]] = {}
        for row in evidence.take(by_evidence.of(pair)).to_pylist():
            found.setdefault((row["train_example"], row["eval_example"]), []).append(row["window"])
        known = {evaluated for _, evaluated in found}
        others = hits.select(["train_example", "eval_example"]).take(by_hits.of(pair))
        for train, evaluated in zip(*(others[name].to_pylist() for name in others.column_names)):
            if evaluated not in known:
                found[train, evaluated] = []
        return list(found.items())

    def hit(self, pair: int, examples: Collection[str]) -> dict[str, Row]:
        """Return evaluation example -> its row of hits."""
        with self._lock:
            hits, by_pair = self.hits
        rows = hits.take(by_pair.of(pair))
        wanted = rows.filter(
            pc.is_in(rows["eval_example"], value_set=pa.array(sorted(examples), pa.string()))
        )
        return {row["eval_example"]: row for row in wanted.to_pylist()}


def _codes(column: pa.ChunkedArray) -> I64:
    """Return a number for each value; equal ones have the same."""
    encoded = column.combine_chunks().dictionary_encode() if len(column) else None
    codes: I64 = np.zeros(0, np.int64) if encoded is None else encoded.indices.to_numpy().astype(np.int64)
    return codes


class Texts:
    """Makes items of evidence: finds the examples, marks what they share."""

    def __init__(
        self,
        examples: Examples,
        shared: Shared,
        outputs: Mapping[str, Sequence[str]],
        n: int,
        normaliser: Normaliser | None,
    ) -> None:
        """Use the tables; `outputs` gives each task's output_fields, `n` the words of a window."""
        self._examples, self._shared, self._outputs = examples, shared, outputs
        self._n, self._normaliser, self._lock = n, normaliser, threading.Lock()

    def warm(self) -> None:
        """Read and compile now what the first item needs."""
        self._shared.warm()
        tones("\u00e9", {"e": SHARED}, self._normaliser)

    def items(self, pair: int, start: int, count: int) -> tuple[tuple[Item, ...], int]:
        """Return `count` items of a pair from `start`, and how many there are."""
        found = self._shared.items(pair)
        shown = found[start : start + count]
        with self._lock:
            rows = self._examples.find({example for key, _ in shown for example in key})
        hits = self._shared.hit(pair, [evaluated for (_, evaluated), _ in shown])
        made = [self._item(key, windows, rows, hits.get(key[1], {})) for key, windows in shown]
        return tuple(made), len(found)

    def _item(self, key: Key, named: Sequence[str], rows: Mapping[str, Row], hit: Mapping[str, Any]) -> Item:
        train, evaluated = (
            side_texts(rows[example], self._outputs.get(rows[example]["task"], ())) if example in rows else {}
            for example in key
        )
        short = hit.get("num_grams", 1) == 0
        if short:
            every = [] if named else [self._all_words(texts for texts in evaluated.values())]
        else:
            every = sorted(shared_windows(train, evaluated, self._n, self._normaliser) - set(named))
        frequent = self._shared.frequent
        windows = {
            window: FREQUENT if window in frequent else SHARED for window in (*named, *every) if window
        }
        listed = (*named, *every[: 0 if named else NUM_WINDOWS])
        return Item(
            *key,
            windows=tuple(Window(text, windows[text] == FREQUENT) for text in listed if text),
            side=hit.get("side", ""),
            same_output=hit.get("same_output", False),
            short_equal=short,
            frequent=hit.get("frequent", False),
            train={
                side: clip(parts) for side, parts in marked_sides(train, windows, self._normaliser).items()
            },
            eval={
                side: clip(parts)
                for side, parts in marked_sides(evaluated, windows, self._normaliser).items()
            },
        )

    def _all_words(self, sides: Iterable[Sequence[str]]) -> str:
        if self._normaliser is None:
            return ""
        return " ".join(word for texts in sides for text in texts for word in self._normaliser.words(text))
