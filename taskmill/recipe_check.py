"""Check a YAML recipe: find every problem, say where it stands and what would be right.

Used by `recipe_files` alone; the only module that imports pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from taskmill.errors import RecipeError, UsageError, did_you_mean, shorten
from taskmill.plain import build, leaves, to_json
from taskmill.recipe import Recipe, Resolved
from taskmill.recipe_reference import describe
from taskmill.recipe_values import Location, find_missing, find_problems
from taskmill.safe_yaml import YamlError, compose_yaml

MAX_NODES = 20_000
MAX_DEPTH = 30
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
Place = Callable[[Location], str]


class _Document:
    """A parsed YAML text: plain values and the line of every key."""

    def __init__(self, label: str, has_lines: bool = True) -> None:
        """`label` begins every problem: a file, to which the line is added, or an override."""
        self.label, self.has_lines = label, has_lines
        self.lines, self.problems = dict[tuple[str, ...], int](), list[str]()
        self._loader: Any = None

    def parse(self, text: str) -> Any:
        """Return the plain value of a YAML text; what is wrong inside it goes to `problems`."""
        try:
            root, self._loader = compose_yaml(text, MAX_DEPTH, MAX_NODES)
        except YamlError as error:
            raise RecipeError([f"{self.at(error.line or 1)}: not valid YAML: {error.problem}"]) from error
        return None if root is None else self._value(root, ())

    def at(self, line: int) -> str:
        return f"{self.label}:{line}" if self.has_lines else self.label

    def _value(self, node: yaml.Node, where: Location) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(_texts(where), line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
            self._bad(line, where, f"the tag {shorten(node.tag)} is not allowed; expected plain values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*where, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, where)

    def _mapping(self, node: yaml.MappingNode, where: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._bad(line, where, "a key must be plain text")
                continue
            key = key_node.value
            if key in found:
                self._bad(line, (*where, key), "given twice; expected once")
            self.lines[_texts((*where, key))] = line
            found[key] = self._value(value_node, (*where, key))
        return found

    def _scalar(self, node: yaml.ScalarNode, where: Location) -> Any:
        line = node.start_mark.line + 1
        if not node.style and _EXPONENT.fullmatch(node.value):
            value: Any = float(node.value)  # YAML 1.1 takes 5e-5 for text
        else:
            try:
                value = self._loader.construct_object(node, deep=True)
            except (yaml.YAMLError, ValueError) as error:
                reason = getattr(error, "problem", None) or error
                self._bad(line, where, f"cannot read {shorten(node.value)}: {reason}")
                return None
        if isinstance(value, float) and not math.isfinite(value):
            self._bad(line, where, f"found {shorten(node.value)}; expected a finite number")
            return None
        if isinstance(value, int) and abs(value) >= 2**63:
            self._bad(line, where, "found a number of more than 64 bits; expected a smaller one")
            return None
        return value if value is None or isinstance(value, (str, int, float, bool)) else node.value

    def _bad(self, line: int, where: Location, text: str) -> None:
        self.problems.append(f"{self.at(line)}: {dotted(where)}: {text}")

    def has(self, where: Location) -> bool:
        return _texts(where) in self.lines

    def line(self, where: Location) -> int:
        texts = _texts(where)
        while texts and texts not in self.lines:
            texts = texts[:-1]
        return self.lines.get(texts, 1)


def _texts(where: Location) -> tuple[str, ...]:
    return tuple(map(str, where))


def check(text: str, path: Path, overrides: tuple[str, ...], base: Path) -> Resolved:
    """Parse, validate and resolve a recipe.

    Raises:
        RecipeError: all problems at once.
        UsageError: an override is not `key=value`.
    """
    document = _Document(str(path))
    raw = document.parse(text)
    if raw is None:
        raise RecipeError([f"{path}:1: the recipe is empty; expected at least `name` and `sources`"])
    if not isinstance(raw, dict):
        raise RecipeError([f"{path}:1: found {shorten(raw)}; expected a mapping of settings"])
    origin = {key: f"{path.name}:{document.line(tuple(key.split('.')))}" for key, _ in leaves(raw)}
    return _finish(raw, document, origin, overrides, base, text)


def override(resolved: Resolved, overrides: tuple[str, ...], path: Path) -> Resolved:
    """Apply overrides to the resolved recipe of a run.

    Raises:
        RecipeError: the result has problems.
        UsageError: an override is not `key=value`.
    """
    origin = {k: v for k, v in resolved.origin.items() if v != "default"}
    raw = to_json(resolved.recipe)
    return _finish(raw, _Document(str(path)), origin, overrides, resolved.base, resolved.text)


def _finish(
    raw: dict[str, Any],
    document: _Document,
    origin: dict[str, str],
    overrides: tuple[str, ...],
    base: Path,
    text: str,
) -> Resolved:
    problems = list(document.problems)
    set_here = dict(_apply(raw, item, problems) for item in overrides)

    def place(where: Location) -> str:
        name = dotted(where) + "."
        for key, item in reversed(set_here.items()):
            if name.startswith(key + ".") or (key.startswith(name) and not document.has(where)):
                return item
        return document.at(document.line(where))

    found = _types(raw, place)
    unfit = [*find_problems(raw), *find_missing(raw, base)]
    problems += found + [f"{place(where)}: {dotted(where)}: {what}" for where, what in unfit]
    if problems:
        raise RecipeError(sorted(dict.fromkeys(problems), key=functools.partial(_by_line, document.label)))
    in_order = json.loads(json.dumps(to_json(build(Recipe, raw)), sort_keys=True))
    recipe = typing.cast(
        Recipe, build(Recipe, in_order)
    )  # as recipe.json gives it back: no order of keys counts
    for key in set_here:
        origin = {k: v for k, v in origin.items() if k != key and not k.startswith(key + ".")}
        origin[key] = "--set"
    values = to_json(recipe)
    full = {key: _origin(key, origin) for key, _ in leaves(values)}
    return Resolved(recipe, full, base, text)


def _origin(key: str, origin: dict[str, str]) -> str:
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        found = origin.get(".".join(parts[:length]))
        if found:
            return found
    return "default"


def _by_line(label: str, problem: str) -> tuple[int, str]:
    line = problem.removeprefix(label + ":").partition(":")[0]
    return (int(line) if line.isdigit() else 0, problem)


def _apply(raw: dict[str, Any], item: str, problems: list[str]) -> tuple[str, str]:
    """Put an override into the values; returns its key and how messages name it."""
    key, separator, text = item.partition("=")
    key = key.strip()
    if not separator or not all(key.split(".")):
        raise UsageError(f"--set {item}: expected KEY=VALUE, for instance --set mix.cap=512")
    document = _Document(f"--set {item}", has_lines=False)
    value = document.parse(text)
    problems += document.problems
    target: Any = raw
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(target, list) and parent.isdigit() and int(parent) < len(target):
            target = target[int(parent)]
        elif isinstance(target, dict):
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
        else:
            raise UsageError(f"--set {item}: {parent!r} of {key!r} does not lead anywhere")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise UsageError(f"--set {item}: {key!r} does not lead to a setting")
    return key, f"--set {item}"


@functools.cache
def _adapter() -> TypeAdapter[Recipe]:
    strict = ConfigDict(extra="forbid", strict=True)
    for kind in _dataclasses(Recipe, set()):
        kind.__pydantic_config__ = strict  # type: ignore[attr-defined]
    return TypeAdapter(Recipe)


def _types(raw: dict[str, Any], place: Place) -> list[str]:
    """Return a problem for every unknown or missing key and every value of a wrong type."""
    try:
        _adapter().validate_json(json.dumps(raw))
    except ValidationError as error:
        return [_explain(item, raw, place) for item in error.errors(include_url=False)]
    return []


def _dataclasses(kind: Any, seen: set[type]) -> set[type]:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind not in seen:
            seen.add(kind)
            for hint in typing.get_type_hints(kind).values():
                _dataclasses(hint, seen)
    else:
        for argument in typing.get_args(kind):
            _dataclasses(argument, seen)
    return seen


def _explain(item: Any, raw: Any, place: Place) -> str:
    is_key = "[key]" in item["loc"]
    where: Location = tuple(part for part in item["loc"] if part != "[key]" and not _is_type_tag(part))
    name, kind = dotted(where), item["type"]
    if is_key or kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _choices(item) if is_key else _fields_at(where[:-1])
        hint = _of_peers(str(where[-1])) or did_you_mean(str(where[-1]), known) or _elsewhere(str(where[-1]))
        return f"{place(where)}: {name}: unknown key" + (hint or f"; expected one of {', '.join(known)}")
    if kind in ("missing", "missing_argument"):
        return f"{place(where[:-1])}: {name}: missing; it has no default"
    value = _at(raw, where)
    suggestion = did_you_mean(value, _choices(item)) if isinstance(value, str) else ""
    if value is None and ":" in str(where[-1]):
        suggestion = "; YAML wants a space behind the colon"
    return f"{place(where)}: {name}: found {shorten(value)}; {_expected(item)}{suggestion}"


_EXPECTED = {
    "string_type": "text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
}


def _expected(item: Any) -> str:
    what = _EXPECTED.get(item["type"])
    return f"expected {what}" if what else item["msg"].replace("Input should be", "expected")


_OF_PEERS = {
    "lr": "train.learning_rate",
    "adam_beta1": "train.betas",
    "adam_beta2": "train.betas",
    "adam_epsilon": "train.epsilon",
    "attn_implementation": "train.attention",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "gradient_checkpointing": "train.activation_checkpointing",
    "load_in_4bit": "train.quantization",
    "lora_alpha": "train.lora.alpha",
    "lora_dropout": "train.lora.dropout",
    "lora_r": "train.lora.rank",
    "lr_scheduler_type": "train.schedule",
    "max_grad_norm": "train.max_gradient_norm",
    "max_seq_length": "tokenize.max_length",
    "max_steps": "train.num_steps",
    "model_name_or_path": "train.model",
    "num_epochs": "mix.epochs",
    "num_train_epochs": "mix.epochs",
    "per_device_train_batch_size": "train.micro_batch_size",
    "save_steps": "train.checkpoint_steps",
    "save_total_limit": "train.keep_checkpoints",
    "target_modules": "train.lora.targets",
    "warmup_ratio": "train.warmup_share",
}
"""Names of settings in transformers, peft and TRL, and what they are called here."""


def _of_peers(key: str) -> str:
    """Say what a setting of the usual trainers is called here."""
    return f" - did you mean {_OF_PEERS[key]!r}?" if key in _OF_PEERS else ""


def _elsewhere(key: str) -> str:
    """Say where a key that is unknown here does belong, if that is one place."""
    places = [name for name, _, _ in describe() if name.rpartition(".")[2] == key]
    return f" - did you mean {places[0]!r}?" if len(places) == 1 else ""


def _is_type_tag(part: object) -> bool:
    return isinstance(part, str) and (part.startswith(("tuple[", "dict[", "function-", "constrained-")))


def _choices(item: Any) -> list[str]:
    text = str(item.get("ctx", {}).get("expected", ""))
    return [part.strip("' ") for part in text.replace(" or ", ",").split(",") if part.strip()]


def _fields_at(where: Location) -> list[str]:
    kind: Any = Recipe
    for part in where:
        kind = _descend(kind, part)
    kind = _concrete(kind)
    return [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _concrete(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return _concrete(inner[0])
    return kind


def _descend(kind: Any, part: str | int) -> Any:
    kind = _concrete(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return typing.get_type_hints(kind).get(str(part))
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and arguments:
        return arguments[0]
    if typing.get_origin(kind) is dict:
        return arguments[1]
    return None


def _at(raw: Any, where: Location) -> Any:
    for part in where:
        if isinstance(raw, dict):
            raw = raw.get(str(part))
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            return raw
    return raw


def schema() -> dict[str, Any]:
    """Return the JSON schema of recipes."""
    return _adapter().json_schema()


def dotted(where: Location) -> str:
    """Return a location as a dotted key; the root is `recipe`."""
    return ".".join(map(str, where)) or "recipe"
