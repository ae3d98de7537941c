"""The settings that a study may try on a device, and why the others are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.suite.case import Case, Model
from bench.suite.optimizations import why_not_here
from bench.suite.schedulers import SCHEDULERS
from bench.suite.tuning import AXES, Tuning, case_of, combinations
from bench.tune.errors import TuneError

# Their pictures depend on noise that each of them draws in another order, so likeness to a reference says little.
_STOCHASTIC = frozenset({"ddpm", "euler-ancestral", "kdpm2-ancestral", "dpmpp-3m-sde", "lcm", "tcd", "sa-solver"})
_STOCHASTIC_CLASS = "DDPMScheduler"


def draws_noise(scheduler: str) -> bool:
    """Whether a scheduler adds noise in its steps."""
    return scheduler in _STOCHASTIC or SCHEDULERS[scheduler].class_name == _STOCHASTIC_CLASS


@dataclass(frozen=True)
class Space:
    """What may be tried.

    Attributes:
        cases: of the first call of each setting, by id.
        left_out: how many combinations cannot be tried, by reason.
        start: what a user has before tuning.
        reference: whose pictures the others should have.
    """

    model: Model
    tuning: Tuning
    cases: Mapping[str, Case]
    left_out: Mapping[str, int]
    start: Case
    reference: Case

    @cached_property
    def axes(self) -> dict[str, list[str]]:
        """The values of each setting that varies, as words, in the order of the suite file."""
        of_cases = [words(case) for case in self.cases.values()]
        found = {axis: list(dict.fromkeys(one[axis] for one in of_cases)) for axis in AXES}
        return {axis: values for axis, values in found.items() if len(values) > 1}

    @cached_property
    def by_words(self) -> dict[tuple[str, ...], str]:
        """The id of the case with these values of the axes."""
        return {self.place(case): name for name, case in self.cases.items()}

    def first_place(self, steps: int) -> dict[str, str]:
        """The first value of each axis in the suite file, with this number of steps."""
        return {axis: str(steps) if axis == "steps" else values[0] for axis, values in self.axes.items()}

    def place(self, case: Case) -> tuple[str, ...]:
        """The values of the axes of a case."""
        of_case = words(case)
        return tuple(of_case[axis] for axis in self.axes)


def words(case: Case) -> dict[str, str]:
    """The settings that are combined, each as a word."""
    settings = case.settings
    found: dict[str, Any] = {axis: getattr(settings, axis) for axis in AXES}
    for axis in ("options", "call"):
        found[axis] = ", ".join(f"{key}={value}" for key, value in getattr(settings, axis).items())
    found["optimizations"] = " + ".join(settings.optimizations)
    return {axis: str(value) if value not in ("", None) else "none" for axis, value in found.items()}


def space_of(
    model: Model,
    tuning: Tuning,
    device_type: str,
    slow_dtypes: Iterable[str] = (),
    *,
    by_likeness: bool = True,
) -> Space:
    """The settings of a model that can be tried on a device.

    Args:
        slow_dtypes: dtypes that the device computes far slower than float32.
        by_likeness: whether quality is likeness to a reference, which says little about samplers that draw noise.

    Raises:
        TuneError: nothing is left, or the start or the reference cannot work.
    """
    cases: dict[str, Case] = {}
    left_out: Counter[str] = Counter()
    slow = frozenset(slow_dtypes)
    for made in combinations(model, tuning):
        reason = made if isinstance(made, str) else _why_left_out(made, device_type, slow, by_likeness)
        if reason:
            left_out[reason] += 1
        elif not isinstance(made, str):
            cases[made.id] = made
    if not cases:
        raise TuneError(f"[tune.{model.name}]: no combination can be tried here: {'; '.join(left_out)}.")
    try:
        start, reference = (case_of(model, tuning, chosen) for chosen in (tuning.start, tuning.reference))
    except ValueError as error:
        raise TuneError(f"[tune.{model.name}]: start and reference must work: {error}.") from None
    return Space(model, tuning, cases | {start.id: start}, dict(left_out), start, reference)


def _why_left_out(case: Case, device_type: str, slow_dtypes: frozenset[str], by_likeness: bool) -> str | None:
    settings = case.settings
    if by_likeness and draws_noise(settings.scheduler):
        return f"'{settings.scheduler}' draws noise in its steps, so likeness to a reference says little"
    if settings.dtype in slow_dtypes:
        return f"{settings.dtype} has no fast kernels on this device"
    return why_not_here(settings.optimizations, device_type, settings.dtype)
