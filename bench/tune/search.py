"""Which setting to try next: first what shows each part's cost, then what promises most for the time of its trial."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bench.tune.front import undominated
from bench.tune.space import Space
from bench.tune.surrogate import Surrogate

DRAWS = 32
# What a trial takes beside its pictures, in seconds: scores and bookkeeping.
OVERHEAD_S = 0.3
# A smaller expected gain counts as zero. For comparison: 0.0001 more quality at half the time adds 0.00007 to the area.
NO_GAIN = 1e-5


@dataclass(frozen=True)
class Known:
    """Time and quality of a setting that was tried."""

    seconds: float
    quality: float


class Chooser(Protocol):
    """Chooses the next setting of a space; the arguments are those of ``Search.next``."""

    space: Space

    def next(self, known: Mapping[str, Known], taken: Collection[str], rng: np.random.Generator) -> str | None: ...


@dataclass
class Shuffled:
    """Chooses by chance, for a search that tries every setting: what the machine does meanwhile meets all of them."""

    space: Space

    def next(self, known: Mapping[str, Known], taken: Collection[str], rng: np.random.Generator) -> str | None:
        left = [name for name in self.space.cases if name not in taken]
        return str(rng.choice(left)) if left else None


@dataclass
class Search:
    """Chooses among the settings of a space.

    Time is nearly a sum over the parts of a pipeline and proportional to the denoiser's calls, and quality changes
    smoothly with the steps. So a start of one trial for each scheduler and for each pipeline, at a middle number of
    steps, says much about all other settings. From there on, a setting is chosen by how much it is expected to add to
    the area that the front beats (Emmerich et al. 2006, "Single- and multiobjective evolutionary optimization assisted
    by Gaussian random field metamodels"), for each second that its trial is expected to take.

    Attributes:
        min_quality: below it, a setting is no choice.
    """

    space: Space
    min_quality: float
    _surrogate: Surrogate = field(init=False)

    def __post_init__(self) -> None:
        self._surrogate = Surrogate(self.space.cases)

    def next(self, known: Mapping[str, Known], taken: Collection[str], rng: np.random.Generator) -> str | None:
        """The id of the next setting; ``None`` when all are taken, or none of the others promises to improve the front.

        Args:
            known: of settings that ended with a result.
            taken: ids that must not be tried again: ended, failed, or being tried by another worker.
        """
        left = [name for name in self.space.cases if name not in taken]
        if not left:
            return None
        for name in first_settings(self.space, known):
            if name not in taken:
                return name
        if len(known) < 2:
            return str(rng.choice(left))
        return self._most_promising(known, left, rng)

    def _most_promising(self, known: Mapping[str, Known], left: list[str], rng: np.random.Generator) -> str | None:
        pairs = {name: (one.seconds, one.quality) for name, one in known.items()}
        log_seconds, quality = self._surrogate.draws(pairs, DRAWS, rng)
        candidates = set(left)
        columns = [number for number, name in enumerate(self.space.cases) if name in candidates]
        log_seconds, quality = log_seconds[:, columns], quality[:, columns]
        worst = max(np.log(one.seconds) for one in known.values()), self.min_quality
        points = [(float(np.log(one.seconds)), one.quality) for one in known.values()]
        gain = gains(log_seconds, quality, points, worst).mean(axis=0)
        if gain.max() < NO_GAIN:
            return None
        cost = np.exp(log_seconds).mean(axis=0) * self.space.tuning.pictures + OVERHEAD_S
        return left[int(np.argmax(gain / cost))]


def gains(
    log_seconds: np.ndarray, quality: np.ndarray, points: list[tuple[float, float]], worst: tuple[float, float]
) -> np.ndarray:
    """By how much each point would enlarge the area that the front of known points beats; the shape of the arguments.

    Args:
        points: log seconds and quality of what is known.
        worst: the longest time and the lowest quality that count.
    """
    front = undominated(points, lambda point: point, above=worst[1])
    edges = [-np.inf, *(time for time, _ in front), worst[0]]
    reached = [worst[1], *(good for _, good in front)]
    total = np.zeros_like(quality)
    for begin, end, level in zip(edges[:-1], edges[1:], reached, strict=True):
        width = np.clip(end - np.maximum(log_seconds, begin), 0, None)
        total += width * np.clip(quality - level, 0, None)
    return total


def first_settings(space: Space, known: Mapping[str, Known]) -> list[str]:
    """The start, each scheduler at a middle number of steps, and each other value with the best of those schedulers."""
    steps = sorted({case.settings.steps for case in space.cases.values()})
    base = space.first_place(steps=steps[(len(steps) - 1) // 2])
    schedulers = _varied(space, base, ("scheduler", "options"))
    best = max((name for name in schedulers if name in known), key=lambda name: known[name].quality, default=None)
    chosen = [space.start.id, *schedulers]
    if best:
        base = dict(zip(space.axes, space.place(space.cases[best]), strict=True))
        for axes in (("dtype", "optimizations"), ("images",), ("size",), ("guidance",), ("call",)):
            chosen += _varied(space, base, axes)
    return list(dict.fromkeys(chosen))


def _varied(space: Space, base: Mapping[str, str], axes: Sequence[str]) -> list[str]:
    """The settings with all values of these axes, and the others as in ``base``."""
    varied = [axis for axis in axes if axis in space.axes]
    places = (
        dict(base) | dict(zip(varied, values, strict=True))
        for values in itertools.product(*(space.axes[axis] for axis in varied))
    )
    names = (space.by_words.get(tuple(place[axis] for axis in space.axes)) for place in places)
    return [name for name in names if name]
