"""Sets of programs and texts through their casts: CodeSearchNet, CodeContests and APPS, on files of our own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated, outcome, refuses_only_with_its_own_errors
from native_files import folder, lines, read_all, write

from taskmill.curation.sources._value_keys import parse_value
from taskmill.curation.sources._values import evaluate
from taskmill.errors import DataError

FUNCTION = {
    "repo": "someone/mill",
    "path": "mill/flour.py",
    "func_name": "Mill.grind",
    "original_string": 'def grind(self, corn):\n    """Turn corn into flour."""\n    return corn.flour',
    "language": "python",
    "code": 'def grind(self, corn):\n    """Turn corn into flour."""\n    return corn.flour',
    "code_tokens": ["def", "grind", "(", "self", ",", "corn", ")", ":", "return", "corn", ".", "flour"],
    "docstring": "Turn corn into flour.",
    "docstring_tokens": ["Turn", "corn", "into", "flour", "."],
    "sha": "0" * 40,
    "url": "https://example.org/mill/flour.py#L1-L3",
    "partition": "train",
}
HUB_FUNCTION = {
    "repository_name": "someone/mill",
    "func_path_in_repository": "mill/flour.py",
    "func_name": "Mill.sift",
    "whole_func_string": "def sift(): pass",
    "language": "python",
    "func_code_string": "def sift(): pass",
    "func_code_tokens": ["def", "sift", "(", ")", ":", "pass"],
    "func_documentation_string": "Sift flour.",
    "func_documentation_tokens": ["Sift", "flour", "."],
    "split_name": "train",
    "func_code_url": "https://example.org/mill/flour.py#L5-L5",
}
PROBLEM = {
    "name": "7_A. Sacks",
    "description": "Count the sacks.",
    "public_tests": {"input": ["3\n"], "output": ["3\n"]},
    "private_tests": {"input": [], "output": []},
    "solutions": {
        "language": [2, 3, 1, 3],
        "solution": ["int main;", "print(3)", "print 3", "print(input())"],
    },
    "difficulty": 7,
}
APPS = {
    "id": 12,
    "question": "Print the larger number.",
    "solutions": json.dumps(["a = 1\nprint(a)", "print(1)"]),
    "input_output": '{"inputs": ["1 2"], "outputs": ["2"]}',
    "difficulty": "introductory",
    "url": "https://example.org/12",
    "starter_code": "",
}


def parquet(path: Path, *rows: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def test_code_search_net_both_ways(tmp_path: Path) -> None:
    content = lines(FUNCTION, {**FUNCTION, "func_name": "two", "url": "https://example.org/2"})
    names = ("python/final/jsonl/train/python_train_0", "python/final/jsonl/valid/python_valid_0")
    write(tmp_path, {f"code_search_net/{name}.jsonl.gz": gzip.compress(content.encode()) for name in names})
    data = read_all("code", folder(tmp_path))["code_search_net"]
    columns = data.columns
    assert columns.upstream_split == ["train", "train", "validation", "validation"]
    assert columns.fields[0] == {
        "text": "def grind ( self , corn ) : return corn . flour",
        "code": FUNCTION["code"],
        "language": "python",
        "func_name": "Mill.grind",
    }
    assert columns.references[0] == ["Turn corn into flour."] and columns.group[0] == "someone/mill"
    assert columns.upstream_id[0] == "train-https://example.org/mill/flour.py#L1-L3"
    assert data.facts["category"] == "Code to Text"
    other = folder(tmp_path, casts={"code_search_net_generation": "code_search_net"})
    (data,) = read_all("code", other).values()
    assert data.columns.fields[0]["text"] == "Turn corn into flour."
    assert data.columns.references[0] == [FUNCTION["code"]] and data.facts["category"] == "Text to Code"


def test_code_search_net_of_the_hub(tmp_path: Path) -> None:
    parquet(tmp_path / "code_search_net/python/train-00000-of-00001.parquet", HUB_FUNCTION)
    data = read_all("code", folder(tmp_path))["code_search_net"]
    assert data.columns.fields[0]["text"] == "def sift ( ) : pass"
    assert data.columns.references == [["Sift flour."]] and data.columns.upstream_split == ["train"]


def test_code_contests(tmp_path: Path) -> None:
    without = {**PROBLEM, "name": "none", "solutions": {"language": [2], "solution": ["int main;"]}}
    parquet(tmp_path / "code_contests/data/train-00000-of-00002-ab12.parquet", PROBLEM, without)
    parquet(tmp_path / "code_contests/data/valid-00000-of-00001-ab12.parquet", PROBLEM)
    data = read_all("code", folder(tmp_path))["code_contests"]
    assert data.columns.references == [["print(3)", "print(input())"], [], ["print(3)", "print(input())"]]
    assert data.columns.upstream_split == ["train", "train", "validation"]
    assert data.columns.fields[0]["text"] == "Count the sacks."
    assert data.columns.fields[0]["public_tests"] == PROBLEM["public_tests"]
    assert data.columns.upstream_id == ["train-7_A. Sacks", "train-none", "validation-7_A. Sacks"]


def test_apps(tmp_path: Path) -> None:
    rows = [APPS, {**APPS, "id": 13, "solutions": "", "starter_code": "def larger(a, b):"}]
    write(tmp_path, {"apps/train.jsonl": lines(*rows), "apps/test.jsonl": lines(APPS)})
    data = read_all("code", folder(tmp_path))["apps"]
    by_split = dict(zip(data.columns.upstream_split, data.columns.references, strict=True))
    assert by_split["test"] == ["a = 1\nprint(a)", "print(1)"]
    found = dict(zip(data.columns.upstream_id, data.columns.fields, strict=True))
    assert found["train-13"]["context"] == "def larger(a, b):"
    assert found["train-12"]["input_output"] == APPS["input_output"]
    assert [] in data.columns.references and not data.aside


APPS_LINE = lines(APPS)
DAMAGES: list[tuple[str, str | bytes, str, int, str]] = [
    ("apps/train.jsonl", b"", "empty_file", 0, "empty"),
    ("apps/train.jsonl", APPS_LINE + APPS_LINE[:-20], "bad_json", 1, "record 1"),
    ("apps/train.jsonl", APPS_LINE + lines({**APPS, "solutions": "[1"}), "bad_json", 1, "references"),
    ("apps/train.jsonl", APPS_LINE + lines({**APPS, "solutions": [{}]}), "wrong_type", 1, "references"),
    ("apps/train.jsonl", APPS_LINE + lines({"question": "a"}), "missing_field", 1, "solutions"),
    ("apps/train.jsonl", APPS_LINE + lines({**APPS, "question": None}), "missing_field", 1, "question"),
    ("apps/train.jsonl", APPS_LINE + lines({**APPS, "url": float("nan")}), "not_finite", 1, "NaN"),
    ("apps/train.jsonl", APPS_LINE.encode() + b'"\xff"\n', "bad_encoding", 1, "not UTF-8"),
    (
        "code_search_net/x_train_0.jsonl",
        lines(FUNCTION, {**FUNCTION, "code_tokens": 3}),
        "wrong_type",
        1,
        "text",
    ),
    (
        "code_search_net/x_train_0.jsonl",
        lines(FUNCTION, {**FUNCTION, "docstring": ["a", True]}),
        "wrong_type",
        1,
        "references",
    ),
    (
        "code_search_net/x_train_0.jsonl.gz",
        gzip.compress(lines(FUNCTION).encode() * 9, mtime=0)[:-9],
        "bad_gzip",
        0,
        "gzip",
    ),
    ("code_contests/train-0-of-1.parquet", b"PAR1 no", "bad_parquet", 0, "Parquet"),
]


@pytest.mark.parametrize(("name", "content", "reason", "kept", "message"), DAMAGES)
def test_damaged_code_stops_or_is_kept_aside(
    tmp_path: Path, name: str, content: Any, reason: str, kept: int, message: str
) -> None:
    write(tmp_path, {f"up/{name}": content})
    with pytest.raises(DataError) as stopped:
        read_all("code", folder(tmp_path, "up"))
    assert message in str(stopped.value) and f"up/{name}" in str(stopped.value)
    (data,) = read_all("code", folder(tmp_path, "up", on_error="skip")).values()
    (aside,) = data.aside
    assert (aside.reason, aside.file) == (reason, f"up/{name}")
    assert len(data.columns) == kept or reason == "bad_gzip"


def test_solutions_that_do_not_fit_their_languages(tmp_path: Path) -> None:
    wrong = {**PROBLEM, "solutions": {"language": [3], "solution": ["a", "b"]}}
    parquet(tmp_path / "up/code_contests/train-0-of-1.parquet", PROBLEM, wrong)
    with pytest.raises(DataError, match=r"record 1.*one length"):
        read_all("code", folder(tmp_path, "up"))


def test_values_that_casts_of_code_use() -> None:
    record = {
        "kinds": [3, 1],
        "texts": ["a", "b"],
        "json": '{"x": [1]}',
        "day": {"d": 4, "m": " ", "y": "1702"},
    }
    for raw, wanted in [
        ({"path": "texts", "where": {"path": "kinds", "equals": 3}}, ["a"]),
        ({"path": "texts", "at_most": 1}, ["a"]),
        ({"path": "json", "json": True}, {"x": [1]}),
        ({"path": "day", "join": "-"}, "4-1702"),
        ({"const": [{"d": 1}, ["x", "y"]], "join": "-"}, ["1", "x-y"]),
        ({"const": " ", "json": True}, None),
    ]:
        problems: list[str] = []
        assert evaluate(parse_value(raw, "v", problems), record, "v") == wanted and not problems
    for raw, message in [
        ({"path": "texts", "where": "kinds"}, "v.where: found 'kinds'"),
        ({"path": "texts", "where": {"path": "kinds"}}, "v.where"),
        ({"path": "texts", "at_most": "1"}, "v.at_most"),
        ({"path": "texts", "json": 1}, "v.json"),
    ]:
        problems = []
        parse_value(raw, "v", problems)
        assert len(problems) == 1 and problems[0].startswith(message)


def test_mutated_code_is_kept_or_aside(tmp_path: Path) -> None:
    for number, (name, row) in enumerate([("code_search_net/x_train_0", FUNCTION), ("apps/train", APPS)]):
        rows = list(mutated([json.dumps(row).encode()], 10_000, number))
        write(tmp_path, {f"{number}/{name}.jsonl": b"\n".join(rows)})
        kept, aside = outcome("code", folder(tmp_path, str(number), on_error="skip"))
        assert kept + aside == sum(bool(row.strip()) for row in rows) and min(kept, aside) > 500


def test_mutated_files_of_code_raise_only_our_errors(tmp_path: Path) -> None:
    refuses_only_with_its_own_errors("code", tmp_path, "a/apps/train.jsonl", APPS_LINE.encode(), 300)
    source = tmp_path / "whole.parquet"
    parquet(source, PROBLEM)
    name = "b/code_contests/train-0-of-1.parquet"
    refuses_only_with_its_own_errors("code", tmp_path, name, source.read_bytes(), 150)
