"""`tasks`, `licenses` and `stats`: on a finished run, and on hand-made tables whose figures are counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from finished_run import write_stage

from taskmill.cli import cli
from taskmill.commands.finished import FinishedRun
from taskmill.errors import UsageError
from taskmill.records import SCHEMAS
from taskmill.storage import canonical_json

TASKS: list[dict[str, Any]] = [
    {"task": "chat/talk", "category": "Conversation", "style": "chat", "output_fields": ["turns.assistant"]},
    {"task": "custom/sums", "category": "Mathematics", "style": "task", "definition": "Add the numbers."},
    {"task": "custom/why", "category": "Reasoning", "style": "reasoning"},
]
EXAMPLES: dict[str, list[tuple[Any, list[str]]]] = {
    "chat/talk": [
        ({"turns": [{"system": "Be kind."}, {"user": "one two"}, {"assistant": "a b c"}]}, []),
        (
            {"turns": [{"user": "one"}, {"assistant": "a"}, {"user": "two three four"}, {"call": "x y"}]},
            [],
        ),
    ],
    "custom/sums": [({"input": "1 and 2"}, ["3", "three it is"]), ({"input": "4 and 4 and 4"}, ["12"])],
    "custom/why": [({"question": "Is it so?", "answer": "yes", "rationale": "It just is so."}, ["yes"])],
}
TASKS[2]["output_fields"] = ["answer", "rationale"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which curate alone is finished, with three tasks."""
    tasks, examples = [], []
    for place, task in enumerate(TASKS):
        name = task["task"]
        mine = EXAMPLES[name]
        benchmark, short = name.split("/")
        known = "MIT" if place == 0 else "unknown"
        sizes = {
            "num_read": len(mine) + 1,
            "num_kept": len(mine),
            "num_groups": 1,
            "largest_group": place + 1,
            "num_rendered_templates": 0,
        }
        facts = {"license": known, "license_evidence": f"ground {place}", "shard": "all"}
        tasks.append({"benchmark": benchmark, "name": short, **task, **sizes, **facts})
        for number, (fields, references) in enumerate(mine):
            text = canonical_json(fields).decode()
            examples.append(
                {
                    "example": f"{name}#{number}",
                    "task": name,
                    "group": 1,
                    "fields": text,
                    "references": references,
                    "content": bytes(32),
                    "normalised": bytes(16),
                    "file": "f",
                    "record": number,
                }
            )
    drop = {"stage": "curate", "task": "custom/nc", "reason": "license", "detail": "CC-BY-NC-4.0 is denied"}
    alias = {"task_a": "chat/talk", "task_b": "custom/sums", "dataset_a": "talk", "dataset_b": "sums"}
    template = {"template": "t1", "task": "custom/sums", "keeps_task": True}
    write_stage(
        tmp_path / "run",
        "curate",
        {
            "tasks.parquet": ("tasks/tasks", tasks),
            "examples/all.parquet": ("tasks/examples", examples),
            "templates.parquet": (
                "tasks/templates",
                [
                    template,
                    {**template, "template": "t2", "keeps_task": False},
                    {**template, "template": "t3"},
                ],
            ),
            "dropped.parquet": ("tasks/dropped", [drop, drop]),
            "suspected_aliases.parquet": ("tasks/suspected_aliases", [{**alias, "containment": 0.75}]),
        },
    )
    return tmp_path / "run"


def shown(*arguments: str) -> str:
    """Return what a command prints."""
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def read(*arguments: str) -> Any:
    """Return the one JSON object that a command prints."""
    return json.loads(shown(*arguments, "--json"))


def test_tasks(run: Path) -> None:
    body = read("tasks", str(run))
    assert [row["task"] for row in body["tasks"]] == ["chat/talk", "custom/sums", "custom/why"]
    assert [row["can_be_carved"] for row in body["tasks"]] == [True, False, False]
    assert body["suspected_aliases"][0]["containment"] == 0.75
    text = shown("tasks", str(run))
    assert "3 tasks in 3 categories" in text and "2 tasks cannot be carved" in text
    assert "100.0 % *" in text and "75.0 %" in text


def test_tasks_of_a_pattern_and_a_category(run: Path) -> None:
    assert [row["task"] for row in read("tasks", str(run), "custom/*")["tasks"]] == [
        "custom/sums",
        "custom/why",
    ]
    found = read("tasks", str(run), "--category", "reasoning")
    assert [row["task"] for row in found["tasks"]] == ["custom/why"]
    assert found["suspected_aliases"] == []


@pytest.mark.parametrize(
    ("arguments", "hint"), [(("custom/sum",), "custom/sums"), (("--category", "Reasonin"), "Reasoning")]
)
def test_nothing_matches(run: Path, arguments: tuple[str, ...], hint: str) -> None:
    from taskmill.errors import UsageError

    with pytest.raises(UsageError, match=hint):
        CliRunner().invoke(cli, ["tasks", str(run), *arguments], catch_exceptions=False)


def test_licenses(run: Path) -> None:
    body = read("licenses", str(run))
    assert [(row["license"], row["examples"], row["tasks"]) for row in body["licenses"]] == [
        ("unknown", 3, ["custom/sums", "custom/why"]),
        ("MIT", 2, ["chat/talk"]),
    ]
    assert body["licenses"][0]["evidence"] == [{"text": f"ground {n}", "tasks": 1} for n in (1, 2)]
    assert body["dropped"] == [{"task": "custom/nc", "detail": "CC-BY-NC-4.0 is denied", "examples": 2}]
    text = shown("licenses", str(run))
    assert "ground 1; ground 2" in text and "CC-BY-NC-4.0 is denied" in text


def test_statistics_by_benchmark(run: Path) -> None:
    rows = {row.pop("name"): row for row in read("stats", str(run))["rows"]}
    chat, custom = rows["chat"], rows["custom"]
    assert (chat["tasks"], chat["examples"], chat["categories"], chat["templates_per_task"]) == (
        1,
        2,
        1,
        None,
    )
    assert (chat["rounds_mean"], chat["input_mean"], chat["output_mean"]) == (1.5, 2.0, 2.0)
    assert chat["input_std"] == pytest.approx((2 / 3) ** 0.5)
    assert (custom["tasks"], custom["examples"], custom["templates_per_task"]) == (2, 3, 2.0)
    assert custom["input_mean"] == pytest.approx((6 + 8 + 3) / 3)
    assert custom["output_mean"] == pytest.approx((1 + 1 + 5) / 3)
    assert custom["rounds_mean"] is None


def test_statistics_by_category_and_total(run: Path) -> None:
    body = read("stats", str(run), "--by", "category")
    assert [row["name"] for row in body["rows"]] == ["Conversation", "Mathematics", "Reasoning"]
    assert (body["total"]["tasks"], body["total"]["examples"], body["total"]["categories"]) == (3, 5, 3)
    text = shown("stats", str(run), "--by", "category")
    assert "total" in text and "Mathematics" in text


def test_levels_need_the_split(run: Path) -> None:
    from taskmill.errors import UsageError

    with pytest.raises(UsageError, match="taskmill split"):
        CliRunner().invoke(cli, ["stats", str(run), "--by", "level"], catch_exceptions=False)


def test_statistics_by_level(small_built: Path) -> None:
    body = read("stats", str(small_built / "run"), "--by", "level")
    names = [row["name"] for row in body["rows"]]
    assert {"held_out", "partial", "supervised", "train"} <= set(names)
    assert sum(row["examples"] for row in body["rows"]) == body["total"]["examples"]


def test_a_table_of_another_version_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, name = tmp_path / "old", "overlaps/near_duplicates"
    with monkeypatch.context() as before:
        before.setitem(SCHEMAS, name, pa.schema([("example", pa.string()), ("survivor", pa.string())]))
        row = {"example": "a/t#1", "survivor": "a/t#0"}
        write_stage(run, "overlap", {"near_duplicates.parquet": (name, [row])})
    for command in ("report", "inspect"):
        done = CliRunner().invoke(cli, [command, str(run), *(["overlap"] if command == "inspect" else [])])
        assert not isinstance(done.exception, KeyError)
    with pytest.raises(UsageError, match=r"no column .*relation.* another version .*--force"):
        FinishedRun(run).rows("overlap", "near_duplicates")
