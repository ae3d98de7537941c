"""A bound that the next observation exceeds with a stated, small chance. Pure.

The bound is a one-sided prediction bound (Hahn and Meeker, "Statistical Intervals", 1991, section 4.8) on a
logarithmic scale, for a two-piece normal distribution (Wallis, "The Two-Piece Normal, Binormal, or Double Gaussian
Distribution", Statistical Science 2014), of which only the upper piece matters::

    y = log(max(figure, resolution))
    log(limit) = median(y) + t(1 - alpha, m) * upper * sqrt(1 + 1 / n)
    upper ** 2 = sum of (y - median) ** 2 over the values above the median, divided by m = n // 2

- A picture moves by sums of squares or by absolute values of many small errors. Their logarithms have a lighter upper
  tail than a normal distribution, so the bound errs on the wide side.
- Values below the median, such as those of a variation that hardly touches a case, cannot widen the limit.
- Below its resolution a figure means nothing, such as whether one value of a picture is off by one level or none.
- Student's t accounts for the small sample.
- A value beyond the bound shows something rarer than rounding alone, such as an edge that flips in one of 64 twins, or
  a timestep that is cut off to the integer below. The bound is then twice that value, and its chance is no promise.

``tests/calibration/test_validation.py`` draws from known distributions (lognormal with a deviation of 0.1 to 1,
chi-squared with 1 to 100 degrees of freedom, absolute normal) and counts how often the next value exceeds the bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

_LARGEST_LOG = 700.0  # the exponential of more is infinite
_ROUNDING = 1e-9  # of the logarithms of equal values


def prediction_bound(values: Sequence[float], resolution: float, alpha: float) -> float:
    """Upper bound that one more value exceeds with a chance of about ``alpha``, at least ``resolution``.

    Args:
        values: at least two, none negative.
        resolution: above 0.
    """
    logs = np.log(np.maximum(np.asarray(values, dtype=np.float64), resolution))
    median, count, above = float(np.median(logs)), len(logs), len(logs) // 2
    upper = math.sqrt(float((np.maximum(logs - median, 0) ** 2).sum()) / above)
    room = float(stats.t.ppf(1 - alpha, above)) * upper * math.sqrt(1 + 1 / count)
    if logs.max() > median + room + _ROUNDING:
        return 2 * max(values)
    return max(resolution, math.exp(min(median + room, _LARGEST_LOG)))
