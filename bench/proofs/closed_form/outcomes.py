"""What a setting gives: final samples, or the exception that it raises; and how far rounding may move it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from bench.calibration.prediction import prediction_bound
from bench.proofs.closed_form.networks import perfect_network
from bench.proofs.closed_form.rounding import Twin
from bench.proofs.closed_form.sampling import NotInDiffusers, build, run
from bench.proofs.closed_form.settings import Setting
from bench.verdicts import verdict_of_errors

# Standard normal numbers, written down so that no generator can change them. Fewer than 16, because from 16 on torch
# draws the noise of stochastic schedulers with vector instructions, which differ between processors.
NOISE = torch.tensor((0.7, -1.2, 0.4, 1.6, -0.9, 0.5, -1.7, 0.1), dtype=torch.float64).reshape(2, 4, 1, 1)
SEED = 0

# Smallest limits of the difference from a golden, as a part of the value, or of 1 where that is larger. Samples start
# as large as 128, whose last float32 place is 1.5e-5, and MKL's logarithms on processors that it does not know differ
# by two such places; half precision is allowed one place of the value.
FLOORS = {"float32": 3e-5, "bfloat16": 2**-7, "float16": 2**-10}
TWINS = 16
FALSE_ALARM = 1e-4  # per setting and machine
# Where rounding alone may move a number by more than a tenth of itself, the number says nothing.
ILL_CONDITIONED = 0.1

Outcome = tuple[float, ...] | str


@dataclass(frozen=True)
class Difference:
    """A setting that no longer gives its golden, in one sentence."""

    setting: str
    sentence: str


def outcome(setting: Setting, twin: int | None = None) -> Outcome:
    """Final samples (8 numbers), or type and first line of the exception.

    Args:
        twin: number of a rounding twin; ``None`` for the setting itself.

    Raises:
        NotInDiffusers: this release of diffusers does not have the scheduler or an option.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = build(setting.class_name, setting.options)
            network = perfect_network(setting.family, scheduler.config)
            noise = NOISE.to(getattr(torch, setting.dtype))
            path = run(
                scheduler, network, noise, setting.steps,
                step_options=setting.step_options, seed=SEED, twin=None if twin is None else Twin(twin),
            )  # fmt: skip
            final = path.samples[-1]
    except NotInDiffusers:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__}: {first}".rstrip(": ")
    return tuple(final.to(torch.float64).flatten().tolist())


def _far(value: float, golden: float, limit: float) -> bool:
    if not math.isfinite(value) or not math.isfinite(golden):
        return repr(value) != repr(golden)
    return abs(value - golden) > limit * max(1.0, abs(golden))


def measured_limit(setting: Setting, golden: Outcome) -> float:
    """How far the numbers of a setting may be from its golden, as a part of the value or of 1.

    It follows from the distances of rounding twins: the bound that one more machine exceeds with a chance of
    ``FALSE_ALARM`` (see ``bench.calibration.prediction``), and at least the floor of the dtype. Infinite where a twin
    raises or is not finite.
    """
    floor = FLOORS[setting.dtype]
    if isinstance(golden, str) or not all(map(math.isfinite, golden)):
        return floor
    distances = []
    for number in range(TWINS):
        found = outcome(setting, number)
        if isinstance(found, str) or not all(map(math.isfinite, found)):
            return math.inf
        pairs = zip(found, golden, strict=True)
        distances.append(max(abs(value - wanted) / max(1.0, abs(wanted)) for value, wanted in pairs))
    return prediction_bound(distances, floor, FALSE_ALARM)


def compare(setting: Setting, now: Outcome, golden: Outcome, limit: float | None = None) -> Difference | None:
    """The worst number that is not its golden, with both values; ``None`` within the limit.

    Args:
        limit: as ``measured_limit`` gives it; ``None`` for the floor of the dtype. For an ill-conditioned setting, only
            whether its numbers are finite is compared.
    """
    limit = FLOORS[setting.dtype] if limit is None else limit
    if isinstance(now, str) or isinstance(golden, str):
        if now == golden:
            return None
        verdict = verdict_of_errors(*(one if isinstance(one, str) else None for one in (golden, now)))
        return Difference(setting.id, f"{verdict}: {now}, golden {golden}")
    if limit > ILL_CONDITIONED:
        limit = math.inf
    far = [(value, wanted) for value, wanted in zip(now, golden, strict=True) if _far(value, wanted, limit)]
    if not far:
        return None
    value, wanted = max(far, key=lambda pair: _distance(*pair))
    allowed = limit * max(1.0, abs(wanted))
    return Difference(
        setting.id,
        f"{value:.9g}, golden {wanted:.9g}, difference {value - wanted:.3g} (limit {allowed:.1g});"
        f" {len(far)} of {len(now)} numbers",
    )


def _distance(value: float, golden: float) -> float:
    distance = abs(value - golden)
    return distance if math.isfinite(distance) else math.inf
