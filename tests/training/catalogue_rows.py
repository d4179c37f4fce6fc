"""Train rows and tasks of catalogues that tests make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskmill.records import KINDS
from taskmill.training.mixing.rows import TrainRows

Tasks = dict[str, tuple[str, str]]


def catalogue(
    sizes: Mapping[str, Sequence[int]],
    mean: Mapping[str, float] | None = None,
    conditions: Sequence[str | None] = (None,),
) -> tuple[list[TrainRows], Tasks]:
    """Return train rows and parts of tasks `benchmark/i`, each of `conditions` having the size.

    A name among the kinds makes them of that kind, and of the benchmark `kind_bench`; `mean` is bytes a prompt [100].
    """
    rows, tasks, first = list[TrainRows](), Tasks(), 0
    for benchmark in sorted(sizes):
        for number, size in enumerate(sizes[benchmark]):
            task = f"{benchmark}/{number}"
            for condition in conditions:
                num_bytes = round(size * (mean or {}).get(benchmark, 100.0))
                rows.append(TrainRows(task, condition, first, size, num_bytes))
                first += size + 3  # rows of other splits stand between
            aside = benchmark in KINDS
            tasks[task] = (f"{benchmark}_bench", benchmark) if aside else (benchmark, "benchmark")
    return rows, tasks
