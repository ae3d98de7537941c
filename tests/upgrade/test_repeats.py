"""Pictures that differ from call to call: by how much, and on which side."""

from __future__ import annotations

import pytest
from PIL import Image

from bench.pictures.limits import STRICT, default_limits
from bench.upgrade.repeats import Repeats
from tests.upgrade import made_up

LIMITS = default_limits("float32", STRICT)
FIRST = (Image.effect_noise((64, 64), 60).convert("RGB").point(lambda value: min(value, 155)),)
NEAR = (FIRST[0].copy(),)
NEAR[0].putpixel((3, 3), tuple(level + 1 for level in FIRST[0].getpixel((3, 3))))
FAR = (FIRST[0].point(lambda value: value + 60),)
CASE = made_up.case("m/ddim-s5")


@pytest.fixture
def repeats() -> Repeats:
    found = Repeats()
    found.expect(CASE.case, (FIRST, FIRST), LIMITS)
    return found


def test_a_candidate_that_alone_changes_its_pictures_is_not_repeatable(repeats):
    repeats.note(CASE.case, ((), FAR))
    judged = repeats.judged(CASE)
    assert judged.pictures.verdict == "not repeatable"
    assert "the candidate's pictures differ from call to call: SSIM" in judged.pictures.message


def test_a_difference_within_the_limits_is_rounding(repeats):
    repeats.note(CASE.case, (NEAR, NEAR))
    assert repeats.judged(CASE) == CASE
    assert repeats.sentences(CASE.case) == ()


@pytest.mark.parametrize("images", [(FAR, ()), (FAR, FAR)])
def test_where_the_baseline_changes_too_the_candidate_is_no_worse(repeats, images):
    repeats.note(CASE.case, images)
    assert repeats.judged(CASE) == CASE
    assert any("the baseline's pictures differ" in sentence for sentence in repeats.sentences(CASE.case))


def test_a_large_difference_is_not_forgotten(repeats):
    for images in (NEAR, FAR, NEAR):
        repeats.note(CASE.case, ((), images))
    assert repeats.judged(CASE).pictures.verdict == "not repeatable"


def test_another_number_of_pictures_is_a_change(repeats):
    repeats.note(CASE.case, ((), FIRST * 2))
    assert repeats.judged(CASE).pictures.verdict == "not repeatable"


def test_without_the_first_pictures_nothing_is_decided():
    unknown = Repeats()
    unknown.note(CASE.case, ((), FAR))
    assert unknown.judged(CASE) == CASE
    assert unknown.sentences(CASE.case) == ()
