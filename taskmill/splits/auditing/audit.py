"""The audit: OPT-IML's own check (section 2.3), 13-grams of the instantiated sequences, on the finished prompts.

Reads prompts/prompts, in batches; writes nothing. Every train prompt, as it is trained on, is looked up in the index of the
test prompts, as they are evaluated; figures are per (train task, evaluation task) pair, over prompts and over
examples, and by the kinds of segment that the matching windows lie in. Template text counts here: that is the difference
to the overlap stage, which compares content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskmill.normalisers import Normaliser
from taskmill.splits.auditing.prompt_index import (
    TestPrompts,
    of_split,
    prompt_numbers,
    read_test_prompts,
    task_sets,
)
from taskmill.splits.auditing.segments import CROSSING, I16, I64, PLACES, plain_prompts, window_masks
from taskmill.text import ranges

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Batches = Callable[[], Iterable[pa.RecordBatch]]
NUM_WINDOWS = 3
DEMONSTRATION = 1 << PLACES.index("demonstration")
_POSTINGS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Window:
    """A window that a train task shares with many prompts of an evaluation task."""

    text: str
    num_texts: int
    """Distinct test prompts of the task that hold it."""
    kinds: list[str]
    """Where it lies in one of them: names of segments.PLACES."""
    train_prompt: str
    eval_prompt: str
    """Ids (hex) of a train and of a test prompt with it."""


@dataclass(frozen=True)
class PromptPair:
    """What the prompts of two tasks share."""

    train_task: str
    eval_task: str
    num_prompts: int
    """Test prompts of the evaluation task."""
    num_prompts_hit: int
    """Those with a window that some train prompt of the train task has."""
    num_examples: int
    """Examples with a test prompt."""
    num_examples_hit: int
    num_examples_outside: int
    """Those hit by a window that does not lie in demonstrations alone."""
    num_train_prompts_hit: int
    """Train prompts with a window of the evaluation task."""
    eval_kinds: dict[str, int]
    """Name of segments.PLACES -> test prompts with a matching window there; a prompt counts under each."""
    train_kinds: dict[str, int]
    """The same of train prompts."""
    windows: list[Window]
    """The most common ones, of different prompts; at most NUM_WINDOWS."""

    @property
    def prompt_fraction(self) -> float:
        """Share of the test prompts that are hit."""
        return self.num_prompts_hit / max(1, self.num_prompts)

    @property
    def example_fraction(self) -> float:
        """Share of the examples with test prompts that are hit in one of these."""
        return self.num_examples_hit / max(1, self.num_examples)


@dataclass(frozen=True)
class PromptOverlap:
    """The figures of all prompts of a run."""

    pairs: list[PromptPair]
    """Pairs that share a window, by train task and evaluation task."""
    num_train_prompts: int
    num_test_prompts: int
    num_test_texts: int
    """Distinct ones."""
    num_prompts_hit: int
    """Test prompts that share a window with any train prompt."""
    sizes: dict[str, tuple[int, int]]
    """Evaluation task -> its test prompts, and the examples that have one."""


@dataclass
class _TrainTask:
    """What was found so far of one train task."""

    name: str
    kinds: I64
    """int64[num_eval_tasks, num_places + 1]: train prompts by place; the last column counts all of them."""
    grams: list[I64] = field(default_factory=list)
    prompts: list[U64] = field(default_factory=list)
    """Id of a train prompt with each gram."""


def compare_prompts(batches: Batches, n: int, normaliser: Normaliser, threads: int = 1) -> PromptOverlap:
    """Compare every train prompt with every test prompt.

    Args:
        batches: starts a pass over prompts/prompts, with the columns prompt_index.COLUMNS, each task's train rows together.
        n: words a gram.
        normaliser: how texts are cut into words.
        threads: cores to use; never changes a result.
    """
    test = read_test_prompts(batches(), n, normaliser, threads)
    reader = _TrainReader(test, normaliser, threads)
    hit, pairs = np.zeros(len(test.id), bool), list[PromptPair]()
    for task in reader.read(batches()):
        pairs += _pairs(task, test, hit)
    pairs.sort(key=lambda pair: (pair.train_task, pair.eval_task))
    sizes = dict(zip(test.tasks, zip(test.num_prompts.tolist(), test.num_examples.tolist())))
    return PromptOverlap(
        pairs, reader.num_prompts, len(test.id), len(test.form_prompt), int(hit.sum()), sizes
    )


# ---------------------------------------------------------------------------------------- train side


class _TrainReader:
    """One pass over the train prompts."""

    def __init__(self, test: TestPrompts, normaliser: Normaliser, threads: int) -> None:
        self.num_prompts = 0
        self._test, self._normaliser, self._threads = test, normaliser, threads
        self._sets = task_sets(test)

    def read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[_TrainTask]:
        """Yield what was found of each train task once its last prompt has passed."""
        open_task: _TrainTask | None = None
        for batch in of_split(batches, "train"):
            self.num_prompts += batch.num_rows
            for name, part in _by_task(batch):
                if open_task is None or open_task.name != name:
                    if open_task is not None:
                        yield open_task
                    shape = len(self._test.tasks), len(PLACES) + 1
                    open_task = _TrainTask(name, np.zeros(shape, np.int64))
                self._look_up(part, open_task)
        if open_task is not None:
            yield open_task

    def _look_up(self, part: pa.RecordBatch, task: _TrainTask) -> None:
        plain = plain_prompts(part)
        places = self._test.index.find(plain.texts, self._threads)
        if not len(places.gram):
            return
        ids = prompt_numbers(part.column("prompt").to_pylist())
        gram, first = np.unique(places.gram, return_index=True)
        task.grams.append(gram)
        task.prompts.append(ids[places.text[first]])
        hit, row = np.unique(places.text, return_inverse=True)
        words = places.num_words[hit]
        masks = window_masks(plain.take(hit.tolist()), words, self._test.index.n, self._normaliser)
        begins = np.append(0, np.cumsum(words))[:-1]
        self._count(row, self._sets.of_gram[places.gram], masks[begins[row] + places.position], task.kinds)

    def _count(self, prompt: I64, task_set: I64, mask: I16, kinds: I64) -> None:
        """Count the train prompts of each evaluation task, by place."""
        num_tasks, bits = len(self._test.tasks), len(PLACES)
        rows = np.unique((prompt * (task_set.max() + 1) + task_set << bits) | mask)
        of_set = rows >> bits
        at, tasks = self._sets.expand(of_set % (task_set.max() + 1))
        pair = (of_set // (task_set.max() + 1))[at] * num_tasks + tasks
        joined = _joined(pair, (rows & ((1 << bits) - 1))[at])
        _add(kinds, np.unique(pair) % num_tasks, joined)


def _by_task(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (task, rows) of each run of rows of one task."""
    codes = batch.column("task").dictionary_encode()
    numbers = codes.indices.to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for start, stop in pairwise(edges):
        yield codes.dictionary[int(numbers[start])].as_py(), batch.slice(start, stop - start)


def _joined(key: I64, mask: I64) -> I64:
    """Return the masks joined over equal keys, in order of the keys."""
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    found: I64 = np.bitwise_or.reduceat(mask[order], starts) if len(starts) else mask
    return found


def _add(kinds: I64, task: I64, mask: I64) -> None:
    """Count rows by task and place."""
    for place in range(len(PLACES)):
        kinds[:, place] += np.bincount(task[mask >> place & 1 > 0], minlength=len(kinds))
    kinds[:, -1] += np.bincount(task, minlength=len(kinds))


# --------------------------------------------------------------------------------------------- pairs


def _pairs(found: _TrainTask, test: TestPrompts, any_hit: Bools) -> list[PromptPair]:
    """Return the pairs of one train task, and mark the test prompts that it hits in `any_hit`."""
    if not found.grams:
        return []
    gram, first = np.unique(np.concatenate(found.grams), return_index=True)
    train_prompt = np.concatenate(found.prompts)[first]
    form_mask = _form_masks(gram, test)
    mask = form_mask[test.form].astype(np.int64)
    rows = np.flatnonzero(mask)
    any_hit[rows] = True
    kinds = np.zeros_like(found.kinds)
    _add(kinds, test.task[rows], mask[rows])
    num_hit = _num_examples(rows, test)
    num_outside = _num_examples(rows[mask[rows] & ~(DEMONSTRATION | CROSSING) > 0], test)
    windows = _common_windows(gram, train_prompt, test)
    return [
        PromptPair(
            found.name,
            test.tasks[task],
            int(test.num_prompts[task]),
            int(kinds[task, -1]),
            int(test.num_examples[task]),
            int(num_hit[task]),
            int(num_outside[task]),
            int(found.kinds[task, -1]),
            _named(kinds[task]),
            _named(found.kinds[task]),
            windows[task],
        )
        for task in np.flatnonzero(kinds[:, -1]).tolist()
    ]


def _num_examples(prompts: I64, test: TestPrompts) -> I64:
    """Return how many examples of each evaluation task have one of these prompts."""
    return np.bincount(test.example_task[np.unique(test.example[prompts])], minlength=len(test.tasks))


def _named(counts: I64) -> dict[str, int]:
    return dict(zip(PLACES, counts.tolist()))


def _form_masks(gram: I64, test: TestPrompts) -> I16:
    """Return where in each form the windows of some grams lie: int16[num_forms], 0 for forms without any."""
    masks = np.zeros(len(test.form_prompt), np.int16)
    for part in _parts(gram, test):
        postings = _postings(part, test)
        forms, bits = test.index.text[postings], test.masks[postings]
        for place in range(len(PLACES)):
            masks[forms[bits >> place & 1 > 0]] |= 1 << place
    return masks


def _parts(gram: I64, test: TestPrompts) -> Iterator[I64]:
    """Cut grams into parts of about _POSTINGS_AT_ONCE places."""
    ends = np.cumsum(test.index.indptr[gram + 1] - test.index.indptr[gram])
    edges = np.flatnonzero(np.diff(ends // _POSTINGS_AT_ONCE)) + 1
    yield from np.split(gram, edges)


def _postings(gram: I64, test: TestPrompts) -> I64:
    starts = test.index.indptr[gram]
    return ranges(starts, test.index.indptr[gram + 1] - starts)


def _common_windows(gram: I64, train_prompt: U64, test: TestPrompts) -> dict[int, list[Window]]:
    """Return for each evaluation task the windows in most of its test texts, each from a text of its own."""
    num_tasks, num_forms = len(test.tasks), len(test.form_prompt)
    tables, done = list[I64](), 0
    for part in _parts(gram, test):
        postings = _postings(part, test)
        which = done + np.repeat(np.arange(len(part)), np.diff(test.index.indptr)[part])
        rows, tasks = test.form_tasks.expand(test.index.text[postings])
        once, first = np.unique(
            (which[rows] * num_tasks + tasks) * num_forms + test.index.text[postings][rows], return_index=True
        )
        key, start, count = np.unique(once // num_forms, return_index=True, return_counts=True)
        tables.append(np.stack([key % num_tasks, key // num_tasks, count, postings[rows][first[start]]]))
        done += len(part)
    task, which, count, posting = np.concatenate(tables, axis=1)
    form = test.index.text[posting]
    order = np.lexsort((test.index.position[posting], form, -count, task))
    best = np.sort(np.unique((task * num_forms + form)[order], return_index=True)[1])
    chosen = defaultdict[int, list[Window]](list)
    starts = np.searchsorted(task[order][best], np.arange(num_tasks + 1))
    for own in range(num_tasks):
        for row in order[best[starts[own] : starts[own + 1]][:NUM_WINDOWS]].tolist():
            place = int(posting[row])
            chosen[own].append(
                _window(own, place, int(count[row]), gram[which[row]], train_prompt[which[row]], test)
            )
    return chosen


def _window(
    task: int, posting: int, num_texts: int, gram: np.int64, train_prompt: np.uint64, test: TestPrompts
) -> Window:
    mask, form = int(test.masks[posting]), int(test.index.text[posting])
    prompt = np.flatnonzero((test.form == form) & (test.task == task))[0]
    return Window(
        test.index.windows(np.array([gram]))[0],
        num_texts,
        [name for place, name in enumerate(PLACES) if mask >> place & 1],
        f"{train_prompt:016x}",
        f"{test.id[prompt]:016x}",
    )
