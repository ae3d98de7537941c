"""One setting, measured: its pictures, its time, its memory."""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from bench.calls.device import Device
from bench.calls.optimizations import check_applied_in_call
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.sampling import generate, to_images
from bench.calls.timing import measure_peak, measure_rounds
from bench.suite.case import Case
from bench.suite.tuning import calls_of
from bench.tune.quality import Measure, likeness, mean_ssim
from bench.tune.result import Tried, seconds_of
from bench.tune.space import Space

# Calls after the first one that a time needs at least.
FEWEST_SAMPLES = 2
# Pipelines that are kept between trials; a model whose weights take more than this share of the memory is loaded again.
MOST_KEPT, LARGEST_KEPT = 8, 0.04


@dataclass
class _Kept:
    """A pipeline, and what its first call of a shape took more than a later one, by pictures per call."""

    loaded: LoadedPipeline
    extra_s: dict[tuple[int, bool], float] = field(default_factory=dict)


@dataclass
class Studio:
    """Draws and measures settings on one device, and keeps their pipelines loaded where they are small."""

    device: Device
    suite_folder: Path
    space: Space
    measure: Measure = mean_ssim
    min_quality: float = 0.0
    _pipelines: OrderedDict[tuple[str, tuple[str, ...]], _Kept] = field(default_factory=OrderedDict)

    def draw(self, case: Case) -> list[Image.Image]:
        """All pictures of a setting."""
        loaded = self._pipeline(case).loaded
        return [image for call in calls_of(case, self.space.tuning) for image in generate(loaded, call)]

    def time(self, case: Case) -> float:
        """Seconds per picture of one call."""
        loaded = self._pipeline(case).loaded
        (seconds,), _ = measure_rounds(loaded, case, self.device, 1)
        return seconds / case.settings.images

    def try_case(self, case: Case, references: Sequence[Image.Image]) -> Tried:
        """Draws and measures all pictures; those of the first call alone if they are below the lowest quality.

        Args:
            references: the pictures that these should be, in the order of ``draw``.

        Raises:
            NotApplied: a speed setting had no effect.
            BrokenPicture: the pipeline returned NaN.
        """
        began = time.perf_counter()
        kept = self._pipeline(case)
        loaded, per_call = kept.loaded, case.settings.images
        images: list[Image.Image] = []
        seconds: list[float] = []
        calls = calls_of(case, self.space.tuning)
        complete = True
        for number, call in enumerate(calls):
            (took,), output = measure_rounds(loaded, call, self.device, 1)
            images += to_images(loaded.pipeline, output)
            seconds.append(took)
            if number == 0:
                check_applied_in_call(loaded.pipeline, case.settings.optimizations)
                first = self.measure(images, references[: len(images)], self._prompts(len(images)))
                if first < self.min_quality:
                    complete = False
                    break
        del output  # so that the peak is that of one call alone
        peak, _ = measure_peak(loaded, case, self.device)
        wanted = 1 + (FEWEST_SAMPLES if complete else 1)
        seconds += measure_rounds(loaded, case, self.device, wanted - len(seconds))[0]
        found = likeness(images, references[: len(images)], self._prompts(len(images)), self.measure)
        samples = [one / per_call for one in seconds[1:]]
        shape = per_call, (case.settings.guidance or 0) > 1
        kept.extra_s.setdefault(shape, max(0.0, seconds[0] - per_call * seconds_of(samples)))
        return Tried(
            case=case.id,
            settings=case.settings.recorded(),
            seconds=seconds_of(samples),
            samples_s=tuple(samples),
            # A later setting with the same pipeline finds it warm; a user who chooses that setting does not.
            first_call_s=per_call * seconds_of(samples) + kept.extra_s.get(shape, 0.0),
            cost_s=time.perf_counter() - began,
            quality=found.quality,
            ssim=found.ssim,
            flip=found.flip,
            peak_bytes=peak.allocated,
            complete=complete,
        )

    def _prompts(self, count: int) -> list[str]:
        tuning = self.space.tuning
        return (list(tuning.prompts) * len(tuning.seeds))[:count]

    def _pipeline(self, case: Case) -> _Kept:
        settings = case.settings
        key = settings.dtype, settings.optimizations
        if key not in self._pipelines:
            self._make_room()
            loaded = load_pipeline(case.model, settings.dtype, settings.optimizations, self.device, self.suite_folder)
            self._pipelines[key] = _Kept(loaded)
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def _make_room(self) -> None:
        while self._pipelines and (len(self._pipelines) >= MOST_KEPT or not self._is_small()):
            self._pipelines.popitem(last=False)
            gc.collect()
            self.device.empty_cache()

    def _is_small(self) -> bool:
        memory = self.device.total_memory
        newest = next(reversed(self._pipelines.values())).loaded.pipeline
        held = sum(
            weight.numel() * weight.element_size()
            for part in newest.components.values()
            if hasattr(part, "parameters")
            for weight in part.parameters()
        )
        return memory is not None and held <= LARGEST_KEPT * memory
