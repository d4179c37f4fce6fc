"""The command `export benchmark`: the folder that it writes, what it refuses, and that it is the same however made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from benchmark_run import STEMS, make_benchmark_run
from faults import run_with_errors, unsynced
from running import call

from taskmill.commands.publishing.package import check_publishable, make_package, write_package
from taskmill.errors import BusyError, DamagedError, StaleError, UsageError
from taskmill.records import DIRECTORIES
from taskmill.splits.publishing.checking import verify_published
from taskmill.splits.publishing.published import MANIFEST, open_published
from taskmill.splits.publishing.writing.manifest import PublishPlan
from taskmill.storage import read_json, write_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_benchmark_run(tmp_path_factory.mktemp("export"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished.parent, tmp_path / "made")
    return tmp_path / "made" / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def export(capsys: pytest.CaptureFixture[str], run: Path, folder: Path, *options: str) -> str:
    code, out, err = call(capsys, "export", "benchmark", str(run), str(folder), *options)
    assert code == 0, err
    return out


def refused(capsys: pytest.CaptureFixture[str], run: Path, folder: Path, code: int, *options: str) -> str:
    found, out, err = call(capsys, "export", "benchmark", str(run), str(folder), *options)
    assert found == code and out == "" and "Traceback" not in err
    assert not folder.exists()
    return err


# ------------------------------------------------------------------------------------- what is written


def test_ids_only_is_the_default_and_holds_no_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(capsys, run, tmp_path / "b")
    body = open_published(tmp_path / "b").body
    assert body["mode"] == "ids-only" and f"root digest {body['root']}" in out
    assert "held_out: 1 task; 2 demonstration, 10 test" in out
    assert verify_published(tmp_path / "b") == ([], len(body["files"]) + 1)
    for name, data in contents(tmp_path / "b").items():
        text = (
            str(pq.read_table(tmp_path / "b" / name).to_pydict()) if name.endswith(".parquet") else str(data)
        )
        assert not any(f"{stem}zq" in text for stem in STEMS), name
    assert {name.split("/")[0] for name in contents(tmp_path / "b")} == {
        *("README.md", "croissant.json", "manifest.json", "ids", "tables", "recipe", ".taskmill-export")
    }


def test_with_data_only_licences_that_allow_it_are_published(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(capsys, run, tmp_path / "b", "--with-data", "--with-mixture")
    body = open_published(tmp_path / "b").body
    rows = [
        r for path in (tmp_path / "b" / "data").rglob("*.parquet") for r in pq.read_table(path).to_pylist()
    ]
    assert {row["license"] for row in rows} == {"MIT", "CC-BY-4.0"}
    assert {row["license"]: row["with_data"] for row in body["licenses"]} == {
        "MIT": True,
        "CC-BY-4.0": True,
        "CC-BY-NC-4.0": False,
        "unknown": False,
    }
    assert "without prompts: 2 tasks whose licences do not allow it (CC-BY-NC-4.0, unknown)" in out
    assert not any("tidezq" in row["text"] or "lampzq" in row["text"] for row in rows)
    assert body["prompts_root"] and list(body["stages"]) == ["curate", "mix", "overlap", "render", "split"]
    for name in ("mixture.json", "shares.csv"):
        assert (tmp_path / "b" / "mixture" / name).read_bytes() == (run / "mixture" / name).read_bytes()


def test_made_twice_and_over_another_one_it_has_the_same_bytes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(capsys, run, tmp_path / "a")
    export(capsys, run, tmp_path / "b", "--with-data", "--with-mixture")
    (tmp_path / "b" / "LICENSE").write_text("mine")
    (tmp_path / "b" / "ids" / "train" / "old.parquet").write_text("old")
    (tmp_path / "b" / "ids" / ".x.parquet.77.tmp").write_text("killed")
    export(capsys, run, tmp_path / "b")
    assert contents(tmp_path / "b") == {**contents(tmp_path / "a"), "LICENSE": b"mine"}
    assert not (tmp_path / "b" / "data").exists() and not (tmp_path / "b" / "mixture").exists()


def test_nothing_of_this_machine_is_in_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(capsys, run, tmp_path / "a", "--with-data", "--with-mixture")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.parent, elsewhere)
    stored = read_json(elsewhere / "run" / "recipe.json")
    write_json(elsewhere / "run" / "recipe.json", {**stored, "base": str(elsewhere)})
    shutil.rmtree(elsewhere / "upstream")  # nobody needs it any more
    export(capsys, elsewhere / "run", tmp_path / "b", "--with-data", "--with-mixture")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for name, data in contents(tmp_path / "a").items():
        text = data.decode("utf-8", "replace")
        if name.endswith(".parquet"):
            text = str(pq.read_table(tmp_path / "a" / name).to_pydict())
        assert str(tmp_path) not in text and str(Path.home()) not in text, name
    body = {**open_published(tmp_path / "a").body, "recipe": {}}
    assert not any(f'"{key}"' in json.dumps(body) for key in ("started", "seconds", "host", "peak_bytes"))


def test_json_says_what_was_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = json.loads(export(capsys, run, tmp_path / "b", "--json"))
    made = open_published(tmp_path / "b")
    assert body["root"] == made.root and body["files"] == len(made.files) + 1
    assert body["folder"] == str(tmp_path / "b") and body["prompts_root"] is None


def test_an_export_that_the_disk_stopped_is_made_whole_by_the_next(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    make_package(run, tmp_path / "whole", False, False, None)
    whole = contents(tmp_path / "whole")

    def check(state: str) -> None:
        if state == "finished":
            assert contents(folder) == whole
        else:
            assert not (folder / MANIFEST).exists()

    with unsynced():
        number = run_with_errors(
            lambda: make_package(run, folder, False, False, None), check, lambda: None, code=28, step=300
        )
    assert number > 3


# ------------------------------------------------------------------------------------- what is refused


def test_a_folder_with_other_files_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    code, _, err = call(capsys, "export", "benchmark", str(run), str(tmp_path / "mine"))
    assert code == 2 and "thesis.tex" in err and contents(tmp_path / "mine") == {"thesis.tex": b"all of it"}
    code, _, err = call(capsys, "export", "benchmark", str(run), str(run / "splits"))
    assert code == 2 and "which its stage sweeps" in err
    assert "is a link" in linked(run, tmp_path)


def linked(run: Path, tmp_path: Path) -> str:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ids").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError) as caught:
        make_package(run, tmp_path / "b", False, False, None)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "stage"), [([], "split"), (["--with-data"], "render"), (["--with-mixture"], "mix")]
)
def test_a_stage_that_is_not_finished_is_named_with_its_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], stage: str
) -> None:
    (run / DIRECTORIES[stage] / "manifest.json").unlink()
    assert f"`taskmill {stage} {run}`" in refused(capsys, run, tmp_path / "b", 2, *options)


def test_a_run_that_saw_a_part_of_the_examples_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(run.parent / "limited")
    recipe, stages = str(run.parent / "recipe.yaml"), ("--to", "split", "--workers", "1", "--quiet")
    call(capsys, "run", recipe, "--run", place, "--limit", "30", "--set", "split.threshold=1", *stages)
    err = refused(capsys, Path(place), tmp_path / "b", 2)
    assert "was made with --limit 30" in err and "without --limit" in err


def test_decisions_that_split_has_not_seen_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = call(capsys, "decisions", "set", str(run), "own/tides", "other/logs", "drop_eval_examples")
    assert code == 0
    err = refused(capsys, run, tmp_path / "b", 1)
    assert "external.decisions" in err and f"taskmill run {run} --to split --force" in err


@pytest.mark.parametrize(
    ("section", "key", "value", "stage"),
    [
        ("split", "threshold", 0.5, "splits"),
        ("overlap", "n", 12, "overlaps"),
        ("curate", "max_examples", 5, "tasks"),
    ],
)
def test_settings_that_a_stage_was_not_built_from_are_refused(
    run: Path, tmp_path: Path, section: str, key: str, value: float, stage: str
) -> None:
    stored = read_json(run / "recipe.json")
    stored["values"][section][key] = value
    write_json(run / "recipe.json", stored)
    with pytest.raises(
        StaleError, match=rf"{stage} was built from other settings(.|\n)*settings.{section}.{key}"
    ):
        make_package(run, tmp_path / "b", False, False, None)


def test_upstream_files_that_are_here_and_others_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.parent / "upstream" / "logs.jsonl"
    stored = read_json(run / "recipe.json")
    write_json(run / "recipe.json", {**stored, "base": str(run.parent)})
    file.write_bytes(file.read_bytes() + b'{"id": "new", "text": "new", "answer": "new"}\n')
    err = refused(capsys, run, tmp_path / "b", 1)
    assert "tasks was built from other" in err and "external.sources.1. other (table)" in err
    file.unlink()
    export(capsys, run, tmp_path / "b")


def test_stages_that_do_not_belong_together_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "overlap", str(run), "--set", "overlap.n=9", "--force", "--quiet", "--workers", "1")
    err = refused(capsys, run, tmp_path / "b", 1)
    assert "'split' was built from other rows of overlap/" in err


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("overlaps/hits.parquet", []),
        ("splits/members.parquet", []),
        ("mixture/mixture.json", ["--with-mixture"]),
    ],
)
def test_a_damaged_file_of_the_run_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, options: list[str]
) -> None:
    data = (run / table).read_bytes()
    (run / table).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert str(run / table) in refused(capsys, run, tmp_path / "b", 1, *options)
    with pytest.raises(DamagedError):
        make_package(run, tmp_path / "b", bool(options), bool(options), None)


def test_a_run_that_is_made_anew_meanwhile_gives_no_benchmark(run: Path, tmp_path: Path) -> None:
    checked = check_publishable(run, False, False)
    (run / "splits" / "manifest.json").unlink()
    with pytest.raises(BusyError, match="split was made anew while it was read"):
        write_package(*checked, tmp_path / "b", PublishPlan(), None)
    assert not (tmp_path / "b" / MANIFEST).exists()


def test_with_data_needs_a_licence_that_allows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_benchmark_run(tmp_path / "closed", "render")
    recipe = run.parent / "recipe.yaml"
    text = (
        recipe.read_text()
        .replace("MIT", "CC-BY-NC-4.0")
        .replace("license: CC-BY-4.0", "license: CC-BY-ND-4.0")
    )
    recipe.write_text(text)
    call(
        capsys,
        "run",
        str(recipe),
        "--run",
        str(run),
        "--to",
        "render",
        "--force",
        "--workers",
        "1",
        "--quiet",
    )
    err = refused(capsys, run, tmp_path / "b", 2, "--with-data")
    assert "no task of" in err and "CC-BY-NC-4.0" in err and f"taskmill licenses {run}" in err
