"""The reference of recipes: every setting, its type and its default, from the dataclasses themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from taskmill import recipe, recipe_evaluate, recipe_render, recipe_training
from taskmill.plain import to_json
from taskmill.recipe import Recipe

_MODULES = (recipe, recipe_render, recipe_training, recipe_evaluate)


def describe() -> list[tuple[str, str, str]]:
    """Return (dotted key, type, default) of every setting, in file order: the reference of recipes."""
    found = []
    for key, kind, name in _keys(Recipe, ""):
        item = next(f for f in dataclasses.fields(kind) if f.name == name)
        found.append((key, _type_name(typing.get_type_hints(kind)[name]), _default_text(item)))
    return found


def help_texts() -> dict[str, str]:
    """Return dotted key -> what the setting does, from the text below its field; a setting without one is not in it."""
    below = _texts_below_fields()
    found = {}
    for key, kind, name in _keys(Recipe, ""):
        text = below.get((kind.__name__, name))
        if text:
            found[key] = text
    return found


def _texts_below_fields() -> dict[tuple[str, str], str]:
    """Return (class, field) -> the string that stands below the field in the files of the recipe."""
    found = {}
    sources = [inspect.getsource(module) for module in _MODULES]
    for node in [node for source in sources for node in ast.parse(source).body]:
        if not isinstance(node, ast.ClassDef):
            continue
        for item, text in zip(node.body, node.body[1:]):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[node.name, item.target.id] = " ".join(str(text.value.value).split())
    return found


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, type, str]]:
    """Yield (dotted key, dataclass, field) of every setting; a section that may be null is a setting too."""
    for item in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[item.name]
        inner, mark = _inside(hint)
        key = f"{prefix}{item.name}"
        if inner is None or _is_optional(hint):
            yield key, kind, item.name
        if inner is not None:
            yield from _keys(inner, f"{key}{mark}.")


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)


def _inside(hint: Any) -> tuple[type | None, str]:
    """Return the dataclass that a field holds, alone, in a list, by name or not always, and how a key shows that."""
    arguments = typing.get_args(hint)
    if _is_optional(hint):
        return _inside(arguments[0])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint, ""
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(arguments[0]):
        return typing.cast(type, arguments[0]), "[]"
    if typing.get_origin(hint) is dict and dataclasses.is_dataclass(arguments[1]):
        return typing.cast(type, arguments[1]), ".<name>"
    return None, ""


def _type_name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if a is type(None) else _type_name(a) for a in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type_name(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return "mapping"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true | false"}.get(
        getattr(hint, "__name__", ""), "anything"
    )


def _default_text(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return json.dumps(to_json(item.default))
    if item.default_factory is not dataclasses.MISSING:
        return json.dumps(to_json(item.default_factory()))
    return "required"
