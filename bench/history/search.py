"""Finds the first bad one in a sequence that begins good and ends bad, in about log2(n) looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.errors import BenchError, UsageError

GOOD, BAD, SKIP = "good", "bad", "skip"
Item = TypeVar("Item")


class Undecided(BenchError):
    """An item may be good or bad, and a guess could make the answer wrong."""


@dataclass(frozen=True)
class Narrowed(Generic[Item]):
    """The result of a search.

    Attributes:
        last_good: the last item known to be good.
        first_bad: the first item known to be bad; ``None`` if the last one is good, so that nothing changed.
        between: items between these two, which were skipped or not judged.
        looks: how many items were judged.
        undecided: why the search ended early.
    """

    last_good: Item | None
    first_bad: Item | None
    between: tuple[Item, ...] = ()
    looks: int = 0
    undecided: str | None = None

    @property
    def is_found(self) -> bool:
        return self.first_bad is not None and not self.between


def steps_left(left: int) -> str:
    """About how many steps that many items still take, in words."""
    steps = math.ceil(math.log2(left))
    return f"about {steps} {'step' if steps == 1 else 'steps'}"


def find_change(
    items: Sequence[Item], judge: Callable[[Item], str], report_left: Callable[[int], None] = lambda left: None
) -> Narrowed[Item]:
    """Judges both ends, then the middle of what is left, or its nearest neighbour if that was skipped.

    If good and bad alternate, it finds one of the changes from good to bad, not necessarily the first.

    Args:
        items: at least two, in order.
        judge: answers ``GOOD``, ``BAD`` or ``SKIP``; it may raise ``Undecided``, which ends the search.
        report_left: called before each step between the ends with the number of items left.

    Raises:
        UsageError: the first item is not good, or the last one is skipped.
    """
    looks = 0

    def look(number: int) -> str:
        nonlocal looks
        looks += 1
        return judge(items[number])

    if look(0) != GOOD:
        raise UsageError(f"the search must begin with a good item, and {items[0]} is not good")
    low, high = 0, len(items) - 1
    try:
        last = look(high)
    except Undecided as reason:
        return Narrowed(items[0], None, tuple(items[1:]), looks, str(reason))
    if last == GOOD:
        return Narrowed(items[high], None, (), looks)
    if last == SKIP:
        raise UsageError(f"the search must end with an item that can be judged, and {items[high]} cannot")
    skipped: set[int] = set()
    undecided = None
    while left := [number for number in range(low + 1, high) if number not in skipped]:
        report_left(high - low)
        middle = min(left, key=lambda number: abs(2 * number - low - high))
        try:
            answer = look(middle)
        except Undecided as reason:
            undecided = str(reason)
            break
        if answer == SKIP:
            skipped.add(middle)
        elif answer == GOOD:
            low = middle
        else:
            high = middle
    return Narrowed(items[low], items[high], tuple(items[low + 1 : high]), looks, undecided)
