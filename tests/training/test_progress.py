"""The live line and the lines of the log."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from taskmill.training.monitoring.progress import Progress, clock, fit

log = logging.getLogger("taskmill")
LOSSES = {"held_out": 2.5, "supervised": 2.25}


class Screen(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """What stands there in the end, for lines no wider than the terminal."""
        found = [""]
        for part in re.split(r"(\r\x1b\[2K|\n)", self.getvalue()):
            if part == "\n":
                found.append("")
            elif part == "\r\x1b[2K":
                found[-1] = ""
            else:
                found[-1] += re.sub(r"\x1b\[[\d;]*m", "", part)
        return found


@pytest.fixture(autouse=True)
def _level(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(
        log, "propagate", True
    )  # the command line, called by other tests, keeps its lines to itself
    before = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(before)


def line(step: int) -> dict[str, float]:
    return {"step": step, "loss": 3.0 - step / 10, "num_tokens": 100}


def seconds(*times: float) -> Callable[[], float]:
    """A clock that shows these times, one after another."""
    return iter(times).__next__


def test_the_log_has_the_first_update_the_last_and_one_every_15_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown = Progress(5, stream=io.StringIO(), now=seconds(0.0, 2.0, 8.0, 16.0, 17.5, 20.0))
    for step in range(1, 6):
        shown.show(line(step), 0.25)
    shown.close()
    assert caplog.messages == [
        "train: update 1 of 5, loss 2.9000, 50 tokens/s, MFU 25.0 %, ETA 0:08",
        "train: update 4 of 5, loss 2.6000, 23 tokens/s, MFU 25.0 %, ETA 0:04",
        "train: update 5 of 5, loss 2.5000, 25 tokens/s, MFU 25.0 %",
    ]


def test_a_training_that_goes_on_says_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    shown = Progress(9, first_step=6, stream=io.StringIO(), now=seconds(0.0, 1.0, 2.0))
    shown.show(line(7))
    shown.show(line(8))
    assert caplog.messages == ["train: update 7 of 9, loss 2.3000, 100 tokens/s, ETA 0:02"]


def test_what_is_no_update_costs_no_speed(caplog: pytest.LogCaptureFixture) -> None:
    shown = Progress(2, stream=io.StringIO(), now=seconds(0.0, 1.0, 61.0, 91.0, 92.0))
    shown.show(line(1))
    shown.validation(LOSSES)
    shown.pause()
    shown.show(line(2))
    assert caplog.messages[1] == "train: validation after update 1: held_out 2.5000, supervised 2.2500"
    assert "100 tokens/s" in caplog.messages[2]


def test_quiet_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log.setLevel(logging.WARNING)
    screen = Screen()
    shown = Progress(2, stream=screen)
    shown.show(line(1))
    shown.validation(LOSSES)
    shown.close()
    assert screen.getvalue() == "" and not caplog.messages


def test_a_terminal_has_one_line_which_the_log_pushes_down() -> None:
    screen, before = Screen(), list(log.handlers)
    handler = logging.StreamHandler(screen)
    log.addHandler(handler)
    try:
        shown = Progress(10, stream=screen, now=seconds(*range(20)))
        for step in (1, 2):
            shown.show(line(step), 0.5)
        log.warning("train: something")
        shown.show(line(3), 0.5)
        shown.validation(LOSSES)
        shown.show(line(10), 0.5)
        shown.validation({"held_out": 2.0})
        shown.close()
        log.info("train: done")
    finally:
        log.removeHandler(handler)
    rows = screen.rows()
    assert rows[:2] == [
        "train: something",
        "train: validation after update 3: held_out 2.5000, supervised 2.2500",
    ]
    assert rows[2] == "train: validation after update 10: held_out 2.0000"
    last = "update 10 of 10  loss 2.0000  100 tokens/s  MFU 50.0 %  validation held_out 2.0000"
    assert rows[3] == f"{'━' * 16}  {last}"
    assert rows[4:] == ["train: done", ""]
    assert log.handlers == before


def test_the_line_is_not_drawn_more_often_than_eyes_see() -> None:
    screen = Screen()
    shown = Progress(100, stream=screen, now=seconds(*(n / 250 for n in range(500))))
    for step in range(1, 101):
        shown.show(line(step))
    shown.close()
    assert 2 <= screen.getvalue().count("\r") <= 5
    assert "update 100 of 100" in screen.rows()[0]


def test_a_narrower_terminal_has_the_wrapped_rows_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    shown = Progress(9, stream=screen, now=seconds(*range(20)))
    shown.show(line(1), 0.5)
    wide = len(screen.rows()[0])
    monkeypatch.setenv("COLUMNS", "30")
    shown.show(line(2), 0.5)
    shown.close()
    up = -(-wide // 30) - 1
    assert up > 0 and f"\r\x1b[{up}A\x1b[J" in screen.getvalue()


@pytest.mark.parametrize("width", [0, 5, 19, 20, 40, 59, 60, 200])
def test_the_line_is_never_wider_than_the_terminal(width: int) -> None:
    parts = ["update 7 of 100", "loss 2.3000", "33,000 tokens/s", "MFU 41.0 %", "ETA 1:02:03"]
    text = fit(parts, 0.07, width)
    assert text.cell_len <= width
    assert "update 7 of 100"[:width] in text.plain
    assert ("━" in text.plain) == (width == 200)
    assert fit(parts, 0.5, 200, drawn=False).plain.isascii()


def test_a_terminal_without_control_codes_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    shown = Progress(2, stream=screen)
    shown.show(line(1))
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("time", "text"), [(7.2, "0:07"), (750, "12:30"), (18_250, "5:04:10"), (183_600, "2 d 03:00")]
)
def test_remaining_time(time: float, text: str) -> None:
    assert clock(time) == text
