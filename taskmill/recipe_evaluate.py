"""The section `evaluate` of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_FUNCTION = re.compile(r".+\.py:[^\W\d]\w*")


@dataclass(frozen=True)
class Sampling:
    """How answers are generated."""

    num_samples: int = 1
    """Answers per prompt."""
    temperature: float = 0.0
    """0 takes the likeliest token each time (greedy); above it tokens are drawn, the same ones for every batch size."""
    top_p: float = 1.0
    """Tokens are drawn from the fewest that together have this probability."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server that answers instead of the trained model; it generates, options are not ranked.

    Prompts are fitted to the context by the run's tokenizer. No model is loaded, and the stage train need not be finished;
    in predictions and scores the model is called `endpoint`.
    """

    url: str
    """Where its interface begins, such as http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    api: Literal["completions", "chat"] = "completions"
    """completions sends the prompt as it was trained on; chat sends it as one message of a user."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, if it needs one."""
    num_requests: int = 8
    """Requests under way at once."""
    timeout_seconds: float = 300.0
    """Longest time for one answer; it is asked for again a few times."""


@dataclass(frozen=True)
class TaskScoring:
    """How the answers to some tasks are found and valued; what is not given stays as the section or the task says."""

    tasks: tuple[str, ...]
    """Selectors of tasks, as in the plan; the first entry that fits a task counts for it."""
    metric: str | None = None
    """A metric, or FILE.py:FUNCTION of one's own, relative to the recipe; by default accuracy of the choice where the
    answer is among the options, else the task's own."""
    normaliser: Literal["exact", "plain", "squad", "number"] | None = None
    """What exact match and token F1 make of both sides first; by default plain, for token F1 squad."""
    extract: Literal["whole", "first_line", "after_answer", "last_number", "letter", "code"] | None = None
    """Which part of a generated text is the answer; by default after_answer for reasoning tasks, code for pass_at_k, else
    whole."""
    options: Literal["rank", "generate"] | None = None
    """Whether prompts with options are ranked, as they are by default, or answers generated; a generated answer that
    equals an option, after the normaliser, is that choice."""
    stop: tuple[str, ...] | None = None
    """Strings that end a generated answer, themselves left out."""
    max_new_tokens: int | None = None
    """Most tokens generated for an answer."""
    shots: tuple[int, ...] | None = None
    """Numbers of demonstrations, among those of the section."""


@dataclass(frozen=True)
class Code:
    """How programs that a model wrote are run, in a child process with limits."""

    run: bool = False
    """Whether they are run at all: a program of a model can do whatever the user that runs it can do."""
    seconds: float = 10.0
    """Longest processor time of one program; by the clock it has twice that and ten seconds."""
    memory_mb: int = 1024
    """Most memory of one program."""


@dataclass(frozen=True)
class Evaluate:
    """How the three levels are scored (OPT-IML section 4.1)."""

    split: Literal["test", "validation"] = "test"
    """Which examples are asked: those to report, in every prompt variant, or those set aside to choose models by, in the
    `render.validation_prompts` that were drawn of them."""
    shots: tuple[int, ...] = (0,)
    """Numbers of demonstrations; none above `render.num_demonstrations`."""
    zero_shot_only: tuple[str, ...] = ("category=Summarization",)
    """Selectors of tasks that are asked without demonstrations only (OPT-IML section 4.1); an entry's shots come first."""
    normalisation: Literal["none", "token", "byte", "unconditional"] = "none"
    """What the log-probability of an option is divided by when options are ranked: nothing, its tokens, or its bytes;
    unconditional subtracts its log-probability without the prompt."""
    max_new_tokens: int = 256
    """Most tokens generated for an answer."""
    stop: tuple[str, ...] = ()
    """Strings that end a generated answer, themselves left out."""
    sampling: Sampling = Sampling()
    pass_k: int = 1
    """The k of pass_at_k; at most `sampling.num_samples`."""
    tasks: tuple[TaskScoring, ...] = ()
    """Tasks that are scored in their own way."""
    code: Code = Code()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What models compute in, whatever they were trained in; logits are fp32 in each. 16 bits take half the memory and
    are faster on a GPU, and choose otherwise now and then. A base in 4 bits stays so."""
    endpoint: Endpoint | None = None
    """A server that answers, instead of the trained model and the untrained one."""
    batch_size: int = 32
    """Prompts scored together; never changes a score, and is in no fingerprint."""
    baseline: bool = True
    """Whether the model as it was before training is scored beside the trained one."""
    checkpoints: bool = False
    """Whether the checkpoints that training kept are scored too, for learning curves (`train.keep_checkpoints`)."""
    max_examples: int | None = None
    """Most examples scored per task; by default all that were rendered."""
    num_resamples: int = 1000
    """Bootstrap resamples of groups behind each 95 % interval."""


def runs_code(metric: str) -> bool:
    """Return whether valuing runs a model's program or a function of one's own; both read the example's fields."""
    return metric == "pass_at_k" or is_function(metric)


def is_function(metric: str) -> bool:
    """Return whether the name of a metric is FILE.py:FUNCTION."""
    return _FUNCTION.fullmatch(metric) is not None
