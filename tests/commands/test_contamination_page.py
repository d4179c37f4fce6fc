"""The page on contamination: its files are written, its command run, and the output is what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_run import make_run
from running import call

from taskmill.commands.audit import VERDICTS
from taskmill.commands.contamination_files import FORMATS
from taskmill.commands.contamination_output import HITS, TOUCHED
from taskmill.normalisers import NAMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "contamination.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def test_the_example_gives_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        Path(name).write_text(text)
    code, out, err = call(capsys, *commands()[0])
    assert code == 0, err
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert [line.rstrip() for line in out.splitlines()] == shown.splitlines()
    assert Path("result/clean/train.jsonl").read_text() == Path("train.jsonl").read_text().splitlines(True)[1]
    for path in Path("result").glob("*.*"):
        assert f"`{path.name}`" in PAGE
    assert pq.read_schema("result/hits.parquet").names == HITS.names
    for name in {*HITS.names, *TOUCHED.names}:
        assert f"`{name}`" in PAGE


def test_the_audit_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, "render")
    arguments = [str(run) if part == "runs/demo" else part for part in commands()[1]]
    assert call(capsys, *arguments)[0] == 0
    for path in (run / "audit").iterdir():
        assert f"`{path.name}`" in PAGE


def test_the_page_names_every_verdict_format_and_normalisation() -> None:
    for name in (*VERDICTS, *NAMES, *(f".{form}" for form in FORMATS)):
        assert f"`{name}`" in PAGE
