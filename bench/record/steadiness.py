"""Whether a machine was as fast at the end of a run as at its start; if not, the run's times are not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.record.nvml import GpuState

# A canary that takes this much longer after a run than before it. Of 60 canaries, one after the other on a machine with
# two cores and five busy processes, half differed by less than 1 % from the one before and 29 % by more than this.
SLOWER = 1.15

# Names of ``nvml.py`` for a GPU that is slower than it should be. Its power limit and being idle are part of its work.
HELD_BACK = frozenset(
    {"hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake", "reliability"}
)


def gpu_reasons(states: Iterable[GpuState]) -> list[str]:
    """Why the times of a run on a GPU are not comparable, from its state after each case; empty if they are."""
    states = list(states)
    held_back = Counter(reason for state in states for reason in state.throttle_reasons or () if reason in HELD_BACK)
    found = [
        f"the GPU was held back after {count} of {len(states)} cases ({reason})" for reason, count in held_back.items()
    ]
    processes = max((state.compute_processes or 0 for state in states), default=0)
    if processes > 1:
        found.append(f"{processes} processes used the GPU at the same time")
    return found


def why_not_comparable(canary_s: Sequence[float], others: Sequence[str] = ()) -> tuple[str, ...]:
    """Why the times of a run cannot be compared with those of another; empty if they can.

    Args:
        canary_s: of ``time_canary``, before and after the run; one alone says nothing.
        others: reasons from elsewhere, such as what a driver says about throttling or other processes on the device.
    """
    found = list(others)
    if len(canary_s) > 1 and canary_s[-1] > SLOWER * canary_s[0]:
        before, after = canary_s[0], canary_s[-1]
        found.append(
            f"the machine got slower during the run: a fixed matrix product took {before * 1000:.2f} ms before it and "
            f"{after * 1000:.2f} ms after it ({after / before - 1:+.0%}, allowed: {SLOWER - 1:+.0%})"
        )
    return tuple(found)
