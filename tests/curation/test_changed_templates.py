"""The reviewed list of templates that change the task: it names templates of upstream, and the reader heeds it."""

from __future__ import annotations

from pathlib import Path

from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.curation.sources._yaml import load_yaml
from taskmill.curation.sources.promptsource import changed_templates, template_row

ROWS = '{"original": "a b c", "simplifications": ["a"]}\n'
TEMPLATES = """
dataset: asset
subset: simplification
templates:
  u1: !Template {id: u1, name: choose-simplification, jinja: a ||| b, metadata: !TemplateMetadata {original_task: true}}
  u2: !Template {id: u2, name: another, jinja: a ||| b, metadata: !TemplateMetadata {original_task: true}}
"""


def test_every_listed_template_is_upstreams_and_marked_as_the_original_task(shared_data: Path) -> None:
    root = shared_data / "promptsource" / "templates"
    for dataset, listed in changed_templates().items():
        found = load_yaml((root / dataset / "templates.yaml").read_text(encoding="utf-8"))["templates"]
        rows = {str(template["name"]): template_row(key, template) for key, template in found.items()}
        for name in listed:
            assert rows[name]["keeps_task"], f"{dataset}: {name}"
            assert not template_row(
                "x", {"jinja": "", "name": name, "metadata": {"original_task": True}}, listed
            )["keeps_task"]


def test_reasons_are_one_line_each() -> None:
    listed = [why for names in changed_templates().values() for why in names.values()]
    assert len(listed) >= 20
    assert all(20 < len(why) < 140 and "\n" not in why and not why.endswith(".") for why in listed)


def test_the_reader_marks_them(tmp_path: Path) -> None:
    for folder, file, text in (
        ("templates", "templates.yaml", TEMPLATES),
        ("data", "train.jsonl", ROWS),
    ):
        path = tmp_path / folder / "asset" / "simplification" / file
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "casts").mkdir()
    (tmp_path / "casts" / "asset-simplification.yaml").write_text(
        "datasets: [asset/simplification]\nfields: [original, simplifications]\noutput_fields: [simplifications]\n"
    )
    source = SourceFolder(tmp_path, tmp_path, {}, "stop", (tmp_path / "casts",))
    reader = load_reader("promptsource")
    (entry,) = reader.discover(source)
    changed, kept = reader.read(entry, source).templates
    assert (changed["keeps_task"], kept["keeps_task"]) == (False, True)
    assert changed["why"] == "reviewed: asks which of two texts is the simpler one instead of writing it"
    assert kept["why"] is None


def test_what_upstream_says_comes_first() -> None:
    template = {"jinja": "a ||| b", "name": "is-correct", "metadata": {"original_task": False}}
    row = template_row("x", template, changed_templates()["mwsc"])
    assert row["why"] == "upstream says: not the original task"
