"""Evaluation sets that a cast describes: GSM8K, TruthfulQA, DROP, HumanEval and whatever else has one.

A set lies in `<folder>/<cast>`, or where the option `casts` says. A task is named like its cast. MMLU and BBH have readers of
their own.
"""

from __future__ import annotations

from taskmill.curation.sources import _casted

BENCHMARK = "evaluation"
STYLE, KIND = "keywords", "benchmark"
OPTIONS = _casted.OPTIONS
discover = _casted.discover
read = _casted.read
