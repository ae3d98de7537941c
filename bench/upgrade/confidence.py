"""How far a mean may be from what was seen, at every moment of a measurement that continues until it is decided."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Of an interval that is shown, and of the verdict that nothing changed.
ERROR_RATE = 0.05
# Expected size of an effect in standard deviations is 1 / sqrt(PRIOR): it sets where the interval is narrowest, about
# 5 to 10 samples here, and not whether it is valid.
PRIOR = 0.1


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, in the unit of the samples; infinite where nothing is known yet."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high

    def within(self, low: float, high: float) -> bool:
        return low < self.low and self.high < high


def half_width(count: int, deviation: float, error_rate: float = ERROR_RATE, prior: float = PRIOR) -> float:
    """Half the width of a confidence sequence for the mean of normal samples with unknown variance.

    The running intervals of all counts contain the mean together with probability ``1 - error_rate``, so one may look
    after each sample and stop when one likes. They are the means that the one-sample Bayes factor of the t statistic,
    with a normal prior of variance ``1 / prior`` on the standardised effect, does not exceed ``1 / error_rate``:
    that Bayes factor is a test martingale, and Ville's inequality bounds how often it ever gets that large. (Lai 1976,
    "On confidence sequences"; Gönen et al. 2005, "The Bayesian two-sample t test", for the factor; Wang and Ramdas
    2024, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", for the validity.)

    Args:
        count: number of samples.
        deviation: their standard deviation, with ``count - 1`` in the denominator.
    """
    if count < 2:
        return math.inf
    shrink = prior / (count + prior)
    bound = (1 / (error_rate * math.sqrt(shrink))) ** (2 / count)
    if bound * shrink >= 1:
        return math.inf
    t_squared = (count - 1) * (bound - 1) / (1 - bound * shrink)
    return deviation * math.sqrt(t_squared / count)


def confidence_interval(samples: Sequence[float], error_rate: float = ERROR_RATE) -> Interval:
    """The interval after these samples, valid also if it was looked at after each of them; see ``half_width``.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples, so nothing can be estimated")
    deviation = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return interval_around(statistics.fmean(samples), len(samples), deviation, error_rate)


def interval_around(estimate: float, count: int, deviation: float, error_rate: float = ERROR_RATE) -> Interval:
    """The interval after this many samples with this mean and standard deviation; see ``half_width``."""
    half = half_width(count, deviation, error_rate)
    return Interval(estimate, estimate - half, estimate + half)
