"""The test prompts of a run, indexed: what the audit compares every train prompt with.

Reads the table prompts/prompts; keeps each distinct test prompt once. A prompt is a form (equal text and equal segments)
of a task and an example; grams lead to forms, forms to prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.grams import GramIndex
from taskmill.normalisers import Normaliser
from taskmill.splits.auditing.segments import I16, I64, PlainPrompts, plain_prompts, window_masks
from taskmill.text import ranges

COLUMNS = ("prompt", "example", "task", "split", "text", "ends", "kinds")
_FORMS_AT_ONCE = 4096
_SALT = b"tasks of a gram"


@dataclass(frozen=True)
class TaskSets:
    """The evaluation tasks in which each gram stands; grams of the same tasks share a set."""

    of_gram: I64
    indptr: I64
    tasks: I64
    """Set s has the tasks tasks[indptr[s]] .. tasks[indptr[s + 1] - 1]."""

    def expand(self, sets: I64) -> tuple[I64, I64]:
        """Return (row of `sets`, task) for every task of every set."""
        counts = self.indptr[sets + 1] - self.indptr[sets]
        return np.repeat(np.arange(len(sets)), counts), self.tasks[ranges(self.indptr[sets], counts)]


@dataclass(frozen=True)
class TestPrompts:
    """All test prompts of a run, numbered in the order of the table."""

    index: GramIndex
    """Over the distinct texts; text i is form i."""
    masks: I16
    """int16[postings]: where the window of each posting of the index lies, as bits of segments.PLACES."""
    tasks: list[str]
    """Evaluation tasks, in order of their first prompt."""
    id: npt.NDArray[np.uint64]
    """The 8 bytes of each prompt's name, as a number."""
    task: I64
    form: I64
    example: I64
    """Number of the prompt's example; examples of different tasks have different numbers."""
    example_task: I64
    """int64[num_examples]"""
    form_prompt: I64
    """int64[num_forms]: the first prompt of each form."""

    @cached_property
    def num_prompts(self) -> I64:
        """Prompts of each task."""
        return np.bincount(self.task, minlength=len(self.tasks))

    @cached_property
    def num_examples(self) -> I64:
        """Examples with a prompt of each task."""
        return np.bincount(self.example_task, minlength=len(self.tasks))

    @cached_property
    def form_tasks(self) -> TaskSets:
        """The tasks of the prompts of each form, a set for each."""
        num_tasks, num_forms = max(1, len(self.tasks)), len(self.form_prompt)
        pairs = np.unique(self.form * num_tasks + self.task)
        indptr = np.searchsorted(pairs // num_tasks, np.arange(num_forms + 1)).astype(np.int64)
        return TaskSets(np.arange(num_forms), indptr, pairs % num_tasks)


def of_split(batches: Iterable[pa.RecordBatch], split: str) -> Iterable[pa.RecordBatch]:
    """Yield the rows of one split, batch by batch."""
    for batch in batches:
        found = batch.filter(pc.equal(batch.column("split"), split))
        if found.num_rows:
            yield found


def read_test_prompts(
    batches: Iterable[pa.RecordBatch], n: int, normaliser: Normaliser, threads: int
) -> TestPrompts:
    """Index the test prompts.

    Args:
        batches: rows of prompts/prompts with COLUMNS.
        n: words a gram.
        normaliser: how texts are cut into words.
        threads: cores to use; never changes a result.
    """
    forms, tasks, examples = dict[bytes, int](), dict[str, int](), dict[tuple[str, str], int]()
    distinct = PlainPrompts([], [], [])
    ids, rows, form_prompt = list[bytes](), list[tuple[int, int, int]](), list[int]()
    for batch in of_split(batches, "test"):
        plain = plain_prompts(batch)
        names = (batch.column(name).to_pylist() for name in ("prompt", "example", "task"))
        for row, (prompt, example, task) in enumerate(zip(*names)):
            key = _key(plain.texts[row], plain.ends[row], plain.kinds[row])
            form = forms.setdefault(key, len(forms))
            if form == len(form_prompt):
                form_prompt.append(len(ids))
                distinct.texts.append(plain.texts[row])
                distinct.ends.append(plain.ends[row])
                distinct.kinds.append(plain.kinds[row])
            ids.append(prompt)
            number = examples.setdefault((task, example), len(examples))
            rows.append((tasks.setdefault(task, len(tasks)), form, number))
    index = GramIndex(distinct.texts, n, normaliser, threads)
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return TestPrompts(
        index,
        _posting_masks(distinct, index, normaliser),
        list(tasks),
        prompt_numbers(ids),
        columns[:, 0].copy(),
        columns[:, 1].copy(),
        columns[:, 2].copy(),
        np.array([tasks[task] for task, _ in examples], np.int64),
        np.array(form_prompt, np.int64),
    )


def prompt_numbers(names: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Return the 8-byte names of prompts as numbers; their hexadecimal digits are the name's."""
    return np.frombuffer(b"".join(names), ">u8").astype(np.uint64)


def _key(text: str, ends: list[int], kinds: list[int]) -> bytes:
    place = np.array([*ends, -1, *kinds], "<i8").tobytes()
    return blake2b(text.encode(), digest_size=16, key=blake2b(place, digest_size=16).digest()).digest()


def _posting_masks(forms: PlainPrompts, index: GramIndex, normaliser: Normaliser) -> I16:
    first = np.append(0, np.cumsum(index.num_words)).astype(np.int64)
    masks = np.zeros(first[-1], np.int16)
    for start in range(0, len(forms.texts), _FORMS_AT_ONCE):
        part = range(start, min(start + _FORMS_AT_ONCE, len(forms.texts)))
        own = forms.take(part)
        masks[first[part.start] : first[part.stop]] = window_masks(
            own, index.num_words[part.start : part.stop], index.n, normaliser
        )
    found: I16 = masks[first[index.text] + index.position]
    return found


def task_sets(test: TestPrompts) -> TaskSets:
    """Find the tasks of every gram of the index."""
    num_tasks = max(1, len(test.tasks))
    postings = np.repeat(np.arange(len(test.index.gram_hash)), np.diff(test.index.indptr))
    rows, tasks = test.form_tasks.expand(test.index.text)
    pairs = np.unique(postings[rows] * num_tasks + tasks)
    gram, task = pairs // num_tasks, pairs % num_tasks
    starts = np.searchsorted(gram, np.arange(len(test.index.gram_hash)))
    salts = np.array([_salt(t) for t in range(num_tasks)], np.uint64)
    sums: npt.NDArray[np.uint64] = (
        np.add.reduceat(salts[task], starts) if len(gram) else np.empty(0, np.uint64)
    )
    _, representative, of_gram = np.unique(sums, return_index=True, return_inverse=True)
    bounds = np.append(starts, len(gram))
    counts = bounds[representative + 1] - bounds[representative]
    indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
    return TaskSets(of_gram.astype(np.int64), indptr, task[ranges(bounds[representative], counts)])


def _salt(task: int) -> int:
    return int.from_bytes(blake2b(task.to_bytes(8, "little"), digest_size=8, key=_SALT).digest(), "little")
