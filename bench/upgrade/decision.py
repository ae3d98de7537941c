"""From samples of both sides to a verdict: worse, better, same, or *cannot tell*."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.upgrade.confidence import ERROR_RATE, confidence_interval, interval_around
from bench.verdicts import Verdict

# Below this, one odd process decides too much.
FEWEST_STARTS = 4
MOST_STARTS_FORETOLD = 10_000


@dataclass(frozen=True)
class Decision:
    """What the starts say about one question.

    Attributes:
        verdict: ``slower``, ``faster``, ``same`` or ``cannot tell`` (memory: ``more``, ``less``).
        ratio: candidate / baseline, the geometric mean over the starts, and its interval from ``low`` to ``high``.
        starts: number of starts.
        more_starts: of *cannot tell*: how many more starts would be needed if they were like these; ``None`` if more
            than anyone would wait for.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    starts: int
    more_starts: int | None = None


@dataclass(frozen=True)
class Question:
    """When something has changed, and how surely.

    Attributes:
        min_change: smallest change that matters, 0.03 for 3 %.
        alarm_rate: how often, at most, an equal candidate may ever be called worse or better.
        worse, better: what a larger and a smaller ratio are called.
    """

    min_change: float
    alarm_rate: float = ERROR_RATE
    worse: Verdict = Verdict.SLOWER
    better: Verdict = Verdict.FASTER

    @property
    def margin(self) -> float:
        """The smallest change that matters, of ``log(candidate / baseline)``."""
        return math.log1p(self.min_change)

    def verdict(self, count: int, estimate: float, deviation: float) -> Verdict:
        """The verdict on this many samples with this mean and standard deviation."""
        if count < FEWEST_STARTS:
            return Verdict.CANNOT_TELL
        if not deviation:
            return self.exact_verdict(estimate)
        sure = interval_around(estimate, count, deviation, self.alarm_rate).excludes(0)
        if sure and abs(estimate) >= self.margin:
            return self.exact_verdict(estimate)
        inside = interval_around(estimate, count, deviation).within(-self.margin, self.margin)
        return Verdict.SAME if inside else Verdict.CANNOT_TELL

    def exact_verdict(self, log_ratio: float) -> Verdict:
        """The verdict on a value that is known exactly."""
        if abs(log_ratio) < self.margin:
            return Verdict.SAME
        return self.worse if log_ratio > 0 else self.better


def decide(log_ratios: Sequence[float], question: Question) -> Decision:
    """The verdict on ``log(candidate / baseline)``, one value per start.

    ``worse`` (or ``better``): the interval at the alarm rate excludes no change, and the ratio is at least the smallest
    change that matters away from 1. ``same``: the interval at ``ERROR_RATE`` lies nearer to 1 than that. May be asked
    after every start; see ``half_width``.

    Raises:
        ValueError: there are no samples.
    """
    interval = confidence_interval(log_ratios)
    count = len(log_ratios)
    deviation = statistics.stdev(log_ratios) if count > 1 else 0.0
    verdict = question.verdict(count, interval.estimate, deviation)
    more = starts_still_needed(log_ratios, question) if verdict is Verdict.CANNOT_TELL else None
    high = math.inf if interval.high == math.inf else math.exp(interval.high)
    return Decision(verdict, math.exp(interval.estimate), math.exp(interval.low), high, count, more)


def exactly(log_ratio: float, question: Question, starts: int) -> Decision:
    """The verdict on a value that is the same in every process."""
    ratio = math.exp(log_ratio)
    return Decision(question.exact_verdict(log_ratio), ratio, ratio, ratio, starts)


def starts_still_needed(log_ratios: Sequence[float], question: Question) -> int | None:
    """How many more starts with this mean and spread would give a verdict; ``None`` if very many."""
    if len(log_ratios) < 2:
        return max(FEWEST_STARTS - len(log_ratios), 1)
    estimate = statistics.fmean(log_ratios)
    deviation = statistics.stdev(log_ratios)
    count = max(len(log_ratios) + 1, FEWEST_STARTS)
    while count <= MOST_STARTS_FORETOLD:
        if question.verdict(count, estimate, deviation) is not Verdict.CANNOT_TELL:
            return count - len(log_ratios)
        count += max(1, count // 20)
    return None
