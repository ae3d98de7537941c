"""What a study keeps of each setting that it tried, and of those that it measured again at the end."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, median
from typing import Any

from pydantic import Field

from bench.frozen import Frozen


class Tried(Frozen):
    """What one setting takes and gives."""

    case: str
    settings: dict[str, Any]
    seconds: float = Field(description="median seconds per picture, after the first call")
    samples_s: tuple[float, ...] = Field(description="seconds per picture of each call after the first")
    first_call_s: float = Field(description="seconds of the first call, per call and not per picture")
    cost_s: float = Field(description="seconds that the trial took in all")
    quality: float = Field(description="mean over the pictures; SSIM to the reference unless another measure was given")
    ssim: tuple[float, ...] = Field(description="of each picture to that of the reference")
    flip: tuple[float, ...] = Field(description="mean FLIP error of each picture, 0 for the same picture")
    peak_bytes: int | None = Field(default=None, description="peak of allocated memory; null where nothing counts it")
    complete: bool = Field(default=True, description="false if the first pictures were below the lowest quality")

    @property
    def images(self) -> int:
        """Pictures per call."""
        return int(self.settings["images"])

    @property
    def worst_ssim(self) -> float:
        return min(self.ssim)

    @property
    def mean_flip(self) -> float:
        return fmean(self.flip)

    def break_even(self, plain_s: float) -> float | None:
        """After how many pictures the slow first call has paid off against a setting that takes ``plain_s`` each.

        ``None`` if it never does.
        """
        saved = plain_s - self.seconds
        once = self.first_call_s - self.images * self.seconds
        return max(0.0, once / saved) if saved > 0 else None


def seconds_of(samples_s: tuple[float, ...] | list[float]) -> float:
    return float(median(samples_s))


class Timed(Frozen):
    """A setting of the front, measured again in turns with the others."""

    case: str
    seconds: float = Field(description="median seconds per picture")
    samples_s: tuple[float, ...] = Field(description="seconds per picture, one of each round")
    ratio_to_next: float | None = Field(default=None, description="time of the next slower one / this one's")
    low: float | None = Field(default=None, description="lower end of the interval of that ratio")
    high: float | None = Field(default=None, description="upper end")

    @property
    def ties_with_next(self) -> bool:
        """Whether its time cannot be distinguished from that of the next slower setting."""
        return self.low is not None and self.low <= 1.0


def with_new_times(tried: Iterable[Tried], timed: Iterable[Timed]) -> list[Tried]:
    """The settings that were measured again, in that order, as they were tried but with their new times."""
    known = {one.case: one for one in tried}
    return [known[one.case].model_copy(update={"seconds": one.seconds}) for one in timed]
