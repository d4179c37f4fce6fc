"""The chat formats as their authors' own functions write them, taken out of clones; and as a second statement of ours does.

Reads git repositories (a clone with its history, or a bare copy) at pinned commits; writes nothing. Of a file of theirs only
the functions and classes named here are run, with the imports they need; nothing of it is kept.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

IGNORED = -100
MAX_LENGTH = 8192
"""Tokens that the references read of a conversation."""
FASTCHAT = "cd980986e33bfc6409a9a3c5a36512d328c3ac94"
FLACUNA = "47a8a32c47780ac67f4e49674f743e40f799acb0"
OPEN_INSTRUCT = "13404e37ac553fc1e072f3ac1ec12d7a5a719d13"
OPENCHAT_V2 = "436edf20e212484ecb6fef9ab191d6fec5838ad0"
OPENCHAT_V3 = "19e6250d1366eb211956ba3493d4241f46dfae2e"
OPENCHAT_V32 = "c9dc1a8ba872cdf0d9678ca75f952d8cb6483ae8"


class Encoding(NamedTuple):
    """What a reference makes of a conversation."""

    ids: list[int]
    labels: list[int]
    """The id where a token carries loss, else IGNORED."""


@dataclass(frozen=True)
class Conversation:
    """Turns, and the class of the answers."""

    name: str
    turns: tuple[tuple[str, str], ...]
    """(role, text): system, user or assistant."""
    quality: str
    altered: bool = False
    """Whether it is made up, or made from what stands in the files."""


Reference = Callable[[Any, Conversation], Encoding]
"""(a transformers tokenizer, a conversation) -> its encoding; any exception: it refuses the conversation."""


# --------------------------------------------------------------------------------------- from clones


def source(clone: Path, commit: str, path: str) -> str:
    """Return a file of a clone at a commit. Raises SystemExit where it is not there."""
    command = ["git", "-C", str(clone), "-c", "safe.directory=*", "show", f"{commit}:{path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{clone} has no {path} at {commit}; it needs the full history: {done.stderr.strip()}"
        )
    return done.stdout


def parts(text: str, names: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Run the definitions `names` of a file, with `given` in the place of its imports; return its names."""
    tree = ast.parse(text)
    kept = [node for node in tree.body if _defines(node) & set(names)]
    return _run(compile(ast.Module(kept, []), "reference", "exec"), given)


def _run(code: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Run code as a module of its own, which dataclasses and pydantic look up by name; return its names."""
    module = types.ModuleType(f"chat_reference_{len(sys.modules)}")
    sys.modules[module.__name__] = module
    vars(module).update(given)
    exec(code, vars(module))
    return vars(module)


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def vicuna(clone: Path, commit: str) -> Reference:
    """Return FastChat's training code: one conversation through `preprocess`, padding taken off."""
    import torch
    import transformers

    conversation = types.SimpleNamespace(**_run(source(clone, commit, "fastchat/conversation.py"), {}))
    given = {
        "transformers": transformers, "torch": torch, "Dict": dict, "IGNORE_TOKEN_ID": IGNORED,
        "SeparatorStyle": conversation.SeparatorStyle, "rank0_print": lambda *_: None,
        "get_conversation_template": lambda _: conversation.get_conv_template("vicuna_v1.1"),
    }  # fmt: skip
    preprocess = parts(source(clone, commit, "fastchat/train/train.py"), ("preprocess",), given)["preprocess"]

    def encode(tokenizer: Any, given: Conversation) -> Encoding:
        names = {"user": "human", "assistant": "gpt"}
        items = [{"from": names[role], "value": text} for role, text in given.turns]
        room = 400 + 50 * len(items) + sum(len(text.encode()) for _, text in given.turns)
        tokenizer.model_max_length = min(
            MAX_LENGTH, room
        )  # it pads to there; no token is shorter than a byte
        out = preprocess([items], tokenizer)
        size = int(out["attention_mask"][0].sum())
        return Encoding(out["input_ids"][0][:size].tolist(), out["labels"][0][:size].tolist())

    return encode


def tulu(clone: Path) -> Reference:
    """Return open-instruct's encoding of messages, of June 2023."""
    text = source(clone, OPEN_INSTRUCT, "open_instruct/finetune.py")
    import torch

    name = "encode_with_messages_format"
    function = parts(text, (name,), {"torch": torch})[name]

    def encode(tokenizer: Any, given: Conversation) -> Encoding:
        messages = [{"role": role, "content": text} for role, text in given.turns]
        out = function({"messages": messages}, tokenizer, 1_000_000)
        return Encoding(out["input_ids"].tolist(), out["labels"].tolist())

    return encode


def openchat(clone: Path, commit: str, name: str) -> Reference:
    """Return OpenChat's template of July 2023 under one of its names, with text encoded as its data code does."""
    import torch
    import transformers

    models = types.SimpleNamespace(LlamaForCausalLM=_Anything(), UnpaddedLlamaForCausalLM=_Anything())
    given = {
        "torch": torch, "transformers": transformers, "partial": partial, "dataclass": dataclass,
        "Optional": Any, "Callable": Any, "Union": _Anything(), "ochat": types.SimpleNamespace(models=models),
    }  # fmt: skip
    text = source(clone, commit, "ochat/config/model_config.py")
    names = ("ModelConfig", "MODEL_CONFIG_MAP", "_v2_conditional_prefix", "_v3_2_conditional_prefix")
    found = parts(text, (*names, "_v2_group", "_v2_v3_group", "_v3_condition"), given)
    config = found["MODEL_CONFIG_MAP"][name]

    def encode(tokenizer: Any, given: Conversation) -> Encoding:
        speakers = {"user": "human", "assistant": "gpt"}
        system = next((text for role, text in given.turns[:1] if role == "system"), "")
        turns = given.turns[1:] if system else given.turns
        ids, masks, _ = config.generate_conversation_template(
            partial(_text_ids, tokenizer),
            tokenizer.convert_tokens_to_ids,
            system,
            [{"from": speakers[role], "value": text} for role, text in turns],
            {"is_gpt4": given.quality == "GPT4"},
        )
        return Encoding(ids, [i if on else IGNORED for i, on in zip(ids, masks)])

    return encode


class _Anything:
    """Stands for a class that is named and never used."""

    def __getattr__(self, name: str) -> Any:
        return dict

    def __getitem__(self, name: Any) -> Any:
        return Any


def openchat_of_october(clone: Path) -> Reference:
    """Return OpenChat v3.2's template and data code of October 2023: weights, and the tail without weight cut."""
    text = source(clone, OPENCHAT_V32, "ochat/config/conversation_template.py")
    module = types.SimpleNamespace(**_run(text, {}))
    config = parts(
        source(clone, OPENCHAT_V32, "ochat/config/__init__.py"), ("_V3_2_PREFIXES", "_v3_2_role_prefix"), {}
    )
    cut = parts(
        source(clone, OPENCHAT_V32, "ochat/data/generate_dataset.py"),
        ("truncate_trailing_zero_weighted",),
        {},
    )["truncate_trailing_zero_weighted"]
    weights = {"GPT4": 1.0, "GPT3": 0.1}

    def encode(tokenizer: Any, given: Conversation) -> Encoding:
        system = next((text for role, text in given.turns[:1] if role == "system"), "")
        items = [
            module.Message(role=role, content=text, weight=weights[given.quality] * (role == "assistant"))
            for role, text in (given.turns[1:] if system else given.turns)
        ]
        template = module.ConversationTemplate(
            tokenizer=partial(_call, tokenizer),
            role_prefix=config["_v3_2_role_prefix"],
            eot="<|end_of_turn|>",
        )
        talk = module.Conversation(items=items, condition=given.quality, system=system)
        found, loss = template.tokenize_conversations([talk])
        ids, weight = cut(found[0], loss[0])
        return Encoding(ids, [i if w else IGNORED for i, w in zip(ids, weight)])

    return encode


def _call(tokenizer: Any, text: Any, split_special_tokens: bool = False, **options: Any) -> Any:
    """Call a tokenizer; special tokens stay text where `split_special_tokens` says so."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = split_special_tokens
    try:
        return (
            tokenizer(text, **options)
            if text
            else tokenizer("" if isinstance(text, str) else [""], **options)
        )
    finally:
        backend.encode_special_tokens = False


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    """Encode text without special tokens, as the slow LLaMA tokenizer's `_tokenize` does."""
    found: list[int] = _call(tokenizer, text, True, add_special_tokens=False).input_ids
    return found


# -------------------------------------------------------------------------------- a second statement


def expected(name: str) -> Reference:
    """Return the second statement of a format's rules: whole texts and marks of what is trained, no segments."""
    if name.startswith("openchat"):
        return partial(_by_pieces, name)
    return partial(_by_marks, name)


def _by_marks(name: str, tokenizer: Any, given: Conversation) -> Encoding:
    """Write the conversation as one text with marks, encode it whole, train the tokens that begin inside marks."""
    _check_roles(given)
    text = _tulu_text(given) if name == "tulu" else _vicuna_text(given)
    spans, plain = [], ""
    for index, piece in enumerate(re.split("[\x01\x02]", text)):
        if index % 2:
            spans.append((len(plain), len(plain) + len(piece)))
        plain += piece
    out = tokenizer(plain, return_offsets_mapping=True)
    labels = [
        token if any(a <= start < b for a, b in spans) and start < end else IGNORED
        for token, (start, end) in zip(out.input_ids, out.offset_mapping)
    ]
    return Encoding(out.input_ids, labels)


def _check_roles(given: Conversation) -> None:
    if not {role for role, _ in given.turns} <= {"system", "user", "assistant"}:
        raise ValueError("a role that no paper has")


def _tulu_text(given: Conversation) -> str:
    text = ""
    for role, content in given.turns:
        own = content.strip()
        text += f"<|{role}|>\n" + (f"\x01{own}</s>\n\x02" if role == "assistant" else f"{own}\n")
    return text[:-2] + "\x02" if text.endswith("</s>\n\x02") else text.rstrip()


def _vicuna_text(given: Conversation) -> str:
    turns = list(given.turns)
    text = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    )
    if turns[0][0] == "system":
        text = turns.pop(0)[1] + " "
    if turns[0][0] == "assistant":
        turns.pop(0)
    roles = [role for role, _ in turns]
    if not turns or len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError("nothing is trained")
    if not all(content for _, content in turns):
        raise ValueError("an empty turn")
    for role, content in turns:
        text += f"USER: {content} " if role == "user" else f"ASSISTANT:\x01 {content}</s>\x02"
    return text


def _by_pieces(name: str, tokenizer: Any, given: Conversation) -> Encoding:
    """Encode the pieces one by one."""
    _check_roles(given)
    end = tokenizer.convert_tokens_to_ids("<|end_of_turn|>")
    user, assistant = {
        "openchat-v2": ("User:", f"Assistant {given.quality}:"),
        "openchat-v3.1": ("User:", "Assistant:"),
        "openchat-v3.2": (f"{given.quality} User:", f"{given.quality} Assistant:"),
    }[name]
    heads = [f"Assistant is {given.quality}"] if name == "openchat-v3.1" else []
    heads += [text for role, text in given.turns[:1] if role == "system"]
    out = [(tokenizer.bos_token_id, False)] if tokenizer.bos_token_id is not None else []
    for head in heads:
        out += [(token, False) for token in [*_text_ids(tokenizer, head), end]]
    for role, text in given.turns:
        if role != "system":
            prefix = user if role == "user" else assistant
            out += [(token, False) for token in _text_ids(tokenizer, prefix)]
            out += [(token, role == "assistant") for token in [*_text_ids(tokenizer, text), end]]
    while name == "openchat-v3.2" and out and not out[-1][1]:
        out.pop()
    return Encoding([token for token, _ in out], [token if on else IGNORED for token, on in out])
