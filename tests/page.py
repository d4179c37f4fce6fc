"""Work through a page of docs/: write its files, run its commands, and find in what they print what the page shows."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from running import call

PARTS = re.compile(
    r"<!-- (file: (?P<path>\S+)|run: (?P<code>\d)|output) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL
)


def work_through(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, int, int]:
    """Do what a page says in `folder`, which is the present directory.

    A block behind `<!-- file: PATH -->` is written, one behind `<!-- run: CODE -->` holds commands that return CODE,
    and the lines of one behind `<!-- output -->` stand in this order in what the last command printed.

    Returns:
        the numbers of files, of blocks of commands and of outputs.
    """
    shown, kinds = "", Counter[str]()
    for part in PARTS.finditer(page):
        kinds[part[1].partition(":")[0]] += 1
        if part["path"]:
            (folder / part["path"]).write_text(part["text"], encoding="utf-8")
        elif part["code"]:
            for command in part["text"].strip().splitlines():
                program, *arguments = shlex.split(command)
                assert program == "taskmill"
                code, out, err = call(capsys, *arguments)
                shown = out + err
                assert code == int(part["code"]), shown
        else:
            place = 0
            for line in part["text"].strip("\n").splitlines():
                found = shown.find(line, place)
                assert found >= 0, f"{line!r} is not next in\n{shown}"
                place = found + len(line)
    return kinds["file"], kinds["run"], kinds["output"]
