"""A chat format as a chat template: what trainers and servers of the Hugging Face libraries read.

Reads and writes nothing. The template writes `messages` as `layout.lay_out` writes turns, and marks with `{% generation %}`
what carries loss. A format with conditions reads the variable `condition`, the text of a quality class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from taskmill.recipe import Condition
from taskmill.templates.chat.formats import TRAINED_ROLES, ChatFormat, Part, RoleFormat

_VARIABLES = {"{bos}": "bos_token", "{eos}": "eos_token"}


def chat_template(
    chat: ChatFormat, system: str | None = None, conditions: Mapping[str, Condition] | None = None
) -> str:
    """Return the Jinja source of a format's chat template; of a tokenizer's own template its own source.

    Args:
        chat: the format.
        system: system text of conversations that have none; by default the format's own.
        conditions: quality class -> condition; by default the format's own.
    """
    if chat.template is not None:
        return chat.template.source
    system = chat.default_system if system is None else system
    default = (conditions or chat.conditions).get(chat.inference or "")
    lines = [_condition(default), _show(([Part("{bos}", True)] if chat.bos else []) + list(chat.opening))]
    if system and "system" in chat.roles:
        head = chat.roles["system"]
        text = [*head.prefix, Part(system), *head.end, *head.separator]
        lines += [
            "{%- if not messages or messages[0]['role'] != 'system' -%}",
            f"    {_show(text)}",
            "{%- endif -%}",
        ]
    lines.append("{%- for message in messages -%}")
    lines.append(f"    {{%- set text = message['content']{' | trim' if chat.strip else ''} -%}}")
    branch = "if"
    for role, given in chat.roles.items():
        if role != "call":
            lines += [f"    {{%- {branch} message['role'] == {_quote(role)} -%}}", *_turn(chat, role, given)]
            branch = "elif"
    refusal = _quote(f"the format {chat.name} has no such turn: ")
    lines += [
        "    {%- else -%}",
        f"        {{{{- raise_exception({refusal} ~ message['role']) -}}}}",
        "    {%- endif -%}",
        "{%- endfor -%}",
        f"{{%- if add_generation_prompt -%}}{_show(chat.roles['assistant'].prefix)}{{%- endif -%}}",
    ]
    return "\n".join(line for line in lines if line.strip()) + "\n"


def _condition(default: Condition | None) -> str:
    """Return the line that gives the variable `condition` the text of the class of test prompts where it is not set."""
    return f"{{%- set condition = condition | default({_quote(default.text)}) -%}}" if default else ""


def _turn(chat: ChatFormat, role: str, given: RoleFormat) -> list[str]:
    """Return the lines that write a turn; what ends the last one loses the white space that the format strips."""
    ends = [(given.end, given.separator)]
    if chat.strip_end:
        ends.append(_stripped(given))
    lines = [f"        {_show(given.prefix)}"]
    for number, (end, separator) in enumerate(reversed(ends)):
        if len(ends) == 2:
            test = "else" if number else "if loop.last and not add_generation_prompt"
            lines.append(f"        {{%- {test} -%}}")
        body = _sum([Part(given.lead), None, *end])
        if role in TRAINED_ROLES:
            shown = f"{{%- generation -%}}{{{{- {body} -}}}}{{%- endgeneration -%}}{_show(separator)}"
        else:
            shown = f"{{{{- {body} -}}}}{_show(separator)}"
        lines.append(f"        {shown}")
    return lines + (["        {%- endif -%}"] if len(ends) == 2 else [])


def _stripped(given: RoleFormat) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return end and separator without white space at their end."""
    end, separator = list(given.end), list(given.separator)
    for parts in (separator, end):
        while parts and not parts[-1].control:
            text = parts[-1].text.rstrip()
            if text:
                parts[-1] = parts[-1]._replace(text=text)
                return tuple(end), tuple(separator)
            parts.pop()
        if parts:
            break
    return tuple(end), tuple(separator)


def _show(parts: Sequence[Part]) -> str:
    return f"{{{{- {_sum(parts)} -}}}}" if any(part.text for part in parts) else ""


def _sum(parts: Sequence[Part | None]) -> str:
    """Return the Jinja expression of texts side by side; None stands for the turn's own text."""
    terms: list[str] = []
    for part in parts:
        if part is None:
            terms.append("text")
        elif part.control:
            terms.append(_VARIABLES.get(part.text) or _quote(part.text))
        else:
            for number, piece in enumerate(part.text.split("{condition}")):
                terms += ["condition"] if number else []
                terms += [_quote(piece)] if piece else []
    return " ~ ".join(terms)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
