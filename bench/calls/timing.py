"""What one case costs: first call, phases, peak memory and steady samples, each in a separate pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from bench.calls.device import Device, PeakMemory, clock, measured_memory
from bench.calls.observe import before_call
from bench.calls.optimizations import check_applied_in_call
from bench.calls.phases import Phases
from bench.calls.pipelines import LoadedPipeline
from bench.calls.placement import denoises_on
from bench.calls.sampling import prepare_call, to_images

if TYPE_CHECKING:
    from bench.calls.work import Work
    from bench.suite.case import Case

# Counts what one call of a case does.
Count = Callable[[LoadedPipeline, "Case"], "Work"]


@dataclass(frozen=True)
class Measurement:
    """What was measured of a case.

    Attributes:
        first_call_s: seconds of the first call.
        samples_s: seconds of each round.
        first_images: of the first call.
        phases_images: of the pass with clock readings between the phases.
        images: of the last round; those of the phases pass if there was no round.
        in_pipeline_s: seconds inside pipeline calls, over all passes.
        work: ``None`` where nothing was counted.
    """

    first_call_s: float
    samples_s: tuple[float, ...]
    phases: Phases
    peak_memory: PeakMemory
    first_images: list[Image.Image]
    phases_images: list[Image.Image]
    images: list[Image.Image]
    in_pipeline_s: float
    work: Work | None = None


@dataclass
class _Marks:
    """Clock readings of one call."""

    encoder: list[float] = field(default_factory=list)
    unet: list[float] = field(default_factory=list)
    step_ends: list[float] = field(default_factory=list)
    calls_until_step: list[int] = field(default_factory=list)


def measure_phases(loaded: LoadedPipeline, case: Case, device: Device) -> tuple[Phases, float, Any]:
    """Times the phases of one call; returns them, the seconds of the call and its output.

    Raises:
        WrongDevice: the denoiser did not run on the device.
    """
    pipeline, marks = loaded.pipeline, _Marks()
    arguments = prepare_call(loaded, case)
    step = pipeline.scheduler.step

    @functools.wraps(step)  # diffusers reads its signature to see which arguments it takes
    def timed_step(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        marks.step_ends.append(clock(device))
        marks.calls_until_step.append(len(marks.unet))
        return result

    pipeline.scheduler.step = timed_step
    with contextlib.ExitStack() as stack:
        stack.enter_context(denoises_on(device.torch_device, pipeline.unet))
        stack.enter_context(before_call(pipeline.unet, lambda: marks.unet.append(clock(device))))
        encoder = getattr(pipeline, "text_encoder", None)
        if encoder is not None:
            stack.enter_context(before_call(encoder, lambda: marks.encoder.append(clock(device))))
        began = clock(device)
        output = pipeline(**arguments).images
        ended = clock(device)
    starts = [marks.unet[0], *marks.step_ends[:-1]]
    before = [0, *marks.calls_until_step[:-1]]
    phases = Phases(
        text_encoding=marks.unet[0] - marks.encoder[0] if marks.encoder else None,
        denoising=tuple(end - start for start, end in zip(starts, marks.step_ends, strict=True)),
        unet_calls=tuple(now - then for then, now in zip(before, marks.calls_until_step, strict=True)),
        decoding=ended - marks.step_ends[-1],
    )
    return phases, ended - began, output


def timed_call(pipeline: Any, arguments: Mapping[str, Any], device: Device) -> tuple[Any, float]:
    """The output of one call, and its seconds."""
    began = clock(device)
    output = pipeline(**arguments).images
    return output, clock(device) - began


def measure_rounds(loaded: LoadedPipeline, case: Case, device: Device, rounds: int) -> tuple[list[float], Any]:
    """The seconds of each round, and the output of the last one; ``None`` without rounds."""
    samples, output = [], None
    for _ in range(rounds):
        output, seconds = timed_call(loaded.pipeline, prepare_call(loaded, case), device)
        samples.append(seconds)
    return samples, output


def measure_peak(loaded: LoadedPipeline, case: Case, device: Device) -> tuple[PeakMemory, float]:
    """Peak memory of a call of its own, and the seconds of that call; no call where the device has no counter."""
    peak = device.peak_memory()
    if peak.allocated is None:
        return peak, 0.0
    arguments = prepare_call(loaded, case)
    with measured_memory(device) as peaks:
        _, seconds = timed_call(loaded.pipeline, arguments, device)
    return peaks[0], seconds


def measure(
    loaded: LoadedPipeline, case: Case, device: Device, rounds: int, *, count: Count | None = None
) -> Measurement:
    """Measures a case: the first call, phases, memory, ``rounds`` steady samples, and finally its work.

    Every call gets new generators and a new scheduler. The passes before the samples warm the device up. Counting
    comes after the samples, so that it affects no time.

    Raises:
        NotApplied: a compiling optimization compiled nothing.
        BrokenPicture: the pipeline returned NaN or no pictures.
        WrongDevice: the denoiser did not run on the device.
    """
    pipeline = loaded.pipeline
    output, first_call_s = timed_call(pipeline, prepare_call(loaded, case), device)
    check_applied_in_call(pipeline, case.settings.optimizations)
    first_images = to_images(pipeline, output)

    phases, phases_call_s, output = measure_phases(loaded, case, device)
    phases_images = to_images(pipeline, output)
    del output  # so that the peak is that of one call alone

    peak, memory_call_s = measure_peak(loaded, case, device)
    samples, output = measure_rounds(loaded, case, device, rounds)
    images = to_images(pipeline, output) if samples else phases_images

    work, counting_s = None, 0.0
    if count:
        began = clock(device)
        work = count(loaded, case)
        counting_s = clock(device) - began
    return Measurement(
        first_call_s=first_call_s,
        samples_s=tuple(samples),
        phases=phases,
        peak_memory=peak,
        first_images=first_images,
        phases_images=phases_images,
        images=images,
        in_pipeline_s=first_call_s + phases_call_s + memory_call_s + sum(samples) + counting_s,
        work=work,
    )
