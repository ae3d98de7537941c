"""Faults around the safety checker."""

from __future__ import annotations

from typing import Any

from bench.faults.fault import Apply, Fault, Patch, pull, wrap, wrapped
from bench.faults.guidance import PIPELINES

AREA = "safety checker"


def _ignored(_original: Any) -> Any:
    return lambda self, image, device, dtype: (image, None)


def _checking(change: Any) -> Apply:
    """``change(original, self, clip_input, images)`` instead of the checker."""

    def apply(patch: Patch) -> None:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        def make(original: Any) -> Any:
            return lambda self, clip_input, images: change(original, self, clip_input, images)

        wrap(patch, StableDiffusionSafetyChecker, "forward", make)

    return apply


def _all(original: Any, self: Any, clip_input: Any, images: Any) -> Any:
    images, found = original(self, clip_input, images)
    return images * 0, [True] * len(found)


def _denormalized_once_more(original: Any) -> Any:
    """Without the flags, a black picture is denormalized again and becomes grey."""

    def run(self: Any, image: Any, device: Any, dtype: Any) -> Any:
        image, found = original(self, image, device, dtype)
        return image, None if found is None else [False] * len(found)

    return run


FAULTS = (
    Fault(
        "checker-skipped",
        AREA,
        "The safety checker is not run.",
        pull(4886),
        wrapped(PIPELINES, "run_safety_checker", _ignored),
    ),
    Fault(
        "checker-blackens-all",
        AREA,
        "The safety checker makes every picture black.",
        pull(217),
        _checking(_all),
    ),
    Fault(
        "checker-flags-lost",
        AREA,
        "A blackened picture comes out grey.",
        pull(3127),
        wrapped(PIPELINES, "run_safety_checker", _denormalized_once_more),
    ),
    Fault(
        "checker-sees-the-first",
        AREA,
        "The safety checker looks at the first picture in place of all others.",
        pull(3127),
        _checking(
            lambda original, self, clip_input, images: original(self, clip_input[:1].expand_as(clip_input), images)
        ),
    ),
)
