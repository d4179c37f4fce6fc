"""The calls of torch's GPU attention, as far as a machine without a GPU can tell: arguments, layout, result, few compilations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from taskmill.training.updating import kernels
from taskmill.training.updating.kernels import Documents

LENGTHS = (11, 4, 17, 1)


def offsets(lengths: tuple[int, ...] = LENGTHS) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def kernel(
    query: Any,
    key: Any,
    value: Any,
    starts: Any,
    starts_k: Any,
    max_q: Any,
    max_k: Any,
    scale: Any,
    left: int,
) -> Any:
    """Check what torch's kernel checks of its arguments, then write causal attention of each document out: [T, H, D]."""
    assert query.dtype == key.dtype == value.dtype in (torch.bfloat16, torch.float16)
    assert starts.dtype == starts_k.dtype == torch.int32 and starts.is_contiguous()
    assert type(max_q) is int and type(max_k) is int and max_q == max_k == int(starts.diff().max())
    assert query.shape[0] == key.shape[0] == value.shape[0] == int(starts[-1])
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1 and query.shape[-1] % 8 == 0
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scale, out = query.shape[-1] ** -0.5 if scale is None else scale, torch.empty_like(query)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        scores = torch.einsum("qhd,khd->hqk", query[begin:end].float(), key[begin:end].float()) * scale
        apart = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        allowed = (apart >= 0) & ((apart <= left) if left >= 0 else True)
        shares = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        out[begin:end] = torch.einsum("hqk,khd->qhd", shares, value[begin:end].float()).to(out.dtype)
    return out


def with_causal_only(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None
) -> Any:
    assert is_causal and query.shape[1] == key.shape[1]
    return kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, None, -1)


def with_window(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
) -> Any:
    assert window_size[1] == 0 and query.shape[1] == key.shape[1]
    return kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[0])


def with_groups(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
) -> Any:
    assert isinstance(window_size, tuple) and window_size[1] == 0
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[0])


@pytest.mark.parametrize("function", [with_causal_only, with_window, with_groups])
@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("window", [None, 5])
def test_every_version_of_torchs_function_is_called_as_it_wants(
    function: Callable[..., Any], heads: int, window: int | None
) -> None:
    settings = frozenset(inspect.signature(function).parameters)
    if window and "window_size" not in settings:
        pytest.skip("packed attention does not call it for a window")
    torch.manual_seed(0)
    laid = [torch.randn(1, sum(LENGTHS), n, 8, dtype=torch.bfloat16) for n in (4, heads, heads)]
    query, key, value = (t.transpose(1, 2) for t in laid)  # as a model's projections lie in memory
    pack = Documents(LENGTHS, offsets())
    got = kernels._with_varlen(function, settings, query, key, value, pack, 0.4, window)
    expected = kernels._one_by_one(query.float(), key.float(), value.float(), pack, 0.0, 0.4, window, None)
    assert got.shape == query.shape and got.dtype == torch.bfloat16
    assert float((got.float() - expected).abs().max()) <= 0.03


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("window", [None, 5])
def test_torchs_own_function_takes_the_call(
    heads: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tensors that have no numbers, on a GPU that is not there: torch's own code between the call and the kernel."""
    if kernels._varlen() is None:
        pytest.skip("torch.nn.attention.varlen came with torch 2.10")
    from torch._subclasses import FakeTensorMode

    monkeypatch.setattr(kernels, "_is_ampere", lambda _: True)
    monkeypatch.setattr(kernels, "_one_by_one", None)
    with FakeTensorMode():
        shapes = [(1, sum(LENGTHS), n, 16) for n in (4, heads, heads)]
        given = [torch.empty(s, device="cuda", dtype=torch.bfloat16) for s in shapes]
        pack = Documents(LENGTHS, torch.empty(len(LENGTHS) + 1, dtype=torch.int32, device="cuda"))
        out = kernels._documents(*(t.transpose(1, 2) for t in given), pack, 0.0, 0.25, window, None)
        assert out.shape == (1, 4, sum(LENGTHS), 16) and out.is_cuda
        assert out.dtype == torch.bfloat16  # gradients need the engine of a real GPU


def test_older_gpus_fp32_and_odd_heads_do_without_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses import FakeTensorMode

    capability = {"found": (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability["found"])
    with FakeTensorMode():

        def fits(width: int, dtype: Any) -> bool:
            kernels._is_ampere.cache_clear()
            tensor = torch.empty(1, 2, 5, width, device="cuda", dtype=dtype)
            return kernels._fits_varlen(tensor, tensor)

        assert fits(64, torch.bfloat16) and fits(256, torch.float16)
        assert not fits(64, torch.float32) and not fits(20, torch.bfloat16) and not fits(264, torch.bfloat16)
        capability["found"] = (7, 5)
        assert not fits(64, torch.float16)
    kernels._is_ampere.cache_clear()


def test_flex_is_compiled_a_few_times_for_packs_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond torch's limit of compilations it would hold a number for every pair of tokens."""
    import torch.nn.attention.flex_attention as torchs

    graphs = {"flex_attention": 0, "create_block_mask": 0}

    def compiled(name: str) -> Any:
        def counted(graph: Any, _: Any) -> Any:
            graphs[name] += 1
            return graph.forward

        return torch.compile(getattr(torchs, name), backend=counted)

    torch.compiler.reset()
    flex, create = compiled("flex_attention"), compiled("create_block_mask")
    monkeypatch.setattr(torchs, "flex_attention", flex)
    monkeypatch.setattr(torchs, "create_block_mask", create)
    with torch.no_grad():
        for number in range(8):
            lengths = tuple(1 + (7 * i + 31 * number) % 190 for i in range(1 + number))
            tensor = torch.randn(1, 2, sum(lengths), 16)
            pack = Documents(lengths, offsets(lengths))
            for window in (None, 40):
                got = kernels._flex(tensor, tensor, tensor, pack, 0.0, 0.3, window, None)
                expected = kernels._one_by_one(tensor, tensor, tensor, pack, 0.0, 0.3, window, None)
                assert float((got - expected).abs().max()) <= 1e-5
    assert 1 <= graphs["flex_attention"] <= 3 and 1 <= graphs["create_block_mask"] <= 3
    torch.compiler.reset()
