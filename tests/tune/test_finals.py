"""Measuring the front again, in turns."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from bench.tune.finals import FEWEST_ROUNDS, MOST_ROUNDS, measure_in_turns, ranked
from tests.tune.made_up import made_up_space

CASES = list(made_up_space().cases.values())[:4]


def test_each_setting_is_called_once_per_round_and_once_before():
    calls: list[str] = []

    def call(case):
        calls.append(case.id)
        return 1.0 + CASES.index(case)

    found = measure_in_turns(call, CASES, 0.0, random.Random(0))
    assert Counter(calls) == {case.id: 1 + FEWEST_ROUNDS for case in CASES}
    rounds = [calls[number : number + 4] for number in range(4, len(calls), 4)]
    assert all(len(set(one)) == 4 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert [one.case for one in found] == [case.id for case in CASES]


def test_more_time_is_more_rounds():
    found = measure_in_turns(lambda case: 1.0, CASES, 60.0, random.Random(0))
    assert all(len(one.samples_s) == MOST_ROUNDS for one in found)


def samples(rng: np.random.Generator, ratio: float, noise: float, rounds: int = 10) -> dict[str, list[float]]:
    """Two settings whose times share what the machine does in each round."""
    machine = rng.lognormal(0, 0.3, rounds)
    return {
        "fast": list(machine * rng.lognormal(0, noise, rounds)),
        "slow": list(ratio * machine * rng.lognormal(0, noise, rounds)),
    }


def test_what_the_machine_does_meanwhile_hides_no_difference():
    first, last = ranked(samples(np.random.default_rng(1), 1.1, 0.01))
    assert (first.case, last.case) == ("fast", "slow")
    assert first.low
    assert first.high
    assert 1.05 < first.low < 1.1 < first.high
    assert not first.ties_with_next
    assert (last.ratio_to_next, last.low, last.ties_with_next) == (None, None, False)


def test_equal_times_are_a_tie():
    rng = np.random.default_rng(2)
    ties = [ranked(samples(rng, 1.0, 0.05))[0].ties_with_next for _ in range(100)]
    assert sum(ties) >= 90


def test_the_interval_holds_the_true_ratio():
    rng = np.random.default_rng(3)
    holds = 0
    for _ in range(200):
        first = ranked(samples(rng, 1.3, 0.03))[0]
        assert first.low
        assert first.high
        holds += first.low <= 1.3 <= first.high
    assert holds >= 180
