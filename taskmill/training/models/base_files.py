"""The files of a base model: where they are, what identifies them, what is wrong with a folder that is none (no torch).

A base is a folder with `config.json` and safetensors weights, an id of the Hub, or, where only the shape is wanted
(`train.weights: random`), any of these or the file `config.json` alone. Nothing but safetensors is read: pickled
weights can run code when they are opened.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskmill.errors import DataError, UsageError
from taskmill.recipe import Train
from taskmill.storage import file_digest

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_FILES = (CONFIG, "generation_config.json", "*.safetensors", "*.safetensors.index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_OTHERS = {"*.gguf": "GGUF", "*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_EXPECTED = "a folder with config.json and safetensors weights, relative to the recipe, or a Hub id"
_FETCH = "`hf download MODEL --local-dir FOLDER` fetches one; leave train.model out for a small new model"


class ModelError(DataError):
    """A base model that the recipe names and that cannot be used: a wrong recipe, hence exit code 2."""

    exit_code = 2


def problem(
    text: str, train: Train, expected: str | None = _EXPECTED, hint: str | None = _FETCH
) -> ModelError:
    """Return the error of a base model: what is wrong with it, what was expected, what helps."""
    return ModelError(text, field="train.model", value=train.model, expected=expected, hint=hint)


def located(train: Train, path: Callable[[str], Path]) -> Train:
    """Return the section with `model` made absolute where the recipe's path is a folder or a file."""
    if train.model is None or not (found := path(train.model)).exists():
        return train
    return dataclasses.replace(train, model=str(found))


def is_hub_id(name: str) -> bool:
    """Return whether a name that is nothing on this machine can be an id of the Hub."""
    return bool(_HUB_ID.fullmatch(name)) and ".." not in name and not name.endswith(".json")


def identity(train: Train, path: Callable[[str], Path]) -> dict[str, Any]:
    """Return what identifies a named base model: the digests of its files, or its Hub id and revision.

    With `weights: random` only its configuration counts.

    Raises:
        UsageError: a file, or a folder that lies beside the present directory and not beside the recipe.
    """
    if train.model is None:
        return {}
    place, random = path(train.model), train.weights == "random"
    if place.is_file() and random and place.name == CONFIG:
        return {"model": {CONFIG: file_digest(place)}}
    if not place.is_dir():
        if place.exists() or Path(train.model).exists():
            raise UsageError(
                f"train.model: {place} is no folder; expected one relative to the recipe, or a Hub id"
            )
        return {"model": {"id": train.model, "revision": train.revision}}
    patterns = (CONFIG,) if random else _FILES
    files = {found.name: found for pattern in patterns for found in place.glob(pattern)}
    return {"model": {name: file_digest(found) for name, found in sorted(files.items())}}


def portable_name(name: str | None) -> str | None:
    """Return a base's name without a place of this machine: a Hub id or a relative folder as it is, else the last part."""
    return Path(name).name if name is not None and Path(name).is_absolute() else name


# ------------------------------------------------------------------------------------ what a folder lacks


def check_base(place: Path, train: Train) -> None:
    """Check that a folder, or a file config.json, is a base model.

    Raises:
        ModelError: it is not; the message says what it is instead.
    """
    random = train.weights == "random"
    if not place.is_dir():
        if place.name == CONFIG and not random:
            hint = "`train.weights: random` begins with random weights of this configuration"
            raise problem("a configuration without weights", train, hint=hint)
        if place.name != CONFIG:
            raise problem(f"{place.name} is a file", train)
        read_config(place, train)
        return
    if not (place / CONFIG).is_file():
        raise _no_config(place, train)
    read_config(place / CONFIG, train)
    if not random:
        _check_weights(place, train)


def read_config(path: Path, train: Train) -> dict[str, Any]:
    """Return the object in a config.json.

    Raises:
        ModelError: it holds none.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise problem(f"config.json cannot be read: {error}", train) from error
    if not isinstance(body, dict):
        raise problem("config.json holds no JSON object", train)
    return body


def _no_config(place: Path, train: Train) -> ModelError:
    if (place / ADAPTER_CONFIG).is_file():
        hint = "`taskmill export model RUN DIR --merge` makes a whole model of a run's adapter and its base"
        return problem("this folder holds an adapter, not a model", train, hint=hint)
    if (place / "recipe.json").is_file():
        hint = "Its model is in model/final; `taskmill export model RUN DIR --merge` copies it, merged"
        return problem("this folder is a run of Taskmill, not a model", train, hint=hint)
    for pattern, kind in _OTHERS.items():
        if any(place.glob(pattern)):
            return problem(f"this folder holds {kind} files and no config.json", train)
    names = sorted(found.name for found in place.iterdir())
    held = f"holds {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "is empty"
    return problem(f"this folder {held}: no config.json, so no model", train)


def _check_weights(place: Path, train: Train) -> None:
    if (place / INDEX).is_file():
        missing = [name for name in shards(place / INDEX, train) if not (place / name).is_file()]
        if missing:
            raise problem(
                f"{len(missing)} of the files that {INDEX} names are missing, as {missing[0]}", train
            )
        return
    if (place / WEIGHTS).is_file():
        return
    pickles = sorted(found.name for pattern in _PICKLES for found in place.glob(pattern))
    others = [kind for pattern, kind in _OTHERS.items() if any(place.glob(pattern))]
    if pickles:
        raise pickled(pickles[0], train)
    if others:
        raise problem(f"its weights are {others[0]} files; only safetensors are read", train)
    raise problem(
        "it has a configuration and no weights",
        train,
        hint="`train.weights: random` begins with random weights",
    )


def shards(index: Path, train: Train) -> list[str]:
    """Return the names of the files with weights that an index lists.

    Raises:
        ModelError: the index is none, or names files outside its folder.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise ValueError("expected names of safetensors files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise problem(f"{INDEX} cannot be used: {error}", train) from error
    return names


def pickled(name: str, train: Train) -> ModelError:
    """Return the error of weights that are there as pickles only."""
    return problem(
        f"its weights are pickled ({name}), which can run code when opened; only safetensors are read",
        train,
        hint="Load and save it once with transformers on a machine you can spare: save_pretrained writes safetensors",
    )
