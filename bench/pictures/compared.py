"""How a case compares with its golden, or with another run of itself, as stored in files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

from pydantic import Field

from bench.frozen import Frozen
from bench.pictures.similarity import Limits, Similarity


class ComparedPictures(Frozen):
    """How one grid compares with another; the scores are ``None`` where the grids could not be compared."""

    verdict: str
    message: str = Field(description="the verdict as a sentence")
    ssim_worst_tile: float | None = None
    ssim_tiles: tuple[float, ...] | None = None
    ssim_grid: float | None = None
    max_diff: int | None = Field(default=None, description="8-bit levels")
    changed_share: float | None = Field(default=None, description="share of values that differ")
    mean_diff: tuple[float, float, float] | None = Field(
        default=None, description="signed mean difference per channel of the tile where it is largest, 8-bit levels"
    )
    limits: Limits | None = None

    @classmethod
    def of(cls, similarity: Similarity | None, **others: Any) -> Self:
        """With the scores of a comparison, if there was one.

        Args:
            others: the fields other than the scores.
        """
        scores = {"ssim_worst_tile": similarity.ssim_worst_tile, **asdict(similarity)} if similarity else {}
        return cls(**scores, **others)


class Pictures(ComparedPictures):
    """How the grid compares with its golden."""

    verdict: str = Field(description="identical, within limits, changed, missing, stale, broken or not compared")
    golden: str | None = Field(default=None, description="path of the golden that was compared")
    tier: str | None = Field(
        default=None,
        description="whose limits were used: this machine, this type of device or another type of device, seen from "
        "the golden's",
    )


class ComparedWork(Frozen):
    """What one call of the case does, counted and not timed, and how that compares with the golden's."""

    verdict: str = Field(description="same work, more work, less work, missing or not compared")
    message: str = Field(description="the verdict as a sentence: what is more or less, and by how much")
    counts: dict[str, Any] | None = Field(
        default=None,
        description="operators and host_syncs by name, copies, copied_bytes, peak_bytes, unet_calls, flops, tokens; "
        "of compiled cases also graphs and graph_breaks",
    )
