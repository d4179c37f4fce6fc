"""A published benchmark that somebody made to do harm: what rebuild, extend, diff and verify make of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_run
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Repository, serve
from published_files import FIRST, NAME, contents, hub_for, make_published, there
from published_run import forge
from running import call

from taskmill import hub_client
from taskmill.curation.places import hub as places
from taskmill.errors import StorageError, UsageError
from taskmill.splits.publishing.published import Published, open_published
from taskmill.splits.publishing.rerunning.recipe_bundle import read_recipe
from taskmill.splits.publishing.sending import hub
from taskmill.splits.publishing.writing.folder import write_manifest
from taskmill.storage import canonical_json

harbour = published_run.harbour
Body = dict[str, Any]
Change = Callable[[Path, Body], None]
MARKS = "\x1b[31mred\x1b]0;own\x07 \u202eevil\u2066 \x9b"
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
METRIC = {"tasks": ["*"], "metric": "../extends/ids/evil.py:f", "normalisation": None, "max_new_tokens": None}
ADDITION = """\
sources:
  - reader: table
    path: more.jsonl
    benchmark: more
    options: {task: more, category: Dialogue, license: MIT, cast: {fields: {text: text}, references: answer}}
"""


@pytest.fixture
def victim(harbour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return what runs a command on a published folder and gives (exit code, all that it printed)."""
    (tmp_path / "more.jsonl").write_text('{"text": "one more call at sea", "answer": "heard"}\n')
    (tmp_path / "add.yaml").write_text(ADDITION)

    def run(command: str, folder: Path) -> tuple[int, str]:
        own = ["--data-root", str(harbour / "data"), "--workers", "1"]
        options = {
            "verify": [],
            "diff": [str(harbour / "published")],
            "rebuild": ["--run", str(tmp_path / "run"), *own],
            "extend": ["--add", str(tmp_path / "add.yaml"), "--run", str(tmp_path / "v2"), *own],
        }[command]
        code, out, err = call(capsys, command, str(folder), *options)
        assert not _UNSEEN.search(out + err), repr(out + err)
        return code, out + err

    return run


def forged(harbour: Path, tmp_path: Path, change: Change) -> Path:
    """Return a copy of the published folder with a change, whose every digest fits."""
    return forge(harbour / "published", tmp_path / "forged", change)


def with_setting(key: str, value: object) -> Change:
    """Return the change of one setting of the published recipe."""

    def change(folder: Path, body: Body) -> None:
        place: Any = body["recipe"]
        *parents, last = key.split(".")
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[last] = value
        (folder / "recipe/recipe.json").write_bytes(canonical_json({"values": body["recipe"]}) + b"\n")

    return change


def with_column(path: str, name: str, value: str) -> Change:
    """Return the change of one column of a table's first row."""

    def change(folder: Path, body: Body) -> None:
        table = pq.read_table(folder / path)
        field = table.schema.field(name)
        column = pa.array([value, *table[name].to_pylist()[1:]], field.type)
        pq.write_table(table.set_column(table.column_names.index(name), field, column), folder / path)

    return change


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.model", "/home/ann/model", "expected a path below the folder"),
        ("tokenize.tokenizer", "../tokenizer", "expected a path below the folder"),
        ("evaluate.tasks", [METRIC], "evaluate.tasks.0.metric: found '../extends/ids/evil.py:f'"),
        ("sources.0.options.files", {"train": ["../../etc/*.jsonl"]}, "options.files.train.0"),
        ("sources.0.options.files", {"train": ["/etc/*.jsonl"]}, "options.files.train.0"),
        ("overlap.n", 0, "overlap.n: found 0; expected a number from 1 to 64"),
        ("overlap.near_duplicates.num_perm", 10**9, "expected a number from 2 to 1024"),
        ("name", "../elsewhere", "expected a name that can be a folder's"),
    ],
    ids=["model", "tokenizer", "function", "climbing", "absolute", "words", "permutations", "name"],
)
def test_settings_that_no_recipe_may_have(
    harbour: Path, tmp_path: Path, victim: Any, key: str, value: object, expected: str
) -> None:
    folder = forged(harbour, tmp_path, with_setting(key, value))
    for command in ("rebuild", "extend"):
        code, said = victim(command, folder)
        assert code == 1 and expected in said, said
    assert not (tmp_path / "run").exists() and not (tmp_path / "v2/recipe").exists()


def test_words_that_begin_like_a_path_are_words(harbour: Path, tmp_path: Path) -> None:
    for text in ("/no_think Write down what the keeper says.", "left/right, or ..", "/", "a/../b"):
        folder = forged(harbour, tmp_path, with_setting("sources.0.options.definition", text))
        found = read_recipe(open_published(folder))
        assert found["sources"][0]["options"]["definition"] == text
        shutil.rmtree(folder)


def test_names_with_marks_are_shown_as_signs(harbour: Path, tmp_path: Path, victim: Any) -> None:
    def change(folder: Path, body: Body) -> None:
        body["name"] = MARKS
        with_column("ids/train/train.parquet", "reason", MARKS)(folder, body)

    folder = forged(harbour, tmp_path, change)
    said = [victim(command, folder) for command in ("rebuild", "extend", "diff", "verify")]
    assert [code for code, _ in said] == [1, 0, 0, 0]
    assert sum("␛[31mred" in text for _, text in said) == 2

    def file(folder: Path, body: Body) -> None:
        body["sources"][0]["files"][0]["sha256"] = MARKS

    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "run")
    code, text = victim("rebuild", forged(harbour, tmp_path, file))
    assert code == 1 and "published ␛[31mred" in text


@pytest.mark.parametrize("path", ["tables/tasks.parquet", "recipe/words/harbour.yaml", "recipe/recipe.json"])
def test_nothing_behind_a_link_is_read_or_copied(
    harbour: Path, tmp_path: Path, victim: Any, path: str
) -> None:
    folder = tmp_path / "linked"
    shutil.copytree(harbour / "published", folder)
    (tmp_path / "private").write_bytes((folder / path).read_bytes())
    (folder / path).unlink()
    (folder / path).symlink_to(tmp_path / "private")
    for command in ("verify", "extend", "rebuild", "diff"):
        code, said = victim(command, folder)
        if (command, path[:6]) not in (("rebuild", "tables"), ("diff", "recipe")):  # it reads nothing there
            assert code == 1 and "a link, which is not followed" in said, (command, said)
    assert not (tmp_path / "v2" / "extends" / path).exists() and not (tmp_path / "v2" / path).exists()


def test_no_code_comes_along(harbour: Path, tmp_path: Path, victim: Any) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(harbour / "published", folder)
    body = open_published(folder).body
    code = b"def f(*values): raise SystemExit('owned')\n"
    for path in ("ids/evil.py", "recipe/evil.PY"):
        (folder / path).write_bytes(code)
        sha256 = hashlib.sha256(code).hexdigest()
        entry = {"path": path, "num_rows": 0, "bytes": len(code), "sha256": sha256, "rows": sha256}
        body["files"] = sorted([*body["files"], entry], key=lambda entry: str(entry["path"]))
    write_manifest(folder, body)
    assert victim("extend", folder)[0] == 1 and victim("rebuild", folder)[0] == 0
    here = {p.name.lower() for place in ("run", "v2") for p in (tmp_path / place).rglob("*")}
    assert "recipe.json" in here and "evil.py" not in here


def test_tables_of_strange_columns_and_words(harbour: Path, tmp_path: Path, victim: Any) -> None:
    def columns(folder: Path, body: Body) -> None:
        with_column("tables/tasks.parquet", "planned_why", "other")(folder, body)
        for path in ("tables/decisions.parquet", "ids/train/train.parquet"):
            table = pq.read_table(folder / path)
            pq.write_table(table.rename_columns([MARKS, *table.column_names[1:]]), folder / path)

    folder = forged(harbour, tmp_path, columns)
    for command in ("rebuild", "extend", "diff", "verify"):
        code, said = victim(command, folder)
        assert code == 1 and "a published benchmark" in said, (command, said)
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "run")
    folder = forged(harbour, tmp_path, with_column("tables/tasks.parquet", "planned_role", MARKS))
    code, said = victim("extend", folder)
    assert code == 1 and "has an entry with the role" in said


@pytest.mark.parametrize("problem", ["missing from the manifest", "not UTF-8 text"])
def test_a_recipe_that_cannot_be_shown(harbour: Path, tmp_path: Path, victim: Any, problem: str) -> None:
    def change(folder: Path, body: Body) -> None:
        (folder / "recipe/recipe.yaml").write_bytes(b"\xff\xfe")
        if problem.startswith("missing"):
            (folder / "recipe/recipe.yaml").unlink()

    code, said = victim("rebuild", forged(harbour, tmp_path, change))
    assert code == 1 and f"recipe.yaml: {problem}" in said
    assert not (tmp_path / "run" / "recipe").exists()


# ---------------------------------------------------------------------------------------------- the Hub


def test_of_a_repository_without_a_manifest_nothing_else_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with hub_for(tmp_path, monkeypatch) as server:
        files = {"README.md": b"# Big\n", "data/train.parquet": b"PAR1" * 1000}
        server.repositories["ann/big"] = Repository("0" * 39 + "1", files, branch="main")
        code, _, err = call(capsys, "verify", "ann/big")
        assert code == 1 and "has no file or folder 'manifest.json'" in err
        assert not [request for request in server.requests if "train.parquet" in request]
    assert not list(places.snapshot("ann/big", "0" * 39 + "1").rglob("*"))


def test_a_commit_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_for(tmp_path, monkeypatch) as server:
        server.repositories["ann/odd"] = Repository("../../../odd", {"a.csv": b"1"}, branch="main")
        with pytest.raises(StorageError, match="expected the 40 hex digits of a commit"):
            hub_client.Hub("ann/odd", "main").resolve()


def named(folder: Path, name: str, root: str, extends: object = None) -> Published:
    """Return a published folder of a benchmark with a name and a root."""
    made = make_published(folder, {**FIRST, "recipe/recipe.yaml": f"name: {name}\n".encode()})
    body = {**made.body, "name": name, "root": root, "extends": extends}
    (folder / "manifest.json").write_bytes(canonical_json(body) + b"\n")
    return Published(folder, body)


def test_another_benchmark_is_replaced_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = named(tmp_path / "one", "one", "1" * 64), named(tmp_path / "other", "other", "2" * 64)
    larger = named(tmp_path / "larger", "larger", "3" * 64, {"name": "other", "root": "2" * 64})
    with hub_for(tmp_path, monkeypatch) as server:
        hub.send(one, NAME, tag="v1")
        number = len(server.repositories[NAME].history)
        with pytest.raises(
            UsageError, match=r"holds another benchmark, 'one' .* this one is 'other'.*--replace"
        ):
            hub.send(other, NAME)
        assert there(server) == contents(one) and len(server.repositories[NAME].history) == number
        hub.send(other, NAME, replace=True)
        assert there(server) == contents(other)
        hub.send(larger, NAME)  # it grew from what is there
        hub.send(named(tmp_path / "again", "larger", "4" * 64), NAME)  # a version of the same name
        assert json.loads(there(server)["manifest.json"])["root"] == "4" * 64


def test_the_card_of_a_data_set_is_replaced_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_published(tmp_path / "made", FIRST)
    with hub_for(tmp_path, monkeypatch) as server:
        files = {"README.md": b"# Mine", "rows/a.CSV": b"a\n", "LICENSE": b"x"}
        server.repositories[NAME] = Repository("1" * 40, files, branch="main")
        with pytest.raises(UsageError, match=r"holds rows/a\.CSV, a data set of its own .*--replace"):
            hub.send(made, NAME)
        assert there(server) == dict(sorted(files.items()))
        hub.send(made, NAME, replace=True)
        assert there(server) == dict(sorted({**files, **contents(made)}.items()))


def test_a_proxy_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("huggingface_hub")
    if not hasattr(library, "close_session"):
        pytest.skip("this version of huggingface_hub makes no client before it asks")
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("http_proxy", "bob:aSecretOfTheUser@:::bad")
        monkeypatch.setenv("no_proxy", "")
        library.close_session()
        with pytest.raises(UsageError, match="proxy that the environment names") as refused:
            hub_client.Hub("ann/any").resolve()
        assert "aSecret" not in str(refused.value)
        library.close_session()
