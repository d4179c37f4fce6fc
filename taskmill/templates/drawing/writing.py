"""What becomes of a rendered example: the segments of its prompt, in the recipe's encoding and chat format.

Reads and writes nothing. The quality class of a prompt, its condition and loss weight are decided here too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from taskmill import seeding
from taskmill.recipe import Condition, Render
from taskmill.templates.chat.formats import PLAIN, ChatFormat
from taskmill.templates.chat.layout import Turn, answered_turns, lay_out, prompt_turns
from taskmill.templates.composing import metaicl, tk_instruct, tulu
from taskmill.templates.composing.schemas import (
    DELIMITERS,
    DOCUMENTS,
    SEPARATOR,
    TASK_LEVEL,
    Drop,
    Rendered,
    Wording,
    closed_input,
    compose,
)
from taskmill.templates.composing.segments import END, Segment
from taskmill.templates.drawing.order import U64, combine
from taskmill.templates.rendering.variants import Conversation, Variant


@dataclass(frozen=True)
class Setup:
    """What all tasks of a run share."""

    settings: Render
    seed: int
    chat: ChatFormat = field(default_factory=lambda: ChatFormat(PLAIN))

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Quality class -> condition; empty where the format has none."""
        if not self.chat.has_conditions:
            return {}
        return self.settings.conditions or self.chat.conditions


_SIMPLE = ("task", "instance", "keywords", "reasoning")
_KINDS = ("instruction", "input", "output", "control")
_TRAINED = (False, False, True, True)
_KINDS_ALONE, _TRAINED_ALONE = _KINDS[1:], _TRAINED[1:]
"""Of a prompt whose template wrote the instruction too."""
_MAX_HEADS = 1000
"""So many different instructions of a task are kept."""


class Written(NamedTuple):
    """The segments of a prompt column by column, and how tokenize takes them."""

    texts: tuple[str, ...]
    kinds: tuple[str, ...]
    trained: tuple[bool, ...]
    format: str
    joint: bool


_new_written = functools.partial(tuple.__new__, Written)


class Writer:
    """Writes the prompts of one task."""

    def __init__(self, task: Mapping[str, Any], setup: Setup) -> None:
        """Take a row of tasks/tasks."""
        self._task, self._setup = task, setup
        self._style: str = task["style"]
        self._settings, self._chat = setup.settings, setup.chat
        self._is_plain = setup.chat.name == PLAIN and setup.chat.template is None
        self.shows_upstream = self._settings.encoding == "tk-instruct" and self._style == "task"
        """Whether prompts show the task's own first examples, in upstream's order."""
        self._encoding: Literal["opt-iml", "tulu"] = "opt-iml"
        if self._settings.encoding == "tulu" or self._style == "chat":
            self._encoding = "tulu"
        self._is_simple = self._is_plain and self._style in _SIMPLE
        self._is_simple = self._is_simple and self._encoding == "opt-iml" and not self.shows_upstream
        self._heads: dict[tuple[str, str], str] = {}
        self._purpose = np.uint64(seeding.derive(setup.seed, "render/wording"))
        self._choices: dict[tuple[str, str], list[Wording]] = {}
        self.conditions = setup.conditions if self._style not in DOCUMENTS else {}
        """Quality class -> condition; empty where prompts have none."""
        self._separator = SEPARATOR
        if self._settings.metaicl is not None:
            self._separator = self._settings.metaicl.separator

    # ------------------------------------------------------------------------------- demonstrations

    def most_demonstrations(self, split: str) -> int:
        """Return the largest number of demonstrations of a prompt of a split: part of its id."""
        settings = self._settings
        if self._style in DOCUMENTS or self._style == "chat":
            return 0
        if self.shows_upstream:
            return settings.tk_instruct.positive_examples + settings.tk_instruct.negative_examples
        if split != "train":
            return settings.num_demonstrations
        return settings.metaicl.max_demonstrations if settings.metaicl else settings.train_demonstrations

    def num_demonstrations(self, split: str, prompt: int) -> int:
        """Return how many demonstrations one prompt asks for."""
        most = self.most_demonstrations(split)
        if split != "train" or not most or self.shows_upstream:
            return most
        if self._settings.metaicl is not None:
            return metaicl.num_demonstrations(self._setup.seed, _named(prompt), self._settings.metaicl)
        if self._settings.encoding == "tulu":
            return tulu.num_demonstrations(self._setup.seed, _named(prompt), most)
        return most

    # --------------------------------------------------------------------------------------- quality

    def quality(self, split: str, own: str | None) -> str | Drop | None:
        """Return the quality class of an example, None where the format has no conditions, or why it has none."""
        known = self.conditions
        if not known:
            return None
        if split == "test" and self._chat.inference in known:
            return self._chat.inference
        found = self._settings.default_quality if own is None else own
        if found is None:
            return Drop(
                "no_quality", "the example has no quality class, and render.default_quality names none"
            )
        if found in known:
            return found
        return Drop("no_quality", f"no condition for the class {found!r}; known: {', '.join(sorted(known))}")

    # --------------------------------------------------------------------------------------- wording

    def wordings(self, split: str, prompts: U64, variants: Sequence[Variant]) -> list[Wording]:
        """Draw each prompt's delimiter; draw lead and prefix in train, where evaluation takes the first of each."""
        drawn = (combine(prompts, self._purpose) >> np.uint64(32)).tolist()
        known: dict[Variant, list[Wording]] = {}
        for variant in set(variants):
            choices = self._choices.get((split, variant.template))
            if choices is None:
                choices = self._choices[split, variant.template] = self._wordings(split, variant)
            known[variant] = choices
        return [
            (choices := known[variant])[number * len(choices) >> 32]
            for variant, number in zip(variants, drawn, strict=True)
        ]

    def _wordings(self, split: str, variant: Variant) -> list[Wording]:
        """Return every wording that a prompt may have."""
        ends = DELIMITERS if self._chat.delimiter is None else (self._chat.delimiter,)
        leads, prefixes = variant.leads, variant.prefixes
        if split != "train":
            leads, prefixes = leads[:1], prefixes[:1]
        return [Wording(*parts) for parts in itertools.product(ends, leads, prefixes)]

    # -------------------------------------------------------------------------------------- segments

    def write(
        self,
        split: str,
        prompt: int,
        made: Rendered | Conversation,
        shown: Sequence[Rendered],
        wording: Wording,
        quality: str | None,
    ) -> Written | Drop:
        """Return the segments of a prompt, or why the format does not take it."""
        if isinstance(made, Conversation):
            return self._laid_out(_asked(made.turns) if split == "test" else made.turns, quality)
        if self._is_simple and not shown:
            found = self._zero_shot(made, wording)
            if found is not None:
                return found
        if self._style in DOCUMENTS:
            return _written(compose(self._style, made, (), wording), PLAIN, True)
        if self.shows_upstream:
            segments = self._tk_instruct(split, prompt, made, shown)
        else:
            drawn = self._settings.metaicl
            segments = compose(
                self._style,
                made,
                shown,
                wording,
                encoding=self._encoding,
                explanations=self._settings.explanations,
                separator=self._separator,
                suffix_loss=self._is_plain and drawn is not None and drawn.suffix_loss and split == "train",
            )
        if self._is_plain:
            return _written(segments, tk_instruct.FORMAT if self.shows_upstream else PLAIN, True)
        return self._laid_out(prompt_turns(segments), quality)

    def _zero_shot(self, made: Rendered, wording: Wording) -> Written | None:
        """Return what `compose` gives for a prompt without demonstrations, faster; None for what it does not cover."""
        if not made.source or made.source.isspace():
            return None
        head = self._heads.get((made.instruction, wording.lead))
        if head is None:
            text = made.instruction.strip()
            end = SEPARATOR if self._style in TASK_LEVEL else "\n"
            head = wording.lead + text + end if text else ""
            if len(self._heads) < _MAX_HEADS:
                self._heads[made.instruction, wording.lead] = head
        asked, answer = closed_input(made.source, wording), " " + made.target.strip()
        if head:
            return _new_written(((head, asked, answer, END.text), _KINDS, _TRAINED, PLAIN, True))
        return _new_written(((asked, answer, END.text), _KINDS_ALONE, _TRAINED_ALONE, PLAIN, True))

    def _tk_instruct(
        self, split: str, prompt: int, made: Rendered, shown: Sequence[Rendered]
    ) -> list[Segment]:
        target = made.target
        if split == "train" and len(made.references) > 1:
            target = tk_instruct.draw_reference(self._setup.seed, _named(prompt), made.references)
        examples = [
            tk_instruct.TaskExample(one.example_kind, one.source, one.target, one.explanation)
            for one in shown
        ]
        return tk_instruct.compose_tk_instruct(
            made.instruction, made.source, target, examples, self._settings.tk_instruct, self._task["name"]
        )

    def _laid_out(self, turns: Sequence[Turn], quality: str | None) -> Written | Drop:
        text = None if quality is None else self.conditions[quality].text
        segments = lay_out(self._chat, turns, text, self._settings.system)
        if isinstance(segments, Drop):
            return segments
        return _written(segments, self._chat.name, self._chat.joint)


def _written(segments: Sequence[Segment], layout: str, joint: bool) -> Written:
    texts, kinds, trained = zip(*segments, strict=True)
    return Written(texts, kinds, trained, layout, joint)


def _named(prompt: int) -> str:
    """Return a prompt's id as it is written down."""
    return f"{prompt:016x}"


def _asked(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Return a conversation that asks for the last turn that the model writes."""
    answered = answered_turns(turns)
    if not answered:
        return turns
    last = answered[-1]
    return [*answered[:-1], Turn(last.role, tuple(piece._replace(kind="output") for piece in last.pieces))]
