"""Many runs of the check from the starts of a few: how often would it have been wrong?"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.proofs.ended import Ended, ended
from bench.proofs.trials import Fault
from bench.suite.case import Case
from bench.upgrade.components import calls_by_case, totals_by_part
from bench.upgrade.lockstep import PairedCall, Segments
from bench.upgrade.measuring import starts_until_decided
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.start import MeasuredPipeline, Pair, Start, pipeline_of

TASKS_PER_PROCESS = 4


@dataclass(frozen=True)
class Pool:
    """The starts of all trials with one setup, to draw runs with these cases from.

    Attributes:
        fault: the extra work of the candidate.
        seen: of each trial, the calls before its starts, by case.
    """

    starts: Sequence[Start]
    cases: Sequence[Case]
    plan: ComparisonPlan
    fault: Fault | None = None
    seen: Sequence[Mapping[str, PairedCall]] = ({},)


def resampled_runs(pool: Pool, count: int, *, processes: int = 0) -> list[Ended]:
    """Runs of the check whose starts are drawn from the pool with replacement; the same ones each time.

    Each run begins with what one trial saw, looks at its starts, chooses the cases of the next and stops as the check
    does. A start is drawn from those in which the chosen cases were called, and counts as if no other case had been.
    Each case has one call per start, the mean of its calls, with what interruptions took cut off as ``totals_by_part``
    does it.

    Args:
        processes: that share the work; 0 for one per core.

    Returns:
        ``count`` runs; none if no start has a call of every case.
    """
    every = {case.id for case in pool.cases}
    if not any(every <= start.calls.keys() for start in pool.starts):
        return []
    processes = processes or len(os.sched_getaffinity(0))
    if processes == 1:
        return _runs(pool, range(count))
    tasks = TASKS_PER_PROCESS * processes
    # Forked, since importing takes longer than the work; the children leave torch, whose threads do not survive, alone.
    with multiprocessing.get_context("fork").Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
        shares = workers.starmap(_runs, [(pool, range(task, count, tasks)) for task in range(tasks)], chunksize=1)
    return [run for share in shares for run in share]


def _runs(pool: Pool, seeds: Sequence[int]) -> list[Ended]:
    draw = _drawing(pool)
    runs = []
    for seed in seeds:
        rng = random.Random(seed)
        measured = starts_until_decided(partial(draw, rng), pool.cases, pool.plan, seen=rng.choice(pool.seen))
        runs.append(ended(measured, pool.fault))
    return runs


def _drawing(pool: Pool) -> Callable[[random.Random, Sequence[Case], Sequence[Case]], Start]:
    means = mean_calls(pool.starts)
    choices: dict[tuple[frozenset[str], frozenset[str]], list[Start]] = {}

    def draw(rng: random.Random, chosen: Sequence[Case], loads: Sequence[Case]) -> Start:
        key = ids, loaded = frozenset(case.id for case in chosen), frozenset(map(pipeline_of, loads))
        if key not in choices:
            choices[key] = [
                _with_calls(only(start, ids, pool.plan.spell_s, loaded), calls)
                for start, calls in zip(pool.starts, means, strict=True)
                if ids <= set(calls)
            ]
        return rng.choice(choices[key])

    return draw


def mean_calls(starts: Sequence[Start]) -> list[dict[str, PairedCall]]:
    """Of each start, the mean of each case's calls, as one call with equally long segments of each part."""
    means: list[dict[str, PairedCall]] = [{} for _ in starts]
    for case, numbered in calls_by_case(starts).items():
        by_start: dict[int, list[tuple[PairedCall, dict[str, Pair]]]] = defaultdict(list)
        for (number, call), totals in zip(numbered, totals_by_part([call for _, call in numbered]), strict=True):
            by_start[number].append((call, totals))
        for number, of_start in by_start.items():
            by_call = [one for _, one in of_start]
            first = of_start[0][0]
            sides = {
                "baseline": _mean_segments(by_call, 0, first.baseline),
                "candidate": _mean_segments(by_call, 1, first.candidate),
            }
            means[number][case] = first.model_copy(update=sides)
    return means


def _mean_segments(calls: Sequence[Mapping[str, Pair]], side: int, like: Segments) -> Segments:
    counts = Counter(part for part, _ in like)
    segments: list[tuple[str, float]] = []
    for part in dict.fromkeys(part for call in calls for part in call):
        mean = sum(call[part][side] for call in calls if part in call) / len(calls)
        count = max(counts[part], 1)
        segments += [(part, mean / count)] * count
    return tuple(segments)


def _with_calls(start: Start, calls: Mapping[str, PairedCall]) -> Start:
    """The start with one call of each case instead of its own."""
    pipelines = tuple(
        one.model_copy(update={"calls": {case: (calls[case],) for case in one.calls}}) for one in start.pipelines
    )
    return start.model_copy(update={"pipelines": pipelines})


def only(start: Start, cases: frozenset[str], spell_s: float, loads: Collection[str] = ()) -> Start:
    """The start as if only these cases had been called in it, with the seconds that it would have taken.

    Args:
        spell_s: of the plan: a pipeline is measured for at least so long, if it was.
        loads: pipelines of which only loading and the first call are measured.
    """
    kept = tuple(
        one.model_copy(update={"calls": {case: calls for case, calls in one.calls.items() if case in cases}})
        for one in start.pipelines
        if cases & set(one.calls) or one.pipeline in loads
    )
    whole = {one.pipeline: _call_seconds(one) for one in start.pipelines}
    once = {one.pipeline: sum(one.load_s) + sum(one.first_call_s) for one in start.pipelines}
    taken = sum(once[name] + seconds for name, seconds in whole.items())
    called = {one.pipeline: min(whole[one.pipeline], 2 * spell_s) for one in kept if one.calls}
    left = sum(once[one.pipeline] + max(_call_seconds(one), called.get(one.pipeline, 0.0)) for one in kept)
    return start.model_copy(update={"pipelines": kept, "failed": {}, "seconds": start.seconds * left / taken})


def _call_seconds(pipeline: MeasuredPipeline) -> float:
    """Of both sides together."""
    return sum(sum(call.seconds) for calls in pipeline.calls.values() for call in calls)
