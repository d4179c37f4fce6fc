"""Tk-Instruct's encoding of a task of Super-NaturalInstructions (Wang et al. 2022, section 5), character for character.

Reads and writes nothing. A prompt is

    [task name. ][Definition: ...]   instruction
     Positive Example k - ...        demonstration, each block one segment, in upstream's order
     Negative Example k - ...        demonstration
    Now complete the following ...   input
     the answer                      output

The text up to the output and its leading space is what Tk-Instruct's collator gives to the encoder; the space belongs to
the output, so that a token that begins with it carries loss. A text that does not end in ASCII punctuation gets a full
stop. `fit` drops such a prompt's examples from the last and cuts it on the right, as that collator does.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from taskmill import seeding
from taskmill.recipe import TkInstruct
from taskmill.templates.composing.segments import END, Segment

FORMAT = "tk-instruct"
"""What such prompts say in the column `format` of the prompts table."""
MODES = (
    TkInstruct(positive_examples=0),
    TkInstruct(definition=False),
    TkInstruct(),
    TkInstruct(negative_examples=2),
    TkInstruct(explanations=True),
)
"""The encodings among which Tk-Instruct draws when it trains on all of them."""
KINDS = ("positive", "negative")
_PUNCTUATION = frozenset(string.punctuation)
_NUMBER = re.compile(r"(\d+)$")


class TaskExample(NamedTuple):
    """An example that a task gives of itself."""

    kind: str
    """positive or negative."""
    input: str
    output: str
    explanation: str = ""


def task_example(fields: Mapping[str, Any], references: Sequence[str]) -> TaskExample:
    """Return a row of tasks/examples whose upstream_split is `demonstration` as an example of its task."""
    kind = fields.get("example_kind", "positive")
    output = references[0] if references else ""
    return TaskExample(kind, str(fields["input"]), output, str(fields.get("explanation") or ""))


def first_examples(
    examples: Sequence[tuple[str, TaskExample]], settings: TkInstruct
) -> list[tuple[str, TaskExample]]:
    """Return the examples that a prompt shows: the first positive, then the first negative ones.

    Args:
        examples: (example id, example) in any order; upstream's is the number that an id ends in.
    """
    ordered = sorted(examples, key=lambda item: _upstream_place(item[0]))
    wanted = dict(zip(KINDS, (settings.positive_examples, settings.negative_examples), strict=True))
    return [
        item for kind in KINDS for item in [one for one in ordered if one[1].kind == kind][: wanted[kind]]
    ]


def _upstream_place(example: str) -> tuple[int, str]:
    found = _NUMBER.search(example)
    return (int(found[1]) if found else 0, example)


def draw_reference(seed: int, prompt: str, references: Sequence[str]) -> str:
    """Return the reference that a train prompt learns: one at random; evaluation prompts carry the first."""
    return seeding.choose(seed, "tk-instruct/reference", references, prompt)


def compose_tk_instruct(
    definition: str,
    source: str,
    target: str,
    shown: Sequence[TaskExample],
    settings: TkInstruct,
    task_name: str = "",
) -> list[Segment]:
    """Lay out the segments of a prompt.

    Args:
        definition: of the task; upstream's first.
        source: the example's input.
        target: its output, which is left as it is.
        shown: what `first_examples` gave, or those of it that may be shown beside this example.
        settings: whether definition, task name and explanations are shown.
        task_name: upstream's name of the task, the stem of its file.
    """
    head = f"{task_name}. " if settings.task_name else ""
    if settings.definition:
        head += f"Definition: {_stopped(definition)}\n\n"
    segments = [Segment(head, "instruction")] if head else []
    for kind in KINDS:
        own = [example for example in shown if example.kind == kind]
        segments += [
            Segment(_block(example, number, settings.explanations), "demonstration")
            for number, example in enumerate(own, start=1)
        ]
    asked = f"Now complete the following example -\nInput: {_stopped(source)}\nOutput:"
    return [*segments, Segment(asked, "input"), Segment(" " + target, "output", True), END]


def _stopped(text: str) -> str:
    """Return a text, stripped, with a full stop behind it unless it ends in ASCII punctuation."""
    text = text.strip()
    return text if text[-1:] in _PUNCTUATION else text + "."


def _block(example: TaskExample, number: int, explained: bool) -> str:
    text = (
        f" {example.kind.capitalize()} Example {number} -\n"
        f"Input: {_stopped(example.input)}\n Output: {_stopped(example.output)}\n"
    )
    if explained and example.explanation.strip():
        text += f" Explanation: {_stopped(example.explanation)}\n"
    return text + "\n"
