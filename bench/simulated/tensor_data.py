"""``tensor.data = other``: lets the same tensor move between the CPU and a simulated device, as offloading does."""

from __future__ import annotations

import torch

from .settings import TYPE

_original = torch._C.TensorBase.data


def _get(tensor: torch.Tensor) -> torch.Tensor:
    return _original.__get__(tensor)


def _set(tensor: torch.Tensor, other: torch.Tensor) -> None:
    if (tensor.device.type == TYPE) == (other.device.type == TYPE):
        _original.__set__(tensor, other)
        return
    # torch refuses another type of device, but lets two tensors exchange what is behind them.
    torch._C._swap_tensor_impl(tensor, other.detach().requires_grad_(tensor.requires_grad))


def take_over() -> None:
    """Replaces torch's setter with this one."""
    torch.Tensor.data = property(_get, _set)
