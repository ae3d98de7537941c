"""One start of both sides: new first processes, and in children of theirs calls of cases side by side.

Where its libraries lie in memory gives a process a speed of its own, and its forked children share that. So a start is
the unit of everything that is decided on: what is measured within one start is one sample.
"""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from scipy.stats import median_abs_deviation

from bench.calls.observe import DENOISER
from bench.frozen import Frozen
from bench.suite.case import Case
from bench.suite.optimizations import compiles
from bench.upgrade.lockstep import DUET, Images, PairedCall, Places, paired_call
from bench.upgrade.plan import ComparisonPlan
from bench.upgrade.workers import Sides, WorkerBroken, WorkerProcess, fresh_pair

# A spell ends when the denoiser's ratio is known to this share of the smallest change that matters, or after so many
# times its usual length.
PRECISION = 1 / 3
MOST_SPELLS = 4

Pair = tuple[float, float]
# What each side is to load, by case; see ``load_request``.
Requests = Mapping[str, Sequence[dict[str, Any]]]
# Called when an output is not as known: with the case, and the images of each side that differs.
Odd = Callable[[str, tuple[Images, Images]], None]


class MeasuredPipeline(Frozen):
    """What one process of each side measured of a pipeline; pairs are of baseline and candidate."""

    pipeline: str
    load_s: Pair
    first_call_s: Pair
    peak_bytes: tuple[int | None, int | None] = Field(description="of the processes; null where nothing counts it")
    calls: dict[str, tuple[PairedCall, ...]] = Field(description="by case")


class Start(Frozen):
    """What was measured within one start of both sides.

    Attributes:
        failed: of a case whose call raised, or whose process died: the side and the reason.
    """

    import_s: Pair
    pipelines: tuple[MeasuredPipeline, ...] = ()
    failed: dict[str, tuple[str, str]] = Field(default={})
    seconds: float = Field(description="wall time of measuring, without importing")

    @property
    def calls(self) -> dict[str, tuple[PairedCall, ...]]:
        """The calls of each case; every case belongs to one pipeline."""
        return {case: calls for one in self.pipelines for case, calls in one.calls.items()}


def pipeline_of(case: Case) -> str:
    """What is loaded for a case, in words: cases with the same words share it."""
    with_ = f" with {' and '.join(case.settings.optimizations)}" if case.settings.optimizations else ""
    return f"{case.model.name} in {case.settings.dtype}{with_}"


def _shape_of(case: Case) -> tuple[object, ...]:
    """What decides the shapes of a call: another one warms up again."""
    settings = case.settings
    return settings.images, settings.size, (settings.guidance or 0) > 1


def ask_both(
    sides: Sequence[WorkerProcess],
    places: Places,
    swapped: bool,
    do: str,
    requests: Sequence[Mapping[str, Any]] = ({}, {}),
) -> list[Any]:
    """The same question to both: at the same moment in a duet, else one after the other."""
    replies: dict[int, Any] = {}
    order = (1, 0) if swapped else (0, 1)
    if places.mode == DUET:
        for number in order:
            sides[number].send(do=do, cores=list(places.halves[number ^ swapped]), **requests[number])
        for number in order:
            replies[number] = sides[number].reply()
    else:
        for number in order:
            replies[number] = sides[number].ask(do, **requests[number])
    return [replies[0], replies[1]]


def measure_start(
    sides: Sides,
    cases: Iterable[Case],
    requests: Requests,
    plan: ComparisonPlan,
    rng: random.Random,
    *,
    loads: Iterable[Case] = (),
    known: Mapping[str, tuple[str, str]] | None = None,
    odd: Odd = lambda case, images: None,
) -> Start:
    """New first processes of both sides, and every case called at least once in children of theirs.

    Where processes are not forked, those in which a pipeline is measured are new themselves.

    Cases of one pipeline share a process. One that fails is left out, and its pipeline measured again without it.

    Args:
        loads: cases of other pipelines, of which only loading and the first call are measured.
        known: checksums that the outputs should have, by case.
        odd: called with outputs that have another one.

    Raises:
        WorkerBroken: a side cannot be started.
    """
    by_pipeline: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_pipeline[pipeline_of(case)].append(case)
    only_loaded = {pipeline_of(case): case for case in loads if pipeline_of(case) not in by_pipeline}
    names = [*by_pipeline, *only_loaded]
    rng.shuffle(names)
    import_s = _import_s(sides.renewed()) if sides.forks else None
    measured, failed, seconds = [], {}, 0.0
    for name in names:
        left = by_pipeline.get(name) or [only_loaded[name]]
        while left:
            rng.shuffle(left)
            spell = _Spell(plan, rng, requests, known or {}, odd, swapped=rng.random() < 0.5)
            try:
                measured.append(spell.measure(name, sides.take(), left, calls_too=name in by_pipeline))
                break
            except WorkerBroken as error:
                failed[spell.current] = (error.side, str(error))
                left = [case for case in left if case.id != spell.current]
            finally:
                seconds += spell.seconds
                import_s = import_s or spell.import_s
    return Start(
        import_s=import_s or _import_s(sides.take()), pipelines=tuple(measured), failed=failed, seconds=seconds
    )


def _import_s(workers: Sequence[WorkerProcess]) -> Pair:
    before, after = (worker.import_s for worker in workers)
    return before, after


@dataclass
class _Spell:
    """A spell of measuring one pipeline in one process of each side; arguments as of ``measure_start``.

    Attributes:
        swapped: whether the baseline begins on the second half of the cores; it changes with each call.
        current: the case that is measured at this moment.
        import_s: how long importing took in these processes, if they are not forked.
        seconds: since they were there.
    """

    plan: ComparisonPlan
    rng: random.Random
    requests: Requests
    known: Mapping[str, tuple[str, str]]
    odd: Odd
    swapped: bool
    current: str = ""
    import_s: Pair | None = None
    seconds: float = 0.0
    _began: float = math.inf
    _reported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def measure(
        self, pipeline: str, sides: Sequence[WorkerProcess], cases: Sequence[Case], *, calls_too: bool = True
    ) -> MeasuredPipeline:
        """Load, first call, then calls of all cases in turn until the spell is over, and at last the peak of memory.

        Args:
            calls_too: whether there is more than a load and a first call.

        Raises:
            WorkerBroken: a side raised or died; says which.
        """
        self.current = cases[0].id
        on_accelerator = self.plan.device != "cpu"
        calls: dict[str, list[PairedCall]] = defaultdict(list)
        loads_s: list[Pair] = []
        firsts_s: list[Pair] = []
        warm: set[tuple[object, ...]] = set()
        with contextlib.ExitStack() as stack:
            caches = _compile_caches(stack) if compiles(cases[0].settings.optimizations) else ({}, {})
            pair = stack.enter_context(fresh_pair(sides))
            self.import_s = None if sides[0].forks else _import_s(pair)
            stack.callback(self._count_seconds, time.perf_counter())
            for case in self._in_turns(cases, calls):
                self.current = case.id
                requests = [one | cache for one, cache in zip(self.requests[case.id], caches, strict=True)]
                loaded = self._ask(pair, "load", requests)
                loads_s.append(_both(loaded, "load_s"))
                by_block = self._by_block(case, *_both(loaded, "blocks"))
                if _shape_of(case) not in warm:
                    firsts_s.append(_both(self._ask(pair, "picture"), "call_s"))
                    warm.add(_shape_of(case))
                self._began = min(self._began, time.perf_counter())
                if not calls_too:
                    break
                calls[case.id].append(self._call(pair, case, by_block=by_block))
            peaks = self._ask(pair, "memory") if calls and not on_accelerator else []
        return MeasuredPipeline(
            pipeline=pipeline,
            load_s=loads_s[0],
            first_call_s=firsts_s[0],
            peak_bytes=_both(peaks, "peak_bytes") if peaks else (None, None),
            calls={case: tuple(found) for case, found in calls.items()},
        )

    def _count_seconds(self, began: float) -> None:
        self.seconds = time.perf_counter() - began

    def _in_turns(self, cases: Sequence[Case], calls: Mapping[str, Sequence[PairedCall]]) -> Iterator[Case]:
        """Every case once, then the one that is known least, until the spell is over.

        Where ratios are noisy it takes several times as long, so that a start is worth its cost.
        """
        yield from cases
        while True:
            spells = (time.perf_counter() - self._began) / self.plan.spell_s if self.plan.spell_s else math.inf
            errors = {case.id: standard_error(calls[case.id]) for case in cases}
            precise = max(errors.values()) <= self.plan.min_change * PRECISION
            if spells >= (1 if precise else MOST_SPELLS):
                return
            yield max(cases, key=lambda case: errors[case.id])

    def _by_block(self, case: Case, before: Sequence[str], after: Sequence[str]) -> bool:
        """Whether sides change places within calls of networks: not if they have other blocks, or compiled ones."""
        return self.plan.places.mode == DUET and before == after and not compiles(case.settings.optimizations)

    def _call(self, pair: Sequence[WorkerProcess], case: Case, *, by_block: bool) -> PairedCall:
        known = self.known.get(case.id, ("", ""))
        self.swapped = not self.swapped
        call, images = paired_call(
            pair, self.plan.places, self.rng, swapped=self.swapped, by_block=by_block, known=known
        )
        if case.id in self.known and call.checksums not in (known, self._reported.get(case.id)):
            self._reported[case.id] = call.checksums
            self.odd(case.id, images)
        return call

    def _ask(self, pair: Sequence[WorkerProcess], do: str, requests: Sequence[Mapping[str, Any]] = ({}, {})) -> list:
        return ask_both(pair, self.plan.places, self.rng.random() < 0.5, do, requests)


def standard_error(calls: Sequence[PairedCall]) -> float:
    """How far the mean of ``log(candidate / baseline)`` of the denoiser's calls may be from what it is in this start.

    From the median absolute deviation, so that interruptions count for little. It is an upper bound: a core that is
    slower for a while makes one ratio larger and the next one smaller.
    """
    ratios = [
        math.log(after / before)
        for call in calls
        for (part, before), (_, after) in zip(call.baseline, call.candidate, strict=False)
        if part == DENOISER
    ]
    return float(median_abs_deviation(ratios, scale="normal")) / math.sqrt(len(ratios)) if ratios else 0.0


def _compile_caches(stack: contextlib.ExitStack) -> tuple[dict[str, str], dict[str, str]]:
    """An empty cache for each side: the first call of each process compiles."""
    one, other = (stack.enter_context(tempfile.TemporaryDirectory(prefix="compiled-")) for _ in range(2))
    return {"compile_cache": one}, {"compile_cache": other}


def _both(replies: Sequence[Any], key: str) -> Any:
    (before, _), (after, _) = replies
    return before[key], after[key]
