"""docs/templates.md: its files are written, its commands run, and what they print is what it shows; its rules are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from running import ROOT, call

from taskmill.templates.linting.findings import RULES

PAGE = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
PARTS = re.compile(
    r"<!-- (file: (?P<path>\S+)|run: (?P<code>\d)|output) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL
)


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, kinds = "", list[str]()
    for part in PARTS.finditer(PAGE):
        kinds.append(part[1].split(":")[0])
        if part["path"]:
            (tmp_path / part["path"]).write_text(part["text"], encoding="utf-8")
        elif part["code"]:
            for command in part["text"].strip().splitlines():
                program, *arguments = shlex.split(command)
                assert program == "taskmill"
                code, out, err = call(capsys, *arguments)
                shown = out + err
                assert code == int(part["code"]), shown
        else:
            for line in part["text"].strip("\n").splitlines():
                assert line in shown, f"{line!r} is not in\n{shown}"
    assert (kinds.count("file"), kinds.count("run"), kinds.count("output")) == (2, 7, 6)
    assert PAGE.count("<!-- ") == len(kinds) + 1


def test_the_rules_on_the_page_are_those_of_the_code() -> None:
    (table,) = re.findall(r"<!-- rules -->\n((?:\|.*\n)+)", PAGE)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    cells = [tuple(cell.strip().replace("\\|", "|") for cell in row) for row in rows]
    assert cells == [(f"`{name}`", rule.severity, rule.about) for name, rule in RULES.items()]
