"""One invented row per data set, in the columns that its repository on the Hub has, for every cast that serves templates.

Reads `fixtures/casts/hub_rows.jsonl`: the name of a PromptSource data set, a row, and a target that one of its templates must
give. `FLOATS` names columns that the Hub stores in single precision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FLOATS = {
    "glue/stsb": ("label",),
    "jigsaw_unintended_bias": ("target", "threat"),
    "sst/default": ("label",),
    "stsb_multi_mt/en": ("similarity_score",),
    "google_wellformed_query": ("rating",),
    "humicroedit/subtask-1": ("meanGrade",),
    "sick": ("relatedness_score",),
    "sem_eval_2014_task_1": ("relatedness_score",),
    "biosses": ("score",),
    "tmu_gfm_dataset": ("ave_g", "ave_f", "ave_m"),
    "mocha": ("score",),
}

PASSAGE = "The mill stands by the river. A miller named Ode built it in 1804."
CHOICES = {"text": ["stone", "water", "bread", "wind"], "label": ["A", "B", "C", "D"]}

_LINES = (Path(__file__).parent / "fixtures" / "casts" / "hub_rows.jsonl").read_text(encoding="utf-8")
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    held["name"]: (held["row"], held["target"]) for held in map(json.loads, _LINES.strip().split("\n"))
}
