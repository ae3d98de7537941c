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
    """Whether an item is good or bad cannot be told, and a guess would make the answer wrong."""


@dataclass(frozen=True)
class Narrowed(Generic[Item]):
    """How far the search came.

    Attributes:
        last_good: the last item known to be good; ``None`` if not even the first is.
        first_bad: the first item known to be bad; ``None`` if the last one is good, so that nothing changed.
        between: items between these two, which were skipped or not looked at.
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
    """About how many looks are left for that many items in question, in words."""
    steps = math.ceil(math.log2(left))
    return f"about {steps} {'step' if steps == 1 else 'steps'}"


def find_change(
    items: Sequence[Item], judge: Callable[[Item], str], tell_left: Callable[[int], None] = lambda left: None
) -> Narrowed[Item]:
    """Judges both ends, then always the middle of what is left; where that is skipped, its nearest neighbour.

    Where good and bad alternate, one of the changes from good to bad is found, not necessarily the first.

    Args:
        items: at least two, in order.
        judge: answers ``GOOD``, ``BAD`` or ``SKIP``; it may raise ``Undecided``, which ends the search.
        tell_left: told before each look but those at the ends how many items are still in question.

    Raises:
        UsageError: the first item is not good, or the last one is skipped.
    """
    looks = 0

    def look(number: int) -> str:
        nonlocal looks
        looks += 1
        return judge(items[number])

    if look(0) != GOOD:
        raise UsageError(f"the search must begin with a good item, and {items[0]} is none")
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
        tell_left(high - low)
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
