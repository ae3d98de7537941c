"""From a ready pipeline and a case's seeds to its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from bench.pipelines import LoadedPipeline
from bench.schedulers import DDPM, build_scheduler

if TYPE_CHECKING:
    from bench.suite import Case


class BrokenPicture(Exception):
    """The pipeline returned something that is no picture; one sentence."""


def generators(seeds: list[int]) -> list[torch.Generator]:
    """One new generator per image, on the CPU: a seed then means the same noise on every device and in every batch."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def call_arguments(case: Case) -> dict[str, Any]:
    """Arguments of one pipeline call, with new generators.

    Tensors are asked for: they show NaN where a converted picture is merely black, and ``DDPMPipeline`` cannot make
    pictures of bfloat16 itself.
    """
    settings = case.settings
    arguments: dict[str, Any] = {
        "num_inference_steps": settings.steps,
        "generator": generators(settings.seeds),
        "output_type": "pt",
    }
    if case.model.kind == DDPM:
        return arguments | {"batch_size": settings.images}
    arguments |= {"prompt": list(settings.prompts), "guidance_scale": settings.guidance}
    return arguments | ({"height": settings.size, "width": settings.size} if settings.size else {})


def prepare_call(loaded: LoadedPipeline, case: Case) -> dict[str, Any]:
    """Gives the pipeline a new scheduler and returns the arguments of one call: nothing is left of an earlier call."""
    loaded.pipeline.scheduler = build_scheduler(case.settings.scheduler, case.model.kind, loaded.scheduler_config)
    return call_arguments(case)


def to_images(pipeline: Any, output: torch.Tensor | np.ndarray) -> list[Image.Image]:
    """The pictures of a pipeline's output, made by the library's own conversion.

    Args:
        output: tensor (batch, 3, height, width), or array (batch, height, width, 3) from releases of diffusers whose
            ``DDPMPipeline`` knows no tensors; in [0, 1].

    Raises:
        BrokenPicture: a value is NaN or infinite, or the shape is none of these.
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
    return to_images(loaded.pipeline, loaded.pipeline(**prepare_call(loaded, case)).images)
