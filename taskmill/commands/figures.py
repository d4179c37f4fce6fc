"""Numbers and figures for people: formatted counts, the loss curve, interval bars and the heat map as plain geometry.

Reads lists, returns text and numbers; the template draws them. Coordinates of a curve are in a box of WIDTH x HEIGHT
with y downwards; positions of bars are percentages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 1000, 300
MOST_POINTS = 1000
"""Points of a raw curve; longer ones show the mean of each stretch."""


def count(number: float | None) -> str:
    """Return a count with thousands separated: 12,345."""
    return "\u2013" if number is None else f"{number:,.0f}"


def compact(number: float) -> str:
    """Return a count in three digits or so: 950, 12.3 k, 4.56 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= size:
            scaled = number / (1e3 if unit == " k" else size)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"
    return f"{number:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 as a percentage: 12.3 %; what is above 0 never shows as 0."""
    if share is None:
        return "\u2013"
    value = 100 * share
    if 0 < value < 10**-digits:
        return f"<{10**-digits:g} %"
    return f"{value:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits, a dash for none."""
    return "\u2013" if value is None else f"{value:,.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """Return a difference with its sign: +3.2, −1.0."""
    text = f"{abs(value):.{digits}f}"
    sign = "\u00b1" if float(text) == 0 else "+" if value > 0 else "\u2212"
    return sign + text


def duration(seconds: float) -> str:
    """Return a time: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(num_bytes: float) -> str:
    """Return a size in decimal units: 812 B, 3.4 MB."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def words(name: str) -> str:
    """Return the name of a counter, reason or metric as words: num_held_out -> held out."""
    if name == "rouge_l":
        return "Rouge-L"
    return name.removeprefix("num_").replace("_", " ")


def named(name: str, number: int) -> str:
    """Return what a counter counts, in words: tasks left, but task left for 1.

    `name` is in the plural; its noun is the first of its first two words that ends in an s.
    """
    parts = words(name).split(" ")
    place = next((i for i, word in enumerate(parts[:2]) if word.endswith("s")), None)
    if number == 1 and place is not None:
        singular = parts[place].removesuffix("s")
        parts[place] = singular.removesuffix("ie") + "y" if singular.endswith("rie") else singular
    return " ".join(parts)


def parts(name: str) -> list[str]:
    """Return an id cut behind every /, _, -, # and :, where a line may break."""
    return [part for part in re.split(r"(?<=[/_#:-])", name) if part]


def counted(number: int, name: str) -> str:
    """Return a counter with its name: 1,234 tasks left, 1 near duplicate."""
    return f"{number:,} {named(name, number)}"


# ---------------------------------------------------------------------------------------------- curve


def smoothed(values: Sequence[float], strength: float) -> list[float]:
    """Return the exponential moving average, corrected for its start."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean = strength * mean + (1 - strength) * value
        weight = strength * weight + (1 - strength)
        out.append(mean / weight)
    return out


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most `most` + 1 round numbers from `low` to `high`."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if span / (power * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _within(percentage: float) -> float:
    return min(100.0, max(0.0, percentage))


def loss_curve(
    steps: Sequence[float],
    losses: Sequence[float],
    levels: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> dict[str, Any]:
    """Return the paths and ticks of a loss curve: raw and smoothed lines over the steps (at least one).

    `levels` gives the (step, loss) of validations by level, which are drawn as lines and dots in the same box.
    """
    width = max(1, math.ceil(len(steps) / MOST_POINTS))
    starts = range(0, len(steps), width)
    xs = [sum(steps[i : i + width]) / len(steps[i : i + width]) for i in starts]
    raw = [sum(losses[i : i + width]) / len(losses[i : i + width]) for i in starts]
    smooth = smoothed(raw, 1 - 1 / min(25, 1 + len(raw) / 12))
    measured = [loss for points in (levels or {}).values() for _, loss in points]
    low, high = min([*raw, *measured]), max([*raw, *measured])
    margin = 0.06 * (high - low) or 0.5
    low, high = max(0.0, low - margin), high + margin
    left, right = min(steps), max(steps)

    def x(step: float) -> float:
        return WIDTH * (step - left) / (right - left) if right > left else WIDTH / 2

    def y(loss: float) -> float:
        return HEIGHT * (high - loss) / (high - low)

    def path(places: Sequence[float], values: Sequence[float]) -> str:
        points = [f"{x(a):.1f} {y(b):.1f}" for a, b in zip(places, values)]
        return "M" + " L".join(points if len(points) > 1 else points * 2)

    return {
        "raw": path(xs, raw),
        "smooth": path(xs, smooth),
        "levels": [
            {
                "name": name,
                "line": path([step for step, _ in points], [loss for _, loss in points]),
                "dots": " ".join(f"M{x(step):.1f} {y(loss):.1f}h0" for step, loss in points),
            }
            for name, points in (levels or {}).items()
        ],
        "y_ticks": [{"at": _within(100 * y(t) / HEIGHT), "label": f"{t:g}"} for t in ticks(low, high)],
        "x_ticks": [{"at": _within(100 * x(t) / WIDTH), "label": count(t)} for t in ticks(left, right)],
    }


def score_curves(levels: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return lines, interval bands, dots and ticks of scores in [0, 1] over updates, one line a level (at least one).

    Each point has `step`, `value`, `low` and `high`; the scale is of 100, and as wide as the intervals need.
    """
    points = [point for line in levels.values() for point in line]
    low = min(100 * min(p["low"], p["value"]) for p in points)
    high = max(100 * max(p["high"], p["value"]) for p in points)
    margin = max(2.0, 0.06 * (high - low))
    low, high = max(0.0, low - margin), min(100.0, high + margin)
    left, right = min(p["step"] for p in points), max(p["step"] for p in points)

    def place(point: Mapping[str, Any], name: str) -> str:
        x = WIDTH * (point["step"] - left) / (right - left) if right > left else WIDTH / 2
        return f"{x:.1f} {HEIGHT * (high - min(high, max(low, 100 * point[name]))) / (high - low):.1f}"

    return {
        "levels": [
            {
                "name": name,
                "line": "M" + " L".join(place(p, "value") for p in line),
                "dots": " ".join(f"M{place(p, 'value')}h0" for p in line),
                "band": "M"
                + " L".join([place(p, "high") for p in line] + [place(p, "low") for p in reversed(line)])
                + "Z",
            }
            for name, line in levels.items()
        ],
        "y_ticks": [
            {"at": _within(100 * (high - t) / (high - low)), "label": f"{t:g}"} for t in ticks(low, high)
        ],
        "x_ticks": [
            {"at": _within(100 * (t - left) / (right - left)) if right > left else 50.0, "label": count(t)}
            for t in ticks(left, right)
        ],
    }


# ----------------------------------------------------------------------------------------------- bars


def interval(row: Mapping[str, Any]) -> dict[str, float]:
    """Return where the value of a score in [0, 1] and its interval lie on a scale of 0 to 100."""
    value, low, high = (min(1.0, max(0.0, row[name])) for name in ("value", "low", "high"))
    return {"value": 100 * value, "low": 100 * low, "width": 100 * max(0.0, high - low)}


def bar(value: float, most: float) -> float:
    """Return the width of a bar in percent of the longest."""
    return 100 * min(1.0, value / most) if most > 0 else 0.0


def heat(fraction: float) -> float:
    """Return the opacity of a cell: above 0 always visible, small fractions told apart."""
    return 0.0 if fraction <= 0 else 0.12 + 0.88 * math.sqrt(min(1.0, fraction))


# ----------------------------------------------------------------------------------------------- text

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)
_PICTURES |= dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def visible(text: str) -> str:
    """Return a text whose control characters, direction marks and lone surrogates are signs to be seen."""
    return text.translate(_PICTURES)
