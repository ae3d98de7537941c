"""On which device an operator runs, and the error for tensors that are on several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .arguments import tensors_in
from .devices import Device
from .devices import device as device_of
from .settings import TYPE


def _refuse(name: str, one: torch.device, other: torch.device) -> None:
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {one} and {other}! "
        f"({name.removeprefix('aten::')})"
    )


def common_device(name: str, args: Any, kwargs: dict[str, Any], anywhere: Iterable[torch.Tensor] = ()) -> Device:
    """The device of all tensors; where there are none, the one in ``kwargs``, or the current one.

    As on CUDA, CPU tensors without dimensions go with any device.

    Args:
        anywhere: tensors that may be on the CPU.

    Raises:
        RuntimeError: the tensors are on several devices.
    """
    tensors = list(tensors_in((args, kwargs)))
    here = next((tensor.device for tensor in tensors if tensor.device.type == TYPE), None)
    if here is None:
        return device_of(kwargs.get("device"))
    free = set(map(id, anywhere))
    for tensor in tensors:
        if tensor.device != here and not (tensor.device.type == "cpu" and (tensor.dim() == 0 or id(tensor) in free)):
            _refuse(name, here, tensor.device)
    return device_of(here)


def check_written(name: str, written: Iterable[torch.Tensor], device: Device) -> None:
    """Raises:
    RuntimeError: a tensor that the operator writes is on another device.
    """
    for tensor in written:
        if tensor.device != device.torch_device:
            _refuse(name, device.torch_device, tensor.device)
