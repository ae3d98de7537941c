"""Starts and trials that no process made."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bench.proofs.trials import NAMED, SLOW, WHOLE, Fault, Setup, Trial
from bench.suite.case import Case
from bench.upgrade.lockstep import Segments
from bench.upgrade.start import MeasuredPipeline, Start, pipeline_of
from tests.upgrade.starts import CALL, call, slower

BUDGET_S = 100.0


def made_up_start(
    cases: Iterable[Case],
    rng: random.Random,
    fault: Fault | None = None,
    *,
    factor: float = 1.2,
    noise: float = 0.004,
    calls: int = 2,
) -> Start:
    """A start of 10 s with calls of these cases, with noise.

    Args:
        factor: how many times as long the slow part takes.
        noise: standard deviation of the logarithm of each duration.
    """

    def noisy(segments: Segments) -> Segments:
        return tuple((part, seconds * rng.lognormvariate(0, noise)) for part, seconds in segments)

    def pair() -> tuple[float, float]:
        return rng.lognormvariate(0, noise), rng.lognormvariate(0, noise)

    by_pipeline: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_pipeline[pipeline_of(case)].append(case)
    slow = set(fault.cases) if fault else set()
    candidate = slower(NAMED[fault.part], factor) if fault else CALL
    return Start(
        import_s=pair(),
        pipelines=tuple(
            MeasuredPipeline(
                pipeline=name,
                load_s=pair(),
                first_call_s=pair(),
                peak_bytes=(1000, 1000),
                calls={
                    case.id: tuple(
                        call(noisy(candidate if case.id in slow else CALL), noisy(CALL)) for _ in range(calls)
                    )
                    for case in found
                },
            )
            for name, found in by_pipeline.items()
        ),
        seconds=10.0,
    )


def made_up_setup(cases: Sequence[Case], fault: Fault | None = None, **more: object) -> Setup:
    ids = tuple(case.id for case in cases)
    known = {"kind": SLOW if fault else WHOLE, "cases": ids, "fault": fault, "spell_s": 3.0}
    return Setup.model_validate(known | {"budget_s": BUDGET_S, "min_change": 0.03} | more)


def made_up_trial(
    cases: Sequence[Case],
    rng: random.Random,
    fault: Fault | None = None,
    *,
    starts: int = 6,
    date: str = "2026-01-01T00:00:00+00:00",
    setup: Setup | None = None,
    **more: Any,
) -> Trial:
    return Trial(
        setup=setup or made_up_setup(cases, fault),
        mode="duet",
        starts=tuple(made_up_start(cases, rng, fault, **more) for _ in range(starts)),
        seconds=10.0 * starts,
        date=date,
    )
