"""Near-duplicate search in datasketch's objects: a run's examples in its `MinHashLSH`, other texts as its `MinHash`.

Reads the tables of curate and overlap; writes nothing but what a `storage_config` names, such as a Redis server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taskmill.artifact import Inputs
from taskmill.minhash import U32, WEIGHTS, fill_lsh, shingles, signatures, to_minhash
from taskmill.normalisers import named
from taskmill.recipe import Overlap
from taskmill.splits.overlap import make_catalogue
from taskmill.splits.sharing.examples import COLUMNS, I64, Catalogue, Examples, read_examples
from taskmill.text import word_hashes

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH


def make_lsh(
    inputs: Inputs,
    settings: Overlap,
    threshold: float | None = None,
    storage_config: dict[str, Any] | None = None,
) -> MinHashLSH:
    """Return datasketch's index of all examples of a run that take part and have a word; the keys are their ids.

    Args:
        inputs: with curate and overlap finished.
        settings: of the stage overlap.
        threshold: Jaccard similarity; by default that of the settings.
        storage_config: as `MinHashLSH` takes it; by default the index is in memory.

    Raises:
        UsageError: a stage is not finished.
        ValueError: datasketch does not take the threshold or the storage.
    """
    from datasketch import MinHashLSH

    near = settings.near_duplicates
    threshold = near.threshold if threshold is None else threshold
    lsh = MinHashLSH(
        threshold=threshold, num_perm=near.num_perm, weights=WEIGHTS, storage_config=storage_config
    )
    tasks = inputs.table("curate", "tasks", ("task", "output_fields")).sort_by("task")
    assignment = inputs.table("overlap", "assignment")
    catalogue = make_catalogue(tasks, inputs.table("overlap", "plan"), assignment)
    taking_part = assignment["split"].to_numpy() != "excluded"
    _insert(
        lsh,
        catalogue,
        read_examples(catalogue, inputs.batches("curate", "examples", COLUMNS), taking_part),
        settings,
    )
    return lsh


def _insert(lsh: MinHashLSH, catalogue: Catalogue, parts: Iterable[Examples], settings: Overlap) -> None:
    for part in parts:
        signed, indptr = sign(part.texts, part.first, settings)
        filled = np.flatnonzero(np.diff(indptr))
        names = catalogue.ids.take(part.number[filled]).to_pylist()
        fill_lsh(lsh, names, signed[filled], settings.near_duplicates.seed)


def make_minhash(texts: Sequence[str], settings: Overlap) -> MinHash:
    """Return the signature of one example with these texts, such as its question, its options and its answer."""
    signed, _ = sign(texts, np.array([0, len(texts)]), settings)
    return to_minhash(signed[0], settings.near_duplicates.seed)


def sign(texts: Sequence[str], first: I64, settings: Overlap) -> tuple[U32, I64]:
    """Return the signatures of examples, and the number of shingles up to each: uint32[n, num_perm], int64[n + 1]."""
    near = settings.near_duplicates
    normaliser = named(settings.normalisation, settings.tokenizer, settings.revision)
    sets, indptr = shingles(*word_hashes(texts, normaliser), first, settings.n)
    return signatures(sets, indptr, near.num_perm, near.seed), indptr
