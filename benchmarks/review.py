"""The review page with 14,000 pairs: how long it takes to open, and how long every action takes until the page shows it.

    python benchmarks/review.py [--quick] [--pairs N] [--json OUT]

`taskmill review` serves an invented run whose texts are hostile; a headless Chromium opens it. `open` is the time from the
start of the navigation to the second frame after everything has loaded. An action is timed inside the page, from the click
or key to the frame after the page shows its effect: the file of decisions is written by then, where the action writes one.
`server_open` and `server_decide` are the same page and step asked for without a browser; where there is no Chromium (see
`TASKMILL_BROWSER`), they are all that is measured.

No peer has such a page, so ratios are against the bars that the page is held to: 1000 ms over the time to open, and 100 ms
over that of each action. Ratios above 1 mean that we are faster than the bar. `found` is the number of pairs on the page,
`others` how many cores other processes kept busy meanwhile: what is measured beside much of that says little.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import ROOT, busy_seconds, children_seconds, versions

sys.path[:0] = [
    str(ROOT),
    str(ROOT / "tests"),
    str(ROOT / "tests" / "commands"),
]  # the run, the browser, the client
OPEN_MS, ACTION_MS = 1000.0, 100.0
ROUNDS = 5

DRAWN = """new Promise(done => { const look = () => document.readyState === 'complete' && document.querySelector('tr.pair') ?
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))) : setTimeout(look, 1); look(); })"""
HELPERS = """(() => {
  window.q = selector => document.querySelector(selector);
  window.hit = (key, at = document.body) => at.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  window.choose = value => { q('#filter [name=state]').value = value;
    q('#filter [name=state]').dispatchEvent(new Event('input', {bubbles: true})); };
  window.waiting = () => Number(q('#progress .figures b').textContent.replaceAll(',', ''));
  window.saying = text => q('#said').textContent.startsWith(text);
  window.second = () => document.querySelectorAll('.group')[1];
  window.timed = (name, does, shows) => new Promise((done, fail) => {
    const before = performance.now();
    does();
    const look = () => {
      let there = false;
      try { there = shows(); } catch { there = false; }
      if (there) requestAnimationFrame(() => done(performance.now() - before));
      else if (performance.now() > before + 20000) fail('never seen: ' + name);
      else setTimeout(look, 1);
    };
    look();
  });
})()"""
FIRST_DECIDED = "q('tr.pair').matches('.person')"
ACTIONS = [
    ("open_pair", "q('tr.pair a.open').click()", "q('.evidence .item')"),
    ("more_texts", "q('.evidence [data-more]').click()", "q('.evidence .item:nth-of-type(4)')"),
    ("decide", "q('.evidence [value=keep]').click()", FIRST_DECIDED),
    ("undo", "q('#undo').click()", f"!{FIRST_DECIDED}"),
    ("redo", "q('#redo').click()", FIRST_DECIDED),
    (
        "note",
        "q('.evidence [name=why]').value = 'n' + performance.now(), q('.evidence [formaction]').click()",
        "q('tr.pair').textContent.includes(q('.evidence [name=why]').value)",
    ),
    ("take_back", "q('.evidence [value=clear]').click()", f"!{FIRST_DECIDED}"),
    ("close_pair", "q('tr.pair a.open').click()", "!q('.evidence')"),
    (
        "key_decides",
        "q('tr.pair a.open').focus(), hit('1', document.activeElement)",
        f"{FIRST_DECIDED} && !document.activeElement.closest('tr').matches('.person')",
    ),
    ("key_undoes", "hit('u')", f"!{FIRST_DECIDED}"),
    ("open_group", "second().querySelector('summary').click()", "second().querySelector('tr.pair')"),
    ("more_groups", "q('#more-groups a').click()", "document.querySelectorAll('.group').length > 30"),
    (
        "preview_group",
        "second().querySelector('input').click(), q('#bulk-preview').click()",
        "q('dialog:modal')",
    ),
    ("apply_group", "q('#dialog-apply').click()", "!q('dialog:modal') && saying('keep both')"),
    ("undo_group", "q('#undo').click()", "saying('Undone')"),
    ("preview_all", "q('#all').click(), q('#bulk-preview').click()", "q('dialog:modal')"),
    ("apply_all", "q('#dialog-apply').click()", "!q('dialog:modal') && waiting() === 0"),
    ("undo_all", "q('#undo').click()", "waiting() > 0"),
    ("filter_all", "choose('all')", "location.search.includes('state=all')"),
    ("filter_rule", "choose('rule')", "q('tr.pair.rule') && location.search.includes('state=rule')"),
    ("filter_waiting", "choose('waiting')", "location.search.includes('state=waiting')"),
]
"""Name of an action, what a person does, and what the page shows then; in this order."""


def in_browser(program: str, server: Any, folder: Path, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Return milliseconds by action and the number of pairs that the page says there are."""
    from browser import Browser

    found: dict[str, list[float]] = {}
    with Browser(program, folder / "profile") as browser:
        browser.visit(server.address, 1280, 900)
        page = browser.run("location.href")
        for _ in range(rounds):
            browser.visit(page, 1280, 900)
            found.setdefault("open", []).append(browser.run(DRAWN))
            browser.run(HELPERS)
            for name, does, shows in ACTIONS:
                script = f"timed({json.dumps(name)}, () => {{ {does} }}, () => {shows})"
                found.setdefault(name, []).append(browser.run(script))
        pairs = int(browser.run("q('.figures').textContent.match(/([\\d,]+) in all/)[1].replaceAll(',', '')"))
        if browser.problems:
            raise SystemExit(f"the page complains: {browser.problems}")
    return found, pairs


def by_requests(server: Any, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Return milliseconds of the server alone and the number of pairs."""
    from review_server import Client

    client = Client(server)
    page = client.enter().text
    found: dict[str, list[float]] = {"server_open": [], "server_decide": []}
    pair = html.unescape(re.findall(r'name="pair" id="c\d+" value="([^"]+)"', page)[0])
    step = {"pair": pair, "action": "keep", "shown": [pair]}
    for _ in range(rounds):
        found["server_open"].append(milliseconds(lambda: client.get("/")))
        found["server_decide"].append(milliseconds(lambda: client.post("/decide", **step)))
        client.post("/undo")
    number = re.search(r"([\d,]+) in all", page)
    return found, int(number[1].replace(",", "")) if number else 0


def milliseconds(ask: Callable[[], Any]) -> float:
    """Return how long a request took; it must succeed."""
    started = time.perf_counter()
    answer = ask()
    if answer.code != 200:
        raise SystemExit(f"{answer.code}: {answer.text[:300]}")
    return 1000 * (time.perf_counter() - started)


def measured(num_pairs: int, rounds: int) -> dict[str, Any]:
    """Return ratios, figures and versions."""
    from browser import find_browser
    from review_run import make_review_run
    from review_server import serve

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        run = make_review_run(Path(name), num_pairs)
        started, busy, own = time.perf_counter(), busy_seconds(), children_seconds() + time.process_time()
        with serve(run) as server:
            start = time.perf_counter() - started
            found, pairs = by_requests(server, rounds)
            program = find_browser()
            if program is not None:
                more, pairs = in_browser(program, server, Path(name), rounds)
                found |= more
    seconds = time.perf_counter() - started
    others = busy_seconds() - busy - (children_seconds() + time.process_time() - own)
    if pairs != num_pairs:
        raise SystemExit(f"the page says {pairs} pairs of {num_pairs}")
    result = summed(found, pairs, start)
    result["figures"]["others"] = round(max(0.0, others) / seconds, 2)
    return result


def summed(found: dict[str, list[float]], pairs: int, start: float) -> dict[str, Any]:
    """Return the result: medians and the slowest rounds, and how far they are from the bars."""
    medians = {name: statistics.median(times) for name, times in found.items()}
    bars = {name: OPEN_MS if name.endswith("open") else ACTION_MS for name in medians}
    ratios = {f"bar_over_{name}": round(bars[name] / max(0.1, medians[name]), 2) for name in medians}
    figures: dict[str, Any] = {"found": pairs, "start_seconds": round(start, 2)}
    figures |= {f"{name}_ms": round(value, 1) for name, value in medians.items()}
    figures |= {f"{name}_worst_ms": round(max(times), 1) for name, times in found.items()}
    return {
        "ratios": ratios,
        "figures": figures,
        "versions": versions("flask", "waitress", "jinja2", "pyarrow"),
    }


def main() -> int:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--pairs", type=int, default=14_000, help="pairs of the invented run")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    found = measured(arguments.pairs, 2 if arguments.quick else ROUNDS)
    printed = json.dumps(found, indent=1)
    sys.stdout.write(printed + "\n")
    if arguments.json:
        arguments.json.write_text(printed + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
