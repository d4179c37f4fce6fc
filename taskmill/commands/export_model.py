"""The command `export model`: a run's model as a folder that transformers and peft open, and a model card.

Reads the trained model or a checkpoint, the tokenizer and the manifests; with --merge, or where nobody else can make the
base, the base model too. Writes weights and configuration (`model*.safetensors` or `adapter_model.safetensors`), the
tokenizer with the run's chat template, `README.md` (see `model_card`) and `export.json`, written last. A base that the run
itself made of random weights lies beside an adapter in `base/`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from taskmill import recipe_files
from taskmill.commands.export_chat import chat_format, end_marks
from taskmill.commands.export_folder import EXPORT, claim, finish
from taskmill.commands.figures import size
from taskmill.commands.finished import FinishedRun, Row
from taskmill.commands.model_card import card
from taskmill.digests import file_digest
from taskmill.errors import DamagedError, StorageError, UsageError
from taskmill.plain import build
from taskmill.recipe import Train
from taskmill.records import DIRECTORIES
from taskmill.storage import AtomicFile, FileEntry, read_json, remove, write_bytes, write_json
from taskmill.templates.chat.formats import PLAIN
from taskmill.templates.chat.to_jinja import chat_template
from taskmill.training.encoding.tokenizer import TOKENIZER_FILES, TextTokenizer, open_tokenizer
from taskmill.training.models.base_files import ADAPTER_CONFIG, located

FORMAT_VERSION = 1
_KIND = b"model\n"
_MODEL = re.compile(
    r"config\.json|generation_config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|"
    r"adapter_config\.json|adapter_model\.safetensors"
)
_STEP = re.compile(r"step-(\d{6,})")
_CHUNK = 1 << 24


@dataclass(frozen=True)
class ModelPlan:
    """What is exported, and how."""

    merge: bool = False
    """Whether an adapter becomes part of its base."""
    checkpoint: int | None = None
    """Updates of the checkpoint; by default the end of the training."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of a whole model's weights; adapters are fp32."""


@dataclass(frozen=True)
class Source:
    """The model that is exported."""

    found: FinishedRun
    folder: Path
    train: Train
    """With `model` located on this machine."""
    seed: int
    info: Row
    """tokens.json."""

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter."""
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def own_base(self) -> bool:
        """Whether the base is random weights that only this run can make."""
        return self.train.model is None or self.train.weights == "random"


def export_model(run: Path, folder: Path, plan: ModelPlan, as_json: bool) -> None:
    """Export a run's model into a folder and print what came of it.

    Raises:
        UsageError: there is no such model, or the folder holds other files.
        DamagedError: a file of the model is not what training wrote.
        ModelError: the base model is wanted and cannot be loaded.
        StorageError: the folder cannot be written.
        MissingPackageError: torch, transformers or peft is absent and wanted.
    """
    body = write_model_folder(run, folder, plan)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **body}, sort_keys=True))
        return
    for entry in body["files"]:
        if entry["path"].endswith(".safetensors"):
            click.echo(f"{entry['path']}: {size(entry['bytes'])}")
    click.echo(f"{body['kind']}{', open it with peft' if body['kind'] == 'adapter' else ''}")
    click.echo(f"{folder / EXPORT}")


def write_model_folder(run: Path, folder: Path, plan: ModelPlan) -> dict[str, Any]:
    """Write the folder and return the content of its export.json; see `export_model`."""
    source = open_source(run, plan.checkpoint)
    found = source.found
    kind = "adapter" if source.is_adapter and not plan.merge else "merged" if source.is_adapter else "model"
    if kind == "adapter" and plan.precision != "fp32":
        raise UsageError(f"an adapter is written in fp32; --precision {plan.precision} needs --merge")
    earlier = claim(folder, run, _KIND, _written)
    names = _write_weights(source, folder, plan, kind)
    tokenizer = open_tokenizer(source.folder)
    names += _write_tokenizer(source, folder, folder)
    if kind != "adapter":
        _say_when_to_stop(source, tokenizer, folder / "generation_config.json")
    write_bytes(folder / "README.md", card(found, source.train, kind, source.info, plan.checkpoint).encode())
    entries = [_entry(folder, name) for name in sorted({*names, "README.md"})]
    for path in sorted(earlier - {entry.path for entry in entries}):
        remove(folder / path)
    body = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "options": {name: getattr(plan, name) for name in ModelPlan.__annotations__},
    }
    stages = ("split", "render", "mix", "tokenize", "train", "evaluate")
    return finish(folder, found, stages, entries, body)


# ------------------------------------------------------------------------------------ what is exported


def open_source(run: Path, checkpoint: int | None) -> Source:
    """Return the model of a run, at the end of its training or at a checkpoint.

    Raises:
        UsageError: it is not there; the message says what is.
    """
    found = FinishedRun(run)
    directory = run / DIRECTORIES["train"]
    steps = {int(m[1]): p for p in directory.glob("step-*") if (m := _STEP.fullmatch(p.name))}
    saved = f"; saved checkpoints: {', '.join(map(str, sorted(steps)))} (--checkpoint STEP)" if steps else ""
    if checkpoint is None and not found.has("train"):
        raise UsageError(
            f"the training of {run} is not finished: run `{found.command('train')}` first{saved}"
        )
    if checkpoint is not None and checkpoint not in steps:
        raise UsageError(f"{run} has no checkpoint after update {checkpoint}{saved or '; none was saved'}")
    found.require("tokenize")
    folder = directory / "final" if checkpoint is None else steps[checkpoint]
    if not any(_MODEL.fullmatch(path.name) for path in folder.glob("*.safetensors")):
        raise UsageError(f"{folder} holds no model; run `{found.command('train')} --force` to make it again")
    resolved = recipe_files.from_json(run)
    train, seed = resolved.recipe.train, resolved.recipe.seed
    if checkpoint is None:
        body = found.manifests["train"].body
        train, seed = build(Train, body["settings"]["train"]), int(body["seed"])
    info = read_json(found.inputs.directory("tokenize") / "tokens.json")
    return Source(found, folder, located(train, resolved.path), seed, info)


def _written(folder: Path) -> list[str]:
    """Return the names of files that an export may have written."""
    names = ["README.md", *TOKENIZER_FILES]
    for part in (folder, folder / "base"):
        found = [path for path in part.glob("*") if _MODEL.fullmatch(path.name)]
        names += [path.relative_to(folder).as_posix() for path in found]
    return [*names, *(f"base/{name}" for name in TOKENIZER_FILES)]


# --------------------------------------------------------------------------------------------- writing


def _write_weights(source: Source, folder: Path, plan: ModelPlan, kind: str) -> list[str]:
    """Write the files of the model, or of adapter and own base, and return their names."""
    if kind == "merged" or plan.precision != "fp32":
        from taskmill.training.models.model import in_precision, load_model, merged_model
        from taskmill.training.models.saving import write_weights

        check_files(source)
        if kind == "merged":
            model = merged_model(source.train, source.info, source.seed, source.folder)
        else:
            model = load_model(source.folder)
        return write_weights(in_precision(model, plan.precision), folder)
    names = sorted(path.name for path in source.folder.iterdir() if _MODEL.fullmatch(path.name))
    digests = file_digests(source)
    for name in names:
        copy(source.folder / name, folder / name, digests.get(name))
    if not (source.is_adapter and source.own_base):
        return names
    from taskmill.training.models.model import base_model
    from taskmill.training.models.saving import write_weights

    base = write_weights(base_model(source.train, source.info, source.seed), folder / "base")
    config = read_json(folder / ADAPTER_CONFIG)
    write_json(folder / ADAPTER_CONFIG, {**config, "base_model_name_or_path": "base"})
    return [*names, *(f"base/{name}" for name in base), *_write_tokenizer(source, folder, folder / "base")]


def file_digests(source: Source) -> dict[str, str]:
    """Return the SHA-256 of each file of the model as training wrote it, from the manifest or the checkpoint's state.json.

    Raises:
        DamagedError: state.json is not what training wrote.
    """
    state = source.folder / "state.json"
    if source.folder.name == "final":
        prefix = f"{source.folder.name}/"
        files = source.found.manifests["train"].files
        return {e.path.removeprefix(prefix): e.sha256 for e in files if e.path.startswith(prefix)}
    files_of = read_json(state).get("files")
    if not isinstance(files_of, dict):
        raise _changed(state)
    return files_of


def check_files(source: Source) -> None:
    """Check the files that are about to be loaded.

    Raises:
        DamagedError: one of them is not what training wrote.
    """
    for name, sha256 in file_digests(source).items():
        path = source.folder / name
        if _MODEL.fullmatch(name) and not (path.is_file() and file_digest(path) == sha256):
            raise _changed(path)


def _changed(path: Path) -> DamagedError:
    """Return the error of a file that training did not write so; verify knows the end of a training only."""
    more = (
        "`taskmill verify RUN` says more"
        if path.parent.name == "final"
        else "another checkpoint may be sound"
    )
    return DamagedError(f"{path} is not what training wrote; {more}")


def copy(source: Path, target: Path, sha256: str | None) -> None:
    """Copy a file piece by piece; it appears under its name whole or not at all.

    Raises:
        DamagedError: it cannot be read, or is not the file of this digest.
        StorageError: it cannot be written.
    """
    try:
        with source.open("rb") as read, AtomicFile(target) as file:
            while piece := read.read(_CHUNK):
                file.write(piece)
            if sha256 is not None and file.sha256 != sha256:
                raise _changed(source)
    except StorageError:
        raise
    except OSError as error:
        raise DamagedError(f"{source} cannot be read: {error.strerror or error}") from error


def _write_tokenizer(source: Source, top: Path, folder: Path) -> list[str]:
    """Write the tokenizer's files, with the chat template of the run's format, and return their names below `top`."""
    names = [name for name in TOKENIZER_FILES if (source.folder / name).is_file()]
    for name in names:
        if name != "tokenizer_config.json":
            copy(source.folder / name, folder / name, None)
    config = read_json(source.folder / "tokenizer_config.json")
    config["model_max_length"] = source.info["max_length"]
    template = _template(source.found)
    write_json(folder / "tokenizer_config.json", config | ({"chat_template": template} if template else {}))
    return [(folder / name).relative_to(top).as_posix() for name in names]


def _template(found: FinishedRun) -> str | None:
    """Return the chat template of the format that the run was rendered in; None where it has none."""
    if not found.has("render"):
        return None
    chat, conditions, settings = chat_format(found)
    if chat.name == PLAIN and chat.template is None:
        return None
    return chat_template(chat, settings.system, conditions)


def _say_when_to_stop(source: Source, tokenizer: TextTokenizer, path: Path) -> None:
    """Name the tokens that end an answer in generation_config.json, and the tokenizer's other special ones."""
    marks = end_marks(chat_format(source.found)[0]) if source.found.has("render") else []
    ids = [tokenizer.eos_id, *(tokenizer.symbol(mark) for mark in marks)]
    ends = sorted({number for number in ids if number is not None})
    values = {"eos_token_id": ends[0] if len(ends) == 1 else ends, "pad_token_id": tokenizer.pad_id}
    if tokenizer.bos_id is not None:
        values["bos_token_id"] = tokenizer.bos_id
    write_json(path, {**(read_json(path) if path.is_file() else {}), **values})


def _entry(folder: Path, name: str) -> FileEntry:
    sha256 = file_digest(folder / name)
    return FileEntry(name, 0, (folder / name).stat().st_size, sha256, sha256)
