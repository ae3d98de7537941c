"""Pooling: which calls share a component, what it takes on both sides, and what interruptions may do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER, REST
from bench.suite.case import Case
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade.components import MOST_ODD, Component, odd_parts, samples_of, short_names, totals_by_part
from bench.upgrade.lockstep import PairedCall
from bench.upgrade.start import Start
from tests.upgrade.starts import CALL, SHAPES, call, slower, start

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


def test_only_two_components_of_one_name_show_their_shapes():
    small, large = Component("sd in float32", DENOISER, (4, 4)), Component("sd in float32", DENOISER, (8, 4))
    alone = Component("sd in float32", DECODER, (4, 4))
    assert short_names([small, large, alone]) == {
        small: "denoiser of sd in float32 (4 × 4)",
        large: "denoiser of sd in float32 (8 × 4)",
        alone: "decoder of sd in float32",
    }


def components(starts: Sequence[Start], cases: Sequence[Case], **seen: PairedCall) -> dict[str, list[str]]:
    """The components of each case, in words."""
    found = samples_of(starts, cases, seen, 0.03)
    return {case: [str(one) for one in parts] for case, parts in found.parts.items()}


def test_cases_of_one_pipeline_share_its_components(tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler")]
    one, other = components([start({case.id: [call(CALL)] for case in cases})], cases).values()
    assert one == other
    assert one == [
        "rest of tiny-sd in float32 (8 × 4 × 16 × 16)",
        "encoder of tiny-sd in float32 (4 × 24)",
        "denoiser of tiny-sd in float32 (8 × 4 × 16 × 16)",
        "between calls of tiny-sd in float32 (8 × 4 × 16 × 16)",
        "decoder of tiny-sd in float32 (4 × 4 × 16 × 16)",
    ]


def test_another_shape_is_another_network_where_it_changes_what_is_called(tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION, guidance=guidance) for guidance in (1.0, 5.0)]
    narrow = call(CALL).model_copy(update={"shapes": SHAPES | {DENOISER: (4, 4, 16, 16)}})
    one, other = components([start({cases[0].id: [narrow], cases[1].id: [call(CALL)]})], cases).values()
    assert {text.partition(" of ")[0] for text in set(one) ^ set(other)} == {DENOISER, BETWEEN, REST}


def test_where_there_is_one_scheduler_it_is_named(tiny_case):
    case = tiny_case(STABLE_DIFFUSION, scheduler="euler", options={"use_karras_sigmas": True})
    (found,) = components([start({case.id: [call(CALL)]})], [case]).values()
    assert 'between calls of tiny-sd in float32 with euler {"use_karras_sigmas": true} (8 × 4 × 16 × 16)' in found


def test_a_start_is_one_sample_of_each_component(tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler")]
    quick, slow = call(CALL), call(slower(DECODER, 1.2))
    starts = [start({case.id: [quick] for case in cases}), start({cases[0].id: [slow, slow]})]
    found = samples_of(starts, cases, {}, 0.03)
    decoder = next(one for one in found.components if one.part == DECODER)
    assert found.components[decoder] == pytest.approx({0: 0.0, 1: math.log(1.2)})
    assert sum(found.shares(cases[0].id).values()) == pytest.approx(1)
    expected = {0: 0.0, 1: math.log(1 + 0.2 * share(DECODER))}
    assert [found.ratios(case.id) for case in cases] == [pytest.approx(expected)] * 2


def test_a_case_that_is_never_called_follows_from_its_steps(tiny_case):
    """The call that drew its pictures shows its segments; calls of other cases show how long each takes."""
    short, long = (tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=steps) for steps in (3, 9))
    steps = tuple(segment for segment in CALL if segment[0] in (DENOISER, BETWEEN))
    longer = (*CALL[:3], *steps * 3, *CALL[-2:])
    counted = tuple((part, 2 * seconds) for part, seconds in longer)
    seen = {long.id: call(counted, counted), short.id: call(CALL)}
    found = samples_of([start({short.id: [call(slower(DENOISER, 1.1))]})], [short, long], seen, 0.03)
    seconds = sum(took for _, took in longer)
    assert sum(found.parts[long.id].values()) == pytest.approx(seconds)
    assert found.ratios(long.id)[0] == pytest.approx(math.log(1 + 0.1 * 45 / seconds))


def test_more_denoiser_calls_leave_the_shares_of_the_baseline_alone(tiny_case):
    case = tiny_case(STABLE_DIFFUSION, scheduler="ddim")
    two_more = (*CALL[:-2], (DENOISER, 5.0), (BETWEEN, 0.5), *CALL[-2:])
    found = samples_of([start({case.id: [call(two_more)]})], [case], {}, 0.03)
    shares = {component.part: taken for component, taken in found.shares(case.id).items()}
    assert shares == pytest.approx({part: share(part) for part in shares})
    ratio = sum(seconds for _, seconds in two_more) / sum(seconds for _, seconds in CALL)
    assert found.ratios(case.id)[0] == pytest.approx(math.log(ratio))


def looks(tiny_case, rng, slow: dict[str, str], noise: float = 0.02) -> dict[str, tuple[str, PairedCall]]:
    """Calls of seven schedulers, of which some have a slower part: 1.5 times as long, a network 3 times."""
    found = {}
    for name in ("ddim", "euler", "heun", "lms", "pndm", "deis", "unipc"):
        segments = slower(slow[name], 1.5 if slow[name] == BETWEEN else 3.0) if name in slow else CALL
        one, other = (
            tuple((part, seconds * rng.lognormal(0, noise)) for part, seconds in side) for side in (segments, CALL)
        )
        found[name] = "tiny in float32", call(one, other)
    return found


def test_a_part_that_is_slower_in_some_cases_alone_is_odd(tiny_case, rng):
    assert odd_parts(looks(tiny_case, rng, {"heun": BETWEEN}), 0.03) == {"heun": {BETWEEN}}
    assert odd_parts(looks(tiny_case, rng, {"heun": BETWEEN, "lms": DECODER}), 0.03) == {
        "heun": {BETWEEN},
        "lms": {DECODER},
    }


def test_a_part_that_is_slower_everywhere_is_not(tiny_case, rng):
    names = ("ddim", "euler", "heun", "lms", "pndm", "deis", "unipc")
    assert odd_parts(looks(tiny_case, rng, dict.fromkeys(names, DENOISER)), 0.03) == {}


def test_noise_makes_hardly_anything_odd(tiny_case, rng):
    odd = [odd_parts(looks(tiny_case, rng, {}, 0.04), 0.03) for _ in range(100)]
    assert sum(map(bool, odd)) < 20


def test_an_odd_part_is_a_component_of_its_scheduler(tiny_case, rng):
    cases = {name: tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler", "heun", "lms")}
    seen = {
        cases[name].id: look for name, (_, look) in looks(tiny_case, rng, {"heun": BETWEEN}).items() if name in cases
    }
    samples = samples_of([], list(cases.values()), seen, 0.03)
    assert samples.odd == {cases["heun"].id: {BETWEEN}}
    between = {one.scheduler for parts in samples.parts.values() for one in parts if one.part == BETWEEN}
    assert between == {"", "heun"}
