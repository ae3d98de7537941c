"""How far one grid is from another: the worst tile decides, and changes that SSIM misses are seen too."""

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter

from bench.pictures.limits import STRICT, default_limits
from bench.pictures.similarity import Incomparable, Limits, Similarity, compare, difference_picture, ssim
from bench.verdicts import Verdict

WIDTH, HEIGHT = 40, 32
LOOSE = Limits(ssim=-1, max_diff=255, changed_share=1, mean_diff=255, reason="everything passes")


def noise(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def soft(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Blurred noise, from 40 to 215: there is room above and below."""
    blurred = Image.fromarray(noise(number, width, height)).filter(ImageFilter.GaussianBlur(2))
    return np.clip((np.asarray(blurred).astype(int) - 128) * 4 + 128, 40, 215).astype(np.uint8)


def pictures(*arrays: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(array) for array in arrays]


def in_mode(mode: str, array: np.ndarray) -> list[Image.Image]:
    return [picture.convert(mode) for picture in pictures(array)]


def soft_tiles(count: int) -> list[np.ndarray]:
    return [soft(number) for number in range(count)]


def add(array: np.ndarray, levels: int | list[int] | np.ndarray) -> np.ndarray:
    return np.clip(array.astype(int) + levels, 0, 255).astype(np.uint8)


def grain(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-9, 10, (HEIGHT, WIDTH, 3))


def limits(**given: Any) -> Limits:
    return LOOSE.model_copy(update={"reason": "for this test"} | given)


def similarity(
    ssim_tiles: tuple[float, ...] = (0.95, 0.9, 0.99),
    max_diff: int = 12,
    mean_diff: tuple[float, float, float] = (0.25, -1.5, 1.0),
) -> Similarity:
    return Similarity(ssim_tiles, ssim_grid=0.95, max_diff=max_diff, changed_share=0.5, mean_diff=mean_diff)


def wang_2004(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM as the paper writes it, where the 11 by 11 window is inside the picture."""
    offsets = np.arange(-5, 6)
    row = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("ijcuv,uv->ijc", sliding_window_view(values, window.shape, axis=(0, 1)), window)

    x: np.ndarray = one.astype(float)
    y: np.ndarray = other.astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    scores = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(scores.mean())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(noise(1), noise(2), id="unlike"),
        pytest.param(soft(1), soft(1), id="same"),
        pytest.param(soft(1), add(soft(1), 30), id="brighter"),
        pytest.param(soft(1), add(soft(1), grain(3)), id="noisy"),
        pytest.param(soft(1), 255 - soft(1), id="negative"),
        pytest.param(noise(4, 11, 13), soft(4, 11, 13), id="hardly larger than the window"),
    ],
)
def test_ssim_is_that_of_the_paper(one, other):
    assert ssim(one, other) == pytest.approx(wang_2004(one, other), abs=1e-9)


def test_ssim_of_unlike_pictures_is_low_and_of_inverted_ones_negative():
    assert abs(ssim(noise(1), noise(2))) < 0.1
    assert ssim(soft(1), 255 - soft(1)) < -0.5


def test_a_grid_is_identical_to_itself():
    found = compare(pictures(*soft_tiles(3)), pictures(*soft_tiles(3)))
    assert found.ssim_tiles == (1.0, 1.0, 1.0)
    assert (found.ssim_grid, found.max_diff, found.changed_share) == (1.0, 0, 0.0)
    assert found.mean_diff == (0.0, 0.0, 0.0)
    assert found.verdict(limits(ssim=1, max_diff=0, mean_diff=0)) == Verdict.IDENTICAL


def test_one_value_off_by_one_level_is_not_identical():
    golden = soft(0)
    ours = golden.copy()
    ours[5, 7, 1] += 1
    found = compare(pictures(golden, ours), pictures(golden, golden))
    assert found.max_diff == 1
    assert found.changed_share == pytest.approx(1 / (2 * golden.size))
    assert found.verdict(LOOSE) == Verdict.WITHIN_LIMITS


def test_one_wrong_tile_changes_a_grid_that_looks_right():
    golden = soft_tiles(32)
    ours = [*golden[:11], soft(999), *golden[12:]]
    found = compare(pictures(*ours), pictures(*golden))
    tolerant = limits(ssim=0.95)
    assert found.ssim_grid > tolerant.ssim
    assert found.ssim_worst_tile < 0.5
    assert found.worst_tile == 11
    assert [score for score in found.ssim_tiles if score < 1] == [found.ssim_worst_tile]
    assert found.verdict(tolerant) == Verdict.CHANGED
    assert "tile 12 of 32" in found.excesses(tolerant)[0]


def test_two_swapped_tiles_are_seen():
    one, other = soft(1), soft(2)
    found = compare(pictures(other, one), pictures(one, other))
    assert max(found.ssim_tiles) < 0.5


def test_a_level_everywhere_is_a_colour_shift_that_ssim_misses():
    golden = soft_tiles(2)
    found = compare(pictures(*(add(tile, 1) for tile in golden)), pictures(*golden))
    assert (found.max_diff, found.changed_share) == (1, 1.0)
    assert found.ssim_worst_tile > 0.999
    assert found.mean_diff == (1.0, 1.0, 1.0)
    assert found.verdict(limits(ssim=0.999, max_diff=4, mean_diff=0.25)) == Verdict.CHANGED


def test_levels_up_and_down_show_only_in_the_share_of_changed_values():
    golden: list[np.ndarray] = [noise(number) // 2 + 64 for number in range(2)]
    checks = np.indices((HEIGHT, WIDTH)).sum(axis=0)[..., None] % 2 * 2 - 1
    found = compare(pictures(*(add(tile, checks) for tile in golden)), pictures(*golden))
    assert (found.max_diff, found.changed_share, found.mean_diff) == (1, 1.0, (0.0, 0.0, 0.0))
    share = default_limits("float32", STRICT).changed_share
    given = {"ssim": 0.999, "max_diff": 1, "mean_diff": 0}
    assert found.excesses(limits(**given, changed_share=share)) == ["100 % of the values differ (limit 0.2 %)"]
    assert found.verdict(limits(**given)) == Verdict.WITHIN_LIMITS


def test_darker_pictures_have_a_negative_shift():
    golden = add(soft(0) // 2, 64)
    found = compare(pictures(add(golden, -20)), pictures(golden))
    assert found.mean_diff == (-20.0, -20.0, -20.0)
    assert found.max_diff == 20
    assert found.excesses(limits(mean_diff=19.5)) == ["colour shift 20.00 levels (limit 19.5)"]


def test_swapped_colours_are_a_shift_between_red_and_blue():
    golden = add(soft(0) // 4, [120, 60, 0])
    found = compare(pictures(golden[..., ::-1]), pictures(golden))
    red, green, blue = found.mean_diff
    assert green == 0
    assert red == pytest.approx(-blue)
    assert red < -100
    assert found.verdict(limits(mean_diff=10)) == Verdict.CHANGED


def test_the_shift_is_the_largest_of_a_tile_and_not_the_mean():
    golden = soft_tiles(4)
    ours = [golden[0], add(golden[1], [0, 0, -8]), add(golden[2], [2, 0, 0]), golden[3]]
    assert compare(pictures(*ours), pictures(*golden)).mean_diff == (0.0, 0.0, -8.0)


def test_brighter_and_darker_tiles_do_not_cancel_out():
    golden = soft_tiles(2)
    found = compare(pictures(add(golden[0], 6), add(golden[1], -6)), pictures(*golden))
    assert max(map(abs, found.mean_diff)) == 6


@pytest.mark.parametrize(
    ("ours", "golden", "sentence"),
    [
        (pictures(soft(0), soft(1)), pictures(soft(0), soft(1), soft(2)), "images: 2 instead of 3."),
        (pictures(soft(0), soft(1)), pictures(soft(0)), "images: 2 instead of 1."),
        (pictures(soft(0, 32, 40)), pictures(soft(0, 40, 32)), "size: 32x40 instead of 40x32."),
        (pictures(soft(0), soft(1, 16, 16)), pictures(soft(0), soft(1)), "size: 40x32, 16x16 instead of 40x32."),
        (in_mode("L", soft(0)), pictures(soft(0)), "mode: L instead of RGB."),
        (in_mode("RGBA", soft(0)), pictures(soft(0)), "mode: RGBA instead of RGB."),
    ],
)
def test_another_count_size_or_mode_is_one_sentence(ours, golden, sentence):
    with pytest.raises(Incomparable) as caught:
        compare(ours, golden)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, []),
        ({"ssim": 0.9}, []),
        ({"ssim": 0.91}, ["SSIM 0.90000 in tile 2 of 3 (limit 0.91)"]),
        ({"max_diff": 12}, []),
        ({"max_diff": 11}, ["largest difference 12 levels (limit 11)"]),
        ({"changed_share": 0.5}, []),
        ({"changed_share": 0.0008}, ["50 % of the values differ (limit 0.08 %)"]),
        ({"mean_diff": 1.5}, []),
        ({"mean_diff": 1.4}, ["colour shift 1.50 levels (limit 1.4)"]),
        (
            {"ssim": 1, "max_diff": 0, "changed_share": 0, "mean_diff": 0},
            [
                "SSIM 0.90000 in tile 2 of 3 (limit 1)",
                "largest difference 12 levels (limit 0)",
                "50 % of the values differ (limit 0 %)",
                "colour shift 1.50 levels (limit 0)",
            ],
        ),
    ],
)
def test_each_limit_is_checked_and_reported_separately(given, words):
    found = similarity()
    assert found.excesses(limits(**given)) == words
    assert found.verdict(limits(**given)) == (Verdict.CHANGED if words else Verdict.WITHIN_LIMITS)


def test_the_difference_picture_is_black_to_white():
    flat: np.ndarray = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    golden, ours = [flat, flat], [flat, flat.copy()]
    ours[1][3, 4] = 110
    ours[1][5, 6] = 95
    shown = np.asarray(difference_picture(pictures(*ours), pictures(*golden)))
    assert shown.shape == (HEIGHT, 2 * WIDTH, 3)
    assert shown[3, WIDTH + 4].tolist() == [255] * 3
    assert shown[5, WIDTH + 6].tolist() == [127] * 3
    assert np.count_nonzero(shown.any(axis=-1)) == 2


def test_the_difference_picture_of_identical_grids_is_black():
    assert not np.asarray(difference_picture(pictures(soft(0)), pictures(soft(0)))).any()
