"""A causal language model ready to be asked, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmill.errors import MissingPackageError

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size")


@dataclass(frozen=True)
class Scorer:
    """A model ready to be asked."""

    model: Any
    """A transformers (or peft) causal language model in evaluation mode."""
    pad_id: int
    eos_id: int
    batch_size: int
    """Rows per forward pass at most."""
    tree: bool = True
    """Whether options share a row; a model that does not obey such masks gets a row for each option."""
    windowed: bool = False
    """Whether they do so too where layers with a sliding window do not see the whole row."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device


def is_exact(model: Any) -> bool:
    """Return whether a model computes in fp32 throughout: one on a base in 4 bits may not, whatever its other weights are."""
    return all(parameter.dtype == torch.float32 for parameter in model.parameters())


def widen_head(model: Any) -> None:
    """Let the output layer of a model in 16 bits compute in fp32: rounded to bf16, near logits tie, and the first one wins.

    Embeddings that were its weights too stay in 16 bits. A layer that an adapter has wrapped stays as it is.
    """
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if type(head) is not torch.nn.Linear or head.weight.dtype not in (torch.bfloat16, torch.float16):
        return
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, torch.nn.Parameter(parameter.detach().float(), requires_grad=False))
    head.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))


def num_ids(model: Any) -> int:
    """Return the size of a model's vocabulary."""
    return int(model.get_input_embeddings().num_embeddings)


def window(model: Any) -> int | None:
    """Return how many tokens the layers that see least see; None where all see everything before."""
    config = model.config.get_text_config()
    widths = [getattr(config, key, None) for key in _WINDOWS]
    if not getattr(config, "use_sliding_window", True):
        widths = []
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        widths.append(config.window_size)
    return min((int(width) for width in widths if width), default=None)


def mask_of(model: Any, seen_BTL: torch.Tensor) -> torch.Tensor:
    """Return an attention mask [B, 1, T, L] as a model takes it: of booleans for sdpa, else to be added."""
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        return seen_BTL[:, None]
    mask_BTL = torch.zeros(seen_BTL.shape, dtype=model.dtype, device=seen_BTL.device)
    return mask_BTL.masked_fill_(~seen_BTL, torch.finfo(model.dtype).min)[:, None]


def masks_of(model: Any, whole: torch.Tensor, near: torch.Tensor) -> Any:
    """Return what a model with sliding windows takes as attention masks: without a window, and within it."""
    if getattr(model.config.get_text_config(), "layer_types", None) is None:
        return near
    return {"full_attention": whole, "sliding_attention": near}


def logits_at(model: Any, place_N: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """Run the model and return the logits at some places among the tokens of `input_ids`, row after row: [N, V].

    The output layer gets no other place, where the model has one that can be found.
    """

    def choose(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0].flatten(0, -2).index_select(0, place_N)[None], *given[1:])

    head = getattr(model, "get_output_embeddings", lambda: None)()
    hook = None if head is None else head.register_forward_pre_hook(choose, prepend=True)
    try:
        logits: torch.Tensor = model(**arguments).logits.flatten(0, -2)
    finally:
        if hook is not None:
            hook.remove()
    return logits if len(logits) == len(place_N) else logits.index_select(0, place_N)
