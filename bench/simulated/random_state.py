"""Random numbers: the default generator of each device, and generators of the user's own."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch

from .devices import Device, all_devices
from .devices import device as device_of
from .settings import TYPE

_CpuGenerator: Any = torch._C.Generator
_CpuGeneratorType: Any = type(_CpuGenerator)
# Operators get another Python object for the same generator: only the address says which one it is.
_by_address: weakref.WeakValueDictionary[int, Generator] = weakref.WeakValueDictionary()


class _EitherKind(_CpuGeneratorType):
    """Generators of the CPU count as instances of ``torch.Generator`` as before."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _CpuGenerator)


class Generator(_CpuGenerator, metaclass=_EitherKind):
    """Replaces ``torch.Generator``: on a simulated device it draws the numbers of the CPU's generator.

    Queued operators draw from it later, so each method waits for the device first; a real generator counts on the host
    and need not, and so these waits are not counted.
    """

    def __new__(cls, device: Any = "cpu") -> Any:
        device = torch.device(device)
        if device.type != TYPE:
            return _CpuGenerator(device)
        made = super().__new__(cls)
        made._on = device_of(device)
        _by_address[made._cdata] = made
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self._on.torch_device

    def manual_seed(self, seed: int) -> Generator:
        self._on.queue.drain()
        super().manual_seed(seed)
        return self

    def seed(self) -> int:
        self._on.queue.drain()
        return super().seed()

    def get_state(self) -> torch.Tensor:
        self._on.queue.drain()
        return super().get_state()

    def set_state(self, state: torch.Tensor) -> Generator:
        self._on.queue.drain()
        super().set_state(state)
        return self


@functools.cache
def default_generator(device: Device) -> Generator:
    """The generator of operators that are given none."""
    return Generator(device.torch_device)


def generator_for(device: Device, given: torch.Generator | None) -> torch.Generator:
    """The generator of the CPU's kernel: the given one, or the default one of the device.

    Raises:
        RuntimeError: the given one is of another device.
    """
    if given is None:
        return default_generator(device)
    known = _by_address.get(given._cdata)
    if known is None or known.device != device.torch_device:
        found = "cpu" if known is None else known.device
        raise RuntimeError(f"Expected a '{device.torch_device}' device type for generator but found '{found}'")
    return given


def seed_all(seed: int) -> None:
    """Seeds the default generators of all devices."""
    for device in all_devices():
        default_generator(device).manual_seed(seed)
