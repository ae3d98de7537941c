"""Calls in lockstep: the ratio of made-up ones, and real ones of two workers."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from bench.suite.schedulers import DDPM
from bench.upgrade.lockstep import ALTERNATE, DUET, PairedCall, log_ratio, paired_call, places_for
from bench.upgrade.workers import fresh
from tests.upgrade.helpers import KINDS, TAKING_TURNS, UNET_CALLS

CALL = [1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 3.0]  # text encoding, then UNet calls, the last one with the decoding


def paired(baseline: Sequence[float], candidate: Sequence[float]) -> PairedCall:
    return PairedCall(list(baseline), list(candidate), ("", ""))


def with_last(factor: float) -> list[float]:
    return [*CALL[:-1], CALL[-1] * factor]


def noisy_calls(rng: np.random.Generator, calls: int, sigma: float, factor: float = 1.0) -> list[PairedCall]:
    noise = rng.lognormal(0, sigma, (calls, 2, len(CALL)))
    return [paired((CALL * one[0]).tolist(), (factor * np.array(CALL) * one[1]).tolist()) for one in noise]


def test_equal_calls_have_no_ratio():
    assert log_ratio([paired(CALL, CALL)] * 3) == 0


@pytest.mark.parametrize("factor", [1.05, 0.95, 2.0, 0.5, 10.0])
def test_a_candidate_slower_everywhere_is_slower_by_just_that(factor):
    assert log_ratio([paired(CALL, [factor * segment for segment in CALL])]) == pytest.approx(math.log(factor))


@pytest.mark.parametrize("factor", [1.05, 1.4, 0.7])
def test_a_slower_decoding_counts_by_its_share(factor):
    slower = with_last(factor)
    assert log_ratio([paired(CALL, slower)] * 3) == pytest.approx(math.log(sum(slower) / sum(CALL)))


@pytest.mark.parametrize(("place", "factor"), [(-1, 2.0), (-1, 4.0), (0, 5.0)])
def test_a_part_that_is_slower_in_every_call_counts_in_full(place, factor):
    slower = list(CALL)
    slower[place] *= factor
    assert log_ratio([paired(CALL, slower)] * 6) == pytest.approx(math.log(sum(slower) / sum(CALL)), abs=0.01)


def test_more_unet_calls_and_a_long_decoding_count_as_the_calls():
    baseline, candidate = [1.0, 5.0, 5.0, 10.0], [1.0, 5.0, 5.0, 5.0, 10.0]
    assert log_ratio([paired(baseline, candidate)]) == pytest.approx(math.log(26 / 21), abs=0.01)


def test_swapped_sides_give_minus_the_ratio(rng):
    for _ in range(200):
        calls = noisy_calls(rng, int(rng.integers(1, 4)), 0.5, 1.2)
        swapped = [paired(call.candidate, call.baseline) for call in calls]
        assert log_ratio(swapped) == pytest.approx(-log_ratio(calls))


@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("factor", [1.0, 1.05, 2.0])
@pytest.mark.parametrize("calls", [1, 3])
def test_one_interrupted_segment_moves_the_ratio_by_little(calls, factor, place):
    candidate = [factor * segment for segment in CALL]
    candidate[place] += 50
    measured = log_ratio(
        [paired(CALL, candidate)] + [paired(CALL, [factor * segment for segment in CALL])] * (calls - 1)
    )
    by_sums = math.log((sum(candidate) + (calls - 1) * factor * sum(CALL)) / (calls * sum(CALL)))
    assert by_sums - math.log(factor) > 0.2
    assert 0 < measured - math.log(factor) < 0.09


def test_an_interruption_of_either_side_counts_the_same():
    odd = [*CALL[:3], 10 * CALL[3], *CALL[4:]]
    assert log_ratio([paired(CALL, odd), paired(odd, CALL)]) == pytest.approx(0)


def test_what_one_side_does_alone_counts_in_full():
    two_more = [*CALL[:-1], 3.0, 5.0, 5.0]
    assert log_ratio([paired(CALL, two_more)]) == pytest.approx(math.log(sum(two_more) / sum(CALL)))
    assert log_ratio([paired(two_more, CALL)]) == pytest.approx(-math.log(sum(two_more) / sum(CALL)))


@pytest.mark.parametrize("calls", [1, 4])
def test_equal_noisy_calls_have_no_ratio_on_average(calls, rng):
    ratios = [log_ratio(noisy_calls(rng, calls, 0.2)) for _ in range(4000)]
    assert abs(statistics.fmean(ratios)) < 3.5 * statistics.stdev(ratios) / math.sqrt(len(ratios))


def test_a_slower_candidate_is_found_under_noise_without_bias(rng):
    ratios = [log_ratio(noisy_calls(rng, 4, 0.2, 1.05)) for _ in range(4000)]
    assert statistics.fmean(ratios) == pytest.approx(math.log(1.05), abs=0.004)


def test_interruptions_spread_the_ratio_less_than_that_of_sums(rng):
    ratios, by_sums = [], []
    for _ in range(1000):
        calls = []
        for call in noisy_calls(rng, 2, 0.05):
            hit = rng.random((2, len(CALL))) < 0.05
            baseline, candidate = np.where(hit, 10.0, 1.0) * [call.baseline, call.candidate]
            calls.append(paired(baseline.tolist(), candidate.tolist()))
        ratios.append(log_ratio(calls))
        by_sums.append(math.log(sum(sum(call.candidate) for call in calls) / sum(sum(call.baseline) for call in calls)))
    assert statistics.stdev(ratios) < 0.25 * statistics.stdev(by_sums)
    assert abs(statistics.fmean(ratios)) < 3.5 * statistics.stdev(ratios) / math.sqrt(len(ratios))


@KINDS
@pytest.mark.parametrize("mode", [DUET, ALTERNATE])
def test_a_call_in_lockstep_has_a_segment_more_than_unet_calls(kind, mode, sides, request_of):
    places = TAKING_TURNS
    if mode == DUET:
        places = places_for("cpu")
        if places.mode != DUET:
            pytest.skip("a duet needs Linux and two cores")
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        for side in (one, other):
            side.ask("load", **request_of(kind))
        calls = [paired_call((one, other), places, random.Random(0), swapped=swapped) for swapped in (False, True)]
    for call in calls:
        assert len(call.baseline) == len(call.candidate) == UNET_CALLS[kind] + 1
        assert min(call.baseline + call.candidate) > 0
    assert len({checksum for call in calls for checksum in call.checksums}) == 1


def test_a_side_with_more_unet_calls_does_the_rest_alone(sides, request_of):
    with fresh(sides[0]) as one, fresh(sides[1]) as other:
        one.ask("load", **request_of(DDPM))
        other.ask("load", **request_of(DDPM, steps=6))
        call = paired_call((one, other), TAKING_TURNS, random.Random(0))
    assert (len(call.baseline), len(call.candidate)) == (5, 7)
    assert call.checksums[0] != call.checksums[1]
