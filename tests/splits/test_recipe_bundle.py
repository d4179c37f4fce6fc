"""What a published recipe says: no place of a machine, every file that a setting names, and what cannot be published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from taskmill import recipe_files
from taskmill.artifact import Identity, StageWriter, open_stage, stage_directory
from taskmill.errors import RecipeError
from taskmill.plain import to_json
from taskmill.splits.publishing.rerunning.portable import names_place
from taskmill.splits.publishing.rerunning.recipe_bundle import bundle, portable_values


def make(folder: Path, text: str, files: dict[int, list[str]], *overrides: str, missing: int = -1) -> Any:
    """Return what is bundled of a run whose stage curate read these files of each source."""
    (folder / "here/casts").mkdir(parents=True, exist_ok=True)
    (folder / "here/recipe.yaml").write_text(text)
    resolved = recipe_files.load(folder / "here/recipe.yaml", overrides)
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    out = open_stage(stage_directory(run, "curate"), Identity("curate", 1, {}, 0, None, (), {}))
    assert isinstance(out, StageWriter)
    entries: list[dict[str, Any]] = [
        {"files": [{"name": name} for name in names], **({"missing": True} if number == missing else {})}
        for number, names in files.items()
    ]
    out.finish(upstream=entries)
    return bundle(resolved, run)


def recipe(*paths: str, data: str = "data", more: str = "") -> str:
    sources = "".join(
        f"  - {{reader: documents, path: {path}, benchmark: b{i}}}\n" for i, path in enumerate(paths)
    )
    return f"# Ours.\nname: two\ndata_root: {data}\nsources:\n{sources}{more}"


def test_sources_lie_where_the_names_of_their_files_begin(tmp_path: Path) -> None:
    place, on_hub = tmp_path / "elsewhere", f"ann/cats@{'0a' * 20}/x.txt"
    paths = (f"{tmp_path}/here/data/a", "b/../b/x.txt", f"{place}/c", f"{place}/d.zip/top/in", "../e")
    names = {
        0: ["a/1.txt"],
        1: ["b/x.txt"],
        2: ["c/1.txt", on_hub],
        3: ["d.zip/top/in/1.txt"],
        4: ["e/1.txt"],
    }
    values, files = make(tmp_path, recipe(*paths, "gone"), {**names, 5: []}, missing=5)
    assert [s["path"] for s in values["sources"]] == ["a", "b/x.txt", "c", "d.zip/top/in", "e", "gone"]
    assert values["data_root"] == "."
    assert str(tmp_path) not in str(values) + str(files)
    assert json.loads(files["recipe/recipe.json"]) == {"values": values}


def test_sources_that_would_lie_in_each_other(tmp_path: Path) -> None:
    names = {0: ["c/1.txt"], 1: ["c/1.txt"]}
    with pytest.raises(RecipeError, match=r"sources\.1\.path: would be 'c' .* sources\.0, which is another"):
        make(tmp_path, recipe(f"{tmp_path}/one/c", f"{tmp_path}/two/c"), names)
    with pytest.raises(RecipeError, match=r"sources\.1\.path: would be 'c' .* in the '\.' of sources\.0"):
        make(tmp_path, recipe(".", f"{tmp_path}/two/c"), names)
    values, _ = make(tmp_path / "other", recipe(f"{tmp_path}/one/c", f"{tmp_path}/one/c/"), names)
    assert [s["path"] for s in values["sources"]] == ["c", "c"]


def test_a_repository_that_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    for name in ("/srv/clones/notes", "~/notes", "file:///srv/notes"):
        text = recipe("a").replace("benchmark: b0", f"repository: '{name}'")
        with pytest.raises(RecipeError, match=r"sources\.0\.repository: .* is a place of this machine"):
            make(tmp_path, text, {0: ["a/1.txt"]})
    resolved = recipe_files.load(tmp_path / "here/recipe.yaml", ())
    assert portable_values(resolved, tmp_path / "run")["sources"][0]["path"] == "a", (
        "it can be compared still"
    )


def test_options_that_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    text = recipe("a", more="").replace("benchmark: b0", "options: {text_unit: OPTION}")
    for option in (f"{tmp_path}/private", "../../../private"):
        with pytest.raises(
            RecipeError, match=r"sources\.0\.options\.text_unit: .* lies outside of data_root"
        ):
            make(tmp_path, text.replace("OPTION", option), {0: ["a/1.txt"]})
    for option in ("paragraph", "'/'", "/none/such"):
        make(tmp_path, text.replace("OPTION", option), {0: ["a/1.txt"]})


def test_files_stay_below_the_recipe_or_become_their_last_part(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for path in (
        "words/t.yaml",
        "formats/ours.jinja",
        "casts/one.yaml",
        "casts/notes.txt",
        "tok/tokenizer.json",
    ):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(path)
    (here / "formats/tokenizer_config.json").write_text("{}")
    for path in ("t.yaml", "words/t.yaml", "plan.yaml", "recipe.json", "mine/deep/a.yml", "mine/b.txt"):
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_text(f"there {path}")
    more = f"""\
curate: {{taxonomy: [words/t.yaml, {there}/t.yaml, ../there/words/t.yaml, {there}/recipe.json], casts: [casts]}}
plan: {{layout: {there}/plan.yaml}}
overlap: {{normalisation: tokenizer, tokenizer: tok}}
render: {{format: ./formats/ours.jinja, templates: [{there}/mine]}}
"""
    values, files = make(tmp_path, recipe("a", more=more), {0: ["a/1.txt"]})
    assert values["curate"]["taxonomy"] == [
        "words/t.yaml",
        "t.yaml",
        "files/curate.taxonomy.2/t.yaml",
        "files/curate.taxonomy.3/recipe.json",
    ]
    assert (values["plan"]["layout"], values["render"]["format"]) == ("plan.yaml", "./formats/ours.jinja")
    assert files["recipe/t.yaml"] == b"there t.yaml"
    assert files["recipe/files/curate.taxonomy.2/t.yaml"] == b"there words/t.yaml"
    assert set(files) == {
        *(
            "recipe/recipe.json",
            "recipe/recipe.yaml",
            "recipe/words/t.yaml",
            "recipe/t.yaml",
            "recipe/plan.yaml",
        ),
        *("recipe/files/curate.taxonomy.2/t.yaml", "recipe/files/curate.taxonomy.3/recipe.json"),
        *("recipe/casts/one.yaml", "recipe/tok/tokenizer.json", "recipe/mine/deep/a.yml"),
        *("recipe/formats/ours.jinja", "recipe/formats/tokenizer_config.json"),
    }
    (tmp_path / "here/words/t.yaml").unlink()
    with pytest.raises(RecipeError, match=r"curate\.taxonomy\.0: 'words/t\.yaml' is not there any more"):
        make(tmp_path, recipe("a", more=more), {0: ["a/1.txt"]})


def test_the_text_as_written_or_the_settings(tmp_path: Path) -> None:
    text = recipe("a", more="split: {threshold: 0.02}\n")
    _, files = make(tmp_path / "1", text, {0: ["a/1.txt"]})
    assert files["recipe/recipe.yaml"].decode() == text
    _, files = make(tmp_path / "1", text, {0: ["a/1.txt"]}, f"data_root={tmp_path}/elsewhere")
    assert files["recipe/recipe.yaml"].decode() == text, "data_root is for whoever rebuilds to say"
    for number, (other, overrides) in enumerate(
        [
            (text.replace("# Ours.", "# From /srv/data/two."), ()),
            (text.replace("data_root: data", f"data_root: {tmp_path}/x"), ()),
            (text, ("overlap.n=8",)),
        ]
    ):
        folder = tmp_path / f"other{number}"
        values, files = make(folder, other, {0: ["a/1.txt"]}, *overrides)
        written = files["recipe/recipe.yaml"].decode()
        assert written.startswith("# The settings of the run") and "/srv" not in written
        (folder / "again.yaml").write_text(written)
        assert to_json(recipe_files.load(folder / "again.yaml").recipe) == values


def test_what_only_a_machine_or_its_user_decides(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/own.py").write_text("def score(*a): return 1.0\n")
    more = f"""\
train: {{model: {tmp_path}/models/base}}
tokenize: {{tokenizer: ../tok}}
evaluate:
  endpoint: {{url: "http://localhost:8000/v1", model: m}}
  code: {{run: true}}
  tasks: [{{tasks: ["*"], metric: "own.py:score"}}]
"""
    values, files = make(tmp_path, recipe("a", more=more), {0: ["a/1.txt"]})
    assert values["train"]["model"] == "base" and values["tokenize"]["tokenizer"] == "tok"
    assert values["evaluate"]["endpoint"] is None and values["evaluate"]["code"]["run"] is False
    assert values["evaluate"]["tasks"][0]["metric"] == "own.py:score"
    assert set(files) == {"recipe/recipe.json", "recipe/recipe.yaml"}, "code is not published"
    assert b"localhost" not in b"".join(files.values())
    with pytest.raises(RecipeError, match=r"render\.system: .* a folder of this machine"):
        make(tmp_path, recipe("a", more=f"render: {{system: 'see {tmp_path}/here/x'}}\n"), {0: ["a/1.txt"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data_root: /srv/data", True),
        ("# see ~/notes", True),
        ("paths: [C:\\data]", True),
        ("repository: https://example.org/a/b", False),
        ("tasks: [flan/*, 'a/b']", False),
        ("# train and/or test, 1 / 2", False),
    ],
)
def test_absolute_paths_in_a_text(text: str, expected: bool) -> None:
    assert names_place(text) is expected
