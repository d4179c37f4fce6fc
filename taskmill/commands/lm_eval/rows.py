"""The rows of the export's tasks: the run's own prompts, fitted to the context as the evaluate stage fits them.

Reads the prompts of one task at a time; writes one Parquet file for each leaf.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from taskmill.commands.lm_eval.contexts import HarnessTokenizer, Posed, pose_openings, pose_rankings
from taskmill.commands.lm_eval.leaves import Leaf
from taskmill.evaluation.aggregation.variants import DEFAULT
from taskmill.evaluation.asking import fitting
from taskmill.evaluation.asking.prompts import (
    Row,
    correct_option,
    is_ranked,
    metric_of,
    question_of,
    references_of,
)
from taskmill.evaluation.asking.rules import Rule
from taskmill.recipe_evaluate import Sampling

_TEXT, _LIST = pa.string(), pa.list_(pa.string())
FREE = pa.schema(
    [
        ("prompt", _TEXT),
        ("example", _TEXT),
        ("context", _TEXT),
        ("options", _LIST),
        ("references", _LIST),
    ]
)
"""Columns of leaves that are answered freely; `prompt` in hexadecimal digits, `options` mostly null."""
RANKED = pa.schema(
    [
        *FREE,
        ("choices", _LIST),
        ("target", pa.int64()),
        ("sizes", pa.list_(pa.float64())),
    ]
)
"""Columns of leaves whose options are ranked: the choices are the options as they follow the context, and `sizes` what their
log-probabilities are divided by."""
_CHUNK = 1_000


@dataclass
class Counts:
    """Prompts of the export, and those that the harness reads otherwise than the evaluate stage."""

    prompts: int = 0
    ranked: int = 0
    other_tokens: int = 0
    """The model is given other tokens."""
    other_boundary: int = 0
    """The same tokens, of which others are summed for an option: mostly white space before it."""
    more_room: int = 0
    """The evaluate stage generates longer answers than the harness, which keeps the same room for every prompt."""
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""


@dataclass(frozen=True)
class Asked:
    """How the prompts of one task are exported."""

    tokenizer: HarnessTokenizer
    rule: Rule
    normalisation: str
    counts: Counts

    @property
    def room(self) -> int:
        """The most tokens that the harness generates for an answer."""
        return min(self.rule.max_new_tokens, self.tokenizer.max_length // 2)


def leaf_rows(asked: Asked, prompts: Sequence[Row], shots: int) -> dict[Leaf, list[Row]]:
    """Return the rows of a task's leaves under one number of shots, in the order of the prompts."""
    found: dict[Leaf, list[Row]] = {}
    for start in range(0, len(prompts), _CHUNK):
        chunk = prompts[start : start + _CHUNK]
        ranked = [row for row in chunk if is_ranked(asked.rule, row)]
        ids = {row["prompt"] for row in ranked}
        free = [row for row in chunk if row["prompt"] not in ids]
        for row, made in (*_ranked(asked, ranked, shots), *_free(asked, free, shots)):
            variant, is_one = row["template"] or DEFAULT, row["prompt"] in ids
            leaf = Leaf(row["task"], variant, shots, is_one, metric_of(asked.rule, row))
            found.setdefault(leaf, []).append(made)
    return found


def _ranked(asked: Asked, prompts: Sequence[Row], shots: int) -> Iterator[tuple[Row, Row]]:
    if not prompts:
        return
    questions = [question_of(row, shots) for row in prompts]
    options = [row["options"] for row in prompts]
    rankings = fitting.fit_rankings(_context(asked), questions, options)
    posed = pose_rankings(asked.tokenizer, questions, options, rankings)
    for row, ranking, one in zip(prompts, rankings, posed, strict=True):
        if _take(asked, one, ranked=True):
            yield (
                row,
                {
                    **_shared(row, one),
                    "choices": list(one.choices),
                    "target": correct_option(row),
                    "sizes": _sizes(asked.normalisation, ranking, row["options"]),
                },
            )


def _free(asked: Asked, prompts: Sequence[Row], shots: int) -> Iterator[tuple[Row, Row]]:
    if not prompts:
        return
    questions = [question_of(row, shots) for row in prompts]
    openings = fitting.fit_openings(_context(asked), questions, asked.rule.max_new_tokens)
    posed = pose_openings(asked.tokenizer, questions, openings)
    for row, opening, one in zip(prompts, openings, posed, strict=True):
        if _take(asked, one, ranked=False):
            asked.counts.more_room += opening.max_new_tokens > asked.room
            yield row, _shared(row, one)


def _context(asked: Asked) -> fitting.Context:
    return fitting.Context(asked.tokenizer.own, asked.tokenizer.max_length)


def _take(asked: Asked, posed: Posed, ranked: bool) -> bool:
    """Count a prompt and return whether the harness takes it."""
    counts = asked.counts
    if not posed.usable:
        counts.left_out["no_token_for_context_or_option"] += 1
        return False
    counts.prompts += 1
    counts.ranked += ranked
    counts.other_tokens += not posed.same_tokens
    counts.other_boundary += posed.same_tokens and not posed.same_boundary
    return True


def _shared(row: Row, posed: Posed) -> Row:
    return {
        "prompt": row["prompt"].hex(),
        "example": row["example"],
        "context": posed.context,
        "options": row["options"],
        "references": references_of(row),
    }


def _sizes(normalisation: str, ranking: fitting.Ranking, options: Sequence[str]) -> list[float]:
    """Return what the log-probability of each option is divided by."""
    if normalisation == "token":
        return [float(max(1, len(s) - skip)) for s, skip in zip(ranking.suffixes, ranking.skip, strict=True)]
    if normalisation == "byte":
        return [float(max(1, len(option.lstrip().encode()))) for option in options]
    return [1.0] * len(options)


def generation(asked: Asked, prompts: Sequence[Row], sampling: Sampling) -> dict[str, Any]:
    """Return the harness's `generation_kwargs` of a task's leaves that are answered freely."""
    ends = {question_of(row, 0).end for row in prompts} - {"{eos}", "{bos}"}
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p} if sampling.temperature else {}
    return {
        "until": [*filter(None, asked.rule.stop), *sorted(ends)],
        "max_gen_toks": asked.room,
        "do_sample": bool(drawn),
        **drawn,
    }
