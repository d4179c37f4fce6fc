"""From train rows to the entries of a mixture: parts, rates, shares. Reads and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from taskmill.errors import TaskmillError, UsageError, did_you_mean
from taskmill.recipe import Auxiliary, Mix
from taskmill.training.mixing.draws import CONCATENATION, Entry
from taskmill.training.mixing.quotas import MAX_DRAWS, MAX_EXACT
from taskmill.training.mixing.rows import TrainRows
from taskmill.training.mixing.shares import set_aside, wanted_shares
from taskmill.training.mixing.sizes import kept_prompts

NO_CLASS = "none"
"""The part of prompts without a condition, where parts are classes."""


def plan(mix: Mix, rows: Sequence[TrainRows], tasks: Mapping[str, tuple[str, str]]) -> list[Entry]:
    """Turn train rows into entries with shares.

    Args:
        mix: the recipe's section.
        rows: train rows of every task and condition.
        tasks: task -> (benchmark, kind).

    Raises:
        UsageError: settings that name something which has no train prompts, or that fit no mixture of these.
        TaskmillError: there is no train prompt at all.
    """
    if not rows:
        raise TaskmillError(
            "the mixture is empty: no task has a train prompt; `taskmill inspect RUN render` shows why"
        )
    parts = _parts(mix, rows, tasks)
    make = _in_epochs if mix.mode == CONCATENATION else _at_shares
    entries = make(mix, rows, parts)
    _check_length(mix, entries)
    return entries


def num_positions(mix: Mix, entries: Sequence[Entry]) -> int:
    """Return how many positions the run reaches: those the recipe says, else each prompt once, or every epoch."""
    if mix.num_prompts is not None:
        return mix.num_prompts
    if mix.mode == CONCATENATION:
        return mix.epochs * sum(e.num_kept for e in entries)
    return sum(e.num_prompts for e in entries)


def _parts(mix: Mix, rows: Sequence[TrainRows], tasks: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the part of each of the rows: a kind set aside, else the class or benchmark."""
    aside = {str(kind) for kind in mix.auxiliary}
    parts = []
    for r in rows:
        benchmark, kind = tasks[r.task]
        part = benchmark if mix.by == "benchmark" else (r.condition or NO_CLASS)
        if kind not in aside and part in aside:
            raise UsageError(
                f"mix.auxiliary.{part}: {r.task} is of the {mix.by} {part!r} and of kind {kind!r}, so two parts would have "
                f"one name; give its source another `benchmark`"
            )
        parts.append(kind if kind in aside else part)
    return parts


def _check_length(mix: Mix, entries: Sequence[Entry]) -> None:
    """Refuse mixtures of more positions than can be told apart, or than the epochs have."""
    if mix.mode == CONCATENATION:
        epoch = sum(e.num_kept for e in entries)
        if epoch > MAX_EXACT:
            raise UsageError(
                f"mix: an epoch has {epoch:,} prompts; expected at most {MAX_EXACT:,}: lower mix.sizes"
            )
        if mix.num_prompts is not None and mix.num_prompts > mix.epochs * epoch:
            raise UsageError(
                f"mix.num_prompts: found {mix.num_prompts:,}; expected at most {mix.epochs * epoch:,}, which mix.epochs = "
                f"{mix.epochs} of {epoch:,} prompts have"
            )
    if num_positions(mix, entries) > MAX_DRAWS:
        raise UsageError(
            f"mix: {num_positions(mix, entries):,} positions; expected at most {MAX_DRAWS:,}: lower mix.num_prompts or mix.epochs"
        )


def _in_epochs(mix: Mix, rows: Sequence[TrainRows], parts: Sequence[str]) -> list[Entry]:
    kept = kept_prompts(mix, rows, parts).tolist()
    total = sum(kept)
    return [
        _entry(mix, r, part, num, float(num), num / total)
        for r, part, num in zip(rows, parts, kept, strict=True)
    ]


def _at_shares(mix: Mix, rows: Sequence[TrainRows], parts: Sequence[str]) -> list[Entry]:
    auxiliary: dict[str, Auxiliary] = {str(kind): part for kind, part in mix.auxiliary.items()}
    rate_N = [min(r.num, mix.cap) for r in rows]
    rates: dict[str, float] = {}
    for part, rate in zip(parts, rate_N, strict=True):
        rates[part] = rates.get(part, 0.0) + rate
    for name in auxiliary:
        if name not in rates:
            raise UsageError(
                f"mix.auxiliary.{name}: no task of kind {name!r} has train prompts; leave it out or add a source"
            )
    own = {name: rate for name, rate in rates.items() if name not in auxiliary}
    if rates and not own:
        raise UsageError(
            "mix.auxiliary: every train prompt is of a kind that it sets aside; leave that kind out"
        )
    base = wanted_shares(mix, own)
    for name, item in auxiliary.items():
        if item.paid_by is not None and item.paid_by not in base:
            hint = did_you_mean(item.paid_by, base) or f"; expected one of {', '.join(sorted(base))}"
            raise UsageError(
                f"mix.auxiliary.{name}.paid_by: no {mix.by} {item.paid_by!r} has train prompts{hint}"
            )
    shares = set_aside(base, auxiliary, _mean_bytes(rows, parts, rate_N, rates))
    return [
        _entry(mix, r, part, r.num, float(rate), shares.get(part, 0.0) * rate / rates[part])
        for r, part, rate in zip(rows, parts, rate_N, strict=True)
    ]


def _mean_bytes(
    rows: Sequence[TrainRows], parts: Sequence[str], rate_N: Sequence[int], rates: Mapping[str, float]
) -> dict[str, float]:
    """Return the mean rendered bytes of a draw from each part."""
    terms: dict[str, list[float]] = {part: [] for part in rates}
    for r, part, rate in zip(rows, parts, rate_N, strict=True):
        terms[part].append(rate / rates[part] * (r.num_bytes / r.num))
    return {part: max(math.fsum(values), 1.0) for part, values in terms.items()}


def _entry(mix: Mix, r: TrainRows, part: str, num_kept: int, rate: float, share: float) -> Entry:
    return Entry(
        task=r.task,
        condition=r.condition,
        benchmark=part,
        num_prompts=r.num,
        num_kept=num_kept,
        first_row=r.first_row,
        mean_bytes=r.num_bytes / r.num,
        cap=mix.cap,
        rate=rate,
        share=share,
    )
