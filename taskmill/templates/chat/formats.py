"""Chat formats: how a conversation is written down, as data.

Reads `formats/*.yaml` (the shipped formats), a YAML file of one's own in the same form, or a tokenizer's own chat
template; writes nothing. A format in YAML:

    tokenization: joint             # or segments: each text is encoded on its own
    bos: true                       # {bos} comes first
    control: ["<|im_end|>"]         # texts below that are special tokens, beside {bos} and {eos}
    strip: true                     # contents lose the white space around them
    roles:
      user: {prefix: "USER: ", end: " "}
      assistant: {prefix: "ASSISTANT:", lead: " ", end: "{eos}"}

A turn is written as prefix, lead, its text, end and separator. In the turns that a model writes (assistant, call) loss
starts at the lead and stops after the end; a prompt to generate from stops before the lead.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from taskmill.errors import UsageError, did_you_mean
from taskmill.recipe import Condition
from taskmill.templates.chat.checking import read_yaml
from taskmill.templates.chat.hub import HubTemplate
from taskmill.templates.chat.template_files import open_template

FORMATS = Path(__file__).parent / "formats"
ROLES = ("system", "user", "assistant", "call", "tool")
TRAINED_ROLES = ("assistant", "call")
PLAIN = "plain"
_SYMBOLS = ("{bos}", "{eos}")
_TEMPLATE_SUFFIXES = (".jinja", ".jinja2", ".j2", ".json")


class Part(NamedTuple):
    """A text that a format writes."""

    text: str
    control: bool = False
    """Whether it is a special token."""


@dataclass(frozen=True)
class RoleFormat:
    """How a turn of one role is written."""

    prefix: tuple[Part, ...] = ()
    """Before the text; never trained."""
    lead: str = ""
    """Between prefix and text, trained with the text; a prompt to generate from ends before it."""
    end: tuple[Part, ...] = ()
    """After the text, trained with it."""
    separator: tuple[Part, ...] = ()
    """After the end; never trained."""


@dataclass(frozen=True)
class Rules:
    """What conversations a format takes."""

    first: Literal["user", "any"] = "any"
    """`user`: a first turn of another role (but system) is left out."""
    alternate: bool = False
    """Whether user and assistant must take turns."""
    system: Literal["first", "anywhere"] = "first"
    """Where a system turn may stand."""
    empty: Literal["keep", "drop"] = "keep"
    """`drop`: a conversation with an empty turn is dropped."""
    unanswered: Literal["keep", "cut", "drop"] = "cut"
    """What becomes of turns after the last one that the model writes; `drop`: of the conversation."""


@dataclass(frozen=True)
class ChatFormat:
    """One way to write conversations."""

    name: str
    joint: bool = True
    """Whether text between control segments is encoded as a whole, or segment by segment."""
    bos: bool = False
    roles: Mapping[str, RoleFormat] = field(default_factory=dict)
    opening: tuple[Part, ...] = ()
    """Before the first turn."""
    default_system: str | None = None
    """System text of conversations without one."""
    strip: bool = False
    """Whether contents lose the white space around them."""
    strip_end: bool = False
    """Whether the whole prompt loses the white space at its end."""
    delimiter: str | None = None
    """Ends the user's text of a two-part prompt; by default it is drawn."""
    rules: Rules = Rules()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    """Quality class -> what `{condition}` becomes, and the loss weight."""
    inference: str | None = None
    """Quality class of test prompts."""
    source: str = ""
    """Where the format was published."""
    template: HubTemplate | None = None
    """A tokenizer's own chat template, which replaces all of the above."""
    digest: str = ""
    """sha256 (hex) of the files that it was read from."""
    written: dict[tuple[str, str | None], Any] = field(default_factory=dict, repr=False, compare=False)
    """What layout has made of a role under a condition."""

    @property
    def has_conditions(self) -> bool:
        """Whether prompts name a quality class, so that rows without one are refused."""
        return bool(self.conditions)


def format_names() -> list[str]:
    """Return the names of the shipped formats, sorted."""
    return sorted(path.stem for path in FORMATS.glob("*.yaml"))


def load_format(name_or_path: str, base: Path) -> ChatFormat:
    """Return a shipped format, or read one: a YAML file, or a chat template (.jinja, .json or a tokenizer's folder).

    Args:
        name_or_path: a name of `format_names()`, or a path relative to `base`.
        base: folder of the recipe.

    Raises:
        UsageError: there is no such format, or the template cannot be used.
        RecipeError: the YAML file has problems, all of them listed.
    """
    if name_or_path in format_names():
        return _shipped(name_or_path)
    path = base / name_or_path
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _from_yaml(name_or_path, path, str(path))
    if path.is_dir() or (path.suffix in _TEMPLATE_SUFFIXES and path.is_file()):
        template = open_template(path)
        return ChatFormat(name_or_path, source=name_or_path, template=template, digest=template.digest)
    raise UsageError(
        f"render.format: no shipped chat format is called {name_or_path!r}{did_you_mean(name_or_path, format_names())}, "
        f"and {path} is no format's YAML file, chat template (.jinja, tokenizer_config.json, chat_template.json) "
        f"or tokenizer's folder; expected one of {', '.join(format_names())}, or such a path beside the recipe"
    )


@functools.cache
def _shipped(name: str) -> ChatFormat:
    path = FORMATS / f"{name}.yaml"
    return _from_yaml(name, path, path.name)


def _from_yaml(name: str, path: Path, label: str) -> ChatFormat:
    """Build a format from a YAML file; `label` names the file in messages."""
    text, values = read_yaml(path, label, ROLES)
    control = (*_SYMBOLS, *values.pop("control", ()))
    roles = {role: _role(given, control) for role, given in values.pop("roles").items()}
    joint = values.pop("tokenization", "joint") == "joint"
    rules = Rules(**values.pop("rules", {}))
    conditions = {key: Condition(**given) for key, given in values.pop("conditions", {}).items()}
    opening = _parts(values.pop("opening", ""), control)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ChatFormat(
        name,
        joint,
        roles=roles,
        rules=rules,
        conditions=conditions,
        opening=opening,
        digest=digest,
        **values,
    )


def _role(given: Mapping[str, Any], control: tuple[str, ...]) -> RoleFormat:
    affixes = {name: _parts(given.get(name, ""), control) for name in ("prefix", "end", "separator")}
    return RoleFormat(lead=given.get("lead", ""), **affixes)


def _parts(text: str, control: tuple[str, ...]) -> tuple[Part, ...]:
    """Cut a format's own text at its control texts, longest first."""
    pattern = "|".join(re.escape(token) for token in sorted(control, key=len, reverse=True))
    pieces = re.split(f"({pattern})", text)
    return tuple(Part(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece)
