"""Which cases a run takes from the suite."""

from __future__ import annotations

from dataclasses import dataclass

from bench.suite.case import Case
from bench.suite.file import Suite, SuiteError
from bench.suite.scenarios import SCENARIOS

SLOW = "slow (-m slow)"


@dataclass(frozen=True)
class Selection:
    """The cases to run, in order, and how many were left out for which reason."""

    cases: tuple[Case, ...]
    left_out: dict[str, int]


def select_cases(
    suite: Suite, models: tuple[str, ...], slow_dtypes: frozenset[str], slow: bool, device_type: str = "cpu"
) -> Selection:
    """Embedded and local models unless models are named; slow cases only on request.

    Args:
        device_type: away from the CPU, cases whose noise is drawn on the device have other pictures.

    Raises:
        SuiteError: a name is not in the suite.
    """
    known = {model.name for model in suite.models}
    for name in models:
        if name not in known:
            raise SuiteError(f"--model {name}: not in {suite.file}; known: {', '.join(sorted(known))}.")
    left_out: dict[str, int] = {}
    chosen = []
    for case in suite.cases:
        reason = _left_out(case, models, slow_dtypes, slow, device_type)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            chosen.append(case)
    return Selection(tuple(chosen), left_out)


def is_slow(case: Case, slow_dtypes: frozenset[str]) -> bool:
    """Sentinels are few steps of one small picture, which is quick in any dtype."""
    return case.settings.slow or (case.settings.dtype in slow_dtypes and not case.settings.sentinel)


def _left_out(
    case: Case, models: tuple[str, ...], slow_dtypes: frozenset[str], slow: bool, device_type: str
) -> str | None:
    if models and case.model.name not in models:
        return "of other models"
    if not models and case.model.source == "hub":
        return "of hub models (--model NAME)"
    if not slow and is_slow(case, slow_dtypes):
        return SLOW
    if device_type != "cpu" and SCENARIOS[case.settings.scenario].draws_on_device:
        return "drawing their noise on the device"
    return None
