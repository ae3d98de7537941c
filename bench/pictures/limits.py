"""The limits of a golden: three tiers, by how near the machine is to the golden's, and their evidence.

A golden whose limits were measured (``pytest -m golden --golden-calibrate``) has them, with their evidence, in its
origin; other goldens have the defaults of their dtype.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.calls.device import Device, instruction_set
from bench.frozen import Frozen
from bench.pictures.similarity import Limits

Tier = Literal["this machine", "this type of device", "another type of device"]
STRICT: Tier = "this machine"
PORTABLE: Tier = "this type of device"
OTHER: Tier = "another type of device"

_NO_SHARE = 1.0  # where nearly every value may move by a level

# (dtype, tier): how far a grid may be from its golden, or a candidate's grid from the baseline's.
# "Upgrades" below: 195 settings of two small models under neighbouring releases of diffusers, transformers and torch on
# one processor, where the hardest harmless step took another convolution kernel (diffusers 0.36 to 0.37).
# "Measured" below: what the measured limits of the suite's own cases are (python -m bench.calibration detects).
DEFAULT_LIMITS: dict[tuple[str, Tier], Limits] = {
    ("float32", STRICT): Limits(
        ssim=0.9999,
        max_diff=2,
        changed_share=0.002,
        mean_diff=0.02,
        reason="harmless upgrades: SSIM >= 0.99999, difference <= 1 on <= 0.08 % of values; real ones 0.9998, 2",
    ),
    ("bfloat16", STRICT): Limits(
        ssim=0.9995,
        max_diff=4,
        changed_share=0.1,
        mean_diff=0.2,
        reason="harmless upgrades: SSIM >= 0.99988, difference <= 2 on <= 4.3 % of values; real ones 0.996, 14",
    ),
    ("float16", STRICT): Limits(
        ssim=0.9999,
        max_diff=2,
        changed_share=0.02,
        mean_diff=0.02,
        reason="harmless upgrades: SSIM >= 0.99999, difference <= 1 on <= 0.7 % of values; real ones 0.9998, 2",
    ),
    ("float32", PORTABLE): Limits(
        ssim=0.9999,
        max_diff=3,
        changed_share=0.01,
        mean_diff=0.05,
        reason="measured: 95 % of 443 cases need less than SSIM 0.99995, 2 levels on 0.4 % of values, shift 0.01",
    ),
    ("bfloat16", PORTABLE): Limits(
        ssim=0.86,
        max_diff=136,
        changed_share=_NO_SHARE,
        mean_diff=14.0,
        reason="measured: 95 % of 38 cases need less",
    ),
    ("float16", PORTABLE): Limits(
        ssim=0.99,
        max_diff=24,
        changed_share=_NO_SHARE,
        mean_diff=1.0,
        reason="a guess: four measured cases need less than SSIM 0.99995, 11 levels, shift 0.14",
    ),
    ("float32", OTHER): Limits(
        ssim=0.98,
        max_diff=64,
        changed_share=_NO_SHARE,
        mean_diff=12.0,
        reason="measured: 95 % of 26 timed cases need less at the rounding of TF32; no accelerator was at hand",
    ),
    ("bfloat16", OTHER): Limits(
        ssim=0.86,
        max_diff=136,
        changed_share=_NO_SHARE,
        mean_diff=14.0,
        reason="as on the same type of device, where 95 % of 38 cases need less; no accelerator was at hand",
    ),
    ("float16", OTHER): Limits(
        ssim=0.97,
        max_diff=64,
        changed_share=_NO_SHARE,
        mean_diff=2.0,
        reason="a guess; four measured cases need less than SSIM 0.9997, 4 levels, shift 0.11",
    ),
}


class VariationMeasured(Frozen):
    """How far one harmless variation moved a case from its golden."""

    name: str
    tier: Tier = Field(description="the narrowest tier that it is evidence for")
    ssim: float = Field(description="of the worst tile")
    max_diff: int = Field(description="8-bit levels")
    changed_share: float
    mean_diff: float = Field(description="largest mean difference of a channel of a tile, 8-bit levels, without sign")


class TwinsMeasured(Frozen):
    """How far the rounding twins of a case moved it from its golden, one number per twin in each list."""

    name: str
    tier: Tier = Field(description="the narrowest tier that they are evidence for")
    roundoff: float = Field(description="largest relative change of a value of the denoiser's output")
    ssim: tuple[float, ...] = Field(min_length=1)
    max_diff: tuple[int, ...]
    changed_share: tuple[float, ...]
    mean_diff: tuple[float, ...]

    @model_validator(mode="after")
    def _one_number_per_twin(self) -> TwinsMeasured:
        if len({len(self.ssim), len(self.max_diff), len(self.changed_share), len(self.mean_diff)}) > 1:
            raise ValueError("the lists of a twin measurement have different lengths")
        return self

    def each(self) -> tuple[VariationMeasured, ...]:
        rows = zip(self.ssim, self.max_diff, self.changed_share, self.mean_diff, strict=True)
        return tuple(
            VariationMeasured(
                name=self.name, tier=self.tier, ssim=ssim, max_diff=levels, changed_share=share, mean_diff=shift
            )
            for ssim, levels, share, shift in rows
        )


class CalibratedLimits(Frozen):
    """Measured limits of one case, and their evidence.

    Attributes:
        strict: for the machine on which the golden was made, and for two runs on one machine.
        portable: for other machines with this type of device.
        other: for another type of device; ``None`` if it was not measured, or if no useful limits exist there.
        unstable: why no useful limits exist on another type of device; empty if they can.
        evidence: each variation that was run.
        twins: the rounding twins that were run.
        left_out: variations that were not run, or that had no effect, each as a sentence with the reason.
        margin: how the limits follow from the evidence, in words.
        processor: name of the device on which the golden was made.
        instruction_set: of that device, see ``bench.calls.device.instruction_set``; ``unknown`` if the limits were
            measured only on another processor.
        date: ISO 8601.
    """

    strict: Limits
    portable: Limits
    other: Limits | None = None
    unstable: str = ""
    evidence: tuple[VariationMeasured, ...] = Field(min_length=1)
    twins: tuple[TwinsMeasured, ...] = ()
    left_out: tuple[str, ...] = ()
    margin: str
    processor: str
    instruction_set: str
    libraries: dict[str, str | None]
    date: str

    @property
    def measurements(self) -> tuple[VariationMeasured, ...]:
        """All evidence, one entry per variation and per twin."""
        return (*self.evidence, *(one for twins in self.twins for one in twins.each()))


def default_limits(dtype: str, tier: Tier) -> Limits:
    return DEFAULT_LIMITS[dtype, tier]


def tier_of(golden_device_type: str, golden_device_name: str, device: Device) -> Tier:
    """How near a device is to the one on which a golden was made."""
    if golden_device_type != device.type:
        return OTHER
    return STRICT if golden_device_name == device.name else PORTABLE


def choose_limits(calibrated: CalibratedLimits | None, dtype: str, tier: Tier, device: Device) -> Limits | None:
    """The limits of a golden on a device: the measured ones of the tier, else its default.

    Measured strict limits need the same instructions too: virtual machines of different processors share names.

    Returns:
        ``None`` if no useful limits exist: the case is unstable at the rounding of another type of device.
    """
    if calibrated is None:
        return default_limits(dtype, tier)
    if tier == OTHER:
        if calibrated.unstable:
            return None
        return calibrated.other or default_limits(dtype, tier)
    strict = tier == STRICT and calibrated.instruction_set == instruction_set(device)
    return calibrated.strict if strict else calibrated.portable


def looser(one: Limits, other: Limits) -> Limits:
    """The looser of each pair of limits."""
    return Limits(
        ssim=min(one.ssim, other.ssim),
        max_diff=max(one.max_diff, other.max_diff),
        changed_share=max(one.changed_share, other.changed_share),
        mean_diff=max(one.mean_diff, other.mean_diff),
        reason=one.reason if one.reason == other.reason else f"{one.reason}; {other.reason}",
    )
