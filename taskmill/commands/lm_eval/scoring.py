"""What the harness calls: the rows of a task, and what an answer to one of them is worth.

Copied with all it uses into `tasks/scoring.py` of an export (see `bundling`), where neither Taskmill nor torch is needed, so
functions are imported by name and nothing else of Taskmill is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.evaluation.answering.ranking import best
from taskmill.evaluation.metrics.extraction import EXTRACTIONS
from taskmill.evaluation.metrics.matching import NORMALISERS, accuracy, exact_match, token_f1
from taskmill.evaluation.metrics.rouge import rouge_l
from taskmill.evaluation.metrics.translation import bleu, chrf, corpus_bleu


def rows(file: str, columns: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    """Return the data set of a task, which its YAML names as `custom_dataset`.

    Args:
        file: Parquet file, relative to this file.
        columns: columns that are the same in all rows.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset
    from datasets.table import InMemoryTable

    table = pyarrow.parquet.read_table(Path(__file__).resolve().parent / file)
    for name, value in columns.items():
        table = table.append_column(name, pyarrow.array([value] * len(table)))
    return {"test": Dataset(InMemoryTable(table))}


def ranked(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Return the metrics of a prompt whose options were ranked.

    Args:
        doc: its row.
        results: the harness's log-probability of every option; then, for the metric acc_mutual_info, those of the same
            options without the prompt.
    """
    options = doc["options"]
    found = [score for score, _ in results]
    compared = [score / size for score, size in zip(found, doc["sizes"])]
    if len(found) > len(options):
        compared = [score - alone for score, alone in zip(found, found[len(options) :])]
    return _metrics(doc, options[best(compared)])


def generated(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a prompt that was answered freely; `results` has the text."""
    text = results[0].strip()
    return _metrics(doc, text if text in (doc["options"] or ()) else EXTRACTIONS[doc["extract"]](text))


def corpus(items: Sequence[Sequence[float]]) -> float:
    """Return a metric of a whole corpus: of the sums of statistics, times what stands before them."""
    factor = items[0][0]
    return float(factor * corpus_bleu(np.asarray([item[1:] for item in items]).sum(axis=0, keepdims=True))[0])


def _metrics(doc: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """Return the value of an answer as the task's metric, and times its shares as the metrics of its groups."""
    value, statistics = _value(doc, answer)
    factors = {doc["name"]: 1.0, **doc["shares"]}
    if doc["corpus"]:
        return {name: [factor, *statistics] for name, factor in factors.items()}
    return {name: factor * value for name, factor in factors.items()}


def _value(doc: Mapping[str, Any], answer: str) -> tuple[float, list[float]]:
    """Return the value of an answer, and what a metric of a whole corpus counted in it; see metrics.registry."""
    metric, references = doc["metric"], doc["references"]
    if metric == "bleu":
        return bleu(answer, references)
    if metric in ("rouge_l", "chrf"):
        return (rouge_l if metric == "rouge_l" else chrf)(answer, references), []
    normaliser = NORMALISERS[doc["normaliser"] or ("squad" if metric == "token_f1" else "plain")]
    if metric == "accuracy":
        return accuracy(answer, references, doc["options"], normaliser, doc["extract"] == "letter"), []
    return {"exact_match": exact_match, "token_f1": token_f1}[metric](answer, references, normaliser), []
