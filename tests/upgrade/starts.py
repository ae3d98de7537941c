"""Starts that no process made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.calls.observe import BETWEEN, DECODER, DENOISER, ENCODER, REST
from bench.upgrade.lockstep import PairedCall, Segments
from bench.upgrade.start import MeasuredPipeline, Start

# One call: seconds of each part in its turn.
CALL: Segments = (
    (REST, 0.2),
    (ENCODER, 1.0),
    (REST, 0.2),
    (DENOISER, 5.0),
    (BETWEEN, 0.5),
    (DENOISER, 5.0),
    (BETWEEN, 0.5),
    (DENOISER, 5.0),
    (BETWEEN, 0.5),
    (DECODER, 2.0),
    (REST, 0.3),
)
SHAPES = {ENCODER: (4, 24), DENOISER: (8, 4, 16, 16), DECODER: (4, 4, 16, 16)}


def slower(part: str, factor: float, segments: Segments = CALL) -> Segments:
    """The call with one part that takes this many times as long."""
    return tuple((name, seconds * (factor if name == part else 1.0)) for name, seconds in segments)


def call(candidate: Segments, baseline: Segments = CALL) -> PairedCall:
    return PairedCall(baseline=baseline, candidate=candidate, shapes=SHAPES)


def start(
    calls: Mapping[str, Sequence[PairedCall]],
    *,
    pipeline: str = "tiny in float32",
    load: float = 1.0,
    first_call: float = 1.0,
    peak: float = 1.0,
    **more: object,
) -> Start:
    """A start with these calls by case; the others are ratios of candidate to baseline."""
    measured = MeasuredPipeline(
        pipeline=pipeline,
        load_s=(1.0, load),
        first_call_s=(1.0, first_call),
        peak_bytes=(1000, round(1000 * peak)),
        calls={case: tuple(found) for case, found in calls.items()},
    )
    return Start.model_validate({"import_s": (5.0, 5.0), "pipelines": (measured,), "seconds": 10.0} | more)
