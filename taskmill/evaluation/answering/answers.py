"""What a model answers to a chunk of prompts: options ranked, texts generated here or by a server.

Reads nothing and writes nothing; OUTPUTS are the columns of what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from taskmill import seeding
from taskmill.evaluation.asking import fitting
from taskmill.evaluation.asking.prompts import Row, is_ranked, question_of
from taskmill.evaluation.asking.rules import Rule
from taskmill.evaluation.asking.wording import fit_texts
from taskmill.plain import to_json
from taskmill.recipe_evaluate import Evaluate

if TYPE_CHECKING:
    from taskmill.evaluation.answering.scorer import Scorer

OUTPUTS = pa.schema(
    [
        pa.field("prompt", pa.binary(8), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("samples", pa.list_(pa.string())),
        pa.field("scores", pa.list_(pa.float64())),
        pa.field("num_demonstrations", pa.int64(), nullable=False),
    ]
)
"""Columns of answers: the chosen option or the first generated text; all generated ones where there are several; what
ranking compared of each option, in nats; and the demonstrations that the model was shown: fewer than the shots where there
were not as many or the context was full."""


@dataclass(frozen=True)
class Asker:
    """A model ready to be asked, or a server, and what prompts are fitted to."""

    context: fitting.Context
    evaluate: Evaluate
    seed: int
    scorer: Scorer | None
    """None where `evaluate.endpoint` answers."""


def how(evaluate: Evaluate, rule: Rule, num_ranked: int, num_generated: int) -> dict[str, Any]:
    """Return the settings that the answers to a chunk depend on, as JSON values."""
    found: dict[str, Any] = {}
    if num_ranked:
        found["normalisation"] = evaluate.normalisation
    if num_generated:
        sampling = to_json(evaluate.sampling)
        if evaluate.sampling.temperature == 0:
            sampling.pop("top_p")
        found |= {"sampling": sampling, "max_new_tokens": rule.max_new_tokens, "stop": list(rule.stop)}
    return found


def answer(asker: Asker, rule: Rule, rows: Sequence[Row], shots: int) -> list[dict[str, Any]]:
    """Return a row of OUTPUTS for each prompt, in order.

    Raises:
        DataError: a prompt without an answer.
        TaskmillError: whatever a server reports.
    """
    ranked = [i for i, row in enumerate(rows) if is_ranked(rule, row)]
    generated = sorted(set(range(len(rows))) - set(ranked))
    found = _rank(asker, [rows[i] for i in ranked], shots) if ranked else []
    found += _generate(asker, rule, [rows[i] for i in generated], shots) if generated else []
    return [item for _, item in sorted(zip(ranked + generated, found), key=lambda pair: pair[0])]


def _rank(asker: Asker, rows: Sequence[Row], shots: int) -> list[dict[str, Any]]:
    from taskmill.evaluation.answering import ranking as ranks

    assert asker.scorer is not None, "a server ranks nothing"
    options = [row["options"] for row in rows]
    questions = [question_of(row, shots) for row in rows]
    rankings = fitting.fit_rankings(asker.context, questions, options)
    kind = asker.evaluate.normalisation
    alone = _unconditional(asker, questions, options) if kind == "unconditional" else [None] * len(rows)
    found = []
    for row, ranking, scores, without in zip(rows, rankings, ranks.rank(asker.scorer, rankings), alone):
        compared = ranks.normalised(kind, scores, ranking, row["options"], without)
        found.append(
            _output(row, [row["options"][ranks.best(compared)]], compared, ranking.num_demonstrations)
        )
    return found


def _unconditional(
    asker: Asker, questions: Sequence[fitting.Question], options: Sequence[Sequence[str]]
) -> list[list[float] | None]:
    """Return the log-probabilities of options without their prompt; computed once for equal ones."""
    from taskmill.evaluation.answering.ranking import rank

    assert asker.scorer is not None, "a server ranks nothing"
    keys = [(question.lead, question.joint, tuple(own)) for question, own in zip(questions, options)]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    places = sorted(first.values())
    rankings = fitting.fit_unconditional(
        asker.context, [questions[i] for i in places], [options[i] for i in places]
    )
    scores = dict(zip(places, rank(asker.scorer, rankings)))
    return [scores[first[key]] for key in keys]


def _generate(asker: Asker, rule: Rule, rows: Sequence[Row], shots: int) -> list[dict[str, Any]]:
    questions = [question_of(row, shots) for row in rows]
    keys = [seeding.derive(asker.seed, "sample", row["prompt"].hex()) for row in rows]
    if asker.scorer is None:
        shown, texts = _from_server(asker, rule, questions, keys)
    else:
        from taskmill.evaluation.answering.generating import generate

        openings = [
            replace(opening, stop=rule.stop, key=key)
            for opening, key in zip(
                fitting.fit_openings(asker.context, questions, rule.max_new_tokens), keys, strict=True
            )
        ]
        shown = [opening.num_demonstrations for opening in openings]
        texts = generate(asker.scorer, asker.context.tokenizer, openings, asker.evaluate.sampling)
    return [_output(row, samples, None, number) for row, samples, number in zip(rows, texts, shown)]


def _from_server(
    asker: Asker, rule: Rule, questions: Sequence[fitting.Question], keys: Sequence[int]
) -> tuple[list[int], list[list[str]]]:
    """Return the demonstrations shown and the texts of each question."""
    from taskmill.evaluation.answering.endpoint import Request
    from taskmill.evaluation.answering.endpoint import answer as ask

    endpoint = asker.evaluate.endpoint
    assert endpoint is not None, "there is a model or a server"
    wordings = fit_texts(asker.context, questions, rule.max_new_tokens, endpoint.api == "chat")
    requests = [
        Request(wording.text, wording.max_new_tokens, (*rule.stop, *wording.stop), key)
        for wording, key in zip(wordings, keys, strict=True)
    ]
    return [w.num_demonstrations for w in wordings], ask(endpoint, requests, asker.evaluate.sampling)


def _output(
    row: Row, samples: list[str], scores: list[float] | None, num_demonstrations: int
) -> dict[str, Any]:
    """Return a row of OUTPUTS."""
    return {
        "prompt": row["prompt"],
        "prediction": samples[0],
        "samples": samples if len(samples) > 1 else None,
        "scores": scores,
        "num_demonstrations": num_demonstrations,
    }
