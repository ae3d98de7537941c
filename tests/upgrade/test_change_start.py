"""Where a change of pictures starts, from the latents of both sides."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.record.groups import Group
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.change_start import (
    MOST_GROUPS,
    StepsOfSide,
    describe_start,
    difference,
    note_starts,
    start_in,
)
from bench.upgrade.side_results import PictureProcesses
from bench.upgrade.workers import SIDES, Sides
from tests.upgrade.altered import RAISING

SHAPE = (2, 4, 8, 8)
COUNT = 6


def steps(rng: np.random.Generator, count: int = COUNT) -> StepsOfSide:
    def latents() -> np.ndarray:
        return rng.normal(size=SHAPE).astype(np.float32)

    return StepsOfSide(latents(), tuple((latents(), latents()) for _ in range(count)))


@pytest.fixture
def before() -> StepsOfSide:
    return steps(np.random.default_rng(3))


def moved(side: StepsOfSide, number: int, part: int, share: float) -> StepsOfSide:
    """Every value from a part (0: prediction, 1: latents) of a step on is larger by a share of the largest one."""

    def shift(array: np.ndarray) -> np.ndarray:
        return array + np.float32(share * np.abs(array).max())

    changed = [
        tuple(shift(array) if (step, which) >= (number, part) else array for which, array in enumerate(pair))
        for step, pair in enumerate(side.steps, start=1)
    ]
    return StepsOfSide(side.start, tuple((pair[0], pair[1]) for pair in changed), side.has_decoder)


@pytest.mark.parametrize(
    ("number", "place"), [(1, "the first of 6 steps"), (4, "step 4 of 6"), (6, "the last of 6 steps")]
)
def test_the_first_step_that_differs_is_named_with_its_part(before, number, place):
    after = moved(before, number, 1, 0.25)
    assert describe_start(before, after, "float32") == (
        f"the change starts in {place}: from the same predictions, the scheduler's latents differ by up to 25 % of the "
        "largest value"
    )
    after = moved(before, number, 0, 0.01)
    assert describe_start(before, after, "float32") == (
        f"the change starts in {place}: the denoiser's predictions differ by up to 1 % of the largest value"
    )


def test_rounding_before_a_change_is_not_its_start(before):
    after = moved(moved(before, 2, 0, 1e-6), 5, 0, 0.1)
    assert "step 5 of 6" in describe_start(before, after, "float32")
    assert "step 2 of 6" in describe_start(before, moved(before, 2, 0, 1e-5), "float32")


def test_what_is_rounding_depends_on_the_dtype(before):
    after = moved(before, 2, 0, 0.01)
    assert "in the decoder" in describe_start(before, after, "bfloat16")
    assert "step 2" in describe_start(before, after, "float16")


def test_equal_latents_leave_the_decoder(before):
    assert describe_start(before, before, "float32") == (
        "the change starts in the decoder: the latents of all 6 steps are the same"
    )
    after = moved(before, 2, 0, 1e-6)
    assert "differ by rounding alone, up to 0.0001 % of the largest value" in describe_start(before, after, "float32")
    pixels = StepsOfSide(before.start, before.steps, has_decoder=False)
    assert "in the conversion to pictures" in describe_start(pixels, pixels, "float32")


def test_other_noise_is_a_change_before_the_first_step(before):
    after = StepsOfSide(before.start + 1, before.steps)
    assert "before the first step: the initial latents differ" in describe_start(before, after, "float32")


def test_sides_that_cannot_be_compared_say_why(before):
    fewer = StepsOfSide(before.start, before.steps[:-1])
    assert describe_start(before, fewer, "float32") == (
        "where the change starts is not known: the baseline makes 6 steps, the candidate 5"
    )
    smaller = StepsOfSide(before.start[:1], before.steps)
    assert "the shapes (2, 4, 8, 8) and (1, 4, 8, 8)" in describe_start(before, smaller, "float32")
    none = StepsOfSide.of_reply(({"shapes": [], "has_decoder": True}, ()))
    assert "makes no steps" in describe_start(none, none, "float32")


def test_a_value_that_is_no_number_on_one_side_is_infinitely_far():
    before = np.array([1.0, np.nan], np.float32)
    assert difference(before, before) == 0
    assert difference(before, np.array([1.5, np.nan], np.float32)) == 0.5
    assert difference(before, np.array([np.nan, np.nan], np.float32)) == np.inf
    assert difference(np.zeros(2, np.float32), np.ones(2, np.float32)) == np.inf


def test_a_reply_is_read_into_steps(before):
    arrays = [before.start, *(array for pair in before.steps for array in pair)]
    header = {"shapes": [list(array.shape) for array in arrays], "has_decoder": False}
    read = StepsOfSide.of_reply((header, tuple(array.tobytes() for array in arrays)))
    assert not read.has_decoder
    assert len(read.steps) == COUNT
    assert np.array_equal(read.steps[3][1], before.steps[3][1])


def test_only_groups_with_changed_pictures_are_looked_at_and_only_the_first():
    def group(verdict: str, *cases: str) -> Group:
        return Group(sentence="they do", questions=("pictures",), verdicts={verdict: len(cases)}, cases=cases)

    asked: list[str] = []

    def start_of(case: str) -> str:
        asked.append(case)
        return "it starts"

    groups = [group("raises now", "m/x"), *(group("changed", f"m/{n}", f"m/{n}-long") for n in range(MOST_GROUPS + 1))]
    settings = {case: {"steps": 50 if "long" in case else 5} for one in groups for case in one.cases}
    noted = note_starts(groups, settings, start_of)
    assert asked == ["m/0", "m/1", "m/2"]
    assert [one.notes for one in noted] == [(), *((f"it starts ({case})",) for case in asked), ()]


def start_of_change(pythons: tuple[Path, Path], request: dict[str, Any]) -> str:
    """The start of a case's change on two sides, each with the libraries of its interpreter."""
    sides = Sides(dict(zip(SIDES, pythons, strict=True)), 120)
    with sides, PictureProcesses(sides.process) as processes:
        if request["settings"]["sentinel"]:  # whose processes last until another kind is needed
            for side in SIDES:
                processes.result(side, request)
        return start_in(processes.fresh_process, request)


SHIFTED_STEP = """
import diffusers
from diffusers import {scheduler} as Scheduler
original, calls = Scheduler.step, []
def step(self, model_output, timestep, sample, *args, **kwargs):
    output = original(self, model_output, timestep, sample, *args, **kwargs)
    calls.append(timestep)
    latents = output[0] if isinstance(output, tuple) else output.prev_sample
    if len(calls) == {number}:
        latents += 0.5
    return output
Scheduler.step = step
"""
OTHER_DENOISER = """
import diffusers
original = diffusers.UNet2D{condition}Model.forward
def forward(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    (output[0] if isinstance(output, tuple) else output.sample).mul_(1.5)
    return output
diffusers.UNet2D{condition}Model.forward = forward
"""
OTHER_DECODER = """
import diffusers
original = diffusers.AutoencoderKL.decode
def decode(self, z, *args, **kwargs):
    return original(self, z * 1.5, *args, **kwargs)
diffusers.AutoencoderKL.decode = decode
"""


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (DDPM, SHIFTED_STEP.format(scheduler="DDPMScheduler", number=3), "step 3 of 4: from the same predictions, the"),
        (DDPM, OTHER_DENOISER.format(condition=""), "the first of 4 steps: the denoiser's predictions differ by up to"),
        (STABLE_DIFFUSION, SHIFTED_STEP.format(scheduler="PNDMScheduler", number=2), "step 2 of 5: from the same"),
        (STABLE_DIFFUSION, OTHER_DENOISER.format(condition="Condition"), "the first of 5 steps: the denoiser's"),
        (STABLE_DIFFUSION, OTHER_DECODER, "the decoder: the latents of all 5 steps are the same"),
    ],
)
def test_the_start_of_a_change_is_found(kind, change, said, altered_python, request_of):
    found = start_of_change((Path(sys.executable), altered_python(change)), request_of(kind))
    assert found.startswith(f"the change starts in {said}")


FEWER_STEPS = """
import diffusers
original = diffusers.DDPMScheduler.set_timesteps
def set_timesteps(self, count, **kwargs):
    original(self, count - 1, **kwargs)
diffusers.DDPMScheduler.set_timesteps = set_timesteps
"""


def test_another_number_of_steps_has_no_start_but_a_reason(altered_python, request_of):
    request = request_of(DDPM, sentinel="steps")
    found = start_of_change((Path(sys.executable), altered_python(FEWER_STEPS)), request)
    assert found == "where the change starts is not known: the baseline makes 4 steps, the candidate 3"


def test_a_side_that_raises_has_no_start_but_a_reason(altered_python, request_of):
    found = start_of_change((Path(sys.executable), altered_python(RAISING)), request_of(DDPM))
    assert found.startswith("where the change starts is not known: TypeError: unexpected keyword")
