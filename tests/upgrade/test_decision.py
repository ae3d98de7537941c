"""The stopping rule and its verdicts."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from bench.upgrade.decision import FEWEST_STARTS, Decision, Question, decide, exactly, starts_still_needed
from bench.verdicts import Verdict

MIN_CHANGE, SPREAD, MOST_STARTS = 0.03, 0.015, 24

QUESTION = Question(MIN_CHANGE)
MEMORY = Question(MIN_CHANGE, worse=Verdict.MORE, better=Verdict.LESS)


def stopped(draws: Sequence[float]) -> Decision:
    """The first decision, asked for after every start."""
    for count in range(1, len(draws) + 1):
        decision = decide(draws[:count], QUESTION)
        if decision.verdict != Verdict.CANNOT_TELL:
            break
    return decision


def verdicts(rng: np.random.Generator, change: float, runs: int) -> Counter[str]:
    draws = rng.normal(math.log1p(change), SPREAD, (runs, MOST_STARTS)).tolist()
    return Counter(stopped(run).verdict for run in draws)


def test_without_a_change_nearly_every_run_ends_with_same(rng):
    runs = 3000
    seen = verdicts(rng, 0.0, runs)
    assert seen[Verdict.SLOWER] + seen[Verdict.FASTER] <= 0.005 * runs
    assert seen[Verdict.SAME] >= 0.98 * runs


def test_a_change_too_small_to_matter_is_rarely_reported(rng):
    seen = verdicts(rng, 0.01, 600)
    assert seen[Verdict.SLOWER] + seen[Verdict.FASTER] <= 0.02 * 600
    assert seen[Verdict.SAME] >= 0.95 * 600


@pytest.mark.parametrize(
    ("change", "verdict", "at_least"),
    [
        (0.03, Verdict.SLOWER, 0.6),
        (0.05, Verdict.SLOWER, 0.95),
        (0.10, Verdict.SLOWER, 1.0),
        (-0.05, Verdict.FASTER, 0.95),
        (-0.10, Verdict.FASTER, 1.0),
    ],
)
def test_a_change_is_found_and_never_with_the_wrong_sign(change, verdict, at_least, rng):
    seen = verdicts(rng, change, 300)
    assert seen[verdict] >= at_least * 300
    assert seen[Verdict.FASTER if verdict == Verdict.SLOWER else Verdict.SLOWER] == 0


def test_a_large_change_needs_the_fewest_starts(rng):
    assert stopped(rng.normal(math.log1p(0.5), SPREAD, MOST_STARTS).tolist()).starts == FEWEST_STARTS


def test_the_ratio_is_the_geometric_mean_within_its_interval(rng):
    decision = stopped(rng.normal(math.log1p(0.10), SPREAD, MOST_STARTS).tolist())
    assert 1 < decision.low < decision.ratio < decision.high
    assert decide([math.log(2), math.log(8)], QUESTION).ratio == pytest.approx(4)


def spread_samples(count: int, mean: float, deviation: float) -> list[float]:
    """Samples with exactly this mean and standard deviation."""
    plain = [float(number) for number in range(count)]
    middle, wide = statistics.fmean(plain), statistics.stdev(plain)
    return [mean + (value - middle) / wide * deviation for value in plain]


@pytest.mark.parametrize("starts", range(1, FEWEST_STARTS))
def test_too_few_starts_cannot_tell_however_clear_they_are(starts):
    decision = decide([math.log(3)] * starts, QUESTION)
    assert decision.verdict == Verdict.CANNOT_TELL
    assert decision.more_starts == FEWEST_STARTS - starts
    assert decide([0.0] * starts, QUESTION).verdict == Verdict.CANNOT_TELL


@pytest.mark.parametrize("starts", [1, 2, 9])
def test_a_value_that_is_the_same_in_every_process_needs_no_interval(starts):
    assert exactly(0.0, MEMORY, starts).verdict == Verdict.SAME
    more = exactly(math.log(1.05), MEMORY, starts)
    assert (more.verdict, more.low, more.high, more.starts) == (Verdict.MORE, more.ratio, more.ratio, starts)


def test_an_alarm_is_surer_than_what_is_shown():
    samples = spread_samples(7, 0.05, 0.02)
    assert decide(samples, QUESTION).verdict == Verdict.SLOWER
    rare = decide(samples, Question(MIN_CHANGE, alarm_rate=1e-4))
    assert rare.verdict == Verdict.CANNOT_TELL
    assert rare.low > 1
    assert decide(spread_samples(7, 0.5, 0.02), Question(MIN_CHANGE, alarm_rate=1e-4)).verdict == Verdict.SLOWER


def test_one_start_leaves_the_ratio_unbounded():
    decision = decide([math.log(3)], QUESTION)
    assert (decision.low, decision.ratio, decision.high) == (0, pytest.approx(3), math.inf)


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.04, -0.06])
def test_a_wide_spread_cannot_tell_and_says_what_would_do(mean):
    decision = decide(spread_samples(8, mean, 0.08), QUESTION)
    assert decision.verdict == Verdict.CANNOT_TELL
    more = decision.more_starts
    assert more is not None
    assert decide(spread_samples(8 + more, mean, 0.08), QUESTION).verdict != Verdict.CANNOT_TELL
    assert decide(spread_samples(8 + int(0.9 * more) - 1, mean, 0.08), QUESTION).verdict == Verdict.CANNOT_TELL


def test_the_starts_that_are_said_to_be_needed_decide_most_runs(rng):
    decided = []
    for mean in (0.0, 0.05, -0.06) * 40:
        first = spread_samples(8, mean, 0.06)
        decision = decide(first, QUESTION)
        assert decision.more_starts is not None
        # Half of the runs come out a little wider than the first starts, and need a little more than was said.
        draws = first + rng.normal(mean, 0.06, round(1.5 * decision.more_starts)).tolist()
        decided.append(
            any(decide(draws[:end], QUESTION).verdict != Verdict.CANNOT_TELL for end in range(9, len(draws) + 1))
        )
    assert statistics.fmean(decided) > 0.75


def test_what_would_take_forever_is_not_foretold():
    assert starts_still_needed(spread_samples(6, 0.0, 50.0), QUESTION) is None
    assert decide(spread_samples(6, 0.0, 10.0), QUESTION).more_starts is None


def test_a_decision_needs_no_more_starts():
    assert decide([0.0] * 4, QUESTION).more_starts is None
    assert decide([0.5] * 4, QUESTION).more_starts is None


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.0, Verdict.SAME),
        (1.029, Verdict.SAME),
        (1 / 1.029, Verdict.SAME),
        (1.031, Verdict.SLOWER),
        (1 / 1.031, Verdict.FASTER),
        (2.0, Verdict.SLOWER),
        (0.5, Verdict.FASTER),
    ],
)
def test_identical_samples_are_decided_by_the_smallest_change(ratio, verdict):
    decision = decide([math.log(ratio)] * FEWEST_STARTS, QUESTION)
    assert decision.verdict == verdict
    assert (decision.low, decision.ratio, decision.high) == pytest.approx((ratio, ratio, ratio))


def test_exactly_the_smallest_change_that_matters_is_one():
    assert decide([QUESTION.margin] * 4, QUESTION).verdict == Verdict.SLOWER
    assert decide([-QUESTION.margin] * 4, QUESTION).verdict == Verdict.FASTER


def test_a_sure_change_that_is_too_small_ends_as_same():
    wide = decide(spread_samples(20, 0.02, 0.015), QUESTION)
    assert wide.low > 1
    assert wide.verdict == Verdict.CANNOT_TELL
    assert decide(spread_samples(200, 0.02, 0.015), QUESTION).verdict == Verdict.SAME


def test_a_large_estimate_that_could_be_none_cannot_tell():
    decision = decide(spread_samples(6, 0.1, 0.2), QUESTION)
    assert decision.low < 1
    assert decision.verdict == Verdict.CANNOT_TELL


def test_another_smallest_change_gives_another_verdict():
    samples = spread_samples(8, 0.05, 0.005)
    assert decide(samples, Question(0.03)).verdict == Verdict.SLOWER
    assert decide(samples, Question(0.2)).verdict == Verdict.SAME


def test_memory_has_words_of_its_own():
    assert decide([0.1] * 4, MEMORY).verdict == Verdict.MORE
    assert decide([-0.1] * 4, MEMORY).verdict == Verdict.LESS
    assert decide([0.0] * 4, MEMORY).verdict == Verdict.SAME


def test_without_starts_there_is_no_verdict():
    with pytest.raises(ValueError, match="no samples"):
        decide([], QUESTION)


def test_swapped_sides_give_the_mirrored_decision(rng):
    mirrored = {
        Verdict.SLOWER: Verdict.FASTER,
        Verdict.FASTER: Verdict.SLOWER,
        Verdict.SAME: Verdict.SAME,
        Verdict.CANNOT_TELL: Verdict.CANNOT_TELL,
    }
    seen = set()
    for _ in range(300):
        samples = rng.normal(rng.normal(0, 0.05), rng.choice([0.001, 0.02, 0.1]), rng.integers(1, 20)).tolist()
        there, back = decide(samples, QUESTION), decide([-value for value in samples], QUESTION)
        assert back.verdict == mirrored[there.verdict]
        assert back.ratio == pytest.approx(1 / there.ratio)
        assert back.low == pytest.approx(1 / there.high)
        assert (back.starts, back.more_starts) == (there.starts, there.more_starts)
        seen.add(there.verdict)
    assert seen == set(mirrored)
