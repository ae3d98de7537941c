"""Starts of both sides, one after the other, until every speed is decided or the budget is spent."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.suite.case import Case
from bench.upgrade.lockstep import DUET, PairedCall
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.speeds import Speeds, judge, next_cases, next_loads, seconds_of
from bench.upgrade.start import Odd, Requests, Start, measure_start, pipeline_of
from bench.upgrade.workers import Sides

# A case whose process died, or that raised, so often is not measured any more.
GIVEN_UP_AFTER = 2
# What a start takes for each pipeline beside the calls that count: forking, loading, a first call.
START_S = 1.0


@dataclass(frozen=True)
class Measured:
    """All starts, and what they say."""

    starts: tuple[Start, ...]
    speeds: Speeds

    @property
    def failed(self) -> dict[str, list[tuple[str, str]]]:
        """Side and reason of each failure, by case."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for start in self.starts:
            for case, failure in start.failed.items():
                found[case].append(failure)
        return dict(found)

    @property
    def given_up(self) -> dict[str, tuple[str, str]]:
        """Side and reason of the last failure of each case that is not measured any more."""
        return {case: failures[-1] for case, failures in self.failed.items() if len(failures) >= GIVEN_UP_AFTER}

    @property
    def called(self) -> set[str]:
        """The cases that were called in a start."""
        return {case for start in self.starts for case in start.calls}

    @property
    def seconds(self) -> float:
        """Of measuring, without importing."""
        return sum(start.seconds for start in self.starts)


def measure_until_decided(
    sides: Sides,
    cases: Sequence[Case],
    requests: Requests,
    plan: ComparisonPlan,
    *,
    rng: random.Random | None = None,
    starts: Sequence[Start] = (),
    seen: Mapping[str, PairedCall] | None = None,
    known: Mapping[str, tuple[str, str]] | None = None,
    odd: Odd = lambda case, images: None,
    keep: Callable[[Start], None] = lambda start: None,
    announce: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Starts with the cases that decide most, within the budget.

    Args:
        known, odd: as in ``measure_start``.
        starts: those of an interrupted check, which this one continues.
        seen: a call of each case before the starts; of a case without one, the first start has one.
        keep: called with each start when it is over.

    Raises:
        WorkerBroken: a side cannot be started any more.
    """
    rng = rng or random.Random()

    def next_start(chosen: Sequence[Case], loads: Sequence[Case]) -> Start:
        start = measure_start(sides, chosen, requests, plan, rng, loads=loads, known=known, odd=odd)
        keep(start)
        return start

    return starts_until_decided(next_start, cases, plan, starts=starts, seen=seen, announce=announce)


def starts_until_decided(
    next_start: Callable[[Sequence[Case], Sequence[Case]], Start],
    cases: Sequence[Case],
    plan: ComparisonPlan,
    *,
    starts: Sequence[Start] = (),
    seen: Mapping[str, PairedCall] | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> Measured:
    """As ``measure_until_decided``, with starts from anywhere.

    Args:
        next_start: a start in which the first cases are called, and the second ones only loaded.
    """
    measured = Measured(tuple(starts), judge(starts, cases, plan, seen))
    while any(chosen := _chosen(measured, cases, plan)):
        done = (*measured.starts, next_start(*chosen))
        measured = Measured(done, judge(done, cases, plan, seen))
        announce(_progress(measured, cases, plan))
    return measured


def _chosen(measured: Measured, cases: Sequence[Case], plan: ComparisonPlan) -> tuple[list[Case], list[Case]]:
    """What the next start calls, and what it only loads; nothing if all is decided or the budget has no room for it."""
    left = [case for case in cases if case.id not in measured.given_up]
    unseen = [case for case in left if case.id not in measured.speeds.samples.parts]
    retried = [case for case in left if case.id in measured.failed.keys() - measured.called and case not in unseen]
    others = [case for case in left if case not in unseen and case not in retried]
    chosen = unseen + retried + (next_cases(others, measured.speeds) if plan.times else _open_peaks(others, measured))
    loads = next_loads(left, measured.speeds, {pipeline_of(case) for case in chosen})
    must = not measured.starts or retried
    expected_s = START_S * len(loads) + sum(_expected_s(chosen, measured.speeds, plan).values())
    return (chosen, loads) if must or measured.seconds + expected_s <= plan.budget_s else ([], [])


def _open_peaks(cases: Sequence[Case], measured: Measured) -> list[Case]:
    """The cases whose memory is not decided yet."""
    return [case for case in cases if case.id not in measured.called or case.id in measured.speeds.undecided]


def _expected_s(chosen: Sequence[Case], speeds: Speeds, plan: ComparisonPlan) -> dict[str, float]:
    """What a start with these cases is expected to take, by pipeline."""
    sides = 1 if plan.places.mode == DUET else 2
    calls: dict[str, float] = defaultdict(float)
    for case in chosen:
        calls[pipeline_of(case)] += sides * seconds_of(case, speeds)
    return {pipeline: START_S + max(plan.spell_s, seconds) for pipeline, seconds in calls.items()}


def _progress(measured: Measured, cases: Sequence[Case], plan: ComparisonPlan) -> str:
    speeds, count = measured.speeds, len(measured.starts)
    decided = len(speeds.cases or speeds.memory) - len(speeds.undecided)
    what = "speeds" if plan.times else "peaks of memory"
    return f"start {count}: {decided} of {len(cases)} {what} decided, {measured.seconds:.0f} s of {plan.budget_s:g} s"
