"""Faults of random numbers."""

from __future__ import annotations

from typing import Any

import torch

from bench.faults.fault import Fault, Patch, everywhere, pull, wrapped

AREA = "noise"
PIPELINES = "StableDiffusionPipeline StableDiffusionImg2ImgPipeline StableDiffusionInpaintPipeline"


def drawing(change: Any) -> Any:
    """``change(draw, shape, generator, **kwargs)`` instead of ``randn_tensor``."""

    def apply(patch: Patch) -> None:
        from diffusers.utils.torch_utils import randn_tensor

        def draw(shape: Any, generator: Any = None, **kwargs: Any) -> Any:
            return change(randn_tensor, shape, generator, **kwargs)

        everywhere(patch, "randn_tensor", draw)

    return apply


def _listed(generator: Any) -> list[torch.Generator]:
    return generator if isinstance(generator, list) else [] if generator is None else [generator]


def _reseed_if_fresh(generator: torch.Generator, change: Any) -> None:
    seed = generator.initial_seed()
    if torch.equal(generator.get_state(), torch.Generator(generator.device).manual_seed(seed).get_state()):
        generator.manual_seed(change(seed))


def _next_seed(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    for one in _listed(generator):
        _reseed_if_fresh(one, lambda seed: seed + 1)
    return draw(shape, generator, **kwargs)


def _last_from_another_seed(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    for one in _listed(generator)[-1:]:
        _reseed_if_fresh(one, lambda seed: 99)
    return draw(shape, generator, **kwargs)


def _ignoring(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    return draw(shape, None, **kwargs)


def _first_for_all(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    return draw(shape, generator[0] if isinstance(generator, list) else generator, **kwargs)


def _same_for_all(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    return draw(shape, generator, **kwargs)[:1].expand(shape).contiguous()


def _twice(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    draw(shape, generator, **kwargs)
    return draw(shape, generator, **kwargs)


def _of_type(dtype: torch.dtype, kept: bool = False) -> Any:
    def draw_as(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
        noise = draw(shape, generator, **{**kwargs, "dtype": dtype})
        return noise if kept else noise.to(kwargs.get("dtype") or torch.get_default_dtype())

    return draw_as


def _cut_off(draw: Any, shape: Any, generator: Any = None, **kwargs: Any) -> Any:
    noise = draw(shape, generator, **kwargs)
    return noise.clamp(-2, 2)


def _without_generator(original: Any) -> Any:
    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        extra = original(self, *args, **kwargs)
        return {key: value for key, value in extra.items() if key != "generator"}

    return prepare


FAULTS = (
    Fault("seed-plus-one", AREA, "Every generator starts from the next seed.", pull(2074), drawing(_next_seed)),
    Fault(
        "last-image-of-another-seed",
        AREA,
        "The last image of a batch comes from another seed.",
        pull(1718),
        drawing(_last_from_another_seed),
    ),
    Fault("generator-ignored", AREA, "Noise comes from the global generator.", pull(13678), drawing(_ignoring)),
    Fault(
        "one-generator-for-all",
        AREA,
        "All images of a batch are drawn from the generator of the first one.",
        pull(1718),
        drawing(_first_for_all),
    ),
    Fault(
        "one-noise-for-all",
        AREA,
        "All images of a batch start from the noise of the first one.",
        pull(11007),
        drawing(_same_for_all),
    ),
    Fault("noise-drawn-twice", AREA, "Noise is drawn twice, and the first draw is lost.", pull(5033), drawing(_twice)),
    Fault(
        "noise-in-bfloat16",
        AREA,
        "Noise is drawn in bfloat16 and converted.",
        pull(742),
        drawing(_of_type(torch.bfloat16)),
    ),
    Fault(
        "noise-in-float64",
        AREA,
        "Noise is drawn in double precision, which gives other random numbers.",
        pull(742),
        drawing(_of_type(torch.float64)),
    ),
    Fault(
        "noise-clipped",
        AREA,
        "Noise is clipped at two standard deviations.",
        pull(10535),
        drawing(_cut_off),
    ),
    Fault(
        "step-noise-without-generator",
        AREA,
        "The noise of the scheduler's steps comes from the global generator.",
        pull(13678),
        wrapped(PIPELINES, "prepare_extra_step_kwargs", _without_generator),
    ),
)
