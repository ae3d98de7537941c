"""The numbers behind the verdicts: confidence sequences, the stopping rule, and the ratio of calls in lockstep."""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bench.upgrade.confidence import ERROR_RATE, PRIOR, Interval, confidence_interval, half_width
from bench.upgrade.decision import FEWEST_PAIRS, Decision, decide, pairs_still_needed
from bench.upgrade.lockstep import PairedCall, log_ratio
from bench.verdicts import Verdict

stats = importlib.import_module("scipy.stats")
integrate = importlib.import_module("scipy.integrate")

SEQUENCES, LOOKS = 4000, 60
# Three standard errors of a share of 5 %.
SLACK = 3 * math.sqrt(ERROR_RATE * (1 - ERROR_RATE) / SEQUENCES)
MIN_CHANGE, SPREAD, MOST_PAIRS = 0.03, 0.015, 24
MARGIN = math.log1p(MIN_CHANGE)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.mark.parametrize("count", [4, 5, 8, 24, 60])
def test_at_the_bound_the_bayes_factor_is_one_over_the_error_rate(count):
    t = half_width(count, 1.0) * math.sqrt(count)

    def weighted(effect: float) -> float:
        at_effect = stats.nct.pdf(t, count - 1, effect * math.sqrt(count))
        return at_effect * stats.norm.pdf(effect, scale=PRIOR**-0.5)

    with_effect, _ = integrate.quad(weighted, -15, 15, points=[0, t / math.sqrt(count)], limit=200)
    assert with_effect / stats.t.pdf(t, count - 1) == pytest.approx(1 / ERROR_RATE, rel=1e-3)


@pytest.mark.parametrize("error_rate", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("prior", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("count", [6, 10, 100, 2000])
def test_the_bound_follows_the_error_rate_and_the_prior(count, prior, error_rate):
    t = half_width(count, 1.0, error_rate, prior) * math.sqrt(count)
    scale = math.sqrt(1 + count / prior)
    factor = stats.t.pdf(t / scale, count - 1) / scale / stats.t.pdf(t, count - 1)
    assert factor == pytest.approx(1 / error_rate, rel=1e-6)


def test_few_samples_say_nothing_and_more_say_more():
    widths = [half_width(count, 1.0) for count in range(1, 200)]
    assert widths[:3] == [math.inf] * 3
    assert all(math.isfinite(width) for width in widths[3:])
    assert all(later < earlier for earlier, later in itertools.pairwise(widths[3:]))
    assert widths[-1] < 0.3


def test_a_smaller_error_rate_needs_a_wider_interval():
    assert half_width(10, 1.0, 0.01) > half_width(10, 1.0, 0.05) > half_width(10, 1.0, 0.2)


@pytest.mark.parametrize("count", [4, 20])
def test_the_width_is_in_the_unit_of_the_samples(count):
    assert half_width(count, 1000.0) == pytest.approx(1000 * half_width(count, 1.0))
    assert half_width(count, 0.0) == 0


def test_the_interval_is_the_mean_and_the_width_at_the_sample_deviation(rng):
    samples = rng.normal(3, 2, 12).tolist()
    interval = confidence_interval(samples)
    half = half_width(12, float(np.std(samples, ddof=1)))
    assert (interval.low, interval.estimate, interval.high) == pytest.approx(
        (np.mean(samples) - half, np.mean(samples), np.mean(samples) + half)
    )


def test_an_interval_of_another_error_rate_has_another_width(rng):
    samples = rng.normal(0, 1, 12).tolist()
    interval = confidence_interval(samples, 0.2)
    assert interval.high - interval.low == pytest.approx(2 * half_width(12, statistics.stdev(samples), 0.2))


def test_one_sample_gives_an_estimate_and_no_bounds():
    assert confidence_interval([7.0]) == Interval(7.0, -math.inf, math.inf)


def test_no_samples_give_no_interval():
    with pytest.raises(ValueError, match="no samples"):
        confidence_interval([])


def test_the_ends_of_an_interval_belong_to_it():
    interval = Interval(1.0, 0.0, 2.0)
    assert [interval.excludes(value) for value in (-0.1, 0.0, 2.0, 2.1)] == [True, False, False, True]
    assert interval.within(-0.1, 2.1)
    assert not interval.within(0.0, 2.1)
    assert not interval.within(-0.1, 2.0)


def ever_excluding_zero(sequences: np.ndarray, width: Callable[[int], float]) -> float:
    """Share of the sequences whose running interval, of this width per deviation, leaves out 0 at any time."""
    counts = np.arange(2, sequences.shape[1] + 1)
    sums, squares = np.cumsum(sequences, 1)[:, 1:], np.cumsum(sequences**2, 1)[:, 1:]
    means = sums / counts
    deviations = np.sqrt((squares - counts * means**2) / (counts - 1))
    halves = deviations * np.array([width(int(count)) for count in counts])
    return float(np.mean(np.any(np.abs(means) > halves, axis=1)))


def sequence_width(count: int) -> float:
    return half_width(count, 1.0)


def ordinary_width(count: int) -> float:
    """Of a t interval, which is valid for one look only."""
    return float(stats.t.ppf(1 - ERROR_RATE / 2, count - 1) / math.sqrt(count))


def test_intervals_looked_at_after_every_sample_miss_the_truth_no_more_often_than_promised(rng):
    assert ever_excluding_zero(rng.normal(0, 2, (SEQUENCES, LOOKS)), sequence_width) <= ERROR_RATE + SLACK


def test_an_ordinary_interval_looked_at_as_often_misses_the_truth_far_more_often(rng):
    sequences = rng.normal(0, 2, (SEQUENCES, LOOKS))
    assert ever_excluding_zero(sequences, ordinary_width) > 0.15
    assert ever_excluding_zero(sequences[:, :2], ordinary_width) <= ERROR_RATE + SLACK


def test_heavy_tails_do_not_break_the_promise(rng):
    assert ever_excluding_zero(rng.standard_t(4, (SEQUENCES, LOOKS)), sequence_width) <= ERROR_RATE


def test_skewed_samples_break_the_promise_by_little(rng):
    # Measured 7.7 % for single-sided noise; ratios of two sides with the same noise are not skewed, and keep it.
    noise = rng.lognormal(0, 0.5, (2, SEQUENCES, LOOKS))
    assert ever_excluding_zero(noise[0] - math.exp(0.5**2 / 2), sequence_width) <= 0.10
    assert ever_excluding_zero(np.log(noise[0] / noise[1]), sequence_width) <= ERROR_RATE + SLACK


def stopped(draws: Sequence[float]) -> Decision:
    """The first decision, asked for after every pair."""
    for count in range(1, len(draws) + 1):
        decision = decide(draws[:count], MIN_CHANGE)
        if decision.verdict != Verdict.CANNOT_TELL:
            break
    return decision


def verdicts(rng: np.random.Generator, change: float, runs: int) -> Counter[str]:
    draws = rng.normal(math.log1p(change), SPREAD, (runs, MOST_PAIRS)).tolist()
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


def test_a_large_change_needs_the_fewest_pairs(rng):
    assert stopped(rng.normal(math.log1p(0.5), SPREAD, MOST_PAIRS).tolist()).pairs == FEWEST_PAIRS


def test_the_ratio_is_the_geometric_mean_and_lies_in_its_interval(rng):
    decision = stopped(rng.normal(math.log1p(0.10), SPREAD, MOST_PAIRS).tolist())
    assert 1 < decision.low < decision.ratio < decision.high
    assert decide([math.log(2), math.log(8)], MIN_CHANGE).ratio == pytest.approx(4)


def spread_samples(count: int, mean: float, deviation: float) -> list[float]:
    """Samples with exactly this mean and standard deviation."""
    plain = [float(number) for number in range(count)]
    middle, wide = statistics.fmean(plain), statistics.stdev(plain)
    return [mean + (value - middle) / wide * deviation for value in plain]


@pytest.mark.parametrize("pairs", range(1, FEWEST_PAIRS))
def test_too_few_pairs_cannot_tell_however_clear_they_are(pairs):
    decision = decide([math.log(3)] * pairs, MIN_CHANGE)
    assert decision.verdict == Verdict.CANNOT_TELL
    assert decision.more_pairs == FEWEST_PAIRS - pairs
    assert decide([0.0] * pairs, MIN_CHANGE).verdict == Verdict.CANNOT_TELL


def test_more_pairs_may_be_asked_for():
    decision = decide([math.log(3)] * 5, MIN_CHANGE, fewest_pairs=6)
    assert (decision.verdict, decision.more_pairs) == (Verdict.CANNOT_TELL, 1)
    assert decide([math.log(3)] * 6, MIN_CHANGE, fewest_pairs=6).verdict == Verdict.SLOWER


def test_one_pair_leaves_the_ratio_unbounded():
    decision = decide([math.log(3)], MIN_CHANGE)
    assert (decision.low, decision.ratio, decision.high) == (0, pytest.approx(3), math.inf)


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.04, -0.06])
def test_a_wide_spread_cannot_tell_and_says_how_many_pairs_would_do(mean):
    decision = decide(spread_samples(8, mean, 0.08), MIN_CHANGE)
    assert decision.verdict == Verdict.CANNOT_TELL
    more = decision.more_pairs
    assert more is not None
    assert decide(spread_samples(8 + more, mean, 0.08), MIN_CHANGE).verdict != Verdict.CANNOT_TELL
    assert decide(spread_samples(8 + int(0.9 * more) - 1, mean, 0.08), MIN_CHANGE).verdict == Verdict.CANNOT_TELL


def test_the_pairs_that_are_said_to_be_needed_decide_most_runs(rng):
    decided = []
    for mean in (0.0, 0.05, -0.06) * 40:
        first = spread_samples(8, mean, 0.06)
        decision = decide(first, MIN_CHANGE)
        assert decision.more_pairs is not None
        # Half of the runs come out a little wider than the first pairs, and need a little more than was said.
        draws = first + rng.normal(mean, 0.06, round(1.5 * decision.more_pairs)).tolist()
        decided.append(
            any(decide(draws[:end], MIN_CHANGE).verdict != Verdict.CANNOT_TELL for end in range(9, len(draws) + 1))
        )
    assert statistics.fmean(decided) > 0.75


def test_what_would_take_forever_is_not_foretold():
    assert pairs_still_needed(spread_samples(6, 0.0, 50.0), MARGIN) is None
    assert decide(spread_samples(6, 0.0, 10.0), MIN_CHANGE).more_pairs is None


def test_a_decision_needs_no_more_pairs():
    assert decide([0.0] * 4, MIN_CHANGE).more_pairs is None
    assert decide([0.5] * 4, MIN_CHANGE).more_pairs is None


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
def test_identical_samples_are_decided_by_the_smallest_change_that_matters(ratio, verdict):
    decision = decide([math.log(ratio)] * FEWEST_PAIRS, MIN_CHANGE)
    assert decision.verdict == verdict
    assert (decision.low, decision.ratio, decision.high) == pytest.approx((ratio, ratio, ratio))


def test_exactly_the_smallest_change_that_matters_is_one():
    assert decide([MARGIN] * 4, MIN_CHANGE).verdict == Verdict.SLOWER
    assert decide([-MARGIN] * 4, MIN_CHANGE).verdict == Verdict.FASTER


def test_a_change_that_is_sure_but_too_small_is_neither_slower_nor_same_until_the_interval_is_narrow():
    wide = decide(spread_samples(20, 0.02, 0.015), MIN_CHANGE)
    assert wide.low > 1
    assert wide.verdict == Verdict.CANNOT_TELL
    assert decide(spread_samples(200, 0.02, 0.015), MIN_CHANGE).verdict == Verdict.SAME


def test_a_large_estimate_that_could_be_none_cannot_tell():
    decision = decide(spread_samples(6, 0.1, 0.2), MIN_CHANGE)
    assert decision.low < 1
    assert decision.verdict == Verdict.CANNOT_TELL


def test_another_smallest_change_gives_another_verdict():
    samples = spread_samples(8, 0.05, 0.005)
    assert decide(samples, 0.03).verdict == Verdict.SLOWER
    assert decide(samples, 0.2).verdict == Verdict.SAME


def test_memory_has_words_of_its_own():
    assert decide([0.1] * 4, MIN_CHANGE, worse=Verdict.MORE, better=Verdict.LESS).verdict == Verdict.MORE
    assert decide([-0.1] * 4, MIN_CHANGE, worse=Verdict.MORE, better=Verdict.LESS).verdict == Verdict.LESS
    assert decide([0.0] * 4, MIN_CHANGE, worse=Verdict.MORE, better=Verdict.LESS).verdict == Verdict.SAME


def test_without_pairs_there_is_no_verdict():
    with pytest.raises(ValueError, match="no samples"):
        decide([], MIN_CHANGE)


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
        there, back = decide(samples, MIN_CHANGE), decide([-value for value in samples], MIN_CHANGE)
        assert back.verdict == mirrored[there.verdict]
        assert back.ratio == pytest.approx(1 / there.ratio)
        assert back.low == pytest.approx(1 / there.high)
        assert (back.pairs, back.more_pairs) == (there.pairs, there.more_pairs)
        seen.add(there.verdict)
    assert seen == set(mirrored)


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
def test_a_candidate_slower_in_its_decoding_alone_is_slower_by_its_share(factor):
    slower = with_last(factor)
    assert log_ratio([paired(CALL, slower)] * 3) == pytest.approx(math.log(sum(slower) / sum(CALL)))


@pytest.mark.parametrize(("place", "factor"), [(-1, 2.0), (-1, 4.0), (0, 5.0)])
def test_a_part_that_takes_many_times_longer_in_every_call_counts_in_full(place, factor):
    slower = list(CALL)
    slower[place] *= factor
    assert log_ratio([paired(CALL, slower)] * 6) == pytest.approx(math.log(sum(slower) / sum(CALL)), abs=0.01)


def test_a_side_with_more_unet_calls_and_a_long_decoding_is_slower_by_the_calls_alone():
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


def test_interruptions_of_both_sides_spread_the_ratio_less_than_that_of_the_sums(rng):
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
