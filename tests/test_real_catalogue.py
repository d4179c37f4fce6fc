"""The catalogue recipe over every real upstream file: nothing is lost, nothing is changed, and the docs say what comes of it."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from running import settings, taskmill
from test_real import tables
from upstream_counts import AUXILIARY, UpstreamFile, count_files
from upstream_records import EXPECT, shown

from taskmill import api
from taskmill.curation.reader import load_reader
from taskmill.recipe import Plan, known_readers
from taskmill.recipe_files import from_json
from taskmill.splits.planning.assignment import plan_and_assign
from taskmill.splits.planning.layout_files import find_layout
from taskmill.splits.planning.layout_files import shipped as shipped_layouts

Row = dict[str, Any]
READ_BESIDE = {
    "table or schema that examples point at",
    "templates: read where rows of their data set are there",
}
"""Auxiliary files that the manifest lists all the same: tasks are read with them."""
READ_FOR_NAMES = "split list: read as `upstream_role`"
RULES = {"missing_table", "no_answer", "tree_not_ready", "prediction", "read_before", "uncut_exemplar"}
"""Reasons by which formats leave a record out; the others are duplicates and data sets that another benchmark has."""
TWINS = {"duplicate", "dataset_elsewhere"}


@pytest.fixture(scope="module")
def files(shared_data: Path) -> dict[str, UpstreamFile]:
    """Every real file and what it holds; one that nobody has looked at is an error."""
    return count_files(shared_data)


@pytest.fixture(scope="module")
def run(shared_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """The catalogue, built with two workers."""
    recipe = repository / "examples" / "recipes" / "catalogue.yaml"
    folder = tmp_path_factory.mktemp("catalogue") / "run"
    values = settings((f"data_root={shared_data}",))
    done = taskmill("curate", str(recipe), "--run", str(folder), "--workers", "2", *values)
    assert done.returncode == 0, done.stderr
    return api.Run(folder)


@pytest.fixture(scope="module")
def tasks(run: api.Run) -> dict[str, Row]:
    return {row["task"]: row for row in run.table("curate", "tasks").to_pylist()}


@pytest.fixture(scope="module")
def examples(run: api.Run) -> list[Row]:
    columns = ["example", "task", "file", "record", "fields", "references", "options"]
    columns += ["upstream_split", "group"]
    return run.table("curate", "examples", columns).to_pylist()


@pytest.fixture(scope="module")
def dropped(run: api.Run) -> list[Row]:
    columns = ["task", "file", "record", "reason", "detail", "twin", "raw"]
    return run.table("curate", "dropped", columns).to_pylist()


def upstream(run: api.Run) -> list[Row]:
    return list(run.manifest("curate").body["upstream"])


# ------------------------------------------------------------------------------------------ nothing lost


def test_every_file_that_holds_examples_is_read_and_no_other(
    run: api.Run, files: dict[str, UpstreamFile]
) -> None:
    read = {file["name"] for source in upstream(run) for file in source["files"]}
    assert read <= files.keys()
    assert {name for name, file in files.items() if file.num is not None} <= read
    assert {files[name].kind for name in read if files[name].num is None} == READ_BESIDE


def test_what_is_called_a_copy_is_one(shared_data: Path) -> None:
    chat, wikitq = shared_data / "chat", shared_data / "unifiedskg/wikitablequestions/data"
    assert (chat / "alpaca/seed_tasks.jsonl").read_bytes() == (
        chat / "self_instruct/seed_tasks.jsonl"
    ).read_bytes()
    numbers = [
        re.findall(
            pattern, (wikitq / f"training-before300.{suffix}").read_text(encoding="utf-8"), re.MULTILINE
        )
        for pattern, suffix in ((r"^\(example \(id (nt-\d+)\)", "examples"), (r"^(nt-\d+)\t", "tsv"))
    ]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 300


def test_each_source_reads_every_example_of_its_files(run: api.Run, files: dict[str, UpstreamFile]) -> None:
    for source in upstream(run):
        for file in source["files"]:
            assert file["records"] == (files[file["name"]].num or 0), (source["source"], file["name"])


def test_kept_and_dropped_of_each_file_is_what_it_holds(
    run: api.Run, files: dict[str, UpstreamFile], examples: list[Row], dropped: list[Row]
) -> None:
    num_readings = Counter(file["name"] for source in upstream(run) for file in source["files"])
    found = Counter(row["file"] for row in examples) + Counter(row["file"] for row in dropped)
    wanted = {name: number * (files[name].num or 0) for name, number in num_readings.items()}
    assert found == +Counter(wanted)
    counts = run.manifest("curate").counts
    assert counts["examples_kept"] == len(examples)
    assert counts["examples_read"] == len(examples) + len(dropped) == sum(wanted.values())


def test_every_record_is_there_and_every_field_is_upstreams(
    shared_data: Path, files: dict[str, UpstreamFile], examples: list[Row], dropped: list[Row]
) -> None:
    """Not a sample: each example of each task, read back through Parquet; and each duplicate is its twin's equal."""
    kept: dict[tuple[str, str], list[Row]] = defaultdict(list)
    gone: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for rows, by_place in ((examples, kept), (dropped, gone)):
        for row in rows:
            by_place[row["file"], row["task"]].append(row)
    texts = {}
    for row in examples:
        found = shown(files[row["file"]].kind, json.loads(row["fields"]), row["references"])
        texts[row["example"]] = found
    for name, task in sorted(kept):
        kind, mine, lost = files[name].kind, kept[name, task], gone[name, task]
        wanted: dict[int, list[Any]] = defaultdict(list)
        for record, fields, references in EXPECT[kind](shared_data / name, task):
            wanted[record].append((fields, references))
        for row in mine:
            assert texts[row["example"]] in wanted[row["record"]], (row, wanted[row["record"]])
        for row in lost:
            if row["reason"] == "duplicate":
                assert texts[row["twin"]] in wanted[row["record"]], (row, wanted[row["record"]])
        numbers = Counter(row["record"] for row in (*mine, *lost))
        assert numbers == {record: len(found) for record, found in wanted.items()}, (task, name)
    assert {files[name].kind for name, _ in kept} == EXPECT.keys()


def test_options_of_multiple_choice_are_upstreams(shared_data: Path, examples: list[Row]) -> None:
    rows: dict[str, list[list[str]]] = {}
    for path in (shared_data / "eval/mmlu").glob("*/*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows[path.relative_to(shared_data).as_posix()] = list(csv.reader(file))
    for row in examples:
        if row["file"] in rows:
            assert row["options"] == rows[row["file"]][row["record"]][1:5]
        assert row["options"] is None or set(row["references"]) <= set(row["options"]), row


SPLITS = {
    "_cot_prompts.json": {"demonstration"},
    "mmlu/dev/*.csv": {"demonstration"},
    "mmlu/val/*.csv": {"validation"},
    "mmlu/test/*.csv": {"test"},
    "cot-prompts/*.txt": {"demonstration"},
    "eval/bbh/*.json": {"test"},
    "eval/truthfulqa/*.csv": {"test"},
    "HumanEval.jsonl.gz": {"test"},
    "gsm8k/test.jsonl": {"test"},
    "superglue_fewglue/*/unlabeled.jsonl": {None},
    "train.jsonl": {"train"},
    "dev.jsonl": {"validation"},
    "snli_train.jsonl": {"train"},
    "snli_dev.jsonl": {"validation"},
    "*_train.tsv": {"train"},
    "dart-*-dev.json": {"validation"},
    "fetaQA-*_dev.jsonl": {"validation"},
    "spider/dev.json": {"validation"},
    "pristine-unseen-tables.tsv": {"test"},
    "training.tsv": {"train"},
    "sgd/train/*.json": {"train"},
    "sgd/dev/*.json": {"validation"},
    "sgd/test/*.json": {"test"},
    "task*.json": {None, "demonstration"},
    "*": {None},
}
"""Files -> upstream splits of the examples in them; the first line that fits counts."""
ONE_GROUP = {
    "multirc": "paragraph",
    "boolq": "passage",
    "record": "passage",
    "squad": "context",
    "wikitq": "struct",
    "fetaqa": "struct",
    "dart": "struct",
    "spider": "struct",
}
"""Kind -> the field that its upstream groups share."""


def test_upstream_splits_are_those_of_the_files(examples: list[Row]) -> None:
    found: dict[str, set[str | None]] = defaultdict(set)
    for row in examples:
        found[row["file"]].add(row["upstream_split"])
    for name, splits in found.items():
        wanted = next(wanted for pattern, wanted in SPLITS.items() if PurePosixPath(name).match(pattern))
        assert splits == wanted, name


def test_examples_of_one_passage_or_table_are_one_group(
    files: dict[str, UpstreamFile], examples: list[Row], tasks: dict[str, Row]
) -> None:
    groups: dict[tuple[str, str], set[int]] = defaultdict(set)
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for row in examples:
        sizes[row["task"]][row["group"]] += 1
        field = ONE_GROUP.get(files[row["file"]].kind)
        if field is not None:
            groups[row["task"], json.loads(row["fields"])[field]].add(row["group"])
        elif files[row["file"]].kind == "oasst" and row["file"].endswith("l"):
            groups[row["task"], str(row["record"])].add(row["group"])
    assert len(groups) > 4000 and all(len(found) == 1 for found in groups.values())
    for name, task in tasks.items():
        counts = sizes[name]
        assert (task["num_groups"], task["largest_group"]) == (len(counts), max(counts.values())), name


def test_every_drop_has_a_reason_and_every_twin_is_kept(
    run: api.Run, tasks: dict[str, Row], dropped: list[Row]
) -> None:
    assert {row["reason"] for row in dropped} == RULES | TWINS
    assert all(row["detail"] for row in dropped)
    ids = set(run.table("curate", "examples", ["example"])["example"].to_pylist())
    for row in dropped:
        if row["reason"] == "duplicate":
            assert row["twin"] in ids
        elif row["reason"] == "dataset_elsewhere":
            assert row["twin"] in tasks
        else:
            assert row["twin"] is None and row["raw"]


def test_statements_of_tabfact_are_dropped_for_their_missing_tables(
    shared_data: Path, tasks: dict[str, Row], dropped: list[Row]
) -> None:
    raw = json.loads((shared_data / "unifiedskg/tabfact/test_examples.json").read_bytes())
    wanted = [(text, label) for texts, labels, *_ in raw.values() for text, label in zip(texts, labels)]
    mine = [row for row in dropped if row["task"] == "unifiedskg/tabfact"]
    assert {row["reason"] for row in mine} == {"missing_table"} and "unifiedskg/tabfact" not in tasks
    kept_aside = [json.loads(row["raw"]) for row in sorted(mine, key=lambda row: row["record"])]
    assert [(row["statement"], row["label"]) for row in kept_aside] == wanted
    assert [row["table"] for row in kept_aside] == [table for table, entry in raw.items() for _ in entry[0]]


# ------------------------------------------------------------------------------------------- provenance


def test_every_task_has_category_licence_and_revision(run: api.Run, tasks: dict[str, Row]) -> None:
    revisions = {(source["repository"], source["revision"]) for source in upstream(run)}
    for name, task in tasks.items():
        assert task["category"] and task["dataset"] and task["license"] and task["license_evidence"], name
        assert (task["repository"], task["revision"]) in revisions, name
        assert task["num_groups"] >= 1 and task["largest_group"] <= task["num_kept"], name


def test_every_file_is_named_with_its_digest_repository_and_commit(run: api.Run, shared_data: Path) -> None:
    with (shared_data / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        manifest = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    for source in upstream(run):
        named = set(zip(source["repository"].split(" + "), source["revision"].split(" + "), strict=True))
        used = set()
        for file in source["files"]:
            row = manifest[file["name"]]
            assert (file["sha256"], file["bytes"]) == (row["sha256"], int(row["bytes"])), file["name"]
            assert (row["upstream_repo"], row["upstream_commit"]) in named, file["name"]
            used.add((row["upstream_repo"], row["upstream_commit"]))
        if source["source"].endswith("(super_natural_instructions)"):
            used.add((manifest[SPLIT_LIST]["upstream_repo"], manifest[SPLIT_LIST]["upstream_commit"]))
        assert used == named, f"{source['source']} names a repository that none of its files is from"


SPLIT_LIST = "super_natural_instructions/splits/default/test_tasks.txt"


def test_roles_are_those_of_the_split_lists(shared_data: Path, tasks: dict[str, Row]) -> None:
    roles = {}
    for role in ("train", "test", "excluded"):
        listed = (shared_data / SPLIT_LIST).with_name(f"{role}_tasks.txt").read_text(encoding="utf-8").split()
        roles |= dict.fromkeys(listed, role)
    mine = {
        task["name"]: task["upstream_role"] for task in tasks.values() if "split" not in task["benchmark"]
    }
    assert {name: role for name, role in mine.items() if role} == {
        name: role for name, role in roles.items() if name in mine
    }


def without_nan(value: Any) -> Any:
    """Upstream writes a bare NaN where a key has no value; it becomes null."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value


def test_what_super_naturalinstructions_says_of_a_task_is_kept(
    shared_data: Path, tasks: dict[str, Row]
) -> None:
    keys = ("Source", "Categories", "Domains", "Reasoning", "Contributors", "URL")
    keys = (*keys, "Input_language", "Output_language", "Instruction_language")
    for path in (shared_data / "super_natural_instructions").glob("tasks*/task*.json"):
        body = json.loads(path.read_bytes())
        task = tasks[f"super_natural_instructions/{path.stem}"]
        metadata = json.loads(task["metadata"])
        assert (task["definition"], metadata["definitions"]) == (body["Definition"][0], body["Definition"])
        assert task["category"] == body["Categories"][0], "the 76 categories stay as they are"
        assert {key: metadata[key.lower()] for key in keys} == {
            key: without_nan(body.get(key)) for key in keys
        }
        assert task["languages"] == sorted({*body["Input_language"], *body["Output_language"]})
        assert task["license_evidence"] == f"Instance License: {'; '.join(body['Instance License'])}"
        assert len(task["demonstrations"]) == len(body["Positive Examples"])
        assert task["homepage"] is None or task["homepage"].startswith("http")


def test_templates_are_upstreams_and_read_only_fields_that_are_there(
    run: api.Run, shared_data: Path, examples: list[Row]
) -> None:
    fields: dict[str, set[str]] = {}
    for row in examples:
        if row["task"].startswith("promptsource/"):
            fields.setdefault(row["task"], set()).update(json.loads(row["fields"]))
    found: dict[str, set[str]] = defaultdict(set)
    for row in run.table("curate", "templates").to_pylist():
        found[row["task"]].add(row["template"])
        assert set(row["reads"]) <= fields[row["task"]], (row["task"], row["name"])
    assert found.keys() == fields.keys()
    for task, templates in found.items():
        path = shared_data / "promptsource/templates" / task.removeprefix("promptsource/") / "templates.yaml"
        named = re.findall(r"^  ([0-9a-f-]{36}): !Template$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert templates == set(named) and len(named) == len(set(named)), task


# ---------------------------------------------------------------------------------------------- the docs


def by_benchmark(
    run: api.Run, tasks: dict[str, Row], examples: list[Row], dropped: list[Row]
) -> list[list[str]]:
    """Rows of the table `Catalogue by benchmark`."""
    benchmarks = Counter(row["task"].partition("/")[0] for row in examples)
    lost: dict[str, Counter[str]] = {name: Counter() for name in (*benchmarks, "total")}
    for row in dropped:
        for name in (row["task"].partition("/")[0], "total"):
            lost.setdefault(name, Counter())[row["reason"]] += 1
    templates = Counter(
        task.partition("/")[0] for task in run.table("curate", "templates", ["task"])["task"].to_pylist()
    )
    cells = []
    for name in (*sorted(lost.keys() - {"total"}), "total"):
        mine = [task for task in tasks.values() if name in (task["benchmark"], "total")]
        kept = len(examples) if name == "total" else benchmarks[name]
        written = templates.total() if name == "total" else templates[name]
        counts = (len(mine), len({task["category"] for task in mine}), written)
        why = ", ".join(f"{num:,} {reason.replace('_', ' ')}" for reason, num in sorted(lost[name].items()))
        counts = (*counts, kept + lost[name].total(), kept)
        cells.append([name, *(f"{number:,}" for number in counts), why or "0"])
    return cells


def expected_tables(
    run: api.Run, tasks: dict[str, Row], examples: list[Row], dropped: list[Row]
) -> dict[str, list[list[str]]]:
    """Tables of docs/real-data.md that the catalogue decides, by heading; a last column of words is not looked at."""
    aliases = run.table("curate", "suspected_aliases").to_pylist()
    reasons = Counter(row["reason"] for row in dropped)
    licenses: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for task in tasks.values():
        sums = licenses[task["license"]]
        sums[:] = sums[0] + 1, sums[1] + task["num_kept"]
    uncarved = [task for task in tasks.values() if 2 * task["largest_group"] > task["num_kept"]]
    return {
        "Catalogue by benchmark": by_benchmark(run, tasks, examples, dropped),
        "What is dropped, and why": [
            [reason.replace("_", " "), f"{number:,}"] for reason, number in sorted(reasons.items())
        ],
        "Suspected aliases": [
            [row["task_a"], row["task_b"], f"{row['num_shared']} of {row['num_compared']}"] for row in aliases
        ],
        "Tasks that cannot be carved": [
            [task["task"], *(f"{task[key]:,}" for key in ("num_kept", "num_groups", "largest_group"))]
            for task in uncarved
        ],
        "Licences of the catalogue": [
            [name, f"{number:,}", f"{kept:,}"]
            for name, (number, kept) in sorted(licenses.items(), key=lambda item: (-item[1][0], item[0]))
        ],
    }


def test_the_page_says_what_the_catalogue_holds(
    run: api.Run, repository: Path, tasks: dict[str, Row], examples: list[Row], dropped: list[Row]
) -> None:
    written = tables(repository / "docs" / "real-data.md")
    for heading, cells in expected_tables(run, tasks, examples, dropped).items():
        width = len(cells[0])
        assert [row[:width] for row in written.get(heading, [])] == cells, heading
    for row in written["What is dropped, and why"] + written["Suspected aliases"]:
        assert row[-1], f"{row}: nothing says what it is"


def test_the_sources_page_lists_every_reader_and_what_it_was_tried_on(
    run: api.Run, repository: Path, files: dict[str, UpstreamFile]
) -> None:
    written = tables(repository / "docs" / "sources.md")
    readers = {row[0]: row for row in written["Readers"]}
    assert sorted(readers) == sorted(known_readers())
    read: dict[str, tuple[set[str], int]] = {}
    for source, entry in zip(from_json(run.path).recipe.sources, upstream(run), strict=True):
        names = {file["name"] for file in entry["files"] if files[file["name"]].num is not None}
        before = read.get(source.reader, (set[str](), 0))
        read[source.reader] = (before[0] | names, before[1])
    for name, row in readers.items():
        reader = load_reader(name)
        assert row[1] == reader.BENCHMARK, name
        assert [option for option in reader.OPTIONS if option not in row[3]] == [], name
        if name in read:
            number = len(read[name][0])
            assert row[4].startswith(f"{number:,} file{'s' if number > 1 else ''}"), (name, number)
        else:
            assert row[4].startswith("fixtures"), name
    reasons = Counter(file.kind for file in files.values() if file.num is None)
    rows = {row[1].replace("`", ""): row for row in written["Auxiliary files"]}
    assert {why.replace("`", ""): f"{number:,}" for why, number in reasons.items()} == {
        why: row[2] for why, row in rows.items()
    }
    assert reasons.keys() <= set(AUXILIARY.values())
    assert sum(file.num is not None for file in files.values()) + reasons.total() == len(files)


def test_the_layouts_page_counts_what_every_layout_makes_of_the_catalogue(
    run: api.Run, repository: Path
) -> None:
    catalogue = run.table("curate", "tasks")
    columns = ["example", "task", "upstream_split", "group", "fields", "references"]
    batches = run.table("curate", "examples", columns).to_batches()
    written = {
        row[0].strip("`"): row[1:] for row in tables(repository / "docs" / "layouts.md")["Published layouts"]
    }
    assert set(shipped_layouts()) - set(written) == {"super-ni/xlingual"}
    for name, row in written.items():
        exclude = ("unifiedskg/spider", "promptsource/squad") if name == "opt-iml" else ()
        plan, _ = plan_and_assign(catalogue, batches, Plan(exclude=exclude), 11, find_layout(name))
        counts = Counter(entry["level"] or entry["role"] for entry in plan.to_pylist())
        assert row == [
            f"{counts[key]:,}" for key in ("held_out", "partial", "supervised", "train", "excluded")
        ], name
