"""What the rules of other tools say of calls from separate runs."""

from __future__ import annotations

import random

import pytest

from bench.calls.observe import DENOISER
from bench.proofs.ended import ended
from bench.proofs.other_rules import median_rule, other_verdicts, own_verdicts, rank_rule, runs_apart
from bench.proofs.trials import Fault
from bench.suite.schedulers import STABLE_DIFFUSION
from bench.upgrade.lockstep import Places
from bench.upgrade.measuring import Measured
from bench.upgrade.speeds import judge
from bench.verdicts import Verdict
from tests.proofs.made_up import made_up_trial


@pytest.fixture
def cases(tiny_case):
    return [tiny_case(STABLE_DIFFUSION, scheduler=name) for name in ("ddim", "euler")]


@pytest.fixture
def trials(cases):
    """Two runs of equal sides and then one with a slow case."""
    rng = random.Random(1)
    fault = Fault(part=DENOISER, share=0.1, cases=(cases[0].id,))
    dates = [f"2026-01-01T0{hour}:00:00+00:00" for hour in range(3)]
    equal = [made_up_trial(cases, rng, date=date) for date in dates[:2]]
    return [made_up_trial(cases, rng, fault, factor=1.2, date=dates[2]), *equal]


def test_medians_that_differ_by_more_than_the_factor_are_slower():
    assert median_rule([1.0, 1.0, 9.0], [1.06, 1.06, 1.0], 1.05) == Verdict.SLOWER
    assert median_rule([1.0, 1.0, 9.0], [1.04, 1.04, 9.0], 1.05) == Verdict.SAME


def test_ranks_must_differ_surely_too():
    before = [1.0 + number / 1000 for number in range(12)]
    assert rank_rule(before, [1.1 * value for value in before], 1.05) == Verdict.SLOWER
    assert rank_rule(before, [1.03 * value for value in before], 1.05) == Verdict.SAME
    assert rank_rule(before[:3], [1.1 * value for value in before[:3]], 1.05) == Verdict.SAME


def test_each_trial_is_compared_with_the_one_before_it(trials, cases):
    apart = list(runs_apart(trials))
    assert [share for share, _, _ in apart] == [0.0, 0.0, 0.1, 0.0]
    _, first, second = trials
    calls = [call for start in second.starts for one in start.pipelines for call in one.calls[cases[0].id]]
    earlier = [call for start in first.starts for one in start.pipelines for call in one.calls[cases[0].id]]
    assert apart[0] == (0.0, [call.seconds[0] for call in earlier], [call.seconds[1] for call in calls])


def test_each_rule_judges_every_comparison(trials):
    found = other_verdicts(trials)
    assert {(one.slow_down, one.counts.total()) for one in found} == {(0.0, 3), (0.1, 1)}
    assert {one.share_slower for one in found if one.slow_down} == {1.0}
    assert {one.share_slower for one in found if not one.slow_down} == {0.0}


def test_the_check_s_own_verdicts_are_counted_by_case(trials, cases):
    ends = []
    for trial in trials:
        speeds = judge(trial.starts, cases, trial.setup.plan(Places("duet")))
        ends.append(ended(Measured(trial.starts, speeds)))
    # The slow denoiser is that of both cases, since they share it.
    assert [(one.slow_down, one.counts.total()) for one in own_verdicts(trials, ends)] == [(0.0, 5), (0.1, 1)]
