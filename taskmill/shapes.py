"""Shapes: how the fields of a task without templates of its own are called, so that shared templates can show them.

A keywords task (CrossFit, ExMix, T5, UnifiedSKG) has one instruction; its shape says which fields its examples have, and the
template library has two templates or more for each. Casts and taxonomies name shapes, templates read their fields. Reads and
writes nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """The fields of an example, all of them texts."""

    needs: tuple[str, ...]
    meaning: str
    """What is given and what is asked for, in one line."""
    may: tuple[str, ...] = ()
    """Fields that an example need not have; a template sees null."""

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that an example may have, beside those of its answer."""
        return self.needs + self.may


SHAPES: dict[str, Shape] = {
    # one text or two
    "text": Shape(("text",), "a text to be classified or worked on as the instruction says"),
    "pair": Shape(("text_a", "text_b"), "two texts to be compared"),
    "entailment": Shape(("premise", "hypothesis"), "whether one text follows from another"),
    "verification": Shape(
        ("statement",), "whether a statement is true, by the evidence if there is any", ("evidence",)
    ),
    "word_in_context": Shape(("word", "text_a", "text_b"), "a word in two sentences: one sense or two"),
    "coreference": Shape(
        ("text", "mention"), "what a pronoun or phrase of the text stands for", ("candidate",)
    ),
    "labelling": Shape(("text",), "the parts of a text and their labels", ("labels",)),
    # questions
    "question": Shape(("question",), "a question, about a text if there is one", ("context",)),
    "choice": Shape(("question",), "a question that one of the options answers", ("context",)),
    "span": Shape(("question", "context"), "a question that words of the text answer"),
    "answer": Shape(("question", "answer"), "whether an answer to a question is right", ("context",)),
    "cloze": Shape(("text",), "a text with a gap to be filled", ("context",)),
    "completion": Shape(
        ("text",), "the beginning of a text; one of the options goes on with it", ("context",)
    ),
    "cause_effect": Shape(
        ("premise", "relation"), "what an event causes or is caused by, as `relation` says"
    ),
    # text to text
    "summary": Shape(("document",), "a longer text to be made short", ("title",)),
    "rewriting": Shape(("text",), "a text to be written anew with a change", ("change",)),
    "translation": Shape(
        ("text", "source_language", "target_language"), "a text to be put into another language"
    ),
    "generation": Shape(("facts",), "words or facts to be put into a text"),
    # talk and commands
    "dialogue": Shape(("dialogue",), "the turns of a talk, and what is asked about them", ("context",)),
    "utterance": Shape(
        ("utterance",), "what a user says to a system: an intent or a tree of intents", ("slots",)
    ),
    "code": Shape(("request",), "a request to be written as code or a formal language", ("context",)),
    # structures, written out as text
    "structured": Shape(("struct",), "any other structure, and what is asked about it", ("text",)),
    "table_question": Shape(("text", "struct"), "a question that a table answers"),
    "table_fact": Shape(("text", "struct"), "whether a table supports a statement"),
    "table_text": Shape(("struct",), "a table, or some of its cells, to be put into words", ("text",)),
    "triples": Shape(("struct",), "triples of a graph, to be put into words or asked about", ("text",)),
    "schema_query": Shape(
        ("text", "struct"), "a request to be written as a query over the database of a schema"
    ),
    "dialogue_state": Shape(("text",), "what a user has asked for so far, by slots", ("struct",)),
}
"""Shape of a keywords task -> its fields."""
