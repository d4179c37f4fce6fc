"""The stage render on tiny runs: shapes, accounting, demonstrations, determinism."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from render_run import copa, example, render, rows_of, small_world, task, template, write_run

from taskmill.artifact import Inputs, read_manifest
from taskmill.errors import DataError
from taskmill.recipe import Render
from taskmill.runs import verify_stage
from taskmill.templates.composing.schemas import DELIMITERS, describe_segments

GOLDEN = "329613242bd366d7d7ad1d97a857d117109c6c2001dd9028bff69627e463e5d2"
"""Root of small_world's prompts: when it changes, raise REVISION of taskmill/templates/build.py."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("world")
    render(run, small_world(run), Render(num_demonstrations=2))
    return run


def prompts(run: Path, **wanted: str) -> list[dict[str, Any]]:
    return [row for row in rows_of(run) if all(row[key] == value for key, value in wanted.items())]


def parts(row: dict[str, Any], kind: str) -> list[str]:
    return [text for found, _, text in describe_segments(row) if found == kind]


def bare(text: str) -> str:
    """Take the delimiter off an input."""
    return next(
        (text.removesuffix(d) for d in sorted(DELIMITERS, key=len, reverse=True) if text.endswith(d)), text
    )


def test_task_level_prompt(world: Path) -> None:
    row = prompts(world, task="sni/copa", example="sni/copa#9")[0]
    kinds = [kind for kind, _, _ in describe_segments(row)]
    assert kinds == ["instruction", "demonstration", "demonstration", "input", "output", "control"]
    assert parts(row, "instruction") == [
        "Instructions: Say which of two sentences follows.\nAnswer 1 or 2.\n\n"
    ]
    text = bare(parts(row, "input")[0])
    assert text == "Input: The lantern 9 fell over. (1) The barn 9 caught fire. (2) The cow 9 slept on."
    assert (parts(row, "output"), parts(row, "control")) == ([" 2"], ["{eos}"])
    assert (row["template"], row["options"], row["level"]) == ("task/definition", None, "supervised")
    assert sorted(row["demonstrations"]) == ["sni/copa#91", "sni/copa#93"]


def test_instance_level_prompt_of_promptsource(world: Path) -> None:
    row = prompts(world, task="p3/copa", example="p3/copa#9", template="p3/copa/t1")[0]
    assert bare(parts(row, "input")[0]) == (
        "Exercise: choose the most plausible alternative.\n\nThe lantern 9 fell over. so...\n"
        "- The barn 9 caught fire.\n- The cow 9 slept on."
    )
    assert parts(row, "output") == [" The cow 9 slept on."]
    assert row["options"] == ["The barn 9 caught fire.", "The cow 9 slept on."]
    assert row["references"] == ["The cow 9 slept on."]
    kinds = [kind for kind, _, _ in describe_segments(row)]
    assert kinds == ["demonstration", "demonstration", "input", "output", "control"]
    assert all(
        text.startswith("Exercise: choose") and text.endswith("\n\n") for text in parts(row, "demonstration")
    )


def test_input_that_ends_in_a_colon_gets_no_delimiter(world: Path) -> None:
    rows = prompts(world, task="p3/copa", template="p3/copa/t3")
    assert rows
    assert all(parts(row, "input")[0].endswith("What follows? Answer:") for row in rows)


def test_flan_prompt_is_kept_as_rendered(world: Path) -> None:
    row = prompts(world, task="flan/copa", example="flan/copa#10")[0]
    shown = "The lantern 10 fell over. What happens next?\nOPTIONS:\n- The barn 10 caught fire.\n- The cow 10 slept on."
    assert bare(parts(row, "input")[0]) == shown
    assert (row["template"], parts(row, "output")) == ("flan/rendered", [" The barn 10 caught fire."])


def test_keywords_prompt_has_instruction_and_every_variant(world: Path) -> None:
    rows = prompts(world, task="crossfit/copa", example="crossfit/copa#10")
    assert [row["template"] for row in sorted(rows, key=lambda r: r["template"])] == [
        "keywords/text-1",
        "keywords/text-2",
    ]
    row = min(rows, key=lambda r: r["template"])
    assert parts(row, "instruction") == ["Choose what happens next.\n"]
    assert bare(parts(row, "input")[0]) == (
        "The lantern 10 fell over. (A) The barn 10 caught fire. (B) The cow 10 slept on."
    )
    assert row["options"] == ["The barn 10 caught fire.", "The cow 10 slept on."]


def test_reasoning_target_is_rationale_and_answer(world: Path) -> None:
    row = prompts(world, task="reasoning/sums", example="reasoning/sums#3")[0]
    assert parts(row, "output") == [" Add them. The answer is 6."]
    assert row["references"] == ["6"]
    assert parts(row, "instruction")[0].startswith("Work through the problem")


def test_document_is_one_trained_segment(world: Path) -> None:
    row = prompts(world, task="web/pages", example="web/pages#3")[0]
    assert describe_segments(row) == [("document", True, "  Seite 3: Größe.\n"), ("control", True, "{eos}")]


def test_only_output_and_end_carry_loss(world: Path) -> None:
    for row in rows_of(world):
        for kind, trained, _ in describe_segments(row):
            assert trained == (kind in ("output", "control", "document"))


def test_rows_are_sorted_and_ids_are_unique(world: Path) -> None:
    for file in Inputs({"render": world / "prompts"}).files("render", "prompts"):
        keys = [
            (r["task"], r["split"], r["prompt"]) for r in rows_of(world) if file.stem[0] == shard_letter(r)
        ]
        assert keys == sorted(keys)
    ids = [row["prompt"] for row in rows_of(world)]
    assert len(set(ids)) == len(ids)


def shard_letter(row: dict[str, Any]) -> str:
    return "a" if row["task"].startswith(("crossfit", "flan")) else "b"


def test_every_considered_pair_is_kept_or_dropped_with_a_reason(world: Path) -> None:
    manifest = read_manifest(world / "prompts")
    assert manifest is not None
    dropped = rows_of(world, "dropped")
    assert manifest.counts["considered"] == len(rows_of(world)) + len(dropped)
    assert manifest.dropped == dict(Counter(row["reason"] for row in dropped))
    reasons = {(row["template"], row["reason"]) for row in dropped if row["task"] == "p3/copa"}
    assert reasons >= {
        ("p3/copa/t4", "changes_task"),
        ("p3/copa/t5", "template_error"),
        ("p3/copa/t2", "empty"),
    }
    assert [row["example"] for row in dropped if row["reason"] == "unlabelled"] == ["p3/copa#90"]
    assert verify_stage(world / "prompts") == []


def test_train_reaches_n_although_a_template_renders_nothing(world: Path) -> None:
    assert len(prompts(world, task="p3/copa", split="train")) == 8
    assert {row["template"] for row in prompts(world, task="p3/copa", split="train")} == {
        "p3/copa/t1",
        "p3/copa/t3",
    }


def test_negative_and_unlabelled_examples_are_never_shown(world: Path) -> None:
    shown = {name for row in rows_of(world) for name in row["demonstrations"]}
    assert "sni/copa#92" not in shown
    assert not shown & {row["example"] for row in rows_of(world) if row["split"] in ("test", "validation")}


def test_golden_digest(world: Path) -> None:
    manifest = read_manifest(world / "prompts")
    assert manifest is not None
    assert manifest.root == GOLDEN


def test_workers_do_not_change_the_result(world: Path, tmp_path: Path) -> None:
    manifest = render(tmp_path, small_world(tmp_path), Render(num_demonstrations=2), workers=2)
    assert manifest.root == GOLDEN


def test_finished_shards_are_kept(tmp_path: Path) -> None:
    render(tmp_path, small_world(tmp_path), Render())
    first = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "prompts" / "prompts").iterdir()}
    (tmp_path / "prompts" / "manifest.json").unlink()
    (tmp_path / "prompts" / "prompts" / "b-000.parquet").unlink()
    render(tmp_path, small_world(tmp_path), Render())
    again = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "prompts" / "prompts").iterdir()}
    assert again["a-000.parquet"] == first["a-000.parquet"]
    assert again["b-000.parquet"] != first["b-000.parquet"]


def test_train_prompts_draw_lead_and_prefix(tmp_path: Path) -> None:
    name = "sni/words"
    examples = [example(name, n, {"input": f"word{n} alone"}, [f"echo{n}"]) for n in range(60)]
    run = write_run(tmp_path, [task(name, "task", "s", definition="Echo.")], examples)
    render(tmp_path, run, Render(train_demonstrations=1))
    rows = rows_of(tmp_path)
    assert {parts(row, "instruction")[0] for row in rows} == {
        "Instructions: Echo.\n\n",
        "Task: Echo.\n\n",
        "Echo.\n\n",
    }
    assert {parts(row, "input")[0].startswith("Input: ") for row in rows} == {True, False}
    assert len(rows) == 60 and all(len(row["demonstrations"]) == 1 for row in rows)


def test_every_delimiter_is_drawn(tmp_path: Path) -> None:
    name = "flan/words"
    examples = [example(name, n, {"inputs": f"word{n}"}, [f"echo{n}"]) for n in range(200)]
    render(tmp_path, write_run(tmp_path, [task(name, "instance", "s")], examples), Render())
    drawn = Counter(
        parts(row, "input")[0].removeprefix(f"word{row['example'].partition('#')[2]}")
        for row in rows_of(tmp_path)
    )
    assert set(drawn) == set(DELIMITERS)
    assert max(drawn.values()) < 50  # 25 expected of 200


def test_demonstrations_avoid_target_group_and_duplicates(tmp_path: Path) -> None:
    name = "flan/words"
    examples = [
        example(name, n, {"inputs": f"word{n // 2} same"}, [f"echo{n // 2}"], group=n // 6, split="train")
        for n in range(36)
    ]
    examples += [
        example(name, n, {"inputs": f"held{n}"}, ["x"], split="test", group=n - 100) for n in range(100, 106)
    ]
    clusters = [[f"{name}#{n}", f"{name}#{n + 12}"] for n in range(6)]
    run = write_run(tmp_path, [task(name, "instance", "s")], examples, duplicates=clusters)
    render(tmp_path, run, Render(num_demonstrations=4, train_demonstrations=4))
    by_id = {e["example"]: e for e in examples}
    alike = {frozenset(pair) for pair in clusters}
    for row in rows_of(tmp_path):
        own, shown = by_id[row["example"]], [by_id[d] for d in row["demonstrations"]]
        assert len(shown) == 4
        assert all(s["group"] != own["group"] and s["normalised"] != own["normalised"] for s in shown)
        assert len({s["normalised"] for s in shown}) == 4
        assert not any(frozenset((row["example"], s["example"])) in alike for s in shown)
        assert {s["split"] for s in shown} == {"train"}


def test_no_demonstration_has_the_input_of_its_prompt(tmp_path: Path) -> None:
    """Upstream repeats instances among its positive examples: other fields, another group, the same question."""
    name = "sni/words"
    shown = {"explanation": "It is so.", "example_kind": "positive"}
    examples = [
        example(name, n, {"input": f" Word {n} ? "}, [f"echo {n}"], split="test", group=n) for n in range(6)
    ]
    examples += [
        example(
            name,
            100 + n,
            {"input": f"word {n}?", **shown},
            [f"echo {n}"],
            split="demonstration",
            upstream_split="demonstration",
        )
        for n in range(6)
    ]
    run = write_run(tmp_path, [task(name, "task", "s", definition="Echo the word.")], examples)
    render(tmp_path, run, Render(num_demonstrations=5))
    rows = rows_of(tmp_path)
    assert len(rows) == 6
    for row in rows:
        own = int(row["example"].partition("#")[2])
        assert sorted(row["demonstrations"]) == [f"{name}#{100 + n}" for n in range(6) if n != own]


def test_demonstration_split_comes_before_train(tmp_path: Path) -> None:
    name = "flan/words"
    splits = ["demonstration"] * 2 + ["train"] * 10 + ["test"] * 5
    examples = [example(name, n, {"inputs": f"word{n}"}, [f"e{n}"], split=s) for n, s in enumerate(splits)]
    render(
        tmp_path, write_run(tmp_path, [task(name, "instance", "s")], examples), Render(num_demonstrations=3)
    )
    for row in [r for r in rows_of(tmp_path) if r["split"] == "test"]:
        assert set(row["demonstrations"][:2]) == {f"{name}#0", f"{name}#1"}
        assert row["demonstrations"][2] in {f"{name}#{n}" for n in range(2, 12)}


def test_counts_of_prompts_follow_the_recipe(tmp_path: Path) -> None:
    name = "crossfit/words"
    splits = ["train"] * 30 + ["validation"] * 30 + ["test"] * 10
    examples = [example(name, n, {"text": f"word{n}"}, [f"e{n}"], split=s) for n, s in enumerate(splits)]
    facts = {"definition": "Echo.", "metadata": '{"shape": "text"}'}
    run = write_run(tmp_path, [task(name, "keywords", "s", **facts)], examples)
    render(tmp_path, run, Render(prompts_per_task=45, validation_prompts=7, test_examples=4))
    counts = Counter(row["split"] for row in rows_of(tmp_path))
    assert counts == {"train": 45, "validation": 7, "test": 8}
    pairs = [(row["example"], row["template"]) for row in rows_of(tmp_path)]
    assert len(set(pairs)) == len(pairs)


def test_one_more_example_moves_few_prompts(tmp_path: Path) -> None:
    name = "crossfit/words"
    facts = {"definition": "Echo.", "metadata": '{"shape": "text"}'}
    examples = [example(name, n, {"text": f"word{n}"}, [f"e{n}"]) for n in range(101)]
    found = []
    for number in (100, 101):
        run = tmp_path / str(number)
        render(run, write_run(run, [task(name, "keywords", "s", **facts)], examples[:number]), Render())
        found.append({(row["prompt"], row["text"]) for row in rows_of(run)})
    assert len(found[0] - found[1]) <= 2


def test_seed_changes_the_draw(tmp_path: Path) -> None:
    roots = set()
    for seed in (0, 1):
        run = tmp_path / str(seed)
        roots.add(render(run, small_world(run), Render(), seed=seed).root)
    assert len(roots) == 2


def test_unfit_templates_leave_the_test(tmp_path: Path) -> None:
    name = "p3/copa"
    examples = [example(name, n, copa(n), [], split="test") for n in range(8)]
    templates = [
        template(name, 1, "{{ premise }} ||| {{ [choice1, choice2][label] }}"),
        template(name, 2, "{% if label %}{{ premise }} ||| {{ choice2 }}{% endif %}"),
    ]
    run = write_run(tmp_path, [task(name, "instance", "s", output_fields=["label"])], examples, templates)
    render(tmp_path, run, Render(num_demonstrations=0))
    assert {row["template"] for row in rows_of(tmp_path)} == {"p3/copa/t1"}
    assert Counter(row["reason"] for row in rows_of(tmp_path, "dropped")) == {"empty": 4, "unfit_template": 4}


def test_templates_that_all_fit_some_only_are_kept(tmp_path: Path) -> None:
    name = "p3/copa"
    examples = [example(name, n, copa(n), [], split="test") for n in range(8)]
    templates = [template(name, 2, "{% if label %}{{ premise }} ||| {{ choice2 }}{% endif %}")]
    run = write_run(tmp_path, [task(name, "instance", "s", output_fields=["label"])], examples, templates)
    manifest = render(tmp_path, run, Render(num_demonstrations=0))
    assert len(rows_of(tmp_path)) == 4
    assert manifest.counts["test_variants_that_fit_some_only"] == 1


def test_test_task_without_a_prompt_stops(tmp_path: Path) -> None:
    examples = [example("p3/copa", n, {**copa(n), "label": -1}, [], split="test") for n in range(3)]
    templates = [template("p3/copa", 1, "{{ premise }} ||| {{ choice1 }}")]
    tasks = [task("p3/copa", "instance", "s", output_fields=["label"])]
    run = write_run(tmp_path, tasks, examples, templates)
    with pytest.raises(
        DataError, match=r"'p3/copa' has 3 test examples and not one test prompt .*unlabelled 3"
    ):
        render(tmp_path, run, Render())
    assert read_manifest(tmp_path / "prompts") is None


def test_train_task_without_a_prompt_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [task("p3/copa", "instance", "s", output_fields=["label"])]
    templates = [template("p3/copa", 1, "{{ premise }}")]
    run = write_run(tmp_path, tasks, [example("p3/copa", n, copa(n), []) for n in range(3)], templates)
    with caplog.at_level(logging.WARNING, logger="taskmill"):
        manifest = render(tmp_path, run, Render())
    assert "p3/copa is left with no train prompt" in caplog.text
    assert manifest.dropped == {"no_output": 3}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"style": "keywords", "metadata": '{"shape": "pairs"}'}, "did you mean 'pair'"),
        ({"style": "poem"}, "cannot be rendered"),
        ({"style": "chat"}, "has no known shape"),
    ],
)
def test_task_that_cannot_be_rendered(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    examples = [example("x/y", 0, {"text": "a"}, ["b"])]
    run = write_run(tmp_path, [task("x/y", "task", "s") | facts], examples)
    with pytest.raises(DataError, match=message):
        render(tmp_path, run, Render())


def test_members_over_many_row_groups(tmp_path: Path) -> None:
    tasks, examples = [], []
    for letter in "abc":
        name = f"flan/{letter}"
        tasks.append(task(name, "instance", f"shard-{letter}"))
        examples += [example(name, n, {"inputs": f"word{n}"}, ["e"]) for n in range(4000)]
    manifest = render(tmp_path, write_run(tmp_path, tasks, examples), Render())
    assert manifest.counts["prompts_train"] == 12_000
    assert Counter(row["task"] for row in rows_of(tmp_path)) == {
        "flan/a": 4000,
        "flan/b": 4000,
        "flan/c": 4000,
    }
