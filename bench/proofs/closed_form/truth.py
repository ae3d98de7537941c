"""What each method promises, and how far its samples are from the exact solution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.proofs.closed_form.gaussian import STD, Level, denoise, flow
from bench.proofs.closed_form.networks import (
    ARC,
    EDM,
    FLOW,
    VARIANCE_EXPLODING,
    VARIANCE_PRESERVING,
    Network,
    perfect_network,
)
from bench.proofs.closed_form.outcomes import NOISE
from bench.proofs.closed_form.rounding import Twin
from bench.proofs.closed_form.sampling import build, run

DENOISED, LAST, FINAL_ALPHA, DATA = "denoised", "last sigma", "final alpha", "data"
STEPS = (12, 24, 48, 96)
SLACK = 0.25  # an order is estimated from a finite number of steps
TWINS = 8
# An order is measured from errors at least this many times larger than what rounding twins change.
ABOVE_ROUNDING = 4.0


class Smooth(list[float]):
    """Betas of 1000 training steps whose noise ratio rises evenly in its logarithm, from 0.05 to 20.

    The usual schedules start with a noise level that grows like the square root of time, which hides every order above
    one half behind the first few timesteps.
    """

    def __init__(self) -> None:
        ratios = np.geomspace(0.05, 20, 1000)
        signal = 1 / (1 + ratios**2)
        super().__init__([1 - signal[0], *(1 - signal[1:] / signal[:-1])])

    def __repr__(self) -> str:
        return "smooth"


SMOOTH = Smooth()


@dataclass(frozen=True)
class Method:
    """A deterministic scheduler, and the order that its paper promises.

    Attributes:
        end: what the final sample is compared with: the ODE's solution at the last timestep and then the denoiser's
            expectation, as a last step to noise level 0 is meant (``DENOISED``), the solution at the scheduler's last
            sigma or at its final alpha, or the solution at noise level 0 (``DATA``).
        order: of the error in the number of steps.
        source: where the order comes from.
    """

    class_name: str
    family: str
    options: Mapping[str, Any]
    end: str
    order: float
    source: str
    steps: Sequence[int] = STEPS
    step_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        hidden = ("trained_betas", "clip_sample", "set_alpha_to_one", "tau_func")
        named = [f"{key}={value}" for key, value in self.options.items() if key not in hidden]
        return " ".join([self.class_name.removesuffix("Scheduler"), *named])


def _levels(method: Method, network: Network, times: Sequence[float]) -> list[Level]:
    levels = [network.level(float(np.float32(time))) for time in times]
    return [level.variance_exploding for level in levels] if method.family == VARIANCE_EXPLODING else levels


def _end_level(method: Method, scheduler: Any) -> Level:
    if method.end == DATA:
        return Level(1.0, 0.0)
    if method.end == FINAL_ALPHA:
        signal = float(scheduler.final_alpha_cumprod)
        return Level(math.sqrt(signal), math.sqrt(1 - signal))
    ratio = float(scheduler.sigmas[-1])
    if method.family in (VARIANCE_EXPLODING, EDM):
        return Level(1.0, ratio)
    return Level(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def error(method: Method, steps: int, twin: int | None = None) -> float:
    """Largest distance of a final sample from the exact one, in standard deviations of the data.

    Args:
        twin: number of a rounding twin; ``None`` for the method itself.

    Raises:
        NotInDiffusers: not in this release of diffusers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = build(method.class_name, method.options)
        network = perfect_network(method.family, scheduler.config)
        rounded = None if twin is None else Twin(twin)
        path = run(scheduler, network, NOISE, steps, step_options=method.step_options, twin=rounded)
    first, last = _levels(method, network, (path.timesteps[0], path.timesteps[-1]))
    if method.end == DENOISED:
        exact = denoise(flow(path.samples[0].to(torch.float64), first, last), last)
    else:
        exact = flow(path.samples[0].to(torch.float64), first, _end_level(method, scheduler))
    return float(((path.samples[-1].to(torch.float64) - exact) / STD).abs().max())


def above_rounding(method: Method, errors: Sequence[float]) -> int:
    """How many of the step counts, from the first on, have an error that is more than rounding.

    With smaller steps the error of the method falls below that of float32: there an order means nothing.

    Args:
        errors: of each of the method's step counts.
    """
    for number, (steps, size) in enumerate(zip(method.steps, errors, strict=True)):
        rounding = max(abs(error(method, steps, twin) - size) for twin in range(TWINS))
        if not size > ABOVE_ROUNDING * rounding:
            return number
    return len(errors)


def measured_order(errors: Sequence[float], steps: Sequence[int]) -> float:
    """Slope of the error in the number of steps over the last three counts; ``nan`` where an error is no number."""
    if not all(math.isfinite(one) and one > 0 for one in errors):
        return math.nan
    return math.log(errors[-3] / errors[-1]) / math.log(steps[-1] / steps[-3])


def _ode(_: float) -> float:
    """SA-Solver without noise."""
    return 0.0


SOLVER, SINGLE, UNIPC = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"
DDIM, PNDM, DEIS, LMS = "DDIMScheduler", "PNDMScheduler", "DEISMultistepScheduler", "LMSDiscreteScheduler"
EULER, HEUN, KDPM2 = "EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"
SA, EDM_SOLVER = "SASolverScheduler", "EDMDPMSolverMultistepScheduler"
VP, VE = VARIANCE_PRESERVING, VARIANCE_EXPLODING
SMOOTH_BETAS: Mapping[str, Any] = {"trained_betas": SMOOTH}
NO_CLIP: Mapping[str, Any] = {**SMOOTH_BETAS, "clip_sample": False, "set_alpha_to_one": False}
BY_DDIM, BY_PNDM, BY_DEIS = "Song et al. 2021, DDIM", "Liu et al. 2022, PNDM", "Zhang and Chen 2023, DEIS"
BY_EDM, BY_DPM = "Karras et al. 2022, EDM", "Lu et al. 2022, DPM-Solver"
BY_DPMPP, BY_UNIPC = "Lu et al. 2022, DPM-Solver++", "Zhao et al. 2023, UniPC, corrector included"
STARTED = "; its first step is one of order 1"


def _by_spacing() -> Iterator[Method]:
    for spacing in ("leading", "trailing", "linspace"):
        plain, no_clip = ({"timestep_spacing": spacing, **rest} for rest in (SMOOTH_BETAS, NO_CLIP))
        yield Method(DDIM, VP, no_clip, FINAL_ALPHA, 1, BY_DDIM)
        yield Method(PNDM, VP, plain, FINAL_ALPHA, 2, BY_PNDM)
        yield Method(EULER, VE, plain, DENOISED, 1, BY_EDM)
        yield Method(HEUN, VE, plain, DENOISED, 2, BY_EDM)
        yield Method(KDPM2, VE, plain, DENOISED, 2, BY_DPM)
        yield Method(SOLVER, VP, plain, DENOISED, 2, BY_DPMPP)
        yield Method(UNIPC, VP, plain, DENOISED, 3, BY_UNIPC)
        yield Method(DEIS, VP, plain, LAST, 2, BY_DEIS)


def _by_prediction() -> Iterator[Method]:
    for prediction in ("v_prediction", "sample"):
        plain, no_clip = ({"prediction_type": prediction, **rest} for rest in (SMOOTH_BETAS, NO_CLIP))
        yield Method(DDIM, VP, no_clip, FINAL_ALPHA, 1, BY_DDIM)
        yield Method(EULER, VE, plain, DENOISED, 1, BY_EDM)
        yield Method(HEUN, VE, plain, DENOISED, 2, BY_EDM)
        yield Method(SOLVER, VP, plain, DENOISED, 2, BY_DPMPP)
        yield Method(UNIPC, VP, plain, DENOISED, 3, BY_UNIPC)
    yield Method(PNDM, VP, {"prediction_type": "v_prediction", **SMOOTH_BETAS}, FINAL_ALPHA, 2, BY_PNDM)


def _by_sigmas() -> Iterator[Method]:
    for sigmas in ("use_karras_sigmas", "use_exponential_sigmas"):
        plain = {sigmas: True, **SMOOTH_BETAS}
        yield Method(EULER, VE, plain, DENOISED, 1, BY_EDM)
        yield Method(HEUN, VE, plain, DENOISED, 2, BY_EDM)
        yield Method(KDPM2, VE, plain, DENOISED, 2, BY_DPM)
        yield Method(SOLVER, VP, plain, DENOISED, 2, BY_DPMPP)
        yield Method(UNIPC, VP, plain, DENOISED, 3, BY_UNIPC)


def _by_order() -> Iterator[Method]:
    last = {"final_sigmas_type": "sigma_min"}
    yield Method(PNDM, VP, {"skip_prk_steps": True, **SMOOTH_BETAS}, FINAL_ALPHA, 2, BY_PNDM)
    yield Method(LMS, VE, SMOOTH_BETAS, DATA, 2, "Adams-Bashforth of order 4" + STARTED, steps=(8, 16, 32))
    yield Method(SOLVER, VP, {"solver_order": 1, **SMOOTH_BETAS}, DENOISED, 1, BY_DPM)
    yield Method(SOLVER, VP, {"solver_order": 3, **SMOOTH_BETAS}, DENOISED, 2, BY_DPMPP + STARTED)
    yield Method(SOLVER, VP, {"algorithm_type": "dpmsolver", **last, **SMOOTH_BETAS}, LAST, 2, BY_DPM)
    yield Method(SOLVER, VP, {"solver_type": "heun", **SMOOTH_BETAS}, DENOISED, 2, BY_DPMPP)
    for order in (1, 2, 3):
        options = {"solver_order": order, "lower_order_final": True, **SMOOTH_BETAS}
        yield Method(SINGLE, VP, options, DENOISED, order, BY_DPMPP)
    yield Method(UNIPC, VP, {"solver_order": 1, **SMOOTH_BETAS}, DENOISED, 2, BY_UNIPC)
    yield Method(
        UNIPC, VP, {"solver_order": 3, **SMOOTH_BETAS}, DENOISED, 3, BY_UNIPC + "; its first step is one of order 2"
    )
    yield Method(UNIPC, VP, {"solver_type": "bh1", **last, **SMOOTH_BETAS}, LAST, 3, BY_UNIPC)
    yield Method(UNIPC, VP, {"predict_x0": False, **last, **SMOOTH_BETAS}, LAST, 3, BY_UNIPC)
    yield Method(DEIS, VP, {"solver_order": 1, **SMOOTH_BETAS}, LAST, 1, BY_DEIS)
    yield Method(DEIS, VP, {"solver_order": 3, **SMOOTH_BETAS}, LAST, 2, BY_DEIS + STARTED)
    for order in (1, 2, 3):
        options = {"predictor_order": order, "corrector_order": order, "tau_func": _ode, **SMOOTH_BETAS}
        yield Method(SA, VP, options, LAST, min(order, 2), "Xue et al. 2023, SA-Solver, without noise")


def _own_schedules() -> Iterator[Method]:
    """Schedulers that take no betas."""
    yield Method("IPNDMScheduler", ARC, {}, DATA, 2, "as PNDM")
    for schedule in ("karras", "exponential"):
        named = {"sigma_schedule": schedule}
        yield Method("EDMEulerScheduler", EDM, named, DENOISED, 1, BY_EDM)
        yield Method(EDM_SOLVER, EDM, {"solver_order": 1, **named}, DENOISED, 1, BY_DPMPP)
        yield Method(EDM_SOLVER, EDM, {"solver_order": 2, **named}, DENOISED, 2, BY_DPMPP)
        many = (48, 96, 192, 384)  # the error changes sign between 12 and 48
        yield Method(EDM_SOLVER, EDM, {"solver_order": 3, **named}, DENOISED, 2, BY_DPMPP + STARTED, steps=many)
    for shift in (1.0, 3.0):
        yield Method("FlowMatchEulerDiscreteScheduler", FLOW, {"shift": shift}, DENOISED, 1, "Euler's method")
    yield Method("FlowMatchHeunDiscreteScheduler", FLOW, {"shift": 1.0}, DENOISED, 2, "Heun's method")


_ALL = (_by_spacing, _by_prediction, _by_sigmas, _by_order, _own_schedules)
METHODS = {method.id: method for methods in _ALL for method in methods()}
