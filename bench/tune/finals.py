"""Measures the settings of a front again, in turns, so that what the machine does meanwhile does it to all of them."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from scipy.stats import t as student

from bench.suite.case import Case
from bench.tune.result import Timed, seconds_of

FEWEST_ROUNDS, MOST_ROUNDS = 3, 30
# Of all intervals of a front together that one of them misses the true ratio.
ERROR_RATE = 0.05


def measure_in_turns(
    seconds_of_call: Callable[[Case], float],
    cases: Sequence[Case],
    budget_s: float,
    rng: random.Random,
    announce: Callable[[str], None] = lambda line: None,
) -> list[Timed]:
    """Each setting once per round, in random order, until the budget is spent.

    Args:
        seconds_of_call: makes one call and returns its seconds per picture; the first one of each setting is left out.

    Returns:
        The settings, fastest first; of a tie, the order of the medians.
    """
    for case in cases:
        seconds_of_call(case)
    samples: dict[str, list[float]] = {case.id: [] for case in cases}
    began = time.monotonic()
    for number in range(1, MOST_ROUNDS + 1):
        order = list(cases)
        rng.shuffle(order)
        for case in order:
            samples[case.id].append(seconds_of_call(case))
        spent = time.monotonic() - began
        announce(f"measuring the front again: round {number}, {spent:.0f} s of {budget_s:.0f} s")
        if number >= FEWEST_ROUNDS and spent * (number + 1) / number > budget_s:
            break
    return ranked(samples)


def ranked(samples: dict[str, list[float]]) -> list[Timed]:
    """Settings by their median time, each with the interval of its ratio to the next slower one.

    The logarithms of the ratios within each round are taken as normal, and the intervals of all neighbours share
    ``ERROR_RATE`` (Bonferroni).
    """
    order = sorted(samples, key=lambda name: seconds_of(samples[name]))
    found = []
    for name, following in itertools.zip_longest(order, order[1:]):
        interval = _interval(samples[name], samples[following], len(order) - 1) if following else (None, None, None)
        ratio, low, high = interval
        found.append(
            Timed(
                case=name,
                seconds=seconds_of(samples[name]),
                samples_s=tuple(samples[name]),
                ratio_to_next=ratio,
                low=low,
                high=high,
            )
        )
    return found


def _interval(fast: Sequence[float], slow: Sequence[float], questions: int) -> tuple[float, float, float]:
    """Ratio of slow to fast, and the ends of its interval."""
    logs = [math.log(after / before) for before, after in zip(fast, slow, strict=True)]
    middle = fmean(logs)
    quantile = float(student.ppf(1 - ERROR_RATE / questions / 2, len(logs) - 1))
    half = quantile * stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)
