"""Folders of models and adapters that transformers and peft open: writing them, reading them back.

A folder holds `config.json` and `model.safetensors`, or `adapter_config.json` and `adapter_model.safetensors`, beside
the tokenizer's files. Weights of over 5 GB lie in several files, listed in `model.safetensors.index.json`. Only
safetensors are read and written. A folder appears whole under its name or not at all, and names no place of a machine.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskmill import storage
from taskmill.errors import DamagedError, MissingPackageError, StorageError
from taskmill.training.models.base_files import ADAPTER_CONFIG, INDEX, WEIGHTS, portable_name

try:
    import safetensors
    import safetensors.torch
    import torch
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

ADAPTER = "adapter_model.safetensors"
SHARD_BYTES = 5_000_000_000
"""Most bytes of a file with weights, but for a single larger one."""


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the name `folder`, durably, when the block ends well.

    Files inside must be written durably (AtomicFile). A folder of that name is replaced.

    Raises:
        StorageError: the disk is full, read-only or failing; nothing is visible then.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            storage._rename(folder, old)
        storage._rename(temporary, folder)
        storage.sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as one safetensors file, atomically."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    storage.write_bytes(path, safetensors.torch.save(plain, metadata={"format": "pt"}))


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file into tensors on the CPU.

    Raises:
        DamagedError: missing or not what was written.
    """
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error


def save_model(model: Any, tokenizer_folder: Path | None, folder: Path) -> None:
    """Write the folder of a model, or of an adapter, that transformers and peft open.

    Raises:
        StorageError: see whole_folder.
    """
    with whole_folder(folder) as temporary:
        write_model(model, tokenizer_folder, temporary)


def write_model(model: Any, tokenizer_folder: Path | None, folder: Path) -> None:
    """Write a model's or adapter's files into a folder that is being made."""
    if is_adapter(model):
        write_adapter(model, folder)
    else:
        write_weights(model, folder)
    for path in sorted(tokenizer_folder.iterdir()) if tokenizer_folder else ():
        storage.write_bytes(folder / path.name, path.read_bytes())


def write_adapter(model: Any, folder: Path) -> None:
    """Write an adapter's weights and adapter_config.json."""
    config = model.peft_config["default"].to_dict()
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    values["inference_mode"] = True
    values["base_model_name_or_path"] = portable_name(model.peft_config["default"].base_model_name_or_path)
    storage.write_json(folder / ADAPTER_CONFIG, json.loads(json.dumps(values, sort_keys=True)))
    write_tensors(folder / ADAPTER, adapter_tensors(model))


def write_weights(model: Any, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write a whole model's weights, config.json and generation_config.json, and return the names of the files."""
    tensors = model_tensors(model)
    config = json.loads(model.config.to_json_string())
    config.pop("_name_or_path", None)
    config |= {"architectures": [type(model).__name__], "dtype": str(model.dtype).removeprefix("torch.")}
    storage.write_json(folder / "config.json", config)
    generation = json.loads(model.generation_config.to_json_string())
    storage.write_json(folder / "generation_config.json", generation)
    shards, names = _shards(tensors, shard_bytes), ["config.json", "generation_config.json"]
    if len(shards) == 1:
        write_tensors(folder / WEIGHTS, tensors)
        return [*names, WEIGHTS]
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in shard})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    storage.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return [*names, INDEX, *sorted(set(weight_map.values()))]


def _shards(tensors: Mapping[str, Any], shard_bytes: int) -> list[list[str]]:
    """Return the names of the tensors of each file, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


def read_weights(folder: Path) -> dict[str, Any]:
    """Read the weights of a whole model, from one file or several, onto the CPU.

    Raises:
        DamagedError: a file is missing or not what was written.
    """
    if not (folder / INDEX).is_file():
        return read_tensors(folder / WEIGHTS)
    files = sorted(set(storage.read_json(folder / INDEX)["weight_map"].values()))
    return {name: tensor for file in files for name, tensor in read_tensors(folder / file).items()}


def is_adapter(model: Any) -> bool:
    """Return whether a model carries adapters of peft."""
    return hasattr(model, "peft_config")


def model_tensors(model: Any) -> dict[str, Any]:
    """Return a model's weights by name; weights that two names share appear once, under the first."""
    parameters = dict(model.named_parameters())
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return parameters | {name: t for name, t in model.state_dict().items() if name not in every}


def adapter_tensors(model: Any) -> dict[str, Any]:
    """Return the adapter's weights under the names that peft gives them on disk."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def restore_weights(model: Any, folder: Path) -> None:
    """Put the weights of a saved folder into a model of the same shape.

    Raises:
        DamagedError: the file is missing, or holds other names or shapes than the model.
    """
    adapter = is_adapter(model)
    path = folder / (ADAPTER if adapter else WEIGHTS)
    wanted = adapter_tensors(model) if adapter else model_tensors(model)
    found = read_tensors(path) if adapter else read_weights(folder)
    shapes = {name: tuple(t.shape) for name, t in wanted.items()}
    different = shapes.items() ^ {name: tuple(t.shape) for name, t in found.items()}.items()
    if different:
        raise DamagedError(f"{path} does not fit the model: {sorted(different)[0][0]!r} differs")
    if adapter:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, found)
        return
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
