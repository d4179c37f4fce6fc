"""What the values of a recipe must be beyond their types: ranges, sums, names that exist.

Works on the values as written, whatever else is wrong with them, so that all problems can be reported at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskmill.errors import did_you_mean, shorten
from taskmill.recipe import Recipe, known_formats, known_layouts, known_readers
from taskmill.recipe_evaluate import is_function
from taskmill.records import METRICS

Location = tuple[str | int, ...]
Problem = tuple[Location, str]
_ANY = float("inf")
PINNED = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)@(?P<commit>[0-9a-f]{40})", re.ASCII)
"""A data set repository of the Hub at one commit."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("limit", 1, _ANY),
    ("curate.max_examples", 1, _ANY),
    ("curate.max_examples_by_benchmark.*", 1, _ANY),
    ("plan.carve_share", 0.001, 0.9),
    ("plan.num_demonstration_groups", 0, _ANY),
    ("plan.held_out.num_categories", 0, _ANY),
    ("plan.partial_categories.num_tasks", 1, _ANY),
    ("plan.validation.max_examples", 1, _ANY),
    ("plan.train.num_tasks", 1, _ANY),
    ("plan.train.num_categories", 1, _ANY),
    ("overlap.n", 1, 64),
    ("overlap.frequent_groups", 1, _ANY),
    ("overlap.num_evidence", 0, 1000),
    ("overlap.near_duplicates.threshold", 0.1, 0.99),
    ("overlap.near_duplicates.num_perm", 2, 1024),
    ("overlap.near_duplicates.seed", 0, 2**32 - 1),
    ("split.threshold", 0, 1),
    ("split.rules.*.when.hit_fraction_over", 0, 1),
    ("split.rules.*.when.hit_fraction_rare_over", 0, 1),
    ("split.rules.*.when.hit_fraction_rare_at_most", 0, 1),
    ("split.rules.*.when.hit_input_over", 0, 1),
    ("split.rules.*.when.hit_output_over", 0, 1),
    ("split.rules.*.when.num_hit_at_most", 0, _ANY),
    ("split.rules.*.when.touched_fraction_over", 0, 1),
    ("split.rules.*.when.same_output_fraction_over", 0, 1),
    ("split.rules.*.when.same_output_fraction_at_most", 0, 1),
    ("render.prompts_per_task", 1, _ANY),
    ("render.validation_prompts", 0, _ANY),
    ("render.test_examples", 1, _ANY),
    ("render.num_demonstrations", 0, 64),
    ("render.train_demonstrations", 0, 64),
    ("render.negative_demonstrations", 0, 64),
    ("render.metaicl.exponent", 0, 100),
    ("render.metaicl.max_demonstrations", 1, 64),
    ("render.tk_instruct.positive_examples", 0, 64),
    ("render.tk_instruct.negative_examples", 0, 64),
    ("render.max_characters", 100, _ANY),
    ("render.time_limit_seconds", 1, _ANY),
    ("render.memory_limit_mb", 200, _ANY),
    ("mix.cap", 1, _ANY),
    ("mix.shares.*", 0, 1),
    ("mix.auxiliary.*.share", 0, 1),
    ("mix.num_prompts", 1, _ANY),
    ("mix.block", 10, 1_000_000),
    ("mix.sizes.*", 1, _ANY),
    ("mix.keep.*", 0, 1),
    ("mix.epochs", 1, _ANY),
    ("tokenize.vocab_size", 300, 1_000_000),
    ("tokenize.max_length", 8, 1_000_000),
    ("train.architecture.*", 1, 1_000_000),
    ("train.lora.rank", 1, 4096),
    ("train.lora.alpha", 1, _ANY),
    ("train.lora.dropout", 0, 1),
    ("train.num_steps", 1, _ANY),
    ("train.batch_size", 1, _ANY),
    ("train.micro_batch_size", 1, _ANY),
    ("train.packing_window", 1, _ANY),
    ("train.learning_rate", 0, 10),
    ("train.warmup_steps", 0, _ANY),
    ("train.warmup_share", 0, 1),
    ("train.epsilon", 0, 1),
    ("train.batch_tokens", 1, _ANY),
    ("train.validation_steps", 1, _ANY),
    ("train.weight_decay", 0, 10),
    ("train.betas.*", 0, 1),
    ("train.max_gradient_norm", 0, _ANY),
    ("train.dropout", 0, 1),
    ("train.checkpoint_steps", 1, _ANY),
    ("train.keep_checkpoints", 1, _ANY),
    ("evaluate.shots.*", 0, 64),
    ("evaluate.max_new_tokens", 1, _ANY),
    ("evaluate.batch_size", 1, _ANY),
    ("evaluate.max_examples", 1, _ANY),
    ("evaluate.num_resamples", 0, 1_000_000),
    ("evaluate.pass_k", 1, 10_000),
    ("evaluate.sampling.num_samples", 1, 10_000),
    ("evaluate.sampling.temperature", 0, 100),
    ("evaluate.sampling.top_p", 0.001, 1),
    ("evaluate.code.seconds", 0.1, 3600),
    ("evaluate.code.memory_mb", 64, _ANY),
    ("evaluate.endpoint.num_requests", 1, 1024),
    ("evaluate.endpoint.timeout_seconds", 1, _ANY),
    ("evaluate.tasks.*.max_new_tokens", 1, _ANY),
    ("evaluate.tasks.*.shots.*", 0, 64),
)


def find_problems(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield (location, what was found and what was expected) for every value that cannot be meant."""
    yield from _names(raw)
    yield from _sources(raw)
    for pattern, low, high in _RANGES:
        for where, value in _matches(raw, tuple(pattern.split(".")), ()):
            if is_number(value) and not low <= value <= high:
                limit = f"from {low:g} to {high:g}" if high != _ANY else f"of at least {low:g}"
                yield where, f"found {shorten(value)}; expected a number {limit}"
    yield from _shares(raw)
    yield from _combinations(raw)


def find_missing(raw: dict[str, Any], base: Path) -> Iterator[Problem]:
    """Yield (location, problem) for a layout, chat format or templates that are neither shipped nor there, relative to `base`."""
    for where, what, known in (
        (("plan", "layout"), "layout", known_layouts()),
        (("render", "format"), "chat format", known_formats()),
        (("render", "templates", "*"), "file or folder of templates", []),
    ):
        for place, name in _matches(raw, where, ()):
            if isinstance(name, str) and name not in known and not (base / name).exists():
                shipped = ", shipped or" if known else ""
                hint = did_you_mean(name, known) or (f"; shipped are {', '.join(known)}" if known else "")
                yield place, f"no {what} {shorten(name)}{shipped} as a path relative to the recipe{hint}"
    for place, name in _matches(raw, ("evaluate", "tasks", "*", "metric"), ()):
        if (
            isinstance(name, str)
            and is_function(name)
            and not (file := base / name.rpartition(":")[0]).is_file()
        ):
            yield place, f"found {shorten(name)}; there is no file {file}, which is relative to the recipe"


def _names(raw: dict[str, Any]) -> Iterator[Problem]:
    name = raw.get("name")
    if isinstance(name, str) and (not name.strip() or name.startswith(".") or set(name) & set("/\\\0")):
        yield ("name",), f"found {shorten(name)}; expected a name that can be a folder's"
    if raw.get("sources") == []:
        yield ("sources",), "empty; expected at least one source"
    readers = known_readers()
    for where, reader in _matches(raw, ("sources", "*", "reader"), ()):
        if isinstance(reader, str) and reader not in readers:
            hint = did_you_mean(reader, readers) or f"; expected one of {', '.join(readers)}"
            yield where, f"no reader {shorten(reader)}{hint}"
    seen: set[str] = set()
    for where, rule in _matches(raw, ("split", "rules", "*", "name"), ()):
        if isinstance(rule, str) and rule in seen:
            yield where, f"a second rule {shorten(rule)}; expected a name of its own"
        seen.add(str(rule))


def _sources(raw: dict[str, Any]) -> Iterator[Problem]:
    for where, source in _matches(raw, ("sources", "*"), ()):
        if not isinstance(source, dict):
            continue
        if isinstance(source.get("hub"), str):
            yield from _hub(where, source)
        if (
            source.get("revision") is not None
            and source.get("repository") is None
            and source.get("hub") is None
        ):
            yield (
                (*where, "revision"),
                "given without `repository`; expected both, or `hub: owner/name@COMMIT`",
            )
        for key in ("repository", "revision"):
            if isinstance(source.get(key), str) and not source[key].strip():
                yield (*where, key), "empty; expected text, or no such key"


def _hub(where: Location, source: dict[str, Any]) -> Iterator[Problem]:
    hub, path = source["hub"], source.get("path", ".")
    if not PINNED.fullmatch(hub):
        name, _, revision = hub.partition("@")
        commits = f"https://huggingface.co/datasets/{name}/commits/{revision or 'main'}"
        yield (
            (*where, "hub"),
            f"found {shorten(hub)}; expected owner/name@COMMIT with the 40 hex digits of a commit, for a name of a branch "
            f"means other files tomorrow: {commits} shows them",
        )
    for key in ("repository", "revision"):
        if source.get(key) is not None:
            yield (*where, key), "given beside `hub`, which says it already; expected one of them"
    if isinstance(path, str) and (path.startswith("/") or ".." in path.split("/")):
        yield (*where, "path"), f"found {shorten(path)}; expected a path from the top of the repository"


def _shares(raw: dict[str, Any]) -> Iterator[Problem]:
    shares = {w[-1]: v for w, v in _matches(raw, ("mix", "shares", "*"), ())}
    numbers = [v for v in shares.values() if is_number(v)]
    if numbers and len(numbers) == len(shares) and abs(sum(numbers) - 1) > 1e-6:
        yield ("mix", "shares"), f"they sum to {sum(numbers):g}; expected 1"
    parts = [v for _, v in _matches(raw, ("mix", "auxiliary", "*", "share"), ()) if is_number(v)]
    if sum(parts) >= 1:
        yield ("mix", "auxiliary"), f"they sum to {sum(parts):g}; expected under 1, for the benchmarks' sake"
    for where, payer in _matches(raw, ("mix", "auxiliary", "*", "paid_by"), ()):
        if shares and isinstance(payer, str) and payer not in shares:
            names = [str(name) for name in shares]
            hint = did_you_mean(payer, names) or f"; expected one of {', '.join(names)}"
            yield where, f"no share for {shorten(payer)}{hint}"


def _combinations(raw: dict[str, Any]) -> Iterator[Problem]:
    most = _value(raw, "render.num_demonstrations")
    if _value(raw, "render.metaicl.suffix_loss") is True:
        for key, needed in (("format", "plain"), ("encoding", "opt-iml")):
            given = _value(raw, f"render.{key}")
            if given != needed:
                text = f"given with render.{key} = {shorten(given)}; expected {needed}, or no suffix loss"
                yield ("render", "metaicl", "suffix_loss"), text
    negative = _value(raw, "render.negative_demonstrations")
    if is_number(negative) and negative > 0:
        yield from _unfit_for_negative_examples(raw)
    yield from _mixing(raw)
    for where, shots in _matches(raw, ("evaluate", "shots", "*"), ()):
        if is_number(shots) and is_number(most) and shots > most:
            yield where, f"found {shorten(shots)}; expected at most render.num_demonstrations = {most}"
    yield from _evaluating(raw)
    yield from _answering(raw)
    yield from _unfit_for_quantization(raw)
    for section, key in (("overlap", "tokenizer"), ("tokenize", "tokenizer"), ("train", "model")):
        if _value(raw, f"{section}.revision") and not _value(raw, f"{section}.{key}"):
            yield (section, "revision"), f"given without {section}.{key}; expected both or neither"
    size, heads = (_value(raw, f"train.architecture.{key}") for key in ("hidden_size", "num_heads"))
    if is_number(size) and is_number(heads) and heads >= 1 and size % (2 * heads):
        where = ("train", "architecture", "hidden_size")
        yield where, f"found {size}; expected an even number for each of num_heads = {heads} heads"
    budget, longest = _value(raw, "train.batch_tokens"), _value(raw, "tokenize.max_length")
    if is_number(budget) and is_number(longest) and budget < longest:
        text = (
            f"found {budget}; expected at least tokenize.max_length = {longest}, which one document may have"
        )
        yield ("train", "batch_tokens"), text


def _evaluating(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield what of the section evaluate asks for no task, names no metric, or contradicts the section."""
    shots = _value(raw, "evaluate.shots")
    if shots == []:
        yield ("evaluate", "shots"), "empty; expected at least one number of demonstrations"
    for where, own in _matches(raw, ("evaluate", "tasks", "*", "shots"), ()):
        if own == []:
            yield where, "empty; expected at least one number of demonstrations"
        for number in own if isinstance(own, list) and isinstance(shots, (list, tuple)) else ():
            if number not in shots:
                expected = ", ".join(map(str, shots))
                yield where, f"found {shorten(number)}; expected numbers of evaluate.shots: {expected}"
    for where, metric in _matches(raw, ("evaluate", "tasks", "*", "metric"), ()):
        if isinstance(metric, str) and metric not in METRICS and not is_function(metric):
            known = f"{', '.join(METRICS)} or FILE.py:FUNCTION"
            yield where, f"no metric {shorten(metric)}; expected {known}{did_you_mean(metric, METRICS)}"
    for where, selectors in _matches(raw, ("evaluate", "tasks", "*", "tasks"), ()):
        if selectors == []:
            yield where, "empty; expected at least one selector"
    if _value(raw, "evaluate.split") == "validation" and _value(raw, "render.validation_prompts") == 0:
        text = "found 'validation' with render.validation_prompts = 0, which renders none; expected more, or test"
        yield ("evaluate", "split"), text


def _answering(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield numbers of answers that contradict each other, and servers that cannot be asked."""
    samples, temperature, k = (
        _value(raw, f"evaluate.{key}") for key in ("sampling.num_samples", "sampling.temperature", "pass_k")
    )
    if is_number(samples) and samples > 1 and temperature == 0:
        text = (
            f"found {samples} with evaluate.sampling.temperature = 0, under which all answers are one; "
            f"expected 1, or a temperature above 0"
        )
        yield ("evaluate", "sampling", "num_samples"), text
    if is_number(samples) and is_number(k) and k > samples:
        yield (
            ("evaluate", "pass_k"),
            f"found {k}; expected at most evaluate.sampling.num_samples = {samples}",
        )
    for pattern in (("evaluate", "stop", "*"), ("evaluate", "tasks", "*", "stop", "*")):
        for where, stop in _matches(raw, pattern, ()):
            if stop == "":
                yield where, "empty text, which stops nothing; expected text, or no such entry"
    for where, url in _matches(raw, ("evaluate", "endpoint", "url"), ()):
        if isinstance(url, str) and not _URL.fullmatch(url):
            found = "found an address with a login" if "@" in url else f"found {shorten(url)}"
            yield where, f"{found}; expected an address such as http://localhost:8000/v1"
    for where, name in _matches(raw, ("evaluate", "endpoint", "api_key_variable"), ()):
        if isinstance(name, str) and not _VARIABLE.fullmatch(
            name
        ):  # it may be the key itself, so it is not shown
            yield where, "found what is no name of a variable; expected the name of one that holds the key"
    if _value(raw, "evaluate.endpoint.model") == "":
        yield ("evaluate", "endpoint", "model"), "empty text; expected the model's name at the server"
    if _value(raw, "evaluate.endpoint") and _value(raw, "evaluate.checkpoints") is True:
        text = "given with evaluate.endpoint, which has no checkpoints; expected one of them"
        yield ("evaluate", "checkpoints"), text


def _mixing(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield settings of the other mode of the mixture, and parts that are told two things."""
    mode = _value(raw, "mix.mode")
    if not isinstance(raw.get("mix", {}), dict) or mode not in ("shares", "concatenation"):
        return
    other = ("shares", "auxiliary") if mode == "concatenation" else ("sizes", "keep", "epochs")
    for key in other:
        if _value(raw, f"mix.{key}") not in (None, {}, 1):
            expected = "shares" if mode == "concatenation" else "concatenation"
            yield ("mix", key), f"given with mix.mode = {mode}; expected mix.mode: {expected}, or no such key"
    sizes, keep = _value(raw, "mix.sizes"), _value(raw, "mix.keep")
    for name in sizes if isinstance(sizes, dict) and isinstance(keep, dict) else ():
        if name in keep:
            yield ("mix", "keep", name), "given beside mix.sizes of the same part; expected one of them"


def _unfit_for_quantization(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield what `train.quantization` does not go with: it holds the weights of a named base that are not trained."""
    if _value(raw, "train.quantization") != "4bit":
        return
    where = ("train", "quantization")
    for key, needed in (("method", "lora"), ("weights", "pretrained")):
        given = _value(raw, f"train.{key}")
        if given != needed:
            yield where, f"given with train.{key} = {shorten(given)}; expected {needed}"
    if _value(raw, "train.model") is None:
        yield where, "given without train.model; expected a base model whose weights are held in 4 bits"


def _unfit_for_negative_examples(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield what would show negative examples as if they were right, or learn their outputs."""
    where = ("render", "negative_demonstrations")
    encoding = _value(raw, "render.encoding")
    if encoding == "tk-instruct":
        yield where, "has no effect in this encoding; expected render.tk_instruct.negative_examples instead"
    elif encoding == "tulu":
        yield (
            where,
            "given with render.encoding = 'tulu', which does not tell them from positive ones; expected 0",
        )
    if _value(raw, "render.metaicl.suffix_loss") is True:
        yield (
            where,
            "given with render.metaicl.suffix_loss, which would learn their wrong outputs; expected 0",
        )


def is_number(value: Any) -> bool:
    """Return whether a value is a number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _matches(value: Any, pattern: tuple[str, ...], where: Location) -> Iterator[tuple[Location, Any]]:
    """Yield (location, value) of everything under `value` that a pattern with `*` leads to."""
    if not pattern:
        yield where, value
        return
    part, rest = pattern[0], pattern[1:]
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if part in ("*", key)]
    elif isinstance(value, list) and part == "*":
        items = list(enumerate(value))
    for key, item in items:
        yield from _matches(item, rest, (*where, key))


def _value(raw: dict[str, Any], key: str) -> Any:
    """Return what a setting is, given or by default; None where it is given in a wrong shape."""
    value: Any = raw
    default: Any = Recipe(name="", sources=())
    for part in key.split("."):
        if dataclasses.is_dataclass(default):
            default = getattr(default, part)
        if value is None or (isinstance(value, dict) and part not in value):
            value = None
        else:
            value = value[part] if isinstance(value, dict) else False
    return default if value is None else value
