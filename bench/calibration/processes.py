"""Starts the process of a variation and hands on its answers, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.calibration.messages import Answer, Assignment, Died, NotHeld, Ready
from bench.calibration.variations import Variation
from bench.calibration.worker import answers
from bench.calls.processes import ProcessDied, started
from bench.errors import BenchError
from bench.suite.case import Case


class VariationFailed(BenchError):
    """A variation cannot be run at all."""


class NoEffectHere(BenchError):
    """The variation does not take hold on this machine."""


def run_variation(variation: Variation, task: Assignment) -> Iterator[tuple[Case, Answer]]:
    """An answer for each case of the task, in order, as they come.

    Where a case takes the process along, the others get a new one.

    Raises:
        NoEffectHere: the variation does not take hold on this machine.
        VariationFailed: its process does not come up.
    """
    left = list(task.cases)
    while left:
        for answer in _process(variation, replace(task, cases=tuple(left))):
            yield left.pop(0), answer


def _process(variation: Variation, task: Assignment) -> Iterator[Answer]:
    """The answers of one process; the last is ``Died`` if it ended too early."""
    with started(answers, task, environment=variation.environment) as replies:
        try:
            ready = next(replies)
        except ProcessDied as error:
            raise VariationFailed(str(error)) from None
        if isinstance(ready, NotHeld):
            raise NoEffectHere(ready.reason)
        try:
            for answer in replies:
                assert not isinstance(answer, Ready)
                yield answer
        except ProcessDied as error:
            yield Died(str(error))
