"""docs/packing.md: its Python prints what it shows, on a run of the demo, and its places for tables are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, call

from taskmill.recipe import Train
from taskmill.training.packing import packs as packing

PAGE = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")
PARTS = re.compile(r"```python\n(?P<code>.*?)```|<!-- prints -->\n```text\n(?P<prints>.*?)```", re.DOTALL)


def test_the_page_is_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(
        capsys, "run", "demo", "--to", "tokenize", "--limit", "20", "--workers", "1", "--quiet"
    )
    assert code == 0, err
    names: dict[str, Any] = {"Path": Path}
    printed, shown = "", 0
    for part in PARTS.finditer(PAGE):
        if part["code"]:
            exec(part["code"], names)
            printed = capsys.readouterr().out
        else:
            assert printed == part["prints"]
            shown += 1
    assert shown == 2 and PAGE.count("```python") == 4
    table, tokens, packs = names["table"], names["tokens"], names["packs"]
    assert table.num_rows == packs.num_packs > 1
    assert sum(map(len, table["input_ids"].to_pylist())) == tokens.lengths[tokens.order].sum()
    assert int(names["batch"].num_tokens) > 0


def test_the_page_has_the_benchmark_s_tables() -> None:
    for name in ("packing ratios", "packing figures"):
        body = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end {name} -->")[0]
        assert body.count("\n| ") >= 4, name


def test_the_threshold_on_the_page_is_the_code_s() -> None:
    assert f"from {packing._COMPILE_FROM // 1_000_000} million documents on" in PAGE
    assert f"their square over {packing._ATTENTION_LENGTH:,}:" in " ".join(PAGE.split())
    assert f"{Train().packing_window:,} places" in PAGE
