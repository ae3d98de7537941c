"""The few cases that detect every fault, found by greedy set cover.

Each step takes the case that detects the most faults per second that are still needed (Chvatal 1979, "A Greedy
Heuristic for the Set-Covering Problem"). Each fault should be detected twice, and the second time counts as much as
the first (Dobson 1982). Cases that later ones made unnecessary are removed again, the slowest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.faults.outcomes import CLOSED_FORM, CONTROL, FaultOutcome

SIGHTS = 2


def seen_faults(outcomes: Mapping[str, FaultOutcome]) -> dict[str, frozenset[str]]:
    """The cases that detect each fault, without faults that none detects and without the closed form."""
    seen_by = {
        name: frozenset(case.case for case in outcome.seen_by) - {CLOSED_FORM}
        for name, outcome in outcomes.items()
        if name != CONTROL
    }
    return {name: cases for name, cases in seen_by.items() if cases}


def choose_cases(
    seen_by: Mapping[str, frozenset[str]], seconds: Mapping[str, float], sights: int = SIGHTS
) -> list[str]:
    """A fast set of cases in which each fault is detected ``sights`` times, or as often as any set can.

    Args:
        seen_by: the cases that detect a fault, by fault.
        seconds: how long each case takes.
    """
    needed = {fault: min(sights, len(cases)) for fault, cases in seen_by.items()}
    sees: dict[str, set[str]] = {}
    for fault, cases in seen_by.items():
        for case in cases:
            sees.setdefault(case, set()).add(fault)
    chosen: list[str] = []
    left = dict(needed)
    while any(left.values()):
        candidates = [case for case in sorted(sees) if case not in chosen]
        best = max(candidates, key=lambda case: sum(left[fault] > 0 for fault in sees[case]) / _cost(seconds, case))
        chosen.append(best)
        for fault in sees[best]:
            left[fault] = max(0, left[fault] - 1)
    return sorted(_without_needless(chosen, sees, needed, seconds))


def _cost(seconds: Mapping[str, float], case: str) -> float:
    return max(seconds[case], 1e-3)


def _without_needless(
    chosen: Sequence[str], sees: Mapping[str, set[str]], needed: Mapping[str, int], seconds: Mapping[str, float]
) -> list[str]:
    sights = Counter(fault for case in chosen for fault in sees[case])
    kept = list(chosen)
    for case in sorted(chosen, key=lambda case: -_cost(seconds, case)):
        if all(sights[fault] > needed[fault] for fault in sees[case]):
            kept.remove(case)
            sights.subtract(sees[case])
    return kept
