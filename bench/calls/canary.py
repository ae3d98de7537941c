"""A fixed piece of work that is timed before and after a run: if it takes longer then, the machine got slower."""

from __future__ import annotations

import statistics

import torch

from bench.calls.device import Device, clock

# Edge of the matrices: large enough that an accelerator computes for longer than the kernel takes to start.
SIZES = {"cpu": 512}
SIZE_ON_ACCELERATORS = 4096
FEWEST = 5


def time_canary(device: Device, seconds: float = 0.2) -> float:
    """The median seconds of a matrix product in float32, repeated for that many seconds.

    Draws no random numbers from torch's generators and leaves no memory behind.
    """
    size = SIZES.get(device.type, SIZE_ON_ACCELERATORS)
    numbers = torch.Generator().manual_seed(0)
    matrix = torch.randn(size, size, generator=numbers, dtype=torch.float32).to(device.torch_device)
    samples: list[float] = []
    matrix @ matrix
    while len(samples) < FEWEST or sum(samples) < seconds:
        began = clock(device)
        matrix @ matrix
        samples.append(clock(device) - began)
    del matrix
    device.empty_cache()
    return statistics.median(samples)
