"""From how far harmless variations moved a case to the limits of that case. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.limits import PORTABLE, STRICT, Tier, VariationMeasured
from bench.records import LimitsRecord
from bench.similarity import Similarity

# Variations that can be run here are a sample of those that there are, so what they did counts twice.
FACTOR = 2.0
# Even a case that none of them moved must bear what harmless upgrades did elsewhere: SSIM 0.99999, one level, 0.08 % of
# the values. The first real changes were at 0.9998 and 2 levels; 0.99995 lies half-way between, on a log scale.
SSIM_FLOOR = 5e-5
MAX_DIFF_FLOOR = 1
SHARE_FLOOR = 0.001
# A level on 0.1 % of the values shifts a channel by 0.001; a level on one of a hundred is told.
MEAN_DIFF_FLOOR = 0.01
# A wrong noise schedule (linear betas) left an SSIM of 0.90 to 0.91: limits below let even that pass.
BLIND_BELOW = 0.9

MARGIN = (
    f"the worst of each figure times {FACTOR:g}, at least {SSIM_FLOOR:g} below an SSIM of 1, {MAX_DIFF_FLOOR} level "
    f"more than measured, {SHARE_FLOOR:.1%} of the values and a shift of {MEAN_DIFF_FLOOR:g}"
)


@dataclass(frozen=True)
class Spread:
    """The worst of each figure over some variations, and the variation whose SSIM was lowest."""

    name: str
    ssim: float
    max_diff: int
    changed_share: float
    mean_diff: float
    count: int
    moved: int


def measured(name: str, tier: Tier, similarity: Similarity) -> VariationMeasured:
    return VariationMeasured(
        name=name,
        tier=tier,
        ssim=similarity.ssim_worst_tile,
        max_diff=similarity.max_diff,
        changed_share=similarity.changed_share,
        mean_diff=max(map(abs, similarity.mean_diff)),
    )


def spread_of(evidence: Sequence[VariationMeasured], tier: Tier) -> Spread:
    """What variations of this tier did; those of one machine count for others too.

    Raises:
        ValueError: there are none.
    """
    counted = [one for one in evidence if tier == PORTABLE or one.tier == STRICT]
    if not counted:
        raise ValueError(f"no variation for '{tier}' was measured")
    worst = min(counted, key=lambda one: (one.ssim, -one.max_diff, -one.changed_share))
    return Spread(
        name=worst.name if worst.max_diff else "none",
        ssim=worst.ssim,
        max_diff=max(one.max_diff for one in counted),
        changed_share=max(one.changed_share for one in counted),
        mean_diff=max(one.mean_diff for one in counted),
        count=len(counted),
        moved=sum(one.max_diff > 0 for one in counted),
    )


def limits_from(spread: Spread) -> LimitsRecord:
    """The limits with their margin; none is tighter than its floor."""
    gap = max(FACTOR * (1 - spread.ssim), SSIM_FLOOR)
    return LimitsRecord(
        ssim=_down(max(1 - gap, -1.0)),
        max_diff=min(max(round(FACTOR * spread.max_diff), spread.max_diff + MAX_DIFF_FLOOR), 255),
        changed_share=-_down(-min(max(FACTOR * spread.changed_share, SHARE_FLOOR), 1.0)),
        mean_diff=-_down(-max(FACTOR * spread.mean_diff, MEAN_DIFF_FLOOR)),
        reason=(
            f"measured: {spread.moved} of {spread.count} harmless variations moved it, to SSIM >= {spread.ssim:.6f}, "
            f"difference <= {spread.max_diff} on <= {spread.changed_share * 100:.3g} % of the values, "
            f"shift <= {spread.mean_diff:.3f} (worst: {spread.name}); doubled"
        ),
    )


def _down(value: float) -> float:
    """Six digits, never more than the value: rounding must not make a limit tighter."""
    return math.floor(round(value * 1e6, 3)) / 1e6


def is_blind(portable: LimitsRecord) -> bool:
    """Whether a case's harmless spread is so wide that a wrong picture could hide in it."""
    return portable.ssim < BLIND_BELOW
