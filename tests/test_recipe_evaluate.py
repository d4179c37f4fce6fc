"""The section evaluate of a recipe: what cannot be meant is told when the recipe is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmill import recipe_files
from taskmill.engine import run_jobs, slot
from taskmill.errors import RecipeError
from taskmill.recipe import Resolved
from taskmill.settings import Settings

ENTRY = "{tasks: ['flan/*'], %s}"


def read(tmp_path: Path, *overrides: str) -> Resolved:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: r\nsources: [{reader: flan, path: .}]\nrender: {num_demonstrations: 5}\n")
    return recipe_files.load(path, overrides)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("evaluate.shots=[]", "empty; expected at least one number"),
        (
            "evaluate.tasks=[" + ENTRY % "metric: rouge" + "]",
            r"no metric 'rouge'; .* - did you mean 'rouge_l'\?$",
        ),
        ("evaluate.tasks=[" + ENTRY % "metric: 'mine.py:score'" + "]", "there is no file .*mine.py"),
        ("evaluate.tasks=[" + ENTRY % "metric: 'mine.py'" + "]", "no metric 'mine.py'.*or FILE.py:FUNCTION"),
        ("evaluate.tasks=[" + ENTRY % "shots: [5]" + "]", r"found 5; expected numbers of evaluate\.shots: 0"),
        ("evaluate.tasks=[" + ENTRY % "shots: []" + "]", "empty; expected at least one number"),
        ("evaluate.tasks=[{tasks: []}]", "empty; expected at least one selector"),
        ("evaluate.tasks=[" + ENTRY % "normaliser: squat" + "]", "did you mean 'squad'"),
        ("evaluate.tasks=[" + ENTRY % "stop: ['']" + "]", "which stops nothing"),
        ("evaluate.stop=['']", "which stops nothing"),
        ("evaluate.sampling.num_samples=3", "found 3 with evaluate.sampling.temperature = 0"),
        ("evaluate.pass_k=2", "expected at most evaluate.sampling.num_samples = 1"),
        ("evaluate.sampling.top_p=0", "from 0.001 to 1"),
        ("evaluate.endpoint={url: 'localhost:80', model: m}", "expected an address such as http"),
        ("evaluate.endpoint={url: 'http://a/v1', model: ''}", "expected the model's name"),
        ("evaluate.endpoint={url: 'http://a/v1', model: m, api_key_variable: sk-1}", "no name of a variable"),
        ("evaluate.normalisation=tokens", "did you mean 'token'"),
    ],
)
def test_a_value_that_cannot_be_meant_is_told(tmp_path: Path, setting: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        read(tmp_path, setting)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("evaluate.split=validation", "render.validation_prompts=0"), "which renders none"),
        (
            ("evaluate.endpoint={url: 'http://localhost:80/v1', model: m}", "evaluate.checkpoints=true"),
            "given with evaluate.endpoint",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        read(tmp_path, *settings)


def test_what_can_be_meant_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    entry = ENTRY % "metric: 'mine.py:score', shots: [5], options: generate, stop: []"
    found = read(
        tmp_path,
        "evaluate.shots=[0, 5]",
        f"evaluate.tasks=[{entry}]",
        "evaluate.sampling={num_samples: 10, temperature: 0.8}",
        "evaluate.pass_k=10",
        "evaluate.endpoint={url: 'https://models.example:8000/v1', model: m}",
    ).recipe.evaluate
    assert found.tasks[0].metric == "mine.py:score" and found.endpoint is not None


def test_pace_is_in_no_fingerprint(tmp_path: Path) -> None:
    server = "evaluate.endpoint={url: 'http://localhost:80/v1', model: m, num_requests: %d}"
    values = [
        Settings(read(tmp_path, *settings), ("evaluate",)).values()
        for settings in (
            (),
            ("evaluate.batch_size=1",),
            (server % 1,),
            (server % 9,),
        )
    ]
    assert values[0] == values[1] != values[2] == values[3]


def _slot_of(number: int) -> int:
    import time

    time.sleep(0.3)
    return slot()


def test_each_worker_has_a_slot_of_its_own() -> None:
    assert set(run_jobs(_slot_of, range(12), 2)) == {0, 1}
    assert slot() == 0 and list(run_jobs(_slot_of, range(2), 1)) == [0, 0]
