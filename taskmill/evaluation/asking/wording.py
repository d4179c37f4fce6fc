"""Test prompts as texts, for a server that has a tokenizer of its own (no torch).

The run's tokenizer fits them to the run's context, as it does for its own model: demonstrations are dropped, then text is
cut. As it was trained on, a prompt keeps the marks of its chat format, but for the begin of sequence, which servers put
there themselves; as one message of a user it is what people would read, without marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskmill.evaluation.asking.fitting import CONTROL, Context, Question, Segment, fit_questions
from taskmill.training.encoding.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Wording:
    """A prompt as a server is sent it."""

    text: str
    max_new_tokens: int
    num_demonstrations: int
    stop: tuple[str, ...]
    """The mark that ends the answer's turn, where it is not the end of sequence."""


def fit_texts(
    context: Context, questions: Sequence[Question], max_new_tokens: int, plain: bool
) -> list[Wording]:
    """Return the texts of questions fitted to the context; `plain` leaves out the marks of a chat format."""
    wordings = []
    for question, opening in fit_questions(context, questions, max_new_tokens):
        if opening.cut:
            text = context.tokenizer.backend.decode(opening.ids.tolist(), skip_special_tokens=plain)
            bos_id = context.tokenizer.bos_id
            if bos_id is not None and not plain:
                text = text.removeprefix(context.tokenizer.backend.id_to_token(bos_id))
        else:
            text = _plain(question.prefix) if plain else _marked(context.tokenizer, question.prefix)
        ends_otherwise = not plain and question.end not in ("{eos}", "{bos}")
        stop = (question.end,) if ends_otherwise else ()
        wordings.append(Wording(text, opening.max_new_tokens, question.num_demonstrations, stop))
    return wordings


def _marked(tokenizer: TextTokenizer, segments: Sequence[Segment]) -> str:
    """Return the text with its marks; symbols become the tokenizer's own text for them."""
    pieces = []
    for place, segment in enumerate(segments):
        text = segment.text
        if segment.kind == CONTROL and text in ("{bos}", "{eos}"):
            number = tokenizer.symbol(text)
            text = (
                ""
                if number is None or (place == 0 and text == "{bos}")
                else tokenizer.backend.id_to_token(number)
            )
        pieces.append(text)
    return "".join(pieces)


def _plain(segments: Sequence[Segment]) -> str:
    """Return the text without its marks; where one stood between two lines, they stay two."""
    text = ""
    for segment in segments:
        if segment.kind != CONTROL:
            text += segment.text
        elif text and not text.endswith("\n"):
            text += "\n"
    return text.strip()
