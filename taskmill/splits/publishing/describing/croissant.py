"""The description of a published benchmark for readers of Croissant 1.1: croissant.json, from its manifest and nothing else.

Reads `croissant.yaml` of the package, which has the words. See https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
Files are named by their place in the folder, so that a copy of it can be read wherever it lies. `datePublished` is the day on
which the split was made: the same run gives the same bytes on any day.

    mlcroissant.Dataset("FOLDER/croissant.json").records("ids")
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskmill.records import CONFIGURATIONS, LEVELS, PUBLISHED, SPLITS
from taskmill.safe_yaml import load_yaml
from taskmill.splits.publishing.describing.card_front import language_codes, num_examples, num_tasks, tags
from taskmill.splits.publishing.describing.citations import benchmark_bibtex
from taskmill.splits.publishing.describing.markdown import line
from taskmill.splits.publishing.describing.redistribution import identifier
from taskmill.splits.publishing.published import DATA, IDS, TABLE_NAMES, TABLES, table_path
from taskmill.storage import digest

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
PARQUET = "application/x-parquet"

Body = Mapping[str, Any]
Node = dict[str, Any]
_FILE = Path(__file__).parent / "croissant.yaml"
_HUB = "https://huggingface.co/datasets"


def croissant(body: Body, repository: str | None) -> Node:
    """Return croissant.json.

    Args:
        body: the manifest; the entries of README.md and croissant.json need not be there.
        repository: owner/name on the Hub, None where the folder is not made for one.
    """
    words = _words()
    root = str(body["root"])
    found: Node = {
        "@context": dict(words["context"]),
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": line(body["name"]) or "benchmark",
        "description": words["description"].format(
            num_tasks=f"{num_tasks(body):,}",
            num_examples=f"{num_examples(body):,}",
            levels=", ".join(name.replace("_", " ") for name in CONFIGURATIONS if body["levels"].get(name))
            or "none",
            holds=words["holds"][body["mode"]],
        ),
        "datePublished": line(body["built"]),
        "version": f"{body['version']}.0.0+{root[:16]}",
        "identifier": f"sha256:{root}",
        "license": _licenses(body),
        **_home(repository),
        "citeAs": benchmark_bibtex(line(body["name"]), root, repository),
        "citation": [str(entry["bibtex"]) for entry in body["citations"]],
        "inLanguage": language_codes(body.get("languages", ())),
        "keywords": tags(body),
        "isLiveDataset": False,
        **_provenance(body),
        **{f"rai:{name}": value for name, value in _rai(body)},
        "distribution": list(_distribution(body, repository)),
        "recordSet": [*_enumerations(), *_record_sets(body)],
    }
    return {key: value for key, value in found.items() if value not in ([], None)}


# ------------------------------------------------------------------------------------------------------ the whole of it


def _licenses(body: Body) -> list[str]:
    """Return SPDX addresses of the tasks' licences; expressions and what is unknown stand as text."""
    stated = sorted({str(row["license"]) for row in body["licenses"]}) or ["unknown"]
    names = {license: identifier(license) for license in stated}
    return [f"https://spdx.org/licenses/{name}" if (name := names[one]) else line(one) for one in stated]


def _home(repository: str | None) -> Node:
    if repository is None:
        return {}
    owner = repository.split("/")[0]
    account = {"@type": "sc:Organization", "name": owner, "url": f"https://huggingface.co/{owner}"}
    return {"url": f"{_HUB}/{repository}", "creator": account, "publisher": dict(account)}


def _provenance(body: Body) -> Node:
    """Return what it was derived from and by what, in PROV's terms."""
    made = body["taskmill"]
    stages = ", ".join(f"{stage} {revision}" for stage, revision in sorted(made["revisions"].items()))
    agent = {"@type": "prov:SoftwareAgent", "prov:label": f"Taskmill {line(made['version'])}"}
    activity = {
        "@type": "prov:Activity",
        "prov:label": f"Stages and their revisions: {stages}",
        "prov:wasAssociatedWith": agent,
    }
    derived = [_derived(source) for source in body["sources"]]
    if body["extends"]:
        before = body["extends"]
        derived.append(
            {
                "@type": "prov:Entity",
                "prov:label": line(before["name"]),
                "identifier": f"sha256:{before['root']}",
            }
        )
    return {"prov:wasDerivedFrom": derived, "prov:wasGeneratedBy": activity}


def _derived(source: Mapping[str, Any]) -> Node:
    """Return a source: where it is from, its revision, and one digest over names and digests of the files that were read."""
    files = source["files"]
    home = source["hub"] or source["repository"]
    found: Node = {
        "@type": "prov:Entity",
        "prov:label": line(source["benchmark"] or source["reader"]),
        "description": f"{len(files):,} files, {sum(file['records'] or 0 for file in files):,} records",
        "sha256": digest([[file["name"], file["sha256"]] for file in files]),
    }
    if home:
        found["sc:url"] = _address(str(home), hub=bool(source["hub"]))
    if source["revision"]:
        found["sc:version"] = line(source["revision"])
    if source["license"]:
        found["sc:license"] = line(source["license"])
    return found


def _address(home: str, hub: bool) -> str:
    """Return the address of a repository, where it is owner/name; else what is stated."""
    place = line(home).split("@")[0]
    if place.count("/") != 1 or " " in place or ":" in place:
        return line(home)
    return f"{_HUB}/{place}" if hub else f"https://github.com/{place}"


def _rai(body: Body) -> Iterator[tuple[str, Any]]:
    leakage, states = body["leakage"], body["leakage"]["states"]
    values = {
        "num_sources": f"{len(body['sources']):,}",
        "n": str(body["overlap"]["n"]),
        "normalisation": line(body["overlap"]["normalisation"]),
        "threshold": f"{100 * leakage['threshold']:g} %",
        "num_rule": f"{states.get('rule', 0):,}",
        "num_person": f"{states.get('person', 0):,}",
        "num_unclean": f"{leakage['num_unclean']:,}",
    }
    for name, text in _words()["rai"].items():
        yield name, text.format(**values) if isinstance(text, str) else [one.format(**values) for one in text]


# ------------------------------------------------------------------------------------------------------- files and tables


def _files(body: Body, folder: str) -> list[Mapping[str, Any]]:
    """Return the entries of the Parquet files below a folder, by path."""
    found = [entry for entry in body["files"] if str(entry["path"]).startswith(f"{folder}/")]
    return sorted(
        (entry for entry in found if str(entry["path"]).endswith(".parquet")), key=lambda e: str(e["path"])
    )


def _distribution(body: Body, repository: str | None) -> Iterator[Node]:
    for folder in (IDS, TABLES, DATA):
        entries = _files(body, folder)
        for entry in entries:
            path = str(entry["path"])
            found: Node = {
                "@type": "cr:FileObject",
                "@id": path,
                "name": path,
                "contentUrl": path,
                "contentSize": f"{entry['bytes']} B",
                "encodingFormat": PARQUET,
                "sha256": entry["sha256"],
            }
            if repository is not None:
                found["sameAs"] = f"{_HUB}/{repository}/resolve/main/{path}"
            yield found
        if entries and folder != TABLES:
            yield {
                "@type": "cr:FileSet",
                "@id": f"{folder}-files",
                "name": f"{folder}-files",
                "description": f"Every file below {folder}/.",
                "encodingFormat": PARQUET,
                "includes": [str(entry["path"]) for entry in entries],
            }


def _enumerations() -> Iterator[Node]:
    """Yield the splits and the levels that there may be."""
    words = _words()
    rows = [{"splits/name": split, "splits/url": words["splits"].get(split, "")} for split in SPLITS]
    yield _enumeration("splits", "cr:Split", "url", rows)
    yield _enumeration(
        "levels",
        "sc:Enumeration",
        "description",
        [{"levels/name": level, "levels/description": words["levels"][level]} for level in LEVELS],
    )


def _enumeration(name: str, kind: str, second: str, rows: Sequence[Mapping[str, str]]) -> Node:
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": "sc:Text"}
        for field in ("name", second)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "dataType": kind,
        "key": {"@id": f"{name}/name"},
        "field": fields,
        "data": list(rows),
    }


def _record_sets(body: Body) -> Iterator[Node]:
    """Yield the ids, the other tables, and the prompts where there are any."""
    for name, folder in (("ids", IDS), ("prompts", DATA)):
        if _files(body, folder):
            yield _record_set(name, {"fileSet": {"@id": f"{folder}-files"}})
    listed = {str(entry["path"]) for entry in _files(body, TABLES)}
    for name in TABLE_NAMES:
        if table_path(name) in listed:
            yield _record_set(name, {"fileObject": {"@id": table_path(name)}})


def _record_set(name: str, source: Node) -> Node:
    table = _words()["tables"][name]
    found: Node = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": table["text"]}
    keys = [{"@id": f"{name}/{column}"} for column in table.get("key", ())]
    if keys:
        found["key"] = keys[0] if len(keys) == 1 else keys
    return found | {"field": [_field(name, field, source) for field in PUBLISHED[name]]}


def _field(name: str, field: pa.Field, source: Node) -> Node:
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    found: Node = {"@type": "cr:Field", "@id": f"{name}/{field.name}", "name": field.name}
    words = _words()["columns"].get(field.name)
    if words:
        found["description"] = words
    found["dataType"] = ["sc:Text", "cr:Split"] if field.name == "split" else _data_type(kind)
    if pa.types.is_list(field.type):
        found |= {"isArray": True, "arrayShape": "-1"}
    return found | {"source": {**source, "extract": {"column": field.name}}}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    assert pa.types.is_floating(kind), kind
    return "sc:Float"


@functools.cache
def _words() -> Mapping[str, Any]:
    words: Mapping[str, Any] = load_yaml(_FILE.read_text(encoding="utf-8"))
    return words
