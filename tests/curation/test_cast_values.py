"""The values of casts: what each may be and what it gives of a record, or why it gives nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.curation.sources._value_keys import parse_value
from taskmill.curation.sources._values import Unusable, Value, evaluate, find_path


def value(raw: Any) -> Value:
    problems: list[str] = []
    parsed = parse_value(raw, "key", problems)
    assert not problems
    return parsed


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a", "1.0"),
        ("deep.b.0", "x"),
        ("deep.b.*", ["x", "y"]),
        ("rows.*.n", [3, 4]),
        ("dotted.key", "whole"),
        (["a", "deep.b.1"], ["1.0", "y"]),
        ({"first_of": ["absent", "a"]}, "1.0"),
        ({"path": "absent", "default": -1}, -1),
        ({"path": "null", "default": -1}, -1),
        ({"path": "null", "map": {"a": 1}}, None),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"path": "yes", "map": {True: "on", False: "off"}}, "on"),
        ({"path": "number", "map": {2: "two"}}, "two"),
        ({"path": "number", "labels": ["a", "b", "c"]}, "c"),
        ({"path": "yes", "labels": ["no", "yes"]}, "yes"),
        ({"path": "minus", "labels": ["a"]}, None),
        ({"path": "letters", "labels": ["a", "b"]}, ["b", "a"]),
        ({"path": "a", "type": "int"}, 1),
        ({"path": "a", "type": "float"}, 1.0),
        ({"path": "number", "type": "str"}, "2"),
        ({"path": "yes", "type": "int"}, 1),
        ({"path": "number", "type": "float"}, 2.0),
        ({"path": "minus", "type": "int"}, -1),
        ({"path": "worked", "remove": "<<.*?>>"}, "2+2=4 #### 1,004"),
        ({"path": "worked", "remove": ",", "extract": r"#### (\S+)"}, "1004"),
        ({"path": "letters", "sort_unique": True}, ["a", "b"]),
        ({"path": "spans", "spans": "worked", "sort_unique": True}, ["2", "2+"]),
        ({"path": "minus", "none": [-1], "default": 7}, 7),
        ({"path": "dash", "none": ["-"], "default": "none"}, "none"),
        ({"path": "dash", "none": ["+"]}, "-"),
        ({"path": "letters", "classes": ["a", "b"]}, [1, 0]),
        ({"path": "number", "classes": ["a", "b", "c"]}, 2),
        ({"path": "two", "classes": ["a", "b", "c"]}, 2),
        ({"path": "yes", "classes": ["no", "yes"]}, 1),
        ({"path": "empty", "classes": ["a"]}, -1),
        ({"path": "minus", "classes": ["a"]}, -1),
        ({"path": "deep.b.1", "classes": "deep.b"}, 1),
        ({"path": "rows", "columns": ["n"]}, {"n": [3, 4]}),
        ({"path": "pairs", "columns": ["t", "i"]}, {"t": ["x", "y"], "i": [0, 1]}),
        ({"path": "table", "columns": ["n"]}, {"n": [5]}),
        ({"path": "none at all", "columns": ["n"], "default": []}, {"n": []}),
        ({"path": "spaced", "split": ", "}, ["p", "q"]),
        ({"path": "letters", "join": "-"}, "b-a"),
        ({"join_of": ["a", "dotted.key"], "join": " "}, "1.0 whole"),
        ({"join_of": ["a", {"path": "absent", "default": None}]}, "1.0"),
        ({"texts_of": ["letters", "a", "empty", {"path": "letters"}]}, ["b", "a", "1.0"]),
        ({"object": {"x": "a", "y": {"object": {"z": "rows.*.n"}}}}, {"x": "1.0", "y": {"z": [3, 4]}}),
        ({"path": "a", "map": {"b": 1}, "other": 0}, 0),
    ],
)
def test_a_value_of_a_record(raw: Any, expected: Any) -> None:
    record = {
        "a": "1.0",
        "deep": {"b": ["x", "y"]},
        "rows": [{"n": 3}, {"n": 4}],
        "dotted.key": "whole",
        "dash": "-",
        "two": "2",
        "empty": "",
        "spaced": "p, q",
        "pairs": [["x", 0], ["y", 1]],
        "table": {"n": [5], "m": [6]},
        "null": None,
        "yes": True,
        "number": 2,
        "minus": -1,
        "letters": ["b", "a"],
        "worked": "2+2=<<2+2=4>>4 #### 1,004",
        "spans": [{"start": 0, "end": 1}, {"start": 0, "end": 0}, {"start": 2, "end": 2}],
    }
    found = evaluate(value(raw), record, "key")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("absent", "missing_field"),
        ("list.2", "missing_field"),
        ("list.-1", "missing_field"),
        ("list.*.x", "missing_field"),
        ("text.x", "missing_field"),
        ({"first_of": ["absent", "b"]}, "missing_field"),
        ({"path": "text", "map": {"a": 1}}, "bad_label"),
        ({"path": "nine", "labels": ["a"]}, "bad_label"),
        ({"path": "text", "labels": ["a"]}, "bad_label"),
        ({"path": "half", "labels": ["a", "b"]}, "bad_label"),
        ({"path": "text", "type": "int"}, "wrong_type"),
        ({"path": "half", "type": "int"}, "wrong_type"),
        ({"path": "list", "type": "bool"}, "wrong_type"),
        ({"path": "nine", "extract": "(x)"}, "wrong_type"),
        ({"path": "text", "extract": "(x)"}, "no_match"),
        ({"path": "nine", "sort_unique": True}, "wrong_type"),
        ({"path": "spans", "spans": "text"}, "wrong_type"),
        ({"path": "text", "classes": ["a"]}, "bad_label"),
        ({"path": "nine", "classes": ["a"]}, "bad_label"),
        ({"path": "text", "classes": "nine"}, "wrong_type"),
        ({"path": "text", "classes": "absent"}, "missing_field"),
        ({"path": "list", "columns": ["a"]}, "wrong_type"),
        ({"path": "spans", "columns": ["start", "stop"]}, "wrong_type"),
        ({"path": "nine", "join": " "}, "wrong_type"),
        ({"join_of": ["text", "nine"]}, "wrong_type"),
        ({"texts_of": ["nine"]}, "wrong_type"),
        ({"object": {"x": "absent"}}, "missing_field"),
    ],
)
def test_a_value_that_a_record_does_not_have(raw: Any, reason: str) -> None:
    record = {"text": "word", "nine": 9, "half": 0.5, "list": [1, 2], "spans": [{"start": 2, "end": 4}]}
    with pytest.raises(Unusable) as unusable:
        evaluate(value(raw), record, "key")
    assert unusable.value.reason == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("abc"), x, max_size=3),
    max_leaves=6,
)


@given(record=st.dictionaries(st.sampled_from("abc"), JSON), raw=JSON, more=JSON)
@settings(max_examples=300, deadline=None)
def test_any_record_gives_a_value_or_unusable(record: dict[str, Any], raw: Any, more: Any) -> None:
    problems: list[str] = []
    parse_value(raw, "key", problems)
    for spec in (
        {"path": "a.b", "type": "int"},
        {"path": "a", "labels": ["x", "y"]},
        {"path": "a.*", "extract": "(.)"},
        {"path": "a", "spans": "b"},
        {"path": "b", "map": {"x": 1}, "sort_unique": True},
        {"path": "c", "type": "float"},
        ["a", "b.c", "c.0"],
        {"path": "a", "classes": ["x"], "none": [-1]},
        {"path": "b", "classes": "a"},
        {"path": "a", "columns": ["a", "b"]},
        {"path": "a", "split": "x", "join": ""},
        {"join_of": ["a", "b"]},
        {"texts_of": ["a", {"path": "b", "default": []}]},
        {"object": {"x": "a.*"}},
    ):
        try:
            evaluate(value(spec), {**record, "a": more}, "key")
        except Unusable as error:
            assert error.reason and error.field


def test_paths_name_what_the_record_has() -> None:
    with pytest.raises(Unusable, match="the record has passage, query - did you mean 'passage'"):
        find_path({"passage": 1, "query": 2}, "pasage.text")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("asked.question", "'asked' has answers, q"),
        ("asked.answers.txt", "'asked.answers' is a list of 2 .*takes all"),
        ("asked.answers.*.txt", r"'asked\.answers\.\*' has text - did you mean 'text'"),
        ("asked.answers.4", "'asked.answers' is a list of 2"),
        ("asked.q.text", "'asked.q' is 'why'"),
        ("*.q", "the record has asked"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_leads(path: str, message: str) -> None:
    record = {"asked": {"q": "why", "answers": [{"text": "a", "txt": 1}, {"text": "b"}]}}
    with pytest.raises(Unusable, match=f"there is no .*; {message}"):
        find_path(record, path)
