"""The order in which cases run with a fault: those likely to detect it come first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from bench.faults.fault import Fault
from bench.suite.case import Case

FIRST_TURN = 8


def likely_first(cases: Sequence[Case], fault: Fault, seconds: Mapping[str, float]) -> list[Case]:
    """Cases whose ids share words with the fault's name or area, then all other cases, mixed.

    Args:
        seconds: how long each case takes without a fault.
    """
    name, area = set(fault.name.split("-")), set(fault.area.split())

    def likeness(case: Case) -> tuple[int, int]:
        words = set(re.split(r"[-/]", case.id))
        return len(words & name), len(words & area)

    shared = {case.id: likeness(case) for case in cases}
    likely = [case for case in cases if any(shared[case.id])]
    likely.sort(key=lambda case: seconds[case.id])
    likely.sort(key=lambda case: shared[case.id], reverse=True)
    return [*likely, *_mixed([case for case in cases if not any(shared[case.id])], seconds)]


def _mixed(cases: Iterable[Case], seconds: Mapping[str, float]) -> list[Case]:
    """Takes turns between pipelines and, within one, between groups; turns grow, since each change loads a pipeline."""
    pipelines: dict[object, list[Case]] = {}
    for case in cases:
        pipelines.setdefault((case.model.name, case.settings.dtype, case.settings.optimizations), []).append(case)
    left = [_round_robin(of_one, seconds) for of_one in pipelines.values()]
    mixed: list[Case] = []
    turn = FIRST_TURN
    while any(left):
        for of_one in left:
            mixed += of_one[:turn]
            del of_one[:turn]
        turn *= 2
    return mixed


def _round_robin(cases: Iterable[Case], seconds: Mapping[str, float]) -> list[Case]:
    """One case of each group in turn, the fastest of a group first."""
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: seconds[case.id]):
        groups.setdefault(case.settings.sentinel, []).append(case)
    rounds = itertools.zip_longest(*groups.values())
    return [case for one_round in rounds for case in one_round if case is not None]
