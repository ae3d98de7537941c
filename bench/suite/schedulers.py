"""The schedulers that a case may name, and the pipelines in which each one works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

STABLE_DIFFUSION = "stable-diffusion"
DDPM = "ddpm"


def _options(**options: Any) -> Mapping[str, Any]:
    return MappingProxyType(options)


@dataclass(frozen=True)
class SchedulerChoice:
    """A diffusers class, the options it is built with, and the pipeline kinds that call it correctly.

    ``DDPMPipeline`` always passes ``generator=`` to ``step`` and never scales the model's input. So PNDM, UniPC,
    DEIS, Heun, LMS and KDPM2 raise in it, and Euler, Euler ancestral and KDPM2 ancestral run but denoise wrongly.
    TCD and DPM++ single-step end in saturated pixels there.
    """

    class_name: str
    kinds: frozenset[str]
    options: Mapping[str, Any] = field(default_factory=_options)


_ANY = frozenset({STABLE_DIFFUSION, DDPM})
_SD = frozenset({STABLE_DIFFUSION})

SCHEDULERS: Mapping[str, SchedulerChoice] = MappingProxyType(
    {
        "pndm": SchedulerChoice("PNDMScheduler", _SD),
        "ddim": SchedulerChoice("DDIMScheduler", _ANY),
        "ddpm": SchedulerChoice("DDPMScheduler", _ANY),
        "euler": SchedulerChoice("EulerDiscreteScheduler", _SD),
        "euler-ancestral": SchedulerChoice("EulerAncestralDiscreteScheduler", _SD),
        "dpmpp-2m": SchedulerChoice("DPMSolverMultistepScheduler", _ANY),
        "dpmpp-2m-karras": SchedulerChoice("DPMSolverMultistepScheduler", _SD, _options(use_karras_sigmas=True)),
        "unipc": SchedulerChoice("UniPCMultistepScheduler", _SD),
        # Options that real releases broke or fixed while the plain schedulers stayed the same.
        "ddpm-linspace": SchedulerChoice("DDPMScheduler", _ANY, _options(timestep_spacing="linspace")),
        "ddpm-trailing": SchedulerChoice("DDPMScheduler", _ANY, _options(timestep_spacing="trailing")),
        "dpmpp-2m-lu": SchedulerChoice("DPMSolverMultistepScheduler", _SD, _options(use_lu_lambdas=True)),
        "dpmpp-2m-exponential": SchedulerChoice(
            "DPMSolverMultistepScheduler", _SD, _options(use_exponential_sigmas=True)
        ),
        "dpmpp-2m-beta": SchedulerChoice("DPMSolverMultistepScheduler", _SD, _options(use_beta_sigmas=True)),
        "dpmpp-3m-sde": SchedulerChoice(
            "DPMSolverMultistepScheduler", _SD, _options(algorithm_type="sde-dpmsolver++", solver_order=3)
        ),
        "heun": SchedulerChoice("HeunDiscreteScheduler", _SD),
        "lms": SchedulerChoice("LMSDiscreteScheduler", _SD),
        "deis": SchedulerChoice("DEISMultistepScheduler", _SD),
        "dpmpp-singlestep": SchedulerChoice("DPMSolverSinglestepScheduler", _SD),
        "kdpm2": SchedulerChoice("KDPM2DiscreteScheduler", _SD),
        "kdpm2-ancestral": SchedulerChoice("KDPM2AncestralDiscreteScheduler", _SD),
        "sa-solver": SchedulerChoice("SASolverScheduler", _ANY),
        "lcm": SchedulerChoice("LCMScheduler", _ANY),
        "tcd": SchedulerChoice("TCDScheduler", _SD),
    }
)


def allowed_schedulers(kind: str) -> list[str]:
    return [name for name, choice in SCHEDULERS.items() if kind in choice.kinds]
