"""Runs drawn from the starts of others, and how they end."""

from __future__ import annotations

import random
import statistics

import pytest

from bench.calls.observe import DECODER, DENOISER
from bench.proofs.ended import ended
from bench.proofs.resampling import Pool, mean_calls, only, resampled_runs
from bench.proofs.slow_down import SCHEDULER
from bench.proofs.trials import Fault
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade.components import samples_of
from bench.upgrade.decision import FEWEST_STARTS
from bench.upgrade.lockstep import Places
from bench.upgrade.measuring import Measured
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.speeds import judge
from tests.proofs.made_up import made_up_start

PLAN = ComparisonPlan(Places("duet"), budget_s=10_000)


@pytest.fixture
def cases(tiny_case):
    """Two pipelines, and three schedulers of the first."""
    return [
        *(tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler", "pndm")),
        tiny_case(STABLE_DIFFUSION, scheduler="ddim", dtype="bfloat16"),
    ]


def end_of(starts, cases, fault=None):
    return ended(Measured(tuple(starts), judge(starts, cases, PLAN)), fault)


@pytest.mark.parametrize(
    ("part", "slow"), [(DENOISER, [0, 1, 2]), (DECODER, [0, 1, 2]), (SCHEDULER, [0]), (SCHEDULER, [0, 3])]
)
def test_a_slow_part_is_found_and_named(cases, part, slow):
    rng = random.Random(4)
    fault = Fault(part=part, share=0.05, cases=tuple(cases[number].id for number in slow))
    end = end_of([made_up_start(cases, rng, fault, factor=1.8) for _ in range(8)], cases, fault)
    assert (end.found, end.named) == (True, True)
    assert end.worse
    assert end.better == ()


def test_another_part_than_the_slow_one_is_found_but_not_named(cases):
    rng = random.Random(4)
    of_decoder = Fault(part=DECODER, share=0.05, cases=tuple(case.id for case in cases))
    of_denoiser = of_decoder.model_copy(update={"part": DENOISER})
    end = end_of([made_up_start(cases, rng, of_denoiser) for _ in range(8)], cases, of_decoder)
    assert (end.found, end.named) == (True, False)


def test_another_scheduler_than_the_slow_one_is_not_named(cases):
    rng = random.Random(4)
    of_ddim = Fault(part=SCHEDULER, share=0.05, cases=(cases[0].id,))
    of_euler = of_ddim.model_copy(update={"cases": (cases[1].id,)})
    end = end_of([made_up_start(cases, rng, of_ddim, factor=1.8) for _ in range(8)], cases, of_euler)
    assert (end.found, end.named) == (True, False)


def test_equal_sides_give_no_alarm(cases):
    rng = random.Random(4)
    end = end_of([made_up_start(cases, rng) for _ in range(6)], cases)
    assert (end.found, end.named, end.worse, end.better) == (False, False, (), ())
    assert (end.decided, end.starts, end.seconds) == (4, 6, 60.0)


@pytest.mark.parametrize(
    ("of_pipeline", "name"),
    [
        ({"load_s": (1.0, 2.0)}, "load of"),
        ({"first_call_s": (1.0, 2.0)}, "first call of"),
        ({"peak_bytes": (1, 2)}, "memory of"),
    ],
)
def test_what_happens_once_per_process_is_a_false_alarm_too(cases, of_pipeline, name):
    rng = random.Random(4)
    starts = [made_up_start(cases, rng) for _ in range(8)]
    worse = [
        one.model_copy(update={"pipelines": tuple(found.model_copy(update=of_pipeline) for found in one.pipelines)})
        for one in starts
    ]
    assert {what.partition(" of ")[0] + " of" for what in end_of(worse, cases).worse} == {name}
    slow_import = [one.model_copy(update={"import_s": (1.0, 2.0)}) for one in starts]
    assert end_of(slow_import, cases).worse == ("import",)


def test_a_case_without_the_others_takes_its_share_of_the_seconds(cases):
    start = made_up_start(cases, random.Random(1), noise=0.0)
    left = only(start, frozenset({cases[0].id}), spell_s=0.0)
    assert [list(one.calls) for one in left.pipelines] == [[cases[0].id]]
    # Each pair of calls takes 40.4 s, loading and first calls 4 s per pipeline.
    assert left.seconds == pytest.approx(10 * (4 + 2 * 40.4) / (2 * 4 + 8 * 40.4))
    assert only(start, frozenset(case.id for case in cases), 0.0).seconds == pytest.approx(start.seconds)


def test_a_spell_lasts_as_long_as_it_did_with_fewer_cases(cases):
    start = made_up_start(cases, random.Random(1), noise=0.0)
    spell = only(start, frozenset({cases[0].id}), spell_s=60.0)
    assert spell.seconds == pytest.approx(10 * (4 + 120) / (2 * 4 + 8 * 40.4))
    longest = only(start, frozenset({cases[0].id}), spell_s=1e6)
    assert longest.seconds == pytest.approx(10 * (4 + 6 * 40.4) / (2 * 4 + 8 * 40.4))


def test_mean_calls_say_what_the_calls_say(cases):
    rng = random.Random(5)
    fault = Fault(part=DECODER, share=0.05, cases=(cases[0].id, cases[1].id))
    starts = [made_up_start(cases, rng, fault, calls=3) for _ in range(5)]
    condensed = [
        start.model_copy(
            update={
                "pipelines": tuple(
                    one.model_copy(update={"calls": {case: (means[case],) for case in one.calls}})
                    for one in start.pipelines
                )
            }
        )
        for start, means in zip(starts, mean_calls(starts), strict=True)
    ]
    one, other = (samples_of(found, cases, {}, PLAN.min_change) for found in (starts, condensed))
    assert one.components.keys() == other.components.keys()
    for component, logs in one.components.items():
        trimmed = component.part == DENOISER  # from one mean call, nothing is left out
        assert other.components[component] == pytest.approx(logs, abs=0.005 if trimmed else 1e-9)
    for case in cases:
        assert other.parts[case.id] == pytest.approx(one.parts[case.id])


def test_resampled_runs_of_equal_sides_end_as_the_check_does(cases):
    rng = random.Random(6)
    pool = Pool([made_up_start(cases, rng, noise=0.01) for _ in range(20)], cases, PLAN)
    runs = resampled_runs(pool, 40, processes=1)
    assert len(runs) == 40
    assert not any(run.worse for run in runs)
    assert min(run.starts for run in runs) == FEWEST_STARTS
    assert all(run.decided == len(cases) for run in runs)
    assert len({run.seconds for run in runs}) > 1


def test_a_resampled_run_ends_with_its_budget(cases):
    rng = random.Random(6)
    starts = [made_up_start(cases, rng, noise=0.5) for _ in range(10)]
    plan = ComparisonPlan(Places("duet"), budget_s=100, spell_s=0.0)
    runs = resampled_runs(Pool(starts, cases, plan), 10, processes=1)
    assert all(run.decided < len(cases) and run.starts > 1 and run.seconds <= 100 for run in runs)


def test_slow_parts_are_found_sooner_or_later_in_resampled_runs(cases):
    rng = random.Random(7)
    fault = Fault(part=DECODER, share=0.05, cases=tuple(case.id for case in cases))
    pool = Pool([made_up_start(cases, rng, fault, factor=1.4, noise=0.02) for _ in range(12)], cases, PLAN, fault)
    runs = resampled_runs(pool, 20, processes=1)
    assert all(run.found and run.named for run in runs)
    assert statistics.median(run.starts for run in runs) < 12


def test_a_run_begins_with_what_one_of_the_trials_saw(cases):
    """The slow scheduler shows before the starts, so that its case gets calls in each of them."""
    rng = random.Random(11)
    fault = Fault(part=SCHEDULER, share=0.05, cases=(cases[1].id,))
    starts = [made_up_start(cases, rng, fault, factor=1.8) for _ in range(8)]
    (pipeline, _) = made_up_start(cases, rng, fault, factor=1.8).pipelines
    seen = {case: calls[0] for case, calls in pipeline.calls.items()}
    runs = resampled_runs(Pool(starts, cases, PLAN, fault, [seen]), 6, processes=1)
    assert all(run.found and run.named for run in runs)


def test_processes_share_the_runs(cases):
    rng = random.Random(8)
    pool = Pool([made_up_start(cases, rng) for _ in range(6)], cases, PLAN)
    one, two = (resampled_runs(pool, 10, processes=count) for count in (1, 2))
    key = lambda run: sorted(run.ratios.items())  # noqa: E731
    assert sorted(one, key=key) == sorted(two, key=key)


def test_starts_in_which_every_case_was_called_are_needed(cases):
    rng = random.Random(9)
    starts = [made_up_start(cases[:3], rng), made_up_start(cases[3:], rng)]
    assert resampled_runs(Pool(starts, cases, PLAN), 5, processes=1) == []


def test_starts_with_some_of_the_cases_are_drawn_for_them(cases):
    """The first start has every case and no scheduler of its own can be decided with it alone."""
    rng = random.Random(10)
    complete, partial = made_up_start(cases, rng), made_up_start(cases[:2], rng).model_copy(update={"seconds": 1.0})
    runs = resampled_runs(Pool([complete, partial], cases, PLAN), 10, processes=1)
    assert all(run.starts >= FEWEST_STARTS for run in runs)
