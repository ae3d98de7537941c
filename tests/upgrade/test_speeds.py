"""Verdicts on components, cases and pipelines, from made-up starts; and what is measured next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER
from bench.suite.case import Case
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade.lockstep import Places, Segments
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.speeds import Speeds, judge, next_cases, next_loads
from bench.upgrade.start import Start, pipeline_of
from bench.verdicts import Verdict
from tests.upgrade.starts import CALL, call, slower, start

PLAN = ComparisonPlan(Places("duet"))
SCHEDULERS = ("ddim", "euler", "heun", "lms")
Sides = Callable[[Case], Segments]


@pytest.fixture
def cases(tiny_case) -> list[Case]:
    return [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in SCHEDULERS]


def starts_of(
    cases: Sequence[Case],
    candidate: Sides,
    count: int,
    rng: np.random.Generator,
    *,
    noise: float = 0.005,
    **more: float,
) -> list[Start]:
    """Starts in which the candidate makes these calls, with noise in the speed of each process and each segment."""

    def noisy(segments: Segments, speed: float) -> Segments:
        return tuple((part, seconds * speed * rng.lognormal(0, noise)) for part, seconds in segments)

    found = []
    for _ in range(count):
        speeds = rng.lognormal(0, noise, 2)
        calls = {case.id: [call(noisy(candidate(case), speeds[0]), noisy(CALL, speeds[1]))] for case in cases}
        found.append(start(calls, pipeline=pipeline_of(cases[0]), **more))
    return found


def verdicts(found: Speeds) -> dict[str, str]:
    return {case.rpartition("/")[2].partition("-s")[0]: figure.verdict for case, figure in found.cases.items()}


def changed(found: Speeds) -> dict[str, str]:
    """The components that are not the same, by part and scheduler."""
    return {
        f"{one.part} {one.scheduler}".strip(): one.figure.verdict
        for one in found.components.values()
        if one.figure.verdict != Verdict.SAME
    }


def test_an_install_against_itself_is_the_same_in_everything(cases, rng):
    found = judge(starts_of(cases, lambda _: CALL, 8, rng), cases, PLAN)
    assert verdicts(found) == dict.fromkeys(SCHEDULERS, "same")
    assert changed(found) == {}
    assert {figure.verdict for figure in found.pipelines[pipeline_of(cases[0])].values()} == {"same"}
    assert found.import_time
    assert found.import_time.verdict == "same"
    assert next_cases(cases, found) == []


@pytest.mark.parametrize("part", [ENCODER, DENOISER, DECODER])
def test_a_slower_network_is_named_and_makes_every_case_slower(part, cases, rng):
    found = judge(starts_of(cases, lambda _: slower(part, 2.0), 8, rng), cases, PLAN)
    assert changed(found) == {part: "slower"}
    assert set(verdicts(found).values()) == {"slower"}
    (component,) = [one for one in found.components.values() if one.figure.verdict == "slower"]
    assert component.figure.ratio == pytest.approx(2, rel=0.02)
    assert f"{part} of tiny" in component.sentence
    assert "2.0" in component.sentence
    assert "slower" in component.sentence


def test_a_slower_scheduler_is_named_and_no_other_case_is_slower(cases, rng):
    def candidate(case: Case) -> Segments:
        return slower(BETWEEN, 2.0) if case.settings.scheduler == "heun" else CALL

    found = judge(starts_of(cases, candidate, 8, rng), cases, PLAN)
    assert changed(found) == {f"{BETWEEN} heun": "slower"}
    assert verdicts(found) == dict.fromkeys(SCHEDULERS, "same") | {"heun": "slower"}
    assert found.samples.odd == {cases[2].id: {BETWEEN}}


def test_a_component_that_changes_no_case_fails_beyond_its_own_threshold(cases, rng):
    small = judge(starts_of(cases, lambda _: slower(ENCODER, 1.25), 8, rng), cases, PLAN)
    assert set(verdicts(small).values()) == {"same"}  # 25 % of 5 % of the call
    assert changed(small) == {ENCODER: "slower"}
    tiny = judge(starts_of(cases, lambda _: slower(ENCODER, 1.05), 8, rng), cases, PLAN)
    assert changed(tiny) == {}


def test_few_starts_decide_nothing(cases, rng):
    found = judge(starts_of(cases, lambda _: slower(DENOISER, 3.0), 3, rng), cases, PLAN)
    assert set(verdicts(found).values()) == {"cannot tell"}
    assert set(found.undecided) == {case.id for case in cases}


def test_the_error_rate_is_shared_by_all_questions(cases, rng):
    starts = starts_of(cases, lambda _: CALL, 8, rng)
    components, of_pipeline, imports = 5, 3, 1
    assert judge(starts, cases, PLAN).questions == components + len(cases) + of_pipeline + imports
    assert judge(starts, cases[:1], PLAN).questions == components + 1 + of_pipeline + imports


def test_a_whole_run_of_equal_sides_raises_hardly_any_alarm(cases, rng):
    """With a rate of 5 % for each question, as without its share, half of these runs would raise one."""
    alarms = 0
    for _ in range(60):
        starts = starts_of(cases, lambda _: CALL, 9, rng, noise=0.03)
        for count in range(4, len(starts) + 1):
            found = judge(starts[:count], cases, PLAN)
            figures = [one.figure for one in found.components.values()] + list(found.cases.values())
            alarms += any(Verdict(one.verdict).is_worse for one in figures)
    assert alarms == 0


@pytest.mark.parametrize(("question", "ratio"), [("load", 1.5), ("first_call", 1.5), ("peak", 1.1)])
def test_load_first_call_and_memory_are_decided_by_pipeline(question, ratio, cases, rng):
    found = judge(starts_of(cases, lambda _: CALL, 8, rng, **{question: ratio}), cases, PLAN)
    worse = {name for name, figure in found.pipelines[pipeline_of(cases[0])].items() if figure.verdict != "same"}
    assert worse == {{"load": "load", "first_call": "first call", "peak": "memory"}[question]}
    assert set(found.figures_of(cases[0])) == {"speed", "load", "first call", "memory"}


def test_equal_peaks_are_decided_after_two_starts(cases, rng):
    found = judge(starts_of(cases, lambda _: CALL, 2, rng, peak=1.1), cases, PLAN)
    assert found.pipelines[pipeline_of(cases[0])]["memory"].verdict == "more"


def test_where_times_mean_nothing_only_memory_is_decided(cases):
    plan = replace(PLAN, times=False)
    larger = call(CALL).model_copy(update={"peak_bytes": (1000, 1100)})
    one = start({case.id: [larger] for case in cases})
    assert judge([one], cases, plan).undecided == [case.id for case in cases]
    found = judge([one, one], cases, plan)
    assert {figure.verdict for figure in found.memory.values()} == {"more"}
    assert found.undecided == []
    assert (found.cases, found.components, found.pipelines, found.import_time) == ({}, {}, {}, None)
    assert set(found.figures_of(cases[0])) == {"memory"}


def test_a_case_whose_network_is_odd_is_decided_by_its_own_calls(tiny_case, rng):
    """Cases with other steps share their components; here only the one with most steps is slower, in its denoiser."""
    cases = [tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=steps) for steps in range(5, 12)]
    odd = cases[-1]

    def candidate(case: Case) -> Segments:
        return slower(DENOISER, 1.3) if case.id == odd.id else CALL

    starts = starts_of(cases, candidate, 9, rng)
    found = judge(starts, cases, PLAN)
    assert found.samples.odd == {odd.id: {DENOISER}}
    assert {case for case, figure in found.cases.items() if figure.verdict == "slower"} == {odd.id}
    assert found.cases[odd.id].ratio == pytest.approx(1 + 0.3 * 15 / 20.2, rel=0.02)
    assert f"{DENOISER} of tiny-sd in float32 with ddim-s11-g5-fp32" in {
        one.name for one in found.components.values() if one.figure.verdict == "slower"
    }
    assert odd.id in {case.id for case in next_cases(cases, judge(starts[:2], cases, PLAN))}


def test_the_cheapest_cases_that_bring_a_decision_are_measured_next(tiny_case, rng):
    cheap = tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=5)
    dear = tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=50)
    other = tiny_case(STABLE_DIFFUSION, scheduler="euler", steps=5)
    cases = [dear, cheap, other]
    long = (*CALL[:3], *CALL[3:9] * 10, *CALL[9:])
    calls = {cheap.id: [call(CALL)], dear.id: [call(long, long)], other.id: [call(slower(BETWEEN, 3.0))]}
    found = judge([start(calls, pipeline=pipeline_of(cheap))], cases, PLAN)
    assert {case.id for case in next_cases(cases, found)} == {cheap.id, other.id}  # whose scheduler is odd


def test_before_the_first_start_the_calls_that_drew_the_pictures_say_what_to_measure(tiny_case):
    cheap, dear = (tiny_case(STABLE_DIFFUSION, scheduler="ddim", steps=steps) for steps in (5, 50))
    long = (*CALL[:3], *CALL[3:9] * 10, *CALL[9:])
    found = judge([], [dear, cheap], PLAN, {cheap.id: call(CALL), dear.id: call(long, long)})
    assert [case.id for case in next_cases([dear, cheap], found)] == [cheap.id]


def test_only_what_looks_changed_is_worth_more_time_than_the_cases_take(cases, rng):
    wide = [start({}, load=load) for load in (0.7, 1.4, 0.7, 1.4)]
    slower_load = [start({}, load=load) for load in (1.2, 1.8, 1.2, 1.8)]
    calm = starts_of(cases, lambda _: CALL, 8, rng)
    for extra, worth in ((wide, False), (slower_load, True)):
        merged = [
            one.model_copy(
                update={"pipelines": (one.pipelines[0].model_copy(update={"load_s": other.pipelines[0].load_s}),)}
            )
            for one, other in zip(calm, extra * 2, strict=True)
        ]
        found = judge(merged, cases, PLAN)
        assert found.pipelines[pipeline_of(cases[0])]["load"].verdict == "cannot tell"
        assert next_cases(cases, found) == []
        assert bool(next_loads(cases, found, set())) is worth
        assert next_loads(cases, found, {pipeline_of(cases[0])}) == []


def test_nothing_was_measured_and_nothing_is_known(cases):
    found = judge([], cases, PLAN)
    assert (found.cases, found.components, found.import_time) == ({}, {}, None)
    assert found.figures_of(cases[0]) == {}


def test_the_effect_on_a_call_follows_from_ratio_and_share(cases, rng):
    found = judge(starts_of(cases, lambda _: slower(DECODER, 1.5), 8, rng, noise=1e-4), cases, PLAN)
    (decoder,) = [one for one in found.components.values() if one.part == DECODER]
    expected = 0.5 * 2.0 / sum(seconds for _, seconds in CALL)
    assert decoder.effect == pytest.approx((expected, expected), rel=0.01)
    assert math.isclose(decoder.share[0], 2.0 / sum(seconds for _, seconds in CALL), rel_tol=0.01)
