"""How near pictures are to those of the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from bench.tune.errors import TuneError
from bench.tune.quality import likeness, mean_flip, mean_ssim, measure_named


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    smooth = [np.kron(rng.integers(60, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    return [Image.fromarray(levels) for levels in smooth]


def shifted(images: list[Image.Image], levels: int) -> list[Image.Image]:
    return [Image.fromarray((np.asarray(image).astype(int) + levels).clip(0, 255).astype(np.uint8)) for image in images]


def test_the_same_pictures_are_as_near_as_can_be(pictures):
    found = likeness(pictures, pictures, ["", ""], mean_ssim)
    assert found.ssim == (1.0, 1.0)
    assert found.flip == (0.0, 0.0)
    assert found.quality == 1.0


def test_both_measures_fall_with_the_distance(pictures):
    near, far = (likeness(shifted(pictures, levels), pictures, ["", ""], mean_ssim) for levels in (4, 50))
    assert 1 > near.quality > far.quality
    assert 0 < max(near.flip) < min(far.flip) < 1


def test_flip_sees_a_shift_of_colour_that_ssim_hardly_sees(pictures):
    (reference, *_) = pictures
    red = np.asarray(reference).copy()
    red[..., 0] = np.clip(red[..., 0].astype(int) + 30, 0, 255)
    assert mean_ssim([Image.fromarray(red)], [reference]) > 0.9
    assert mean_flip(Image.fromarray(red), reference) > 0.1


def half(images, references, prompts) -> float:
    assert len(images) == len(references) == len(prompts)
    return 0.5


def test_the_users_own_measure_is_asked(pictures):
    assert likeness(pictures, pictures, ["a", "b"], half).quality == 0.5
    assert measure_named("math:fsum") is math.fsum


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("math:no", "has no attribute 'no'"),
        ("math:pi", "not a function"),
        ("math", "give it as module:function"),
    ],
)
def test_a_measure_that_is_not_there_is_one_sentence(name, said):
    with pytest.raises(TuneError, match=rf"^--quality {name}: .*{said}"):
        measure_named(name)


@pytest.mark.parametrize("value", [None, float("nan"), "good"])
def test_a_measure_that_returns_no_number_is_one_sentence(pictures, value):
    with pytest.raises(TuneError, match="it must return a number"):
        likeness(pictures, pictures, ["", ""], lambda *_: value)


def test_without_a_name_it_is_ssim():
    assert measure_named(None) is mean_ssim
