"""A function of the user's own as a metric."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taskmill.errors import DataError, RecipeError
from taskmill.evaluation.metrics.registry import Item, Measure, open_function, require, values

ITEM = Item(["red Cat", "dog"], ["cat"], ["cat", "dog"], {"colour": "red"}, "b/t#0", "b/t", "What?")


def measure(folder: Path, body: str, name: str = "score", extract: str = "whole") -> Measure:
    (folder / "mine.py").write_text(body, encoding="utf-8")
    text = f"mine.py:{name}"
    return Measure(text, extract=extract, function=open_function(text, folder))


def test_it_gets_what_it_asks_for(tmp_path: Path) -> None:
    body = (
        "seen = []\n"
        "def score(prediction, references, *, options, fields, example, task, prompt, samples, weight=0.5):\n"
        "    seen.append((prediction, references, options, fields, example, task, prompt, samples, weight))\n"
        "    return fields['colour'] in prediction\n"
        "def seen_by(prediction): return len(seen) / 10 if seen[0] == EXPECTED else 1\n"
        "EXPECTED = ('red Cat', ['cat'], ['cat', 'dog'], {'colour': 'red'}, 'b/t#0', 'b/t', 'What?',"
        " ['red Cat', 'dog'], 0.5)\n"
    )
    found = values(measure(tmp_path, body), [ITEM], 4)[0]
    assert (found.answer, found.value, found.statistics) == (
        "red Cat",
        0.5,
        None,
    )  # the mean of True and False
    every = "def score(**given): return sorted(given) == sorted(" + repr(
        ["prediction", "references", "options", "fields", "example", "task", "prompt", "samples"]
    )
    assert values(measure(tmp_path, every + ")"), [ITEM], 1)[0].value == 1.0


@pytest.mark.parametrize(
    ("returned", "value"), [("True", 1.0), ("0", 0.0), ("0.25", 0.25), ("np.float32(0.5)", 0.5)]
)
def test_numbers_from_0_to_1_are_values(tmp_path: Path, returned: str, value: float) -> None:
    body = f"import numpy as np\ndef score(prediction): return {returned}\n"
    assert values(measure(tmp_path, body), [ITEM], 1)[0].value == value


def test_it_cannot_change_what_comes_after_it(tmp_path: Path) -> None:
    changes = "    fields.clear(); references.append('x')\n    return len(references) == 2\n"
    body = "def score(prediction, references, fields):\n" + changes
    assert values(measure(tmp_path, body), [ITEM, ITEM], 1)[1].value == 1.0
    assert ITEM.fields == {"colour": "red"} and ITEM.references == ["cat"]


def test_the_answer_is_extracted_first(tmp_path: Path) -> None:
    item = Item(["It is 3. The answer is 4."], ["4"], None, None, "e", "t", "p")
    body = "def score(prediction, references): return prediction in references\n"
    assert values(measure(tmp_path, body, extract="after_answer"), [item], 1)[0].value == 1.0


@pytest.mark.parametrize(
    "returned", ["None", "2", "-0.1", "10**400", "float('nan')", "float('inf')", "'1'", "[1]", "1j"]
)
def test_anything_else_is_told(tmp_path: Path, returned: str) -> None:
    body = f"def score(prediction): return {returned}\n"
    with pytest.raises(
        DataError, match=r"'mine\.py:score' gave .* 'b/t#0' of 'b/t'; expected a number from 0 to 1"
    ):
        values(measure(tmp_path, body), [ITEM], 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def score(prediction):\n    return 1 / 0\n", r"mine\.py:2: ZeroDivisionError: division by zero"),
        (
            "def deep(x):\n    return x['no']\ndef score(prediction):\n    return deep({})\n",
            r"mine\.py:2: KeyError: 'no'",
        ),
        ("import json\ndef score(prediction):\n    return json.loads('{')\n", r"mine\.py:3: JSONDecodeError"),
        ("import sys\ndef score(prediction):\n    sys.exit(3)\n", r"mine\.py:3: SystemExit: 3"),
    ],
)
def test_what_it_raises_is_told_with_its_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        values(measure(tmp_path, body), [ITEM], 1)
    assert "Traceback" not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "body", "message"),
    [
        ("mine.py:scor", "def score(prediction): return 1", "no function 'scor' - did you mean 'score'"),
        ("mine.py:score", "score = 3", "no function 'score'; it has none"),
        ("other.py:score", "", r"there is no file .*other\.py; paths are relative to the recipe"),
        ("mine.py", "", "expected FILE.py:FUNCTION"),
        ("mine.py:score", "def score(prediction, reference): return 1", "did you mean 'references'"),
        ("mine.py:score", "def score(prediction, /): return 1", "parameter 'prediction'"),
        ("mine.py:score", "def score(references): return 1", "neither prediction nor samples"),
        ("mine.py:score", "def score(x", r"mine\.py:1: SyntaxError"),
        ("mine.py:score", "x = 1\nimport no_such_package\n", r"mine\.py:2: ModuleNotFoundError: .*no_such_package"),
        ("mine.py:score", "raise SystemExit('no')", r"mine\.py:1: SystemExit: no"),
        ("mine.py:score", "x = '\0'", "mine.py.*null bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_told(tmp_path: Path, text: str, body: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(body, encoding="utf-8")
    before = set(sys.modules)
    with pytest.raises(RecipeError, match=message) as caught:
        open_function(text, tmp_path)
    assert "Traceback" not in str(caught.value)
    assert all(name.startswith("_taskmill_own_") for name in set(sys.modules) - before)


def test_it_hides_no_module_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Found:\n    size: int\n"
        "def score(prediction): return Found(1).size\n",
        encoding="utf-8",
    )
    function = open_function("json.py:score", tmp_path)
    import json

    assert json.loads("[1]") == [1] and function("x", ITEM) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["json.py"]
    require([Measure("json.py:score", function=function)])
