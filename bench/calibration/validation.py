"""Are the limits wide enough? Leaves out each kind of evidence in turn and judges it by the limits from the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.calibration.spread import FEWEST, evidence_for_limits, limits_from, observations
from bench.pictures.limits import OTHER, PORTABLE, STRICT, CalibratedLimits, Tier, VariationMeasured
from bench.pictures.similarity import Limits


@dataclass(frozen=True)
class LeftOut:
    """One kind of evidence of a case, judged by the limits that follow from the other kinds.

    Attributes:
        kind: name of the variation or of the twins.
        count: observations of this kind.
        outside: those that are outside the limits.
        limits: from the other kinds.
    """

    tier: Tier
    kind: str
    count: int
    outside: tuple[VariationMeasured, ...]
    limits: Limits


def is_within(one: VariationMeasured, limits: Limits) -> bool:
    return (
        one.ssim >= limits.ssim
        and one.max_diff <= limits.max_diff
        and one.changed_share <= limits.changed_share
        and one.mean_diff <= limits.mean_diff
    )


def leave_each_out(dtype: str, calibrated: CalibratedLimits) -> Iterator[LeftOut]:
    """Every kind of evidence of every tier; kinds without which too little evidence is left are skipped."""
    tiers: tuple[Tier, ...] = (STRICT, PORTABLE) if calibrated.other is None else (STRICT, PORTABLE, OTHER)
    for tier in tiers:
        counted = observations(evidence_for_limits(dtype, calibrated.measurements, tier))
        for kind in dict.fromkeys(one.name for one in counted):
            rest = [one for one in counted if one.name != kind]
            if len(rest) >= FEWEST:
                yield _left_out(tier, kind, [one for one in counted if one.name == kind], limits_from(rest, tier))


def _left_out(tier: Tier, kind: str, left: Sequence[VariationMeasured], limits: Limits) -> LeftOut:
    outside = tuple(one for one in left if not is_within(one, limits))
    return LeftOut(tier, kind, len(left), outside, limits)
