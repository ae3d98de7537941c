"""Runs in the process of one variation, where the variation's environment is set."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from bench.calibration.messages import Answer, Assignment, Made, NotHeld, Raised, Ready
from bench.calibration.twins import rounded_differently
from bench.calibration.variations import VARIATIONS, NoEffect, Patch, Variation, apply_patch, calls_of, take_hold
from bench.calls.device import Device, choose_device, make_deterministic
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.sampling import generate
from bench.suite.case import Case


def answers(assignment: Assignment) -> Iterator[Ready | Answer]:
    """``Ready``, then an answer for each case, in order; ``NotHeld`` alone if the variation has no effect here."""
    import torch

    variation = next(
        one for one in VARIATIONS if one.name == assignment.variation and one.applies_to(assignment.cases[0])
    )
    if variation.deterministic:
        make_deterministic()
    torch.set_num_threads(assignment.threads)
    try:
        take_hold(variation)
    except NoEffect as error:
        yield NotHeld(str(error))
        return
    yield Ready()
    loader = _Loader(choose_device(assignment.device), assignment, variation.patch)
    for case in assignment.cases:
        yield _answer(loader, case, variation)


class _Loader:
    """Holds one pipeline at a time, as a run does."""

    def __init__(self, device: Device, assignment: Assignment, patch: Patch | None) -> None:
        self._device = device
        self._assignment = assignment
        self._patch: Patch | None = patch
        self._key: object = None
        self._loaded: LoadedPipeline | None = None

    def of(self, case: Case) -> LoadedPipeline:
        settings = case.settings
        key = (case.model, settings.dtype, settings.optimizations)
        if self._loaded is None or key != self._key:
            self._loaded = None
            loaded = load_pipeline(
                case.model, settings.dtype, settings.optimizations, self._device, self._assignment.suite_folder
            )
            apply_patch(loaded.pipeline, self._patch)
            self._key, self._loaded = key, loaded
        return self._loaded


def _answer(loader: _Loader, case: Case, variation: Variation) -> Answer:
    try:
        loaded = loader.of(case)
        if variation.twins:
            grids = tuple(_twin(loaded, case, variation.roundoff_of(case), number) for number in range(variation.twins))
        else:
            grids = ([image for call in calls_of(case, variation.patch) for image in generate(loaded, call)],)
    except NoEffect as error:
        return NotHeld(str(error))
    except Exception as error:  # whatever the libraries raise is an answer
        text = str(error).strip()
        return Raised(f"{type(error).__name__}: {text.splitlines()[0] if text else 'no reason given'}")
    return Made(grids, loaded.weights, loaded.revision)


def _twin(loaded: LoadedPipeline, case: Case, roundoff: float, number: int) -> list[Image.Image]:
    """The images of one rounding twin.

    Raises:
        NoEffect: the denoiser was not called, or none of its values changed.
    """
    with rounded_differently(loaded.pipeline.unet, roundoff, number) as changed:
        images = generate(loaded, case)
    if not sum(changed):
        raise NoEffect("no output of the denoiser was changed.")
    return images
