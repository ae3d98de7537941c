"""Two workers' calls side by side, step by step, so that whatever the machine does meanwhile does it to both.

*Duet* (Bulej et al. 2020, "Duet benchmarking", arXiv 2001.05811): both sides compute at the same moment, each on its
own half of the cores, and change places at every UNet call, so that a core that is slower for a while slows both.
*Alternate*: a UNet call of the one, then of the other, in random order, while the other waits without spinning; for
accelerators, which two sides cannot share at once, and for machines with one core.
"""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.upgrade.workers import WorkerProcess

DUET, ALTERNATE = "duet", "alternate"
# A segment in which the sides differ by this factor beyond the middle ratio was hit by something else; it counts, but
# no more than that.
MOST_ODD = 1.5
ENOUGH_CALLS = 3

Segments = list[float]


@dataclass(frozen=True)
class PairedCall:
    """Seconds of each segment of one call on both sides; see ``Worker.do_call``."""

    baseline: Segments
    candidate: Segments
    checksums: tuple[str, str]


@dataclass(frozen=True)
class Places:
    """Where the two sides compute.

    Attributes:
        halves: the cores of each side in a duet.
        threads: of each side; 0 leaves torch's default.
        move_weights: whether each call is to have its weights elsewhere in memory; see ``worker.move_weights``.
    """

    mode: str
    halves: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    threads: int = 0
    move_weights: bool = False


def places_for(device_type: str) -> Places:
    """A duet on a processor with two cores or more, else alternating."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    half = len(cores) // 2
    on_processor = device_type == "cpu"
    if not on_processor or not half:
        return Places(ALTERNATE, move_weights=on_processor)
    return Places(DUET, (tuple(cores[:half]), tuple(cores[half : 2 * half])), half, move_weights=True)


def _go(worker: WorkerProcess, cores: tuple[int, ...]) -> None:
    worker.tell(cores=list(cores))


def paired_call(
    sides: Sequence[WorkerProcess], places: Places, rng: random.Random, *, swapped: bool = False
) -> PairedCall:
    """One call of each side in lockstep; a side with more UNet calls than the other does the rest alone.

    Args:
        swapped: whether the baseline starts on the second half of the cores; calls that start in turns let each
            segment be measured on both.

    Raises:
        WorkerBroken: a side raised or died.
    """
    for side in sides:
        side.tell(do="call", move_weights=places.move_weights)
    for side in sides:
        side.reply()
    ended: dict[int, dict] = {}
    while len(ended) < len(sides):
        running = [number for number in range(len(sides)) if number not in ended]
        rng.shuffle(running)
        if places.mode == DUET:
            for number in running:
                _go(sides[number], places.halves[number ^ swapped])
            replies = [(number, sides[number].reply()[0]) for number in running]
            swapped = not swapped
        else:
            replies = []
            for number in running:
                _go(sides[number], ())
                replies.append((number, sides[number].reply()[0]))
        ended |= {number: reply for number, reply in replies if "segments_s" in reply}
    return PairedCall(ended[0]["segments_s"], ended[1]["segments_s"], (ended[0]["checksum"], ended[1]["checksum"]))


def log_ratio(calls: Sequence[PairedCall]) -> float:
    """``log(candidate / baseline)`` of the time of a call, over all calls of one process pair.

    Totals are compared. Segments of the same position were measured within the same few milliseconds; where their ratio
    is odd, the longer one is cut back to ``MOST_ODD`` times what the middle ratio makes of the shorter. The middle is
    that of the position where there are enough calls to have one, so that a part that is slower in every call counts in
    full; else that of all segments. Both sides are treated alike, so that without a difference the estimate is not
    biased. Where the sides differ in the number of segments nothing is cut.
    """
    if any(len(call.baseline) != len(call.candidate) for call in calls):
        return math.log(sum(sum(call.candidate) for call in calls) / sum(sum(call.baseline) for call in calls))
    positions = list(zip(*(zip(call.baseline, call.candidate, strict=True) for call in calls), strict=True))
    overall = _middle([pair for pairs in positions for pair in pairs])
    baseline = candidate = 0.0
    for pairs in positions:
        room = MOST_ODD * math.exp(_middle(pairs) if len(pairs) >= ENOUGH_CALLS else overall)
        low = room / MOST_ODD**2
        baseline += sum(min(before, after / low) for before, after in pairs)
        candidate += sum(min(after, before * room) for before, after in pairs)
    return math.log(candidate / baseline)


def _middle(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of ``log(after / before)``, weighted by the shorter of the two, which nothing interrupted."""
    half = sum(map(min, pairs)) / 2
    for value, weight in sorted((math.log(after / before), min(before, after)) for before, after in pairs):
        half -= weight
        if half <= 0:
            return value
    raise ValueError("no segments")
