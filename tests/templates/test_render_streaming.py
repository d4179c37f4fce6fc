"""Rendering in batches: equal rows however many are read at once and by however many workers; demonstrations at scale."""

from __future__ import annotations

from pathlib import Path

import pytest
from render_run import copa, example, fields_of, render, rows_of, small_world, task, template, write_run

from taskmill.artifact import Inputs
from taskmill.recipe import Render
from taskmill.templates import build as stage
from taskmill.templates.drawing import examples as examples_file
from taskmill.templates.drawing import order, pairs, sorting


def mixed_world(run: Path) -> Inputs:
    """Four tasks of all splits in three shards, one of them with templates that fail on a third of the rows."""
    splits = ["train"] * 5 + ["validation", "test", "demonstration"]
    examples, tasks, templates = [], [], []
    for letter, style in (("a", "task"), ("b", "instance"), ("c", "keywords"), ("d", "instance")):
        name = f"x/{letter}"
        facts = {"definition": "Echo.", "metadata": '{"shape": "text"}', "output_fields": ["label"]}
        tasks.append(task(name, style, f"s-{letter if letter != 'd' else 'b'}", **facts))
        for n in range(160):
            fields = {
                **copa(n),
                "input": f"in {n}",
                "text": f"text {n}",
                "inputs": f"ins {n}",
                "label": n % 3 - 1,
            }
            references = [] if style == "instance" else [f"e{n}"]
            examples.append(example(name, n, fields, references, split=splits[n % 8], group=n // 2))
        if style == "instance":
            templates += [
                template(name, 1, "{{ premise }} ||| {% if label == 1 %}{{ choice2 }}{% endif %}"),
                template(name, 2, "{{ premise }} what? ||| {{ [choice1, choice2][label] }}"),
                template(name, 3, "{{ choice1 }} ||| {{ 1 / label }}"),
            ]
    return write_run(run, tasks, examples, templates)


def test_batches_and_workers_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Render(num_demonstrations=3, train_demonstrations=2, prompts_per_task=130)
    whole = render(tmp_path / "one", mixed_world(tmp_path / "one"), settings)
    assert whole.counts["considered"] == whole.counts["prompts"] + sum(whole.dropped.values())
    assert whole.counts["prompts_train"] > 200 and whole.counts["prompts_validation"] > 20
    for workers in (2, 5):
        run = tmp_path / str(workers)
        assert render(run, mixed_world(run), settings, workers).root == whole.root
    monkeypatch.setattr(examples_file, "HELD_BYTES", 0)
    monkeypatch.setattr(sorting, "HELD_BYTES", 20_000)
    monkeypatch.setattr(stage, "_PIECE", 3)
    monkeypatch.setattr(pairs, "CHUNK", 5)
    monkeypatch.setattr(stage, "_watch", lambda jobs: None)
    monkeypatch.setattr(order, "_SMALL", 0)
    for max_batch in (1, 7):
        run = tmp_path / f"batch-{max_batch}"
        assert render(run, mixed_world(run), settings, max_batch=max_batch).root == whole.root


def test_pairs_next_in_rank_take_the_place_of_empty_ones(tmp_path: Path) -> None:
    name = "p3/some"
    examples = [example(name, n, {**copa(n), "label": n % 5}, []) for n in range(300)]
    templates = [
        template(name, 1, "{{ premise }} ||| {% if label == 0 %}{{ choice2 }}{% endif %}"),
        template(name, 2, "{{ premise }} why ||| {% if label == 1 %}{{ choice1 }}{% endif %}"),
    ]
    tasks = [task(name, "instance", "s", output_fields=["label"])]
    run = write_run(tmp_path, tasks, examples, templates)
    manifest = render(tmp_path, run, Render(prompts_per_task=100))
    assert manifest.counts["prompts_train"] == 100
    assert (
        100 < manifest.counts["considered"] < 600
    )  # stops when there are enough: 1 pair in 5 gives a prompt
    assert manifest.counts["considered"] == 100 + manifest.dropped["empty"]
    every = render(tmp_path, run, Render(prompts_per_task=10_000))
    assert (every.counts["prompts_train"], every.counts["considered"]) == (120, 600)


def test_a_demonstration_is_never_the_target_in_100_000_prompts(tmp_path: Path) -> None:
    """Groups of three, every fifth instance repeated in other words' case, demonstrations wanted by every prompt."""
    name, num = "flan/words", 25_000
    examples = [
        example(name, n, {"inputs": f"word {n - n % 5 if n % 5 == 4 else n}"}, [f"e{n}"], group=n // 3)
        for n in range(num)
    ]
    run = write_run(tmp_path, [task(name, "instance", f"s{0}")], examples)
    words_of = {e["example"]: fields_of(e)["inputs"] for e in examples}
    group_of = {e["example"]: e["group"] for e in examples}
    checked = 0
    for seed in range(4):
        render(tmp_path, run, Render(train_demonstrations=2), seed=seed)
        table = Inputs({"render": tmp_path / "prompts"}).table(
            "render", "prompts", ("example", "demonstrations")
        )
        for target, shown in zip(
            table["example"].to_pylist(), table["demonstrations"].to_pylist(), strict=True
        ):
            assert len(shown) == 2
            for other in shown:
                assert other != target
                assert group_of[other] != group_of[target]
                assert words_of[other] != words_of[target]
            checked += 1
    assert checked == 100_000


def test_every_prompt_traces_to_example_template_seed_and_demonstrations(tmp_path: Path) -> None:
    render(tmp_path, small_world(tmp_path), Render(num_demonstrations=2))
    rows = rows_of(tmp_path)
    for row in rows:
        k = 2 if row["split"] != "train" and row["template"] != "document/plain" else 0
        assert row["prompt"] == pairs.prompt_id(row["example"], row["template"], row["split"], k)
    render(tmp_path, small_world(tmp_path), Render(num_demonstrations=2), seed=1)
    other = {row["prompt"]: row for row in rows_of(tmp_path)}
    both = [row for row in rows if row["prompt"] in other]
    assert len(both) > len(rows) // 2  # ids do not hang on the seed, texts do
    assert any(row["text"] != other[row["prompt"]]["text"] for row in both)
