"""Rounding twins of a scheduler's run: every table and every answer of the network rounded differently.

Libraries of other processors differ in the last digit of logarithms and exponentials, with which schedulers make their
tables. A twin multiplies each value of the tables, and each answer of the network, by ``1 + roundoff * u`` with ``u``
uniform in [-1, 1] and rounds it back to its dtype. How far twins move the final samples is the condition of a setting.
"""

from __future__ import annotations

from typing import Any

import torch

# What a scheduler computes in floating point, by the names that diffusers gives it.
_OF_TRAINING = ("betas", "alphas", "alphas_cumprod", "alpha_t", "sigma_t", "lambda_t")
_OF_SAMPLING = ("sigmas", "sigmas_interpol", "timesteps")


class Twin:
    """One twin of a run.

    Args:
        number: seeds its noise.
    """

    def __init__(self, number: int) -> None:
        self._generator = torch.Generator().manual_seed(number)

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """The values, each off by at most one unit roundoff of itself, in their dtype; equal ones stay equal."""
        different, places = torch.unique(values, return_inverse=True)
        noise = torch.rand(different.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        roundoff = torch.finfo(values.dtype).eps / 2
        return (different.double() * (1 + roundoff * noise)).to(values.dtype)[places]

    def tables_of_training(self, scheduler: Any) -> None:
        """Changes what the constructor computed."""
        self._change(scheduler, _OF_TRAINING)

    def tables_of_sampling(self, scheduler: Any) -> None:
        """Changes what ``set_timesteps`` computed."""
        self._change(scheduler, _OF_SAMPLING)

    def _change(self, scheduler: Any, names: tuple[str, ...]) -> None:
        for name in names:
            values = getattr(scheduler, name, None)
            if isinstance(values, torch.Tensor) and values.is_floating_point():
                setattr(scheduler, name, self.rounded(values))
