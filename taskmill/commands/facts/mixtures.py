"""Facts of mixtures: shares, caps and sizes of the shipped recipes, drawn by the mixture's own code from made-up catalogues.

A catalogue here is a list of tasks with numbers of prompts and mean bytes: what `mix` sees of a run. Those of OPT-IML have
the published natural shares, those of the chat systems the published sizes. `compute` returns key -> value for
`published.yaml`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from taskmill import recipe_files
from taskmill.recipe import Auxiliary, Mix
from taskmill.training.mixing.draws import CONCATENATION, Mixture
from taskmill.training.mixing.plan import num_positions, plan
from taskmill.training.mixing.rows import TrainRows

ORDER = ("crossfit", "exmix", "flan", "super_natural_instructions", "promptsource", "t5", "unifiedskg")
"""Benchmarks as the paper lists their shares (OPT-IML, section 4.2)."""
NATURAL = (2, 1, 5, 71, 18, 1, 2)
"""Tasks of each in the made-up catalogue, all beyond the cap."""
LARGE, BYTES, DOCUMENT_BYTES = 10_000, 1_200, 6_000
NUM_DRAWS = 10_000
FLAN_COLLECTION = {"flan2021": 62, "p3": 193, "niv2": 1556, "cot": 9}
"""Tasks of FLAN-MINI's parts from the Flan Collection; each has more prompts than are taken of it."""
TULU_WHOLE = {
    "dolly": 15_011,
    "oasst1": 34_795,
    "gpt4_alpaca": 52_002,
    "code_alpaca": 20_022,
    "sharegpt": 168_864,
}
"""Parts that TULU takes whole, in upstream's numbers (TULU, Table 1)."""
OPENCHAT = {"GPT4": 6_000, "GPT3": 64_000}
"""Conversations of ShareGPT by class (OpenChat, section 4.1)."""


def compute() -> dict[str, Any]:
    """Return the figures of mixtures by key."""
    return {**_opt_iml(), **_auxiliary(), **_flan_mini(), **_tulu(), **_openchat()}


def _mix(name: str) -> Mix:
    return recipe_files.find(name).recipe.mix


def draw(
    mix: Mix, sizes: Sequence[tuple[str, str, str | None, int, int]], count: int | None = None
) -> dict[str, int]:
    """Return how many positions each part of a mixture gets.

    Args:
        mix: a recipe's section.
        sizes: (task, kind, condition, prompts, mean bytes); a task's benchmark stands before its `/`.
        count: positions; by default all that the mixture reaches.
    """
    rows, first = [], 0
    for task, _, condition, number, mean in sorted(sizes, key=lambda item: (item[0], item[2] or "")):
        rows.append(TrainRows(task, condition, first, number, number * mean))
        first += number
    entries = plan(mix, rows, {task: (task.partition("/")[0], kind) for task, kind, *_ in sizes})
    mixture = Mixture(entries, 0, mix.block, mix.mode == CONCATENATION)
    drawn: dict[str, int] = {}
    found = mixture.counts(num_positions(mix, entries) if count is None else count)
    for entry, number in zip(mixture.entries, found.tolist(), strict=True):
        drawn[entry.benchmark] = drawn.get(entry.benchmark, 0) + number
    return drawn


# --------------------------------------------------------------------------------------------- OPT-IML


def _benchmarks() -> list[tuple[str, str, str | None, int, int]]:
    return [
        (f"{name}/{number:03d}", "benchmark", None, LARGE, BYTES)
        for name, tasks in zip(ORDER, NATURAL, strict=True)
        for number in range(tasks)
    ]


def _aside() -> list[tuple[str, str, str | None, int, int]]:
    return [
        *((f"reasoning/{number:02d}", "reasoning", None, LARGE, BYTES) for number in range(12)),
        ("documents/corpus", "pretraining", None, LARGE, DOCUMENT_BYTES),
    ]


def _percent(drawn: Mapping[str, int], digits: int = 2) -> list[float]:
    total = sum(drawn.values())
    return [round(100 * drawn.get(name, 0) / total, digits) for name in ORDER]


def _opt_iml() -> dict[str, Any]:
    mix = dataclasses.replace(_mix("opt-iml"), auxiliary={})
    natural = dataclasses.replace(mix, shares=None)
    sizes = _benchmarks()
    small = [("flan/small", "benchmark", None, 1_024, BYTES), ("flan/large", "benchmark", None, LARGE, BYTES)]
    capped = plan(
        natural,
        [TrainRows(t, c, 0, n, n * b) for t, _, c, n, b in small],
        {t: ("flan", k) for t, k, *_ in small},
    )
    return {
        "mix.natural": _percent(draw(natural, sizes, NUM_DRAWS)),
        "mix.final": _percent(draw(mix, sizes, NUM_DRAWS)),
        "mix.shares_sum": math.fsum((mix.shares or {}).values()),
        "mix.cap": max(int(entry.rate) for entry in capped),
        "mix.under_the_cap": min(int(entry.rate) for entry in capped),
    }


def _auxiliary() -> dict[str, Any]:
    mix = _mix("opt-iml")
    shares = {**dict(zip(ORDER, (0.02, 0.01, 0.27, 0.40, 0.27, 0.01, 0.02), strict=True))}
    trial = dataclasses.replace(mix, shares=shares, auxiliary={"reasoning": mix.auxiliary["reasoning"]})
    rescaled = dataclasses.replace(
        mix, auxiliary={"reasoning": Auxiliary(0.01), "pretraining": Auxiliary(0.05)}
    )
    sizes = [*_benchmarks(), *_aside()]
    without_text = sizes[:-1]
    paid = draw(
        dataclasses.replace(mix, auxiliary={"reasoning": mix.auxiliary["reasoning"]}), without_text, NUM_DRAWS
    )
    whole = draw(mix, sizes, 1_000_000)
    text = {
        name: number * (DOCUMENT_BYTES if name == "pretraining" else BYTES) for name, number in whole.items()
    }
    return {
        "mix.reasoning_trial": _percent(draw(trial, without_text, NUM_DRAWS)),
        "mix.reasoning_share": round(100 * paid["reasoning"] / NUM_DRAWS, 2),
        "mix.reasoning_paid": _percent(paid),
        "mix.rescaled": _percent(draw(rescaled, sizes, 100_000)),
        "mix.pretraining_share": round(100 * text["pretraining"] / sum(text.values()), 2),
    }


# ------------------------------------------------------------------------------------ FLAN-MINI, TULU


@functools.cache
def flan_mini() -> dict[str, int]:
    """Return the conversations of each part of FLAN-MINI that an epoch draws from more than enough of each."""
    mix = _mix("flan-mini")
    sizes: list[tuple[str, str, str | None, int, int]] = []
    for part, size in mix.sizes.items():
        tasks = FLAN_COLLECTION.get(part, 1)
        each = 2 * max(1, -(-size // tasks))
        sizes += [(f"{part}/{number:04d}", "chat", None, each + number, BYTES) for number in range(tasks)]
    return draw(mix, sizes)


def flan_mini_total() -> int:
    """Return the conversations of FLAN-MINI."""
    return sum(flan_mini().values())


def _flan_mini() -> dict[str, Any]:
    drawn = flan_mini()
    chat = drawn["gpt4_alpaca"] + drawn["sharegpt"]
    return {
        **{f"flan_mini.{part}": number for part, number in drawn.items()},
        "flan_mini.total": flan_mini_total(),
        "flan_mini.flan_total": sum(drawn[part] for part in FLAN_COLLECTION),
        "flan_mini.chat_share": round(100 * chat / flan_mini_total(), 1),
        "flan_mini.recipes_agree": _mix("flan-mini") == _mix("flacuna"),
    }


@functools.cache
def _tulu_parts(name: str) -> dict[str, int]:
    """Return the prompts of each part that one epoch of a recipe draws."""
    recipe = recipe_files.find(name).recipe
    parts = {source.benchmark or source.reader for source in recipe.sources}
    mix = recipe.mix
    sizes: list[tuple[str, str, str | None, int, int]] = []
    for part in sorted(parts):
        number = TULU_WHOLE.get(part, 3 * mix.sizes.get(part, 0))
        sizes.append((f"{part}/all", "chat", None, number, BYTES))
    return draw(dataclasses.replace(mix, epochs=1), sizes)


def tulu_total(name: str) -> int:
    """Return the prompts of one epoch of `tulu` or `tulu-human`."""
    return sum(_tulu_parts(name).values())


def _tulu() -> dict[str, Any]:
    drawn = _tulu_parts("tulu")
    cot = sum(number for part, number in drawn.items() if part.startswith("more_cot"))
    flan = {p: n for p, n in drawn.items() if p not in TULU_WHOLE and not p.startswith("more_cot")}
    by_set: dict[str, int] = {}
    for part, number in flan.items():
        name = part.partition("_")[0]
        by_set[name] = by_set.get(name, 0) + number
    total = sum(flan.values())
    return {
        "tulu.flan_v2": total,
        "tulu.cot": cot,
        "tulu.human_total": tulu_total("tulu-human"),
        "tulu.total": tulu_total("tulu"),
        "tulu.flan_v2_shares": {name: round(100 * n / total, 2) for name, n in sorted(by_set.items())},
        "tulu.flan_v2_parts": {part: round(100 * n / total, 2) for part, n in sorted(flan.items())},
    }


# --------------------------------------------------------------------------------------------- OpenChat


def _openchat() -> dict[str, Any]:
    mix = _mix("openchat")
    sizes = [("chat/sharegpt", "chat", name, number, BYTES) for name, number in OPENCHAT.items()]
    kept = dataclasses.replace(mix, keep={"GPT3": 0.6}, epochs=1)
    every, fewer = draw(mix, sizes), draw(kept, sizes)
    return {
        "openchat.draws": sum(every.values()),
        "openchat.subsampled": {
            name: round(fewer[name] / number, 3) for name, number in sorted(OPENCHAT.items())
        },
    }
