"""Which trials there are, their order, and their file."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER
from bench.errors import UsageError
from bench.proofs.slow_down import SCHEDULER
from bench.proofs.trials import (
    CASES,
    KINDS,
    ONE_SCHEDULER,
    PER_ROUND,
    SLOW,
    SLOW_DOWNS,
    WHOLE,
    Fault,
    Setup,
    keep,
    next_setup,
    read_trials,
    setups,
)
from bench.suite.file import read_suite
from bench.suite.schedulers import DDPM, STABLE_DIFFUSION
from bench.upgrade.components import samples_of
from bench.upgrade.lockstep import Places
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.start import pipeline_of
from tests.proofs.made_up import made_up_start, made_up_trial


@pytest.fixture(scope="module")
def suite_cases():
    known = {case.id: case for case in read_suite().cases}
    return [known[name] for name in CASES]


def test_a_run_has_several_pipelines_and_two_cases_with_the_slow_scheduler(suite_cases):
    assert len(suite_cases) >= 12
    assert len({pipeline_of(case) for case in suite_cases}) >= 3
    assert not any(case.settings.sentinel or case.settings.slow for case in suite_cases)
    (setup,) = setups(suite_cases, [ONE_SCHEDULER], 300, 0.03)
    assert setup.fault
    assert len(setup.fault.cases) == 2
    assert (setup.cases, setup.fault.part) == (CASES, SCHEDULER)


def test_a_round_has_every_part_slow_down_and_number_of_calls_once(suite_cases):
    found = setups(suite_cases, KINDS, 300, 0.03)
    assert len(set(found)) == len(found)
    assert Counter(setup.kind for setup in found) == {WHOLE: 1, SLOW: 24, ONE_SCHEDULER: 1}
    slow = [setup for setup in found if setup.kind == SLOW]
    assert {setup.cases for setup in slow} == {CASES[:1]}
    assert {(one.fault.part, one.fault.share, bool(one.spell_s)) for one in slow if one.fault} == {
        (part, share, several)
        for part in (ENCODER, DENOISER, SCHEDULER, DECODER)
        for share in SLOW_DOWNS
        for several in (False, True)
    }


def test_a_whole_run_is_measured_with_the_plan_of_the_check(suite_cases):
    places = Places("duet")
    plan = ComparisonPlan(places)
    (whole,) = setups(suite_cases, [WHOLE], plan.budget_s, plan.min_change)
    assert whole.plan(places) == plan


def test_a_pipeline_without_text_has_fewer_parts(tiny_case):
    found = setups([tiny_case(DDPM)], [SLOW], 300, 0.03)
    assert {setup.fault.part for setup in found if setup.fault} == {DENOISER, SCHEDULER}


def test_no_case_with_the_slow_scheduler_is_a_mistake(tiny_case):
    with pytest.raises(UsageError, match="none of the chosen cases uses DDIMScheduler"):
        setups([tiny_case(DDPM)], [ONE_SCHEDULER], 300, 0.03)


def test_every_round_is_complete_before_the_next(suite_cases):
    choices = setups(suite_cases, KINDS, 300, 0.03)
    rng = random.Random(3)
    done: list[Setup] = []
    per_round = sum(PER_ROUND[setup.kind] for setup in choices)
    for number in range(1, 3 * per_round + 1):
        done.append(next_setup(choices, done, rng))
        if number % per_round == 0:
            assert Counter(done) == {one: PER_ROUND[one.kind] * number // per_round for one in choices}
    assert done[:per_round] != done[per_round : 2 * per_round]


def test_an_interrupted_round_is_completed_first(suite_cases):
    choices = setups(suite_cases, [SLOW], 300, 0.03)
    assert next_setup(choices, [one for one in choices if one != choices[7]], random.Random()) == choices[7]


def test_the_components_of_a_fault_are_those_of_its_cases_and_part(tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler", "pndm")]
    slow = Fault(part=SCHEDULER, share=0.05, cases=(cases[0].id,))
    samples = samples_of([made_up_start(cases, random.Random(0), slow, factor=2.0)], cases, {}, 0.03)
    assert {(one.part, one.scheduler) for one in slow.components(samples)} == {(BETWEEN, "ddim")}
    of_decoder = Fault(part=DECODER, share=0.05, cases=("another", *(case.id for case in cases)))
    assert {(one.part, one.scheduler) for one in of_decoder.components(samples)} == {(DECODER, "")}
    # A decoder that others share is not that of a slow case.
    assert Fault(part=DECODER, share=0.05, cases=(cases[0].id,)).components(samples) == set()


def test_trials_are_read_as_they_were_kept(tmp_path, tiny_case):
    cases = [tiny_case(STABLE_DIFFUSION)]
    trials = [
        made_up_trial(cases, random.Random(1), starts=2),
        made_up_trial(cases, random.Random(2), Fault(part=DENOISER, share=0.1, cases=(cases[0].id,)), starts=1),
    ]
    file = tmp_path / "power" / "trials.jsonl"
    for trial in trials:
        keep(file, trial)
    assert read_trials(file) == trials
    assert len(file.read_text().splitlines()) == len(trials)


def test_a_damaged_line_and_a_missing_file_are_mistakes(tmp_path, tiny_case):
    file = tmp_path / "trials.jsonl"
    with pytest.raises(UsageError, match="measure first"):
        read_trials(file)
    keep(file, made_up_trial([tiny_case(DDPM)], random.Random(1), starts=1))
    with file.open("a") as end:
        end.write('{"setup": 1}\n')
    with pytest.raises(UsageError, match="line 2: not a trial"):
        read_trials(file)
