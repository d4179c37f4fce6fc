"""Facts of prompts: delimiters, encodings, instruction templates, demonstrations and the texts of chat formats.

Reads the template library and the chat formats that ship, and lays out one made-up conversation in each; `compute`
returns key -> value for `published.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskmill import recipe_files
from taskmill.recipe import Condition, MetaICL, TkInstruct
from taskmill.templates.chat.formats import load_format
from taskmill.templates.chat.layout import lay_out, turns_of
from taskmill.templates.composing.metaicl import cumulative
from taskmill.templates.composing.rendered import Rendered, Wording
from taskmill.templates.composing.schemas import DELIMITERS, closed, compose, reasoned
from taskmill.templates.composing.segments import Segment
from taskmill.templates.composing.tk_instruct import MODES, TaskExample, compose_tk_instruct
from taskmill.templates.composing.tulu import FEW_SHOT_RATE, with_newline
from taskmill.templates.rendering.library import LibraryTemplate, load_library

_TALK = {"turns": [{"user": "u1"}, {"assistant": "a1"}, {"user": "u2"}, {"assistant": "a2"}]}
_SYMBOLS = {"{bos}": "", "{eos}": "</s>"}


def compute() -> dict[str, Any]:
    """Return the figures of prompts by key."""
    return {**_opt_iml(), **_tk_instruct(), **_instruction_templates(), **_chat(), **_conditions()}


def _text(segments: Sequence[Segment], trained_only: bool = False) -> str:
    """Return a prompt as text, its symbols as Llama's tokenizer writes them; {bos} is left out."""
    kept = [s for s in segments if s.trained or not trained_only]
    text = "".join(segment.text for segment in kept)
    for symbol, written in _SYMBOLS.items():
        text = text.replace(symbol, written)
    return text


# ------------------------------------------------------------------------------------------- two parts


def _opt_iml() -> dict[str, Any]:
    asked = Rendered("Define it.", "P", "A", ("A",))
    shown = [Rendered("Define it.", "Q", "B", ("B",))]
    wording = Wording(DELIMITERS[4])
    task_level = compose("task", asked, shown, wording)
    instance_level = compose("instance", asked, shown, wording)
    label_loss = compose("task", asked, [], wording)
    suffix = compose("instance", asked, shown, wording, separator=MetaICL().separator, suffix_loss=True)
    return {
        "opt_iml.delimiters": list(DELIMITERS),
        "opt_iml.no_delimiter_after_colon": [
            closed("Say it:", DELIMITERS[0]),
            closed("Say it", DELIMITERS[0]),
        ],
        "opt_iml.demonstrations_after_definition": [segment.kind for segment in task_level][:2],
        "opt_iml.demonstrations_before_example": [segment.kind for segment in instance_level][:2],
        "opt_iml.label_loss": _text(label_loss, trained_only=True),
        "opt_iml.reasoned": reasoned("Because of it.", "4"),
        "metaicl.zero_shot_a4": cumulative(4.0, MetaICL().max_demonstrations)[0],
        "metaicl.zero_shot_a2": cumulative(2.0, MetaICL().max_demonstrations)[0],
        "metaicl.most": MetaICL().max_demonstrations,
        "metaicl.separator": MetaICL().separator,
        "metaicl.suffix_loss": _text(suffix, trained_only=True).startswith(" B"),
        "opt_iml.train_demonstrations": recipe_files.find("opt-iml").recipe.render.train_demonstrations,
    }


def _tk_instruct() -> dict[str, Any]:
    examples = [TaskExample("positive", "i1", "o1"), TaskExample("positive", "i2", "o2")]
    segments = compose_tk_instruct("Define it", "x", "y", examples, TkInstruct())
    return {
        "tk_instruct.text": _text([s for s in segments if s.kind != "output" and s.kind != "control"]),
        "tk_instruct.positive": TkInstruct().positive_examples,
        "tk_instruct.negative": TkInstruct().negative_examples,
        "tk_instruct.modes": len(MODES),
    }


def _instruction_templates() -> dict[str, Any]:
    """Return numbers and weights of the instruction templates of TULU, with and without an input."""
    templates = [t for t in load_library().values() if t.id.startswith("instruction_sets/")]
    found: dict[str, Any] = {}
    for name, with_input in (("with_input", True), ("without_input", False)):
        mine = [template for template in templates if bool(template.needs) is with_input]
        found[f"tulu.templates_{name}"] = len(mine)
        found[f"tulu.template_weights_{name}"] = _weights(mine)
        found[f"tulu.template_weight_sum_{name}"] = round(math.fsum(t.weight for t in mine), 12)
    found["tulu.few_shot_rate"] = FEW_SHOT_RATE
    found["tulu.newline_rule"] = [with_newline("Ask"), with_newline("Ask:"), with_newline("Ask\n")]
    return found


def _weights(templates: Sequence[LibraryTemplate]) -> list[float]:
    return sorted((template.weight for template in templates), reverse=True)


# --------------------------------------------------------------------------------------------- formats


def _segments(name: str, condition: str | None = None) -> list[Segment]:
    turns = turns_of(_TALK)
    assert isinstance(turns, list)
    segments = lay_out(load_format(name, Path()), turns, condition)
    assert isinstance(segments, list)
    return segments


def _chat() -> dict[str, Any]:
    vicuna, tulu = _segments("vicuna-v1.1"), _segments("tulu")
    openchat = _segments("openchat-v3.2", "GPT4")
    return {
        "vicuna.text": _text(vicuna),
        "vicuna.trained": _text(vicuna, trained_only=True),
        "flacuna.text_is_vicunas": _text(_segments("flacuna")) == _text(vicuna),
        "flacuna.delimiter": load_format("flacuna", Path()).delimiter,
        "tulu.text": _text(tulu),
        "tulu.trained": _text(tulu, trained_only=True),
        "openchat.text": _text(openchat),
        "openchat.trained": _text(openchat, trained_only=True),
        "openchat.v2": _text(_segments("openchat-v2", "GPT3")),
        "openchat.v3.1": _text(_segments("openchat-v3.1", "GPT4")),
    }


def _conditions() -> dict[str, Any]:
    recipe = recipe_files.find("openchat").recipe
    shipped = load_format(recipe.render.format, Path())
    conditions: dict[str, Condition] = recipe.render.conditions or dict(shipped.conditions)
    return {
        "openchat.weights": {name: condition.weight for name, condition in sorted(conditions.items())},
        "openchat.inference": shipped.inference,
        "openchat.user_weight": float(
            sum(s.trained for s in _segments("openchat-v3.2", "GPT4") if s.kind == "user")
        ),
    }
