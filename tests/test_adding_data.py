"""docs/adding-data.md: every file on it is written, every command run, and the outputs are what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from running import taskmill

PARTS = re.compile(r"<!-- (file: (?P<path>\S+)|run|output) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the package, to which a reader can be added."""
    shutil.copytree(
        repository / "taskmill", tmp_path / "taskmill", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def cells(text: str) -> list[list[str]]:
    """Return the cells of lines that are divided by at least two blanks."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def test_the_page_is_what_works(repository: Path, folder: Path) -> None:
    page = (repository / "docs/adding-data.md").read_text(encoding="utf-8")
    shown = ""
    counts = {"file": 0, "run": 0, "output": 0}
    for part in PARTS.finditer(page):
        kind = part[1].split(":")[0]
        counts[kind] += 1
        if kind == "file":
            path = folder / part["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(part["text"], encoding="utf-8")
        elif kind == "run":
            for command in part["text"].strip().splitlines():
                program, *arguments = command.split()
                assert program == "taskmill"
                done = taskmill(*arguments, cwd=folder, package=folder)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                shown = done.stdout
        else:
            lines = cells(shown)
            for line in cells(part["text"]):
                assert line in lines, f"{line} is not among {lines}"
    assert counts == {"file": 10, "run": 3, "output": 3}
    assert page.count("<!-- ") == sum(counts.values())
