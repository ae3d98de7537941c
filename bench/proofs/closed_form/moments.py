"""Mean and variance of what stochastic schedulers draw, without drawing anything.

With a Gaussian denoiser every step is affine in the sample and in the noise that it adds. So one batch gives the full
distribution: its first sample starts at zero and gets no noise, the second starts at one, and each further one gets
one unit of noise at one draw. The final samples are the coefficients, exact to rounding.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.proofs.closed_form.gaussian import MEAN, STD, spread
from bench.proofs.closed_form.networks import VARIANCE_EXPLODING, VARIANCE_PRESERVING, Network, perfect_network
from bench.proofs.closed_form.sampling import build, run
from bench.proofs.closed_form.truth import SMOOTH

STEPS = (24, 48, 96)


@dataclass(frozen=True)
class Sampler:
    """A stochastic scheduler.

    Attributes:
        order: promised order, in the number of steps, of the errors of mean and variance; ``None`` where they should
            be exact with any number of steps.
        consistent: its network is a consistency model.
        denoised: the last step goes to noise level 0; otherwise to that of timestep 0.
    """

    class_name: str
    family: str
    options: Mapping[str, Any]
    order: float | None
    source: str
    step_options: Mapping[str, Any] = field(default_factory=dict)
    consistent: bool = False
    denoised: bool = True

    @property
    def id(self) -> str:
        hidden = ("trained_betas", "clip_sample")
        options = {key: value for key, value in self.options.items() if key not in hidden} | dict(self.step_options)
        return " ".join([self.class_name.removesuffix("Scheduler"), *(f"{key}={options[key]}" for key in options)])


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the final samples per channel, shape (1, 4, 1, 1), and the exact standard deviation.

    A last step to noise level 0 gives the denoiser's expectation, which spreads a little less than the data.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    exact_mean: torch.Tensor
    exact_deviation: torch.Tensor

    @property
    def error(self) -> float:
        """Largest error of a channel's mean or standard deviation, in standard deviations of the data."""
        mean = (self.mean - self.exact_mean).abs() / STD
        deviation = (self.variance.sqrt() - self.exact_deviation).abs() / STD
        return float(torch.maximum(mean, deviation).max())


@contextmanager
def _noise_from(scheduler: Any, draw: Callable[[torch.Size, torch.dtype], torch.Tensor]) -> Iterator[None]:
    # The names that the scheduler's own functions see; its module may have left sys.modules.
    names = inspect.unwrap(type(scheduler).step).__globals__
    real = names["randn_tensor"]

    def drawn(shape: Any, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> torch.Tensor:
        return draw(torch.Size(shape), dtype or torch.float32)

    names["randn_tensor"] = drawn
    try:
        yield
    finally:
        names["randn_tensor"] = real


@dataclass(frozen=True)
class _Ends:
    """True mean and deviation at the first timestep, in units of the initial noise, and at the end."""

    mean: torch.Tensor
    deviation: torch.Tensor
    final_mean: torch.Tensor
    final_deviation: torch.Tensor


def _ends(sampler: Sampler, scheduler: Any, network: Network, steps: int) -> _Ends:
    scheduler.set_timesteps(steps)
    first, last = (network.level(float(np.float32(float(scheduler.timesteps[place])))) for place in (0, -1))
    if sampler.consistent:
        final_mean, final = MEAN, STD
    elif sampler.denoised:
        final_mean, final = MEAN, last.alpha * STD**2 / spread(last)
    else:
        end = network.level(0)
        final_mean, final = end.alpha * MEAN, spread(end)
    if sampler.family == VARIANCE_EXPLODING:
        first = first.variance_exploding
    scale = float(scheduler.init_noise_sigma)
    return _Ends(first.alpha * MEAN / scale, spread(first) / scale, final_mean, final)


def propagate(sampler: Sampler, steps: int) -> Moments:
    """Exact mean and variance after this number of steps, from the exact distribution at the first timestep."""
    scheduler = build(sampler.class_name, sampler.options)
    network = perfect_network(sampler.family, scheduler.config, sampler.consistent)
    draws = 2 * steps + 2
    probes = torch.zeros(2 + draws, 4, 1, 1, dtype=torch.float64)
    probes[1] = 1
    used = 0

    def draw(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        nonlocal used
        noise = torch.zeros(shape, dtype=dtype)
        noise[2 + used] = 1
        used += 1
        return noise

    ends = _ends(sampler, scheduler, network, steps)
    with _noise_from(scheduler, draw):
        final = run(scheduler, network, probes, steps, step_options=sampler.step_options).samples[-1].to(torch.float64)
    offset, slopes = final[:1], final[1:] - final[:1]
    variance = (slopes[:1] * ends.deviation) ** 2 + (slopes[1:] ** 2).sum(dim=0, keepdim=True)
    return Moments(offset + slopes[:1] * ends.mean, variance, ends.final_mean, ends.final_deviation)


def draw_batch(sampler: Sampler, steps: int, count: int, seed: int = 0) -> Moments:
    """Mean and variance of this many samples drawn with real noise."""
    scheduler = build(sampler.class_name, sampler.options)
    network = perfect_network(sampler.family, scheduler.config, sampler.consistent)
    ends = _ends(sampler, scheduler, network, steps)
    noise = torch.randn(count, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    start = ends.mean + ends.deviation * noise
    final = (
        run(scheduler, network, start, steps, step_options=sampler.step_options, seed=seed + 1)
        .samples[-1]
        .to(torch.float64)
    )
    mean, variance = final.mean(dim=0, keepdim=True), final.var(dim=0, keepdim=True)
    return Moments(mean, variance, ends.final_mean, ends.final_deviation)


def statistical_limits(moments: Moments, count: int, sigmas: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
    """How far mean and variance of ``count`` normal samples may be off: ``sigmas`` standard errors of each."""
    return sigmas * (moments.variance / count).sqrt(), sigmas * moments.variance * math.sqrt(2 / (count - 1))


def measured_order(errors: Sequence[float]) -> float:
    """Slope of the error in the number of steps, over ``STEPS``."""
    return math.log(errors[0] / errors[-1]) / math.log(STEPS[-1] / STEPS[0])


def _samplers() -> list[Sampler]:
    vp, ve = VARIANCE_PRESERVING, VARIANCE_EXPLODING
    smooth: dict[str, Any] = {"trained_betas": SMOOTH}
    plain = {**smooth, "clip_sample": False}
    found: list[Sampler] = []
    for spacing in ("leading", "trailing", "linspace"):
        named = {"timestep_spacing": spacing}
        found += [
            Sampler("DDPMScheduler", vp, {**named, **plain}, 1, "Ho et al. 2020, DDPM"),
            Sampler("DDIMScheduler", vp, {**named, **plain}, 1, "Song et al. 2021, DDIM", {"eta": 1.0}),
            Sampler("EulerAncestralDiscreteScheduler", ve, {**named, **smooth}, 1, "Karras et al. 2022"),
        ]
    large = {"variance_type": "fixed_large"}
    found.append(Sampler("DDPMScheduler", vp, {**large, **plain}, 1, "Ho et al. 2020, DDPM"))
    found.append(Sampler("DDIMScheduler", vp, plain, 1, "Song et al. 2021, DDIM", {"eta": 0.5}))
    for order in (1, 2, 3):
        options = {"algorithm_type": "sde-dpmsolver++", "solver_order": order, **smooth}
        source = "Lu et al. 2022, SDE-DPM-Solver++"
        found.append(Sampler("DPMSolverMultistepScheduler", vp, options, min(order, 2), source))
    sde = {"algorithm_type": "sde-dpmsolver++", "lower_order_final": True, **smooth}
    found += [
        Sampler("DPMSolverSinglestepScheduler", vp, sde, 1, "Lu et al. 2022, SDE-DPM-Solver++"),
        Sampler("KDPM2AncestralDiscreteScheduler", ve, smooth, 2, "Lu et al. 2022, DPM-Solver"),
        Sampler("SASolverScheduler", vp, smooth, 1, "Xue et al. 2023, SA-Solver", denoised=False),
        Sampler("LCMScheduler", vp, {}, None, "Song et al. 2023, Consistency Models", consistent=True),
    ]
    return found


SAMPLERS = {sampler.id: sampler for sampler in _samplers()}
