"""What is below ``torch.accelerator``: torch has no hooks there for devices that are written in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import devices, streams
from .random_state import default_generator
from .storage import DTYPES

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_accelerator_setDeviceIndex": devices.set_current,
    "_accelerator_getDeviceIndex": devices.current_index,
    "_accelerator_exchangeDevice": devices.set_current,
    "_accelerator_maybeExchangeDevice": devices.set_current,
    "_accelerator_setStream": streams.set_stream,
    "_accelerator_getStream": streams.current_stream,
    "_accelerator_synchronizeDevice": lambda index: devices.device(index).wait("synchronize"),
    "_accelerator_isAllocatorInitialized": lambda: True,
    "_accelerator_emptyCache": devices.empty_caches,
    "_accelerator_emptyHostCache": lambda: None,
    "_accelerator_getDeviceStats": lambda index: devices.device(index).memory.statistics(),
    "_accelerator_resetPeakStats": lambda index: devices.device(index).memory.reset_peaks(),
    "_accelerator_resetAccumulatedStats": lambda index: devices.device(index).memory.reset_sums(),
    "_accelerator_getMemoryInfo": lambda index: devices.device(index).memory.free_and_total(),
    "_accelerator_getDeviceCapability": lambda index: {"supported_dtypes": set(DTYPES)},
    "_accelerator_getDefaultGenerator": lambda index: default_generator(devices.device(index)),
}


def take_over() -> None:
    """Replaces torch's answers with those of this device."""
    for name, function in FUNCTIONS.items():
        setattr(torch._C, name, function)
