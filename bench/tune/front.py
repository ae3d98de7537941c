"""The settings that no other one beats, how good such a front is, and which of them to pick."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.tune.result import Tried

Item = TypeVar("Item")

AS_GOOD, BALANCED, FASTEST = "as good as the reference", "balanced", "fastest acceptable"


def undominated(
    items: Iterable[Item], place: Callable[[Item], tuple[float, float]], above: float = -math.inf
) -> list[Item]:
    """Those that no other one beats, fastest first: none is faster and as good, or as fast and better.

    Args:
        place: time and quality of an item.
        above: only a better quality than this counts.
    """
    front: list[Item] = []
    for item in sorted(items, key=lambda item: (place(item)[0], -place(item)[1])):
        quality = place(item)[1]
        if quality > above:
            front.append(item)
            above = quality
    return front


def front_of(tried: Iterable[Tried], min_quality: float = -math.inf) -> list[Tried]:
    """The settings that no other one beats in both time and quality, fastest first.

    Args:
        min_quality: those below it are no choice at all.
    """
    acceptable = (one for one in tried if one.complete and one.quality >= min_quality)
    return undominated(acceptable, lambda one: (one.seconds, one.quality))


def hypervolume(points: Iterable[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area that is beaten by at least one point, up to the worst point; larger is better.

    Args:
        points: time and quality; the logarithm of a time weighs a saving by its share.
        worst: the longest time and the lowest quality that count.

    See Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary algorithms".
    """
    longest, reached = worst
    area = 0.0
    for seconds, quality in undominated(points, lambda point: point, above=reached):
        area += max(0.0, longest - seconds) * (quality - reached)
        reached = quality
    return area


@dataclass(frozen=True)
class Pick:
    """A setting of the front with the name of what it is best for, and why."""

    name: str
    tried: Tried
    reason: str


def picks_of(front: Sequence[Tried], start: Tried | None, max_seconds: float | None = None) -> list[Pick]:
    """Up to three settings of a front, the best one first.

    *As good as the reference* is the fastest setting that is at least as near to the reference as what a user starts
    with. *Balanced* is the one after which more quality costs most: the farthest above the line from the fastest to the
    best, with time as its logarithm. *Fastest acceptable* is the fastest of the front.

    Args:
        front: fastest first.
        max_seconds: longest time per picture; slower ones are no choice.
    """
    allowed = [one for one in front if max_seconds is None or one.seconds <= max_seconds]
    if not allowed:
        return []
    picks = []
    if start and start.quality <= allowed[-1].quality:
        good = next(one for one in allowed if one.quality >= start.quality)
        picks.append(Pick(AS_GOOD, good, f"at least as near to the reference as {start.case}"))
    else:
        picks.append(Pick(AS_GOOD, allowed[-1], "the nearest to the reference that was found"))
    picks.append(Pick(BALANCED, _knee(allowed), "more quality costs most from here on"))
    picks.append(Pick(FASTEST, allowed[0], "the fastest with acceptable pictures"))
    return picks


def _knee(front: Sequence[Tried]) -> Tried:
    first, last = front[0], front[-1]
    span, rise = math.log(last.seconds / first.seconds), last.quality - first.quality
    if not span or not rise:
        return first

    def above(one: Tried) -> float:
        return (one.quality - first.quality) / rise - math.log(one.seconds / first.seconds) / span

    return max(front, key=above)
