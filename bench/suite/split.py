"""Splits cases into shards that take about the same time, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from bench.suite.case import Case
from bench.suite.effort import effort

T = TypeVar("T")


def milliseconds_of(cases: Sequence[Case], seconds: Mapping[str, float]) -> list[int]:
    """What each case is expected to take: as known, else from its settings in proportion to the known ones.

    Whole numbers add up to the same on every machine. Where nothing is known, the unit is arbitrary.

    Args:
        seconds: of the cases that are known, by id.
    """
    known = [case for case in cases if case.id in seconds]
    per_effort = sum(seconds[case.id] for case in known) / sum(map(effort, known)) if known else 1.0
    return [max(1, round(1000 * seconds.get(case.id, per_effort * effort(case)))) for case in cases]


def split(items: Sequence[T], costs: Sequence[int], count: int) -> list[list[T]]:
    """Consecutive parts of the items, of which the most expensive is as cheap as possible.

    Consecutive cases share models and pipelines, so few of these are loaded in two shards. A part is empty only if
    there are fewer items than parts.

    Args:
        costs: of the items, at least 1 each.
        count: of the parts, at least 1.
    """
    most = _smallest_maximum(costs, count)
    parts: list[list[T]] = []
    first = 0
    for left in range(count, 0, -1):
        end = _end_of_part(costs, first, left, most)
        parts.append(list(items[first:end]))
        first = end
    return parts


def _end_of_part(costs: Sequence[int], first: int, left: int, most: int) -> int:
    """Where the next of the ``left`` parts ends: near its share of what is left, so that later ones are no smaller."""
    if left == 1:
        return len(costs)
    share = sum(costs[first:]) / left
    end, cost = first, 0
    while len(costs) - end >= left and cost + costs[end] <= most:
        if end > first and _parts_needed(costs[end:], most) < left and cost + costs[end] / 2 > share:
            break
        cost += costs[end]
        end += 1
    return max(end, first + 1) if len(costs) - first >= left else min(first + 1, len(costs))


def _smallest_maximum(costs: Sequence[int], count: int) -> int:
    """The cost of the most expensive part of the best split."""
    low, high = max(costs, default=0), sum(costs)
    while low < high:
        middle = (low + high) // 2
        if _parts_needed(costs, middle) <= count:
            high = middle
        else:
            low = middle + 1
    return low


def _parts_needed(costs: Sequence[int], most: int) -> int:
    """The fewest consecutive parts of which none costs more than ``most``."""
    parts, cost = 0, most
    for one in costs:
        if cost + one > most:
            parts, cost = parts + 1, 0
        cost += one
    return parts
