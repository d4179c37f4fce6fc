"""TÜLU's encoding: prompts whose answer follows a newline or a colon, and few-shot prompts in Input and Output blocks.

Reads and writes nothing. Zero-shot, the whole text comes from a template of an instruction set (`library/
instruction_sets.yaml`; Wang et al. 2023, section 2) or from upstream, and nothing is drawn here. In a chat format outer
whitespace goes, as it does in TÜLU.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskmill import seeding
from taskmill.templates.composing.rendered import Rendered
from taskmill.templates.composing.segments import END, Segment

FEW_SHOT_RATE = 0.25
"""Of a task's prompts, those with demonstrations: 20 few-shot beside 60 zero-shot instances."""


def num_demonstrations(seed: int, prompt: str, most: int) -> int:
    """Return `most` for one prompt in four and 0 for the others.

    Args:
        prompt: any name of the prompt that does not depend on the result.
    """
    return most if seeding.uniform(seed, "tulu/demonstrations", prompt) < FEW_SHOT_RATE else 0


def with_newline(prompt: str) -> str:
    """Return a prompt with a newline behind it, unless it ends in one or, spaces aside, in a colon."""
    return prompt if prompt.endswith("\n") or prompt.rstrip().endswith(":") else prompt + "\n"


def compose_tulu(task_level: bool, rendered: Rendered, demonstrations: Sequence[Rendered]) -> list[Segment]:
    """Lay out the segments of a prompt in TÜLU's encoding.

    Args:
        task_level: whether the instruction stands before the demonstrations; then each example is a block. Where
            `rendered` has no instruction of its own its source is taken as the whole prompt.
        rendered: the example that is asked; `whole`, where it has one, is all of the prompt without demonstrations.
        demonstrations: examples shown with their outputs.
    """
    if rendered.whole and not demonstrations:
        return _answered(with_newline(rendered.whole), rendered.target)
    instruction = rendered.instruction.strip()
    if task_level and instruction:
        segments = [Segment(f"{instruction}\n\n", "instruction")]
        segments += [Segment(f"{_block(d)}{d.target.strip()}\n\n", "demonstration") for d in demonstrations]
        return [*segments, *_answered(_block(rendered), rendered.target)]
    segments = [Segment(_shown(d), "demonstration") for d in demonstrations]
    if instruction:
        segments.append(Segment(f"{instruction}\n", "instruction"))
    return [*segments, *_answered(with_newline(rendered.source), rendered.target)]


def _block(example: Rendered) -> str:
    return f"Input:\n{example.source.strip()}\nOutput:\n"


def _shown(example: Rendered) -> str:
    instruction = example.instruction.strip()
    answered = _answered(with_newline(example.source), example.target)[:-1]
    return (f"{instruction}\n" if instruction else "") + "".join(s.text for s in answered) + "\n\n"


def _answered(prompt: str, target: str) -> list[Segment]:
    """Return the input, the output and the end; a space before the output belongs to it."""
    text = prompt.rstrip(" ")
    space = prompt[len(text) :] or ("" if text.endswith("\n") else " ")
    return [Segment(text, "input"), Segment(space + target.strip(), "output", True), END]
