"""The two-part schema: how a rendered example becomes the segments of a prompt (OPT-IML section 2.2).

Reads nothing and writes nothing. A prompt is instructions and an output; the instructions are

    task level (task, reasoning)          instruction, demonstration..., input
    instance level (instance, keywords)   demonstration..., instruction?, input
    document, dialogue                    none: the whole text is learned

A delimiter goes before the output unless the instructions, as a whole, end in a colon. The output carries its leading
space, inputs are right-stripped, `{eos}` is a symbol that tokenize resolves. Each demonstration is one segment, so that
dropping it drops that segment; under suffix loss (`metaicl`) it is two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from taskmill.templates.composing.rendered import Drop as Drop
from taskmill.templates.composing.rendered import Rendered as Rendered
from taskmill.templates.composing.rendered import Wording as Wording
from taskmill.templates.composing.segments import END, Segment
from taskmill.templates.composing.segments import describe_segments as describe_segments
from taskmill.templates.composing.segments import encode as encode
from taskmill.templates.composing.tulu import compose_tulu

DELIMITERS = (
    "\nAnswer:",
    " Answer:",
    "\nA:",
    " A:",
    "\nOutput:",
    " Output:",
    "\nanswer:",
    "\noutput:",
)
"""OPT-IML footnote 5; the last is printed with the newline's `n` missing."""

TASK_LEVEL = ("task", "reasoning")
"""Styles whose instruction stands before the demonstrations; in the others each demonstration repeats it."""
DOCUMENTS = ("document", "dialogue")
"""Styles without instructions: all text carries loss, whatever the format."""
SEPARATOR = "\n\n"
"""Stands behind each demonstration, and behind the instruction of the task level."""


def compose(
    style: str,
    rendered: Rendered,
    demonstrations: Sequence[Rendered],
    wording: Wording,
    *,
    encoding: Literal["opt-iml", "tulu"] = "opt-iml",
    explanations: bool = False,
    separator: str = SEPARATOR,
    suffix_loss: bool = False,
) -> list[Segment]:
    """Lay out the segments of a prompt of `style`; Tk-Instruct's encoding has `tk_instruct.compose_tk_instruct`.

    Args:
        style: of the task: task, instance, keywords, reasoning, document or dialogue.
        rendered: the example that is asked; of a document or dialogue its target is the text.
        demonstrations: examples shown with their outputs, in the order in which they appear.
        wording: the delimiter, lead word and input prefix; TÜLU's encoding has its own.
        encoding: OPT-IML's two-part schema, or TÜLU's.
        explanations: whether a demonstration is followed by its explanation, where it has one (task level).
        separator: stands behind each demonstration (MetaICL: three newlines).
        suffix_loss: whether all text from the first demonstration's output on carries loss (MetaICL).
    """
    if style in DOCUMENTS:
        return [Segment(rendered.target, "document", True), END]
    task_level = style in TASK_LEVEL
    if encoding == "tulu":
        return compose_tulu(task_level, rendered, demonstrations)
    instruction, asked = _instructions(rendered, wording, task_level, bool(demonstrations))
    shown: list[Segment] = []
    if demonstrations:
        labelled = any(d.example_kind == "negative" for d in demonstrations)
        for demonstration in demonstrations:
            question = _question(demonstration, wording, task_level, labelled)
            answer = _answer(demonstration, explanations and task_level) + separator
            shown += _shown(question, answer, suffix_loss, first=not shown)
    trained = suffix_loss and bool(demonstrations)
    segments = (
        [Segment(instruction, "instruction"), *shown]
        if task_level
        else [*shown, Segment(instruction, "instruction", trained)]
    )
    segments.append(Segment(asked, "input", trained))
    segments.append(Segment(" " + rendered.target.strip(), "output", True))
    segments.append(END)
    return [segment for segment in segments if segment.text]


def closed(text: str, delimiter: str) -> str:
    """Return the text right-stripped and ending in a colon or, where it does not, in the delimiter."""
    text = text.rstrip()
    return text if text.endswith(":") else text + delimiter


def closed_input(source: str, wording: Wording) -> str:
    """Return the input with its prefix, right-stripped, ending in a colon or in the delimiter."""
    return closed(wording.prefix + source, wording.delimiter)


def dialogue_text(fields: Mapping[str, Any]) -> str:
    """Return a dialogue as one text: what stands before it, if anything, and its turns, joined by newlines (OPT-IML A.1).

    Args:
        fields: of an example of style dialogue: `turns`, a list of objects {role: text}, and perhaps `context`.
    """
    texts = [text.strip() for turn in fields["turns"] for text in turn.values()]
    context = fields.get("context") or []
    before = [context] if isinstance(context, str) else context
    return "\n".join(text for text in [*map(str.strip, before), *texts] if text)


def reasoned(rationale: str, answer: str) -> str:
    """Return the target of a reasoning task: the rationale, then the sentence that states the answer."""
    rationale, answer = rationale.strip(), answer.strip().removesuffix(".")
    return f"{rationale} The answer is {answer}.".lstrip()


def _instructions(rendered: Rendered, wording: Wording, task_level: bool, has_shown: bool) -> tuple[str, str]:
    """Return the instruction and the input of the example that is asked, together ending in a colon."""
    if rendered.source.strip():
        return _instruction(rendered, wording, task_level), closed_input(rendered.source, wording)
    text = rendered.instruction.strip()
    if text and not (task_level and has_shown):
        return "", closed(wording.lead + text, wording.delimiter)
    return _instruction(rendered, wording, task_level), wording.delimiter.lstrip()


def _instruction(rendered: Rendered, wording: Wording, task_level: bool) -> str:
    text = rendered.instruction.strip()
    return wording.lead + text + (SEPARATOR if task_level else "\n") if text else ""


def _question(shown: Rendered, wording: Wording, task_level: bool, labelled: bool) -> str:
    """Return a demonstration up to its output; `labelled` says whether it is an example to follow."""
    if not task_level:
        return "".join(_instructions(shown, wording, False, False))
    head = (
        ("Negative example\n" if shown.example_kind == "negative" else "Positive example\n")
        if labelled
        else ""
    )
    return head + closed_input(shown.source, wording)


def _answer(shown: Rendered, explained: bool) -> str:
    explanation = shown.explanation.strip() if explained else ""
    return f" {shown.target.strip()}" + (f"\nExplanation: {explanation}" if explanation else "")


def _shown(question: str, answer: str, suffix_loss: bool, first: bool) -> list[Segment]:
    """Return a demonstration as one segment; under suffix loss as two, so that a fitted prompt can tell where it answers."""
    if not suffix_loss:
        return [Segment(question + answer, "demonstration")]
    return [Segment(question, "demonstration", not first), Segment(answer, "demonstration", True)]
