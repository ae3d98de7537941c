"""The verdicts on what was measured of a case, with their figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.upgrade.decision import Decision, decide
from bench.upgrade.outcome import Figure
from bench.upgrade.pairs import Samples
from bench.verdicts import Verdict

# Loading and the first call happen once per process, so their ratios are spread more widely.
MIN_CHANGE_ONCE = 0.2


def figure_once(pairs: Sequence[tuple[float, float]]) -> Figure:
    return _figure(decide_once(pairs), MIN_CHANGE_ONCE, pairs)


def _figure(decision: Decision, min_change: float, pairs: Sequence[tuple[float, float]]) -> Figure:
    """A decision with the medians of both sides and the ratio of each pair."""
    before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure.of(decision, min_change, before, after, [candidate / baseline for baseline, candidate in pairs])


def figures(samples: Samples, min_change: float) -> dict[str, Figure | str | None]:
    """What the samples say about each question."""
    calls = [call for pair in samples.calls for call in pair]
    decision = decide_memory(samples, min_change)
    memory = _figure(decision, min_change, samples.known_peaks) if decision else None
    return {
        "speed": Figure.of(
            decide(samples.log_ratios, min_change),
            min_change,
            statistics.median(sum(call.baseline) for call in calls),
            statistics.median(sum(call.candidate) for call in calls),
            [math.exp(ratio) for ratio in samples.log_ratios],
        ),
        "load": figure_once(samples.load_s),
        "first_call": figure_once(samples.first_call_s),
        "memory": memory,
        "memory_reason": None if memory else samples.memory_reason or "this system does not report it",
    }


def decide_once(pairs: Sequence[tuple[float, float]], min_change: float = MIN_CHANGE_ONCE) -> Decision:
    """The verdict on something that was measured once per process."""
    return decide([math.log(candidate / baseline) for baseline, candidate in pairs], min_change)


def decide_memory(samples: Samples, min_change: float) -> Decision | None:
    """The verdict on peak memory; ``None`` where the device has no counter."""
    if not samples.known_peaks:
        return None
    ratios = [math.log(after / before) for before, after in samples.known_peaks]
    return decide(ratios, min_change, worse=Verdict.MORE, better=Verdict.LESS)
