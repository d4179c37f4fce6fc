"""MetaICL: a drawn number of demonstrations before each train prompt (Min et al. 2022; OPT-IML section 4.6).

Reads and writes nothing. The demonstrations themselves are chosen as those of any prompt. `schemas.compose` takes the
separator and the suffix loss: all text from the first demonstration's output on carries loss, so each demonstration is
two segments there, what is asked and its output. Where a prompt has to lose its first demonstrations to fit its
context, the loss begins at the output of the first one left; without any, at the answer (`training.encoding.fitting`).
"""

from __future__ import annotations

import functools
import itertools

from taskmill import seeding
from taskmill.recipe import MetaICL


def num_demonstrations(seed: int, prompt: str, settings: MetaICL) -> int:
    """Draw the number of demonstrations of a train prompt, 0 to `settings.max_demonstrations`.

    A Zipf draw z from 1, 2 .. K + 1, of probability proportional to z ** -a, gives k = z - 1: cut at K and renormalised.

    Args:
        prompt: any name of the prompt that does not depend on the result.
    """
    drawn = seeding.uniform(seed, "metaicl/demonstrations", prompt)
    limits = cumulative(settings.exponent, settings.max_demonstrations)
    return sum(drawn >= limit for limit in limits[:-1])


@functools.cache
def cumulative(exponent: float, most: int) -> tuple[float, ...]:
    """Return the probability of at most k demonstrations, for k = 0 .. `most`."""
    weights = [z**-exponent for z in range(1, most + 2)]
    total = sum(weights)
    return tuple(part / total for part in itertools.accumulate(weights))
