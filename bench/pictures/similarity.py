"""How far one grid is from another, tile by tile; the worst tile decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import Field
from skimage.metrics import structural_similarity

from bench.errors import BenchError
from bench.frozen import Frozen
from bench.pictures.grids import make_grid
from bench.verdicts import Verdict


class Incomparable(BenchError):
    """Two grids differ in the number, the size or the mode of their tiles."""


class Limits(Frozen):
    """How far a grid may be from its golden."""

    ssim: float = Field(description="smallest allowed SSIM of the worst tile")
    max_diff: int = Field(description="largest allowed difference of any value, 8-bit levels")
    # A difference of one level everywhere is hardly visible, and still a change.
    changed_share: float = Field(default=1.0, description="largest allowed share of values that differ; 1 is no limit")
    # A shift of colour or brightness, to which SSIM is nearly blind.
    mean_diff: float = Field(description="largest allowed mean difference of a channel of a tile, 8-bit levels")
    reason: str = Field(description="from which measurements these follow")


@dataclass(frozen=True)
class Similarity:
    """Differences are in 8-bit levels, this minus golden; SSIM and shares are plain numbers.

    Attributes:
        ssim_tiles: SSIM of each tile, in [-1, 1].
        ssim_grid: SSIM of the grid as one picture, to show what it hides.
        max_diff: largest difference of any value.
        changed_share: share of values that differ at all.
        mean_diff: signed mean difference per channel (red, green, blue) of the tile where it is largest.
    """

    ssim_tiles: tuple[float, ...]
    ssim_grid: float
    max_diff: int
    changed_share: float
    mean_diff: tuple[float, float, float]

    @property
    def ssim_worst_tile(self) -> float:
        return min(self.ssim_tiles)

    @property
    def worst_tile(self) -> int:
        return self.ssim_tiles.index(self.ssim_worst_tile)

    def excesses(self, limits: Limits) -> list[str]:
        """What is over the limits, in words; empty if nothing is."""
        shift = max(map(abs, self.mean_diff))
        found = []
        if self.ssim_worst_tile < limits.ssim:
            tile = f"tile {self.worst_tile + 1} of {len(self.ssim_tiles)}"
            found.append(f"SSIM {self.ssim_worst_tile:.5f} in {tile} (limit {limits.ssim})")
        if self.max_diff > limits.max_diff:
            found.append(f"largest difference {self.max_diff} levels (limit {limits.max_diff})")
        if self.changed_share > limits.changed_share:
            found.append(
                f"{_percent(self.changed_share)} of the values differ (limit {_percent(limits.changed_share)})"
            )
        if shift > limits.mean_diff:
            found.append(f"colour shift {shift:.2f} levels (limit {limits.mean_diff})")
        return found

    def verdict(self, limits: Limits) -> Verdict:
        if self.max_diff == 0:
            return Verdict.IDENTICAL
        return Verdict.CHANGED if self.excesses(limits) else Verdict.WITHIN_LIMITS


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM of two pictures (height, width, 3), uint8, as in Wang et al. 2004.

    Gaussian weights with sigma 1.5, population covariance, data range 255.
    """
    return float(
        structural_similarity(
            one, other, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def compare(tiles: Sequence[Image.Image], golden: Sequence[Image.Image]) -> Similarity:
    """Compares two grids given as their tiles.

    Raises:
        Incomparable: number, size or mode differ.
    """
    for what, ours, theirs in (
        ("images", len(tiles), len(golden)),
        ("size", [tile.size for tile in tiles], [tile.size for tile in golden]),
        ("mode", [tile.mode for tile in tiles], [tile.mode for tile in golden]),
    ):
        if ours != theirs:
            raise Incomparable(f"{what}: {_words(ours)} instead of {_words(theirs)}.")
    pairs = [(np.asarray(tile), np.asarray(other)) for tile, other in zip(tiles, golden, strict=True)]
    differences = np.stack([one.astype(np.int16) - other for one, other in pairs])
    shifts = differences.mean(axis=(1, 2))
    shift = shifts[np.abs(shifts).max(axis=1).argmax()]
    size = tiles[0].size
    return Similarity(
        ssim_tiles=tuple(ssim(one, other) for one, other in pairs),
        ssim_grid=ssim(np.asarray(make_grid(tiles, size)), np.asarray(make_grid(golden, size))),
        max_diff=int(np.abs(differences).max()),
        changed_share=float((differences != 0).mean()),
        mean_diff=(float(shift[0]), float(shift[1]), float(shift[2])),
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        words = ["x".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value]
        return ", ".join(dict.fromkeys(words))
    return str(value)


def difference_picture(tiles: Sequence[Image.Image], golden: Sequence[Image.Image]) -> Image.Image:
    """Absolute differences of two comparable grids, scaled so that the largest is white."""
    size = tiles[0].size
    one, other = (np.asarray(make_grid(images, size)).astype(np.int16) for images in (tiles, golden))
    difference = np.abs(one - other)
    return Image.fromarray((difference * (255 / max(1, int(difference.max())))).astype(np.uint8))
