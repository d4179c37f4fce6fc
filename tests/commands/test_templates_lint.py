"""`templates lint`: the library, YAML of both forms, and runs; exit codes, places and shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import call

from taskmill.templates.linting.findings import RULES

Captured = pytest.CaptureFixture[str]
SOUND = "- {id: a, style: keywords, shape: text, reads: [text], body: '{{ text }}'}\n"
FAULTY = """\
- {id: a, style: keywords, shape: text, reads: [text], body: '{{ text }}'}
- id: b
  style: keywords
  shape: text
  reads: [text, title]
  body: '{{ text }}'
- id: c
  style: keywords
  shape: text
  reads: [text]
  body: "{{ text }}\\n{{ txet }}"
"""
UPSTREAM = """\
dataset: kites
templates:
  11111111-1111-1111-1111-111111111111: !Template
    answer_choices: up ||| down
    id: 11111111-1111-1111-1111-111111111111
    jinja: '{{ text }} Up or down? ||| {{ answer_choices[label] }}'
    metadata: !TemplateMetadata {original_task: true}
    name: sound
    reference: ''
  22222222-2222-2222-2222-222222222222: !Template
    answer_choices: up ||| down
    id: 22222222-2222-2222-2222-222222222222
    jinja: '{{ text }} Up or down? {{ answer_choices[label] }}'
    metadata: !TemplateMetadata {original_task: true}
    name: uncut
    reference: ''
  33333333-3333-3333-3333-333333333333: nothing
"""


def lint(capsys: Captured, *arguments: str) -> tuple[int, Any]:
    """Return the exit code and what `templates lint --json` prints."""
    code, out, err = call(capsys, "templates", "lint", *arguments, "--json")
    assert not err, err
    return code, json.loads(out)


def rules(body: Any) -> list[tuple[str, str]]:
    """Return the template and rule of each finding."""
    return [(found["template"], found["rule"]) for found in body["findings"]]


def test_the_library_is_clean(capsys: Captured) -> None:
    code, body = lint(capsys, "--strict")
    assert code == 0 and body["findings"] == [] and body["num_templates"] > 50
    code, out, _ = call(capsys, "templates", "lint")
    assert code == 0 and "0 errors and 0 warnings in 0 of" in out


def test_a_file_of_one_s_own_is_checked_entry_by_entry(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FAULTY, encoding="utf-8")
    code, body = lint(capsys, str(path))
    assert code == 1 and rules(body) == [("b", "bad-entry"), ("mine/c", "undeclared-field")]
    assert [(f["file"], f["file_line"], f["line"]) for f in body["findings"]] == [
        (str(path), 2, None),
        (str(path), 7, 2),
    ]
    assert body["by_rule"] == {"bad-entry": 1, "undeclared-field": 1} and body["num_errors"] == 2
    code, out, _ = call(capsys, "templates", "lint", str(path))
    assert code == 1 and f"{path}:7" in out and "did you mean 'text'" in out
    assert "2 errors and 0 warnings in 2 of 3 templates" in out


def test_files_of_promptsource_are_checked_in_their_own_form(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "kites").mkdir()
    (tmp_path / "kites/templates.yaml").write_text(UPSTREAM, encoding="utf-8")
    for place in (tmp_path, tmp_path / "kites/templates.yaml"):
        code, body = lint(capsys, str(place))
        assert code == 1 and [rule for _, rule in rules(body)] == ["missing-separator", "bad-entry"]
        assert [f["file_line"] for f in body["findings"]] == [10, 17]
        assert {f["task"] for f in body["findings"]} == {"kites"}


def test_warnings_fail_where_they_shall(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SOUND.replace("'{{ text }}'", '"a \\n{{ text }}"'), encoding="utf-8")
    code, body = lint(capsys, str(tmp_path))
    assert code == 0 and rules(body) == [("one/a", "trailing-whitespace")] and body["num_warnings"] == 1
    assert lint(capsys, str(tmp_path), "--strict")[0] == 1


def test_the_same_text_in_two_files_of_a_folder_is_a_duplicate(capsys: Captured, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(SOUND, encoding="utf-8")
    assert rules(lint(capsys, str(tmp_path))[1]) == [("two/a", "duplicate-template")]


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("gone.yaml", None, 2, "is no YAML file, folder or run"),
        ("bad.yaml", "a: [", 1, "not valid YAML"),
        ("word.yaml", "just text", 1, "expected a list of entries"),
        ("map.yaml", "a: 1", 1, "'templates'"),
        ("empty.yaml", "[]", 1, "expected a list of entries"),
        ("tag.yaml", "- !!python/object/apply:os.system [ls]", 1, "builds an object"),
    ],
)
def test_what_holds_no_templates_is_refused(
    capsys: Captured, tmp_path: Path, name: str, text: str | None, code: int, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    found, out, err = call(capsys, "templates", "lint", str(tmp_path / name))
    assert (found, out) == (code, "") and says in err and name in err
    (tmp_path / "folder").mkdir()
    found, out, err = call(capsys, "templates", "lint", str(tmp_path / "folder"))
    assert found == 2 and "holds no YAML file" in err


def test_a_file_that_is_not_utf8_is_refused(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"- {id: \xff}")
    code, _, err = call(capsys, "templates", "lint", str(tmp_path / "x.yaml"))
    assert code == 1 and "not UTF-8" in err


def test_templates_of_a_run_are_tried_on_its_records(capsys: Captured, small_data: Path) -> None:
    file = small_data / "data/promptsource/templates/ferry_boolq/templates.yaml"
    before = file.read_text(encoding="utf-8")
    assert "|||" in before
    call(capsys, "curate", "recipe.yaml", "--run", "sound", "--quiet", "--workers", "1")
    code, body = lint(capsys, "sound", "--strict")
    assert (code, body["findings"]) == (0, []) and body["num_tasks"] >= 5 and body["num_records"] > 20

    file.write_text(before.replace("|||", "{{ answer_choices[answer] }} |||", 1), encoding="utf-8")
    text = file.read_text(encoding="utf-8")
    assert text != before
    call(capsys, "curate", "recipe.yaml", "--run", "faulty", "--quiet", "--workers", "1")
    code, body = lint(capsys, "faulty", "-n", "5")
    assert {found["task"] for found in body["findings"]} == {"promptsource/ferry_boolq"}
    assert body["num_records"] <= 5 * body["num_tasks"]
    code, out, _ = call(capsys, "templates", "lint", "faulty")
    assert "promptsource/ferry_boolq" in out and "tried on" in out


def test_every_rule_has_a_severity_and_says_what_it_is_about() -> None:
    assert all(rule.severity in ("error", "warning") and rule.about for rule in RULES.values())


def test_real_templates_raise_few_findings(capsys: Captured, shared_data: Path) -> None:
    code, body = lint(capsys, str(shared_data / "promptsource/templates"))
    assert code == 0 and body["num_templates"] == 2085
    assert set(body["by_rule"]) == {"trailing-whitespace"}
    assert body["by_rule"]["trailing-whitespace"] < 400
