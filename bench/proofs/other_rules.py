"""What the rules of other tools say of the same calls, taken from separate runs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import mannwhitneyu

from bench.proofs.ended import Ended
from bench.proofs.trials import Trial, all_starts
from bench.verdicts import Verdict

ASV_P = 0.002
# pytest-benchmark makes no fewer.
FEWEST_CALLS = 5


@dataclass(frozen=True)
class Verdicts:
    """What a rule said of all cases with one slow-down."""

    rule: str
    slow_down: float
    counts: Counter[str]

    @property
    def share_slower(self) -> float:
        return self.counts[Verdict.SLOWER] / self.counts.total()


def slow_down_of(trial: Trial, case: str) -> float:
    """By how much the candidate of a trial is slower in this case, 0.05 for 5 %."""
    fault = trial.setup.fault
    return fault.share if fault and case in fault.cases else 0.0


def own_verdicts(trials: Sequence[Trial], ends: Sequence[Ended]) -> list[Verdicts]:
    """The verdicts of the upgrade check on the speed of cases, by slow-down; ``ends`` are those of the trials."""
    found: dict[float, Counter[str]] = {}
    for trial, end in zip(trials, ends, strict=True):
        for case in end.ratios:
            verdict = Verdict.SLOWER if case in end.slower else Verdict.SAME
            found.setdefault(slow_down_of(trial, case), Counter())[verdict] += 1
    return [Verdicts("this check", slow_down, found[slow_down]) for slow_down in sorted(found)]


def _call_seconds(trial: Trial, case: str, side: int) -> list[float]:
    return [call.seconds[side] for start in all_starts(trial) for call in start.calls.get(case, ())]


def runs_apart(trials: Sequence[Trial]) -> Iterator[tuple[float, list[float], list[float]]]:
    """Slow-down, call times of the baseline, and call times of the candidate from the next trial with the same case.

    People who run one install and then the other compare such calls, which are seconds to minutes apart. Trials with
    fewer calls of the case than ``FEWEST_CALLS`` are left out.
    """
    earlier: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda trial: trial.date):
        for case in trial.setup.cases:
            after = _call_seconds(trial, case, 1)
            if len(after) < FEWEST_CALLS:
                continue
            if case in earlier:
                yield slow_down_of(trial, case), _call_seconds(earlier[case], case, 0), after
            earlier[case] = trial


def median_rule(before: Sequence[float], after: Sequence[float], factor: float) -> str:
    """pytest-benchmark's ``--benchmark-compare-fail=median:5%``, for a factor of 1.05."""
    return Verdict.SLOWER if statistics.median(after) > factor * statistics.median(before) else Verdict.SAME


def rank_rule(before: Sequence[float], after: Sequence[float], factor: float) -> str:
    """asv's ``continuous``: Mann-Whitney U test at p < 0.002, and medians apart by more than the factor."""
    if mannwhitneyu(before, after).pvalue >= ASV_P:
        return Verdict.SAME
    return median_rule(before, after, factor)


OTHERS: tuple[tuple[str, Callable[[Sequence[float], Sequence[float]], str]], ...] = (
    ("runs apart, median over 5 % (pytest-benchmark)", lambda before, after: median_rule(before, after, 1.05)),
    ("runs apart, p < 0.002 and factor 1.05 (asv)", lambda before, after: rank_rule(before, after, 1.05)),
    ("runs apart, p < 0.002 and factor 1.1 (asv)", lambda before, after: rank_rule(before, after, 1.1)),
)


def other_verdicts(trials: Sequence[Trial]) -> list[Verdicts]:
    """What the rules of other tools say of runs apart, by slow-down."""
    apart = list(runs_apart(trials))
    found = []
    for rule, judge in OTHERS:
        for slow_down in sorted({slow_down for slow_down, _, _ in apart}):
            counts = Counter(judge(before, after) for share, before, after in apart if share == slow_down)
            found.append(Verdicts(rule, slow_down, counts))
    return found
