"""Line charts as plain SVG: transparent ground, grey axes, readable in light and dark.

write_chart(path, "Train text, MB", [Panel("seconds", {"overlap": [(10, 1.2), (20, 2.3)]})])
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 360, 260  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 46, 44
GREY = "#8a8a8a"
COLOURS = ("#3b7dd8", "#d9822b", "#3a9d5d")
STYLE = f"text{{font:12px system-ui,sans-serif;fill:{GREY}}}.title{{font-weight:600}}"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One pair of axes, both from 0, and the lines in it by name."""

    title: str
    lines: dict[str, Points]


def write_chart(path: Path, across: str, panels: list[Panel]) -> None:
    """Write panels side by side; `across` names their common horizontal axis."""
    width = WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in panels))} over {escape(across)}</title>",
        f"<style>{STYLE}</style>",
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *drawn(panel, across), "</g>"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def drawn(panel: Panel, across: str) -> list[str]:
    """Return the elements of one panel."""
    points = [point for line in panel.lines.values() for point in line]
    xs, ys = ticks(max(x for x, _ in points)), ticks(max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / xs[-1]
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / ys[-1]
        return round(right, 1), round(down, 1)

    found = [text(LEFT, 16, panel.title, "title")]
    for y in ys:
        left, down = place(0, y)
        found.append(rule(left, down, WIDTH - RIGHT, down, 0.25 if y else 1))
        found.append(text(left - 6, down + 4, f"{y:,.10g}", anchor="end"))
    for x in xs:
        right, down = place(x, 0)
        found.append(rule(right, down, right, down + 4, 1))
        found.append(text(right, down + 18, f"{x:,.10g}", anchor="middle"))
    found.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across, anchor="middle"))
    return found + [part for i, line in enumerate(panel.lines.items()) for part in plotted(i, *line, place)]


def plotted(number: int, name: str, line: Points, place: object) -> list[str]:
    """Return one line, its points and its name."""
    colour = COLOURS[number % len(COLOURS)]
    places = [place(x, y) for x, y in line]  # type: ignore[operator]
    path = " ".join(f"{x},{y}" for x, y in places)
    left = LEFT + 4 + 150 * number
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places),
        f'<line x1="{left}" y1="30" x2="{left + 16}" y2="30" stroke="{colour}" stroke-width="2"/>',
        text(left + 22, 34, name),
    ]


def rule(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    """Return a grey line."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{GREY}" stroke-opacity="{opacity}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a text; `anchor` says which end of it stands at x."""
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{shown}>{escape(words)}</text>'


def ticks(largest: float) -> list[float]:
    """Return 0 and up to six round numbers in equal steps, the last of them no less than `largest`."""
    if largest <= 0:
        return [0, 1]
    rough = largest / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    return [round(step * i, 10) for i in range(math.ceil(round(largest / step, 6)) + 1)]
