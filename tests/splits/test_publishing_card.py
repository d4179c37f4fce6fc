"""The card of a published benchmark: its front, its words, hostile names, licences and citations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from packaging.licenses import canonicalize_license_expression
from published_folder import HOSTILE, kept, publish

from taskmill.safe_yaml import load_yaml
from taskmill.splits.publishing.describing import card_front, citations, redistribution
from taskmill.splits.publishing.describing.card import card
from taskmill.splits.publishing.describing.markdown import LONGEST, code, line, plain, table

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = DatasetCard(text).data.to_dict()
    return found


# ---------------------------------------------------------------------------------------------------------------- front


def test_configurations_name_every_file_that_is_not_excluded(tmp_path: Path) -> None:
    body = publish(tmp_path)
    configs = front(card(body, "ann/harbour"))["configs"]
    offered = {
        config["config_name"]: {item["split"]: item["path"] for item in config["data_files"]}
        for config in configs
    }
    assert offered == {
        "held_out": {
            "test": "ids/held_out/test.parquet",
            "demonstration": "ids/held_out/demonstration.parquet",
        },
        "supervised": {
            "train": "ids/supervised/train.parquet",
            "validation": "ids/supervised/validation.parquet",
            "test": "ids/supervised/test.parquet",
        },
        "train": {"train": ["ids/train/train.parquet", "ids/supervised/train.parquet"]},
    }


def test_prompts_are_what_is_loaded_where_there_are_any(tmp_path: Path) -> None:
    configs = front(card(publish(tmp_path, with_data=True), None))["configs"]
    paths = [path for config in configs for item in config["data_files"] for path in item["path"]]
    assert set(paths) == {
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "data").rglob("*.parquet")
        if "excluded" not in path.name
    }


def test_load_dataset_reads_the_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "published"
    (folder / "README.md").parent.mkdir()
    text = card(publish(folder), None)
    (folder / "README.md").write_text(text, encoding="utf-8")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = datasets.load_dataset(str(folder), "train", split="train", cache_dir=str(tmp_path / "cache"))
    expected = [
        pq.read_table(folder / f"ids/{name}/train.parquet").to_pylist() for name in ("train", "supervised")
    ]
    assert list(found) == [row for rows in expected for row in rows]
    assert datasets.get_dataset_config_names(str(folder)) == ["held_out", "supervised", "train"]


def test_front_says_what_the_tables_say(tmp_path: Path) -> None:
    body = publish(
        tmp_path,
        languages=["German", "English", "Klingon"],
        categories=["Translation", "Pos Tagging", "Misc."],
    )
    found = front(card(body, "ann/harbour"))
    assert found["language"] == ["de", "en"]
    assert found["task_categories"] == ["text-generation", "token-classification", "translation"]
    assert found["size_categories"] == ["n<1K"]
    assert found["license_link"] == "https://huggingface.co/datasets/ann/harbour#licences"
    assert "## Licences" in card(body, "ann/harbour")


@pytest.mark.parametrize(
    ("stated", "license", "name"),
    [
        (["Apache-2.0"], "apache-2.0", None),
        (["CC-BY-SA-4.0"], "cc-by-sa-4.0", None),
        (["ODC-By-1.0"], "odc-by", None),
        (["GPL-3.0-only"], "gpl-3.0", None),
        (["unknown"], "unknown", None),
        (["MIT", "unknown"], "other", "mixed-per-task"),
        (["MIT", "Apache-2.0"], "other", "mixed-per-task"),
        (["MIT AND CC-BY-4.0"], "other", "mixed-per-task"),
        ([HOSTILE], "other", "mixed-per-task"),
    ],
)
def test_license_of_the_front(tmp_path: Path, stated: list[str], license: str, name: str | None) -> None:
    rows = [{"license": one, "num_tasks": 1, "num_examples": 1, "with_data": False} for one in stated]
    found = front(card(publish(tmp_path, places={("held_out", "test"): 1}, licenses=rows), None))
    assert (found["license"], found.get("license_name")) == (license, name)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**9, "n>1B")],
)
def test_size_category(tmp_path: Path, number: int, name: str) -> None:
    levels = {"train": {"train": number, "excluded": 10**12}}
    assert front(card(publish(tmp_path, places={}, levels=levels), None))["size_categories"] == [name]


def test_a_benchmark_without_examples_has_no_configuration(tmp_path: Path) -> None:
    body = publish(tmp_path, places={("held_out", "excluded"): 1})
    text = card(body, None)
    assert "configs" not in front(text) and "load_dataset" not in text


def test_languages_and_identifiers_of_the_hub_are_listed_once() -> None:
    listed = load_yaml((Path(card_front.__file__).parent / "card_front.yaml").read_text(encoding="utf-8"))
    names = [name for all_names in listed["languages"].values() for name in all_names]
    assert len(names) == len(set(names))
    for license in (*listed["licenses"], *listed["same_licenses"]):
        assert canonicalize_license_expression(license)
    assert all(isinstance(code, str) for code in listed["languages"])


# ---------------------------------------------------------------------------------------------------------------- words


def test_sections_come_in_order(tmp_path: Path) -> None:
    body = publish(tmp_path, extends={"name": "harbour v1", "root": "d" * 64})
    text = card(body, "ann/harbour")
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    sections = [
        "How to load",
        "Levels and splits",
        "Leakage",
        "Licences",
        "Sources",
        "Citation",
        "How to extend",
    ]
    assert heads == ["harbour", *sections]
    assert body["root"] in text and "d" * 64 in text
    for command in ("rebuild ann/harbour", "verify ann/harbour", "extend ann/harbour", "diff ann/harbour"):
        assert f"taskmill {command}" in text
    assert "--run runs/rebuilt --data-root DIR --hydrate texts" in text
    on_the_hub = {**body, "sources": [{**source, "hub": f"a/b@{'c' * 40}"} for source in body["sources"]]}
    assert "--data-root" not in card(on_the_hub, "ann/harbour")
    for figure in ("25.0 %", "<0.1 %", "other answers", "v2.6", "needed no decision | 9", "18 examples"):
        assert figure in text


def test_ids_only_and_with_data_say_different_things(tmp_path: Path) -> None:
    ids = card(publish(tmp_path / "ids"), None)
    data = card(publish(tmp_path / "data", with_data=True), None)
    assert "no text of the data" in ids and "no text of the data" not in data
    assert "It holds 36 prompts, of all tasks" in data
    assert "A row is an example without its text" in ids and "A row is a prompt" in data
    assert "| Apache-2.0 | 3 | 15 | no | yes: " in ids and "| Apache-2.0 | 3 | 15 | yes | yes: " in data


def test_a_level_without_prompts_is_named(tmp_path: Path) -> None:
    body = publish(tmp_path, with_data=True)
    assert card_front.without_prompts(body) == [] and "There is no prompt of" not in card(body, None)
    left = [entry for entry in body["files"] if not entry["path"].startswith("data/held_out/")]
    without = {**body, "files": left}
    assert card_front.without_prompts(without) == ["held_out"]
    text = card(without, None)
    assert "There is no prompt of `held_out` here" in text and '"held_out")' not in text
    assert card_front.without_prompts({**without, "prompts_root": None}) == []


def test_only_the_worst_kept_pairs_are_shown(tmp_path: Path) -> None:
    body = publish(tmp_path)
    body["leakage"] |= {"kept": [kept(train_task=f"p/{i}") for i in range(50)], "num_kept": 1234}
    text = card(body, None)
    assert "1,234; the worst 20." in text and "`p/19`" in text and "`p/20`" not in text
    body["leakage"] |= {"kept": [], "num_kept": 0}
    assert "was kept as it is" in card(body, None)


def test_card_follows_from_the_manifest_alone(tmp_path: Path) -> None:
    body = publish(tmp_path)
    assert card(json.loads(json.dumps(body, sort_keys=True)), "a/b") == card(body, "a/b")


# -------------------------------------------------------------------------------------------------------- hostile names


def hostile(value: Any) -> Any:
    """Return the value with every text that is anybody's replaced."""
    if isinstance(value, dict):
        kept_keys = {"sha256", "root", "files", "levels", "tasks", "mode", "states", "bibtex", "prompts_root"}
        return {key: item if key in kept_keys else hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain_body = publish(tmp_path)
    body = hostile(plain_body)
    text = card(body, None)
    assert front(text)["pretty_name"] == line(HOSTILE)
    tokens, expected = (
        MARKDOWN.parse(DatasetCard(text).text),
        MARKDOWN.parse(DatasetCard(card(plain_body, None)).text),
    )
    structure = [token.type for token in tokens if token.type != "inline"]
    assert structure == [token.type for token in expected if token.type != "inline"]
    inside = {child.type for token in tokens for child in token.children or ()}
    assert inside <= {"text", "code_inline", "strong_open", "strong_close", "html_inline"}
    html = {
        child.content for token in tokens for child in token.children or () if child.type == "html_inline"
    }
    assert html == {"<code>", "</code>"}


@given(st.text(max_size=60) | st.text("|`*_[]()<>!&#~\\:/w. \n-=+1a@$", max_size=30))
@settings(max_examples=300)
def test_plain_and_code_are_the_text_itself(text: str) -> None:
    for shown in (plain(text), code(text)):
        tokens = MARKDOWN.parse(table(("a", "b"), [(shown, "end")]))
        cells = [token for token in tokens if token.type == "inline"]
        assert len(cells) == 4
        children = [child for child in cells[2].children or () if child.type != "html_inline"]
        assert {child.type for child in children} <= {"text", "code_inline"}
        assert "".join(child.content for child in children) == line(text)
        assert cells[3].content == "end"
        assert [token.type for token in MARKDOWN.parse(f"# {shown}")][:1] == ["heading_open"]


def test_long_texts_are_cut() -> None:
    assert len(line("x " * 10_000)) <= LONGEST and line("x " * 10_000).endswith("\u2026")


# ------------------------------------------------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    "license",
    [
        *(
            "CC0-1.0",
            "CC-BY-3.0-US",
            "CC-BY-SA-4.0",
            "MIT",
            "Apache-2.0",
            "BSD-3-Clause",
            "ODC-By-1.0",
            "ODbL-1.0",
        ),
        *(
            "CDLA-Sharing-1.0",
            "GFDL-1.3-or-later",
            "GFDL-1.3-no-invariants-only",
            "LicenseRef-public-domain",
            "PDDL-1.0",
        ),
        *(
            "mit",
            "CC-BY-NC-4.0 OR MIT",
            "MIT AND (Apache-2.0 OR CC-BY-ND-4.0)",
            "GPL-2.0-only WITH Classpath-exception-2.0",
        ),
    ],
)
def test_text_may_be_handed_on(license: str) -> None:
    assert redistribution.redistributable(license)


@pytest.mark.parametrize(
    "license",
    [
        *(
            "unknown",
            "",
            "UNKNOWN",
            "CC-BY-NC-4.0",
            "CC-BY-NC-SA-3.0",
            "CC-BY-ND-4.0",
            "CC-BY-NC-ND-4.0",
            "LicenseRef-mine",
        ),
        *(
            "GFDL-1.2-invariants-or-later",
            "MIT AND unknown",
            "MIT AND CC-BY-NC-4.0",
            "(MIT OR Apache-2.0) AND CC-BY-ND-4.0",
        ),
        *(
            "MIT OR",
            "(MIT",
            "MIT Apache-2.0",
            "MIT WITH nothing",
            "C-UDA-1.0",
            "all rights reserved",
            "(" * 400 + "MIT",
            "MIT " * 500,
        ),
    ],
)
def test_text_may_not_be_handed_on(license: str) -> None:
    judgement = redistribution.judge(license)
    assert not judgement.allowed and judgement.why


@given(
    st.lists(
        st.sampled_from(["MIT", "CC-BY-NC-4.0", "AND", "OR", "WITH", "(", ")", "x", "unknown"]), max_size=9
    )
)
def test_any_expression_is_judged(tokens: list[str]) -> None:
    judgement = redistribution.judge(" ".join(tokens))
    assert judgement.why and not ("MIT" not in tokens and judgement.allowed)


@pytest.mark.parametrize(
    ("license", "name"),
    [
        ("mit", "MIT"),
        ("MIT OR Apache-2.0", None),
        ("LicenseRef-x", None),
        ("unknown", None),
        ("GPL-2.0-only", "GPL-2.0-only"),
    ],
)
def test_identifier(license: str, name: str | None) -> None:
    assert redistribution.identifier(license) == name


# ------------------------------------------------------------------------------------------------------------ citations

META_DATASETS = {
    "super_natural_instructions": "wang2022supernaturalinstructions",
    "promptsource": "bach2022promptsource",
    "crossfit": "ye2021crossfit",
    "flan": "wei2022flan",
    "exmix": "aribandi2021ext5",
    "t5": "raffel2019t5",
    "unifiedskg": "xie2022unifiedskg",
    "reasoning": "longpre2023flan",
}


@pytest.mark.parametrize(("benchmark", "key"), META_DATASETS.items())
def test_every_meta_dataset_is_cited(benchmark: str, key: str) -> None:
    found = {entry["key"]: entry for entry in citations.citations([benchmark])}
    assert found[key]["benchmarks"] == [benchmark] and found["iyer2022optiml"]["benchmarks"] == []


def test_unknown_names_cite_the_three_levels_only() -> None:
    assert [entry["key"] for entry in citations.citations(["custom", "tickets", HOSTILE])] == [
        "iyer2022optiml"
    ]
    assert citations.citations([]) == citations.citations(["custom"])


def test_names_of_data_sets_and_renamed_benchmarks_count() -> None:
    found = {
        entry["key"]: entry["benchmarks"]
        for entry in citations.citations(["niv2_zs_opt", "oasst1", "chat", "p3"])
    }
    assert found == {
        "bach2022promptsource": ["p3"],
        "iyer2022optiml": [],
        "kopf2023openassistant": ["oasst1"],
        "longpre2023flan": ["niv2_zs_opt"],
        "sanh2022t0": ["p3"],
        "wang2022supernaturalinstructions": ["niv2_zs_opt"],
    }


def test_every_paper_is_sound_bibtex() -> None:
    papers = load_yaml((Path(citations.__file__).parent / "citations.yaml").read_text(encoding="utf-8"))[
        "papers"
    ]
    for key, paper in papers.items():
        text = citations.bibtex(key, paper)
        assert text.startswith(f"@{paper['type']}{{{key},\n") and text.count("{") == text.count("}"), key
        assert str(paper["year"]) in text and paper["names"], key
        assert not set(paper) - {*citations._FIELDS, "type", "names"}, key
        place = {"article": "journal", "inproceedings": "booktitle", "misc": "url"}[paper["type"]]
        assert place in paper, key


@given(st.text(max_size=40))
def test_a_benchmark_of_any_name_has_bibtex(name: str) -> None:
    text = citations.benchmark_bibtex(name, "a" * 64, "ann/x_y")
    assert text.count("{") == text.count("}") and len(text.splitlines()) == 5 and "ann/x_y" in text
    assert re.match(r"@misc\{[a-z0-9-]+-aaaaaaaa,$", text.splitlines()[0])
