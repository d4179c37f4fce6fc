"""Rules: what the recipe and the task table say of how each task is asked and valued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from completion_server import serve
from evaluation_run import stage, task_rows

from taskmill.errors import RecipeError, UsageError
from taskmill.evaluation import predictions
from taskmill.evaluation.asking import rules
from taskmill.recipe_evaluate import Code, Endpoint, Evaluate, Sampling, TaskScoring
from taskmill.records import SCHEMAS
from taskmill.storage import read_table

EVERY = ("alpha/choice", "alpha/free", "alpha/odd")


def tasks(**changes: Any) -> pa.Table:
    rows = [{**row, **changes} for row in task_rows()]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["tasks/tasks"]).select(list(rules.COLUMNS))


def rules_of(evaluate: Evaluate, table: pa.Table | None = None) -> dict[str, rules.Rule]:
    return rules.resolve(evaluate, tasks() if table is None else table, EVERY)


def test_the_table_and_the_section_say_what_no_entry_does() -> None:
    found = rules_of(Evaluate(shots=(2, 0), stop=("###",), max_new_tokens=9))
    assert {task: rule.metric for task, rule in found.items()} == {
        "alpha/choice": "accuracy",
        "alpha/free": "rouge_l",
        "alpha/odd": "exact_match",
    }
    assert found["alpha/choice"].shots == (0, 2)
    assert found["alpha/free"].shots == (0,), "summarization is asked without demonstrations"
    assert all(
        (r.stop, r.max_new_tokens, r.extract, r.ranks) == (("###",), 9, "whole", True) for r in found.values()
    )
    reasoning = rules_of(Evaluate(), tasks(style="reasoning"))
    assert {rule.extract for rule in reasoning.values()} == {"after_answer"}


def test_the_first_entry_that_fits_a_task_counts() -> None:
    entries = (
        TaskScoring(("alpha/o*",), metric="token_f1", normaliser="squad", extract="last_number", stop=()),
        TaskScoring(("category=Summ*",), shots=(2,), max_new_tokens=3, options="generate"),
        TaskScoring(("alpha/*",), metric="bleu", stop=("x",)),
    )
    found = rules_of(Evaluate(shots=(0, 2), stop=("#",), tasks=entries))
    odd, free, choice = found["alpha/odd"], found["alpha/free"], found["alpha/choice"]
    assert (odd.metric, odd.normaliser, odd.extract, odd.stop) == ("token_f1", "squad", "last_number", ())
    assert (free.metric, free.shots, free.max_new_tokens, free.ranks) == ("rouge_l", (2,), 3, False)
    assert (choice.metric, choice.stop, choice.is_own_metric) == ("bleu", ("x",), True)
    assert not free.is_own_metric


def test_nothing_is_ranked_by_a_server() -> None:
    found = rules_of(Evaluate(endpoint=Endpoint("http://localhost:1/v1", "m")))
    assert not any(rule.ranks for rule in found.values())


def test_tasks_that_have_no_shots_left_are_told(caplog: pytest.LogCaptureFixture) -> None:
    found = rules_of(Evaluate(shots=(2,)))
    assert found["alpha/free"].shots == ()
    assert "alpha/free" in caplog.text


@pytest.mark.parametrize(
    ("evaluate", "told"),
    [
        (Evaluate(tasks=(TaskScoring(("alpha/chioce",)),)), r"tasks\.0\.tasks.*did you mean 'alpha/choice'"),
        (Evaluate(zero_shot_only=("category=Entailmend",)), r"zero_shot_only.*did you mean 'Entailment'"),
        (Evaluate(tasks=(TaskScoring(("alpha/*",), shots=(1,)),)), r"tasks\.0\.shots: found 1; .* 0$"),
        (Evaluate(tasks=(TaskScoring(("alpha/*",), metric="rouge"),)), "did you mean 'rouge_l'"),
    ],
)
def test_what_fits_nothing_is_told_with_the_nearest_name(evaluate: Evaluate, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        rules_of(evaluate)


def test_the_selector_of_the_default_may_fit_nothing() -> None:
    assert rules.resolve(Evaluate(), tasks(), ["alpha/odd"]).keys() == {"alpha/odd"}


def test_programs_are_run_only_where_the_recipe_says_so() -> None:
    entry = TaskScoring(("alpha/free",), metric="pass_at_k")
    found = rules_of(Evaluate(tasks=(entry,)))
    with pytest.raises(UsageError, match=r"alpha/free.*--set evaluate\.code\.run=true"):
        rules.check_code(found, Evaluate(tasks=(entry,)))
    rules.check_code(found, Evaluate(tasks=(entry,), code=Code(run=True)))
    rules.check_code(rules_of(Evaluate()), Evaluate())


def test_programs_are_refused_before_a_model_loads(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskmill.evaluation import build
    from taskmill.evaluation.answering import jobs

    monkeypatch.setattr(build, "reads", lambda *_: build.READS)
    monkeypatch.setattr(jobs, "open_model", lambda *_: pytest.fail("a model loads"))
    with pytest.raises(UsageError, match=r"--set evaluate\.code\.run=true"):
        evaluate_run(tasks=(TaskScoring(("alpha/free",), metric="pass_at_k"),))


OWN = """
def score(prediction, references, fields):
    return 1.0 if fields["colour"] in references else 0.25
"""


def give_fields(run: Path, fields: dict[str, Any]) -> None:
    """Finish the run's curate again, with an example of alpha/odd that has these fields."""
    examples = pa.table({"example": ["alpha/odd#0"], "fields": [json.dumps(fields)]})

    def write(shard: Any) -> None:
        own = [{**row, "shard": "a", "first_row": 0, "num_kept": 1} for row in task_rows()]
        shard.write_table("tasks.parquet", SCHEMAS["tasks/tasks"], own)
        shard.write_table("examples/a.parquet", examples.schema, examples)

    stage(run / "tasks", "curate", write)


def odd_rows(run: Path) -> list[dict[str, Any]]:
    rows = read_table(run / "scores/predictions.parquet").to_pylist()
    return [row for row in rows if row["task"] == "alpha/odd"]


def test_a_function_of_ones_own_values_answers_and_sees_fields(
    run: Path, evaluate_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "mine.py").write_text(OWN)
    give_fields(run, {"colour": "purple"})
    settings: dict[str, Any] = {
        "tasks": (TaskScoring(("alpha/odd",), metric="mine.py:score"),),
        "baseline": False,
        "shots": (0,),
    }
    manifest = evaluate_run(**settings)
    assert list(manifest.body["external"]["functions"]) == ["mine.py:score"]
    assert ("curate", "examples") in {(i["stage"], i["table"]) for i in manifest.body["inputs"]}
    assert [(row["metric"], row["value"]) for row in odd_rows(run)] == [("mine.py:score", 1.0)]
    original, valued = predictions.values, []
    monkeypatch.setattr(predictions, "values", lambda v, a: valued.append(a.rule.task) or original(v, a))
    evaluate_run(**settings, num_resamples=3, force=True)
    assert "alpha/odd" not in valued and "alpha/free" in valued, "values that may take long are kept"
    (run / "mine.py").write_text(OWN.replace("1.0 if", "0.5 if"))
    evaluate_run(**settings, force=True)
    assert [row["value"] for row in odd_rows(run)] == [0.5]


def test_programs_are_run_where_the_recipe_says_so(run: Path, evaluate_run: Callable[..., Any]) -> None:
    give_fields(run, {"prompt": "def f(x):\n", "test": "assert f(2) == 4", "entry_point": None})

    def write(prompt: str, body: dict[str, Any], sample: int) -> tuple[str, str]:
        return ("    return 2 * x" if sample == 1 else "    return x"), "stop"

    with serve(write) as server:
        evaluate_run(
            endpoint=Endpoint(server.url, "tiny"),
            tasks=(TaskScoring(("alpha/odd",), metric="pass_at_k", extract="code"),),
            sampling=Sampling(num_samples=4, temperature=1.0),
            code=Code(run=True),
            shots=(0,),
        )
    [row] = odd_rows(run)
    assert (row["metric"], len(row["samples"])) == ("pass_at_k", 4)
    assert row["value"] == 0.25
