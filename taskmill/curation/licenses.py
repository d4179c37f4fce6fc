"""Licences: what upstream writes, as SPDX; and whether a recipe accepts it.

Reads `licenses.yaml` of the package, which lists other writings; SPDX's own identifiers come from `packaging`.

    >>> spdx("CC BY-SA 4.0"), spdx("Apache 2.0; MIT"), spdx("Dedicated License (https://example.org)")
    ('CC-BY-SA-4.0', 'Apache-2.0 AND MIT', 'unknown')
    >>> refused("CC-BY-NC-4.0", ["*"], ["*-NC-*"])
    "CC-BY-NC-4.0 is denied by '*-NC-*'"
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from taskmill.safe_yaml import load_yaml

UNKNOWN = "unknown"
_FILE = Path(__file__).parent / "licenses.yaml"
_SEPARATORS = re.compile(r"[\W_]+")
_ADDRESS = re.compile(r"\s*\([^()]*\)\s*$")
_CREATIVE_COMMONS = re.compile(r"(?:cc|creative commons) ?by((?: (?:nc|nd|sa))*) (\d) (\d)(?: [a-z]+)*")
_TOKENS = re.compile(r"[()]|[^\s()]+")


def spdx(stated: str | None) -> str:
    """Return the SPDX expression of a licence as upstream states it; several, divided by `;`, hold together.

    What is no SPDX licence, or names none of its versions, is `unknown`; so is nothing.
    """
    parts = [part for part in (stated or "").split(";") if part.strip()]
    found = list(dict.fromkeys(_spdx(part.strip()) for part in parts))
    if len(found) > 1:
        found = [f"({part})" if " OR " in part else part for part in found]
    return " AND ".join(found) or UNKNOWN


@functools.cache
def _spdx(stated: str) -> str:
    for text in (stated, _ADDRESS.sub("", stated)):
        folded = _fold(text)
        if folded in _writings():
            return _writings()[folded]
        commons = _CREATIVE_COMMONS.fullmatch(folded)
        hyphenated = text.strip().replace(" ", "-")
        tried = [text, hyphenated]
        if commons:
            tried = [f"CC-BY{commons[1].replace(' ', '-')}-{commons[2]}.{commons[3]}"]
        for expression in tried:
            try:
                return str(canonicalize_license_expression(expression))
            except InvalidLicenseExpression:
                continue
    return UNKNOWN


@functools.cache
def _writings() -> Mapping[str, str]:
    """Return folded other writing -> SPDX identifier."""
    listed = load_yaml(_FILE.read_text(encoding="utf-8"))["writings"]
    return {_fold(text): name for name, texts in listed.items() for text in texts}


def _fold(text: str) -> str:
    return _SEPARATORS.sub(" ", text.casefold()).strip()


def refused(license: str, allow: Sequence[str], deny: Sequence[str]) -> str | None:
    """Say why a licence is not accepted, or None where it is.

    Args:
        license: an SPDX expression or `unknown`; of `A AND B` both must be accepted, of `A OR B` one.
        allow: shell patterns of SPDX identifiers that may be used; case does not matter.
        deny: shell patterns of those that may not; stronger than `allow`.
    """
    return _either(_TOKENS.findall(license), allow, deny)


def _either(tokens: list[str], allow: Sequence[str], deny: Sequence[str]) -> str | None:
    """Judge `A OR B` at the front of the tokens, using them up."""
    reasons = [_both(tokens, allow, deny)]
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        reasons.append(_both(tokens, allow, deny))
    return None if None in reasons else "; ".join(reason for reason in reasons if reason)


def _both(tokens: list[str], allow: Sequence[str], deny: Sequence[str]) -> str | None:
    """Judge `A AND B`, which binds more tightly than OR."""
    reasons = [_one(tokens, allow, deny)]
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        reasons.append(_one(tokens, allow, deny))
    return "; ".join(reason for reason in reasons if reason) or None


def _one(tokens: list[str], allow: Sequence[str], deny: Sequence[str]) -> str | None:
    name = tokens.pop(0) if tokens else UNKNOWN
    if name == "(":
        reason = _either(tokens, allow, deny)
        if tokens and tokens[0] == ")":
            tokens.pop(0)
        return reason
    while tokens and tokens[0] == "WITH":
        name = " ".join([name, *tokens[:2]])
        del tokens[:2]
    denied = next((pattern for pattern in deny if _fits(name, pattern)), None)
    if denied is not None:
        return f"{name} is denied by {denied!r}"
    if not any(_fits(name, pattern) for pattern in allow):
        return f"{name} is not among those allowed: {', '.join(allow) or 'none'}"
    return None


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.casefold(), pattern.casefold())
