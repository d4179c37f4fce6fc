"""What the docs say is what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import call

from taskmill import recipe_files, recipe_reference

DOCS = sorted(Path(__file__).resolve().parent.parent.glob("docs/*.md"))


def test_reference_pages_are_up_to_date(repository):
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_readme_shows_the_recipe_as_it_is(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- recipe: (\S+) -->\n```yaml\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for path, text in blocks:
        assert text == (repository / path).read_text(encoding="utf-8")


def test_readme_recipe_and_its_commands_run(repository, tmp_path, monkeypatch, capsys):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^taskmill (\S+ (?:examples/recipes/own-data.yaml|runs/own-data).*)$", readme, re.MULTILINE
    )
    assert len(commands) == 3
    shutil.copytree(repository / "examples/recipes", tmp_path / "examples/recipes")
    shutil.copytree(repository / "examples/own_data", tmp_path / "examples/own_data")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        code, out, err = call(capsys, *command.split())
        assert code == 0 and out, err
    assert (tmp_path / "runs/own-data/report.html").is_file()


def test_every_folder_and_file_of_the_package_is_in_the_readme_tree(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## Where things are")[1].split("## Licence")[0]
    for path in (repository / "taskmill").iterdir():
        if path.name.startswith("_") or path.suffix == ".j2":
            continue
        name = "recipe*.py" if path.name.startswith("recipe_") or path.name == "recipe.py" else path.name
        assert name + ("/" if path.is_dir() else "") in tree, path.name


@pytest.mark.parametrize(
    "path", [*DOCS, Path(__file__).resolve().parent.parent / "README.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(path):
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)\)", prose):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [*recipe_files.shipped().values()], ids=lambda p: p.stem)
def test_shipped_recipes_load_and_say_what_they_are(path):
    assert recipe_files.load(path, base=recipe_files.shipped_base()).recipe.sources
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_example_recipes_load(repository):
    for path in sorted((repository / "examples/recipes").glob("*.yaml")):
        assert recipe_files.load(path).recipe.name


def test_settings_page_knows_every_setting(repository):
    page = (repository / "docs/settings.md").read_text(encoding="utf-8")
    texts = recipe_reference.help_texts()
    for key, *_ in recipe_reference.describe():
        assert f"`{key}`" in page
        assert key in texts, f"{key}: no text below its field says what it does"
