"""Copies to, from and between simulated devices, and who waits for them; pinned memory of the host."""

from __future__ import annotations

from typing import Any

import torch

from .counters import ON_DEVICE, TO_DEVICE, TO_HOST
from .devices import Device, launch_across
from .settings import TYPE
from .storage import Weightless, block_of, forget, host_view


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copies as CUDA does.

    To the device the host waits, unless ``non_blocking``: then pinned memory is read later, other memory immediately.
    To the host it waits, unless ``non_blocking`` and the target is pinned. On the device it never waits.
    """
    nbytes = target.numel() * target.element_size()
    if target.device.type != TYPE:
        return _to_host(block_of(source).device, source, target, nbytes, non_blocking)
    device = block_of(target).device
    if source.device.type == TYPE:
        return _on_device(block_of(source).device, device, source, target, nbytes)
    return _to_device(device, source, target, nbytes, non_blocking)


def _to_device(
    device: Device, source: torch.Tensor, target: torch.Tensor, nbytes: int, non_blocking: bool
) -> torch.Tensor:
    device.counters.count_copy(TO_DEVICE, nbytes)
    staged = source.detach() if non_blocking and is_pinned(source) else source.detach().clone()
    try:
        into = host_view(target)
    except Weightless:
        device.queue.launch(lambda: None)
    else:
        device.queue.launch(lambda: into.copy_(staged))
    if not non_blocking:
        device.wait("copy to device")
    return target


def _to_host(
    device: Device, source: torch.Tensor, target: torch.Tensor, nbytes: int, non_blocking: bool
) -> torch.Tensor:
    device.counters.count_copy(TO_HOST, nbytes)
    into = target.detach()
    try:
        values = host_view(source)
    except Weightless:
        device.queue.launch(into.zero_)
    else:
        device.queue.launch(lambda: into.copy_(values))
    if not (non_blocking and is_pinned(target)):
        device.wait("copy to host")
    return target


def _on_device(
    source_device: Device, device: Device, source: torch.Tensor, target: torch.Tensor, nbytes: int
) -> torch.Tensor:
    device.counters.count_copy(ON_DEVICE, nbytes)
    try:
        values, into = host_view(source), host_view(target)
    except Weightless:
        forget(target)

        def action() -> object:
            return None
    else:

        def action() -> object:
            return into.copy_(values)

    if source_device is device:
        device.queue.launch(action)
    else:
        launch_across(source_device, device, action)
    return target


def to_copy(
    tensor: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """``Tensor.to``; a copy to the host that is not to block goes to pinned memory, as on CUDA."""
    device = device or tensor.device
    made = torch.empty_like(
        tensor,
        dtype=dtype or tensor.dtype,
        device=device,
        memory_format=memory_format or torch.preserve_format,
    )
    if non_blocking and device.type == "cpu":
        made.untyped_storage().pinned = True
    return made.copy_(tensor, non_blocking=non_blocking)


def item(tensor: torch.Tensor) -> Any:
    """``Tensor.item``: always waits."""
    device = block_of(tensor).device
    device.counters.count_copy(TO_HOST, tensor.element_size())
    device.wait("item")
    try:
        return host_view(tensor).item()
    except Weightless:
        return torch.zeros((), dtype=tensor.dtype, device="cpu").item()


def is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
    """Whether the device may read the CPU tensor while the host continues."""
    return getattr(tensor.untyped_storage(), "pinned", False)


def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    """A copy of the CPU tensor that counts as pinned; no page is locked."""
    made = tensor.detach().clone(memory_format=torch.preserve_format)
    made.untyped_storage().pinned = True
    return made
