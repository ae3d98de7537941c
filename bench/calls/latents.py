"""The latents of a call, step by step.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch

from bench.errors import BenchError

MOST_BYTES = 2**28


class TooLarge(BenchError):
    """The latents of all steps take too much memory to be kept."""


@contextlib.contextmanager
def kept_latents(scheduler: Any, most_bytes: int = MOST_BYTES) -> Iterator[list[torch.Tensor]]:
    """Collects the latents of a call as float32 on the CPU.

    The list gets the latents before the first step, then for each step what the denoiser predicts and the latents after
    the step. The class is patched, so that steps of other schedulers of the same class are collected too: some
    scenarios make several calls, each with a new scheduler.

    Raises:
        TooLarge: within the block, when the tensors take more than ``most_bytes``.
    """
    kept: list[torch.Tensor] = []
    owner = type(scheduler)
    inherited, own = owner.step, owner.__dict__.get("step")

    def keep(tensor: torch.Tensor) -> None:
        kept.append(tensor.detach().to("cpu", torch.float32, copy=True).contiguous())
        if sum(one.numel() for one in kept) * 4 > most_bytes:
            raise TooLarge(f"the latents of its steps take more than {most_bytes / 2**20:,.0f} MiB")

    @functools.wraps(inherited)  # a pipeline looks at its parameters
    def step(self: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        if not kept:
            keep(sample)
        keep(model_output)
        output = inherited(self, model_output, timestep, sample, *args, **kwargs)
        keep(output[0] if isinstance(output, tuple) else output.prev_sample)
        return output

    owner.step = step
    try:
        yield kept
    finally:
        if own is None:
            del owner.step
        else:
            owner.step = own
