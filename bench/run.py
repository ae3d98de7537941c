"""One run: takes cases, gives records. Knows nothing of pytest."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from bench.calls.compiled import measure_alone
from bench.calls.device import Device, is_simulated
from bench.calls.pipelines import LoadedPipeline, load_pipeline
from bench.calls.raised import RaisedError
from bench.calls.sampling import generate, to_images
from bench.calls.schedulers import UnknownSchedulerOption
from bench.calls.timing import Measurement, measure
from bench.calls.work import Work, count_work, counted_call, forget_compiled
from bench.errors import BenchError
from bench.pictures.accept import accept_difference
from bench.pictures.check import Check, check_golden, same_pixels
from bench.pictures.grids import make_grid, pixels_hash
from bench.pictures.limits import PORTABLE, default_limits
from bench.pictures.outcomes import Difference
from bench.pictures.similarity import compare, difference_picture
from bench.pictures.simulated_work import check_simulated
from bench.pictures.store import Golden, describe_origin, known_difference
from bench.record import environment as environments
from bench.record.folder import RunFolder
from bench.record.nvml import gpu_state
from bench.record.record import Record
from bench.suite.case import Case
from bench.suite.optimizations import compiles
from bench.verdicts import Verdict

# Fields of a record that hold times, or are about one.
TIMES = (
    "seconds",
    "load_s",
    "first_call_s",
    "first_call_cold",
    "samples_s",
    "median_s",
    "mad_s",
    "phases_s",
)


@dataclass(frozen=True)
class GoldenPolicy:
    """Where goldens are, and whether this run may write them.

    Attributes:
        update, errors: see ``check_golden``.
        difference: accept what the cases show as this known difference, and write no golden; see ``accept_difference``.
    """

    root: Path
    update: str | None = None
    difference: Difference | None = None
    errors: bool = False


@dataclass
class Tally:
    """Seconds of a run, to show where they went."""

    loading_s: float = 0.0
    in_pipeline_s: float = 0.0


@dataclass
class Run:
    """Runs cases on one device, one pipeline at a time, and writes the record of each case as soon as it ends.

    Attributes:
        counts_work: whether the work of each case is counted and compared too.
        device_id: which of several devices this is, for the records.
    """

    device: Device
    folder: RunFolder
    goldens: GoldenPolicy
    suite_folder: Path
    environment: dict[str, Any]
    announce: Callable[[str], None] = print
    counts_work: bool = True
    device_id: str | None = None
    tally: Tally = field(default_factory=Tally)
    _key: tuple[Any, ...] | None = None
    _loaded: LoadedPipeline | None = None
    _called: bool = False

    @property
    def environment_key(self) -> str:
        return environments.environment_hash(self.environment)

    def pipeline(self, case: Case) -> LoadedPipeline:
        """The case's pipeline, loaded unless the last case had the same one."""
        settings = case.settings
        key = (case.model, settings.dtype, settings.optimizations)
        if key != self._key:
            self.release()
            self._announce_hub(case)
            began = time.perf_counter()
            self._loaded = load_pipeline(
                case.model,
                settings.dtype,
                settings.optimizations,
                self.device,
                self.suite_folder,
                announce=self.announce,
            )
            self._key, self._called = key, False
            self.tally.loading_s += time.perf_counter() - began
        assert self._loaded is not None
        return self._loaded

    def _announce_hub(self, case: Case) -> None:
        if case.model.source == "hub":
            self.announce(
                f"{case.model.name}: loading {case.model.id} from the hub or its cache; this may take a while"
            )

    def release(self) -> None:
        self._key = self._loaded = None
        gc.collect()
        self.device.empty_cache()

    def benchmark(self, case: Case, rounds: int) -> Record:
        """Measures a case and checks the grid of its last round; see ``measure``.

        A compiled case is measured in a separate process.
        """
        with self._recorded(case) as record:
            if compiles(case.settings.optimizations):
                loaded, measured = self._measure_alone(case, rounds)
                record.update(_origin_of(loaded), first_call_cold=True)
            else:
                loaded = self.pipeline(case)
                record.update(_origin_of(loaded), first_call_cold=not self._called)
                self._called = True
                count = count_work if self.counts_work else None
                measured = measure(loaded, case, self.device, rounds, count=count)
            self.tally.in_pipeline_s += measured.in_pipeline_s
            record.update(_figures(measured), gpu=gpu_state(self.device))
            check = self._check(case, measured.images, loaded, measured.work)
            record.update(
                pixels=_pixels(measured.images), pictures=check.pictures, work=check.work, verdict=check.verdict
            )
            difference = self._unrepeatable(case, measured)
            if difference and Verdict(check.pictures.verdict).passes:
                error = RaisedError(type="NotRepeatable", message=difference)
                record.update(verdict=Verdict.NOT_REPEATABLE, error=error)
        return Record(**record)

    def _measure_alone(self, case: Case, rounds: int) -> tuple[LoadedPipeline, Measurement]:
        self.release()
        began = time.perf_counter()
        loaded, measured = measure_alone(
            case, str(self.device.torch_device), rounds, self.suite_folder, counts_work=self.counts_work
        )
        self.tally.loading_s += time.perf_counter() - began - measured.in_pipeline_s
        return loaded, measured

    def picture(self, case: Case) -> Record:
        """Makes a case's grid once, without timing, and checks it and the work that it took."""
        with self._recorded(case) as record:
            loaded = self.pipeline(case)
            record.update(_origin_of(loaded))
            self._called = True
            began = time.perf_counter()
            images, work, error = self._made(loaded, case)
            self.tally.in_pipeline_s += time.perf_counter() - began
            check = self._check(case, images, loaded, work, error)
            record.update(pixels=_pixels(images), pictures=check.pictures, work=check.work)
            record.update(error=error, verdict=check.verdict)
        return Record(**record)

    def _made(self, loaded: LoadedPipeline, case: Case) -> tuple[list[Image.Image], Work | None, RaisedError | None]:
        """Pictures and work of a case, or what the libraries raise: a golden may be an exception too."""
        try:
            return *self._pictured(loaded, case), None
        except UnknownSchedulerOption as error:
            if not self._may_lack_options(case):
                raise
            return [], None, RaisedError.of(error)
        except BenchError:  # the suite's own, never part of a golden
            raise
        except Exception as error:
            traceback.print_exc()
            return [], None, RaisedError.of(error)

    def _may_lack_options(self, case: Case) -> bool:
        """Whether an unknown option may be a known difference, since older releases have fewer options."""
        asked = self.goldens
        return bool(asked.difference or known_difference(asked.root, case, self.device, self.environment["libraries"]))

    def _pictured(self, loaded: LoadedPipeline, case: Case) -> tuple[list[Image.Image], Work | None]:
        """One call gives pictures and work, except for compiled cases, whose work is counted in a second call."""
        if not self.counts_work:
            return generate(loaded, case), None
        if compiles(case.settings.optimizations):
            forget_compiled()
            return generate(loaded, case), count_work(loaded, case)
        output, work = counted_call(loaded, case)
        return to_images(loaded.pipeline, output), work

    @contextlib.contextmanager
    def _recorded(self, case: Case) -> Iterator[dict[str, Any]]:
        """Collects a record and writes it when the block ends, whether it raised or not."""
        record: dict[str, Any] = {
            "schema": 1,
            "case": case.id,
            "model": case.model.name,
            "settings": case.settings.recorded(),
            "device": self.device.type,
            "device_id": self.device_id,
            "environment": self.environment_key,
            "load_average": environments.load_average(),
            "verdict": Verdict.RAISES,
        }
        self.folder.note_environment(self.environment_key, self.environment)
        began, loading_s = time.perf_counter(), self.tally.loading_s
        try:
            yield record
        except BaseException as error:
            record["error"] = RaisedError.of(error)
            raise
        finally:
            record["seconds"] = time.perf_counter() - began - (self.tally.loading_s - loading_s)
            if is_simulated(self.device):
                for name in TIMES:
                    record.pop(name, None)
            self.folder.append(Record(**record))

    def _check(
        self,
        case: Case,
        images: list[Image.Image],
        loaded: LoadedPipeline,
        work: Work | None,
        error: RaisedError | None = None,
    ) -> Check:
        if images:
            self.folder.save_picture(case.id, _grid(images))
        libraries = self.environment["libraries"]
        origin = describe_origin(case, loaded.weights, loaded.revision, self.device, libraries, work=work, error=error)
        asked, made = self.goldens, (case, images, origin, self.goldens.root, self.device)
        if is_simulated(self.device):
            check = check_simulated(*made, update=bool(asked.update), announce=self.announce)
        elif asked.difference:
            check = accept_difference(*made, difference=asked.difference, announce=self.announce)
        else:
            check = check_golden(*made, update=asked.update, errors=asked.errors, announce=self.announce)
        if check.pictures.verdict != Verdict.IDENTICAL and check.golden and check.golden.tiles:
            self._keep(case, images, check.golden)
        return check

    def _keep(self, case: Case, images: list[Image.Image], golden: Golden) -> None:
        self.folder.save_picture(case.id, make_grid(golden.tiles, golden.tiles[0].size), "golden")
        if images and len(images) == len(golden.tiles) and images[0].size == golden.tiles[0].size:
            self.folder.save_picture(case.id, difference_picture(images, golden.tiles), "difference")

    def _unrepeatable(self, case: Case, measured: Measurement) -> str | None:
        """Which two calls with the same seeds gave different images, and how far apart they are; ``None`` if all agree.

        The call that measures phases must give the same images too: reading the clock changes nothing.
        """
        first, last, phases = measured.first_images, measured.images, measured.phases_images
        difference, which = self._difference(case, first, last), "the last call"
        if not difference:
            difference, which = self._difference(case, first, phases), "the call that measures phases"
        if not difference:
            return None
        for role, images in {"first": first, "phases": phases}.items():
            self.folder.save_picture(case.id, make_grid(images, images[0].size), role)
        return f"the first and {which} with the same seeds differ: {difference}"

    def _difference(self, case: Case, one: list[Image.Image], other: list[Image.Image]) -> str | None:
        """How the images of two calls differ; ``None`` if they do not differ.

        A CPU must repeat itself bit for bit; kernels of accelerators may add in another order.
        """
        if same_pixels(one, other):
            return None
        similarity = compare(other, one)
        if (
            self.device.type != "cpu"
            and similarity.verdict(default_limits(case.settings.dtype, PORTABLE)) != Verdict.CHANGED
        ):
            return None
        return f"SSIM of the worst tile {similarity.ssim_worst_tile:.5f}, largest difference {similarity.max_diff}"


def _grid(images: list[Image.Image]) -> Image.Image:
    return make_grid(images, images[0].size)


def _pixels(images: list[Image.Image]) -> str | None:
    return pixels_hash(_grid(images)) if images else None


def _origin_of(loaded: LoadedPipeline) -> dict[str, Any]:
    return {"revision": loaded.revision, "weights": loaded.weights, "load_s": loaded.load_s}


def _figures(measured: Measurement) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "first_call_s": measured.first_call_s,
        "samples_s": measured.samples_s,
        "unet_calls": sum(measured.phases.unet_calls),
        "phases_s": measured.phases,
        "peak_memory_bytes": measured.peak_memory.allocated,
        "peak_memory_reason": measured.peak_memory.reason,
        "peak_reserved_bytes": measured.peak_memory.reserved,
        "peak_reserved_reason": measured.peak_memory.reserved_reason,
    }
    if measured.samples_s:
        median = statistics.median(measured.samples_s)
        figures |= {
            "median_s": median,
            "mad_s": statistics.median(abs(sample - median) for sample in measured.samples_s),
        }
    return figures
