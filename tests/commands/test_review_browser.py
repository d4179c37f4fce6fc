"""The review page in a real browser, from the stop to the split; skipped where there is no Chromium."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_browser
from review_run import make_review_run, make_stopped_run
from review_server import Server, serve
from reviewing import rows
from running import taskmill

from taskmill.commands.review.deciding.state import Review
from taskmill.splits.deciding.decision_files import write_decisions
from taskmill.splits.deciding.decisions import Decision

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
WAIT = """new Promise((done, fail) => {{ const end = Date.now() + 20000; const look = () => {{
  let found = null; try {{ found = {0}; }} catch (error) {{ found = null; }}
  if (found) done(found); else if (Date.now() > end) fail('never: ' + {1}); else requestAnimationFrame(look); }}; look(); }})"""
MEASURE = """(() => {
  const seen = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && !e.matches('.skip'));
  const words = seen.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const name = e => e.tagName + '.' + (e.getAttribute('class') || e.id);
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|\\/ 0?\\.?\\d+\\)$|, 0?\\.\\d+\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const ratio = e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  const fields = seen.filter(e => e.matches('input:not([type=hidden]), select, button, a[href], summary'));
  const named = e => (e.labels && e.labels.length) || e.getAttribute('aria-label') || e.textContent.trim();
  return {
    width: document.scrollingElement.scrollWidth, window: innerWidth,
    small: [...new Set(words.filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(name))],
    outside: [...new Set(seen.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(name))],
    pale: [...new Set(words.filter(e => !e.closest(':disabled') && ratio(e) < 4.5).map(e => name(e) + ratio(e).toFixed(2)))],
    nameless: fields.filter(e => !named(e)).map(name),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i),
    beside: [...document.querySelectorAll('.texts')]
      .map(t => new Set([...t.children].map(c => Math.round(c.getBoundingClientRect().top))).size === 1),
  };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that reaches nothing but this machine."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium to look at the page with (set TASKMILL_BROWSER to one)")
    try:
        found = Browser(program, tmp_path_factory.mktemp("profile"))
    except OSError as error:
        pytest.skip(f"{program} does not start: {error}")
    with found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with some dozens of pairs and hostile text in all of it; to be copied."""
    return make_review_run(tmp_path_factory.mktemp("made"), 150)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of one's own."""
    return Path(shutil.copytree(made, tmp_path / "run"))


class Reader:
    """A person with the page before them."""

    def __init__(self, browser: Browser, server: Server) -> None:
        """Sit down; nothing is opened yet."""
        self.browser, self.server = browser, server

    def open(self, size: str = "desktop", dark: bool = False) -> None:
        """Open the address that the terminal shows."""
        self.browser.visit(self.server.address, *SIZES[size], dark)
        self.until("document.hasFocus() && document.querySelector('html:not(.plain) #progress')")

    def see(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        return self.browser.run(script)

    def until(self, script: str) -> Any:
        """Wait until an expression is true in the page; return its value."""
        return self.browser.run(WAIT.format(script, json.dumps(script)))

    def click(self, selector: str) -> None:
        """Click on what a selector finds."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.see(f"document.querySelector({json.dumps(selector)}).click()")

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.browser.press(key)

    def waiting(self) -> int:
        """How many pairs wait, as the head of the page says."""
        return int(self.see("document.querySelector('#progress .figures b').textContent.replace(',', '')"))

    def until_waiting(self, number: int) -> None:
        """Wait until so many pairs wait."""
        self.until(
            f"document.querySelector('#progress .figures b').textContent.replace(',', '') === '{number}'"
        )


def decided(run: Path) -> dict[tuple[str, str], dict[str, str]]:
    """What people have decided, row by row."""
    path = run / "decisions.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return {(row["train_task"], row["eval_task"]): row for row in rows}


def quiet(browser: Browser, server: Server) -> None:
    """Nothing was asked for elsewhere, no script of a text ran, nothing went wrong."""
    own = f"http://127.0.0.1:{server.port}/"
    assert [r for r in browser.requests if not r.startswith((own, "data:,"))] == []
    assert browser.problems == []


def test_from_the_stop_to_the_split_through_the_page_alone(browser: Browser, tmp_path: Path) -> None:
    run = make_stopped_run(tmp_path)
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        assert "token" not in reader.see("location.href")
        assert reader.see("document.cookie") == "" and reader.waiting() == 6
        reader.click("tr.pair a.open")
        reader.until("document.querySelectorAll('.evidence mark').length > 1")
        texts = reader.see(
            "[...document.querySelectorAll('.evidence .item .text')].slice(0, 2).map(t => t.innerText)"
        )
        assert len(texts) == 2 and all("w0" in text for text in texts)
        reader.see("document.querySelector('.evidence input[name=why]').value = 'the same logs'")
        reader.click(".evidence button[value=drop_train_examples]")
        reader.until_waiting(5)
        (made,) = decided(run).values()
        assert (made["action"], made["by"], made["why"]) == ("drop_train_examples", "ann", "the same logs")
        reader.click("#write")
        assert "5 pairs still wait" in reader.until("document.querySelector('dialog:modal')?.innerText")
        reader.click("#dialog-close")
        reader.until("!document.querySelector('dialog:modal')")
        reader.click("#all")
        reader.see("document.querySelector('#bulk [name=action]').value = 'drop_train_examples'")
        reader.click("#bulk-preview")
        assert "5 pairs" in reader.until("document.querySelector('dialog:modal')?.innerText")
        reader.click("#dialog-apply")
        reader.until_waiting(0)
        reader.click("#write")
        said = reader.until("document.querySelector('dialog:modal')?.innerText")
        assert "The split is written" in said and f"taskmill run {run}" in said
        quiet(browser, server)
        reader.click("#dialog-close")
        reader.click("#end")
        reader.until("document.body.innerText.includes('The review has ended')")
        server.wait()
    assert server.ended["code"] == 0 and "nothing waits; continue with: taskmill run" in server.ended["out"]
    done = taskmill("run", str(run), "--to", "split", "--workers", "1")
    assert done.returncode == 0 and "everything is up to date" in done.stdout


@pytest.mark.parametrize(
    ("size", "dark"), [("phone", False), ("desktop", True), ("desktop", False), ("phone", True)]
)
def test_the_page_is_whole_at_every_size(browser: Browser, run: Path, size: str, dark: bool) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open(size, dark)
        reader.click("tr.pair a.open")
        reader.until("document.querySelector('.evidence .panel')")
        reader.see("document.querySelectorAll('details').forEach(part => part.open = true)")
        reader.until(
            "document.querySelectorAll('table.pairs').length > 5 && !document.querySelector('table.plain-only')"
        )
        reader.click("tr.pair .pick input")
        found = reader.see(MEASURE)
        assert found["window"] == SIZES[size][0] and found["width"] <= found["window"], found["outside"]
        assert (
            found["outside"] == [] and found["small"] == [] and found["nameless"] == [] and found["ids"] == []
        )
        assert found["pale"] == []
        assert found["beside"] and set(found["beside"]) == {size == "desktop"}
        reader.click("#bulk-preview")
        reader.until("document.querySelector('dialog:modal')")
        found = reader.see(MEASURE)
        assert found["outside"] == [] and found["small"] == [] and found["ids"] == []
        quiet(browser, server)


def test_hostile_text_stays_text(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        reader.see("document.querySelectorAll('details').forEach(part => part.open = true)")
        reader.until("!document.querySelector('table.plain-only')")
        shown = ""
        for place in range(12):
            reader.see(f"document.querySelectorAll('tr.pair a.open')[{place}].click()")
            shown += reader.until("document.querySelector('.evidence .item')?.innerText")
            reader.see(
                "document.querySelector('.evidence').previousElementSibling.querySelector('a.open').click()"
            )
            reader.until("!document.querySelector('.evidence')")
        assert (
            "<script>alert('x')</script>" in shown and "{{ 7 * 7 }}" in shown and "onerror=alert(1)" in shown
        )
        assert (
            "\u240029" not in shown and "\u2400" in shown and "\u202e" not in shown
        )  # control characters are to be seen
        assert (
            reader.see("document.images.length + document.querySelectorAll('script:not([src])').length") == 0
        )
        hostile = "<img src=x onerror=alert(1)>=cmd|' {{7*7}}"
        pair = reader.see("document.querySelector('tr.pair').dataset.pair")
        reader.see("document.querySelector('tr.pair a.open').click()")
        reader.until("document.querySelector('.evidence input[name=why]')")
        reader.see(f"document.querySelector('.evidence input[name=why]').value = {json.dumps(hostile)}")
        reader.click(".evidence button[value=keep]")
        reader.until("document.querySelector('tr.pair.person')")
        assert hostile in reader.see("document.querySelector('tr.pair.person .made').innerText")
        assert decided(run)[tuple(json.loads(pair))]["why"] == hostile
        quiet(browser, server)


def test_keys_do_what_the_mouse_does(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        before = reader.waiting()
        focused = "document.activeElement.closest('tr.pair, .group')?.id"
        reader.keys("j")
        reader.until("document.activeElement.matches('summary')")
        reader.keys("j")
        first = reader.until(f"document.activeElement.matches('a.open') && {focused}")
        reader.keys("ArrowDown", "k")
        reader.until(f"{focused} === '{first}'")
        reader.keys("Enter")
        reader.until("document.querySelector('.evidence .panel')")
        reader.keys("3")
        reader.until(f"document.querySelector('#{first}.person')")
        assert reader.until(f"document.querySelector('.evidence') && {focused} !== '{first}' && {focused}")
        assert [row["action"] for row in decided(run).values()] == ["drop_eval_task"]
        reader.keys("u")
        reader.until_waiting(before)
        assert decided(run) == {}
        reader.keys("U")
        reader.until(f"document.querySelector('#{first}.person')")
        reader.keys("n")
        assert reader.until("document.activeElement.matches('input[name=why]')")
        reader.keys("x", "u")  # typed, not done
        assert reader.see("document.activeElement.value") == "xu" and len(decided(run)) == 1
        reader.keys("Escape", "x")
        assert "1 pair selected" in reader.see("document.querySelector('#selected').textContent")
        reader.keys("g")
        assert "1 group and 1 pair" in reader.see("document.querySelector('#selected').textContent")
        reader.keys("/")
        assert reader.see("document.activeElement.id") == "text"
        reader.keys("Escape", "?")
        assert reader.until("document.activeElement.id === 'help-close'")
        quiet(browser, server)


def test_keys_that_are_faster_than_answers_are_about_a_pair_each(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        before = reader.waiting()
        reader.keys("j", "j")
        reader.until("document.activeElement.matches('a.open')")
        reader.see(
            "'145'.split('').map(key => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})))"
        )
        reader.until_waiting(before - 3)
        found = sorted(row["action"] for row in decided(run).values())
        assert found == ["drop_eval_examples", "drop_train_examples", "keep"]
        quiet(browser, server)


def test_a_group_is_decided_after_a_preview_and_undone(browser: Browser, run: Path) -> None:
    pairs = [row.pair for row in rows(Review(run, "ann"))]
    proposed = [Decision(*pair.tasks, "keep", pair.evidence, why="all of it is alike") for pair in pairs]
    write_decisions(run / "suggested.csv", proposed)
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        before = reader.waiting()
        wanted = int(reader.see("document.querySelector('.group summary .state').textContent.split(' ')[0]"))
        reader.click(".group [data-together]")
        assert reader.see("document.querySelector('.group > input').checked")
        assert reader.see("document.querySelector('#bulk [name=action]').value") == "as_suggested"
        reader.see("document.querySelector('#bulk [name=action]').value = 'drop_eval_examples'")
        reader.see("document.querySelector('#bulk [name=why]').value = 'all alike'")
        reader.click("#bulk-preview")
        said = reader.until("document.querySelector('dialog:modal')?.innerText")
        assert f": {wanted} pair" in said and decided(run) == {}
        reader.click("#dialog-apply")
        reader.until_waiting(before - wanted)
        assert {(r["action"], r["why"]) for r in decided(run).values()} == {
            ("drop_eval_examples", "all alike")
        }
        assert len(decided(run)) == wanted
        assert reader.see("document.querySelector('.group summary .state').textContent") == "settled"
        assert not reader.see("document.querySelector('.group [data-together]')")
        reader.click("#undo")
        reader.until_waiting(before)
        assert decided(run) == {}
        reader.click("#redo")
        reader.until_waiting(before - wanted)
        quiet(browser, server)


def test_filters_notes_and_what_is_typed_stay(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        pairs = "document.querySelector('.heading').textContent"
        whole = reader.see(pairs)
        reader.see("text.value = 'train1'; text.dispatchEvent(new Event('input', {bubbles: true}))")
        reader.until(f"{pairs} !== {json.dumps(whole)} && location.search.includes('text=train1')")
        names = reader.see("[...document.querySelectorAll('tr.pair')].map(row => row.dataset.pair)")
        assert names and all("train1" in name for name in names)
        reader.click("tr.pair a.open")
        reader.until("document.querySelector('.evidence input[name=why]')")
        reader.see("document.querySelector('.evidence input[name=why]').value = 'ask bob'")
        reader.click(".evidence button[formaction=note]")
        reader.until("document.querySelector('tr.pair th small').textContent.includes('ask bob')")
        assert decided(run) == {}
        reader.see("document.querySelector('.evidence input[name=why]').value = 'half a thought'")
        reader.see("document.querySelectorAll('tr.pair a.open')[1].click()")
        reader.until("document.querySelectorAll('.evidence .panel').length === 2")
        reader.see("document.querySelectorAll('.evidence')[1].querySelector('button[value=keep]').click()")
        reader.until("document.querySelector('tr.pair.person')")
        assert reader.see("document.querySelector('.evidence input[name=why]').value") == "half a thought"
        reader.open()
        reader.see("document.querySelector('[name=noted]').click()")
        reader.until(
            "location.search.includes('noted=1') && document.querySelectorAll('tr.pair').length === 1"
        )
        quiet(browser, server)


def test_a_pair_has_a_page_of_its_own(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        address = reader.see("document.querySelector('tr.pair a.open').href")
        browser.visit(address, *SIZES["desktop"])
        assert reader.until("document.querySelectorAll('article.evidence mark').length")
        reader.keys("1")
        reader.until(
            "document.querySelector('article p.pair.person') && document.querySelector('button.chosen')"
        )
        assert [row["action"] for row in decided(run).values()] == ["keep"]
        reader.click("button[value=clear]")
        reader.until("document.querySelector('article p.pair.undecided')")
        assert decided(run) == {}
        quiet(browser, server)


def test_another_reviewer_s_file_is_merged_by_choice(browser: Browser, run: Path, tmp_path: Path) -> None:
    desk = json.loads(taskmill("decisions", "list", str(run), "--state", "undecided", "--json").stdout)
    first, second, third = desk["pairs"][:3]
    rows = [(first, "keep", "looked"), (second, "drop_eval_task", "worse"), (third, "keep", "old")]
    evidence = {id(third): "0" * 32}
    with (tmp_path / "bob.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["train_task", "eval_task", "action", "evidence", "rule", "by", "at", "why"])
        for pair, action, why in rows:
            tasks = [pair["train_task"], pair["eval_task"]]
            writer.writerow(
                [*tasks, action, evidence.get(id(pair), pair["evidence"]), "", "bob", "2026-03-01", why]
            )
    mine = taskmill(
        "decisions", "set", str(run), second["train_task"], second["eval_task"], "keep", "--by", "ann"
    )
    assert mine.returncode == 0, mine.stderr
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        browser.choose_file("#file", tmp_path / "bob.csv")
        reader.click("#merge button")
        said = reader.until("document.querySelector('dialog:modal')?.innerText")
        assert (
            "1 new decision" in said
            and "1 contradicts" in said
            and "1 row cannot hold" in said
            and "worse" in said
        )
        assert len(decided(run)) == 1
        reader.click("dialog input[value^=theirs]")
        reader.click("#dialog-apply")
        reader.until("!document.querySelector('dialog:modal')")
        found = {pair: (row["action"], row["by"]) for pair, row in decided(run).items()}
        assert found == {
            (first["train_task"], first["eval_task"]): ("keep", "bob"),
            (second["train_task"], second["eval_task"]): ("drop_eval_task", "bob"),
        }
        quiet(browser, server)


def test_another_program_on_this_machine_is_not_sent_the_cookie(browser: Browser, made: Path) -> None:
    heard: list[str | None] = []

    class Listens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Cookie"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serve(made) as server, ThreadingHTTPServer(("127.0.0.1", 0), Listens) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        Reader(browser, server).open()
        browser.visit(f"http://127.0.0.1:{other.server_port}/", *SIZES["desktop"])
        other.shutdown()
    assert heard and not any("taskmill" in (cookie or "") for cookie in heard), heard


def test_a_server_that_is_gone_is_said(browser: Browser, run: Path) -> None:
    with serve(run) as server:
        reader = Reader(browser, server)
        reader.open()
        server.end()
        reader.click("tr.pair a.open")
        assert "The server does not answer" in reader.until("document.querySelector('#problem').textContent")
