"""YAML of strangers: nothing is built, nothing expands, and what is harmless is read."""

from __future__ import annotations

import datetime
import pickle
import time

import pytest
from peak_memory import peak_growth

from taskmill.curation.sources._yaml import load_yaml as load_upstream
from taskmill.safe_yaml import YamlError, compose_yaml, load_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
REFUSED = [
    (
        "a: 1\nb: !!python/object/apply:os.system [ls]",
        "line 2: the tag '!!python/object/apply:os.system' builds an object",
    ),
    ("!!python/object/new:os.system [ls]", "builds an object"),
    ("!!python/name:os.system", "builds an object"),
    ("!!python/module:os", "builds an object"),
    ("!!python/tuple [1, 2]", "builds an object"),
    ("!!python/object:collections.Counter {a: 1}", "builds an object"),
    ("a: !Template {jinja: x}", "the tag '!Template' builds an object"),
    ("!!binary aGVsbG8=", "the tag '!!binary' builds an object"),
    ("!!set {a, b}", "the tag '!!set' builds an object"),
    ("!!omap [a: 1]", "the tag '!!omap' builds an object"),
    ("[!local {a: 1}]", "the tag '!local' builds an object"),
    (LAUGHS, "more than 200000 values, with what aliases stand for"),
    ("a: &a [x]\nb: [" + "*a, " * 201 + "]", "more than 200 aliases"),
    ("a: &a [x, *a]", "line 1: the alias *a stands within what it stands for"),
    ("a: &a\n  b: {c: *a}", "line 2: the alias *a stands within what it stands for"),
    ("a: *nowhere", "line 1: found undefined alias"),
    ("[" * 50_000, "more than 32 levels"),
    ("[" * 33 + "]" * 33, "line 1: more than 32 levels"),
    ("\n".join("  " * i + f"k{i}:" for i in range(500)), "line 32: more than 32 levels"),
    ("- " * 5_000 + "a", "more than 32 levels"),
    ("{a: " * 5_000, "more than 32 levels"),
    ("[" + "1," * 200_001 + "]", "more than 200000 values"),
    ("a: " + "9" * 5_000, "line 1: a number of more than 400 digits"),
    ("a: " + "1:" * 50_000 + "1", "line 1: a number of more than 400 digits"),
    ("a: 1\na: 2", "line 2: the key 'a' stands twice"),
    ("? [a]\n: 1", "is no plain value"),
    ("a: &x {b: 1}\nc: {<<: *x}", "line 2: merge keys are not read"),
    ("a: [1", "line 1: "),
    ("a\x00b", "characters are not allowed"),
    ("a: 1\n---\nb: 1", "line 2: "),
    ("x" * 20_000_001, "more than 20000000 characters"),
]


@pytest.mark.parametrize(
    ("text", "message"), REFUSED, ids=[f"{i}:{t[:30]}" for i, (t, _) in enumerate(REFUSED)]
)
def test_refused_with_line_and_reason(text: str, message: str) -> None:
    def read() -> None:
        with pytest.raises(YamlError) as stopped:
            load_yaml(text)
        assert message in str(stopped.value) and "\n" not in str(stopped.value)
        again = pickle.loads(pickle.dumps(stopped.value))
        assert (str(again), again.line) == (str(stopped.value), stopped.value.line)

    start = time.monotonic()
    assert peak_growth(read) < 300  # the largest text of all is 20 MB, a tenth of its nodes' size
    assert time.monotonic() - start < 20  # a bound on a hang, not a measurement


def test_plain_values_are_read() -> None:
    text = "a: &x [1, 2.5, true, null, text, 2020-01-01]\nb: *x\nc: {d: '=', e: 5}\n"
    values = [1, 2.5, True, None, "text", datetime.date(2020, 1, 1)]
    assert load_yaml(text) == {"a": values, "b": values, "c": {"d": "=", "e": 5}}
    assert load_yaml("") is None and load_yaml("# nothing") is None


def test_only_the_two_tags_of_promptsource_are_mappings_there() -> None:
    assert load_upstream("a: !Template {jinja: x, metadata: !TemplateMetadata {b: 1}}") == {
        "a": {"jinja": "x", "metadata": {"b": 1}}
    }
    with pytest.raises(ValueError, match="the tag '!Template' builds an object"):
        load_upstream("!Template [a]")
    with pytest.raises(ValueError, match="the tag '!Other' builds an object"):
        load_upstream("!Other {a: 1}")


def test_nodes_can_be_had_within_limits_of_ones_own() -> None:
    node, loader = compose_yaml("a: [1]", max_depth=3)
    assert loader.construct_document(node) == {"a": [1]}
    with pytest.raises(YamlError, match="more than 2 levels"):
        compose_yaml("a: [1]", max_depth=2)
