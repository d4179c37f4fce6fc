"""The files of a tokenizer that hold its chat template and name its special tokens.

Reads a .jinja file, `chat_template.jinja`, or the key `chat_template` of `tokenizer_config.json` or `chat_template.json`,
and beside it `tokenizer_config.json`, `special_tokens_map.json` or `tokenizer.json`; writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from taskmill.errors import UsageError, shorten
from taskmill.templates.chat.cutting import Literal, Skeleton, UncuttableError, cut
from taskmill.templates.chat.hub import HubTemplate, TemplateRefusedError

MAX_BYTES = 64_000_000
_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_UNKNOWN = {"bos_token": "<taskmill-bos>", "eos_token": "<taskmill-eos>"}
"""Texts of the two where no file beside the template names them."""
_MAY_BE_SPECIAL = re.compile(r"</?\w+>|\[/?[A-Z_]{3,}\]")
_PROBES = (("user", "assistant"), ("user", "assistant", "user", "assistant"))


def open_template(path: Path) -> HubTemplate:
    """Read a chat template from a .jinja file, a .json file with the key `chat_template`, or a tokenizer's folder.

    Raises:
        UsageError: there is no template, it is unsafe or no Jinja, or what it writes cannot be cut into turns.
    """
    file, source, read = _find(path)
    tokens, special, beside = _tokens(file.parent)
    whole = hashlib.sha256()
    for data in (read, *beside):
        whole.update(data + b"\0")
    template = HubTemplate(file.name, source, tokens, special, whole.hexdigest())
    for roles in _PROBES:
        try:
            _check_tokens(file, template, cut(template, roles))
        except (TemplateRefusedError, UncuttableError) as error:
            raise UsageError(
                f"render.format: {file}: a conversation of {', '.join(roles)} cannot be laid out: {error}; expected a "
                f"chat template that writes every content once and in order, and ends `add_generation_prompt` where an "
                f"answer begins. A YAML format of your own can say the same: docs/chat-formats.md"
            ) from error
    return template


def _check_tokens(file: Path, template: HubTemplate, pieces: Skeleton) -> None:
    """Refuse to guess whether a text is a special token where no file says it.

    Raises:
        UsageError: the template writes such a text.
    """
    for piece in pieces if template.special is None else ():
        found = isinstance(piece, Literal) and not piece.control and _MAY_BE_SPECIAL.search(piece.text)
        if found:
            raise UsageError(
                f"render.format: {file} writes {found[0]!r}, which may be a special token; put the tokenizer's "
                f"tokenizer_config.json (its added_tokens_decoder or additional_special_tokens) beside it to say so"
            )


def _find(path: Path) -> tuple[Path, str, bytes]:
    """Return the file, the template in it and the bytes that were read."""
    places = [path]
    if path.is_dir():
        names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
        places = [path / name for name in names if (path / name).is_file()]
    for file in places:
        if file.suffix != ".json":
            raw = _bytes(file)
            return file, raw.decode(errors="strict") if _is_text(raw) else _no_text(file), raw
        raw, body = _json(file)
        source = _default(body.get("chat_template"))
        if source is not None:
            return file, source, source.encode()
    raise UsageError(
        f"render.format: {path} holds no chat template; expected chat_template.jinja, or the key `chat_template` in "
        f"tokenizer_config.json or chat_template.json"
    )


def _default(value: Any) -> str | None:
    """Return the template of a key `chat_template`: a text, or the one named default among several."""
    if isinstance(value, list):
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, str) else None


def _tokens(folder: Path) -> tuple[dict[str, str], tuple[str, ...] | None, list[bytes]]:
    """Return the named tokens, all special tokens (None: unknown) and the identity of both."""
    named: dict[str, str] = {}
    special: set[str] = set()
    known = False
    for name in ("special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"):
        if not (folder / name).is_file() or (known and name == "tokenizer.json"):
            continue
        _, body = _json(folder / name)
        named |= {key: text for key in _NAMES if (text := _content(body.get(key))) is not None}
        for listed in (
            body.get("added_tokens"),
            body.get("additional_special_tokens"),
            body.get("extra_special_tokens"),
        ):
            special |= _special(listed)
        decoder = body.get("added_tokens_decoder")
        special |= _special(list(decoder.values()) if isinstance(decoder, dict) else None)
        known = known or bool(special)
    if not known and not named:
        return dict(_UNKNOWN), None, []
    found = tuple(sorted(special | set(named.values()), key=lambda text: (-len(text), text)))
    return named, found if known else None, [json.dumps([named, found], sort_keys=True).encode()]


def _special(listed: Any) -> set[str]:
    """Return the texts of the special tokens in a list of texts or of token objects."""
    if isinstance(listed, dict):
        listed = list(listed.values())
    found: set[str] = set()
    for item in listed if isinstance(listed, list) else []:
        text = _content(item)
        if text and (isinstance(item, str) or item.get("special", True)):
            found.add(text)
    return found


def _content(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"render.format: {file} is larger than {MAX_BYTES} bytes")
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"render.format: cannot read {file}: {error.strerror or error}") from error


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _no_text(file: Path) -> str:
    raise UsageError(f"render.format: {file} is not UTF-8 text; expected a chat template in Jinja")


def _json(file: Path) -> tuple[bytes, dict[str, Any]]:
    raw = _bytes(file)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"render.format: {file} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError(f"render.format: {file}: found {shorten(body)}; expected an object")
    return raw, body
