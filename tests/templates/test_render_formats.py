"""Rendering in encodings, chat formats and quality classes: what of them reaches the table of prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from render_run import example, render, rows_of, small_world, task, write_run

from taskmill.artifact import Inputs
from taskmill.errors import DataError
from taskmill.recipe import MetaICL, Render, TkInstruct
from taskmill.templates.composing.schemas import (
    DELIMITERS,
    Drop,
    Rendered,
    Wording,
    compose,
    describe_segments,
)
from taskmill.templates.drawing.writing import Setup, Writer


def parts(row: dict[str, Any], kind: str) -> list[str]:
    return [text for found, _, text in describe_segments(row) if found == kind]


def turns(*texts: str) -> dict[str, Any]:
    return {"turns": [{("user", "assistant")[n % 2]: text} for n, text in enumerate(texts)]}


def chat_world(run: Path, qualities: Sequence[str | None] = (None,)) -> Inputs:
    name, metadata = "chat/talk", '{"shape": "turns"}'
    examples = []
    for n in range(12):
        row = example(name, n, turns(f"hi {n}", f"ho {n}", f"and {n}", f"then {n}"), [])
        examples.append(
            row | {"quality": qualities[n % len(qualities)], "split": "test" if n >= 8 else "train"}
        )
    examples += [example("dialogue/d", n, turns(f" a {n}", "b "), []) for n in range(3)]
    tasks = [
        task(name, "chat", "s", metadata=metadata),
        task("dialogue/d", "dialogue", "s", metadata=metadata),
    ]
    return write_run(run, tasks, examples)


def test_conversations_and_dialogues(tmp_path: Path) -> None:
    render(tmp_path, chat_world(tmp_path), Render(format="vicuna-v1.1"))
    rows = rows_of(tmp_path)
    trained = next(row for row in rows if row["example"] == "chat/talk#1")
    assert trained["template"] == "chat/turns" and trained["format"] == "vicuna-v1.1"
    learned = "".join(text for _, is_trained, text in describe_segments(trained) if is_trained)
    assert "ho 1" in learned and "then 1" in learned and "and 1" not in learned
    asked = next(row for row in rows if row["example"] == "chat/talk#9")
    assert asked["references"] == ["then 9"]
    assert [text.strip() for text in parts(asked, "output")] == ["then 9"]
    dialogue = next(row for row in rows if row["example"] == "dialogue/d#2")
    assert describe_segments(dialogue) == [("document", True, "a 2\nb"), ("control", True, "{eos}")]
    assert (dialogue["format"], dialogue["joint"]) == ("plain", True)


def test_conditions_name_the_class_and_weigh_the_loss(tmp_path: Path) -> None:
    run = chat_world(tmp_path, ("GPT4", "GPT3", None))
    manifest = render(tmp_path, run, Render(format="openchat-v3.2"))
    rows = [row for row in rows_of(tmp_path) if row["task"] == "chat/talk"]
    assert manifest.dropped == {"no_quality": 2}
    weights = {(row["split"], row["condition"]): round(row["loss_weight"], 3) for row in rows}
    assert weights == {("train", "GPT4"): 1.0, ("train", "GPT3"): 0.1, ("test", "GPT4"): 1.0}
    assert not any(row["joint"] for row in rows)
    assert all(f"{row['condition']} User:" in row["text"] for row in rows)
    keys = [(row["split"], row["condition"], row["prompt"]) for row in rows]
    assert keys == sorted(keys)
    render(tmp_path, run, Render(format="openchat-v3.2", default_quality="GPT3"))
    assert len([row for row in rows_of(tmp_path) if row["task"] == "chat/talk"]) == 12


def test_a_task_without_any_class_is_refused(tmp_path: Path) -> None:
    examples = [example("chat/t", n, turns("a", "b"), []) for n in range(3)]
    run = write_run(tmp_path, [task("chat/t", "chat", "s", metadata='{"shape": "turns"}')], examples)
    with pytest.raises(
        DataError, match=r"'chat/t' has a quality class .*render.default_quality to one of GPT3, GPT4"
    ):
        render(tmp_path, run, Render(format="openchat-v3.2"))


def test_two_part_prompts_become_turns(tmp_path: Path) -> None:
    render(tmp_path, small_world(tmp_path), Render(format="tulu", num_demonstrations=1))
    row = next(r for r in rows_of(tmp_path) if r["example"] == "sni/copa#9")
    kinds = [kind for kind, _, _ in describe_segments(row)]
    assert kinds.count("demonstration") == 1 and kinds.count("output") == 1
    assert row["text"].startswith("{bos}<|user|>\nInstructions: Say which")
    assert next(r for r in rows_of(tmp_path) if r["task"] == "web/pages")["format"] == "plain"


def test_metaicl_draws_the_number_of_demonstrations(tmp_path: Path) -> None:
    name = "flan/words"
    splits = ["train"] * 900 + ["test"] * 20
    examples = [example(name, n, {"inputs": f"word {n}"}, [f"e{n}"], split=s) for n, s in enumerate(splits)]
    run = write_run(tmp_path, [task(name, "instance", "s")], examples)
    drawn = MetaICL(exponent=2.0, max_demonstrations=5, suffix_loss=True)
    render(tmp_path, run, Render(metaicl=drawn, num_demonstrations=3))
    train = [row for row in rows_of(tmp_path) if row["split"] == "train"]
    numbers = Counter(len(row["demonstrations"]) for row in train)
    assert numbers[0] / len(train) == pytest.approx(0.671, abs=0.05) and set(numbers) == set(range(6))
    for row in rows_of(tmp_path):
        assert row["text"].count("\n\n\n") == len(row["demonstrations"])
        if row["split"] == "test":
            assert len(row["demonstrations"]) == 3
            assert [t for _, t, _ in describe_segments(row)].count(True) == 2


def test_tk_instruct_shows_the_first_examples_of_the_task(tmp_path: Path) -> None:
    settings = Render(
        encoding="tk-instruct", tk_instruct=TkInstruct(positive_examples=1, negative_examples=1)
    )
    render(tmp_path, small_world(tmp_path), settings)
    rows = [row for row in rows_of(tmp_path) if row["task"] == "sni/copa"]
    assert rows and all(row["demonstrations"] == ["sni/copa#91", "sni/copa#92"] for row in rows)
    assert all(row["format"] == "tk-instruct" for row in rows)
    assert all(
        "Definition: Say which" in row["text"] and "Negative Example 1 -" in row["text"] for row in rows
    )
    assert all(row["text"].count("Now complete the following example -") == 1 for row in rows)


def test_each_example_of_an_instruction_set_draws_one_template(tmp_path: Path) -> None:
    name, metadata = "chat/set", '{"shape": "instruction"}'
    examples = [
        example(name, n, {"instruction": f"do {n}"} | ({"input": f"on {n}"} if n % 2 else {}), [f"done {n}"])
        for n in range(400)
    ]
    run = write_run(tmp_path, [task(name, "chat", "s", metadata=metadata)], examples)
    render(tmp_path, run, Render())
    rows = rows_of(tmp_path)
    assert sorted(row["example"] for row in rows) == sorted(e["example"] for e in examples)
    with_input, without = (
        {row["template"] for row in rows if int(row["example"].partition("#")[2]) % 2 == odd}
        for odd in (1, 0)
    )
    assert len(with_input) > 5 and len(without) > 5 and not with_input & without
    for row in rows:
        number = row["example"].partition("#")[2]
        assert f"do {number}" in row["text"] and (f"on {number}" in row["text"]) == (int(number) % 2 == 1)
        assert parts(row, "output")[0].strip() == f"done {number}"


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["train", "test"]), st.integers(0, 5))
def test_the_fast_way_of_zero_shot_prompts_gives_what_compose_gives(
    source: str, text: str, split: str, number: int
) -> None:
    for style in ("task", "instance", "keywords", "reasoning"):
        writer = Writer(task("x/y", style, "s"), Setup(Render(), 0))
        rendered = Rendered(text, source, "the answer", ("the answer",))
        wording = Wording(DELIMITERS[number], ("", "Task: ")[number % 2], ("", "Input: ")[number % 2])
        written = writer.write(split, 1, rendered, (), wording, None)
        assert not isinstance(written, Drop)
        segments = compose(style, rendered, (), wording)
        assert list(zip(written.texts, written.kinds, written.trained, strict=True)) == [
            tuple(s) for s in segments
        ]


def test_negative_examples_come_last_and_never_alone(tmp_path: Path) -> None:
    settings = Render(num_demonstrations=3, negative_demonstrations=1, explanations=True)
    render(tmp_path, small_world(tmp_path), settings)
    rows = [row for row in rows_of(tmp_path) if row["split"] == "test"]
    own = [row for row in rows if row["task"] == "sni/copa"]
    assert own and all(row["demonstrations"][-1] == "sni/copa#92" for row in own)
    for row in own:
        assert sorted(row["demonstrations"][:2]) == ["sni/copa#91", "sni/copa#93"]
        shown = parts(row, "demonstration")
        assert [text.partition("\n")[0] for text in shown] == ["Positive example"] * 2 + ["Negative example"]
        assert all(text.rstrip().endswith("Explanation: so") for text in shown)
    others = [row for row in rows if row["task"] == "crossfit/copa"]
    assert others and all(len(row["demonstrations"]) == 3 for row in others)
    alone = tmp_path / "alone"
    render(alone, small_world(alone), Render(num_demonstrations=1, negative_demonstrations=1))
    for row in rows_of(alone):
        assert "sni/copa#92" not in row["demonstrations"]


def test_tulu_words_definition_and_input_as_instruction_sets_do(tmp_path: Path) -> None:
    settings = Render(encoding="tulu", train_demonstrations=2, num_demonstrations=1)
    render(tmp_path, small_world(tmp_path, 200), settings)
    rows = [row for row in rows_of(tmp_path) if row["task"] == "sni/copa"]
    assert len({row["template"] for row in rows}) > 8
    assert all(row["template"].startswith("instruction_sets/input-") for row in rows)
    train = [row for row in rows if row["split"] == "train"]
    few = [row for row in train if row["demonstrations"]]
    assert 0.1 < len(few) / len(train) < 0.4
    for row in few:
        assert row["text"].startswith("Say which") and row["text"].count("\nOutput:\n") == 3
    for row in train:
        if not row["demonstrations"]:
            assert "Say which" in row["text"] and parts(row, "instruction") == []
            number = int(row["example"].partition("#")[2])
            assert row["text"].count(f"The lantern {number} fell over.") == 1
