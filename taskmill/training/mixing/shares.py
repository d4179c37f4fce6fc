"""Mode shares: how much of the mixture each part is, from the recipe's formulas. Reads and writes nothing.

    P(task) = p_b * min(n_t, cap) / sum over the part's tasks of min(n_u, cap);  P(prompt | task) = 1 / n_t

The shares p_b and the parts set aside are those of OPT-IML (section 4); capped rates are example-proportional mixing
(Raffel et al. 2020, section 3.5.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from taskmill.errors import UsageError, did_you_mean
from taskmill.recipe import Auxiliary, Mix


def natural_shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """Return each part's size over the sum of sizes, which is above 0."""
    total = math.fsum(sizes.values())
    return {name: size / total for name, size in sizes.items()}


def wanted_shares(mix: Mix, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the wanted share of each part before auxiliary parts are set aside; they sum to 1.

    Args:
        mix: the recipe's section.
        rates: sum of min(n, cap) of every part that has train prompts.

    Raises:
        UsageError: a share for a part without train prompts, or a part without a share.
    """
    if mix.shares is None:
        return natural_shares(rates)
    problems = []
    for name, share in mix.shares.items():
        if name not in rates and share > 0:
            problems.append(no_such_part(f"mix.shares.{name}", name, rates, mix.by))
    for name in sorted(set(rates) - set(mix.shares)):
        problems.append(
            f"mix.shares: no share for {name!r}, which has train prompts; give it 0 to leave it out"
        )
    if problems:
        raise UsageError("\n".join(problems))
    return {name: share for name, share in mix.shares.items() if name in rates}


def no_such_part(where: str, name: str, known: Mapping[str, float], noun: str) -> str:
    """Return the message about a part that has no train prompts: `where` is the setting that names it, `noun` what parts are."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    hint = did_you_mean(name, known) or f"; {plural} with train prompts: {', '.join(sorted(known))}"
    return f"{where}: no {noun} of that name has train prompts{hint}"


def set_aside(
    base: Mapping[str, float], auxiliary: Mapping[str, Auxiliary], mean_bytes: Mapping[str, float]
) -> dict[str, float]:
    """Return the share of prompts of every part and auxiliary part; they sum to 1.

    A part with `paid_by` takes its share from that one, the others are taken off all parts in proportion. A share s in
    `sequences` or `tokens` is turned into prompts q by mean rendered bytes m, so that the part makes up that share of all
    bytes drawn: q m = s M (packed sequences are all of one length, so both units are shares of text). M, the mean bytes of
    a draw, is linear in the q: M = B + sum of q (m - c), with B the benchmarks' mean and c that of the draws which a part
    displaces (its payer's, else B); hence the closed form.

    Args:
        base: wanted shares of the parts among themselves, summing to 1.
        auxiliary: parts to set aside, by kind.
        mean_bytes: mean rendered bytes of a draw from each part.

    Raises:
        UsageError: a part that pays has less than it is to pay.
    """
    prompts = {name: part.share for name, part in auxiliary.items() if part.unit == "prompts"}
    by_text = {name: part.share for name, part in auxiliary.items() if part.unit != "prompts"}
    shares = _rescaled(base, auxiliary, prompts)
    if not by_text:
        return shares
    mean = math.fsum(share * mean_bytes[name] for name, share in base.items())
    displaced = {
        name: mean if part.paid_by is None else mean_bytes[part.paid_by] for name, part in auxiliary.items()
    }
    fixed = math.fsum(share * (mean_bytes[name] - displaced[name]) for name, share in prompts.items())
    scale = 1 - math.fsum(share * (1 - displaced[name] / mean_bytes[name]) for name, share in by_text.items())
    whole = (mean + fixed) / scale
    by_prompts = {name: share * whole / mean_bytes[name] for name, share in by_text.items()}
    return _rescaled(base, auxiliary, {**prompts, **by_prompts})


def _rescaled(
    base: Mapping[str, float], auxiliary: Mapping[str, Auxiliary], prompts: Mapping[str, float]
) -> dict[str, float]:
    taken = math.fsum(share for name, share in prompts.items() if auxiliary[name].paid_by is None)
    if taken >= 1:
        raise UsageError("mix.auxiliary: the parts leave nothing for the benchmarks; lower their shares")
    shares = {name: share * (1 - taken) for name, share in base.items()}
    for name, share in prompts.items():
        payer = auxiliary[name].paid_by
        if payer is not None:
            left = shares[payer] - share
            if left < -1e-9:
                raise UsageError(
                    f"mix.auxiliary.{name}: {payer!r} is to pay {share:.4f} of the prompts and has {shares[payer]:.4f}"
                )
            shares[payer] = max(left, 0.0)
    return {**shares, **prompts}
