"""Whether the text of a task may be published: SPDX expressions, judged by families of licences.

Reads `redistribution.yaml` of the package, which has the reason for each family. What is unknown, malformed or fits no family
may never be published; ids and digests may always, since they hold no text.

    >>> redistributable("CC-BY-SA-4.0"), redistributable("Apache-2.0 AND CC-BY-NC-4.0"), redistributable("unknown")
    (True, False, False)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from taskmill.safe_yaml import load_yaml

_FILE = Path(__file__).parent / "redistribution.yaml"
_TOKENS = re.compile(r"[()]|[^\s()]+")
_MAX_LENGTH = 1000
"""Longer expressions are no licences."""


@dataclass(frozen=True)
class Judgement:
    """Whether text under a licence may be published, and why."""

    allowed: bool
    why: str


@dataclass(frozen=True)
class _Family:
    licenses: tuple[str, ...]
    judgement: Judgement


_UNKNOWN = Judgement(False, "the licence is unknown")
_UNLISTED = Judgement(False, "not among the licences that are known to allow it")


def redistributable(license: str) -> bool:
    """Say whether text under a licence may be published: an SPDX expression, or anything else, which may not."""
    return judge(license).allowed


def identifier(license: str) -> str | None:
    """Return the SPDX identifier of a licence that is one and no more; None of an expression, of one's own, or of none."""
    try:
        found = canonicalize_license_expression(license) if len(license) <= _MAX_LENGTH else ""
    except InvalidLicenseExpression:
        return None
    single = found and not _TOKENS.findall(found)[1:] and not found.startswith("LicenseRef-")
    return str(found) if single and not found.endswith("+") else None


@functools.lru_cache(maxsize=4096)
def judge(license: str) -> Judgement:
    """Judge an SPDX expression: of `A AND B` both must allow it, of `A OR B` one; `WITH` only ever adds permissions."""
    if len(license) > _MAX_LENGTH:
        return _UNKNOWN
    try:
        tokens = _TOKENS.findall(canonicalize_license_expression(license))
    except InvalidLicenseExpression:
        return _UNKNOWN
    return _either(tokens)


def _either(tokens: list[str]) -> Judgement:
    """Judge `A OR B` at the front of the tokens, using them up."""
    found = [_both(tokens)]
    while tokens and tokens[0] == "OR":
        del tokens[0]
        found.append(_both(tokens))
    return next((judgement for judgement in found if judgement.allowed), _joined(found))


def _both(tokens: list[str]) -> Judgement:
    """Judge `A AND B`, which binds more tightly than OR."""
    found = [_one(tokens)]
    while tokens and tokens[0] == "AND":
        del tokens[0]
        found.append(_one(tokens))
    refused = [judgement for judgement in found if not judgement.allowed]
    return _joined(refused or found)


def _one(tokens: list[str]) -> Judgement:
    """Judge a licence or an expression in brackets."""
    name = tokens.pop(0)
    if name == "(":
        found = _either(tokens)
        del tokens[:1]
        return found
    if tokens and tokens[0] == "WITH":
        del tokens[:2]
    return _family(name.removesuffix("+"))


def _joined(found: Sequence[Judgement]) -> Judgement:
    reasons = dict.fromkeys(judgement.why for judgement in found)
    return Judgement(all(judgement.allowed for judgement in found), "; ".join(reasons))


def _family(name: str) -> Judgement:
    """Return what the first family says that a licence fits; case does not matter in the names of one's own."""
    folded = name.casefold()
    for family in _families():
        if any(fnmatchcase(folded, pattern.casefold()) for pattern in family.licenses):
            return family.judgement
    return _UNLISTED


@functools.cache
def _families() -> tuple[_Family, ...]:
    listed = load_yaml(_FILE.read_text(encoding="utf-8"))["families"]
    return tuple(_Family(tuple(row["licenses"]), Judgement(row["allowed"], row["why"])) for row in listed)
