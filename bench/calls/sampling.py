"""From a ready pipeline and a case's seeds to its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from bench.calls.optimizations import changed_arguments
from bench.calls.pipelines import LoadedPipeline
from bench.calls.placement import denoises_on
from bench.calls.scenarios import WAYS, Call
from bench.calls.schedulers import build_scheduler
from bench.calls.tasks import pipeline_for, task_arguments
from bench.errors import BenchError
from bench.suite.schedulers import DDPM
from bench.suite.tasks import TEXT_TO_IMAGE

if TYPE_CHECKING:
    from bench.suite.case import Case


class BrokenPicture(BenchError):
    """The pipeline returned something that is not a picture."""


def generators(seeds: list[int]) -> list[torch.Generator]:
    """One new generator per image, on the CPU: a seed then means the same noise on every device and in every batch."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def call_arguments(case: Case) -> dict[str, Any]:
    """Arguments of one pipeline call, with new generators.

    The output is tensors: they show NaN where a converted picture is merely black, and ``DDPMPipeline`` cannot make
    pictures of bfloat16 itself.
    """
    settings = case.settings
    arguments: dict[str, Any] = {
        "num_inference_steps": settings.steps,
        "generator": generators(settings.seeds),
        "output_type": "pt",
    }
    if case.model.kind == DDPM:
        return arguments | {"batch_size": settings.images} | settings.call
    arguments |= {"prompt": list(settings.prompts), "guidance_scale": settings.guidance}
    arguments |= {"height": settings.size, "width": settings.size} if settings.size else {}
    return arguments | settings.call


def new_scheduler(loaded: LoadedPipeline, case: Case) -> Any:
    """A new scheduler for the case."""
    settings = case.settings
    return build_scheduler(settings.scheduler, case.model.kind, loaded.scheduler_config, settings.options)


def prepare_call(loaded: LoadedPipeline, case: Case) -> dict[str, Any]:
    """Gives the pipeline a new scheduler and returns the arguments of one call; nothing is left of earlier calls.

    This is the plain call of the model's own pipeline; ``prepared`` makes that of any task and scenario.
    """
    loaded.pipeline.scheduler = new_scheduler(loaded, case)
    return changed_arguments(loaded.pipeline, case.settings.optimizations, call_arguments(case))


@dataclass(frozen=True)
class Prepared:
    """Everything that a case does, ready to run; calling it returns the images as the pipeline gives them.

    Raises:
        WrongDevice: when called, if the denoiser does not run on ``device``.
    """

    pipeline: Any
    make: Callable[[], Any]
    device: torch.device

    def __call__(self) -> Any:
        with denoises_on(self.device, self.pipeline.unet):
            return self.make()


def prepared(loaded: LoadedPipeline, case: Case) -> Prepared:
    """The call of a case, for any task and scenario."""
    settings, way = case.settings, WAYS[case.settings.scenario]
    arguments = prepare_call(loaded, case)
    if settings.task != TEXT_TO_IMAGE:
        arguments = task_arguments(settings.task, arguments, _size(loaded.pipeline, arguments))
    call = way.prepared(
        Call(
            case=case,
            pipeline=pipeline_for(loaded.pipeline, settings.task),
            arguments=arguments,
            device=loaded.device,
            new_scheduler=lambda: new_scheduler(loaded, case),
            new_generators=lambda: generators(settings.seeds),
        )
    )
    return Prepared(call.pipeline, lambda: way.make(call), loaded.device.torch_device)


def _size(pipeline: Any, arguments: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the pictures that a call makes."""
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return arguments.get("width") or own, arguments.get("height") or own


def to_images(pipeline: Any, output: torch.Tensor | np.ndarray) -> list[Image.Image]:
    """The pictures of a pipeline's output, made by the library's own conversion.

    Args:
        output: tensor (batch, 3, height, width), or array (batch, height, width, 3) from releases of diffusers whose
            ``DDPMPipeline`` cannot return tensors; in [0, 1].

    Raises:
        BrokenPicture: a value is NaN or infinite, or the shape is not one of these.
    """
    array = output if isinstance(output, np.ndarray) else output.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    if array.ndim != 4 or array.shape[-1] != 3:
        raise BrokenPicture(f"the pipeline returned an array of shape {array.shape} instead of RGB pictures.")
    finite = np.isfinite(array).all(axis=(1, 2, 3))
    if not finite.all():
        raise BrokenPicture(f"{int((~finite).sum())} of {len(array)} images hold NaN or infinite values.")
    return getattr(pipeline, "image_processor", pipeline).numpy_to_pil(array)


def generate(loaded: LoadedPipeline, case: Case) -> list[Image.Image]:
    """The images of a case, each from its own seed.

    Raises:
        BrokenPicture: as ``to_images``.
    """
    return to_images(loaded.pipeline, prepared(loaded, case)())
