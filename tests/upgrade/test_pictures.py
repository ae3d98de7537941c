"""The verdict on the pictures of two sides, and on sides without any."""

from __future__ import annotations

import pytest
from PIL import Image

from bench.calls.raised import RaisedError
from bench.pictures.limits import STRICT, default_limits
from bench.upgrade.pictures import compare_pictures, only_expected_errors
from bench.upgrade.side_results import SideResult

LIMITS = default_limits("float32", STRICT)
NO = RaisedError(type="TypeError", message="no")


def picture(level: int = 100, size: int = 16) -> Image.Image:
    return Image.effect_noise((size, size), 60).convert("RGB").point(lambda value: min(value, 155) + level - 100)


TILE = picture()


def side(*images: Image.Image, error: str | None = None) -> SideResult:
    return SideResult(images=images, unet_calls=4, error=error)


def shifted(image: Image.Image, levels: int) -> Image.Image:
    return image.point(lambda value: value + levels)


@pytest.mark.parametrize(
    ("baseline", "candidate", "verdict"),
    [
        (side(TILE), side(TILE), "identical"),
        (side(TILE, TILE), side(TILE, shifted(TILE, 50)), "changed"),
        (side(TILE), side(TILE, TILE), "broken"),
        (side(TILE), side(TILE.resize((8, 8))), "broken"),
        (side(TILE), side(error="TypeError: no"), "raises now"),
        (side(TILE), side(error="BrokenPicture: 1 of 2 images hold NaN"), "broken"),
        (side(TILE), side(error="its process was killed by SIGKILL"), "broken"),
        (side(error="TypeError: no"), side(TILE), "works now"),
        (side(error="TypeError: no"), side(error="TypeError: no"), "raises as before"),
        (side(error="TypeError: no"), side(error="TypeError: other"), "raises something else"),
    ],
)
def test_each_pair_of_results_has_its_verdict(baseline, candidate, verdict):
    assert compare_pictures(baseline, candidate, LIMITS).verdict == verdict


def test_one_level_of_one_value_is_within_limits():
    altered = TILE.copy()
    red, green, blue = TILE.getpixel((3, 3))
    altered.putpixel((3, 3), (red + 1, green, blue))
    found = compare_pictures(side(TILE), side(altered), LIMITS)
    assert (found.verdict, found.max_diff) == ("within limits", 1)


@pytest.mark.parametrize(
    ("error", "expected", "verdict"),
    [
        ("TypeError: no", NO, "raises as before"),
        ("TypeError: no", None, "nothing compared"),
        ("TypeError: another reason", NO, "nothing compared"),
        ("BrokenPicture: 1 of 2 images hold NaN", None, "nothing compared"),
        ("its process was killed by SIGKILL", NO, "nothing compared"),
    ],
)
def test_both_sides_may_raise_only_what_the_golden_holds(error, expected, verdict):
    found = only_expected_errors(compare_pictures(side(error=error), side(error=error), LIMITS), error, expected)
    assert found.verdict == verdict
    assert error in found.message


def test_pictures_are_no_error_that_a_golden_must_hold():
    found = compare_pictures(side(TILE), side(TILE), LIMITS)
    assert only_expected_errors(found, None, NO) is found
