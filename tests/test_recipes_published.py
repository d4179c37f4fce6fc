"""The shipped recipes of published systems: their comments hold, what is missing is said or left out, their pages work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from page import work_through
from running import ROOT, call

from taskmill import recipe_files
from taskmill.artifact import read_manifest
from taskmill.plain import leaves, to_json

PUBLISHED = sorted(set(recipe_files.shipped()) - set(recipe_files.WITH_DATA))
SETTING = re.compile(r"--set (?:'([^']+)'|([a-z_.]+='[^']+')|([^\s'`]+))")


@pytest.mark.parametrize("name", PUBLISHED)
def test_comments_name_settings_that_there_are(name: str) -> None:
    text = recipe_files.shipped()[name].read_text(encoding="utf-8")
    comments = "".join(line.lstrip("# ") + "\n" for line in text.splitlines() if line.startswith("#"))
    assert f"taskmill run {name} " in comments and "NOT FOUND" in comments and "What differs" in comments
    overrides = ["".join(found).replace("'", "") for found in SETTING.findall(comments)]
    assert any(o.startswith("data_root=") for o in overrides)
    for override in overrides:
        if "[..]" not in override:
            recipe_files.find(name, (override,))


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_and_folders_are_looked_for_from_the_present_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = recipe_files.find(name)
    assert resolved.path(resolved.recipe.data_root) == tmp_path / "upstream"
    assert resolved.recipe.tokenize.tokenizer is not None
    assert name == "flan-mini" or resolved.recipe.train.model == resolved.recipe.tokenize.tokenizer


def differing(first: str, second: str) -> set[str]:
    values = [dict(leaves(to_json(recipe_files.find(name).recipe))) for name in (first, second)]
    return {key for key in values[0] | values[1] if values[0].get(key) != values[1].get(key)}


def test_variants_differ_where_they_say() -> None:
    model = {"name", "tokenize.tokenizer", "train.model"}
    assert differing("opt-iml", "opt-iml-175b") == {*model, "train.batch_size", "train.num_steps"}
    assert differing("opt-iml-max", "opt-iml-max-1.3b") == {*model, "train.num_steps", "mix.num_prompts"}
    assert {key.split(".")[0] for key in differing("flan-mini", "flacuna")} == {"name", "train"}
    assert {key.split(".")[0] for key in differing("tulu-human", "tulu")} == {"name", "sources"}


def test_a_source_that_is_left_out_is_named_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "upstream").mkdir()
    curate = ("curate", "tulu", "--workers", "1", "--json")
    code, _, err = call(capsys, *curate)
    assert code == 2 and err.count("does not exist below the data root") == 21 and "on_missing=skip" in err
    code, _, err = call(capsys, *curate, "--set", "curate.on_missing=skip")
    assert code == 2 and "none of the 21" in err
    row = {"instruction": "a", "input": "", "output": "b"}
    (tmp_path / "upstream/code_alpaca_20k.json").write_text(json.dumps([row]))
    code, _, err = call(capsys, *curate, "--set", "curate.on_missing=skip")
    assert code == 0 and err.count("left out, sources.") == 20
    manifest = read_manifest(tmp_path / "runs/tulu/tasks")
    assert manifest is not None
    missing = [entry["source"] for entry in manifest.body["upstream"] if entry.get("missing")]
    assert (
        len(missing) == 20
        and "18. gpt4_alpaca (alpaca)" in missing
        and "19. code_alpaca (alpaca)" not in missing
    )
    (tmp_path / "upstream/alpaca_gpt4_data.json").write_text(json.dumps([row]))
    code, _, err = call(capsys, "curate", "runs/tulu", "--workers", "1")
    assert code == 1 and "gpt4_alpaca" in err
    code, out, _ = call(capsys, "curate", "runs/tulu", "--workers", "1", "--force", "--json")
    assert code == 0 and json.loads(out)["stages"][0]["counts"]["tasks"] == 2


@pytest.mark.parametrize("system", ["flacuna", "openchat", "opt-iml", "tulu"])
def test_pages_work(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / f"docs/recipes/{system}.md").read_text(encoding="utf-8")
    for path in re.findall(r"<!-- file: (\S+) -->", page):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    files, runs, outputs = work_through(page, tmp_path, capsys)
    assert files >= 1 and runs >= 2 and outputs >= 2
