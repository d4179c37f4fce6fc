"""Licences as SPDX, and what a recipe accepts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from taskmill.curation.licenses import refused, spdx


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, "unknown"),
        ("", "unknown"),
        ("Unknown", "unknown"),
        ("MIT", "MIT"),
        ("mit license", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("apache-2.0", "Apache-2.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0"),
        ("Creative Commons BY 4.0 International", "CC-BY-4.0"),
        ("CC BY-NC-ND 4.0", "CC-BY-NC-ND-4.0"),
        ("CC0: Public Domain", "CC0-1.0"),
        ("BSD 3-Clause", "BSD-3-Clause"),
        ("GPL 3.0", "GPL-3.0-only"),
        ("odc-by", "ODC-By-1.0"),
        ("CDLA Permissive 2.0", "CDLA-Permissive-2.0"),
        ("LibriVox: Public Domain (https://example.org/x)", "LicenseRef-public-domain"),
        ("MIT OR Apache-2.0; CC BY 4.0", "(MIT OR Apache-2.0) AND CC-BY-4.0"),
        ("CC BY-SA 4.0; Some University License", "CC-BY-SA-4.0 AND unknown"),
        ("CC BY", "unknown"),
        ("BSD", "unknown"),
        ("CC BY 9.9", "unknown"),
        ("Dedicated License (https://example.org/LICENSE)", "unknown"),
    ],
)
def test_spdx(stated: str | None, expected: str) -> None:
    assert spdx(stated) == expected


def test_spdx_of_its_own_result() -> None:
    for name in ("MIT", "CC-BY-SA-4.0", "LicenseRef-public-domain", "unknown"):
        assert spdx(name) == name


@pytest.mark.parametrize(
    ("license", "allow", "deny", "reason"),
    [
        ("MIT", ["*"], [], None),
        ("MIT", ["mit"], [], None),
        ("CC-BY-NC-4.0", ["*"], ["*-NC-*"], "CC-BY-NC-4.0 is denied by '*-NC-*'"),
        ("unknown", ["*"], ["unknown"], "unknown is denied by 'unknown'"),
        ("unknown", ["MIT", "CC-*"], [], "unknown is not among those allowed: MIT, CC-*"),
        ("MIT AND CC-BY-NC-4.0", ["*"], ["*-NC-*"], "CC-BY-NC-4.0 is denied by '*-NC-*'"),
        ("MIT OR CC-BY-NC-4.0", ["*"], ["*-NC-*"], None),
        ("(MIT OR Apache-2.0) AND unknown", ["*"], ["unknown"], "unknown is denied by 'unknown'"),
        ("(MIT OR GPL-3.0-only) AND CC-BY-4.0", ["*"], ["GPL-*"], None),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", ["*"], ["GPL-*"], None),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only WITH *"], [], None),
    ],
)
def test_refused(license: str, allow: list[str], deny: list[str], reason: str | None) -> None:
    assert refused(license, allow, deny) == reason


def test_instance_licenses_of_real_tasks(shared_data: Path) -> None:
    counts = Counter[str]()
    for folder in ("tasks", "tasks_shallow"):
        for path in (shared_data / "super_natural_instructions" / folder).glob("*.json"):
            counts[spdx("; ".join(json.loads(path.read_bytes())["Instance License"]))] += 1
    assert sum(counts.values()) == 1421
    expected = {"CC-BY-SA-4.0": 204, "CC-BY-4.0": 179, "MIT": 169, "Apache-2.0": 92, "CC0-1.0": 23}
    assert {name: counts[name] for name in expected} == expected
    assert counts["unknown"] == 629
