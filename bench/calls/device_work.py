"""What one call asks of an accelerator: kernels, copies to and from it, and waits of the host that leave it idle.

The simulated accelerator counts them, so they are known on any machine. Real devices keep no such counters.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch


@dataclass(frozen=True)
class DeviceWork:
    """What an accelerator was asked to do.

    Attributes:
        kernels: operators given to the device, copies apart.
        waits: how often the host waited for the device, by cause.
        copies: number of copies by direction, such as ``host to device``.
        copied_bytes: bytes by direction.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kernels: int
    waits: Mapping[str, int]
    copies: Mapping[str, int]
    copied_bytes: Mapping[str, int]


@contextlib.contextmanager
def counted_on_device(pipeline: Any) -> Iterator[list[DeviceWork]]:
    """Yields a list that contains the device's work of the block once it has ended; empty where nothing counts it."""
    device = pipeline._execution_device
    module: Any = getattr(torch, device.type, None)
    found: list[DeviceWork] = []
    if not hasattr(module, "counters"):
        yield found
        return
    torch.accelerator.synchronize(device)
    counters = module.counters(device)
    counters.reset()
    yield found
    found.append(
        DeviceWork(
            kernels=counters.kernels,
            waits=dict(sorted(counters.waits.items())),
            copies=dict(sorted(counters.copies.items())),
            copied_bytes=dict(sorted(counters.copied_bytes.items())),
        )
    )
