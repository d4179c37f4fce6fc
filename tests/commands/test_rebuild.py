"""`taskmill rebuild`: the same rows from a folder or the Hub, and what is said where something is another thing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import published_run
import pyarrow as pa
import pytest
from hub_server import Fault, Repository, serve
from published_run import forge, make_run, publish
from running import call

from taskmill import hub_client
from taskmill.records import PUBLISHED
from taskmill.splits.publishing.published import open_published, table_path
from taskmill.storage import TableWriter, canonical_json, read_table

harbour = published_run.harbour
COMMITS = [character * 40 for character in "0123"]


def rebuild(
    capsys: pytest.CaptureFixture[str], target: object, run: Path, *options: object
) -> tuple[int, str, str]:
    arguments = [str(part) for part in ("rebuild", target, "--run", run, "--workers", 1, *options)]
    return call(capsys, *arguments)


def result(
    capsys: pytest.CaptureFixture[str], target: object, run: Path, *options: object
) -> tuple[int, dict[str, Any]]:
    code, out, err = rebuild(capsys, target, run, "--json", *options)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return code, found


@pytest.fixture
def upstream(harbour: Path, tmp_path: Path) -> Path:
    """The upstream files, somewhere else."""
    return Path(shutil.copytree(harbour / "data", tmp_path / "else/where"))


def rewrite(path: Path, name: str, change: Any) -> None:
    """Replace the rows of a published table."""
    rows = read_table(path).to_pylist()
    change(rows)
    with TableWriter(path, PUBLISHED[name], path.name) as writer:
        writer.write(pa.Table.from_pylist(rows, PUBLISHED[name]))


# ------------------------------------------------------------------------------------------- the same


def test_a_folder_elsewhere_and_again(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(harbour / "published", tmp_path / "published")
    run = tmp_path / "run"
    code, out, err = rebuild(capsys, folder, run, "--data-root", upstream)
    assert code == 0, err
    assert f"root          {open_published(folder).root}" in out and "row for row" in out
    written = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file() and p.suffix != ".parquet")
    assert str(harbour).encode() not in written, "a place of the machine that published it"
    again = publish(run, tmp_path / "again")
    assert again.body["recipe"] == open_published(folder).body["recipe"]
    assert again.root == open_published(folder).root
    written_again = {p.name: p.read_bytes() for p in (again.folder / "recipe").iterdir() if p.is_file()}
    assert written_again == {p.name: p.read_bytes() for p in (folder / "recipe").iterdir() if p.is_file()}
    (run / "splits/manifest.json").unlink()
    (run / "recipe/words/harbour.yaml").write_text("changed")
    (run / "recipe/words/.harbour.yaml.77.tmp").write_text("half")
    code, found = result(capsys, folder / "manifest.json", run, "--data-root", upstream)
    assert (code, found["same"], found["difference"]) == (0, True, None)


def test_a_source_that_was_missing_stays_out(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def with_gone(text: str) -> str:
        gone = "  - {reader: table, path: gone, benchmark: gone, options: GONE}\n"
        return text.replace("curate: {", gone + "curate: {on_missing: skip, ", 1)

    options = published_run.OPTIONS.replace("CAST", published_run.CAST)
    run = make_run(tmp_path / "mine", lambda text: with_gone(text).replace("GONE", options))
    publish(run, tmp_path / "published")
    shutil.copytree(upstream / "notes", upstream / "gone")
    assert result(capsys, tmp_path / "published", tmp_path / "run", "--data-root", upstream)[0] == 0


def test_from_the_hub_alone(
    harbour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: None)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name, commit in (("notes", COMMITS[0]), ("logs", COMMITS[1])):
            data = (harbour / f"data/{name}/{name}.jsonl").read_bytes()
            hub.repositories[f"harbour/{name}"] = Repository(commit, {f"{name}/{name}.jsonl": data})

        def pinned(text: str) -> str:
            text = text.replace(
                "path: notes, repository: harbour/notes, revision: v3", "path: notes, hub: NOTES"
            )
            text = text.replace("path: logs,", "path: logs, hub: LOGS@,", 1)
            return text.replace("LOGS@", f"harbour/logs@{COMMITS[1]}").replace(
                "NOTES", f"harbour/notes@{COMMITS[0]}"
            )

        first = publish(make_run(tmp_path / "mine", pinned), tmp_path / "published")
        files = {p.relative_to(first.folder).as_posix(): p for p in first.folder.rglob("*") if p.is_file()}
        content = {path: place.read_bytes() for path, place in files.items()}
        hub.repositories["ann/harbour"] = Repository(
            COMMITS[2], {**content, ".gitattributes": b"*\n"}, branch="main", tags={"v1": COMMITS[2]}
        )
        shutil.rmtree(tmp_path / "mine")
        shutil.rmtree(tmp_path / "cache")
        hub.faults = [
            Fault("status", "notes.jsonl", status=503, headers={"Retry-After": "0"}),
            Fault("drop", ".json"),
        ]
        for revision, run in (("", "one"), ("@v1", "two"), (f"@{COMMITS[2]}", "three")):
            code, found = result(capsys, f"ann/harbour{revision}", tmp_path / run)
            assert (code, found["same"], found["root"]) == (0, True, first.root)
            assert found["commit"] == COMMITS[2]
        code, _, err = rebuild(capsys, f"ann/harbour@{COMMITS[3]}", tmp_path / "four")
        assert code == 1 and f"has no commit {COMMITS[3]}" in err
        code, _, err = rebuild(capsys, "ann/harbor", tmp_path / "four")
        assert code == 1 and "ann/harbor" in err and "Nor is there a folder ann/harbor" in err
        code, _, err = rebuild(capsys, "harbour/notes@" + COMMITS[0], tmp_path / "four")
        assert code == 1 and "manifest.json" in err
        assert not (tmp_path / "four").exists()


def test_prompts_too(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(make_run(tmp_path / "mine", last="render"), tmp_path / "published", with_data=True)
    shutil.rmtree(tmp_path / "mine")
    code, found = result(capsys, tmp_path / "published", tmp_path / "run", "--data-root", upstream)
    assert (code, found["prompts_root"]) == (0, published.body["prompts_root"])

    def other_template(folder: Path, body: dict[str, Any]) -> None:
        path = folder / "recipe/words/templates.yaml"
        path.write_text(path.read_text().replace("keeper:", "warden:"))

    forged = forge(tmp_path / "published", tmp_path / "forged", other_template)
    code, out, err = rebuild(capsys, forged, tmp_path / "other", "--data-root", upstream)
    assert code == 1, err
    assert (
        "prompts_root: published" in out and "data/train/train-00000-of-00001.parquet: other prompts" in out
    )


# ------------------------------------------------------------------------------------ other upstream files


def test_a_changed_upstream_file(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = upstream / "notes/notes.jsonl"
    path.write_text(path.read_text().replace("notesb07", "notesx07"))
    code, out, err = rebuild(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)
    assert code == 1, err
    source = open_published(harbour / "published").body["sources"][0]
    assert (
        f"notes/notes.jsonl: sha256 {published_run.sha256(path)}, published {source['files'][0]['sha256']}"
        in out
    )
    assert "harbour/notes at v3" in out
    assert "ids: task custom/notes, example custom/notes#unlabeled-notes07: content: published '" in out
    assert "read from notes/notes.jsonl, record 7" in out
    assert not (tmp_path / "run/tasks").exists()
    code, found = result(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)
    assert found["difference"]["key"]["example"] == "custom/notes#unlabeled-notes07"
    assert found["difference"]["counts"] == {"changed": 1, "missing": 0, "additional": 0}
    path.write_text("{not JSON\n")
    code, found = result(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)
    assert code == 1 and found["difference"] is None and "notes/notes.jsonl: sha256" in found["upstream"][0]
    shutil.copy(harbour / "data/notes/notes.jsonl", path)
    assert result(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)[0] == 0


def test_upstream_files_that_are_missing_or_too_many(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = rebuild(capsys, harbour / "published", tmp_path / "run")
    assert code == 2 and "--data-root DIR" in err and "harbour/notes at v3  to  DIR/notes" in err
    assert not (tmp_path / "run").exists()
    code, _, err = rebuild(capsys, harbour / "published", tmp_path / "run", "--data-root", tmp_path / "none")
    assert code == 2 and "--data-root: there is no folder" in err
    (upstream / "notes/more.jsonl").write_text("{}\n")
    code, found = result(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)
    assert code == 1 and found["upstream"] == [
        "notes/more.jsonl: was not there when it was published, and would be read"
    ]
    shutil.rmtree(upstream / "notes")
    (upstream / "logs/logs.jsonl").unlink()
    code, found = result(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)
    assert code == 1 and len(found["upstream"]) == 2
    assert "get harbour/notes, at v3, and put it there" in found["upstream"][0]
    assert "names no repository that has its 1 file;" in found["upstream"][1]


# ------------------------------------------------------------------------------------- other publications


def test_a_changed_recipe_file(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(harbour / "published", tmp_path / "published")
    for path in ("recipe/words/harbour.yaml", "recipe/decisions.csv", "recipe/recipe.json"):
        kept = (folder / path).read_bytes()
        (folder / path).write_bytes(kept.replace(b"notes", b"motes"))
        code, _, err = rebuild(capsys, folder, tmp_path / "run", "--data-root", upstream)
        assert code == 1 and path in err, err
        (folder / path).write_bytes(kept)
    (folder / "recipe/words/harbour.yaml").unlink()
    code, _, err = rebuild(capsys, folder, tmp_path / "run", "--data-root", upstream)
    assert code == 1 and "recipe/words/harbour.yaml: missing" in err


def test_a_tampered_manifest(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(harbour / "published", tmp_path / "published")
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":5', b'"seed":6', 1))
    code, _, err = rebuild(capsys, folder, tmp_path / "run", "--data-root", upstream)
    assert code == 1 and "manifest.json was changed" in err
    assert not (tmp_path / "run").exists()


def test_the_first_record_that_differs_and_why(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_revision(folder: Path, body: dict[str, Any]) -> None:
        body["taskmill"] = {"version": "0.0.9", "revisions": {**body["taskmill"]["revisions"], "curate": 3}}
        body["stages"]["curate"]["root"] = "0" * 64

        def change(rows: list[dict[str, Any]]) -> None:
            rows[4]["content"] = "ab" * 32
            rows[9]["group"] += 1

        rewrite(folder / "ids/train/train.parquet", "ids", change)

    forged = forge(harbour / "published", tmp_path / "forged", other_revision)
    code, out, err = rebuild(capsys, forged, tmp_path / "run", "--data-root", upstream)
    assert code == 1, err
    assert f"content: published '{'ab' * 32}', rebuilt '" in out
    assert "has revision" in out and "and had 3 in the one that published it (0.0.9)" in out
    assert "ids: 2 changed" in out

    def lost(folder: Path, body: dict[str, Any]) -> None:
        rewrite(folder / "ids/train/train.parquet", "ids", lambda rows: rows.pop(0))

    code, found = result(
        capsys,
        forge(harbour / "published", tmp_path / "lost", lost),
        tmp_path / "run",
        "--data-root",
        upstream,
    )
    assert code == 1 and found["difference"]["change"] == "additional"
    assert found["difference"]["counts"] == {"changed": 0, "missing": 0, "additional": 1}
    assert "were changed after they were made" in found["why"][0]


def test_decisions_for_other_evidence(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_evidence(folder: Path, body: dict[str, Any]) -> None:
        (pair,) = read_table(folder / table_path("pairs")).to_pylist()
        csv = folder / "recipe/decisions.csv"
        csv.write_text(csv.read_text().replace(pair["evidence"], "cd" * 16))
        rewrite(folder / table_path("pairs"), "pairs", lambda rows: rows[0].update(evidence="cd" * 16))

    forged = forge(harbour / "published", tmp_path / "forged", other_evidence)
    code, out, err = rebuild(capsys, forged, tmp_path / "run", "--data-root", upstream)
    assert code == 1, err
    assert "pairs: train_task custom/notes, eval_task logs/logs: evidence: published 'cdcd" in out


def test_other_decisions(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def decide_otherwise(folder: Path, body: dict[str, Any]) -> None:
        path = folder / "recipe/decisions.csv"
        path.write_text(path.read_text().replace("keep", "drop_train_examples"))

    forged = forge(harbour / "published", tmp_path / "forged", decide_otherwise)
    code, found = result(capsys, forged, tmp_path / "run", "--data-root", upstream)
    assert code == 1 and found["difference"]["table"] == "decisions"
    assert {"column": "action", "published": "keep", "rebuilt": "drop_train_examples"} in found["difference"][
        "columns"
    ]
    assert any("split is the first stage" in line for line in found["why"])
    assert found["tables"]["ids"]["changed"] >= 3


def test_a_recipe_that_leads_elsewhere(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, body: dict[str, Any]) -> None:
        (folder / "recipe/recipe.json").write_bytes(canonical_json({"values": body["recipe"]}) + b"\n")

    def outside(folder: Path, body: dict[str, Any]) -> None:
        body["recipe"]["curate"]["taxonomy"] = ["/etc/hosts"]
        write(folder, body)

    def above(folder: Path, body: dict[str, Any]) -> None:
        body["recipe"]["sources"][0]["path"] = "../.."
        write(folder, body)

    def running(folder: Path, body: dict[str, Any]) -> None:
        body["recipe"]["evaluate"]["code"]["run"] = True
        write(folder, body)

    def unknown(folder: Path, body: dict[str, Any]) -> None:
        body["recipe"]["curate"]["new_setting"] = 3
        write(folder, body)

    def fewer(folder: Path, body: dict[str, Any]) -> None:
        body["sources"].pop()

    for change, code_of, expected in (
        (fewer, 1, "other sources than its recipe"),
        (outside, 1, "curate.taxonomy.0: found '/etc/hosts'; expected a path below"),
        (above, 1, "sources.0.path: found '../..'"),
        (running, 1, "runs programs"),
        (unknown, 2, "settings that this version of Taskmill does not know (curate.new_setting"),
    ):
        forged = forge(harbour / "published", tmp_path / change.__name__, change)
        code, _, err = rebuild(capsys, forged, tmp_path / "run", "--data-root", upstream)
        assert (code, expected in err) == (code_of, True), err
        assert not (tmp_path / "run/tasks").exists()


# --------------------------------------------------------------------------------------------- other runs


def test_a_directory_that_is_none_of_the_rebuild(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = rebuild(capsys, harbour / "published", harbour / "run", "--data-root", upstream)
    assert code == 2 and "is no earlier rebuild of harbour" in err
    code, _, err = rebuild(capsys, harbour / "run", tmp_path / "run")
    assert code == 2 and "is no published benchmark; expected the folder or manifest.json" in err
    run = tmp_path / "run"
    assert rebuild(capsys, harbour / "published", run, "--data-root", upstream)[0] == 0
    (run / "decisions.csv").write_text((run / "decisions.csv").read_text().replace("keep", "drop_train_task"))
    code, _, err = rebuild(capsys, harbour / "published", run, "--data-root", upstream)
    assert code == 2 and "somebody decided in this run" in err
    other = forge(harbour / "published", tmp_path / "other", lambda folder, body: None)
    (other / "recipe/recipe.json").write_bytes(b"{}")
    code, _, err = rebuild(capsys, other, run, "--data-root", upstream)
    assert code == 2 and "is a rebuild of another benchmark" in err


def test_a_rebuild_that_was_killed_at_once(
    harbour: Path, upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run/recipe").mkdir(parents=True)
    (tmp_path / "run/.lock").touch()
    (tmp_path / "run/recipe/.recipe.json.77.tmp").write_text("{")
    assert rebuild(capsys, harbour / "published", tmp_path / "run", "--data-root", upstream)[0] == 0
    assert not list((tmp_path / "run").rglob("*.tmp"))
