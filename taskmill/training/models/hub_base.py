"""Base models on the Hub: their configuration and safetensors, fetched into the Hub's own cache, at one commit.

Only config.json, generation_config.json and safetensors are asked for: no code, no pickles, and no conversion is
requested from anyone. Environment: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME as everywhere in the Hub's libraries.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from taskmill.errors import MissingPackageError
from taskmill.recipe import Train
from taskmill.training.models.base_files import (
    CONFIG,
    INDEX,
    WEIGHTS,
    ModelError,
    is_hub_id,
    pickled,
    problem,
    shards,
)

try:
    import huggingface_hub
    from huggingface_hub import errors
except ImportError as error:
    raise MissingPackageError("huggingface_hub", "train", "loading a model from the Hub") from error

log = logging.getLogger("taskmill")

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def fetch(train: Train) -> Path:
    """Return the folder in the cache with the files of `train.model` at `train.revision`; its name is the commit.

    Raises:
        ModelError: no such repository or revision, no access to it, no connection, or files that are no model.
    """
    name = str(train.model)
    if not is_hub_id(name):
        raise problem("there is no such folder, and it is no Hub id", train)
    config = _get(train, CONFIG, train.revision)
    if config is None:
        raise problem("this repository has no config.json, so it is no model for transformers", train)
    folder = config.parent
    commit = folder.name
    if train.weights == "pretrained":
        whole = huggingface_hub.try_to_load_from_cache(name, WEIGHTS, revision=commit)
        index = None if isinstance(whole, str) else _get(train, INDEX, commit)
        wanted = shards(index, train) if index else [WEIGHTS]
        for file in wanted:
            if _get(train, file, commit) is None:
                raise _no_weights(train, commit, file)
        _get(train, "generation_config.json", commit)
    if train.revision != commit:
        log.info("train: %s is at commit %s; `train.revision: %s` pins it", name, commit, commit)
    return folder


def _get(train: Train, file: str, revision: str | None) -> Path | None:
    """Fetch one file; None when the repository has none of that name."""
    name = str(train.model)
    try:
        if revision is not None and _COMMIT.fullmatch(revision):
            cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
            if cached is not None:
                return Path(cached) if isinstance(cached, str) else None
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision, endpoint=endpoint))
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(train) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled, OSError) as error:
        raise _explained(train, error) from error


def _explained(train: Train, error: BaseException) -> ModelError:
    page = f"https://huggingface.co/{train.model}"
    if isinstance(error, errors.GatedRepoError):
        hint = f"Accept its terms on {page}, then `hf auth login` or set HF_TOKEN"
        return problem("this repository is gated and gives no access", train, expected=None, hint=hint)
    if isinstance(error, errors.RevisionNotFoundError):
        text = f"this repository has no revision {train.revision!r}"
        return problem(
            text, train, expected="a commit, tag or branch of it", hint=f"{page}/commits/main shows them"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return problem(
            "no such folder beside the recipe, and no such repository on the Hub (a private one needs HF_TOKEN)",
            train,
        )
    if isinstance(error, errors.HFValidationError):
        return problem("there is no such folder, and it is no Hub id", train)
    if isinstance(error, (errors.OfflineModeIsEnabled, ConnectionError)) or not isinstance(
        error, errors.HfHubHTTPError
    ):
        return _unreachable(train, str(error).strip().splitlines()[0] if str(error).strip() else "")
    return problem(f"the Hub answered: {str(error).strip().splitlines()[0]}", train, expected=None)


def _unreachable(train: Train, why: str = "") -> ModelError:
    because = f" ({why[:200]})" if why else ""
    return problem(
        f"there is no such folder beside the recipe, it is not in the Hub's cache, and the Hub cannot be asked{because}",
        train,
        hint="Connect and run again, unset HF_HUB_OFFLINE, or name a folder that `hf download MODEL --local-dir FOLDER` made",
    )


def _no_weights(train: Train, commit: str, file: str) -> ModelError:
    hub = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    for name in _PICKLES:
        try:
            if hub.file_exists(str(train.model), name, revision=commit):
                return pickled(name, train)
        except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError):
            break
    return problem(f"this repository has no {file}; only safetensors are read", train)
