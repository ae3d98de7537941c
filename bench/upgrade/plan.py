"""How two sides are compared: where they compute, what counts as a change, and how long that may take."""

from __future__ import annotations

from dataclasses import dataclass

from bench.upgrade.lockstep import Places
from bench.upgrade.workers import TIMEOUT_S

# The noise of a start falls with the root of its time (measured), and a start costs some seconds of importing.
SPELL_S = 3.0


@dataclass(frozen=True)
class ComparisonPlan:
    """How two sides are compared.

    Attributes:
        device: torch's name.
        min_change: smallest change of a case's time or memory that matters, 0.03 for 3 %.
        min_component_change: smallest change of a component that matters where it changes no call by ``min_change``.
        budget_s: seconds of measuring for all cases together; it ends sooner once everything is decided.
        spell_s: seconds of measuring per start and pipeline, at least one call of each chosen case; longer where they
            do not suffice, see ``start.PRECISION``.
        speed: whether to measure at all; else only pictures and work are compared.
        times: whether times mean something; on a simulated accelerator they do not, and only memory is measured.
        timeout_s: longest silence of a side after a request.
    """

    places: Places
    device: str = "cpu"
    min_change: float = 0.03
    min_component_change: float = 0.10
    budget_s: float = 300.0
    spell_s: float = SPELL_S
    speed: bool = True
    times: bool = True
    timeout_s: float = TIMEOUT_S
