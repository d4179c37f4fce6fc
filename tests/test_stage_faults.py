"""The data stages inherit what `test_faults` shows of artefacts: killed at a step, they resume to the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults import State, run_with_faults, temporary_files

from taskmill.artifact import stage_directory
from taskmill.recipe_files import find
from taskmill.runs import verify_stage
from taskmill.stages import Walk

STEPS = {"curate": 211, "overlap": 31, "split": 17, "render": 4, "mix": 3}
"""Stage -> fault points from one kill to the next, so that each stage is killed some ten times."""


@pytest.mark.parametrize("stage", STEPS)
def test_a_stage_killed_anywhere_resumes_to_the_same_rows(
    stage: str, small_built: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_built / "run", run)
    resolved = find(str(small_built / "recipe.yaml"))
    directory = stage_directory(run, stage)
    root = Walk(resolved, run).build(stage).manifest.root

    def build() -> None:
        done = (directory / "manifest.json").exists()
        assert Walk(resolved, run).build(stage).status == ("up to date" if done else "built")

    def check(state: State) -> None:
        if state == "interrupted":
            # The manifest is renamed last; behind it only its folder is synced, and then it is whole.
            done = (directory / "manifest.json").exists()
            assert not done or verify_stage(directory) == []
        else:
            assert Walk(resolved, run).build(stage).manifest.root == root
            assert verify_stage(directory) == [] and not temporary_files(run)

    kills = run_with_faults(build, check, lambda: shutil.rmtree(directory), step=STEPS[stage])
    assert kills >= 5
