"""From how far harmless differences moved a case to the limits of that case. Pure.

Each of the four figures of a case (gap of SSIM, levels, share of values, shift) is a random number: it depends on how
a machine happens to round. The evidence, rounding twins and variations, is a sample of it. A limit is the bound that
one more observation, the next machine, exceeds with a chance of at most ``FALSE_ALARM`` divided by the four figures.

The bound itself, and what it assumes, is in ``bench.calibration.prediction``. A variation that leaves a picture as it
was is not an observation: nothing shows that it changed any rounding.

How this was checked: ``tests/calibration/test_validation.py`` draws figures from known distributions (lognormal with a
deviation of 0.1 to 1, chi-squared with 1 to 100 degrees of freedom, absolute normal) and counts how often the next one
exceeds the bound; ``bench.calibration.validation`` leaves out each kind of evidence of each golden in turn; and the
pictures that a processor of another maker drew are compared with the goldens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.calibration.prediction import prediction_bound
from bench.pictures.limits import OTHER, PORTABLE, STRICT, Tier, VariationMeasured
from bench.pictures.similarity import Limits, Similarity

FALSE_ALARM = 1e-4  # per case and machine
FIGURES = 4
# With fewer observations Student's t makes the limit so wide that it would mean nothing.
FEWEST = 8
# A twin whose tile is less like the golden's than this is another picture.
UNSTABLE_BELOW = 0.9
# Two different pictures of one model reach an SSIM of 0.77 (224 pairs of tiles of emoji-ddpm, 99 % below 0.39; 138 of
# emoji-sd, at most 0.23): a limit below this would let one of them pass for the other.
BLIND_BELOW = 0.8


@dataclass(frozen=True)
class Floors:
    """The tightest limits of a tier, and the resolution of each figure.

    Attributes:
        gap: 1 - SSIM of the worst tile.
        levels: 8-bit levels.
        share: of the values.
        shift: 8-bit levels.
    """

    gap: float
    levels: int
    share: float
    shift: float


# On one type of device, even a case that nothing moved must allow what harmless upgrades did elsewhere: SSIM 0.99999,
# one level, 0.08 % of the values. The first real changes were at 0.9998 and 2 levels; 0.99995 is half-way between,
# on a log scale. A level on 0.1 % of the values shifts a channel by 0.001.
SAME_TYPE = Floors(gap=5e-5, levels=1, share=0.001, shift=0.01)
# TF32 arithmetic in the text encoder and the decoder moves every case a little, which twins of the denoiser do not
# show: gaps up to 3e-4 and shifts up to 0.04 where their twins moved by a fifth of that.
OTHER_TYPE = Floors(gap=3e-4, levels=2, share=0.1, shift=0.05)

MARGIN = (
    f"prediction bounds for one more machine; chance of a false alarm {FALSE_ALARM:g} per case and machine; "
    "never tighter than the floors in bench/calibration/spread.py"
)


@dataclass(frozen=True)
class Spread:
    """The worst of each figure over some evidence, and the evidence whose SSIM was lowest."""

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


def evidence_for(evidence: Sequence[VariationMeasured], tier: Tier) -> list[VariationMeasured]:
    """The evidence that counts for a tier.

    What may differ on one machine may differ between two. Another type of device rounds so much more coarsely that
    only its own evidence counts there.
    """
    counted = {STRICT: (STRICT,), PORTABLE: (STRICT, PORTABLE), OTHER: (OTHER,)}[tier]
    return [one for one in evidence if one.tier in counted]


def observations(evidence: Sequence[VariationMeasured]) -> list[VariationMeasured]:
    """Evidence that shows how far rounding moves the case: all twins, and the variations that moved it.

    If no variation did, all of them count.
    """
    names = [one.name for one in evidence]
    found = [one for one in evidence if one.max_diff or names.count(one.name) > 1]
    return found or list(evidence)


def evidence_for_limits(dtype: str, evidence: Sequence[VariationMeasured], tier: Tier) -> list[VariationMeasured]:
    """The evidence that counts for a tier of a case.

    float32 is rounded more coarsely on another type of device, which evidence of that tier imitates. The half dtypes
    keep their own rounding there, so what was seen on this type of device counts.
    """
    if tier == OTHER and dtype != "float32":
        return [one.model_copy(update={"tier": OTHER}) for one in evidence]
    return evidence_for(evidence, tier)


def spread_of(evidence: Sequence[VariationMeasured], tier: Tier) -> Spread:
    """What the evidence for this tier did.

    Raises:
        ValueError: there is no such evidence.
    """
    counted = evidence_for(evidence, tier)
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


def limits_from(evidence: Sequence[VariationMeasured], tier: Tier) -> Limits:
    """The limits of a tier; none is tighter than its floor, or than what was seen.

    Raises:
        ValueError: there are fewer than ``FEWEST`` observations for this tier.
    """
    counted = observations(evidence_for(evidence, tier))
    if len(counted) < FEWEST:
        raise ValueError(f"{len(counted)} observations for '{tier}', at least {FEWEST} are needed")
    floors = OTHER_TYPE if tier == OTHER else SAME_TYPE
    spread = spread_of(evidence, tier)

    def limit(values: list[float], floor: float) -> float:
        return prediction_bound(values, floor, FALSE_ALARM / FIGURES)

    gap = limit([1 - one.ssim for one in counted], floors.gap)
    # Whole levels double from 1 to 2, which a logarithm takes for a wide spread; counted from 1 up they do not.
    levels = limit([one.max_diff + 1 for one in counted], floors.levels + 1) - 1
    # In a small picture the floor is only a few values, so their scatter below the floor counts too.
    share = limit([one.changed_share for one in counted], floors.share / 4)
    return Limits(
        ssim=_down(max(1 - gap, -1.0)),
        max_diff=min(max(math.ceil(round(levels, 6)), spread.max_diff + floors.levels), 255),
        changed_share=-_down(-min(max(share, floors.share), 1.0)),
        mean_diff=-_down(-min(limit([one.mean_diff for one in counted], floors.shift), 255.0)),
        reason=(
            f"measured: {spread.moved} of {spread.count} harmless differences moved it, to SSIM >= {spread.ssim:.6f}, "
            f"difference <= {spread.max_diff} on <= {spread.changed_share * 100:.3g} % of the values, "
            f"shift <= {spread.mean_diff:.3f} (worst: {spread.name}); chance of a false alarm {FALSE_ALARM:g}"
        ),
    )


def _down(value: float) -> float:
    """Six digits, never more than the value: rounding must not make a limit tighter."""
    return math.floor(round(value * 1e6, 3)) / 1e6


def is_unstable(spread: Spread) -> bool:
    """Whether some of the evidence turned a tile into another picture, so that no useful limits exist."""
    return spread.ssim < UNSTABLE_BELOW


def is_blind(limits: Limits) -> bool:
    """Whether a case's harmless spread is so wide that another picture could pass for it."""
    return limits.ssim < BLIND_BELOW
