"""The report in a real browser, at the width of a phone and of a desktop; skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_browser
from scored_run import PLANTED, make_scored_run

from taskmill.report import SECTIONS, write_report

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}

MEASURE = """(() => {
  document.querySelectorAll('details').forEach(part => part.open = true);
  const seen = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length);
  const inScroller = e => e.closest('.scroll, nav, .quote') !== null;
  const small = seen.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12);
  const outside = seen.filter(e => !inScroller(e) && e.getBoundingClientRect().right > innerWidth + 1);
  const name = e => e.tagName + '.' + e.getAttribute('class');
  return {
    title: document.title, width: document.scrollingElement.scrollWidth, window: innerWidth,
    small: [...new Set(small.map(name))], outside: [...new Set(outside.map(name))],
    sections: Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, s.innerText])),
    heights: Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, s.offsetHeight])),
    plot: [...document.querySelectorAll('#curves .curve')].map(p => p.getBoundingClientRect().width),
    ticks: [...document.querySelectorAll('#curves .tick')].map(t => t.innerText),
    wide: [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length,
    dots: [...document.querySelectorAll('.interval i')].every(dot => {
      const rail = dot.parentNode.getBoundingClientRect(), at = dot.getBoundingClientRect();
      return (at.left + at.right) / 2 >= rail.left - 1 && (at.left + at.right) / 2 <= rail.right + 1;
    }),
  };
})()"""

CONTRAST = """(() => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|\\/ 0?\\.?\\d+\\)$|, 0?\\.\\d+\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const worst = {};
  for (const e of document.querySelectorAll('#scores *, #tasks *, #variants *, #clean *, #curves *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('.zero')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const name = e.tagName + '.' + e.getAttribute('class');
    worst[name] = Math.min(worst[name] || 99, (a + 0.05) / (b + 0.05));
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser without network."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium to look at the report with (set TASKMILL_BROWSER to one)")
    try:
        found = Browser(program, tmp_path_factory.mktemp("profile"))
    except OSError as error:
        pytest.skip(f"{program} does not start: {error}")
    with found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with hostile text in it."""
    return write_report(make_scored_run(tmp_path_factory.mktemp("seen")))


def measure(browser: Browser, page: Path, size: str, dark: bool = False) -> dict[str, Any]:
    browser.show(page, *SIZES[size], dark)
    found: dict[str, Any] = browser.run(MEASURE)
    return found


@pytest.mark.parametrize("size", SIZES)
def test_the_report_is_whole_at_every_size(browser: Browser, report: Path, size: str) -> None:
    found = measure(browser, report, size)
    assert found["window"] == SIZES[size][0] and found["width"] <= found["window"]
    assert found["outside"] == [] and found["small"] == []
    assert list(found["sections"]) == [name for name, *_ in SECTIONS]
    assert min(found["heights"].values()) > 80
    wanted = {
        "scores": ["Selection score", "50.0 – 50.0", "Level by category, 2-shot", "+25.0"],
        "tasks": ["✓ right", "extracted 0", "chosen", "-1.50", PLANTED],
        "variants": ["mean spread", "62.5 – 87.5"],
        "clean": ["Suspected effect of leakage", "75.0 on all 36 predictions, 50.0"],
        "curves": ["37.5", "selection score", "untrained"],
    }
    for section, texts in wanted.items():
        text = " ".join(found["sections"][section].split())
        for part in texts:
            assert part in text, (section, part)
    assert len(found["plot"]) == 3 and min(found["plot"]) > 150
    assert {"0", "12"} <= set(found["ticks"]) and len(found["ticks"]) >= 6
    assert found["dots"]
    if size == "phone":
        assert found["wide"]  # wide tables scroll inside themselves


@pytest.mark.parametrize("size", SIZES)
def test_nothing_runs_and_nothing_is_asked_for(browser: Browser, report: Path, size: str) -> None:
    found = measure(browser, report, size)
    assert found["title"] == "tiny · Taskmill report"
    assert browser.requests == [report.resolve().as_uri()]
    assert browser.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser: Browser, report: Path, dark: bool) -> None:
    measure(browser, report, "desktop", dark)
    worst = browser.run(CONTRAST)
    assert worst and {name: round(ratio, 2) for name, ratio in worst.items() if ratio < 4.5} == {}


def test_a_page_that_does_all_this_is_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    body = f"{PLANTED}<div style='width: 3000px; font-size: 9px'>wide</div><script>console.error('x'); nothing()</script>"
    page.write_text(f"<!doctype html><title>good</title><body>{body}", encoding="utf-8")
    found = measure(browser, page, "phone")
    assert found["title"] == "ran" and found["width"] > found["window"]
    assert found["outside"] and found["small"]
    assert browser.requests == [page.as_uri(), (tmp_path / "x").as_uri()]
    assert len(browser.problems) >= 2
