"""Operators that cannot be left to the general rule: making tensors, changing their size, and attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .devices import device as device_of
from .placement import common_device
from .storage import Weightless, block_of, host_view, new_tensor

aten = torch.ops.aten
_CPU = torch._C.DispatchKey.CPU


def _contiguous(size: Sequence[int], memory_format: torch.memory_format | None) -> Sequence[int]:
    return torch.empty(size, device="meta", memory_format=memory_format or torch.contiguous_format).stride()


def empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    return new_tensor(device_of(device), size, _contiguous(size, memory_format), dtype or torch.get_default_dtype())


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    return new_tensor(device_of(device), size, stride, dtype or torch.get_default_dtype())


def metadata_only(op: Any) -> Any:
    """The CPU's kernel of an operator that touches no values: views and storages are the same on every device."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return op._op_dk(_CPU, *args, **kwargs)

    return kernel


_set_storage = metadata_only(aten.set_.source_Storage_storage_offset)


def resize(tensor: torch.Tensor, size: Sequence[int], memory_format: torch.memory_format | None = None) -> torch.Tensor:
    """``Tensor.resize_``; where the storage is too small it gets a new one, with the old values in front."""
    stride = _contiguous(size, memory_format)
    like = torch.empty_strided(size, stride, dtype=tensor.dtype, device="meta")
    needed = tensor.storage_offset() + like.untyped_storage().nbytes() // tensor.element_size()
    storage = tensor.untyped_storage()
    held = storage.nbytes() // tensor.element_size()
    if needed > held:
        device = block_of(tensor).device
        larger = new_tensor(device, (needed,), (1,), tensor.dtype)
        if held:
            old = _set_storage(new_tensor(device, (0,), (1,), tensor.dtype), storage, 0, (held,), (1,))
            larger[:held].copy_(old)
        storage = larger.untyped_storage()
    return _set_storage(tensor, storage, tensor.storage_offset(), size, stride)


def attention(  # noqa: PLR0917
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention``: one fused kernel where CUDA has one, else torch's own steps.

    Which fused kernels a device has can be declared in C++ only, so that torch itself would always take the steps.
    """
    tensors = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if learns or enable_gqa or dropout_p or any(tensor.dim() != 4 for tensor in (query, key, value)):
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    return aten._scaled_dot_product_fused_attention_overrideable(
        query, key, value, attn_mask, dropout_p, is_causal, False, scale=scale
    )[0]


def fused_attention(  # noqa: PLR0917
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    """One kernel, which the CPU's fused attention computes; what only a backward pass needs is empty."""
    inputs = [query, key, value, attn_bias]
    device = common_device("scaled_dot_product_attention", inputs, {})
    (batch, heads, length, _), width = query.shape, value.shape[-1]
    # The fused kernels of GPUs lay the result out as (batch, length, heads, width).
    stride = (length * heads * width, width, heads * width, 1)
    try:
        on_host = [None if tensor is None else host_view(tensor) for tensor in inputs]
    except Weightless:
        device.launch(lambda: None)
        made = new_tensor(device, (batch, heads, length, width), stride, query.dtype, absent=True)
    else:
        made = new_tensor(device, (batch, heads, length, width), stride, query.dtype)
        into = host_view(made)

        def kernel() -> None:
            attend = torch.nn.functional.scaled_dot_product_attention
            q, k, v, mask = on_host
            into.copy_(attend(q, k, v, mask, dropout_p, is_causal, scale=scale))

        device.launch(kernel)
    nothing = new_tensor(device, (0,), (1,), torch.float32)
    return made, nothing, nothing, nothing, length, key.shape[2], nothing, nothing, nothing
