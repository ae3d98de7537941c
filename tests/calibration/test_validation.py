"""Are the limits wide enough? Known distributions, evidence left out, and pictures of a real second processor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from bench.calibration.__main__ import GOLDENS, calibrated_cases
from bench.calibration.prediction import prediction_bound
from bench.calibration.processors import FOLDER, keep, pictures_of, read_processor
from bench.calibration.spread import FALSE_ALARM, FIGURES
from bench.calibration.validation import leave_each_out
from bench.calls.device import Cpu, choose_device
from bench.pictures.limits import OTHER, PORTABLE, STRICT, CalibratedLimits, TwinsMeasured, choose_limits
from bench.pictures.similarity import Limits, compare
from bench.pictures.store import find_golden, read_golden
from bench.suite.file import SUITE_FILE, read_suite

# The figures of a picture are near one of these: a sum of squares, an absolute value, or a product of many factors.
DISTRIBUTIONS = {
    **{f"lognormal {deviation}": stats.lognorm(deviation) for deviation in (0.1, 0.5, 1.0)},
    **{f"chi-squared {freedom}": stats.chi2(freedom) for freedom in (1, 5, 20, 100)},
    "absolute normal": stats.halfnorm(),
}


@pytest.mark.parametrize("count", [16, 24, 69])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_next_machine_rarely_exceeds_the_bound(name, count):
    distribution = DISTRIBUTIONS[name]
    draws = distribution.rvs((400, count), random_state=np.random.default_rng(count))
    resolution = 0.01 * float(distribution.median())
    chances = [distribution.sf(prediction_bound(draw, resolution, FALSE_ALARM / FIGURES)) for draw in draws]
    # The mean of 400 chances varies by half of itself where a distribution is wide.
    assert np.mean(chances) < 2 * FALSE_ALARM / FIGURES


def test_twice_the_worst_of_six_would_not_have_held():
    """The former limits: the bound exists because they fail the test above."""
    draws = stats.lognorm(0.5).rvs((400, 6), random_state=np.random.default_rng(6))
    chances = [stats.lognorm(0.5).sf(2 * max(draw)) for draw in draws]
    assert np.mean(chances) > 20 * FALSE_ALARM


CALIBRATED = list(calibrated_cases())


# Another memory layout takes other convolution kernels, and float32 twins move sensitive cases a little less than that:
# without its evidence one observation in forty is outside the limits; without another kind, one in a thousand.
LARGER_THAN_TWINS, OFTEN, SELDOM = "channels last", 0.05, 0.003


@pytest.mark.parametrize("tier", [STRICT, PORTABLE, OTHER])
def test_limits_from_the_rest_cover_evidence_that_is_left_out(tier):
    left_out = [
        one for case, limits in CALIBRATED for one in leave_each_out(case.settings.dtype, limits) if one.tier == tier
    ]
    with_twins = [limits for _, limits in CALIBRATED if limits.twins and (tier != OTHER or limits.other)]
    assert len(left_out) >= len(with_twins) > 0
    for layout, allowed in ((True, OFTEN), (False, SELDOM)):
        of_kind = [one for one in left_out if (one.kind == LARGER_THAN_TWINS) == layout]
        assert sum(bool(one.outside) for one in of_kind) <= allowed * len(of_kind)


def twins(name: str, *levels: int) -> TwinsMeasured:
    ssim = tuple(1 - level / 1000 for level in levels)
    nothing = (0.0,) * len(levels)
    return TwinsMeasured(
        name=name, tier=STRICT, roundoff=2.0**-24, ssim=ssim, max_diff=levels, changed_share=nothing, mean_diff=nothing
    )


def test_evidence_far_outside_what_the_rest_says_is_found():
    anything = Limits(ssim=0, max_diff=255, mean_diff=255, reason="not used")
    limits = CalibratedLimits(
        strict=anything,
        portable=anything,
        evidence=twins("kernel", 90).each(),
        twins=(twins("rounding twins", *[1, 2] * 8),),
        margin="",
        processor="any",
        instruction_set="any",
        libraries={},
        date="2026-01-01",
    )
    found = [(one.tier, one.kind, len(one.outside)) for one in leave_each_out("float32", limits)]
    assert found == [(STRICT, "kernel", 1), (PORTABLE, "kernel", 1)]


PROCESSORS = sorted(FOLDER.glob("*.npz"))


@pytest.mark.parametrize("path", PROCESSORS, ids=lambda path: path.stem)
def test_what_a_real_other_processor_drew_is_within_the_limits(path):
    """Twice: as that processor sees a golden of this one, and within limits that never saw its pictures."""
    processor = read_processor(path)
    outside, count = [], 0
    for case, images in pictures_of(processor, read_suite(SUITE_FILE).cases, GOLDENS):
        found = compare(images, golden_tiles(case)).excesses(portable_limits(case))
        outside += [(case.id, found)] if found else []
        count += 1
    assert outside == []
    assert count > 0.9 * len(processor.goldens)


def golden_tiles(case) -> list[Image.Image]:
    place = find_golden(GOLDENS, case, choose_device("cpu"))
    assert place
    return read_golden(place).tiles


def portable_limits(case) -> Limits:
    """Those of the case and, if it must match another one, of that case."""
    place = find_golden(GOLDENS, case, choose_device("cpu"))
    assert place
    limits = choose_limits(read_golden(place).origin.limits, case.settings.dtype, PORTABLE, Cpu())
    assert limits
    return limits


@pytest.mark.parametrize("path", PROCESSORS, ids=lambda path: path.stem)
def test_slightly_brighter_pictures_are_outside_the_limits(path):
    """Three levels are less than anyone sees; every float32 case detects them."""
    processor = read_processor(path)
    cases = [case for case in read_suite(SUITE_FILE).cases if case.settings.dtype == "float32"]
    for case, images in pictures_of(processor, cases, GOLDENS):
        brighter = [Image.fromarray(np.asarray(one).clip(0, 252) + np.uint8(3)) for one in images]
        assert compare(brighter, golden_tiles(case)).excesses(portable_limits(case)), case.id


def test_pictures_of_a_processor_belong_to_unchanged_goldens(tmp_path):
    cases = [case for case in read_suite(SUITE_FILE).cases if case.id == "emoji-sd/pndm-s5-g7.5-fp32"]
    grids = tmp_path / "grids"
    (grids / "emoji-sd").mkdir(parents=True)
    golden = GOLDENS / "emoji-sd" / "pndm-s5-g7.5-fp32.png"
    with Image.open(golden) as opened:
        darker = Image.fromarray(np.asarray(opened.convert("RGB")) // 2)
    darker.save(grids / "emoji-sd" / golden.name)
    path = tmp_path / "half.npz"
    assert keep(grids, cases, GOLDENS, "half as bright", path) == 1
    processor = read_processor(path)
    assert processor.name == "half as bright"
    ((case, images),) = pictures_of(processor, cases, GOLDENS)
    assert np.array_equal(np.asarray(images[0]), np.asarray(golden_tiles(case)[0]) // 2)

    other = dict.fromkeys(processor.goldens, "0" * 16)
    stale = type(processor)(processor.name, processor.differences, other)
    assert list(pictures_of(stale, cases, GOLDENS)) == []


def test_a_folder_without_grids_keeps_nothing(tmp_path):
    assert keep(tmp_path, read_suite(SUITE_FILE).cases[:1], GOLDENS, "none", tmp_path / "none.npz") == 0
    assert not (tmp_path / "none.npz").exists()
