"""The page on places: its recipes load, its commands run, and the numbers it names are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from running import taskmill

from taskmill import hub_client, recipe_files
from taskmill.curation.places import archives, naming
from taskmill.curation.sources import _bytes

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "places.md").read_text(encoding="utf-8")


def files() -> dict[str, str]:
    return dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


def test_the_archive_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pages.jsonl").write_text('{"text": "A page."}\n{"text": "Another one."}\n')
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    shown = ""
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        if program == "python":
            subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
        else:
            done = taskmill(*arguments, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            shown = done.stdout
    assert "packed/pages" in shown and "single/pages" in shown
    assert {p.name for p in (tmp_path / "cache").iterdir()} <= {"digests.json", "archives"}


def test_the_hub_example_loads(tmp_path: Path) -> None:
    (tmp_path / "remote.yaml").write_text(files()["remote.yaml"])
    (source,) = recipe_files.load(tmp_path / "remote.yaml", ()).recipe.sources
    assert source.hub is not None and source.path == "plain_text"


def test_the_numbers_of_the_page() -> None:
    text = " ".join(PAGE.split())
    for part in (
        f"over {naming.MAX_DEPTH} folders or {naming.MAX_NAME_BYTES:,} bytes",
        f"over {archives.MAX_MEMBERS:,} members",
        f"over {archives.MAX_BYTES >> 30} GiB",
        f"over {archives.MAX_RATIO} times its own size (beyond {archives.SMALL_BYTES >> 20} MiB)",
        f"over {_bytes.MAX_RECORD_BYTES >> 20} MiB is a damaged record",
        f"{_bytes.MAX_DOCUMENT_BYTES >> 30} GiB at most",
        f"{_bytes.MAX_RATIO} times its size (beyond {_bytes.SMALL_BYTES >> 20} MiB)",
    ):
        assert part in text, part
    assert (hub_client.ATTEMPTS, hub_client.LONGEST_WAIT) == (3, 120) and "asked three times" in text
    assert all(f"`{suffix}`" in PAGE for suffix in archives.SUFFIXES)
