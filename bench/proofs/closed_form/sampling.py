"""Runs a scheduler with a perfect network, as pipelines call schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import BenchError
from bench.proofs.closed_form.networks import Network
from bench.proofs.closed_form.rounding import Twin


class NotInDiffusers(BenchError):
    """This release of diffusers has no such scheduler, or the scheduler no such option."""


@dataclass(frozen=True)
class Path:
    """One run of a scheduler.

    Attributes:
        samples: the sample before each call of the network, then the final one; shape (n, 4, 1, 1) each.
        timesteps: one for each call.
    """

    samples: tuple[torch.Tensor, ...]
    timesteps: tuple[float, ...]


def _refuse_unknown(options: Mapping[str, Any], function: Any, owner: str) -> None:
    known = inspect.signature(function).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise NotInDiffusers(f"{owner} does not know {', '.join(unknown)}")


def build(class_name: str, options: Mapping[str, Any]) -> Any:
    """A new scheduler with these options.

    Raises:
        NotInDiffusers: no such class in this release, or no such option, which some constructors silently ignore.
    """
    import diffusers

    found = getattr(diffusers, class_name, None)
    if found is None:
        raise NotInDiffusers(f"diffusers {diffusers.__version__} has no {class_name}")
    _refuse_unknown(options, found.__init__, class_name)
    return found(**options)


def run(
    scheduler: Any,
    network: Network,
    noise: torch.Tensor,
    steps: int,
    *,
    step_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    twin: Twin | None = None,
) -> Path:
    """Samples from standard normal noise to data.

    Args:
        noise: shape (n, 4, 1, 1); its dtype is that of the run.
        step_options: keywords of ``step``.
        seed: of the noise that stochastic schedulers add.
        twin: rounds tables and answers differently.

    Raises:
        NotInDiffusers: ``step`` has no such keyword.
        Exception: whatever the scheduler raises.
    """
    chosen = dict(step_options or {})
    _refuse_unknown(chosen, scheduler.step, f"{type(scheduler).__name__}.step")
    if "generator" in inspect.signature(scheduler.step).parameters:
        chosen["generator"] = torch.Generator().manual_seed(seed)
    if twin:
        twin.tables_of_training(scheduler)
    scheduler.set_timesteps(steps)
    if twin:
        twin.tables_of_sampling(scheduler)
    sample = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    sample = sample.to(noise.dtype)
    samples, timesteps = [sample], []
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        answer = network(scaled, timestep)
        answer = twin.rounded(answer) if twin else answer
        sample = scheduler.step(answer, timestep, sample, **chosen).prev_sample
        samples.append(sample)
        timesteps.append(float(timestep))
    return Path(tuple(samples), tuple(timesteps))
