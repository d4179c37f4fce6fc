"""Folders of models and adapters that transformers and peft open: writing them, reading them back.

A folder holds `config.json` and `model.safetensors`, or `adapter_config.json` and `adapter_model.safetensors`, beside
the tokenizer's files. Only safetensors are read and written. A folder appears whole under its name or not at all.
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

try:
    import safetensors
    import safetensors.torch
    import torch
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

WEIGHTS, ADAPTER, ADAPTER_CONFIG = "model.safetensors", "adapter_model.safetensors", "adapter_config.json"


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
        config = model.peft_config["default"].to_dict()
        values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        values["inference_mode"] = True
        storage.write_json(folder / ADAPTER_CONFIG, json.loads(json.dumps(values, sort_keys=True)))
        write_tensors(folder / ADAPTER, adapter_tensors(model))
    else:
        config = json.loads(model.config.to_json_string())
        config.pop("_name_or_path", None)
        storage.write_json(folder / "config.json", {**config, "architectures": [type(model).__name__]})
        generation = json.loads(model.generation_config.to_json_string())
        storage.write_json(folder / "generation_config.json", generation)
        write_tensors(folder / WEIGHTS, model_tensors(model))
    for path in sorted(tokenizer_folder.iterdir()) if tokenizer_folder else ():
        storage.write_bytes(folder / path.name, path.read_bytes())


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
    wanted, found = adapter_tensors(model) if adapter else model_tensors(model), read_tensors(path)
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
