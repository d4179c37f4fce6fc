"""The section `render` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TkInstruct:
    """What Tk-Instruct's encoding shows of a task (Super-NaturalInstructions, section 5)."""

    positive_examples: int = 2
    """Positive examples shown, the first ones of the task."""
    negative_examples: int = 0
    """Negative examples shown, likewise."""
    explanations: bool = False
    """Whether each example is followed by its explanation."""
    definition: bool = True
    """Whether the definition is shown."""
    task_name: bool = False
    """Whether the task's name comes first."""


@dataclass(frozen=True)
class MetaICL:
    """Demonstrations before train prompts, as many as a Zipf draw says (OPT-IML section 4.6)."""

    exponent: float = 4.0
    """The shape a: k + 1 is drawn from 1, 2, .. with weight (k + 1) ** -a, cut at the most and renormalised."""
    max_demonstrations: int = 5
    """Most demonstrations."""
    separator: str = "\n\n\n"
    """Stands between demonstrations, in evaluation prompts too."""
    suffix_loss: bool = False
    """Whether all text from the first demonstration's output on carries loss."""


@dataclass(frozen=True)
class Condition:
    """How a quality class of answers is named to the model, and what its loss weighs (C-RLFT)."""

    text: str
    """What the chat format writes for it."""
    weight: float = 1.0
    """Loss weight of its prompts."""


@dataclass(frozen=True)
class Render:
    """How examples become prompts."""

    prompts_per_task: int | None = None
    """Train prompts per task; by default as many as the task has train examples."""
    validation_prompts: int = 250
    """Most validation prompts per task (OPT-IML section 4.1)."""
    test_examples: int | None = None
    """Most test examples per task, every prompt variant of each; by default all."""
    num_demonstrations: int = 2
    """Demonstrations rendered into evaluation prompts: the largest k; smaller k drop segments."""
    train_demonstrations: int = 0
    """Demonstrations rendered into train prompts."""
    negative_demonstrations: int = 0
    """How many of them are negative examples of the task, which come last and never alone (encoding opt-iml only)."""
    explanations: bool = False
    """Whether a task's own examples are followed by what explains them."""
    metaicl: MetaICL | None = None
    """Draws the number of demonstrations of each train prompt instead."""
    encoding: Literal["opt-iml", "tk-instruct", "tulu"] = "opt-iml"
    """How tasks with a definition are laid out."""
    tk_instruct: TkInstruct = TkInstruct()
    templates: tuple[str, ...] = ()
    """Templates of one's own: YAML files in the library's form, or folders of them, relative to the recipe."""
    format: str = "plain"
    """A shipped chat format, or a file beside the recipe: a format's YAML, or a tokenizer's own chat template (.jinja)."""
    system: str | None = None
    """System text of chat prompts that have none of their own; by default the format's."""
    conditions: dict[str, Condition] = field(default_factory=dict)
    """Quality class -> condition, for formats with conditions; by default the format's own."""
    default_quality: str | None = None
    """Class of examples that carry none; without it a format with conditions refuses them."""
    max_characters: int = 100_000
    """Longest text that a template may produce."""
    time_limit_seconds: float = 60.0
    """Longest time for one template on one example; beyond it the stage stops. No row depends on it, nor a fingerprint."""
    memory_limit_mb: int = 4096
    """Most memory of a worker that renders templates of other people; beyond it the stage stops, likewise."""
