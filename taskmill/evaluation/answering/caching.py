"""The keys and values that a model keeps of the tokens it has read: their size, and how rows of them are picked.

Whatever the model gives back as `past_key_values` is handed in again as it is; rows are picked through its own
`reorder_cache`, which every cache of transformers has. Where that cache is of the plain kind, which is copied for each token
that comes, one with room takes its place. Models that keep nothing of this kind (recurrent ones) read the whole text again
for each token.
"""

from __future__ import annotations

import inspect
from typing import Any

from taskmill.errors import MissingPackageError

try:
    import torch
    from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
except ImportError as error:
    raise MissingPackageError("transformers", "train", "scoring with a model") from error

_HOST_BYTES = 2**32
"""Most bytes that keys and values may take up in the machine's own memory."""
_DEVICE_SHARE = 0.25
"""Share that they may take up of what the model leaves of a GPU's memory; a number of the two alone, so that batches never
depend on the hour."""


def takes(model: Any) -> frozenset[str]:
    """Return the names of the arguments that the model's forward pass takes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(base.forward).parameters)


def bytes_per_token(model: Any) -> int:
    """Return the bytes of one token's keys and values, over all layers; 0 where the configuration does not say."""
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    num_layers = getattr(config, "num_hidden_layers", None)
    num_heads = getattr(config, "num_attention_heads", None)
    hidden_size = getattr(config, "hidden_size", None)
    if not all(isinstance(number, int) and number for number in (num_layers, num_heads, hidden_size)):
        return 0
    assert num_layers and num_heads and hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden_size // num_heads
    num_kept = getattr(config, "num_key_value_heads", None) or num_heads
    return int(2 * num_layers * num_kept * head_dim * model.dtype.itemsize)


def most_tokens(model: Any, device: torch.device) -> int:
    """Return the most tokens, over all rows of a batch, whose keys and values fit beside the model."""
    size = bytes_per_token(model)
    if not size:
        return 2**62
    if device.type == "cuda":
        held = sum(parameter.nbytes for parameter in model.parameters())
        left = torch.cuda.get_device_properties(device).total_memory - held
        return max(int(left * _DEVICE_SHARE), 0) // size
    return _HOST_BYTES // size


def pickable(cache: Any) -> bool:
    """Return whether rows of a cache can be picked."""
    return hasattr(cache, "reorder_cache") or isinstance(cache, (tuple, list))


def pick(cache: Any, rows_R: torch.Tensor) -> Any:
    """Return the cache with these rows, in this order; a row may be picked several times."""
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(rows_R)
        return cache
    if isinstance(cache, (tuple, list)):
        return type(cache)(pick(part, rows_R) for part in cache)
    return cache.index_select(0, rows_R.to(cache.device)) if isinstance(cache, torch.Tensor) else cache


def roomy(cache: Any, num_tokens: int) -> Any | None:
    """Return an empty cache to be used like this one, that has room for tokens; None where this is not of the plain kind."""
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return Cache(layers=[_RoomyLayer(num_tokens) for _ in cache.layers])


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values, [rows, heads, tokens, width], as the beginning of tensors with room for more tokens."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None
        self.held: torch.Tensor | None = None
        """The keys as they were put into `room`; others mean that rows were picked since."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens, and return all keys and values."""
        size = self.get_seq_length()
        total = size + key_states.shape[-2]
        if self.room is None or self.keys is not self.held or total > self.room[0].shape[-2]:
            most = max(total, self.num_tokens)
            room = [g.new_empty(*g.shape[:-2], most, g.shape[-1]) for g in (key_states, value_states)]
            if size:
                room[0][..., :size, :], room[1][..., :size, :] = self.keys, self.values
            self.room = (room[0], room[1])
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        keys, values = self.room
        keys[..., size:total, :], values[..., size:total, :] = key_states, value_states
        self.keys, self.values = keys[..., :total, :], values[..., :total, :]
        self.held = self.keys
        return self.keys, self.values
