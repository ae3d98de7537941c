"""Pooling: which calls share a component, what it takes on both sides, and what interruptions may do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER, REST
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade.components import MOST_ODD, Component, component_of, samples_of, short_names, totals_by_part
from bench.upgrade.lockstep import PairedCall
from tests.upgrade.starts import CALL, call, slower, start

PARTS = (REST, ENCODER, REST, DENOISER, BETWEEN, DENOISER, BETWEEN, DENOISER, BETWEEN, DECODER, REST)


def whole_ratio(calls: Sequence[PairedCall]) -> float:
    """``log(candidate / baseline)`` over these calls of one case."""
    totals = [pair for one in totals_by_part(calls) for pair in one.values()]
    return math.log(sum(after for _, after in totals) / sum(before for before, _ in totals))


def share(part: str) -> float:
    return sum(seconds for name, seconds in CALL if name == part) / sum(seconds for _, seconds in CALL)


def noisy(rng: np.random.Generator, count: int, sigma: float, factor: float = 1.0) -> list[PairedCall]:
    return [
        PairedCall(
            baseline=tuple((part, seconds * rng.lognormal(0, sigma)) for part, seconds in CALL),
            candidate=tuple((part, factor * seconds * rng.lognormal(0, sigma)) for part, seconds in CALL),
        )
        for _ in range(count)
    ]


def interrupted(place: int, seconds: float = 50.0, factor: float = 1.0) -> PairedCall:
    """A call whose candidate something else held up in one segment."""
    candidate = [(part, factor * took) for part, took in CALL]
    candidate[place] = candidate[place][0], candidate[place][1] + seconds
    return PairedCall(baseline=CALL, candidate=tuple(candidate))


@pytest.mark.parametrize("calls", [1, 2, 3, 8])
@pytest.mark.parametrize("part", [ENCODER, DENOISER, BETWEEN, DECODER, REST])
@pytest.mark.parametrize("factor", [1.05, 2.0, 12.0, 0.5])
def test_a_part_slower_in_every_call_counts_in_full(part, factor, calls):
    found = totals_by_part([call(slower(part, factor))] * calls)
    for totals in found:
        ratios = {name: after / before for name, (before, after) in totals.items()}
        assert ratios == pytest.approx({name: factor if name == part else 1.0 for name in ratios})
    expected = math.log(1 + share(part) * (factor - 1))
    assert whole_ratio([call(slower(part, factor))] * calls) == pytest.approx(expected)


@pytest.mark.parametrize("place", range(len(CALL)))
@pytest.mark.parametrize("factor", [1.0, 1.05, 2.0])
def test_one_interrupted_segment_of_many_calls_counts_for_little(place, factor):
    calm = [call(tuple((part, factor * seconds) for part, seconds in CALL))] * 4
    measured = whole_ratio([interrupted(place, factor=factor), *calm])
    most = CALL[place][1] * (MOST_ODD - 1) / (5 * sum(seconds for _, seconds in CALL))
    assert -1e-9 < measured - math.log(factor) <= most * 1.01


def test_an_interruption_of_either_side_counts_the_same():
    one = interrupted(5)
    other = PairedCall(baseline=one.candidate, candidate=one.baseline)
    assert whole_ratio([one, other, call(CALL)]) == pytest.approx(0)


def test_swapped_sides_give_minus_the_ratio(rng):
    for _ in range(100):
        calls = noisy(rng, int(rng.integers(1, 6)), 0.5, 1.2)
        swapped = [PairedCall(baseline=one.candidate, candidate=one.baseline) for one in calls]
        assert whole_ratio(swapped) == pytest.approx(-whole_ratio(calls))


@pytest.mark.parametrize("calls", [1, 4])
def test_equal_noisy_calls_have_no_ratio_on_average(calls, rng):
    ratios = [whole_ratio(noisy(rng, calls, 0.2)) for _ in range(1500)]
    assert abs(statistics.fmean(ratios)) < 3.5 * statistics.stdev(ratios) / math.sqrt(len(ratios))


def test_what_one_side_does_alone_counts_in_full():
    two_more = (*CALL[:-2], (DENOISER, 5.0), (BETWEEN, 0.5), *CALL[-2:])
    (totals,) = totals_by_part([PairedCall(baseline=CALL, candidate=two_more)])
    assert totals[DENOISER] == (15.0, 20.0)
    assert totals[BETWEEN][1] == totals[BETWEEN][0] + 0.5


def test_a_part_that_one_side_lacks_counts_as_the_rest():
    without = tuple((REST if part == ENCODER else part, seconds) for part, seconds in CALL)
    (totals,) = totals_by_part([PairedCall(baseline=CALL, candidate=without)])
    assert ENCODER not in totals
    assert totals[REST][0] == pytest.approx(totals[REST][1])


def test_networks_are_shared_by_shape_and_schedulers_by_their_options(tiny_case):
    shapes = {DENOISER: (8, 4, 16, 16), DECODER: (4, 4, 16, 16)}
    one = tiny_case(STABLE_DIFFUSION, scheduler="ddim")
    other = tiny_case(STABLE_DIFFUSION, scheduler="euler")
    wide = shapes | {DENOISER: (4, 4, 16, 16)}
    assert component_of(one, DENOISER, shapes) == component_of(other, DENOISER, shapes)
    assert component_of(one, DENOISER, shapes) != component_of(one, DENOISER, wide)
    assert component_of(one, DECODER, shapes) == component_of(one, DECODER, wide)
    assert component_of(one, BETWEEN, shapes) != component_of(other, BETWEEN, shapes)
    karras = tiny_case(STABLE_DIFFUSION, scheduler="euler", options={"use_karras_sigmas": True})
    assert component_of(other, REST, shapes) != component_of(karras, REST, shapes)


def test_only_two_components_of_one_name_show_their_shapes():
    small, large = Component("sd in float32", DENOISER, (4, 4)), Component("sd in float32", DENOISER, (8, 4))
    alone = Component("sd in float32", DECODER, (4, 4))
    assert short_names([small, large, alone]) == {
        small: "denoiser of sd in float32 (4 × 4)",
        large: "denoiser of sd in float32 (8 × 4)",
        alone: "decoder of sd in float32",
    }


def test_a_start_is_one_sample_of_each_component(tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler")]
    quick, slow = call(CALL), call(slower(DECODER, 1.2))
    found = samples_of([start({case.id: [quick] for case in cases}), start({cases[0].id: [slow, slow]})], cases)
    decoder = next(one for one in found.components if one.part == DECODER)
    assert found.components[decoder] == pytest.approx({0: 0.0, 1: math.log(1.2)})
    assert sum(found.shares(cases[0].id).values()) == pytest.approx(1)
    assert found.ratios(cases[0].id) == pytest.approx({0: 0.0, 1: math.log(1 + 0.2 * share(DECODER))})
    # The second start lacks the scheduler of the other case.
    assert set(found.ratios(cases[1].id)) == {0}


def test_a_case_follows_from_components_that_others_measured(tiny_case):
    one = tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=5)
    other = tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=6)
    found = samples_of(
        [start({one.id: [call(CALL)], other.id: [call(CALL)]}), start({one.id: [call(slower(DENOISER, 1.1))]})],
        [one, other],
    )
    assert found.ratios(other.id)[1] == pytest.approx(math.log(1 + 0.1 * share(DENOISER)))
    assert [number for number, _ in found.calls[other.id]] == [0]
