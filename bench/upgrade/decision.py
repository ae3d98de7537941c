"""From paired samples of two sides to a verdict: worse, better, same, or *cannot tell*."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.upgrade.confidence import Interval, confidence_interval, half_width
from bench.verdicts import Verdict

# Below this, one odd process decides too much.
FEWEST_PAIRS = 4
MOST_PAIRS_FORETOLD = 10_000


@dataclass(frozen=True)
class Decision:
    """What the pairs of one question say.

    Attributes:
        verdict: ``slower``, ``faster``, ``same`` or ``cannot tell`` (memory: ``more``, ``less``).
        ratio: candidate / baseline, the geometric mean over the pairs, and its interval from ``low`` to ``high``.
        pairs: number of process pairs.
        more_pairs: of *cannot tell*: how many more pairs would be needed if they were like these; ``None`` if more
            than anyone would wait for.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    pairs: int
    more_pairs: int | None = None


def _verdict(interval: Interval, margin: float, worse: Verdict, better: Verdict) -> Verdict:
    if interval.excludes(0) and abs(interval.estimate) >= margin:
        return worse if interval.estimate > 0 else better
    return Verdict.SAME if interval.within(-margin, margin) else Verdict.CANNOT_TELL


def decide(
    log_ratios: Sequence[float],
    min_change: float,
    *,
    worse: Verdict = Verdict.SLOWER,
    better: Verdict = Verdict.FASTER,
    fewest_pairs: int = FEWEST_PAIRS,
) -> Decision:
    """The verdict on ``log(candidate / baseline)``, one value per process pair.

    ``worse`` (or ``better``): the interval excludes no change, and the ratio is at least ``min_change`` away from 1.
    ``same``: the whole interval lies nearer to 1 than that. May be asked after every pair; see ``half_width``.

    Args:
        min_change: smallest change that matters, 0.03 for 3 %.

    Raises:
        ValueError: there are no pairs.
    """
    interval = confidence_interval(log_ratios)
    margin = math.log1p(min_change)
    pairs = len(log_ratios)
    verdict = _verdict(interval, margin, worse, better) if pairs >= fewest_pairs else Verdict.CANNOT_TELL
    more = None
    if verdict is Verdict.CANNOT_TELL:
        more = pairs_still_needed(log_ratios, margin, fewest_pairs)
    return Decision(verdict, math.exp(interval.estimate), math.exp(interval.low), _exp(interval.high), pairs, more)


def _exp(value: float) -> float:
    return math.inf if value == math.inf else math.exp(value)


def pairs_still_needed(log_ratios: Sequence[float], margin: float, fewest_pairs: int = FEWEST_PAIRS) -> int | None:
    """How many more pairs with this mean and spread would give a verdict; ``None`` if very many."""
    if len(log_ratios) < 2:
        return max(fewest_pairs - len(log_ratios), 1)
    estimate = statistics.fmean(log_ratios)
    deviation = statistics.stdev(log_ratios)
    count = max(len(log_ratios) + 1, fewest_pairs)
    while count <= MOST_PAIRS_FORETOLD:
        half = half_width(count, deviation)
        interval = Interval(estimate, estimate - half, estimate + half)
        if _verdict(interval, margin, Verdict.SLOWER, Verdict.FASTER) is not Verdict.CANNOT_TELL:
            return count - len(log_ratios)
        count += max(1, count // 20)
    return None
