"""Rounding twins: the call of a case with every output of its denoiser rounded differently.

Two processors that run the same network differ in the last digits of its output, and the sampler carries that on to
the picture. A twin makes such a difference on purpose: each value of the output is multiplied by ``1 + roundoff * u``
with ``u`` uniform in [-1, 1], and rounded back to its dtype. One machine can make any number of twins, so they show
how far a case moves on machines that are not at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook

# TF32 and float16 have 10 bits after the first digit, so their largest relative rounding error is 2**-11.
COARSE_ROUNDOFF = 2.0**-11
# The half dtypes round the output of each layer, so two processors differ in its last place. A float32 output is a sum
# of thousands of products without such steps, and kernels differ by several units roundoff (2**-24): twins of one unit
# changed an eighth to a half of the values that another memory layout changes in sensitive cases.
FLOAT32_ROUNDOFF = 2.0**-21
_FIRST_SEED = 1000


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of rounding to this dtype: half the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def perturbed(values: torch.Tensor, roundoff: float, generator: torch.Generator) -> torch.Tensor:
    """The values, each off by at most ``roundoff`` of itself, in their own dtype."""
    noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return (values.double() * (1 + roundoff * noise.to(values.device))).to(values.dtype)


@contextlib.contextmanager
def rounded_differently(denoiser: torch.nn.Module, roundoff: float, twin: int) -> Iterator[list[int]]:
    """Perturbs each output of the denoiser, and of copies of it, while the block runs.

    Args:
        roundoff: largest relative change of a value.
        twin: number of the twin, which seeds its noise.

    Yields:
        The number of values that each call changed, which shows whether it had an effect.
    """
    generator = torch.Generator("cpu").manual_seed(_FIRST_SEED + twin)
    changed: list[int] = []

    def change(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        # A scenario may save a pipeline and load it again, so the class is compared, not the instance.
        if type(module) is not type(denoiser):
            return None
        first = output[0]
        other = perturbed(first, roundoff, generator)
        changed.append(int((other != first).sum()))
        return (other, *output[1:]) if isinstance(output, tuple) else type(output)(sample=other)

    hook = register_module_forward_hook(change)
    try:
        yield changed
    finally:
        hook.remove()
