"""What to cite of a benchmark: BibTeX of the meta-datasets and data sets that it was made from, and of its protocol.

Reads `citations.yaml` of the package: papers by key, and which names of benchmarks, readers and data sets call for each.

    >>> [entry["key"] for entry in citations(["crossfit", "gsm8k"])]
    ['cobbe2021gsm8k', 'iyer2022optiml', 'ye2021crossfit']
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from taskmill.safe_yaml import load_yaml

_FILE = Path(__file__).parent / "citations.yaml"
_FIELDS = ("title", "author", "booktitle", "journal", "volume", "number", "pages", "year", "url")
_ESCAPED = re.compile(r"[#$%&_]")
_WORDS = re.compile(r"[^a-z0-9]+")
_UNSAFE = re.compile(r"[\\{}~^`\s\x00-\x1f\x7f]+")


def citations(benchmarks: Iterable[str]) -> list[dict[str, Any]]:
    """Return what to cite, sorted by key: rows of {key, title, bibtex, benchmarks}.

    Args:
        benchmarks: names of benchmarks, and of readers or canonical data sets beside them; unknown ones cite nothing.
            A row's `benchmarks` are those that call for it: none for the paper of the three levels, cited always.
    """
    names, listed = sorted(set(benchmarks)), _listed()
    found = []
    for key, paper in sorted(listed["papers"].items()):
        patterns = [str(pattern) for pattern in paper["names"]]
        calling = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if calling or key in listed["always"]:
            title = str(paper["title"])
            found.append({"key": key, "title": title, "bibtex": bibtex(key, paper), "benchmarks": calling})
    return found


def bibtex(key: str, paper: Mapping[str, Any]) -> str:
    """Return a BibTeX entry; `type` is the entry's, the other fields are its own."""
    lines = [f"@{paper['type']}{{{key},"]
    for name in _FIELDS:
        if name in paper:
            lines.append(f"  {name} = {{{_value(name, str(paper[name]))}}},")
    return "\n".join([*lines, "}"])


def benchmark_bibtex(name: str, root: str, repository: str | None) -> str:
    """Return a BibTeX entry for a published benchmark itself, known by its root digest.

    Args:
        name: as its recipe calls it; anything.
        root: 64 hex digits.
        repository: owner/name on the Hub.
    """
    stem = _WORDS.sub("-", name.casefold()).strip("-") or "benchmark"
    plain = _UNSAFE.sub(" ", name).strip() or "benchmark"
    fields = {"type": "misc", "title": f"{plain}: an instruction-tuning benchmark"}
    lines = bibtex(f"{stem}-{root[:8]}", fields).splitlines()
    if repository is not None:
        lines.insert(-1, f"  howpublished = {{\\url{{https://huggingface.co/datasets/{repository}}}}},")
    lines.insert(-1, f"  note = {{Made with Taskmill. Root digest {root}}},")
    return "\n".join(lines)


def _value(name: str, text: str) -> str:
    """Return a field's text as TeX reads it; a title keeps its capitals."""
    if name == "url":
        return text
    escaped = _ESCAPED.sub(lambda found: "\\" + found[0], text)
    return f"{{{escaped}}}" if name == "title" else escaped


@functools.cache
def _listed() -> Mapping[str, Any]:
    listed: Mapping[str, Any] = load_yaml(_FILE.read_text(encoding="utf-8"))
    always: Sequence[str] = listed["always"]
    assert set(always) <= set(listed["papers"]), always
    return listed
