"""croissant.json of a published benchmark, as mlcroissant reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
import pytest
from published_folder import HOSTILE, publish

from taskmill.records import PUBLISHED
from taskmill.safe_yaml import load_yaml
from taskmill.splits.publishing.describing import croissant as module
from taskmill.splits.publishing.describing.croissant import croissant
from taskmill.splits.publishing.published import TABLE_NAMES
from taskmill.storage import digest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib.*"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:Warning"),
]
"""mlcroissant calls what newer versions of rdflib and pandas would rather not have called."""


def described(folder: Path, body: dict[str, Any], repository: str | None = None) -> mlcroissant.Dataset:
    """Write croissant.json and open it; there is nothing to be said against it."""
    path = folder / "croissant.json"
    path.write_text(json.dumps(croissant(body, repository), indent=2, ensure_ascii=False), encoding="utf-8")
    dataset = mlcroissant.Dataset(path)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and not issues.warnings
    return dataset


def records(dataset: mlcroissant.Dataset, name: str) -> list[dict[str, Any]]:
    return [
        {key.removeprefix(f"{name}/"): _text(value) for key, value in record.items()}
        for record in dataset.records(name)
    ]


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of the files in a folder, by path."""
    return [
        row for path in sorted((folder / name).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_ids_are_the_rows_of_the_files(tmp_path: Path) -> None:
    dataset = described(tmp_path, publish(tmp_path))
    assert records(dataset, "ids") == rows(tmp_path, "ids")
    names = [record_set.uuid for record_set in dataset.metadata.record_sets]
    assert names == ["splits", "levels", "ids", *TABLE_NAMES]


def test_prompts_are_the_rows_of_the_files(tmp_path: Path) -> None:
    dataset = described(tmp_path, publish(tmp_path, with_data=True), "ann/harbour")
    assert records(dataset, "prompts") == rows(tmp_path, "data")
    assert len(records(dataset, "ids")) == len(rows(tmp_path, "ids"))


def test_tables_are_their_rows_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    dataset = described(tmp_path, publish(tmp_path))
    for name in ("tasks", "pairs", "drops", "frequent"):
        path = tmp_path / "tables" / f"{name}.parquet"
        assert records(dataset, name) == pq.read_table(path).to_pylist()
    path = tmp_path / "tables" / "pairs.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(mlcroissant.GenerationError, match=r"Download\(tables/pairs"):
        records(dataset, "pairs")


def test_files_have_their_digests_and_places(tmp_path: Path) -> None:
    body = publish(tmp_path, with_data=True)
    found = {file.uuid: file for file in described(tmp_path, body, "ann/harbour").metadata.file_objects}
    assert set(found) == {entry["path"] for entry in body["files"]}
    for entry in body["files"]:
        file = found[entry["path"]]
        assert (file.sha256, file.content_url) == (entry["sha256"], entry["path"])
        assert file.same_as == [f"https://huggingface.co/datasets/ann/harbour/resolve/main/{entry['path']}"]


def test_the_whole_of_it_is_stated(tmp_path: Path) -> None:
    body = publish(tmp_path, languages=["German"], extends={"name": "v1", "root": "e" * 64})
    dataset = described(tmp_path, body, "ann/harbour")
    stated = dataset.metadata
    assert stated.version == f"1.0.0+{body['root'][:16]}" and body["root"] in stated.cite_as
    assert stated.license == ["https://spdx.org/licenses/Apache-2.0", "unknown"]
    assert (stated.url, stated.in_language) == ("https://huggingface.co/datasets/ann/harbour", ["de"])
    assert [one.name for one in stated.creators] == ["ann"]
    assert "4 tasks and 18 examples (train, held out, supervised)" in stated.description
    assert "13" in " ".join(stated.data_preprocessing_protocol)
    assert "2 pairs were decided by rules and 1 by people" in stated.data_annotation_protocol[0]
    assert stated.data_collection and stated.data_limitations and stated.personal_sensitive_information
    text = json.loads((tmp_path / "croissant.json").read_text())
    assert text["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert text["datePublished"] == body["built"]


def test_sources_are_what_it_is_derived_from(tmp_path: Path) -> None:
    body = publish(tmp_path, extends={"name": "v1", "root": "e" * 64})
    first, second, before = croissant(body, None)["prov:wasDerivedFrom"]
    assert (first["sc:url"], first["sc:version"]) == (
        "https://github.com/allenai/natural-instructions",
        "v2.6",
    )
    assert first["sha256"] == digest([["a.json", "5" * 64]])
    assert (second["sc:url"], second["sc:license"]) == ("https://huggingface.co/datasets/ann/tickets", "MIT")
    assert before["identifier"] == "sha256:" + "e" * 64


def test_without_a_repository_nothing_points_at_one(tmp_path: Path) -> None:
    found = croissant(publish(tmp_path), None)
    assert not {"url", "creator", "publisher"} & set(found)
    assert not any("sameAs" in node for node in found["distribution"])


def test_hostile_names_are_described(tmp_path: Path) -> None:
    body = publish(tmp_path, name=HOSTILE, licenses=[{"license": HOSTILE}])
    body["sources"][0] |= {"repository": HOSTILE, "revision": HOSTILE, "benchmark": HOSTILE}
    dataset = described(tmp_path, body)
    assert len(records(dataset, "ids")) == len(rows(tmp_path, "ids"))
    assert croissant(publish(tmp_path, name="\n\u202e"), None)["name"] == "benchmark"


def test_a_benchmark_without_examples_is_described(tmp_path: Path) -> None:
    dataset = described(tmp_path, publish(tmp_path, places={}))
    assert [one.uuid for one in dataset.metadata.record_sets] == ["splits", "levels", *TABLE_NAMES]


def test_description_follows_from_the_manifest_alone(tmp_path: Path) -> None:
    body = publish(tmp_path, with_data=True)
    assert croissant(json.loads(json.dumps(body, sort_keys=True)), "a/b") == croissant(body, "a/b")


def test_words_are_about_columns_that_there_are() -> None:
    words = load_yaml((Path(module.__file__).parent / "croissant.yaml").read_text(encoding="utf-8"))
    columns = {name for schema in PUBLISHED.values() for name in schema.names}
    assert set(words["columns"]) <= columns
    assert set(words["tables"]) == set(PUBLISHED)
    for name, table in words["tables"].items():
        assert set(table.get("key", ())) <= set(PUBLISHED[name].names)
