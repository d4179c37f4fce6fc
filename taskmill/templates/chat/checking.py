"""Strict reading of a chat format's YAML: every problem is found, with its line and the nearest valid name.

Reads one YAML file, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from taskmill.errors import RecipeError, UsageError, did_you_mean, shorten
from taskmill.safe_yaml import Loader, YamlError, compose_yaml

MAX_BYTES = 100_000
MAX_DEPTH = 8
_CHOICES: dict[str, tuple[str, ...]] = {
    "tokenization": ("joint", "segments"),
    "rules.first": ("user", "any"),
    "rules.system": ("first", "anywhere"),
    "rules.empty": ("keep", "drop"),
    "rules.unanswered": ("keep", "cut", "drop"),
}
_TEXTS = ("source", "opening", "default_system", "delimiter", "inference", "tokenization")
_FLAGS = ("bos", "strip", "strip_end")
_KEYS = (*_TEXTS, *_FLAGS, "control", "roles", "rules", "conditions")
_ROLE_KEYS = ("prefix", "lead", "end", "separator")
_RULE_KEYS = ("first", "alternate", "system", "empty", "unanswered")
_CONDITION_KEYS = ("text", "weight")


def read_yaml(path: Path, label: str, roles: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Return the text of a format's YAML file and its checked values; `label` names the file in messages.

    Raises:
        RecipeError: the file has problems, all of them listed.
        UsageError: the file cannot be read.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the chat format {path}: {error}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path} has {len(raw)} bytes; expected a chat format of at most {MAX_BYTES}")
    document = _Document(label)
    values = document.parse(text)
    if not isinstance(values, dict):
        raise RecipeError([f"{label}:1: found {shorten(values)}; expected a mapping with at least `roles`"])
    _check(values, roles, document.bad)
    if document.problems:
        raise RecipeError(document.problems)
    return text, values


class _Document:
    """A YAML text as plain values, with the line of every key."""

    def __init__(self, label: str) -> None:
        self._label, self._loader = label, Loader("")
        self._lines: dict[str, int] = {}
        self.problems: list[str] = []

    def parse(self, text: str) -> Any:
        try:
            root, self._loader = compose_yaml(text, MAX_DEPTH)
        except YamlError as error:
            raise RecipeError(
                [f"{self._label}:{error.line or 1}: not valid YAML: {error.problem}"]
            ) from error
        return None if root is None else self._value(root, "")

    def bad(self, where: str, problem: str) -> None:
        """Note a problem of the value at `where`, a dotted key."""
        line, known = 1, where
        while known:
            if known in self._lines:
                line = self._lines[known]
                break
            known = known.rpartition(".")[0]
        self.problems.append(f"{self._label}:{line}: {where}: {problem}")

    def _value(self, node: yaml.Node, where: str) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, where) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self.bad(where, str(getattr(error, "problem", None) or error))
            return None

    def _mapping(self, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            dotted = f"{where}.{key}" if where else key
            self._lines.setdefault(dotted, key_node.start_mark.line + 1)
            if key in found:
                self.bad(dotted, "given twice; expected once")
            found[key] = self._value(value_node, dotted)
        return found


Bad = Callable[[str, str], None]


def _check(values: dict[str, Any], roles: Collection[str], bad: Bad) -> None:
    _known(values, _KEYS, "", bad)
    for key in _TEXTS:
        if key in values and not isinstance(values[key], str):
            bad(key, f"found {shorten(values[key])}; expected a text")
    for key in _FLAGS:
        if key in values and not isinstance(values[key], bool):
            bad(key, f"found {shorten(values[key])}; expected true or false")
    control = values.get("control", [])
    if not isinstance(control, list) or not all(isinstance(text, str) and text for text in control):
        bad("control", f"found {shorten(control)}; expected a list of special tokens")
    for name, check in (("roles", _role), ("conditions", _condition)):
        for key, given in _section(values, name, bad).items():
            where = f"{name}.{key}"
            if isinstance(given, dict):
                check(where, given, bad)
            else:
                bad(where, f"found {shorten(given)}; expected a mapping")
    _known(_section(values, "roles", bad), tuple(roles), "roles", bad)
    for key in ("user", "assistant"):
        if key not in _section(values, "roles", bad):
            bad("roles", f"the role {key!r} is missing")
    _rules(_section(values, "rules", bad), bad)
    _choices(values, bad)
    _conditions_fit(values, bad)


def _section(values: Mapping[str, Any], key: str, bad: Bad) -> dict[str, Any]:
    given = values.get(key, {})
    if not isinstance(given, dict):
        bad(key, f"found {shorten(given)}; expected a mapping")
        return {}
    return given


def _known(given: Mapping[str, Any], known: tuple[str, ...], where: str, bad: Bad) -> None:
    for key in given:
        if key not in known:
            dotted = f"{where}.{key}" if where else key
            bad(dotted, f"unknown key{did_you_mean(key, known)}; expected one of {', '.join(known)}")


def _role(where: str, given: Mapping[str, Any], bad: Bad) -> None:
    _known(given, _ROLE_KEYS, where, bad)
    for key, value in given.items():
        if key in _ROLE_KEYS and not isinstance(value, str):
            bad(f"{where}.{key}", f"found {shorten(value)}; expected a text")
    if given.get("lead") and where.rpartition(".")[2] not in ("assistant", "call"):
        bad(f"{where}.lead", "only turns that the model writes have a lead; expected it in the prefix")


def _condition(where: str, given: Mapping[str, Any], bad: Bad) -> None:
    _known(given, _CONDITION_KEYS, where, bad)
    text, weight = given.get("text"), given.get("weight", 1.0)
    if not isinstance(text, str):
        bad(f"{where}.text", f"found {shorten(text)}; expected what {{condition}} becomes")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        bad(f"{where}.weight", f"found {shorten(weight)}; expected a loss weight of 0 or more")


def _rules(rules: Mapping[str, Any], bad: Bad) -> None:
    _known(rules, _RULE_KEYS, "rules", bad)
    if not isinstance(rules.get("alternate", True), bool):
        bad("rules.alternate", f"found {shorten(rules['alternate'])}; expected true or false")


def _choices(values: Mapping[str, Any], bad: Bad) -> None:
    for dotted, choices in _CHOICES.items():
        section, _, key = dotted.rpartition(".")
        holder = values.get(section, {}) if section else values
        if isinstance(holder, dict) and key in holder and holder[key] not in choices:
            value = holder[key]
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            bad(dotted, f"found {shorten(value)}{hint}; expected one of {', '.join(choices)}")


def _conditions_fit(values: Mapping[str, Any], bad: Bad) -> None:
    """Check that conditions are written somewhere, and that what is written is a condition."""
    conditions = values.get("conditions") or {}
    roles = values.get("roles")
    affixes = (
        [part for role in roles.values() if isinstance(role, dict) for part in role.values()]
        if (isinstance(roles, dict))
        else []
    )
    written = any("{condition}" in str(text) for text in (values.get("opening", ""), *affixes))
    if conditions and not written:
        bad("conditions", "no prefix, end, separator or opening writes {condition}")
    if written and not conditions:
        bad("conditions", "missing, but {condition} is written; expected at least one quality class")
    inference = values.get("inference")
    if isinstance(inference, str) and isinstance(conditions, dict) and inference not in conditions:
        bad(
            "inference", f"found {inference!r}{did_you_mean(inference, conditions)}; expected a quality class"
        )
