"""The stage curate on small files, on the demo data and on real Super-NaturalInstructions files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from taskmill import digests, recipe_files
from taskmill.artifact import Identity, Inputs, Manifest, open_stage
from taskmill.curation import build, catalogue
from taskmill.curation.sources import _files
from taskmill.errors import DataError, RecipeError, TaskmillError
from taskmill.recipe import Resolved
from taskmill.records import SCHEMAS
from taskmill.runs import verify_stage
from taskmill.settings import Settings
from taskmill.storage import canonical_json, read_table

GOLDEN = "f9f2b85a4fe8a866"
"""Root digest of the small world; when it changes, so must REVISION."""


@dataclass(frozen=True)
class Result:
    manifest: Manifest

    def table(self, name: str) -> pa.Table:
        files = self.manifest.table_files(name)
        return pa.concat_tables([read_table(self.manifest.directory / file.path) for file in files])

    def rows(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.table(name).to_pylist()
        return found


def curate(resolved: Resolved, directory: Path, workers: int = 1, *, force: bool = False) -> Result:
    settings = Settings(resolved, build.SECTIONS, workers)
    outside = build.external(settings, Inputs({}))
    identity = Identity(
        "curate", build.REVISION, settings.values(), settings.seed, settings.limit, (), outside
    )
    out = open_stage(directory, identity, force)
    return Result(out if isinstance(out, Manifest) else build.build(settings, Inputs({}), out))


# ------------------------------------------------------------------------------------------ a small world


def sni_task(source: str, inputs: list[str], category: str | None = "Question Answering") -> dict[str, Any]:
    return {
        "Contributors": ["someone"],
        "Source": [source],
        "URL": [None],
        "Categories": [category] if category else [],
        "Reasoning": [],
        "Definition": [f"Answer about {source}."],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": [],
        "Positive Examples": [{"input": f"shown {source}", "output": "yes", "explanation": "so"}],
        "Negative Examples": [],
        "Instances": [
            {"id": f"{source}-{i}", "input": text, "output": ["yes"]} for i, text in enumerate(inputs)
        ],
        "Instance License": ["MIT"],
    }


def write_sni(folder: Path, **tasks: dict[str, Any]) -> None:
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(task), encoding="utf-8")


def write_crossfit(folder: Path, name: str, rows: list[tuple[str, str]]) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    text = "".join(f"{a}\t{b}\n" for a, b in rows)
    for split in ("train", "dev", "test"):
        (folder / name / f"{name}_16_13_{split}.tsv").write_text(
            text.replace("?", f" {split}?"), encoding="utf-8"
        )


TAXONOMY = """
tasks:
  "crossfit/*": {category: Question Answering}
  "other/*": {category: Question Answering}
"""
RECIPE = """
name: small
seed: 3
data_root: data
sources:
  - {reader: super_natural_instructions, path: sni}
  - {reader: crossfit, path: crossfit}
curate:
  taxonomy: [taxonomy.yaml]
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with a recipe, a taxonomy and two tiny meta-datasets, one of whose data sets both have."""
    words = [f"word{i}" for i in range(40)]
    passages = [" ".join(words[i : i + 15]) for i in (0, 1, 20)]
    data = tmp_path / "data"
    write_sni(
        data / "sni",
        task1_alpha=sni_task("super_glue/BoolQ", [*passages, passages[0]]),
        task2_beta=sni_task("beta", ["un", "deux", "trois"]),
    )
    write_crossfit(data / "crossfit", "boolq", [("is it?", "yes"), ("was it?", "no")])
    write_crossfit(data / "crossfit", "gamma", [("what?", "this"), ("who?", "that"), ("plain", "same")])
    (tmp_path / "taxonomy.yaml").write_text(TAXONOMY, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def run(world: Path, *overrides: str, workers: int = 1, name: str = "out", force: bool = False) -> Result:
    return curate(recipe_files.load(world / "recipe.yaml", overrides), world / name, workers, force=force)


def test_the_small_world(world: Path) -> None:
    result = run(world)
    tasks = {row["task"]: row for row in result.rows("tasks")}
    assert list(tasks) == [
        "crossfit/gamma",
        "super_natural_instructions/task1_alpha",
        "super_natural_instructions/task2_beta",
    ]
    alpha = tasks["super_natural_instructions/task1_alpha"]
    assert (alpha["dataset"], alpha["num_read"], alpha["num_kept"]) == ("boolq", 5, 4)
    assert alpha["category"] == "Question Answering" and alpha["style"] == "task"
    assert alpha["demonstrations"] == ["super_natural_instructions/task1_alpha#positive-1"]
    reasons = Counter((row["task"], row["reason"]) for row in result.rows("dropped"))
    assert reasons == {
        ("super_natural_instructions/task1_alpha", "duplicate"): 1,
        ("crossfit/boolq", "dataset_elsewhere"): 6,
        ("crossfit/gamma", "duplicate"): 2,
    }
    left = [row for row in result.rows("dropped") if row["reason"] == "dataset_elsewhere"]
    assert {row["twin"] for row in left} == {"super_natural_instructions/task1_alpha"}
    assert result.manifest.counts["examples_read"] == 24 and result.manifest.counts["examples_kept"] == 15
    assert result.manifest.dropped == {"dataset_elsewhere": 6, "duplicate": 3}
    assert verify_stage(result.manifest.directory) == []


def test_the_tables_have_the_declared_columns_and_order(world: Path) -> None:
    result = run(world)
    for name in ("tasks", "templates", "examples", "dropped", "suspected_aliases"):
        assert result.table(name).schema.equals(SCHEMAS[f"tasks/{name}"]), name
    for file in result.manifest.table_files("examples"):
        rows = read_table(result.manifest.directory / file.path).select(["task", "example"]).to_pylist()
        keys = [(row["task"], row["example"]) for row in rows]
        assert keys == sorted(set(keys))


def test_first_row_points_at_a_tasks_examples(world: Path) -> None:
    result = run(world)
    for task in result.rows("tasks"):
        table = read_table(result.manifest.directory / "examples" / f"{task['shard']}.parquet")
        tasks = table["task"].to_pylist()
        first = task["first_row"]
        assert tasks[first : first + task["num_kept"]] == [task["task"]] * task["num_kept"]
        assert tasks.count(task["task"]) == task["num_kept"]


def test_shared_text_makes_a_group(world: Path) -> None:
    rows = [row for row in run(world).rows("examples") if row["task"].endswith("alpha")]
    group = {json.loads(row["fields"])["input"]: row["group"] for row in rows}
    first, second, third = (
        next(g for text, g in group.items() if text.startswith(f"word{i} ")) for i in (0, 1, 20)
    )
    assert first == second != third


def test_golden_rows(world: Path) -> None:
    assert build.REVISION == 4
    assert run(world).manifest.root[:16] == GOLDEN


def test_orjson_does_not_change_a_row(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (digests, _files):
        monkeypatch.setattr(module, "orjson", None)
    assert run(world).manifest.root[:16] == GOLDEN


def test_workers_do_not_change_a_row(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    monkeypatch.setattr(build, "WORKER_BYTES", 1)
    one = run(world, name="one")
    two = run(world, name="two", workers=2)
    assert one.manifest.root == two.manifest.root
    assert [f.path for f in one.manifest.files] == [f.path for f in two.manifest.files]
    assert len(one.manifest.table_files("examples")) == 4


def test_the_place_of_the_data_is_in_no_fingerprint(
    world: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = run(world).manifest
    moved = tmp_path_factory.mktemp("elsewhere") / "world"
    world.rename(moved)
    assert run(moved, name="again").manifest.fingerprint == before.fingerprint
    assert run(moved).manifest.body == before.body


def test_the_manifest_says_how_many_records_of_each_file_were_read(world: Path) -> None:
    result = run(world)
    files = {
        file["name"]: file["records"]
        for source in result.manifest.body["upstream"]
        for file in source["files"]
    }
    kept = Counter(row["file"] for row in result.rows("examples"))
    dropped = Counter(row["file"] for row in result.rows("dropped"))
    assert files == kept + dropped and sum(files.values()) == result.manifest.counts["examples_read"]
    assert files["crossfit/boolq/boolq_16_13_train.tsv"] == 2 and files["sni/tasks/task1_alpha.json"] == 5


def test_one_data_set_under_two_names_is_reported_and_kept(
    world: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    texts = [
        f"passage {i} tells of the {i} boats that left port {i} at dawn in the year {i} or so"
        for i in range(30)
    ]
    write_sni(
        world / "data" / "sni",
        task3_one=sni_task("one", texts),
        task4_two=sni_task("two", [*texts[:12], "other"]),
    )
    result = run(world)
    [row] = result.rows("suspected_aliases")
    assert [row["task_a"][-9:], row["task_b"][-9:], row["dataset_a"], row["dataset_b"]] == [
        "task3_one",
        "task4_two",
        "one",
        "two",
    ]
    assert row["num_shared"] == row["num_compared"] > 8 and row["containment"] == 1
    assert "1 pairs of tasks look like one data set" in caplog.text
    assert {"one", "two"} <= set(result.table("tasks")["dataset"].to_pylist())
    (world / "taxonomy.yaml").write_text(TAXONOMY + "aliases: {one: [two]}\n", encoding="utf-8")
    assert not run(world, name="joined").rows("suspected_aliases")


def test_a_task_whose_licence_is_refused_leaves_dropped_rows_only(world: Path) -> None:
    task = sni_task("beta", ["un", "deux"])
    write_sni(world / "data" / "sni", task2_beta={**task, "Instance License": ["CC BY-NC 4.0"]})
    result = run(world, "curate.licenses.deny=['*-NC-*']")
    names = result.table("tasks")["name"].to_pylist()
    assert "task2_beta" not in names and "task1_alpha" in names
    lost = [row for row in result.rows("dropped") if row["reason"] == "license"]
    assert {row["task"] for row in lost} == {"super_natural_instructions/task2_beta"} and len(lost) == 3
    assert (
        "CC-BY-NC-4.0 is denied by '*-NC-*'" in lost[0]["detail"] and "curate.licenses" in lost[0]["detail"]
    )
    assert result.manifest.counts["tasks_refused"] == 1
    only = run(world, "curate.licenses.allow=[MIT]", "curate.only_new=[]", name="only")
    assert {row["license"] for row in only.rows("tasks")} == {"MIT"}
    assert only.manifest.counts["tasks_refused"] == 3


# ------------------------------------------------------------------------------------------- starting again


def shard_times(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((directory / "examples").iterdir())}


def test_finished_shards_are_kept(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    first = run(world)
    times = shard_times(first.manifest.directory)
    (first.manifest.directory / "manifest.json").unlink()
    again = run(world)
    assert shard_times(again.manifest.directory) == times and again.manifest.root == first.manifest.root


def test_only_the_shard_whose_file_changed_is_made_again(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    first = run(world)
    times = shard_times(first.manifest.directory)
    write_sni(world / "data" / "sni", task2_beta=sni_task("beta", ["un", "deux"]))
    with pytest.raises(TaskmillError, match=r"external\.sources\.0\. super_natural_instructions"):
        run(world)
    now = shard_times(run(world, force=True).manifest.directory)
    assert {name for name in times if now[name] != times[name]} == {"super_natural_instructions-001.parquet"}


def test_a_row_of_the_taxonomy_is_part_of_its_tasks_shards_only(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    times = shard_times(run(world).manifest.directory)
    more = "  super_natural_instructions/task2_beta: {category: Misc.}\n  nobody/has: {category: Misc.}\n"
    (world / "taxonomy.yaml").write_text(TAXONOMY + more, encoding="utf-8")
    result = run(world, force=True)
    now = shard_times(result.manifest.directory)
    assert {name for name in times if now[name] != times[name]} == {"super_natural_instructions-001.parquet"}
    assert "Misc." in result.table("tasks")["category"].to_pylist()


def test_an_unused_row_of_the_taxonomy_changes_nothing(world: Path) -> None:
    before = run(world).manifest
    (world / "taxonomy.yaml").write_text(TAXONOMY + "  nobody/has: {category: Misc.}\n", encoding="utf-8")
    assert run(world).manifest.body == before.body


def test_a_cast_is_part_of_what_its_tasks_read(world: Path) -> None:
    cast = world / "casts" / "rows.yaml"
    cast.parent.mkdir()
    body = (
        "dataset: rows\nformat: jsonl\nfiles: {train: [train.jsonl]}\nfields: {text: said}\nreferences: answer\n"
        "shape: text\nfacts: {category: Misc., definition: Say it.}\n"
    )
    cast.write_text(body, encoding="utf-8")
    rows = world / "data" / "t5" / "rows"
    rows.mkdir(parents=True)
    (rows / "train.jsonl").write_text('{"said": "a", "answer": "b"}\n', encoding="utf-8")
    settings = ("sources=[{reader: t5, path: t5}]", "curate.casts=[casts]", "curate.taxonomy=[]")
    [task] = run(world, *settings).rows("tasks")
    assert (task["task"], task["definition"], task["metadata"]) == (
        "t5/rows",
        "Say it.",
        '{"cast":"rows","shape":"text"}',
    )
    cast.write_text(body.replace("Say it.", "Say that."), encoding="utf-8")
    with pytest.raises(TaskmillError, match="external"):
        run(world, *settings)
    [task] = run(world, *settings, force=True).rows("tasks")
    assert task["definition"] == "Say that."


# ------------------------------------------------------------------------------------------------- options


def test_without_only_new_every_copy_stays(world: Path) -> None:
    result = run(world, "curate.only_new=[]")
    assert "crossfit/boolq" in result.table("tasks")["task"].to_pylist()
    assert {r["dataset"] for r in result.rows("tasks") if r["name"] in ("boolq", "task1_alpha")} == {"boolq"}


def test_benchmarks_of_only_new_look_at_those_before_them(world: Path) -> None:
    write_crossfit(world / "data" / "second", "gamma", [("another?", "text")])
    write_crossfit(world / "data" / "second", "delta", [("again?", "text")])
    sources = (
        "sources=[{reader: crossfit, path: second, benchmark: other}, {reader: crossfit, path: crossfit}]"
    )
    first = run(world, sources, "curate.only_new=[crossfit, other]", name="first")
    assert {"crossfit/gamma", "other/delta"} <= set(first.table("tasks")["task"].to_pylist())
    assert "other/gamma" not in first.table("tasks")["task"].to_pylist()
    second = run(world, sources, "curate.only_new=[other, crossfit]", name="second")
    assert "crossfit/gamma" not in second.table("tasks")["task"].to_pylist()
    assert "other/gamma" in second.table("tasks")["task"].to_pylist()


def test_max_examples_by_benchmark_and_limit(world: Path) -> None:
    most = run(world, "curate.max_examples_by_benchmark={super_natural_instructions: 1}", name="most")
    kept = Counter((row["task"], row["upstream_split"]) for row in most.rows("examples"))
    assert kept["super_natural_instructions/task2_beta", None] == 1
    assert kept["super_natural_instructions/task2_beta", "demonstration"] == 1
    assert kept["crossfit/gamma", "train"] + kept["crossfit/gamma", "test"] > 2
    few = run(world, "limit=1", name="few")
    assert set(Counter((r["task"], r["upstream_split"]) for r in few.rows("examples")).values()) == {1}
    counts = few.manifest.counts
    assert counts["examples_kept"] + sum(few.manifest.dropped.values()) == counts["examples_read"]


def test_include_and_exclude(world: Path) -> None:
    sni = "sources=[{reader: super_natural_instructions, path: sni, include: ['task*'], exclude: ['*beta']}]"
    assert run(world, sni).table("tasks")["name"].to_pylist() == ["task1_alpha"]


# -------------------------------------------------------------------------------------------------- errors


def fails(world: Path, *overrides: str, workers: int = 1) -> str:
    with pytest.raises(TaskmillError) as caught:
        run(world, *overrides, workers=workers)
    assert not (world / "out" / "manifest.json").exists()
    return str(caught.value)


def test_a_missing_path_names_the_nearest(world: Path) -> None:
    message = fails(world, "sources.0.path=snii")
    assert "sources.0.path: 'snii' does not exist below the data root" in message and "'sni'?" in message


def test_every_bad_source_is_listed_at_once(world: Path) -> None:
    message = fails(world, "sources.0.path=nowhere", "sources.1.options={shots: 3}")
    assert "sources.0.path" in message and "reader 'crossfit' has no option 'shots'" in message


def test_patterns_that_leave_nothing(world: Path) -> None:
    message = fails(world, "sources.0.include=[task1_alhpa]")
    assert "leave none of the 2 tasks in 'sni'" in message and "did you mean 'task1_alpha'?" in message


def test_an_empty_folder(world: Path) -> None:
    (world / "data" / "empty").mkdir()
    assert "crossfit" in fails(world, "sources.1.path=empty").lower()


def test_a_task_named_twice(world: Path) -> None:
    write_crossfit(world / "data" / "second", "gamma", [("another?", "text")])
    sources = "sources=[{reader: crossfit, path: second}, {reader: crossfit, path: crossfit}]"
    message = fails(world, sources)
    assert "the task 'crossfit/gamma' is also in sources.0 ('second')" in message and "benchmark" in message


def test_a_benchmark_must_be_a_file_name(world: Path) -> None:
    assert "sources.0.benchmark: found 'a/b'" in fails(world, "sources.0.benchmark=a/b")


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_without_category_are_listed_at_once(
    world: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WORKER_BYTES", 1)
    (world / "taxonomy.yaml").write_text("tasks:\n  crossfit/gama: {category: Misc.}\n", encoding="utf-8")
    write_sni(world / "data" / "sni", task3_delta=sni_task("delta", ["x"], category=None))
    with pytest.raises(RecipeError) as caught:
        run(world, workers=workers)
    lines = caught.value.problems
    assert len(lines) == 2
    assert "crossfit/gamma: no category" in lines[0] and "did you mean 'crossfit/gama'?" in lines[0]
    assert "super_natural_instructions/task3_delta: no category" in lines[1]
    with pytest.raises(RecipeError):
        run(world, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_record_stops_or_is_kept_aside(
    world: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 1)
    monkeypatch.setattr(build, "WORKER_BYTES", 1)
    task = sni_task("beta", ["un", "deux"])
    task["Instances"][1]["input"] = 7
    write_sni(world / "data" / "sni", task2_beta=task)
    with pytest.raises(DataError, match=r"task2_beta\.json, record 1, field 'input'"):
        run(world, workers=workers)
    result = run(world, "curate.on_error=skip")
    lost = [row for row in result.rows("dropped") if row["task"].endswith("beta")]
    assert [row["record"] for row in lost] == [1] and lost[0]["raw"] is not None
    counts = result.manifest.counts
    assert counts["examples_kept"] + sum(result.manifest.dropped.values()) == counts["examples_read"]


# ---------------------------------------------------------------------------------------- demo and real data


def test_the_demo_catalogue_equals_its_own_account(repository: Path, tmp_path: Path) -> None:
    """Counts and planted oddities of the demo data, as its generator lists them."""
    folder = repository / "examples" / "meta_datasets"
    result = curate(
        recipe_files.load(repository / "taskmill" / "recipes" / "demo.yaml", base=repository), tmp_path
    )
    listed = json.loads((folder / "TASKS.json").read_text(encoding="utf-8"))
    tasks = {row["task"]: row for row in result.rows("tasks")}
    dropped = Counter((row["task"], row["reason"]) for row in result.rows("dropped"))
    for entry in listed:
        name, num_read = f"{entry['benchmark']}/{entry['task']}", sum(entry["splits"].values())
        if entry["level"] == "dropped":
            assert name not in tasks and dropped[name, "dataset_elsewhere"] == num_read
            continue
        row = tasks[name]
        assert (row["category"], row["dataset"]) == (entry["category"], entry["dataset"]), name
        assert row["num_read"] == num_read, name
        assert row["num_kept"] == num_read - dropped[name, "duplicate"], name
    assert set(tasks) - {f"{e['benchmark']}/{e['task']}" for e in listed} == {"documents/corpus"}
    assert (
        dropped["super_natural_instructions/task2001_pier_letters_sentiment_classification", "duplicate"] == 2
    )
    assert dropped["promptsource/quay_reviews/stalls", "duplicate"] == 3


def test_real_catalogue_counts_equal_an_independent_count(shared_data: Path, tmp_path: Path) -> None:
    """Every count of a fifth of the shallow Super-NI files, recounted from the JSON itself."""
    text = (
        f"name: real\ndata_root: {json.dumps(str(shared_data))}\nsources:\n"
        "  - reader: super_natural_instructions\n    path: super_natural_instructions\n"
        "    options: {tasks: [tasks_shallow]}\n    include: ['task1[0-3]*']\n"
    )
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    result = curate(recipe_files.load(tmp_path / "recipe.yaml"), tmp_path / "out")
    rows = {row["name"]: row for row in result.rows("tasks")}
    files = sorted((shared_data / "super_natural_instructions" / "tasks_shallow").glob("task1[0-3]*.json"))
    assert list(rows) == [path.stem for path in files] and len(files) > 300
    kept = Counter(result.table("examples")["task"].to_pylist())
    total = 0
    for path in files:
        task = json.loads(path.read_text(encoding="utf-8"))
        shown = [("+", e) for e in task["Positive Examples"]] + [("-", e) for e in task["Negative Examples"]]
        contents = [("", i["input"], i["output"]) for i in task["Instances"]]
        contents += [(kind + e["explanation"], e["input"], [e["output"]]) for kind, e in shown]
        distinct = {hashlib.sha256(canonical_json(list(c))).digest() for c in contents}
        row = rows[path.stem]
        assert (row["num_read"], row["num_kept"]) == (len(contents), len(distinct)), path.name
        assert kept[row["task"]] == len(distinct)
        assert row["category"] == task["Categories"][0]
        total += len(contents)
    assert result.manifest.counts["examples_read"] == total
    assert len(result.manifest.table_files("examples")) == len({row["shard"] for row in rows.values()})


def test_shards_are_cut_by_size_alone(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (world / "data" / "sni" / "tasks" / "task1_alpha.json").stat().st_size
    write_sni(world / "data" / "sni", **{f"task{i}": sni_task(f"s{i}", ["x"]) for i in range(3, 7)})
    monkeypatch.setattr(build, "SHARD_BYTES", size + 1)
    plans = catalogue.read_catalogue(Settings(recipe_files.load(world / "recipe.yaml"), build.SECTIONS)).plans
    mine = [plan for plan in plans if plan.benchmark == "super_natural_instructions"]
    parts = build._cut(mine)
    assert [plan for part in parts for plan in part] == mine and len(parts) > 1
    sizes = [[plan.entry.num_bytes for plan in part] for part in parts]
    assert all(sum(part[:-1]) < size + 1 for part in sizes)
    assert all(sum(part) >= size + 1 for part in sizes[:-1])
