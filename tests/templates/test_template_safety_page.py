"""`docs/template-safety.md` says what the code does."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from taskmill import safe_yaml
from taskmill.recipe import Render
from taskmill.templates.sandboxing import limits


def test_examples_run(repository: Path) -> None:
    assert doctest.testfile(str(repository / "docs/template-safety.md"), module_relative=False).failed == 0


def test_every_limit_is_stated_as_it_is(repository: Path) -> None:
    page = (repository / "docs/template-safety.md").read_text(encoding="utf-8")
    stated = {
        name: int(number.replace(",", "")) for name, number in re.findall(r"\| `(MAX_\w+)` \| ([\d,]+)", page)
    }
    actual = {
        name: value
        for module in (limits, safe_yaml)
        for name, value in vars(module).items()
        if name.startswith("MAX_")
    }
    assert stated == actual
    assert f"`render.time_limit_seconds` ({Render().time_limit_seconds:g})" in page
    assert f"`render.memory_limit_mb` ({Render().memory_limit_mb})" in page
