"""Frequent grams and survivors of a benchmark that a recipe extends: they hold, and only what is new is counted.

- A gram that its train and its evaluation text shared among themselves is frequent when it was so there. Other grams are judged
  by counting, over old and new examples.
- Its rows of near-duplicates stay, and an example of it that has none gets none. An added example is the near-duplicate of
  an old one of its cluster where there is one: of evaluation text before train text, of text that stands there before the rest.
  Added evaluation text is the near-duplicate of old train text where that is in its cluster, which it must not be tested beside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.records import SCHEMAS
from taskmill.splits.sharing.examples import EVALUATION_TEXT, I64, TRAIN_TEXT, U8, U64, Bools, Catalogue
from taskmill.splits.sharing.index import Shared


@dataclass(frozen=True)
class PinnedText:
    """What overlap found in the extended benchmark; empty where nothing is extended."""

    tasks: frozenset[str] = frozenset()
    frequent: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    """Hashes of its frequent grams."""
    standing: U8 = field(default_factory=lambda: np.empty(0, np.uint8))
    """The side of each of its examples, sorted by task and id, after its decisions: see `text_sides`."""
    near_duplicates: pa.Table = field(default_factory=SCHEMAS["overlaps/near_duplicates"].empty_table)

    def is_old(self, catalogue: Catalogue) -> Bools:
        """Return which tasks of a catalogue are its own: bool[num_tasks]."""
        return np.array([task in self.tasks for task in catalogue.tasks], bool)

    def settle_frequent(self, catalogue: Catalogue, shared: Shared, counted: Bools) -> Bools:
        """Return which grams are frequent: as before where old tasks share them, as `counted` elsewhere; bool[num_grams]."""
        old, size = self.is_old(catalogue), len(shared.gram_hash)
        before = ~shared.is_whole
        for rows in (shared.train, shared.evaluation):
            held = np.zeros(size, bool)
            held[rows.gram[old[catalogue.task_of(rows.example)]]] = True
            before &= held
        return np.where(before, np.isin(shared.gram_hash, self.frequent), counted)

    def losers(self, catalogue: Catalogue, numbers: I64, clusters: I64) -> tuple[I64, I64]:
        """Return the place of each added example that does not survive its cluster, and that of its survivor.

        Arguments as of `near_duplicates.find_losers`.
        """
        is_old = np.repeat(self.is_old(catalogue), np.diff(catalogue.first))
        side = catalogue.side.copy()
        side[is_old] = self.standing
        rows = np.flatnonzero((np.bincount(clusters, minlength=len(clusters)) > 1)[clusters])
        old, here = is_old[numbers[rows]], side[numbers[rows]]
        test, train = here == EVALUATION_TEXT, here == TRAIN_TEXT
        rank = np.select([old & test, old & train, test, train], [0, 1, 2, 3], 4)
        order = np.lexsort((numbers[rows], rank, clusters[rows]))
        rows, rank, old = rows[order], rank[order], old[order]
        starts = np.flatnonzero(np.diff(clusters[rows], prepend=-1))
        sizes = np.diff(np.append(starts, len(rows)))
        task = catalogue.task_of(numbers[rows])
        survivor = np.repeat(rows[starts], sizes)
        beside = _first_of(rows, rank == 1, starts, sizes)
        tested = (rank == 2) & (beside >= 0)
        survivor[tested] = beside[tested]
        leaks = ~np.isin(rank, (0, 2)) | (task != np.repeat(task[starts], sizes))
        told = np.repeat(np.logical_or.reduceat(leaks, starts) if len(starts) else leaks, sizes)
        told[starts] = False
        told &= ~old
        return rows[told], survivor[told]

    def with_rows(self, near_duplicates: pa.Table) -> pa.Table:
        """Return the rows of added examples with those of the extended benchmark; one that joins a cluster has its number."""
        own = self.near_duplicates
        joined = pc.index_in(near_duplicates["survivor"], value_set=own["example"])
        cluster = pc.coalesce(own["cluster"].take(joined), near_duplicates["cluster"])
        place = near_duplicates.schema.get_field_index("cluster")
        added = near_duplicates.set_column(place, near_duplicates.schema.field("cluster"), cluster)
        return pa.concat_tables([own, added]).sort_by([("survivor", "ascending"), ("example", "ascending")])


def _first_of(rows: I64, where: Bools, starts: I64, sizes: I64) -> I64:
    """Return for each row the first row of its cluster with `where`, -1 where there is none."""
    found = np.where(where, np.arange(len(rows)), len(rows))
    first = np.minimum.reduceat(found, starts) if len(starts) else found
    return np.repeat(np.append(rows, -1)[first], sizes)
