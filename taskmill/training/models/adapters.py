"""Low-rank adapters through peft, and the rows of new tokens that are trained and saved beside them.

Weights of the base are frozen. Tokens that a run adds to the tokenizer have rows in the embeddings, and in the output
layer where it is one of its own; these rows alone are trained in full (peft's trainable tokens) and lie in the adapter's
file, so that a folder opens with plain peft once the embeddings have as many rows as the tokenizer has ids.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from taskmill.errors import MissingPackageError, UsageError
from taskmill.recipe import Lora
from taskmill.seeding import derive
from taskmill.training.models.pretrained import quiet

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "training a model") from error


def grow(model: Any, vocab_size: int, new_ids: Collection[int]) -> list[int]:
    """Give the model a row for each of `vocab_size` ids; rows of new ids begin as the mean of the old rows.

    Args:
        model: changed in place.
        vocab_size: ids of the tokenizer; a model with more rows keeps them.
        new_ids: ids that the run added; they may fall into rows that the model had and no token used.

    Returns:
        the new ids: these, and all beyond the rows that the model had.
    """
    before = model.get_input_embeddings().num_embeddings
    fresh = sorted({*new_ids, *range(before, vocab_size)})
    if vocab_size > before:
        with quiet(), torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(vocab_size, mean_resizing=False)
    if fresh:
        old = torch.ones(model.get_input_embeddings().num_embeddings, dtype=torch.bool)
        old[fresh] = False
        for layer in _token_layers(model).values():
            _begin_at_mean(layer, old)
    return fresh


def _begin_at_mean(layer: Any, old_V: Any) -> None:
    if layer.weight.device.type == "meta":
        return
    old_V = old_V.to(layer.weight.device)
    with torch.no_grad():
        for values in (layer.weight, getattr(layer, "bias", None)):
            if values is not None:
                values[~old_V] = values[old_V].float().mean(dim=0).to(values.dtype)


def _token_layers(model: Any) -> dict[str, Any]:
    """Return the layers with a row for each token by name: the embeddings, and an output layer that is not tied to them."""
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    found = {names[id(embeddings)]: embeddings}
    if output is not None and output.weight is not embeddings.weight:
        found[names[id(output)]] = output
    return found


def add_lora(
    model: Any,
    lora: Lora,
    seed: int,
    name: str | None = None,
    *,
    revision: str | None = None,
    new_ids: Collection[int] = (),
) -> Any:
    """Return the model with its weights frozen and low-rank adapters added through peft, in fp32.

    Args:
        model: changed in place.
        lora: rank, alpha, dropout and the layers.
        seed: of the adapters' first weights.
        name: what adapter_config.json calls the base model.
        revision: of the base model on the Hub.
        new_ids: tokens whose rows are trained too, see `grow`.

    Raises:
        UsageError: no layer is called as `lora.targets` says, or new tokens meet an output layer with biases.
        MissingPackageError: peft is absent.
    """
    try:
        with quiet():
            import peft
    except ImportError as error:
        raise MissingPackageError("peft", "train", "train.method: lora") from error
    layers = _token_layers(model) if new_ids else {}
    if any(getattr(layer, "bias", None) is not None for layer in layers.values()):
        raise UsageError(
            f"the output layer of {type(model).__name__} has biases, which peft does not train for new tokens; "
            f"--set train.method=full trains them, --set tokenize.add_tokens=false adds none"
        )
    rows = {"trainable_token_indices": {layer: sorted(new_ids) for layer in layers}} if layers else {}
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
        **rows,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "train.lora"))
        try:
            with quiet():
                adapted = peft.get_peft_model(model, config)
        except ValueError as error:
            raise _no_such_layer(model, lora) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    show_sizes(adapted)
    config = adapted.peft_config["default"]
    config.base_model_name_or_path, config.revision = name, revision
    return adapted


def show_sizes(adapted: Any) -> None:
    """Give the layers whose rows of new tokens are trained the sizes of the layers inside, which peft's wrappers hide."""
    for module in adapted.modules():
        if type(module).__name__ == "TrainableTokensWrapper":
            for size in ("num_embeddings", "embedding_dim", "in_features", "out_features"):
                if hasattr(module.original_module, size):
                    setattr(module, size, getattr(module.original_module, size))


def _no_such_layer(model: Any, lora: Lora) -> UsageError:
    kinds = ("Linear", "Conv1D")
    linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if type(m).__name__ in kinds}
    return UsageError(
        f"train.lora.targets {list(lora.targets)} fit no layer of {type(model).__name__}; "
        f"expected some of {', '.join(sorted(linear))}"
    )
