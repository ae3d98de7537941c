"""On which device a pipeline's denoiser runs.

It also runs under old libraries, in the upgrade check's worker, so it imports little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from bench.calls.observe import around
from bench.errors import BenchError


class WrongDevice(BenchError):
    """The denoiser ran on another device than the case was asked for."""


@contextlib.contextmanager
def denoises_on(device: torch.device, denoiser: Any) -> Iterator[None]:
    """Checks where the calls of a denoiser in the block run: its output is where it was computed.

    Where its weights are means nothing: offloaded ones rest on the processor and are moved for each call.

    Raises:
        WrongDevice: one ran on another device; after the block.
    """
    seen: set[torch.device] = set()

    def note(output: Any) -> None:
        seen.add(_prediction(output).device)

    with around(denoiser, "__call__", after=note):
        yield
    others = sorted(str(one) for one in seen - {device})
    if others:
        raise WrongDevice(f"the denoiser ran on {' and '.join(others)} instead of {device}: its pictures say nothing.")


def _prediction(output: Any) -> torch.Tensor:
    """The tensor of a denoiser's output: alone, in a tuple, or as ``sample``."""
    if isinstance(output, torch.Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.sample
