"""Speed and memory of a case on two sides: fresh process pairs until the speed is decided."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.upgrade.decision import decide
from bench.upgrade.lockstep import DUET, PairedCall, Places, log_ratio, paired_call
from bench.upgrade.workers import SIDES, TIMEOUT_S, Sides, WorkerProcess, fresh
from bench.verdicts import Verdict

# The noise of a pair falls with the root of its time (measured), and a pair costs about a second besides.
PAIR_S = 3.0


@dataclass
class Samples:
    """What the process pairs of a case gave, each list in their order.

    Attributes:
        calls: per pair, its paired calls.
        load_s, first_call_s, peak_bytes: per pair, baseline and candidate; memory may be unknown.
        seconds: wall time of the whole.
    """

    calls: list[list[PairedCall]] = field(default_factory=list)
    load_s: list[tuple[float, float]] = field(default_factory=list)
    first_call_s: list[tuple[float, float]] = field(default_factory=list)
    peak_bytes: list[tuple[int | None, int | None]] = field(default_factory=list)
    memory_reason: str | None = None
    unrepeatable: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def log_ratios(self) -> list[float]:
        return [log_ratio(calls) for calls in self.calls]

    @property
    def known_peaks(self) -> list[tuple[int, int]]:
        """Peak memory of the pairs in which both sides told it."""
        return [(before, after) for before, after in self.peak_bytes if before and after]


@dataclass(frozen=True)
class Plan:
    """How a case is compared.

    Attributes:
        min_change: smallest change of time or memory that matters, 0.03 for 3 %.
        budget_s: wall time for one case; measuring ends sooner once it is decided.
        pair_s: measured time per process pair, at least one call.
        speed: whether to measure at all; else only pictures are made.
    """

    places: Places
    device: str = "cpu"
    min_change: float = 0.03
    budget_s: float = 60.0
    pair_s: float = PAIR_S
    speed: bool = True
    timeout_s: float = TIMEOUT_S


def ask_both(
    sides: Sequence[WorkerProcess],
    places: Places,
    swapped: bool,
    do: str,
    requests: Sequence[dict[str, Any]] = ({}, {}),
) -> list[Any]:
    """The same question to both: at the same moment in a duet, else one after the other."""
    replies: dict[int, Any] = {}
    order = (1, 0) if swapped else (0, 1)
    if places.mode == DUET:
        for number in order:
            sides[number].tell(do=do, cores=list(places.halves[number ^ swapped]), **requests[number])
        for number in order:
            replies[number] = sides[number].reply()
    else:
        for number in order:
            replies[number] = sides[number].ask(do, **requests[number])
    return [replies[0], replies[1]]


def measure_pair(
    sides: Sequence[WorkerProcess],
    requests: Sequence[dict[str, Any]],
    plan: Plan,
    samples: Samples,
    rng: random.Random,
) -> None:
    """One fresh process per side: load, first call, peak memory, then calls in lockstep for ``plan.pair_s``.

    Raises:
        WorkerBroken: a side raised or died; says which.
    """
    swapped = rng.random() < 0.5
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(fresh(side)) for side in sides]
        loads = ask_both(pair, plan.places, swapped, "load", requests)
        firsts = ask_both(pair, plan.places, not swapped, "picture")
        peaks = ask_both(pair, plan.places, swapped, "memory")
        calls: list[PairedCall] = []
        began = time.perf_counter()
        while not calls or time.perf_counter() - began < plan.pair_s:
            calls.append(paired_call(pair, plan.places, rng, swapped=swapped ^ (len(calls) % 2 == 1)))
    samples.calls.append(calls)
    samples.load_s.append(tuple(header["load_s"] for header, _ in loads))
    samples.first_call_s.append(tuple(header["call_s"] for header, _ in firsts))
    samples.peak_bytes.append(tuple(header["peak_bytes"] for header, _ in peaks))
    samples.memory_reason = peaks[0][0].get("reason") or peaks[1][0].get("reason")
    samples.unrepeatable = _unrepeatable(samples)


def _unrepeatable(samples: Samples) -> tuple[str, ...]:
    """Sides whose calls did not all give the same values, over all processes."""
    return tuple(
        name
        for number, name in enumerate(SIDES)
        if len({call.checksums[number] for calls in samples.calls for call in calls}) > 1
    )


def measure_until_decided(
    sides: Sides,
    requests: Sequence[dict[str, Any]],
    plan: Plan,
    *,
    rng: random.Random | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> Samples:
    """Process pairs until the speed is decided or the budget has no room for another one; at least one.

    Args:
        requests: what each side is to load; see ``load_request``.

    Raises:
        WorkerBroken: a side raised or died; says which.
    """
    rng = rng or random.Random()
    samples = Samples()
    began = time.perf_counter()
    while True:
        measure_pair(sides.take(), requests, plan, samples, rng)
        samples.seconds = time.perf_counter() - began
        decision = decide(samples.log_ratios, plan.min_change)
        announce(f"pair {decision.pairs}: {decision.ratio - 1:+.1%}")
        if decision.verdict != Verdict.CANNOT_TELL:
            return samples
        if samples.seconds * (1 + 1 / decision.pairs) > plan.budget_s:
            return samples
