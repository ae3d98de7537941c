"""Builds a new scheduler from its name, with the installed library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bench.errors import BenchError
from bench.suite.schedulers import SCHEDULERS, STABLE_DIFFUSION

# A PNDM configuration has no clip_sample, and DDIM and DDPM would then clip latents as if they were pixels.
_LATENTS_ARE_NOT_PIXELS = {"DDIMScheduler": {"clip_sample": False}, "DDPMScheduler": {"clip_sample": False}}
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class UnknownSchedulerOption(BenchError):
    """A scheduler of the installed library does not know an option."""


def scheduler_options(name: str, kind: str) -> dict[str, Any]:
    """The options that the name of a scheduler implies in a pipeline of this kind."""
    choice = SCHEDULERS[name]
    needed = _LATENTS_ARE_NOT_PIXELS.get(choice.class_name, {}) if kind == STABLE_DIFFUSION else {}
    return dict(choice.options) | needed


def build_scheduler(name: str, kind: str, config: Mapping[str, Any], more: Mapping[str, Any] = _NO_OPTIONS) -> Any:
    """A new scheduler of this name with the betas of ``config``, the configuration of the checkpoint's own scheduler.

    Options, those of the name and ``more``, are passed as keywords: merged into the configuration they would be
    dropped where its ``_use_default_values`` lists them.

    Raises:
        UnknownSchedulerOption: the scheduler does not know an option, which diffusers would silently ignore.
    """
    import diffusers

    choice = SCHEDULERS[name]
    options = scheduler_options(name, kind) | dict(more)
    scheduler = getattr(diffusers, choice.class_name).from_config(config, **options)
    unknown = [key for key in options if key not in scheduler.config]
    if unknown:
        raise UnknownSchedulerOption(
            f"{choice.class_name} of diffusers {diffusers.__version__} does not know {', '.join(unknown)}."
        )
    return scheduler
