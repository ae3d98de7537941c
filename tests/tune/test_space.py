"""Which settings a study may try, and why others are left out."""

from __future__ import annotations

import pytest

from bench.tune.errors import TuneError
from bench.tune.space import draws_noise, space_of
from tests.tune.made_up import MODEL, STEPS, TUNING, made_up_space


def test_every_combination_is_a_setting_and_the_start_is_one_of_them():
    space = made_up_space()
    assert len(space.cases) == 3 * len(STEPS) * 2 * 2
    assert space.start.id in space.cases
    assert space.reference.id == "m/euler-s100-g5-fp32"
    assert space.axes == {
        "scheduler": ["pndm", "ddim", "euler"],
        "steps": [str(steps) for steps in STEPS],
        "dtype": ["float32", "bfloat16"],
        "optimizations": ["none", "channels-last"],
    }


def test_a_start_outside_the_grid_is_tried_too():
    space = made_up_space(start={"scheduler": "heun", "steps": 50})
    assert len(space.cases) == 3 * len(STEPS) * 2 * 2 + 1
    assert space.axes["scheduler"][0] == "pndm"


def test_a_setting_is_found_by_its_values():
    space = made_up_space()
    assert {space.by_words[space.place(case)] for case in space.cases.values()} == set(space.cases)


def test_keywords_of_the_call_are_an_axis():
    space = made_up_space(call=({}, {"guidance_rescale": 0.7}))
    assert len(space.cases) == 2 * 72
    assert space.axes["call"] == ["none", "guidance_rescale=0.7"]


def test_samplers_with_noise_are_left_out_with_the_reason():
    space = made_up_space(scheduler=("ddim", "euler-ancestral", "ddpm-trailing"))
    assert {case.settings.scheduler for case in space.cases.values()} == {"pndm", "ddim"}
    assert sorted(space.left_out.values()) == [24, 24]
    assert all("draws noise" in reason for reason in space.left_out)
    assert draws_noise("ddpm")
    assert not draws_noise("heun")


def test_what_the_device_lacks_is_left_out_with_the_reason():
    space = made_up_space(optimizations=((), ("sdpa-cudnn",)))
    assert space.left_out == {"'sdpa-cudnn' is for cuda, not for cpu": 36}
    slow = space_of(MODEL, space.tuning, "cpu", {"bfloat16"})
    assert slow.left_out["bfloat16 has no fast kernels on this device"] == 36


def test_a_space_without_settings_is_one_sentence():
    with pytest.raises(TuneError, match=r"^\[tune\.m\]: no combination can be tried here: 'euler-ancestral' draws"):
        made_up_space(scheduler="euler-ancestral")


def test_a_reference_that_cannot_work_is_one_sentence():
    with pytest.raises(TuneError, match="start and reference must work: 2 pictures cannot be drawn 4 at a time"):
        made_up_space(**TUNING | {"images": (4, 2)})
