"""Faults between the network's output and the picture, and between an input picture and the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
from PIL import Image

from bench.faults.fault import Apply, Fault, Patch, issue, pull, reading, wrap

AREA = "pictures"
Levels = Callable[[np.ndarray], np.ndarray]


def _round(array: np.ndarray) -> np.ndarray:
    return (array * 255).round().astype("uint8")


def converting(to_levels: Levels) -> Apply:
    """``to_levels(array)`` converts arrays (batch, height, width, 3) in [0, 1] to 8-bit values."""

    def convert(images: np.ndarray) -> list[Image.Image]:
        batch = images[None] if images.ndim == 3 else images
        return [Image.fromarray(np.ascontiguousarray(one)) for one in to_levels(batch)]

    def apply(patch: Patch) -> None:
        patch.setattr(diffusers.DiffusionPipeline, "numpy_to_pil", staticmethod(convert))
        patch.setattr(diffusers.image_processor.VaeImageProcessor, "numpy_to_pil", staticmethod(convert))

    return apply


def processing(name: str, value: Any) -> Apply:
    """Replaces a static method of ``VaeImageProcessor``."""
    return lambda patch: patch.setattr(diffusers.image_processor.VaeImageProcessor, name, staticmethod(value))


def _resampling(filter_name: str) -> Apply:
    def resize(original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            with reading(self, resample=filter_name):
                return original(self, *args, **kwargs)

        return method

    return lambda patch: wrap(patch, diffusers.image_processor.VaeImageProcessor, "resize", resize)


def _transposed(original: Any) -> Any:
    def postprocess(self: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, image.transpose(2, 3), *args, **kwargs)

    return postprocess


def _one_scale_for_the_batch(patch: Patch) -> None:
    def make(_original: Any) -> Any:
        def denormalize(self: Any, images: Any, do_denormalize: Any = None) -> Any:
            return ((images - images.min()) / (images.max() - images.min())).clamp(0, 1)

        return denormalize

    wrap(patch, diffusers.image_processor.VaeImageProcessor, "_denormalize_conditionally", make)


FAULTS = (
    Fault(
        "red-and-blue-swapped",
        AREA,
        "Red and blue are swapped.",
        pull(14504, "AUTOMATIC1111/stable-diffusion-webui"),
        converting(lambda array: _round(array)[..., ::-1]),
    ),
    Fault(
        "levels-cut-off",
        AREA,
        "Values are truncated to 8 bits instead of rounded.",
        pull(8142, "pytorch/vision"),
        converting(lambda array: (array * 255).astype("uint8")),
    ),
    Fault(
        "levels-of-256",
        AREA,
        "Values are scaled by 256 and truncated.",
        issue(3987, "python-pillow/Pillow"),
        converting(lambda array: (array * 255.999).astype("uint8")),
    ),
    Fault(
        "one-level-brighter",
        AREA,
        "Pictures are one level brighter.",
        issue(8141, "pytorch/vision"),
        converting(lambda array: _round(np.clip(array + 1 / 255, 0, 1))),
    ),
    Fault(
        "range-taken-wrongly",
        AREA,
        "Values in [0, 1] are stretched again, as if they were not in that range yet.",
        pull(2968),
        converting(lambda array: _round((array * 2 - 0.5).clip(0, 1))),
    ),
    Fault(
        "range-not-stretched",
        AREA,
        "Values in [-1, 1] are shifted but not halved.",
        pull(2968),
        processing("denormalize", lambda images: (images + 0.5).clamp(0, 1)),
    ),
    Fault(
        "not-clipped",
        AREA,
        "Values outside [0, 1] are not clipped and wrap around in 8 bits.",
        pull(12546),
        processing("denormalize", lambda images: images * 0.5 + 0.5),
    ),
    Fault(
        "stretched-to-the-range",
        AREA,
        "Pictures are stretched to the smallest and largest value of the batch.",
        pull(3557),
        _one_scale_for_the_batch,
    ),
    Fault(
        "width-and-height-swapped",
        AREA,
        "Width and height are swapped.",
        pull(2558),
        lambda patch: wrap(patch, diffusers.image_processor.VaeImageProcessor, "postprocess", _transposed),
    ),
    Fault(
        "resized-coarsely",
        AREA,
        "Input pictures are resized by nearest neighbour instead of Lanczos.",
        pull(2617),
        _resampling("nearest"),
    ),
    Fault(
        "input-range",
        AREA,
        "Input pictures stay in [0, 1] instead of [-1, 1].",
        pull(2617),
        processing("normalize", lambda images: images),
    ),
)
