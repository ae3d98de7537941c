"""From the evidence of one case to its limits for every tier, or to the reason why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.calibration.spread import (
    BLIND_BELOW,
    UNSTABLE_BELOW,
    evidence_for_limits,
    is_blind,
    is_unstable,
    limits_from,
    spread_of,
)
from bench.errors import BenchError
from bench.pictures.limits import OTHER, PORTABLE, STRICT, TwinsMeasured, VariationMeasured
from bench.pictures.similarity import Limits


class NoLimits(BenchError):
    """The evidence of a case gives no limits."""


@dataclass(frozen=True)
class Derived:
    """Limits by tier.

    Attributes:
        other: ``None`` where the case cannot be compared across types of device, or where that was not measured.
        unstable: why it cannot be compared; empty if it can.
        blind: why the limits on one type of device let another picture pass; empty if they do not.
    """

    strict: Limits
    portable: Limits
    other: Limits | None
    unstable: str = ""
    blind: str = ""


def derive_limits(dtype: str, evidence: Sequence[VariationMeasured], twins: Sequence[TwinsMeasured]) -> Derived:
    """The limits of a case.

    Raises:
        NoLimits: some of the evidence is another picture, or there is too little evidence.
    """
    everything = [*evidence, *(one for measured in twins for one in measured.each())]
    worst = spread_of(everything, PORTABLE)
    if is_unstable(worst):
        raise NoLimits(
            f"unstable: '{worst.name}' turns a tile into another picture (SSIM {worst.ssim:.4f}, at least "
            f"{UNSTABLE_BELOW} is needed), so no useful limits exist; choose another seed, or remove the case."
        )
    try:
        strict, portable = limits_from(everything, STRICT), limits_from(everything, PORTABLE)
        across = evidence_for_limits(dtype, everything, OTHER)
        other, unstable = _across(across) if across else (None, "")
    except ValueError as error:
        raise NoLimits(f"not calibrated: {error}.") from None
    if not is_blind(portable):
        return Derived(strict, portable, other, unstable)
    blind = (
        f"blind: '{worst.name}' moves it to SSIM {worst.ssim:.4f}, and a limit of {portable.ssim:.3f} lets another "
        f"picture pass (at least {BLIND_BELOW} is needed); change its settings, or choose another seed."
    )
    return Derived(strict, portable, other, unstable, blind)


def _across(evidence: Sequence[VariationMeasured]) -> tuple[Limits | None, str]:
    """The limits on another type of device, or why it has none."""
    worst = spread_of(evidence, OTHER)
    if is_unstable(worst):
        return None, f"'{worst.name}' turns a tile into another picture (SSIM {worst.ssim:.4f})"
    limits = limits_from(evidence, OTHER)
    if is_blind(limits):
        return None, f"'{worst.name}' moves it to SSIM {worst.ssim:.4f}, so another picture could pass for it"
    return limits, ""
