"""The module ``torch.sim``, with the functions of ``torch.cuda`` that libraries ask for."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from . import devices
from .counters import Counters
from .devices import empty_caches as empty_cache
from .devices import set_current
from .random_state import default_generator
from .random_state import seed_all as manual_seed_all
from .settings import NAME
from .streams import Event, Stream, current_stream, default_stream, set_stream

__all__ = ["Event", "Stream", "current_stream", "default_stream", "empty_cache", "manual_seed_all", "set_stream"]

_process = os.getpid()


@dataclass(frozen=True)
class Properties:
    """What ``get_device_properties`` answers; memory in bytes."""

    name: str
    total_memory: int


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def is_simulated() -> bool:
    """What no real device's module has: its times mean nothing."""
    return True


def _is_in_bad_fork() -> bool:
    return os.getpid() != _process


def _lazy_init() -> None:
    pass


def device_count() -> int:
    return devices.count()


def current_device() -> int:
    return devices.current_index()


def set_device(device: Any) -> None:
    set_current(devices.device(device).index)


@contextlib.contextmanager
def device(which: Any) -> Iterator[None]:
    """Makes a device the current one inside the block."""
    before = set_current(devices.device(which).index)
    try:
        yield
    finally:
        set_current(before)


def stream(which: Stream) -> Stream:
    """A context in which the stream is the current one."""
    return which


def get_device_name(device: Any = None) -> str:
    devices.device(device)
    return NAME


def get_device_properties(device: Any = None) -> Properties:
    return Properties(NAME, devices.device(device).memory.total)


def get_device_capability(device: Any = None) -> None:
    """No version of an architecture: there is none."""


def synchronize(device: Any = None) -> None:
    """Raises:
    torch.AcceleratorError: a kernel failed.
    """
    devices.device(device).wait("synchronize")


def counters(device: Any = None) -> Counters:
    """What the device was asked to do since the last ``counters(device).reset()``."""
    return devices.device(device).counters


def mem_get_info(device: Any = None) -> tuple[int, int]:
    return devices.device(device).memory.free_and_total()


def memory_stats(device: Any = None) -> OrderedDict[str, Any]:
    return torch.accelerator.memory_stats(devices.device(device).index)


def memory_allocated(device: Any = None) -> int:
    return devices.device(device).memory.allocated.current


def max_memory_allocated(device: Any = None) -> int:
    return devices.device(device).memory.allocated.peak


def memory_reserved(device: Any = None) -> int:
    return devices.device(device).memory.reserved.current


def max_memory_reserved(device: Any = None) -> int:
    return devices.device(device).memory.reserved.peak


def reset_peak_memory_stats(device: Any = None) -> None:
    devices.device(device).memory.reset_peaks()


def reset_accumulated_memory_stats(device: Any = None) -> None:
    devices.device(device).memory.reset_sums()


def manual_seed(seed: int) -> None:
    default_generator(devices.device()).manual_seed(seed)


def initial_seed() -> int:
    return default_generator(devices.device()).initial_seed()


def get_rng_state(device: Any = None) -> torch.Tensor:
    return default_generator(devices.device(device)).get_state()


def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    default_generator(devices.device(device)).set_state(new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state_all(new_states: list[torch.Tensor]) -> None:
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return True
