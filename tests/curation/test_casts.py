"""Every shipped cast: the fields that its data sets' real templates read, both layouts alike, what templates render."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_rows import FLOATS, ROWS
from original_files import ORIGINALS, SAME_BUT

from taskmill.curation.casting import SHIPPED, Cast, casts_by_folder, known_casts, load_cast
from taskmill.curation.reader import Columns, SourceFolder, TaskData, load_reader
from taskmill.curation.sources._casted import find_data, make_entry, need_data, read_entry
from taskmill.curation.sources._yaml import load_yaml
from taskmill.curation.sources.promptsource import template_row
from taskmill.templates.composing.schemas import Rendered
from taskmill.templates.rendering.renderer import Renderer

FUNCTIONS = {"zip"}
"""What upstream's environment gives to templates beside the row."""
FEWGLUE, ALLENNLP = "exmix_t5/superglue_fewglue", "exmix_t5/allennlp_fixtures"


def write_hub(folder: Path, name: str, rows: list[dict[str, Any]], place: str = "") -> None:
    """Write rows as the Hub lays them out: `<place>/<split>-00000-of-00001.parquet`."""
    schema = pa.Table.from_pylist(rows).schema
    for column in FLOATS.get(name, ()):
        schema = schema.set(schema.get_field_index(column), pa.field(column, pa.float32()))
    splits = casts_by_folder([])[name].layouts["hub"].files
    split = next(names[0] for names in splits.values() if names)
    (folder / place).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / place / f"{split}-00000-of-00001.parquet")


def read(folder: Path, cast: Cast, *, keywords: bool = False, name: str | None = None) -> TaskData:
    source = SourceFolder(folder, folder, {}, "stop")
    return read_entry(
        make_entry("t", cast, find_data(cast, [folder], name=name), source), source, keywords=keywords
    )


# -------------------------------------------------------------------------------- against real templates


def template_sets(shared_data: Path) -> dict[str, list[dict[str, Any]]]:
    root = shared_data / "promptsource" / "templates"
    found = {}
    for path in sorted(root.rglob("templates.yaml")):
        listed = load_yaml(path.read_text(encoding="utf-8"))["templates"]
        found[path.parent.relative_to(root).as_posix()] = [
            template_row(identity, template) for identity, template in listed.items()
        ]
    return found


def test_every_real_template_set_has_a_cast_with_every_name_that_it_reads(shared_data: Path) -> None:
    casts = casts_by_folder([])
    sets = template_sets(shared_data)
    assert len(sets) == 279
    missing = {
        name: sorted(extra)
        for name, rows in sets.items()
        if (extra := {read for row in rows for read in row["reads"]} - set(casts[name].fields) - FUNCTIONS)
    }
    assert missing == {}


def test_every_cast_of_template_sets_has_an_invented_row() -> None:
    served = {load_cast(name, []).name for name in known_casts([]) if load_cast(name, []).datasets}
    casts = casts_by_folder([])
    tried = {casts[name].name for name in ROWS}
    other = {
        "apps",
        "boolq",
        "code_contests",
        "code_search_net",
        "gsm8k",
        "kilt_aidayago2",
        "kilt_wned",
        "truthfulqa",
    }
    assert served - tried == other, "these data sets have no templates; all others need a row in hub_rows.py"


def test_real_templates_render_the_invented_rows_with_the_right_target(
    shared_data: Path, tmp_path: Path
) -> None:
    for name, (row, _) in ROWS.items():
        write_hub(tmp_path / "data" / name, name, [row])
    reader = load_reader("promptsource")
    options = {"templates": str(shared_data / "promptsource" / "templates"), "data": "data"}
    source = SourceFolder(tmp_path, tmp_path, options, "stop")
    entries = {entry.name: entry for entry in reader.discover(source)}
    assert set(entries) == set(ROWS)
    renderer = Renderer(1, 100_000)
    wrong = {}
    for name, (_, target) in ROWS.items():
        data = reader.read(entries[name], source)
        assert len(data.columns) == 1 and set(data.facts["output_fields"]) <= set(data.columns.fields[0])
        fields = json.dumps(data.columns.fields[0])
        drawn = [renderer.promptsource(template, fields, "x") for template in data.templates]
        good = [one for one in drawn if isinstance(one, Rendered)]
        broken = [one for one in drawn if not isinstance(one, Rendered) and one.reason != "empty"]
        if broken or target.strip() not in {one.target.strip() for one in good}:
            wrong[name] = (target, [one.target for one in good], broken)
        assert all(one.source.strip() or one.instruction for one in good), name
    assert wrong == {}


# -------------------------------------------------------------------------------------- both layouts


def same(first: Columns, second: Columns, name: str) -> None:
    assert len(first) == len(second) == 1
    left, right = first.fields[0], second.fields[0]
    differing = {key for key in left if json.dumps(left[key]) != json.dumps(right[key])}
    assert set(left) == set(right) and differing <= SAME_BUT.get(name, set()), (left, right)
    assert first.references == second.references and first.options == second.options
    assert first.group == second.group


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_release_and_the_hub_give_the_same_example(name: str, tmp_path: Path) -> None:
    cast = casts_by_folder([])[name]
    for file, text in ORIGINALS[name].items():
        path = tmp_path / "release" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    write_hub(tmp_path / "hub", name, [ROWS[name][0]])
    for keywords in (False, True) if cast.shape else (False,):
        release = read(tmp_path / "release", cast, keywords=keywords)
        hub = read(tmp_path / "hub", cast, keywords=keywords)
        same(release.columns, hub.columns, name)
        assert keywords is False or set(release.columns.fields[0]) == set(cast.keywords or cast.fields)


@pytest.mark.parametrize(
    ("name", "files", "field", "value"),
    [
        ("glue-cola", {"test.tsv": "index\tsentence\n0\tThe miller.\n"}, "label", -1),
        ("glue-sst2", {"test.tsv": "index\tsentence\n0\ta film\n"}, "label", -1),
        ("glue-stsb", {"test.tsv": "index\tsentence1\tsentence2\n0\ta\tb\n"}, "label", -1.0),
        ("glue-mnli", {"test_matched.tsv": "index\tsentence1\tsentence2\n0\ta\tb\n"}, "label", -1),
        ("snli", {"dev.jsonl": '{"gold_label": "-", "sentence1": "a", "sentence2": "b"}\n'}, "label", -1),
        ("piqa", {"tests.jsonl": '{"goal": "a", "sol1": "b", "sol2": "c"}\n'}, "label", -1),
        (
            "super_glue-wsc.fixed",
            {
                "test.jsonl": json.dumps(
                    {
                        "text": "a",
                        "target": dict.fromkeys(
                            ("span1_index", "span2_index", "span1_text", "span2_text"), "a"
                        ),
                    }
                )
            },
            "label",
            -1,
        ),
        ("winogrande", {"test.jsonl": '{"sentence": "a _", "option1": "b", "option2": "c"}\n'}, "answer", ""),
    ],
)
def test_an_answer_that_is_kept_back_is_the_hubs_mark_and_no_reference(
    name: str, files: dict[str, str], field: str, value: Any, tmp_path: Path
) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    columns = read(tmp_path, load_cast(name, [])).columns
    assert columns.fields[0][field] == value and columns.references == [[]]


# ------------------------------------------------------------------------- where the Hub's files lie


@pytest.mark.parametrize("place", ["plain_text", "data", ""])
def test_promptsource_finds_the_hubs_files_below_the_folder_of_a_data_set(
    place: str, shared_data: Path, tmp_path: Path
) -> None:
    for split in ("train_r1", "train_r3", "test_r2"):
        path = tmp_path / "data" / "anli" / place / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{**ROWS["anli"][0], "uid": split}]), path)
    reader = load_reader("promptsource")
    options = {"templates": str(shared_data / "promptsource" / "templates"), "data": "data"}
    source = SourceFolder(tmp_path, tmp_path, options, "stop")
    (entry,) = reader.discover(source)
    columns = reader.read(entry, source).columns
    assert columns.upstream_split == ["train", "train", "test"]
    assert columns.upstream_id == ["train-train_r1", "train-train_r3", "test-test_r2"]


@pytest.mark.parametrize("place", ["", "data", "cb", "plain_text"])
def test_hub_files_in_the_folder_or_its_configuration(place: str, tmp_path: Path) -> None:
    write_hub(tmp_path, "super_glue/cb", [ROWS["super_glue/cb"][0]], place)
    columns = read(tmp_path, load_cast("super_glue-cb", [])).columns
    assert columns.references == [["neutral"]] and columns.upstream_split == ["train"]


def test_hub_files_by_split_folder_and_by_the_configuration_asked_for(tmp_path: Path) -> None:
    row = ROWS["scan/simple"][0]
    for config, commands in (("simple", "jump"), ("length", "walk")):
        folder = tmp_path / config / "test"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([{**row, "commands": commands}]), folder / "0000.parquet")
    cast = load_cast("scan", [])
    for name, commands in (("scan/simple", "jump"), ("scan/length", "walk")):
        columns = read(tmp_path, cast, name=name).columns
        assert [fields["commands"] for fields in columns.fields] == [commands]
        assert columns.upstream_split == ["test"]


def test_splits_with_names_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "validation_matched", "validation_mismatched", "test_matched"):
        pq.write_table(
            pa.Table.from_pylist([{**ROWS["glue/mnli"][0], "premise": split}]),
            tmp_path / f"{split}-00000-of-00001.parquet",
        )
    found = read(tmp_path, load_cast("glue-mnli", [])).columns
    splits = dict(zip([f["premise"] for f in found.fields], found.upstream_split, strict=True))
    assert splits == {
        "train": "train",
        "validation_matched": "validation",
        "validation_mismatched": "validation",
        "test_matched": "test",
    }
    matched = read(tmp_path, load_cast("glue-mnli_matched", [])).columns
    assert matched.upstream_split == ["validation", "test"]


def test_a_folder_with_the_casts_own_files_is_not_read_as_a_hub_repository(tmp_path: Path) -> None:
    write_hub(tmp_path, "super_glue/cb", [ROWS["super_glue/cb"][0]])
    (tmp_path / "dev.jsonl").write_text(ORIGINALS["super_glue/cb"]["train.jsonl"])
    assert read(tmp_path, load_cast("super_glue-cb", [])).columns.upstream_split == ["validation"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("squad_v2", "squad_v2"),
        ("yelp_review_full", "yelp_review_full"),
        ("dbpedia_14", "dbpedia_14"),
        ("quail", "quail"),
        ("crows_pairs", "crows_pairs"),
        ("emotion", "split"),
        ("art", "anli"),
    ],
)
def test_a_configuration_that_is_called_like_the_data_set_or_as_the_cast_says(
    name: str, place: str, tmp_path: Path
) -> None:
    write_hub(tmp_path, name, [ROWS[name][0]], place)
    assert len(read(tmp_path, load_cast(name, []), name=name).columns) == 1


def test_the_challenge_set_is_the_test_set_and_what_is_not_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "challenge", "unheard_of"):
        rows = pa.Table.from_pylist([ROWS["quail"][0]])
        pq.write_table(rows, tmp_path / f"{split}-00000-of-00001.parquet")
    source = SourceFolder(tmp_path, tmp_path, {}, "stop")
    with caplog.at_level("INFO", "taskmill"):
        found = need_data(load_cast("quail", []), [tmp_path], source)
    assert [file.split for file in found] == ["train", "test"]
    assert "1 Parquet files are not read" in caplog.text and "unheard_of" in caplog.text


def test_a_target_that_is_kept_back_as_an_empty_text_is_no_reference(tmp_path: Path) -> None:
    write_hub(tmp_path, "common_gen", [{**ROWS["common_gen"][0], "target": ""}])
    assert read(tmp_path, load_cast("common_gen", [])).columns.references == [[]]


def test_headlines_of_one_event_have_the_label_one(tmp_path: Path) -> None:
    write_hub(tmp_path, "hlgd", [{**ROWS["hlgd"][0], "label": label} for label in (0, 1)])
    columns = read(tmp_path, load_cast("hlgd", [])).columns
    assert columns.references == [["different_event"], ["same_event"]]


@pytest.mark.parametrize(
    ("name", "field", "twins"),
    [
        (
            "glue/wnli",
            "sentence1",
            ("The cart missed the wall because it was wide.", "The cart missed the wall because it was low."),
        ),
        (
            "super_glue/wsc.fixed",
            "text",
            ("Ode paid Ann since she was kind.", "Ode paid Ann since she was poor."),
        ),
        (
            "super_glue/axg",
            "premise",
            ("The miller paid the man as he left.", "The miller paid the man as they left."),
        ),
        (
            "winograd_wsc/wsc273",
            "text",
            ("Ode paid Ann since she was kind.", "Ode paid Ann since she was poor."),
        ),
        ("ropes", "situation", ("Mill A has water.", "Mill B has water.")),
    ],
)
def test_twins_are_one_group(name: str, field: str, twins: tuple[str, str], tmp_path: Path) -> None:
    row = ROWS[name][0]
    write_hub(tmp_path, name, [{**row, field: text} for text in twins] + [{**row, field: "Otherwise."}])
    groups = read(tmp_path, casts_by_folder([])[name], name=name).columns.group
    assert groups[0] == groups[1] and groups[0] is not None
    assert name == "ropes" or groups[2] != groups[0]


def test_the_situation_of_ropes_is_part_of_the_context(tmp_path: Path) -> None:
    write_hub(tmp_path, "ropes", [ROWS["ropes"][0]])
    (fields,) = read(tmp_path, load_cast("ropes", []), keywords=True).columns.fields
    assert fields["context"] == "Water turns wheels.\nMill A has water, mill B has none."


# ------------------------------------------------------------------------------------------ real files


def test_real_fixtures_read_as_their_releases_lay_them_out(shared_data: Path) -> None:
    root = shared_data / ALLENNLP
    squad = json.loads((root / "rc/squad.json").read_text())["data"]
    asked = [q for article in squad for p in article["paragraphs"] for q in p["qas"]]
    columns = read(root / "rc", load_cast("squad", [])).columns
    assert [f["question"] for f in columns.fields] == [q["question"] for q in asked]
    assert columns.references == [[a["text"] for a in q["answers"]] for q in asked]


def test_every_record_of_the_real_fixtures_becomes_an_example(shared_data: Path) -> None:
    root = shared_data / ALLENNLP
    nested = {"squad": "squad.json", "squad_v2": "squad2.json", "quoref": "quoref_sample.json"}
    counts = {
        ("rc", name): sum(
            len(paragraph["qas"])
            for article in json.loads((root / "rc" / file).read_text(encoding="utf-8"))["data"]
            for paragraph in article["paragraphs"]
        )
        for name, file in nested.items()
    }
    record = json.loads((root / "rc/record.json").read_text(encoding="utf-8"))["data"]
    counts["rc", "super_glue-record"] = sum(len(row["qas"]) for row in record)
    counts["rc", "wiki_hop"] = len(json.loads((root / "rc/qangaroo.json").read_text(encoding="utf-8")))
    with (root / "mc/swag.csv").open(encoding="utf-8", newline="") as file:
        counts["mc", "swag"] = sum(1 for _ in csv.DictReader(file))
    for folder, name, file in (
        ("rc", "super_glue-rte", "superglue_rte.jsonl"),
        ("mc", "commonsense_qa", "commonsenseqa.jsonl"),
        ("mc", "piqa", "piqa.jsonl"),
        ("classification", "boolq", "boolq.jsonl"),
        ("classification", "sst", "sst.txt"),
        ("pair_classification", "quora", "quora_paraphrase.tsv"),
        ("pair_classification", "snli", "snli.jsonl"),
    ):
        text = (root / folder / file).read_text(encoding="utf-8")
        counts[folder, name] = sum(1 for line in text.split("\n") if line.strip())
    assert all(counts.values())
    for (folder, name), count in counts.items():
        data = read(root / folder, load_cast(name, []))
        assert (len(data.columns), data.aside) == (count, []), name
    both = read(root / "pair_classification/bias_mitigation", load_cast("snli", [])).columns
    assert set(both.upstream_split) == {"train", "validation"}


def test_real_commonsenseqa_snli_and_swag_field_by_field(shared_data: Path) -> None:
    root = shared_data / ALLENNLP
    rows = [json.loads(line) for line in (root / "mc/commonsenseqa.jsonl").read_text().splitlines()]
    columns = read(root / "mc", load_cast("commonsense_qa", [])).columns
    assert [f["question"] for f in columns.fields] == [row["question"]["stem"] for row in rows]
    for row, options, references in zip(rows, columns.options, columns.references, strict=True):
        texts = {choice["label"]: choice["text"] for choice in row["question"]["choices"]}
        assert options == list(texts.values()) and references == [texts[row["answerKey"]]]
    rows = [json.loads(line) for line in (root / "pair_classification/snli.jsonl").read_text().splitlines()]
    columns = read(root / "pair_classification", load_cast("snli", [])).columns
    assert columns.references == [[row["gold_label"]] for row in rows]
    assert [f["premise"] for f in columns.fields] == [row["sentence1"] for row in rows]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("boolq", "BoolQ"),
        ("cb", "CB"),
        ("copa", "COPA"),
        ("multirc", "MultiRC"),
        ("rte", "RTE"),
        ("wic", "WiC"),
    ],
)
def test_real_superglue_files_come_back_the_same_from_the_hubs_layout(
    name: str, folder: str, shared_data: Path, tmp_path: Path
) -> None:
    cast = load_cast(f"super_glue-{name}", [])
    release = read(shared_data / FEWGLUE / folder, cast).columns
    rows = [
        {**fields, "idx": number}
        for number, (fields, split) in enumerate(zip(release.fields, release.upstream_split, strict=True))
        if split == "train"
    ]
    if name == "multirc":
        rows = [{**row, "idx": {"paragraph": 0, "question": 0, "answer": row["idx"]}} for row in rows]
    write_hub(tmp_path, f"super_glue/{name}", rows)
    hub = read(tmp_path, cast).columns
    kept = [place for place, split in enumerate(release.upstream_split) if split == "train"]
    assert len(kept) >= 32 and hub.fields == [release.fields[place] for place in kept]
    assert hub.references == [release.references[place] for place in kept]
    assert hub.options == [release.options[place] for place in kept]


def test_shipped_casts_are_many_and_small() -> None:
    sizes = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in SHIPPED.glob("*.yaml")}
    assert len(sizes) > 200 and max(sizes.values()) <= 60
