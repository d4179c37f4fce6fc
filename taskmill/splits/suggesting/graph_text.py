"""The text of a whole catalogue as arrays of numbers: which examples hold which grams that two or more tasks share.

Reads examples in batches; returns arrays. Grams are sorted by hash, and only those in two or more tasks are kept. They are
told apart by a second hash of 32 bits, made from other numbers of the same words: texts count as equal when 96 bits
agree, which among a billion grams happens by chance about once in 10^11 catalogues.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.leaves import sides_reader
from taskmill.normalisers import WORDS, named
from taskmill.recipe import Overlap
from taskmill.text import gram_hashes, ranges, short_key, span_hashes, whole_keys, word_hashes

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

COLUMNS = ("example", "task", "group", "fields", "references", "options", "normalised")
SORTED_AT_ONCE = 1 << 24
"""Grams sorted at once; bounds the working memory."""
ODD = np.uint64(0x9FB21C651E98DF25)
_EMPTY = np.frombuffer(short_key([]), "<u8")


@dataclass(frozen=True)
class CatalogueText:
    """The examples of a catalogue as numbers; an example's number is its place in reading order."""

    ids: pa.Array | pa.ChunkedArray
    task: I64
    """int64[num_examples]"""
    group: U64
    whole: U64
    """uint64[num_examples, 2]: `normalised`, or the same of another normaliser."""
    short: Bools
    """bool[num_examples]: no text has a gram."""
    gram: U64
    """uint64[num_grams]: first hash of every window."""
    check: U32
    """Second hash."""
    owner: I32
    """The example of each gram."""
    output: U64
    """uint64[num_outputs]: key of each reference and of each output as a whole."""
    output_owner: I32


# ------------------------------------------------------------------------------------------- reading


def read_text(
    tasks: pa.Table, batches: Iterable[pa.RecordBatch], settings: Overlap, hash_bits: int = 64
) -> CatalogueText:
    """Read all examples; a task's number is its place in `tasks`.

    Args:
        tasks: `task` and `output_fields`.
        batches: of the examples, with COLUMNS.
        settings: the recipe's section: `n` and the normalisation.
        hash_bits: fewer force collisions of the first hash, in tests.

    Raises:
        UsageError: the normalisation's tokenizer cannot be had.
    """
    names = pa.array(tasks["task"].to_pylist(), pa.string())
    readers = [sides_reader(tuple(outputs)) for outputs in tasks["output_fields"].to_pylist()]
    normaliser = named(settings.normalisation, settings.tokenizer, settings.revision)
    parts, num = list[CatalogueText](), 0
    for batch in batches:
        task = pc.index_in(batch.column("task"), value_set=names).to_numpy(zero_copy_only=False)
        task = task.astype(np.int64)
        texts, first, answers = _texts(batch, [readers[number] for number in task.tolist()])
        hashes, offsets = word_hashes(texts, normaliser)
        grams, bounds = gram_hashes(hashes, offsets, settings.n, hash_bits)
        checks, _ = gram_hashes((hashes ^ (hashes >> np.uint64(29))) * ODD, offsets, settings.n)
        num_grams = np.diff(bounds[first])
        own = normaliser is WORDS
        keys = batch.column("normalised").to_pylist() if own else whole_keys(hashes, offsets[first])
        output, owner = _outputs(hashes, offsets, first, answers)
        part = CatalogueText(
            batch.column("example"),
            task,
            batch.column("group").to_numpy(),
            np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2),
            num_grams == 0,
            grams,
            (checks >> np.uint64(32)).astype(np.uint32),
            np.repeat(np.arange(num, num + len(task), dtype=np.int32), num_grams),
            output,
            (owner + num).astype(np.int32),
        )
        parts.append(part)
        num += len(task)
    return _joined(parts)


def _texts(batch: pa.RecordBatch, readers: Sequence[Any]) -> tuple[list[str], I64, I64]:
    """Return the texts of a batch end to end, where each example begins, and (first output text, references)."""
    columns = [batch.column(name).to_pylist() for name in ("fields", "references", "options")]
    texts, bounds, answers = list[str](), [0], list[tuple[int, int]]()
    for read, values, references, options in zip(readers, *columns):
        inputs, outputs = read(json.loads(values))
        texts += inputs
        texts += options or ()
        answers.append((len(texts), len(references)))
        texts += references
        texts += outputs
        bounds.append(len(texts))
    return texts, np.array(bounds, np.int64), np.array(answers, np.int64).reshape(-1, 2)


def _outputs(hashes: U64, offsets: I64, first: I64, answers: I64) -> tuple[U64, I64]:
    """Return (key, example) of every reference and of every output as a whole; those without a word have none."""
    references = ranges(answers[:, 0], answers[:, 1])
    owner = np.append(np.repeat(np.arange(len(answers)), answers[:, 1]), np.arange(len(answers)))
    begins = np.append(offsets[references], offsets[answers[:, 0]])
    ends = np.append(offsets[references + 1], offsets[first[1:]])
    there = begins < ends
    return span_hashes(hashes, begins[there], ends[there]), owner[there]


def _joined(parts: Sequence[CatalogueText]) -> CatalogueText:
    ids = pa.chunked_array([part.ids for part in parts], pa.string())
    empty: dict[str, npt.NDArray[Any]] = {
        **dict.fromkeys(("group", "gram", "output"), np.empty(0, np.uint64)),
        **dict.fromkeys(("owner", "output_owner"), np.empty(0, np.int32)),
        "task": np.empty(0, np.int64),
        "whole": np.empty((0, 2), np.uint64),
        "short": np.empty(0, bool),
        "check": np.empty(0, np.uint32),
    }
    names = [field.name for field in fields(CatalogueText) if field.name != "ids"]
    return CatalogueText(ids, *(np.concatenate([empty[n], *(getattr(p, n) for p in parts)]) for n in names))


# ---------------------------------------------------------------------------------------------- runs


def run_starts(*columns: npt.NDArray[Any]) -> Bools:
    """Return which rows of sorted columns differ from the row before; the first does."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def distinct(values: I64) -> I64:
    """Return the distinct values, ascending."""
    values = np.sort(values)
    return values[run_starts(values)]


def _in_several(new: Bools, task: I64) -> Bools:
    """Return which rows belong to a run (each begins where `new`) of two or more tasks."""
    begins = np.flatnonzero(new)
    if not len(begins):
        return np.zeros(0, bool)
    several = np.minimum.reduceat(task, begins) != np.maximum.reduceat(task, begins)
    return np.repeat(several, np.diff(np.append(begins, len(new))))


# --------------------------------------------------------------------------------------- shared grams


def shared_grams(text: CatalogueText) -> tuple[I64, I64]:
    """Return (gram, example), distinct and sorted, of the grams in two or more tasks; these are numbered from 0."""
    found_gram, found_example = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    num = 0
    for rows in _parts(text.gram):
        rows = rows[np.argsort(text.gram[rows], kind="stable")]
        rows = rows[_in_several(run_starts(text.gram[rows]), text.task[text.owner[rows]])]
        rows = rows[np.lexsort((text.owner[rows], text.check[rows], text.gram[rows]))]
        new = run_starts(text.gram[rows], text.check[rows])
        several = _in_several(new, text.task[text.owner[rows]])
        number, example = np.cumsum(new)[several], text.owner[rows[several]].astype(np.int64)
        once = run_starts(number, example)
        number, example = number[once], example[once]
        found_gram.append(np.cumsum(run_starts(number)) - 1 + num)
        found_example.append(example)
        num += int(run_starts(number).sum())
    return np.concatenate(found_gram), np.concatenate(found_example)


def _parts(gram: U64) -> Iterator[I64]:
    """Yield the rows of grams in parts of about SORTED_AT_ONCE, equal grams in one part."""
    bits = min(8, (len(gram) // SORTED_AT_ONCE).bit_length())
    if not bits:
        yield np.arange(len(gram))
        return
    top = (gram >> np.uint64(64 - bits)).astype(np.uint8)
    for part in range(1 << bits):
        yield np.flatnonzero(top == part)


def frequent_grams(text: CatalogueText, gram: I64, example: I64, frequent_groups: int) -> Bools:
    """Return which grams are in more groups of their tasks than is allowed: bool[largest gram + 1]."""
    order = np.lexsort((text.group, text.task))
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(run_starts(text.task[order], text.group[order])) - 1
    size = max(1, len(order))
    return np.bincount(distinct(gram * size + group[example]) // size) > frequent_groups


def shared_wholes(text: CatalogueText) -> tuple[I64, I64]:
    """Return (whole, example), sorted, of the examples with the words of a short example; wholes are numbered from 0."""
    example, number = equal_examples(text)
    wanted = np.zeros(int(number.max(initial=-1)) + 1, bool)
    wanted[number[text.short[example]]] = True
    kept = wanted[number]
    return number[kept], example[kept]


def equal_examples(text: CatalogueText) -> tuple[I64, I64]:
    """Return (example, number of its words) of the examples with any word, by number: equal words have one number."""
    there = np.flatnonzero((text.whole != _EMPTY).any(axis=1))
    rows = there[np.lexsort((there, text.whole[there, 1], text.whole[there, 0]))]
    return rows, np.cumsum(run_starts(text.whole[rows, 0], text.whole[rows, 1])) - 1


def with_outputs(text: CatalogueText, gram: I64, example: I64) -> tuple[I64, I64]:
    """Return (gram and output, example), sorted: examples that have one in common share the gram and an output."""
    order = np.lexsort((text.output, text.output_owner))
    indptr = np.searchsorted(text.output_owner[order], np.arange(len(text.task) + 1))
    counts = indptr[example + 1] - indptr[example]
    output = text.output[order][ranges(indptr[example], counts)]
    gram, example = np.repeat(gram, counts), np.repeat(example, counts)
    order = np.lexsort((example, output, gram))
    gram, output, example = gram[order], output[order], example[order]
    new = run_starts(gram, output)
    several = _in_several(new, text.task[example])
    return (np.cumsum(new) - 1)[several], example[several]
