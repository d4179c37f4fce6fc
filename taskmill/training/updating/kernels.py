"""Attention over a flattened pack, each document for itself: functions that transformers' models call by name.

Registered in the AttentionInterface of transformers when this file is imported, one for each name of `REGISTERED`. A
model that is told to use one calls it in every layer with queries, keys and values of the whole pack, and with the
keyword `documents`, which passes through the model, and through activation checkpointing, untouched. The work is the sum
of the squared lengths of the documents, not the square of their sum, and no mask is made.

Shape suffixes: H heads, T tokens of all documents of a pack one after another, D numbers of a head.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from taskmill.errors import MissingPackageError, UsageError

try:
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
except ImportError as error:
    raise MissingPackageError(str(error.name or "torch"), "train", "training a model") from error

REGISTERED = {"documents": "packed_documents", "flash": "packed_varlen", "flex": "packed_blocks"}
"""Our names of implementations, and what a model's configuration calls them."""
_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_BLOCK = 128
"""Tokens along a side of flex attention's blocks."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Where the documents of a flattened pack begin and end."""

    lengths: tuple[int, ...]
    """Tokens of each document."""
    offsets: Any
    """The same as offsets, from 0 to T: int32 on the model's device."""
    block_masks: dict[int, Any] = field(default_factory=dict)
    """For flex: a mask of blocks for each width of window, 0 without one; made by the first layer that asks."""

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(self.lengths)


def has_flash() -> bool:
    """Return whether the flash-attn package is installed."""
    return importlib.util.find_spec("flash_attn") is not None


@functools.cache
def _varlen() -> tuple[Callable[..., Any], frozenset[str]] | None:
    """Return torch's attention over documents of different lengths and its settings; None before torch 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)


# ----------------------------------------------------------------------------- functions for transformers


def _interface(compute: Callable[..., Any]) -> Callable[..., tuple[Any, None]]:
    """Return the function that transformers calls around one that computes a flattened pack."""

    def attend(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        dropout: float = 0.0,
        scaling: float | None = None,
        documents: Documents | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **others: Any,
    ) -> tuple[Any, None]:
        if documents is None:  # no pack: what transformers would do, with the mask that it made
            if softcap is not None:
                others["softcap"] = softcap
            result: tuple[Any, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
            )
            return result
        unknown = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
        if unknown:
            raise UsageError(f"this model's attention has {unknown[0]}, which packed attention does not know")
        window = sliding_window if sliding_window and sliding_window < documents.longest else None
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        out_1HTD = compute(query, key, value, documents, dropout, scale, window, softcap or None)
        return out_1HTD.transpose(1, 2).contiguous(), None

    return attend


def _documents(
    query: Any,
    key: Any,
    value: Any,
    documents: Documents,
    dropout: float,
    scale: float,
    window: Any,
    cap: Any,
) -> Any:
    """Compute with torch's variable-length attention where it can, else one document after another."""
    varlen = _varlen()
    if varlen is None or dropout or cap or not _fits_varlen(query, value):
        return _one_by_one(query, key, value, documents, dropout, scale, window, cap)
    function, settings = varlen
    if window and "window_size" not in settings:
        return _one_by_one(query, key, value, documents, dropout, scale, window, cap)
    return _with_varlen(function, settings, query, key, value, documents, scale, window)


def _fits_varlen(query: Any, value: Any) -> bool:
    """Return whether torch's kernel takes such tensors: 16 bits, heads of 8 to 256 numbers, an Ampere GPU or newer."""
    width = query.shape[-1]
    if not query.is_cuda or _half(query, value) is None or width % 8 or width > 256:
        return False
    return value.shape[-1] == width and _is_ampere(query.device)


@functools.cache
def _is_ampere(device: Any) -> bool:
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def _with_varlen(
    function: Callable[..., Any],
    settings: frozenset[str],
    query: Any,
    key: Any,
    value: Any,
    documents: Documents,
    scale: float,
    window: Any,
) -> Any:
    """Compute with torch's function, whose settings changed from version to version: out[1, H, T, D]."""
    half, width = _half(query, value), query.shape[-1]
    if "enable_gqa" not in settings:
        key, value = _spread(key, query.shape[1]), _spread(value, query.shape[1])
    if "scale" not in settings:
        query = query * (scale * width**0.5)
    known = {
        "scale": scale,
        "enable_gqa": key.shape[1] != query.shape[1],
        "is_causal": True,
        "window_size": (window - 1 if window else -1, 0),
    }
    query_THD, key_THD, value_THD = (t.squeeze(0).transpose(0, 1).to(half) for t in (query, key, value))
    offsets, longest = documents.offsets, documents.longest
    rest = {name: setting for name, setting in known.items() if name in settings}
    out_THD = function(query_THD, key_THD, value_THD, offsets, offsets, longest, longest, **rest)
    return out_THD.transpose(0, 1).unsqueeze(0)


def _flash(
    query: Any,
    key: Any,
    value: Any,
    documents: Documents,
    dropout: float,
    scale: float,
    window: Any,
    cap: Any,
) -> Any:
    """Compute with the flash-attn package."""
    function = importlib.import_module("flash_attn").flash_attn_varlen_func
    half = _half(query, value)
    if half is None:
        raise UsageError(
            "train.attention: flash needs half precision; --set train.precision=bf16, or train.attention=auto"
        )
    query_THD, key_THD, value_THD = (t[0].transpose(0, 1).to(half) for t in (query, key, value))
    offsets, longest = documents.offsets, documents.longest
    out_THD = function(
        query_THD,
        key_THD,
        value_THD,
        offsets,
        offsets,
        longest,
        longest,
        dropout_p=dropout,
        softmax_scale=scale,
        causal=True,
        window_size=(window - 1, 0) if window else (-1, -1),
        **({"softcap": cap} if cap else {}),
    )
    return out_THD.transpose(0, 1)[None]


def _flex(
    query: Any,
    key: Any,
    value: Any,
    documents: Documents,
    dropout: float,
    scale: float,
    window: Any,
    cap: Any,
) -> Any:
    """Compute with torch's flex attention and a mask of blocks, compiled on a GPU."""
    if dropout:
        raise UsageError("train.attention: flex has no dropout; --set train.attention=sdpa has")
    key, value = _spread(key, query.shape[1]), _spread(value, query.shape[1])
    half = _half(query, value)
    if half is not None:
        query, key, value = query.to(half), key.to(half), value.to(half)
    mask = documents.block_masks.get(window or 0)
    if mask is None:
        mask = documents.block_masks[window or 0] = _block_mask(documents, window)

    def capped(score: Any, *_: Any) -> Any:
        return cap * torch.tanh(score / cap)

    num_tokens = query.shape[2]
    more = (0, 0, 0, _whole_blocks(num_tokens) - num_tokens)
    query, key, value = (torch.nn.functional.pad(t, more) for t in (query, key, value))
    compiled = (
        _compiled("flex_attention") if query.is_cuda else torch.nn.attention.flex_attention.flex_attention
    )
    out = compiled(query, key, value, score_mod=capped if cap else None, block_mask=mask, scale=scale)
    return out[:, :, :num_tokens]


def _whole_blocks(num_tokens: int) -> int:
    return -(-num_tokens // _BLOCK) * _BLOCK


def _block_mask(documents: Documents, window: int | None) -> Any:
    """Return the blocks that hold a pair of tokens of the same document, the earlier one as key.

    Packs have many lengths and layers may have a window or none. So that few versions are compiled, tokens fill up whole
    blocks, those behind the last document being one of their own, and the width of the window is a tensor.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    offsets, num_tokens = documents.offsets, _whole_blocks(sum(documents.lengths))
    places_T = torch.arange(num_tokens, device=offsets.device)
    documents_T = torch.searchsorted(offsets, places_T, right=True)
    reach = torch.full((), window or num_tokens, device=offsets.device)

    def allowed(_: Any, __: Any, at: Any, other: Any) -> Any:
        return (documents_T[at] == documents_T[other]) & (at >= other) & (at - other < reach)

    # compiled on a GPU, since it would hold a number for every pair of tokens
    create = _compiled("create_block_mask") if offsets.is_cuda else create_block_mask
    return create(allowed, None, None, num_tokens, num_tokens, device=str(offsets.device), BLOCK_SIZE=_BLOCK)


@functools.cache
def _compiled(name: str) -> Any:
    """Return a function of torch's flex attention, compiled."""
    return torch.compile(getattr(importlib.import_module("torch.nn.attention.flex_attention"), name))


# ------------------------------------------------------------------------------- one document by one


def _one_by_one(
    query: Any,
    key: Any,
    value: Any,
    documents: Documents,
    dropout: float,
    scale: float,
    window: Any,
    cap: Any,
) -> Any:
    """Compute each document by itself: out[1, H, T, D].

    On a CPU this is faster than documents of similar length padded into one call, whose gather costs more than the
    calls that it saves; views of one `split` come back as one concatenation in the backward pass.
    """
    key, value = _spread(key, query.shape[1]), _spread(value, query.shape[1])
    lengths = list(documents.lengths)
    parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)))
    return torch.cat([_one(q, k, v, dropout, scale, window, cap) for q, k, v in parts], dim=2)


def _one(query: Any, key: Any, value: Any, dropout: float, scale: float, window: Any, cap: Any) -> Any:
    length = query.shape[2]
    narrow = window if window and window < length else None
    if cap is None and narrow is None:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scale
        )
    allowed_TT = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    if narrow is not None:
        allowed_TT = allowed_TT.triu(1 - narrow)
    if cap is None:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed_TT, dropout_p=dropout, scale=scale
        )
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    scores = (cap * torch.tanh(scores / cap)).masked_fill(~allowed_TT, torch.finfo(scores.dtype).min)
    shares = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(torch.nn.functional.dropout(shares, dropout, training=dropout > 0), value)


def _spread(tensor: Any, num_heads: int) -> Any:
    """Repeat the heads of keys or values for the queries that share them."""
    times = num_heads // tensor.shape[1]
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)


def _half(query: Any, value: Any) -> Any:
    """Return the 16-bit type to compute in: that of autocast, else of the values; None in fp32."""
    if torch.is_autocast_enabled(query.device.type):
        return torch.get_autocast_dtype(query.device.type)
    return value.dtype if value.dtype in _FLASH_DTYPES else None


for _name, _compute in (("documents", _documents), ("flash", _flash), ("flex", _flex)):
    AttentionInterface.register(REGISTERED[_name], _interface(_compute))
    AttentionMaskInterface.register(REGISTERED[_name], sdpa_mask)
