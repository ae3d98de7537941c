"""Runs the process of a variation and yields its answers, even if the process dies."""

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
    """The variation has no effect on this machine."""


def run_variation(variation: Variation, assignment: Assignment) -> Iterator[tuple[Case, Answer]]:
    """Yields an answer for each case of the assignment, in order, as they come.

    If a case ends the process, the remaining cases get a new one.

    Raises:
        NoEffectHere: the variation has no effect on this machine.
        VariationFailed: its process does not start.
    """
    left = list(assignment.cases)
    while left:
        for answer in _process(variation, replace(assignment, cases=tuple(left))):
            yield left.pop(0), answer


def _process(variation: Variation, assignment: Assignment) -> Iterator[Answer]:
    """The answers of one process; the last is ``Died`` if it ended too early."""
    with started(answers, assignment, environment=variation.environment) as replies:
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
