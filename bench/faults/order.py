"""In which order cases are tried with a fault, so that the first few are likely to see it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from bench.faults.fault import Fault
from bench.suite.case import Case

FIRST_TURN = 8


def likely_first(cases: Sequence[Case], fault: Fault, seconds: Mapping[str, float]) -> list[Case]:
    """Cases whose ids share words with the fault's name or its area, then all others, mixed.

    Args:
        seconds: what each case costs without a fault.
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
    """All pipelines in turn, in turns that grow, as changing the pipeline means to load it; within one, all groups."""
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
    """One of each group after the other, the cheap ones of a group first."""
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: seconds[case.id]):
        groups.setdefault(case.settings.sentinel, []).append(case)
    rounds = itertools.zip_longest(*groups.values())
    return [case for one_round in rounds for case in one_round if case is not None]
